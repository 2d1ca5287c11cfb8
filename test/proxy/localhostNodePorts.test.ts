/** The process that node ports on localhost go through in nftables mode: its planned end, and what it counts. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { inNamespace } from '../support/namespace.ts';
import { Program, SwitchNode, setups } from './support/switchNode.ts';

const tcpPort = 30080;
const program = new Program();
after(() => program.close());

async function until(what: string, check: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + 60_000;
  while (!(await check())) {
    if (Date.now() > end) assert.fail(`not within a minute: ${what}`);
    await sleep(50);
  }
}

/** What a client on the node is told, in one line. */
async function ask(node: SwitchNode, ip: string): Promise<string> {
  const connection = node.connect(node.node, ip, tcpPort);
  const line = await connection.line();
  connection.close();
  return line;
}

test('clients that come by localhost are counted; at SIGTERM new ones are refused, and open connections may end', async () => {
  const node = new SwitchNode(program);
  try {
    const flags = ['--nftables-localhost-nodeports', '--service-counters=endpoints'];
    node.start(setups.nftables, flags);
    for (const ip of ['127.0.0.1', '::1'])
      await until(`${ip} answers\n${node.log}`, async () => (await ask(node, ip)).startsWith('hello '));
    const metrics = (): string =>
      inNamespace(node.node, ['curl', '-s', '-m', '30', 'http://127.0.0.1:10249/metrics']);
    /** Of the Service's TCP port, over IPv4. */
    const counted = (name: string): number =>
      Number(
        new RegExp(`^${name}\\{.*service="web",port="tcp".*ip_family="IPv4".*\\} (\\d+)$`, 'm').exec(
          metrics(),
        )?.[1] ?? 0,
      );
    const names = ['pointsman_service_connections_total', 'pointsman_endpoint_connections_total'];
    for (const name of names) await until(`${name} counts`, () => Promise.resolve(counted(name) > 0));
    const before = names.map(counted);
    for (let i = 0; i < 3; i++) assert.match(await ask(node, '127.0.0.1'), /^hello /);
    await until('the count of those', () =>
      Promise.resolve(names.every((name, i) => counted(name) === (before[i] as number) + 3)),
    );

    // A machine so busy that the five seconds pass in between gets another try.
    for (let attempt = 1; ; attempt++) {
      const held = node.connect(node.node, '127.0.0.1', tcpPort);
      assert.match(await held.line(), /^hello /);
      const begin = Date.now();
      const ended = node.stop('SIGTERM');
      await until('new connections are refused', async () =>
        /refused|errno 111/i.test(await ask(node, '127.0.0.1')),
      );
      const answer = await held.echo('still here');
      held.close();
      await ended;
      if (answer === 'still here') break;
      assert.ok(Date.now() - begin > 4000 && attempt < 10, `${answer}\n${node.log}`);
      node.start(setups.nftables, flags);
      await until('it answers again', async () => (await ask(node, '127.0.0.1')).startsWith('hello '));
    }
  } finally {
    await node.close();
  }
});
