/** The chains of userspace mode, as kube-proxy named them up to 1.25; the two that refuse packets are ours. */

export const portalsContainer = 'KUBE-PORTALS-CONTAINER';
export const portalsHost = 'KUBE-PORTALS-HOST';
export const nodePortContainer = 'KUBE-NODEPORT-CONTAINER';
export const nodePortHost = 'KUBE-NODEPORT-HOST';
/** Guards the ports of our listeners. */
export const nonLocal = 'KUBE-NODEPORT-NON-LOCAL';
export const portalsRefuse = 'KUBE-PORTALS-REFUSE';
export const nodePortRefuse = 'KUBE-NODEPORT-REFUSE';

export const chains = {
  nat: [portalsContainer, portalsHost, nodePortContainer, nodePortHost],
  filter: [nonLocal, portalsRefuse, nodePortRefuse],
} as const;

export type RuleTable = keyof typeof chains;
