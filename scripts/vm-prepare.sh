#!/bin/bash
# Puts a guest kernel with IPVS into .cache/vm/ (once) and prints its directory.
#
#   scripts/vm-prepare.sh uml      user-mode Linux: the kernel is an ordinary program (about 45 MB to fetch)
#   scripts/vm-prepare.sh tcg      QEMU without hardware help, with Debian's 6.12 cloud kernel (about 55 MB)
#
# With both comes ipvsadm, for the guest alone.
# Packages of the running Debian release, fetched with apt-get and unpacked with dpkg-deb; nothing is installed.
# What was once prepared is used until .cache/vm is deleted.
set -euo pipefail
engine=${1:-uml}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf 'pointsman: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

case $engine in uml | tcg) ;; *) echo "usage: $0 uml|tcg" >&2; exit 2 ;; esac
[ "$(uname -m)" = x86_64 ] || fail "guest kernels are prepared for x86-64 only; this is $(uname -m)"
for program in apt-get apt-cache dpkg-deb; do
  command -v "$program" >/dev/null || fail "$program is missing: guest kernels come from Debian's packages, on Debian"
done
release=$(. /etc/os-release && printf '%s-%s' "$ID" "${VERSION_CODENAME:-rolling}")
cache=$root/.cache/vm/$release
target=$cache/$engine
mkdir -p "$cache" "$root/.cache/vm/run"

# The guest's own part (init and list of modules) may be newer than what was prepared.
recipe=$(cat "$0" "$root/src/lab/vm/guest/init.sh" | sha256sum | cut -c1-16)
[ "$(cat "$target/recipe" 2>/dev/null)" != "$recipe" ] || { printf '%s\n' "$target"; exit 0; }
# The kernel drops the lock with the process that holds it, however that ends.
exec 9>"$cache/lock"
flock 9
[ "$(cat "$target/recipe" 2>/dev/null)" != "$recipe" ] || { printf '%s\n' "$target"; exit 0; }

rm -rf "$cache"/work.*
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
output=$work/output

# quietly COMMAND...: what it says is shown only when it fails.
quietly() {
  "$@" >"$output" 2>&1 </dev/null 9>&- || { cat "$output" >&2; return 1; }
}

apt() { apt-get -q -o APT::Sandbox::User=root -o Dir::Cache::archives="$cache/debs" "$@"; }

lists_fresh=
update_lists() {
  [ -z "$lists_fresh" ] || return 1
  lists_fresh=yes
  say 'fetching the list of packages'
  quietly apt-get -q update
}

# known PACKAGE: apt can fetch it.
known() { [ -n "$(apt-cache --quiet=0 policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p' | grep -v '(none)')" ]; }

# fetch PACKAGE...: into $cache/debs, unless they are there.
fetch() {
  mkdir -p "$cache/debs/partial"
  local package missing=()
  for package in "$@"; do
    compgen -G "$cache/debs/${package}_*.deb" >/dev/null || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "fetching Debian packages: ${missing[*]}"
  (cd "$cache/debs" && quietly apt download "${missing[@]}") 2>/dev/null && return 0
  update_lists || true
  (cd "$cache/debs" && quietly apt download "${missing[@]}") || fail "apt-get could not fetch ${missing[*]}"
}

unpack() { # PACKAGE DIRECTORY
  local debs=("$cache/debs/${1}"_*.deb)
  dpkg-deb -x "${debs[-1]}" "$2"
}

tree=$work/tree
mkdir -p "$tree" "$work/tools"
fetch busybox-static kmod
unpack busybox-static "$work/tools"
unpack kmod "$work/tools"
busybox=$work/tools/bin/busybox
[ -x "$busybox" ] || busybox=$work/tools/usr/bin/busybox
kmod=$work/tools/bin/kmod
[ -x "$kmod" ] || kmod=$work/tools/usr/bin/kmod

early=(overlay)
if [ "$engine" = uml ]; then
  fetch user-mode-linux
  say 'unpacking user-mode Linux'
  unpack user-mode-linux "$tree"
  mkdir -p "$tree/lib"
  ln -sfn ../usr/lib/uml/modules "$tree/lib/modules"
