/** Virtual servers and real servers of IPVS, and their text as `ipvsadm --save --numeric` prints and reads it. */
import type { Family, Protocol } from '../../../api/objects.ts';
import { addressBytes, formatAddress } from '../../address-bytes.ts';

/** Bits of VirtualServer.flags (linux/ip_vs.h, IP_VS_SVC_F_…). */
export const servicePersistent = 0x1;
/** Set by the kernel alone; never part of VirtualServer.flags. */
export const serviceHashed = 0x2;
export const serviceOnePacket = 0x4;
export const serviceScheduler1 = 0x8;
export const serviceScheduler2 = 0x10;
export const serviceScheduler3 = 0x20;

/** What names a virtual server. */
export interface ServerIdentity {
  readonly protocol: Protocol;
  /** Canonical. */
  readonly address: string;
  readonly port: number;
}

export interface VirtualServer extends ServerIdentity {
  /** e.g. `rr` */
  readonly scheduler: string;
  /** servicePersistent, serviceOnePacket, serviceScheduler1…3 */
  readonly flags: number;
  /** Seconds of persistence; 0 without. */
  readonly timeout: number;
  /** Length of the prefix within which clients count as one for persistence: 32 or 128 for single addresses. */
  readonly prefixLength: number;
}

/** How packets get to a real server (IP_VS_CONN_F_MASQ …). */
export type Forwarding = 'masquerade' | 'local' | 'tunnel' | 'route' | 'bypass';

export const forwardings: readonly Forwarding[] = ['masquerade', 'local', 'tunnel', 'route', 'bypass'];

export interface RealServer {
  readonly address: string;
  readonly port: number;
  readonly forwarding: Forwarding;
  /** 0 = no new connections. */
  readonly weight: number;
  readonly upperThreshold: number;
  readonly lowerThreshold: number;
}

/** As the kernel lists it. */
export interface RealServerState extends RealServer {
  readonly activeConnections: number;
  readonly inactiveConnections: number;
  readonly persistentConnections: number;
}

/** Counters of one virtual or real server, since it was made or zeroed. */
export interface Statistics {
  readonly connections: bigint;
  readonly inPackets: bigint;
  readonly outPackets: bigint;
  readonly inBytes: bigint;
  readonly outBytes: bigint;
}

/** Seconds. */
export interface Timeouts {
  readonly tcp: number;
  readonly tcpFin: number;
  readonly udp: number;
}

/** `10.96.0.10:80/TCP`, `[fd00::a]:80/TCP`: identity of a virtual server in maps and logs. */
export function serverKey(server: ServerIdentity): string {
  return `${formatAddressPort(server.address, server.port)}/${server.protocol}`;
}

export function serverFamily(server: ServerIdentity): Family {
  return server.address.includes(':') ? 'IPv6' : 'IPv4';
}

