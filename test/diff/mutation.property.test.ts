/** Equal states have no difference, and whatever one thing is taken away, added or altered is reported: in every mode. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { firewallChain } from '../../src/dataplane/iptables/names.ts';
import type { AppliedServer } from '../../src/dataplane/ipvs/plan.ts';
import { jumps as ipvsJumps, printRules } from '../../src/dataplane/ipvs/rules.ts';
import { setIds, type SetId } from '../../src/dataplane/ipvs/names.ts';
import { printDifference, type Difference } from '../../src/diff/difference.ts';
import { diffIptables } from '../../src/diff/iptablesDiff.ts';
import { diffIpvs, type IpvsState } from '../../src/diff/ipvsDiff.ts';
import { diffNftables } from '../../src/diff/nftablesDiff.ts';
import { diffUserspace } from '../../src/diff/userspaceDiff.ts';
import { parseSave, type SavedTable } from '../../src/linux/iptables/save.ts';
import { formatAddressPort, serverKey } from '../../src/linux/netlink/ipvs/objects.ts';
import { printRule, type TableContents } from '../../src/linux/netlink/nftables/print.ts';
import { renderIptables } from '../../src/render/iptables.ts';
import { ipvsContents } from '../../src/render/ipvs.ts';
import { nftablesContents } from '../../src/render/nftables.ts';
import { renderUserspace } from '../../src/render/userspace.ts';
import type { Wanted, WantedFamily } from '../../src/render/wanted.ts';
import { RouteTracker } from '../../src/services/routeTracker.ts';
import { objectsOf, serviceArbitrary, type Spec } from '../explain/generated.ts';
import { labFlags, scenarioManifest, wantedOfText } from '../render/support.ts';

const runs = Number(process.env['DIFF_RUNS'] ?? 150);
const clusterArbitrary = fc.record({
  services: fc.array(serviceArbitrary, { minLength: 1, maxLength: 3 }),
  place: fc.nat(),
  how: fc.constantFrom('remove', 'add', 'alter'),
});

interface Subject {
  readonly wanted: Wanted;
  readonly family: WantedFamily;
}

async function makeSubject(mode: string): Promise<(services: readonly Spec[]) => Subject> {
  const wanted = await wantedOfText(
    scenarioManifest('nodeport'),
    ...labFlags,
    `--mode=${mode}`,
    '--family=IPv4',
  );
  const base = wanted.families[0] ?? assert.fail('no family');
  return (services) => {
    const tracker = new RouteTracker({ family: 'IPv4', nodeName: 'node-1' });
    services.forEach((spec, n) => {
      const [object, endpoints] = objectsOf(spec, n);
      tracker.upsertService(object);
      tracker.upsertSlice(endpoints);
    });
    tracker.take();
    return { wanted, family: { ...base, table: tracker.table } };
  };
}

/** One that can be chosen by number: what is done, in words, and the state after it. */
interface Mutation<T> {
  readonly what: string;
  readonly state: T;
}

type How = 'remove' | 'add' | 'alter';

async function holds<T>(
  mode: string,
  stateOf: (subject: Subject) => T,
  mutations: (state: T, how: How) => readonly (() => Mutation<T>)[],
  diff: (subject: Subject, state: T) => readonly Difference[],
): Promise<void> {
  const subjectOf = await makeSubject(mode);
  fc.assert(
    fc.property(clusterArbitrary, ({ services, place, how }) => {
      const subject = subjectOf(services);
      const state = stateOf(subject);
      assert.deepEqual(diff(subject, state).map(printDifference), [], 'nothing was changed');
      const choices = mutations(state, how);
      const chosen = choices[place % choices.length]!();
      assert.ok(diff(subject, chosen.state).length > 0, `not reported: ${chosen.what}`);
    }),
    { numRuns: runs, includeErrorInReport: true },
  );
}

function replaced<T>(list: readonly T[], at: number, ...by: readonly T[]): T[] {
  return list.toSpliced(at, 1, ...by);
}

// iptables rules

const builtIn: Readonly<Record<string, readonly string[]>> = {
  mangle: ['OUTPUT'],
  nat: ['PREROUTING', 'OUTPUT', 'POSTROUTING'],
  filter: ['INPUT', 'FORWARD', 'OUTPUT'],
};

