import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeFile } from '../../src/config/file.ts';
import type { Document } from '../../src/config/schema.ts';

const head = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n';
const identity = { apiVersion: 'kubeproxy.config.k8s.io/v1alpha1', kind: 'KubeProxyConfiguration' };

const accepted: [what: string, text: string, document: Document][] = [
  ['nothing but its kind', '', {}],
  ['null is absent', 'iptables: null\nconntrack: {min: null}\nmode: ~\n', { conntrack: {} }],
  [
    'durations',
    'iptables: {syncPeriod: 1m}\nipvs: {tcpTimeout: 900ms}\n',
    { iptables: { syncPeriod: 60_000 }, ipvs: { tcpTimeout: 900 } },
  ],
  [
    'flushFrequency in nanoseconds',
    'logging: {flushFrequency: 5000000000}\n',
    { logging: { flushFrequency: 5000 } },
  ],
  ['flushFrequency as text', 'logging: {flushFrequency: 2s}\n', { logging: { flushFrequency: 2000 } }],
  [
    'yes and on are true, as in YAML 1.1',
    'enableProfiling: yes\nbindAddressHardFail: on\n',
    { enableProfiling: true, bindAddressHardFail: true },
  ],
  [
    '1:30 and dates are strings',
    'clusterCIDR: 1:30\nhostnameOverride: 2026-01-02\n',
    { clusterCIDR: '1:30', hostnameOverride: '2026-01-02' },
  ],
  ['gates', 'featureGates: {A: true, B: false}\n', { featureGates: { A: true, B: false } }],
  [
    'lists',
    'nodePortAddresses:\n- 10.0.0.0/8\n- primary\n',
    { nodePortAddresses: ['10.0.0.0/8', 'primary'] },
  ],
  [
    'vmodule',
    'logging: {vmodule: [{filePattern: sync, verbosity: 4}]}\n',
    { logging: { vmodule: [{ filePattern: 'sync', verbosity: 4 }] } },
  ],
  [
    'anchors and merges',
    'iptables: &p {syncPeriod: 7s}\nipvs: {<<: *p}\n',
    { iptables: { syncPeriod: 7000 }, ipvs: { syncPeriod: 7000 } },
  ],
];
for (const [what, text, document] of accepted) {
  test(`reads ${what}`, () => {
    assert.deepEqual(decodeFile(head + text), { document: { ...identity, ...document }, strictErrors: [] });
  });
}

test('reads JSON, with tabs too', () => {
  const json = JSON.stringify({ ...identity, mode: 'ipvs', conntrack: { min: 5 } }, null, '\t');
  assert.deepEqual(decodeFile(json).document, { ...identity, mode: 'ipvs', conntrack: { min: 5 } });
});

const lenient: [what: string, text: string, document: Document, strictErrors: RegExp[]][] = [
  ['an unknown field', 'foo: 1\nmode: ipvs\n', { mode: 'ipvs' }, [/unknown field "foo"/]],
  [
    'a nested one',
    'iptables: {masqueradeAl: true}\n',
    { iptables: {} },
    [/unknown field "iptables\.masqueradeAl"/],
  ],
  ['a field in other case', 'Mode: ipvs\n', {}, [/unknown field "Mode"/]],
  [
    'one in a list',
    'logging: {vmodule: [{filePattern: a, verbosity: 1, x: 2}]}\n',
    { logging: { vmodule: [{ filePattern: 'a', verbosity: 1 }] } },
    [/"logging\.vmodule\[0\]\.x"/],
  ],
  ['names from Object', 'constructor: 1\ntoString: 2\n', {}, [/"constructor"/, /"toString"/]],
  [
    'a key given twice: the last counts',
    'mode: ipvs\nmode: nftables\n',
    { mode: 'nftables' },
    [/key "mode" on line 4 is given twice/],
  ],
];
for (const [what, text, document, strictErrors] of lenient) {
  test(`lets pass and reports ${what}`, () => {
    const decoded = decodeFile(head + text);
    assert.deepEqual(decoded.document, { ...identity, ...document });
    assert.equal(decoded.strictErrors.length, strictErrors.length, decoded.strictErrors.join());
    for (const [i, pattern] of strictErrors.entries()) assert.match(decoded.strictErrors[i] ?? '', pattern);
  });
}

test('a second YAML document is not read', () => {
  const decoded = decodeFile(`${head}mode: ipvs\n---\nmode: nftables\n`);
  assert.equal(decoded.document.mode, 'ipvs');
  assert.match(decoded.strictErrors.join(), /first YAML document/);
});

const refused: [what: string, text: string, message: RegExp][] = [
  ['an empty file', '', /must hold a map/],
  ['a list', '- a\n', /must hold a map/],
  ['no kind', 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\n', /Object 'Kind' is missing/],
  ['another kind', 'apiVersion: v1\nkind: Pod\n', /no kind "Pod" is registered for version "v1"/],
  [
    'another version',
    'apiVersion: kubeproxy.config.k8s.io/v2\nkind: KubeProxyConfiguration\n',
    /no kind "KubeProxyConfiguration" is registered for version "kubeproxy.config.k8s.io\/v2"/,
  ],
  ['broken YAML', `${head}mode: [`, /failed to decode: ./],
  ['broken JSON', '{"kind": ', /failed to decode: ./],
  [
    'a bare number as duration',
    `${head}iptables: {syncPeriod: 30}`,
    /iptables\.syncPeriod: expected a duration such as 30s or 1h30m, got 30/,
  ],
  ['text as number', `${head}oomScoreAdj: "5"`, /oomScoreAdj: expected a whole number, got "5"/],
  ['a fraction', `${head}conntrack: {min: 1.5}`, /conntrack\.min: expected a whole number, got 1\.5/],
  ['too many bits', `${head}conntrack: {min: 2147483648}`, /conntrack\.min: expected a whole number from/],
  ['a negative verbosity', `${head}logging: {verbosity: -1}`, /logging\.verbosity/],
  [
    'a number as text',
    `${head}showHiddenMetricsForVersion: 1.35`,
    /showHiddenMetricsForVersion: expected a string, got 1\.35/,
  ],
  ['a string for a map', `${head}iptables: fast`, /iptables: expected a map of fields, got "fast"/],
  [
    'a string for a list',
    `${head}nodePortAddresses: primary`,
    /nodePortAddresses: expected a list of strings, got "primary"/,
  ],
  ['a gate that is no boolean', `${head}featureGates: {A: 1}`, /featureGates: expected true or false, got 1/],
  [
    'a bomb of aliases',
    `${head}a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n`,
    /[Aa]lias/,
  ],
];
for (const [what, text, message] of refused) {
  test(`refuses ${what}`, () => {
    assert.throws(() => decodeFile(text), {
      message: new RegExp(`^failed to decode: .*${message.source.replace('failed to decode: ', '')}`, 's'),
    });
  });
}

test('all wrong types are listed at once', () => {
  assert.throws(
    () => decodeFile(`${head}mode: 1\nconntrack: {min: a, maxPerCore: []}\n`),
    (error) => {
      assert.ok(error instanceof Error);
      for (const path of ['mode:', 'conntrack.min:', 'conntrack.maxPerCore:'])
        assert.ok(error.message.includes(path), path);
      return true;
    },
  );
});
