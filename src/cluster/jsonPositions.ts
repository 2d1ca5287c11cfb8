/** Where everything stands in a text of JSON: of one that JSON.parse has taken, so that nothing is checked here. */

/** A value: where it begins, counted in UTF-16 units from 0, and what is in it. */
export interface JsonPlace {
  readonly at: number;
  readonly members?: ReadonlyMap<string, { readonly key: number; readonly value: JsonPlace }>;
  readonly items?: readonly JsonPlace[];
}

const [quote, backslash, comma, openMap, closeMap, openList, closeList] = [34, 92, 44, 123, 125, 91, 93];

export function jsonPlaces(text: string): JsonPlace {
  return new Scanner(text).value();
}

class Scanner {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  value(): JsonPlace {
    this.#blanks();
    const at = this.#at;
    switch (this.#text.charCodeAt(at)) {
      case openMap:
        return { at, members: this.#members() };
      case openList:
        return { at, items: this.#items() };
      case quote:
        this.#string();
        return { at };
      default:
        this.#word();
        return { at };
    }
  }

  #members(): NonNullable<JsonPlace['members']> {
    const members = new Map<string, { key: number; value: JsonPlace }>();
    this.#at++;
    while (this.#next() !== closeMap) {
      const key = this.#at;
      const name = this.#string();
      this.#blanks();
      // The colon.
      this.#at++;
      members.set(name, { key, value: this.value() });
    }
    this.#at++;
    return members;
  }

  #items(): JsonPlace[] {
    const items: JsonPlace[] = [];
    this.#at++;
    while (this.#next() !== closeList) items.push(this.value());
    this.#at++;
    return items;
  }

  /** The first character of what comes next, a comma left out. */
  #next(): number {
    this.#blanks();
    if (this.#text.charCodeAt(this.#at) === comma) {
      this.#at++;
      this.#blanks();
    }
    return this.#text.charCodeAt(this.#at);
  }

  #blanks(): void {
    while (this.#text.charCodeAt(this.#at) <= 32) this.#at++;
  }

  #string(): string {
    const start = this.#at;
    let end = start + 1;
    let isPlain = true;
    for (let code = this.#text.charCodeAt(end); code !== quote; code = this.#text.charCodeAt(end)) {
      if (code === backslash) {
        isPlain = false;
        end++;
      }
      end++;
    }
    this.#at = end + 1;
    return isPlain
      ? this.#text.slice(start + 1, end)
      : (JSON.parse(this.#text.slice(start, end + 1)) as string);
  }

  /** A number, true, false or null. */
  #word(): void {
    let code = this.#text.charCodeAt(this.#at);
    while (code > 32 && code !== comma && code !== closeMap && code !== closeList)
      code = this.#text.charCodeAt(++this.#at);
  }
}
