/** What the words of a page mean. */
import type { Explanation, ToldStep } from '../explanation.ts';
import { escape } from './escape.ts';

/** The words that this page uses, for whoever has never seen them. */
export function glossary({ way, otherWays }: Explanation): string {
  const steps = [way, ...otherWays.map((other) => other.way)].flat().flatMap((hook) => hook.steps);
  const has = (kind: ToldStep['effectKind']): boolean => steps.some(({ effectKind }) => effectKind === kind);
  const words: [string, string, boolean][] = [
    [
      'Chain',
      'A list of rules with a name. Rules are tried from the top; the first that fits decides, often by sending the packet to another chain ("go to").',
      has('jump') || has('goto') || has('choose'),
    ],
    [
      'Map, element (@name)',
      'A dictionary in the kernel. Instead of trying rules one by one it looks up address, protocol and port, and finds where to go on.',
      steps.some(({ element, chain }) => element !== '' && !chain.startsWith('virtual server ')),
    ],
    [
      'Destination rewritten (DNAT)',
      'The kernel replaces the address and port that the packet is for. The answer is translated back, so that the client never notices.',
      has('dnat'),
    ],
    [
      'Source rewritten (masquerade)',
      'The packet leaves with the address of this machine as its sender, so that the answer comes back through it and can be translated. Who gets it does not see who the client is.',
      has('masquerade') || has('snat'),
    ],
    [
      'Mark',
      'A number that the kernel keeps with the packet while it passes. Rules set it to tell rules further on what to do.',
      has('mark'),
    ],
    [
      'Virtual server, real server (IPVS)',
      'The load balancer of the kernel: a virtual server answers at the address of the Service and hands connections to real servers, the Pods. It asks only for packets that are for the machine itself; that is why an interface named kube-ipvs0 has the address.',
      steps.some(({ chain }) => chain.startsWith('virtual server ')),
    ],
    [
      'ipset (--match-set)',
      'A set of addresses and ports that one rule looks up, instead of one rule for each.',
      steps.some(({ rule }) => rule.includes('--match-set')),
    ],
    [
      'Rejected, dropped',
      'Rejected: the sender gets an error at once. Dropped: it hears nothing and waits until it gives up.',
      has('reject') || has('drop'),
    ],
    [
      'Connection tracking',
      'The kernel remembers every connection. Only its first packet asks the rules; all others, in both directions, follow what is remembered.',
      true,
    ],
  ];
  const shown = words.filter(([, , used]) => used);
  return `<h2>Words</h2><dl>${shown.map(([word, meaning]) => `<dt>${escape(word)}</dt><dd>${escape(meaning)}</dd>`).join('')}</dl>`;
}
