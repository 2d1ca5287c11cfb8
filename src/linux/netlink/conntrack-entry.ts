/**
 * Conntrack entries as ctnetlink carries them (linux/netfilter/nfnetlink_conntrack.h), and as `conntrack -L` prints
 * them.
 */
import { addressBytes, formatIPv4, formatIPv6 } from '../address-bytes.ts';
import {
  NFGENMSG_LENGTH,
  attributesOf,
  type AttributeReader,
  type Message,
  type MessageWriter,
  type RawAttribute,
} from './message.ts';

export const AF_INET = 2;
export const AF_INET6 = 10;

export const IPPROTO_ICMP = 1;
export const IPPROTO_TCP = 6;
export const IPPROTO_UDP = 17;
export const IPPROTO_ICMPV6 = 58;
export const IPPROTO_SCTP = 132;

/** enum ip_conntrack_status */
export const IPS_SEEN_REPLY = 1 << 1;
export const IPS_ASSURED = 1 << 2;
export const IPS_CONFIRMED = 1 << 3;
export const IPS_SRC_NAT = 1 << 4;
export const IPS_DST_NAT = 1 << 5;
export const IPS_OFFLOAD = 1 << 14;

/** enum ctattr_type */
const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_STATUS = 3;
const CTA_PROTOINFO = 4;
const CTA_TIMEOUT = 7;
const CTA_MARK = 8;
const CTA_COUNTERS_ORIG = 9;
const CTA_COUNTERS_REPLY = 10;
const CTA_USE = 11;
const CTA_ID = 12;
const CTA_ZONE = 18;
/** enum ctattr_tuple, ctattr_ip, ctattr_l4proto */
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_IP_V4_SRC = 1;
const CTA_IP_V4_DST = 2;
const CTA_IP_V6_SRC = 3;
const CTA_IP_V6_DST = 4;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_SRC_PORT = 2;
const CTA_PROTO_DST_PORT = 3;
const CTA_PROTO_ICMP_ID = 4;
const CTA_PROTO_ICMP_TYPE = 5;
const CTA_PROTO_ICMP_CODE = 6;
const CTA_PROTO_ICMPV6_ID = 7;
const CTA_PROTO_ICMPV6_TYPE = 8;
const CTA_PROTO_ICMPV6_CODE = 9;
const CTA_PROTOINFO_TCP = 1;
const CTA_PROTOINFO_TCP_STATE = 1;
const CTA_COUNTERS_PACKETS = 1;
const CTA_COUNTERS_BYTES = 2;

/** One direction of a flow. */
export interface Tuple {
  readonly source: string;
  readonly destination: string;
  /** IP protocol number. */
  readonly protocol: number;
  /** 0 for protocols without ports. */
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** ICMP and ICMPv6 only. */
  readonly icmp?: { readonly type: number; readonly code: number; readonly id: number };
}

export interface FlowCounters {
  readonly packets: bigint;
  readonly bytes: bigint;
}

/** A tracked flow. */
export interface ConntrackEntry {
  readonly family: 'IPv4' | 'IPv6';
  /** As the first packet came, before any NAT. */
  readonly original: Tuple;
  /** As answers come; its source is where the flow really went. */
  readonly reply: Tuple;
  /** IPS_… bits. */
  readonly status: number;
  /** Seconds until it is forgotten. */
  readonly timeout: number;
  readonly mark: number;
  /** 0 unless rules use conntrack zones. */
  readonly zone: number;
  /** Tells this entry from a later one with the same tuples; 0 = none given. */
  readonly id: number;
  readonly use: number;
  /** TCP only: enum tcp_conntrack. */
  readonly tcpState?: number;
  readonly counters?: { readonly original: FlowCounters; readonly reply: FlowCounters };
  /** Attributes without a field here, as received. */
  readonly unknown: readonly RawAttribute[];
}

const tcpStates = [
  'NONE',
  'SYN_SENT',
  'SYN_RECV',
  'ESTABLISHED',
  'FIN_WAIT',
  'CLOSE_WAIT',
  'LAST_ACK',
  'TIME_WAIT',
  'CLOSE',
  'SYN_SENT2',
];
const protocolNames: Readonly<Record<number, string>> = {
  [IPPROTO_ICMP]: 'icmp',
  [IPPROTO_TCP]: 'tcp',
  [IPPROTO_UDP]: 'udp',
  33: 'dccp',
  47: 'gre',
  [IPPROTO_ICMPV6]: 'icmpv6',
  [IPPROTO_SCTP]: 'sctp',
  136: 'udplite',
};

