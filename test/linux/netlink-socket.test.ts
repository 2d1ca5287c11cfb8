import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { ENOENT, NetlinkError, isRefusal } from '../../src/linux/netlink/errors.ts';
import { withNetworkNamespace } from '../../src/linux/netlink/namespace.ts';
import { AccountingCounters } from '../../src/linux/netlink/nfacct.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from '../../src/linux/netlink/socket.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';

let namespace = '';
before(() => {
  namespace = makeNamespace();
});
after(() => removeNamespace(namespace));

function inside<T>(action: () => T): T {
  return withNetworkNamespace(`/run/netns/${namespace}`, action);
}

test('socket: a refused request throws with the errno, its words and what was asked', () => {
  const socket = inside(() => new NetlinkSocket({ protocol: NETLINK_NETFILTER }));
  // NFT_MSG_GETTABLE of a table that is not there.
  const writer = socket.begin((10 << 8) | 1);
  writer.nfgenmsg(2, 0, 0);
  writer.string(1, 'nosuchtable');
  assert.throws(
    () => socket.request('get table ip nosuchtable'),
    (error) => {
      assert.ok(error instanceof NetlinkError);
      assert.ok(isRefusal(error, ENOENT));
      assert.match(
        error.message,
        /^get table ip nosuchtable: ENOENT: no such file or directory \(at byte 20 /,
      );
      return true;
    },
  );
  // The socket goes on working.
  socket.begin((10 << 8) | 16).nfgenmsg(0, 0, 0);
  let answers = 0;
  socket.request('get generation', () => answers++);
  assert.equal(answers, 1);
  socket.close();
  socket.close();
});

test('socket: events of its groups arrive through the event loop', async () => {
  // NFNLGRP_NFTABLES = 7
  const socket = inside(() => new NetlinkSocket({ protocol: NETLINK_NETFILTER, groups: 1 << 6 }));
  const types: number[] = [];
  const generation = new Promise<void>((resolve) => {
    socket.subscribe(
      (message) => {
        types.push(message.type & 0xff);
        if ((message.type & 0xff) === 15) resolve();
      },
      (reason) => assert.fail(reason),
    );
  });
  inNamespace(namespace, ['nft', 'add', 'table', 'ip', 'seen']);
  await generation;
  socket.close();
  assert.deepEqual(types, [0, 15]);
});

test('socket: a receive buffer that is too small for the events is reported as a loss', () => {
  const socket = inside(
    () => new NetlinkSocket({ protocol: NETLINK_NETFILTER, groups: 1 << 6, receiveBuffer: 4096 }),
  );
  const script = Array.from({ length: 400 }, (_, i) => `add chain ip lossy chain${i}`).join('\n');
  inNamespace(namespace, ['nft', '-f', '-'], { input: `add table ip lossy\n${script}\n` });
  let seen = 0;
  assert.equal(
    socket.drain('read events', () => seen++),
    false,
  );
  assert.equal(
    socket.drain('read events', () => seen++),
    true,
  );
  socket.close();
});

test('nfacct: counters are made once, keep their counts, and are listed by iptables rules', () => {
  const counters = inside(() => new AccountingCounters());
  assert.equal(counters.probe(), true);
  assert.equal(counters.read('localhost_nps_accepted_pkts'), undefined);
  counters.ensure('localhost_nps_accepted_pkts');
  assert.deepEqual(counters.read('localhost_nps_accepted_pkts'), {
    name: 'localhost_nps_accepted_pkts',
    packets: 0n,
    bytes: 0n,
  });
  const match = ['-m', 'nfacct', '--nfacct-name', 'localhost_nps_accepted_pkts'];
  inNamespace(namespace, ['iptables', '-A', 'OUTPUT', ...match]);
  inNamespace(namespace, ['bash', '-c', 'echo one > /dev/udp/127.0.0.1/9; echo two > /dev/udp/127.0.0.1/9']);
  counters.ensure('localhost_nps_accepted_pkts');
  const counted = counters.read('localhost_nps_accepted_pkts');
  // Two datagrams, and for each the ICMP error that nobody listens.
  assert.equal(counted?.packets, 4n);
  assert.throws(() => counters.ensure('x'.repeat(32)), /1 to 31 characters/);
  counters.close();
});
