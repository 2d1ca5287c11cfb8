import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Policy } from '../../src/services/selection.ts';
import { selectEndpoints } from '../../src/services/selection.ts';
import type { Endpoint, Verdict } from '../../src/services/types.ts';
import { endpoint } from './build.ts';

/**
 * Endpoints in short: `R` ready, `D` draining, `X` neither; `L` local; zones after `@`, nodes after `#`:
 * `RL@a,b#node-1`. The endpoint's address is its place in the list.
 */
function endpointsOf(text: string): Endpoint[] {
  return text
    .split(' ')
    .filter((word) => word !== '')
    .map((word, i) => {
      const [, state, local, zones, nodes] = /^([RDX])(L?)(?:@([^#]+))?(?:#(.+))?$/.exec(word) ?? [];
      assert.ok(state, word);
      return endpoint(`10.0.0.${i + 1}`, {
        ready: state === 'R',
        serving: state !== 'X',
        terminating: state === 'D',
        isLocal: local === 'L',
        zoneHints: zones?.split(',') ?? [],
        nodeHints: nodes?.split(',') ?? [],
      });
    });
}

const places = (list: readonly Endpoint[]): string =>
  list.map((each) => each.ip.slice('10.0.0.'.length)).join(' ');

const DEFAULTS: Policy = { internalPolicyLocal: false, externalPolicyLocal: false, hasExternal: false };
const ETP: Policy = { ...DEFAULTS, externalPolicyLocal: true, hasExternal: true };
const ITP: Policy = { ...DEFAULTS, internalPolicyLocal: true };
const BOTH: Policy = { internalPolicyLocal: true, externalPolicyLocal: true, hasExternal: true };

interface Row {
  readonly case: string;
  readonly policy: Policy;
  readonly zone?: string;
  readonly endpoints: string;
  readonly cluster: string;
  readonly local: string;
  readonly reachable?: string;
  readonly hasAny: boolean;
  readonly internal: Verdict;
  readonly external?: Verdict;
}

const rows: readonly Row[] = [
  {
    case: '1 zone hints',
    policy: DEFAULTS,
    zone: 'a',
    endpoints: 'R@a R@b R@c R@a',
    cluster: '1 4',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: '2 one endpoint lacks a hint',
    policy: DEFAULTS,
    zone: 'a',
    endpoints: 'R@a R@b R R@a',
    cluster: '1 2 3 4',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: '3 no zone label',
    policy: DEFAULTS,
    zone: '',
    endpoints: 'R@a R@b R@c',
    cluster: '1 2 3',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: '3 zone nobody is hinted for',
    policy: DEFAULTS,
    zone: 'd',
    endpoints: 'R@a R@b R@c',
    cluster: '1 2 3',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: '4 nobody ready is hinted for the zone',
    policy: DEFAULTS,
    zone: 'a',
    endpoints: 'X@a R@b R@c X@a',
    cluster: '2 3',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: '5 unready ones of the zone do not serve',
    policy: DEFAULTS,
    zone: 'a',
    endpoints: 'R@a R@b R@c X@a',
    cluster: '1',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: '6 several zones in a hint',
    policy: DEFAULTS,
    zone: 'c',
    endpoints: 'R@a,c R@b,c R@b,d R@c',
    cluster: '1 2 4',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: '7 hinted for this node',
    policy: DEFAULTS,
    zone: 'a',
    endpoints: 'R@a#node-2 R@a#node-1 R@b#node-3',
    cluster: '2',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: '8 node hints for other nodes, zone fits',
    policy: DEFAULTS,
    zone: 'a',
    endpoints: 'R@a#node-2 R@a#node-3 R@b#node-4',
    cluster: '1 2',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: '8 one ready endpoint without a node hint',
    policy: DEFAULTS,
    zone: 'a',
    endpoints: 'R@a#node-1 R@a R@b#node-4',
    cluster: '1 2',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: '9 one ready endpoint without any hint',
    policy: DEFAULTS,
    zone: 'a',
    endpoints: 'R@a#node-1 R R@b#node-2',
    cluster: '1 2 3',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: '9 unready endpoints need no hint',
    policy: DEFAULTS,
    zone: 'a',
    endpoints: 'R@a X R@b',
    cluster: '1',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: '10 hints never hold for Local',
    policy: ETP,
    zone: 'a',
    endpoints: 'RL@a RL@b R@c R@a',
    cluster: '1 4',
    local: '1 2',
    reachable: '1 2 4',
    hasAny: true,
    internal: 'cluster',
    external: 'local',
  },
  {
    case: '11 internal Local, all remote',
    policy: ITP,
    endpoints: 'R R',
    cluster: '',
    local: '',
    hasAny: true,
    internal: 'drop',
  },
  {
    case: '12 internal Local, nobody',
    policy: ITP,
    endpoints: '',
    cluster: '',
    local: '',
    hasAny: false,
    internal: 'reject',
  },
  {
    case: '13 only unusable ones',
    policy: DEFAULTS,
    endpoints: 'X XL',
    cluster: '',
    local: '',
    hasAny: false,
    internal: 'reject',
  },
  {
    case: '14 draining ones as a last resort',
    policy: DEFAULTS,
    endpoints: 'DL D X',
    cluster: '1 2',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: '14 hints do not hold for draining ones',
    policy: DEFAULTS,
    zone: 'a',
    endpoints: 'D@a D@b',
    cluster: '1 2',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: '15 Local falls back on its own',
    policy: ETP,
    endpoints: 'R XL DL D',
    cluster: '1',
    local: '3',
    reachable: '1 3',
    hasAny: true,
    internal: 'cluster',
    external: 'local',
  },
  {
    case: '16 both Local, draining elsewhere',
    policy: BOTH,
    endpoints: 'D D',
    cluster: '1 2',
    local: '',
    hasAny: true,
    internal: 'drop',
    external: 'drop',
  },
  {
    case: '17 external Local without an external frontend',
    policy: { ...ETP, hasExternal: false },
    endpoints: 'R RL',
    cluster: '1 2',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
  {
    case: 'internal Local with external Cluster uses both',
    policy: { ...BOTH, externalPolicyLocal: false },
    endpoints: 'R RL',
    cluster: '1 2',
    local: '2',
    reachable: '1 2',
    hasAny: true,
    internal: 'local',
    external: 'cluster',
  },
  {
    case: 'ready and terminating counts as ready',
    policy: DEFAULTS,
    endpoints: 'R D',
    cluster: '1',
    local: '',
    hasAny: true,
    internal: 'cluster',
  },
];

describe('selectEndpoints', () => {
  for (const row of rows) {
    test(row.case, () => {
      const selection = selectEndpoints(endpointsOf(row.endpoints), row.policy, {
        nodeName: 'node-1',
        zone: row.zone ?? 'a',
      });
      const reachable = row.reachable ?? (row.cluster === '' ? row.local : row.cluster);
      assert.deepEqual(
        {
          ...selection,
          cluster: places(selection.cluster),
          local: places(selection.local),
          reachable: places(selection.reachable),
        },
        {
          cluster: row.cluster,
          local: row.local,
          reachable,
          hasAny: row.hasAny,
          internal: row.internal,
          external: row.external ?? row.internal,
        },
      );
    });
  }

  test('a verdict never names an empty list, and reachable is the union, sorted', () => {
    const word = fc.constantFrom(
      'R',
      'RL',
      'D',
      'DL',
      'X',
      'XL',
      'R@a',
      'RL@b',
      'R@a#node-1',
      'R@b#node-2',
      'D@a',
    );
    const policy = fc.record({
      internalPolicyLocal: fc.boolean(),
      externalPolicyLocal: fc.boolean(),
      hasExternal: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(word, { maxLength: 9 }), policy, (words, rules) => {
        const all = endpointsOf(words.join(' '));
        const chosen = selectEndpoints(all, rules, { nodeName: 'node-1', zone: 'a' });
        for (const verdict of [chosen.internal, chosen.external]) {
          if (verdict === 'cluster') assert.ok(chosen.cluster.length > 0);
          if (verdict === 'local') assert.ok(chosen.local.length > 0);
          assert.equal(verdict === 'reject', !chosen.hasAny);
        }
        assert.equal(
          chosen.hasAny,
          words.some((each) => !each.startsWith('X')),
        );
        const union = all.filter((each) => chosen.cluster.includes(each) || chosen.local.includes(each));
        assert.deepEqual(chosen.reachable, union);
      }),
      { numRuns: 1000 },
    );
  });
});
