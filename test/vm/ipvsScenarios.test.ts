/**
 * The public scenarios in IPVS mode, and a Service over SCTP; where the mode must differ from iptables mode is in
 * src/lab/scenario/modeDifferences.ts.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { dataDirectory, scenarioNames } from '../scenarios/support.ts';
import { guestScenarioTests } from './scenarios.ts';

guestScenarioTests('ipvs', [
  ...scenarioNames().map((name) => join(dataDirectory, `${name}.yaml`)),
  fileURLToPath(new URL('data/sctp.yaml', import.meta.url)),
]);
