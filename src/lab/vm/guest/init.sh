#!/bin/busybox sh
# The guest's first process: makes the host's file tree its own root, with a layer in memory that takes all writes,
# and goes on there. VM_ENGINE and VM_CONTROL (a directory of the host) come from the kernel's command line.
b=/bin/busybox

stop() {
  echo "guest: $*"
  $b sleep 1
  $b poweroff -f
}

$b mkdir -p /dev /proc /lower /rw /newroot
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
for module in /modules/*.ko; do
  [ ! -e "$module" ] || $b insmod "$module" || stop "module $module does not load"
done
case $VM_ENGINE in
  uml) $b mount -t hostfs -o / none /lower ;;
  *) $b mount -t virtiofs host /lower ;;
esac || stop "the host's file tree cannot be mounted"
control=/lower$VM_CONTROL
: >"$control/ready" || stop "$VM_CONTROL cannot be written"

$b mount -t tmpfs -o size=75% rw /rw
$b mkdir /rw/up /rw/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/rw/up,workdir=/rw/work root /newroot || stop 'no overlay'
while read -r directory; do
  $b mkdir -p "/newroot$directory"
  $b mount --bind "/lower$directory" "/newroot$directory" || stop "$directory cannot be made writable"
done <"$control/writable"
$b mount -t proc proc /newroot/proc
$b mount -t sysfs sys /newroot/sys
$b mount -t devtmpfs dev /newroot/dev
$b mkdir -p /newroot/dev/pts /newroot/dev/shm
$b mount -t devpts -o mode=620,ptmxmode=666 pts /newroot/dev/pts
$b mount -t tmpfs shm /newroot/dev/shm
$b mount -t tmpfs -o mode=755 run /newroot/run
$b mkdir -p /newroot/run/vm /newroot/run/lock
$b mount --bind "$control" /newroot/run/vm

# The guest kernel's modules and a modprobe for them, whatever the host has.
read -r tree <"$control/tree"
$b rm -rf /newroot/usr/lib/modules /newroot/lib/modules
$b ln -s "$tree/lib/modules" /newroot/lib/modules
for tool in modprobe lsmod rmmod insmod modinfo depmod; do
  $b ln -sf "$tree/tools/$tool" "/newroot/usr/sbin/$tool"
done
# A tool that the host need not have, with its libraries.
libraries=$tree/ipvsadm/usr/lib/x86_64-linux-gnu:$tree/ipvsadm/lib/x86_64-linux-gnu
program=$tree/ipvsadm/usr/sbin/ipvsadm
[ -e "/newroot$program" ] || program=$tree/ipvsadm/sbin/ipvsadm
$b rm -f /newroot/usr/sbin/ipvsadm
printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libraries" "$program" >/newroot/usr/sbin/ipvsadm
$b chmod 755 /newroot/usr/sbin/ipvsadm
# The user-mode kernel has no nf_tables for IP: the older iptables is the one that works.
if [ "$VM_ENGINE" = uml ] && [ -e /newroot/usr/sbin/xtables-legacy-multi ]; then
  for tool in iptables ip6tables; do
    for suffix in '' -save -restore; do $b ln -sf xtables-legacy-multi "/newroot/usr/sbin/$tool$suffix"; done
  done
fi
$b cp $b /newroot/run/busybox

# The kernel starts modprobe in this process' root, so it is this process that must change it.
cd /newroot || stop 'no new root'
$b mount --move . /
exec $b chroot . /run/busybox sh /run/vm/main.sh
