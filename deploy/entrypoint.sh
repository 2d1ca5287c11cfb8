#!/bin/sh
# Chooses the iptables variant that the node's kubelet uses, as kube-proxy's image does, then becomes pointsman.
# The choice is a directory of links at the head of PATH; nothing in the image is changed.
#   IPTABLES_VARIANT=nft|legacy   chooses by hand
set -eu

has_kubelet_chains() {
  "iptables-$1-save" -t mangle 2>/dev/null | grep -Eq '^:(KUBE-IPTABLES-HINT|KUBE-KUBELET-CANARY) ' ||
    "ip6tables-$1-save" -t mangle 2>/dev/null | grep -Eq '^:(KUBE-IPTABLES-HINT|KUBE-KUBELET-CANARY) '
}

rules_of() {
  { "iptables-$1-save"; "ip6tables-$1-save"; } 2>/dev/null | grep -c '^-' || true
}

variant=${IPTABLES_VARIANT:-}
if [ -z "$variant" ]; then
  if has_kubelet_chains nft; then variant=nft
  elif has_kubelet_chains legacy; then variant=legacy
  elif [ "$(rules_of legacy)" -gt "$(rules_of nft)" ]; then variant=legacy
  else variant=nft
  fi
fi

links=${IPTABLES_LINKS:-/run/pointsman-iptables}
mkdir -p "$links"
for tool in iptables ip6tables; do
  for suffix in '' -save -restore; do
    target=$(command -v "$tool-$variant$suffix")
    ln -sf "$target" "$links/$tool$suffix"
  done
done
PATH="$links:$PATH"
export PATH
exec "${POINTSMAN:-/opt/pointsman/pointsman}" run "$@"
