/** From what people type (`--from pod/shop/web-1 --to shop/checkout:http`) to a packet. */
import type { Family, Protocol } from '../api/objects.ts';
import { UsageError } from '../config/flags.ts';
import { meant } from '../config/spelling.ts';
import { canonicalIP, familyOf, isLoopback } from '../services/ip.ts';
import type { RoutingTable } from '../services/types.ts';
import { endpointsOfPod } from './podAddresses.ts';
import type { Catalog, PodInfo, ServiceInfo } from './catalog.ts';
import { list } from './findings/words.ts';
import { nearSender } from './typed.ts';
import { formatPlace, type Origin, type Packet } from './packet.ts';
import type { World } from './world.ts';
import { programName } from '../programName.ts';

export interface Question {
  /** `pod/NS/NAME`, a name, an address, `node`, `localhost`, `outside` */
  readonly from: string;
  /** `ADDRESS:PORT`, `NS/SERVICE:PORT` (name or number), `node:PORT` */
  readonly to: string;
  /** Empty: that of the Service's port, else TCP. */
  readonly protocol: string;
  /** Empty: any of those that the kernel hands out. */
  readonly sourcePort: string;
  readonly inInterface: string;
}

/** Addresses that documentation uses (RFC 5737, RFC 3849): a client that is nobody in particular. */
export const somebodyOutside = { IPv4: '198.51.100.77', IPv6: '2001:db8::77' } as const;

export interface Target {
  readonly address: string;
  readonly port: number;
  readonly protocol: Protocol;
  readonly remark?: string;
}

const protocolNames: readonly Protocol[] = ['TCP', 'UDP', 'SCTP'];

export function parseProtocol(text: string): Protocol | undefined {
  if (text === '') return undefined;
  const found = protocolNames.find((name) => name === text.toUpperCase());
  if (found === undefined) {
    const ping = /^icmp/i.test(text)
      ? ': Services have ports, and ping has none, so no rule of a Service is about it. Ask about a port'
      : '';
    throw new UsageError(`--proto: "${text}" is none of tcp, udp, sctp${ping}`);
  }
  return found;
}

/** `ADDRESS:PORT`; undefined if the text is something else. */
export function parseAddressPort(text: string): { address: string; port: number } | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:\s]+)):(\d{1,5})$/.exec(text);
  const address = canonicalIP(match?.[1] ?? match?.[2] ?? '');
  const port = Number(match?.[3]);
  if (address === undefined || !(port >= 1 && port <= 65535)) return undefined;
  return { address, port };
}

/** `node:30080`, `localhost:30080`: the address is not known yet, and empty. */
export function parseNodePort(
  text: string,
): { readonly address: ''; readonly who: 'node' | 'localhost'; readonly port: number } | undefined {
  const match = /^(node|localhost):(\d{1,5})$/.exec(text);
  if (match === null) return undefined;
  return { address: '', who: match[1] === 'node' ? 'node' : 'localhost', port: Number(match[2]) };
}

/** `NAMESPACE/SERVICE:PORT`; namespace and port may be left out. */
export function parseServiceName(
  text: string,
): { readonly namespace: string; readonly service: string; readonly port: string } | undefined {
  const match = /^(?:service\/|svc\/)?(?:([^/:\s]+)\/)?([^/:\s]+?)(?::([^:\s]+))?$/.exec(text);
  if (match === null) return undefined;
  const [, namespace = 'default', service = '', port = ''] = match;
  return { namespace, service, port };
}

