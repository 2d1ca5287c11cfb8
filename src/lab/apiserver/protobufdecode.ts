/**
 * Request bodies in protobuf: an object in its `runtime.Unknown` envelope to the JSON it stands for. A field that
 * is not in our tables and holds something makes the whole body refused, so that nothing is lost silently.
 */
import type { FieldType, MessageSchema } from '../../api/protobuf/message.ts';
import type { Json, JsonObject } from './objects.ts';
import { ApiError, badRequest } from './status.ts';
import { wireMessages } from './wiremessages.ts';

const magic = Buffer.from([0x6b, 0x38, 0x73, 0x00]);

/** Zero and false say something here; elsewhere they are how the encoder writes «absent». */
const optionalFields = new Set([
  'replicas',
  'terminationGracePeriodSeconds',
  'gracePeriodSeconds',
  'revisionHistoryLimit',
  'progressDeadlineSeconds',
  'automountServiceAccountToken',
  'allocateLoadBalancerNodePorts',
  'immutable',
  'orphanDependents',
  'ready',
  'serving',
  'terminating',
]);

interface WireField {
  readonly number: number;
  /** For varints. */
  readonly value: bigint;
  /** For length-delimited fields. */
  readonly bytes: Buffer;
  readonly isBytes: boolean;
}

function* fieldsOf(bytes: Buffer): Generator<WireField> {
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) break;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asIntN(64, value);
    }
    throw badRequest('the protobuf body ends in the middle of a number');
  };
  while (at < bytes.length) {
    const tag = Number(varint());
    const number = tag >> 3;
    if ((tag & 7) === 0) yield { number, value: varint(), bytes: Buffer.alloc(0), isBytes: false };
    else if ((tag & 7) === 2) {
      const length = Number(varint());
      if (length < 0 || at + length > bytes.length)
        throw badRequest('the protobuf body ends in the middle of a field');
      yield { number, value: 0n, bytes: bytes.subarray(at, at + length), isBytes: true };
      at += length;
    } else throw badRequest(`protobuf wire type ${tag & 7} is not used by Kubernetes objects`);
  }
}

/** Zero, empty, or a message of nothing but such fields: what the encoder writes for absent values. */
function saysNothing(field: WireField): boolean {
  if (!field.isBytes) return field.value === 0n;
  try {
    return [...fieldsOf(field.bytes)].every(saysNothing);
  } catch {
    // Not a message, so a text with something in it.
    return false;
  }
}

function decodeTime(bytes: Buffer): string | undefined {
  let seconds: bigint | undefined;
  let nanos = 0n;
  for (const { number, value } of fieldsOf(bytes)) {
    if (number === 1) seconds = value;
    else if (number === 2) nanos = value;
  }
  if (seconds === undefined) return undefined;
  const whole = new Date(Number(seconds) * 1000).toISOString().slice(0, 19);
  return nanos === 0n ? `${whole}Z` : `${whole}.${String(nanos / 1000n).padStart(6, '0')}Z`;
}

function decodeIntOrString(bytes: Buffer): Json {
  let isText = false;
  let number = 0;
  let text = '';
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) isText = field.value === 1n;
    else if (field.number === 2) number = Number(field.value);
    else text = field.bytes.toString();
  }
  return isText ? text : number;
}

function decodeMapEntry(bytes: Buffer, type: FieldType): [string, string] {
  let key = '';
  let value: Buffer = Buffer.alloc(0);
  for (const field of fieldsOf(bytes)) {
    if (field.number === 1) key = field.bytes.toString();
    else value = field.bytes;
  }
  if (type === 'quantityMap') {
    const [inner] = [...fieldsOf(value)];
    return [key, inner?.bytes.toString() ?? '0'];
  }
  return [key, value.toString(type === 'bytesMap' ? 'base64' : 'utf8')];
}

function decodeValue(name: string, type: FieldType, field: WireField, path: string): Json | undefined {
  if (type instanceof Map) return decodeMessage(field.bytes, type, path);
  switch (type) {
    case 'string':
      return field.bytes.length === 0 ? undefined : field.bytes.toString();
    case 'int':
      return field.value === 0n && !optionalFields.has(name) ? undefined : Number(field.value);
    case 'bool':
      return field.value === 0n && !optionalFields.has(name) ? undefined : field.value !== 0n;
    case 'time':
      return decodeTime(field.bytes);
    case 'intOrString':
      return decodeIntOrString(field.bytes);
    case 'rawJson': {
      const [inner] = [...fieldsOf(field.bytes)];
      return inner === undefined ? undefined : (JSON.parse(inner.bytes.toString()) as Json);
    }
    default:
      return undefined;
  }
}

function decodeMessage(bytes: Buffer, schema: MessageSchema, path: string): JsonObject {
  const result: JsonObject = {};
  for (const field of fieldsOf(bytes)) {
    const found = [...schema].find(([, one]) => one.number === field.number);
    if (found === undefined) {
      if (saysNothing(field)) continue;
      const where = `${path} field ${field.number}`;
      throw new ApiError(
        415,
        'UnsupportedMediaType',
        `${where} is not understood in protobuf here: send JSON`,
      );
    }
    const [name, { type, repeated }] = found;
    if (type === 'stringMap' || type === 'quantityMap' || type === 'bytesMap') {
      const [key, value] = decodeMapEntry(field.bytes, type);
      const map = (result[name] ??= {}) as JsonObject;
      if (key !== '__proto__') map[key] = value;
    } else {
      const value = decodeValue(name, type, field, `${path}.${name}`);
      if (repeated) ((result[name] ??= []) as Json[]).push(value ?? '');
      else if (value !== undefined) result[name] = value;
    }
  }
  return result;
}

/** Throws 400, or 415 for what is not in our tables. */
export function decodeProtobufBody(body: Buffer): JsonObject {
  if (!body.subarray(0, 4).equals(magic)) throw badRequest('the body is not a Kubernetes protobuf object');
  let apiVersion = '';
  let kind = '';
  let raw: Buffer = Buffer.alloc(0);
  for (const field of fieldsOf(body.subarray(4))) {
    if (field.number === 1) {
      for (const inner of fieldsOf(field.bytes)) {
        if (inner.number === 1) apiVersion = inner.bytes.toString();
        else if (inner.number === 2) kind = inner.bytes.toString();
      }
    } else if (field.number === 2) raw = field.bytes;
  }
  // Options carry the version of the group they are sent to; there is but one form of them.
  const schema = wireMessages.get(kind === 'DeleteOptions' ? 'v1/DeleteOptions' : `${apiVersion}/${kind}`);
  if (schema === undefined) {
    throw new ApiError(
      415,
      'UnsupportedMediaType',
      `${kind} of ${apiVersion} is not understood in protobuf here: send JSON`,
    );
  }
  return { apiVersion, kind, ...decodeMessage(raw, schema, kind) };
}
