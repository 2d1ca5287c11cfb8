/**
 * The table that makes the kernel trace the packets asked about, and nothing else. The kernel removes it when the
 * process ends, however it ends (NFT_TABLE_F_OWNER, since 5.12).
 */
import { Batch } from '../../linux/netlink/nftables/batch.ts';
import { chain, rule, set, table, type Table } from '../../linux/netlink/nftables/objects.ts';
import { ct, ip, ip6, meta, th } from '../../linux/netlink/nftables/selectors.ts';
import {
  inSet,
  match,
  matchBits,
  matchMasked,
  traceOn,
  update,
} from '../../linux/netlink/nftables/statements.ts';
import { concatBytes } from '../../linux/netlink/nftables/types.ts';
import type { Packet } from '../packet.ts';
import { protocolNumbers } from '../packet.ts';

const NFT_TABLE_F_OWNER = 2;
/** Behind defragmentation (-400), in front of raw (-300). */
const first = -350;
/** Behind everybody's rules, source translation too. */
const last = 1_000_000;

const tcpFlags = { kind: 'payload', base: 'transport', offset: 13, length: 1 } as const;
const syn = 0x02;
const ack = 0x10;

/** Which packets are traced: the first of each connection that matches, until there were so many. */
export interface MarkedPackets {
  readonly packet: Packet;
  /** Whether they start on this machine, or come in. */
  readonly hook: 'output' | 'prerouting';
  /** Undefined: anybody's. */
  readonly source: string | undefined;
  /** Only connections from these ports of the source. Undefined: from all. */
  readonly sourcePorts: readonly number[] | undefined;
  /** Connections. */
  readonly most: number;
}

/** Of the table's name; the socket that owns it is the rest. */
export const markingPrefix = 'pointsman-trace-';
export const markChain = 'chosen';
/** Bridges (br_netfilter) forget on their way to other hooks that a packet is traced: here it is said again. */
export const againChains = { forward: 'again-forward', input: 'again-input' } as const;
/** Empty chains behind all others: they tell how the packet left the hook. */
const endChains = {
  output: ['postrouting', 'input'],
  prerouting: ['input', 'forward', 'postrouting'],
} as const;

export function markingTable(packet: Packet, portId: number): Table {
  return table(packet.family === 'IPv6' ? 'ip6' : 'ip', `${markingPrefix}${portId}`, {
    flags: NFT_TABLE_F_OWNER,
  });
}

/** @param own from `markingTable` */
export function markingBatch(own: Table, marked: MarkedPackets): Batch {
  const { packet, hook, source, sourcePorts, most } = marked;
  const header = packet.family === 'IPv6' ? ip6 : ip;
  const address = packet.family === 'IPv6' ? 'ipv6_addr' : 'ipv4_addr';
  const seen = set(own, 'seen', [address, 'inet_service'], { flags: ['dynamic'], size: most });
  const batch = new Batch().create(own).add(seen);
  const ports =
    sourcePorts === undefined ? undefined : set(own, 'ports', ['inet_service'], { size: sourcePorts.length });
  if (ports !== undefined) {
    batch.add(ports).addElements(
      ports,
      sourcePorts!.map((port) => ({ key: concatBytes(['inet_service'], [port]) })),
    );
  }
  batch.add(chain(own, markChain, { type: 'filter', hook, priority: first }));
  for (const end of endChains[hook])
    batch.add(chain(own, end, { type: 'filter', hook: end, priority: last }));
  if (hook === 'prerouting') {
    for (const [at, name] of Object.entries(againChains) as ['forward' | 'input', string][]) {
      batch.add(chain(own, name, { type: 'filter', hook: at, priority: first })).add(
        rule(own, name, [
          matchBits(ct.state, ['new']),
          match(meta.l4proto, protocolNumbers[packet.protocol]),
          // Sources are rewritten later.
          inSet([header.saddr, th.sport], seen.name),
          traceOn,
        ]),
      );
    }
  }
  batch.add(
    rule(own, markChain, [
      match(header.daddr, packet.destination),
      match(meta.l4proto, protocolNumbers[packet.protocol]),
      match(th.dport, packet.destinationPort),
      ...(source === undefined ? [] : [match(header.saddr, source)]),
      ...(packet.sourcePort === undefined ? [] : [match(th.sport, packet.sourcePort)]),
      ...(ports === undefined ? [] : [inSet([th.sport], ports.name)]),
      // A connection that is under way is not taken for a new one.
      ...(packet.protocol === 'TCP' ? [matchMasked(tcpFlags, syn | ack, '==', syn)] : []),
      inSet([header.saddr, th.sport], seen.name, { not: true }),
      // A full set refuses, which ends the rule.
      update(seen.name, [header.saddr, th.sport], { operation: 'add' }),
      traceOn,
    ]),
  );
  return batch;
}
