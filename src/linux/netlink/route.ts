/** Addresses and links over rtnetlink (linux/rtnetlink.h). */
import { formatAddress } from '../address-bytes.ts';
import { AF_INET, AF_INET6 } from './conntrack-entry.ts';
import { attributesOf, get32, type Message } from './message.ts';
import { NETLINK_ROUTE, NetlinkSocket } from './socket.ts';

const RTM_NEWLINK = 16;
const RTM_GETLINK = 18;
const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_GETADDR = 22;
/** struct ifaddrmsg { u8 family, prefixlen, flags, scope; u32 index } */
const IFADDRMSG_LENGTH = 8;
/** struct ifinfomsg { u8 family, pad; u16 type; i32 index; u32 flags, change } */
const IFINFOMSG_LENGTH = 16;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFLA_IFNAME = 3;
const IFF_UP = 1;
const IFF_LOOPBACK = 8;
/** Bits of the groups RTNLGRP_IPV4_IFADDR (5) and RTNLGRP_IPV6_IFADDR (9). */
const RTMGRP_IPV4_IFADDR = 0x10;
const RTMGRP_IPV6_IFADDR = 0x100;

/** A network interface. */
export interface Link {
  readonly index: number;
  readonly name: string;
  readonly up: boolean;
  readonly loopback: boolean;
}

/** An address of an interface, as the kernel lists it. */
export interface LinkAddress {
  readonly family: 'IPv4' | 'IPv6';
  readonly address: string;
  readonly prefixLength: number;
  /** Of the interface. */
  readonly index: number;
}

/** All interfaces of the socket's namespace. */
export function listLinks(socket: NetlinkSocket): Link[] {
  let links: Link[] = [];
  const header = new Uint8Array(IFINFOMSG_LENGTH);
  socket.begin(RTM_GETLINK).raw(header);
  socket.dump(
    'list links',
    (message) => {
      if (message.type === RTM_NEWLINK) links.push(readLink(message));
    },
    () => {
      links = [];
    },
  );
  return links;
}

/** All addresses of all interfaces of the socket's namespace. */
export function listLinkAddresses(socket: NetlinkSocket): LinkAddress[] {
  let addresses: LinkAddress[] = [];
  socket.begin(RTM_GETADDR).raw(new Uint8Array(IFADDRMSG_LENGTH));
  socket.dump(
    'list addresses',
    (message) => {
      const address = message.type === RTM_NEWADDR ? readAddress(message) : undefined;
      if (address !== undefined) addresses.push(address);
    },
    () => {
      addresses = [];
    },
  );
  return addresses;
}

/** A socket for one-off requests; close it. */
export function openRouteSocket(): NetlinkSocket {
  return new NetlinkSocket({ protocol: NETLINK_ROUTE });
}

/**
 * Calls back (from the event loop) whenever an address came or went.
 * @returns the function that ends it
 */
export function watchLinkAddresses(callback: () => void): () => void {
  const socket = new NetlinkSocket({
    protocol: NETLINK_ROUTE,
    groups: RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR,
    receiveBuffer: 1 << 20,
  });
  let changed = false;
  socket.subscribe(
    (message) => {
      if (message.type !== RTM_NEWADDR && message.type !== RTM_DELADDR) return;
      if (changed) return;
      changed = true;
      // Addresses come in bursts: once for all that are queued.
      setImmediate(() => {
        changed = false;
        callback();
      });
    },
    // What was lost can only have been changes.
    () => callback(),
  );
  return () => socket.close();
}

function readLink(message: Message): Link {
  const flags = get32(message.bytes, message.start + 8);
  let name = '';
  const reader = attributesOf(message, IFINFOMSG_LENGTH);
  while (reader.next()) if (reader.type === IFLA_IFNAME) name = reader.string();
  return {
    index: get32(message.bytes, message.start + 4),
    name,
    up: (flags & IFF_UP) !== 0,
    loopback: (flags & IFF_LOOPBACK) !== 0,
  };
}

function readAddress(message: Message): LinkAddress | undefined {
  const family = message.bytes[message.start]!;
  if (family !== AF_INET && family !== AF_INET6) return undefined;
  let address = '';
  let local = '';
  const reader = attributesOf(message, IFADDRMSG_LENGTH);
  while (reader.next()) {
    // On point-to-point links IFA_ADDRESS is the peer's, IFA_LOCAL ours.
    if (reader.type === IFA_ADDRESS) address = formatAddress(reader.bytes, reader.start, reader.end);
    else if (reader.type === IFA_LOCAL) local = formatAddress(reader.bytes, reader.start, reader.end);
  }
  return {
    family: family === AF_INET6 ? 'IPv6' : 'IPv4',
    address: local === '' ? address : local,
    prefixLength: message.bytes[message.start + 1]!,
    index: get32(message.bytes, message.start + 4),
  };
}
