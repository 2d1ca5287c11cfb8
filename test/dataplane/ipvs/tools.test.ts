/**
 * Our text against the real tools': what `pointsman render` prints loads with them and gives the state that the proxy
 * itself makes, and what they list is what our objects print.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { IpvsDataplane } from '../../../src/dataplane/ipvs/ipvsDataplane.ts';
import { makeOwnedDirectory } from '../../../src/lab/net/ownedDirectory.ts';
import { Ipset } from '../../../src/linux/netlink/ipset/ipset.ts';
import { printAdd, printDefinition } from '../../../src/linux/netlink/ipset/objects.ts';
import { NetlinkIpvs } from '../../../src/linux/netlink/ipvs/ipvs.ts';
import { printRealServer, printServer } from '../../../src/linux/netlink/ipvs/objects.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import { render } from '../../../src/render/render.ts';
import { makeNamespace, removeNamespace } from '../../support/namespace.ts';
import { labFlags, scenarioManifest, wantedOfText } from '../../render/support.ts';
import { whyNoIpvs } from './guest.ts';

/** Everything that the tools print in a way of its own: SCTP, affinity, IPv6, single addresses as ranges. */
function ownManifest(): string {
  const endpoints = (
    name: string,
    protocol: string,
    addresses: string[],
    family = 'IPv4',
    nodeName = 'node-1',
  ): object => ({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: `${name}-${family}`, labels: { 'kubernetes.io/service-name': name } },
    addressType: family,
    ports: [{ name: 'p', protocol, port: 9000 }],
    endpoints: addresses.map((one) => ({
      addresses: [one],
      nodeName,
      conditions: { ready: true },
    })),
  });
  const service = (name: string, protocol: string, spec: object, status: object = {}): object => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name },
    spec: { ports: [{ name: 'p', protocol, port: 90, nodePort: 30090 + name.length }], ...spec },
    status,
  });
  const items = [
    (JSON.parse(scenarioManifest('clusterip-tcp')) as { items: object[] }).items[0]!,
    service('assoc', 'SCTP', { type: 'NodePort', clusterIP: '10.96.2.1', externalTrafficPolicy: 'Local' }),
    endpoints('assoc', 'SCTP', ['10.244.1.10']),
    service('sticky', 'UDP', {
      type: 'NodePort',
      clusterIP: 'fd00:10:96::2',
      clusterIPs: ['fd00:10:96::2'],
      ipFamilies: ['IPv6'],
      sessionAffinity: 'ClientIP',
      sessionAffinityConfig: { clientIP: { timeoutSeconds: 77 } },
    }),
    endpoints('sticky', 'UDP', ['fd00:10:244:1::10', 'fd00:10:244:1::11'], 'IPv6'),
    service(
      'ranges',
      'TCP',
      {
        type: 'LoadBalancer',
        clusterIP: '10.96.2.3',
        externalIPs: ['203.0.113.9'],
        loadBalancerSourceRanges: ['198.51.100.4/32', '198.51.100.64/26'],
      },
      { loadBalancer: { ingress: [{ ip: '203.0.113.7' }] } },
    ),
    endpoints('ranges', 'TCP', ['10.244.1.10', '10.244.1.11']),
    // Nobody is local: outsiders are dropped, and everybody is.
    service('nowhere', 'TCP', {
      type: 'NodePort',
      clusterIP: '10.96.2.4',
      externalTrafficPolicy: 'Local',
      internalTrafficPolicy: 'Local',
    }),
    endpoints('nowhere', 'TCP', ['10.244.2.10'], 'IPv4', 'node-2'),
  ];
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
}

/** The node's addresses, as the Node object has them. */
const addresses = [
  'link add eth0 type dummy',
  'link set eth0 up',
  'addr add 172.31.0.11/24 dev eth0',
  'addr add fd00:31::11/64 dev eth0 nodad',
];

