import assert from 'node:assert/strict';
import { test } from 'node:test';
import koffi from 'koffi';
import {
  EPOLLERR,
  EPOLLIN,
  EPOLLOUT,
  changeWatch,
  forgetDescriptor,
  unwatchDescriptor,
  watchDescriptor,
} from '../../src/linux/epoll.ts';
import { closeDescriptor, receive, send } from '../../src/linux/ffi.ts';
import {
  EAGAIN,
  MSG_NOSIGNAL,
  acceptTcp,
  connectTcp,
  endSending,
  listenTcp,
  localPort,
  peerAddress,
  resetTcp,
} from '../../src/linux/tcp.ts';

const duplicateTo = koffi.load(null).func('int dup2(int from, int to)') as (
  from: number,
  to: number,
) => number;

/** Resolves with the first events. */
function ready(fd: number, events: number): Promise<number> {
  return new Promise((resolve) => {
    watchDescriptor(fd, events, {
      ready: (got) => {
        unwatchDescriptor(fd);
        resolve(got);
      },
    });
  });
}

for (const host of ['127.0.0.1', '::1']) {
  test(`${host}: connect, accept, send, end, reset`, async () => {
    const listener = listenTcp(host, 0, 16);
    assert.equal(acceptTcp(listener), -EAGAIN, 'nobody waits');
    const client = connectTcp(host, localPort(listener));
    assert.equal((await ready(client, EPOLLOUT)) & EPOLLERR, 0);
    await ready(listener, EPOLLIN);
    const server = acceptTcp(listener);
    assert.ok(server >= 0);
    assert.equal(peerAddress(server), host);
    const bytes = Buffer.from('hello');
    assert.equal(send(client, bytes, bytes.length, MSG_NOSIGNAL), 5);
    await ready(server, EPOLLIN);
    const got = Buffer.alloc(16);
    assert.equal(receive(server, got, 0), 5);
    assert.equal(receive(server, got, 0), -EAGAIN);
    endSending(client);
    await ready(server, EPOLLIN);
    assert.equal(receive(server, got, 0), 0, 'the end');
    resetTcp(server);
    assert.notEqual((await ready(client, 0)) & EPOLLERR, 0);
    closeDescriptor(client);
    closeDescriptor(listener);
  });
}

test('a port where nobody listens: an error; one that is taken: EADDRINUSE', async () => {
  const listener = listenTcp('127.0.0.1', 0, 16);
  const port = localPort(listener);
  assert.throws(() => listenTcp('127.0.0.1', port, 16), { code: 'EADDRINUSE' });
  closeDescriptor(listener);
  const client = connectTcp('127.0.0.1', port);
  assert.notEqual((await ready(client, EPOLLOUT)) & EPOLLERR, 0);
  closeDescriptor(client);
  assert.throws(() => listenTcp('192.0.2.1', 0, 16), { code: 'EADDRNOTAVAIL' });
});

test('readiness: what it is watched for can change; a descriptor with the number of a closed one is another', async () => {
  const listener = listenTcp('127.0.0.1', 0, 16);
  const client = connectTcp('127.0.0.1', localPort(listener));
  await ready(client, EPOLLOUT);
  await ready(listener, EPOLLIN);
  const server = acceptTcp(listener);
  const seen: number[] = [];
  watchDescriptor(client, 0, { ready: (events) => void seen.push(events) });
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(seen, []);
  changeWatch(client, EPOLLOUT);
  while (seen.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(seen.every((events) => events === EPOLLOUT));
  forgetDescriptor(client);
  const count = seen.length;
  // dup2() closes the old one and gives its number to another in one step: no thread can take the number in between.
  const next = connectTcp('127.0.0.1', localPort(listener));
  assert.equal(duplicateTo(next, client), client);
  closeDescriptor(next);
  assert.equal((await ready(client, EPOLLOUT)) & EPOLLERR, 0);
  assert.equal(seen.length, count);
  for (const fd of [client, server, listener]) closeDescriptor(fd);
});
