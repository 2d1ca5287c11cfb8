#!/bin/sh
# Installs the Debian packages that the lab and the tests need, and only those that are missing. Needs root for that.
set -eu

say() { printf 'pointsman: %s\n' "$*" >&2; }

# A program that must be found, and the package that brings it.
needed='ip:iproute2 bridge:iproute2 iptables:iptables xtables-legacy-multi:iptables ipset:ipset nft:nftables
conntrack:conntrack openssl:openssl tcpdump:tcpdump setpriv:util-linux pgrep:procps'

PATH=$PATH:/usr/sbin:/sbin
missing=
for pair in $needed; do
  command -v "${pair%%:*}" >/dev/null 2>&1 && continue
  case " $missing " in *" ${pair##*:} "*) ;; *) missing="$missing ${pair##*:}" ;; esac
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  say "these programs are missing, and this is not Debian; install what your system calls:$missing"
  exit 1
fi
if [ "$(id -u)" != 0 ]; then
  say "these packages are missing:$missing. Install them, or run this as root"
  exit 1
fi

output=$(mktemp)
trap 'rm -f "$output"' EXIT
export DEBIAN_FRONTEND=noninteractive

# shellcheck disable=SC2086 # one word a package
install() { apt-get install -y --no-install-recommends $missing >"$output" 2>&1 </dev/null; }

say "installing$missing ..."
install && exit 0
say 'fetching the list of packages first ...'
apt-get update >"$output" 2>&1 </dev/null && install && exit 0
# What apt-get says is shown only when it fails.
cat "$output" >&2
exit 1
