import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { emptyTable, tableReader, type Actual } from '../../../src/dataplane/iptables/actual.ts';
import { wholeDocument } from '../../../src/dataplane/iptables/document.ts';
import { planFull } from '../../../src/dataplane/iptables/fullPlan.ts';
import type { Mirror } from '../../../src/dataplane/iptables/mirror.ts';
import { nftLimits, planPartial, type Limits } from '../../../src/dataplane/iptables/partialPlan.ts';
import type { RestoreDocument } from '../../../src/dataplane/iptables/restoreDocument.ts';
import type { Rule } from '../../../src/linux/iptables/rule.ts';
import { nodePortTail } from '../../../src/dataplane/iptables/staticRules.ts';
import type { Route, RoutingTable } from '../../../src/services/types.ts';
import { applyStep, stepArbitrary, tableArbitrary } from './generate.ts';
import { Driver, World, backends, normalise } from './harness.ts';
import { changesBetween, makeSettings, makeTable } from './routes.ts';
import { SimulatedKernel } from './simulatedKernel.ts';

const settings = makeSettings();
const tail = nodePortTail(settings, []).rules;
const world = 8;

function finish(plan: Generator<RestoreDocument | undefined, Mirror>, kernel: SimulatedKernel): Mirror {
  for (;;) {
    const step = plan.next();
    if (step.done === true) return step.value;
    if (step.value !== undefined) kernel.restore(step.value);
  }
}

function actualOf(kernel: SimulatedKernel): Actual {
  const read = (table: 'filter' | 'nat'): Actual['filter'] => {
    const reader = tableReader();
    for (const line of kernel.save(table).split('\n')) reader.line(line);
    return reader.end();
  };
  return { filter: read('filter'), nat: read('nat') };
}

function wantedRules(routes: readonly Route[], end: readonly Rule[] = tail): Record<string, string[]> {
  return normalise(wholeDocument(routes, settings, end));
}

function assertHolds(kernel: SimulatedKernel, routes: readonly Route[], end: readonly Rule[] = tail): void {
  const rules = normalise(kernel.save('filter') + kernel.save('nat'));
  const wanted = wantedRules(routes, end);
  for (const [chain, list] of Object.entries(wanted)) assert.deepEqual(rules[chain], list, chain);
  const own = (names: Record<string, unknown>): string[] =>
    Object.keys(names).filter((name) => /KUBE-(SVC|SVL|SEP|EXT|FW)-/.test(name));
  assert.deepEqual(own(rules), own(wanted));
}

const tiny: Limits = { chunkLines: 6, atomicLines: 1000 };

test('partial syncs and full syncs end in the rules of the whole document, in any number of parts', () => {
  fc.assert(
    fc.property(
      tableArbitrary(world),
      fc.array(stepArbitrary(world), { maxLength: 6 }),
      fc.constantFrom(nftLimits, tiny),
      (start, steps, limits) => {
        const kernel = new SimulatedKernel();
        let routes = start;
        let table = makeTable(routes);
        const mirror = finish(planFull(actualOf(kernel), table, settings, tail, limits), kernel);
        assertHolds(kernel, routes);
        for (const step of steps) {
          routes = applyStep(routes, step);
          const next = makeTable(routes);
          const plan = planPartial(mirror, changesBetween(table, next), tail, limits);
          for (const document of plan.documents) kernel.restore(document);
          plan.apply();
          table = next;
          assertHolds(kernel, routes);
        }
        const lines = wholeDocument(routes, settings, tail).split('*nat');
        const count = (text: string | undefined): number => (text ?? '').split('\n-A ').length - 1;
        assert.deepEqual([mirror.filter, mirror.nat], [count(lines[0]), count(lines[1])]);
        // And there is nothing left to do.
        const again = planFull(actualOf(kernel), table, settings, tail, limits);
        for (let next = again.next(); next.done !== true; next = again.next())
          assert.equal(next.value, undefined);
      },
    ),
    { numRuns: 150 },
  );
});

