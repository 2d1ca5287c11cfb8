/** metav1.Status: how an API server says no, as an HTTP body or as the ERROR event of a watch. */
import { MalformedObject } from './problem.ts';
import { Wire } from './wire.ts';

export interface ApiStatus {
  /** HTTP code; 0 if the server named none. */
  readonly code: number;
  /** `Expired`, `NotFound`, `Forbidden` …; empty if unknown. */
  readonly reason: string;
  readonly message: string;
  /** Seconds to wait before another try, if the server asked for it. */
  readonly retryAfterSeconds: number | undefined;
}

export function statusFromJson(value: unknown): ApiStatus {
  const object = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  const details = object['details'] as { retryAfterSeconds?: unknown } | null | undefined;
  const seconds = details?.retryAfterSeconds;
  return {
    code: typeof object['code'] === 'number' ? object['code'] : 0,
    reason: typeof object['reason'] === 'string' ? object['reason'] : '',
    message: typeof object['message'] === 'string' ? object['message'] : '',
    retryAfterSeconds: typeof seconds === 'number' && seconds > 0 ? seconds : undefined,
  };
}

/** Reads the Status under the cursor. @throws MalformedObject */
export function statusFromWire(wire: Wire): ApiStatus {
  let code = 0;
  let reason = '';
  let message = '';
  let retryAfterSeconds: number | undefined;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 26) message = wire.string();
    else if (tag === 34) reason = wire.string();
    else if (tag === 48) code = wire.varint();
    else if (tag === 42) {
      const outer = wire.enter();
      while (wire.pos < wire.end) {
        const inner = wire.varint();
        if (inner === 40) retryAfterSeconds = wire.varint() || undefined;
        else wire.skip(inner);
      }
      wire.leave(outer);
    } else wire.skip(tag);
  }
  return { code, reason, message, retryAfterSeconds };
}

/** The Status in the body of an answer that is not 2xx; whatever text there is becomes the message. */
export function statusFromBody(contentType: string, body: Buffer): ApiStatus {
  try {
    if (contentType.startsWith('application/vnd.kubernetes.protobuf')) {
      const wire = openEnvelope(body);
      return statusFromWire(wire);
    }
    const value: unknown = JSON.parse(body.toString('utf8'));
    return statusFromJson(value);
  } catch (error) {
    if (!(error instanceof SyntaxError) && !(error instanceof MalformedObject)) throw error;
    // A proxy or load balancer in between answers in its own words.
    const message = body.toString('utf8').replaceAll(/\s+/g, ' ').trim().slice(0, 200);
    return { code: 0, reason: '', message, retryAfterSeconds: undefined };
  }
}

/**
 * Steps into `k8s\0` + runtime.Unknown {typeMeta 1, raw 2}: the cursor then covers `raw`.
 * @throws MalformedObject if it is not such an envelope
 */
export function openEnvelope(bytes: Buffer, start = 0, end: number = bytes.length): Wire {
  const wire = new Wire(bytes, start, end);
  enterEnvelope(wire);
  return wire;
}

export function hasMagic(bytes: Buffer, start: number, end: number): boolean {
  return (
    end - start >= 4 &&
    bytes[start] === 0x6b &&
    bytes[start + 1] === 0x38 &&
    bytes[start + 2] === 0x73 &&
    bytes[start + 3] === 0
  );
}

/** As `openEnvelope`, with a cursor there is. */
export function enterEnvelope(wire: Wire): void {
  if (!hasMagic(wire.bytes, wire.pos, wire.end)) {
    throw new MalformedObject('', 'protobuf: the envelope does not begin with k8s\\0');
  }
  wire.pos += 4;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 18) {
      wire.enter();
      return;
    }
    wire.skip(tag);
  }
  // An object with no field at all has no `raw`.
}