/** What iptables-save would print after the document was loaded on a machine without rules. */
function saved(document: string): SavedTable[] {
  const tables = parseSave(document);
  for (const table of tables) {
    for (const name of builtIn[table.table] ?? [])
      table.chains.set(name, { name, policy: 'ACCEPT', rules: [] });
  }
  let current = '';
  for (const line of document.split('\n')) {
    if (line.startsWith('*')) current = line.slice(1);
    const [, verb, chain = '', args = ''] = /^-([AI]) (\S+) (.*)$/.exec(line) ?? [];
    const found = tables.find(({ table }) => table === current)?.chains.get(chain);
    if (found === undefined || found.policy === '-') continue;
    if (verb === 'I') found.rules.unshift(args);
    else found.rules.push(args);
  }
  return tables;
}

function withRules(
  tables: readonly SavedTable[],
  table: string,
  chain: string,
  rules: string[],
): SavedTable[] {
  return tables.map((one) =>
    one.table !== table
      ? one
      : { table, chains: new Map(one.chains).set(chain, { ...one.chains.get(chain)!, rules }) },
  );
}

function ruleMutations(tables: readonly SavedTable[], how: How): (() => Mutation<SavedTable[]>)[] {
  return tables.flatMap(({ table, chains }) =>
    [...chains.values()].flatMap(({ name, policy, rules }) => {
      // A rule of one's own in a built-in chain is everybody's right; KUBE-FIREWALL is the kubelet's, too.
      if (how === 'add' && (policy !== '-' || name === firewallChain)) return [];
      const where = `${table} ${name}`;
      if (how === 'add') {
        return [
          () => ({
            what: `a rule in ${where}`,
            state: withRules(tables, table, name, [...rules, '-s 192.0.2.99/32 -j RETURN']),
          }),
        ];
      }
      return rules.map((args, at) => () => {
        const by = how === 'remove' ? [] : [`-s 192.0.2.99/32 ${args}`];
        return {
          what: `${how} ${where} ${args}`,
          state: withRules(tables, table, name, replaced(rules, at, ...by)),
        };
      });
    }),
  );
}

test('iptables mode: any rule that is removed, added or altered is reported', async () => {
  await holds(
    'iptables',
    ({ wanted, family }) => saved(renderIptables(wanted, family)),
    ruleMutations,
    ({ wanted, family }, state) => diffIptables(wanted, family, state, { tcpBeLiberal: false }),
  );
});

test('userspace mode: any rule that is removed, added or altered is reported', async () => {
  await holds(
    'userspace',
    ({ wanted, family }) => saved(renderUserspace(wanted, family)),
    ruleMutations,
    ({ wanted, family }, state) => diffUserspace(wanted, family, state),
  );
});

// nftables mode

test('nftables mode: any chain, rule, set or element that is removed, added or altered is reported', async () => {
  await holds(
    'nftables',
    ({ wanted, family }) => nftablesContents(family, wanted.node.localAddresses),
    tableMutations,
    ({ wanted, family }, state) => diffNftables(family, state, wanted.node.localAddresses),
  );
});

function tableMutations(state: TableContents, how: How): (() => Mutation<TableContents>)[] {
  const choices: (() => Mutation<TableContents>)[] = [];
  const pick = (what: string, change: Partial<TableContents>): void => {
    choices.push(() => ({ what: `${how} ${what}`, state: { ...state, ...change } }));
  };
  state.rules.forEach((rule, at) => {
    const what = `rule ${at} of ${rule.chain}`;
    if (how === 'add') pick(`${what} twice`, { rules: replaced(state.rules, at, rule, rule) });
    else if (how === 'remove') pick(what, { rules: replaced(state.rules, at) });
    else {
      const other = state.rules.find((one) => printRule(one) !== printRule(rule))!;
      pick(what, { rules: replaced(state.rules, at, { ...other, chain: rule.chain }) });
    }
  });
  state.chains.forEach((chain, at) => {
    if (how === 'remove') pick(`chain ${chain.name}`, { chains: replaced(state.chains, at) });
    else if (how === 'add')
      pick('a chain', { chains: [...state.chains, { ...chain, name: `${chain.name}-2` }] });
  });
  state.sets.forEach((set, at) => {
    if (how === 'remove') pick(`set ${set.name}`, { sets: replaced(state.sets, at) });
    else if (how === 'add') pick('a set', { sets: [...state.sets, { ...set, name: `${set.name}-2` }] });
    else pick(`set ${set.name}`, { sets: replaced(state.sets, at, { ...set, flags: set.flags ^ 2 }) });
  });
  for (const [set, elements] of state.elements) {
    elements.forEach((element, at) => {
      const what = `element ${at} of ${set}`;
      const put = (...by: (typeof element)[]): Partial<TableContents> => ({
        elements: new Map(state.elements).set(set, replaced(elements, at, ...by)),
      });
      // The first byte: where a key or value is an address, no other element has that one.
      const other = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => {
        const copy = Uint8Array.from(bytes);
        copy[0] = copy[0]! ^ 0x40;
        return copy;
      };
      if (how === 'remove') pick(what, put());
      else if (how === 'add') pick(what, put(element, { ...element, key: other(element.key) }));
      else if (element.data !== undefined) pick(what, put({ ...element, data: other(element.data) }));
      else if (element.verdict !== undefined) pick(what, put({ ...element, verdict: { code: 'return' } }));
    });
  }
  return choices;
}

