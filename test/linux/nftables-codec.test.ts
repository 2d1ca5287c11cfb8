import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { AttributeReader, MessageWriter, type Message } from '../../src/linux/netlink/message.ts';
import { Batch, messageTypes, type NftObject } from '../../src/linux/netlink/nftables/batch.ts';
import {
  readExpression,
  writeExpressionBody,
  type Expression,
  type Selector,
} from '../../src/linux/netlink/nftables/expressions.ts';
import { readElement, readElements, writeElement } from '../../src/linux/netlink/nftables/elementCodec.ts';
import {
  readChain,
  readRule,
  readSet,
  readTable,
  writeChain,
  writeRule,
  writeSet,
  writeTable,
} from '../../src/linux/netlink/nftables/objectCodec.ts';
import {
  chain,
  map,
  rule,
  set,
  table,
  type Element,
  type KeySpec,
} from '../../src/linux/netlink/nftables/objects.ts';
import { ct, fib, ip, meta, numgen, th } from '../../src/linux/netlink/nftables/selectors.ts';
import * as statements from '../../src/linux/netlink/nftables/statements.ts';
import {
  concatBytes,
  formatConcat,
  sizeOf,
  splitConcat,
  typeNumber,
  typesOf,
  valueBytes,
  type TypeName,
} from '../../src/linux/netlink/nftables/types.ts';

interface Fixture {
  readonly script: readonly string[];
  readonly messages: readonly { readonly type: number; readonly flags: number; readonly payload: string }[];
}
const fixture = JSON.parse(
  readFileSync(new URL('fixtures/nft-messages.json', import.meta.url), 'utf8'),
) as Fixture;

function messageWith(type: number, payload: Uint8Array): Message {
  return {
    type: (10 << 8) | type,
    flags: 0,
    sequence: 1,
    portId: 0,
    bytes: payload,
    start: 0,
    end: payload.length,
  };
}

/** A message's payload as a tree: numbers of attributes in order, nesting flags aside (nft sets them unevenly). */
function treeOf(payload: Uint8Array): string {
  const out: string[] = [];
  const walk = (reader: AttributeReader): void => {
    while (reader.next()) out.push(`${reader.type}:${Buffer.from(reader.data()).toString('hex')}`);
  };
  walk(new AttributeReader(payload, 4, payload.length));
  return out.toSorted().join('\n');
}

function encode(object: NftObject): Uint8Array {
  const writer = new MessageWriter();
  writer.nfgenmsg(2, 0, 0);
  if (object.kind === 'table') writeTable(writer, object);
  else if (object.kind === 'chain') writeChain(writer, object);
  else if (object.kind === 'rule') writeRule(writer, object);
  else writeSet(writer, object);
  return writer.written();
}

