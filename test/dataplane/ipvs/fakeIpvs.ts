/** IPVS without a kernel: as strict as the kernel where the mode counts on it. */
import type { Ipvs } from '../../../src/linux/netlink/ipvs/ipvs.ts';
import { EEXIST, ENOENT, NetlinkError } from '../../../src/linux/netlink/errors.ts';
import {
  formatAddressPort,
  serverKey,
  type RealServer,
  type RealServerState,
  type ServerIdentity,
  type Timeouts,
  type VirtualServer,
} from '../../../src/linux/netlink/ipvs/objects.ts';

const ESRCH = 3;

export function refusal(what: string, errno: number): NetlinkError {
  return new NetlinkError(what, { errno, text: '', offset: undefined });
}

export class FakeIpvs implements Ipvs {
  readonly servers = new Map<string, { server: VirtualServer; reals: Map<string, RealServerState> }>();
  /** Called before anything is changed or listed. */
  onCall: (what: keyof Ipvs) => void = () => undefined;
  /** Addresses that no server may have, and the errno that says so. */
  readonly impossible = new Map<string, number>();
  /** Active and inactive connections of a real server, by `ip:port`. */
  readonly connections = new Map<string, readonly [active: number, inactive: number]>();

  listServers(): VirtualServer[] {
    this.onCall('listServers');
    return [...this.servers.values()].map(({ server }) => server);
  }

  listRealServers(server: ServerIdentity): RealServerState[] {
    return [...(this.servers.get(serverKey(server))?.reals ?? [])].map(([name, real]) => {
      const [activeConnections, inactiveConnections] = this.connections.get(name) ?? [0, 0];
      return { ...real, activeConnections, inactiveConnections };
    });
  }

  addServer(server: VirtualServer): void {
    this.onCall('addServer');
    this.#refuse(server.address);
    if (this.servers.has(serverKey(server))) throw refusal('addServer', EEXIST);
    this.servers.set(serverKey(server), { server, reals: new Map() });
  }

  editServer(server: VirtualServer): void {
    this.#entry(server).server = server;
  }

  deleteServer(server: ServerIdentity): boolean {
    return this.servers.delete(serverKey(server));
  }

  addRealServer(server: ServerIdentity, real: RealServer): void {
    const { reals } = this.#entry(server);
    this.#refuse(real.address);
    const name = formatAddressPort(real.address, real.port);
    if (reals.has(name)) throw refusal('addRealServer', EEXIST);
    reals.set(name, { ...real, activeConnections: 0, inactiveConnections: 0, persistentConnections: 0 });
  }

  editRealServer(server: ServerIdentity, real: RealServer): void {
    const { reals } = this.#entry(server);
    const name = formatAddressPort(real.address, real.port);
    const there = reals.get(name);
    if (there === undefined) throw refusal('editRealServer', ENOENT);
    reals.set(name, { ...there, ...real });
  }

  deleteRealServer(server: ServerIdentity, real: RealServer): boolean {
    return (
      this.servers.get(serverKey(server))?.reals.delete(formatAddressPort(real.address, real.port)) ?? false
    );
  }

  setTimeouts(_timeouts: Timeouts): void {
    // Nothing here ages.
  }

  close(): void {
    // Nothing is open.
  }

  /** Weights by `ip:port`. */
  weights(server: ServerIdentity): Record<string, number> {
    return Object.fromEntries(
      this.listRealServers(server).map((real) => [formatAddressPort(real.address, real.port), real.weight]),
    );
  }

  #refuse(address: string): void {
    const errno = this.impossible.get(address);
    if (errno !== undefined) throw refusal(address, errno);
  }

  #entry(server: ServerIdentity): { server: VirtualServer; reals: Map<string, RealServerState> } {
    const entry = this.servers.get(serverKey(server));
    if (entry === undefined) throw refusal(serverKey(server), ESRCH);
    return entry;
  }
}
