/** The objects that an explanation is made with, from wherever the command line says. */
import { networkInterfaces } from 'node:os';
import type { InputArguments } from '../../render/arguments.ts';
import { readManifests } from '../../cluster/manifests.ts';
import { clusterOf, type ClusterObjects } from '../../render/cluster.ts';
import { stderrLogger } from '../../render/stderrLogger.ts';
import type { Wanted } from '../../render/wanted.ts';
import { canonicalIP } from '../../services/ip.ts';
import { Catalog } from '../catalog.ts';
import { noSuchNode, noSuchPod, parseAddressPort, parsePodName, type Question } from '../subject.ts';

export interface Objects {
  /** With the node that this machine is, where several were to choose from. */
  readonly given: InputArguments;
  readonly cluster: ClusterObjects | undefined;
  /** What the daemon wants, if it was asked. */
  readonly wanted: Wanted | undefined;
  readonly remarks: readonly string[];
}

/** From files, a live cluster, or the daemon of this node together with the API server it asks. */
export async function readObjects(
  given: InputArguments,
  question: Question,
  hasDump: boolean,
  err: (text: string) => void,
): Promise<Objects> {
  const log = stderrLogger(err);
  if (given.paths.length > 0) {
    const cluster = clusterOf(readManifests(given.paths));
    return { given: withNode(given, cluster, question), cluster, wanted: undefined, remarks: [] };
  }
  if (given.live) {
    const { readLiveCluster } = await import('../../render/live.ts');
    const { enrich } = await import('./apiServer.ts');
    const listed = await readLiveCluster(given.api, given.node.name, log);
    const { cluster, remarks } = await enrich(listed, question, given.api, log);
    return { given: withNode(given, cluster, question, ownAddresses()), cluster, wanted: undefined, remarks };
  }
  if (hasDump) return { given, cluster: undefined, wanted: undefined, remarks: [] };
  const { askDaemon } = await import('../../render/daemon.ts');
  const { inputs, refusal } = await askDaemon(given, err);
  if (inputs === undefined) {
    err(`Services are not known, only rules: ${refusal}\n`);
    return { given, cluster: undefined, wanted: undefined, remarks: [] };
  }
  const { enrich } = await import('./apiServer.ts');
  const { cluster, remarks } = await enrich(inputs.cluster, question, inputs.api, log);
  return { given, cluster, wanted: inputs.wanted, remarks };
}

/** Of several Nodes, the one that this machine is; the sender's, which sees the packet first; the one that is dialled. */
function withNode(
  given: InputArguments,
  cluster: ClusterObjects,
  question: Question,
  here: ReadonlySet<string> = new Set(),
): InputArguments {
  const { nodes } = cluster;
  if (given.node.name !== '' || nodes.length < 2) return given;
  const catalog = new Catalog(cluster);
  const machine = catalog.nodeNamed(question.from);
  if (machine === undefined && question.from.startsWith('node/')) throw noSuchNode(question.from, catalog);
  const sender = machine === undefined ? parsePodName(question.from) : undefined;
  const pod =
    sender === undefined
      ? catalog.podAt(canonicalIP(question.from) ?? '')
      : catalog.podNamed(sender.namespace, sender.name);
  const own = nodes.find(({ addresses }) => addresses.some(({ address }) => here.has(address)));
  const dialled =
    catalog.nodeAt(parseAddressPort(question.to)?.address ?? '') ??
    catalog.nodeNamed(question.to.replace(/:\d+$/, ''));
  const name = own?.meta.name ?? machine?.meta.name ?? pod?.node ?? dialled?.meta.name ?? '';
  if (name === '' && sender !== undefined && pod === undefined && !isEndpoint(sender, cluster))
    throw noSuchPod(sender.namespace, sender.name, undefined, catalog);
  return name === '' ? given : { ...given, node: { ...given.node, name } };
}

/** A slice names the Pod, so its address is known without an object of its own. */
function isEndpoint(
  pod: { readonly namespace: string; readonly name: string },
  cluster: ClusterObjects,
): boolean {
  const name = `${pod.namespace}/${pod.name}`;
  return cluster.slices.some(({ endpoints }) => endpoints.some((one) => one.pod === name));
}

/** The node whose rules are asked for is the machine that this runs on. */
export function isThisMachine({ node }: InputArguments, cluster: ClusterObjects | undefined): boolean {
  const here = ownAddresses();
  const named = cluster?.nodes.find(({ meta }) => node.name === '' || meta.name === node.name);
  return named?.addresses.some(({ address }) => here.has(address)) ?? false;
}

function ownAddresses(): Set<string> {
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return new Set(all.filter(({ internal }) => !internal).map(({ address }) => address));
}
