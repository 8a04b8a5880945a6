#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What is neither link nor route: checksum offload of the tunnel, room in the neighbour table, and
# what somebody else puts into our table of rules.
# shellcheck disable=SC2016,SC2034 # what eval gets is for it to expand; agent_prefix is start_agent's
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/agent.sh"

make_cluster 2
list=$(node_list 4)
tell_nodes "$list" n1 n2
vxlan='.backend = "vxlan"'
offload() { # "on" or "off"
	on n1 ethtool -k flatnet.1 | sed -n 's/^tx-checksumming: //p'
}
offload_is() {
	[[ $(offload) == "$1" ]]
}

# Checksums in hardware.
start_agent n1 "$(agent_conf n1 "$vxlan" '.vxlan.checksum = "off"')"
ok 'checksum "off": it is' wait_for 3 offload_is off
on n1 ip link del flatnet.1
ok '... on a device that was made anew, too' wait_for 1 eval 'offload_is off && [[ $(our_routes n1) ]]'
on n1 ethtool -K flatnet.1 tx on
ok '... and when somebody switches it on' wait_for 1 offload_is off
stop_agent n1
start_agent n1 "$(agent_conf n1 "$vxlan")"
wait_for 3 says n1 'this node is ready'
sleep 0.2
is "$(offload)" off '"auto" leaves it as it is, on this kernel'
stop_agent n1
start_agent n1 "$(agent_conf n1 "$vxlan" '.vxlan.checksum = "on"')"
ok '"on": it is' wait_for 3 offload_is on
stop_agent n1
agent_prefix=(setarch --uname-2.6)
start_agent n1 "$(agent_conf n1 "$vxlan")"
ok '"auto" on a kernel before 5.7: it is off' wait_for 3 offload_is off
on n1 ip link del flatnet.1
ok '... again when it was made anew' wait_for 1 eval 'offload_is off && [[ $(our_routes n1) ]]'
stop_agent n1
agent_prefix=()

# A rule of somebody else's in our table: it stays, and nobody's rules are written again for it.
start_agent n1 "$(agent_conf n1 "$vxlan" '.vxlan.checksum = "on"')"
start_agent n2 "$(agent_conf n2 "$vxlan")"
for node in n1 n2; do
	wait_for 3 says "$node" 'this node is ready'
	agent_pod "$node" a
done
sleep 1
forget_log n1
on n1 nft add rule inet flatnet forward ip saddr 198.51.100.7 counter drop comment '"by hand"'
on n1 nft add chain inet flatnet mine
before=$(on n1 nft list table inet flatnet)
sleep 0.3
is "$(on n1 nft list table inet flatnet)" "$before" 'a rule and a chain by hand in table flatnet stay'
unlike "$(agent_log n1)" 'repaired' '... and are no reason to write'
handle=$(on n1 nft -a list chain inet flatnet postrouting | sed -n 's/.*masquerade.*# handle \([0-9]*\)$/\1/p')
on n1 nft delete rule inet flatnet postrouting handle "$handle"
repaired n1 'our rule in their midst is put back' 'kind=rules' \
	eval '[[ $(on n1 nft list chain inet flatnet postrouting) == *masquerade* ]]'
like "$(on n1 nft list table inet flatnet)" 'by hand' '... and theirs stay'
like "$(on n1 nft list table inet flatnet)" 'chain mine' '... chains, too'

# More nodes than the neighbour table has room for. Its limits are the initial namespace's to raise.
limit=$(metric n1 'flatnet_neighbour_entries_limit{family="ipv4"}')
cmp_ok "$limit" -gt 0 'the limit of the neighbour table is known'
if ((limit <= 1500)); then
	wide=$(jq -c --argjson n $((limit * 6 / 10)) '. + [range($n) | {name: "m\(.)",
		podCIDRs: "10.244.\(. / 4 + 20 | floor).\(. % 4 * 64)/26",
		address: "10.\(. / 250 + 1 | floor).7.\(. % 250 + 1)"}]' <<<"$list")
	forget_log n1
	tell_nodes "$wide" n1
	ok 'nodes for more than half of it: said, with the value to set' wait_for 5 says n1 \
		"level=warn.*neighbour table is more than half full.*raise net\.ipv4\.neigh\.default\.gc_thresh3 \($limit\) on the host to $((limit * 4)) or more"
	ok '... and they are reached' wait_for 2 eval "[[ \$(our_routes n1 | wc -l) == $((limit * 6 / 10 + 2)) ]]"
	cmp_ok "$(metric n1 'flatnet_neighbour_entries{family="ipv4"}')" -ge $((limit * 6 / 10)) '... and counted'
	tell_nodes "$list" n1
	ok 'without them there is room again' wait_for 65 says n1 'neighbour table has room again'
	# Where the limits can be written: files in their place show what is.
	stop_agent n1
	on n1 bash -c 'mkdir -p /run/neigh/default && cd /run/neigh/default && echo 128 >gc_thresh1 && echo 512 >gc_thresh2 &&
		echo "$0" >gc_thresh3 && mount --bind /run/neigh /proc/sys/net/ipv4/neigh' "$limit"
	tell_nodes "$wide" n1
	start_agent n1 "$(agent_conf n1 "$vxlan")"
	ok 'limits that can be written are raised' wait_for 5 says n1 \
		"neighbour table made larger.*family=ipv4.*gc_thresh3 is now $((limit * 4))"
	is "$(on n1 bash -c 'cd /proc/sys/net/ipv4/neigh/default && awk 1 gc_thresh1 gc_thresh2 gc_thresh3' | xargs)" \
		"$((limit / 2)) $limit $((limit * 4))" '... all three of them'
else
	skip_kernel 'a neighbour table that is nearly full' "its limit is $limit"
fi
done_testing
