/** The embedded API server: starts it, tells how to reach it, stops it. */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { createServer as createHttpServer, type Server } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { isIPv6, type AddressInfo, type Socket } from 'node:net';
import { startControllers, type ControllerOptions, type Controllers } from '../controllers/controllers.ts';
import { makeOwnedDirectory } from '../net/ownedDirectory.ts';
import { formatIp, parseCidr } from './addresses.ts';
import { makeAuthenticator, type User } from './auth.ts';
import { kubeconfigText, makeCertificates, type Certificates } from './certificates.ts';
import { createDefaults, defaultServiceCidrs, publishEndpoints } from './defaults.ts';
import { Faults } from './faults.ts';
import { makeHandler } from './handler.ts';
import { Registry } from './registry.ts';
import { Store } from './store.ts';

export interface ApiServerOptions {
  /** Address to listen at; 127.0.0.1 if absent. */
  readonly host?: string;
  /** 0 or absent: any free port. */
  readonly port?: number;
  /** Plain HTTP instead of TLS. */
  readonly insecure?: boolean;
  /** Where certificates are made; a temporary directory if absent. */
  readonly directory?: string;
  /** Further names and addresses for the server's certificate. */
  readonly hosts?: readonly string[];
  readonly token?: string;
  /** The default ServiceCIDR: one range, or one a family, the primary family first. */
  readonly serviceCidrs?: readonly string[];
  /** Where the Service default/kubernetes leads, as the cluster sees it; no endpoint if absent. */
  readonly advertise?: { readonly addresses: readonly string[]; readonly port: number };
  /** How many events of each resource are remembered; older ones answer 410. */
  readonly historyLimit?: number;
  /** Which controllers run; none if absent. */
  readonly controllers?: ControllerOptions;
}

export interface ApiServer {
  readonly url: string;
  /** Empty with plain HTTP. */
  readonly caPem: string;
  readonly token: string;
  /** More tokens may be added and taken away at any time. */
  readonly tokens: Map<string, User>;
  readonly certificates: Certificates | undefined;
  /** The API's verbs, in this process; `store.load(objects)` is the quick way to put many objects in place. */
  readonly store: Registry;
  readonly faults: Faults;
  /** A kubeconfig with the token (default) or the admin's client certificate. */
  kubeconfig(user?: 'token' | 'certificate'): string;
  /** Stops listening and closes all connections: the server is gone as far as clients can see. */
  down(): Promise<void>;
  /** Listens again, at the same port, with everything it knew. */
  up(): Promise<void>;
  close(): Promise<void>;
}

function listen(server: Server, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
}

export async function startApiServer(options: ApiServerOptions = {}): Promise<ApiServer> {
  const host = options.host ?? '127.0.0.1';
  const serviceCidrs = options.serviceCidrs ?? defaultServiceCidrs;
  const registry = new Registry(new Store(options.historyLimit));
  const first = parseCidr(serviceCidrs[0] ?? '');
  if (first === undefined) throw new Error(`serviceCidrs: ${String(serviceCidrs[0])} is not a CIDR`);
  const kubernetesIp = formatIp({ family: first.family, value: first.base + 1n });
  createDefaults(registry, serviceCidrs, kubernetesIp);
  if (options.advertise !== undefined) publishEndpoints(registry, options.advertise);

  const token = options.token ?? randomBytes(24).toString('base64url');
  const admin: User = { name: 'kubernetes-admin', groups: ['system:masters', 'system:authenticated'] };
  const tokens = new Map([[token, admin]]);
  const faults = new Faults();
  const handler = makeHandler({ registry, faults, authenticate: makeAuthenticator(tokens) });

  let certificates: Certificates | undefined;
  let temporary: string | undefined;
  let server: Server;
  if (options.insecure === true) {
    server = createHttpServer(handler);
  } else {
    if (options.directory === undefined) temporary = makeOwnedDirectory('lab');
    const directory = options.directory ?? temporary ?? '';
    certificates = await makeCertificates(directory, [
      host,
      '127.0.0.1',
      '::1',
      kubernetesIp,
      ...(options.hosts ?? []),
    ]);
    if (temporary !== undefined) await rm(temporary, { recursive: true, force: true });
    const { caPem, server: own } = certificates;
    const tls = {
      key: own.keyPem,
      cert: own.certPem,
      ca: caPem,
      requestCert: true,
      rejectUnauthorized: false,
    };
    server = createHttpsServer(tls, handler);
  }
  server.keepAliveTimeout = 120_000;
  server.requestTimeout = 0;
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('close', () => sockets.delete(socket));
  });
  await listen(server, options.port ?? 0, host);
  const { port } = server.address() as AddressInfo;
  const scheme = options.insecure === true ? 'http' : 'https';
  const url = `${scheme}://${isIPv6(host) ? `[${host}]` : host}:${port}`;
  const controllers: Controllers | undefined =
    options.controllers === undefined ? undefined : startControllers(registry, options.controllers);

  const down = (): Promise<void> =>
    new Promise((resolve) => {
      if (!server.listening) {
        resolve();
        return;
      }
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });

  return {
    url,
    caPem: certificates?.caPem ?? '',
    token,
    tokens,
    certificates,
    store: registry,
    faults,
    kubeconfig: (user = 'token') =>
      kubeconfigText({
        server: url,
        caPem: certificates?.caPem,
        token,
        client: user === 'certificate' ? certificates?.admin : undefined,
      }),
    down,
    up: () => (server.listening ? Promise.resolve() : listen(server, port, host)),
    close: async () => {
      controllers?.stop();
      await down();
    },
  };
}
