/** Comments of nf_tables objects, which travel as user data, and the family a message is about. */
import { familyName, type TableFamily } from './objects.ts';
import { commentBytes, readComment, readUserdata, writeUserdata } from './userdata.ts';
import type { Message, MessageWriter, RawAttribute } from '../message.ts';

/** NFTNL_UDATA_…_COMMENT of tables, chains, rules and elements is 0. */
const UDATA_COMMENT = 0;

/** True if the attribute is among those kept as they came, so that it must not be written a second time. */
export function isKept(kept: readonly RawAttribute[] | undefined, type: number): boolean {
  return kept !== undefined && kept.some((attribute) => (attribute.type & 0x3fff) === type);
}

export function writeComment(
  writer: MessageWriter,
  type: number,
  comment: string | undefined,
  kept: readonly RawAttribute[] | undefined,
): void {
  if (comment === undefined || isKept(kept, type)) return;
  writer.data(type, writeUserdata([{ type: UDATA_COMMENT, value: commentBytes(comment) }]));
}

export function commentIn(bytes: Uint8Array): string | undefined {
  const value = readUserdata(bytes).find((entry) => entry.type === UDATA_COMMENT)?.value;
  return value === undefined ? undefined : readComment(value);
}

export function familyOf(message: Message): TableFamily {
  return familyName(message.bytes[message.start]!);
}
