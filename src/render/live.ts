/** The objects of a live cluster, listed once. */
import { ApiClient } from '../cluster/apiClient.ts';
import { loadConnection } from '../cluster/connection.ts';
import { Reflector } from '../cluster/reflector.ts';
import { endpointSlices, nodeNamed, serviceCIDRs, services, type Resource } from '../cluster/resources.ts';
import type { ApiObject, EndpointSlice, Node, Service, ServiceCIDR } from '../api/objects.ts';
import type { ManifestProblem } from '../cluster/manifests.ts';
import type { ProxyConfig } from '../config/types.ts';
import type { Logger } from '../log/logger.ts';
import { pointsmanVersion } from '../version.ts';
import type { ClusterObjects } from './cluster.ts';

/** Milliseconds that a list may take; and that are given to one that has failed, for it may be a passing fault. */
const patience = 30_000;
const patienceAfterFailure = 5000;

export type ApiAccess = Pick<ProxyConfig, 'clientConnection' | 'master'>;

/** @param nodeName empty = all Nodes. Rejects with a sentence if the API server does not answer. */
export async function readLiveCluster(
  { clientConnection, master }: ApiAccess,
  nodeName: string,
  log: Logger,
): Promise<ClusterObjects> {
  const { kubeconfig, contentType, acceptContentTypes, qps, burst } = clientConnection;
  const connection = await loadConnection({ kubeconfig, master, log });
  const userAgent = `pointsman/${pointsmanVersion}`;
  const client = new ApiClient({ connection, contentType, acceptContentTypes, qps, burst, userAgent, log });
  const problems: ManifestProblem[] = [];
  const nodes: Resource<Node> = { ...nodeNamed(nodeName), ...(nodeName === '' && { fieldSelector: '' }) };
  const all = await Promise.all([
    list<Service>(client, services, problems, log),
    list<EndpointSlice>(client, endpointSlices, problems, log),
    list<Node>(client, nodes, problems, log),
    list<ServiceCIDR>(client, serviceCIDRs, problems, log),
  ]);
  return {
    services: all[0],
    slices: all[1],
    nodes: all[2],
    serviceCIDRs: all[3],
    sources: new Map(),
    others: [],
    passedOver: [],
    problems: problems.map((problem) => ({ ...problem, file: 'API server' })),
  };
}

async function list<T extends ApiObject>(
  client: ApiClient,
  resource: Resource<T>,
  problems: ManifestProblem[],
  log: Logger,
): Promise<T[]> {
  const found = new Map<string, T>();
  const put = (object: T): void => {
    found.set(`${object.meta.namespace}/${object.meta.name}`, object);
  };
  let timer: NodeJS.Timeout | undefined;
  let hasFailed = false;
  let reflector: Reflector<T> | undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      const giveUpAfter = (milliseconds: number, reason: string): void => {
        clearTimeout(timer);
        const message = `the API server did not list ${resource.name} within ${milliseconds / 1000} s${reason}`;
        timer = setTimeout(() => reject(new Error(message)), milliseconds);
      };
      giveUpAfter(patience, '');
      // What goes wrong on the way is told once, with the refusal: there are several lists at a time.
      const error: Logger['error'] = (message, fields = {}) => {
        const { err } = fields;
        const reason = err instanceof Error ? err.message : typeof err === 'string' ? err : message;
        if (!hasFailed) giveUpAfter(patienceAfterFailure, `: ${reason}`);
        hasFailed = true;
      };
      const quiet: Logger = { ...log, error, with: () => quiet };
      reflector = new Reflector({
        client,
        resource,
        handler: {
          add: put,
          update: (_old, object) => put(object),
          delete: ({ meta }) => found.delete(`${meta.namespace}/${meta.name}`),
          synced: () => resolve(),
        },
        log: quiet,
        hooks: {
          problem: ({ kind, object, field, message }) =>
            problems.push({ file: '', line: 0, column: 0, object: `${kind} ${object}`, field, message }),
        },
      });
      reflector.start();
    });
  } finally {
    clearTimeout(timer);
    await reflector?.stop();
  }
  return [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, object]) => object);
}
