/** The lab's API server with the benchmark's objects in it, as a process of its own. Arguments: address, directory. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startApiServer } from '../../src/lab/apiserver/server.ts';
import { answerRequests, now } from './channel.ts';
import { node, podIP, replacementIP, service, slice } from './objects.ts';

const [host = '', directory = ''] = process.argv.slice(2);
const server = await startApiServer({
  host,
  port: 6443,
  directory: join(directory, 'pki'),
  serviceCidrs: ['10.96.0.0/12'],
});
writeFileSync(join(directory, 'kubeconfig'), server.kubeconfig(), { mode: 0o600 });

/** Addresses behind each Service now. */
const behind: string[][] = [];
let serial = 0;

function put(i: number): number {
  const object = slice(i, behind[i] ?? []);
  object.metadata.uid = `slice-${i}`;
  object.metadata.creationTimestamp = '2026-03-01T12:00:00Z';
  const at = now();
  server.store.storage.put('endpointslices.discovery.k8s.io', object);
  return at;
}

answerRequests({
  load: (request) => {
    const [services, endpoints] = [Number(request['services']), Number(request['endpoints'])];
    server.store.load([node(String(request['node']), String(request['nodeIP']))]);
    for (let i = 0; i < services; i++) {
      const addresses = Array.from({ length: endpoints }, (_, j) => podIP(i, j, endpoints));
      behind[i] = addresses;
      server.store.load([service(i), slice(i, addresses)]);
    }
    return behind.length;
  },
  /** Puts these addresses, and only these, behind a Service. Returns when. */
  set: (request) => {
    const i = Number(request['service']);
    behind[i] = [...(request['addresses'] as string[])];
    return put(i);
  },
  /** One endpoint of a Service gives way to another. */
  replaced: (request) => {
    const i = Number(request['service']);
    const list = behind[i] ?? [];
    list[serial % list.length] = replacementIP(serial);
    serial++;
    return put(i);
  },
  added: (request) => {
    const i = Number(request['service']);
    behind[i]?.push(replacementIP(serial++));
    return put(i);
  },
  removed: (request) => {
    const i = Number(request['service']);
    behind[i]?.pop();
    return put(i);
  },
});
process.send?.({ id: 0 });