// IPVS mode

interface IpvsKernel {
  readonly state: IpvsState;
  readonly tables: readonly SavedTable[];
}

test('IPVS mode: any server, entry, address or rule that is removed, added or altered is reported', async () => {
  await holds('ipvs', ipvsKernel, ipvsMutations, ({ wanted, family }, { state, tables }) =>
    diffIpvs(wanted, family, state, tables),
  );
});

const nodeAddresses = new Set(['172.31.0.11']);

function ipvsKernel({ wanted, family }: Subject): IpvsKernel {
  const { scheduler, excludeCIDRs } = wanted.config.ipvs;
  const contents = ipvsContents({ ...family.options, scheduler, excludeCIDRs }, family.table, [
    ...nodeAddresses,
  ]);
  const servers = contents.servers.map(({ server, reals }): [string, AppliedServer] => [
    serverKey(server),
    {
      server,
      reals: new Map(reals.map(({ address, port, weight }) => [formatAddressPort(address, port), weight])),
    },
  ]);
  return {
    state: {
      servers: new Map(servers),
      sets: new Map(
        contents.sets.map(({ entries }, i): [SetId, Set<string>] => [setIds[i]!, new Set(entries)]),
      ),
      addresses: new Set(contents.addresses),
      nodeAddresses,
    },
    tables: saved(printRules(contents.rules, ipvsJumps)),
  };
}

function ipvsMutations({ state, tables }: IpvsKernel, how: How): (() => Mutation<IpvsKernel>)[] {
  const choices: (() => Mutation<IpvsKernel>)[] = ruleMutations(tables, how).map((make) => () => {
    const made = make();
    return { what: made.what, state: { state, tables: made.state } };
  });
  const pick = (what: string, change: Partial<IpvsState>): void => {
    choices.push(() => ({ what: `${how} ${what}`, state: { state: { ...state, ...change }, tables } }));
  };
  for (const [key, applied] of state.servers) {
    const put = (by: Partial<AppliedServer>): Partial<IpvsState> => ({
      servers: new Map(state.servers).set(key, { ...applied, ...by }),
    });
    const { server, reals } = applied;
    if (how === 'remove')
      pick(`server ${key}`, { servers: new Map([...state.servers].filter(([one]) => one !== key)) });
    else if (how === 'alter') pick(`server ${key}`, put({ server: { ...server, scheduler: 'lc' } }));
    else {
      const port = { ...server, port: 9 };
      // At an address of the node it may be anybody's.
      if (!nodeAddresses.has(server.address)) {
        pick(`server ${serverKey(port)}`, {
          servers: new Map(state.servers).set(serverKey(port), { server: port, reals }),
        });
      }
      pick(`real server of ${key}`, put({ reals: new Map(reals).set('192.0.2.99:80', 1) }));
    }
    if (how === 'remove') {
      for (const real of reals.keys())
        pick(
          `real server ${real} of ${key}`,
          put({ reals: new Map([...reals].filter(([one]) => one !== real)) }),
        );
    }
  }
  for (const [id, entries] of state.sets) {
    const put = (by: ReadonlySet<string>): Partial<IpvsState> => ({ sets: new Map(state.sets).set(id, by) });
    if (how === 'add')
      pick(`an entry of ${id}`, put(new Set([...entries, id.includes('PORT-') ? '9' : '192.0.2.99'])));
    else if (how === 'remove') {
      pick(`set ${id}`, { sets: new Map([...state.sets].filter(([one]) => one !== id)) });
      for (const entry of entries)
        pick(`${entry} of ${id}`, put(new Set([...entries].filter((one) => one !== entry))));
    }
  }
  const addresses = state.addresses!;
  if (how === 'add') pick('an address', { addresses: new Set([...addresses, '192.0.2.99']) });
  else if (how === 'remove') {
    for (const ip of addresses)
      pick(`address ${ip}`, { addresses: new Set([...addresses].filter((one) => one !== ip)) });
  }
  return choices;
}
