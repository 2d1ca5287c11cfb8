/** Puts a case together from what the command line named. */
import type { Family } from '../api/objects.ts';
import { UsageError } from '../config/flags.ts';
import type { InputArguments } from '../render/arguments.ts';
import type { ClusterObjects } from '../render/cluster.ts';
import { chooseNode, type RenderNode } from '../render/node.ts';
import { wantedOf, type Wanted as WantedNode } from '../render/wanted.ts';
import { familyOf, isLoopback } from '../services/ip.ts';
import type { Case, KnownFlow, RuleSource } from './case.ts';
import { Catalog } from './catalog.ts';
import { endpointsHere } from './podAddresses.ts';
import { ipvsChains } from './ipvs/evaluate.ts';
import { decide, type Wanted } from './routes.ts';
import type { RuleDump } from './sources/dump.ts';
import type { KernelState } from './sources/kernel.ts';
import { wantedMachine, type Machine } from './sources/rules.ts';
import { findOrigin, findTarget, makePacket, type Question } from './subject.ts';
import { followRelays } from './userspace/relay.ts';
import { walk } from './walk.ts';
import { World, type WorldOptions } from './world.ts';

export interface CaseInputs {
  readonly question: Question;
  readonly given: InputArguments;
  /** Undefined: no objects were named. */
  readonly cluster: ClusterObjects | undefined;
  /** What the daemon of this node wants; it was asked because no objects were named. */
  readonly daemon?: WantedNode;
  /** What could not be had. */
  readonly remarks?: readonly string[];
  readonly dump?: RuleDump;
  /** Reads the kernel of this machine. */
  readonly kernel?: (family: Family) => Promise<KernelState>;
  readonly flows?: readonly KnownFlow[];
}

/** Throws a sentence where the question cannot be asked. */
export async function buildCase(inputs: CaseInputs): Promise<Case> {
  const { question, given, cluster, dump, daemon } = inputs;
  const remarks: string[] = [...(inputs.remarks ?? [])];
  const { config } = given;
  const node = daemon?.node ?? chooseNode(cluster?.nodes ?? [], given.node, config.bindAddress);
  const catalog = cluster === undefined ? undefined : new Catalog(cluster);
  const known = (family: Family): string =>
    isLoopback(node.addresses[family]) ? '' : node.addresses[family];
  const target = findTarget(
    question,
    catalog,
    known,
    given.families?.length === 1 ? given.families[0] : undefined,
  );
  const family = familyOf(target.address);
  const kernel = await inputs.kernel?.(family);
  remarks.push(...(kernel?.remarks ?? []));

  const wantedNode = wantedFor(inputs, node, family);
  const mode = daemon?.config.mode ?? kernel?.mode ?? dump?.mode ?? config.mode;
  const servers = kernel?.servers ?? dump?.servers ?? [];
  const table = wantedNode?.families[0]?.table;
  const local = new Set([
    ...(kernel?.localAddresses ?? []),
    ...node.localAddresses.filter((ip) => familyOf(ip) === family),
  ]);
  const ofServices = kernel?.serviceAddresses ?? servers.map(({ server }) => server.address);
  let nodeIP = known(family) || (kernel?.nodeIP ?? '');
  const podNetworks = [...config.clusterCIDRs, ...(cluster?.nodes.flatMap(({ podCIDRs }) => podCIDRs) ?? [])];
  const options: Omit<WorldOptions, 'nodeIP' | 'localAddresses'> = {
    nodeName: node.name,
    family,
    podsHere: podsHere(wantedNode, catalog, node.name),
    podNetworksHere: node.podCIDRs,
    podNetworks,
    ...interfaces(given, kernel, dump === undefined && kernel === undefined),
    ...(dump === undefined ? {} : { ipsets: dump.ipsets }),
    ...(kernel === undefined
      ? {}
      : {
          ipsets: kernel.ipsets,
          recent: kernel.recent,
          routes: kernel.routes,
          listening: kernel.listening,
        }),
  };
  // Without a Node object nothing says which addresses are the node's: a node port is dialled at one of them.
  if (
    nodeIP === '' &&
    assumeNodeAddress(target, catalog, new World({ ...options, nodeIP, localAddresses: [] }))
  ) {
    nodeIP = target.address;
    local.add(nodeIP);
    remarks.push(
      `${nodeIP} is taken for an address of ${node.name || 'this node'}: no Node object and no --node-ip says otherwise.`,
    );
  }
  const bare = new World({
    ...options,
    nodeIP,
    localAddresses: [...local],
    serviceAddresses: ofServices.filter((ip) => familyOf(ip) === family && !local.has(ip)),
  });
  const wanted: Wanted | undefined =
    wantedNode === undefined || table === undefined
      ? undefined
      : {
          mode,
          table,
          options: {
            ...wantedNode.families[0]!.options,
            // The daemon has told its own.
            ...(daemon === undefined && nodeIP !== '' ? { nodeIP } : {}),
          },
          localhostNodePorts: config.localhostNodePorts && (family === 'IPv4' || mode === 'userspace'),
          serviceCIDRs: wantedNode.families[0]!.serviceCIDRs,
          scheduler: config.ipvs.scheduler,
          listeners: config,
        };
  const { rules, chains, world } = machineOf(inputs, kernel, wanted, bare);
  if (nodeIP === '' && /^(node|localhost)$/.test(question.from) && !world.isLocal(target.address)) {
    throw new UsageError(
      `--from ${question.from}: the address of the node is not known; give a Node object or --node-ip`,
    );
  }
  const packet = makePacket(question, target, findOrigin(question, target, world, catalog, table));
  const decision = wanted === undefined ? undefined : decide(packet, world, wanted);
  let prediction = walk(packet, chains, world);
  let failedAttempts: Case['failedAttempts'] = [];
  if (mode === 'userspace') {
    ({ prediction, failedAttempts } = followRelays(prediction, packet, chains, world, decision));
    if (rules.kind === 'wanted')
      remarks.push('At which ports pointsman listens is made up here: the daemon takes those that are free.');
  }
  if (mode === 'ipvs' && rules.kind === 'dump' && servers.length === 0) {
    remarks.push(
      'These are rules of IPVS mode without its virtual servers: add a second --dump with the output of "ipvsadm --save --numeric", and a third with that of "ipset save".',
    );
  }
  return {
    packet,
    world,
    mode,
    rules,
    prediction,
    failedAttempts,
    wanted,
    decision,
    catalog,
    flows: inputs.flows ?? kernel?.flows ?? [],
    remarks,
  };
}

