/** IPVS objects: text and wire forms. The kernel's side is tested in the guest (test/dataplane/ipvs). */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  IPVS_CMD_ATTR_DEST,
  IPVS_CMD_ATTR_SERVICE,
  readRealServer,
  readServer,
  readStatistics,
  readTimeouts,
  writeIdentity,
  writeRealServer,
  writeServer,
  writeTimeouts,
} from '../../src/linux/netlink/ipvs/codec.ts';
import { familyNumber } from '../../src/linux/netlink/ipvs/generic.ts';
import {
  parseSavedLine,
  printRealServer,
  printServer,
  serverKey,
  servicePersistent,
  type RealServer,
  type VirtualServer,
} from '../../src/linux/netlink/ipvs/objects.ts';
import { AttributeReader, MessageWriter } from '../../src/linux/netlink/message.ts';
import { NETLINK_GENERIC, NetlinkSocket } from '../../src/linux/netlink/socket.ts';

const byte = fc.integer({ min: 0, max: 255 });
const address = fc.oneof(
  fc.tuple(byte, byte).map(([a, b]) => `10.96.${a}.${b}`),
  fc.integer({ min: 1, max: 0xffff }).map((a) => `fd00:96::${a.toString(16)}`),
);
const port = fc.integer({ min: 1, max: 65_535 });

const server: fc.Arbitrary<VirtualServer> = fc
  .record({
    protocol: fc.constantFrom('TCP' as const, 'UDP' as const, 'SCTP' as const),
    address,
    port,
    scheduler: fc.constantFrom('rr', 'wlc', 'sh', 'mh', 'twos'),
    timeout: fc.constantFrom(0, 1, 10_800, 86_400),
    /** one packet, scheduler flags 1 and 2 */
    bits: fc.constantFrom(0, 0x4, 0x8, 0x10, 0x18, 0x1c),
    narrower: fc.constantFrom(0, 0, 8),
  })
  .map(({ timeout, bits, narrower, ...rest }) => ({
    ...rest,
    timeout,
    flags: bits | (timeout === 0 ? 0 : servicePersistent),
    prefixLength: (rest.address.includes(':') ? 128 : 32) - (timeout === 0 ? 0 : narrower),
  }));

const real: fc.Arbitrary<RealServer> = fc.record(
  {
    address,
    port,
    forwarding: fc.constantFrom('masquerade' as const, 'tunnel' as const, 'route' as const, 'local' as const),
    weight: fc.integer({ min: 0, max: 65_535 }),
    upperThreshold: fc.integer({ min: 0, max: 1000 }),
    lowerThreshold: fc.integer({ min: 0, max: 1000 }),
  },
  { noNullPrototype: true },
);

/** The inside of the one attribute written, as the kernel would find it. */
function inside(writer: MessageWriter, type: number): AttributeReader {
  const reader = new AttributeReader(writer.written(), 0, writer.length);
  while (reader.next()) if (reader.type === type) return reader.nested();
  throw new Error(`no attribute ${type}`);
}

