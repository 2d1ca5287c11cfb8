/**
 * Kubernetes protobuf from JSON objects, for servers (the lab's API server) and tests: the envelope
 * (`k8s\0` + runtime.Unknown), lists, and watch frames (4-byte big-endian length + metav1.WatchEvent; the
 * event itself has no envelope, the object in it has). Fields that the schema does not know are left out.
 *
 * Content types: `application/vnd.kubernetes.protobuf`, and for a watch
 * `application/vnd.kubernetes.protobuf;stream=watch`.
 */
import { listMeta, type FieldSchema, type MessageSchema } from './message.ts';
import { isProtobufKind, kinds, type ProtobufKind } from './schema.ts';

export const protobufContentType = 'application/vnd.kubernetes.protobuf';
export const protobufWatchContentType = 'application/vnd.kubernetes.protobuf;stream=watch';

export type WatchEventType = 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
/** Any JSON object, as parsed. */
export type JsonObject = Readonly<Record<string, unknown>>;

export interface ListMetaJson {
  readonly resourceVersion: string;
  readonly continue?: string;
  readonly remainingItemCount?: number;
}

/** One object in its envelope, as the answer to a GET. @throws TypeError if a value has not the type its field has. */
export function encodeObject(kind: ProtobufKind, object: JsonObject): Uint8Array {
  const writer = new BackwardWriter();
  writeEnvelope(writer, kind, object);
  return writer.finish();
}

/** A list in its envelope, as the answer to a LIST: one page, or all of it. */
export function encodeList(
  kind: Exclude<ProtobufKind, 'Status'>,
  items: readonly JsonObject[],
  meta: ListMetaJson,
): Uint8Array {
  const writer = new BackwardWriter();
  const end = writer.position;
  for (let i = items.length - 1; i >= 0; i--) {
    const itemEnd = writer.position;
    writeMessage(writer, kinds[kind].fields, items[i] as JsonObject, `items[${i}]`);
    writer.lengthDelimited(2, itemEnd);
  }
  const metaEnd = writer.position;
  writeMessage(writer, listMeta, meta as unknown as JsonObject, 'metadata');
  writer.lengthDelimited(1, metaEnd);
  writeUnknown(writer, apiVersionOf(kind, items[0]), `${kind}List`, end);
  return writer.finish();
}

/** One event of a watch, with its length in front. `object.kind` must be set; a Status for `ERROR`. */
export function encodeWatchFrame(type: WatchEventType, object: JsonObject): Uint8Array {
  const kind = object['kind'];
  if (!isProtobufKind(kind)) {
    throw new TypeError(
      `kind: ${String(kind)} has no protobuf schema here (${Object.keys(kinds).join(', ')})`,
    );
  }
  const writer = new BackwardWriter();
  const end = writer.position;
  writeEnvelope(writer, kind, object);
  writer.lengthDelimited(1, end); // RawExtension.raw
  writer.lengthDelimited(2, end); // WatchEvent.object
  writer.string(1, type);
  writer.uint32(end - writer.position);
  return writer.finish();
}

/** Items of a list often leave out their apiVersion and kind: then it is the kind's usual one. */
function apiVersionOf(kind: ProtobufKind, object: JsonObject | undefined): string {
  const own = object?.['apiVersion'];
  return typeof own === 'string' && own !== '' ? own : kinds[kind].apiVersion;
}

function writeEnvelope(writer: BackwardWriter, kind: ProtobufKind, object: JsonObject): void {
  const end = writer.position;
  writeMessage(writer, kinds[kind].fields, object, kind);
  writeUnknown(writer, apiVersionOf(kind, object), kind, end);
}

/** What lies between the writer's position and `end` becomes `raw` of a runtime.Unknown behind the magic number. */
function writeUnknown(writer: BackwardWriter, apiVersion: string, kind: string, end: number): void {
  writer.lengthDelimited(2, end);
  const typeEnd = writer.position;
  writer.string(2, kind);
  writer.string(1, apiVersion);
  writer.lengthDelimited(1, typeEnd);
  writer.magic();
}

