/** Node ports on 127.0.0.1 and ::1 in nftables mode (`--nftables-localhost-nodeports`): the real program, real packets. */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { listenOn } from '../../../src/lab/net/sockets.ts';
import { closeDescriptor } from '../../../src/linux/ffi.ts';
import { withNetworkNamespace } from '../../../src/linux/netlink/namespace.ts';
import { Program, setups, SwitchNode, webService } from '../../proxy/support/switchNode.ts';
import { inNamespace } from '../../support/namespace.ts';

const flag = '--nftables-localhost-nodeports';
const tcpPort = 30080;
const udpPort = 30053;
const localhost = { IPv4: '127.0.0.1', IPv6: '::1' } as const;

const program = new Program();
after(() => program.close());

async function withNode(
  use: (node: SwitchNode) => Promise<void>,
  flags: readonly string[] = [flag],
  extra = '',
): Promise<void> {
  const node = new SwitchNode(program);
  try {
    node.start(setups.nftables, flags, extra);
    await programmed(node);
    await use(node);
  } finally {
    await node.close();
  }
}

/** Waits for rules and listeners of both families. */
async function programmed(node: SwitchNode): Promise<void> {
  await node.becomes((now) => (setups.nftables.programmed.test(now) ? undefined : now));
}

/** What a client in the namespace is told over TCP. */
async function ask(node: SwitchNode, namespace: string, ip: string, port = tcpPort): Promise<string> {
  const connection = node.connect(namespace, ip, port);
  const line = await connection.line(2000);
  connection.close();
  return line;
}

async function until(what: string, check: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + 60_000;
  while (!(await check())) {
    if (Date.now() > end) assert.fail(`not within a minute: ${what}`);
    await sleep(100);
  }
}

async function answersEverywhere(node: SwitchNode): Promise<void> {
  for (const [family, ip] of Object.entries(localhost)) {
    // Listeners follow the rules.
    await until(`TCP over ${family}\n${node.log}`, async () =>
      (await ask(node, node.node, ip)).startsWith('hello '),
    );
    await until(`UDP over ${family}`, async () =>
      /^hello .* \?$/.test(await node.askUDP(node.node, ip, ip, udpPort)),
    );
  }
}

const refused = /refused|errno 111/i;

