/**
 * Packets through rules written over netlink: a frontend with three endpoints, with and without affinity, in one
 * namespace. Nobody listens; a counter for each endpoint sees where the first packet of a connection went.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { withNetworkNamespace } from '../../src/linux/netlink/namespace.ts';
import { Batch } from '../../src/linux/netlink/nftables/batch.ts';
import { chain, map, rule, set, table, type Element } from '../../src/linux/netlink/nftables/objects.ts';
import { printTable } from '../../src/linux/netlink/nftables/print.ts';
import { ip, ip6, meta, numgen, th } from '../../src/linux/netlink/nftables/selectors.ts';
import { NftSocket } from '../../src/linux/netlink/nftables/socket.ts';
import { dnatToMap, match, setMark, update, vmap } from '../../src/linux/netlink/nftables/statements.ts';
import { concatBytes } from '../../src/linux/netlink/nftables/types.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../support/namespace.ts';

let namespace = '';
let socket: NftSocket;
before(() => {
  namespace = makeNamespace();
  socket = withNetworkNamespace(`/run/netns/${namespace}`, () => new NftSocket());
  inNamespace(namespace, ['ip', 'route', 'add', '10.96.0.0/16', 'dev', 'lo', 'src', '127.0.0.1']);
  inNamespace(namespace, ['ip', 'route', 'add', 'fd00:96::/64', 'dev', 'lo']);
  for (const last of [1, 2, 3]) {
    inNamespace(namespace, ['ip', 'addr', 'add', `fd00:10::${last}/128`, 'dev', 'lo', 'nodad']);
  }
});
after(() => {
  socket.close();
  removeNamespace(namespace);
});

for (const family of ['ip', 'ip6'] as const) {
  const six = family === 'ip6';
  const l3 = six ? ip6 : ip;
  const address = six ? 'ipv6_addr' : 'ipv4_addr';
  const vip = six ? 'fd00:96::a' : '10.96.0.10';
  const endpoint = (n: number): string => (six ? `fd00:10::${n}` : `127.0.0.${n + 1}`);
  const kp = table(family, 'packets');
  const key = [l3.daddr, meta.l4proto, th.dport];
  const frontends = map(kp, 'frontends', [address, 'inet_proto', 'inet_service'], 'verdict');
  const slots = map(kp, 'slots', [...key, numgen(4096)], [l3.daddr, th.dport]);
  const affinity = map(kp, 'affinity', [meta.mark, l3.saddr], [l3.daddr, th.dport], {
    flags: ['dynamic', 'timeout'],
    timeout: 60_000,
    size: 1000,
  });
  const seen = set(kp, 'seen', [address], { flags: ['dynamic'], size: 100 });
  const slot = (index: number, n: number): Element => ({
    key: concatBytes([...frontends.key, 'mark'], [vip, 'tcp', 80, index]),
    data: concatBytes([address, 'inet_service'], [endpoint(n), 8080]),
  });
  const frontend = (chain: string): Element => ({
    key: concatBytes(frontends.key, [vip, 'tcp', 80]),
    verdict: { code: 'goto', chain },
  });

  /** Connections to each endpoint out of `count` to the frontend. */
  const connect = (count: number): number[] => {
    socket.commit(new Batch().flush(seen));
    const script = `for i in $(seq ${count}); do (exec 3<>/dev/tcp/${vip}/80) 2>/dev/null; done; true`;
    inNamespace(namespace, ['timeout', '300', 'bash', '-c', script]);
    const text = inNamespace(namespace, ['nft', 'list', 'set', family, 'packets', 'seen']);
    return [1, 2, 3].map((n) => {
      const found = text.split(/[,{]/).find((part) => part.trim().startsWith(`${endpoint(n)} `));
      return Number(/packets (\d+)/.exec(found ?? '')?.[1] ?? 0);
    });
  };

  test(`packets: ${family} connections spread over the endpoints in a data map, and follow its changes`, () => {
    socket.commit(
      new Batch()
        .add(kp)
        .add(frontends)
        .add(slots)
        .add(affinity)
        .add(seen)
        .add(chain(kp, 'lb-2'))
        .add(chain(kp, 'lb-3'))
        .add(chain(kp, 'affine'))
        .add(chain(kp, 'output', { type: 'nat', hook: 'output', priority: -100 }))
        .add(chain(kp, 'input', { type: 'filter', hook: 'input', priority: 0 }))
        .add(rule(kp, 'output', [vmap(key, 'frontends')]))
        .add(rule(kp, 'lb-2', [dnatToMap(family, [...key, numgen(2)], 'slots')]))
        .add(rule(kp, 'lb-3', [dnatToMap(family, [...key, numgen(3)], 'slots')]))
        .add(rule(kp, 'input', [match(th.dport, 8080), update('seen', [l3.daddr], { counter: true })]))
        .addElements(slots, [slot(0, 1), slot(1, 2)])
        .addElements(frontends, [frontend('lb-2')]),
    );
    // Bounds that chance breaks less often than once in 10¹⁰ runs.
    const two = connect(100);
    assert.equal(two[0]! + two[1]!, 100);
    assert.ok(two[0]! > 15 && two[1]! > 15, String(two));

    // One more, then the first one away: the last moves into its slot.
    const away = new Batch()
      .deleteElements(frontends, [frontend('lb-2')])
      .addElements(frontends, [frontend('lb-3')]);
    socket.commit(away.addElements(slots, [slot(2, 3)]));
    const three = connect(100);
    assert.equal(three[0]! + three[1]! + three[2]!, 100);
    assert.ok(
      three.every((count) => count > 5),
      String(three),
    );
    socket.commit(
      new Batch()
        .deleteElements(frontends, [frontend('lb-3')])
        .addElements(frontends, [frontend('lb-2')])
        .deleteElements(slots, [slot(0, 1), slot(2, 3)])
        .addElements(slots, [slot(0, 3)]),
    );
    const moved = connect(40);
    assert.equal(moved[0], 0);
    assert.equal(moved[1]! + moved[2]!, 40);
  });

  test(`packets: ${family} connections stay with the endpoint that a rule stored for their client`, () => {
    socket.commit(
      new Batch()
        .add(rule(kp, 'affine', [setMark(7)]))
        // A stored endpoint, if there is one; else one is drawn, and stored once the packet has its address.
        .add(
          rule(kp, 'affine', [
            match(meta.l4proto, 'tcp'),
            dnatToMap(family, [meta.mark, l3.saddr], 'affinity'),
          ]),
        )
        .add(rule(kp, 'affine', [dnatToMap(family, [...key, numgen(2)], 'slots')]))
        .add(
          rule(kp, 'input', [
            match(meta.mark, 7),
            match(th.dport, 8080),
            update('affinity', [meta.mark, l3.saddr], { data: [l3.daddr, th.dport] }),
          ]),
        )
        .deleteElements(frontends, [frontend('lb-2')])
        .addElements(frontends, [frontend('affine')]),
    );
    const [first, ...others] = connect(30).toSorted((a, b) => b - a);
    assert.equal(first, 30);
    assert.deepEqual(others, [0, 0]);
    const contents = socket.readTable(kp)!;
    const [stored] = contents.elements.get('affinity')!;
    assert.ok(stored?.expires !== undefined && stored.expires <= 60_000);
    // Stock nft lists it without a crash, and we print the same rules.
    const listed = inNamespace(namespace, ['nft', 'list', 'chain', family, 'packets', 'affine']);
    const printed = printTable(contents);
    for (const line of listed.split('\n').filter((each) => each.startsWith('\t\t'))) {
      assert.ok(printed.includes(line), `${line}\n${printed}`);
    }
    // Forgotten: drawn anew, some day to the other.
    let sides = new Set<string>();
    for (let i = 0; i < 60 && sides.size < 2; i++) {
      socket.commit(new Batch().flush(affinity));
      sides = sides.add(String(connect(1)));
    }
    assert.equal(sides.size, 2);
  });
}
