#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Nodes come, move, go and lie; agents start, stop, reload and die. The data path stays.
# shellcheck disable=SC2016 # what eval gets is for it to expand
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/agent.sh"

make_cluster 3
list=$(node_list 4)
routes() {
	our_routes n1 | tr '\n' ';'
}
routes_are() {
	[[ $(routes) == "$1" ]]
}
reached() {
	pod_exec n1 a ping -n -q -c 1 -W 0.2 "$ip2"
}

# What an earlier life left: of a cluster that was another one.
on n1 ip route add 10.244.9.0/24 via 192.0.2.3 proto 241
on n1 ip route add 10.244.2.0/24 via 192.0.2.3 proto 241
on n1 ip route add 10.99.0.0/16 via 192.0.2.3 proto 241
on n1 ip route add 10.244.8.0/24 via 192.0.2.3
on n1 ip link add flatnet.1 type vxlan id 1 dstport 8472 dev eth0

# Before anything is known nothing is touched.
start_agent n1 "$(agent_conf n1)"
sleep 0.3
is "$(routes)" '10.244.2.0/24 192.0.2.3;10.244.9.0/24 192.0.2.3;10.99.0.0/16 192.0.2.3;' \
	'without a list, what there is stays'
unlike "$(agent_log n1)" 'this node is ready' '... and the node is not ready'
is "$(on n1 cat /run/flatnet/node.json 2>/dev/null || :)" '' '... and tells no subnet'
NODE=n1 cni STATUS - - - <<<"$agent_plugin_conf"
cni_fails 50 'node\.json' '... nor is the plugin'
tell_nodes "$list" n1 n2 n3
ok 'with the list it is' wait_for 3 says n1 'this node is ready'
ok 'stale routes are gone' wait_for 1 routes_are '10.244.2.0/24 192.0.2.2;10.244.3.0/24 192.0.2.3;10.99.0.0/16 192.0.2.3;'
ok '... and said' says n1 'earlier life.*10\.244\.9\.0/24'
is "$(on n1 ip -o link show flatnet.1 2>/dev/null || :)" '' '... a tunnel without work, too'
isnt "$(on n1 ip route show 10.244.8.0/24)" '' "another program's route stays"
NODE=n1 cni STATUS - - - <<<"$agent_plugin_conf"
cni_ok 'STATUS of the plugin is content'
for node in n2 n3; do
	start_agent "$node" "$(agent_conf "$node")"
	wait_for 3 says "$node" 'this node is ready'
done
agent_pod n1 a
agent_pod n2 a
ip2=$(pod_ip n2 a)
ok 'pods reach each other' wait_for 2 reached

# One agent a node.
on n1 timeout 5 "$FLAT_BIN/flatnetd" --config /run/flatnetd.json >"$TMPDIR/second" 2>&1 && rc=0 || rc=$?
is "$rc" 3 'a second agent refuses'
like "$(<"$TMPDIR/second")" "process ${agent_pid[n1]}\)" '... and names the first'

# Nodes come, move, go.
n4='{"name": "n4", "address": "192.0.2.4", "podCIDRs": "10.244.4.0/24"}'
base='10.244.2.0/24 192.0.2.2;10.244.3.0/24 192.0.2.3;'
foreign='10.99.0.0/16 192.0.2.3;'
forget_log n1
tell_nodes "$(jq -c ". + [$n4]" <<<"$list")" n1
ok 'a node is added' wait_for 1 routes_are "${base}10.244.4.0/24 192.0.2.4;$foreign"
ok '... and said' says n1 'node accepted.*node=n4 podCIDRs=10\.244\.4\.0/24 address=192\.0\.2\.4'
tell_nodes "$(jq -c ". + [$n4 | .address = \"192.0.2.44\"]" <<<"$list")" n1
ok 'it gets another address' wait_for 1 routes_are "${base}10.244.4.0/24 192.0.2.44;$foreign"
ok '... and said' says n1 'node changed.*node=n4.*192\.0\.2\.44'
tell_nodes "$(jq -c ". + [$n4 | .podCIDRs = \"10.244.5.0/24\"]" <<<"$list")" n1
ok 'it gets another subnet' wait_for 1 routes_are "${base}10.244.5.0/24 192.0.2.4;$foreign"
tell_nodes "$list" n1
ok 'it goes' wait_for 1 routes_are "$base$foreign"
ok '... and said' says n1 'node gone.*node=n4'
unlike "$(agent_log n1)" 'repaired' 'none of that is a repair'