test('a full sync from any rules, damaged or of another table, ends in the wanted ones', () => {
  fc.assert(
    fc.property(
      tableArbitrary(world),
      tableArbitrary(world),
      fc.array(fc.record({ at: fc.nat(), how: fc.constantFrom('flush', 'rule', 'foreign') })),
      (before, after, damages) => {
        const kernel = new SimulatedKernel();
        finish(planFull(actualOf(kernel), makeTable(before), settings, tail, nftLimits), kernel);
        for (const { at, how } of damages) kernel.damage(at, how);
        finish(planFull(actualOf(kernel), makeTable(after), settings, tail, tiny), kernel);
        assertHolds(kernel, after);
      },
    ),
    { numRuns: 150 },
  );
});

test('documents before the switch change nothing that packets pass through', () => {
  fc.assert(
    fc.property(tableArbitrary(world), tableArbitrary(world), (before, after) => {
      const kernel = new SimulatedKernel();
      const start: RoutingTable = makeTable(before);
      const mirror = finish(planFull(actualOf(kernel), start, settings, tail, nftLimits), kernel);
      const reachable = kernel.reachable('nat');
      const plan = planPartial(mirror, changesBetween(start, makeTable(after)), tail, tiny);
      for (const document of plan.documents) {
        if (document.kind === 'switch') break;
        kernel.restore(document);
        assert.deepEqual(kernel.reachable('nat'), reachable);
      }
      const full = planFull(actualOf(kernel), makeTable(after), settings, tail, tiny);
      for (let step = full.next(); step.done !== true; step = full.next()) {
        if (step.value === undefined) continue;
        if (step.value.kind === 'switch') break;
        kernel.restore(step.value);
        assert.deepEqual(kernel.reachable('nat'), reachable);
      }
    }),
    { numRuns: 100 },
  );
});

test('an empty kernel without knowledge of it: everything is written', () => {
  fc.assert(
    fc.property(tableArbitrary(world), tableArbitrary(world), (before, after) => {
      const kernel = new SimulatedKernel();
      finish(planFull(actualOf(kernel), makeTable(before), settings, tail, nftLimits), kernel);
      finish(planFull(undefined, makeTable(after), settings, tail, nftLimits), kernel);
      const rules = normalise(kernel.save('filter') + kernel.save('nat'));
      for (const [chain, list] of Object.entries(wantedRules(after)))
        assert.deepEqual(rules[chain], list, chain);
    }),
    { numRuns: 50 },
  );
  assert.equal(emptyTable().own.size, 0);
});

for (const backend of backends) {
  test(`${backend}: on the kernel, partial syncs equal a full sync elsewhere`, async () => {
    const partial = new World(backend);
    const full = new World(backend);
    try {
      await fc.assert(
        fc.asyncProperty(
          tableArbitrary(world),
          fc.array(stepArbitrary(world), { minLength: 1, maxLength: 4 }),
          async (start, steps) => {
            const dataplane = partial.dataplane();
            await dataplane.start();
            const driver = new Driver(dataplane);
            let routes = start;
            await driver.to(makeTable(routes));
            for (const step of steps) {
              routes = applyStep(routes, step);
              assert.deepEqual(await driver.to(makeTable(routes)), { full: false });
            }
            await dataplane.stop();
            const fresh = full.dataplane();
            await fresh.start();
            await new Driver(fresh).to(makeTable(routes));
            await fresh.stop();
            assert.deepEqual(partial.rules(), full.rules());
            const wanted = wantedRules(routes);
            const rules = partial.rules();
            for (const [chain, list] of Object.entries(wanted)) assert.deepEqual(rules[chain], list, chain);
          },
        ),
        { numRuns: 12, endOnFailure: true },
      );
    } finally {
      partial.close();
      full.close();
    }
  });

  test(`${backend}: no table makes a document that iptables-restore refuses`, () => {
    const there = new World(backend);
    try {
      there.inside(() => undefined);
      there.dataplane();
      fc.assert(
        fc.property(tableArbitrary(world), (routes) => {
          const text = wholeDocument(
            routes,
            makeSettings(undefined, true, { countInvalid: false, countLocalhost: false }),
            tail,
          );
          there.run([`${there.program}-restore`, '-w', '5', '--noflush', '--test'], text);
        }),
        { numRuns: 15 },
      );
    } finally {
      there.close();
    }
  });
}
