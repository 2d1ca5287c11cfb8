/** kubeconfig files (clientcmd v1): the current context's cluster and user, checked, with paths made absolute. */
import { dirname, isAbsolute, resolve } from 'node:path';
import { parse } from 'yaml';

/** A setting given inline or as a file to be read (and read again when it changes). */
export type Source = { readonly inline: string } | { readonly file: string; readonly field: string };

/** How to run a credential plugin (client.authentication.k8s.io). */
export interface ExecPlugin {
  readonly apiVersion: 'client.authentication.k8s.io/v1' | 'client.authentication.k8s.io/v1beta1';
  readonly command: string;
  readonly args: readonly string[];
  readonly env: readonly { readonly name: string; readonly value: string }[];
  readonly provideClusterInfo: boolean;
  readonly installHint: string;
  /** Where it stands in the file, for errors. */
  readonly field: string;
}

/** Everything needed to reach a server and to be somebody there. */
export interface ClusterAccess {
  /** Where this comes from: a file's path, or `in-cluster`. */
  readonly origin: string;
  readonly server: string;
  readonly ca: Source | undefined;
  readonly insecure: boolean;
  /** Empty: the server's own name. */
  readonly tlsServerName: string;
  /** Empty: as the environment says. */
  readonly proxyUrl: string;
  readonly clientCertificate: Source | undefined;
  readonly clientKey: Source | undefined;
  readonly token: string;
  /** Empty: none. Preferred to `token`. */
  readonly tokenFile: string;
  readonly basic: { readonly username: string; readonly password: string } | undefined;
  readonly exec: ExecPlugin | undefined;
  /** Impersonate-* headers. */
  readonly impersonate: Readonly<Record<string, string | string[]>>;
}

/** What is wrong with the connection settings, with the file and the field. */
export class ConnectionError extends Error {
  override readonly name = 'ConnectionError';
}

type Fields = Readonly<Record<string, unknown>>;

/** Undefined if the file holds no cluster, user or context at all. @throws ConnectionError */
export function parseKubeconfig(text: string, path: string): ClusterAccess | undefined {
  const file = new KubeconfigFile(path);
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    throw new ConnectionError(`kubeconfig ${path}: not valid YAML: ${(error as Error).message}`, {
      cause: error,
    });
  }
  if (value === null || value === undefined) return undefined;
  const root = file.object(value, '');
  const clusters = file.list(root, 'clusters');
  const contexts = file.list(root, 'contexts');
  const users = file.list(root, 'users');
  const current = file.text(root, 'current-context', 'current-context');
  if (current === '' && clusters.length === 0 && contexts.length === 0 && users.length === 0)
    return undefined;
  if (current === '') throw file.error('current-context', 'is not set: it must name one of contexts[]');
  const context = file.named(contexts, 'contexts', 'context', current, 'current-context');
  const clusterName = file.text(context.fields, 'cluster', `${context.field}.cluster`);
  const cluster = file.named(clusters, 'clusters', 'cluster', clusterName, `${context.field}.cluster`);
  const userName = file.text(context.fields, 'user', `${context.field}.user`);
  const user =
    userName === '' ? undefined : file.named(users, 'users', 'user', userName, `${context.field}.user`);
  return { ...file.cluster(cluster), ...file.user(user ?? { fields: {}, field: 'user' }) };
}

interface Entry {
  readonly fields: Fields;
  readonly field: string;
}

type ClusterPart = Pick<
  ClusterAccess,
  'origin' | 'server' | 'ca' | 'insecure' | 'tlsServerName' | 'proxyUrl'
>;

class KubeconfigFile {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  error(field: string, message: string): ConnectionError {
    return new ConnectionError(`kubeconfig ${this.path}: ${field} ${message}`);
  }

