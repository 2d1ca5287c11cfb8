/** Attributes of ipset's messages (linux/netfilter/ipset/ip_set.h). Numbers are big-endian and marked as such. */
import type { Protocol } from '../../../api/objects.ts';
import { addressBytes, formatAddress } from '../../address-bytes.ts';
import { AF_INET, AF_INET6 } from '../conntrack-entry.ts';
import type { AttributeReader, MessageWriter } from '../message.ts';
import type { ListedSet, SetDefinition, SetEntry, SetType } from './objects.ts';

export const IPSET_CMD_PROTOCOL = 1;
export const IPSET_CMD_CREATE = 2;
export const IPSET_CMD_DESTROY = 3;
export const IPSET_CMD_FLUSH = 4;
export const IPSET_CMD_RENAME = 5;
export const IPSET_CMD_SWAP = 6;
export const IPSET_CMD_LIST = 7;
export const IPSET_CMD_ADD = 9;
export const IPSET_CMD_DEL = 10;
export const IPSET_CMD_TYPE = 13;

export const IPSET_ATTR_PROTOCOL = 1;
export const IPSET_ATTR_SETNAME = 2;
export const IPSET_ATTR_TYPENAME = 3;
export const IPSET_ATTR_SETNAME2 = 3;
export const IPSET_ATTR_REVISION = 4;
export const IPSET_ATTR_FAMILY = 5;
export const IPSET_ATTR_FLAGS = 6;
export const IPSET_ATTR_DATA = 7;
export const IPSET_ATTR_ADT = 8;
export const IPSET_ATTR_LINENO = 9;

/** On IPSET_CMD_LIST: without entries. */
export const IPSET_FLAG_LIST_HEADER = 4;

/** Inside IPSET_ATTR_DATA. */
const IPSET_ATTR_IP = 1;
const IPSET_ATTR_PORT = 4;
const IPSET_ATTR_PORT_TO = 5;
const IPSET_ATTR_PROTO = 7;
const IPSET_ATTR_HASHSIZE = 18;
const IPSET_ATTR_MAXELEM = 19;
const IPSET_ATTR_TIMEOUT = 6;
const IPSET_ATTR_NETMASK = 20;
const IPSET_ATTR_ELEMENTS = 24;
const IPSET_ATTR_REFERENCES = 25;
const IPSET_ATTR_IP2 = 20;
const IPSET_ATTR_CIDR2 = 21;
const IPSET_ATTR_IPADDR_IPV4 = 1;
const IPSET_ATTR_IPADDR_IPV6 = 2;

/** Says that a number is big-endian; the kernel refuses it without. */
export const NLA_F_NET_BYTEORDER = 0x4000;

const protocolNumbers: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };

export function familyNumberOf(set: SetDefinition): number {
  if (set.type === 'bitmap:port') return 0;
  return set.family === 'IPv6' ? AF_INET6 : AF_INET;
}

/** IPSET_ATTR_DATA of a create command. */
export function writeDefinition(writer: MessageWriter, set: SetDefinition): void {
  const data = writer.beginNested(IPSET_ATTR_DATA);
  if (set.type === 'bitmap:port') {
    writer.u16(IPSET_ATTR_PORT | NLA_F_NET_BYTEORDER, set.firstPort);
    writer.u16(IPSET_ATTR_PORT_TO | NLA_F_NET_BYTEORDER, set.lastPort);
  } else {
    writer.u32(IPSET_ATTR_HASHSIZE | NLA_F_NET_BYTEORDER, set.hashSize);
    writer.u32(IPSET_ATTR_MAXELEM | NLA_F_NET_BYTEORDER, set.maxElements);
  }
  writer.endNested(data);
}

/** IPSET_ATTR_DATA of one entry. `line` is what the kernel names it by in an error. */
export function writeEntry(writer: MessageWriter, type: SetType, entry: SetEntry, line?: number): void {
  const data = writer.beginNested(IPSET_ATTR_DATA);
  if (entry.ip !== undefined) writeAddress(writer, IPSET_ATTR_IP, entry.ip);
  if (entry.port !== undefined) writer.u16(IPSET_ATTR_PORT | NLA_F_NET_BYTEORDER, entry.port);
  if (entry.protocol !== undefined) writer.u8(IPSET_ATTR_PROTO, protocolNumbers[entry.protocol]);
  if (entry.ip2 !== undefined) writeAddress(writer, IPSET_ATTR_IP2, entry.ip2);
  if (type === 'hash:ip,port,net' && entry.prefix2 !== undefined) writer.u8(IPSET_ATTR_CIDR2, entry.prefix2);
  if (line !== undefined) writer.hostU32(IPSET_ATTR_LINENO, line);
  writer.endNested(data);
}

