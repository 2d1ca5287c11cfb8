/**
 * One copy of strings that repeat in many objects: namespaces, node names, zones, port names. Tables are bounded:
 * a string that has been pushed out is merely stored once more.
 */
const slots = 8192;
/** Longer strings hardly ever repeat. */
const longest = 64;

const byHash: (string | undefined)[] = Array.from({ length: slots }, () => undefined);
const bySelf = new Map<string, string>();

/** The string in `bytes[start, end)`, which is UTF-8; no new string is made if the same one was seen lately. */
export function internBytes(bytes: Buffer, start: number, end: number): string {
  const length = end - start;
  if (length === 0) return '';
  if (length > longest) return readString(bytes, start, end);
  let hash = length;
  for (let i = start; i < end; i++) hash = (Math.imul(hash, 31) + (bytes[i] as number)) | 0;
  const slot = (hash ^ (hash >>> 13)) & (slots - 1);
  const known = byHash[slot];
  if (known !== undefined && known.length === length) {
    let i = 0;
    while (i < length && known.charCodeAt(i) === bytes[start + i] && (bytes[start + i] as number) < 0x80) i++;
    if (i === length) return known;
  }
  const fresh = readString(bytes, start, end);
  byHash[slot] = fresh;
  return fresh;
}

export function internString(value: string): string {
  if (value.length > longest) return value;
  const known = bySelf.get(value);
  if (known !== undefined) return known;
  if (bySelf.size >= slots) bySelf.clear();
  bySelf.set(value, value);
  return value;
}

/** Nearly everything here is ASCII, for which Latin-1 is the cheaper reading. */
export function readString(bytes: Buffer, start: number, end: number): string {
  for (let i = start; i < end; i++) {
    if ((bytes[i] as number) >= 0x80) return bytes.toString('utf8', start, end);
  }
  return bytes.toString('latin1', start, end);
}
