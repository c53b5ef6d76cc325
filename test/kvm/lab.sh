#!/bin/sh
# lab.sh DIR N ROOT: two libvirt hosts, a and b, for as long as standard input stays open. Whoever started it may die in any
# way: the input ends, and with it the hosts, their guests and the network. Killed itself, it takes the hosts with it, and the
# bridge is taken down by the next lab of that number.
#
#   this machine     10.213.N.254 on bridge ptN
#   host a, host b   10.213.N.1, 10.213.N.2: namespaces of their own (mounts, network, processes, host name), chrooted to ROOT
set -eu
dir=$1 n=$2 root=$3

down() {
	trap - EXIT
	for h in a b; do
		[ -f "$dir/$h/unshare.pid" ] && kill -KILL "$(cat "$dir/$h/unshare.pid")" 2>/dev/null || true
	done
	wait 2>/dev/null || true
	for h in a b; do ip link del "pt$n$h" 2>/dev/null || true; done
	ip link del "pt$n" 2>/dev/null || true
}
trap down EXIT
trap 'exit 1' HUP INT TERM

ip link del "pt$n" 2>/dev/null || true
ip link add "pt$n" address "$(printf '02:00:00:00:%02x:fe' "$n")" type bridge forward_delay 0 # else it changes with its ports
ip addr add "10.213.$n.254/24" dev "pt$n"
ip link set "pt$n" up

i=0
for h in a b; do
	i=$((i + 1))
	mkdir -p "$dir/$h/root" "$dir/$h/run" "$dir/$h/lib" "$dir/$h/cache" "$dir/$h/log"
	rm -rf "$dir/$h/etc" && cp -a "$root/etc" "$dir/$h/etc"
	# It dies with this shell, and takes its process 1, and so all of its processes, with it. Whatever else this machine does has to wait
	# for its hosts: a guest's waiting for its core is what the other guest takes of it, and nothing else.
	setpriv --pdeathsig KILL nice -n -19 unshare --mount --uts --net --pid --fork --kill-child=KILL --propagation private \
		sh "$dir/host.sh" "$dir" "$h" "$n" "$i" "$root" </dev/null >"$dir/$h/log/init" 2>&1 &
	echo $! >"$dir/$h/unshare.pid"
	until [ "$(readlink "/proc/$!/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
	ip link del "pt$n$h" 2>/dev/null || true
	ip link add "pt$n$h" type veth peer name up0 netns $!
	ip link set "pt$n$h" master "pt$n" up
done
echo up
cat >/dev/null
