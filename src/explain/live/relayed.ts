/**
 * Userspace mode: to which endpoint the process relays a connection of ours. Nothing in the kernel joins the two
 * connections, but the process has both, and ours are made one after the other.
 */
import type { Case } from '../case.ts';
import {
  isConnected,
  isWaiting,
  processWith,
  readSockets,
  socketsOf,
  type SocketLine,
} from '../sources/sockets.ts';

/** Milliseconds between two looks. */
const lookEvery = 20;
/**
 * Milliseconds that the process may take: its attempts at endpoints that are silent last 250, 500, 1000 and 2000
 * (dataplane/userspace).
 */
const patience = 4500;

export interface Relayed {
  /** `ip:port`; undefined: it cannot be told. */
  readonly endpoint: string | undefined;
  /** The process has given our connection up. */
  readonly isReset: boolean;
}

/** One for all connections that are dialled. */
export class RelayWatch {
  readonly #protocol: SocketLine['protocol'];
  readonly #endpoints: ReadonlySet<string>;
  /** By the listener's port; undefined: nobody that can be seen. */
  readonly #processes = new Map<number, string | undefined>();
  #before = new Set<number>();

  private constructor(protocol: SocketLine['protocol'], endpoints: ReadonlySet<string>) {
    this.#protocol = protocol;
    this.#endpoints = endpoints;
  }

  /** Undefined where nothing is relayed, or to whom is not known. */
  static of({ mode, decision, packet }: Case): RelayWatch | undefined {
    const { protocol } = packet;
    const endpoints = decision?.route?.reachable ?? [];
    if (mode !== 'userspace' || protocol === 'SCTP' || endpoints.length === 0) return undefined;
    return new RelayWatch(protocol, new Set(endpoints.map(({ key }) => key)));
  }

  /** Call it right before a connection is dialled. */
  begin(): void {
    this.#before = new Set(this.#connected().map(({ inode }) => inode));
  }

  /**
   * Waits until the connection dialled last has gone on, or cannot any more.
   * @param port the listener's
   * @param isReset whether our own connection is reset
   */
  async end(port: number, isReset: () => boolean): Promise<Relayed> {
    const process = this.#processOf(port);
    if (process === undefined) return { endpoint: undefined, isReset: isReset() };
    const last = Date.now() + patience;
    while (Date.now() < last) {
      const own = socketsOf(process);
      const found = this.#connected().filter(({ inode }) => own.has(inode) && !this.#before.has(inode));
      // Two at a time: somebody else has dialled, too.
      if (found.length > 0)
        return { endpoint: found.length > 1 ? undefined : found[0]!.remote, isReset: false };
      if (isReset()) return { endpoint: undefined, isReset: true };
      await new Promise((resolve) => setTimeout(resolve, lookEvery));
    }
    return { endpoint: undefined, isReset: isReset() };
  }

  #connected(): SocketLine[] {
    return readSockets(this.#protocol).filter(
      (socket) => isConnected(socket) && this.#endpoints.has(socket.remote),
    );
  }

  #processOf(port: number): string | undefined {
    if (!this.#processes.has(port)) {
      const listener = readSockets(this.#protocol).find(
        (socket) => isWaiting(socket) && socket.localPort === port,
      );
      this.#processes.set(port, listener === undefined ? undefined : processWith(listener.inode));
    }
    return this.#processes.get(port);
  }
}
