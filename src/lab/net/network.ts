/** The lab's network on the kernel: builds what `layout.ts` describes, and attaches and detaches Pods. */
import { canonicalIp, isV6 } from './address.ts';
import {
  apiLines,
  clientLines,
  linkLines,
  nodeLayout,
  nodeLines,
  nodeSysctls,
  optionalNodeSysctls,
  podAddress6,
  podInterface,
  podLines,
  podNodeLines,
  quickStartSysctls,
  routerLines,
  vxlanForwarding,
  type Block,
  type NodeLayout,
  type PodAttachment,
  type PodNetwork,
} from './layout.ts';
import { Namespaces } from './namespaces.ts';

export interface NetworkOptions {
  /** Number of nodes; node-1, node-2, … Default 2. */
  readonly nodes?: number;
  readonly attachment?: PodAttachment;
  readonly podNetwork?: PodNetwork;
}

/** A Pod to attach. */
export interface PodPlace {
  readonly name: string;
  readonly node: string;
  /** IPv4 address in the node's Pod block. */
  readonly ip: string;
  /** Further address blocks that all belong to the Pod. */
  readonly ranges?: readonly string[];
}

/** The namespace of a Pod. */
export function podNamespace(name: string): string {
  return `pod-${name}`;
}

export class LabNetwork {
  readonly namespaces = new Namespaces();
  readonly nodes: readonly NodeLayout[];
  private readonly attachment: PodAttachment;
  private readonly podNetwork: PodNetwork;
  private readonly places = new Map<string, PodPlace>();

  /** Builds the network with its first Pods. What was made is removed again if something fails. */
  constructor(options: NetworkOptions = {}, pods: readonly PodPlace[] = []) {
    this.nodes = Array.from({ length: options.nodes ?? 2 }, (_, i) => nodeLayout(i + 1));
    this.attachment = options.attachment ?? 'route';
    this.podNetwork = options.podNetwork ?? 'routes';
    try {
      this.build(pods);
    } catch (error) {
      this.namespaces.remove();
      throw error;
    }
  }

  private build(pods: readonly PodPlace[]): void {
    const { namespaces: ns, nodes } = this;
    const members = ['router', 'api', 'client', ...nodes.map((node) => node.name)];
    ns.add(['link', ...members, ...pods.map((pod) => podNamespace(pod.name))]);
    for (const member of members) ns.sysctl(member, quickStartSysctls);
    for (const node of nodes) {
      ns.sysctl(node.name, nodeSysctls);
      ns.sysctl(node.name, optionalNodeSysctls, true);
    }
    ns.ip(
      'link',
      linkLines(members, (name) => ns.fullName(name)),
    );
    ns.ip('router', routerLines());
    ns.ip('api', apiLines(nodes));
    ns.ip('client', clientLines());
    for (const node of nodes) {
      const others = nodes.filter((other) => other !== node);
      const lines = nodeLines(node, others, this.attachment, this.podNetwork);
      for (const pod of pods) if (pod.node === node.name) lines.push(...this.nodeSide(node, pod));
      ns.ip(node.name, lines);
      if (this.podNetwork === 'vxlan' && others.length > 0) {
        const result = ns.run(node.name, ['bridge', '-batch', '-'], {
          input: `${vxlanForwarding(others).join('\n')}\n`,
        });
        if (result.status !== 0) throw new Error(`${node.name}: bridge fdb failed: ${result.stderr.trim()}`);
      }
    }
    for (const pod of pods) this.podSide(pod);
    for (const pod of pods) this.farRoutes(pod);
  }

  /** Throws an Error that names the known nodes. */
  node(name: string): NodeLayout {
    const node = this.nodes.find((each) => each.name === name);
    if (node === undefined) {
      throw new Error(
        `there is no node "${name}"; there are ${this.nodes.map((each) => each.name).join(', ')}`,
      );
    }
    return node;
  }

  private blocks(pod: PodPlace): Block[] {
    return (pod.ranges ?? []).map((block) => ({ block, via: isV6(block) ? podAddress6(pod.ip) : pod.ip }));
  }

  private nodeSide(node: NodeLayout, pod: PodPlace): string[] {
    const full = this.namespaces.fullName(podNamespace(pod.name));
    return podNodeLines(node, pod.ip, full, this.attachment, this.blocks(pod));
  }

  private podSide(pod: PodPlace): void {
    const name = podNamespace(pod.name);
    this.namespaces.sysctl(name, quickStartSysctls);
    const node = this.node(pod.node);
    this.namespaces.ip(name, podLines(node, pod.ip, this.attachment, this.podNetwork, this.blocks(pod)));
    this.places.set(pod.name, pod);
  }

  /** The other nodes' way to a Pod's further blocks. */
  private farRoutes(pod: PodPlace): void {
    const home = this.node(pod.node);
    for (const node of this.nodes) {
      if (node === home) continue;
      const lines = (pod.ranges ?? []).map(
        (block) => `route replace ${block} via ${home.addresses[isV6(block) ? 1 : 0]}`,
      );
      if (lines.length > 0) this.namespaces.ip(node.name, lines);
    }
  }

  attachPod(pod: PodPlace): void {
    this.namespaces.add([podNamespace(pod.name)]);
    this.namespaces.ip(pod.node, this.nodeSide(this.node(pod.node), pod));
    this.podSide(pod);
    this.farRoutes(pod);
  }

  detachPod(name: string): void {
    const pod = this.places.get(name);
    if (pod === undefined) return;
    this.places.delete(name);
    this.namespaces.ip(pod.node, [`link del ${podInterface(pod.ip)}`]);
    this.namespaces.removeOne(podNamespace(name));
  }

  /** The Pod an address belongs to, by its own addresses (not its ranges). */
  podAt(ip: string): string | undefined {
    const wanted = canonicalIp(ip);
    for (const pod of this.places.values()) {
      if (pod.ip === wanted || canonicalIp(podAddress6(pod.ip)) === wanted) return pod.name;
    }
    return undefined;
  }

  close(): void {
    this.namespaces.remove();
  }
}
