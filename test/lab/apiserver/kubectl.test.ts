import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { resourceById } from '../../../src/lab/apiserver/resources.ts';
import { startApiServer, type ApiServer } from '../../../src/lab/apiserver/server.ts';
import { findKubectl, makeKubectl, type Kubectl } from './support.ts';

const pods = resourceById('pods');

const nodeManifest = `
apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {topology.kubernetes.io/zone: zone-a}}
spec: {podCIDRs: [10.244.1.0/24]}
status:
  addresses: [{type: InternalIP, address: 172.31.0.11}]
  conditions: [{type: Ready, status: "True", reason: KubeletReady}]
`;

const serviceManifest = (port: number, extra = ''): string => `
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: ${port}, targetPort: 8080}
${extra}`;

/** What the lab's kubelet does: Pods that have a node run, and Pods that should go are gone. */
function runPods(server: ApiServer): () => void {
  let count = 10;
  return server.store.storage.subscribe('pods', ({ type, object }) => {
    if (type === 'DELETED' || !object.spec?.['nodeName']) return;
    const { name, namespace = '' } = object.metadata;
    setImmediate(() => {
      const pod = server.store.find(pods, namespace, name);
      if (pod === undefined) return;
      if (pod.metadata.deletionTimestamp !== undefined) {
        server.store.delete(pods, namespace, name, { gracePeriodSeconds: 0 });
      } else if (pod.status?.['phase'] === 'Pending') {
        const podIP = `10.244.1.${count++}`;
        const conditions = [{ type: 'Ready', status: 'True' }];
        const status = { phase: 'Running', podIP, podIPs: [{ ip: podIP }], conditions };
        server.store.update(pods, namespace, name, { ...pod, status }, { subresource: 'status' });
      }
    });
  });
}

