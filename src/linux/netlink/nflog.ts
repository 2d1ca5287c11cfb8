/**
 * Packets that the kernel logs to a program (linux/netfilter/nfnetlink_log.h). Rules of legacy iptables tell so of the
 * packets that are traced: group 0, with a prefix such as `TRACE: nat:KUBE-SERVICES:rule:3 `.
 */
import { NFGENMSG_LENGTH, attributesOf, type Message } from './message.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from './socket.ts';
import { readPacketHeader, type PacketHeader } from '../packet-header.ts';

const NFNL_SUBSYS_ULOG = 4;
const NFULNL_MSG_PACKET = NFNL_SUBSYS_ULOG << 8;
const NFULNL_MSG_CONFIG = (NFNL_SUBSYS_ULOG << 8) | 1;
const NFULA_CFG_CMD = 1;
const NFULA_CFG_MODE = 2;
const NFULA_CFG_QTHRESH = 5;
const NFULNL_CFG_CMD_BIND = 1;
const NFULNL_COPY_PACKET = 2;
const NFULA_PACKET_HDR = 1;
const NFULA_PAYLOAD = 9;
const NFULA_PREFIX = 10;
/** Bytes of each packet: IPv6 with its ports and some options. */
const copied = 128;

export interface LoggedPacket {
  /** As the rule has it, with the blank at its end. */
  readonly prefix: string;
  /** enum nf_inet_hooks: 0 PREROUTING, 1 INPUT, 2 FORWARD, 3 OUTPUT, 4 POSTROUTING. */
  readonly hook: number;
  readonly packet: PacketHeader | undefined;
}

/** Undefined if the message is no logged packet. */
export function readLogged(message: Message): LoggedPacket | undefined {
  if (message.type !== NFULNL_MSG_PACKET) return undefined;
  const reader = attributesOf(message, NFGENMSG_LENGTH);
  let prefix = '';
  let hook = 0;
  let packet: PacketHeader | undefined;
  while (reader.next()) {
    if (reader.type === NFULA_PACKET_HDR) hook = reader.bytes[reader.start + 2] ?? 0;
    else if (reader.type === NFULA_PAYLOAD) packet = readPacketHeader(reader.data());
    else if (reader.type === NFULA_PREFIX) prefix = reader.string();
  }
  return { prefix, hook, packet };
}

/**
 * Hands over what is logged to the group, at once and in order, from the event loop.
 * @returns the function that ends it
 * @throws NetlinkError EPERM if another program listens to the group
 */
export function watchLog(
  group: number,
  onPacket: (logged: LoggedPacket) => void,
  onLost: (reason: string) => void,
): () => void {
  const socket = new NetlinkSocket({ protocol: NETLINK_NETFILTER, receiveBuffer: 4 << 20 });
  try {
    const configure = (what: string, type: number, value: Uint8Array): void => {
      const writer = socket.begin(NFULNL_MSG_CONFIG);
      writer.nfgenmsg(0, 0, group);
      writer.data(type, value);
      socket.request(`${what} of log group ${group}`, undefined);
    };
    configure('take the packets', NFULA_CFG_CMD, Uint8Array.of(NFULNL_CFG_CMD_BIND));
    configure('set the length', NFULA_CFG_MODE, Uint8Array.of(0, 0, 0, copied, NFULNL_COPY_PACKET, 0));
    // One message for each packet, instead of a hundred or those of a second.
    configure('set the threshold', NFULA_CFG_QTHRESH, Uint8Array.of(0, 0, 0, 1));
  } catch (error) {
    socket.close();
    throw error;
  }
  socket.subscribe((message) => {
    const logged = readLogged(message);
    if (logged !== undefined) onPacket(logged);
  }, onLost);
  return () => socket.close();
}
