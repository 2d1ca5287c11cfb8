/**
 * From a change set to the least that has to be written: chains that differ, single rules in the dispatch chains.
 *
 * Order of commits. filter refuses what nat did not translate, so a refusal that stands while nat translates harms
 * nobody, and a translation that stands while filter refuses works. Hence refusals are added before nat changes and
 * removed after it: from 0 to 1 endpoints, nat translates before the refusal goes; from 1 to 0, the refusal is there
 * when nat stops. No packet that has endpoints is ever refused, and none without endpoints is ever lost in silence.
 */
import type { ChangeSet, ServicePortId } from '../../services/types.ts';
import { largeClusterEndpoints } from './document.ts';
import { ownChainTexts, type Applied, type Mirror } from './mirror.ts';
import { nodePortsChain, servicesChain } from './names.ts';
import { documentOf, Section, type RestoreDocument } from './restoreDocument.ts';
import type { Rule } from '../../linux/iptables/rule.ts';
import { dispatchRules } from './serviceRules.ts';

export interface Limits {
  /** Lines of one document that makes chains which nothing refers to yet. */
  readonly chunkLines: number;
  /** Lines up to which live chains are replaced in one commit. Beyond it, by groups of service ports. */
  readonly atomicLines: number;
}

/**
 * nft: the cost of a commit grows with the square of its size, so big ones go in parts (4,000 lines are about 100
 * services of 10 endpoints; measured best at 5,000 x 10). legacy: every commit replaces the table, so all goes in one.
 */
export const nftLimits: Limits = { chunkLines: 4000, atomicLines: 40_000 };
export const legacyLimits: Limits = { chunkLines: Infinity, atomicLines: Infinity };

/** Deleting a rule makes iptables compare it with all rules of the chain; from this many on, writing the chain anew is cheaper. */
const manyDeletions = 50;

export interface PartialPlan {
  readonly documents: readonly RestoreDocument[];
  /** To be called when all documents are in the kernel. */
  apply(): void;
}

export function planPartial(
  mirror: Mirror,
  changes: ChangeSet,
  tail: readonly Rule[],
  limits: Limits,
): PartialPlan {
  const { settings } = mirror;
  const updates = new Map<ServicePortId, Applied | undefined>();
  let endpoints = mirror.endpoints;
  for (const { id, after } of changes.changes) {
    const before = mirror.applied.get(id);
    if (before?.route === after) continue;
    endpoints += (after?.endpoints.length ?? 0) - (before?.route.endpoints.length ?? 0);
    updates.set(id, undefined);
  }
  const comments = endpoints <= largeClusterEndpoints;
  for (const { id, after } of changes.changes) {
    if (updates.has(id)) updates.set(id, after === undefined ? undefined : { route: after, comments });
  }

  const documents: RestoreDocument[] = [];
  const refuse = new Section('filter');
  const unrefuse = new Section('filter');
  let created = new Section('nat');
  let live = new Section('nat');
  const stale: string[] = [];
  const natAdded: Rule[] = [];
  const natRemoved: Rule[] = [];
  const filterRemoved: Rule[] = [];
  let filterCount = mirror.filter;
  let natCount = mirror.nat;

  for (const [id, after] of updates) {
    const before = mirror.applied.get(id);
    const oldTexts =
      before === undefined ? undefined : ownChainTexts(before.route, settings, before.comments);
    const newTexts = after === undefined ? undefined : ownChainTexts(after.route, settings, after.comments);
    if (newTexts !== undefined) {
      for (const [chain, { text, count }] of newTexts) {
        natCount += count;
        const old = oldTexts?.get(chain);
        if (old?.text === text) continue;
        const section = old === undefined ? created : live;
        section.chain(chain);
        section.text(text, count);
      }
    }
    if (oldTexts !== undefined) {
      for (const [chain, { count }] of oldTexts) {
        natCount -= count;
        if (newTexts?.has(chain) !== true) stale.push(chain);
      }
    }
    const oldRules = before === undefined ? undefined : dispatchRules(before.route, settings);
    const newRules = after === undefined ? undefined : dispatchRules(after.route, settings);
    natCount += (newRules?.nat.length ?? 0) - (oldRules?.nat.length ?? 0);
    filterCount += (newRules?.filter.length ?? 0) - (oldRules?.filter.length ?? 0);
    compareRules(oldRules?.nat ?? [], newRules?.nat ?? [], natAdded, natRemoved);
    const filterAdded: Rule[] = [];
    compareRules(oldRules?.filter ?? [], newRules?.filter ?? [], filterAdded, filterRemoved);
    for (const rule of filterAdded) refuse.append(rule.chain, rule.args);
    if (created.lines >= limits.chunkLines) {
      documents.push(documentOf('chains', 'chains of new services', [created]));
      created = new Section('nat');
    }
    if (live.lines >= limits.atomicLines) {
      // Chains made so far must be there before these refer to them. Each service port stays consistent in itself.
      documents.push(documentOf('chains', 'chains of new endpoints', [created]));
      documents.push(documentOf('switch', 'changed services', [live]));
      created = new Section('nat');
      live = new Section('nat');
    }
  }

  const switched = new Section('nat');
  switched.chains = created.chains + live.chains;
  switched.text(created.rules + live.rules, created.count + live.count);
  switched.lines += created.lines + live.lines;
  natCount += tail.length - mirror.tail.length;
  writeDispatch(switched, mirror, updates, tail, natAdded, natRemoved);
  for (const chain of stale) switched.chain(chain);
  for (const chain of stale) switched.deleteChain(chain);

  if (filterRemoved.length > manyDeletions) rewriteFilter(unrefuse, mirror, updates, filterRemoved);
  else for (const rule of filterRemoved) unrefuse.delete(rule.chain, rule.args);

  const last = documentOf('switch', 'changed services', [refuse, switched, unrefuse]);
  if (last.text !== '') documents.push(last);
  return {
    documents,
    apply() {
      for (const [id, applied] of updates) {
        if (applied === undefined) mirror.applied.delete(id);
        else mirror.applied.set(id, applied);
      }
      mirror.endpoints = endpoints;
      mirror.tail = tail;
      mirror.filter = filterCount;
      mirror.nat = natCount;
    },
  };
}

