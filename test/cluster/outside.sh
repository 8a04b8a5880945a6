#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What leaves the flat network goes out as the node; what stays inside stays as it is. And a firewall
# that forwards nothing by default does not cut the pods off.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"

make_cluster 3
plain=$(cluster_conf)
conf=$(cluster_conf '.ipMasq = true')
serve out - out 80

add_pod n1 a "$plain"
a=$(pod_ip n1 a)
fails 'without ipMasq, a host that knows no way back does not answer' ask n1 a tcp 192.0.2.100 80
add_pod n1 b "$conf"
is "$(ask n1 b tcp 192.0.2.100 80)" 'out 192.0.2.1' 'with it, it answers, to the node: TCP'
is "$(ask n1 b udp 192.0.2.100 80)" 'out 192.0.2.1' '... UDP'
ok '... ICMP' no_loss n1 b 192.0.2.100
is "$(ask n1 a tcp 192.0.2.100 80)" 'out 192.0.2.1' 'it is the node that masquerades, for all its pods'

add_pod n2 c "$conf"
add_pod n3 c3 "$conf"
c=$(pod_ip n2 c)
serve n1 a a 80
serve n2 c c 80
is "$(ask n1 b tcp "$c" 80)" "c $(pod_ip n1 b)" 'between nodes a pod stays itself: TCP'
is "$(ask n1 b udp "$c" 80)" "c $(pod_ip n1 b)" '... UDP'
is "$(ask n1 b tcp "$a" 80)" "a $(pod_ip n1 b)" '... and on one node'
is "$(ask n2 c tcp 10.244.1.1 80 || echo refused)" refused '(nobody serves on the gateway)'

rules=$(on n1 nft -j list table inet flatnet)
masq=$(jq -c '[.nftables[].rule? // empty | select(any(.expr[]; has("masquerade")))]' <<<"$rules")
json "$masq" 'length == 1' 'one rule masquerades, whatever the number of pods'
json "$masq" '.[0].expr | [.[].match? // empty | select(.op == "!=").right.prefix | "\(.addr)/\(.len)"] | sort == ["10.244.0.0/16", "224.0.0.0/4"]' \
	'... neither what goes into the cluster nor multicast'
json "$masq" '.[0].expr | any(.[]; .masquerade.flags? == "fully-random" or (.masquerade.flags? | arrays | index("fully-random")))' \
	'... with random ports'
like "$(on n1 nft list table inet flatnet)" 'mark.*0x0*4000.*return' "kube-proxy's mark is left to kube-proxy"

# Another node of the list with subnets outside of the default network: still inside, for us.
other=$(cluster_conf '.ipMasq = true' '.name = "other"' '.bridge = "br9"' \
	'.nodes |= map(.podCIDRs = [(.podCIDRs[0] | sub("10.244"; "10.99"))])')
add_pod n1 o1 "$other"
add_pod n2 o2 "$other"
serve n2 o2 o2 80
is "$(ask n1 o1 tcp "$(pod_ip n2 o2)" 80)" "o2 $(pod_ip n1 o1)" \
	'without clusterCIDR, subnets of the list are inside, wherever they are'
is "$(ask n1 o1 tcp 192.0.2.100 80)" 'out 192.0.2.1' '... and the rest is outside'
add_pod n1 o3 "$(jq -c '.clusterCIDR = "10.99.0.0/16"' <<<"$other")"
is "$(ask n1 o3 tcp "$(pod_ip n2 o2)" 80)" "o2 $(pod_ip n1 o3)" '... with clusterCIDR, too'

# The subnet is the IPAM's affair.
if [[ -n ${FLAT_REFERENCE:-} ]]; then
	foreign=$(flat_conf '.ipMasq = true' '.name = "foreign"' '.bridge = "br7"' \
		'.ipam = {type: "host-local", subnet: "10.97.0.0/24"}')
	add_pod n1 f1 "$foreign"
	add_pod n1 f2 "$foreign"
	serve n1 f1 f1 80
	is "$(ask n1 f2 tcp "$(pod_ip n1 f1)" 80)" "f1 $(pod_ip n1 f2)" \
		'with a foreign IPAM, neighbours are inside'
	is "$(ask n1 f2 tcp 192.0.2.100 80)" 'out 192.0.2.1' '... and the rest is outside'
else
	skip 'with a foreign IPAM' 'there is no host-local'
fi

# Nothing more is written for a second pod, and rules that were lost come back.
before=$(on n1 nft -a list ruleset)
add_pod n1 d "$conf"
is "$(on n1 nft -a list ruleset)" "$before" 'another pod adds no rule'
on n1 nft flush chain inet flatnet postrouting
fails '(without rules, no answer)' ask n1 d tcp 192.0.2.100 80
remove_pod n1 d "$conf"
add_pod n1 d "$conf"
is "$(ask n1 d tcp 192.0.2.100 80)" 'out 192.0.2.1' 'the next ADD restores lost rules'

# Somebody else's traffic that n3 forwards: from out to an address of n1.
on n1 ip address add 203.0.113.1/32 dev lo
on n3 ip route add 203.0.113.0/24 via 192.0.2.1
on out ip route add 203.0.113.0/24 via 192.0.2.3
ok '(n3 is a router for others, too)' on out ping -n -q -c 1 -W 1 203.0.113.1

# A policy of drop, as Docker, ufw and firewalld leave it.
for node in n1 n2 n3; do
	on "$node" iptables -P FORWARD DROP
	on "$node" ip6tables -P FORWARD DROP
done
make_pod n3 e
NODE=n3 cni ADD e ctr-e eth0 <<<"$conf"
cni_ok 'ADD where the policy of FORWARD is drop'
fails '(the policy drops: a node whose pods came before it)' no_loss n1 a "$(pod_ip n3 e)"
for node in n1 n2; do
	add_pod "$node" "after-$node" "$conf"
done
ok 'pods reach each other across nodes' no_loss n3 e "$c"
ok '... both ways' no_loss n1 a "$(pod_ip n3 e)"
ok '... and on one node' no_loss n1 a "$(pod_ip n1 after-n1)"
is "$(ask n3 e tcp "$c" 80)" "c $(pod_ip n3 e)" '... as themselves'
is "$(ask n3 e tcp 192.0.2.100 80)" 'out 192.0.2.3' '... and the outside'
is "$(on n3 iptables -S FORWARD | head -n 1)" '-P FORWARD DROP' 'the policy stays what it was'
fails 'what is not of the cluster is dropped as before' on out ping -n -q -c 1 -W 1 203.0.113.1
add_pod n3 f "$conf"
is "$(on n3 iptables -S FORWARD | wc -l)" 3 'and two rules accept the cluster, not more for more pods'

done_testing
