/** From what is wanted and what the kernel holds to the operations that lead from one to the other. Pure. */
import {
  formatAddressPort,
  parseAddressPort,
  printIdentity,
  printRealServer,
  printServer,
  type RealServer,
  type ServerIdentity,
  type VirtualServer,
} from '../../linux/netlink/ipvs/objects.ts';
import { printHostAddress } from '../../linux/netlink/route.ts';
import { deviceName, setIds, setName, type SetId } from './names.ts';
import type { Family } from '../../api/objects.ts';
import { Touched, type Wanted } from './wanted.ts';

export interface AppliedServer {
  readonly server: VirtualServer;
  /** Weight by `ip:port`; -1 where the real server is not masqueraded and has to be edited. */
  readonly reals: Map<string, number>;
}

/** What the kernel holds, as far as we know: read from it by a full sync, kept up by operations. */
export interface Applied {
  readonly servers: Map<string, AppliedServer>;
  readonly sets: Map<SetId, Set<string>>;
  readonly addresses: Set<string>;
}

export type Operation =
  | {
      readonly kind: 'addEntries' | 'deleteEntries';
      readonly set: SetId;
      readonly entries: readonly string[];
    }
  | { readonly kind: 'addServer' | 'editServer'; readonly key: string; readonly server: VirtualServer }
  | { readonly kind: 'deleteServer'; readonly key: string; readonly server: ServerIdentity }
  | {
      readonly kind: 'addReal' | 'restoreReal' | 'retireReal';
      readonly key: string;
      readonly server: ServerIdentity;
      /** `ip:port` */
      readonly real: string;
    }
  | { readonly kind: 'addAddress' | 'removeAddress'; readonly address: string };

/** Each list in the order in which it is to be done. */
export interface Plan {
  /** First of all: entries that rules and virtual servers count on. */
  readonly before: readonly Operation[];
  /** Virtual servers, who is behind them and no longer behind them, then addresses: one answers only when somebody is there. */
  readonly add: readonly Operation[];
  /** Last: what answers no longer, then its entries. */
  readonly remove: readonly Operation[];
}

export interface PlanContext {
  /** A virtual server that is not wanted may be deleted. */
  readonly mayDelete: (server: VirtualServer, key: string) => boolean;
  /** The real server is being retired by us. */
  readonly retiring: (key: string, real: string) => boolean;
  /** What has weight 0 was left so by an earlier process. */
  readonly first: boolean;
}

export function plan(wanted: Wanted, applied: Applied, touched: Touched, context: PlanContext): Plan {
  const before: Operation[] = [];
  const add: Operation[] = [];
  const remove: Operation[] = [];
  const lateEntries: Operation[] = [];
  for (const id of setIds) {
    const adding: string[] = [];
    const deleting: string[] = [];
    const have = applied.sets.get(id)!;
    const want = wanted.entries(id);
    for (const text of touched.entries.get(id)!) {
      if (want.has(text) && !have.has(text)) adding.push(text);
      else if (!want.has(text) && have.has(text)) deleting.push(text);
    }
    if (adding.length > 0) before.push({ kind: 'addEntries', set: id, entries: adding });
    if (deleting.length > 0) lateEntries.unshift({ kind: 'deleteEntries', set: id, entries: deleting });
  }
  for (const key of touched.servers) planServer(key, wanted, applied, context, add, remove);
  for (const address of touched.addresses) {
    if (wanted.addresses.has(address)) {
      if (!applied.addresses.has(address)) add.push({ kind: 'addAddress', address });
    } else if (applied.addresses.has(address)) remove.push({ kind: 'removeAddress', address });
  }
  return { before, add, remove: [...remove, ...lateEntries] };
}