  object(value: unknown, field: string): Fields {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw this.error(field === '' ? 'the file' : field, 'must be a map of fields');
    }
    return value as Fields;
  }

  list(fields: Fields, name: string): readonly unknown[] {
    const value = fields[name];
    if (value === undefined || value === null) return [];
    if (!Array.isArray(value)) throw this.error(name, 'must be a list');
    return value;
  }

  text(fields: Fields, name: string, field: string): string {
    const value = fields[name];
    if (value === undefined || value === null) return '';
    if (typeof value !== 'string') throw this.error(field, 'must be text (put it in quotes)');
    return value;
  }

  boolean(fields: Fields, name: string, field: string): boolean {
    const value = fields[name];
    if (value === undefined || value === null) return false;
    if (typeof value !== 'boolean') throw this.error(field, 'must be true or false');
    return value;
  }

  /** Entry of one of the three named lists: `{name, <inner>: {…}}`. */
  named(list: readonly unknown[], listName: string, inner: string, name: string, wantedBy: string): Entry {
    for (let i = 0; i < list.length; i++) {
      const entry = this.object(list[i], `${listName}[${i}]`);
      if (entry['name'] !== name) continue;
      const field = `${listName}[${i}].${inner}`;
      return { fields: this.object(entry[inner] ?? {}, field), field };
    }
    throw this.error(wantedBy, `names "${name}", which is not in ${listName}[]`);
  }

  /** Inline data (base64) goes before a file. */
  source(entry: Entry, name: string): Source | undefined {
    const dataField = `${entry.field}.${name}-data`;
    const data = this.text(entry.fields, `${name}-data`, dataField);
    if (data !== '') {
      const decoded = Buffer.from(data, 'base64').toString('latin1');
      if (!decoded.includes('-----BEGIN')) throw this.error(dataField, 'is not base64 of PEM text');
      return { inline: decoded };
    }
    const field = `${entry.field}.${name}`;
    const path = this.text(entry.fields, name, field);
    return path === '' ? undefined : { file: this.resolve(path), field: `kubeconfig ${this.path}: ${field}` };
  }

  resolve(path: string): string {
    return isAbsolute(path) ? path : resolve(dirname(this.path), path);
  }

  cluster(entry: Entry): ClusterPart {
    const { fields, field } = entry;
    const server = this.text(fields, 'server', `${field}.server`);
    const ca = this.source(entry, 'certificate-authority');
    const insecure = this.boolean(fields, 'insecure-skip-tls-verify', `${field}.insecure-skip-tls-verify`);
    if (insecure && ca !== undefined) {
      throw this.error(
        `${field}.insecure-skip-tls-verify`,
        'cannot be true where a certificate authority is given: remove one of them',
      );
    }
    return {
      origin: this.path,
      server,
      ca,
      insecure,
      tlsServerName: this.text(fields, 'tls-server-name', `${field}.tls-server-name`),
      proxyUrl: this.text(fields, 'proxy-url', `${field}.proxy-url`),
    };
  }

  user(entry: Entry): Omit<ClusterAccess, keyof ClusterPart> {
    const { fields, field } = entry;
    if (fields['auth-provider'] !== undefined && fields['auth-provider'] !== null) {
      throw this.error(`${field}.auth-provider`, 'is no longer supported by Kubernetes: use an exec plugin');
    }
    const clientCertificate = this.source(entry, 'client-certificate');
    const clientKey = this.source(entry, 'client-key');
    if ((clientCertificate === undefined) !== (clientKey === undefined)) {
      throw this.error(field, 'needs both a client certificate and a client key, or neither');
    }
    const username = this.text(fields, 'username', `${field}.username`);
    const tokenFile = this.text(fields, 'tokenFile', `${field}.tokenFile`);
    return {
      clientCertificate,
      clientKey,
      token: this.text(fields, 'token', `${field}.token`),
      tokenFile: tokenFile === '' ? '' : this.resolve(tokenFile),
      basic:
        username === ''
          ? undefined
          : { username, password: this.text(fields, 'password', `${field}.password`) },
      exec: this.exec(fields, field),
      impersonate: this.impersonation(fields, field),
    };
  }

  private exec(fields: Fields, userField: string): ExecPlugin | undefined {
    if (fields['exec'] === undefined || fields['exec'] === null) return undefined;
    const field = `${userField}.exec`;
    const exec = this.object(fields['exec'], field);
    const apiVersion = this.text(exec, 'apiVersion', `${field}.apiVersion`);
    if (
      apiVersion !== 'client.authentication.k8s.io/v1' &&
      apiVersion !== 'client.authentication.k8s.io/v1beta1'
    ) {
      throw this.error(
        `${field}.apiVersion`,
        `"${apiVersion}" must be client.authentication.k8s.io/v1 or client.authentication.k8s.io/v1beta1`,
      );
    }
    const command = this.text(exec, 'command', `${field}.command`);
    if (command === '') throw this.error(`${field}.command`, 'must name the plugin');
    if (exec['interactiveMode'] === 'Always') {
      throw this.error(`${field}.interactiveMode`, 'Always cannot be met: a daemon has no standard input');
    }
    const args = this.list(exec, 'args').map((value, i) => {
      if (typeof value !== 'string')
        throw this.error(`${field}.args[${i}]`, 'must be text (put it in quotes)');
      return value;
    });
    const env = this.list(exec, 'env').map((value, i) => {
      const variable = this.object(value, `${field}.env[${i}]`);
      return {
        name: this.text(variable, 'name', `${field}.env[${i}].name`),
        value: this.text(variable, 'value', `${field}.env[${i}].value`),
      };
    });
    return {
      apiVersion,
      // A path is relative to the file; a bare name is looked up on PATH.
      command: command.includes('/') ? this.resolve(command) : command,
      args,
      env,
      provideClusterInfo: this.boolean(exec, 'provideClusterInfo', `${field}.provideClusterInfo`),
      installHint: this.text(exec, 'installHint', `${field}.installHint`),
      field: `kubeconfig ${this.path}: ${field}`,
    };
  }

  private impersonation(fields: Fields, field: string): Record<string, string | string[]> {
    const headers: Record<string, string | string[]> = {};
    const user = this.text(fields, 'as', `${field}.as`);
    if (user !== '') headers['impersonate-user'] = user;
    const uid = this.text(fields, 'as-uid', `${field}.as-uid`);
    if (uid !== '') headers['impersonate-uid'] = uid;
    const groups = this.list(fields, 'as-groups').filter((group) => typeof group === 'string');
    if (groups.length > 0) headers['impersonate-group'] = groups;
    return headers;
  }
}