/** The entry as `conntrack -L` prints it. */
export function printEntry(entry: ConntrackEntry): string {
  const { original, reply, status, counters } = entry;
  const words = [`${(protocolNames[original.protocol] ?? 'unknown').padEnd(8)} ${original.protocol}`];
  const offloaded = (status & IPS_OFFLOAD) !== 0;
  if (!offloaded) words.push(String(entry.timeout));
  if (entry.tcpState !== undefined && !offloaded) words.push(tcpStates[entry.tcpState] ?? 'UNKNOWN');
  words.push(printTuple(original));
  if (counters !== undefined) words.push(printCounters(counters.original));
  if ((status & IPS_SEEN_REPLY) === 0) words.push('[UNREPLIED]');
  words.push(printTuple(reply));
  if (counters !== undefined) words.push(printCounters(counters.reply));
  if (offloaded) words.push('[OFFLOAD]');
  else if ((status & IPS_ASSURED) !== 0) words.push('[ASSURED]');
  words.push(`mark=${entry.mark}`);
  if (entry.zone !== 0) words.push(`zone=${entry.zone}`);
  words.push(`use=${entry.use}`);
  return words.join(' ');
}

function printTuple(tuple: Tuple): string {
  const addresses = `src=${tuple.source} dst=${tuple.destination}`;
  if (tuple.icmp !== undefined) {
    return `${addresses} type=${tuple.icmp.type} code=${tuple.icmp.code} id=${tuple.icmp.id}`;
  }
  if (tuple.sourcePort === 0 && tuple.destinationPort === 0) return addresses;
  return `${addresses} sport=${tuple.sourcePort} dport=${tuple.destinationPort}`;
}

function printCounters(counters: FlowCounters): string {
  return `packets=${counters.packets} bytes=${counters.bytes}`;
}

/** Writes a tuple as CTA_TUPLE_ORIG or CTA_TUPLE_REPLY. */
export function writeTuple(writer: MessageWriter, direction: 'original' | 'reply', tuple: Tuple): void {
  const outer = writer.beginNested(direction === 'original' ? CTA_TUPLE_ORIG : CTA_TUPLE_REPLY);
  const ip = writer.beginNested(CTA_TUPLE_IP);
  const source = addressBytes(tuple.source);
  writer.data(source.length === 4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, source);
  writer.data(source.length === 4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, addressBytes(tuple.destination));
  writer.endNested(ip);
  const protocol = writer.beginNested(CTA_TUPLE_PROTO);
  writer.u8(CTA_PROTO_NUM, tuple.protocol);
  if (tuple.icmp === undefined) {
    writer.u16(CTA_PROTO_SRC_PORT, tuple.sourcePort);
    writer.u16(CTA_PROTO_DST_PORT, tuple.destinationPort);
  } else {
    const v6 = tuple.protocol === IPPROTO_ICMPV6;
    writer.u16(v6 ? CTA_PROTO_ICMPV6_ID : CTA_PROTO_ICMP_ID, tuple.icmp.id);
    writer.u8(v6 ? CTA_PROTO_ICMPV6_TYPE : CTA_PROTO_ICMP_TYPE, tuple.icmp.type);
    writer.u8(v6 ? CTA_PROTO_ICMPV6_CODE : CTA_PROTO_ICMP_CODE, tuple.icmp.code);
  }
  writer.endNested(protocol);
  writer.endNested(outer);
}

/** Writes the attributes of an entry in the order of the `conntrack` tool. */
export function writeEntry(writer: MessageWriter, entry: ConntrackEntry): void {
  writeTuple(writer, 'original', entry.original);
  writeTuple(writer, 'reply', entry.reply);
  if (entry.status !== 0) writer.u32(CTA_STATUS, entry.status);
  writer.u32(CTA_TIMEOUT, entry.timeout);
  if (entry.mark !== 0) writer.u32(CTA_MARK, entry.mark);
  if (entry.tcpState !== undefined) {
    const info = writer.beginNested(CTA_PROTOINFO);
    const tcp = writer.beginNested(CTA_PROTOINFO_TCP);
    writer.u8(CTA_PROTOINFO_TCP_STATE, entry.tcpState);
    writer.endNested(tcp);
    writer.endNested(info);
  }
  if (entry.zone !== 0) writer.u16(CTA_ZONE, entry.zone);
  if (entry.use !== 0) writer.u32(CTA_USE, entry.use);
  if (entry.id !== 0) writer.u32(CTA_ID, entry.id);
  if (entry.counters !== undefined) {
    writeCounters(writer, CTA_COUNTERS_ORIG, entry.counters.original);
    writeCounters(writer, CTA_COUNTERS_REPLY, entry.counters.reply);
  }
  for (const attribute of entry.unknown) writer.attribute(attribute);
}

function writeCounters(writer: MessageWriter, type: number, counters: FlowCounters): void {
  const start = writer.beginNested(type);
  writer.u64(CTA_COUNTERS_PACKETS, counters.packets);
  writer.u64(CTA_COUNTERS_BYTES, counters.bytes);
  writer.endNested(start);
}

/** Writes what a DELETE needs to hit exactly this entry and no later one. */
export function writeEntryIdentity(writer: MessageWriter, entry: ConntrackEntry): void {
  writeTuple(writer, 'original', entry.original);
  if (entry.zone !== 0) writer.u16(CTA_ZONE, entry.zone);
  if (entry.id !== 0) writer.u32(CTA_ID, entry.id);
}

