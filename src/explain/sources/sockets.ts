/** Sockets of this network namespace, as proc(5) lists them, and which process has them. */
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { endianness } from 'node:os';
import { formatAddressPort, formatIP } from '../../services/ip.ts';

export interface SocketLine {
  readonly protocol: 'TCP' | 'UDP';
  readonly localPort: number;
  /** `10.244.1.10:8080`; of a socket that is not connected `0.0.0.0:0` or `[::]:0`. */
  readonly remote: string;
  /** Two hexadecimal digits: `01` connected, `0A` a TCP socket that waits for clients, `07` a UDP one. */
  readonly state: string;
  /** 0: nobody's any more. */
  readonly inode: number;
}

/** A socket that is connected; the other side may have said good-bye already. */
export function isConnected({ state }: SocketLine): boolean {
  return state === '01' || state === '08';
}

/** It waits for clients. */
export function isWaiting({ protocol, state }: SocketLine): boolean {
  return state === (protocol === 'TCP' ? '0A' : '07');
}

export function readSockets(protocol: SocketLine['protocol']): SocketLine[] {
  const name = protocol.toLowerCase();
  return ['', '6'].flatMap((family) => {
    const file = `/proc/net/${name}${family}`;
    // Without IPv6 there is no such file.
    return existsSync(file) ? parseSockets(protocol, readFileSync(file, 'utf8'), endianness()) : [];
  });
}

/** @param order in which the kernel that wrote the lines has the bytes of each 32-bit word */
export function parseSockets(
  protocol: SocketLine['protocol'],
  text: string,
  order: 'LE' | 'BE',
): SocketLine[] {
  const line =
    /^ *\d+: [0-9A-F]+:([0-9A-F]{4}) ([0-9A-F]+):([0-9A-F]{4}) (\S\S) \S+ \S+ \S+ +\d+ +\d+ (\d+)/gm;
  return [...text.matchAll(line)].map(([, local, remote = '', port, state = '', inode]) => ({
    protocol,
    localPort: Number.parseInt(local!, 16),
    remote: formatAddressPort(addressOf(remote, order), Number.parseInt(port!, 16)),
    state,
    inode: Number(inode),
  }));
}

/** IPv4 in IPv6 form is told as IPv4. */
function addressOf(hex: string, order: 'LE' | 'BE'): string {
  const bytes = Buffer.from(hex, 'hex');
  if (order === 'LE') bytes.swap32();
  const isMapped = bytes.length === 16 && bytes.readUInt16BE(10) === 0xffff && bytes.readUInt32BE(0) === 0;
  return formatIP(isMapped ? bytes.subarray(12) : bytes);
}

/** The process that has the socket; undefined if none that can be seen from here has. */
export function processWith(inode: number): string | undefined {
  return readdirSync('/proc').find((name) => /^\d+$/.test(name) && socketsOf(name).has(inode));
}

/** Inodes of the process's sockets; none if it has ended. */
export function socketsOf(process: string): Set<number> {
  const folder = `/proc/${process}/fd`;
  const found = new Set<number>();
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch {
    // It has ended meanwhile.
    return found;
  }
  for (const name of names) {
    try {
      const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`${folder}/${name}`))?.[1];
      if (inode !== undefined) found.add(Number(inode));
    } catch {
      // Closed meanwhile.
    }
  }
  return found;
}
