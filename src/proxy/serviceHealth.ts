/**
 * Health-check node ports: one HTTP listener a Service, on which load balancers ask whether this node has ready
 * endpoints of it. Ports first, then counts, after every successful sync.
 */
import type { Server, IncomingMessage, ServerResponse } from 'node:http';
import type { Family } from '../api/objects.ts';
import type { HealthCheck } from '../services/types.ts';
import type { Logger } from '../log/logger.ts';
import { closeServer, listen, type BindTarget } from './httpListener.ts';
import { sendJSON } from './httpReply.ts';

export interface ServiceHealthOptions {
  readonly family: Family;
  /** Local addresses to listen on; undefined = all of the family. */
  readonly addresses: readonly string[] | undefined;
  readonly proxyHealthy: () => boolean;
  readonly log: Logger;
  /** A port could not be opened; `text` is for the event on the Service. */
  readonly listenFailed: (namespace: string, name: string, port: number, text: string) => void;
}

/** The body a probe gets: indented with tabs, no newline at the end. */
export function serviceHealthBody(
  namespace: string,
  name: string,
  localEndpoints: number,
  serviceProxyHealthy: boolean,
): string {
  return JSON.stringify(
    { service: { namespace, name }, localEndpoints, serviceProxyHealthy },
    undefined,
    '\t',
  );
}

class ServiceListener {
  readonly namespace: string;
  readonly name: string;
  readonly port: number;
  localEndpoints = 0;
  private readonly proxyHealthy: () => boolean;
  private servers: Server[] = [];
  private closed = false;

  constructor(key: string, port: number, proxyHealthy: () => boolean) {
    const slash = key.indexOf('/');
    this.namespace = key.slice(0, slash);
    this.name = key.slice(slash + 1);
    this.port = port;
    this.proxyHealthy = proxyHealthy;
  }

  /** All addresses or none: a failure closes what was opened. */
  async open(targets: readonly BindTarget[]): Promise<void> {
    for (const target of targets) {
      try {
        this.servers.push(await listen(this.handle, target));
      } catch (error) {
        this.close();
        throw error;
      }
      if (this.closed) return this.close();
    }
  }

  close(): void {
    this.closed = true;
    for (const server of this.servers) closeServer(server);
    this.servers = [];
  }

  private readonly handle = (_request: IncomingMessage, response: ServerResponse): void => {
    const healthy = this.proxyHealthy();
    const count = this.localEndpoints;
    response.setHeader('X-Load-Balancing-Endpoint-Weight', String(count));
    const body = serviceHealthBody(this.namespace, this.name, count, healthy);
    sendJSON(response, count !== 0 && healthy ? 200 : 503, body);
  };
}

/** All health-check node ports of one family. */
export class ServiceHealth {
  private readonly options: ServiceHealthOptions;
  private readonly listeners = new Map<string, ServiceListener>();

  constructor(options: ServiceHealthOptions) {
    this.options = options;
  }

  /** Brings the listeners to `targets`. Resolves when every new port is open or has failed; a failed one is tried again at the next call. */
  async update(targets: ReadonlyMap<string, HealthCheck>): Promise<void> {
    for (const [key, listener] of this.listeners) {
      if (targets.get(key)?.port === listener.port) continue;
      listener.close();
      this.listeners.delete(key);
    }
    const opening: Promise<void>[] = [];
    for (const [key, target] of targets) {
      let listener = this.listeners.get(key);
      if (listener === undefined) {
        listener = new ServiceListener(key, target.port, this.options.proxyHealthy);
        this.listeners.set(key, listener);
        opening.push(this.open(key, listener));
      }
      listener.localEndpoints = target.localEndpoints;
    }
    if (opening.length > 0) await Promise.all(opening);
  }

  stop(): void {
    for (const listener of this.listeners.values()) listener.close();
    this.listeners.clear();
  }

  private async open(key: string, listener: ServiceListener): Promise<void> {
    const { log, listenFailed } = this.options;
    try {
      await listener.open(this.targets(listener.port));
    } catch (err) {
      if (this.listeners.get(key) === listener) this.listeners.delete(key);
      const { namespace, name, port } = listener;
      log.error('Failed to open health check node port', { service: key, port, err });
      const text = err instanceof Error ? err.message : String(err);
      listenFailed(namespace, name, port, text);
    }
  }

  private targets(port: number): BindTarget[] {
    const { addresses, family } = this.options;
    if (addresses !== undefined)
      return addresses.map((host) => ({ host, port, ipv6Only: family === 'IPv6' }));
    return family === 'IPv4'
      ? [{ host: '0.0.0.0', port, ipv6Only: false }]
      : [{ host: '::', port, ipv6Only: true }];
  }
}