/** Decodes an IPCTNL_MSG_CT_NEW message; undefined if it lacks a tuple. */
export function readEntry(message: Message): ConntrackEntry | undefined {
  const reader = attributesOf(message, NFGENMSG_LENGTH);
  let original: Tuple | undefined;
  let reply: Tuple | undefined;
  let status = 0;
  let timeout = 0;
  let mark = 0;
  let zone = 0;
  let id = 0;
  let use = 0;
  let tcpState: number | undefined;
  let sent: FlowCounters | undefined;
  let answered: FlowCounters | undefined;
  const unknown: RawAttribute[] = [];
  while (reader.next()) {
    switch (reader.type) {
      case CTA_TUPLE_ORIG:
        original = readTuple(reader.nested());
        break;
      case CTA_TUPLE_REPLY:
        reply = readTuple(reader.nested());
        break;
      case CTA_STATUS:
        status = reader.u32();
        break;
      case CTA_TIMEOUT:
        timeout = reader.u32();
        break;
      case CTA_MARK:
        mark = reader.u32();
        break;
      case CTA_ZONE:
        zone = reader.u16();
        break;
      case CTA_ID:
        id = reader.u32();
        break;
      case CTA_USE:
        use = reader.u32();
        break;
      case CTA_COUNTERS_ORIG:
        sent = readCounters(reader.nested());
        break;
      case CTA_COUNTERS_REPLY:
        answered = readCounters(reader.nested());
        break;
      case CTA_PROTOINFO:
        tcpState = readTcpState(reader.nested());
        if (tcpState === undefined) unknown.push(reader.raw());
        break;
      default:
        unknown.push(reader.raw());
    }
  }
  if (original === undefined || reply === undefined) return undefined;
  return {
    family: message.bytes[message.start] === AF_INET6 ? 'IPv6' : 'IPv4',
    original,
    reply,
    status,
    timeout,
    mark,
    zone,
    id,
    use,
    ...(tcpState === undefined ? {} : { tcpState }),
    ...(sent === undefined || answered === undefined
      ? {}
      : { counters: { original: sent, reply: answered } }),
    unknown,
  };
}

function readCounters(reader: AttributeReader): FlowCounters {
  let packets = 0n;
  let bytes = 0n;
  while (reader.next()) {
    if (reader.type === CTA_COUNTERS_PACKETS) packets = reader.u64();
    else if (reader.type === CTA_COUNTERS_BYTES) bytes = reader.u64();
  }
  return { packets, bytes };
}

function readTcpState(reader: AttributeReader): number | undefined {
  while (reader.next()) {
    if (reader.type !== CTA_PROTOINFO_TCP) continue;
    const tcp = reader.nested();
    while (tcp.next()) if (tcp.type === CTA_PROTOINFO_TCP_STATE) return tcp.u8();
  }
  return undefined;
}

function readTuple(reader: AttributeReader): Tuple {
  let source = '';
  let destination = '';
  let protocol = 0;
  let sourcePort = 0;
  let destinationPort = 0;
  let type: number | undefined;
  let code = 0;
  let id = 0;
  while (reader.next()) {
    const inner = reader.nested();
    if (reader.type === CTA_TUPLE_IP) {
      while (inner.next()) {
        if (inner.type === CTA_IP_V4_SRC && inner.size === 4) source = formatIPv4(inner.bytes, inner.start);
        else if (inner.type === CTA_IP_V4_DST && inner.size === 4)
          destination = formatIPv4(inner.bytes, inner.start);
        else if (inner.type === CTA_IP_V6_SRC && inner.size === 16)
          source = formatIPv6(inner.bytes, inner.start);
        else if (inner.type === CTA_IP_V6_DST && inner.size === 16)
          destination = formatIPv6(inner.bytes, inner.start);
      }
    } else if (reader.type === CTA_TUPLE_PROTO) {
      while (inner.next()) {
        switch (inner.type) {
          case CTA_PROTO_NUM:
            protocol = inner.u8();
            break;
          case CTA_PROTO_SRC_PORT:
            sourcePort = inner.u16();
            break;
          case CTA_PROTO_DST_PORT:
            destinationPort = inner.u16();
            break;
          case CTA_PROTO_ICMP_ID:
          case CTA_PROTO_ICMPV6_ID:
            id = inner.u16();
            break;
          case CTA_PROTO_ICMP_TYPE:
          case CTA_PROTO_ICMPV6_TYPE:
            type = inner.u8();
            break;
          case CTA_PROTO_ICMP_CODE:
          case CTA_PROTO_ICMPV6_CODE:
            code = inner.u8();
            break;
        }
      }
    }
  }
  const tuple = { source, destination, protocol, sourcePort, destinationPort };
  return type === undefined ? tuple : { ...tuple, icmp: { type, code, id } };
}
