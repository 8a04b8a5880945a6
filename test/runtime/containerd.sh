#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Debian's containerd with runc: `ctr run --cni`, through go-cni. Its root, state and socket are on
# the sandbox's /run.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/image.sh"

for tool in containerd ctr runc busybox; do
	command -v "$tool" >/dev/null || skip_all "$tool is not installed"
done

dir=/run/test-containerd
mkdir -p "$dir" /etc/cni/net.d
cp "$FLAT_ROOT/conf/single-node.conflist" /etc/cni/net.d/10-flatnet.conflist

# /opt/cni/bin is built into ctr.
mkdir -p "$dir/opt/cni/bin"
cp -L "$FLAT_BIN"/* "$dir/opt/cni/bin/"
mount --bind "$dir/opt" /opt

cat >"$dir/config.toml" <<-E
	version = 2
	root = "$dir/root"
	state = "$dir/state"
	disabled_plugins = ["io.containerd.grpc.v1.cri"]
	[grpc]
	  address = "$dir/sock"
	[ttrpc]
	  address = "$dir/sock.ttrpc"
E
containerd --config "$dir/config.toml" </dev/null >"$dir/log" 2>&1 &
daemon=$!
at_exit kill "$daemon"
# A namespace of containerd's is a control group, too: ours, and gone in the end.
space=flatnet-test-$RANDOM
remove_cgroups() {
	find /sys/fs/cgroup -depth -type d -path "*/$space*" -exec rmdir {} + 2>/dev/null || :
}
at_exit remove_cgroups
run_ctr() {
	timeout 60 ctr --address "$dir/sock" --namespace "$space" "$@"
}
eventually 20 'containerd starts' run_ctr version
make_image "$dir/image.tar"
ok 'it takes the image' run_ctr images import --snapshotter native "$dir/image.tar"

addresses() {
	find /run/flatnet/ipam -type f -name '10.*' 2>/dev/null | wc -l
}
# In the foreground ctr calls DEL at the end, with an empty CNI_NETNS.
container() {
	ctr --address "$dir/sock" --namespace "$space" run --rm --cni --snapshotter native --runc-binary runc \
		registry.local/busybox:1 "$1" sleep 600 </dev/null >"$dir/$1.log" 2>&1 &
}
inside() {
	local name=$1
	shift
	run_ctr tasks exec --exec-id "exec-$RANDOM$RANDOM" "$name" "$@" </dev/null
}
address_of() {
	inside "$1" ip -4 address show dev eth0 2>/dev/null | sed -n 's/.*inet \([0-9.]*\).*/\1/p'
}
has_address() {
	[[ -n $(address_of "$1") ]]
}

container one
container two
eventually 30 'container one has an address' has_address one
eventually 30 'container two has an address' has_address two
[[ -n $(address_of two) ]] || diag "$(cat "$dir"/*.log)"
one=$(address_of one) two=$(address_of two)
like "$one" '^10\.244\.0\.[0-9]+$' 'an address of the subnet'
isnt "$one" "$two" 'two addresses'
is "$(addresses)" 2 'two reservations'
ok 'one pings two' inside one ping -c 1 -W 2 "$two"
ok 'two pings one' inside two ping -c 1 -W 2 "$one"
ok 'the node pings one' ping -c 1 -W 2 "$one"
like "$(inside one ip route)" 'default via 10\.244\.0\.1 dev eth0' 'the default route'

ok 'kill one' run_ctr tasks kill -s SIGKILL one
none_of_one() {
	[[ ! -e /run/flatnet/ipam/flatnet/$one ]]
}
eventually 20 'its address is free again' none_of_one
ok 'kill two' run_ctr tasks kill -s SIGKILL two
free() {
	(($(addresses) == 0)) && [[ $(ip -j link show type veth) == '[]' ]]
}
eventually 20 'no address and no link is left' free
done_testing
