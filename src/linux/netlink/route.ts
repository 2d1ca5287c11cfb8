/** Addresses and links over rtnetlink (linux/rtnetlink.h). */
import { addressBytes, formatAddress } from '../address-bytes.ts';
import { AF_INET, AF_INET6 } from './conntrack-entry.ts';
import { EADDRNOTAVAIL, EEXIST, isRefusal } from './errors.ts';
import { NLM_F_CREATE, NLM_F_EXCL, attributesOf, get32, put32, type Message } from './message.ts';
import { NETLINK_ROUTE, NetlinkSocket } from './socket.ts';

const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_GETADDR = 22;
/** struct ifaddrmsg { u8 family, prefixlen, flags, scope; u32 index } */
const IFADDRMSG_LENGTH = 8;
/** struct ifinfomsg { u8 family, pad; u16 type; i32 index; u32 flags, change } */
const IFINFOMSG_LENGTH = 16;
const RTM_NEWROUTE = 24;
const RTM_GETROUTE = 26;
/** struct rtmsg { u8 family, dst_len, src_len, tos, table, protocol, scope, type; u32 flags } */
const RTMSG_LENGTH = 12;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTM_GETNSID = 90;
/** struct rtgenmsg { u8 family }, padded. */
const RTGENMSG_LENGTH = 4;
const NETNSA_NSID = 1;
const NETNSA_FD = 3;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_LABEL = 3;
/** Who put the address there (Linux 5.18): a number that the kernel keeps and does not read. */
const IFA_PROTO = 11;
const IFLA_IFNAME = 3;
const IFLA_LINKINFO = 18;
const IFLA_INFO_KIND = 1;
const IFF_UP = 1;
const IFF_LOOPBACK = 8;
const ENODEV = 19;
/** EACCES (prohibit), EINVAL (blackhole), ENETUNREACH, EHOSTUNREACH. */
const noRoute = [13, 22, 101, 113];
const RTMGRP_LINK = 0x1;
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
  /** The mark of who put it there, as `AddressMark` has it; 0 and '' if there is none. */
  readonly protocol: number;
  readonly label: string;
}