/** `pod/NAMESPACE/NAME`, `NAMESPACE/NAME`, `NAME`; undefined for words that mean something else, and addresses. */
export function parsePodName(
  text: string,
): { readonly namespace: string; readonly name: string } | undefined {
  if (['', 'outside', 'node', 'localhost'].includes(text) || canonicalIP(text) !== undefined)
    return undefined;
  const parts = text.replace(/^pod\//, '').split('/');
  const [namespace = '', name = ''] = parts.length === 2 ? parts : ['default', parts[0]];
  return { namespace, name };
}

/** Where the packet goes. Throws a sentence. @param nodeIP by family; empty if unknown */
export function findTarget(
  question: Pick<Question, 'to' | 'protocol'>,
  catalog: Catalog | undefined,
  nodeIP: (family: Family) => string,
  family: Family | undefined,
): Target {
  const asked = parseProtocol(question.protocol);
  const direct = parseAddressPort(question.to);
  if (direct !== undefined) return { ...direct, protocol: asked ?? 'TCP' };
  refuseAddress(question.to);
  const node = parseNodePort(question.to);
  if (node !== undefined) {
    const chosen = family ?? 'IPv4';
    const loopback = chosen === 'IPv6' ? '::1' : '127.0.0.1';
    const address = node.who === 'localhost' ? loopback : nodeIP(chosen);
    if (address === '') throw new Error('--to node: the address of the node is not known: give --node-ip');
    return { address, port: node.port, protocol: asked ?? 'TCP' };
  }
  const machine = ofMachine(question.to, catalog, family);
  if (machine !== undefined) return { ...machine, protocol: asked ?? 'TCP' };
  const named = parseServiceName(question.to);
  if (named === undefined)
    throw new UsageError(`--to: "${question.to}" is neither ADDRESS:PORT nor NAMESPACE/SERVICE:PORT`);
  if (catalog === undefined) {
    throw new Error(
      `--to: "${question.to}" is a name, and there are no objects to look it up in: give -f or --kubeconfig`,
    );
  }
  const { namespace, service, port: wanted } = named;
  const name = `${namespace}/${service}`;
  const info = catalog.service(name);
  if (info === undefined) {
    const all = catalog.services.map((one) => one.name);
    const others = all.filter((one) => one.endsWith(`/${service}`));
    const near = meant(name, all);
    const hint =
      others.length > 0
        ? `; there is ${others.join(', ')}`
        : near === undefined
          ? ''
          : `; did you mean ${near}?`;
    throw new Error(`--to: there is no Service ${name}${hint}`);
  }
  refuseWithoutProxy(info, catalog);
  const number = /^\d+$/.test(wanted) ? Number(wanted) : undefined;
  if (number !== undefined && !(number >= 1 && number <= 65535))
    throw new UsageError(`--to: ${question.to}: a port is a number from 1 to 65535`);
  const ports = info.ports.filter(({ protocol }) => asked === undefined || protocol === asked);
  const port =
    wanted === ''
      ? ports[0]
      : ports.find((one) => (number === undefined ? one.name === wanted : one.port === number));
  if (wanted === '' && ports.length > 1) {
    throw new Error(
      `--to: Service ${name} has ${ports.length} ports: say which one, e.g. ${name}:${ports[0]!.name || ports[0]!.port}`,
    );
  }
  if (port === undefined && ports.length === 0 && number === undefined) {
    if (asked !== undefined && info.ports.length > 0)
      throw new Error(`--to: Service ${name} has no port of ${asked}: it has ${portList(info)}`);
    throw new Error(`--to: Service ${name} has no usable port: ${programName} render --check says why`);
  }
  if (port === undefined && number === undefined) {
    throw new Error(`--to: Service ${name} has no port ${wanted || 'at all'}: it has ${portList(info)}`);
  }
  const ips = [...info.service.clusterIPs, info.service.clusterIP].flatMap((ip) => canonicalIP(ip) ?? []);
  const address = ips.find((ip) => family === undefined || familyOf(ip) === family);
  if (address === undefined) {
    const has = [...new Set(ips.map(familyOf))].join(', ') || 'no cluster IP';
    throw new Error(
      `--to: Service ${name} has no ${family ?? ''} address: spec.ipFamilies gives it ${has} only`,
    );
  }
  return { address, port: port?.port ?? number!, protocol: port?.protocol ?? asked ?? 'TCP' };
}

function portList({ ports }: ServiceInfo): string {
  return ports.map((one) => `${one.name || one.port} (${one.port}/${one.protocol})`).join(', ');
}

/** `pod/NAMESPACE/NAME:PORT`, `node/NAME:PORT`, `NAME:PORT` of a Node: its address. Undefined: something else. */
function ofMachine(
  to: string,
  catalog: Catalog | undefined,
  family: Family | undefined,
): { readonly address: string; readonly port: number } | undefined {
  const [, kind = '', rest = '', port = ''] =
    /^(?:(pod|node)s?\/)?([^:\s]+?)(?::(\d{1,5}))?$/i.exec(to) ?? [];
  const isPod = kind.toLowerCase() === 'pod';
  if (rest === '' || (kind === '' && rest.includes('/'))) return undefined;
  const name = parsePodName(rest);
  const pod = isPod && name !== undefined ? catalog?.podNamed(name.namespace, name.name) : undefined;
  const node = isPod ? undefined : catalog?.nodeNamed(rest);
  if (kind === '' && node === undefined) return undefined;
  const like = isPod && name !== undefined ? (catalog?.podsLike(name.namespace, name.name) ?? []) : [];
  if (name !== undefined && pod === undefined && like.length > 1)
    throw severalPods('--to', `${name.namespace}/${name.name}`, like);
  const ips = pod?.ips ?? node?.addresses.flatMap(({ address }) => canonicalIP(address) ?? []) ?? [];
  const address = ips.find((ip) => family === undefined || familyOf(ip) === family);
  if (address === undefined)
    throw new Error(
      `--to: there is no ${isPod ? 'Pod' : 'Node'} ${rest}${family === undefined ? '' : ` with an ${family} address`} among the objects: use its address`,
    );
  if (!(Number(port) >= 1 && Number(port) <= 65535))
    throw new UsageError(`--to: which port of ${to}? Write ${formatPlace(address, 80)}`);
  return { address, port: Number(port) };
}

/** Only an address has a zone, and only in packets that never leave their link: no Service is dialled by one. */
function refuseZone(flag: string, text: string): void {
  if (/^\[?[0-9a-fA-F:]+:[0-9a-fA-F:]*%/.test(text))
    throw new UsageError(
      `${flag}: "${text}" has a zone (%): such an address is known on one link only, and no Service is reached by it; leave the zone out, or give another address`,
    );
}

/** An address without a port, or with an impossible one, is no name of a Service. */
function refuseAddress(text: string): void {
  refuseZone('--to', text);
  const [, address = '', port] = /^\[?([^\]]*?)\]?(?::(\d+))?$/.exec(text) ?? [];
  if (canonicalIP(address) === undefined && (/^\d+(\.\d+){3}$/.test(address) || text.startsWith('[')))
    throw new UsageError(`--to: "${address}" is no IP address`);
  if (canonicalIP(text) !== undefined || (port === undefined && canonicalIP(address) !== undefined)) {
    const ip = canonicalIP(address) ?? text;
    throw new UsageError(`--to: which port of ${ip}? Write ${formatPlace(ip, 80)}`);
  }
  if (canonicalIP(address) !== undefined || address === 'node' || address === 'localhost') {
    if (!(Number(port) >= 1 && Number(port) <= 65535))
      throw new UsageError(`--to: ${text}: a port is a number from 1 to 65535`);
  }
}

/** Throws a sentence for Services that are names in DNS and nothing else. */
function refuseWithoutProxy(info: ServiceInfo, catalog: Catalog): void {
  const { name, service, externalName } = info;
  if (service.type === 'ExternalName') {
    const other = externalName === '' ? 'another name' : `the name ${externalName}`;
    throw new Error(
      `--to: Service ${name} is of type ExternalName: DNS answers with ${other}, and no proxy has a say`,
    );
  }
  if (service.clusterIP !== 'None') return;
  const ips = catalog.selected(info).flatMap((pod) => pod.ips);
  const example = ips.length === 0 ? '' : `: ${ips.slice(0, 4).join(', ')}${ips.length > 4 ? ', …' : ''}`;
  throw new Error(
    `--to: Service ${name} is headless (spec.clusterIP: None): DNS answers with the Pods' own addresses, and no proxy has a say. Ask about a Pod's address instead${example}`,
  );
}

/** Who sends it. Throws a sentence. */
export function findOrigin(
  question: Pick<Question, 'from' | 'inInterface'>,
  target: Target,
  world: World,
  catalog: Catalog | undefined,
  table: RoutingTable | undefined,
): Origin {
  const { from } = question;
  const family = familyOf(target.address);
  const given = question.inInterface === '' ? undefined : question.inInterface;
  const localTarget = world.isLocal(target.address);
  const loopback = isLoopback(target.address);
  switch (from === '' && loopback ? 'localhost' : from) {
    case '':
    case 'outside':
      if (loopback) refuseLoopback(target, 'A client outside');
      return {
        kind: 'outside',
        address: somebodyOutside[family],
        name: 'a client outside the cluster',
        interface: given ?? world.outInterface,
      };
    case 'node':
      // The kernel takes the address dialled as source where it is one of its own.
      return {
        kind: 'node',
        address: localTarget ? target.address : world.nodeIP,
        name: `a program on ${world.nodeName || 'this node'}`,
        interface: undefined,
      };
    case 'localhost':
      return {
        kind: 'localhost',
        address: loopback || localTarget ? target.address : world.nodeIP,
        name: `a program on ${world.nodeName || 'this node'}`,
        interface: undefined,
      };
    default:
  }
  const ip = canonicalIP(from);
  if (ip !== undefined) {
    if (familyOf(ip) !== family)
      throw new Error(`--from: ${ip} is ${familyOf(ip)}, but ${target.address} is ${family}`);
    if (loopback && !world.isLocal(ip)) refuseLoopback(target, ip);
    return originAt(ip, world, catalog, table, given);
  }
  const node = catalog?.nodeNamed(from);
  if (node !== undefined || from.startsWith('node/')) {
    if (node?.meta.name === world.nodeName && world.nodeName !== '')
      return findOrigin({ ...question, from: 'node' }, target, world, catalog, table);
    const of = node?.addresses.flatMap(({ address }) => canonicalIP(address) ?? []) ?? [];
    const own = of.find((one) => familyOf(one) === family);
    if (own === undefined) throw noSuchNode(from, catalog);
    return originAt(own, world, catalog, table, given);
  }
  const { namespace, name } = parsePodName(from) ?? { namespace: '', name: '' };
  const near = catalog?.podNamed(namespace, name);
  const address = near?.ips.find((one) => familyOf(one) === family);
  if (loopback) refuseLoopback(target, 'A Pod');
  if (near !== undefined && address !== undefined) return podOrigin(near, address, world, given);
  const endpoints = endpointsOfPod(table, `${namespace}/${name}`);
  if (endpoints !== undefined) return originAt(endpoints, world, catalog, table, given);
  throw noSuchPod(namespace, name, family, catalog);
}

function severalPods(flag: string, name: string, pods: readonly PodInfo[]): Error {
  const all = pods.map((pod) => pod.name.replace(/^Pod /, ''));
  return new Error(
    `${flag}: ${pods.length} Pods have names that begin with ${name}: ${list(all)}; say which one`,
  );
}

/** @param word `node/NAME` */
export function noSuchNode(word: string, catalog: Catalog | undefined): Error {
  const name = word.replace(/^node\//, '');
  const all = catalog?.nodes.map(({ meta }) => meta.name) ?? [];
  const near = meant(name, all);
  const hint =
    all.includes(name) || near === undefined
      ? ' with an address of this family among the objects'
      : `; did you mean node/${near}?`;
  return new Error(`--from: there is no Node ${name}${hint}`);
}

/** Why nobody of that name can send. @param family of the address that is missing */
export function noSuchPod(
  namespace: string,
  name: string,
  family: Family | undefined,
  catalog: Catalog | undefined,
): Error {
  refuseZone('--from', name);
  const there = catalog?.pods.find((pod) => pod.name === `Pod ${namespace}/${name}`);
  if (there !== undefined && there.ips.length === 0)
    return new Error(
      `--from: Pod ${namespace}/${name} has no address yet${there.phase === '' ? '' : ` (${there.phase})`}: it sends nothing`,
    );
  const like = catalog?.podsLike(namespace, name) ?? [];
  if (there === undefined && like.length > 1) return severalPods('--from', `${namespace}/${name}`, like);
  if (there !== undefined && family !== undefined)
    return new Error(
      `--from: Pod ${namespace}/${name} has no ${family} address, only ${there.ips.join(', ')}: it cannot dial an ${family} address at all. Dial the Service's other address, if it has one (spec.ipFamilyPolicy: PreferDualStack), or give the Pods ${family} addresses`,
    );
  const word = nearSender(name);
  if (namespace === 'default' && word !== undefined)
    return new Error(`--from: there is no Pod default/${name}; did you mean --from ${word}?`);
  const all = (catalog?.pods ?? []).map((pod) => pod.name.replace(/^Pod /, ''));
  const likely =
    meant(`${namespace}/${name}`, all) ?? all.find((one) => one.split('/')[1]?.startsWith(name) === true);
  if (likely !== undefined && there === undefined)
    return new Error(`--from: there is no Pod ${namespace}/${name}; did you mean ${likely}?`);
  return new Error(
    `--from: there is no Pod ${namespace}/${name}${family === undefined ? '' : ` with an ${family} address`} among the objects: use its address, or add the Pod to the manifests (kubectl get pods -o yaml)`,
  );
}

/** Whoever dials a loopback address means itself: no node ever sees such a packet of somebody else. */
function refuseLoopback({ address, port }: Target, who: string): never {
  throw new UsageError(
    `--to: ${address} is whoever dials it. ${who} that dials it reaches itself, and no node sees the packet. Dial the node: --to node:${port}, or let a program of the node dial: --from localhost`,
  );
}

function podOrigin(pod: PodInfo, address: string, world: World, given: string | undefined): Origin {
  const here = pod.node === world.nodeName || (pod.node === '' && world.isPodHere(address));
  return {
    kind: here ? 'podHere' : 'podElsewhere',
    address,
    name: `${pod.name}${pod.node === '' ? '' : ` on ${pod.node}`}`,
    interface: given ?? (here ? world.podInterface : world.outInterface),
  };
}

function originAt(
  ip: string,
  world: World,
  catalog: Catalog | undefined,
  table: RoutingTable | undefined,
  given: string | undefined,
): Origin {
  if (world.isLocal(ip)) {
    return {
      kind: 'node',
      address: ip,
      name: `a program on ${world.nodeName || 'this node'}`,
      interface: undefined,
    };
  }
  const pod = catalog?.podAt(ip);
  if (pod !== undefined) return podOrigin(pod, ip, world, given);
  for (const route of table?.routes.values() ?? []) {
    const endpoint = route.endpoints.find((one) => one.ip === ip);
    if (endpoint === undefined) continue;
    const name = endpoint.pod === '' ? `the Pod at ${ip}` : `Pod ${endpoint.pod}`;
    const kind = endpoint.isLocal ? 'podHere' : 'podElsewhere';
    return {
      kind,
      address: ip,
      name,
      interface: given ?? (endpoint.isLocal ? world.podInterface : world.outInterface),
    };
  }
  if (world.isPodHere(ip))
    return {
      kind: 'podHere',
      address: ip,
      name: `a Pod on ${world.nodeName || 'this node'}`,
      interface: given ?? world.podInterface,
    };
  if (world.isPod(ip))
    return {
      kind: 'podElsewhere',
      address: ip,
      name: 'a Pod on another node',
      interface: given ?? world.outInterface,
    };
  const node = catalog?.nodeAt(ip);
  const name =
    node !== undefined
      ? `node ${node.meta.name}`
      : catalog === undefined
        ? 'somebody of whom nothing is known here'
        : 'a client outside the cluster';
  return {
    kind: 'outside',
    address: ip,
    name,
    interface: given ?? world.interfaceTo(ip) ?? world.outInterface,
  };
}

export function makePacket(question: Pick<Question, 'sourcePort'>, target: Target, origin: Origin): Packet {
  const port = Number(question.sourcePort);
  if (question.sourcePort !== '' && !(Number.isInteger(port) && port >= 1 && port <= 65535)) {
    throw new UsageError(`--sport: "${question.sourcePort}" is no port`);
  }
  return {
    family: familyOf(target.address),
    protocol: target.protocol,
    origin,
    sourcePort: question.sourcePort === '' ? undefined : port,
    destination: target.address,
    destinationPort: target.port,
  };
}
