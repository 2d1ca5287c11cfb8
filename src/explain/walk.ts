/** The way of a packet through the kernel's hooks, and through each base chain that is registered there. */
import { deviceName } from '../dataplane/ipvs/names.ts';
import type { End, Prediction } from './outcome.ts';
import { predict } from './outcome.ts';
import type { Flow, HookName, Result, Surroundings } from './flow.ts';
import { addStep, branchesMax, startFlow } from './flow.ts';
import type { Packet } from './packet.ts';
import { startsHere } from './packet.ts';
import type { World } from './world.ts';

/** A chain that the kernel calls by itself. */
export interface BaseChain {
  readonly hook: HookName;
  /** Lower ones come first. */
  readonly priority: number;
  /** Chains of type nat see the first packet of a connection, and only while nobody has decided. */
  readonly type: 'filter' | 'nat' | 'route';
  /** `nat PREROUTING`, `ip kube-proxy nat-prerouting` */
  readonly name: string;
  /** Follows a flow through the chain; `next` = the policy (accept). */
  evaluate(flow: Flow, surroundings: Surroundings): readonly Result[];
}

/** Priority of connection tracking in PREROUTING and OUTPUT (NF_IP_PRI_CONNTRACK). */
const destinationHooks: readonly HookName[] = ['prerouting', 'output'];

/** Follows the packet through `chains` and says where it ends. */
export function walk(packet: Packet, chains: readonly BaseChain[], world: World): Prediction {
  const walker = new Walker(packet, chains, world);
  const first = startFlow(packet);
  if (startsHere(packet.origin)) walker.fromHere(first);
  else walker.fromWire(first);
  return predict(walker.ends, world, walker.incomplete);
}

class Walker {
  readonly ends: End[] = [];
  incomplete = false;
  readonly #packet: Packet;
  readonly #world: World;
  readonly #chains = new Map<HookName, BaseChain[]>();

  constructor(packet: Packet, chains: readonly BaseChain[], world: World) {
    this.#packet = packet;
    this.#world = world;
    for (const chain of chains) {
      const list = this.#chains.get(chain.hook);
      if (list === undefined) this.#chains.set(chain.hook, [chain]);
      else list.push(chain);
    }
    for (const list of this.#chains.values()) list.sort((a, b) => a.priority - b.priority);
  }

  fromWire(flow: Flow): void {
    for (const one of this.#hook('prerouting', flow)) this.#routed(one);
  }

  fromHere(flow: Flow): void {
    const leaving = { ...flow, outInterface: this.#world.interfaceTo(flow.destination) };
    for (const one of this.#hook('output', leaving)) {
      const rerouted = this.#route(one, 'output');
      this.#leave(rerouted);
    }
  }

  #leave(flow: Flow): void {
    for (const out of this.#hook('postrouting', flow)) {
      if (this.#world.direction(out.destination) !== 'here') this.#end(out, 'accept');
      else this.#overLoopback(out);
    }
  }

  /** What this node sends to itself comes in again, with its translation decided. */
  #overLoopback(flow: Flow): void {
    const back = { ...flow, inInterface: 'lo', outInterface: undefined };
    for (const one of this.#hook('prerouting', back, true)) {
      for (const last of this.#hook('input', one, true)) this.#end(last, 'accept');
    }
  }

  #routed(flow: Flow): void {
    const routed = this.#route(flow, 'prerouting');
    if (this.#world.direction(routed.destination) === 'here') {
      for (const last of this.#hook('input', routed)) {
        if (this.#world.direction(last.destination) === 'here') this.#end(last, 'accept');
        else this.#sentOn(last);
      }
      return;
    }
    for (const one of this.#hook('forward', routed)) {
      for (const last of this.#hook('postrouting', one)) this.#end(last, 'accept');
    }
  }

  /** Only IPVS rewrites a destination in INPUT: the packet leaves by OUTPUT, as if it came from this node. */
  #sentOn(flow: Flow): void {
    const routed = { ...this.#route(flow, 'input'), inInterface: '' };
    for (const one of this.#hook('output', routed)) this.#leave(one);
  }

  #route(flow: Flow, hook: HookName): Flow {
    const { destination } = flow;
    const direction = this.#world.direction(destination);
    const outInterface = this.#world.interfaceTo(destination);
    const by = outInterface === undefined || direction === 'here' ? '' : ` by ${outInterface}`;
    const to =
      direction === 'here'
        ? `this node itself${this.#world.serviceAddresses.has(destination) ? ` (${deviceName} has the address)` : ''}`
        : direction === 'podHere'
          ? `a Pod on this node${by}`
          : `another machine${by}`;
    return addStep(
      { ...flow, outInterface },
      { hook, base: 'routing', chain: '', rule: '', effect: { kind: 'route', to } },
    );
  }

  #hook(hook: HookName, flow: Flow, again = false): Flow[] {
    let flows = [addStep(flow, { hook, base: 'hook', chain: '', rule: '', effect: { kind: 'enter' } })];
    for (const chain of this.#chains.get(hook) ?? []) {
      if (chain.type === 'nat' && again) continue;
      const next: Flow[] = [];
      for (const one of flows) {
        if (chain.type === 'nat' && isDecided(one, hook)) next.push(one);
        else this.#through(chain, one, next);
      }
      flows = next;
    }
    return flows;
  }

  #through(chain: BaseChain, flow: Flow, next: Flow[]): void {
    const surroundings = { packet: this.#packet, world: this.#world, hook: chain.hook, base: chain.name };
    for (const { flow: after, verdict } of chain.evaluate(flow, surroundings)) {
      if (this.ends.length + next.length > branchesMax * 16) this.incomplete = true;
      else if (verdict === 'next' || verdict === 'accept') next.push(after);
      else this.#end(after, verdict);
    }
  }

  #end(flow: Flow, verdict: End['verdict']): void {
    this.ends.push({ flow, verdict });
  }
}

function isDecided(flow: Flow, hook: HookName): boolean {
  if (flow.untracked) return true;
  return destinationHooks.includes(hook) ? flow.dnat !== undefined : flow.snat !== undefined;
}
