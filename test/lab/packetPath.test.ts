import assert from 'node:assert/strict';
import { test } from 'node:test';
import { evenness } from '../../src/lab/demo/flashSale.ts';
import { packetPath, parseFlow } from '../../src/lab/demo/packetPath.ts';

function listing(counts: readonly number[]): string {
  const [a, b, c, d, e, f] = counts;
  return `*nat
:PREROUTING ACCEPT [0:0]
[${a}:60] -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
[${b}:60] -A KUBE-SERVICES -d 10.96.0.9/32 -p tcp -m comment --comment "default/other" -j KUBE-SVC-O
[${c}:60] -A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -j KUBE-SVC-X
[${d}:60] -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
[${e}:60] -A KUBE-SVC-X -j KUBE-SEP-X
[${f}:60] -A KUBE-SEP-X -p tcp -j DNAT --to-destination 10.244.2.10:8080
COMMIT
`;
}

test('the path is made of the rules that counted, down to the new destination', () => {
  const hops = packetPath(listing([5, 1, 0, 4, 0, 0]), listing([7, 1, 1, 5, 1, 1]), 'PREROUTING');
  assert.deepEqual(
    hops.map((hop) => [hop.depth, hop.chain, hop.packets, hop.target]),
    [
      [0, 'PREROUTING', 2, 'KUBE-SERVICES'],
      [1, 'KUBE-SERVICES', 1, 'KUBE-SVC-X'],
      [2, 'KUBE-SVC-X', 1, 'KUBE-SEP-X'],
      [3, 'KUBE-SEP-X', 1, 'DNAT'],
    ],
  );
  assert.equal(hops[0]?.comment, 'kubernetes service portals');
  assert.equal(hops[0]?.text, '-j KUBE-SERVICES');
});

test('without traffic there is no path', () => {
  assert.deepEqual(packetPath(listing([5, 1, 0, 4, 0, 0]), listing([5, 1, 0, 4, 0, 0]), 'PREROUTING'), []);
});

test('conntrack lines tell both directions', () => {
  const line =
    'tcp      6 117 TIME_WAIT src=10.244.1.10 dst=10.96.1.0 sport=43506 dport=80 src=10.244.2.10 dst=10.244.1.10 sport=8080 dport=43506 [ASSURED] mark=0 use=1';
  assert.deepEqual(parseFlow(line), {
    state: 'TIME_WAIT',
    original: ['10.244.1.10:43506', '10.96.1.0:80'],
    reply: ['10.244.2.10:8080', '10.244.1.10:43506'],
  });
  assert.equal(parseFlow('conntrack v1.4.7: 1 flow entries have been shown.'), undefined);
});

test('even shares are likely, uneven ones are not', () => {
  assert.ok(evenness([98, 103, 110, 89]) > 0.05);
  assert.ok(evenness([200, 20, 90, 90]) < 1e-6);
});
