/** What is laid over what, without a kernel: messages in, judgements out. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Flow, Step } from '../../src/explain/flow.ts';
import { startFlow } from '../../src/explain/flow.ts';
import { TraceCollector } from '../../src/explain/live/kernelTrace.ts';
import { layOver, type LaidPacket } from '../../src/explain/live/layOver.ts';
import { markingBatch, markingTable } from '../../src/explain/live/marking.ts';
import { makeRuleBook } from '../../src/explain/live/ruleBook.ts';
import type { End } from '../../src/explain/outcome.ts';
import type { Packet } from '../../src/explain/packet.ts';
import { parseSave } from '../../src/linux/iptables/save.ts';
import { chain, rule, table } from '../../src/linux/netlink/nftables/objects.ts';
import { th } from '../../src/linux/netlink/nftables/selectors.ts';
import { drop, goTo, jump, match } from '../../src/linux/netlink/nftables/statements.ts';
import type { TraceEvent } from '../../src/linux/netlink/nftables/trace.ts';
import type { PacketHeader } from '../../src/linux/packet-header.ts';

const packet: Packet = {
  family: 'IPv4',
  protocol: 'TCP',
  origin: { kind: 'outside', address: '192.0.2.7', name: 'a client', interface: 'eth0' },
  sourcePort: undefined,
  destination: '10.96.0.1',
  destinationPort: 80,
};
const header: PacketHeader = {
  family: 'IPv4',
  protocol: 6,
  source: '192.0.2.7',
  sourcePort: 4711,
  destination: '10.96.0.1',
  destinationPort: 80,
};
const translated = { ...header, destination: '10.244.1.10', destinationPort: 8080 };
const proxy = table('ip', 'proxy');
const wall = table('inet', 'wall');
const book = makeRuleBook(
  [
    {
      table: proxy,
      chains: [
        chain(proxy, 'pre', { type: 'nat', hook: 'prerouting', priority: -100 }),
        chain(proxy, 'pick'),
      ],
      rules: [
        { ...rule(proxy, 'pre', [jump('pick')]), handle: 1n },
        { ...rule(proxy, 'pick', [match(th.dport, 80)], 'chosen'), handle: 2n },
      ],
      sets: [],
      elements: new Map(),
    },
    {
      table: wall,
      chains: [chain(wall, 'fwd', { type: 'filter', hook: 'forward', priority: 0, policy: 'drop' })],
      rules: [
        { ...rule(wall, 'fwd', [goTo('nowhere')]), handle: 5n },
        { ...rule(wall, 'fwd', [match(th.dport, 8080), drop]), handle: 6n },
      ],
      sets: [],
      elements: new Map(),
    },
  ],
  'ip',
  [],
  parseSave(
    '*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-X - [0:0]\n-A PREROUTING -j KUBE-X\n-A KUBE-X -p tcp -j DNAT --to-destination 10.244.1.10:8080\nCOMMIT\n',
  ),
);

const own = markingTable(packet, 77);
const event = (more: Partial<TraceEvent>): TraceEvent => ({
  table: own,
  chain: 'chosen',
  type: 'rule',
  id: 9,
  verdict: { code: 'continue' },
  ...more,
});
const began = event({ packet: header, handle: 1n, inInterface: 2 });
const jumped = event({
  table: proxy,
  chain: 'pre',
  handle: 1n,
  packet: header,
  verdict: { code: 'jump', chain: 'pick' },
});
const picked = event({ table: proxy, chain: 'pick', handle: 2n, verdict: { code: 'accept' } });
const leftForward = event({
  chain: 'forward',
  type: 'policy',
  packet: translated,
  verdict: { code: 'accept' },
});
const leftPostrouting = event({
  chain: 'postrouting',
  type: 'policy',
  packet: translated,
  verdict: { code: 'accept' },
});

const step = (more: Partial<Step>): Step => ({
  hook: 'prerouting',
  base: 'ip proxy pre',
  chain: 'pre',
  rule: '',
  effect: { kind: 'enter' },
  after: '',
  ...more,
});
const predictedJump = step({ rule: 'jump pick', effect: { kind: 'jump', chain: 'pick' } });
const predictedPick = step({
  chain: 'pick',
  rule: 'th dport 80',
  effect: { kind: 'dnat', to: '10.244.1.10:8080' },
});

function end(steps: readonly Step[], more: Partial<Flow> = {}): End {
  let flow: Flow = { ...startFlow(packet), destination: '10.244.1.10', destinationPort: 8080, ...more };
  for (const one of steps) flow = { ...flow, steps: { step: one, before: flow.steps } };
  return { flow, verdict: 'accept' };
}

function lay(
  events: readonly TraceEvent[],
  ends: readonly End[],
  options: Partial<Parameters<typeof layOver>[2]> = {},
): LaidPacket {
  const collector = new TraceCollector(book, own.name);
  for (const one of events) collector.trace(one);
  const traces = collector.finish();
  assert.equal(traces.length, 1);
  return layOver(traces[0]!, ends, { sameText: true, known: false, untold: [], arrived: false, ...options });
}

function judgements({ hooks }: LaidPacket): string[] {
  return hooks.flatMap(({ hook, steps }) =>
    steps.map(({ chain, judgement }) => `${hook} ${chain} ${judgement}`),
  );
}

test('the marking rule matches the packets asked about, and its table goes with its owner', () => {
  const script = (more: object): string =>
    markingBatch(own, {
      packet,
      hook: 'prerouting',
      source: undefined,
      sourcePorts: undefined,
      most: 5,
      ...more,
    }).toScript();
  assert.match(script({}), /create table ip pointsman-trace-77 \{ flags owner ; \}/);
  assert.match(
    script({}),
    /add set ip pointsman-trace-77 seen \{ type ipv4_addr \. inet_service ; size 5 ; flags dynamic ; \}/,
  );
  assert.match(
    script({}),
    /ip daddr 10\.96\.0\.1 tcp dport 80 @th,104,8 & .*ip saddr \. th sport != @seen add @seen \{ ip saddr \. th sport \} meta nftrace set 1/,
  );
  assert.match(script({ source: '192.0.2.7' }), /ip saddr 192\.0\.2\.7/);
  assert.match(script({ sourcePorts: [4000, 4001] }), /th sport @ports/);
  const six = { ...packet, family: 'IPv6', protocol: 'UDP', destination: 'fd00::1' } as const;
  const text = markingBatch(markingTable(six, 78), {
    packet: six,
    hook: 'output',
    source: undefined,
    sourcePorts: undefined,
    most: 1,
  }).toScript();
  assert.match(text, /ip6 daddr fd00::1 udp dport 80 ip6 saddr \. th sport != @seen/);
  // A datagram has no flags.
  assert.doesNotMatch(text, /@th/);
});

test('a way that is as predicted', () => {
  const laid = lay(
    [began, jumped, picked, leftForward, leftPostrouting],
    [end([predictedJump, predictedPick])],
  );
  assert.equal(laid.agrees, true);
  assert.deepEqual(judgements(laid), [
    'prerouting ip proxy pre predicted',
    'prerouting ip proxy pick predicted',
  ]);
  assert.equal(laid.end, 'left');
  assert.equal(laid.ended, 'sent on as 192.0.2.7:4711 → 10.244.1.10:8080');
  assert.equal(laid.client, '192.0.2.7:4711');
});

test('of many predictions the one that fits is taken', () => {
  const other = end([predictedJump, { ...predictedPick, rule: 'th dport 81' }], { probability: 0.9 });
  const right = end([predictedJump, predictedPick], { probability: 0.1 });
  assert.equal(lay([began, jumped, picked, leftPostrouting], [other, right]).agrees, true);
  assert.equal(lay([began, jumped, picked, leftPostrouting], [other]).agrees, false);
  // Where another program has printed the rules, their texts need not be the same.
  assert.equal(lay([began, jumped, picked, leftPostrouting], [other], { sameText: false }).agrees, true);
});

test('a rule that matches and was not predicted to', () => {
  const stopped = event({
    table: wall,
    chain: 'fwd',
    handle: 6n,
    packet: translated,
    verdict: { code: 'drop' },
  });
  const laid = lay([began, jumped, picked, stopped], [end([predictedJump, predictedPick])]);
  assert.equal(laid.agrees, false);
  assert.equal(laid.end, 'dropped');
  assert.equal(laid.ended, 'dropped by a rule of inet wall fwd');
  assert.equal(judgements(laid).at(-1), 'forward inet wall fwd differs');
});

test('a policy that drops is a step of its own', () => {
  const policy = event({
    table: wall,
    chain: 'fwd',
    type: 'policy',
    packet: translated,
    verdict: { code: 'drop' },
  });
  const steps = [predictedJump, predictedPick];
  const laid = lay([began, jumped, picked, policy], [end(steps)]);
  assert.equal(laid.ended, 'dropped by the policy of inet wall fwd');
  assert.equal(laid.agrees, false);
  const predicted = step({
    hook: 'forward',
    base: 'inet wall fwd',
    chain: 'fwd',
    effect: { kind: 'drop', policy: true },
  });
  assert.equal(lay([began, jumped, picked, policy], [end([...steps, predicted])]).agrees, true);
});

test('a rule that was predicted to match and did not, and a chain that was never asked', () => {
  const missed = lay([began, jumped, leftPostrouting], [end([predictedJump, predictedPick])]);
  assert.deepEqual(judgements(missed), [
    'prerouting ip proxy pre predicted',
    'prerouting ip proxy pick differs',
  ]);
  const never = lay([began, leftPostrouting], [end([predictedJump, predictedPick])]);
  assert.equal(never.agrees, false);
  assert.match(never.hooks[0]!.steps[0]!.note, /never came here/);
  // Of a known connection the first packet has been seen long ago.
  const known = lay(
    [began, leftPostrouting],
    [
      end([
        step({
          base: 'nat PREROUTING',
          chain: 'PREROUTING',
          rule: '-j KUBE-X',
          effect: { kind: 'jump', chain: 'KUBE-X' },
        }),
      ]),
    ],
    { known: true },
  );
  assert.equal(known.agrees, undefined);
  assert.deepEqual(judgements(known), ['prerouting nat PREROUTING neutral']);
});

test('a packet that the kernel itself stopped', () => {
  const laid = lay([began, jumped, picked], []);
  assert.equal(laid.end, 'lost');
  assert.match(laid.ended, /^not seen again behind PREROUTING: .*no route, rp_filter/);
  assert.equal(laid.agrees, undefined);
  assert.deepEqual(judgements(laid), ['prerouting ip proxy pre unknown', 'prerouting ip proxy pick unknown']);
});

test('a packet of which the kernel tells no more, though it arrived', () => {
  const steps = [
    predictedJump,
    predictedPick,
    step({
      hook: 'forward',
      base: 'ip proxy fwd',
      chain: 'fwd',
      rule: 'jump x',
      effect: { kind: 'jump', chain: 'x' },
    }),
  ];
  assert.equal(lay([began, jumped, picked], [end(steps)]).agrees, false);
  const laid = lay([began, jumped, picked], [end(steps)], { arrived: true });
  assert.equal(laid.agrees, undefined);
  assert.equal(laid.end, 'unseen');
  assert.deepEqual(
    judgements(laid).map((one) => one.split(' ').at(-1)),
    ['predicted', 'predicted'],
  );
});

test('a packet that a bridge has made a new one of is the same', () => {
  const again = event({ id: 12, chain: 'again-forward', packet: translated });
  const last = { ...leftPostrouting, id: 12 };
  const laid = lay([began, jumped, picked, again, last], [end([predictedJump, predictedPick])]);
  assert.equal(laid.end, 'left');
  assert.equal(laid.agrees, true);
  // Sent a second time, because the first was dropped: not asked about.
  const stopped = event({
    table: wall,
    chain: 'fwd',
    handle: 6n,
    packet: translated,
    verdict: { code: 'drop' },
  });
  const steps = (laidOnce: LaidPacket): number => judgements(laidOnce).length;
  const once = [began, jumped, picked, stopped];
  assert.equal(steps(lay([...once, again, { ...stopped, id: 12 }], [])), steps(lay(once, [])));
});

test('messages of several packets are told apart, and those of other traces left alone', () => {
  const collector = new TraceCollector(book, own.name);
  const second = { ...header, sourcePort: 4712 };
  for (const one of [
    began,
    event({ id: 10, packet: second, handle: 1n }),
    jumped,
    { ...jumped, id: 10, packet: second },
    picked,
    // Somebody else traces, too.
    event({ table: { family: 'ip', name: 'pointsman-trace-5' }, id: 11, packet: header }),
    { ...jumped, id: 11 },
    // A number is used again.
    event({ id: 9, packet: { ...header, sourcePort: 4713 }, handle: 1n }),
  ])
    collector.trace(one);
  const traces = collector.finish();
  assert.deepEqual(
    traces.map(({ first, visits }) => [first.sourcePort, visits.map(({ steps }) => steps.length)]),
    [
      [4711, [2]],
      [4712, [1]],
      [4713, []],
    ],
  );
});

test('what a machine sends to itself comes in again with another number, and under another sender', () => {
  const collector = new TraceCollector(book, own.name);
  const masqueraded = { ...translated, source: '172.31.0.11' };
  for (const one of [
    event({ packet: header, handle: 1n }),
    // Before it has left, another number is somebody else's.
    { ...jumped, id: 12, packet: header },
    { ...leftPostrouting, packet: masqueraded },
    { ...leftForward, chain: 'input', id: 13, packet: masqueraded },
    event({ id: 14, packet: { ...header, sourcePort: 4712 }, handle: 1n, inInterface: 2 }),
    { ...leftPostrouting, id: 14, packet: { ...translated, sourcePort: 4712 } },
    // It came from another machine: it does not come in twice.
    { ...leftForward, chain: 'input', id: 15, packet: { ...translated, sourcePort: 4712 } },
  ])
    collector.trace(one);
  assert.deepEqual(
    collector.finish().map(({ visits, passed }) => [visits.length, passed.map(({ hook }) => hook)]),
    [
      [0, ['postrouting', 'input']],
      [0, ['postrouting']],
    ],
  );
});

test("what rules of legacy iptables log becomes a part of the packet's way", () => {
  const collector = new TraceCollector(book, own.name);
  collector.trace(began);
  collector.trace(leftForward);
  collector.trace(event({ table: wall, chain: 'fwd', type: 'rule', handle: 5n, packet: translated }));
  for (const [prefix, seen] of [
    ['TRACE: nat:PREROUTING:rule:1 ', header],
    ['TRACE: nat:KUBE-X:rule:1 ', header],
    ['TRACE: nat:KUBE-X:return:2 ', header],
    ['somebody logs this', header],
    ['TRACE: nat:KUBE-X:rule:1 ', { ...header, source: '192.0.2.8' }],
  ] as const)
    collector.log({ prefix, hook: 0, packet: seen });
  const [trace] = collector.finish();
  assert.deepEqual(
    trace!.visits.map(({ hook, base, steps }) => [
      hook,
      base,
      steps.map(({ rule: text, verdict }) => [text, verdict]),
    ]),
    [
      [
        'prerouting',
        'nat PREROUTING',
        [
          ['-j KUBE-X', 'jump'],
          ['-p tcp -j DNAT --to-destination 10.244.1.10:8080', 'accept'],
        ],
      ],
      ['forward', 'inet wall fwd', [['goto nowhere', 'continue']]],
    ],
  );
});
