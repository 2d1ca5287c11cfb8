/** Making an interface and putting addresses on it. A bridge stands in where the kernel has no dummy devices. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { withNetworkNamespace } from '../../src/linux/netlink/namespace.ts';
import {
  addHostAddress,
  addLink,
  deleteLink,
  findLink,
  listLinkAddresses,
  openRouteSocket,
  printHostAddress,
  removeHostAddress,
  watchLinkAddressChanges,
} from '../../src/linux/netlink/route.ts';
import type { NetlinkSocket } from '../../src/linux/netlink/socket.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';

describe('a virtual interface and its addresses', () => {
  let namespace: string;
  let socket: NetlinkSocket;
  const inside = <T>(action: () => T): T => withNetworkNamespace(`/run/netns/${namespace}`, action);
  before(() => {
    namespace = makeNamespace();
    socket = inside(openRouteSocket);
  });
  after(() => {
    socket.close();
    removeNamespace(namespace);
  });

  it('is made once, holds /32 and /128 addresses, and goes', async (t) => {
    const seen: string[] = [];
    const stop = inside(() =>
      watchLinkAddressChanges((change) => {
        if (change === undefined) seen.push('lost');
        else if ('linkGone' in change) seen.push(`gone ${change.linkGone}`);
        else seen.push(`${change.added ? '+' : '-'}${change.address}/${change.prefixLength}`);
      }),
    );
    t.after(stop);
    assert.equal(findLink(socket, 'test0'), undefined);
    addLink(socket, 'test0', 'bridge');
    assert.throws(() => addLink(socket, 'test0', 'bridge'), /EEXIST/);
    assert.throws(() => addLink(socket, 'test1', 'no-such-kind'), /ip link add test1 type no-such-kind/);
    const link = findLink(socket, 'test0');
    assert.ok(link !== undefined);
    assert.deepEqual([link.kind, link.up], ['bridge', false]);
    const name = { index: link.index, name: 'test0' };
    assert.equal(addHostAddress(socket, name, '10.96.0.10'), true);
    assert.equal(addHostAddress(socket, name, '10.96.0.10'), false);
    assert.equal(addHostAddress(socket, name, '10.96.0.11'), true);
    assert.match(
      inNamespace(namespace, ['ip', '-o', 'addr', 'show', 'dev', 'test0']),
      /inet 10\.96\.0\.10\/32 /,
    );
    assert.equal(addHostAddress(socket, name, 'fd00:96::a'), true);
    assert.match(
      inNamespace(namespace, ['ip', '-o', 'addr', 'show', 'dev', 'test0']),
      /inet6 fd00:96::a\/128 /,
    );
    assert.equal(removeHostAddress(socket, name, '10.96.0.10'), true);
    assert.equal(removeHostAddress(socket, name, '10.96.0.10'), false);
    const left = listLinkAddresses(socket).filter((one) => one.index === link.index);
    assert.deepEqual(left.map((one) => one.address).sort(), ['10.96.0.11', 'fd00:96::a']);
    assert.equal(deleteLink(socket, 'test0'), true);
    assert.equal(deleteLink(socket, 'test0'), false);
    for (let i = 0; i < 3000 && !seen.includes(`gone ${link.index}`); i++)
      await new Promise((resolve) => setTimeout(resolve, 10));
    assert.deepEqual(seen.slice(0, 4), [
      '+10.96.0.10/32',
      '+10.96.0.11/32',
      '+fd00:96::a/128',
      '-10.96.0.10/32',
    ]);
    assert.ok(seen.includes(`gone ${link.index}`));
  });

  it('prints itself as ip reads it', () => {
    assert.equal(
      printHostAddress('add', 'kube-ipvs0', '10.96.0.10'),
      'ip addr add 10.96.0.10/32 dev kube-ipvs0',
    );
    assert.equal(printHostAddress('del', 'kube-ipvs0', 'fd00::1'), 'ip addr del fd00::1/128 dev kube-ipvs0');
  });
});
