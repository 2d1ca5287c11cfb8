/** Whose a chain or table probably is, by the names that programs give theirs. */

const chainOwners: readonly (readonly [pattern: RegExp, owner: string])[] = [
  [/^DOCKER/, 'Docker'],
  [/^cali-/, 'Calico (felix)'],
  [/^(OLD_)?CILIUM/, 'Cilium'],
  [/^FLANNEL/, 'flannel'],
  [/^LIBVIRT_/, 'libvirt'],
  [/^KUBE-(KUBELET-CANARY|FIREWALL)$/, 'kubelet'],
  [/^KUBE-(ROUTER|POD-FW|NWPLCY)/, 'kube-router'],
  [/^KUBE-(PORTALS|NODEPORT-)/, 'a service proxy in userspace mode'],
  [/^KUBE-/, 'a service proxy in iptables mode (kube-proxy, or pointsman)'],
  [/^CNI-/, 'CNI plugins (portmap, bridge)'],
  [/^NETAVARK/, 'Podman (netavark)'],
  [/^WEAVE/, 'Weave Net'],
  [/^ANTREA/, 'Antrea'],
  [/^ISTIO/, 'Istio'],
  [/^ufw6?-/, 'ufw'],
  [/^f2b-/, 'fail2ban'],
  [/^ts-/, 'Tailscale'],
  [/^(OVN|OVS)-/, 'OVN-Kubernetes'],
  [/^(IN|FWDI|FWDO|INPUT|FORWARD|POST|PRE)_?(public|ZONES|direct)/, 'firewalld'],
];

/** @param texts the rules of the chain, for chains without a name that tells */
export function ownerOfChain(chain: string, texts: string): string {
  const byName = chainOwners.find(([pattern]) => pattern.test(chain))?.[1];
  if (byName !== undefined) return byName;
  if (texts.includes('--comment "flanneld')) return 'flannel';
  if (texts.includes('--comment "cilium')) return 'Cilium';
  if (/\bdocker0\b/.test(texts)) return 'Docker';
  return /\bvirbr\d/.test(texts) ? 'libvirt' : '';
}

const tableOwners: readonly (readonly [pattern: RegExp, owner: string])[] = [
  [/^firewalld/, 'firewalld'],
  [/^docker/, 'Docker'],
  [/^libvirt/, 'libvirt'],
  [/^(cali|calico)/, 'Calico (felix)'],
  [/^cilium/, 'Cilium'],
  [/^flannel/, 'flannel'],
  [/^kube-proxy$/, 'a service proxy in nftables mode (kube-proxy, or pointsman)'],
  [/^(kube-router|kube_router)/, 'kube-router'],
  [/^kube-network-policies$/, 'kube-network-policies'],
  [/^kindnet/, 'kindnet'],
  [/^cni/, 'CNI plugins (portmap, bridge)'],
  [/^netavark/, 'Podman (netavark)'],
  [/^(incus|lxd)/, 'Incus or LXD'],
  [/^f2b/, 'fail2ban'],
  [/^ovn/, 'OVN-Kubernetes'],
  [/^antrea/i, 'Antrea'],
  [/^istio/, 'Istio'],
  [/^ts-|^tailscale/, 'Tailscale'],
];

export function ownerOfTable(table: string): string {
  return tableOwners.find(([pattern]) => pattern.test(table))?.[1] ?? '';
}
