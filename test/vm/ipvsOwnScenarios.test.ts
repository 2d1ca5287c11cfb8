/**
 * Scenarios of our own in IPVS mode. What the mode does otherwise than iptables mode is in the files, under `ipvs:`. All of
 * them are too many for every run of the suite: here are those that are quick or differ, each kind of difference once;
 * POINTSMAN_ALL_SCENARIOS=1 plays all.
 */
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ownDirectory } from '../scenarios/support.ts';
import { guestScenarioTests } from './scenarios.ts';

const chosen = [
  'affinity-life',
  'detect-bridge',
  'dual-stack-halves',
  'hairpin',
  'health-checks',
  'masquerade-all',
  'nodeport-defaults',
  'service-life',
  'source-ranges',
  'udp-before-frontend',
  'udp-flows',
  'unknown-traffic',
];
const all = (process.env['POINTSMAN_ALL_SCENARIOS'] ?? '') !== '';

guestScenarioTests(
  'ipvs',
  readdirSync(ownDirectory)
    .sort()
    .filter((file) => all || chosen.includes(basename(file, '.yaml')))
    .map((file) => join(ownDirectory, file)),
  all ? 7200 : undefined,
);
