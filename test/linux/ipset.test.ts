/** ipset's text and wire forms: laws, and against the ipset program in a network namespace. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { Ipset, isSetInUse } from '../../src/linux/netlink/ipset/ipset.ts';
import {
  parseDefinition,
  parseEntry,
  printAdd,
  printDefinition,
  printEntry,
  type SetDefinition,
  type SetEntry,
  type SetType,
} from '../../src/linux/netlink/ipset/objects.ts';
import { NetlinkError } from '../../src/linux/netlink/errors.ts';
import { withNetworkNamespace } from '../../src/linux/netlink/namespace.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';

const types: readonly SetType[] = [
  'hash:ip',
  'hash:ip,port',
  'hash:ip,port,ip',
  'hash:ip,port,net',
  'bitmap:port',
];

function definition(type: SetType, family: 'IPv4' | 'IPv6', name = 'TEST'): SetDefinition {
  return type === 'bitmap:port'
    ? { name, type, firstPort: 0, lastPort: 65_535 }
    : { name, type, family, hashSize: 1024, maxElements: 65_536 };
}

const plain = { noNullPrototype: true } as const;
const byte = fc.integer({ min: 0, max: 255 });
const ipv4 = fc.tuple(byte, byte, byte).map(([a, b, c]) => `10.${a}.${b}.${c}`);
const ipv6 = fc
  .tuple(fc.integer({ min: 1, max: 0xffff }), fc.integer({ min: 1, max: 0xffff }))
  .map(([a, b]) => `fd00:${a.toString(16)}::${b.toString(16)}`);

function entryArbitrary(type: SetType, family: 'IPv4' | 'IPv6'): fc.Arbitrary<SetEntry> {
  const ip = family === 'IPv4' ? ipv4 : ipv6;
  const port = fc.integer({ min: 0, max: 65_535 });
  const protocol = fc.constantFrom('TCP' as const, 'UDP' as const, 'SCTP' as const);
  switch (type) {
    case 'bitmap:port':
      return fc.record({ port }, plain);
    case 'hash:ip':
      return fc.record({ ip }, plain);
    case 'hash:ip,port':
      return fc.record({ ip, protocol, port }, plain);
    case 'hash:ip,port,ip':
      return fc.record({ ip, protocol, port, ip2: ip }, plain);
    case 'hash:ip,port,net': {
      const network =
        family === 'IPv4'
          ? fc.constantFrom(
              { ip2: '203.0.113.0', prefix2: 24 },
              { ip2: '10.0.0.0', prefix2: 8 },
              { ip2: '192.0.2.7', prefix2: 32 },
              { ip2: '128.0.0.0', prefix2: 1 },
            )
          : fc.constantFrom(
              { ip2: '2001:db8::', prefix2: 32 },
              { ip2: 'fd00::7', prefix2: 128 },
              { ip2: '8000::', prefix2: 1 },
            );
      return fc
        .tuple(ip, protocol, port, network)
        .map(([address, proto, number, net]) => ({ ip: address, protocol: proto, port: number, ...net }));
    }
  }
}

describe('the text of ipset save', () => {
  it('entries and definitions come back as they were printed', () => {
    for (const type of types) {
      for (const family of ['IPv4', 'IPv6'] as const) {
        fc.assert(
          fc.property(entryArbitrary(type, family), (entry) => {
            assert.deepEqual(parseEntry(type, printEntry(type, entry)), entry);
          }),
        );
        const set = definition(type, family);
        assert.deepEqual(parseDefinition(printDefinition(set)), set);
      }
    }
  });

  it('refuses what is no entry of the type', () => {
    assert.equal(parseEntry('hash:ip', '10.0.0.256'), undefined);
    assert.equal(parseEntry('hash:ip,port', '10.0.0.1,icmp:8'), undefined);
    assert.equal(parseEntry('hash:ip,port', '10.0.0.1,tcp:70000'), undefined);
    assert.equal(parseEntry('hash:ip,port,net', '10.0.0.1,tcp:80,10.0.0.0/33'), undefined);
    assert.equal(parseEntry('bitmap:port', 'http'), undefined);
    assert.equal(parseEntry('hash:ip,port,ip', '10.0.0.1,tcp:80'), undefined);
  });
});

describe('sets in the kernel', () => {
  let namespace: string;
  let ipset: Ipset;
  before(() => {
    namespace = makeNamespace();
    ipset = withNetworkNamespace(`/run/netns/${namespace}`, () => new Ipset());
  });
  after(() => {
    ipset.close();
    removeNamespace(namespace);
  });
  const tool = (...args: string[]): string => inNamespace(namespace, ['ipset', ...args], { stdio: 'pipe' });

  for (const type of types) {
    for (const family of type === 'bitmap:port' ? (['IPv4'] as const) : (['IPv4', 'IPv6'] as const)) {
      it(`${type} ${family}: ipset reads what we write, and we read what ipset writes`, () => {
        const set = definition(type, family, `OURS-${type.length}-${family}`);
        const entries = [
          ...new Map(
            fc
              .sample(entryArbitrary(type, family), { numRuns: 900, seed: 7 })
              .map((entry) => [printEntry(type, entry), entry]),
          ).values(),
        ];
        assert.equal(ipset.create(set), true);
        assert.equal(ipset.create(set), false);
        ipset.add(set.name, type, entries);
        ipset.add(set.name, type, entries);

        const saved = tool('save', set.name).trim().split('\n');
        assert.deepEqual(parseDefinition(saved[0]!), withHashSize(set, saved[0]!));
        assert.deepEqual(saved.slice(1).sort(), entries.map((entry) => printAdd(set, entry)).sort());

        const listed = ipset.list(set.name);
        assert.deepEqual(
          listed?.entries.map((entry) => printEntry(type, entry)).sort(),
          entries.map((entry) => printEntry(type, entry)).sort(),
        );
        assert.equal(ipset.header(set.name)?.elements, entries.length);

        // The other way: the tool's own set from our text.
        const copy = { ...set, name: `TOOL-${type.length}-${family}` };
        inNamespace(namespace, ['ipset', 'restore'], {
          input: [printDefinition(copy), ...entries.map((entry) => printAdd(copy, entry)), ''].join('\n'),
        });
        assert.deepEqual(
          ipset
            .list(copy.name)
            ?.entries.map((entry) => printEntry(type, entry))
            .sort(),
          entries.map((entry) => printEntry(type, entry)).sort(),
        );

        const half = entries.slice(0, Math.floor(entries.length / 2));
        ipset.delete(set.name, type, half);
        ipset.delete(set.name, type, half);
        assert.equal(ipset.list(set.name)?.entries.length, entries.length - half.length);
        assert.equal(ipset.flush(set.name), true);
        assert.equal(ipset.list(set.name)?.entries.length, 0);
        ipset.swap(set.name, copy.name);
        assert.equal(ipset.list(set.name)?.entries.length, entries.length);
        ipset.rename(copy.name, 'RENAMED');
        assert.ok(ipset.names().includes('RENAMED'));
        assert.equal(ipset.destroy('RENAMED'), true);
        assert.equal(ipset.destroy('RENAMED'), false);
        assert.equal(ipset.destroy(set.name), true);
        assert.equal(ipset.list(set.name), undefined);
      });
    }
  }

  it('an entry that is refused is named, and the others are in', () => {
    const set = definition('hash:ip,port,net', 'IPv4', 'ERRORS');
    ipset.create(set);
    const good = { ip: '10.0.0.1', protocol: 'TCP', port: 80, ip2: '10.0.0.0', prefix2: 8 } as const;
    assert.throws(
      () => ipset.add('ERRORS', set.type, [{ ...good, prefix2: 0 }, good, { ...good, port: 81 }]),
      (error: unknown) =>
        error instanceof NetlinkError && error.message.includes('10.0.0.1,tcp:80,10.0.0.0/0'),
    );
    assert.equal(ipset.list('ERRORS')?.entries.length, 2);
    assert.throws(
      () => ipset.create({ ...definition('hash:ip', 'IPv4'), name: 'ERRORS' }),
      /of another type.*ipset destroy ERRORS/,
    );
    assert.throws(() => ipset.create({ ...definition('hash:ip', 'IPv4'), name: 'X'.repeat(32) }), RangeError);
    const small: SetDefinition = {
      name: 'SMALL',
      type: 'hash:ip',
      family: 'IPv4',
      hashSize: 64,
      maxElements: 1,
    };
    ipset.create(small);
    assert.throws(() => ipset.add('SMALL', 'hash:ip', [{ ip: '10.0.0.1' }, { ip: '10.0.0.2' }]), /full/);
    assert.equal(ipset.header('SMALL')?.elements, 1);
  });

  it('a set that a rule uses cannot go', () => {
    ipset.create(definition('hash:ip', 'IPv4', 'USED'));
    const rule = ['INPUT', '-m', 'set', '--match-set', 'USED', 'dst', '-j', 'DROP'];
    inNamespace(namespace, ['iptables', '-A', ...rule]);
    assert.throws(
      () => ipset.destroy('USED'),
      (error: unknown) => isSetInUse(error),
    );
    assert.equal(ipset.header('USED')?.references, 1);
    inNamespace(namespace, ['iptables', '-D', ...rule]);
  });
});

/** The kernel's table grows as entries come. */
function withHashSize(set: SetDefinition, line: string): SetDefinition {
  const parsed = parseDefinition(line);
  return set.type === 'bitmap:port' || parsed === undefined || parsed.type === 'bitmap:port'
    ? set
    : { ...set, hashSize: parsed.hashSize };
}
