/** Where the API server is and who we are there: kubeconfig, in-cluster, `--master`; credentials kept fresh. */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Agent, ProxyAgent, Socks5ProxyAgent } from 'undici';
import type { Dispatcher } from 'undici';
import { silentLogger } from '../log/logger.ts';
import type { Logger } from '../log/logger.ts';
import { runExecPlugin } from './execPlugin.ts';
import type { ExecCredential } from './execPlugin.ts';
import { ConnectionError, parseKubeconfig } from './kubeconfig.ts';
import type { ClusterAccess, Source } from './kubeconfig.ts';
import { timedLookup } from './observation.ts';
import type { Observe } from './observation.ts';
import { proxyFromEnvironment } from './proxyEnvironment.ts';

export { ConnectionError } from './kubeconfig.ts';

const serviceAccount = '/var/run/secrets/kubernetes.io/serviceaccount';

export interface ConnectionOptions {
  /** Path; empty = in-cluster, unless `master` is given. */
  readonly kubeconfig: string;
  /** Server URL that goes before the kubeconfig's; empty = none. */
  readonly master: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Reads a text file; throws as `readFileSync`. */
  readonly readFile?: (path: string) => string;
  readonly log?: Logger;
  readonly timings?: Partial<ConnectionTimings>;
  readonly observe?: Observe;
}

/** All in milliseconds. */
export interface ConnectionTimings {
  /** To open a TCP connection, TLS included. */
  readonly connect: number;
  /**
   * Silence after which the kernel probes a connection (TCP keep-alive; ten probes, a second apart): a peer that is
   * gone is noticed after this + 10 s.
   */
  readonly keepAlive: number;
  /** How long an unused connection is kept. */
  readonly idle: number;
  /** How often token and certificate files are looked at again. */
  readonly reread: number;
}

export const defaultTimings: ConnectionTimings = {
  connect: 10_000,
  keepAlive: 30_000,
  idle: 60_000,
  reread: 60_000,
};

/** Settles which server and credentials to use; reads the files once, so that mistakes show at start. @throws ConnectionError */
export async function loadConnection(options: ConnectionOptions): Promise<Connection> {
  const env = options.env ?? process.env;
  const readFile = options.readFile ?? ((path: string): string => readFileSync(path, 'utf8'));
  const log = options.log ?? silentLogger;
  const timings = { ...defaultTimings, ...options.timings };
  const access = resolveAccess(options, env, readFile, log);
  const connection = new Connection(access, env, readFile, log, timings, options.observe);
  await connection.headers();
  return connection;
}

