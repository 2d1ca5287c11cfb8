/** Wanted against what IPVS mode has in the kernel: virtual and real servers, sets, addresses of kube-ipvs0, rules. Pure. */
import { chainsOf, deviceName, setIds, setName, type SetId } from '../dataplane/ipvs/names.ts';
import { nodeSideOf } from '../dataplane/ipvs/nodeSide.ts';
import { ownership } from '../dataplane/ipvs/ownership.ts';
import {
  everything,
  plan,
  printOperation,
  realServer,
  type Applied,
  type AppliedServer,
  type Operation,
} from '../dataplane/ipvs/plan.ts';
import { canonical } from '../dataplane/ipvs/readRules.ts';
import { jumps, rulesOf, type RuleSet } from '../dataplane/ipvs/rules.ts';
import { settingsOf } from '../dataplane/ipvs/settings.ts';
import { translate } from '../dataplane/ipvs/translate.ts';
import { Wanted as Objects } from '../dataplane/ipvs/wanted.ts';
import type { SavedTable } from '../linux/iptables/save.ts';
import { printRealServer, printServer } from '../linux/netlink/ipvs/objects.ts';
import { cidrContains } from '../services/ip.ts';
import type { Wanted, WantedFamily } from '../render/wanted.ts';
import { unmatched, type Difference } from './difference.ts';

/** Of one family. */
export interface IpvsState {
  /** By serverKey. */
  readonly servers: ReadonlyMap<string, AppliedServer>;
  /** Entries as ipset prints them; a set that is missing is missing here. */
  readonly sets: ReadonlyMap<SetId, ReadonlySet<string>>;
  /** Of kube-ipvs0; undefined if there is no such device. */
  readonly addresses: ReadonlySet<string> | undefined;
  /** Of all other interfaces: not loopback, not link-local. */
  readonly nodeAddresses: ReadonlySet<string>;
}

export function diffIpvs(
  { config }: Pick<Wanted, 'config'>,
  { family, options, table }: WantedFamily,
  state: IpvsState,
  iptables: readonly SavedTable[],
  randomFully = true,
): Difference[] {
  const { scheduler, excludeCIDRs } = config.ipvs;
  const settings = settingsOf({ ...options, scheduler, excludeCIDRs }, randomFully);
  const node = nodeSideOf(options.nodePortAddresses, state.nodeAddresses);
  const wanted = new Objects();
  const owners = new Map<string, string>();
  for (const route of table.routes.values()) {
    const objects = translate(route, settings, node);
    wanted.add(objects);
    for (const [id, text] of objects.entries) owners.set(`${id} ${text}`, route.port.name);
  }
  const found: Difference[] = [];
  const add = (difference: Omit<Difference, 'family' | 'servicePort'>, servicePort = ''): void => {
    found.push({ family, servicePort, ...difference });
  };
  for (const id of setIds) {
    if (state.sets.has(id)) continue;
    add({ kind: 'missing', object: 'set', where: setName(id, family), wanted: [], actual: [] });
  }
  if (state.addresses === undefined)
    add({ kind: 'missing', object: 'device', where: deviceName, wanted: [], actual: [] });
  const applied: Applied = {
    servers: new Map(state.servers),
    sets: new Map(setIds.map((id) => [id, new Set(state.sets.get(id))])),
    addresses: new Set(state.addresses),
  };
  const ours = ownership(applied, node);
  const steps = plan(wanted, applied, everything(wanted, applied), {
    mayDelete: (server) =>
      ours(server) && !settings.excluded.some((one) => cidrContains(one, server.address)),
    // On its way out: no new connections, and the old ones may end.
    retiring: (key, real) =>
      applied.servers.get(key)?.reals.get(real) === 0 &&
      wanted.server(key)?.endpoints.some((endpoint) => endpoint.key === real) !== true,
    first: false,
  });
  for (const operation of [...steps.before, ...steps.add, ...steps.remove]) {
    if ('entries' in operation) {
      const missing = operation.kind === 'addEntries';
      const where = setName(operation.set, family);
      for (const entry of operation.entries) {
        const sides = missing
          ? { kind: 'missing', wanted: [`add ${where} ${entry}`], actual: [] }
          : { kind: 'extra', wanted: [], actual: [`add ${where} ${entry}`] };
        add(
          { object: 'element', where, ...sides } as Omit<Difference, 'family' | 'servicePort'>,
          owners.get(`${operation.set} ${entry}`),
        );
      }
    } else {
      const key = 'key' in operation ? operation.key : '';
      add(differenceOf(operation, applied, family), wanted.server(key)?.port.name);
    }
  }
  diffRules(
    rulesOf(settings, (id) => wanted.filled(id), wanted.outFilter),
    iptables,
    add,
  );
  return found;
}

