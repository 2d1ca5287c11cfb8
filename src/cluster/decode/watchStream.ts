/**
 * The body of a WATCH into events. JSON: one event a line. Protobuf: frames, each a 4-byte big-endian length and a
 * metav1.WatchEvent {type 1, object 2 {raw 1}}, whose raw is an enveloped object.
 * A line, frame or object that cannot be read is reported and left out; the stream goes on with the next.
 */
import type { ApiObject, Kind } from '../../api/objects.ts';
import { initialEventsEndAnnotation } from './build.ts';
import { decodeJsonObject, identifyJson } from './json.ts';
import { isProtobuf } from './listStream.ts';
import { MalformedObject } from './problem.ts';
import type { ReportProblem } from './problem.ts';
import { decodeProtobufObject, identifyProtobuf } from './protobuf.ts';
import { readMeta } from './protobufMeta.ts';
import { enterEnvelope, hasMagic, statusFromJson, statusFromWire } from './status.ts';
import type { ApiStatus } from './status.ts';
import { Wire } from './wire.ts';

export interface WatchSink {
  /** ADDED or MODIFIED */
  put(object: ApiObject): void;
  remove(key: string, resourceVersion: string): void;
  /** An object that cannot be used; already reported. The key is empty if not even that could be read. */
  skip(key: string, resourceVersion: string): void;
  bookmark(resourceVersion: string, initialEventsEnd: boolean): void;
  /** ERROR: the server ends this watch. */
  failure(status: ApiStatus): void;
  /** What arrived is no event. */
  malformed(message: string): void;
}

export interface WatchReader {
  /** @throws Error if the stream is out of step and must be started anew */
  push(chunk: Buffer): void;
}

/** Longest event that is believed: objects are at most a few MiB in etcd. */
const longestEvent = 64 << 20;

/** @throws Error if the content type is neither JSON nor Kubernetes protobuf */
export function createWatchReader(
  contentType: string,
  kind: Kind,
  sink: WatchSink,
  report: ReportProblem,
): WatchReader {
  return isProtobuf(contentType)
    ? new ProtobufWatchReader(kind, sink, report)
    : new JsonWatchReader(kind, sink, report);
}

class JsonWatchReader implements WatchReader {
  private readonly kind: Kind;
  private readonly sink: WatchSink;
  private readonly report: ReportProblem;
  /** The beginning of a line whose end has not come yet. */
  private parts: Buffer[] = [];
  private held = 0;

  constructor(kind: Kind, sink: WatchSink, report: ReportProblem) {
    this.kind = kind;
    this.sink = sink;
    this.report = report;
  }

  push(chunk: Buffer): void {
    let start = 0;
    for (;;) {
      const newline = chunk.indexOf(10, start);
      if (newline === -1) break;
      if (this.held === 0) this.line(chunk.toString('utf8', start, newline));
      else {
        this.parts.push(chunk.subarray(start, newline));
        const line = Buffer.concat(this.parts).toString('utf8');
        this.parts = [];
        this.held = 0;
        this.line(line);
      }
      start = newline + 1;
    }
    if (start === chunk.length) return;
    const rest = chunk.subarray(start);
    this.parts.push(rest);
    this.held += rest.length;
    if (this.held > longestEvent) throw new Error(`a line of more than ${longestEvent} bytes in a watch`);
  }

  private line(line: string): void {
    if (line.trim() === '') return;
    let event: { type?: unknown; object?: unknown } | null;
    try {
      event = JSON.parse(line) as { type?: unknown; object?: unknown } | null;
    } catch (error) {
      this.sink.malformed(`a line is not JSON: ${(error as Error).message}`);
      return;
    }
    const type = event?.type;
    const object = event?.object;
    if (type === 'ADDED' || type === 'MODIFIED') {
      const decoded = decodeJsonObject(this.kind, object, this.report);
      if (decoded !== undefined) this.sink.put(decoded);
      else {
        const { key, resourceVersion } = identifyJson(object);
        this.sink.skip(key, resourceVersion);
      }
    } else if (type === 'DELETED') {
      const { key, resourceVersion } = identifyJson(object);
      if (key === '') this.sink.malformed('a DELETED event names no object');
      else this.sink.remove(key, resourceVersion);
    } else if (type === 'BOOKMARK') {
      const meta = (object as { metadata?: { annotations?: Record<string, unknown> } | null } | null)
        ?.metadata;
      this.sink.bookmark(
        identifyJson(object).resourceVersion,
        meta?.annotations?.[initialEventsEndAnnotation] === 'true',
      );
    } else if (type === 'ERROR') this.sink.failure(statusFromJson(object));
    else this.sink.malformed(`a line is no watch event: ${line.slice(0, 120)}`);
  }
}

