/**
 * Takes a JSON list apart while it arrives: each element of the top-level `items` is handed on as soon as it is there
 * whole, so that a big list is never held as one text or one tree. Finds where elements begin and end; whether they are
 * JSON is for the parser to say.
 */
const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const openBracket = 0x5b;
const closeBracket = 0x5d;
const openBrace = 0x7b;
const closeBrace = 0x7d;

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

export class JsonItems {
  private readonly item: (text: string) => void;
  /** Everything that is not an element of `items`, as Latin-1: one character a byte. */
  private outside = '';
  private parts: Buffer[] = [];
  private depth = 0;
  private inString = false;
  private escaped = false;
  private inItems = false;
  private inElement = false;

  /** @param item called with the text of each element, in order */
  constructor(item: (text: string) => void) {
    this.item = item;
  }

  push(chunk: Buffer): void {
    // Where the element, or the text outside of elements, begins that has not been taken yet.
    let start = 0;
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i] as number;
      if (this.inString) {
        if (this.escaped) this.escaped = false;
        else if (byte === backslash) this.escaped = true;
        else if (byte === quote) {
          this.inString = false;
          if (this.inElement && this.depth === 2) start = this.endElement(chunk, start, i + 1);
        }
        continue;
      }
      if (this.inItems && !this.inElement) {
        if (byte === comma || isSpace(byte)) {
          start = i + 1;
          continue;
        }
        start = i;
        if (byte === closeBracket) {
          this.inItems = false;
          this.depth--;
          continue;
        }
        this.inElement = true;
      }
      if (byte === quote) this.inString = true;
      else if (byte === openBrace || byte === openBracket) {
        this.depth++;
        if (byte === openBracket && this.depth === 2 && this.isItemsKey(chunk, start, i)) {
          this.takeOutside(chunk, start, i + 1);
          this.inItems = true;
          start = i + 1;
        }
      } else if (byte === closeBrace || byte === closeBracket) {
        if (this.inElement && this.depth === 2) {
          // A number or a word, and with it the list, ends here.
          this.endElement(chunk, start, i);
          start = i;
          this.inItems = false;
          this.depth--;
          continue;
        }
        this.depth--;
        if (this.inElement && this.depth === 2) start = this.endElement(chunk, start, i + 1);
      } else if (this.inElement && this.depth === 2 && (byte === comma || isSpace(byte))) {
        this.endElement(chunk, start, i);
        start = i + 1;
      }
    }
    if (this.inElement) this.parts.push(chunk.subarray(start));
    else this.takeOutside(chunk, start, chunk.length);
  }

  /** The list without its items, once everything has been pushed. */
  get outer(): string {
    return Buffer.from(this.outside, 'latin1').toString('utf8');
  }

  private takeOutside(chunk: Buffer, start: number, end: number): void {
    this.outside += chunk.toString('latin1', start, end);
  }

  private isItemsKey(chunk: Buffer, start: number, end: number): boolean {
    return /"items"\s*:\s*$/.test(this.outside + chunk.toString('latin1', start, end));
  }

  private endElement(chunk: Buffer, start: number, end: number): number {
    this.inElement = false;
    if (this.parts.length === 0) {
      this.item(chunk.toString('utf8', start, end));
      return end;
    }
    this.parts.push(chunk.subarray(start, end));
    const text = Buffer.concat(this.parts).toString('utf8');
    this.parts = [];
    this.item(text);
    return end;
  }
}
