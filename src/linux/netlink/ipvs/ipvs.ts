/** The kernel's IPVS, over generic netlink: one method for each command of `ipvsadm`. */
import { ENOENT, isRefusal } from '../errors.ts';
import { attributesOf, type AttributeReader, type Message, type MessageWriter } from '../message.ts';
import { NETLINK_GENERIC, NetlinkSocket } from '../socket.ts';
import {
  IPVS_CMD_ATTR_DEST,
  IPVS_CMD_ATTR_SERVICE,
  IPVS_CMD_DEL_DEST,
  IPVS_CMD_DEL_SERVICE,
  IPVS_CMD_FLUSH,
  IPVS_CMD_GET_CONFIG,
  IPVS_CMD_GET_DEST,
  IPVS_CMD_GET_INFO,
  IPVS_CMD_GET_SERVICE,
  IPVS_CMD_NEW_DEST,
  IPVS_CMD_NEW_SERVICE,
  IPVS_CMD_SET_CONFIG,
  IPVS_CMD_SET_DEST,
  IPVS_CMD_SET_SERVICE,
  readRealServer,
  readServer,
  readStatistics,
  readTimeouts,
  writeIdentity,
  writeRealServer,
  writeServer,
  writeTimeouts,
} from './codec.ts';
import { GENL_HEADER_LENGTH, familyNumber, genericHeader } from './generic.ts';
import {
  formatAddressPort,
  printIdentity,
  printRealServer,
  printServer,
  serverKey,
  type RealServer,
  type RealServerState,
  type ServerIdentity,
  type Statistics,
  type Timeouts,
  type VirtualServer,
} from './objects.ts';

/** What the kernel answers where there is no such virtual server. */
const ESRCH = 3;
const IPVS_INFO_ATTR_VERSION = 1;
const IPVS_INFO_ATTR_CONN_TAB_SIZE = 2;

/** What `ipvsadm` says in its first line. */
export interface IpvsInfo {
  /** `1.2.1` */
  readonly version: string;
  /** Entries of the connection hash table. */
  readonly connectionTableSize: number;
}

export interface ServerStatistics extends Statistics {
  readonly server: VirtualServer;
}

/** What the mode needs of the kernel's IPVS; NetlinkIpvs is the real one. */
export interface Ipvs {
  /** All virtual servers but those on firewall marks. */
  listServers(): VirtualServer[];
  /** Empty also if there is no such virtual server. */
  listRealServers(server: ServerIdentity): RealServerState[];
  addServer(server: VirtualServer): void;
  /** Changes scheduler, flags and time-out; real servers and connections stay. */
  editServer(server: VirtualServer): void;
  /** With its real servers. False if it was not there. */
  deleteServer(server: ServerIdentity): boolean;
  addRealServer(server: ServerIdentity, real: RealServer): void;
  editRealServer(server: ServerIdentity, real: RealServer): void;
  /** False if it was not there. */
  deleteRealServer(server: ServerIdentity, real: RealServer): boolean;
  setTimeouts(timeouts: Timeouts): void;
  close(): void;
}

/** Requests are answered synchronously, in some ten microseconds each. */
export class NetlinkIpvs implements Ipvs {
  readonly #socket: NetlinkSocket;
  readonly #family: number;

  private constructor(socket: NetlinkSocket, family: number) {
    this.#socket = socket;
    this.#family = family;
  }

  /** Undefined if the kernel has no IPVS (module ip_vs is not loaded). */
  static open(): NetlinkIpvs | undefined {
    const socket = new NetlinkSocket({ protocol: NETLINK_GENERIC });
    try {
      const family = familyNumber(socket, 'IPVS');
      if (family !== undefined) return new NetlinkIpvs(socket, family);
    } catch (error) {
      socket.close();
      throw error;
    }
    socket.close();
    return undefined;
  }

