/** How this node tells that a packet comes from a Pod (`detectLocalMode`). */
import type { Family } from '../api/objects.ts';
import { parseCIDR } from './ip.ts';

export type DetectLocalMode = 'ClusterCIDR' | 'NodeCIDR' | 'BridgeInterface' | 'InterfaceNamePrefix';

/** What packets from Pods have that others do not. */
export type LocalDetector =
  | { readonly kind: 'cidr'; readonly cidr: string }
  | { readonly kind: 'interface'; readonly name: string }
  | { readonly kind: 'interfacePrefix'; readonly prefix: string };

export interface LocalDetectionSettings {
  /** Anything else than a DetectLocalMode detects nothing; configuration validation prevents it. */
  readonly detectLocalMode: string;
  /** CIDRs of `clusterCIDR`, one an entry. */
  readonly clusterCIDRs: readonly string[];
  /** `spec.podCIDRs` of the Node. */
  readonly nodePodCIDRs: readonly string[];
  readonly bridgeInterface: string;
  readonly interfaceNamePrefix: string;
}

/** The detector of a family; undefined = Pods cannot be told from others (the normal state without a clusterCIDR). */
export function localDetector(family: Family, settings: LocalDetectionSettings): LocalDetector | undefined {
  switch (settings.detectLocalMode) {
    case 'ClusterCIDR':
      return firstOfFamily(settings.clusterCIDRs, family);
    case 'NodeCIDR':
      return firstOfFamily(settings.nodePodCIDRs, family);
    case 'BridgeInterface':
      return settings.bridgeInterface === ''
        ? undefined
        : { kind: 'interface', name: settings.bridgeInterface };
    case 'InterfaceNamePrefix':
      return settings.interfaceNamePrefix === ''
        ? undefined
        : { kind: 'interfacePrefix', prefix: settings.interfaceNamePrefix };
    default:
      return undefined;
  }
}

function firstOfFamily(texts: readonly string[], family: Family): LocalDetector | undefined {
  for (const text of texts) {
    const cidr = parseCIDR(text.trim());
    if (cidr?.family === family) return { kind: 'cidr', cidr: cidr.text };
  }
  return undefined;
}