function machineOf(
  { dump }: CaseInputs,
  kernel: KernelState | undefined,
  wanted: Wanted | undefined,
  world: World,
): Machine & { readonly rules: RuleSource } {
  if (dump !== undefined)
    return {
      rules: { kind: 'dump', file: dump.file },
      chains: [...dump.chains(world.family), ...ipvsChains(dump.servers)],
      world,
    };
  if (kernel !== undefined)
    return { rules: { kind: 'kernel' }, chains: [...kernel.chains, ...ipvsChains(kernel.servers)], world };
  if (wanted === undefined)
    throw new UsageError('no rules: name manifests with -f, a dump with --dump, or run it on a node');
  return { rules: { kind: 'wanted' }, ...wantedMachine(wanted, world) };
}

function wantedFor(
  { cluster, daemon, given }: CaseInputs,
  node: RenderNode,
  family: Family,
): WantedNode | undefined {
  if (daemon !== undefined) {
    const families = daemon.families.filter((one) => one.family === family);
    return families.length === 0 ? undefined : { ...daemon, families };
  }
  if (cluster === undefined) return undefined;
  return wantedOf(cluster, { config: given.config, node, families: [family] });
}

function assumeNodeAddress(
  target: { readonly address: string; readonly port: number; readonly protocol: string },
  catalog: Catalog | undefined,
  world: World,
): boolean {
  if (isLoopback(target.address) || catalog === undefined || world.isPod(target.address)) return false;
  if (catalog.nodeAt(target.address) !== undefined) return false;
  const taken = catalog.services.some(({ service }) =>
    [
      service.clusterIP,
      ...service.clusterIPs,
      ...service.externalIPs,
      ...service.loadBalancerIngress.map(({ ip }) => ip),
    ].includes(target.address),
  );
  if (taken) return false;
  return catalog.services.some(({ ports }) =>
    ports.some(({ nodePort, protocol }) => nodePort === target.port && protocol === target.protocol),
  );
}

function podsHere(wanted: WantedNode | undefined, catalog: Catalog | undefined, node: string): Set<string> {
  const here = new Set<string>();
  for (const { table } of wanted?.families ?? []) for (const ip of endpointsHere(table)) here.add(ip);
  for (const pod of catalog?.pods ?? [])
    if (node !== '' && pod.node === node) for (const ip of pod.ips) here.add(ip);
  return here;
}

/** Where no machine is asked and Pods are told by interface, packets from outside come in by another one. */
function interfaces(
  { config }: InputArguments,
  kernel: KernelState | undefined,
  imagined: boolean,
): Pick<WorldOptions, 'outInterface' | 'podInterface'> {
  const pod =
    config.detectLocalMode === 'BridgeInterface'
      ? config.bridgeInterface
      : config.detectLocalMode === 'InterfaceNamePrefix'
        ? `${config.interfaceNamePrefix}0`
        : '';
  const out =
    kernel?.routes.find(({ cidr }) => cidr.prefix === 0)?.interface ?? (imagined && pod !== '' ? 'eth0' : '');
  return { ...(out === '' ? {} : { outInterface: out }), ...(pod === '' ? {} : { podInterface: pod }) };
}
