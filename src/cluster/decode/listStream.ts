/** The body of a LIST, chunk by chunk, into objects: item by item, so that bytes go as soon as they are read. */
import type { ApiObject, Kind } from '../../api/objects.ts';
import { decodeJsonObject, identifyJson } from './json.ts';
import { JsonItems } from './jsonItems.ts';
import type { ReportProblem } from './problem.ts';
import { decodeProtobufObject, identifyProtobuf } from './protobuf.ts';
import { hasMagic } from './status.ts';
import { Wire } from './wire.ts';

export interface ListSink {
  put(object: ApiObject): void;
  /** An object that is on the server but cannot be used; already reported. */
  skip(key: string): void;
}

export interface ListEnd {
  readonly resourceVersion: string;
  /** Empty if this was the last page. */
  readonly continueToken: string;
}

export interface ListReader {
  /** @throws Error if what arrives is no list */
  push(chunk: Buffer): void;
  /** @throws Error if the list is cut short or is none */
  finish(): ListEnd;
}

/** @throws Error if the content type is neither JSON nor Kubernetes protobuf */
export function createListReader(
  contentType: string,
  kind: Kind,
  sink: ListSink,
  report: ReportProblem,
): ListReader {
  return isProtobuf(contentType)
    ? new ProtobufListReader(kind, sink, report)
    : new JsonListReader(kind, sink, report);
}

/** True for Kubernetes protobuf, false for JSON. @throws Error for anything else */
export function isProtobuf(contentType: string): boolean {
  const type = contentType.split(';', 1)[0]?.trim().toLowerCase() ?? '';
  if (type === 'application/vnd.kubernetes.protobuf') return true;
  if (type === 'application/json') return false;
  throw new Error(
    `the answer has content type "${contentType}", not JSON or Kubernetes protobuf: is this an API server?`,
  );
}

class JsonListReader implements ListReader {
  private readonly kind: Kind;
  private readonly sink: ListSink;
  private readonly report: ReportProblem;
  private readonly items = new JsonItems((text) => this.item(text));

  constructor(kind: Kind, sink: ListSink, report: ReportProblem) {
    this.kind = kind;
    this.sink = sink;
    this.report = report;
  }

  push(chunk: Buffer): void {
    this.items.push(chunk);
  }

  private item(text: string): void {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      const message = `an item of the list is not JSON: ${(error as Error).message}; it is skipped`;
      this.report({ kind: this.kind, object: '', field: '', message });
      return;
    }
    const object = decodeJsonObject(this.kind, value, this.report);
    if (object === undefined) this.sink.skip(identifyJson(value).key);
    else this.sink.put(object);
  }

  finish(): ListEnd {
    const list = JSON.parse(this.items.outer) as {
      items?: unknown;
      metadata?: { continue?: unknown };
    } | null;
    // `null` is how Go writes an empty list.
    if (typeof list !== 'object' || list === null || !Array.isArray(list.items ?? [])) {
      throw new Error(`the answer is no list of ${this.kind} objects: it has no "items"`);
    }
    const continueToken = list.metadata?.continue;
    return {
      resourceVersion: identifyJson(list).resourceVersion,
      continueToken: typeof continueToken === 'string' ? continueToken : '',
    };
  }
}

/** `k8s\0`, then Unknown {typeMeta 1, raw 2}; raw is {ListMeta 1, items 2 …}. */
class ProtobufListReader implements ListReader {
  private readonly kind: Kind;
  private readonly sink: ListSink;
  private readonly report: ReportProblem;
  private readonly wire = new Wire(Buffer.alloc(0));
  private parts: Buffer[] = [];
  private held = 0;
  /** Nothing can be done below this many bytes. */
  private needed = 4;
  private stage: 'magic' | 'envelope' | 'items' | 'done' = 'magic';
  /** Bytes of `raw` that are still to be read. */
  private rawLeft = 0;
  private resourceVersion = '';
  private continueToken = '';

  constructor(kind: Kind, sink: ListSink, report: ReportProblem) {
    this.kind = kind;
    this.sink = sink;
    this.report = report;
  }

  push(chunk: Buffer): void {
    let rest = chunk;
    while (rest.length > 0 && this.stage !== 'done') {
      if (this.held === 0 && rest.length >= this.needed) {
        rest = rest.subarray(this.consume(rest));
        if (rest.length > 0) this.hold(rest);
        return;
      }
      // Only the field that lies across two chunks is copied together.
      const taken = rest.subarray(0, this.needed - this.held);
      rest = rest.subarray(taken.length);
      this.hold(taken);
      if (this.held < this.needed) return;
      const bytes = Buffer.concat(this.parts, this.held);
      this.parts = [];
      this.held = 0;
      const used = this.consume(bytes);
      if (used < bytes.length) this.hold(bytes.subarray(used));
    }
  }

