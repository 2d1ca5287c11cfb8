# The guest, in its final file tree: loads what service proxies need, runs the command, hands out its exit code.
b=/run/busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

case $VM_ENGINE in
  uml)
    device=/dev/tty1
    $b stty raw -echo -F $device
    ;;
  *)
    for device in /dev/vport*p1; do :; done
    ;;
esac
$b mkfifo /run/output
$b cat /run/output >"$device" &
drain=$!

$b hostname pointsman-vm
ip link set lo up
# Sysctls exist only once the module is there, and each load on demand would start a process: all at once, here.
# A kernel that lacks one of them, or has it built in, is no reason to stop: what needs it says so.
modprobe -a -q $($b cat /run/vm/modules) 2>/run/modprobe.log

$b sh /run/vm/command </dev/null >/run/output 2>&1 &
command=$!
wait $command
code=$?
# A process the command left behind may hold the output open: it gets two seconds.
($b sleep 2; kill $drain 2>/dev/null) &
wait $drain
echo $code >/run/vm/rc.new
$b mv /run/vm/rc.new /run/vm/rc
$b poweroff -f
