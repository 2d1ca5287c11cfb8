import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  AttributeReader,
  HEADER_LENGTH,
  MessageWriter,
  attributesOf,
  forEachMessage,
  type Message,
} from '../../src/linux/netlink/message.ts';

type Tree = { type: number; value: Uint8Array | Tree[] };

const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
  tree: fc.record(
    {
      type: fc.integer({ min: 1, max: 200 }),
      value: fc.oneof(
        { depthSize: 'small', withCrossShrink: true },
        fc.uint8Array({ maxLength: 60 }),
        fc.array(tie('tree'), { maxLength: 4 }),
      ),
    },
    { noNullPrototype: true },
  ),
}));

function write(writer: MessageWriter, node: Tree): void {
  if (node.value instanceof Uint8Array) {
    writer.data(node.type, node.value);
    return;
  }
  const start = writer.beginNested(node.type);
  for (const child of node.value) write(writer, child);
  writer.endNested(start);
}

function read(reader: AttributeReader, like: Tree): Tree {
  assert.ok(reader.next());
  if (like.value instanceof Uint8Array) return { type: reader.type, value: reader.data() };
  const inner = reader.nested();
  const value = like.value.map((child) => read(inner, child));
  assert.equal(inner.next(), false);
  return { type: reader.type, value };
}

test('messages: any tree of attributes reads back as it was written', () => {
  fc.assert(
    fc.property(fc.array(fc.array(tree, { maxLength: 5 }), { maxLength: 4 }), (messages) => {
      const writer = new MessageWriter(16);
      messages.forEach((nodes, index) => {
        const start = writer.beginMessage(0x0a03, 0x605, index + 1);
        writer.nfgenmsg(2, 0, 10);
        for (const node of nodes) write(writer, node);
        writer.endMessage(start);
      });
      const seen: Message[] = [];
      forEachMessage(writer.bytes, writer.length, (message) => seen.push(message));
      assert.equal(seen.length, messages.length);
      seen.forEach((message, index) => {
        assert.deepEqual([message.type, message.flags, message.sequence], [0x0a03, 0x605, index + 1]);
        const reader = attributesOf(message, 4);
        for (const node of messages[index]!) assert.deepEqual(read(reader, node), node);
        assert.equal(reader.next(), false);
      });
    }),
  );
});

test('messages: numbers and strings read back, whatever their value', () => {
  fc.assert(
    fc.property(
      fc.nat(255),
      fc.nat(0xffff),
      fc.nat(0xffffffff),
      fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      fc.string({ unit: 'binary', maxLength: 40 }).filter((text) => !text.includes('\0')),
      (a, b, c, d, text) => {
        const writer = new MessageWriter(4);
        writer.u8(1, a);
        writer.u16(2, b);
        writer.u32(3, c);
        writer.hostU32(4, c);
        writer.u64(5, d);
        writer.string(6, text);
        const reader = new AttributeReader(writer.bytes, 0, writer.length);
        const values: unknown[] = [];
        while (reader.next()) {
          if (reader.type === 1) values.push(reader.u8());
          if (reader.type === 2) values.push(reader.u16());
          if (reader.type === 3) values.push(reader.u32());
          if (reader.type === 4) values.push(reader.hostU32());
          if (reader.type === 5) values.push(reader.u64());
          if (reader.type === 6) values.push(reader.string());
        }
        assert.deepEqual(values, [a, b, c, c, d, text]);
      },
    ),
  );
});

test('messages: reading arbitrary bytes never runs past their end and always ends', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const reader = new AttributeReader(bytes, 0, bytes.length);
      while (reader.next()) assert.ok(reader.start <= reader.end && reader.end <= bytes.length);
      try {
        forEachMessage(bytes, bytes.length, (message) => {
          assert.ok(message.start >= HEADER_LENGTH && message.end <= bytes.length);
        });
      } catch (error) {
        assert.ok(error instanceof RangeError);
      }
    }),
  );
});

test('messages: a nested attribute over 64 KiB is refused instead of being cut', () => {
  const writer = new MessageWriter();
  const start = writer.beginNested(3);
  for (let i = 0; i < 9000; i++) writer.u32(1, i);
  assert.throws(() => writer.endNested(start), /72004 bytes/);
});