  info(): IpvsInfo {
    this.#begin(IPVS_CMD_GET_INFO);
    let version = 0;
    let connectionTableSize = 0;
    this.#socket.request('ipvsadm --version', (message) => {
      const reader = attributesOf(message, GENL_HEADER_LENGTH);
      while (reader.next()) {
        if (reader.type === IPVS_INFO_ATTR_VERSION) version = reader.hostU32();
        else if (reader.type === IPVS_INFO_ATTR_CONN_TAB_SIZE) connectionTableSize = reader.hostU32();
      }
    });
    return { version: `${version >>> 16}.${(version >>> 8) & 0xff}.${version & 0xff}`, connectionTableSize };
  }

  listServers(): VirtualServer[] {
    const servers: VirtualServer[] = [];
    this.#dumpServers(
      (attributes) => {
        const server = readServer(attributes);
        if (server !== undefined) servers.push(server);
      },
      () => {
        servers.length = 0;
      },
    );
    return servers;
  }

  /** Counters by serverKey. */
  serverStatistics(): Map<string, ServerStatistics> {
    const result = new Map<string, ServerStatistics>();
    this.#dumpServers(
      (attributes, again) => {
        const server = readServer(attributes);
        const statistics = readStatistics(again, 'service');
        if (server !== undefined && statistics !== undefined)
          result.set(serverKey(server), { ...statistics, server });
      },
      () => result.clear(),
    );
    return result;
  }

  #dumpServers(
    take: (attributes: AttributeReader, again: AttributeReader) => void,
    restart: () => void,
  ): void {
    this.#begin(IPVS_CMD_GET_SERVICE);
    this.#socket.dump(
      'ipvsadm -L',
      (message) => forEachNested(message, IPVS_CMD_ATTR_SERVICE, take),
      restart,
    );
  }

  listRealServers(server: ServerIdentity): RealServerState[] {
    const reals: RealServerState[] = [];
    this.#dumpRealServers(
      server,
      (attributes) => {
        const real = readRealServer(attributes);
        if (real !== undefined) reals.push(real);
      },
      () => {
        reals.length = 0;
      },
    );
    return reals;
  }

  /** Counters by `address:port`. Empty also if there is no such virtual server. */
  realServerStatistics(server: ServerIdentity): Map<string, Statistics> {
    const result = new Map<string, Statistics>();
    this.#dumpRealServers(
      server,
      (attributes, again) => {
        const real = readRealServer(attributes);
        const statistics = readStatistics(again, 'destination');
        if (real !== undefined && statistics !== undefined)
          result.set(formatAddressPort(real.address, real.port), statistics);
      },
      () => result.clear(),
    );
    return result;
  }

  #dumpRealServers(
    server: ServerIdentity,
    take: (attributes: AttributeReader, again: AttributeReader) => void,
    restart: () => void,
  ): void {
    writeIdentity(this.#begin(IPVS_CMD_GET_DEST), server);
    this.#socket.dump(
      `ipvsadm -L ${printIdentity(server)}`,
      (message) => forEachNested(message, IPVS_CMD_ATTR_DEST, take),
      restart,
    );
  }

  addServer(server: VirtualServer): void {
    writeServer(this.#begin(IPVS_CMD_NEW_SERVICE), server);
    this.#socket.request(`ipvsadm ${printServer(server)}`);
  }

  editServer(server: VirtualServer): void {
    writeServer(this.#begin(IPVS_CMD_SET_SERVICE), server);
    this.#socket.request(`ipvsadm ${printServer(server, '-E')}`);
  }

  deleteServer(server: ServerIdentity): boolean {
    writeIdentity(this.#begin(IPVS_CMD_DEL_SERVICE), server);
    return this.#delete(`ipvsadm -D ${printIdentity(server)}`);
  }

  addRealServer(server: ServerIdentity, real: RealServer): void {
    const writer = this.#begin(IPVS_CMD_NEW_DEST);
    writeIdentity(writer, server);
    writeRealServer(writer, real);
    this.#socket.request(`ipvsadm ${printRealServer(server, real)}`);
  }

  editRealServer(server: ServerIdentity, real: RealServer): void {
    const writer = this.#begin(IPVS_CMD_SET_DEST);
    writeIdentity(writer, server);
    writeRealServer(writer, real);
    this.#socket.request(`ipvsadm ${printRealServer(server, real, '-e')}`);
  }

  deleteRealServer(server: ServerIdentity, real: RealServer): boolean {
    const writer = this.#begin(IPVS_CMD_DEL_DEST);
    writeIdentity(writer, server);
    writeRealServer(writer, real, true);
    return this.#delete(`ipvsadm ${printRealServer(server, real, '-d')}`);
  }

  timeouts(): Timeouts {
    this.#begin(IPVS_CMD_GET_CONFIG);
    let timeouts: Timeouts = { tcp: 0, tcpFin: 0, udp: 0 };
    this.#socket.request('ipvsadm -L --timeout', (message) => {
      timeouts = readTimeouts(attributesOf(message, GENL_HEADER_LENGTH));
    });
    return timeouts;
  }

  setTimeouts(timeouts: Timeouts): void {
    writeTimeouts(this.#begin(IPVS_CMD_SET_CONFIG), timeouts);
    this.#socket.request(`ipvsadm --set ${timeouts.tcp} ${timeouts.tcpFin} ${timeouts.udp}`);
  }

  /** Removes every virtual server of the network namespace, whoever made it. */
  flush(): void {
    this.#begin(IPVS_CMD_FLUSH);
    this.#socket.request('ipvsadm -C');
  }

  close(): void {
    this.#socket.close();
  }

  #begin(command: number): MessageWriter {
    const writer = this.#socket.begin(this.#family);
    genericHeader(writer, command);
    return writer;
  }

  #delete(what: string): boolean {
    try {
      this.#socket.request(what);
      return true;
    } catch (error) {
      // What is to go has gone.
      if (isRefusal(error, ENOENT, ESRCH)) return false;
      throw error;
    }
  }
}

function forEachNested(
  message: Message,
  type: number,
  take: (attributes: AttributeReader, again: AttributeReader) => void,
): void {
  const reader = attributesOf(message, GENL_HEADER_LENGTH);
  while (reader.next()) if (reader.type === type) take(reader.nested(), reader.nested());
}