describe('nftables codec: against the bytes of stock nft', () => {
  const readers: Readonly<Record<number, (message: Message) => NftObject>> = {
    [messageTypes.newTable]: readTable,
    [messageTypes.newChain]: readChain,
    [messageTypes.newRule]: readRule,
    [messageTypes.newSet]: readSet,
  };
  test('nftables codec: every message nft sends is read, and written again as the same attributes', () => {
    let count = 0;
    for (const { type, payload } of fixture.messages) {
      const bytes = Buffer.from(payload, 'hex');
      const read = readers[type];
      if (read === undefined) continue;
      const object = read(messageWith(type, bytes));
      assert.equal(
        treeOf(encode(object)),
        treeOf(bytes),
        JSON.stringify(object, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value)),
      );
      count++;
    }
    assert.ok(count > 55, `${count} messages`);
  });

  test('nftables codec: elements are written as nft writes them', () => {
    for (const { type, payload } of fixture.messages) {
      if (type !== messageTypes.newSetElement) continue;
      const bytes = Buffer.from(payload, 'hex');
      const writer = new MessageWriter();
      for (const element of readElements(messageWith(type, bytes)).elements) writeElement(writer, element);
      const reader = new AttributeReader(bytes, 4, bytes.length);
      while (reader.next() && reader.type !== 3);
      const theirs = reader.data();
      // nft numbers the entries of a list; the kernel takes any number.
      const list = new AttributeReader(theirs, 0, theirs.length);
      while (list.next()) {
        theirs[list.start - 2] = 1;
        theirs[list.start - 1] = 0x80;
      }
      assert.equal(Buffer.from(writer.written()).toString('hex'), Buffer.from(theirs).toString('hex'));
    }
  });

  /** The expressions of the script's rule that ends like this. */
  const theirs = (text: string): readonly Expression[] => {
    const rules = fixture.script.filter((line) => line.startsWith('add rule'));
    const index = rules.findIndex((line) => line.includes(text));
    assert.ok(index >= 0, text);
    const message = fixture.messages.filter(({ type }) => type === messageTypes.newRule)[index]!;
    return readRule(messageWith(messageTypes.newRule, Buffer.from(message.payload, 'hex'))).expressions;
  };
  const key = [ip.daddr, meta.l4proto, th.dport];
  const cases: readonly (readonly [string, readonly statements.Statement[]])[] = [
    ['lb-2 dnat ip to', [statements.dnatToMap('ip', [...key, numgen(2)], 'endpoints')]],
    ['services ip daddr . meta l4proto . th dport vmap', [statements.vmap(key, 'service-ips')]],
    [
      'services ip daddr @nodeips',
      [statements.inSet([ip.daddr], 'nodeips'), statements.vmap([meta.l4proto, th.dport], 'nodeports')],
    ],
    [
      'services fib daddr type local ip daddr !=',
      [
        statements.match(fib.daddrType, 'local'),
        statements.matchPrefix(ip.daddr, '127.0.0.0/8', '!='),
        statements.vmap([meta.l4proto, th.dport], 'nodeports'),
      ],
    ],
    ['nat-prerouting jump services', [statements.jump('services')]],
    [
      '@hairpin masquerade fully-random',
      [statements.inSet([ip.saddr, ip.daddr], 'hairpin'), statements.masquerade({ fullyRandom: true })],
    ],
    [
      'meta mark & 0x4000 == 0 return',
      [statements.matchMasked(meta.mark, 0x4000, '==', 0), statements.backToCaller],
    ],
    ['meta mark xor 0x4000', [statements.markXor(0x4000)]],
    ['nat-postrouting masquerade', [statements.masquerade()]],
    ['meta mark or 0x4000', [statements.markOr(0x4000)]],
    ['ct state new', [statements.matchBits(ct.state, ['new']), statements.jump('f1')]],
    ['ct status dnat accept', [statements.matchBits(ct.status, ['dnat']), statements.accept]],
    ['@cidrs reject', [statements.inSet([ip.daddr], 'cidrs'), statements.reject('ip')]],
    ['reject with tcp reset', [statements.match(meta.l4proto, 'tcp'), statements.rejectWithReset]],
    ['iifname "cali*"', [statements.match(meta.iifname, 'cali*'), statements.accept]],
    ['iifname "eth0"', [statements.match(meta.iifname, 'eth0'), statements.counter, statements.accept]],
    ['ip saddr != 10.244.0.0/16', [statements.matchPrefix(ip.saddr, '10.244.0.0/16', '!='), statements.drop]],
    [
      'ip saddr 10.244.0.0/15',
      [
        statements.matchPrefix(ip.saddr, '10.244.0.0/15'),
        statements.match(meta.l4proto, 'tcp'),
        statements.match(th.dport, 80),
        statements.drop,
      ],
    ],
    [
      '30000-32767',
      [
        statements.match(meta.l4proto, 'tcp'),
        statements.matchRange(th.dport, 30000, 32767),
        statements.accept,
      ],
    ],
    ['fib saddr type local', [statements.match(fib.saddrType, 'local'), statements.accept]],
    [
      'update @affinity',
      [statements.update('affinity', [meta.mark, ip.saddr], { data: [ip.daddr, th.dport] })],
    ],
    ['update @aff {', [statements.update('aff', [ip.saddr], { timeout: 100_000 })]],
    ['add @aff {', [statements.update('aff', [ip.saddr], { operation: 'add' })]],
    [
      'dnat to 10.244.1.2:8080',
      [
        statements.inSet([ip.saddr], 'aff'),
        statements.match(meta.l4proto, 'tcp'),
        statements.dnatTo('ip', '10.244.1.2', 8080),
      ],
    ],
    ['map @counts', [statements.markFromMap(key, 'counts')]],
  ];
  for (const [text, ours] of cases) {
    test(`nftables codec: ${text} is written as nft writes it`, () => {
      const bytes = (expressions: readonly Expression[]): string =>
        treeOf(encode(rule({ family: 'ip', name: 'kp' }, 'c', [plain(expressions)])));
      assert.equal(bytes(ours.flat()), bytes(theirs(text)));
    });
  }

  /**
   * nft names sets of the same batch by number too (we need only the name), and with dnat to a map it leaves the flag
   * "port given" out (the kernel sets it from the register).
   */
  function plain(expressions: readonly Expression[]): Expression[] {
    return expressions.map((one) => {
      if (one.kind === 'nat') return { ...one, flags: 2 };
      if (one.kind !== 'lookup' && one.kind !== 'dynset') return one;
      const { setId, ...rest } = one;
      assert.ok(setId === undefined || setId > 0);
      return rest;
    });
  }

  test('nftables codec: sets and maps are declared as nft declares them', () => {
    const kp = table('ip', 'kp');
    const frontend: KeySpec = ['ipv4_addr', 'inet_proto', 'inet_service'];
    const ours = [
      map(kp, 'service-ips', frontend, 'verdict', {
        comment: 'ClusterIP, ExternalIP and LoadBalancer IP traffic',
        id: 1,
      }),
      map(kp, 'endpoints', [...key, numgen(4096)], [ip.daddr, th.dport], { id: 2 }),
      map(kp, 'nodeports', ['inet_proto', 'inet_service'], 'verdict', { id: 3 }),
      set(kp, 'hairpin', ['ipv4_addr', 'ipv4_addr'], { id: 4 }),
      set(kp, 'nodeips', ['ipv4_addr'], { id: 5 }),
      set(kp, 'ranges', [...frontend, 'ipv4_addr'], { flags: ['interval'], id: 6 }),
      set(kp, 'cidrs', ['ipv4_addr'], { flags: ['interval'], id: 7 }),
      map(kp, 'affinity', [meta.mark, ip.saddr], [ip.daddr, th.dport], {
        flags: ['dynamic', 'timeout'],
        timeout: 10_800_000,
        size: 65_535,
        id: 8,
      }),
      set(kp, 'aff', ['ipv4_addr'], { flags: ['dynamic', 'timeout'], timeout: 10_800_000, id: 9 }),
      map(kp, 'counts', key, [meta.mark], { id: 10 }),
    ];
    const messages = fixture.messages.filter(({ type }) => type === messageTypes.newSet);
    for (const [index, each] of ours.entries()) {
      assert.equal(treeOf(encode(each)), treeOf(Buffer.from(messages[index]!.payload, 'hex')), each.name);
    }
  });
});

