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
# quietly WHAT COMMAND...: what apt-get says is shown only when it fails.
quietly() {
  say "$1"
  shift
  "$@" >"$output" 2>&1 </dev/null && return 0
  cat "$output" >&2
  return 1
}

export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # one word a package
if ! quietly "installing$missing" apt-get install -y --no-install-recommends $missing 2>/dev/null; then
  quietly 'fetching the list of packages' apt-get update
  # shellcheck disable=SC2086
  quietly "installing$missing" apt-get install -y --no-install-recommends $missing
fi
