/** How rules of iptables ask whether a packet comes from a Pod. */
import type { LocalDetector } from '../services/localDetection.ts';

/** E.g. `-s 10.244.0.0/16`, `-i cni+`. Throws where the text would be something else in a rule. */
export function podMatch(detector: LocalDetector): string {
  const match =
    detector.kind === 'cidr'
      ? `-s ${detector.cidr}`
      : `-i ${detector.kind === 'interface' ? detector.name : `${detector.prefix}+`}`;
  if (!/^-[si] [^\s"'\\!/]{1,43}(\/[0-9]{1,3})?$/.test(match))
    throw new Error(
      `detectLocal: "${match.slice(3)}" cannot be an address block or interface name in a rule`,
    );
  return match;
}

export function podMatches(detector: LocalDetector): { readonly is: string; readonly isNot: string } {
  const match = podMatch(detector);
  return { is: match, isNot: `! ${match}` };
}
