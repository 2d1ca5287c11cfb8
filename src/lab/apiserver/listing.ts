/** Lists: selectors, pages that stay at their revision, and the meaning of `resourceVersion`. */
import type { ListMeta } from './encoding.ts';
import { storageKey, type KubeObject } from './objects.ts';
import type { Resource } from './resources.ts';
import { parseFieldSelector, parseLabelSelector } from './selectors.ts';
import { ApiError, badRequest, expired, tooLargeResourceVersion } from './status.ts';
import type { Store } from './store.ts';

export interface ListQuery {
  /** Empty: all namespaces. */
  readonly namespace?: string;
  readonly labelSelector?: string | undefined;
  readonly fieldSelector?: string | undefined;
  /** 0 = no limit */
  readonly limit?: number;
  readonly continue?: string | undefined;
  readonly resourceVersion?: string | undefined;
  readonly resourceVersionMatch?: string | undefined;
}

export interface ListResult {
  readonly meta: ListMeta;
  readonly items: readonly KubeObject[];
}

const oldContinue =
  'The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.';

interface ContinueToken {
  readonly rv: number;
  /** Key of the last object of the page before. */
  readonly after: string;
}

function writeToken(token: ContinueToken): string {
  return Buffer.from(JSON.stringify({ v: 'meta.k8s.io/v1', ...token })).toString('base64url');
}

function readToken(text: string): ContinueToken {
  try {
    const token = JSON.parse(Buffer.from(text, 'base64url').toString()) as Partial<ContinueToken>;
    if (typeof token.rv === 'number' && typeof token.after === 'string')
      return { rv: token.rv, after: token.after };
  } catch {
    // Not JSON: refused below, like any other token that is not ours.
  }
  throw badRequest('continue key is not valid: it was not made by this server');
}

/** A revision as clients write it. Throws 400. */
export function parseRevision(text: string): number {
  if (!/^\d{1,15}$/.test(text)) {
    throw badRequest(`invalid resourceVersion ${JSON.stringify(text)}: must be a number`);
  }
  return Number(text);
}

/** Whether an object is in a list or watch; undefined = everything is. Throws 400 for bad selectors. */
export function matcherOf(
  resource: Resource,
  query: Pick<ListQuery, 'namespace' | 'labelSelector' | 'fieldSelector'>,
): ((object: KubeObject) => boolean) | undefined {
  const labels = parseLabelSelector(query.labelSelector);
  const fields = parseFieldSelector(query.fieldSelector, resource.kind, resource.fields);
  const namespace = query.namespace ?? '';
  if (labels === undefined && fields === undefined && namespace === '') return undefined;
  return (object) =>
    (namespace === '' || object.metadata.namespace === namespace) &&
    (labels === undefined || labels(object.metadata.labels)) &&
    (fields === undefined || fields(object));
}

function keyOf(object: KubeObject): string {
  return storageKey(object.metadata.namespace ?? '', object.metadata.name);
}

function revisionOf(store: Store, query: ListQuery): { revision: number; exact: boolean } {
  const { resourceVersion, resourceVersionMatch: match } = query;
  if (match && !resourceVersion) {
    throw new ApiError(
      422,
      'Invalid',
      'resourceVersionMatch is forbidden unless resourceVersion is provided',
    );
  }
  if (match && match !== 'Exact' && match !== 'NotOlderThan') {
    throw new ApiError(422, 'Invalid', `resourceVersionMatch: Unsupported value: ${JSON.stringify(match)}`);
  }
  if (!resourceVersion || resourceVersion === '0') return { revision: store.revision, exact: false };
  const wanted = parseRevision(resourceVersion);
  if (wanted > store.revision) throw tooLargeResourceVersion(wanted, store.revision);
  // Without a match rule, a limited list at a revision is at exactly that revision.
  const exact = match === 'Exact' || (match === undefined && (query.limit ?? 0) > 0);
  return exact ? { revision: wanted, exact } : { revision: store.revision, exact };
}

export function listObjects(store: Store, resource: Resource, query: ListQuery): ListResult {
  const limit = query.limit ?? 0;
  const matches = matcherOf(resource, query);
  let items: readonly KubeObject[];
  let revision: number;
  let start = 0;
  if (query.continue) {
    if (query.resourceVersion && query.resourceVersion !== '0') {
      throw badRequest('specifying resource version is not allowed when using continue');
    }
    const token = readToken(query.continue);
    revision = token.rv;
    if (revision > store.revision) throw expired(oldContinue);
    items = store.listAt(resource.storage, revision, oldContinue);
    start = firstAfterKey(items, token.after);
  } else {
    const at = revisionOf(store, query);
    revision = at.revision;
    const gone = `The resourceVersion for the provided list is too old.`;
    items = at.exact ? store.listAt(resource.storage, revision, gone) : store.list(resource.storage);
  }
  const meta = { resourceVersion: String(revision), continue: '', remainingItemCount: undefined };
  if (limit === 0 && start === 0) {
    return { meta, items: matches === undefined ? items : items.filter(matches) };
  }
  const page: KubeObject[] = [];
  for (let index = start; index < items.length; index++) {
    const object = items[index] as KubeObject;
    if (matches !== undefined && !matches(object)) continue;
    if (limit > 0 && page.length === limit) {
      const last = page.at(-1) as KubeObject;
      const token = writeToken({ rv: revision, after: keyOf(last) });
      const selects = Boolean(query.labelSelector) || Boolean(query.fieldSelector);
      const remaining = selects ? undefined : countFrom(items, index, matches);
      return { meta: { ...meta, continue: token, remainingItemCount: remaining }, items: page };
    }
    page.push(object);
  }
  return { meta, items: page };
}

function countFrom(
  items: readonly KubeObject[],
  start: number,
  matches: ((object: KubeObject) => boolean) | undefined,
): number {
  if (matches === undefined) return items.length - start;
  let count = 0;
  for (let index = start; index < items.length; index++) if (matches(items[index] as KubeObject)) count++;
  return count;
}

function firstAfterKey(items: readonly KubeObject[], key: string): number {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (keyOf(items[middle] as KubeObject) <= key) low = middle + 1;
    else high = middle;
  }
  return low;
}