describe('node ports on localhost', { concurrency: 2 }, () => {
  test('answer over TCP and UDP, IPv4 and IPv6, to the node alone, without route_localnet', async () => {
    await withNode(async (node) => {
      await answersEverywhere(node);
      // The endpoint sees an address of the node.
      assert.match(await ask(node, node.node, '127.0.0.1'), /10\.244\.1\.1$/);
      for (const name of ['all', 'lo', 'eth0', 'default'])
        assert.equal(
          inNamespace(node.node, ['cat', `/proc/sys/net/ipv4/conf/${name}/route_localnet`]).trim(),
          '0',
        );
      // A neighbour that sends packets to 127.0.0.1 and ::1 over the wire is not heard.
      inNamespace(node.client, ['sysctl', '-qw', 'net.ipv4.conf.all.route_localnet=1']);
      for (const words of [
        'addr del 127.0.0.1/8 dev lo',
        'addr del ::1/128 dev lo',
        'route add 127.0.0.1/32 via 10.244.2.1 dev eth0',
        'route add ::1/128 via fd00:10:244:2::1 dev eth0',
      ])
        inNamespace(node.client, ['ip', ...words.split(' ')]);
      const counted = (): number =>
        Number(
          /eth0:(?:\s+\d+){8}\s+\d+\s+(\d+)/.exec(inNamespace(node.client, ['cat', '/proc/net/dev']))?.[1],
        );
      const sent = counted();
      for (const ip of Object.values(localhost))
        assert.equal(await ask(node, node.client, ip), 'silence', ip);
      assert.ok(counted() > sent, 'the packets did leave');
      // Node ports on the node's own address are as ever.
      assert.match(await ask(node, node.client, '10.244.2.1'), /^hello /);
      assert.equal(await ask(node, node.node, '127.0.0.2').then((line) => refused.test(line)), true);
    });
  });

  test('go with the Service and its endpoints, come back after SIGKILL, and follow a changed port', async () => {
    await withNode(async (node) => {
      await answersEverywhere(node);
      await node.stop('SIGKILL');
      assert.match(await ask(node, node.node, '127.0.0.1'), refused);
      node.start(setups.nftables, [flag]);
      await until('the ports answer after a restart', async () =>
        (await ask(node, node.node, '::1')).startsWith('hello '),
      );
      await answersEverywhere(node);
      const moved = [{ name: 'tcp', protocol: 'TCP', port: 80, targetPort: 8080, nodePort: 30081 }];
      node.api.apply(webService({ ports: moved }));
      for (const ip of Object.values(localhost)) {
        await until('the new port', async () => (await ask(node, node.node, ip, 30081)).startsWith('hello '));
        await until('the old port is closed', async () => refused.test(await ask(node, node.node, ip)));
      }
      const held = node.connect(node.node, '127.0.0.1', 30081);
      assert.match(await held.line(), /^hello /);
      node.api.delete(webService());
      for (const ip of Object.values(localhost))
        await until('the port is closed', async () => refused.test(await ask(node, node.node, ip, 30081)));
      // As in the kernel's modes: who is connected stays so.
      assert.equal(await held.echo('still here'), 'still here');
      held.close();
    });
  });

  test('answer under externalTrafficPolicy Local without a local endpoint, for the node itself asks', async () => {
    await withNode(async (node) => {
      const before = await node.snapshot();
      node.api.apply(webService({ externalTrafficPolicy: 'Local', healthCheckNodePort: 31999 }));
      for (const [addressType, address] of [
        ['IPv4', '10.244.1.9'],
        ['IPv6', 'fd00:10:244:1::9'],
      ] as const)
        node.api.apply(node.slice(addressType, address, 'n2'));
      await node.becomes((now) => (/external-local/.test(now) && now !== before ? undefined : now));
      await answersEverywhere(node);
    });
  });

  test('a port that another program has costs itself alone, in one family, with a message', async () => {
    const node = new SwitchNode(program);
    let taken: number | undefined;
    try {
      taken = withNetworkNamespace(`/run/netns/${node.node}`, () =>
        listenOn('tcp', { ip: '127.0.0.1', port: tcpPort }),
      );
      node.start(setups.nftables, [flag]);
      await programmed(node);
      await until('the other family', async () => (await ask(node, node.node, '::1')).startsWith('hello '));
      await until('the other protocol', async () =>
        (await node.askUDP(node.node, '127.0.0.1', '127.0.0.1', udpPort)).startsWith('hello '),
      );
      // The other program keeps the port; nobody there says anything.
      assert.equal(await ask(node, node.node, '127.0.0.1'), 'silence');
      const [complaint = '', ...more] = node.log
        .split('\n')
        .filter((line) => line.includes('A node port does not answer on localhost: cannot listen'));
      for (const word of ['EADDRINUSE', 'shop/web:tcp', '127.0.0.1', 'port=30080', 'another node port'])
        assert.ok(complaint.includes(word), complaint);
      assert.deepEqual(more, []);
      const metrics = (): string =>
        inNamespace(node.node, ['curl', '-s', '-m', '30', 'http://127.0.0.1:10249/metrics']);
      const ports = (state: string, family: string): string =>
        `pointsman_localhost_node_ports{state="${state}",ip_family="${family}"}`;
      const before = metrics();
      for (const line of [
        `${ports('listening', 'IPv4')} 1`,
        `${ports('unavailable', 'IPv4')} 1`,
        `${ports('listening', 'IPv6')} 2`,
        `${ports('unavailable', 'IPv6')} 0`,
      ])
        assert.ok(before.includes(`${line}\n`), before);
      closeDescriptor(taken);
      taken = undefined;
      // Any change of the Service is a new try.
      node.api.apply(webService({ sessionAffinity: 'ClientIP' }));
      await until('the port, once it is free', async () =>
        (await ask(node, node.node, '127.0.0.1')).startsWith('hello '),
      );
      assert.ok(metrics().includes(`${ports('unavailable', 'IPv4')} 0\n`));
    } finally {
      if (taken !== undefined) closeDescriptor(taken);
      await node.close();
    }
  });

  test('nodePortAddresses without a loopback address switch them off, family by family, with a warning', async () => {
    await withNode(
      async (node) => {
        assert.match(await ask(node, node.node, '127.0.0.1'), refused);
        await until('IPv6, which is not restricted', async () =>
          (await ask(node, node.node, '::1')).startsWith('hello '),
        );
        assert.match(node.log, /nodePortAddresses.*127\.0\.0\.1/);
      },
      [flag],
      'nodePortAddresses: [10.244.2.0/24]\n',
    );
  });

  test('nodePortAddresses with loopback addresses, or primary, keep them; without the flag there are none', async () => {
    await withNode(answersEverywhere, [flag], 'nodePortAddresses: [10.244.2.0/24, 127.0.0.0/8, "::1/128"]\n');
    await withNode(answersEverywhere, [flag], 'nodePortAddresses: [primary]\n');
    await withNode(async (node) => {
      for (const ip of Object.values(localhost)) assert.match(await ask(node, node.node, ip), refused);
    }, []);
  });
});