async function until<T>(what: string, look: () => Promise<T> | T, good: (value: T) => boolean): Promise<T> {
  const end = Date.now() + 60_000;
  for (;;) {
    const value = await look();
    if (good(value)) return value;
    if (Date.now() > end) throw new Error(`${what}: still ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

for (const which of ['new', 'old'] as const) {
  describe(`kubectl (${which})`, () => {
    let server: ApiServer;
    let kubectl: Kubectl;
    let stopPods: () => void;
    let program = '';
    let missing: string | undefined;

    before(async () => {
      try {
        program = await findKubectl(which);
      } catch (error) {
        // The old one is a courtesy: it needs Debian's package lists. The recent one must be there.
        if (which === 'new') throw error;
        missing = error instanceof Error ? error.message : String(error);
      }
      server = await startApiServer({ controllers: {} });
      stopPods = runPods(server);
      kubectl = makeKubectl(program, server.kubeconfig(which === 'new' ? 'token' : 'certificate'));
    });
    after(async () => {
      stopPods();
      kubectl.remove();
      await server.close();
    });

    const check = (name: string, body: () => Promise<void>): void => {
      test(name, async (t) => {
        if (missing !== undefined) t.skip(missing);
        else await body();
      });
    };

    check('version, api-resources and readiness', async () => {
      assert.match(await kubectl.run(['version']), /v1\.36\.2/);
      assert.match(await kubectl.run(['get', '--raw', '/readyz']), /ok/);
      const names = await kubectl.run(['api-resources', '-o', 'name']);
      for (const one of ['services', 'endpointslices.discovery.k8s.io', 'deployments.apps']) {
        assert.ok(names.split('\n').includes(one), one);
      }
    });

    check('apply: create, unchanged, configured, removal of a field', async () => {
      assert.match(await kubectl.run(['apply', '-f', '-'], nodeManifest), /node\/node-1 created/);
      assert.match(await kubectl.run(['apply', '-f', '-'], nodeManifest), /node\/node-1 unchanged/);
      const affine = serviceManifest(80, '  sessionAffinity: ClientIP');
      assert.match(await kubectl.run(['apply', '-f', '-'], affine), /service\/shop created/);
      assert.match(await kubectl.run(['apply', '-f', '-'], serviceManifest(81)), /service\/shop configured/);
      const path = '{.spec.ports[*].port} {.spec.sessionAffinity} {.spec.type}';
      assert.equal(await kubectl.run(['get', 'svc', 'shop', '-o', `jsonpath=${path}`]), '81 None ClusterIP');
    });

    check('apply --server-side: ownership, conflicts, force', async () => {
      const manifest = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"owned"},"data":{"color":"red"}}`;
      const other = manifest.replace('red', 'blue');
      const apply = ['apply', '--server-side', '-f', '-', '--field-manager'];
      assert.match(await kubectl.run([...apply, 'one'], manifest), /serverside-applied/);
      const refused = await kubectl.fails([...apply, 'two'], other);
      assert.match(refused, /Apply failed with 1 conflict: conflict with "one": \.data\.color/);
      await kubectl.run([...apply, 'two', '--force-conflicts'], other);
      assert.equal(await kubectl.run(['get', 'cm', 'owned', '-o', 'jsonpath={.data.color}']), 'blue');
      // What its last owner no longer applies is gone.
      await kubectl.run([...apply, 'two'], manifest.replace('"color":"red"', '"size":"big"'));
      assert.equal(await kubectl.run(['get', 'cm', 'owned', '-o', 'jsonpath={.data}']), '{"size":"big"}');
    });

    check('unknown fields are refused', async () => {
      const wrong = serviceManifest(80)
        .replace('targetPort', 'targetPorrt')
        .replace('name: shop', 'name: wrong');
      assert.match(await kubectl.fails(['apply', '-f', '-'], wrong), /unknown field/);
    });

    check('create deployment, rollout status, scale, expose, wait', async () => {
      await kubectl.run(['create', 'deployment', 'web', '--image=web', '--replicas=2', '--port=8080']);
      assert.match(
        await kubectl.run(['rollout', 'status', 'deployment/web', '--timeout=120s']),
        /successfully rolled out/,
      );
      await kubectl.run(['wait', '--for=condition=Available', 'deployment/web', '--timeout=120s']);
      await kubectl.run(['scale', 'deployment', 'web', '--replicas=3']);
      await kubectl.run(['rollout', 'status', 'deployment/web', '--timeout=120s']);
      assert.match(await kubectl.run(['get', 'deployment', 'web']), /web +3\/3 +3 +3 /);
      assert.match(
        await kubectl.run(['get', 'pods', '-o', 'wide']),
        /1\/1 +Running +0 +\d+s +10\.244\.1\.\d+ +node-1/,
      );
      await kubectl.run([
        'expose',
        'deployment',
        'web',
        '--port=80',
        '--target-port=8080',
        '--type=NodePort',
      ]);
      const ports = await kubectl.run(['get', 'svc', 'web', '-o', 'jsonpath={.spec.ports[0].nodePort}']);
      assert.ok(Number(ports) >= 30000 && Number(ports) <= 32767, ports);
      await until(
        'endpoints',
        () => kubectl.run(['get', 'endpoints', 'web', '-o', 'jsonpath={.subsets[*].addresses[*].ip}']),
        (text) => text.split(' ').length === 3,
      );
      assert.match(
        await kubectl.run(['get', 'endpointslices', '-l', 'kubernetes.io/service-name=web']),
        /IPv4 +8080 +10\.244/,
      );
    });

    check('describe service, deployment, pod and node', async () => {
      const service = await kubectl.run(['describe', 'svc', 'web']);
      assert.match(service, /Type: +NodePort/);
      assert.match(service, /Endpoints: +10\.244\.1\.\d+:8080/);
      assert.match(
        await kubectl.run(['describe', 'deployment', 'web']),
        /3 desired \| 3 updated \| 3 total \| 3 available/,
      );
      assert.match(
        await kubectl.run(['describe', 'pods', '-l', 'app=web']),
        /Controlled By: +ReplicaSet\/web-/,
      );
      assert.match(await kubectl.run(['describe', 'node', 'node-1']), /Non-terminated Pods: +\(3 in total\)/);
    });

    check('a new template rolls out, and back', async () => {
      await kubectl.run(['set', 'image', 'deployment/web', 'web=web:2']);
      await kubectl.run(['rollout', 'status', 'deployment/web', '--timeout=120s']);
      await until(
        'images',
        () =>
          kubectl.run([
            'get',
            'pods',
            '-l',
            'app=web',
            '-o',
            'jsonpath={.items[*].spec.containers[0].image}',
          ]),
        (text) => text === 'web:2 web:2 web:2',
      );
      await kubectl.run(['rollout', 'undo', 'deployment/web']);
      await kubectl.run(['rollout', 'status', 'deployment/web', '--timeout=120s']);
      assert.match(await kubectl.run(['get', 'deployment', 'web', '-o', 'wide']), / web +app=web/);
    });

    check('create services of every type', async () => {
      await kubectl.run(['create', 'service', 'clusterip', 'c', '--tcp=80:8080']);
      await kubectl.run(['create', 'service', 'clusterip', 'h', '--clusterip=None']);
      await kubectl.run(['create', 'service', 'nodeport', 'n', '--tcp=80:8080']);
      await kubectl.run(['create', 'service', 'loadbalancer', 'l', '--tcp=80:8080']);
      await kubectl.run(['create', 'service', 'externalname', 'e', '--external-name=example.com']);
      const table = await kubectl.run(['get', 'svc', '-o', 'wide']);
      assert.match(table, /^c +ClusterIP +10\.96\.\d+\.\d+ +<none> +80\/TCP +\d+s +app=c$/m);
      assert.match(table, /^h +ClusterIP +None +<none> +<none>/m);
      assert.match(table, /^n +NodePort +10\.96\.\d+\.\d+ +<none> +80:3\d{4}\/TCP/m);
      assert.match(table, /^l +LoadBalancer +10\.96\.\d+\.\d+ +192\.0\.2\.\d+ +80:3\d{4}\/TCP/m);
      assert.match(table, /^e +ExternalName +<none> +example\.com/m);
      assert.match(
        await kubectl.fails(['create', 'service', 'clusterip', 'c', '--tcp=80']),
        /already exists/,
      );
    });

    check('label, annotate, and patches of three kinds', async () => {
      await kubectl.run(['label', 'svc', 'c', 'tier=front']);
      await kubectl.run(['annotate', 'svc', 'c', 'note=hello']);
      assert.match(await kubectl.run(['get', 'svc', '-l', 'tier=front', '-o', 'name']), /^service\/c\n$/);
      const add = '{"spec":{"ports":[{"name":"more","port":81}]}}';
      await kubectl.run(['patch', 'svc', 'c', '-p', add]);
      const replace = '[{"op":"replace","path":"/spec/ports/0/port","value":99}]';
      await kubectl.run(['patch', 'svc', 'c', '--type=json', '-p', replace]);
      await kubectl.run(['patch', 'svc', 'c', '--type=merge', '-p', '{"metadata":{"labels":{"tier":null}}}']);
      assert.equal(await kubectl.run(['get', 'svc', 'c', '-o', 'jsonpath={.spec.ports[*].port}']), '99 81');
      assert.equal(await kubectl.run(['get', 'svc', '-l', 'tier=front', '-o', 'name']), '');
      assert.match(
        await kubectl.fails(['patch', 'svc', 'c', '-p', '{"spec":{"clusterIP":"10.96.9.9"}}']),
        /may not change once set|first value must match/,
      );
    });

    check('get --watch prints changes as they come', async () => {
      const watching = kubectl.start(['get', 'svc', 'n', '--watch', '--no-headers']);
      let output = '';
      watching.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString()));
      await until(
        'first line',
        () => output,
        (text) => text.includes('NodePort'),
      );
      await kubectl.run(['patch', 'svc', 'n', '-p', '{"spec":{"externalIPs":["198.51.100.7"]}}']);
      await until(
        'second line',
        () => output,
        (text) => text.includes('198.51.100.7'),
      );
      watching.kill();
    });

    check('explain, auth, events, dry run', async () => {
      assert.match(await kubectl.run(['explain', 'service.spec.ports.nodePort']), /The port at every node/);
      assert.match(await kubectl.run(['auth', 'can-i', 'create', 'pods']), /yes/);
      await kubectl.run(['create', 'cm', 'dry', '--from-literal=a=b', '--dry-run=server']);
      assert.match(await kubectl.fails(['get', 'cm', 'dry']), /configmaps "dry" not found/);
      server.store.create(resourceById('events.events.k8s.io'), 'default', {
        metadata: { name: 'started.1' },
        eventTime: new Date().toISOString(),
        reason: 'Starting',
        type: 'Normal',
        note: 'up and running',
        regarding: { kind: 'Node', name: 'node-1', uid: 'node-1' },
      });
      assert.match(await kubectl.run(['get', 'events']), /Normal +Starting +node\/node-1 +up and running/);
      assert.match(
        await kubectl.run(['get', 'events', '--field-selector', 'involvedObject.kind=Node', '-o', 'name']),
        /started\.1/,
      );
    });

    check('drain and uncordon a node', async () => {
      await kubectl.run(['run', 'lonely', '--image=web']);
      await until(
        'running',
        () => kubectl.run(['get', 'pod', 'lonely']),
        (text) => text.includes('Running'),
      );
      // The old one says that it deleted the node, but means its Pods.
      const said = which === 'new' ? /node\/node-1 drained/ : /pod\/lonely deleted/;
      assert.match(await kubectl.run(['drain', 'node-1', '--force', '--timeout=120s']), said);
      assert.match(await kubectl.run(['get', 'nodes']), /Ready,SchedulingDisabled/);
      await kubectl.run(['uncordon', 'node-1']);
      assert.match(await kubectl.fails(['get', 'pod', 'lonely']), /not found/);
    });

    check('delete: cascades, waits, and empties namespaces', async () => {
      await kubectl.run(['delete', 'deployment', 'web']);
      await until(
        'pods',
        () => kubectl.run(['get', 'pods', '-l', 'app=web', '-o', 'name']),
        (text) => text === '',
      );
      await until(
        'replica sets',
        () => kubectl.run(['get', 'rs', '-o', 'name']),
        (text) => text === '',
      );
      await kubectl.run(['delete', 'svc', 'web']);
      await until(
        'slices',
        () => kubectl.run(['get', 'endpointslices', '-l', 'kubernetes.io/service-name=web', '-o', 'name']),
        (text) => text === '',
      );
      await kubectl.run(['create', 'namespace', 'short']);
      await kubectl.run(['create', 'cm', 'inside', '-n', 'short', '--from-literal=a=b']);
      await kubectl.run(['delete', 'namespace', 'short']);
      assert.match(await kubectl.fails(['get', 'cm', '-n', 'short', 'inside']), /not found/);
      assert.match(await kubectl.fails(['delete', 'namespace', 'default']), /may not be deleted/);
    });
  });
}
