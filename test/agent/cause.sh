#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Whatever the agent is at when somebody breaks something, it knows what it was. One that is slow (each
# of its messages to the kernel takes a while) is nearly always in the midst of a pass.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/agent.sh"

make_cluster 2
tell_nodes "$(node_list 4 | jq -c '.[:2]')" n1 n2
# LeakSanitizer cannot work where somebody else traces.
agent_prefix=(env "ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0" strace -f -qq -o /dev/null
	-e "trace=sendmsg,sendto" -e "inject=sendmsg,sendto:delay_enter=40000")
start_agent n1 "$(agent_conf n1 '.backend = "vxlan"' '.resyncSeconds = 1')"
ok 'the node is ready' wait_for 10 says n1 'this node is ready'
agent_pod n1 a
sleep 1

repairs() { # KIND
	grep -c "msg=\"repaired\" kind=$1 " "$(agent_log_file n1)" || :
}
break_often() { # KIND CAUSE COMMAND...
	local kind=$1 cause=$2 i
	shift 2
	forget_log n1
	for i in {1..6}; do
		sleep "0.$((i * 37 % 100))"
		on n1 "$@"
		wait_for 5 eval "((\$(repairs $kind) >= $i))" || break
	done
	is "$(repairs "$kind")" 6 "$kind: broken six times, repaired six times"
	is "$(agent_log n1 | grep "msg=\"repaired\" kind=$kind " | grep -v "cause=\".*$cause.*was" || :)" '' \
		'... and each time the cause is known'
}
break_often rules flatnet nft delete table inet flatnet
break_often route 10.244.2.0/24 ip route del 10.244.2.0/24
break_often bridge 10.244.1.1 ip address del 10.244.1.1/24 dev cni0
kill "$(pgrep -P "${agent_pid[n1]}")"
wait "${agent_pid[n1]}" || :
done_testing