describe('IPVS mode and the real tools', { skip: whyNoIpvs(), timeout: 600_000 }, () => {
  const directory = makeOwnedDirectory('tools');
  const spaces: string[] = [];
  before(() => bash('', addresses.map((line) => `ip ${line}`).join('\n')));
  after(() => {
    rmSync(directory, { recursive: true });
    for (const space of spaces) removeNamespace(space);
    bash('', 'ip link del eth0');
  });

  /** Runs in a namespace, or where the test runs. */
  function bash(namespace: string, script: string): string {
    const enter = namespace === '' ? [] : ['ip', 'netns', 'exec', namespace];
    const [program, ...args] = [...enter, 'bash', '-e', '-c', script];
    return execFileSync(program, args, {
      encoding: 'utf8',
      maxBuffer: 1 << 26,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  /** All that the mode makes in a kernel, as the tools print it; one process for all. */
  function state(namespace: string): Record<'servers' | 'sets' | 'addresses' | 'rules', string[]> {
    const parts = bash(
      namespace,
      `ipvsadm -Sn; echo =; ipset save; echo =; ip -o addr show dev kube-ipvs0; echo =
       for f in iptables ip6tables; do for t in nat filter mangle; do $f-save -t $t; done; done`,
    ).split('=\n');
    const linesOf = (text = ''): string[] => text.split('\n').filter((line) => line !== '');
    return {
      servers: linesOf(parts[0]).sort(),
      // What a table is spread over, and the random number in it, are the kernel's.
      sets: linesOf(parts[1])
        .map((line) => line.replace(/ bucketsize \d+ initval \S+/, ''))
        .sort(),
      addresses: linesOf(parts[2])
        .map((line) => / (inet6? \S+)/.exec(line)?.[1] ?? line)
        .sort(),
      rules: linesOf(parts[3]).filter((line) => line.startsWith('-A') || line.startsWith('*')),
    };
  }

  /** What our objects print of the same kernel. */
  function printed(): { servers: string[]; sets: string[] } {
    const servers: string[] = [];
    const sets: string[] = [];
    const ipvs = NetlinkIpvs.open()!;
    for (const server of ipvs.listServers()) {
      servers.push(printServer(server));
      for (const real of ipvs.listRealServers(server)) servers.push(printRealServer(server, real));
    }
    ipvs.close();
    const ipset = new Ipset();
    for (const name of ipset.names()) {
      const { definition, entries } = ipset.list(name)!;
      sets.push(printDefinition(definition), ...entries.map((entry) => printAdd(definition, entry)));
    }
    ipset.close();
    return { servers: servers.sort(), sets: sets.sort() };
  }

  const cases: readonly [string, string, ...string[]][] = [
    ['what the tools print in their own way', ownManifest(), '--ipvs-scheduler=mh'],
    ['both families', scenarioManifest('dual-stack')],
  ];
  for (const [name, manifest, ...flags] of cases) {
    it(name, async () => {
      const wanted = await wantedOfText(manifest, ...labFlags, '--mode=ipvs', ...flags);
      const loaded = makeNamespace();
      spaces.push(loaded);
      const commands = render(wanted).map(({ file, load, text }) => {
        const path = join(directory, file);
        writeFileSync(path, text);
        return `${load} ${path}`;
      });
      bash(loaded, [...addresses.map((line) => `ip ${line}`), ...commands].join('\n'));

      for (const { family, options, table } of wanted.families) {
        const dataplane = new IpvsDataplane(
          { ...options, ...wanted.config.ipvs },
          {
            log: silentLogger,
            report: () => undefined,
            events: { resync: () => undefined },
            checkInterval: 3_600_000,
          },
        );
        await dataplane.start();
        const changes = { family, changes: [], udpEndpointsChanged: false, triggerTimes: [] };
        await dataplane.sync({ table, changes, serviceCIDRs: [], full: true });
        await dataplane.stop();
      }
      const synced = state('');
      assert.deepEqual(state(loaded), synced);
      assert.ok(synced.servers.length > 3, synced.servers.join('\n'));
      const { servers, sets } = printed();
      assert.deepEqual(servers, synced.servers);
      assert.deepEqual(sets, synced.sets);
      bash(
        '',
        `ipvsadm -C; ip link del kube-ipvs0
         for f in iptables ip6tables; do for t in nat filter mangle; do $f -t $t -F; $f -t $t -X; done; done
         ipset destroy`,
      );
    });
  }
});