function wrong(path: string, wanted: string, value: unknown): TypeError {
  return new TypeError(`${path}: ${wanted} expected, got ${JSON.stringify(value)?.slice(0, 80)}`);
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function writeMessage(writer: BackwardWriter, schema: MessageSchema, object: JsonObject, path: string): void {
  const fields = [...schema];
  for (let i = fields.length - 1; i >= 0; i--) {
    const [name, field] = fields[i] as [string, FieldSchema];
    const value = object[name];
    if (value === undefined || value === null) continue;
    const at = `${path}.${name}`;
    if (!field.repeated) {
      writeField(writer, field, value, at);
      continue;
    }
    if (!Array.isArray(value)) throw wrong(at, 'list', value);
    for (let j = value.length - 1; j >= 0; j--) writeField(writer, field, value[j], `${at}[${j}]`);
  }
}

function writeField(writer: BackwardWriter, field: FieldSchema, value: unknown, path: string): void {
  const { number, type } = field;
  switch (type) {
    case 'string':
      if (typeof value !== 'string') throw wrong(path, 'text', value);
      writer.string(number, value);
      return;
    case 'int':
      if (!Number.isSafeInteger(value)) throw wrong(path, 'integer', value);
      writer.int(number, value as number);
      return;
    case 'bool':
      if (typeof value !== 'boolean') throw wrong(path, 'boolean', value);
      writer.int(number, value ? 1 : 0);
      return;
    case 'time':
      writeTime(writer, number, value, path);
      return;
    case 'intOrString':
      writeIntOrString(writer, number, value, path);
      return;
    case 'rawJson': {
      const end = writer.position;
      writer.string(1, JSON.stringify(value));
      writer.lengthDelimited(number, end);
      return;
    }
    case 'stringMap':
    case 'bytesMap':
    case 'quantityMap':
      writeMap(writer, number, value, type, path);
      return;
    default: {
      if (!isObject(value)) throw wrong(path, 'object', value);
      const end = writer.position;
      writeMessage(writer, type, value, path);
      writer.lengthDelimited(number, end);
    }
  }
}

function writeTime(writer: BackwardWriter, number: number, value: unknown, path: string): void {
  const milliseconds = typeof value === 'string' ? Date.parse(value) : Number.NaN;
  if (Number.isNaN(milliseconds)) throw wrong(path, 'RFC 3339 time', value);
  const fraction = /\.(\d{1,9})/.exec(value as string)?.[1];
  const end = writer.position;
  writer.int(2, fraction === undefined ? 0 : Number(fraction.padEnd(9, '0')));
  writer.int(1, Math.floor(milliseconds / 1000));
  writer.lengthDelimited(number, end);
}

function writeIntOrString(writer: BackwardWriter, number: number, value: unknown, path: string): void {
  const end = writer.position;
  if (typeof value === 'string') {
    writer.string(3, value);
    writer.int(2, 0);
    writer.int(1, 1);
  } else {
    if (!Number.isSafeInteger(value)) throw wrong(path, 'integer or text', value);
    writer.string(3, '');
    writer.int(2, value as number);
    writer.int(1, 0);
  }
  writer.lengthDelimited(number, end);
}

function writeMap(
  writer: BackwardWriter,
  number: number,
  value: unknown,
  type: 'stringMap' | 'bytesMap' | 'quantityMap',
  path: string,
): void {
  if (!isObject(value)) throw wrong(path, 'map', value);
  const keys = Object.keys(value).sort();
  for (let i = keys.length - 1; i >= 0; i--) {
    const key = keys[i] as string;
    const text = value[key];
    if (typeof text !== 'string') throw wrong(`${path}["${key}"]`, 'text', text);
    const end = writer.position;
    if (type === 'quantityMap') {
      writer.string(1, text);
      writer.lengthDelimited(2, end);
    } else writer.string(2, text, type === 'bytesMap' ? 'base64' : 'utf8');
    writer.string(1, key);
    writer.lengthDelimited(number, end);
  }
}

/** Writes from the end to the front, so that the length of a message is known when its header is due. */
class BackwardWriter {
  private buffer = Buffer.allocUnsafe(1024);
  private free = 1024;
  /** Bytes written so far, counted as a position that falls: `end - position` is what lies between. */
  position = 0;

  private reserve(size: number): number {
    if (this.free < size) {
      const used = this.buffer.length - this.free;
      const grown = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, used + size));
      this.buffer.copy(grown, grown.length - used, this.free);
      this.buffer = grown;
      this.free = grown.length - used;
    }
    this.free -= size;
    this.position -= size;
    return this.free;
  }

  private varint(value: number): void {
    if (value < 0 || value > 0x7fff_ffff) {
      this.wideVarint(value);
      return;
    }
    const size = value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x20_0000 ? 3 : value < 0x1000_0000 ? 4 : 5;
    const at = this.reserve(size);
    let rest = value;
    for (let i = 0; i < size - 1; i++) {
      this.buffer[at + i] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.buffer[at + size - 1] = rest;
  }

  /** Negative numbers are ten bytes: their 64-bit two's complement. */
  private wideVarint(value: number): void {
    let rest = BigInt.asUintN(64, BigInt(value));
    const bytes: number[] = [];
    do {
      const low = Number(rest & 0x7fn);
      rest >>= 7n;
      bytes.push(rest === 0n ? low : low | 0x80);
    } while (rest !== 0n);
    const at = this.reserve(bytes.length);
    this.buffer.set(bytes, at);
  }

  int(field: number, value: number): void {
    this.varint(value);
    this.varint(field * 8);
  }

  string(field: number, value: string, encoding: 'utf8' | 'base64' = 'utf8'): void {
    const length = Buffer.byteLength(value, encoding);
    const at = this.reserve(length);
    this.buffer.write(value, at, encoding);
    this.varint(length);
    this.varint(field * 8 + 2);
  }

  /** Puts the header of a length-delimited field in front of what was written since `end`. */
  lengthDelimited(field: number, end: number): void {
    this.varint(end - this.position);
    this.varint(field * 8 + 2);
  }

  magic(): void {
    const at = this.reserve(4);
    this.buffer.write('k8s\0', at, 'latin1');
  }

  uint32(value: number): void {
    const at = this.reserve(4);
    this.buffer.writeUInt32BE(value, at);
  }

  finish(): Uint8Array {
    return this.buffer.subarray(this.free);
  }
}