function resolveAccess(
  options: ConnectionOptions,
  env: NodeJS.ProcessEnv,
  readFile: (path: string) => string,
  log: Logger,
): ClusterAccess {
  const { kubeconfig, master } = options;
  if (kubeconfig === '' && master === '') {
    log.info('Neither kubeconfig nor master is given: using the in-cluster configuration');
    return inCluster(env, readFile, log);
  }
  if (kubeconfig === '') return { ...anonymous('--master'), server: serverUrl(master, false, '--master') };
  let text: string;
  try {
    text = readFile(kubeconfig);
  } catch (error) {
    throw new ConnectionError(`kubeconfig ${kubeconfig}: cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
  const access = parseKubeconfig(text, kubeconfig);
  if (access === undefined && master !== '') {
    return { ...anonymous('--master'), server: serverUrl(master, false, '--master') };
  }
  if (access === undefined) {
    log.info('The kubeconfig is empty: trying the in-cluster configuration', { kubeconfig });
    try {
      return inCluster(env, readFile, log);
    } catch (error) {
      throw new ConnectionError(
        `kubeconfig ${kubeconfig}: holds no cluster, and ${(error as Error).message}`,
        { cause: error },
      );
    }
  }
  const tls = access.ca !== undefined || access.insecure || access.clientCertificate !== undefined;
  const given = master === '' ? access.server : master;
  if (given === '') throw new ConnectionError(`kubeconfig ${kubeconfig}: the current cluster has no server`);
  const where = master === '' ? `kubeconfig ${kubeconfig}: server` : '--master';
  return { ...access, server: serverUrl(given, tls, where) };
}

function anonymous(origin: string): Omit<ClusterAccess, 'server'> {
  return {
    origin,
    ca: undefined,
    insecure: false,
    tlsServerName: '',
    proxyUrl: '',
    clientCertificate: undefined,
    clientKey: undefined,
    token: '',
    tokenFile: '',
    basic: undefined,
    exec: undefined,
    impersonate: {},
  };
}

/** A host without scheme is https where TLS settings are given, else http; a path in front of the API is kept. */
function serverUrl(text: string, tls: boolean, where: string): string {
  const full = /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `${tls ? 'https' : 'http'}://${text}`;
  if (!URL.canParse(full)) throw new ConnectionError(`${where} "${text}" is not a URL`);
  const url = new URL(full);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new ConnectionError(`${where} "${text}" must begin with https:// or http://`);
  }
  return `${url.origin}${url.pathname.replace(/\/+$/, '')}`;
}

function inCluster(env: NodeJS.ProcessEnv, readFile: (path: string) => string, log: Logger): ClusterAccess {
  const host = env['KUBERNETES_SERVICE_HOST'] ?? '';
  const port = env['KUBERNETES_SERVICE_PORT'] ?? '';
  if (host === '' || port === '') {
    throw new ConnectionError(
      'in-cluster configuration: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be set: this is no Pod; give --kubeconfig or --master',
    );
  }
  const tokenFile = `${serviceAccount}/token`;
  try {
    readFile(tokenFile);
  } catch (error) {
    throw new ConnectionError(
      `in-cluster configuration: the service account token ${tokenFile} cannot be read: ${(error as Error).message}`,
      { cause: error },
    );
  }
  const caFile = `${serviceAccount}/ca.crt`;
  let ca: Source | undefined = { file: caFile, field: 'in-cluster configuration: ca.crt' };
  try {
    readFile(caFile);
  } catch (error) {
    log.error('The cluster CA cannot be read: only certificates the system trusts are accepted', {
      file: caFile,
      err: error,
    });
    ca = undefined;
  }
  const authority = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  const server = serverUrl(`https://${authority}`, true, 'KUBERNETES_SERVICE_HOST and _PORT');
  return { ...anonymous('in-cluster'), server, tokenFile, ca };
}

interface TlsMaterial {
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

/** A file that is there, and holds no certificate. */
class NoCertificate extends ConnectionError {
  readonly reason: 'empty' | 'ca_parse_error';

  constructor(message: string, reason: NoCertificate['reason']) {
    super(message);
    this.reason = reason;
  }
}

/** One server and one identity: hands out connections and the headers that say who we are. */
export class Connection {
  readonly access: ClusterAccess;
  /** `host:port` for metrics. */
  readonly host: string;
  readonly origin: string;
  /** In front of every API path; empty for nearly all servers. */
  readonly basePath: string;
  private readonly env: NodeJS.ProcessEnv;
  private readonly readFile: (path: string) => string;
  private readonly log: Logger;
  private readonly timings: ConnectionTimings;
  private readonly observe: Observe | undefined;
  private agent: Dispatcher | undefined;
  private tls: TlsMaterial | undefined;
  private filesReadAt = 0;
  private fileToken = '';
  private credential: ExecCredential | undefined;
  private running: Promise<ExecCredential> | undefined;

  constructor(
    access: ClusterAccess,
    env: NodeJS.ProcessEnv,
    readFile: (path: string) => string,
    log: Logger,
    timings: ConnectionTimings,
    observe: Observe | undefined,
  ) {
    const url = new URL(access.server);
    this.access = access;
    this.host = url.host;
    this.origin = url.origin;
    this.basePath = url.pathname.replace(/\/+$/, '');
    this.env = env;
    this.readFile = readFile;
    this.log = log;
    this.timings = timings;
    this.observe = observe;
  }

  /** The headers that authenticate a request, with files re-read and plugins run again where they are due. @throws ConnectionError */
  async headers(): Promise<Record<string, string | string[]>> {
    if (Date.now() - this.filesReadAt >= this.timings.reread) this.readFiles();
    const { access } = this;
    if (access.exec !== undefined) await this.refreshCredential();
    const token = this.credential?.token || this.fileToken || access.token;
    if (token !== '') return { ...access.impersonate, authorization: `Bearer ${token}` };
    if (access.basic === undefined) return access.impersonate;
    const { username, password } = access.basic;
    const pair = Buffer.from(`${username}:${password}`).toString('base64');
    return { ...access.impersonate, authorization: `Basic ${pair}` };
  }

  /** After a 401: forgets what can be had anew. True if another try may go better. */
  unauthorized(): boolean {
    const { exec, tokenFile, clientCertificate } = this.access;
    this.credential = undefined;
    this.filesReadAt = 0;
    return (
      exec !== undefined ||
      tokenFile !== '' ||
      (clientCertificate !== undefined && 'file' in clientCertificate)
    );
  }

  dispatcher(): Dispatcher {
    this.observe?.({ kind: 'transport', result: this.agent === undefined ? 'miss' : 'hit' });
    if (this.agent === undefined) this.keep(this.createAgent());
    return this.agent as Dispatcher;
  }

  /** New requests get new connections; those in use go on until they end. */
  renew(): void {
    const old = this.agent;
    this.keep(undefined);
    old?.close().catch((error: unknown) => {
      this.log.info('Closing idle connections failed', { err: error }, 4);
    });
  }

  async close(): Promise<void> {
    const old = this.agent;
    this.keep(undefined);
    await old?.destroy();
  }

  private keep(agent: Dispatcher | undefined): void {
    this.agent = agent;
    this.observe?.({ kind: 'transports', kept: agent === undefined ? 0 : 1 });
  }

  /** The certificate authority; what became of its file since the first time is observed. */
  private readAuthority(): string | undefined {
    const { ca } = this.access;
    const { tls, observe } = this;
    if (tls === undefined || ca === undefined || 'inline' in ca) return this.readSource(ca);
    try {
      const text = this.readSource(ca);
      observe?.({ kind: 'authority', result: 'success', reason: text === tls.ca ? 'unchanged' : 'updated' });
      return text;
    } catch (error) {
      const reason = error instanceof NoCertificate ? error.reason : 'read_error';
      observe?.({ kind: 'authority', result: 'failure', reason });
      throw error;
    }
  }

  private readSource(source: Source | undefined): string | undefined {
    if (source === undefined) return undefined;
    if ('inline' in source) return source.inline;
    let text: string;
    try {
      text = this.readFile(source.file);
    } catch (error) {
      throw new ConnectionError(
        `${source.field} "${source.file}" cannot be read: ${(error as Error).message}`,
        {
          cause: error,
        },
      );
    }
    if (!text.includes('-----BEGIN')) {
      throw new NoCertificate(
        `${source.field} "${source.file}" is not PEM text`,
        text === '' ? 'empty' : 'ca_parse_error',
      );
    }
    return text;
  }

  /** Looks at all files. What became unreadable since the first time is logged, and the old content stays in use. */
  private readFiles(): void {
    const { access } = this;
    const first = this.tls === undefined;
    try {
      if (access.tokenFile !== '') this.readToken(access.tokenFile);
      this.useTls({
        ca: this.readAuthority(),
        cert: this.readSource(access.clientCertificate),
        key: this.readSource(access.clientKey),
      });
    } catch (error) {
      if (first) throw error;
      this.log.error('Credentials cannot be read again: the ones in use stay', { err: error });
    }
    this.filesReadAt = Date.now();
  }

  private readToken(path: string): void {
    let token: string;
    try {
      token = this.readFile(path).trim();
    } catch (error) {
      if (this.access.token !== '') return;
      throw new ConnectionError(
        `${this.access.origin}: tokenFile "${path}" cannot be read: ${(error as Error).message}`,
        {
          cause: error,
        },
      );
    }
    if (token === '') throw new ConnectionError(`${this.access.origin}: tokenFile "${path}" is empty`);
    this.fileToken = token;
  }

  private useTls(next: TlsMaterial): void {
    const old = this.tls;
    this.tls = next;
    if (old === undefined || (old.ca === next.ca && old.cert === next.cert && old.key === next.key)) return;
    this.log.info('Certificates changed: new connections use them', { origin: this.access.origin });
    this.renew();
  }

  private async refreshCredential(): Promise<void> {
    const { access } = this;
    // A little early, so that a request does not arrive with a token that has just expired.
    if (this.credential !== undefined && Date.now() < this.credential.expires - 5_000) return;
    if (access.exec === undefined) return;
    const ca = this.tls?.ca;
    this.running ??= runExecPlugin(
      access.exec,
      {
        server: access.server,
        ...(access.tlsServerName === '' ? {} : { 'tls-server-name': access.tlsServerName }),
        ...(access.insecure ? { 'insecure-skip-tls-verify': true } : {}),
        ...(ca === undefined ? {} : { 'certificate-authority-data': Buffer.from(ca).toString('base64') }),
        ...(access.proxyUrl === '' ? {} : { 'proxy-url': access.proxyUrl }),
      },
      this.env,
      this.observe,
    ).finally(() => {
      this.running = undefined;
    });
    const credential = await this.running;
    const changed = this.agent !== undefined && this.execCert !== credential.clientCertificate;
    this.credential = credential;
    if (this.execCert !== credential.clientCertificate) this.certificateChanged(credential.clientCertificate);
    this.execCert = credential.clientCertificate;
    this.execKey = credential.clientKey;
    if (changed) this.renew();
  }

  private execCert = '';
  private execKey = '';

  private certificateChanged(pem: string): void {
    if (this.observe === undefined) return;
    try {
      const replacedAge =
        this.execCert === ''
          ? undefined
          : (Date.now() - Date.parse(new X509Certificate(this.execCert).validFrom)) / 1000;
      const expires = pem === '' ? Infinity : Date.parse(new X509Certificate(pem).validTo);
      this.observe({ kind: 'certificate', expires, replacedAge });
    } catch (error) {
      // Whether it can be used is for TLS to say; here it only cannot be measured.
      this.log.info('The client certificate of the exec plugin cannot be read', { err: error }, 4);
    }
  }

  private createAgent(): Dispatcher {
    const { access, timings } = this;
    const cert = this.execCert === '' ? this.tls?.cert : this.execCert;
    const key = this.execCert === '' ? this.tls?.key : this.execKey;
    const lookup = this.observe === undefined ? {} : { lookup: timedLookup(this.observe) };
    const tls = {
      keepAlive: true,
      keepAliveInitialDelay: timings.keepAlive,
      timeout: timings.connect,
      ...lookup,
      rejectUnauthorized: !access.insecure,
      ...(this.tls?.ca === undefined ? {} : { ca: this.tls.ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      ...(access.tlsServerName === '' ? {} : { servername: access.tlsServerName }),
    };
    const pool = {
      keepAliveTimeout: timings.idle,
      keepAliveMaxTimeout: timings.idle * 5,
      pipelining: 1,
      allowH2: false,
    };
    const proxy = access.proxyUrl === '' ? proxyFromEnvironment(access.server, this.env) : access.proxyUrl;
    if (proxy === '') return new Agent({ ...pool, connect: tls });
    if (!URL.canParse(proxy))
      throw new ConnectionError(`${access.origin}: proxy-url "${proxy}" is not a URL`);
    if (/^socks5?h?:/.test(proxy)) {
      const socks = { ...pool, requestTls: tls };
      return new Socks5ProxyAgent(proxy.replace('socks5h:', 'socks5:'), socks);
    }
    return new ProxyAgent({ ...pool, uri: proxy, requestTls: tls, proxyTls: lookup });
  }
}
