/**
 * What a Pod of the lab runs. A TCP server greets each connection with the line `POD CLIENT SERVER` (its name, the
 * peer's address, the local address) and says it again for each line it gets; a UDP server answers each datagram with
 * the same and the datagram. An HTTP server answers with the same in words.
 */
import { createServer as createHttpServer } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import { closeDescriptor, watchReadable } from '../../linux/ffi.ts';
import { blockHolds, formatSocketAddress, type SocketAddress } from '../net/address.ts';
import type { Namespaces } from '../net/namespaces.ts';
import { answerDatagram, listenOn, receiveDatagram } from '../net/sockets.ts';

export type PodPortKind = 'tcp' | 'udp' | 'sctp' | 'http';

export interface PodPort {
  readonly kind: PodPortKind;
  readonly port: number;
}

/** Reads `tcp/8080`; throws an Error that names the text. */
export function parsePodPort(text: string): PodPort {
  const match = /^(tcp|udp|sctp|http)\/(\d+)$/.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port < 1 || port > 65535) {
    throw new Error(`"${text}" is not a Pod's port; write tcp/8080 or udp/53`);
  }
  return { kind: match[1] as PodPortKind, port };
}

export interface EchoServerOptions {
  readonly name: string;
  /** Where it listens, as the lab names its namespaces. */
  readonly namespace: string;
  readonly ports: readonly PodPort[];
  /** Answers from address x.y.z.N of these blocks carry the name `NAME-N`. */
  readonly ranges?: readonly string[];
  /** Called for each HTTP request, for counting. */
  readonly onRequest?: () => void;
}

export interface EchoServer {
  /** Takes no new connections, lets the open ones finish. */
  drain(): void;
  /** Ends everything at once. */
  close(): void;
}

function peerOf(socket: Socket): SocketAddress {
  return { ip: socket.remoteAddress ?? '', port: socket.remotePort ?? 0 };
}

export function startEchoServer(namespaces: Namespaces, options: EchoServerOptions): EchoServer {
  const servers: Server[] = [];
  const sockets = new Set<Socket>();
  const closers: (() => void)[] = [];

  const nameAt = (local: string): string => {
    for (const range of options.ranges ?? []) {
      if (blockHolds(range, local)) return `${options.name}-${local.split(/[.:]/).at(-1)}`;
    }
    return options.name;
  };
  const greeting = (peer: SocketAddress, local: SocketAddress): string =>
    `${nameAt(local.ip)} ${formatSocketAddress(peer)} ${formatSocketAddress(local)}`;

  const serve = (server: Server, fd: number): void => {
    server.on('connection', (socket) => {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
      // A client that resets its connection is nothing to report: probes do that.
      socket.on('error', () => socket.destroy());
    });
    server.listen({ fd });
    servers.push(server);
  };

  const startTcp = (fd: number): void => {
    const server = createServer((socket) => {
      // SCTP has no such option, and says so to nobody.
      socket.setNoDelay(true);
      const line = `${greeting(peerOf(socket), { ip: socket.localAddress ?? '', port: socket.localPort ?? 0 })}\n`;
      socket.write(line);
      socket.on('data', (chunk) => {
        for (const byte of chunk) if (byte === 10) socket.write(line);
      });
    });
    serve(server, fd);
  };

  const startHttp = (fd: number): void => {
    const server = createHttpServer((request, response) => {
      options.onRequest?.();
      const socket = request.socket;
      const at = nameAt(socket.localAddress ?? '');
      response.setHeader('content-type', 'text/plain');
      response.setHeader('x-pod', at);
      response.end(
        `Hello from ${at}. You are ${formatSocketAddress(peerOf(socket))}, you reached me at ` +
          `${formatSocketAddress({ ip: socket.localAddress ?? '', port: socket.localPort ?? 0 })}.\n`,
      );
    });
    serve(server, fd);
  };

  const startUdp = (fd: number, port: number): void => {
    const stop = watchReadable(fd, () => {
      for (;;) {
        const datagram = receiveDatagram(fd);
        if (datagram === undefined) return;
        const line = `${greeting(datagram.peer, { ip: datagram.local, port })} `;
        answerDatagram(fd, datagram, Buffer.concat([Buffer.from(line), datagram.payload]));
      }
    });
    closers.push(() => {
      stop();
      closeDescriptor(fd);
    });
  };

  const close = (): void => {
    for (const server of servers) server.close();
    for (const socket of sockets) socket.destroy();
    for (const closer of closers.splice(0)) closer();
  };

  try {
    for (const { kind, port } of options.ports) {
      for (const ip of ['0.0.0.0', '::']) {
        const protocol = kind === 'http' ? 'tcp' : kind;
        const fd = namespaces.enter(options.namespace, () => listenOn(protocol, { ip, port }));
        if (kind === 'udp') startUdp(fd, port);
        else if (kind === 'http') startHttp(fd);
        else startTcp(fd);
      }
    }
  } catch (error) {
    close();
    throw new Error(`Pod ${options.name} cannot listen in ${options.namespace}`, { cause: error });
  }
  return {
    drain: () => {
      for (const server of servers) server.close();
    },
    close,
  };
}
