#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Debian's podman 4 on its CNI backend, with storage and networks of its own on the sandbox's /run.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/image.sh"

for tool in podman conmon runc busybox; do
	command -v "$tool" >/dev/null || skip_all "$tool is not installed"
done

dir=/run/test-podman
group=flatnet-test-$RANDOM
mkdir -p "$dir/home" "$dir/tmp" "$dir/bin" /etc/cni/net.d
jq '.name = "flat"' "$FLAT_ROOT/conf/host-ports.conflist" >/etc/cni/net.d/87-flat.conflist
cp -L "$FLAT_BIN"/* "$dir/bin/"
cat >"$dir/containers.conf" <<-E
	[engine]
	runtime = "runc"
	cgroup_manager = "cgroupfs"
	events_logger = "none"
	helper_binaries_dir = ["/usr/lib/podman", "/usr/libexec/podman"]
	[network]
	network_backend = "cni"
	cni_plugin_dirs = ["$dir/bin"]
	network_config_dir = "/etc/cni/net.d"
	default_network = "flat"
	[containers]
	cgroups = "enabled"
	apparmor_profile = "unconfined"
	log_driver = "k8s-file"
E
cat >"$dir/storage.conf" <<-E
	[storage]
	driver = "vfs"
	runroot = "$dir/run"
	graphroot = "$dir/storage"
E
cat >"$dir/policy.json" <<-'E'
	{"default": [{"type": "insecureAcceptAnything"}]}
E
export CONTAINERS_CONF=$dir/containers.conf CONTAINERS_STORAGE_CONF=$dir/storage.conf
export HOME=$dir/home XDG_RUNTIME_DIR=$dir/tmp

remove_cgroups() {
	find /sys/fs/cgroup -depth -type d -path "*/$group*" -exec rmdir {} + 2>/dev/null || :
}
at_exit remove_cgroups
run_podman() {
	timeout 60 podman --root "$dir/storage" --runroot "$dir/run" --tmpdir "$dir/tmp" \
		--storage-driver vfs --cgroup-manager cgroupfs --runtime runc "$@" </dev/null
}
container() { # NAME OPTIONS...
	local name=$1
	shift
	run_podman run -d --name "$name" --network flat --cgroup-parent "/$group" \
		--security-opt apparmor=unconfined "$@" registry.local/busybox:1 sleep 600
}
addresses() {
	find /run/flatnet/ipam -type f -name '10.*' 2>/dev/null | wc -l
}
address_of() {
	run_podman exec "$1" ip -4 address show dev eth0 2>/dev/null | sed -n 's/.*inet \([0-9.]*\).*/\1/p'
}
remove() {
	run_podman rm -f -t 0 "$1"
}

make_image "$dir/image.tar"
ok 'podman takes the image' run_podman load --signature-policy "$dir/policy.json" -i "$dir/image.tar"
like "$(run_podman info 2>/dev/null)" 'networkBackend: cni' 'its network backend is CNI'
like "$(run_podman network ls 2>/dev/null)" 'flat ' 'it knows the network'

ok 'run one' container one
at_exit remove one
ok 'run two' container two
at_exit remove two
one=$(address_of one) two=$(address_of two)
like "$one" '^10\.244\.0\.[0-9]+$' 'an address of the subnet'
isnt "$one" "$two" 'two addresses'
is "$(addresses)" 2 'two reservations'
ok 'one pings two' run_podman exec one ping -c 1 -W 2 "$two"
ok 'two pings one' run_podman exec two ping -c 1 -W 2 "$one"
ok 'the node pings one' ping -c 1 -W 2 "$one"
is "$(run_podman inspect -f '{{.NetworkSettings.Networks.flat.IPAddress}}' one)" "$one" 'podman shows that address'

ok 'run three with an address and a MAC of its own' container three --ip 10.244.0.77 \
	--mac-address 0a:58:00:00:00:77
at_exit remove three
is "$(address_of three)" 10.244.0.77 '--ip is honoured'
like "$(run_podman exec three ip link show dev eth0)" '0a:58:00:00:00:77' '--mac-address is honoured'
ok 'one pings three' run_podman exec one ping -c 1 -W 2 10.244.0.77
fails 'the same --ip again is refused' container four --ip 10.244.0.77
run_podman rm -f -t 0 four >/dev/null 2>&1 || :
is "$(address_of three)" 10.244.0.77 'and three keeps it'

# -p, as podman sends it
ok 'run web with a port of the host' container web -p 8088:80 -p 127.0.0.1:8089:80/udp
at_exit remove web
run_podman exec -d web sh -c 'while true; do echo hello | nc -l -p 80; done' >/dev/null
port() {
	[[ $(timeout 2 bash -c "dd bs=64 count=1 status=none </dev/tcp/$1/8088") == hello ]]
}
eventually 5 'the port of the node leads to it' port 127.0.0.1
eventually 5 '... by any address of the node' port 10.244.0.1
like "$(nft list map inet flatnet hostports4_address)" '127\.0\.0\.1 \. udp \. 8089' '... and one by one of them'
ok 'rm web' remove web
unlike "$(nft list table inet flatnet)" '808[89]' '... takes its ports along'

ok 'stop and start keep the container on the network' run_podman restart -t 0 two
two=$(address_of two)
ok 'one pings two after that' run_podman exec one ping -c 1 -W 2 "$two"

ok 'rm one' remove one
ok 'rm two' remove two
is "$(addresses)" 1 'their addresses are free'
ok 'rm three' remove three
is "$(addresses) $(ip -j link show type veth | jq length)" '0 0' 'no address and no link is left'
done_testing