# Nodes that lie, or make no sense: each is refused by itself, and named.
forget_log n1
tell_nodes "$(jq -c '. + [
	{name: "all", address: "192.0.2.61", podCIDRs: "0.0.0.0/0"},
	{name: "elsewhere", address: "192.0.2.62", podCIDRs: "172.16.0.0/24"},
	{name: "us", address: "192.0.2.1", podCIDRs: "10.244.62.0/24"},
	{name: "home", address: "127.0.0.1", podCIDRs: "10.244.63.0/24"},
	{name: "a-thief", address: "192.0.2.64", podCIDRs: "10.244.2.0/24"},
	{name: "a-part", address: "192.0.2.65", podCIDRs: "10.244.3.128/25"},
	{name: "a-burglar", address: "192.0.2.66", podCIDRs: "10.244.1.0/24"},
	{name: "bits", address: "192.0.2.67", podCIDRs: "10.244.67.1/24"},
	{name: "n3", address: "192.0.2.68", podCIDRs: "10.244.68.0/24"},
	{name: "subnetless", address: "192.0.2.69"},
	{name: "nowhere", podCIDRs: "10.244.70.0/24"},
	{name: "huge", address: "192.0.2.71", podCIDRs: [range(200) | "10.244.71.\(.)/32"]},
	{name: ("long" * 200), address: "192.0.2.72", podCIDRs: "10.244.72.0/24"},
	{address: "192.0.2.73", podCIDRs: "10.244.73.0/24"}, 7]' <<<"$list")" n1
for liar in all elsewhere us home a-thief a-part a-burglar bits 'nodes\[11]' subnetless nowhere huge \
	'nodes\[15]' 'nodes\[16]' 'nodes\[17]'; do
	ok "node '$liar' is refused and named" wait_for 2 says n1 "node refused.*node=$liar .*reason="
done
ok '... once' eval '[[ $(agent_log n1 | grep -c "refused. node=us ") == 1 ]]'
is "$(metric n1 'flatnet_nodes{state="refused"}')" 15 '... and counted in the metrics'
unlike "$(agent_log n1)" 'node (gone|refused).*node=n[123] ' '... and no honest node with them'
is "$(routes)" "$base$foreign" '... and the others stay as they were'
ok '... and pods reach each other' reached
tell_nodes 'nonsense' n1
ok 'nonsense in place of the list is said' wait_for 2 says n1 'source is away.*'
is "$(routes)" "$base$foreign" '... and changes nothing'
tell_nodes "$list" n1
ok '... until it is right again' wait_for 2 says n1 'the source is there again'

# Ends.
settle n1
before=$(on n1 ip -o address; on n1 ip route; on n1 nft list ruleset)
stop_agent n1
is "$agent_rc" 0 'SIGTERM: it ends well'
is "$(on n1 ip -o address; on n1 ip route; on n1 nft list ruleset)" "$before" '... and leaves all that it made'
ok '... pods reach each other' reached
on n1 ip route del 10.244.3.0/24
on n1 ip route add 10.244.44.0/24 via 192.0.2.2 proto 241
start_agent n1 "$(agent_conf n1)"
ok 'started again, it makes up for what it missed' wait_for 2 routes_are "$base$foreign"
on n1 sed -i 's/"auto"/"vxlan"/' /run/flatnetd.json
kill -HUP "${agent_pid[n1]}"
ok 'SIGHUP: the new configuration is in force' wait_for 3 routes_are '10.244.2.0/24 10.244.2.0;10.244.3.0/24 10.244.3.0;10.99.0.0/16 192.0.2.3;'
on n1 sed -i 's/"vxlan"/"nonsense"/' /run/flatnetd.json
forget_log n1
kill -HUP "${agent_pid[n1]}"
ok '... a wrong one is refused' wait_for 2 says n1 'not reloaded'
ok '... and it runs on' kill -0 "${agent_pid[n1]}"
on n1 sed -i 's/"nonsense"/"auto"/' /run/flatnetd.json
kill -HUP "${agent_pid[n1]}"
ok '... and back' wait_for 3 routes_are "$base$foreign"

# Killed, with the source away: the last known state.
kill -KILL "${agent_pid[n1]}"
wait "${agent_pid[n1]}" 2>/dev/null || :
on n1 rm /run/nodes.json
on n1 ip route flush proto 241
on n1 rm -f /run/flatnet/node.json
start_agent n1 "$(agent_conf n1)"
ok 'killed, and the list is gone: the last known state' says n1 'last known state is in force'
ok '... makes the node ready' wait_for 2 says n1 'this node is ready'
is "$(routes)" "$base" '... with all routes'
ok '... pods reach each other' reached
make_pod n1 b
NODE=n1 cni ADD b ctr-b eth0 <<<"$agent_plugin_conf"
cni_ok '... and new pods start'

# ... and after a reboot: nothing in the kernel, nothing in /run/flatnet.
kill -KILL "${agent_pid[n1]}"
wait "${agent_pid[n1]}" 2>/dev/null || :
state=$(on n1 cat /run/state/state.json)
kill_node n1
on lan ip link del n1 2>/dev/null || :
make_node n1 lan 192.0.2.1/24
on n1 bash -c 'mkdir -p /run/state; cat >/run/state/state.json' <<<"$state"
start_agent n1 "$(agent_conf n1)"
ok 'after a reboot without the source' wait_for 2 says n1 'this node is ready'
is "$(routes)" "$base" '... the routes are there'
agent_pod n1 a
ok '... and a pod reaches another node' wait_for 2 reached

done_testing