else
  meta=linux-image-6.12-cloud-amd64
  known "$meta" || { update_lists || true; }
  known "$meta" || meta=linux-image-cloud-amd64
  image=$(apt-cache depends --important "$meta" | sed -n 's/^  Depends: \(linux-image-[^ ]*\)$/\1/p' | head -1)
  [ -n "$image" ] || fail "this Debian has no cloud kernel (package $meta)"
  fetch "$image"
  say "unpacking $image"
  unpack "$image" "$tree"
  mv "$tree"/boot/vmlinuz-* "$tree/vmlinuz"
  # On newer releases the modules are below /usr.
  [ -d "$tree/lib/modules" ] || { mkdir -p "$tree/lib"; ln -sfn ../usr/lib/modules "$tree/lib/modules"; }
  early+=(virtio_pci virtio_console virtiofs)
  if ! command -v qemu-system-x86_64 >/dev/null; then
    mkdir -p "$cache/qemu-debs/partial"
    say 'fetching QEMU and the libraries it needs'
    wanted=(qemu-system-x86)
    apt-cache show virtiofsd >/dev/null 2>&1 && wanted+=(virtiofsd)
    apt_qemu() {
      apt-get -q -y -o APT::Sandbox::User=root -o Dir::Cache::archives="$cache/qemu-debs" -o Debug::NoLocking=1 \
        install --download-only --no-install-recommends "${wanted[@]}"
    }
    quietly apt_qemu 2>/dev/null || { update_lists || true; quietly apt_qemu; } || fail 'apt-get could not fetch QEMU'
    say 'unpacking QEMU'
    for deb in "$cache"/qemu-debs/*.deb; do dpkg-deb -x "$deb" "$work/qemu"; done
  fi
fi
version=$(ls "$tree/lib/modules/")
[ -f "$tree/lib/modules/$version/modules.dep" ] || {
  ln -sf "$kmod" "$work/depmod"
  quietly "$work/depmod" -b "$tree" "$version"
}

say 'making the initial file system'
initial=$work/initial
mkdir -p "$initial/bin" "$initial/modules"
cp "$busybox" "$initial/bin/busybox"
install -m 755 "$root/src/lab/vm/guest/init.sh" "$initial/init"
ln -sf "$kmod" "$work/modprobe"
number=100
for module in "${early[@]}"; do
  # Built-in ones print no "insmod" line.
  while read -r verb file _; do
    [ "$verb" = insmod ] || continue
    name=$(basename "$file")
    compgen -G "$initial/modules/???-${name%%.*}.ko" >/dev/null && continue
    case $file in
      *.xz) "$busybox" xz -dc "$file" ;;
      *.gz) "$busybox" gzip -dc "$file" ;;
      *.zst) zstd -dcq "$file" ;;
      *) cat "$file" ;;
    esac >"$initial/modules/$number-${name%%.*}.ko"
    number=$((number + 1))
  done < <("$work/modprobe" -S "$version" -d "$tree" --show-depends "$module")
done
(cd "$initial" && "$busybox" find . | "$busybox" cpio -o -H newc 2>/dev/null) | "$busybox" gzip -1 >"$tree/initramfs"

fetch ipvsadm libnl-3-200 libnl-genl-3-200 libpopt0
for package in ipvsadm libnl-3-200 libnl-genl-3-200 libpopt0; do unpack $package "$tree/ipvsadm"; done
rm -rf "$tree/ipvsadm/usr/share" "$tree/ipvsadm/etc"

mkdir -p "$tree/tools"
cp "$busybox" "$tree/tools/busybox"
cp "$kmod" "$tree/tools/kmod"
for name in modprobe lsmod rmmod insmod modinfo depmod; do ln -sf kmod "$tree/tools/$name"; done
if [ -d "$work/qemu" ]; then mv "$work/qemu" "$tree/qemu"; fi
rm -rf "$tree/boot" "$tree/usr/share/doc"
printf '%s\n' "$recipe" >"$tree/recipe"
rm -rf "$target"
mv "$tree" "$target"
printf '%s\n' "$target"
