/** What render prints goes into a kernel, and is there what the daemon's first sync leaves in another. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { render } from '../../src/render/render.ts';
import { nftablesContents } from '../../src/render/nftables.ts';
import { World as IptablesWorld, backends } from '../dataplane/iptables/harness.ts';
import { World as NftablesWorld } from '../dataplane/nftables/harness.ts';
import { listTable } from '../dataplane/nftables/listing.ts';
import { labFlags, scenarioManifest, scenarioNames, wantedOfText } from './support.ts';

for (const backend of backends) {
  test(`${backend}: iptables-restore takes every rendering, and has then the daemon's rules`, async () => {
    for (const name of scenarioNames) {
      const wanted = await wantedOfText(scenarioManifest(name), ...labFlags, '--mode=iptables');
      const documents = render(wanted);
      for (const [i, { family, options, table }] of wanted.families.entries()) {
        const rendered = new IptablesWorld(backend, family);
        const synced = new IptablesWorld(backend, family);
        try {
          rendered.run([`${rendered.program}-restore`, '--noflush'], documents[i]!.text);
          const dataplane = synced.dataplane(
            { ...options, localhostNodePorts: wanted.config.localhostNodePorts },
            { localAddresses: () => wanted.node.localAddresses, ensureCounter: () => false },
          );
          await dataplane.start();
          const changes = { family, changes: [], udpEndpointsChanged: false, triggerTimes: [] };
          await dataplane.sync({ table, changes, serviceCIDRs: [], full: true });
          await dataplane.stop();
          const withRules = (rules: Record<string, string[]>) =>
            Object.fromEntries(
              Object.entries(rules).filter(([chain, list]) => list.length > 0 || chain.includes('KUBE-')),
            );
          assert.deepEqual(withRules(rendered.rules()), withRules(synced.rules()), `${name} ${family}`);
        } finally {
          rendered.close();
          synced.close();
        }
      }
    }
  });
}

test("nft takes every rendering, and lists then the daemon's table", async () => {
  for (const name of scenarioNames) {
    const text = scenarioManifest(name);
    for (const more of [[], ['--nodeport-addresses=0.0.0.0/0,::/0', '--masquerade-all']]) {
      const wanted = await wantedOfText(text, ...labFlags, '--mode=nftables', ...more);
      const documents = render(wanted);
      for (const [i, one] of wanted.families.entries()) {
        const rendered = new NftablesWorld(one.family);
        const synced = new NftablesWorld(one.family);
        synced.addresses = wanted.node.localAddresses;
        try {
          // Once more over itself: it replaces what is there.
          for (let load = 0; load < 2; load++) rendered.nftScript(documents[i]!.text);
          const driver = await synced.start(one.options);
          driver.serviceCIDRs = one.serviceCIDRs;
          await driver.to(one.table, true);
          assert.deepEqual(listTable(rendered), listTable(synced), `${name} ${one.family}`);
        } finally {
          await rendered.close();
          await synced.close();
        }
      }
    }
  }
});

test('ipset and iptables-restore take every rendering of ipvs mode', async () => {
  for (const name of scenarioNames) {
    const wanted = await wantedOfText(scenarioManifest(name), ...labFlags, '--mode=ipvs');
    const world = new IptablesWorld('nft');
    try {
      for (const { file, load, text } of render(wanted)) {
        // Virtual servers need a kernel with IPVS, and the device one with dummy.
        if (file.endsWith('ipset.save')) {
          world.run(['ipset', 'restore', '-exist'], text);
          const entries = (saved: string): string[] =>
            saved
              .split('\n')
              .filter((line) => line.startsWith('add '))
              .sort();
          const family = file.includes('IPv6') ? 'KUBE-6-' : 'KUBE-';
          const listed = entries(world.run(['ipset', 'save'])).filter(
            (line) => line.startsWith('add KUBE-6-') === (family === 'KUBE-6-'),
          );
          assert.deepEqual(listed, entries(text), `${name} ${file}`);
        } else if (file.endsWith('.rules')) {
          // A kernel without IPVS has no match of that name either.
          world.run(load.split(' '), text.replaceAll(/^.* -m ipvs .*\n/gm, ''));
        }
      }
    } finally {
      world.close();
    }
  }
});

test('affinity over IPv6: the one rule that nft 1.0.6 lists and cannot read is known', async () => {
  const wanted = await wantedOfText(
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'List',
      items: [
        {
          apiVersion: 'v1',
          kind: 'Service',
          metadata: { name: 'web' },
          spec: { clusterIP: 'fd00:10:96::1', sessionAffinity: 'ClientIP', ports: [{ port: 80 }] },
        },
        {
          apiVersion: 'discovery.k8s.io/v1',
          kind: 'EndpointSlice',
          metadata: { name: 'web-1', labels: { 'kubernetes.io/service-name': 'web' } },
          addressType: 'IPv6',
          ports: [{ name: '', port: 8080 }],
          endpoints: [{ addresses: ['fd00:10:244::1'] }],
        },
      ],
    }),
    '--mode=nftables',
    '--node-ip=fd00:31::11',
  );
  const [family] = wanted.families;
  assert.equal(family?.family, 'IPv6');
  const { rules } = nftablesContents(family, []);
  assert.ok(rules.some(({ chain }) => chain.startsWith('sticky-time-')));
  const [{ text } = assert.fail('no rendering')] = render(wanted);
  const world = new NftablesWorld('IPv6');
  try {
    world.nftScript(text);
  } catch {
    // A tool that cannot read it: then the first lines have said so.
    assert.match(text, /^# nft 1\.0\.6 cannot read/m);
  } finally {
    await world.close();
  }
});
