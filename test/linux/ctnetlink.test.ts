import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { addressBytes, formatAddress } from '../../src/linux/address-bytes.ts';
import {
  printEntry,
  readEntry,
  writeEntry,
  type ConntrackEntry,
  type Tuple,
} from '../../src/linux/netlink/conntrack-entry.ts';
import { ConntrackTable } from '../../src/linux/netlink/ctnetlink.ts';
import { MessageWriter, forEachMessage, type Message } from '../../src/linux/netlink/message.ts';
import { withNetworkNamespace } from '../../src/linux/netlink/namespace.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';

interface Fixtures {
  readonly create: string;
  readonly listed: readonly string[];
  readonly printed: readonly string[];
}
const fixtures = JSON.parse(
  readFileSync(new URL('fixtures/conntrack-messages.json', import.meta.url), 'utf8'),
) as Fixtures;

function messageWith(payload: Uint8Array): Message {
  return { type: 0x100, flags: 0, sequence: 1, portId: 0, bytes: payload, start: 0, end: payload.length };
}

test('ctnetlink: what the kernel gave the conntrack tool prints as the tool printed it', () => {
  const printed = fixtures.listed.map((hex) => {
    const entry = readEntry(messageWith(Buffer.from(hex, 'hex')));
    assert.ok(entry);
    return printEntry(entry);
  });
  assert.deepEqual(printed, fixtures.printed);
});

test('ctnetlink: a created entry has the bytes that the conntrack tool sends', () => {
  const tuple = { protocol: 17, sourcePort: 1234, destinationPort: 53 };
  const writer = new MessageWriter();
  writer.nfgenmsg(2, 0, 0);
  writeEntry(writer, {
    family: 'IPv4',
    original: { ...tuple, source: '10.0.0.2', destination: '10.96.0.10' },
    reply: {
      ...tuple,
      source: '10.244.1.2',
      destination: '10.0.0.2',
      sourcePort: 5353,
      destinationPort: 1234,
    },
    status: 0,
    timeout: 100,
    mark: 0,
    zone: 0,
    id: 0,
    use: 0,
    unknown: [],
  });
  // The tool leaves a stray byte in the padding behind the reply's protocol number.
  const theirs = fixtures.create.replace('0500010011100000', '0500010011000000');
  assert.equal(Buffer.from(writer.written()).toString('hex'), theirs);
});

const u32 = fc.nat(0xffffffff);
const port = fc.nat(0xffff);
const arbitraryEntry = fc.boolean().chain((v6) => {
  const size = v6 ? 16 : 4;
  const address = fc.uint8Array({ minLength: size, maxLength: size }).map((bytes) => formatAddress(bytes));
  const icmp = fc.option(fc.record({ type: fc.nat(255), code: fc.nat(255), id: port }), { nil: undefined });
  const tuple: fc.Arbitrary<Tuple> = fc
    .record({
      source: address,
      destination: address,
      protocol: fc.nat(255),
      sourcePort: port,
      destinationPort: port,
    })
    .chain((one) =>
      icmp.map((icmp) =>
        icmp === undefined ? one : { ...one, protocol: v6 ? 58 : 1, sourcePort: 0, destinationPort: 0, icmp },
      ),
    );
  const counters = fc.record({
    packets: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
    bytes: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  });
  return fc.record(
    {
      family: fc.constant(v6 ? ('IPv6' as const) : ('IPv4' as const)),
      original: tuple,
      reply: tuple,
      status: u32,
      timeout: u32,
      mark: u32,
      zone: port,
      id: u32,
      use: u32,
      tcpState: fc.nat(9),
      counters: fc.record({ original: counters, reply: counters }),
      unknown: fc.array(
        fc.record({ type: fc.integer({ min: 30, max: 60 }), value: fc.uint8Array({ maxLength: 12 }) }),
        { maxLength: 3 },
      ),
    },
    {
      noNullPrototype: true,
      requiredKeys: [
        'family',
        'original',
        'reply',
        'status',
        'timeout',
        'mark',
        'zone',
        'id',
        'use',
        'unknown',
      ],
    },
  );
});

test('ctnetlink: any entry reads back as it was written, attributes we do not know included', () => {
  fc.assert(
    fc.property(arbitraryEntry, (entry: ConntrackEntry) => {
      const writer = new MessageWriter();
      writer.nfgenmsg(entry.family === 'IPv6' ? 10 : 2, 0, 0);
      writeEntry(writer, entry);
      assert.deepEqual(
        JSON.parse(toText(readEntry(messageWith(writer.written())))),
        JSON.parse(toText(entry)),
      );
    }),
  );
});

function toText(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) => (typeof inner === 'bigint' ? inner.toString() : inner));
}

test('ctnetlink: cut-off messages are read as far as they go', () => {
  const whole = Buffer.from(fixtures.listed[0]!, 'hex');
  for (let length = 4; length < whole.length; length++) {
    readEntry(messageWith(whole.subarray(0, length)));
  }
  assert.equal(readEntry(messageWith(whole.subarray(0, 60))), undefined);
  forEachMessage(new Uint8Array(0), 0, () => assert.fail());
});

