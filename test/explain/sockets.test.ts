/** Lines of /proc/net/tcp and its like. */
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { test } from 'node:test';
import {
  isConnected,
  isWaiting,
  parseSockets,
  processWith,
  readSockets,
} from '../../src/explain/sources/sockets.ts';

test('addresses are read in the byte order of the kernel', () => {
  const little = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0B001FAC:A1E7 0A01F40A:1F90 01 00000000:00000000 02:000000C8 00000000     0        0 71422 2 0 20 4 30 10 -1
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 71400 1 0 100 0 0 10 0
`;
  const [connected, waiting] = parseSockets('TCP', little, 'LE');
  assert.deepEqual(connected, {
    protocol: 'TCP',
    localPort: 41447,
    remote: '10.244.1.10:8080',
    state: '01',
    inode: 71422,
  });
  assert.deepEqual([isConnected(connected), isWaiting(connected)], [true, false]);
  assert.deepEqual([isConnected(waiting!), isWaiting(waiting!), waiting!.localPort], [false, true, 8080]);
  const big = '   0: AC1F000B:A1E7 0AF4010A:1F90 08 0:0 0:0 0     0        0 5 2\n';
  assert.deepEqual(
    parseSockets('TCP', big, 'BE').map(({ remote, inode }) => [remote, inode]),
    [['10.244.1.10:8080', 5]],
  );
});

test('IPv6, and IPv4 in its form', () => {
  const line = (remote: string): string =>
    `   0: 00000000000000000000000000000000:0035 ${remote}:1F90 01 0:0 0:0 0     0        0 5 2\n`;
  const text =
    line('1000 00FD 0100 4402 0000 0000 1000 0000'.replaceAll(' ', '')) +
    line('0000000000000000FFFF00000A01F40A');
  const remotes = parseSockets('UDP', text, 'LE').map(({ remote }) => remote);
  assert.equal(remotes[1], '10.244.1.10:8080');
  assert.match(remotes[0]!, /^\[[0-9a-f:]+\]:8080$/);
});

test('a socket of this process is found, and whose it is', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const line = readSockets('TCP').find((one) => isWaiting(one) && one.localPort === address.port);
  assert.equal(processWith(line?.inode ?? 0), String(process.pid));
  server.close();
});
