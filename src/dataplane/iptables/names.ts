/** Names of chains: the fixed ones, and those made from a service port or endpoint. Operators and other tools know them. */
import { hash } from 'node:crypto';
import type { Protocol } from '../../api/objects.ts';

export const servicesChain = 'KUBE-SERVICES';
export const nodePortsChain = 'KUBE-NODEPORTS';
export const postroutingChain = 'KUBE-POSTROUTING';
export const markMasqChain = 'KUBE-MARK-MASQ';
export const externalServicesChain = 'KUBE-EXTERNAL-SERVICES';
export const forwardChain = 'KUBE-FORWARD';
export const proxyFirewallChain = 'KUBE-PROXY-FIREWALL';
/** Shared with kubelet: never deleted, and only filled where localhost node ports need it. */
export const firewallChain = 'KUBE-FIREWALL';
export const canaryChain = 'KUBE-PROXY-CANARY';

/** Chains of table filter that a sync writes, in the order of the document. KUBE-FIREWALL comes on top where it has a rule. */
export const filterChains = [
  servicesChain,
  externalServicesChain,
  forwardChain,
  nodePortsChain,
  proxyFirewallChain,
] as const;

export const natChains = [servicesChain, nodePortsChain, postroutingChain, markMasqChain] as const;

const ownPrefixes = ['KUBE-SVC-', 'KUBE-SVL-', 'KUBE-EXT-', 'KUBE-FW-', 'KUBE-SEP-'] as const;

/** The chain belongs to a service port or endpoint, so it is stale when no route has it. */
export function isOwnChain(chain: string): boolean {
  if (!chain.startsWith('KUBE-')) return false;
  for (const prefix of ownPrefixes) if (chain.startsWith(prefix)) return true;
  return false;
}

/**
 * The 16 characters that the chains of one service port share: base32 (RFC 4648) of the first 10 bytes of
 * SHA-256(`namespace/name:portprotocol`), with the protocol in lower case.
 */
export function serviceHash(name: string, protocol: Protocol): string {
  return chainHash(name + protocol.toLowerCase());
}

/** `KUBE-SEP-…`; `endpoint` is `ip:port` or `[ip]:port`. */
export function endpointChain(name: string, protocol: Protocol, endpoint: string): string {
  return `KUBE-SEP-${chainHash(name + protocol.toLowerCase() + endpoint)}`;
}

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

export function chainHash(text: string): string {
  const digest = hash('sha256', text, 'buffer');
  let out = '';
  for (let at = 0; at < 10; at += 5) {
    // 5 bytes are 8 characters of 5 bits; split in two halves of 20 bits to stay in 32-bit arithmetic.
    const [a = 0, b = 0, c = 0, d = 0, e = 0] = digest.subarray(at, at + 5);
    const high = (a << 12) | (b << 4) | (c >> 4);
    const low = ((c & 15) << 16) | (d << 8) | e;
    for (const half of [high, low]) {
      out +=
        alphabet[half >> 15]! +
        alphabet[(half >> 10) & 31]! +
        alphabet[(half >> 5) & 31]! +
        alphabet[half & 31]!;
    }
  }
  return out;
}