test('addresses: bytes and text are two forms of the same', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ minLength: 4, maxLength: 4 }),
        fc.uint8Array({ minLength: 16, maxLength: 16 }),
      ),
      (bytes) => assert.deepEqual(addressBytes(formatAddress(bytes)), bytes),
    ),
  );
  for (const text of [
    '::',
    '::1',
    'fd00::1:0:0:1',
    '2001:db8::',
    '::ffff:10.0.0.1',
    '1:2:3:4:5:6:7:8',
    '1:0:3:4:5:6:7:8',
  ]) {
    assert.equal(formatAddress(addressBytes(text)), text);
  }
  for (const text of [
    '',
    '1.2.3',
    '1.2.3.256',
    '1:2',
    ':::',
    '1::2::3',
    'g::',
    '1:2:3:4:5:6:7:8:9',
    'fe80::1%eth0',
    ':1',
  ]) {
    assert.throws(() => addressBytes(text), RangeError, text);
  }
});

let namespace = '';
before(() => {
  namespace = makeNamespace();
});
after(() => removeNamespace(namespace));

test('ctnetlink: a deletion hits the entry that was listed, not a later one with the same tuples', () => {
  const table = withNetworkNamespace(`/run/netns/${namespace}`, () => new ConntrackTable());
  const [first] = fixtures.listed.map((hex) => readEntry(messageWith(Buffer.from(hex, 'hex'))));
  assert.ok(first);
  table.create([first]);
  const [listed] = table.listAll('IPv4');
  assert.ok(listed);
  inNamespace(namespace, ['conntrack', '-D', '-p', 'udp'], { stdio: 'ignore' });
  table.create([first]);
  const [again] = table.listAll('IPv4');
  assert.ok(again);
  if (again.id !== listed.id) assert.equal(table.delete([listed]), 0);
  assert.equal(table.listAll('IPv4').length, 1);
  assert.equal(table.delete([again, again]), 1);
  assert.equal(table.listAll('IPv4').length, 0);
  table.close();
});

test('ctnetlink: the kernel filters a listing by protocol, destination and port', async () => {
  const table = withNetworkNamespace(`/run/netns/${namespace}`, () => new ConntrackTable());
  const base = readEntry(messageWith(Buffer.from(fixtures.listed[0]!, 'hex')))!;
  const to = (destination: string, destinationPort: number, protocol: number): ConntrackEntry => ({
    ...base,
    original: { ...base.original, destination, destinationPort, protocol },
    reply: { ...base.reply, protocol, source: destination, sourcePort: destinationPort },
    ...(protocol === 6 ? { tcpState: 3 } : {}),
  });
  table.create([
    to('10.96.0.1', 53, 17),
    to('10.96.0.1', 54, 17),
    to('10.96.0.2', 53, 17),
    to('10.96.0.1', 53, 6),
  ]);
  const count = async (filter: Parameters<ConntrackTable['list']>[1]): Promise<number> => {
    let seen = 0;
    await table.list(
      'IPv4',
      filter,
      () => seen++,
      () => assert.fail(),
    );
    return seen;
  };
  assert.equal(await count({ protocol: 17 }), 3);
  assert.equal(await count({ protocol: 17, destinationPort: 53 }), 2);
  assert.equal(await count({ protocol: 17, destination: '10.96.0.1', destinationPort: 53 }), 1);
  assert.equal(await count({ protocol: 6, destination: '10.96.0.1', destinationPort: 53 }), 1);
  table.close();
});

test('ctnetlink: a listing of IPv6 flows by destination finds them, though the kernel cannot be asked', async () => {
  const table = withNetworkNamespace(`/run/netns/${namespace}`, () => new ConntrackTable());
  const base = readEntry(messageWith(Buffer.from(fixtures.listed[0]!, 'hex')))!;
  const to = (destination: string, sourcePort: number): ConntrackEntry => {
    const [source, protocol, destinationPort] = ['fd00::7', 17, 53];
    return {
      ...base,
      family: 'IPv6',
      original: { source, sourcePort, destination, destinationPort, protocol },
      reply: {
        source: destination,
        sourcePort: 53,
        destination: source,
        destinationPort: sourcePort,
        protocol,
      },
    };
  };
  table.create([to('fd00:10:96::1', 4000), to('fd00:10:96::1', 4001), to('fd00:10:96::2', 4000)]);
  const found: string[] = [];
  await table.list(
    'IPv6',
    { protocol: 17, destination: 'fd00:10:96::1', destinationPort: 53 },
    ({ original }) => void found.push(`${original.destination} ${original.sourcePort}`),
    () => assert.fail(),
  );
  assert.deepEqual(found.sort(), ['fd00:10:96::1 4000', 'fd00:10:96::1 4001']);
  table.close();
});
