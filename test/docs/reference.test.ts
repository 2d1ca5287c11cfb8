/** docs/reference.md says what the program says. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { generateReference } from '../../scripts/reference.ts';
import { commands } from '../../src/commands/index.ts';

const text = readFileSync(new URL('../../docs/reference.md', import.meta.url), 'utf8');

test('docs/reference.md is up to date (node --import tsx scripts/reference.ts)', async () => {
  assert.equal(await generateReference(text), text);
});

test('every command has its section', () => {
  for (const { name, hidden } of commands)
    if (hidden !== true) assert.match(text, new RegExp(`^## .*pointsman ${name}\\b`, 'm'), name);
});
