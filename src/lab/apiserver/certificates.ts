/** A certificate authority of the lab's own, with the certificates it signs. Made with openssl. */
import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface KeyPair {
  readonly certPem: string;
  readonly keyPem: string;
}

export interface Certificates {
  readonly caPem: string;
  readonly server: KeyPair;
  /** User `kubernetes-admin` of group `system:masters`. */
  readonly admin: KeyPair;
}

async function openssl(args: readonly string[], cwd: string): Promise<void> {
  try {
    await run('openssl', [...args], { cwd });
  } catch (cause) {
    throw new Error(`openssl ${args[0] ?? ''} failed; is openssl (3.0 or later) installed?`, { cause });
  }
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '3650'];

async function sign(
  directory: string,
  name: string,
  subject: string,
  extensions: readonly string[],
): Promise<KeyPair> {
  const key = `${name}.key`;
  const certificate = `${name}.pem`;
  const added = extensions.flatMap((one) => ['-addext', one]);
  const issuer = ['-x509', '-CA', 'ca.pem', '-CAkey', 'ca.key'];
  await openssl(
    ['req', ...issuer, ...newKey, '-keyout', key, '-out', certificate, '-subj', subject, ...added],
    directory,
  );
  const [certPem, keyPem] = await Promise.all([
    readFile(join(directory, certificate), 'utf8'),
    readFile(join(directory, key), 'utf8'),
  ]);
  return { certPem, keyPem };
}

/** Makes everything in the directory. `hosts`: IP addresses and names the server is reached at. */
export async function makeCertificates(directory: string, hosts: readonly string[]): Promise<Certificates> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const ca = [
    'req',
    '-x509',
    ...newKey,
    '-keyout',
    'ca.key',
    '-out',
    'ca.pem',
    '-subj',
    '/CN=pointsman-lab-ca',
  ];
  await openssl([...ca, '-addext', 'keyUsage=critical,keyCertSign,cRLSign'], directory);
  const names = ['localhost', 'kubernetes', 'kubernetes.default', 'kubernetes.default.svc', ...hosts];
  const alternatives = [...new Set(names)].map((host) => (isIP(host) === 0 ? `DNS:${host}` : `IP:${host}`));
  const [server, admin] = await Promise.all([
    sign(directory, 'server', '/CN=kube-apiserver', [
      `subjectAltName=${alternatives.join(',')}`,
      'extendedKeyUsage=serverAuth',
      'basicConstraints=critical,CA:FALSE',
    ]),
    sign(directory, 'admin', '/O=system:masters/CN=kubernetes-admin', [
      'extendedKeyUsage=clientAuth',
      'basicConstraints=critical,CA:FALSE',
    ]),
  ]);
  const caPem = await readFile(join(directory, 'ca.pem'), 'utf8');
  return { caPem, server, admin };
}

export interface KubeconfigOptions {
  readonly server: string;
  readonly caPem?: string | undefined;
  readonly token?: string | undefined;
  readonly client?: KeyPair | undefined;
}

/** A kubeconfig document with one cluster, one user and one context, all named `lab`. */
export function kubeconfigText({ server, caPem, token, client }: KubeconfigOptions): string {
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  const user =
    client !== undefined
      ? {
          'client-certificate-data': base64(client.certPem),
          'client-key-data': base64(client.keyPem),
        }
      : { token: token ?? '' };
  const document = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      {
        name: 'lab',
        cluster: { server, ...(caPem === undefined ? {} : { 'certificate-authority-data': base64(caPem) }) },
      },
    ],
    users: [{ name: 'lab', user }],
    contexts: [{ name: 'lab', context: { cluster: 'lab', user: 'lab', namespace: 'default' } }],
    'current-context': 'lab',
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

export async function writePrivateFile(path: string, text: string): Promise<void> {
  await writeFile(path, text, { mode: 0o600 });
}
