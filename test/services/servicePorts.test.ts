import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Service } from '../../src/api/objects.ts';
import { frontendsOf, hasExternalFrontend, servicePorts } from '../../src/services/servicePorts.ts';
import type { Problem, ServicePort } from '../../src/services/types.ts';
import { meta, port, service } from './build.ts';

const IPv4 = { family: 'IPv4' } as const;
const IPv6 = { family: 'IPv6' } as const;

function one(object: Service, options: Parameters<typeof servicePorts>[1] = IPv4): ServicePort {
  const ports = servicePorts(object, options);
  assert.equal(ports.length, 1);
  return ports[0]!;
}

function problemsOf(object: Service): { ports: readonly ServicePort[]; problems: Problem[] } {
  const problems: Problem[] = [];
  return { ports: servicePorts(object, IPv4, problems), problems };
}

describe('which Services have service ports', () => {
  for (const [what, changes] of [
    ['headless', { clusterIP: 'None' }],
    ['headless without ports', { clusterIP: 'None', ports: [] }],
    ['without a cluster IP yet', { clusterIP: '' }],
    ['ExternalName with a cluster IP', { type: 'ExternalName' }],
    ['of the other family', { clusterIP: 'fd00::10' }],
    ['whose families leave this one out', { ipFamilies: ['IPv6'], clusterIPs: ['10.96.0.10'] }],
    ['whose second cluster IP is missing', { ipFamilies: ['IPv6', 'IPv4'], clusterIPs: ['fd00::10'] }],
  ] as const) {
    test(`none: ${what}`, () => {
      const { ports, problems } = problemsOf(service('web', changes));
      assert.deepEqual(ports, []);
      assert.deepEqual(problems, []);
    });
  }

  test('one a port, named after it', () => {
    const ports = [
      port({ name: 'p1', protocol: 'UDP', port: 53 }),
      port({ name: 'p2', protocol: 'UDP', port: 54 }),
    ];
    const result = servicePorts(service('dns', { ports, clusterIP: '172.16.55.4' }), IPv4);
    assert.deepEqual(
      result.map((each) => [each.id, each.name, each.port, each.clusterIP]),
      [
        ['default/dns:p1/UDP', 'default/dns:p1', 53, '172.16.55.4'],
        ['default/dns:p2/UDP', 'default/dns:p2', 54, '172.16.55.4'],
      ],
    );
    assert.equal(one(service('web')).id, 'default/web:/TCP');
    assert.equal(one(service('web')).name, 'default/web');
  });

  test('dual-stack: each family has its own cluster IP', () => {
    const dual = service('web', {
      ipFamilies: ['IPv6', 'IPv4'],
      clusterIP: 'FD00::0010',
      clusterIPs: ['FD00::0010', '10.96.000.010'],
    });
    assert.equal(one(dual).clusterIP, '10.96.0.10');
    assert.equal(one(dual, IPv6).clusterIP, 'fd00::10');
  });
});

describe('what is kept of a Service', () => {
  test('addresses of the family, canonical, once each', () => {
    const mixed = service('web', {
      externalIPs: ['203.0.113.007', '2001:db8::1', '::ffff:203.0.113.8', '203.0.113.7', '', ' '],
      loadBalancerIngress: [
        { ip: '10.1.2.4', ipMode: undefined },
        { ip: '10.1.2.5', ipMode: 'VIP' },
        { ip: '10.1.2.6', ipMode: 'Proxy' },
        { ip: '', ipMode: undefined },
        { ip: '2001:db8::2', ipMode: undefined },
      ],
      loadBalancerSourceRanges: [' 10.1.2.0/28', '2001:db8::/32', '10.1.2.3/28', ''],
    });
    const { ports, problems } = problemsOf(mixed);
    assert.deepEqual(problems, []);
    assert.deepEqual(ports[0]?.externalIPs, ['203.0.113.7', '203.0.113.8']);
    assert.deepEqual(ports[0]?.loadBalancerIPs, ['10.1.2.4', '10.1.2.5']);
    assert.deepEqual(ports[0]?.sourceRanges, ['10.1.2.0/28']);
  });

  test('a range of everything means no restriction', () => {
    assert.deepEqual(
      one(service('web', { loadBalancerSourceRanges: ['10.0.0.0/8', '0.0.0.0/0'] })).sourceRanges,
      [],
    );
    assert.deepEqual(one(service('web', { loadBalancerSourceRanges: ['10.0.0.0/8', '::/0'] })).sourceRanges, [
      '10.0.0.0/8',
    ]);
  });

  for (const [type, externalIPs, expected] of [
    ['LoadBalancer', [], true],
    ['NodePort', [], true],
    ['ClusterIP', [], false],
    ['ClusterIP', ['203.0.113.1'], true],
  ] as const) {
    test(`externalTrafficPolicy Local of ${type} with ${externalIPs.length} external IPs: ${expected}`, () => {
      const local = service('web', {
        type,
        externalIPs,
        externalTrafficPolicy: 'Local',
        healthCheckNodePort: 345,
      });
      assert.equal(one(local).externalPolicyLocal, expected);
      assert.equal(one(local).healthCheckNodePort, type === 'LoadBalancer' ? 345 : 0);
      assert.equal(one({ ...local, externalTrafficPolicy: 'Cluster' }).externalPolicyLocal, false);
      assert.equal(one({ ...local, externalTrafficPolicy: 'Cluster' }).healthCheckNodePort, 0);
    });
  }

  test('the health check port is on every port', () => {
    const ports = [port({ name: 'a' }), port({ name: 'b', port: 81 })];
    const local = service('web', {
      type: 'LoadBalancer',
      externalTrafficPolicy: 'Local',
      healthCheckNodePort: 345,
      ports,
    });
    assert.deepEqual(
      servicePorts(local, IPv4).map((each) => each.healthCheckNodePort),
      [345, 345],
    );
  });

  test('affinity', () => {
    assert.equal(one(service('web')).affinitySeconds, 0);
    assert.equal(one(service('web', { sessionAffinity: 'ClientIP' })).affinitySeconds, 10800);
    assert.equal(
      one(service('web', { sessionAffinity: 'ClientIP', sessionAffinityTimeoutSeconds: 5 })).affinitySeconds,
      5,
    );
  });

  test('internal policy', () => {
    assert.equal(one(service('web')).internalPolicyLocal, false);
    assert.equal(one(service('web', { internalTrafficPolicy: 'Local' })).internalPolicyLocal, true);
  });

  test('frontends in order', () => {
    const all = service('web', {
      ports: [port({ nodePort: 30080 })],
      externalIPs: ['203.0.113.1'],
      loadBalancerIngress: [{ ip: '203.0.113.2', ipMode: undefined }],
    });
    assert.deepEqual(frontendsOf(one(all)), [
      { kind: 'clusterIP', ip: '10.96.0.10', port: 80, protocol: 'TCP' },
      { kind: 'externalIP', ip: '203.0.113.1', port: 80, protocol: 'TCP' },
      { kind: 'loadBalancerIP', ip: '203.0.113.2', port: 80, protocol: 'TCP' },
      { kind: 'nodePort', ip: '', port: 30080, protocol: 'TCP' },
    ]);
  });

  test('AllowServiceExternalIPs off: no such frontend, but still "external"', () => {
    const result = one(service('web', { externalIPs: ['203.0.113.1'] }), {
      ...IPv4,
      allowExternalIPs: false,
    });
    assert.deepEqual(result.externalIPs, []);
    assert.equal(hasExternalFrontend(result), true);
    assert.equal(hasExternalFrontend(one(service('web'), { ...IPv4, allowExternalIPs: false })), false);
  });
});

