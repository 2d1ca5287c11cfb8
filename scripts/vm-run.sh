#!/bin/bash
# Runs a command as root in a small virtual machine that has IPVS, over this machine's own files.
#
#   scripts/vm-run.sh [--engine uml|tcg] [--timeout SECONDS] [--memory MiB] [--writable DIRECTORY]... [--] COMMAND...
#
# Prints the command's output (both streams on standard output) and ends with its exit code; 124: the time was up;
# 125: no guest came up, or it died. Writes of the guest stay in its memory, except below --writable directories.
# Without --engine: user-mode Linux, and QEMU if that does not come up. See src/lab/vm/README.md.
set -euo pipefail
if [ "$(id -u)" != 0 ]; then
  echo 'pointsman vm: it makes namespaces of its own: run as root' >&2
  exit 125
fi
# Ends with whoever started it, even if that one is killed. The process id outlives exec.
[ "${VM_BOUND:-}" = $$ ] || VM_BOUND=$$ exec setpriv --pdeathsig KILL "$0" "$@"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")

say() { printf 'pointsman vm: %s\n' "$*" >&2; }
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }

engines='uml tcg'
export VM_TIMEOUT=900 VM_MEMORY=2048 VM_WRITABLE=
while [ $# -gt 0 ]; do
  case $1 in
    --engine) engines=${2:?}; shift 2 ;;
    --timeout) VM_TIMEOUT=${2:?}; shift 2 ;;
    --memory) VM_MEMORY=${2:?}; shift 2 ;;
    --writable) VM_WRITABLE+=$(cd "${2:?}" && pwd)$'\n'; shift 2 ;;
    --) shift; break ;;
    -*) usage ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || usage
case $engines in uml | tcg | 'uml tcg') ;; *) usage ;; esac

boot=
end() {
  [ -z "$boot" ] || kill -KILL "$boot" 2>/dev/null || true
  exit "$1"
}
trap 'end 130' INT
trap 'end 143' TERM
trap 'end 129' HUP

for engine in $engines; do
  tree=$("$here/vm-prepare.sh" "$engine") || { say "$engine cannot be prepared"; continue; }
  # A process, mount and network namespace of its own: when its first process goes, everything in it goes, and the
  # guest's memory and control files, which are on a tmpfs that only it sees.
  VM_ENGINE=$engine VM_TREE=$tree setpriv --pdeathsig KILL \
    unshare --mount --net --pid --fork --kill-child=KILL --mount-proc "$here/vm-boot.sh" "$root/.cache/vm/run" "$@" &
  boot=$!
  code=0
  wait "$boot" || code=$?
  boot=
  # 126: it did not come up.
  [ "$code" = 126 ] || exit "$code"
  say "$engine did not come up"
done
exit 125
