/** Credential plugins: a program is run (argv, never a shell) and prints an ExecCredential. KEP-541 */
import { execFile } from 'node:child_process';
import type { ExecFileException } from 'node:child_process';
import { ConnectionError } from './kubeconfig.ts';
import type { ExecPlugin } from './kubeconfig.ts';

export interface ExecCredential {
  readonly token: string;
  /** PEM; empty if the plugin gave none. */
  readonly clientCertificate: string;
  readonly clientKey: string;
  /** Milliseconds since the epoch; Infinity if it does not expire. */
  readonly expires: number;
}

/** What happens with a plugin, for metrics; the words are client-go's. */
export type ExecObservation =
  | {
      readonly kind: 'called';
      readonly status:
        'no_error' | 'plugin_execution_error' | 'plugin_not_found_error' | 'client_internal_error';
      /** 0 if and only if all went well. */
      readonly exitCode: number;
    }
  | {
      /** There is a new client certificate. */
      readonly kind: 'certificate';
      /** Milliseconds since the epoch. */
      readonly expires: number;
      /** Seconds since the beginning of the validity of the one before, if there was one. */
      readonly replacedAge: number | undefined;
    };

/** What a plugin with `provideClusterInfo` is told. */
export interface ExecCluster {
  readonly server: string;
  readonly 'tls-server-name'?: string;
  readonly 'insecure-skip-tls-verify'?: boolean;
  readonly 'certificate-authority-data'?: string;
  readonly 'proxy-url'?: string;
}

/** Runs the plugin once. @param timeout milliseconds @throws ConnectionError with what the plugin said */
export async function runExecPlugin(
  plugin: ExecPlugin,
  cluster: ExecCluster,
  env: NodeJS.ProcessEnv,
  observe: (observation: ExecObservation) => void = () => undefined,
  timeout = 60_000,
): Promise<ExecCredential> {
  const info = {
    apiVersion: plugin.apiVersion,
    kind: 'ExecCredential',
    spec: { interactive: false, ...(plugin.provideClusterInfo ? { cluster } : {}) },
  };
  const variables: NodeJS.ProcessEnv = { ...env, KUBERNETES_EXEC_INFO: JSON.stringify(info) };
  for (const { name, value } of plugin.env) variables[name] = value;
  const output = await new Promise<string>((resolve, reject) => {
    const child = execFile(
      plugin.command,
      [...plugin.args],
      { env: variables, timeout, maxBuffer: 4 << 20, encoding: 'utf8', shell: false },
      (error, stdout, stderr) => {
        observe(outcome(error));
        if (error === null) resolve(stdout);
        else reject(failure(plugin, error, stderr));
      },
    );
    child.stdin?.end();
  });
  return parseCredential(plugin, output);
}

function outcome(error: ExecFileException | null): ExecObservation {
  if (error === null) return { kind: 'called', status: 'no_error', exitCode: 0 };
  if (error.code === 'ENOENT') return { kind: 'called', status: 'plugin_not_found_error', exitCode: 1 };
  return typeof error.code === 'number'
    ? { kind: 'called', status: 'plugin_execution_error', exitCode: error.code }
    : { kind: 'called', status: 'client_internal_error', exitCode: 1 };
}

function failure(plugin: ExecPlugin, error: ExecFileException, stderr: string): ConnectionError {
  const said = stderr.trim().slice(-400);
  const missing = error.code === 'ENOENT';
  const why = missing ? 'is not installed' : said === '' ? `failed: ${error.message}` : `failed: ${said}`;
  const hint = missing && plugin.installHint !== '' ? `\n${plugin.installHint}` : '';
  return new ConnectionError(`${plugin.field}.command "${plugin.command}" ${why}${hint}`, { cause: error });
}

function parseCredential(plugin: ExecPlugin, output: string): ExecCredential {
  const wrong = (message: string, cause?: unknown): ConnectionError =>
    new ConnectionError(`${plugin.field}.command "${plugin.command}" ${message}`, { cause });
  let value: unknown;
  try {
    value = JSON.parse(output);
  } catch (error) {
    throw wrong(`printed no JSON: ${(error as Error).message}`, error);
  }
  const credential = value as { kind?: unknown; apiVersion?: unknown; status?: unknown } | null;
  if (credential?.kind !== 'ExecCredential') throw wrong('printed no ExecCredential');
  if (credential.apiVersion !== plugin.apiVersion) {
    throw wrong(`answered in ${String(credential.apiVersion)}, asked in ${plugin.apiVersion}`);
  }
  const status = (credential.status ?? {}) as Record<string, unknown>;
  const text = (name: string): string => {
    const value = status[name];
    return typeof value === 'string' ? value : '';
  };
  const result = {
    token: text('token'),
    clientCertificate: text('clientCertificateData'),
    clientKey: text('clientKeyData'),
  };
  if (result.token === '' && result.clientCertificate === '') {
    throw wrong('gave neither a token nor a client certificate');
  }
  if ((result.clientCertificate === '') !== (result.clientKey === '')) {
    throw wrong('must give clientCertificateData and clientKeyData together');
  }
  const expiry = text('expirationTimestamp');
  const expires = expiry === '' ? Number.POSITIVE_INFINITY : Date.parse(expiry);
  if (Number.isNaN(expires)) throw wrong(`gave an expirationTimestamp that is no time: ${expiry}`);
  return { ...result, expires };
}
