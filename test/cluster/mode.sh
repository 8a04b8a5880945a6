#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The two ways between pods of one node, bridgeMode "routed" and "l2": which way a packet takes, what a
# Service with an endpoint on the caller's own bridge does with bridge-nf-call-iptables 1 and 0, and
# that multicast reaches the neighbours in either.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"

group4=239.1.2.3 group6=ff15::1:2:3

# hops NODE POD ADDRESS: how many routers an answer came through
hops() {
	local ttl
	ttl=$(pod_exec "$1" "$2" ping -n -c 1 -W 1 "$3" | sed -n 's/.* ttl=\([0-9]*\) .*/\1/p')
	echo $((64 - ttl))
}
# listen POD: writes what it is told by multicast, in each family, to a file of that name
listen() {
	local i
	pod_exec n1 "$1" setsid timeout 20 socat -u "UDP4-RECV:5004,reuseaddr,ip-add-membership=$group4:$(pod_ip n1 "$1")" \
		STDOUT </dev/null >"$TMPDIR/$1.4" 2>/dev/null &
	disown
	pod_exec n1 "$1" setsid timeout 20 socat -u "UDP6-RECV:5006,reuseaddr,ipv6-join-group=[$group6]:eth0" \
		STDOUT </dev/null >"$TMPDIR/$1.6" 2>/dev/null &
	disown
	for ((i = 0; i < 250; i++)); do
		(($(pod_exec n1 "$1" ss -Hlun 'sport = :5004 or sport = :5006' | wc -l) < 2)) || return 0
		sleep 0.02
	done
}
# tell POD: says its name to both groups until both neighbours have heard it, for at most 5 s
tell() {
	local i
	for ((i = 0; i < 50; i++)); do
		pod_exec n1 "$1" bash -c "echo $1 | socat -u - UDP4-DATAGRAM:$group4:5004,ip-multicast-if=$2" || :
		pod_exec n1 "$1" bash -c "echo $1 | socat -u - 'UDP6-DATAGRAM:[$group6]:5006'" || :
		sleep 0.1
		! heard "$1" b c || return 0
	done
}
heard() {
	local name=$1 pod
	shift
	for pod; do
		grep -qx "$name" "$TMPDIR/$pod.4" && grep -qx "$name" "$TMPDIR/$pod.6" || return 1
	done 2>/dev/null
}

make_cluster 2
both='.nodes |= (.[:2] | [.[] | .podCIDRs += ["fd00:10:244:\(.name[1:])::/64"] | .address = ["192.0.2.\(.name[1:])",
	"2001:db8::\(.name[1:])"]]) | .clusterCIDR = ["10.244.0.0/16", "fd00:10:244::/48"]'

for mode in routed l2; do
	conf=$(cluster_conf "$both" ".bridgeMode = \"$mode\"")
	for pod in a b c; do
		add_pod n1 $pod "$conf"
	done
	add_pod n2 far "$conf"
	serve n1 a a 8080
	for node in n1 n2; do # a Service with one endpoint, as kube-proxy writes it
		on "$node" iptables -t nat -F PREROUTING
		on "$node" iptables -t nat -A PREROUTING -d 10.96.0.80/32 -p tcp --dport 80 -j DNAT \
			--to-destination "$(pod_ip n1 a):8080"
	done

	[[ $mode == routed ]] && between=1 || between=0
	is "$(hops n1 b "$(pod_ip n1 a)") $(hops n1 b "$(pod_ip6 n1 a)")" "$between $between" \
		"$mode: neighbours are $between routers apart, IPv4 and IPv6"
	is "$(hops n2 far "$(pod_ip n1 a)") $(hops n2 far "$(pod_ip6 n1 a)")" '2 2' '... pods of two nodes 2'
	is "$(ask n1 b tcp "$(pod_ip n1 a)" 8080)" "a $(pod_ip n1 b)" '... and a neighbour is seen as itself'

	for nf in 1 0; do
		if ! bridge_nf $nf; then
			skip_kernel "bridge-nf-call-iptables $nf" 'no br_netfilter'
			((nf == 0)) || continue
		fi
		want="a $(pod_ip n1 b)"
		[[ $mode$nf != l20 ]] || want=silence # its reply does not pass the node
		is "$(ask n1 b tcp 10.96.0.80 80 || echo silence)" "$want" \
			"$mode, bridge-nf $nf: a Service with an endpoint on the caller's bridge"
		is "$(ask n2 far tcp 10.96.0.80 80 || echo silence)" "a $(pod_ip n2 far)" '... and from another node'
	done

	for pod in b c; do
		listen $pod
	done
	tell a "$(pod_ip n1 a)"
	ok "$mode: multicast reaches the neighbours, IPv4 and IPv6" heard a b c
	for pod in a b c; do
		remove_pod n1 $pod "$conf"
		rm -f "$TMPDIR/$pod."?
	done
	remove_pod n2 far "$conf"
done

done_testing
