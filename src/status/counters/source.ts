/** Where counts come from: one per mode and family. */
import type { RoutingTable } from '../../services/types.ts';
import type { Reading } from './accumulate.ts';

export interface CounterSource {
  readonly name: 'iptables' | 'nftables';
  /** What its numbers leave out, in sentences. */
  readonly notes: readonly string[];
  /** Reads every counter there is. Rejects if the kernel cannot be asked. */
  read(table: RoutingTable): Promise<Reading[]>;
}
