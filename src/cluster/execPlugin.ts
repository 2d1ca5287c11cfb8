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
        if (error === null) resolve(stdout);
        else reject(failure(plugin, error, stderr));
      },
    );
    child.stdin?.end();
  });
  return parseCredential(plugin, output);
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
