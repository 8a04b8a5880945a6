#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Every pod reaches every pod, as itself, by each backend: directly, by VXLAN, and by either where a
# router stands between two segments. IPv4, IPv6, and both.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/agent.sh"

both='.clusterCIDR = ["10.244.0.0/16", "fd00:10:244::/48"]'

start_all() { # JQ...
	local node
	for node in n1 n2 n3; do
		start_agent "$node" "$(agent_conf "$node" "$@")"
	done
	for node in n1 n2 n3; do
		wait_for 5 says "$node" 'this node is ready' || diag "$node: $(agent_log "$node")"
	done
}
stop_all() {
	local node
	for node in n1 n2 n3; do
		stop_agent "$node"
	done
}
# all_reach NAME FAMILIES: each pod pings each other one, and has the address of the pod there.
all_reach() {
	local from to address lost=''
	for from in n1 n2 n3; do
		for to in n1 n2 n3; do
			[[ $2 != *4* ]] || can_ping "$from" a "$(pod_ip "$to" a)" || lost+=" $from>$to"
			[[ $2 != *6* ]] || can_ping "$from" a "$(pod_ip6 "$to" a)" || lost+=" $from>$to(6)"
		done
	done
	for from in n1 n2; do
		address=$(pod_ip "$from" a)
		[[ $2 == *4* ]] || address=$(pod_ip6 "$from" a)
		[[ $(ask "$from" a tcp "$([[ $2 == *4* ]] && pod_ip n3 a || pod_ip6 n3 a)" 80) == "n3 $address" ]] ||
			lost+=" $from is not itself"
	done
	is "$lost" '' "$1"
}
pods() {
	local node
	for node in n1 n2 n3; do
		agent_pod "$node" a
	done
	serve n3 a n3 80
}
no_pods() {
	local node
	for node in n1 n2 n3; do
		remove_pod "$node" a "$agent_plugin_conf"
		on "$node" ip link del cni0
	done
}
mtu() {
	pod_exec "$1" a ip -j link show eth0 | jq '.[0].mtu'
}
# sniff WIRE FILTER NODE ADDRESS: what the wire carries while the pod there pings, one line a packet;
# waits for the answer to come by
sniff() {
	local wire=$1 filter=$2 file=$TMPDIR/sniffed pid
	rm -f "$file.err" # the last one said that it listens, too
	nsenter -t "${node_pid[$wire]}" -m -n -- timeout 20 tcpdump --immediate-mode -n -l -T vxlan -i wire "$filter" >"$file" 2>"$file.err" &
	pid=$!
	wait_for 5 grep -q listening "$file.err"
	can_ping "$3" a "$4" || diag "$4 does not answer $3"
	wait_for 3 grep -q 'echo reply' "$file" || diag "$(<"$file.err")"
	kill "$pid" 2>/dev/null || :
	wait "$pid" 2>/dev/null || :
	cat "$file"
}

make_cluster 3

# One segment.
tell_nodes "$(node_list 46)" n1 n2 n3
start_all "$both" '.backend = "direct"'
pods
all_reach 'direct, dual stack: all pods reach each other' 46
is "$(our_routes n1)" $'10.244.2.0/24 192.0.2.2\n10.244.3.0/24 192.0.2.3' '... by the addresses of the nodes'
is "$(on n1 ip -o link show type vxlan)" '' '... without a tunnel'
is "$(mtu n1)" 1500 "... with the underlay's MTU"
stop_all
no_pods

start_all "$both"
pods
all_reach 'auto on one segment' 46
is "$(on n1 ip -o link show type vxlan)" '' '... is direct'
stop_all

start_all "$both" '.backend = "vxlan"'
all_reach 'vxlan, dual stack, with the pods that were there' 46
is "$(mtu n1) $(mtu n2)" '1430 1430' '... and their MTU, that is less now' # auto: 1500 - 70
ip2=$(pod_ip n2 a)
seen=$(sniff lan 'udp port 8472' n1 "$ip2")
like "$seen" 'IP 192\.0\.2\.1\.[0-9]+ > 192\.0\.2\.2\.8472: .*VXLAN.*vni 1' 'the wire carries VXLAN: UDP 8472, VNI 1'
like "$seen" "$(pod_ip n1 a) > $ip2: ICMP echo request" '... and in it the pods'"'"' own addresses'
seen=$(sniff lan 'udp port 8472' n1 "$(pod_ip6 n2 a)")
like "$seen" 'IP6 2001:db8::1\.[0-9]+ > 2001:db8::2\.8472: .*VXLAN.*vni 1' '... over IPv6 for IPv6'
is "$(our_routes n1)" $'10.244.2.0/24 10.244.2.0\n10.244.3.0/24 10.244.3.0' "flannel's scheme of routes"
is "$(on n1 ip -j link show flatnet.1 | jq -r '.[0].address')" 0a:58:0a:f4:01:00 "the tunnel's MAC derives from the subnet"
stop_all
no_pods
start_all "$both" '.backend = "direct"'
is "$(on n1 ip -o link show type vxlan)" '' 'back to direct, the tunnels go'
stop_all

