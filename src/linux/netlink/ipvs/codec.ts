/** Attributes of the generic netlink family IPVS (linux/ip_vs.h). Numbers are in the machine's order but for ports. */
import type { Protocol } from '../../../api/objects.ts';
import { addressBytes, formatAddress } from '../../address-bytes.ts';
import { AF_INET, AF_INET6 } from '../conntrack-entry.ts';
import { get32, put32, type AttributeReader, type MessageWriter } from '../message.ts';
import {
  forwardings,
  serverFamily,
  serviceHashed,
  type RealServer,
  type RealServerState,
  type ServerIdentity,
  type Statistics,
  type Timeouts,
  type VirtualServer,
} from './objects.ts';

export const IPVS_CMD_NEW_SERVICE = 1;
export const IPVS_CMD_SET_SERVICE = 2;
export const IPVS_CMD_DEL_SERVICE = 3;
export const IPVS_CMD_GET_SERVICE = 4;
export const IPVS_CMD_NEW_DEST = 5;
export const IPVS_CMD_SET_DEST = 6;
export const IPVS_CMD_DEL_DEST = 7;
export const IPVS_CMD_GET_DEST = 8;
export const IPVS_CMD_SET_CONFIG = 12;
export const IPVS_CMD_GET_CONFIG = 13;
export const IPVS_CMD_SET_INFO = 14;
export const IPVS_CMD_GET_INFO = 15;
export const IPVS_CMD_FLUSH = 17;

export const IPVS_CMD_ATTR_SERVICE = 1;
export const IPVS_CMD_ATTR_DEST = 2;
export const IPVS_CMD_ATTR_TIMEOUT_TCP = 4;
export const IPVS_CMD_ATTR_TIMEOUT_TCP_FIN = 5;
export const IPVS_CMD_ATTR_TIMEOUT_UDP = 6;

const IPVS_SVC_ATTR_AF = 1;
const IPVS_SVC_ATTR_PROTOCOL = 2;
const IPVS_SVC_ATTR_ADDR = 3;
const IPVS_SVC_ATTR_PORT = 4;
const IPVS_SVC_ATTR_FWMARK = 5;
const IPVS_SVC_ATTR_SCHED_NAME = 6;
const IPVS_SVC_ATTR_FLAGS = 7;
const IPVS_SVC_ATTR_TIMEOUT = 8;
const IPVS_SVC_ATTR_NETMASK = 9;
const IPVS_SVC_ATTR_STATS64 = 12;

const IPVS_DEST_ATTR_ADDR = 1;
const IPVS_DEST_ATTR_PORT = 2;
const IPVS_DEST_ATTR_FWD_METHOD = 3;
const IPVS_DEST_ATTR_WEIGHT = 4;
const IPVS_DEST_ATTR_U_THRESH = 5;
const IPVS_DEST_ATTR_L_THRESH = 6;
const IPVS_DEST_ATTR_ACTIVE_CONNS = 7;
const IPVS_DEST_ATTR_INACT_CONNS = 8;
const IPVS_DEST_ATTR_PERSIST_CONNS = 9;
const IPVS_DEST_ATTR_ADDR_FAMILY = 11;
const IPVS_DEST_ATTR_STATS64 = 12;

const IPVS_STATS_ATTR_CONNS = 1;
const IPVS_STATS_ATTR_INPKTS = 2;
const IPVS_STATS_ATTR_OUTPKTS = 3;
const IPVS_STATS_ATTR_INBYTES = 4;
const IPVS_STATS_ATTR_OUTBYTES = 5;

/** IP_VS_CONN_F_FWD_MASK */
const forwardingMask = 7;
/** The mask that goes with the flags: all of them are meant. */
const allFlags = 0xffffffff;

const protocolNumbers: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };

const ipv4Bytes = 4;

function hostU16(writer: MessageWriter, type: number, value: number): void {
  writer.data(type, new Uint8Array([value & 0xff, value >>> 8]));
}

function readHostU16(reader: AttributeReader): number {
  return reader.size >= 2 ? reader.bytes[reader.start]! | (reader.bytes[reader.start + 1]! << 8) : 0;
}

/** The attribute that names a virtual server in requests about it. */
export function writeIdentity(writer: MessageWriter, server: ServerIdentity): void {
  const nest = writer.beginNested(IPVS_CMD_ATTR_SERVICE);
  identityAttributes(writer, server);
  writer.endNested(nest);
}

function identityAttributes(writer: MessageWriter, server: ServerIdentity): void {
  hostU16(writer, IPVS_SVC_ATTR_AF, serverFamily(server) === 'IPv6' ? AF_INET6 : AF_INET);
  hostU16(writer, IPVS_SVC_ATTR_PROTOCOL, protocolNumbers[server.protocol]);
  writer.data(IPVS_SVC_ATTR_ADDR, addressBytes(server.address));
  writer.u16(IPVS_SVC_ATTR_PORT, server.port);
}