type EntryOperation = Extract<Operation, { readonly entries: readonly string[] }>;

type Add = (difference: Omit<Difference, 'family' | 'servicePort'>, servicePort?: string) => void;

function differenceOf(
  operation: Exclude<Operation, EntryOperation>,
  { servers }: Applied,
  family: Difference['family'],
): Omit<Difference, 'family' | 'servicePort'> {
  const change = printOperation(operation, family).replace(/^ipvsadm /, '');
  if ('address' in operation) {
    const { address } = operation;
    return operation.kind === 'addAddress'
      ? { kind: 'missing', object: 'address', where: deviceName, wanted: [address], actual: [] }
      : { kind: 'extra', object: 'address', where: deviceName, wanted: [], actual: [address] };
  }
  const { kind, key } = operation;
  const there = servers.get(key);
  const have = there === undefined ? [] : [printServer(there.server)];
  switch (kind) {
    case 'addServer':
      return { kind: 'missing', object: 'virtual server', where: key, wanted: [change], actual: [] };
    case 'editServer': {
      const wanted = [printServer(operation.server)];
      return { kind: 'altered', object: 'virtual server', where: key, wanted, actual: have };
    }
    case 'deleteServer':
      return { kind: 'extra', object: 'virtual server', where: key, wanted: [], actual: have };
    case 'addReal':
      return { kind: 'missing', object: 'real server', where: key, wanted: [change], actual: [] };
    case 'retireReal':
    case 'restoreReal': {
      const weight = there?.reals.get(operation.real) ?? 1;
      const line = printRealServer(operation.server, realServer(operation.real, Math.max(weight, 0)));
      // It stands for ways of forwarding that are not ours.
      const actual = [weight < 0 ? `${line.replace(/ -m\b/, '')} (not masqueraded)` : line];
      if (kind === 'retireReal')
        return { kind: 'extra', object: 'real server', where: key, wanted: [], actual };
      const wanted = [printRealServer(operation.server, realServer(operation.real))];
      return { kind: 'altered', object: 'real server', where: key, wanted, actual };
    }
  }
}

function diffRules(rules: RuleSet, actual: readonly SavedTable[], add: Add): void {
  for (const table of ['mangle', 'nat', 'filter'] as const) {
    const have = actual.find((one) => one.table === table)?.chains;
    for (const chain of chainsOf[table]) {
      const where = `${table} ${chain}`;
      const wanted = rules[table].filter((rule) => rule.chain === chain).map(({ args }) => args);
      const print = (args: string): string => `-A ${chain} ${args}`;
      const there = have?.get(chain)?.rules;
      if (there === undefined) {
        add({ kind: 'missing', object: 'chain', where, wanted: wanted.map(print), actual: [] });
        continue;
      }
      const { missing, extra } = unmatched(wanted, there, canonical);
      for (const args of missing)
        add({ kind: 'missing', object: 'rule', where, wanted: [print(args)], actual: [] });
      for (const args of extra)
        add({ kind: 'extra', object: 'rule', where, wanted: [], actual: [print(args)] });
      if (missing.length > 0 || extra.length > 0) continue;
      if (wanted.every((args, i) => canonical(args) === canonical(there[i] ?? ''))) continue;
      const sides = { wanted: wanted.map(print), actual: there.map(print) };
      add({ kind: 'altered', object: 'rule', where: `${where} (order)`, ...sides });
    }
    for (const jump of jumps) {
      if (jump.table !== table) continue;
      const there = have?.get(jump.from)?.rules ?? [];
      if (there.some((args) => canonical(args) === canonical(jump.args))) continue;
      const where = `${table} ${jump.from}`;
      add({ kind: 'missing', object: 'jump', where, wanted: [`-I ${jump.from} ${jump.args}`], actual: [] });
    }
  }
}
