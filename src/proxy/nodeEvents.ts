/** What the daemon tells the cluster in events: about its node, and about Services whose health check it cannot serve. */
import { hostname } from 'node:os';
import type { ApiClient } from '../cluster/apiClient.ts';
import { EventRecorder } from '../cluster/events.ts';
import type { Logger } from '../log/logger.ts';

export interface NodeEventsOptions {
  readonly client: Pick<ApiClient, 'write'>;
  readonly nodeName: string;
  readonly log: Logger;
}

/** Events under the reasons kube-proxy gives; delivered in the background. */
export class NodeEvents {
  private readonly nodeName: string;
  private readonly recorder: EventRecorder;

  constructor(options: NodeEventsOptions) {
    const { client, nodeName, log } = options;
    this.nodeName = nodeName;
    this.recorder = new EventRecorder({ client, hostName: hostname(), log });
  }

  starting(): void {
    this.node('Normal', 'Starting', '');
  }

  /** A server's port could not be opened. */
  bindFailed(server: 'healthz' | 'metrics', note: string): void {
    const reason = server === 'healthz' ? 'FailedToStartProxierHealthcheck' : 'FailedToStartMetricServer';
    this.node('Warning', reason, note);
  }

  ipvsDeprecated(): void {
    const note = 'The ipvs proxy mode is deprecated; nftables mode is its successor';
    this.node('Warning', 'IPVSDeprecation', note);
  }

  /** Somebody else changed rules of ours. */
  rulesChanged(note: string): void {
    this.node('Warning', 'ServiceRulesChanged', note, 'WatchRules');
  }

  /** A health-check node port could not be opened. */
  serviceHealthFailed(namespace: string, name: string, note: string): void {
    this.recorder.record(
      { kind: 'Service', namespace, name },
      { type: 'Warning', reason: 'FailedToStartServiceHealthcheck', action: 'Listen', note },
    );
  }

  /** Gives what is queued a moment to be delivered, before the process ends. */
  flush(): Promise<void> {
    return this.recorder.flush(1000);
  }

  private node(
    type: 'Normal' | 'Warning',
    reason: string,
    note: string,
    action: 'StartKubeProxy' | 'WatchRules' = 'StartKubeProxy',
  ): void {
    const subject = { kind: 'Node', namespace: '', name: this.nodeName } as const;
    this.recorder.record(subject, { type, reason, action, note });
  }
}
