/** First story: a front-end Pod calls its API by the Service's cluster IP; the rules that sent it there, with the kernel's counts. */
import { asText } from '../scenario/generate.ts';
import { pod, service } from './manifests.ts';
import { packetPath, parseFlow, type Hop } from './packetPath.ts';
import { at, call, clusterIpOf, DemoFailure, waitForPods, waitForService, type Stage } from './stage.ts';

const meanings: readonly (readonly [RegExp, string])[] = [
  [/^KUBE-SVC-/, "one of the Service's Pods is chosen"],
  [/^KUBE-SEP-/, 'the destination becomes that Pod'],
  [/^KUBE-SERVICES$/, 'is it for a Service? yes:'],
  [/^PREROUTING$/, 'the first packet of a connection comes in'],
];

function meaning(hop: Hop): string {
  return meanings.find(([pattern]) => pattern.test(hop.chain))?.[1] ?? '';
}

function natTable(stage: Stage, node: string): string {
  const { network, env } = stage.cluster;
  return network.namespaces.run(node, ['iptables-save', '-c', '-t', 'nat'], { env }).stdout;
}

export async function playFrontend(stage: Stage): Promise<void> {
  const { cluster, say } = stage;
  say('Story 1: front end -> API');
  say('');
  await cluster.client.apply(pod('api-1', 'api', 'node-2'));
  await cluster.client.apply(pod('frontend', 'frontend', 'node-1'));
  await cluster.client.apply(service('api', 'api'));
  const [backend] = await waitForPods(stage, 'api', 1);
  await waitForPods(stage, 'frontend', 1);
  const ip = await clusterIpOf(stage, 'api');
  const podIp = asText(at(backend, 'status', 'podIP'));
  say('  Pod      frontend   on node-1');
  say(`  Service  api        ${ip}:80`);
  say(`  Pod      api-1      on node-2, ${podIp}:8080: the only one behind the Service`);
  say('');
  await waitForService(stage, 'frontend', ip);

  const before = natTable(stage, 'node-1');
  const answer = await call(stage, 'frontend', ip);
  const after = natTable(stage, 'node-1');
  say(`  frontend$ curl http://${ip}/`);
  say(`  ${answer.text}`);
  say('');
  say('  The way of its first packet through node-1: the rules in the kernel that');
  say('  counted it (iptables-save -c before and after, [packets]):');
  say('');
  const hops = packetPath(before, after, 'PREROUTING');
  for (const hop of hops) {
    const indent = '  '.repeat(hop.depth + 1);
    say(`${indent}${hop.chain}: ${meaning(hop)}`);
    say(`${indent}  [${hop.packets}] ${hop.text}`);
  }
  const last = hops.at(-1);
  if (answer.pod !== 'api-1' || last?.target !== 'DNAT' || !last.text.includes(`${podIp}:8080`)) {
    throw new DemoFailure('the packet did not take the way through the Service to its Pod');
  }
  say('');
  say('  conntrack keeps what was decided, for the rest of the connection and for the');
  say('  way back (what the front end sends; what is sent back):');
  const { stdout } = cluster.network.namespaces.run('node-1', ['conntrack', '-L', '-p', 'tcp', '-d', ip]);
  const flow = stdout
    .split('\n')
    .map(parseFlow)
    .find((each) => each?.original[0] === answer.client);
  if (flow?.reply[0] !== `${podIp}:8080`) throw new DemoFailure('conntrack has no entry for the connection');
  say(`    ${flow.original[0]} -> ${flow.original[1]}`);
  say(`    ${flow.reply[0]} -> ${flow.reply[1]}   ${flow.state}`);
  say('');
}