const types: readonly TypeName[] = [
  'ipv4_addr',
  'ipv6_addr',
  'inet_proto',
  'inet_service',
  'mark',
  'fib_addrtype',
];
const typeList = fc.array(fc.constantFrom(...types), { minLength: 1, maxLength: 5 });

test('nftables types: a type number and its types are two forms of the same', () => {
  fc.assert(fc.property(typeList, (list) => assert.deepEqual(typesOf(typeNumber(list)), list)));
});

test('nftables types: any key prints as values that make the same key', () => {
  fc.assert(
    fc.property(
      typeList.chain((list) =>
        fc.tuple(
          fc.constant(list),
          fc.tuple(
            ...list.map((type) => fc.uint8Array({ minLength: sizeOf([type]), maxLength: sizeOf([type]) })),
          ),
        ),
      ),
      ([list, parts]) => {
        const bytes = new Uint8Array(sizeOf(list));
        let at = 0;
        parts.forEach((part, index) => {
          bytes.set(part, at);
          at += list.length === 1 ? part.length : (sizeOf([list[index]!]) + 3) & ~3;
        });
        assert.deepEqual(splitConcat(list, bytes), parts);
        const texts = formatConcat(list, bytes).split(' . ');
        assert.deepEqual(concatBytes(list, texts), bytes);
      },
    ),
  );
});

test('nftables types: what is not a value of its type is refused', () => {
  const wrong: readonly (readonly [TypeName, string | number])[] = [
    ['ipv4_addr', 'fd00::1'],
    ['ipv6_addr', '10.0.0.1'],
    ['ipv4_addr', '10.0.0.1; flush ruleset'],
    ['inet_service', 65_536],
    ['inet_service', -1],
    ['inet_proto', 'tcpp'],
    ['ifname', 'a"b/c'],
    ['ifname', 'sixteen-letters-'],
    ['mark', 1.5],
  ];
  for (const [type, value] of wrong)
    assert.throws(() => valueBytes(type, value), RangeError, `${type} ${value}`);
});

