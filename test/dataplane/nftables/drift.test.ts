/** Changes of the table by others: who did what, how soon it is put back, and that it is left where nothing is to be repaired. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { Route } from '../../../src/services/types.ts';
import { makeRoute, makeTable } from '../iptables/routes.ts';
import { workedExample } from './examples.ts';
import { World } from './harness.ts';
import { listTable } from './listing.ts';

const worlds: World[] = [];
after(async () => {
  for (const world of worlds) await world.close();
});

function makeWorld(): World {
  const world = new World();
  worlds.push(world);
  return world;
}

const example = makeTable(workedExample);

function changes(world: World): string[] {
  return world.reports.flatMap((report) => {
    if (report.kind !== 'changedByOthers') return [];
    const { what, object, by, repairing } = report;
    return [`${object}: ${what}, by ${by.replace(/\d+/, 'N')}, ${repairing ? 'repairing' : 'left'}`];
  });
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 3000 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.ok(condition());
}

test('what was changed and by which process is told, and put back at once', async (context) => {
  const world = makeWorld();
  const driver = await world.start();
  await driver.to(example, true);
  const expected = listTable(world);
  const repaired = new Promise<void>((resolve, reject) => {
    world.onResync = () => void driver.full().then(() => resolve(), reject);
  });
  world.nftScript('flush chain ip kube-proxy dispatch\nadd chain ip kube-proxy mine\n');
  const begun = performance.now();
  await repaired;
  const time = performance.now() - begun;
  context.diagnostic(`repaired ${time.toFixed(1)} ms after nft had ended`);
  // Milliseconds on a machine that has time for us.
  assert.ok(time < 20_000, `${time} ms`);
  assert.deepEqual(listTable(world), expected);
  assert.deepEqual(changes(world), [
    'rule: rule in chain dispatch removed: ip daddr @virtual-ips ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x00004000 (and 3 more changes), by nft (pid N), repairing',
  ]);
  assert.equal(world.reports.at(-1)?.kind, 'repaired');
});

test('each foreign transaction is told once; our own and those of other tables are not', async () => {
  const world = makeWorld();
  const driver = await world.start({}, { repairDrift: false });
  await driver.to(example, true);
  world.nft('add', 'table', 'ip', 'other');
  world.nft('flush', 'chain', 'ip', 'kube-proxy', 'dispatch');
  world.nft('add', 'element', 'ip', 'kube-proxy', 'frontends', '{ 1.2.3.4 . tcp . 5 : drop }');
  world.nft('add', 'set', 'ip', 'kube-proxy', 'mine', '{ type mark; }');
  await until(() => changes(world).length >= 3);
  assert.deepEqual(
    changes(world).map((text) => text.replace(/ \(and \d+ more changes\)/, '')),
    [
      'rule: rule in chain dispatch removed: ip daddr @virtual-ips ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x00004000, by nft (pid N), left',
      'element: elements of frontends added: 1.2.3.4 . tcp . 5 : drop, by nft (pid N), left',
      'set: set mine added, by nft (pid N), left',
    ],
  );
});

test('with repairs off, changes stay, and our own go on in single transactions', async () => {
  const world = makeWorld();
  const driver = await world.start({}, { repairDrift: false });
  await driver.to(example, true);
  world.onResync = () => assert.fail('no repair is wanted');
  world.nft('insert', 'rule', 'ip', 'kube-proxy', 'dispatch', 'ip daddr 192.0.2.77 drop');
  // Once before the event loop has told of it, once after.
  const more = makeRoute({ name: 'default/new', clusterIP: '10.96.1.1', port: 9, endpoints: ['10.0.0.9:9'] });
  assert.deepEqual(await driver.to(makeTable([...workedExample, more])), { full: false });
  await until(() => changes(world).length === 1);
  assert.deepEqual(await driver.to(example), { full: false });
  assert.match(world.list(), /ip daddr 192\.0\.2\.77 drop/);
  assert.doesNotMatch(world.list(), /10\.96\.1\.1/);
  assert.deepEqual(world.resyncs, []);
  assert.ok(!world.reports.some(({ kind }) => kind === 'repaired'));
  // A full sync, at its long interval, puts everything right all the same.
  await driver.full();
  assert.doesNotMatch(world.list(), /192\.0\.2\.77/);
});

test('a table that is switched off, and a chain of ours that is changed, are told so and put right', async () => {
  const world = makeWorld();
  const driver = await world.start();
  await driver.to(example, true);
  const expected = listTable(world);
  for (const [script, what] of [
    ['add table ip kube-proxy { flags dormant; }', 'table: table kube-proxy switched off (dormant)'],
    [
      'add chain ip kube-proxy nat-postrouting { policy drop; }',
      'chain: chain nat-postrouting changed (policy drop)',
    ],
    ['rename chain ip kube-proxy dispatch gone', 'chain: chain gone added'],
  ] as const) {
    const before = changes(world).length;
    const repaired = new Promise<void>((resolve, reject) => {
      world.onResync = () => void driver.full().then(() => resolve(), reject);
    });
    world.nftScript(`${script}\n`);
    await repaired;
    assert.deepEqual(listTable(world), expected, script);
    assert.doesNotMatch(world.nft('list', 'table', 'ip', 'kube-proxy'), /dormant/);
    const [change] = changes(world).slice(before);
    assert.ok(change?.startsWith(what), `${script}: ${change}`);
  }
});

test('while somebody writes faster than tables are compared, a repair is asked for again and again, and comes when it ends', async () => {
  const world = makeWorld();
  const driver = await world.start();
  await driver.to(example, true);
  const expected = listTable(world);
  let isBusy = true;
  /** Whoever goes through the routes, as a comparison does, finds the table changed meanwhile. */
  class Disturbed extends Map<string, Route> {
    override [Symbol.iterator](): MapIterator<[string, Route]> {
      if (isBusy) world.nft('flush', 'map', 'ip', 'kube-proxy', 'endpoints');
      if (isBusy) world.nft('add', 'set', 'ip', 'kube-proxy', `mine${writes++}`, '{ type mark; }');
      return super[Symbol.iterator]();
    }
  }
  let writes = 0;
  let asked = 0;
  world.onResync = () => void asked++;
  const table = { ...example, routes: new Disturbed(example.routes) };
  for (const round of [1, 2]) {
    await assert.rejects(driver.to(table, true), /mine|endpoints/);
    await until(() => asked >= round);
  }
  isBusy = false;
  await driver.full();
  assert.deepEqual(listTable(world), expected);
  assert.ok(world.reports.some(({ kind }) => kind === 'repaired'));
});
