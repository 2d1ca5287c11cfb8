/** A throw-away certificate authority, made with openssl at test time. */
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeOwnedDirectory } from '../../../src/lab/net/ownedDirectory.ts';

export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

export class TestAuthority {
  readonly folder = makeOwnedDirectory('authority');
  readonly ca: string;

  constructor() {
    this.openssl(
      'req',
      '-x509',
      ...this.newKey('ca'),
      '-out',
      this.path('ca.crt'),
      '-days',
      '2',
      '-subj',
      '/CN=test-ca',
    );
    this.ca = readFileSync(this.path('ca.crt'), 'utf8');
  }

  /** @param names as `DNS:localhost,IP:127.0.0.1` */
  issue(commonName: string, names: string): KeyPair {
    const base = `${commonName}-${Math.random().toString(36).slice(2)}`;
    writeFileSync(this.path(`${base}.ext`), names === '' ? '' : `subjectAltName=${names}\n`);
    this.openssl('req', ...this.newKey(base), '-out', this.path(`${base}.csr`), '-subj', `/CN=${commonName}`);
    this.openssl(
      'x509',
      '-req',
      '-in',
      this.path(`${base}.csr`),
      '-CA',
      this.path('ca.crt'),
      '-CAkey',
      this.path('ca.key'),
      '-CAcreateserial',
      '-out',
      this.path(`${base}.crt`),
      '-days',
      '2',
      '-extfile',
      this.path(`${base}.ext`),
    );
    return {
      cert: readFileSync(this.path(`${base}.crt`), 'utf8'),
      key: readFileSync(this.path(`${base}.key`), 'utf8'),
    };
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  private newKey(name: string): string[] {
    return [
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-keyout',
      this.path(`${name}.key`),
    ];
  }

  private openssl(...argv: string[]): void {
    execFileSync('openssl', argv, { stdio: 'ignore' });
  }
}
