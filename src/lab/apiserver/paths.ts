/** `/api/v1/namespaces/NS/services/NAME/status` and the like. */
import { resourceAt, type Resource, type Subresource } from './resources.ts';

export interface ResourcePath {
  readonly kind: 'resource';
  readonly resource: Resource;
  /** Empty: cluster-scoped, or all namespaces. */
  readonly namespace: string;
  /** Empty: the collection. */
  readonly name: string;
  readonly subresource: '' | Subresource;
}

export interface ReviewPath {
  readonly kind: 'review';
  readonly name: 'selfsubjectaccessreviews' | 'selfsubjectreviews';
}

const reviewPaths: Readonly<Record<string, ReviewPath['name']>> = {
  '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews': 'selfsubjectaccessreviews',
  '/apis/authentication.k8s.io/v1/selfsubjectreviews': 'selfsubjectreviews',
};

/** undefined: there is nothing at this path. */
export function parsePath(pathname: string): ResourcePath | ReviewPath | undefined {
  const review = reviewPaths[pathname];
  if (review !== undefined) return { kind: 'review', name: review };
  let steps: string[];
  try {
    steps = pathname.split('/').slice(1).map(decodeURIComponent);
  } catch {
    // Not percent-encoded as it should be: no resource has such a path.
    return undefined;
  }
  const root = steps.shift();
  const group = root === 'apis' ? steps.shift() : root === 'api' ? '' : undefined;
  const version = steps.shift();
  if (group === undefined || version === undefined) return undefined;
  let namespace = '';
  if (
    steps[0] === 'namespaces' &&
    steps.length > 2 &&
    resourceAt(group, version, steps[2] ?? '') !== undefined
  ) {
    namespace = steps[1] ?? '';
    steps = steps.slice(2);
  }
  const [plural = '', name = '', subresource = '', ...more] = steps;
  const resource = resourceAt(group, version, plural);
  if (resource === undefined || more.length > 0) return undefined;
  if (resource.namespaced && namespace === '' && name !== '') return undefined;
  if (!resource.namespaced && namespace !== '') return undefined;
  if (subresource !== '' && !(resource.subresources as readonly string[]).includes(subresource))
    return undefined;
  return { kind: 'resource', resource, namespace, name, subresource: subresource as '' | Subresource };
}
