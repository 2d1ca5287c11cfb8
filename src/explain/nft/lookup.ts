/** Finds elements of sets and maps: by hash where a key is exact, by trying where it is a range. */
import { anything } from './form.ts';
import type { KeyPart, NftElement, Value } from './form.ts';

export function matchesPart(part: KeyPart, value: Value): boolean {
  if (part === anything) return true;
  if (typeof part === 'bigint' || typeof part === 'string') {
    if (typeof part === 'string' && part.endsWith('*') && typeof value === 'string') {
      return value.startsWith(part.slice(0, -1));
    }
    return part === value;
  }
  if ('prefix' in part) return typeof value === 'string' && value.startsWith(part.prefix);
  if ('any' in part) return true;
  return typeof value === 'bigint' && part.first <= value && value <= part.last;
}

export class SetIndex {
  readonly #exact = new Map<string, NftElement>();
  readonly #others: NftElement[] = [];

  constructor(elements: readonly NftElement[]) {
    for (const element of elements) {
      if (element.key.every(isExact)) this.#exact.set(keyText(element.key as readonly Value[]), element);
      else this.#others.push(element);
    }
    // A catch-all element is the last to ask.
    this.#others.sort((a, b) => Number(a.key[0] === anything) - Number(b.key[0] === anything));
  }

  find(key: readonly Value[]): NftElement | undefined {
    const exact = this.#exact.get(keyText(key));
    if (exact !== undefined) return exact;
    return this.#others.find(
      ({ key: parts }) =>
        parts[0] === anything ||
        (parts.length === key.length && parts.every((part, i) => matchesPart(part, key[i]!))),
    );
  }
}

function keyText(key: readonly Value[]): string {
  return key.join(' . ');
}

function isExact(part: KeyPart): boolean {
  return typeof part === 'bigint' || (typeof part === 'string' && !part.endsWith('*'));
}
