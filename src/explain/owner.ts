/** Whose rule a step is, as far as names tell. */
import { ownerOfChain, ownerOfTable } from '../diff/owners.ts';
import type { Step } from './flow.ts';
import { ipvsBase } from './ipvs/evaluate.ts';
import { processBase } from './userspace/relay.ts';

/** Something that a service proxy writes, this one or kube-proxy. */
export function isOurs(step: Step): boolean {
  if (step.base === ipvsBase || step.base === processBase) return true;
  // The kubelet's by name, but every proxy of iptables mode has its rule there.
  if (step.chain === 'KUBE-FIREWALL') return true;
  return ownerOf(step).startsWith('a service proxy') || /^ip6? pointsman/.test(step.base);
}

/** Whose rule it probably is; empty if names do not tell. */
export function ownerOf({ base, chain, rule }: Step): string {
  const [, table = '', own] = base.split(' ');
  // nft names family, table and chain, iptables table and chain.
  return (own === undefined ? '' : ownerOfTable(table)) || ownerOfChain(chain, rule);
}