class ProtobufWatchReader implements WatchReader {
  private readonly kind: Kind;
  private readonly sink: WatchSink;
  private readonly report: ReportProblem;
  private readonly wire = new Wire(Buffer.alloc(0));
  private parts: Buffer[] = [];
  private held = 0;
  private needed = 4;

  constructor(kind: Kind, sink: WatchSink, report: ReportProblem) {
    this.kind = kind;
    this.sink = sink;
    this.report = report;
  }

  push(chunk: Buffer): void {
    let bytes = chunk;
    if (this.held > 0) {
      this.parts.push(chunk);
      this.held += chunk.length;
      if (this.held < this.needed) return;
      bytes = Buffer.concat(this.parts, this.held);
    }
    let start = 0;
    this.needed = 4;
    while (bytes.length - start >= 4) {
      const length = bytes.readUInt32BE(start);
      if (length > longestEvent) throw new Error(`a frame of ${length} bytes in a watch: out of step`);
      if (bytes.length - start - 4 < length) {
        this.needed = 4 + length;
        break;
      }
      const end = start + 4 + length;
      this.frame(bytes, start + 4, end);
      start = end;
    }
    this.held = bytes.length - start;
    this.parts = this.held === 0 ? [] : [bytes.subarray(start)];
  }

  private frame(bytes: Buffer, start: number, end: number): void {
    try {
      this.event(bytes, start, end);
    } catch (error) {
      if (!(error instanceof MalformedObject)) throw error;
      this.sink.malformed(`a frame is no watch event: ${error.message}`);
    }
  }

  private event(bytes: Buffer, start: number, end: number): void {
    const { wire } = this;
    wire.reset(bytes, start, end);
    // The event itself has no envelope; one is tolerated.
    if (hasMagic(bytes, start, end)) enterEnvelope(wire);
    let type = '';
    let objectStart = 0;
    let objectEnd = 0;
    while (wire.pos < wire.end) {
      const tag = wire.varint();
      if (tag === 10) type = wire.interned();
      else if (tag === 18) {
        const outer = wire.enter();
        while (wire.pos < wire.end) {
          const inner = wire.varint();
          if (inner === 10) {
            objectStart = wire.span();
            objectEnd = wire.pos;
          } else wire.skip(inner);
        }
        wire.leave(outer);
      } else wire.skip(tag);
    }
    wire.reset(bytes, objectStart, objectEnd);
    enterEnvelope(wire);
    this.dispatch(type, wire);
  }

  private dispatch(type: string, wire: Wire): void {
    const { bytes, pos, end } = wire;
    switch (type) {
      case 'ADDED':
      case 'MODIFIED': {
        const object = decodeProtobufObject(this.kind, wire, this.report);
        if (object !== undefined) {
          this.sink.put(object);
          return;
        }
        wire.reset(bytes, pos, end);
        const { key, resourceVersion } = identifyProtobuf(wire);
        this.sink.skip(key, resourceVersion);
        return;
      }
      case 'DELETED': {
        const { key, resourceVersion } = identifyProtobuf(wire);
        if (key === '') this.sink.malformed('a DELETED event names no object');
        else this.sink.remove(key, resourceVersion);
        return;
      }
      case 'BOOKMARK':
        while (wire.pos < wire.end) {
          const tag = wire.varint();
          if (tag === 10) {
            const { meta, initialEventsEnd } = readMeta(wire);
            this.sink.bookmark(meta.resourceVersion, initialEventsEnd);
            return;
          }
          wire.skip(tag);
        }
        return;
      case 'ERROR':
        this.sink.failure(statusFromWire(wire));
        return;
      default:
        this.sink.malformed(`a frame is no watch event: type "${type.slice(0, 40)}"`);
    }
  }
}
