#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# flatnet as the first of a chain of the reference's plugins, by libcni: each does its work on what
# flatnet made, packets say so, and nothing is left when they go, in whatever way. What a reference
# plugin leaves by itself (it has no GC) is not counted.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"
. "${0%/*}/../lib/cluster.sh"

[[ -n ${FLAT_CNITOOL:-} && -n ${FLAT_REFERENCE:-} ]] || skip_all 'cnitool and the reference plugins could not be had'
export CNI_PATH=$FLAT_BIN:$FLAT_REFERENCE NETCONFPATH=/etc/cni/net.d
mkdir -p "$NETCONFPATH"

# The sandbox is the node, on the wire as 192.0.2.1; the outside has a way to the second network only.
make_wire wire
make_node out wire 192.0.2.9/24
on wire ip link add here type veth peer name up0 netns $$
on wire ip link set here master wire up
ip address add 192.0.2.1/24 dev up0
ip link set up0 up
on out ip route add 10.245.0.0/24 via 192.0.2.1
for pod in a b; do
	make_pod - $pod
done

# tool VERB POD [NETWORK [IFNAME]]: sets rc, out and said, what is on its standard error
tool() {
	rc=0
	out=$(CNI_IFNAME=${4:-eth0} timeout 60 "$FLAT_CNITOOL" "$1" "${3:-chain}" "/run/netns/$2" 2>/run/stderr) || rc=$?
	said=$(</run/stderr)
}
tool_ok() {
	if ((rc == 0)); then
		pass "$1"
	else
		fail "$1"
		diag "  exit $rc: $out $said"
	fi
}
# gc: asks flatnet for GC as libcni does for a runtime that knows of no attachment; cnitool names none,
# which says nothing.
gc() {
	cni GC '' '' '' <<<"$(plugin_conf "$NETCONFPATH/10-chain.conflist" | jq -c '."cni.dev/valid-attachments" = []')"
	cni_ok "$1"
}
# list VERSION [JQ...]: the network "chain", flatnet and what the JQ filters put behind it
list() {
	# shellcheck disable=SC2016
	local filter='{cniVersion: $v, name: "chain", plugins: [
		{type: "flatnet", ipMasq: true, ipam: {subnet: "10.244.0.0/24"}}]}' f
	for f in "${@:2}"; do
		filter+=" | .plugins += [$f]"
	done
	jq -n --arg v "$1" "$filter" >"$NETCONFPATH/10-chain.conflist"
}
# tenths_for FROM TO: tenths of a second that two million bytes take; "-" is the node
tenths_for() {
	local address=10.244.0.1 start receiver
	[[ $2 == - ]] || address=$(pod_ip - "$2")
	in_pod - "$2" socat -u TCP-LISTEN:9001,reuseaddr OPEN:/dev/null &
	receiver=$!
	until in_pod - "$2" ss -Hltn 'sport = 9001' | grep -q .; do
		sleep 0.02
	done
	start=${EPOCHREALTIME//[!0-9]/}
	head -c 2000000 /dev/zero | in_pod - "$1" timeout 30 socat -u - "TCP:$address:9001"
	wait "$receiver"
	echo $(((${EPOCHREALTIME//[!0-9]/} - start) / 100000))
}
ours() { # links and addresses of flatnet's
	printf '%s %s\n' "$(veths | wc -l)" "$(store_files | wc -l)"
}

# ---- all of them, versions and backends --------------------------------------------------------------

export CAP_ARGS='{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}'
firewall='{type: "firewall", backend: "iptables"}'
bandwidth='{type: "bandwidth", ingressRate: 8000000, ingressBurst: 800000, egressRate: 8000000, egressBurst: 800000}'
tuning='{type: "tuning", sysctl: {"net.ipv4.ip_unprivileged_port_start": "0"}, mac: "02:11:22:33:44:55", mtu: 1400,
	promisc: true, allmulti: true, txQLen: 500}'
for case in '1.1.0 iptables' '1.1.0 nftables' '1.0.0 iptables' '0.4.0 nftables'; do
	read -r version backend <<<"$case"
	list "$version" "{type: \"portmap\", backend: \"$backend\", capabilities: {portMappings: true}}" \
		"$bandwidth" "$firewall" "$tuning"
	nft flush ruleset
	# What the plugins keep for all pods is there after the first one, and stays.
	tool add b
	tool_ok "$case: ADD of a first pod"
	tool del b
	tool_ok '... and its DEL'
	before=$(state)
	tool add a
	tool_ok '... ADD of another one'
	json "$out" ".cniVersion == \"$version\" and .interfaces[2].mac == \"02:11:22:33:44:55\" and
		(.interfaces | length) == 4 and .ips[0].interface == 2" '... what each of them did is in the result'
	a=$(pod_ip - a)
	ok '... the first packet finds the MAC that tuning set' ping -n -q -c 1 -W 1 "$a"
	tool check a
	tool_ok '... CHECK of all of them'
	serve - a web 80
	is "$(ask out - tcp 192.0.2.1 8080)" 'web 192.0.2.9' '... portmap: from outside, the port of the node leads to the pod'
	like "$(ask - - tcp 127.0.0.1 8080)" '^web ' '... and from the node by 127.0.0.1'
	cmp_ok "$(tenths_for - a)" -ge 15 '... bandwidth: two million bytes to the pod take their time'
	cmp_ok "$(tenths_for a -)" -ge 15 '... and from it'
	iptables -P FORWARD DROP
	ok '... firewall: the pod gets through a FORWARD that drops' can_ping - a 192.0.2.9
	iptables -D CNI-FORWARD -s "$a/32" -j ACCEPT
	fails '... by its rule' can_ping - a 192.0.2.9
	tool check a
	isnt "$rc" 0 '... whose loss CHECK sees'
	iptables -A CNI-FORWARD -s "$a/32" -j ACCEPT
	iptables -P FORWARD ACCEPT
	is "$(pod_link a eth0 '"\(.mtu) \(.txqlen) \(.promiscuity) \(.flags | contains(["ALLMULTI"]))"') $(pod_sysctl a net/ipv4/ip_unprivileged_port_start)" \
		'1400 500 1 true 0' '... tuning: all that it set'
	tool check a
	tool_ok '... CHECK again'
	tool del a
	tool_ok '... DEL'
	is "$(state)" "$before" '... leaves nothing'
	tool del a
	tool_ok '... DEL once more'

	tool add a
	tool_ok '... ADD again'
	del_pod - a
	tool del a
	tool_ok '... DEL when the namespace is gone'
	make_pod - a
	is "$(state)" "$before" '... leaves nothing'
done
nft flush ruleset

# ---- one of them fails ---------------------------------------------------------------------------------

list 1.1.0 '{type: "portmap", capabilities: {portMappings: true}}' '{type: "tuning", sysctl: {"net.ipv4.no_such": "1"}}'
tool add a
isnt "$rc" 0 'the third plugin fails'
like "$said" 'no_such' '... and says why'
before=$(ours)
tool del a
tool_ok '... DEL, as a runtime does then'
is "$before, $(ours)" '1 1, 0 0' '... leaves nothing'
fails '... in the pod, too' pod_exec - a ip link show eth0
tool add a
tool del a
is "$(ours)" '0 0' '... a second try is the same'

# libcni goes backwards and stops at the first that fails: flatnet is never asked. GC is.
list 1.1.0 '{type: "portmap", capabilities: {portMappings: true}}' '{type: "bandwidth", ingressRate: 8000000}'
tool add a
like "$rc $said" '1 .*burst must also be set' 'the third plugin fails'
tool del a
isnt "$rc" 0 '... and its DEL, too'
is "$(ours)" '1 1' '... so libcni keeps DEL from flatnet'
gc '... GC'
is "$(ours)" '0 0' '... leaves nothing'
fails '... in the pod, too' pod_exec - a ip link show eth0
tool status a
tool_ok 'STATUS of a chain'

# ---- GC ----------------------------------------------------------------------------------------------

list 1.1.0 '{type: "portmap", capabilities: {portMappings: true}}' "$bandwidth" "$firewall" "$tuning"
tool add a
tool_ok 'ADD of a chain'
rm -rf /var/lib/cni/results
gc 'GC, when libcni has lost its cache'
is "$(ours)" '0 0' '... takes away what flatnet made'
# The others have no GC.
nft flush ruleset
ip -j link show type ifb | jq -r '.[].ifname' | xargs -rn 1 ip link del
tool add b
tool_ok 'ADD of a chain'
tool gc b
tool_ok 'GC'
is "$(ours) $(ip -j link show type ifb | jq length) $(iptables -S CNI-FORWARD | grep -c /32)" '0 0 0 0' '... takes away what any of them made'
nft flush ruleset

# ---- sbr: a second network, with a table of its own ---------------------------------------------------

second() { # JQ: the plugin behind flatnet
	jq -n "{cniVersion: \"1.1.0\", name: \"second\", plugins: [
		{type: \"flatnet\", bridge: \"second0\", ipam: {subnet: \"10.245.0.0/24\"}}, $1]}" \
		>"$NETCONFPATH/20-second.conflist"
}
packets() { # HOSTVETH: what came out of the pod by it
	cat "/sys/class/net/$1/statistics/rx_packets"
}
second '{type: "sbr"}'
tool add b second net1 # the bridge and the rules of the network stay
tool del b second net1
list 1.1.0 "$firewall"
tool add a
tool_ok 'ADD of the first network'
first_veth=$(jq -r '.interfaces[1].name' <<<"$out")
before=$(state)
inside() { # the pod's rules and routes
	pod_exec - a sh -c 'ip rule; ip route show table main; ip route show table 100 2>/dev/null || :'
}
inside_before=$(inside)
for sbr in '{type: "sbr"}' '{type: "sbr", table: 100}'; do
	second "$sbr"
	if [[ $sbr == *table* ]]; then
		jq '.plugins[0].ipam.routes = [{dst: "0.0.0.0/0", table: 100}] | .plugins[0].isDefaultGateway = false' \
			"$NETCONFPATH/20-second.conflist" >/run/conf
		mv /run/conf "$NETCONFPATH/20-second.conflist"
	fi
	tool add a second net1
	tool_ok "ADD of the second network, with $sbr"
	second_veth=$(jq -r '.interfaces[1].name' <<<"$out")
	n1=$(pod_ip - a net1)
	is "$(pod_exec - a ip -j route get 192.0.2.9 from "$n1" | jq -r '.[0] | "\(.dev) \(.gateway) \(.table // "")"')" \
		'net1 10.245.0.1 100' '... its address goes by its own table'
	is "$(pod_exec - a ip -j route get 192.0.2.9 | jq -r '.[0].dev')" eth0 '... all else by the first network'
	was=$(packets "$second_veth") was_first=$(packets "$first_veth")
	for _ in 1 2 3 4 5; do
		on out ping -n -q -c 1 -W 1 "$n1" >/dev/null 2>&1 || :
	done
	cmp_ok $(($(packets "$second_veth") - was)) -ge 5 '... what comes in by it is answered by it'
	cmp_ok $(($(packets "$first_veth") - was_first)) -lt 5 '... and by nothing else'
	tool check a second net1
	tool_ok '... CHECK knows where its routes are'
	tool check a
	tool_ok '... so does that of the first network'
	tool del a second net1
	tool_ok '... DEL'
	is "$(inside)" "$inside_before" '... leaves neither rule nor route'
	is "$(state)" "$before" '... nor anything on the node'
done

done_testing
