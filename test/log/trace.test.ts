import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { test } from 'node:test';
import { run } from '../../src/linux/exec.ts';

test('the end of the input of a program can be seen from outside, before the program ends', async () => {
  const seen: unknown[] = [];
  const see = (message: unknown): void => {
    seen.push(message);
  };
  subscribe('pointsman:input-written', see);
  try {
    let atOutput: unknown[] = [];
    const onLine = (): void => {
      atOutput = [...seen];
    };
    await run(['cat'], { input: 'text\n', onLine });
    assert.deepEqual(atOutput, ['cat']);
  } finally {
    unsubscribe('pointsman:input-written', see);
  }
  await run(['cat'], { input: 'text\n' });
  assert.deepEqual(seen, ['cat']);
});