/** Says who put an address there. Kernels before 5.18 forget the protocol, IPv6 has no labels. */
export interface AddressMark {
  /** 4 to 255; the first three are the kernel's own. */
  readonly protocol: number;
  /** Begins with the name of the interface; 15 characters at most. */
  readonly label: string;
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

/** The interface through which packets to an address leave (`ip route get`): its index, or undefined if there is no way. */
export function findOutgoingLink(socket: NetlinkSocket, address: string): number | undefined {
  const bytes = addressBytes(address);
  const header = new Uint8Array(RTMSG_LENGTH);
  header[0] = bytes.length === 4 ? AF_INET : AF_INET6;
  header[1] = bytes.length * 8;
  const writer = socket.begin(RTM_GETROUTE);
  writer.raw(header);
  writer.data(RTA_DST, bytes);
  let index: number | undefined;
  try {
    socket.request(`ip route get ${address}`, (message) => {
      if (message.type !== RTM_NEWROUTE) return;
      const reader = attributesOf(message, RTMSG_LENGTH);
      while (reader.next()) if (reader.type === RTA_OIF) index = get32(reader.bytes, reader.start);
    });
  } catch (error) {
    if (noRoute.some((errno) => isRefusal(error, errno))) return undefined;
    throw error;
  }
  return index;
}

/**
 * The number that the socket's namespace has for another one; undefined if it has none, which is so unless something
 * joins the two, as a pair of veth interfaces. Numbers are given when the interfaces are listed.
 * @param fd open on the other one's `/proc/PID/ns/net`
 */
export function namespaceNumber(socket: NetlinkSocket, fd: number): number | undefined {
  let number = -1;
  const writer = socket.begin(RTM_GETNSID);
  writer.raw(new Uint8Array(RTGENMSG_LENGTH));
  writer.hostU32(NETNSA_FD, fd);
  socket.request('ask for the number of a network namespace', (message) => {
    const reader = attributesOf(message, RTGENMSG_LENGTH);
    while (reader.next()) if (reader.type === NETNSA_NSID) number = reader.hostU32() | 0;
  });
  return number < 0 ? undefined : number;
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
  let ended = false;
  socket.subscribe(
    (message) => {
      if (message.type !== RTM_NEWADDR && message.type !== RTM_DELADDR) return;
      if (changed) return;
      changed = true;
      // Addresses come in bursts: once for all that are queued.
      setImmediate(() => {
        changed = false;
        if (!ended) callback();
      });
    },
    // What was lost can only have been changes.
    () => callback(),
  );
  return () => {
    ended = true;
    socket.close();
  };
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
  let protocol = 0;
  let label = '';
  const reader = attributesOf(message, IFADDRMSG_LENGTH);
  while (reader.next()) {
    // On point-to-point links IFA_ADDRESS is the peer's, IFA_LOCAL ours.
    if (reader.type === IFA_ADDRESS) address = formatAddress(reader.bytes, reader.start, reader.end);
    else if (reader.type === IFA_LOCAL) local = formatAddress(reader.bytes, reader.start, reader.end);
    else if (reader.type === IFA_PROTO) protocol = reader.bytes[reader.start] ?? 0;
    else if (reader.type === IFA_LABEL) label = reader.string();
  }
  return {
    family: family === AF_INET6 ? 'IPv6' : 'IPv4',
    address: local === '' ? address : local,
    prefixLength: message.bytes[message.start + 1]!,
    index: get32(message.bytes, message.start + 4),
    protocol,
    label,
  };
}

/** An interface with its kind. */
export interface LinkOfKind {
  readonly index: number;
  readonly up: boolean;
  /** `dummy`, `bridge` …; empty for a physical device. */
  readonly kind: string;
}

/** The interface of that name, or undefined if there is none. */
export function findLink(socket: NetlinkSocket, name: string): LinkOfKind | undefined {
  const writer = socket.begin(RTM_GETLINK);
  writer.raw(new Uint8Array(IFINFOMSG_LENGTH));
  writer.string(IFLA_IFNAME, name);
  let link: LinkOfKind | undefined;
  try {
    socket.request(`ip link show dev ${name}`, (message) => {
      let kind = '';
      const reader = attributesOf(message, IFINFOMSG_LENGTH);
      while (reader.next()) {
        if (reader.type !== IFLA_LINKINFO) continue;
        const info = reader.nested();
        while (info.next()) if (info.type === IFLA_INFO_KIND) kind = info.string();
      }
      const flags = get32(message.bytes, message.start + 8);
      link = { index: get32(message.bytes, message.start + 4), up: (flags & IFF_UP) !== 0, kind };
    });
  } catch (error) {
    if (isRefusal(error, ENODEV)) return undefined;
    throw error;
  }
  return link;
}

/**
 * Makes a virtual interface (`ip link add NAME type dummy`) and leaves it down.
 * @throws NetlinkError EOPNOTSUPP if the kernel has no such kind, EEXIST if the name is taken
 */
export function addLink(socket: NetlinkSocket, name: string, kind: string): void {
  const writer = socket.begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  writer.raw(new Uint8Array(IFINFOMSG_LENGTH));
  writer.string(IFLA_IFNAME, name);
  const info = writer.beginNested(IFLA_LINKINFO);
  writer.string(IFLA_INFO_KIND, kind);
  writer.endNested(info);
  socket.request(`ip link add ${name} type ${kind}`);
}

/** Removes an interface with its addresses; false if it was not there. */
export function deleteLink(socket: NetlinkSocket, name: string): boolean {
  const writer = socket.begin(RTM_DELLINK);
  writer.raw(new Uint8Array(IFINFOMSG_LENGTH));
  writer.string(IFLA_IFNAME, name);
  try {
    socket.request(`ip link del ${name}`);
    return true;
  } catch (error) {
    if (isRefusal(error, ENODEV)) return false;
    throw error;
  }
}

/** Puts a single address (/32, /128) on an interface; false if it is there already. */
export function addHostAddress(
  socket: NetlinkSocket,
  link: LinkName,
  address: string,
  mark?: AddressMark,
): boolean {
  const flags = NLM_F_CREATE | NLM_F_EXCL;
  return changeHostAddress(socket, RTM_NEWADDR, flags, 'add', link, address, EEXIST, mark);
}

/** Takes a single address (/32, /128) off an interface; false if it is not there. */
export function removeHostAddress(socket: NetlinkSocket, link: LinkName, address: string): boolean {
  return changeHostAddress(socket, RTM_DELADDR, 0, 'del', link, address, EADDRNOTAVAIL);
}

export interface LinkName {
  readonly index: number;
  readonly name: string;
}

/** `ip addr add 10.96.0.10/32 dev kube-ipvs0` */
export function printHostAddress(verb: 'add' | 'del', link: string, address: string): string {
  return `ip addr ${verb} ${address}/${address.includes(':') ? 128 : 32} dev ${link}`;
}

function changeHostAddress(
  socket: NetlinkSocket,
  type: number,
  flags: number,
  verb: 'add' | 'del',
  link: LinkName,
  address: string,
  done: number,
  mark?: AddressMark,
): boolean {
  const bytes = addressBytes(address);
  const writer = socket.begin(type, flags);
  const header = new Uint8Array(IFADDRMSG_LENGTH);
  header[0] = bytes.length === 4 ? AF_INET : AF_INET6;
  header[1] = bytes.length * 8;
  put32(header, 4, link.index);
  writer.raw(header);
  writer.data(IFA_LOCAL, bytes);
  writer.data(IFA_ADDRESS, bytes);
  if (mark !== undefined) {
    if (bytes.length === 4) writer.string(IFA_LABEL, mark.label);
    writer.data(IFA_PROTO, Uint8Array.of(mark.protocol));
  }
  try {
    socket.request(printHostAddress(verb, link.name, address));
    return true;
  } catch (error) {
    if (isRefusal(error, done)) return false;
    throw error;
  }
}

/** An address that came or went. */
export interface LinkAddressChange extends LinkAddress {
  readonly added: boolean;
}

/**
 * Calls back for every address that comes or goes, on whichever interface, and for interfaces that go; `undefined`
 * where events were lost. Does not keep the process alive by itself any longer than until the returned function is called.
 */
export function watchLinkAddressChanges(
  callback: (change: LinkAddressChange | { readonly linkGone: number } | undefined) => void,
): () => void {
  const socket = new NetlinkSocket({
    protocol: NETLINK_ROUTE,
    groups: RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR,
    receiveBuffer: 4 << 20,
  });
  socket.subscribe(
    (message) => {
      if (message.type === RTM_DELLINK) {
        callback({ linkGone: get32(message.bytes, message.start + 4) });
        return;
      }
      if (message.type !== RTM_NEWADDR && message.type !== RTM_DELADDR) return;
      const address = readAddress(message);
      if (address !== undefined) callback({ ...address, added: message.type === RTM_NEWADDR });
    },
    () => callback(undefined),
  );
  return () => socket.close();
}
