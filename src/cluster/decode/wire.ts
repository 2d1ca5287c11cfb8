/** The protobuf wire format, read in place. Ref: protobuf.dev/programming-guides/encoding */
import { internBytes, readString } from './intern.ts';
import { MalformedObject } from './problem.ts';

/** A cursor over one message. Reading past the end, or a wire type that does not exist, throws MalformedObject. */
export class Wire {
  bytes: Buffer;
  pos: number;
  /** End of the message the cursor is in. */
  end: number;

  constructor(bytes: Buffer, pos = 0, end: number = bytes.length) {
    this.bytes = bytes;
    this.pos = pos;
    this.end = end;
  }

  reset(bytes: Buffer, pos: number, end: number): void {
    this.bytes = bytes;
    this.pos = pos;
    this.end = end;
  }

  /** A varint below 2^31: tags, lengths, ports, booleans. Wider ones are read whole and cut to a signed 64-bit number. */
  varint(): number {
    if (this.pos < this.end) {
      const first = this.bytes[this.pos] as number;
      if (first < 0x80) {
        this.pos++;
        return first;
      }
    }
    return this.wideVarint();
  }

  private wideVarint(): number {
    let low = 0;
    let middle = 0;
    let high = 0;
    for (let i = 0; i < 10; i++) {
      if (this.pos >= this.end) throw new MalformedObject('', 'protobuf: number cut short');
      const byte = this.bytes[this.pos++] as number;
      if (i < 4) low |= (byte & 0x7f) << (7 * i);
      else if (i < 8) middle |= (byte & 0x7f) << (7 * (i - 4));
      else high |= (byte & 0x7f) << (7 * (i - 8));
      if (byte < 0x80) {
        const upper = (middle >>> 4) | (high << 24);
        return upper * 0x1_0000_0000 + ((low | (middle << 28)) >>> 0);
      }
    }
    throw new MalformedObject('', 'protobuf: number longer than ten bytes');
  }

  /** Steps over the value of a field that is not wanted. */
  skip(tag: number): void {
    switch (tag & 7) {
      case 0:
        this.varint();
        return;
      case 1:
        this.advance(8);
        return;
      case 2:
        this.advance(this.varint());
        return;
      case 5:
        this.advance(4);
        return;
      default:
        throw new MalformedObject('', `protobuf: wire type ${tag & 7} is not in use`);
    }
  }

  private advance(length: number): void {
    if (length < 0 || length > this.end - this.pos) {
      throw new MalformedObject('', `protobuf: ${length} bytes wanted, ${this.end - this.pos} left`);
    }
    this.pos += length;
  }

  /** Narrows the cursor to the embedded message that follows; returns the outer end, for `leave`. */
  enter(): number {
    const length = this.varint();
    const outer = this.end;
    if (length < 0 || length > outer - this.pos) {
      throw new MalformedObject('', `protobuf: ${length} bytes wanted, ${outer - this.pos} left`);
    }
    this.end = this.pos + length;
    return outer;
  }

  leave(outer: number): void {
    this.pos = this.end;
    this.end = outer;
  }

  string(): string {
    const start = this.span();
    return readString(this.bytes, start, this.pos);
  }

  /** For strings that repeat in many objects. */
  interned(): string {
    const start = this.span();
    return internBytes(this.bytes, start, this.pos);
  }

  /** Steps over a length-delimited value; returns where it starts (it ends at `pos`). */
  span(): number {
    const length = this.varint();
    const start = this.pos;
    this.advance(length);
    return start;
  }
}