describe('bad input costs itself', () => {
  for (const [what, name, namespace] of [
    ['quote in the name', 'we"b', 'default'],
    ['newline in the name', 'web\n-A INPUT -j DROP', 'default'],
    ['upper case namespace', 'web', 'Default'],
    ['empty namespace', 'web', ''],
    ['name longer than a name', 'w'.repeat(254), 'default'],
  ] as const) {
    test(`the object: ${what}`, () => {
      const { ports, problems } = problemsOf(service('web', { meta: meta(name, namespace) }));
      assert.deepEqual(ports, []);
      assert.deepEqual(
        problems.map((each) => each.reason),
        ['invalid_name'],
      );
      assert.doesNotMatch(problems[0]!.object, /\n/);
    });
  }

  test('the family: a cluster IP that is none', () => {
    for (const clusterIP of ['junk', '10.96.0.300', '10.96.0.1 -j ACCEPT']) {
      const { ports, problems } = problemsOf(service('web', { clusterIP }));
      assert.deepEqual(ports, []);
      assert.deepEqual(
        problems.map((each) => each.reason),
        ['invalid_address'],
      );
    }
    const wrong = problemsOf(service('web', { ipFamilies: ['IPv4'], clusterIPs: ['fd00::1'] }));
    assert.deepEqual(wrong.ports, []);
    assert.equal(wrong.problems[0]?.reason, 'invalid_address');
  });

  for (const [what, bad, reason] of [
    ['port 0', { port: 0 }, 'invalid_port'],
    ['port 65536', { port: 65536 }, 'invalid_port'],
    ['port 80.5', { port: 80.5 }, 'invalid_port'],
    ['node port -1', { nodePort: -1 }, 'invalid_port'],
    ['node port 70000', { nodePort: 70000 }, 'invalid_port'],
    ['name with a quote', { name: 'a"b' }, 'invalid_name'],
    ['name with a newline', { name: 'a\n' }, 'invalid_name'],
    ['protocol', { protocol: 'ICMP' as 'TCP' }, 'invalid_protocol'],
    ['the same name and protocol again', { name: 'good', port: 82 }, 'duplicate_port'],
  ] as const) {
    test(`the port: ${what}`, () => {
      const ports = [port({ name: 'good', port: 81 }), port({ name: 'bad', ...bad })];
      const result = problemsOf(service('web', { ports }));
      assert.deepEqual(
        result.ports.map((each) => each.portName),
        ['good'],
      );
      assert.deepEqual(
        result.problems.map((each) => each.reason),
        [reason],
      );
    });
  }

  test('the entry: addresses, ranges, time-outs, health check ports', () => {
    const { ports, problems } = problemsOf(
      service('web', {
        type: 'LoadBalancer',
        externalTrafficPolicy: 'Local',
        externalIPs: ['203.0.113.1', 'junk'],
        loadBalancerIngress: [{ ip: 'x', ipMode: undefined }],
        loadBalancerSourceRanges: ['10.0.0.0/8', '10.0.0.0/99'],
        sessionAffinity: 'ClientIP',
        sessionAffinityTimeoutSeconds: -5,
      }),
    );
    assert.deepEqual(ports[0]?.externalIPs, ['203.0.113.1']);
    assert.deepEqual(ports[0]?.sourceRanges, ['10.0.0.0/8']);
    assert.equal(ports[0]?.affinitySeconds, 10800);
    assert.deepEqual(problems.map((each) => each.field).sort(), [
      'spec.externalIPs[1]',
      'spec.healthCheckNodePort',
      'spec.loadBalancerSourceRanges[1]',
      'spec.sessionAffinityConfig.clientIP.timeoutSeconds',
      'status.loadBalancer.ingress',
    ]);
  });
});
