#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The real libcni, through cnitool 1.3.0: all verbs, two networks, and what it keeps in its cache.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"

[[ -n ${FLAT_CNITOOL:-} ]] || skip_all 'cnitool could not be had'
export CNI_PATH=$FLAT_BIN NETCONFPATH=/etc/cni/net.d
mkdir -p "$NETCONFPATH"

# cnitool VERB NETWORK POD: sets rc and out
tool() {
	local netns=/run/netns/$3
	rc=0
	out=$(timeout 30 "$FLAT_CNITOOL" "$1" "$2" "$netns" 2>&1) || rc=$?
}
tool_ok() {
	if ((rc == 0)); then
		pass "$1"
	else
		fail "$1"
		diag "  exit $rc: $out"
	fi
}
links() {
	ip -j link show type veth | jq length
}
addresses() {
	find /run/flatnet/ipam -type f -name '10.*' 2>/dev/null | wc -l
}

# The first network is an example of conf/, as it is but for the version, which STATUS and GC need.
jq '.cniVersion = "1.1.0"' "$FLAT_ROOT/conf/single-node.conflist" >"$NETCONFPATH/10-flatnet.conflist"
jq '.cniVersion = "1.1.0" | .name = "second" | .plugins[0].bridge = "second0" |
	.plugins[0].isDefaultGateway = false | .plugins[0].clusterCIDR = "10.245.0.0/16" |
	.plugins[0].ipam.subnet = "10.245.0.0/24"' \
	"$FLAT_ROOT/conf/single-node.conflist" >"$NETCONFPATH/20-second.conflist"
make_pod - one
make_pod - two

tool status flatnet one
tool_ok 'status before the first pod'
is "$(links) $(addresses)" '0 0' 'status makes nothing'

tool add flatnet one
tool_ok 'add'
json "$out" '.cniVersion == "1.1.0" and (.interfaces | length) == 3 and .ips[0].interface == 2' 'result in the shape of 1.1.0'
is "$(jq -r '.ips[0].address' <<<"$out")" "$(pod_ip - one)/24" 'the address of the result is the address of the pod'
first=$(pod_ip - one)
tool add flatnet two
tool_ok 'add of a second pod'
second=$(pod_ip - two)
isnt "$first" "$second" 'two pods, two addresses'
ok 'they reach each other' can_ping - one "$second"
ok 'and the other way' can_ping - two "$first"

tool check flatnet one
tool_ok 'check after add'
mapfile -t address < <(pod_exec - one ip -o -4 address show dev eth0 | sed 's/.*inet \([^ ]*\).*/\1/')
mapfile -t routes < <(pod_exec - one ip route show)
pod_exec - one ip address del "${address[0]}" dev eth0
tool check flatnet one
isnt "$rc" 0 'check finds that the address is gone'
like "$out" "${first//./\\.}" 'and names it'
pod_exec - one ip address add "${address[0]}" dev eth0 noprefixroute
# Twice: a route may be listed before that to its gateway.
for route in "${routes[@]}" "${routes[@]}"; do
	# shellcheck disable=SC2086
	pod_exec - one ip route replace $route 2>/dev/null || :
done
tool check flatnet one
tool_ok 'check after it was put back'

CNI_IFNAME=eth1 tool add second one
tool_ok 'add of a second network, eth1'
is "$(pod_ip - one)" "$first" 'eth0 is untouched'
like "$(pod_ip - one eth1)" '^10\.245\.0\.' 'eth1 has an address of the second network'
like "$(pod_exec - one ip route show default)" 'dev eth0' 'the default route stays with the first'
CNI_IFNAME=eth1 tool check second one
tool_ok 'check of the second network'
CNI_IFNAME=eth1 tool del second one
tool_ok 'del of the second network'
fails 'eth1 is gone' pod_exec - one ip link show dev eth1
ok 'eth0 still works' can_ping - one "$second"

tool del flatnet one
tool_ok 'del'
is "$(links) $(addresses)" '1 1' 'del removes link and address of that pod only'
tool del flatnet one
tool_ok 'del again'
is "$(links) $(addresses)" '1 1' 'and nothing more is gone'

del_pod - two
tool del flatnet two
tool_ok 'del after the pod died'
is "$(links) $(addresses)" '0 0' 'nothing is left'

# cnitool says that no attachment is valid: libcni takes down all that it has in its cache.
tool add flatnet one
tool_ok 'add before gc'
tool gc flatnet one
tool_ok 'gc'
is "$(links) $(addresses)" '0 0' 'gc leaves nothing'
tool del flatnet one
tool_ok 'del after gc'
is "$(links) $(addresses)" '0 0' 'nothing is left after gc and del'

tool status flatnet one
tool_ok 'status at the end'

# A node that goes by the node agent's file: STATUS says 50 until it is there, and why.
jq -n '{cniVersion: "1.1.0", name: "agent", plugins: [{type: "flatnet", ipMasq: true}]}' \
	>"$NETCONFPATH/30-agent.conflist"
rm -f /run/flatnet/node.json
tool status agent one
isnt "$rc" 0 'without the node file, status fails'
like "$out" "subnet file '/run/flatnet/node\.json'" '... and names it'
cni STATUS - - - <<<'{"cniVersion": "1.1.0", "name": "agent", "type": "flatnet", "ipMasq": true}'
cni_fails 50 'subnet file .*node\.json' '... with code 50, which libcni does not print'
tool add agent one
isnt "$rc" 0 '... as an add would'
printf '%s\n' '{"nodeName": "n1", "podCIDRs": ["10.244.7.0/24"], "clusterCIDR": ["10.244.0.0/16"], "mtu": 1450}' \
	>/run/flatnet/node.json
tool status agent one
tool_ok 'with it, status is content'
tool add agent one
tool_ok '... and an add works'
like "$(pod_ip - one)" '^10\.244\.7\.' '... from its subnet'
tool del agent one
tool_ok '... and a del'
ip link del cni0

# Every example of conf/ gives a pod an address, on a node that it names. flannel's needs what flanneld
# writes.
ip link add uplink type veth peer name wire
ip address add 192.0.2.1/24 dev uplink
ip address add 2001:db8::1/64 dev uplink nodad
ip link set wire up
ip link set uplink up
mkdir -p /run/flannel
printf '%s\n' FLANNEL_NETWORK=10.244.0.0/16 FLANNEL_SUBNET=10.244.1.1/24 FLANNEL_MTU=1450 FLANNEL_IPMASQ=true \
	>/run/flannel/subnet.env
export CNI_PATH=$FLAT_BIN:$FLAT_REFERENCE:${FLAT_FLANNEL%/*}
for list in "$FLAT_ROOT"/conf/*.conflist; do
	name=$(basename "$list" .conflist)
	rm -f "$NETCONFPATH"/*
	rm -rf /run/flatnet
	mkdir -p /run/flatnet
	printf '%s\n' '{"name": "node-1", "podCIDRs": ["10.244.1.0/24"], "address": "192.0.2.1"}' \
		>/run/flatnet/node.json
	cp "$list" "$NETCONFPATH/"
	network=$(jq -r .name "$list")
	tool add "$network" one
	tool_ok "$name: add"
	like "$(pod_ip - one)" '^10\.24[45]\.' "$name: the pod has an address"
	tool check "$network" one
	tool_ok "$name: check"
	tool del "$network" one
	tool_ok "$name: del"
	is "$(addresses)" 0 "$name: no address is left"
done
done_testing