  private hold(bytes: Buffer): void {
    this.parts.push(bytes);
    this.held += bytes.length;
  }

  finish(): ListEnd {
    if (this.stage === 'items' && this.rawLeft === 0) this.stage = 'done';
    if (this.stage !== 'done') throw new Error(`the list of ${this.kind} objects is cut short`);
    return { resourceVersion: this.resourceVersion, continueToken: this.continueToken };
  }

  /** Reads as many whole fields as there are; returns how many bytes they took and sets `needed` for the next. */
  private consume(bytes: Buffer): number {
    const { wire } = this;
    let done = 0;
    if (this.stage === 'magic') {
      if (!hasMagic(bytes, 0, bytes.length)) {
        throw new Error('the answer says it is Kubernetes protobuf but does not begin with k8s\\0');
      }
      this.stage = 'envelope';
      done = 4;
    }
    for (;;) {
      if (this.stage === 'items' && this.rawLeft === 0) {
        this.stage = 'done';
        return bytes.length;
      }
      // A tag and a length are at most ten bytes each; a field shorter than that is at the end of the list.
      const header = fieldHeader(bytes, done);
      if (header === undefined) {
        this.needed = bytes.length - done + 1;
        return done;
      }
      const { tag, body, end } = header;
      if (this.stage === 'envelope' && tag === 18) {
        this.stage = 'items';
        this.rawLeft = end - body;
        done = body;
        continue;
      }
      if (end > bytes.length) {
        this.needed = end - done;
        return done;
      }
      if (this.stage === 'items') {
        this.rawLeft -= end - done;
        if (this.rawLeft < 0) throw new Error(`the list of ${this.kind} objects is longer than it says`);
        if (tag === 18) this.readItem(bytes, body, end);
        else if (tag === 10) {
          wire.reset(bytes, body, end);
          this.readListMeta(wire);
        }
      }
      done = end;
    }
  }

  private readItem(bytes: Buffer, start: number, end: number): void {
    const { wire } = this;
    wire.reset(bytes, start, end);
    const object = decodeProtobufObject(this.kind, wire, this.report);
    if (object !== undefined) {
      this.sink.put(object);
      return;
    }
    wire.reset(bytes, start, end);
    this.sink.skip(identifyProtobuf(wire).key);
  }

  /** ListMeta {selfLink 1, resourceVersion 2, continue 3} */
  private readListMeta(wire: Wire): void {
    while (wire.pos < wire.end) {
      const tag = wire.varint();
      if (tag === 18) this.resourceVersion = wire.string();
      else if (tag === 26) this.continueToken = wire.string();
      else wire.skip(tag);
    }
  }
}

interface FieldHeader {
  readonly tag: number;
  /** Where the value starts and ends; it may end beyond the bytes that are there. */
  readonly body: number;
  readonly end: number;
}

/** Undefined if not even the header is there whole. */
function fieldHeader(bytes: Buffer, start: number): FieldHeader | undefined {
  const tagEnd = varintEnd(bytes, start);
  if (tagEnd === 0) return undefined;
  const wire = new Wire(bytes, start, tagEnd);
  const tag = wire.varint();
  const valueEnd = varintEnd(bytes, tagEnd);
  switch (tag & 7) {
    case 0:
      return valueEnd === 0 ? undefined : { tag, body: tagEnd, end: valueEnd };
    case 1:
      return { tag, body: tagEnd, end: tagEnd + 8 };
    case 5:
      return { tag, body: tagEnd, end: tagEnd + 4 };
    case 2: {
      if (valueEnd === 0) return undefined;
      wire.end = valueEnd;
      const length = wire.varint();
      if (length < 0 || length > 0x7fff_ffff) throw new Error(`protobuf: a field of ${length} bytes`);
      return { tag, body: valueEnd, end: valueEnd + length };
    }
    default:
      throw new Error(`protobuf: wire type ${tag & 7} is not in use: the list is damaged`);
  }
}

/** Where the varint ends that starts at `start`; 0 if it is not there whole. */
function varintEnd(bytes: Buffer, start: number): number {
  for (let i = start; i < bytes.length; i++) {
    if ((bytes[i] as number) < 0x80) return i + 1;
    if (i - start >= 9) throw new Error('protobuf: number longer than ten bytes: the list is damaged');
  }
  return 0;
}
