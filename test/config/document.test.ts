import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parse } from 'yaml';
import { printDocument, toDocument } from '../../src/config/document.ts';
import { decodeFile } from '../../src/config/file.ts';
import { completeForPlatform, withDefaults } from '../../src/config/settings.ts';
import { file, load } from './support.ts';

const defaultDocument = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 10
  contentType: application/vnd.kubernetes.protobuf
  kubeconfig: ""
  qps: 5
clusterCIDR: ""
configSyncPeriod: 15m0s
conntrack:
  maxPerCore: 32768
  min: 131072
  tcpBeLiberal: false
  tcpCloseWaitTimeout: 1h0m0s
  tcpEstablishedTimeout: 24h0m0s
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ClusterCIDR
enableProfiling: false
healthzBindAddress: 0.0.0.0:10256
hostnameOverride: ""
iptables:
  localhostNodePorts: true
  masqueradeAll: false
  masqueradeBit: 14
  minSyncPeriod: 1s
  syncPeriod: 30s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 5s
  format: text
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: 127.0.0.1:10249
mode: iptables
nftables:
  masqueradeAll: false
  masqueradeBit: 14
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: -999
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
`;

test('the document of all defaults, from flags and from an empty file', async () => {
  assert.equal(await printDocument(await load()), defaultDocument);
  assert.equal(await printDocument(await load('--config', file(''))), defaultDocument);
});

/** What kubeadm writes: every field, most as zero. It means the defaults, and nothing in it deserves a warning. */
const kubeadm = `bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: "", burst: 0, contentType: "", kubeconfig: /var/lib/kube-proxy/kubeconfig.conf, qps: 0}
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null, udpStreamTimeout: 0s, udpTimeout: 0s}
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s, tcpTimeout: 0s, udpTimeout: 0s}
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: ""
mode: ""
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: ""}
`;

test("kubeadm's file means the defaults, without a warning", async () => {
  const config = await load('--config', file(kubeadm), '--hostname-override=node-1');
  assert.deepEqual(config.warnings, []);
  assert.deepEqual(config.notices, ['Using iptables proxy']);
  const expected = defaultDocument
    .replace('kubeconfig: ""', 'kubeconfig: /var/lib/kube-proxy/kubeconfig.conf')
    .replace('clusterCIDR: ""', 'clusterCIDR: 10.244.0.0/16')
    .replace('hostnameOverride: ""', 'hostnameOverride: node-1');
  assert.equal(await printDocument(config), expected);
});

test('what is printed is read back: parse(print(x)) = x', async () => {
  const period = fc.integer({ min: 1, max: 3_600_000 });
  const cidr = fc.constantFrom('10.0.0.0/8', 'fd00::/64', '1.2.3.4/24');
  const text = fc.string({ maxLength: 12 });
  const document = fc.record({
    mode: fc.constantFrom('iptables', 'ipvs', 'nftables'),
    featureGates: fc.dictionary(fc.stringMatching(/^[A-Z]\w{0,8}$/), fc.boolean(), { maxKeys: 3 }),
    hostnameOverride: text,
    iptables: fc.record({ masqueradeBit: fc.integer({ min: 0, max: 31 }), localhostNodePorts: fc.boolean() }),
    nftables: fc.record({ masqueradeBit: fc.integer({ min: 0, max: 31 }) }),
    ipvs: fc.record({ scheduler: text, excludeCIDRs: fc.array(cidr, { maxLength: 2 }), tcpTimeout: period }),
    clientConnection: fc.record({ kubeconfig: text, qps: fc.double({ min: 0.1, max: 1e6, noNaN: true }) }),
    conntrack: fc.record({
      min: fc.nat(2 ** 31 - 1),
      tcpEstablishedTimeout: fc.nat(1e9),
      tcpBeLiberal: fc.boolean(),
    }),
    logging: fc.record({
      vmodule: fc.array(fc.record({ filePattern: text, verbosity: fc.nat(9) }), { maxLength: 2 }),
    }),
    nodePortAddresses: fc.array(cidr, { maxLength: 2 }),
    oomScoreAdj: fc.integer({ min: -1000, max: 1000 }),
  });
  await fc.assert(
    fc.asyncProperty(
      document,
      period,
      fc.nat(1000),
      fc.boolean(),
      async (base, syncPeriod, min, masqueradeAll) => {
        // A plain copy: fast-check makes objects without a prototype, too.
        const settings = withDefaults(structuredClone(base));
        // 0 cannot be expressed where the default is 1s.
        Object.assign(settings, {
          syncPeriod,
          minSyncPeriod: base.mode === 'iptables' ? min + 1 : min,
          masqueradeAll,
        });
        completeForPlatform(settings);
        const printed = await printDocument(settings);
        const read = decodeFile(printed);
        assert.deepEqual(read.strictErrors, []);
        const again = withDefaults(read.document);
        completeForPlatform(again);
        assert.deepEqual(again, settings);
        assert.deepEqual(parse(printed), toDocument(settings));
      },
    ),
    { numRuns: 200 },
  );
});
