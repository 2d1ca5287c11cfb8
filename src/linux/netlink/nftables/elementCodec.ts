/** Elements of sets in netlink messages. A big table has 100,000 of them: nothing here makes objects it can do without. */
import { commentIn, familyOf, writeComment } from './comments.ts';
import { readData, writeValue, writeVerdict } from './expressions.ts';
import type { Element, TableName } from './objects.ts';
import {
  NFGENMSG_LENGTH,
  attributesOf,
  type AttributeReader,
  type Message,
  type MessageWriter,
  type RawAttribute,
} from '../message.ts';

/** Writes one entry of an element list; called 100,000 times for a big table. */
export function writeElement(writer: MessageWriter, element: Element): void {
  const start = writer.beginNested(1);
  if (element.flags !== undefined) writer.u32(3, element.flags);
  if (element.timeout !== undefined) writeMilliseconds(writer, 4, element.timeout);
  if (element.expires !== undefined) writeMilliseconds(writer, 5, element.expires);
  writeValue(writer, 1, element.key);
  if (element.keyEnd !== undefined) writeValue(writer, 10, element.keyEnd);
  if (element.data !== undefined) writeValue(writer, 2, element.data);
  else if (element.verdict !== undefined) writeVerdict(writer, 2, element.verdict);
  if (element.comment !== undefined) writeComment(writer, 6, element.comment, element.unknown);
  if (element.unknown !== undefined) for (const attribute of element.unknown) writer.attribute(attribute);
  writer.endNested(start);
}

function writeMilliseconds(writer: MessageWriter, type: number, milliseconds: number): void {
  writer.u64Parts(type, Math.floor(milliseconds / 0x100000000), milliseconds >>> 0);
}
/** The set that a message about elements belongs to, and its elements. */
export interface SetElements {
  readonly table: TableName;
  readonly set: string;
  readonly elements: Element[];
}

export function readElements(message: Message): SetElements {
  const reader = attributesOf(message, NFGENMSG_LENGTH);
  let tableName = '';
  let setName = '';
  const elements: Element[] = [];
  while (reader.next()) {
    if (reader.type === 1) tableName = reader.string();
    else if (reader.type === 2) setName = reader.string();
    else if (reader.type === 3) {
      const list = reader.nested();
      // nft numbers them, the kernel does not.
      while (list.next()) elements.push(readElement(list.nested()));
    }
  }
  return { table: { family: familyOf(message), name: tableName }, set: setName, elements };
}

/** Reads one entry of an element list. */
export function readElement(reader: AttributeReader): Element {
  const element: { -readonly [K in keyof Element]: Element[K] } = { key: noBytes };
  let unknown: RawAttribute[] | undefined;
  while (reader.next()) {
    switch (reader.type) {
      case 1:
        element.key = valueIn(reader);
        break;
      case 2: {
        if (reader.size >= 4 && isValue(reader)) {
          element.data = valueIn(reader);
          break;
        }
        const data = readData(reader.nested());
        if ('verdict' in data) element.verdict = data.verdict;
        else element.data = data.value;
        break;
      }
      case 3:
        if (reader.u32() !== 0) element.flags = reader.u32();
        break;
      case 4:
        element.timeout = Number(reader.u64());
        break;
      case 5:
        element.expires = Number(reader.u64());
        break;
      case 6: {
        const comment = commentIn(reader.data());
        if (comment === undefined) (unknown ??= []).push(reader.raw());
        else element.comment = comment;
        break;
      }
      case 10:
        element.keyEnd = valueIn(reader);
        break;
      default:
        (unknown ??= []).push(reader.raw());
    }
  }
  if (unknown !== undefined) element.unknown = unknown;
  return element;
}

const noBytes = new Uint8Array(0);

/** True if the data attribute begins with NFTA_DATA_VALUE. */
function isValue(reader: AttributeReader): boolean {
  return reader.bytes[reader.start + 2] === 1 && (reader.bytes[reader.start + 3]! & 0x3f) === 0;
}

/** The value in a data attribute, without readers for its one inner attribute: dumps have 100,000 of them. */
function valueIn(reader: AttributeReader): Uint8Array {
  const { bytes, start } = reader;
  if (reader.size < 4 || !isValue(reader)) return noBytes;
  const end = start + (bytes[start]! | (bytes[start + 1]! << 8));
  return end <= reader.end ? bytes.slice(start + 4, end) : noBytes;
}
