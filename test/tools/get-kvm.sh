#!/bin/sh
# Fetches what test/kvm starts: Debian's libvirt daemon, its driver for QEMU, QEMU, virsh, a kernel and the modules of its guests.
# All of it, with every library below it, is unpacked into .cache/tools/kvm of this checkout, which is a root to chroot to.
# Nothing is installed, no service is started, and no root is needed; apt's own lists and caches are neither read nor written.
set -eu

cd "$(dirname "$0")/../.."
tools=$PWD/.cache/tools
packages="libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 busybox-static"
kernel="linux-image-cloud-amd64"

[ -e "$tools/kvm/complete" ] && exit 0

for program in apt-get apt-cache dpkg dpkg-deb flock; do
	command -v "$program" >/dev/null || {
		echo "test/tools: no $program here; tests that need libvirt and QEMU will be skipped" >&2
		exit 1
	}
done

# One at a time: two test runs may begin together.
mkdir -p "$tools"
exec 9>"$tools/kvm.lock"
flock 9
[ -e "$tools/kvm/complete" ] && exit 0

apt=$tools/kvm.apt
rm -rf "$apt" "$tools/kvm.new"
mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/deb" "$tools/kvm.new"

# With no package installed, as it were, apt names the whole closure: the unpacked root needs nothing of this machine.
set -- -o Dir::State="$apt/state" -o Dir::State::status=/dev/null -o Dir::Cache="$apt/cache" \
	-o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=3
apt-get -q "$@" update
apt-get -q "$@" install -y --download-only --no-install-recommends $packages
image=$(apt-cache "$@" depends "$kernel" | awk '/Depends: linux-image/ {print $2; exit}')
(cd "$apt/deb" && apt-get -q "$@" download "$image")

for deb in "$apt"/cache/archives/*.deb; do
	dpkg -x "$deb" "$tools/kvm.new"
done
dpkg-deb --fsys-tarfile "$apt"/deb/*.deb | tar -x -C "$tools/kvm.new" --wildcards './boot/vmlinuz*' '*/drivers/virtio/*.ko*' \
	'*/net/core/failover.ko*' '*/drivers/net/net_failover.ko*' '*/drivers/net/virtio_net.ko*' '*/drivers/block/virtio_blk.ko*' \
	'*/drivers/char/virtio_console.ko*'
rm -rf "$apt" "$tools/kvm.new/usr/share/doc" "$tools/kvm.new/usr/share/man" "$tools/kvm.new/usr/share/locale" "$tools/kvm.new/usr/share/icons"
# What a host mounts there.
(cd "$tools/kvm.new" && mkdir -p dev proc sys tmp run lab etc var/lib/libvirt var/cache/libvirt var/log/libvirt)
[ -x "$tools/kvm.new/usr/sbin/libvirtd" ] && [ -x "$tools/kvm.new/usr/bin/qemu-system-x86_64" ]
touch "$tools/kvm.new/complete"
rm -rf "$tools/kvm" && mv "$tools/kvm.new" "$tools/kvm"
