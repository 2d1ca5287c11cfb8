import assert from 'node:assert/strict';
import { test } from 'node:test';
import { probability } from '../../../src/dataplane/iptables/endpointRules.ts';
import { chainHash, endpointChain, isOwnChain, serviceHash } from '../../../src/dataplane/iptables/names.ts';

test('hashes are those that operators know', () => {
  const known: Record<string, string> = {
    'ns1/svc1:p80tcp': 'XPGD46QRK7WJZT7O',
    'default/kubernetes:httpstcp': 'NPX46M4PTMTKRN6Y',
    'kube-system/kube-dns:dnsudp': 'TCOU7JCQXEZGVUNU',
    'kube-system/kube-dns:dns-tcptcp': 'ERIFXISQEP7F7OF4',
    'default/cachetcp': '6AXP6HFD3SD6EFW3',
    'shop/api:grpcsctp': 'EXNTVRWZKRCNYZP5',
    'ns1/svc1:p80tcp10.180.0.1:80': 'SXIVWICOYRO3J4NJ',
    'default/web:httptcp10.244.1.5:8080': 'AFGSLHOD2HFNCBX4',
    'default/web:httptcp[fd00:10:244:1::5]:8080': 'VQWBXALWTGJK2BTN',
    'kube-system/kube-dns:dnsudp10.244.1.7:53': '25M36I63GRYNYR7P',
  };
  for (const [text, expected] of Object.entries(known)) assert.equal(chainHash(text), expected, text);
  assert.equal(serviceHash('shop/api:grpc', 'SCTP'), 'EXNTVRWZKRCNYZP5');
  assert.equal(endpointChain('default/web:http', 'TCP', '10.244.1.5:8080'), 'KUBE-SEP-AFGSLHOD2HFNCBX4');
});

test('own chains are told from fixed and foreign ones', () => {
  for (const chain of ['KUBE-SVC-A', 'KUBE-SVL-A', 'KUBE-EXT-A', 'KUBE-FW-A', 'KUBE-SEP-A'])
    assert.ok(isOwnChain(chain));
  for (const chain of [
    'KUBE-SERVICES',
    'KUBE-FORWARD',
    'KUBE-FIREWALL',
    'KUBE-PROXY-CANARY',
    'CNI-SEP-A',
    'KUBE-KUBELET-CANARY',
  ]) {
    assert.ok(!isOwnChain(chain), chain);
  }
});

test('probabilities have ten decimals; the exact tie rounds to even', () => {
  assert.equal(probability(2), '0.5000000000');
  assert.equal(probability(3), '0.3333333333');
  assert.equal(probability(6), '0.1666666667');
  assert.equal(probability(2048), '0.0004882812');
  assert.equal(probability(100001), '0.0000099999');
});