/** The attribute that describes a whole virtual server. */
export function writeServer(writer: MessageWriter, server: VirtualServer): void {
  const nest = writer.beginNested(IPVS_CMD_ATTR_SERVICE);
  identityAttributes(writer, server);
  writer.string(IPVS_SVC_ATTR_SCHED_NAME, server.scheduler);
  const flags = new Uint8Array(8);
  put32(flags, 0, server.flags);
  put32(flags, 4, allFlags);
  writer.data(IPVS_SVC_ATTR_FLAGS, flags);
  writer.hostU32(IPVS_SVC_ATTR_TIMEOUT, server.timeout);
  writer.hostU32(IPVS_SVC_ATTR_NETMASK, writtenMask(server));
  writer.endNested(nest);
}

/** IPv4: the mask's bytes as they stand in memory; IPv6: the prefix length. */
function writtenMask(server: VirtualServer): number {
  if (serverFamily(server) === 'IPv6') return server.prefixLength;
  return server.prefixLength === 0 ? 0 : swap((0xffffffff << (32 - server.prefixLength)) >>> 0);
}

function swap(value: number): number {
  return ((value << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0;
}

/** A real server; `identityOnly` for its deletion. */
export function writeRealServer(writer: MessageWriter, real: RealServer, identityOnly = false): void {
  const nest = writer.beginNested(IPVS_CMD_ATTR_DEST);
  const bytes = addressBytes(real.address);
  writer.data(IPVS_DEST_ATTR_ADDR, bytes);
  writer.u16(IPVS_DEST_ATTR_PORT, real.port);
  hostU16(writer, IPVS_DEST_ATTR_ADDR_FAMILY, bytes.length === ipv4Bytes ? AF_INET : AF_INET6);
  if (!identityOnly) {
    writer.hostU32(IPVS_DEST_ATTR_FWD_METHOD, forwardings.indexOf(real.forwarding));
    writer.hostU32(IPVS_DEST_ATTR_WEIGHT, real.weight);
    writer.hostU32(IPVS_DEST_ATTR_U_THRESH, real.upperThreshold);
    writer.hostU32(IPVS_DEST_ATTR_L_THRESH, real.lowerThreshold);
  }
  writer.endNested(nest);
}

/** Time-outs of whole seconds; 0 keeps the kernel's. */
export function writeTimeouts(writer: MessageWriter, timeouts: Timeouts): void {
  writer.hostU32(IPVS_CMD_ATTR_TIMEOUT_TCP, timeouts.tcp);
  writer.hostU32(IPVS_CMD_ATTR_TIMEOUT_TCP_FIN, timeouts.tcpFin);
  writer.hostU32(IPVS_CMD_ATTR_TIMEOUT_UDP, timeouts.udp);
}

/** Reads the attributes of one SERVICE; undefined for what this program does not know (firewall marks, other protocols). */
export function readServer(reader: AttributeReader): VirtualServer | undefined {
  let family = 0;
  let protocol: Protocol | undefined;
  let address: Uint8Array | undefined;
  let port = 0;
  let scheduler = '';
  let flags = 0;
  let timeout = 0;
  let mask = 0;
  while (reader.next()) {
    switch (reader.type) {
      case IPVS_SVC_ATTR_AF:
        family = readHostU16(reader);
        break;
      case IPVS_SVC_ATTR_PROTOCOL:
        protocol = protocolNamed(readHostU16(reader));
        break;
      case IPVS_SVC_ATTR_ADDR:
        address = reader.bytes.subarray(reader.start, reader.end);
        break;
      case IPVS_SVC_ATTR_PORT:
        port = reader.u16();
        break;
      case IPVS_SVC_ATTR_FWMARK:
        return undefined;
      case IPVS_SVC_ATTR_SCHED_NAME:
        scheduler = reader.string();
        break;
      case IPVS_SVC_ATTR_FLAGS:
        flags = reader.size >= 4 ? get32(reader.bytes, reader.start) & ~serviceHashed : 0;
        break;
      case IPVS_SVC_ATTR_TIMEOUT:
        timeout = reader.hostU32();
        break;
      case IPVS_SVC_ATTR_NETMASK:
        mask = reader.hostU32();
        break;
      default:
    }
  }
  if (protocol === undefined || address === undefined || (family !== AF_INET && family !== AF_INET6))
    return undefined;
  return {
    protocol,
    address: addressText(address, family),
    port,
    scheduler,
    flags,
    timeout,
    prefixLength: family === AF_INET6 ? mask : prefixOf(swap(mask)),
  };
}

/** How many ones a mask begins with. */
function prefixOf(mask: number): number {
  return Math.clz32(~mask);
}

function protocolNamed(number: number): Protocol | undefined {
  switch (number) {
    case protocolNumbers.TCP:
      return 'TCP';
    case protocolNumbers.UDP:
      return 'UDP';
    case protocolNumbers.SCTP:
      return 'SCTP';
    default:
      return undefined;
  }
}

/** The kernel gives 16 bytes for both families. */
function addressText(bytes: Uint8Array, family: number): string {
  return formatAddress(family === AF_INET ? bytes.subarray(0, ipv4Bytes) : bytes);
}

/** Reads the attributes of one DEST; undefined if it has no address. */
export function readRealServer(reader: AttributeReader): RealServerState | undefined {
  let family = 0;
  let address: Uint8Array | undefined;
  let port = 0;
  let method = 0;
  let weight = 0;
  let upperThreshold = 0;
  let lowerThreshold = 0;
  let activeConnections = 0;
  let inactiveConnections = 0;
  let persistentConnections = 0;
  while (reader.next()) {
    switch (reader.type) {
      case IPVS_DEST_ATTR_ADDR:
        address = reader.bytes.subarray(reader.start, reader.end);
        break;
      case IPVS_DEST_ATTR_PORT:
        port = reader.u16();
        break;
      case IPVS_DEST_ATTR_FWD_METHOD:
        method = reader.hostU32() & forwardingMask;
        break;
      case IPVS_DEST_ATTR_WEIGHT:
        weight = reader.hostU32();
        break;
      case IPVS_DEST_ATTR_U_THRESH:
        upperThreshold = reader.hostU32();
        break;
      case IPVS_DEST_ATTR_L_THRESH:
        lowerThreshold = reader.hostU32();
        break;
      case IPVS_DEST_ATTR_ACTIVE_CONNS:
        activeConnections = reader.hostU32();
        break;
      case IPVS_DEST_ATTR_INACT_CONNS:
        inactiveConnections = reader.hostU32();
        break;
      case IPVS_DEST_ATTR_PERSIST_CONNS:
        persistentConnections = reader.hostU32();
        break;
      case IPVS_DEST_ATTR_ADDR_FAMILY:
        family = readHostU16(reader);
        break;
      default:
    }
  }
  if (address === undefined) return undefined;
  return {
    address: addressText(address, family === 0 ? guessFamily(address) : family),
    port,
    forwarding: forwardings[method] ?? 'masquerade',
    weight,
    upperThreshold,
    lowerThreshold,
    activeConnections,
    inactiveConnections,
    persistentConnections,
  };
}

/** Kernels before 3.18 do not say: an IPv4 address is followed by zeros. */
function guessFamily(address: Uint8Array): number {
  return address.subarray(ipv4Bytes).every((byte) => byte === 0) ? AF_INET : AF_INET6;
}

/** The 64-bit counters among the attributes of a SERVICE (`kind` service) or DEST; undefined from kernels before 4.1. */
export function readStatistics(
  reader: AttributeReader,
  kind: 'service' | 'destination',
): Statistics | undefined {
  const wanted = kind === 'service' ? IPVS_SVC_ATTR_STATS64 : IPVS_DEST_ATTR_STATS64;
  while (reader.next()) {
    if (reader.type !== wanted) continue;
    const counts = new Map<number, bigint>();
    const counters = reader.nested();
    while (counters.next()) {
      if (counters.size < 8) continue;
      const low = BigInt(get32(counters.bytes, counters.start));
      counts.set(counters.type, (BigInt(get32(counters.bytes, counters.start + 4)) << 32n) | low);
    }
    return {
      connections: counts.get(IPVS_STATS_ATTR_CONNS) ?? 0n,
      inPackets: counts.get(IPVS_STATS_ATTR_INPKTS) ?? 0n,
      outPackets: counts.get(IPVS_STATS_ATTR_OUTPKTS) ?? 0n,
      inBytes: counts.get(IPVS_STATS_ATTR_INBYTES) ?? 0n,
      outBytes: counts.get(IPVS_STATS_ATTR_OUTBYTES) ?? 0n,
    };
  }
  return undefined;
}

export function readTimeouts(reader: AttributeReader): Timeouts {
  const timeouts = { tcp: 0, tcpFin: 0, udp: 0 };
  while (reader.next()) {
    if (reader.type === IPVS_CMD_ATTR_TIMEOUT_TCP) timeouts.tcp = reader.hostU32();
    else if (reader.type === IPVS_CMD_ATTR_TIMEOUT_TCP_FIN) timeouts.tcpFin = reader.hostU32();
    else if (reader.type === IPVS_CMD_ATTR_TIMEOUT_UDP) timeouts.udp = reader.hostU32();
  }
  return timeouts;
}
