/** A dataplane at work in a network namespace of its own, and the kernel's rules in a form that can be compared. */
import { execFileSync } from 'node:child_process';
import type { Family } from '../../../src/api/objects.ts';
import type { DataplaneReport } from '../../../src/dataplane/dataplane.ts';
import {
  IptablesDataplane,
  type IptablesDataplaneOptions,
  type IptablesDependencies,
} from '../../../src/dataplane/iptables/iptablesDataplane.ts';
import { canonicalRule } from '../../../src/linux/iptables/canonical.ts';
import { openFingerprint } from '../../../src/linux/iptables/fingerprint.ts';
import type { IptablesOptions } from '../../../src/linux/iptables/iptables.ts';
import { parseSave } from '../../../src/linux/iptables/save.ts';
import { AccountingCounters } from '../../../src/linux/netlink/nfacct.ts';
import { withNetworkNamespace } from '../../../src/linux/netlink/namespace.ts';
import { NetlinkSocket } from '../../../src/linux/netlink/socket.ts';
import type { Backend } from '../../../src/linux/iptables/features.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import type { RoutingTable } from '../../../src/services/types.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../../support/namespace.ts';
import { changesBetween, ipv4Options, ipv6Options, makeTable } from './routes.ts';

export const backends: readonly Backend[] = ['nft', 'legacy'];

/** chain → canonical rules, `TABLE CHAIN` as the key. Rules of dispatch chains are sorted, but for the tail. */
export type Rules = Record<string, string[]>;

const sets = new Set(['KUBE-SERVICES', 'KUBE-NODEPORTS', 'KUBE-EXTERNAL-SERVICES', 'KUBE-PROXY-FIREWALL']);

export function normalise(save: string): Rules {
  const rules: Rules = {};
  for (const { table, chains } of parseSave(save)) {
    for (const chain of chains.values()) {
      const list = chain.rules.map(canonicalRule);
      const tail = list.filter((rule) => rule.includes('this must be the last rule'));
      const head = list.filter((rule) => !tail.includes(rule));
      const sorted = sets.has(chain.name) ? head.sort() : head;
      const inOrder = list.slice(list.length - tail.length);
      rules[`${table} ${chain.name}`] = [...sorted, ...inOrder];
    }
  }
  return Object.fromEntries(Object.entries(rules).sort(([a], [b]) => (a < b ? -1 : 1)));
}

export class World {
  readonly namespace = makeNamespace();
  readonly backend: Backend;
  readonly family: Family;
  readonly program: string;
  readonly env: Record<string, string>;
  readonly reports: DataplaneReport[] = [];
  readonly resyncs: string[] = [];
  addresses: readonly string[] = ['127.0.0.1', '192.0.2.10'];
  readonly #commits = { commits: 0 };
  readonly #counters: AccountingCounters;
  readonly #countersWork: boolean;

  constructor(backend: Backend, family: Family = 'IPv4') {
    this.backend = backend;
    this.family = family;
    this.program = `${family === 'IPv6' ? 'ip6tables' : 'iptables'}-${backend}`;
    // The legacy lock is a file that all namespaces of the machine share: this one is our own.
    this.env = { XTABLES_LOCKFILE: `/tmp/${this.namespace}.lock` };
    this.#counters = this.inside(() => new AccountingCounters());
    this.#countersWork = this.#counters.probe();
  }

  inside<T>(action: () => T): T {
    return withNetworkNamespace(`/run/netns/${this.namespace}`, action);
  }

  get options(): IptablesOptions {
    return { prefix: ['ip', 'netns', 'exec', this.namespace], env: this.env, program: this.program };
  }

  dataplane(
    options: Partial<IptablesDataplaneOptions> = {},
    deps: Partial<IptablesDependencies> = {},
  ): IptablesDataplane {
    return new IptablesDataplane(
      { ...(this.family === 'IPv6' ? ipv6Options : ipv4Options), localhostNodePorts: true, ...options },
      {
        log: silentLogger,
        report: (report) => this.reports.push(report),
        events: { resync: (reason) => this.resyncs.push(reason) },
        localAddresses: () => this.addresses,
        ensureCounter: (name) => {
          if (this.#countersWork) this.#counters.ensure(name);
          return this.#countersWork;
        },
        tcpBeLiberal: () => false,
        // Time stands still: no test depends on how long it takes.
        fingerprint: () =>
          this.inside(() => openFingerprint(this.backend, this.family, this.#commits, () => 0)),
        iptables: this.options,
        netlink: (options) => this.inside(() => new NetlinkSocket(options)),
        checkInterval: 3_600_000,
        ...deps,
      },
    );
  }

  run(argv: readonly string[], input = ''): string {
    return inNamespace(this.namespace, argv, { input, env: { ...process.env, ...this.env }, stdio: 'pipe' });
  }

  iptables(args: string): string {
    return this.run([this.program, '-w', '5', ...args.split(' ')]);
  }

  save(): string {
    return ['filter', 'nat', 'mangle']
      .map((table) => this.run([`${this.program}-save`, '-t', table]))
      .join('');
  }

  rules(): Rules {
    return normalise(this.save());
  }

  close(): void {
    this.#counters.close();
    removeNamespace(this.namespace);
    execFileSync('rm', ['-f', this.env['XTABLES_LOCKFILE'] as string]);
  }
}

/** Applies tables one after the other, as the daemon would. */
export class Driver {
  table: RoutingTable;
  readonly dataplane: IptablesDataplane;

  constructor(dataplane: IptablesDataplane, family: Family = 'IPv4') {
    this.dataplane = dataplane;
    this.table = makeTable([], family);
  }

  async to(table: RoutingTable, full = false): Promise<{ full: boolean }> {
    const changes = changesBetween(this.table, table);
    this.table = table;
    return await this.dataplane.sync({ table, changes, serviceCIDRs: [], full });
  }
}
