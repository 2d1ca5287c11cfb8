/** Joins the running daemon to its status socket and to the metrics of connections. */
import type { Node } from '../api/objects.ts';
import type { ObjectProblem } from '../cluster/decode/problem.ts';
import { toDocument } from '../config/document.ts';
import type { Problem } from '../services/types.ts';
import { ServiceCounters } from '../status/counters/serviceCounters.ts';
import type { DaemonStatus } from '../status/daemonStatus.ts';
import { pointsmanVersion } from '../version.ts';
import { dataplaneOptions, type FamilyBuild } from './buildFamilies.ts';
import type { FamilyProxy } from './familyProxy.ts';
import { SocketServer } from './socketServer.ts';

/** Remembered at most; what comes after pushes out the oldest. */
const unreadableMax = 256;

/** Objects, or parts of them, that could not be decoded when they were last read. */
export class UnreadableObjects {
  readonly #problems = new Map<string, Problem>();

  add({ kind, object, field, message }: ObjectProblem): void {
    const key = `${kind} ${object} ${field}`;
    this.#problems.delete(key);
    this.#problems.set(key, { object: `${kind} ${object}`, field, message, reason: 'undecodable' });
    const [oldest] = this.#problems.keys();
    if (this.#problems.size > unreadableMax && oldest !== undefined) this.#problems.delete(oldest);
  }

  all(): Problem[] {
    return [...this.#problems.values()];
  }
}

export interface StatusSocketOptions {
  readonly build: FamilyBuild;
  readonly status: DaemonStatus;
  readonly proxies: readonly FamilyProxy[];
  readonly unreadable: UnreadableObjects;
  readonly nodeObject: () => Node | undefined;
}

/** Opens the socket in the background, if there is to be one. */
export function startSocket(options: StatusSocketOptions): void {
  const { build, status, proxies, unreadable, nodeObject } = options;
  const { config, health, metrics, log } = build;
  const { serviceCounters, socketPath } = config.extras;
  const counters = new ServiceCounters({
    level: serviceCounters,
    log,
    families: proxies.map((proxy) => ({
      family: proxy.family,
      table: () => proxy.table,
      source: proxy.counters,
    })),
  });
  counters.register(metrics.registry);
  if (socketPath === '') return;
  const answers = status.answers(
    {
      node: build.nodeName,
      mode: config.mode,
      version: pointsmanVersion,
      kubernetesVersion: config.reportedVersion,
      serviceCounters,
      localhostNodePorts: config.localhostNodePorts,
      flags: config.flags,
      configuration: toDocument(config),
      nodeObject,
      healthy: () => health.healthy(Date.now()),
      nodeEligible: () => health.nodeEligible(),
      problems: () => [...build.problems.current(), ...unreadable.all()],
      counters,
    },
    proxies.map((proxy) => ({
      options: dataplaneOptions(build, proxy.family),
      table: () => proxy.table,
      listed: () => proxy.synced,
      serviceCIDRs: () => proxy.knownServiceCIDRs,
      healthy: () => health.state(Date.now()).families.get(proxy.family)?.healthy ?? true,
    })),
  );
  void new SocketServer({ path: socketPath, answers, log }).start();
}
