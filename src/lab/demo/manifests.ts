/** The objects of the demo, as one would write them for any cluster. */
import type { JsonObject } from '../scenario/generate.ts';

const port = 8080;

export function deployment(name: string, replicas: number): JsonObject {
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace: 'default', labels: { app: name } },
    spec: {
      replicas,
      selector: { matchLabels: { app: name } },
      template: {
        metadata: { labels: { app: name } },
        spec: {
          containers: [
            { name: 'server', image: 'lab/server', ports: [{ name: 'http', containerPort: port }] },
          ],
        },
      },
    },
  };
}

export function service(name: string, app: string, sticky = false): JsonObject {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'default' },
    spec: {
      selector: { app },
      ports: [{ name: 'http', port: 80, targetPort: port, protocol: 'TCP' }],
      ...(sticky ? { sessionAffinity: 'ClientIP' } : {}),
    },
  };
}

/** A Pod on a node of one's choice. */
export function pod(name: string, app: string, node: string): JsonObject {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels: { app } },
    spec: {
      nodeName: node,
      containers: [{ name: 'server', image: 'lab/server', ports: [{ name: 'http', containerPort: port }] }],
    },
  };
}