describe('IPVS objects', () => {
  it('a virtual server survives text and wire', () => {
    fc.assert(
      fc.property(server, (one) => {
        assert.deepEqual(parseSavedLine(printServer(one)), { kind: 'server', server: one });
        const writer = new MessageWriter();
        writeServer(writer, one);
        assert.deepEqual(readServer(inside(writer, IPVS_CMD_ATTR_SERVICE)), one);
      }),
    );
  });

  it('a real server survives text and wire', () => {
    fc.assert(
      fc.property(server, real, (of, one) => {
        const identity = { protocol: of.protocol, address: of.address, port: of.port };
        assert.deepEqual(parseSavedLine(printRealServer(of, one)), { kind: 'real', identity, real: one });
        const writer = new MessageWriter();
        writeRealServer(writer, one);
        assert.deepEqual(readRealServer(inside(writer, IPVS_CMD_ATTR_DEST)), {
          ...one,
          activeConnections: 0,
          inactiveConnections: 0,
          persistentConnections: 0,
        });
      }),
    );
  });

  it('prints what ipvsadm prints', () => {
    const one: VirtualServer = {
      protocol: 'TCP',
      address: '10.96.0.30',
      port: 9000,
      scheduler: 'rr',
      flags: servicePersistent,
      timeout: 10_800,
      prefixLength: 32,
    };
    assert.equal(printServer(one), '-A -t 10.96.0.30:9000 -s rr -p 10800');
    assert.equal(
      printServer({
        ...one,
        protocol: 'SCTP',
        address: 'fd00::1',
        scheduler: 'mh',
        flags: 0x10,
        prefixLength: 128,
      }),
      '-A --sctp-service [fd00::1]:9000 -s mh -b mh-port',
    );
    assert.equal(
      printServer({ ...one, prefixLength: 24 }),
      '-A -t 10.96.0.30:9000 -s rr -p 10800 -M 255.255.255.0',
    );
    assert.equal(serverKey(one), '10.96.0.30:9000/TCP');
    const behind = {
      address: '10.244.1.9',
      port: 9000,
      forwarding: 'masquerade',
      weight: 1,
      upperThreshold: 0,
      lowerThreshold: 0,
    } as const;
    assert.equal(printRealServer(one, behind), '-a -t 10.96.0.30:9000 -r 10.244.1.9:9000 -m -w 1');
    assert.equal(printRealServer(one, behind, '-d'), '-d -t 10.96.0.30:9000 -r 10.244.1.9:9000');
    assert.equal(parseSavedLine('-A -f 1 -s wlc'), undefined);
    assert.equal(parseSavedLine('# comment'), undefined);
  });

  it('writes the bytes that the kernel header asks for', () => {
    const writer = new MessageWriter();
    writeIdentity(writer, { protocol: 'UDP', address: '10.96.0.53', port: 53 });
    const wanted = [
      '24000180', // nested SERVICE of 36 bytes
      '0600010002000000', // AF_INET
      '0600020011000000', // UDP
      '080003000a600035', // address
      '0600040000350000', // port, big-endian
    ].join('');
    assert.equal(Buffer.from(writer.written()).toString('hex'), wanted);
    writer.reset();
    writeServer(writer, {
      protocol: 'TCP',
      address: '10.96.0.10',
      port: 80,
      scheduler: 'rr',
      flags: 1,
      timeout: 10_800,
      prefixLength: 32,
    });
    const hex = Buffer.from(writer.written()).toString('hex');
    assert.ok(hex.includes('0700060072720000'), hex); // scheduler with its zero
    assert.ok(hex.includes('0c00070001000000ffffffff'), hex); // flags and their mask
    assert.ok(hex.includes('08000800302a0000'), hex); // 10800 s
    assert.ok(hex.endsWith('08000900ffffffff'), hex); // netmask
  });

  it('reads 16-byte IPv4 addresses, with and without their family', () => {
    const writer = new MessageWriter();
    const padded = new Uint8Array(16);
    padded.set([10, 244, 1, 5]);
    for (const family of [[2, 0], undefined]) {
      writer.reset();
      writer.data(1, padded);
      writer.u16(2, 8080);
      if (family !== undefined) writer.data(11, new Uint8Array(family));
      writer.hostU32(7, 10);
      writer.hostU32(8, 3);
      const read = readRealServer(new AttributeReader(writer.written(), 0, writer.length));
      assert.equal(read?.address, '10.244.1.5');
      assert.equal(read.port, 8080);
      assert.deepEqual([read.activeConnections, read.inactiveConnections], [10, 3]);
    }
  });

  it('reads 64-bit counters', () => {
    const writer = new MessageWriter();
    const nest = writer.beginNested(12);
    const count = (type: number, value: bigint): void => {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, value, true);
      writer.data(type, bytes);
    };
    count(1, 5n);
    count(4, 2n ** 40n + 7n);
    writer.endNested(nest);
    const reader = (): AttributeReader => new AttributeReader(writer.written(), 0, writer.length);
    assert.deepEqual(readStatistics(reader(), 'service'), {
      connections: 5n,
      inPackets: 0n,
      outPackets: 0n,
      inBytes: 2n ** 40n + 7n,
      outBytes: 0n,
    });
    assert.equal(readStatistics(new AttributeReader(writer.written(), 0, 0), 'service'), undefined);
  });

  it('time-outs survive the wire', () => {
    const writer = new MessageWriter();
    const timeouts = { tcp: 900, tcpFin: 120, udp: 0 };
    writeTimeouts(writer, timeouts);
    assert.deepEqual(readTimeouts(new AttributeReader(writer.written(), 0, writer.length)), timeouts);
  });

  it('a family of generic netlink has a number, an unknown one has none', () => {
    const socket = new NetlinkSocket({ protocol: NETLINK_GENERIC });
    try {
      assert.equal(familyNumber(socket, 'nlctrl'), 16);
      assert.equal(familyNumber(socket, 'no_such_thing'), undefined);
    } finally {
      socket.close();
    }
  });
});
