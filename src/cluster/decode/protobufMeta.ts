/** ObjectMeta off the wire, and small things all messages need. */
import type { ObjectMeta } from '../../api/objects.ts';
import {
  initialEventsEndAnnotation,
  parseTime,
  serviceNameLabel,
  triggerTimeAnnotation,
  zoneLabel,
} from './build.ts';
import type { Wire } from './wire.ts';

/** Called with the path of a bad entry and what is wrong with it. */
export type RejectAt = (field: string, message: string) => void;

export const emptyMeta: ObjectMeta = {
  name: '',
  namespace: '',
  uid: '',
  resourceVersion: '',
  creationTimestamp: 0,
};

/** ObjectMeta with the few labels and annotations that decide something. */
export interface MetaFields {
  readonly meta: ObjectMeta;
  readonly serviceName: string;
  readonly zone: string;
  readonly initialEventsEnd: boolean;
  readonly triggerTime: number;
  readonly deleting: boolean;
}

export const noMeta: MetaFields = {
  meta: emptyMeta,
  serviceName: '',
  zone: '',
  initialEventsEnd: false,
  triggerTime: 0,
  deleting: false,
};

export function readMeta(wire: Wire): MetaFields {
  const outer = wire.enter();
  let name = '';
  let namespace = '';
  let uid = '';
  let resourceVersion = '';
  let creationTimestamp = 0;
  let serviceName = '';
  let zone = '';
  let initialEventsEnd = false;
  let triggerTime = 0;
  let deleting = false;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    switch (tag) {
      case 10:
        name = wire.string();
        break;
      case 26:
        namespace = wire.interned();
        break;
      case 42:
        uid = wire.string();
        break;
      case 50:
        resourceVersion = wire.string();
        break;
      case 66:
        creationTimestamp = readTime(wire);
        break;
      case 74:
        deleting = true;
        wire.skip(tag);
        break;
      case 90: {
        const value = wantedEntry(wire, serviceNameLabel, zoneLabel);
        if (value === undefined) break;
        if (wanted === serviceNameLabel) serviceName = value;
        else zone = value;
        break;
      }
      case 98: {
        const value = wantedEntry(wire, triggerTimeAnnotation, initialEventsEndAnnotation);
        if (value === undefined) break;
        if (wanted === triggerTimeAnnotation) triggerTime = parseTime(value);
        else initialEventsEnd = value === 'true';
        break;
      }
      default:
        wire.skip(tag);
    }
  }
  wire.leave(outer);
  const meta = { name, namespace, uid, resourceVersion, creationTimestamp };
  return { meta, serviceName, zone, initialEventsEnd, triggerTime, deleting };
}

/** The key that `wantedEntry` found last. */
let wanted = '';

/** One entry of a map: its value if the key is one of two, else undefined. No string is made of other entries. */
function wantedEntry(wire: Wire, one: string, other: string): string | undefined {
  const outer = wire.enter();
  let key = '';
  let value: string | undefined;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 10) {
      const start = wire.span();
      if (equals(wire.bytes, start, wire.pos, one)) key = one;
      else if (equals(wire.bytes, start, wire.pos, other)) key = other;
    } else if (tag === 18) {
      // Keys come first (as every serializer writes them); values of other keys are not worth a string.
      if (key === '') wire.skip(tag);
      else value = wire.interned();
    } else wire.skip(tag);
  }
  wire.leave(outer);
  wanted = key;
  return key === '' ? undefined : (value ?? '');
}

export function equals(bytes: Buffer, start: number, end: number, text: string): boolean {
  if (end - start !== text.length) return false;
  // From the back: the prefixes of label keys are what many have in common.
  for (let i = text.length - 1; i >= 0; i--) if (bytes[start + i] !== text.charCodeAt(i)) return false;
  return true;
}

/** metav1.Time {seconds 1, nanos 2}, in milliseconds; an empty message is no time. */
function readTime(wire: Wire): number {
  const outer = wire.enter();
  let seconds = 0;
  let nanos = 0;
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 8) seconds = wire.varint();
    else if (tag === 16) nanos = wire.varint();
    else wire.skip(tag);
  }
  wire.leave(outer);
  // Below: Go's zero time, year 1.
  return seconds === -62_135_596_800 ? 0 : seconds * 1000 + Math.floor(nanos / 1e6);
}

/** Short lists, which most are, get arrays of exactly their size: `push` reserves room for sixteen more. */
export function append<T>(list: readonly T[], entry: T): readonly T[] {
  if (list.length === 0) return [entry];
  if (list.length < 3) return list.concat(entry);
  (list as T[]).push(entry);
  return list;
}

/** ForZone and ForNode: {name 1} */
export function readName(wire: Wire): string {
  const outer = wire.enter();
  let name = '';
  while (wire.pos < wire.end) {
    const tag = wire.varint();
    if (tag === 10) name = wire.interned();
    else wire.skip(tag);
  }
  wire.leave(outer);
  return name;
}
