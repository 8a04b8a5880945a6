#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# flatnetctl nodes and routes: by a list of nodes, and by what the agent remembers; direct and VXLAN.
# Each thing that a route or a tunnel needs is taken away once.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/ctl.sh"

make_cluster 3
conf=$(cluster_conf)
on n1 mkdir -p /run/net.d
ctl_json nodes
ctl_exits 0 'nobody tells of nodes'
json "$ctl_out" '.nodes == [] and .source == null' '... so there are none'
ctl nodes
like "$ctl_out" 'nobody tells of nodes' '... and that is said'
ctl_json routes
ctl_exits 0 'nor are there routes'

conf_file n1 "$conf"
ctl_json nodes
ctl_exits 0 'before the first pod no route is due'
json "$ctl_out" '.source == "/run/net.d/10-pods.conflist" and [.nodes[].state] ==
	["this node", "no route before the first pod", "no route before the first pod"]' '... and nodes are known'
ctl_json routes
json "$ctl_out" '[.routes[] | .destination, .node, .state] ==
	["10.244.2.0/24", "n2", "comes with the first pod", "10.244.3.0/24", "n3", "comes with the first pod"]' \
	'routes that come with it'

add_pod n1 a "$conf"
ctl_json nodes
ctl_exits 0 'all nodes are up'
json "$ctl_out" '[.nodes[] | .name, .state] == ["n1", "this node", "n2", "up", "n3", "up"]' 'in order'
json "$ctl_out" '.nodes[1] | .addresses == ["192.0.2.2"] and .podCIDRs == ["10.244.2.0/24"] and .path == "direct" and
	.link == "eth0" and .rttMs > 0 and .rttMs < 900' 'and how they are reached'
ctl_json routes
ctl_exits 0 'all routes are there'
json "$ctl_out" '.routes == [
	{destination: "10.244.2.0/24", via: "192.0.2.2", link: "eth0", path: "direct", node: "n2", state: "ok"},
	{destination: "10.244.3.0/24", via: "192.0.2.3", link: "eth0", path: "direct", node: "n3", state: "ok"}]' \
	'as the kernel has them'
ctl nodes
like "$ctl_out" 'n2 +192\.0\.2\.2 +10\.244\.2\.0/24 +direct +eth0 +[0-9.]+ +up' 'for people'

# n1 is found by its address, too
on n1 "$FLAT_BIN/flatnetctl" nodes --json --conf-dir /run/net.d --node nobody >/run/tmp/by-address
json "$(</run/tmp/by-address)" '.nodes[0].state == "this node"' 'this node is found by its address'

on n2 ip link set eth0 down
ctl_json nodes
ctl_exits 1 'a node that does not answer'
json "$ctl_out" '[.nodes[].state] == ["this node", "no answer", "up"]' '... is told from one that does'
ok '... with a cure' problem "node 'n2': 192.0.2.2 does not answer"
ctl_json nodes --no-ping
ctl_exits 0 'not asked, it is not missed'
json "$ctl_out" '[.nodes[].state] == ["this node", "reachable", "reachable"]' '... and nothing is claimed'
on n2 ip link set eth0 up

on n1 ip route del 10.244.2.0/24
on n1 ip route replace 10.244.3.0/24 via 192.0.2.2 proto 241
on n1 ip route add 10.244.9.0/24 via 192.0.2.2 proto 241
ctl_json nodes --no-ping
ctl_exits 1 'routes that are wrong'
ok 'one is missing' problem "node 'n2': there is no route to 10.244.2.0/24"
ok 'one leads elsewhere' problem "node 'n3': the route to 10.244.3.0/24 leads to 192.0.2.2"
while read -r command; do
	shown n1 "$command"
done < <(jq -r '.problems[].evidence' <<<"$ctl_out")
ctl_json routes
ctl_exits 1 'routes says so'
json "$ctl_out" '[.routes[] | .destination, .state] == ["10.244.3.0/24", "the route to 10.244.3.0/24 leads to 192.0.2.2",
	"10.244.9.0/24", "no node has this subnet", "10.244.2.0/24", "missing"]' 'of each'

# ---- the agent's memory, VXLAN

list=$(node_list 4)
on n3 mkdir -p /run/net.d /run/state
NODE=n3
if [[ -x $FLAT_BIN/flatnetd ]]; then
	. "${0%/*}/../lib/agent.sh"
	tell_nodes "$list" n3
	start_agent n3 "$(agent_conf n3 '.backend = "vxlan"')"
	wait_for 5 on n3 test -s /run/state/state.json || :
	wait_for 5 on n3 bash -c 'ip route show 10.244.1.0/24 | grep -q flatnet' || :
	ctl_json nodes --state-file /run/state/state.json --no-ping
	ctl_exits 0 'what the agent remembers'
	json "$ctl_out" '[.nodes[] | .name, .state, .path] ==
		["n1", "reachable", "vxlan", "n2", "reachable", "vxlan", "n3", "this node", null]' 'all by VXLAN'
	ctl_json routes --state-file /run/state/state.json
	json "$ctl_out" '.routes | length == 2 and all(.[]; .path == "vxlan" and .link == "flatnet.1" and .state == "ok")' \
		'routes into the tunnel'
	stop_agent n3 KILL
	mac=$(on n3 ip -j neigh show dev flatnet.1 | jq -r '.[] | select(.dst == "10.244.1.0").lladdr')
	on n3 bridge fdb del "$mac" dev flatnet.1 dst 192.0.2.1
	on n3 ip neigh del 10.244.2.0 dev flatnet.1
	ctl_json nodes --state-file /run/state/state.json --no-ping
	ctl_exits 1 'a tunnel that lacks something'
	ok 'a forwarding entry' problem "node 'n1': flatnet.1 has no forwarding entry"
	ok 'a neighbour' problem "node 'n2': flatnet.1 has no neighbour entry for 10.244.2.0"
	while read -r command; do
		shown n3 "$command"
	done < <(jq -r '.problems[].evidence' <<<"$ctl_out")
else
	skip 'VXLAN' 'flatnetd was not built'
fi

# A file of nodes; who is wrong in it is told, and disturbs nobody.
jq -c '. + [{name: "n4", podCIDRs: ["10.244.4.0/33"], address: "192.0.2.4"}]' <<<"$list" |
	on n3 bash -c 'cat >/run/list.json'
ctl_json nodes --nodes-file /run/list.json --no-ping
json "$ctl_out" '.nodes | length == 4' 'a file of nodes'
ok 'with a fault' problem "node 'n4': nodes\\[3\\].podCIDRs"
ctl nodes --nodes-file /run/nothing.json
ctl_exits 3 'a file that is not there'
done_testing
