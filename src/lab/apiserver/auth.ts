/** Who asks: bearer tokens and client certificates. Whoever is known may do everything: this is a lab. */
import { timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';

export interface User {
  readonly name: string;
  readonly groups: readonly string[];
}

export type Authenticator = (request: IncomingMessage) => User | undefined;

function same(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}

function list(value: string | string[] | undefined): string[] {
  if (value === undefined) return [];
  return Array.isArray(value) ? value : [value];
}

/** `tokens` may change while the server runs: tokens rotate. */
export function makeAuthenticator(tokens: ReadonlyMap<string, User>): Authenticator {
  return (request) => {
    const header = request.headers.authorization ?? '';
    if (/^bearer /i.test(header)) {
      const given = header.slice('bearer '.length).trim();
      for (const [token, user] of tokens) if (same(token, given)) return user;
      return undefined;
    }
    const { socket } = request;
    if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
    const subject = socket.getPeerCertificate().subject as { CN?: string; O?: string | string[] } | undefined;
    if (!subject?.CN) return undefined;
    return { name: subject.CN, groups: [...list(subject.O), 'system:authenticated'] };
  };
}
