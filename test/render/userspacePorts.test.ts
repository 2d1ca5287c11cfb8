/** Userspace mode: the listeners' ports that a rendering makes up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { userspacePorts, type UserspacePort } from '../../src/render/userspace.ts';
import type { Route, ServicePortId } from '../../src/services/types.ts';
import { labFlags, scenarioManifest, wantedOfText } from './support.ts';

/** As many service ports as asked for, each with one listener. */
async function ports(count: number, portRange: string): Promise<UserspacePort[]> {
  const wanted = await wantedOfText(scenarioManifest('clusterip-tcp'), ...labFlags, '--mode=userspace');
  const [family] = wanted.families;
  assert.ok(family !== undefined);
  const one = [...family.table.routes.values()].find(({ hasAny }) => hasAny);
  assert.ok(one !== undefined);
  const routes = new Map<ServicePortId, Route>();
  for (let i = 0; i < count; i++) {
    const id: ServicePortId = `${one.port.id}-${i}`;
    routes.set(id, { ...one, port: { ...one.port, id, name: id } });
  }
  const table = { ...family.table, routes };
  return userspacePorts({ config: { bindAddress: '0.0.0.0', portRange } }, { ...family, table });
}

const used = (all: readonly UserspacePort[]): number[] =>
  all.flatMap(({ targets }) => Object.values(targets).map(({ port }) => port));

void test('more than 25,536 listeners: every port is one, and none comes twice', async () => {
  const numbers = used(await ports(26_000, ''));
  assert.equal(numbers.length, 26_000);
  assert.equal(new Set(numbers).size, 26_000);
  assert.ok(numbers.every((port) => port >= 1024 && port <= 65_535));
});

void test('a range that is used up: the rest is refused, as the daemon refuses it', async () => {
  const all = await ports(3, '65534-65535');
  assert.deepEqual(used(all), [65_534, 65_535]);
  const last = all.at(-1)!.rules.map(({ table, args }) => `${table} ${args}`);
  assert.ok(last.length > 0);
  assert.ok(
    last.every((rule) => rule.startsWith('filter ') && rule.includes('-j REJECT')),
    last.join('\n'),
  );
});