/** Everything that is wanted or there. */
export function everything(wanted: Wanted, applied: Applied): Touched {
  const touched = new Touched();
  for (const key of wanted.serverKeys) touched.servers.add(key);
  for (const key of applied.servers.keys()) touched.servers.add(key);
  for (const id of setIds) {
    const texts = touched.entries.get(id)!;
    for (const text of wanted.entries(id).keys()) texts.add(text);
    for (const text of applied.sets.get(id)!) texts.add(text);
  }
  for (const address of wanted.addresses.keys()) touched.addresses.add(address);
  for (const address of applied.addresses) touched.addresses.add(address);
  return touched;
}

function planServer(
  key: string,
  wanted: Wanted,
  applied: Applied,
  context: PlanContext,
  add: Operation[],
  remove: Operation[],
): void {
  const want = wanted.server(key);
  const have = applied.servers.get(key);
  if (want === undefined) {
    if (have !== undefined && context.mayDelete(have.server, key))
      remove.push({ kind: 'deleteServer', key, server: have.server });
    return;
  }
  const { server } = want;
  if (have === undefined) add.push({ kind: 'addServer', key, server });
  else if (!sameServer(have.server, server)) add.push({ kind: 'editServer', key, server });
  const names = new Set<string>();
  for (const { key: real } of want.endpoints) {
    names.add(real);
    const weight = have?.reals.get(real);
    if (weight === undefined) add.push({ kind: 'addReal', key, server, real });
    // Whoever else sets a weight has his reasons.
    else if (weight === -1 || (weight === 0 && (context.first || context.retiring(key, real))))
      add.push({ kind: 'restoreReal', key, server, real });
  }
  if (have === undefined) return;
  for (const real of have.reals.keys())
    if (!names.has(real) && !context.retiring(key, real)) add.push({ kind: 'retireReal', key, server, real });
}

export function sameServer(a: VirtualServer, b: VirtualServer): boolean {
  return (
    a.scheduler === b.scheduler &&
    a.flags === b.flags &&
    a.timeout === b.timeout &&
    a.prefixLength === b.prefixLength
  );
}

/** The real server of that identity, as this mode makes it. */
export function realServer(text: string, weight = 1): RealServer {
  const target = parseAddressPort(text);
  if (target === undefined) throw new Error(`"${text}" is no endpoint's address and port`);
  return { ...target, forwarding: 'masquerade', weight, upperThreshold: 0, lowerThreshold: 0 };
}

/** As AppliedServer has them. */
export function weightsOf(reals: readonly RealServer[]): Map<string, number> {
  const weights = new Map<string, number>();
  for (const real of reals) weights.set(realKey(real), real.forwarding === 'masquerade' ? real.weight : -1);
  return weights;
}

export function realKey(real: { readonly address: string; readonly port: number }): string {
  return formatAddressPort(real.address, real.port);
}

/** The command of ipvsadm, ipset or ip that does the same. */
export function printOperation(operation: Operation, family: Family): string {
  switch (operation.kind) {
    case 'addEntries':
    case 'deleteEntries': {
      const verb = operation.kind === 'addEntries' ? 'add' : 'del';
      return operation.entries
        .map((text) => `ipset ${verb} ${setName(operation.set, family)} ${text}`)
        .join('\n');
    }
    case 'addServer':
      return `ipvsadm ${printServer(operation.server)}`;
    case 'editServer':
      return `ipvsadm ${printServer(operation.server, '-E')}`;
    case 'deleteServer':
      return `ipvsadm -D ${printIdentity(operation.server)}`;
    case 'addReal':
      return `ipvsadm ${printRealServer(operation.server, realServer(operation.real))}`;
    case 'restoreReal':
      return `ipvsadm ${printRealServer(operation.server, realServer(operation.real), '-e')}`;
    case 'retireReal':
      return `ipvsadm ${printRealServer(operation.server, realServer(operation.real, 0), '-e')}`;
    case 'addAddress':
      return printHostAddress('add', deviceName, operation.address);
    case 'removeAddress':
      return printHostAddress('del', deviceName, operation.address);
  }
}