function writeAddress(writer: MessageWriter, type: number, address: string): void {
  const nest = writer.beginNested(type);
  const bytes = addressBytes(address);
  const kind = bytes.length === 4 ? IPSET_ATTR_IPADDR_IPV4 : IPSET_ATTR_IPADDR_IPV6;
  writer.data(kind | NLA_F_NET_BYTEORDER, bytes);
  writer.endNested(nest);
}

/** One message of a listing: the first of a set has its definition, all may have entries. */
export interface ListMessage {
  readonly name: string;
  /** Undefined on later messages of the same set, and for set types this program does not know. */
  readonly set: ListedSet | undefined;
  readonly type: string;
  readonly entries: AttributeReader | undefined;
}

export function readListMessage(reader: AttributeReader): ListMessage {
  let name = '';
  let type = '';
  let family = 0;
  let data: AttributeReader | undefined;
  let entries: AttributeReader | undefined;
  while (reader.next()) {
    if (reader.type === IPSET_ATTR_SETNAME) name = reader.string();
    else if (reader.type === IPSET_ATTR_TYPENAME) type = reader.string();
    else if (reader.type === IPSET_ATTR_FAMILY) family = reader.u8();
    else if (reader.type === IPSET_ATTR_DATA) data = reader.nested();
    else if (reader.type === IPSET_ATTR_ADT) entries = reader.nested();
  }
  return {
    name,
    type,
    set: data === undefined ? undefined : readListed(name, type, family, data),
    entries,
  };
}

function readListed(
  name: string,
  type: string,
  family: number,
  data: AttributeReader,
): ListedSet | undefined {
  let firstPort = 0;
  let lastPort = 0;
  let hashSize = 0;
  let maxElements = 0;
  let references = 0;
  let elements: number | undefined;
  let altersEntries = false;
  while (data.next()) {
    if (data.type === IPSET_ATTR_PORT) firstPort = data.u16();
    else if (data.type === IPSET_ATTR_PORT_TO) lastPort = data.u16();
    else if (data.type === IPSET_ATTR_HASHSIZE) hashSize = data.u32();
    else if (data.type === IPSET_ATTR_MAXELEM) maxElements = data.u32();
    else if (data.type === IPSET_ATTR_REFERENCES) references = data.u32();
    else if (data.type === IPSET_ATTR_ELEMENTS) elements = data.u32();
    else if (data.type === IPSET_ATTR_TIMEOUT || data.type === IPSET_ATTR_NETMASK) altersEntries = true;
  }
  if (type === 'bitmap:port')
    return { definition: { name, type, firstPort, lastPort }, references, elements, altersEntries };
  if (
    type !== 'hash:ip' &&
    type !== 'hash:ip,port' &&
    type !== 'hash:ip,port,ip' &&
    type !== 'hash:ip,port,net'
  )
    return undefined;
  const definition: SetDefinition = {
    name,
    type,
    family: family === AF_INET6 ? 'IPv6' : 'IPv4',
    hashSize,
    maxElements,
  };
  return { definition, references, elements, altersEntries };
}

/** Reads one entry (the attributes in its IPSET_ATTR_DATA); undefined for a protocol this program does not know. */
export function readEntry(type: SetType, reader: AttributeReader): SetEntry | undefined {
  let ip: string | undefined;
  let ip2: string | undefined;
  let prefix2: number | undefined;
  let port: number | undefined;
  let number: number | undefined;
  while (reader.next()) {
    if (reader.type === IPSET_ATTR_IP) ip = readAddress(reader.nested());
    else if (reader.type === IPSET_ATTR_PORT) port = reader.u16();
    else if (reader.type === IPSET_ATTR_PROTO) number = reader.u8();
    else if (reader.type === IPSET_ATTR_IP2) ip2 = readAddress(reader.nested());
    else if (reader.type === IPSET_ATTR_CIDR2) prefix2 = reader.u8();
  }
  if (type === 'bitmap:port') return port === undefined ? undefined : { port };
  if (ip === undefined) return undefined;
  if (type === 'hash:ip') return { ip };
  const protocol = (['TCP', 'UDP', 'SCTP'] as const).find((one) => protocolNumbers[one] === number);
  if (protocol === undefined || port === undefined) return undefined;
  if (type === 'hash:ip,port') return { ip, protocol, port };
  if (ip2 === undefined) return undefined;
  if (type === 'hash:ip,port,ip') return { ip, protocol, port, ip2 };
  return { ip, protocol, port, ip2, prefix2: prefix2 ?? (ip2.includes(':') ? 128 : 32) };
}

function readAddress(reader: AttributeReader): string | undefined {
  return reader.next() ? formatAddress(reader.bytes, reader.start, reader.end) : undefined;
}
