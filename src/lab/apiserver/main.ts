/** `pointsman lab-apiserver`: the embedded API server as a process of its own. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Command, CommanderError, Option } from 'commander';
import { writePrivateFile } from './certificates.ts';
import { defaultServiceCidrs } from './defaults.ts';
import { startApiServer } from './server.ts';
import { defaultLoadBalancerPools } from '../controllers/loadbalancer.ts';

interface Options {
  listen: string;
  dir: string;
  insecure: boolean;
  host: string[];
  token?: string;
  serviceCidr: string;
  loadBalancerPool: string;
  controllers: 'all' | 'none';
  historyLimit: string;
}

function parseListen(text: string): { host: string; port: number } {
  const match = /^\[?([^\]]+)\]?:(\d{1,5})$/.exec(text);
  if (match === null) throw new Error(`--listen ${text}: expected ADDRESS:PORT, such as 172.31.0.2:6443`);
  return { host: match[1] ?? '', port: Number(match[2]) };
}

function commaSeparated(text: string): string[] {
  return text.split(',').filter((one) => one !== '');
}

function collect(value: string, before: string[]): string[] {
  return [...before, value];
}

/**
 * Runs until SIGTERM or SIGINT. Writes `kubeconfig` (token), `admin.kubeconfig` (client certificate), `ca.pem` and
 * `token` into the directory, then one line on standard output: `ready URL`.
 */
export async function run(argv: readonly string[]): Promise<number> {
  const command = new Command('lab-apiserver')
    .description('runs the embedded Kubernetes API server of the lab')
    .exitOverride()
    .option('--listen <address:port>', 'where to listen', '127.0.0.1:6443')
    .requiredOption('--dir <directory>', 'where certificates and kubeconfig files go')
    .option('--insecure', 'plain HTTP', false)
    .option('--host <name>', 'a further name or address for the certificate (repeatable)', collect, [])
    .option('--token <token>', 'the bearer token; random if absent')
    .option('--service-cidr <cidrs>', 'ranges of cluster IPs', defaultServiceCidrs.join(','))
    .option(
      '--load-balancer-pool <cidrs>',
      'ranges for LoadBalancer Services; empty: none',
      defaultLoadBalancerPools.join(','),
    )
    .addOption(
      new Option('--controllers <which>', 'which controllers run').choices(['all', 'none']).default('all'),
    )
    .option('--history-limit <count>', 'events remembered of each resource', '20000');
  let options: Options;
  try {
    options = command.parse([...argv], { from: 'user' }).opts<Options>();
  } catch (error) {
    // commander has said what is wrong, or printed the help that was asked for.
    if (error instanceof CommanderError) return error.exitCode;
    throw error;
  }
  await mkdir(options.dir, { recursive: true });
  const server = await startApiServer({
    ...parseListen(options.listen),
    directory: join(options.dir, 'pki'),
    insecure: options.insecure,
    hosts: options.host,
    serviceCidrs: commaSeparated(options.serviceCidr),
    historyLimit: Number(options.historyLimit),
    ...(options.token === undefined ? {} : { token: options.token }),
    controllers: {
      workloads: options.controllers === 'all',
      loadBalancerPools: options.controllers === 'all' ? commaSeparated(options.loadBalancerPool) : [],
    },
  });
  await Promise.all([
    writePrivateFile(join(options.dir, 'kubeconfig'), server.kubeconfig()),
    writePrivateFile(join(options.dir, 'token'), server.token),
    ...(options.insecure
      ? []
      : [
          writePrivateFile(join(options.dir, 'admin.kubeconfig'), server.kubeconfig('certificate')),
          writePrivateFile(join(options.dir, 'ca.pem'), server.caPem),
        ]),
  ]);
  process.stdout.write(`ready ${server.url}\n`);
  await new Promise<void>((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
  await server.close();
  return 0;
}
