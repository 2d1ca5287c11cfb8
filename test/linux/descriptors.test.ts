import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { reserveDescriptors } from '../../src/linux/ffi.ts';

function tableSize(): number {
  return Number(/^FDSize:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1]);
}

test('the table of open files is made larger at once; what the limit does not allow is told', () => {
  const wanted = 2 * tableSize();
  assert.equal(reserveDescriptors(wanted), 0);
  assert.ok(tableSize() >= wanted);
  assert.notEqual(reserveDescriptors(2 ** 30), 0);
});
