/** Elements of one set as the kernel has them: keys and values of fixed length in one buffer, found by their bytes. */

const emptySlot = -1;

export class ElementTable {
  readonly keyLength: number;
  readonly valueLength: number;
  #bytes: Uint8Array;
  #count = 0;
  #index = new Int32Array(64).fill(emptySlot);
  #seen = new Uint8Array(32);

  constructor(keyLength: number, valueLength: number) {
    this.keyLength = keyLength;
    this.valueLength = valueLength;
    this.#bytes = new Uint8Array((keyLength + valueLength) * 32);
  }

  get size(): number {
    return this.#count;
  }

  /** Adds what starts at `keyAt` and `valueAt`; a key that is there already is not added again. */
  insert(key: Uint8Array, keyAt: number, value: Uint8Array, valueAt: number): void {
    if (this.#count * 2 >= this.#index.length) this.#grow();
    let at = this.#hash(key, keyAt) & (this.#index.length - 1);
    for (let entry = this.#index[at]!; entry !== emptySlot; entry = this.#index[at]!) {
      if (this.#hasKey(entry, key, keyAt)) return;
      at = (at + 1) & (this.#index.length - 1);
    }
    const size = this.keyLength + this.valueLength;
    const start = this.#count * size;
    if (start + size > this.#bytes.length) {
      const grown = new Uint8Array(this.#bytes.length * 2);
      grown.set(this.#bytes);
      this.#bytes = grown;
      const seen = new Uint8Array(this.#seen.length * 2);
      seen.set(this.#seen);
      this.#seen = seen;
    }
    for (let i = 0; i < this.keyLength; i++) this.#bytes[start + i] = key[keyAt + i]!;
    for (let i = 0; i < this.valueLength; i++) {
      this.#bytes[start + this.keyLength + i] = value[valueAt + i]!;
    }
    this.#index[at] = this.#count++;
  }

  /** The number of the entry with the key; -1 = there is none. */
  find(key: Uint8Array): number {
    if (key.length !== this.keyLength) return -1;
    let at = this.#hash(key, 0) & (this.#index.length - 1);
    for (let entry = this.#index[at]!; entry !== emptySlot; entry = this.#index[at]!) {
      if (this.#hasKey(entry, key, 0)) return entry;
      at = (at + 1) & (this.#index.length - 1);
    }
    return -1;
  }

  hasValue(entry: number, value: Uint8Array): boolean {
    if (value.length !== this.valueLength) return false;
    const start = entry * (this.keyLength + this.valueLength) + this.keyLength;
    for (let i = 0; i < value.length; i++) if (this.#bytes[start + i] !== value[i]) return false;
    return true;
  }

  key(entry: number): Uint8Array {
    const start = entry * (this.keyLength + this.valueLength);
    return this.#bytes.slice(start, start + this.keyLength);
  }

  value(entry: number): Uint8Array {
    const start = entry * (this.keyLength + this.valueLength) + this.keyLength;
    return this.#bytes.slice(start, start + this.valueLength);
  }

  markSeen(entry: number): void {
    this.#seen[entry] = 1;
  }

  isSeen(entry: number): boolean {
    return this.#seen[entry] === 1;
  }

  #hasKey(entry: number, key: Uint8Array, keyAt: number): boolean {
    const start = entry * (this.keyLength + this.valueLength);
    for (let i = 0; i < this.keyLength; i++) if (this.#bytes[start + i] !== key[keyAt + i]) return false;
    return true;
  }

  /** FNV-1a, with its high bits folded into those that choose the place. */
  #hash(key: Uint8Array, at: number): number {
    let hash = 0x811c9dc5;
    for (let i = 0; i < this.keyLength; i++) hash = Math.imul(hash ^ key[at + i]!, 0x01000193);
    return (hash ^ (hash >>> 15)) >>> 0;
  }

  #grow(): void {
    const index = new Int32Array(this.#index.length * 2).fill(emptySlot);
    const size = this.keyLength + this.valueLength;
    for (let entry = 0; entry < this.#count; entry++) {
      let at = this.#hash(this.#bytes, entry * size) & (index.length - 1);
      while (index[at] !== emptySlot) at = (at + 1) & (index.length - 1);
      index[at] = entry;
    }
    this.#index = index;
  }
}
