/** Sets of addresses and ports that iptables rules match on, and their text as `ipset save` prints and reads it. */
import type { Family, Protocol } from '../../../api/objects.ts';
import { addressBytes, formatAddress } from '../../address-bytes.ts';

export type HashType = 'hash:ip' | 'hash:ip,port' | 'hash:ip,port,ip' | 'hash:ip,port,net';
export type SetType = HashType | 'bitmap:port';

/** A set without its entries. */
export type SetDefinition =
  | {
      readonly name: string;
      readonly type: HashType;
      readonly family: Family;
      /** Buckets to begin with; the kernel rounds up to a power of two and grows as entries come. */
      readonly hashSize: number;
      readonly maxElements: number;
    }
  | {
      readonly name: string;
      readonly type: 'bitmap:port';
      readonly firstPort: number;
      readonly lastPort: number;
    };

/** One entry; which parts there are is the set type's business. */
export interface SetEntry {
  /** Canonical. */
  readonly ip?: string;
  readonly protocol?: Protocol;
  readonly port?: number;
  readonly ip2?: string;
  /** Prefix length of ip2, where the type has a network there. */
  readonly prefix2?: number;
}

/** A set as the kernel lists it. */
export interface ListedSet {
  readonly definition: SetDefinition;
  /** How many rules and sets refer to it. */
  readonly references: number;
  /** How many entries it has, where the kernel says (4.10 and later). */
  readonly elements: number | undefined;
  /** Entries end by themselves (option timeout) or are cut to a prefix (netmask). */
  readonly altersEntries: boolean;
}

/** IPSET_MAXNAMELEN counts the terminating zero. */
export const setNameMax = 31;

/** `create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536` */
export function printDefinition(set: SetDefinition): string {
  if (set.type === 'bitmap:port')
    return `create ${set.name} ${set.type} range ${set.firstPort}-${set.lastPort}`;
  const family = set.family === 'IPv6' ? 'inet6' : 'inet';
  return `create ${set.name} ${set.type} family ${family} hashsize ${set.hashSize} maxelem ${set.maxElements}`;
}

/** The entry as ipset prints it: `10.96.0.10,tcp:80`, `198.51.100.7,tcp:443,203.0.113.0/24`, `30443`. */
export function printEntry(type: SetType, entry: SetEntry): string {
  switch (type) {
    case 'bitmap:port':
      return String(entry.port);
    case 'hash:ip':
      return entry.ip ?? '';
    case 'hash:ip,port':
      return `${entry.ip},${entry.protocol?.toLowerCase()}:${entry.port}`;
    case 'hash:ip,port,ip':
      return `${entry.ip},${entry.protocol?.toLowerCase()}:${entry.port},${entry.ip2}`;
    case 'hash:ip,port,net': {
      const start = `${entry.ip},${entry.protocol?.toLowerCase()}:${entry.port},${entry.ip2}`;
      const whole = entry.ip2?.includes(':') === true ? 128 : 32;
      // ipset leaves out the length of a single address.
      return entry.prefix2 === undefined || entry.prefix2 === whole ? start : `${start}/${entry.prefix2}`;
    }
  }
}

/** `add KUBE-CLUSTER-IP 10.96.0.10,tcp:80` */
export function printAdd(set: SetDefinition, entry: SetEntry): string {
  return `add ${set.name} ${printEntry(set.type, entry)}`;
}

const protocols: Readonly<Record<string, Protocol>> = { tcp: 'TCP', udp: 'UDP', sctp: 'SCTP' };

/** Reads what printEntry prints; undefined if it is no entry of that type. */
export function parseEntry(type: SetType, text: string): SetEntry | undefined {
  if (type === 'bitmap:port') {
    const port = parsePort(text);
    return port === undefined ? undefined : { port };
  }
  const parts = text.split(',');
  if (parts.length !== type.split(',').length) return undefined;
  const ip = parseAddress(parts[0]);
  if (ip === undefined) return undefined;
  if (type === 'hash:ip') return { ip };
  const colon = parts[1]!.indexOf(':');
  const protocol = protocols[parts[1]!.slice(0, colon)];
  const port = parsePort(parts[1]!.slice(colon + 1));
  if (protocol === undefined || port === undefined) return undefined;
  if (type === 'hash:ip,port') return { ip, protocol, port };
  const [address, length] = parts[2]!.split('/');
  const ip2 = parseAddress(address);
  if (ip2 === undefined) return undefined;
  if (type === 'hash:ip,port,ip') return length === undefined ? { ip, protocol, port, ip2 } : undefined;
  const whole = ip2.includes(':') ? 128 : 32;
  const prefix2 = length === undefined ? whole : Number(length);
  if (!Number.isInteger(prefix2) || prefix2 < 1 || prefix2 > whole) return undefined;
  return { ip, protocol, port, ip2, prefix2 };
}

/** Reads a `create` line; options that printDefinition does not print are passed over. */
export function parseDefinition(line: string): SetDefinition | undefined {
  const words = line.trim().split(/ +/);
  const [verb, name, type] = words;
  if (verb !== 'create' || name === undefined) return undefined;
  const value = (option: string): string | undefined => {
    const at = words.indexOf(option, 3);
    return at < 0 ? undefined : words[at + 1];
  };
  if (type === 'bitmap:port') {
    const [first, last] = (value('range') ?? '').split('-').map(Number);
    return first === undefined || last === undefined
      ? undefined
      : { name, type, firstPort: first, lastPort: last };
  }
  if (
    type !== 'hash:ip' &&
    type !== 'hash:ip,port' &&
    type !== 'hash:ip,port,ip' &&
    type !== 'hash:ip,port,net'
  )
    return undefined;
  return {
    name,
    type,
    family: value('family') === 'inet6' ? 'IPv6' : 'IPv4',
    hashSize: Number(value('hashsize') ?? 1024),
    maxElements: Number(value('maxelem') ?? 65_536),
  };
}

function parsePort(text: string): number | undefined {
  if (!/^[0-9]{1,5}$/.test(text)) return undefined;
  const port = Number(text);
  return port <= 65_535 ? port : undefined;
}

function parseAddress(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  try {
    return formatAddress(addressBytes(text));
  } catch {
    // Exactly what the answer says: it is none.
    return undefined;
  }
}