# IPv6 alone.
tell_nodes "$(node_list 6)" n1 n2 n3
start_all '.clusterCIDR = ["fd00:10:244::/48"]' '.backend = "vxlan"'
pods
all_reach 'IPv6 alone, vxlan' 6
is "$(on n1 ip -o link show flatnet.1 2>/dev/null || :)" '' '... without a tunnel over IPv4'
stop_all
no_pods
start_all '.clusterCIDR = ["fd00:10:244::/48"]' '.backend = "direct"'
pods
all_reach 'IPv6 alone, direct' 6
stop_all
no_pods

# One family carries both.
tell_nodes "$(node_list 46 | jq -c '.[].address |= .[1:]')" n1 n2 n3
start_all "$both" '.backend = "vxlan"'
pods
all_reach 'IPv4 and IPv6 pods over an IPv6 underlay' 46
like "$(on n1 ip route show 10.244.2.0/24)" 'dev flatnet6\.1 ' '... by its tunnel'
seen=$(sniff lan 'udp port 8472' n1 "$(pod_ip n2 a)")
like "$seen" 'IP6 2001:db8::1\.[0-9]+ > 2001:db8::2\.8472: .*VXLAN' '... as the wire shows'
like "$seen" "$(pod_ip n1 a) > $(pod_ip n2 a): ICMP echo request" '... with IPv4 in it'
stop_all
no_pods
tell_nodes "$(node_list 46 | jq -c '.[].address |= .[:1]')" n1 n2 n3
start_all "$both" '.backend = "vxlan"'
pods
all_reach 'IPv4 and IPv6 pods over an IPv4 underlay' 46
like "$(on n1 ip -6 route show fd00:10:244:2::/64)" 'dev flatnet\.1 ' '... by its tunnel'
seen=$(sniff lan 'udp port 8472' n1 "$(pod_ip6 n2 a)")
like "$seen" 'IP 192\.0\.2\.1\.[0-9]+ > 192\.0\.2\.2\.8472: .*VXLAN' '... as the wire shows'
stop_all
no_pods

# Two segments, a router between: n3 moves behind it.
make_wire far
make_node router lan 192.0.2.254/24
on far ip link add router type veth peer name eth1 netns "${node_pid[router]}"
on far ip link set router master wire up
on router ip address add 198.51.100.254/24 dev eth1
on router ip link set eth1 up
on router sysctl -q -w net.ipv4.ip_forward=1
kill_node n3
make_node n3 far 198.51.100.3/24
on n3 ip route add default via 198.51.100.254
for node in n1 n2; do
	on "$node" ip route add 198.51.100.0/24 via 192.0.2.254
done
list=$(node_list 4 | jq -c '.[2].address = ["198.51.100.3"]')
tell_nodes "$list" n1 n2 n3
start_all
pods
all_reach 'auto on two segments: all pods reach each other' 4
is "$(our_routes n1)" $'10.244.2.0/24 192.0.2.2\n10.244.3.0/24 10.244.3.0' '... directly on one, by VXLAN to the other'
is "$(mtu n1)" 1450 '... with room for VXLAN'
seen=$(sniff far 'udp port 8472' n1 "$(pod_ip n3 a)")
like "$seen" '192\.0\.2\.1\.[0-9]+ > 198\.51\.100\.3\.8472: .*VXLAN' '... as the far wire shows'
stop_all
no_pods

# The same with both families, each over its own.
on router ip address add 2001:db8::fe/64 dev eth0 nodad
on router ip address add 2001:db8:f::fe/64 dev eth1 nodad
on router sysctl -q -w net.ipv6.conf.all.forwarding=1
on n3 ip address add 2001:db8:f::3/64 dev eth0 nodad
on n3 ip -6 route add default via 2001:db8:f::fe
for node in n1 n2; do
	on "$node" ip -6 route add 2001:db8:f::/64 via 2001:db8::fe
done
settle router n3
tell_nodes "$(node_list 46 | jq -c '.[2].address = ["198.51.100.3", "2001:db8:f::3"]')" n1 n2 n3
start_all "$both"
pods
all_reach 'auto on two segments, dual stack' 46
is "$(our_routes n1 -6)" $'fd00:10:244:2::/64 2001:db8::2\nfd00:10:244:3::/64 fd00:10:244:3::' \
	'... IPv6 directly on one, by VXLAN to the other'
seen=$(sniff far 'udp port 8472' n1 "$(pod_ip6 n3 a)")
like "$seen" 'IP6 2001:db8::1\.[0-9]+ > 2001:db8:f::3\.8472: .*VXLAN' '... as the far wire shows'
stop_all
tell_nodes "$list" n1
start_agent n1 "$(agent_conf n1 '.backend = "direct"')"
ok 'direct alone cannot: that node waits, and the log says why' \
	wait_for 3 says n1 'node waits.*node=n3.*in no network.*vxlan or auto'
stop_agent n1

done_testing
