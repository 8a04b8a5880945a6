#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The same for IPv6: a cluster of IPv6 alone, and one of both.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"

make_cluster 3

# first_packets CONF NAME IP_FUNCTION...: loss right after ADD, 20 pods
first_packets() {
	local conf=$1 name=$2 i to function lost=''
	shift 2
	add_pod n2 target "$conf"
	for ((i = 1; i <= 20; i++)); do
		make_pod n1 "p$i"
		NODE=n1 cni ADD "p$i" "ctr-p$i" eth0 <<<"$conf"
		for function; do
			to=$("$function" n2 target)
			((i % 4)) || to=$("$function" n1 "p$((i - 1))")
			no_loss n1 "p$i" "$to" >/dev/null || lost+=" $i>$to"
		done
	done
	is "$lost" '' "$name: the first packet after each of 20 ADDs is answered"
	lost=''
	for ((i = 1; i <= 20; i++)); do
		make_pod n3 "q$i"
		NODE=n3 cni ADD "q$i" "ctr-q$i" eth0 <<<"$conf"
		for to in $(jq -r '.ips[].address | split("/")[0]' <<<"$cni_out"); do
			no_loss n2 target "$to" >/dev/null || lost+=" $i>$to"
		done
	done
	is "$lost" '' "$name: and so is the first packet to each of 20 new pods"
	for ((i = 1; i <= 20; i++)); do
		remove_pod n1 "p$i" "$conf"
		remove_pod n3 "q$i" "$conf"
	done
	remove_pod n2 target "$conf"
}

six=$(cluster_conf '.ipMasq = true' '.clusterCIDR = "fd00:10:244::/48"' ".nodes = $(node_list 6)")
first_packets "$six" 'IPv6 alone' pod_ip6
for node in n1 n2 n3; do
	for pod in a b; do
		add_pod "$node" "$node-$pod" "$six"
		serve "$node" "$node-$pod" "$node-$pod" 8080
	done
done
json "$cni_out" '[.ips[] | .address] | length == 1 and (.[0] | test("^fd00:10:244:3::[0-9a-f]+/64$"))' \
	'one address, of the right subnet'
json "$cni_out" '.ips[0].gateway == "fd00:10:244:3::1" and (.routes == [{dst: "::/0", gw: "fd00:10:244:3::1"}])' \
	'its gateway is the node'
is "$(our_routes n1 -6)" $'fd00:10:244:2::/64 2001:db8::2\nfd00:10:244:3::/64 2001:db8::3' \
	'routes lead to the other nodes'
wrong=''
for from in n1-a n1-b n2-a n3-b; do
	for to in n1-a n2-a n2-b n3-a; do
		for proto in tcp udp; do
			answer=$(ask "${from%-*}" "$from" "$proto" "$(pod_ip6 "${to%-*}" "$to")" 8080) || answer='no answer'
			[[ $answer == "$to $(pod_ip6 "${from%-*}" "$from")" ]] || wrong+=" $from>$to/$proto: $answer;"
		done
	done
done
is "$wrong" '' 'pods reach each other as themselves, TCP and UDP'
is "$(pod_exec n1 n1-a ip -j -6 address show dev eth0 | jq '[.[].addr_info[]? | select(.tentative)] | length')" 0 \
	'no address is tentative'
is "$(on n1 ip -j -6 address show dev cni0 | jq '[.[].addr_info[]? | select(.tentative and .scope == "global")] | length')" 0 \
	"nor the bridge's"
serve out - out 80
is "$(ask n1 n1-a tcp 2001:db8::100 80)" 'out 2001:db8::1' 'the outside is reached as the node'
ok 'the largest packet passes' pod_exec n1 n1-a ping -n -q -c 1 -W 1 -M "do" -s 1452 "$(pod_ip6 n2 n2-a)"
NODE=n1 cni CHECK n1-a ctr-n1-a eth0 <<<"$(NODE=n1 with_prev "$six" "$(
	make_pod n1 again
	NODE=n1 cni ADD again ctr-again eth0 <<<"$six"
	echo "$cni_out"
)")"
cni_fails 103 '.' 'CHECK with the result of another pod finds a difference'
is "$(on n1 sysctl -n net.ipv4.ip_forward)" 0 'IPv4 is not forwarded for its sake'

# Without clusterCIDR, the nodes' subnets are the cluster.
bare=$(jq -c 'del(.clusterCIDR) | .name = "bare" | .bridge = "br1" |
	.nodes |= map(.podCIDRs |= map(sub("fd00:10:244"; "fd00:99:244")))' <<<"$six")
add_pod n1 bare1 "$bare"
add_pod n2 bare2 "$bare"
serve n2 bare2 bare2 8080
is "$(ask n1 bare1 tcp "$(pod_ip6 n2 bare2)" 8080)" "bare2 $(pod_ip6 n1 bare1)" \
	'without clusterCIDR, traffic between nodes is not masqueraded'

# Both families.
kill_node n1
kill_node n2
kill_node n3
kill_node out
cluster_nodes=()
make_cluster 3
dual=$(cluster_conf '.ipMasq = true' '.clusterCIDR = ["10.244.0.0/16", "fd00:10:244::/48"]' ".nodes = $(node_list 46)")
first_packets "$dual" 'dual stack' pod_ip pod_ip6
for node in n1 n2 n3; do
	add_pod "$node" "$node-a" "$dual"
	serve "$node" "$node-a" "$node-a" 8080
done
json "$cni_out" '[.ips[] | .address | sub("::?[0-9a-f]+/"; "/") | sub("[.][0-9]+/"; "/")] == ["10.244.3/24", "fd00:10:244:3/64"]' \
	'an address of each family'
is "$(our_routes n2)" $'10.244.1.0/24 192.0.2.1\n10.244.3.0/24 192.0.2.3' 'routes for IPv4'
is "$(our_routes n2 -6)" $'fd00:10:244:1::/64 2001:db8::1\nfd00:10:244:3::/64 2001:db8::3' 'routes for IPv6'
wrong=''
for from in n1 n2 n3; do
	for to in n1 n2 n3; do
		for function in pod_ip pod_ip6; do
			answer=$(ask "$from" "$from-a" tcp "$("$function" "$to" "$to-a")" 8080) || answer='no answer'
			[[ $answer == "$to-a $("$function" "$from" "$from-a")" ]] || wrong+=" $from>$to: $answer;"
		done
	done
done
is "$wrong" '' 'pods reach each other as themselves, in both families'
serve out - out 80
is "$(ask n2 n2-a tcp 192.0.2.100 80), $(ask n2 n2-a tcp 2001:db8::100 80)" 'out 192.0.2.2, out 2001:db8::2' \
	'and the outside as their node'
for node in n1 n2 n3; do
	on "$node" ip6tables -P FORWARD DROP
	on "$node" iptables -P FORWARD DROP
	add_pod "$node" "$node-late" "$dual"
done
ok 'FORWARD DROP does not cut them off, IPv6' no_loss n1 n1-late "$(pod_ip6 n2 n2-late)"
ok '... nor IPv4' no_loss n1 n1-late "$(pod_ip n2 n2-late)"

# One family leaves.
four=$(cluster_conf '.ipMasq = true' '.clusterCIDR = ["10.244.0.0/16", "fd00:10:244::/48"]')
make_pod n3 late4
NODE=n3 cni ADD late4 ctr-late4 eth0 <<<"$four"
cni_ok 'a list that has lost its IPv6 subnets'
is "$(our_routes n3 -6)" '' '... takes their routes along'
is "$(our_routes n3 | wc -l)" 2 '... and no others'

done_testing
