/** Events about the node and its Services: reasons and actions that kube-proxy's users may be looking for. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { WriteRequest } from '../../src/cluster/apiClient.ts';
import { silentLogger } from '../../src/log/logger.ts';
import { NodeEvents } from '../../src/proxy/nodeEvents.ts';

it('each event has its reason, its action and its object', async () => {
  const written: WriteRequest[] = [];
  const client = {
    write: (request: WriteRequest): Promise<unknown> => {
      written.push(request);
      return Promise.resolve({});
    },
  };
  const events = new NodeEvents({ client, nodeName: 'node-a', log: silentLogger });
  events.starting();
  events.ipvsDeprecated();
  events.bindFailed('healthz', 'port taken');
  events.bindFailed('metrics', 'port taken');
  events.rulesChanged('chain gone');
  events.serviceHealthFailed('shop', 'web', 'port taken');
  await events.flush();
  const told = written.map(({ body }) => {
    const { type, reason, action, regarding } = body as {
      type: string;
      reason: string;
      action: string;
      regarding: { kind: string; name: string };
    };
    return `${type} ${reason} ${action} ${regarding.kind} ${regarding.name}`;
  });
  assert.deepEqual(told, [
    'Normal Starting StartKubeProxy Node node-a',
    'Warning IPVSDeprecation StartKubeProxy Node node-a',
    'Warning FailedToStartProxierHealthcheck StartKubeProxy Node node-a',
    'Warning FailedToStartMetricServer StartKubeProxy Node node-a',
    'Warning ServiceRulesChanged WatchRules Node node-a',
    'Warning FailedToStartServiceHealthcheck Listen Service web',
  ]);
});
