#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# More happens than the kernel can tell an agent that is not looking: its socket overflows, and what
# was lost is found anyway.
# shellcheck disable=SC2016 # what eval gets is for it to expand
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/agent.sh"

make_cluster 2
list=$(node_list 4)
tell_nodes "$list" n1 n2
for node in n1 n2; do
	start_agent "$node" "$(agent_conf "$node" '.backend = "vxlan"' '.resyncSeconds = 3600')"
	wait_for 5 says "$node" 'this node is ready'
	agent_pod "$node" a
done
ip2=$(pod_ip n2 a)
ok 'pods reach each other' wait_for 2 can_ping n1 a "$ip2"
sleep 1 # the bridge is not new any more

pid=${agent_pid[n1]}
drops() { # what the kernel could not tell the agent, links and rules together
	awk -v inodes="$(find "/proc/$pid/fd" -lname 'socket:*' -printf '%l ' | tr -dc '0-9 ')" '
		BEGIN { split(inodes, list, " "); for (i in list) own[list[i]] = 1 }
		$10 in own { sum += $9 } END { print sum + 0 }' "/proc/$pid/net/netlink"
}
storm() { # ROUNDS: routes that are nobody's business, 10,000 events each
	awk 'BEGIN { for (i = 0; i < 5000; i++) printf "route add 198.18.%d.%d dev eth0 table 77\n", i / 250, i % 250 + 1
		for (i = 0; i < 5000; i++) printf "route del 198.18.%d.%d dev eth0 table 77\n", i / 250, i % 250 + 1 }' >"$TMPDIR/storm"
	local i
	for ((i = 0; i < $1; i++)); do
		on n1 ip -batch - <"$TMPDIR/storm"
	done
}
whole() {
	local rules
	[[ $(on n1 ip route show 10.244.2.0/24 proto 241) == *'via 10.244.2.0 dev flatnet.1'* &&
		$(on n1 ip neigh show 10.244.2.0 dev flatnet.1) == *'0a:58:0a:f4:02:00 PERMANENT'* &&
		$(on n1 bridge fdb show dev flatnet.1) == *'0a:58:0a:f4:02:00 dst 192.0.2.2 '* &&
		$(on n1 ip -o address show dev cni0) == *10.244.1.1/24* ]] &&
		rules=$(on n1 nft list table inet flatnet) && [[ $rules == *masquerade* ]]
}

is "$(drops)" 0 'nothing was lost so far'
forget_log n1
kill -STOP "$pid"
storm 1
cmp_ok "$(drops)" -gt 0 'an agent that is stopped cannot be told all that happens'
# Of these there is no event: the socket is full.
before=$(drops)
on n1 bash -c 'ip route del 10.244.2.0/24; ip neigh del 10.244.2.0 dev flatnet.1
	bridge fdb del 0a:58:0a:f4:02:00 dev flatnet.1 dst 192.0.2.2
	ip address del 10.244.1.1/24 dev cni0'
cmp_ok "$(drops)" -ge $((before + 4)) '... what is broken then, neither'
on n1 nft delete table inet flatnet
fails 'and it stays so' wait_for 0.3 whole
kill -CONT "$pid"
repaired n1 'as it looks again, all is repaired' 'repaired.*cause="more happened than the kernel could tell"' whole
ok '... and pods reach each other' wait_for 2 can_ping n1 a "$ip2"

# The tunnel, and so all at once.
kill -STOP "$pid"
storm 1
on n1 ip link del flatnet.1
kill -CONT "$pid"
repaired n1 'a tunnel that went meanwhile' 'kind=link .*flatnet\.1. was missing.*cause="more happened' whole

# It hears again: no slow timer helps here.
forget_log n1
on n1 ip route del 10.244.2.0/24
repaired n1 'afterwards single events are heard again' 'kind=route .*cause="route 10\.244\.2\.0/24' whole

# A storm that the agent is awake for.
storm 3 &
storming=$!
for _ in 1 2 3; do
	forget_log n1
	on n1 ip route del 10.244.2.0/24
	repaired n1 'in the middle of a storm' 'kind=route' whole
	sleep 0.1
done
wait "$storming"
ok 'after all, pods reach each other' wait_for 2 can_ping n1 a "$ip2"
is "$(on n1 ip route show table 77 2>/dev/null || :)" '' "... and what was somebody else's went as it came"
cmp_ok "$(awk '/VmHWM/ { print $2 }' "/proc/$pid/status")" -le $((${FLAT_SANITIZED:-0} ? 1 << 30 : 8192)) \
	'the agent needed no more memory than ever'
done_testing
