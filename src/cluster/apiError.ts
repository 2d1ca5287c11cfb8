/** The two ways a request can fail: the server says no, or there is no answer. */
import type { ApiStatus } from './decode/status.ts';

/** The server answered, with something else than success. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  /** HTTP status, or the code in the Status of a watch's ERROR event. */
  readonly status: number;
  /** `Expired`, `NotFound`, `TooManyRequests` …; may be empty. */
  readonly reason: string;
  /** Seconds. */
  readonly retryAfter: number | undefined;

  constructor(what: string, httpStatus: number, status: ApiStatus, retryAfter?: number) {
    const code = status.code || httpStatus;
    const details = [status.reason, status.message].filter((text) => text !== '').join(': ');
    super(`${what}: ${code}${details === '' ? '' : ` ${details}`}`);
    this.status = code;
    this.reason = status.reason;
    this.retryAfter = retryAfter ?? status.retryAfterSeconds;
  }

  /** The wanted version is no longer kept: list again. */
  get gone(): boolean {
    return this.status === 410 || this.reason === 'Expired' || this.reason === 'Gone';
  }
}

/** No answer, or not all of it. */
export class TransportError extends Error {
  override readonly name = 'TransportError';
}

/** Seconds to wait from a Retry-After header: a number, or an HTTP date. */
export function parseRetryAfter(header: string | undefined, now: number): number | undefined {
  if (header === undefined || header === '') return undefined;
  if (/^\d+$/.test(header)) return Number(header);
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, (date - now) / 1000);
}

const untrusted = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'CERT_SIGNATURE_FAILURE',
]);

/** Puts a network failure into words that say what to look at. @param origin where the connection settings come from */
export function transportError(what: string, error: unknown, origin: string): TransportError {
  const { code = '', message } = error as Error & { code?: string };
  let why = message === '' ? code : message;
  if (untrusted.has(code)) {
    why = `the server's certificate is not signed by a trusted authority (${message}): check the certificate authority of ${origin}`;
  } else if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    why = `the server's certificate is for other names (${message}): check the server address or tls-server-name of ${origin}`;
  } else if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID') {
    why = `the server's certificate is not valid now (${message}): check this node's clock and the certificate`;
  } else if (code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_BODY_TIMEOUT') {
    why = 'the server does not answer (timed out)';
  } else if (code === 'UND_ERR_CONNECT_TIMEOUT') {
    why = 'the server cannot be reached (connecting timed out)';
  }
  return new TransportError(`${what}: ${why}`, { cause: error });
}
