#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Which entry of the list of nodes is this host, and what is wrong with a list.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"

make_cluster 2

# gives CONF WANT NAME: the first pod on n1 gets an address that starts with WANT
pods=0
gives() {
	local pod=p$((++pods))
	make_pod n1 "$pod"
	NODE=n1 cni ADD "$pod" "ctr-$pod" eth0 <<<"$1"
	if ((cni_rc == 0)); then
		like "$(pod_ip n1 "$pod")" "^$2" "$3"
	else
		cni_ok "$3"
	fi
	NODE=n1 cni DEL "$pod" "ctr-$pod" eth0 <<<"$1"
	del_pod n1 "$pod"
	on n1 ip link del cni0 2>/dev/null || :
}

conf=$(cluster_conf)
gives "$conf" '10\.244\.1\.' 'a node is found by its address'
is "$(our_routes n1)" $'10.244.2.0/24 192.0.2.2\n10.244.3.0/24 192.0.2.3' 'the others are the others'

gives "$(cluster_conf '.nodeName = "n2"')" '10\.244\.2\.' 'nodeName goes before the address'
export NODE_NAME=n3
gives "$conf" '10\.244\.3\.' 'NODE_NAME goes before the address'
gives "$(cluster_conf '.nodeName = "n2"')" '10\.244\.2\.' 'nodeName goes before NODE_NAME'
NODE_NAME=somebody
gives "$conf" '10\.244\.1\.' 'a NODE_NAME that is not in the list is no obstacle'
unset NODE_NAME
name=$(uname -n)
gives "$(cluster_conf ".nodes[1].name = \"$name\"")" '10\.244\.2\.' 'the host name goes before the address'

on n1 tee /run/nodes.json <<<"$(node_list 4)" >/dev/null
gives "$(cluster_conf 'del(.nodes)' '.nodesFile = "/run/nodes.json"')" '10\.244\.1\.' \
	'a list in a file does the same'

# An address on another link of the host is this host's, too.
on n1 ip address add 198.51.100.7/32 dev lo
gives "$(cluster_conf '.nodes[2].address = "198.51.100.7" | del(.nodes[0])')" '10\.244\.3\.' \
	'an address on lo counts, and may be a single string'
on n1 ip address del 198.51.100.7/32 dev lo

# refused CODE REGEX NAME CONF: ADD and STATUS say so, and ADD leaves nothing
refused() {
	make_pod n1 bad
	on n1 ip route flush proto 241
	NODE=n1 cni ADD bad ctr-bad eth0 <<<"$4"
	cni_fails "$1" "$2" "$3"
	is "$(on n1 ip -br link show | grep -c -e cni0 -e veth)$(our_routes n1)" 0 '... and nothing is left'
	((cni_rc == 0)) || {
		NODE=n1 cni STATUS - - - <<<"$4"
		[[ $1 != 7 ]] || cni_fails 7 "$2" '... and STATUS says the same'
		[[ $1 == 7 ]] || cni_fails 50 "$2" '... and STATUS says: not ready'
	}
	NODE=n1 cni DEL bad ctr-bad eth0 <<<"$4"
	cni_ok '... and DEL has nothing against it'
	del_pod n1 bad
}
refused 7 'none of the 2 entries is this host' 'a list without this host is refused' \
	"$(cluster_conf 'del(.nodes[0])')"
refused 7 'nodeName: "n9" is not in the list' 'a nodeName without entry is refused' \
	"$(cluster_conf '.nodeName = "n9"')"
refused 7 'list is empty' 'an empty list is refused' "$(cluster_conf '.nodes = []')"
refused 7 'nodes and nodesFile' 'a list and a file are one too many' \
	"$(cluster_conf '.nodesFile = "/run/nodes.json"')"
refused 7 "overlap: 10\.244\.2\.0/24 of node 'n2' and 10\.244\.2\.128/25 of node 'n3'" \
	'overlapping subnets of two nodes are refused, with both names' \
	"$(cluster_conf '.nodes[2].podCIDRs = ["10.244.2.128/25"]')"
refused 7 "overlap: 10\.244\.2\.0/24 of node 'n2' and 10\.244\.2\.0/24 of node 'n3'" 'equal ones, too' \
	"$(cluster_conf '.nodes[2].podCIDRs = ["10.244.2.0/24"]')"
refused 7 "10\.244\.2\.0/25 overlaps 10\.244\.2\.0/24, the subnet of node 'n2'" \
	'an ipam.subnet that overlaps another node is refused' \
	"$(cluster_conf '.ipam.subnet = "10.244.2.0/25"')"
refused 7 'host bits set: the subnet is 10\.244\.2\.0/24' 'a subnet with host bits is refused' \
	"$(cluster_conf '.nodes[1].podCIDRs = ["10.244.2.1/24"]')"
refused 7 "clusterCIDR: does not contain 10\.99\.3\.0/24, a pod subnet of node 'n3'" \
	'a node outside of the clusterCIDR is refused' \
	"$(cluster_conf '.clusterCIDR = "10.244.0.0/16" | .nodes[2].podCIDRs = ["10.99.3.0/24"]')"
refused 7 'clusterCIDR: has host bits set: the network is 10\.244\.0\.0/16' \
	'and so is a clusterCIDR with host bits' "$(cluster_conf '.clusterCIDR = "10.244.1.0/16"')"
refused 7 "fd00:1::/64 cannot be reached: node 'n2' has no address of its family" \
	'a subnet needs an address of its family' \
	"$(cluster_conf '.nodes[1].podCIDRs += ["fd00:1::/64"]')"
refused 7 'nodes\[1\]\.address' 'an address that is none is refused' \
	"$(cluster_conf '.nodes[1].address = "192.0.2"')"
refused 7 'nodes\[1\]\.podCIDRs' 'a node needs subnets' "$(cluster_conf 'del(.nodes[1].podCIDRs)')"
refused 7 'nodes\[1\]\.address.*two of one family' 'one address of a family is enough' \
	"$(cluster_conf '.nodes[1].address = ["192.0.2.2", "192.0.2.22"]')"
refused 7 'nodesFile.*absolute' 'nodesFile is an absolute path' \
	"$(cluster_conf 'del(.nodes)' '.nodesFile = "nodes.json"')"
refused 11 'nodesFile .*/nowhere\.json' 'a nodesFile that is not there yet: try later' \
	"$(cluster_conf 'del(.nodes)' '.nodesFile = "/run/nowhere.json"')"

on n1 tee /run/broken.json <<<'[{"name": "n1"' >/dev/null
refused 6 'nodesFile .*/broken\.json' 'a broken nodesFile is named' \
	"$(cluster_conf 'del(.nodes)' '.nodesFile = "/run/broken.json"')"
on n1 tee /run/broken.json <<<'[{"name": "n1", "address": "192.0.2.1", "podCIDRs": "10.244.1.0/24", "podCIDRs": 7}]' >/dev/null
refused 7 'nodesFile .*/broken\.json.*nodes\[0\]\.podCIDRs' '... and where the fault is' \
	"$(cluster_conf 'del(.nodes)' '.nodesFile = "/run/broken.json"')"

done_testing
