#!/bin/sh
# host.sh DIR NAME N I ROOT: process 1 of a host's namespaces. It makes a machine of them: its own mounts, address and identity,
# then libvirtd, and then it reaps what libvirtd and QEMU leave.
set -eu
dir=$1 h=$2 n=$3 i=$4 tree=$5
own=$dir/$h root=$dir/$h/root ip=10.213.$n.$i

hostname "host-$h"
mount --bind "$tree" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
# A machine that has the device without the processor for it hangs its guests.
[ ! -e "$root/dev/kvm" ] || mount --bind /dev/null "$root/dev/kvm"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$own/etc" "$root/etc"
mount --bind "$own/run" "$root/run"
mount --bind "$own/lib" "$root/var/lib/libvirt"
mount --bind "$own/cache" "$root/var/cache/libvirt"
mount --bind "$own/log" "$root/var/log/libvirt"
mount --bind "$dir/shared" "$root/lab"
# The host sees one core, and of its load what its own processes use.
mount --bind "$own/stat" "$root/proc/stat"
cpus=$root/sys/devices/system/cpu
mount --bind "$own/zero" "$cpus/online"
for f in "$cpus"/cpu[1-9]*/online; do
	[ ! -e "$f" ] || mount --bind "$own/zero" "$f"
done

until [ -e /sys/class/net/up0 ] || ip link show up0 >/dev/null 2>&1; do sleep 0.01; done
ip link set lo up
ip link add br0 address "$(printf '02:00:00:00:%02x:%02x' "$n" "$i")" type bridge forward_delay 0 # else it changes with its ports
ip link set up0 master br0 up
ip addr add "$ip/24" dev br0
ip link set br0 up

cd "$root/etc"
printf '127.0.0.1 localhost\n10.213.%s.1 host-a\n10.213.%s.2 host-b\n' "$n" "$n" >hosts
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\nlibvirt-qemu:x:64055:64055::/nonexistent:/bin/false\n' >passwd
printf 'root:x:0:\nkvm:x:106:\nnogroup:x:65534:\nlibvirt:x:107:\nlibvirt-qemu:x:64055:\n' >group
printf 'passwd: files\ngroup: files\nhosts: files\n' >nsswitch.conf
printf '%08d00004000800000000000%04d%04d\n' "$n" "$n" "$i" | cut -c1-32 >machine-id
mkdir -p libvirt
cat >libvirt/libvirtd.conf <<C
listen_tls = 0
listen_tcp = 1
listen_addr = "$ip"
auth_tcp = "none"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
host_uuid = "$(printf '%08d-0000-4000-8000-%012d' "$n" "$i")"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
C
cat >libvirt/qemu.conf <<C
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = [ ]
cgroup_controllers = [ ]
stdio_handler = "file"
migration_address = "$ip"
migration_host = "$ip"
migration_port_min = 49152
migration_port_max = 49200
keepalive_interval = 1
keepalive_count = 5
max_core = 0
C
exec chroot "$root" /bin/busybox sh -c '
	export PATH=/usr/sbin:/usr/bin:/sbin:/bin
	libvirtd --listen >/var/log/libvirt/out 2>&1 &
	while :; do busybox sleep 1; done'
