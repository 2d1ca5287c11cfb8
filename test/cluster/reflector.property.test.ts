/** Whatever happens to server and connection: the store ends up as the server's state, and the handler's calls are consistent. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FakeApiServer } from './support/fakeApiServer.ts';
import { startReflector, until } from './support/harness.ts';

type Step =
  | { readonly do: 'put'; readonly name: number }
  | { readonly do: 'delete'; readonly name: number }
  | { readonly do: 'cut'; readonly how: 'end' | 'destroy' | 'mid-line' }
  | { readonly do: 'compact' }
  | { readonly do: 'gone' }
  | { readonly do: 'bookmark' }
  | { readonly do: 'garbage' }
  | { readonly do: 'refuse'; readonly requests: number; readonly code: number }
  | { readonly do: 'expirePages' }
  | { readonly do: 'wait' };

const name = fc.integer({ min: 0, max: 7 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ do: fc.constant('put' as const), name }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('delete' as const), name }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('cut' as const),
      how: fc.constantFrom('end' as const, 'destroy' as const, 'mid-line' as const),
    }),
  },
  { weight: 2, arbitrary: fc.constant({ do: 'compact' as const }) },
  { weight: 1, arbitrary: fc.constant({ do: 'gone' as const }) },
  { weight: 1, arbitrary: fc.constant({ do: 'bookmark' as const }) },
  { weight: 1, arbitrary: fc.constant({ do: 'garbage' as const }) },
  { weight: 1, arbitrary: fc.constant({ do: 'expirePages' as const }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('refuse' as const),
      requests: fc.integer({ min: 1, max: 3 }),
      code: fc.constantFrom(410, 429, 500, 503),
    }),
  },
  { weight: 4, arbitrary: fc.constant({ do: 'wait' as const }) },
);

async function play(server: FakeApiServer, steps: readonly Step[], protobuf: boolean): Promise<void> {
  let refusals = 0;
  let code = 500;
  server.intercept = (_request, response) => {
    if (refusals === 0) return false;
    refusals--;
    server.status(response, code, code === 410 ? 'Expired' : 'Fault');
    return true;
  };
  for (const action of steps) {
    switch (action.do) {
      case 'put':
        server.put(`s${action.name}`);
        break;
      case 'delete':
        server.delete(`s${action.name}`);
        break;
      case 'cut':
        server.cutWatches(action.how);
        break;
      case 'compact':
        server.compact();
        break;
      case 'gone':
        server.sendStatus({ code: 410, reason: 'Expired', message: 'compacted' });
        break;
      case 'bookmark':
        server.bookmark();
        break;
      case 'garbage':
        server.writeRaw(protobuf ? Buffer.from([0, 0, 0, 2, 0xff, 0xff]) : 'garbage\n');
        break;
      case 'expirePages':
        server.expirePages();
        break;
      case 'refuse':
        refusals = action.requests;
        ({ code } = action);
        break;
      case 'wait':
        await new Promise((resolve) => setTimeout(resolve, 4));
    }
  }
  refusals = 0;
}

function stateOf(server: FakeApiServer): string[] {
  return [...server.objects]
    .map(([key, object]) => `${key}@${(object['metadata'] as { resourceVersion: string }).resourceVersion}`)
    .sort();
}

test('any history leaves the store equal to the server, and a consistent log of calls', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 30 }),
      fc.boolean(),
      fc.boolean(),
      async (steps, protobuf, streamingLists) => {
        const server = new FakeApiServer({ protobuf, streamingLists });
        await server.listen();
        const harness = await startReflector(server.url, { pageSize: 3 });
        const { handler, reflector } = harness;
        try {
          await play(server, steps, protobuf);
          const wanted = stateOf(server);
          const held = (): string[] =>
            [...reflector.values()]
              .map(({ meta }) => `${meta.namespace}/${meta.name}@${meta.resourceVersion}`)
              .sort();
          await until('the state of the server', () => {
            return handler.syncedAt >= 0 && held().join() === wanted.join();
          });
          const told = [...handler.known.values()].map(
            ({ meta }) => `${meta.namespace}/${meta.name}@${meta.resourceVersion}`,
          );
          assert.deepEqual(told.sort(), wanted);
        } finally {
          // Fails if the handler threw: that is, if a call was inconsistent.
          await harness.close();
          await server.close();
        }
      },
    ),
    { numRuns: 60, interruptAfterTimeLimit: 25_000 },
  );
});
