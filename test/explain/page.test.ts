/** The page stands alone, draws every hook of the way, and shows text from objects as text. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Explanation, ToldStep } from '../../src/explain/explanation.ts';
import { renderPage } from '../../src/explain/output/html.ts';
import { printExplanation, wrap } from '../../src/explain/output/terminal.ts';

const step: ToldStep = {
  chain: 'nat KUBE-SEP-A',
  rule: '-p tcp -m tcp -j DNAT --to-destination 10.244.1.10:8080',
  element: '',
  comment: '',
  effect: 'destination rewritten to 10.244.1.10:8080',
  effectKind: 'dnat',
  cause: 'Pod shop/<script>alert(1)</script> on this node, ready',
  packet: '198.51.100.77 → 10.244.1.10:8080',
  rewrites: true,
};

const explanation: Explanation = {
  question: {
    family: 'IPv4',
    protocol: 'TCP',
    from: 'a client outside',
    source: '198.51.100.77',
    destination: '10.96.0.20:80',
  },
  node: 'node-1"><img src=x>',
  rules: 'as pointsman writes them in iptables mode',
  answer: 'It reaches 10.244.1.10:8080.',
  outcomes: [
    {
      kind: 'endpoint',
      probability: 1,
      destination: '10.244.1.10:8080',
      masqueraded: false,
      why: '',
      who: 'Pod shop/web',
    },
  ],
  way: [
    { hook: 'prerouting', packet: '198.51.100.77 → 10.96.0.20:80', steps: [step] },
    { hook: 'forward', packet: '198.51.100.77 → 10.244.1.10:8080', steps: [] },
    { hook: 'postrouting', packet: '198.51.100.77 → 10.244.1.10:8080', steps: [] },
  ],
  otherWays: [],
  conntrack: ['original: 198.51.100.77 → 10.96.0.20:80'],
  findings: [{ severity: 'warning', reason: 'target_port', message: 'a & b', advice: 'do <that>' }],
  otherwise: [],
  remarks: [],
};

test('the page needs nothing from elsewhere and runs nothing', () => {
  const page = renderPage(explanation);
  assert.doesNotMatch(page, /<script|<img|<link|https?:|url\([^#]|@import|onload|onerror=/i);
  assert.match(page, /&#60;script&#62;alert/);
  assert.match(page, /a &#38; b/);
});

test('the picture has every hook, and the addresses before and after the rewrite', () => {
  const page = renderPage(explanation);
  const picture = /<svg.*<\/svg>/s.exec(page)![0];
  for (const hook of ['PREROUTING', 'FORWARD', 'POSTROUTING']) assert.ok(picture.includes(`>${hook}<`), hook);
  assert.ok(picture.indexOf('to 10.96.0.20:80') < picture.indexOf('to 10.244.1.10:8080'));
  assert.match(picture, /font-weight="700"[^>]*>to 10\.244\.1\.10:8080/);
});

test('long addresses become smaller, not wider than where they stand', () => {
  const destination = '[fd00:10:96:1234:5678:9abc:def0:1234]:30080';
  const source = 'fd00:10:244:1111:2222:3333:4444:5555';
  const packet = `${source} → ${destination}`;
  const page = renderPage({
    ...explanation,
    question: { ...explanation.question, family: 'IPv6', source, destination },
    outcomes: [{ ...explanation.outcomes[0]!, kind: 'forward', destination }],
    way: explanation.way.map((hook) => ({ ...hook, packet, steps: [] })),
  });
  const texts = [...page.matchAll(/<text [^>]*font-size="([\d.]+)"[^>]*>([^<]*)<\/text>/g)];
  assert.ok(texts.some(([, , text]) => text === destination));
  for (const [, size, text = ''] of texts) {
    // A station is 190 wide, a station and the gap behind it 286.
    const most = /^(from|to) /.test(text) ? 286 : 190;
    assert.ok(Number(size) * 0.55 * text.length <= most, `${size} ${text}`);
    assert.ok(Number(size) >= 6);
  }
});

test('narrow screens get a picture of their own, and words are explained where they are used', () => {
  const page = renderPage(explanation);
  assert.match(page, /@media \(max-width:44rem\)\{.*svg\.wide\{display:none\}svg\.tall\{display:block\}/);
  // Of rules that weigh the same the later one counts: those for narrow screens come last.
  assert.ok(page.indexOf('td{padding:.25rem') < page.indexOf('@media (max-width:44rem)'));
  for (const layout of ['wide', 'tall']) {
    const picture = page.split(`<svg class="${layout}"`)[1]?.split('</svg>')[0] ?? '';
    for (const text of ['The client', 'PREROUTING', 'POSTROUTING', 'shop/web'])
      assert.ok(picture.includes(text), `${layout}: ${text}`);
  }
  assert.match(page, /<dt>Destination rewritten \(DNAT\)<\/dt>/);
  assert.doesNotMatch(page, /<dt>Virtual server/);
});

test('a terminal gets 80 columns, and colour only where asked', () => {
  const plain = printExplanation(explanation, false);
  assert.ok(!plain.includes('\u001b'));
  assert.ok(printExplanation(explanation, true).includes('\u001b['));
  for (const line of plain.split('\n')) assert.ok(line.length <= 80, line);
  const source = 'fd00:10:244:1111:2222:3333:4444:5555';
  const destination = '[fd00:10:96:1234:5678:9abc:def0:1234]:30080';
  const packet = `${source} → ${destination}`;
  const who = 'Pod a-long-namespace/checkout-7d9f8b6c5d-x2v9q on ip-172-31-200-112.example.internal, ready';
  const long = printExplanation(
    {
      ...explanation,
      question: { ...explanation.question, source, destination },
      outcomes: [{ ...explanation.outcomes[0]!, destination, who }],
      way: [{ hook: 'prerouting', packet, steps: [{ ...step, packet }] }],
    },
    false,
  );
  for (const line of long.split('\n')) assert.ok(line.length <= 80, line);
  assert.ok(long.includes(`  PREROUTING      ${source} →\n                  ${destination}\n`), long);
  assert.deepEqual(wrap('aa bb cc', 2, 5), ['  aa bb', '  cc']);
});
