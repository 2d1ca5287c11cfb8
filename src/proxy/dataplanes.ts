/** Which modes there are, and what the daemon has to know of each before it can use it. A mode's code is loaded on use. */
import type { Family } from '../api/objects.ts';
import type { ProxyConfig } from '../config/types.ts';
import type {
  Dataplane,
  DataplaneEvents,
  DataplaneOptions,
  DataplaneReport,
  Mode,
} from '../dataplane/dataplane.ts';
import type { Logger } from '../log/logger.ts';
import type { PacketCounters } from '../metrics/metrics.ts';

export interface DataplaneContext {
  readonly config: ProxyConfig;
  readonly options: DataplaneOptions;
  readonly events: DataplaneEvents;
  readonly report: (report: DataplaneReport) => void;
  readonly log: Logger;
}

export interface ModeSupport {
  /** Whether the mode can work here for the family. */
  usable(family: Family): Promise<boolean>;
  /** Why it cannot, in words of the tool that said so. */
  complaint?(family: Family): Promise<string>;
  /** Kernel settings that need privileges; all that `--init-only` does besides conntrack's. Throws if one cannot be set. */
  prepare(context: Omit<DataplaneContext, 'events' | 'report'>): Promise<void>;
  create(context: DataplaneContext): Promise<Dataplane>;
  /** Connections go through this process: after the first sync nothing may hold it up for long. It shrinks its heap itself. */
  readonly carriesConnections?: true;
  /** Counters in the kernel that show up as metrics. */
  packetCounters?(): PacketCounters;
}

const supports: Readonly<Partial<Record<Mode, () => Promise<ModeSupport>>>> = {
  iptables: async () => (await import('./modes/iptables.ts')).iptablesMode,
  nftables: async () => (await import('./modes/nftables.ts')).nftablesMode,
  ipvs: async () => (await import('./modes/ipvs.ts')).ipvsMode,
  userspace: async () => (await import('./modes/userspace.ts')).userspaceMode,
};

/** Throws a sentence if this program has no such mode. */
export async function loadMode(mode: Mode): Promise<ModeSupport> {
  const load = supports[mode];
  if (load === undefined)
    throw new Error(
      `proxy mode ${mode} is not part of this version of pointsman; use ${Object.keys(supports).join(' or ')}`,
    );
  return load();
}