const u32 = fc.nat(0xffffffff);
const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const name = fc.stringMatching(/^[a-z][a-z0-9/-]{0,30}$/);
const bytes = fc.uint8Array({ minLength: 1, maxLength: 20 });
const data = fc.oneof(
  fc.record({ value: bytes }, { noNullPrototype: true }),
  fc.record(
    {
      verdict: fc.oneof(
        fc.record(
          { code: fc.constantFrom('accept', 'drop', 'return', 'continue', 'break') },
          { noNullPrototype: true },
        ),
        fc.record({ code: fc.constantFrom('jump', 'goto'), chain: name }, { noNullPrototype: true }),
      ),
    },
    { noNullPrototype: true },
  ),
);
const unknown = fc.array(
  fc.record({ type: fc.integer({ min: 40, max: 60 }), value: bytes }, { noNullPrototype: true }),
  { minLength: 1, maxLength: 2 },
);
const operator = fc.constantFrom('==', '!=', '<', '<=', '>', '>=');

function kind(
  kind: Exclude<Expression['kind'], 'unknown'>,
  required: Record<string, fc.Arbitrary<unknown>>,
  optional: Record<string, fc.Arbitrary<unknown>> = {},
): fc.Arbitrary<Expression> {
  const fields: Record<string, fc.Arbitrary<unknown>> = {
    kind: fc.constant(kind),
    ...required,
    ...optional,
    unknown,
  };
  return fc.record(fields, {
    requiredKeys: ['kind', ...Object.keys(required)],
    noNullPrototype: true,
  }) as unknown as fc.Arbitrary<Expression>;
}

const leaf = fc.oneof(
  kind('immediate', { register: u32, data }),
  kind('payload', {
    register: u32,
    base: fc.constantFrom('link', 'network', 'transport'),
    offset: u32,
    length: u32,
  }),
  kind('meta', { register: u32, key: fc.constantFrom('mark', 'l4proto', 'iifname', 77) }),
  kind('set meta', { source: u32, key: fc.constantFrom('mark', 'priority') }),
  kind('ct', { register: u32, key: fc.constantFrom('state', 'status', 9) }, { direction: fc.nat(1) }),
  kind('fib', { register: u32, result: fc.constantFrom('type', 'oif', 9), flags: u32 }),
  kind('numgen', { register: u32, modulus: u32, type: fc.constantFrom('inc', 'random'), offset: u32 }),
  kind('cmp', { source: u32, operator, data }),
  kind('range', { source: u32, operator: fc.constantFrom('==', '!='), from: data, to: data }),
  kind(
    'bitwise',
    { source: u32, register: u32, length: u32 },
    { mask: data, xor: data, operation: fc.nat(2), data },
  ),
  kind('byteorder', { source: u32, register: u32, operation: fc.nat(1), length: u32, size: u32 }),
  kind('lookup', { set: name, source: u32 }, { register: u32, setId: u32, flags: u32 }),
  kind(
    'nat',
    { type: fc.constantFrom('snat', 'dnat'), family: u32 },
    { addressMin: u32, addressMax: u32, portMin: u32, portMax: u32, flags: u32 },
  ),
  kind('masq', {}, { flags: u32, portMin: u32, portMax: u32 }),
  kind('reject', { type: fc.constantFrom('icmp', 'tcp reset', 'icmpx'), code: fc.nat(255) }),
  kind('counter', {}, { bytes: u64, packets: u64 }),
  kind(
    'limit',
    { rate: u64, unit: u64, burst: u32, type: fc.constantFrom('packets', 'bytes') },
    { flags: u32 },
  ),
  kind('log', {}, { group: fc.nat(0xffff), prefix: name, level: u32 }),
  fc.record(
    { kind: fc.constant('unknown' as const), name: fc.constant('quota'), attributes: unknown },
    { noNullPrototype: true },
  ),
);
const expression: fc.Arbitrary<Expression> = fc.oneof(
  leaf,
  kind(
    'dynset',
    { set: name, operation: fc.constantFrom('add', 'update', 'delete'), keyRegister: u32 },
    {
      setId: u32,
      dataRegister: u32,
      timeout: u64,
      expression: leaf,
      expressions: fc.array(leaf, { maxLength: 2 }),
      flags: u32,
    },
  ),
);

