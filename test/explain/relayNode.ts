/**
 * A node's proxy in userspace mode, as a process of its own: its listeners live where it runs.
 * `node --import tsx relayNode.ts MANIFESTS iptables-nft|iptables-legacy`; prints a line when it listens.
 */
import { readFileSync } from 'node:fs';
import { PortAllocator } from '../../src/dataplane/userspace/portAllocator.ts';
import { SocketBudget } from '../../src/dataplane/userspace/socketBudget.ts';
import { UserspaceDataplane } from '../../src/dataplane/userspace/userspaceDataplane.ts';
import { silentLogger } from '../../src/log/logger.ts';
import { nodeOptions, routesFor } from './liveNode.ts';

const [file = '', program = ''] = process.argv.slice(2);
const sockets = new SocketBudget(500, silentLogger);
for (const family of ['IPv4', 'IPv6'] as const) {
  const dataplane = new UserspaceDataplane(
    {
      ...nodeOptions(family, 'userspace'),
      bindAddress: '0.0.0.0',
      udpIdleTimeout: 30_000,
      checkInterval: 2 ** 30,
    },
    {
      log: silentLogger,
      events: { resync: () => undefined },
      report: () => undefined,
      sockets,
      ports: new PortAllocator(undefined),
      iptables: { program: family === 'IPv6' ? program.replace('iptables', 'ip6tables') : program },
    },
  );
  await dataplane.start();
  await dataplane.sync({ ...routesFor(family, readFileSync(file, 'utf8')), serviceCIDRs: [], full: true });
}
console.log('listens');
// Until it is killed.
setInterval(() => undefined, 2 ** 30);
