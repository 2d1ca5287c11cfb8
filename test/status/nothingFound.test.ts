/** A Service that is not there: what is said of it, and what was probably meant. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nothingFound } from '../../src/status/nothingFound.ts';
import { wantedOfText } from '../render/support.ts';

const service = (namespace: string, name: string, ip: string): object => ({
  kind: 'Service',
  apiVersion: 'v1',
  metadata: { namespace, name },
  spec: { clusterIP: ip, clusterIPs: [ip], ipFamilies: ['IPv4'], ports: [{ port: 80, protocol: 'TCP' }] },
});

for (const [filter, sentence] of [
  [
    { namespace: 'api' },
    'No service port of namespace api is proxied on this node; did you mean default/api?',
  ],
  [{ namespace: 'shap' }, 'No service port of namespace shap is proxied on this node; did you mean shop?'],
  [{ namespace: 'elsewhere-far' }, 'No service port of namespace elsewhere-far is proxied on this node.'],
  [{ namespace: 'shop', service: 'api' }, /headless, ExternalName or skipped; did you mean default\/api\?$/],
  [{ namespace: 'shop', service: 'chekout' }, /skipped; did you mean shop\/checkout\?$/],
  [{ namespace: 'shop', service: 'nothing-like-it' }, /ExternalName or skipped\.$/],
] as const) {
  test(`status ${Object.values(filter).join('/')}`, async () => {
    const items = [service('default', 'api', '10.96.0.1'), service('shop', 'checkout', '10.96.0.2')];
    const { families } = await wantedOfText(
      JSON.stringify({ kind: 'List', apiVersion: 'v1', items }),
      '--family=IPv4',
    );
    const client = { tables: () => Promise.resolve(families.map(({ table }) => table)) };
    const said = await nothingFound(client, filter);
    if (typeof sentence === 'string') assert.equal(said, sentence);
    else assert.match(said, sentence);
  });
}
