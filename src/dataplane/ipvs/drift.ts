/** Looks for what others have changed of what the last good sync left in the kernel. */
import { serverKey } from '../../linux/netlink/ipvs/objects.ts';
import type { ChangeByOthers } from '../dataplane.ts';
import type { Kernel } from './kernel.ts';
import { setIds } from './names.ts';
import type { NodeSide } from './nodeSide.ts';
import { realKey, sameServer, type Applied } from './plan.ts';
import { compareRules } from './readRules.ts';
import type { RuleSet } from './rules.ts';
import { Turns } from '../turns.ts';
import type { Wanted } from './wanted.ts';

/** State of the last good sync. */
export interface Mirror {
  readonly wanted: Wanted;
  readonly applied: Applied;
  readonly node: NodeSide;
  rules: RuleSet;
  /** The document that the rules print to. */
  text: string;
  /** Of `wanted`, when the rules were made. */
  shape: number;
}

export class DriftCheck {
  /** Fingerprint of iptables rules that were found right. */
  #verified: string | undefined;

  /** The rules are about to change: what was found right says nothing any more. */
  rulesChange(): void {
    this.#verified = undefined;
  }

  /** What is wrong, in a few words; undefined if nothing is. What it says counts only while `holds`. */
  async look(kernel: Kernel, mirror: Mirror, holds: () => boolean): Promise<string | undefined> {
    const wrong =
      wrongDevice(kernel, mirror) ?? wrongSet(kernel, mirror) ?? (await wrongServer(kernel, mirror, holds));
    if (wrong !== undefined || !holds()) return wrong;
    const seen = kernel.fingerprint.read();
    if (seen !== undefined && seen === this.#verified) return undefined;
    const { wrong: wrongRule } = await compareRules(kernel.iptables, mirror.rules);
    if (wrongRule === undefined && holds()) this.#verified = seen;
    return wrongRule;
  }
}

function wrongDevice({ device }: Kernel, { applied }: Mirror): string | undefined {
  if (!device.exists()) return 'device kube-ipvs0 is gone';
  const there = device.addresses().device;
  for (const address of applied.addresses)
    if (!there.has(address)) return `address ${address} of kube-ipvs0 is gone`;
  return undefined;
}

function wrongSet({ sets }: Kernel, { applied }: Mirror): string | undefined {
  for (const id of setIds) {
    const there = sets.read(id);
    if (there === undefined) return `set ${id} is gone`;
    const wanted = applied.sets.get(id)!;
    if (!sameTexts(there, wanted)) return `entries of set ${id}`;
  }
  return undefined;
}

async function wrongServer(
  { ipvs }: Kernel,
  mirror: Mirror,
  holds: () => boolean,
): Promise<string | undefined> {
  const servers = new Map(ipvs.listServers().map((one) => [serverKey(one), one]));
  const turns = new Turns();
  for (const [key, { server, reals }] of mirror.applied.servers) {
    if (mirror.wanted.server(key) === undefined) continue;
    const there = servers.get(key);
    if (there === undefined) return `virtual server ${key} is gone`;
    if (!sameServer(there, server)) return `virtual server ${key} is not as it was made`;
    const found = ipvs.listRealServers(server);
    if (found.length !== reals.size || found.some((one) => !reals.has(realKey(one))))
      return `real servers of ${key}`;
    // Weights are the operator's to set; how packets get there is not.
    const led = found.find((one) => one.forwarding !== 'masquerade');
    if (led !== undefined) return `real server ${realKey(led)} of ${key} is not masqueraded`;
    if ((await turns.pause()) && !holds()) return undefined;
  }
  return undefined;
}

export function sameTexts(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  if (a.size !== b.size) return false;
  for (const one of a) if (!b.has(one)) return false;
  return true;
}

/** What kind of thing it is that is wrong. */
export function objectOf(what: string): ChangeByOthers['object'] {
  if (what.startsWith('entries')) return 'element';
  if (what.startsWith('set')) return 'set';
  if (what.startsWith('chain')) return 'chain';
  return /^(device|address|virtual|real)/.test(what) ? 'unknown' : 'rule';
}
