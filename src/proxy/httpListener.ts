/**
 * A plain HTTP server on an `IP:port` of the configuration: dual-stack on unspecified addresses, bound again every
 * 5 seconds while the address cannot be had.
 */
import { createServer, type RequestListener, type Server } from 'node:http';
import type { ListenOptions } from 'node:net';
import type { Logger } from '../log/logger.ts';

const retryInterval = 5000;

/** Where to listen, as `net.Server.listen` wants it. */
export interface BindTarget {
  readonly host: string;
  readonly port: number;
  readonly ipv6Only: boolean;
}

/** Splits `IP:port` or `[IP]:port`. Throws on anything else (validation has refused it before). */
export function parseBindAddress(address: string): { ip: string; port: number } {
  const match = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(address);
  if (match === null)
    throw new Error(`bind address ${JSON.stringify(address)} is not IP:port; write it as IP:port`);
  return { ip: match[1] ?? match[2] ?? '', port: Number(match[3]) };
}

/** `0.0.0.0` and `::` both mean all addresses of both families: one socket that serves the two. */
export function bindTarget(address: string): BindTarget {
  const { ip, port } = parseBindAddress(address);
  const unspecified = ip === '' || ip === '0.0.0.0' || ip === '::';
  return { host: unspecified ? '::' : ip, port, ipv6Only: false };
}

/** Opens one server; rejects if the address cannot be had. */
export function listen(handler: RequestListener, target: BindTarget): Promise<Server> {
  const server = createServer(handler);
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    const options: ListenOptions = { ...target, exclusive: true };
    server.listen(options, () => {
      server.removeListener('error', reject);
      resolve(server);
    });
  });
}

/** As `listen`, but a machine without IPv6 serves unspecified addresses over IPv4 alone. */
async function listenDualStack(handler: RequestListener, target: BindTarget): Promise<Server> {
  try {
    return await listen(handler, target);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (target.host !== '::' || (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL')) throw error;
    return listen(handler, { ...target, host: '0.0.0.0' });
  }
}

/** Stops listening and drops the connections that are still open. */
export function closeServer(server: Server): void {
  server.close();
  server.closeAllConnections();
}

export interface ListenerOptions {
  /** For the log: `healthz`, `metrics`. */
  readonly name: string;
  /** `IP:port` */
  readonly address: string;
  readonly handler: RequestListener;
  readonly log: Logger;
  /** Told of each failure to bind; true = do not try again. */
  readonly bindFailed: (error: Error) => boolean;
}

/** Keeps a server listening until stopped. */
export class HttpListener {
  private readonly options: ListenerOptions;
  private server: Server | undefined;
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  constructor(options: ListenerOptions) {
    this.options = options;
  }

  /** Resolves after the first attempt to bind, successful or not. */
  async start(): Promise<void> {
    if (this.stopped) return;
    const { name, address, handler, log, bindFailed } = this.options;
    try {
      const server = await listenDualStack(handler, bindTarget(address));
      if (this.stopped) return closeServer(server);
      this.server = server;
      server.on('error', (err) => log.error(`Server for ${name} failed`, { address, err }));
      log.info(`Starting ${name} server`, { address }, 2);
    } catch (err) {
      const error = err instanceof Error ? err : new Error(String(err));
      log.error(`Failed to start ${name} server, trying again in 5s`, { address, err: error });
      if (bindFailed(error)) return;
      this.timer = setTimeout(() => void this.start(), retryInterval);
    }
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
    if (this.server !== undefined) closeServer(this.server);
  }
}
