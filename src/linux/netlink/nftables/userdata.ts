/** The notes that `nft` keeps with objects and the kernel stores unread: type, length (each one byte), value. */

export interface UserdataEntry {
  readonly type: number;
  readonly value: Uint8Array;
}

export function writeUserdata(entries: readonly UserdataEntry[]): Uint8Array {
  let size = 0;
  for (const entry of entries) size += 2 + entry.value.length;
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const { type, value } of entries) {
    if (value.length > 255) throw new RangeError(`nft userdata of ${value.length} bytes: 255 is the most`);
    bytes[at] = type;
    bytes[at + 1] = value.length;
    bytes.set(value, at + 2);
    at += 2 + value.length;
  }
  return bytes;
}

/** A cut-off entry ends the list. */
export function readUserdata(bytes: Uint8Array): UserdataEntry[] {
  const entries: UserdataEntry[] = [];
  let at = 0;
  while (at + 2 <= bytes.length) {
    const end = at + 2 + bytes[at + 1]!;
    if (end > bytes.length) break;
    entries.push({ type: bytes[at]!, value: bytes.slice(at + 2, end) });
    at = end;
  }
  return entries;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The longest comment `nft` accepts, in bytes. */
export const commentMax = 127;

/** A comment's value: zero-terminated, cut to what nft accepts. */
export function commentBytes(comment: string): Uint8Array {
  const bytes = new Uint8Array(commentMax + 1);
  const { written } = encoder.encodeInto(comment, bytes.subarray(0, commentMax));
  return bytes.subarray(0, written + 1);
}

export function readComment(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return decoder.decode(end < 0 ? bytes : bytes.subarray(0, end));
}
