/** nftables dataplanes at work in a network namespace of their own. */
import type { Family } from '../../../src/api/objects.ts';
import type { DataplaneOptions, DataplaneReport } from '../../../src/dataplane/dataplane.ts';
import type { NftablesOptions } from '../../../src/dataplane/nftables/layout.ts';
import {
  NftablesDataplane,
  type NftablesDependencies,
} from '../../../src/dataplane/nftables/nftablesDataplane.ts';
import { withNetworkNamespace } from '../../../src/linux/netlink/namespace.ts';
import { silentLogger } from '../../../src/log/logger.ts';
import type { RoutingTable } from '../../../src/services/types.ts';
import { inNamespace, makeNamespace, removeNamespace } from '../../support/namespace.ts';
import { changesBetween, ipv4Options, ipv6Options, makeTable } from '../iptables/routes.ts';

export class World {
  readonly namespace: string;
  readonly family: Family;
  readonly reports: DataplaneReport[] = [];
  readonly resyncs: string[] = [];
  addresses: readonly string[] = ['127.0.0.1', '192.0.2.10'];
  addressesChanged: () => void = () => undefined;
  onResync: () => void = () => undefined;
  readonly #dataplanes: NftablesDataplane[] = [];
  readonly #own: boolean;

  constructor(family: Family = 'IPv4', namespace?: string) {
    this.family = family;
    this.#own = namespace === undefined;
    this.namespace = namespace ?? makeNamespace();
  }

  get options(): DataplaneOptions {
    return this.family === 'IPv6'
      ? { ...ipv6Options, nodePortAddresses: ['fd00:31::10/128'] }
      : { ...ipv4Options, nodePortAddresses: ['192.0.2.10/32'] };
  }

  /** A started dataplane. */
  async start(
    options: Partial<NftablesOptions> = {},
    deps: Partial<NftablesDependencies> = {},
  ): Promise<Driver> {
    const dataplane = new NftablesDataplane(
      { ...this.options, ...options },
      {
        log: silentLogger,
        report: (report) => this.reports.push(report),
        events: {
          resync: (reason) => {
            this.resyncs.push(reason);
            this.onResync();
          },
        },
        localAddresses: () => this.addresses,
        watchAddresses: (callback) => {
          this.addressesChanged = callback;
          return () => undefined;
        },
        ...deps,
      },
    );
    this.#dataplanes.push(dataplane);
    await withNetworkNamespace(`/run/netns/${this.namespace}`, () => dataplane.start());
    return new Driver(dataplane, this.family);
  }

  nft(...argv: string[]): string {
    return inNamespace(this.namespace, ['nft', ...argv], { stdio: ['ignore', 'pipe', 'pipe'] });
  }

  nftScript(script: string): void {
    inNamespace(this.namespace, ['nft', '-f', '-'], { input: script, stdio: ['pipe', 'pipe', 'pipe'] });
  }

  get table(): string {
    return this.family === 'IPv6' ? 'ip6' : 'ip';
  }

  list(): string {
    return this.nft('list', 'table', this.table, 'kube-proxy');
  }

  async close(): Promise<void> {
    for (const dataplane of this.#dataplanes) await dataplane.stop();
    if (this.#own) removeNamespace(this.namespace);
  }
}

/** Applies tables one after the other, as the daemon would. */
export class Driver {
  table: RoutingTable;
  serviceCIDRs: readonly string[] = [];
  readonly dataplane: NftablesDataplane;

  constructor(dataplane: NftablesDataplane, family: Family) {
    this.dataplane = dataplane;
    this.table = makeTable([], family);
  }

  async to(table: RoutingTable, full = false): Promise<{ full: boolean }> {
    const changes = changesBetween(this.table, table);
    this.table = table;
    return await this.dataplane.sync({ table, changes, serviceCIDRs: this.serviceCIDRs, full });
  }

  async full(): Promise<{ full: boolean }> {
    return await this.to(this.table, true);
  }
}
