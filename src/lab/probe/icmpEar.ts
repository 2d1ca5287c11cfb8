/** Hears the ICMP "destination unreachable" messages that arrive in a namespace, and whom they are for. */
import {
  closeDescriptor,
  MSG_DONTWAIT,
  openSocket,
  receive,
  SOCK_RAW,
  watchReadable,
} from '../../linux/ffi.ts';
import { AF_INET, AF_INET6 } from '../net/address.ts';
import type { Namespaces } from '../net/namespaces.ts';

const SOCK_NONBLOCK = 0o4000;
const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;

/** Names as iptables' REJECT target writes them, without its prefix for IPv6. */
const codes4: Readonly<Record<number, string>> = {
  0: 'icmp-net',
  1: 'icmp-host',
  2: 'icmp-proto',
  3: 'icmp-port',
  9: 'icmp-net-prohibited',
  10: 'icmp-host-prohibited',
  13: 'icmp-admin-prohibited',
};
const codes6: Readonly<Record<number, string>> = {
  0: 'icmp-no-route',
  1: 'icmp-admin-prohibited',
  3: 'icmp-addr',
  4: 'icmp-port',
  5: 'icmp-policy-fail',
  6: 'icmp-reject-route',
};

export interface Unreachable {
  /** e.g. `icmp-port` */
  readonly code: string;
  /** TCP 6, UDP 17 */
  readonly protocol: number;
  /** Source port of the packet that could not be delivered. */
  readonly sourcePort: number;
}

/** Reads an ICMP message as a raw socket delivers it (IPv4 with its IP header); undefined if it is another one. */
export function decodeUnreachable(bytes: Uint8Array, v6: boolean): Unreachable | undefined {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const at = v6 ? 0 : (view[0] ?? 0x45) & 15;
  const start = v6 ? 0 : at * 4;
  if (view[start] !== (v6 ? 1 : 3)) return undefined;
  const inner = start + 8;
  const header = v6 ? 40 : ((view[inner] ?? 0) & 15) * 4;
  if (view.length < inner + header + 4) return undefined;
  const code = view[start + 1] ?? 0;
  return {
    code: (v6 ? codes6 : codes4)[code] ?? `icmp-${code}`,
    protocol: view[inner + (v6 ? 6 : 9)] ?? 0,
    sourcePort: view.readUInt16BE(inner + header),
  };
}

export interface IcmpEar {
  /** Calls back for messages about packets of this protocol from this port; returns the function that ends it. */
  listen(protocol: number, sourcePort: number, callback: (code: string) => void): () => void;
  close(): void;
}

export function openIcmpEar(namespaces: Namespaces, namespace: string, v6: boolean): IcmpEar {
  const fd = namespaces.enter(namespace, () =>
    openSocket(v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_NONBLOCK, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP),
  );
  const listeners = new Map<number, (code: string) => void>();
  const bytes = new Uint8Array(2048);
  const stop = watchReadable(fd, () => {
    for (;;) {
      const length = receive(fd, bytes, MSG_DONTWAIT);
      if (length < 0) return;
      const heard = decodeUnreachable(bytes.subarray(0, length), v6);
      if (heard !== undefined) listeners.get((heard.protocol << 16) | heard.sourcePort)?.(heard.code);
    }
  });
  return {
    listen(protocol, sourcePort, callback) {
      const key = (protocol << 16) | sourcePort;
      listeners.set(key, callback);
      return () => {
        if (listeners.get(key) === callback) listeners.delete(key);
      };
    },
    close() {
      stop();
      closeDescriptor(fd);
    },
  };
}
