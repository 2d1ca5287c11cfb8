/**
 * A door in a namespace that leads to a server on this machine's loopback: so the API server of the lab, a part of the
 * lab's own process, has its address in the network of the nodes. The door can be shut and opened again.
 */
import { connect as dial, createServer, type Server, type Socket } from 'node:net';
import type { SocketAddress } from './address.ts';
import type { Namespaces } from './namespaces.ts';
import { listenOn } from './sockets.ts';

export class Relay {
  private readonly namespaces: Namespaces;
  private readonly namespace: string;
  private readonly addresses: readonly SocketAddress[];
  private readonly target: number;
  private servers: Server[] = [];
  private readonly sockets = new Set<Socket>();

  /** `target` is a TCP port on 127.0.0.1. Shut at first. */
  constructor(
    namespaces: Namespaces,
    namespace: string,
    addresses: readonly SocketAddress[],
    target: number,
  ) {
    this.namespaces = namespaces;
    this.namespace = namespace;
    this.addresses = addresses;
    this.target = target;
  }

  private join(near: Socket): void {
    const far = dial({ host: '127.0.0.1', port: this.target, noDelay: true });
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      this.sockets.add(from);
      from.on('close', () => {
        this.sockets.delete(from);
        to.destroy();
      });
      // Either side's end is passed on by `close`.
      from.on('error', () => from.destroy());
      from.pipe(to);
    }
  }

  open(): void {
    if (this.servers.length > 0) return;
    this.servers = this.addresses.map((address) => {
      const fd = this.namespaces.enter(this.namespace, () => listenOn('tcp', address));
      const server = createServer({ noDelay: true }, (socket) => this.join(socket));
      server.listen({ fd });
      return server;
    });
  }

  /** Refuses new connections and resets the open ones. */
  shut(): void {
    for (const server of this.servers.splice(0)) server.close();
    for (const socket of this.sockets) socket.resetAndDestroy();
  }
}