test('nftables codec: any expression reads back as it was written, attributes we do not know included', () => {
  fc.assert(
    fc.property(expression, (one) => {
      const writer = new MessageWriter();
      writeExpressionBody(writer, one);
      assert.deepEqual(readExpression(new AttributeReader(writer.bytes, 0, writer.length)), one);
    }),
    { numRuns: 400 },
  );
});

const comment = fc.stringMatching(/^[ -~]{1,100}$/);

test('nftables codec: any element reads back as it was written', () => {
  const milliseconds = fc.nat({ max: 2 ** 45 });
  const element = fc.record(
    {
      key: bytes,
      keyEnd: bytes,
      data: bytes,
      flags: fc.integer({ min: 1, max: 3 }),
      timeout: milliseconds,
      expires: milliseconds,
      comment,
      unknown,
    },
    { requiredKeys: ['key'], noNullPrototype: true },
  ) as fc.Arbitrary<Element>;
  fc.assert(
    fc.property(element, (one) => {
      const writer = new MessageWriter();
      writeElement(writer, one);
      const reader = new AttributeReader(writer.bytes, 0, writer.length);
      assert.ok(reader.next());
      assert.deepEqual(readElement(reader.nested()), one);
    }),
  );
});

test('nftables codec: tables, chains, rules and sets read back as they were written', () => {
  const kp = { family: 'ip' as const, name: 'kp' };
  const selectors: Selector[] = [
    ip.daddr,
    ip.saddr,
    meta.l4proto,
    meta.mark,
    th.dport,
    numgen(7),
    numgen(9, 'inc', 3),
  ];
  const keySpec: fc.Arbitrary<KeySpec> = fc.oneof(
    typeList as fc.Arbitrary<KeySpec>,
    fc.array(fc.constantFrom(...selectors), { minLength: 1, maxLength: 4 }) as fc.Arbitrary<KeySpec>,
  );
  const optionalComment = fc.option(comment, { nil: undefined });
  const object: fc.Arbitrary<NftObject> = fc.oneof(
    optionalComment.map((text) => table('ip', 'kp', text === undefined ? {} : { comment: text })),
    fc
      .tuple(
        name,
        optionalComment,
        fc.integer({ min: -400, max: 400 }),
        fc.constantFrom('accept' as const, 'drop' as const),
      )
      .map(([one, text, priority, policy]) =>
        chain(kp, one, { type: 'filter', hook: 'input', priority, policy }, text),
      ),
    fc.tuple(name, optionalComment).map(([one, text]) => chain(kp, one, undefined, text)),
    fc
      .tuple(name, fc.array(expression, { maxLength: 3 }), optionalComment)
      .map(([one, expressions, text]) => rule(kp, one, [expressions], text)),
    fc
      .tuple(name, keySpec, fc.oneof(fc.constant('verdict' as const), keySpec), fc.boolean(), comment)
      .map(([one, key, value, timed, text]) =>
        map(kp, one, key, value, {
          comment: text,
          ...(timed ? { flags: ['timeout'], timeout: 5000, size: 10 } : {}),
        }),
      ),
    fc.tuple(name, keySpec).map(([one, key]) => set(kp, one, key, { flags: ['interval'], id: 3 })),
  );
  const readers = { table: readTable, chain: readChain, rule: readRule, set: readSet };
  fc.assert(
    fc.property(object, (one) => {
      assert.deepEqual(readers[one.kind](messageWith(0, encode(one))), one);
    }),
    { numRuns: 300 },
  );
});

test('nftables batch: large element lists are split below 64 KiB, and all of them are there', () => {
  const kp = table('ip', 'kp');
  const hairpin = set(kp, 'hairpin', ['ipv4_addr', 'ipv4_addr']);
  fc.assert(
    fc.property(fc.nat(5000), fc.nat(127), (count, commentLength) => {
      const elements: Element[] = [];
      for (let i = 0; i < count; i++) {
        const key = new Uint8Array(8);
        new DataView(key.buffer).setUint32(0, i);
        elements.push(commentLength === 0 ? { key } : { key, comment: 'x'.repeat(commentLength) });
      }
      const batch = new Batch().addElements(hairpin, elements);
      let next = 0;
      for (const operation of batch.operations) {
        assert.equal(operation.first, next);
        next = operation.last!;
      }
      assert.equal(next, count);
      assert.ok(batch.encode(5).length < count * 200 + 2000 + batch.operations.length * 60);
    }),
    { numRuns: 20 },
  );
});
