#!/bin/bash
# Boots one guest and waits for its end; started by vm-run.sh as the first process of its own namespaces.
#   vm-boot.sh EMPTY-DIRECTORY COMMAND...   VM_ENGINE, VM_TREE, VM_TIMEOUT, VM_MEMORY, VM_WRITABLE in the environment
# Exit code: the command's; 124: the time was up; 125: the guest died; 126: it did not come up.
set -euo pipefail
control=$1
shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { printf 'pointsman vm: %s\n' "$*" >&2; }
began=$(date +%s%N)
seconds() { local ms=$((($(date +%s%N) - began) / 1000000)); printf '%d.%01d s' $((ms / 1000)) $((ms % 1000 / 100)); }

# UML keeps the guest's memory in a file, mapped executable: some machines' /dev/shm is too small or noexec.
mount -t tmpfs -o "size=$((VM_MEMORY + 256))M,mode=755,exec" vm "$control"
cp "$root/src/lab/vm/guest/main.sh" "$root/src/lab/vm/guest/modules" "$control/"
printf '%s\n' "$VM_TREE" >"$control/tree"
printf '%s' "$VM_WRITABLE" >"$control/writable"
{
  echo "cd $(printf %q "$PWD")"
  # What a test runner tells its own children is not meant for those in the guest.
  export -p | grep -vE '^declare -x (VM_[A-Z]+|NODE_TEST_CONTEXT|NODE_CHANNEL_[A-Z_]+|OLDPWD|SHLVL|PWD|TMPDIR)\b'
  echo "export POINTSMAN_VM=$VM_ENGINE"
  printf 'exec'
  printf ' %q' "$@"
  echo
} >"$control/command.bash"
echo 'exec bash /run/vm/command.bash' >"$control/command"

mkfifo "$control/out"
cat "$control/out" &
drain=$!
# Kept open here, so that the reader neither waits for a guest that never opens it, nor ends before the guest does.
exec 8>"$control/out"
console=$control/console
case $VM_ENGINE in
  uml)
    boot_limit=${VM_BOOT_LIMIT:-60}
    # When it panics it signals its whole process group: it gets one of its own.
    TMPDIR=$control setsid "$VM_TREE/usr/bin/linux.uml" uml_dir="$control/uml" "mem=${VM_MEMORY}M" \
      initrd="$VM_TREE/initramfs" rdinit=/init quiet panic=-1 con=null con0=null,fd:2 con1=null,fd:1 \
      VM_ENGINE=uml VM_CONTROL="$control" </dev/null >"$control/out" 2>"$console" 8>&- &
    ;;
  tcg)
    boot_limit=${VM_BOOT_LIMIT:-180}
    qemu=qemu-system-x86_64
    options=()
    virtiofsd=
    for file in "$VM_TREE"/qemu/usr/{libexec,lib/qemu}/virtiofsd /usr/{libexec,lib/qemu}/virtiofsd; do
      [ -z "$virtiofsd" ] && [ -x "$file" ] && virtiofsd=$file
    done
    [ -n "$virtiofsd" ] || { say 'there is no virtiofsd (package qemu-system-common or virtiofsd)'; exit 126; }
    libraries=
    if [ -d "$VM_TREE/qemu" ]; then
      qemu=$VM_TREE/qemu/usr/bin/qemu-system-x86_64
      libraries=$VM_TREE/qemu/usr/lib/x86_64-linux-gnu:$VM_TREE/qemu/lib/x86_64-linux-gnu
      libraries+=:$VM_TREE/qemu/usr/lib/x86_64-linux-gnu/pulseaudio
      options+=(-L "$VM_TREE/qemu/usr/share/seabios" -L "$VM_TREE/qemu/usr/share/qemu")
    fi
    # It locks a file there, named after its socket: which is the same for every guest, as each has its own directory.
    mkdir -p /run/virtiofsd
    mount -t tmpfs -o size=1M locks /run/virtiofsd
    export LD_LIBRARY_PATH=$libraries
    "$virtiofsd" --socket-path="$control/fs" -o source=/ -o cache=always -o sandbox=chroot >"$control/virtiofsd" 2>&1 8>&- &
    for _ in {1..100}; do [ -S "$control/fs" ] && break; sleep 0.05; done
    # Guest memory needs its own shared mapping for virtiofs.
    setsid "$qemu" "${options[@]}" -machine pc -accel tcg,thread=multi -cpu max -smp 2 -m "${VM_MEMORY}M" \
      -nodefaults -no-user-config -no-reboot -display none -monitor none -nic none \
      -object "memory-backend-memfd,id=mem,size=${VM_MEMORY}M,share=on" -numa node,memdev=mem \
      -chardev "socket,id=fs,path=$control/fs" -device vhost-user-fs-pci,chardev=fs,tag=host \
      -device virtio-serial-pci -chardev "file,id=out,path=$control/out" -device virtserialport,chardev=out \
      -serial "file:$console" -kernel "$VM_TREE/vmlinuz" -initrd "$VM_TREE/initramfs" \
      -append "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on rdinit=/init VM_ENGINE=tcg VM_CONTROL=$control" \
      </dev/null >"$control/qemu.log" 2>&1 8>&- &
    unset LD_LIBRARY_PATH
    ;;
esac
guest=$!

# A watch that outlives its use ends with this process, the first of its namespace.
(
  for ((i = 0; i < boot_limit * 5; i++)); do
    [ -e "$control/ready" ] && break
    sleep 0.2
  done
  if [ -e "$control/ready" ]; then
    [ -z "${VM_VERBOSE:-}" ] || say "$VM_ENGINE is up after $(seconds)"
    sleep "$VM_TIMEOUT"
    touch "$control/late"
  else
    touch "$control/late-boot"
  fi
  # It leads a group once setsid has run.
  kill -KILL $guest 2>/dev/null || true
  kill -KILL -- -$guest 2>/dev/null
) 8>&- &
wait $guest 2>/dev/null || true
exec 8>&-
# The guest's last words may still be on their way through the pipe; it ends with its last writer.
wait $drain || true

tell_console() {
  for file in "$console" "$control/qemu.log" "$control/virtiofsd"; do
    [ ! -s "$file" ] || tail -n 25 "$file" | tr -d '\r' >&2
  done
}
if [ -e "$control/rc" ]; then
  [ -z "${VM_VERBOSE:-}" ] || say "done after $(seconds)"
  exit "$(cat "$control/rc")"
fi
if [ -e "$control/late" ]; then
  say "the command was not done after $VM_TIMEOUT s"
  tell_console
  exit 124
fi
if [ ! -e "$control/ready" ]; then
  [ ! -e "$control/late-boot" ] || say "$VM_ENGINE was not up after $boot_limit s"
  tell_console
  exit 126
fi
say 'the guest died; its last words:'
tell_console
exit 125
