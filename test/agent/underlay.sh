#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The link to the other nodes flaps, gets another address, another MTU, another index; and which link
# it is in the first place.
# shellcheck disable=SC2016 # what eval gets is for it to expand
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/agent.sh"

make_cluster 3
list=$(node_list 4)
tell_nodes "$list" n1 n2 n3
mtu_of() { # LINK
	on n1 ip -j link show "$1" | jq '.[0].mtu'
}
pod_mtu() {
	pod_exec n1 a ip -j link show eth0 | jq '.[0].mtu'
}
port_mtu() {
	on n1 ip -j link show master cni0 | jq '.[0].mtu'
}
reached() {
	pod_exec n1 a ping -n -q -c 1 -W 0.2 "$ip2"
}

for backend in direct vxlan; do
	for node in n1 n2 n3; do
		start_agent "$node" "$(agent_conf "$node" ".backend = \"$backend\"")"
	done
	for node in n1 n2 n3; do
		wait_for 5 says "$node" 'this node is ready'
	done
	less=$([[ $backend == direct ]] && echo 0 || echo 50)
	if [[ $backend == direct ]]; then
		agent_pod n1 a
		agent_pod n2 a
		ip2=$(pod_ip n2 a)
		sleep 1
	fi
	ok "$backend: pods reach each other" wait_for 3 reached

	for round in 1 2 3; do
		forget_log n1
		on n1 ip link set eth0 down
		on n1 ip link set eth0 up
		if [[ $backend == direct ]]; then
			repaired n1 "$backend: the link flaps ($round)" 'kind=route.*cause="link eth0' \
				eval '[[ $(our_routes n1 | wc -l) == 2 ]]'
		fi
		ok "$backend: the link flaps ($round): pods reach each other again" wait_for 3 reached
	done
	forget_log n1
	on n1 ip link set eth0 down
	sleep 1
	on n1 ip link set eth0 up
	ok "$backend: the link is away for a second" wait_for 2 reached

	# The MTU, live pods included, but for one that has its own.
	if [[ $backend == direct ]]; then
		make_pod n1 own
		NODE=n1 cni ADD own ctr-own eth0 <<<"$(jq -c '.args.cni.mtu = 1280' <<<"$agent_plugin_conf")"
		cni_ok "$backend: a pod with an MTU of its own"
	fi
	for mtu in 1400 1300 1500; do
		forget_log n1
		on n1 ip link set eth0 mtu "$mtu"
		repaired n1 "$backend: the pod's MTU follows to $mtu" 'kind=mtu' \
			eval "[[ \$(pod_mtu) == $((mtu - less)) && \$(port_mtu) == $((mtu - less)) ]]"
		is "$(mtu_of cni0)" $((mtu - less)) '... and the bridge'
		is "$(pod_exec n1 own ip -j link show eth0 | jq '.[0].mtu')" 1280 '... but not the pod with its own'
		like "$(on n1 cat /run/flatnet/node.json)" "\"mtu\": $((mtu - less))" '... and what the next pod is told'
		if [[ $backend == vxlan ]]; then
			is "$(mtu_of flatnet.1)" $((mtu - less)) '... and the tunnel'
		fi
	done

	# Another address: the list tells the others.
	moved=$(jq -c '.[0].address = ["192.0.2.11"]' <<<"$list")
	on n1 ip address del 192.0.2.1/24 dev eth0
	on n1 ip address add 192.0.2.11/24 dev eth0
	tell_nodes "$moved" n1 n2 n3
	ok "$backend: another address" wait_for 2 reached
	if [[ $backend == vxlan ]]; then
		is "$(on n1 ip -j -d link show flatnet.1 | jq -r '.[0].linkinfo.info_data.local')" 192.0.2.11 \
			'... is what the tunnel sends from'
		ok '... and what the others send to' \
			wait_for 2 eval '[[ $(on n2 bridge fdb show dev flatnet.1) == *"dst 192.0.2.11 "* ]]'
	else
		ok '... is what the others send to' \
			wait_for 2 eval '[[ $(our_routes n2) == "10.244.1.0/24 192.0.2.11"* ]]'
	fi
	on n1 ip address del 192.0.2.11/24 dev eth0
	on n1 ip address add 192.0.2.1/24 dev eth0
	tell_nodes "$list" n1 n2 n3
	ok '... and back' wait_for 2 reached

	# Gone, and back under another index.
	forget_log n1
	on n1 ip link del eth0
	wait_for 2 says n1 'no underlay|not ready|not everything' || :
	on lan ip link add "n1" type veth peer name eth0 netns "${node_pid[n1]}"
	on lan ip link set n1 master wire up
	on n1 ip address add 192.0.2.1/24 dev eth0
	on n1 ip link set eth0 up
	ok "$backend: the link goes, and comes back as another" wait_for 3 reached
	for node in n1 n2 n3; do
		stop_agent "$node"
	done
done

# Which link.
make_wire side
on side ip link add n1 type veth peer name wan7 netns "${node_pid[n1]}"
on side ip link set n1 master wire up
on n1 ip address add 203.0.113.1/24 dev wan7
on n1 ip link set wan7 up
chosen() { # JQ...: "LINK ADDRESS"
	start_agent n1 "$(agent_conf n1 '.backend = "vxlan"' '.stateFile = ""' "$@")"
	wait_for 3 says n1 'the underlay is|there is no underlay' || :
	stop_agent n1
	agent_log n1 | sed -n 's/.*msg="the underlay is" link=\([^ ]*\) address=\([^ ]*\).*/\1 \2/p' | sort -u | tr '\n' ' '
}
is "$(chosen)" 'eth0 192.0.2.1 ' "without a word: the link of this node's address"
is "$(chosen '.underlay.interface = "wan7"')" 'wan7 203.0.113.1 ' 'by name'
is "$(chosen '.underlay.interfaceRegex = "^wan[0-9]$"')" 'wan7 203.0.113.1 ' 'by a regular expression on names'
is "$(chosen '.underlay.interfaceRegex = "^203\\."')" 'wan7 203.0.113.1 ' '... on addresses'
is "$(chosen '.underlay.cidrs = ["203.0.113.0/24"]')" 'wan7 203.0.113.1 ' 'by network'
is "$(chosen '.underlay.canReach = "203.0.113.77"')" 'wan7 203.0.113.1 ' 'by the way to an address'
on n1 ip route add default via 203.0.113.254
is "$(chosen)" 'eth0 192.0.2.1 ' "the default route does not outdo this node's address"
tell_nodes "$(jq -c '.[0].address = ["198.51.100.1"]' <<<"$list")" n1
is "$(chosen)" 'wan7 203.0.113.1 ' '... which decides when that is on no link (behind a translation)'
is "$(chosen '.underlay.interface = "nosuch0"')" '' 'a link that is not there is waited for'
like "$(agent_log n1)" "no underlay.*nosuch0" '... and named'

done_testing