/** `10.0.0.1:80`, `[fd00::1]:80` */
export function formatAddressPort(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

const protocolOption: Readonly<Record<Protocol, string>> = { TCP: '-t', UDP: '-u', SCTP: '--sctp-service' };

/** `-t 10.96.0.10:80` */
export function printIdentity(server: ServerIdentity): string {
  return `${protocolOption[server.protocol]} ${formatAddressPort(server.address, server.port)}`;
}

/** Names of the scheduler's own flags, as ipvsadm has them for `sh` and `mh`. */
function schedulerFlagNames(scheduler: string): readonly [number, string][] {
  const known = scheduler === 'sh' || scheduler === 'mh';
  return [
    [serviceScheduler1, known ? `${scheduler}-fallback` : 'flag-1'],
    [serviceScheduler2, known ? `${scheduler}-port` : 'flag-2'],
    [serviceScheduler3, 'flag-3'],
  ];
}

/** `-A -t 10.96.0.10:80 -s rr -p 10800`; `-E …` where `verb` says so. */
export function printServer(server: VirtualServer, verb: '-A' | '-E' = '-A'): string {
  let text = `${verb} ${printIdentity(server)} -s ${server.scheduler}`;
  if ((server.flags & servicePersistent) !== 0) {
    text += ` -p ${server.timeout}`;
    if (serverFamily(server) === 'IPv6') {
      if (server.prefixLength !== 128) text += ` -M ${server.prefixLength}`;
    } else if (server.prefixLength !== 32) text += ` -M ${dottedMask(server.prefixLength)}`;
  }
  if ((server.flags & serviceOnePacket) !== 0) text += ' -o';
  const names = schedulerFlagNames(server.scheduler)
    .filter(([bit]) => (server.flags & bit) !== 0)
    .map(([, name]) => name);
  return names.length === 0 ? text : `${text} -b ${names.join(',')}`;
}

const forwardingOption: Readonly<Record<Forwarding, string>> = {
  masquerade: '-m',
  local: '-l',
  tunnel: '-i',
  route: '-g',
  bypass: '-b',
};

/** `-a -t 10.96.0.10:80 -r 10.244.1.5:8080 -m -w 1`. */
export function printRealServer(
  server: ServerIdentity,
  real: RealServer,
  verb: '-a' | '-e' | '-d' = '-a',
): string {
  const start = `${verb} ${printIdentity(server)} -r ${formatAddressPort(real.address, real.port)}`;
  if (verb === '-d') return start;
  let text = `${start} ${forwardingOption[real.forwarding]} -w ${real.weight}`;
  if (real.upperThreshold > 0) text += ` -x ${real.upperThreshold}`;
  if (real.lowerThreshold > 0) text += ` -y ${real.lowerThreshold}`;
  return text;
}

export type SavedLine =
  | { readonly kind: 'server'; readonly server: VirtualServer }
  | { readonly kind: 'real'; readonly identity: ServerIdentity; readonly real: RealServer };

/** Reads one line of `ipvsadm --save --numeric`; undefined if it is none (a firewall-mark service, for one). */
export function parseSavedLine(line: string): SavedLine | undefined {
  const words = line.trim().split(/ +/);
  const verb = words[0];
  if (verb !== '-A' && verb !== '-a') return undefined;
  const identity = parseIdentity(words[1] ?? '', words[2] ?? '');
  if (identity === undefined) return undefined;
  const value = (option: string): string | undefined => {
    const at = words.indexOf(option, 3);
    return at < 0 ? undefined : words[at + 1];
  };
  if (verb === '-a') {
    const target = parseAddressPort(value('-r') ?? '');
    if (target === undefined) return undefined;
    const forwarding = forwardings.find((one) => words.includes(forwardingOption[one], 3)) ?? 'route';
    return {
      kind: 'real',
      identity,
      real: {
        ...target,
        forwarding,
        weight: Number(value('-w') ?? 1),
        upperThreshold: Number(value('-x') ?? 0),
        lowerThreshold: Number(value('-y') ?? 0),
      },
    };
  }
  const scheduler = value('-s') ?? 'wlc';
  const persistence = value('-p');
  const names = (value('-b') ?? '').split(',');
  let flags = persistence === undefined ? 0 : servicePersistent;
  if (words.includes('-o', 3)) flags |= serviceOnePacket;
  for (const [bit, name] of schedulerFlagNames(scheduler)) if (names.includes(name)) flags |= bit;
  const mask = value('-M');
  const widest = serverFamily(identity) === 'IPv6' ? 128 : 32;
  const prefixLength = mask === undefined ? widest : mask.includes('.') ? maskLength(mask) : Number(mask);
  return {
    kind: 'server',
    server: { ...identity, scheduler, flags, timeout: Number(persistence ?? 0), prefixLength },
  };
}

function parseIdentity(option: string, text: string): ServerIdentity | undefined {
  const protocol = (['TCP', 'UDP', 'SCTP'] as const).find((one) => protocolOption[one] === option);
  const target = parseAddressPort(text);
  return protocol === undefined || target === undefined ? undefined : { protocol, ...target };
}

/** Reads `10.0.0.1:80`, `[fd00::1]:80`. */
export function parseAddressPort(text: string): { address: string; port: number } | undefined {
  const colon = text.lastIndexOf(':');
  const host = text.slice(0, colon);
  const port = Number(text.slice(colon + 1));
  if (colon < 0 || !Number.isInteger(port) || port < 0 || port > 65_535) return undefined;
  try {
    return { address: formatAddress(addressBytes(host.startsWith('[') ? host.slice(1, -1) : host)), port };
  } catch {
    // Not an address: then it is no line of ipvsadm's.
    return undefined;
  }
}

function dottedMask(length: number): string {
  const bits = length === 0 ? 0 : (0xffffffff << (32 - length)) >>> 0;
  return [24, 16, 8, 0].map((shift) => (bits >>> shift) & 0xff).join('.');
}

function maskLength(mask: string): number {
  const bits = mask.split('.').reduce((value, part) => value * 256 + Number(part), 0);
  return bits === 0 ? 0 : 32 - Math.log2(2 ** 32 - bits);
}
