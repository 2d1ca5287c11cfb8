/**
 * The decision table of traffic policies in IPVS mode: over IPv4 and TCP; POINTSMAN_ALL_SCENARIOS=1 plays IPv6 and UDP, too.
 * What the mode decides otherwise is in policyTable.ts.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after } from 'node:test';
import { makeOwnedDirectory } from '../../src/lab/net/ownedDirectory.ts';
import { policyScenario } from '../scenarios/policyTable.ts';
import { guestScenarioTests } from './scenarios.ts';

const directory = makeOwnedDirectory('policies');
after(() => rmSync(directory, { recursive: true, force: true }));

const all = (process.env['POINTSMAN_ALL_SCENARIOS'] ?? '') !== '';
const tables = all
  ? ([
      [4, 'tcp'],
      [6, 'tcp'],
      [4, 'udp'],
      [6, 'udp'],
    ] as const)
  : ([[4, 'tcp']] as const);

guestScenarioTests(
  'ipvs',
  tables.map(([family, proto]) => {
    const file = join(directory, `policy-table-${family}-${proto}.yaml`);
    writeFileSync(file, policyScenario(family, proto));
    return file;
  }),
);
