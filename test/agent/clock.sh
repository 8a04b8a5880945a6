#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The wall clock jumps, by years: nothing happens, and what happens after is as quick as ever. The
# agent alone sees the jump (clock-jump.c), and its steady clock does not, as no steady clock does.
# shellcheck disable=SC2016 # what bash -c gets is for it to expand
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/agent.sh"

jump=$FLAT_BIN/../test/agent/clock-jump.so
[[ -e $jump ]] || skip_all 'there is no agent in this build'

make_cluster 2
list=$(node_list 4 | jq -c '.[:2]')
tell_nodes "$list" n1 n2
set_clock() { # DAYS; by name: half a text would be no time
	on n1 bash -c 'printf %s "$1" >/run/clock.new && mv /run/clock.new /run/clock' clock $(($1 * 86400))
}
set_clock 0
agent_prefix=(env LD_PRELOAD="$jump" CLOCK_JUMP=/run/clock)
start_agent n1 "$(agent_conf n1 '.backend = "vxlan"')"
ok 'the node is ready' wait_for 10 says n1 'this node is ready'
agent_pod n1 a
# The kernel has to be done with the new bridge's own IPv6 address first, and to have said so.
settled() {
	[[ $(on n1 ip -o -6 address show dev cni0) == *fe80::* && ! $(on n1 ip -o -6 address show tentative) &&
		! $(quiet n1 0.3) ]]
}
ok 'the node has come to rest' wait_for 10 settled
year=$(date -u +%Y)
routed() {
	[[ $(our_routes n1) == '10.244.2.0/24 10.244.2.0' ]]
}

for days in 1100 -1100 1 -1 0; do
	forget_log n1
	set_clock "$days"
	is "$(quiet n1 2)" '' "a jump to $days days from now changes nothing in the kernel"
	is "$(agent_log n1 | grep -E 'level=(info|warn|error)' || :)" '' '... and is nothing to speak of'
	on n1 ip route del 10.244.2.0/24
	repaired n1 'a route is repaired as ever' '10\.244\.2\.0/24.*missing' \
		routed
	[[ $days != *1100 ]] || unlike "$(agent_log n1 | tail -n 1)" "^ts=$year-" '(the agent did see the jump)'
done
is "$(pod_exec n1 a ping -n -q -c 1 -W 1 10.244.1.1 | grep -c ' 0% packet loss')" 1 'the pod is as it was'
stop_agent n1
is "$agent_rc" 0 'and the agent ends well'
done_testing
