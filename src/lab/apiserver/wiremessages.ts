/**
 * Protobuf field numbers (`generated.proto` of k8s.io/api and k8s.io/apimachinery) of what clients send: kubectl's
 * `create`, `scale` and `auth` commands, and the events of kube-proxy and others.
 */
import {
  message,
  objectMeta,
  objectReference,
  type FieldType,
  type MessageSchema,
} from '../../api/protobuf/message.ts';
import { kinds } from '../../api/protobuf/schema.ts';

const metadata: readonly [number, FieldType] = [1, objectMeta];

const labelSelector = message({
  matchLabels: [1, 'stringMap'],
  matchExpressions: [
    2,
    message({ key: [1, 'string'], operator: [2, 'string'], values: [3, 'string', 'repeated'] }),
    'repeated',
  ],
});

const resourceRequirements = message({ limits: [1, 'quantityMap'], requests: [2, 'quantityMap'] });

const container = message({
  name: [1, 'string'],
  image: [2, 'string'],
  command: [3, 'string', 'repeated'],
  args: [4, 'string', 'repeated'],
  workingDir: [5, 'string'],
  ports: [
    6,
    message({
      name: [1, 'string'],
      hostPort: [2, 'int'],
      containerPort: [3, 'int'],
      protocol: [4, 'string'],
      hostIP: [5, 'string'],
    }),
    'repeated',
  ],
  env: [7, message({ name: [1, 'string'], value: [2, 'string'] }), 'repeated'],
  resources: [8, resourceRequirements],
  terminationMessagePath: [13, 'string'],
  imagePullPolicy: [14, 'string'],
  stdin: [16, 'bool'],
  stdinOnce: [17, 'bool'],
  tty: [18, 'bool'],
  terminationMessagePolicy: [20, 'string'],
});

const podSpec = message({
  containers: [2, container, 'repeated'],
  restartPolicy: [3, 'string'],
  terminationGracePeriodSeconds: [4, 'int'],
  dnsPolicy: [6, 'string'],
  nodeSelector: [7, 'stringMap'],
  serviceAccountName: [8, 'string'],
  serviceAccount: [9, 'string'],
  nodeName: [10, 'string'],
  hostNetwork: [11, 'bool'],
  hostPID: [12, 'bool'],
  hostIPC: [13, 'bool'],
  hostname: [16, 'string'],
  subdomain: [17, 'string'],
  schedulerName: [19, 'string'],
  initContainers: [20, container, 'repeated'],
});

const podTemplate = message({ metadata, spec: [2, podSpec] });

const deployment = message({
  metadata,
  spec: [
    2,
    message({
      replicas: [1, 'int'],
      selector: [2, labelSelector],
      template: [3, podTemplate],
      strategy: [
        4,
        message({
          type: [1, 'string'],
          rollingUpdate: [2, message({ maxUnavailable: [1, 'intOrString'], maxSurge: [2, 'intOrString'] })],
        }),
      ],
      minReadySeconds: [5, 'int'],
      revisionHistoryLimit: [6, 'int'],
      paused: [7, 'bool'],
      progressDeadlineSeconds: [9, 'int'],
    }),
  ],
});

const eventSource = message({ component: [1, 'string'], host: [2, 'string'] });
const eventSeries = message({ count: [1, 'int'], lastObservedTime: [2, 'time'] });

const coreEvent = message({
  metadata,
  involvedObject: [2, objectReference],
  reason: [3, 'string'],
  message: [4, 'string'],
  source: [5, eventSource],
  firstTimestamp: [6, 'time'],
  lastTimestamp: [7, 'time'],
  count: [8, 'int'],
  type: [9, 'string'],
  eventTime: [10, 'time'],
  series: [11, eventSeries],
  action: [12, 'string'],
  related: [13, objectReference],
  reportingComponent: [14, 'string'],
  reportingInstance: [15, 'string'],
});

const event = message({
  metadata,
  eventTime: [2, 'time'],
  series: [3, eventSeries],
  reportingController: [4, 'string'],
  reportingInstance: [5, 'string'],
  action: [6, 'string'],
  reason: [7, 'string'],
  regarding: [8, objectReference],
  related: [9, objectReference],
  note: [10, 'string'],
  type: [11, 'string'],
  deprecatedSource: [12, eventSource],
  deprecatedFirstTimestamp: [13, 'time'],
  deprecatedLastTimestamp: [14, 'time'],
  deprecatedCount: [15, 'int'],
});

const accessReview = message({
  metadata,
  spec: [
    2,
    message({
      resourceAttributes: [
        1,
        message({
          namespace: [1, 'string'],
          verb: [2, 'string'],
          group: [3, 'string'],
          version: [4, 'string'],
          resource: [5, 'string'],
          subresource: [6, 'string'],
          name: [7, 'string'],
        }),
      ],
      nonResourceAttributes: [2, message({ path: [1, 'string'], verb: [2, 'string'] })],
    }),
  ],
  status: [3, message({ allowed: [1, 'bool'], reason: [2, 'string'], evaluationError: [3, 'string'] })],
});

const deleteOptions = message({
  gracePeriodSeconds: [1, 'int'],
  preconditions: [2, message({ uid: [1, 'string'], resourceVersion: [2, 'string'] })],
  orphanDependents: [3, 'bool'],
  propagationPolicy: [4, 'string'],
  dryRun: [5, 'string', 'repeated'],
});

/** Messages by `apiVersion/kind`. */
export const wireMessages: ReadonlyMap<string, MessageSchema> = new Map<string, MessageSchema>([
  ...Object.entries(kinds)
    .filter(([kind]) => kind !== 'Status')
    .map(([kind, { apiVersion, fields }]): [string, MessageSchema] => [`${apiVersion}/${kind}`, fields]),
  [
    'v1/Namespace',
    message({
      metadata,
      spec: [2, message({ finalizers: [1, 'string', 'repeated'] })],
      status: [3, message({ phase: [1, 'string'] })],
    }),
  ],
  ['v1/ConfigMap', message({ metadata, data: [2, 'stringMap'], immutable: [4, 'bool'] })],
  [
    'v1/Secret',
    message({
      metadata,
      data: [2, 'bytesMap'],
      type: [3, 'string'],
      stringData: [4, 'stringMap'],
    }),
  ],
  ['v1/ServiceAccount', message({ metadata, automountServiceAccountToken: [4, 'bool'] })],
  ['v1/Pod', message({ metadata, spec: [2, podSpec] })],
  ['v1/Event', coreEvent],
  ['events.k8s.io/v1/Event', event],
  ['apps/v1/Deployment', deployment],
  [
    'autoscaling/v1/Scale',
    message({
      metadata,
      spec: [2, message({ replicas: [1, 'int'] })],
      status: [3, message({ replicas: [1, 'int'], selector: [2, 'string'] })],
    }),
  ],
  ['authorization.k8s.io/v1/SelfSubjectAccessReview', accessReview],
  ['authentication.k8s.io/v1/SelfSubjectReview', message({ metadata, status: [2, message({})] })],
  ['v1/DeleteOptions', deleteOptions],
  ['policy/v1/Eviction', message({ metadata, deleteOptions: [2, deleteOptions] })],
  [
    'coordination.k8s.io/v1/Lease',
    message({
      metadata,
      spec: [
        2,
        message({
          holderIdentity: [1, 'string'],
          leaseDurationSeconds: [2, 'int'],
          acquireTime: [3, 'time'],
          renewTime: [4, 'time'],
          leaseTransitions: [5, 'int'],
        }),
      ],
    }),
  ],
]);
