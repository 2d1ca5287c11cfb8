/**
 * What the kernel tells of packets that carry `nftrace` (NFT_MSG_TRACE, enum nft_trace_attributes in
 * linux/netfilter/nf_tables.h): one message for every rule that matched, and one for the end of every base chain.
 */
import { NFNL_SUBSYS_NFTABLES } from './batch.ts';
import { readVerdict, type Verdict } from './expressions.ts';
import { familyName, type TableName } from './objects.ts';
import { NFGENMSG_LENGTH, attributesOf, type Message } from '../message.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../socket.ts';
import { readPacketHeader, type PacketHeader } from '../../packet-header.ts';

const NFT_MSG_TRACE = 17;
/** NFNLGRP_NFTRACE is 9. */
const traceGroups = 1 << 8;

/** Chains that the kernel calls begin with an event that has `packet`. */
export interface TraceEvent {
  readonly table: TableName;
  readonly chain: string;
  /** `rule`: it matched; `return`: the end of a chain; `policy`: that of a base chain. */
  readonly type: 'rule' | 'return' | 'policy';
  /** The same for all events of one packet; used again for later ones. */
  readonly id: number;
  /** Of the rule. */
  readonly handle?: bigint;
  /** What the rule, or the policy, has decided. */
  readonly verdict: Verdict;
  /** The packet as it comes into a base chain. */
  readonly packet?: PacketHeader;
  /** Numbers of the interfaces. */
  readonly inInterface?: number;
  readonly outInterface?: number;
}

const types: Readonly<Record<number, TraceEvent['type']>> = { 1: 'policy', 2: 'return', 3: 'rule' };

/** Undefined if the message is no trace, or of a kind that is not known. */
export function readTrace(message: Message): TraceEvent | undefined {
  if (message.type !== ((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_TRACE)) return undefined;
  const reader = attributesOf(message, NFGENMSG_LENGTH);
  let table = '';
  let chain = '';
  let type: TraceEvent['type'] | undefined;
  let id = 0;
  let handle: bigint | undefined;
  let verdict: Verdict | undefined;
  let network: Uint8Array | undefined;
  let transport: Uint8Array | undefined;
  let inInterface: number | undefined;
  let outInterface: number | undefined;
  while (reader.next()) {
    switch (reader.type) {
      case 1:
        table = reader.string();
        break;
      case 2:
        chain = reader.string();
        break;
      case 3:
        handle = reader.u64();
        break;
      case 4:
        type = types[reader.u32()];
        break;
      case 5:
        verdict = readVerdict(reader.nested());
        break;
      case 6:
        id = reader.u32();
        break;
      case 8:
        network = reader.data();
        break;
      case 9:
        transport = reader.data();
        break;
      case 10:
        inInterface = reader.u32();
        break;
      case 12:
        outInterface = reader.u32();
        break;
      case 16:
        verdict ??= { code: reader.u32() === 0 ? 'drop' : 'accept' };
        break;
    }
  }
  if (type === undefined) return undefined;
  const packet = network === undefined ? undefined : readPacketHeader(network, transport);
  return {
    table: { family: familyName(message.bytes[message.start]!), name: table },
    chain,
    type,
    id,
    verdict: verdict ?? { code: 'continue' },
    ...(handle === undefined ? {} : { handle }),
    ...(packet === undefined ? {} : { packet }),
    ...(inInterface === undefined ? {} : { inInterface }),
    ...(outInterface === undefined ? {} : { outInterface }),
  };
}

/**
 * Hands over the traces of the namespace, in order, from the event loop. `onLost`: some were lost.
 * @returns the function that ends it
 */
export function watchTraces(
  onEvent: (event: TraceEvent) => void,
  onLost: (reason: string) => void,
): () => void {
  const socket = new NetlinkSocket({
    protocol: NETLINK_NETFILTER,
    groups: traceGroups,
    receiveBuffer: 4 << 20,
  });
  socket.subscribe((message) => {
    const event = readTrace(message);
    if (event !== undefined) onEvent(event);
  }, onLost);
  return () => socket.close();
}
