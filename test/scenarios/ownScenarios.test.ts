/** Scenarios of our own: what the format can say beyond the public ones. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { buildProgram, expectAgreement } from './support.ts';

const directory = fileURLToPath(new URL('own', import.meta.url));
const proxyCommand = buildProgram();

for (const file of readdirSync(directory).sort()) {
  test(file, () => expectAgreement(join(directory, file), 'iptables', undefined, proxyCommand));
}
