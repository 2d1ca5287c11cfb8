/** What the daemon tells the cluster in events: about its node, and about Services whose health check it cannot serve. */
import { hostname } from 'node:os';
import type { ApiClient } from '../cluster/apiClient.ts';
import type { Logger } from '../log/logger.ts';

export interface NodeEventsOptions {
  readonly client: ApiClient;
  readonly nodeName: string;
  readonly log: Logger;
}

export class NodeEvents {
  private readonly options: NodeEventsOptions;

  constructor(options: NodeEventsOptions) {
    this.options = options;
  }

  starting(): void {
    this.node('Normal', 'Starting', '');
  }

  bindFailed(server: 'healthz' | 'metrics', text: string): void {
    const reason = server === 'healthz' ? 'FailedToStartProxierHealthcheck' : 'FailedToStartMetricServer';
    this.node('Warning', reason, text);
  }

  ipvsDeprecated(): void {
    this.node(
      'Warning',
      'IPVSDeprecation',
      'The ipvs proxy mode is deprecated; nftables mode is its successor',
    );
  }

  serviceHealthFailed(namespace: string, name: string, note: string): void {
    this.send(
      { kind: 'Service', namespace, name },
      'Warning',
      'FailedToStartServiceHealthcheck',
      'Listen',
      note,
    );
  }

  private node(type: 'Normal' | 'Warning', reason: string, note: string): void {
    const regarding = { kind: 'Node', namespace: '', name: this.options.nodeName };
    this.send(regarding, type, reason, 'StartKubeProxy', note);
  }

  private send(
    regarding: { kind: string; namespace: string; name: string },
    type: 'Normal' | 'Warning',
    reason: string,
    action: string,
    note: string,
  ): void {
    const { client, log } = this.options;
    const now = Date.now();
    const namespace = regarding.namespace === '' ? 'default' : regarding.namespace;
    const object = regarding.namespace === '' ? {} : { namespace: regarding.namespace };
    const body = {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name: `${regarding.name}.${(BigInt(now) * 1_000_000n).toString(16)}`, namespace },
      eventTime: `${new Date(now).toISOString().slice(0, -1)}000Z`,
      reportingController: 'kube-proxy',
      reportingInstance: `kube-proxy-${hostname()}`,
      action,
      reason,
      type,
      note,
      regarding: { apiVersion: 'v1', kind: regarding.kind, name: regarding.name, ...object },
    };
    client
      .write({ verb: 'create', path: `/apis/events.k8s.io/v1/namespaces/${namespace}/events`, body })
      .catch((err: unknown) => log.error('Unable to write event', { reason, err }));
  }
}