/** Adds what only `after` has to `added`, what only `before` has to `removed`. Lists are short: a handful of frontends. */
function compareRules(before: readonly Rule[], after: readonly Rule[], added: Rule[], removed: Rule[]): void {
  for (const rule of after) if (!before.some((other) => sameRule(rule, other))) added.push(rule);
  for (const rule of before) if (!after.some((other) => sameRule(rule, other))) removed.push(rule);
}

function sameRule(a: Rule, b: Rule): boolean {
  return a.chain === b.chain && a.args === b.args;
}

function sameRules(a: readonly Rule[], b: readonly Rule[]): boolean {
  return a.length === b.length && a.every((rule, i) => sameRule(rule, b[i] as Rule));
}

function writeDispatch(
  section: Section,
  mirror: Mirror,
  updates: ReadonlyMap<ServicePortId, Applied | undefined>,
  tail: readonly Rule[],
  added: readonly Rule[],
  removed: readonly Rule[],
): void {
  for (const chain of [servicesChain, nodePortsChain]) {
    const gone = removed.filter((rule) => rule.chain === chain);
    if (gone.length > manyDeletions) {
      section.chain(chain);
      for (const route of routesAfter(mirror, updates)) {
        for (const rule of dispatchRules(route, mirror.settings).nat) {
          if (rule.chain === chain) section.append(chain, rule.args);
        }
      }
      if (chain === servicesChain) for (const rule of tail) section.append(chain, rule.args);
      continue;
    }
    // A node port's two rules have an order (the counted one first): inserted at the top, so last one first.
    for (let i = added.length - 1; i >= 0; i--) {
      const rule = added[i] as Rule;
      if (rule.chain === chain) section.insert(chain, rule.args);
    }
    for (const rule of gone) section.delete(chain, rule.args);
    if (chain === servicesChain && !sameRules(mirror.tail, tail)) {
      for (const rule of mirror.tail) section.delete(chain, rule.args);
      for (const rule of tail) section.append(chain, rule.args);
    }
  }
}

function rewriteFilter(
  section: Section,
  mirror: Mirror,
  updates: ReadonlyMap<ServicePortId, Applied | undefined>,
  removed: readonly Rule[],
): void {
  const chains = new Set(removed.map((rule) => rule.chain));
  for (const chain of chains) section.chain(chain);
  for (const route of routesAfter(mirror, updates)) {
    for (const rule of dispatchRules(route, mirror.settings).filter) {
      if (chains.has(rule.chain)) section.append(rule.chain, rule.args);
    }
  }
}

function* routesAfter(
  mirror: Mirror,
  updates: ReadonlyMap<ServicePortId, Applied | undefined>,
): Generator<Applied['route']> {
  for (const [id, { route }] of mirror.applied) if (!updates.has(id)) yield route;
  for (const applied of updates.values()) if (applied !== undefined) yield applied.route;
}
