#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Three members: the leader dies, a member hangs, a member is cut off from the others.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/etcd.sh"

make_pki
for m in 1 2 3; do
	start_etcd $m 3
done
for m in 1 2 3; do
	await_etcd $m
done
node_options+=(--endpoint https://127.0.0.2:2379 --endpoint https://127.0.0.3:2379 --cluster 10.244.0.0/16 --ttl 6)
for i in 1 2 3 4 5 6; do
	start_node "n$i"
done
all_know() { # COUNT
	local i
	for i in 1 2 3 4 5 6; do
		(($(view "n$i" | wc -l) == $1)) || return 1
	done
}
eventually 15 'six nodes know each other' all_know 6
before=$(records)
used=$(ss -Htn state established dport = 2379 | awk '{ print $4 }' | sort -u | wc -l)
cmp_ok "$used" -ge 2 'they do not all use one member'

leader() { # the number of the member that leads
	local m
	for m in "${!etcd_pid[@]}"; do
		ctl_member=$m
		if ctl endpoint status -w json | jq -e '.[0].Status | .leader == .header.member_id' >/dev/null; then
			printf '%s\n' "$m"
			return 0
		fi
	done
	return 1
}
other() { # NUMBER
	ctl put "/flatnet/subnets/10.244.200.$1-32" "{\"PublicIP\":\"192.0.2.2$1\",\"BackendType\":\"vxlan\",\"NodeName\":\"o$1\"}" >/dev/null
}

# ---- the leader dies ----
dead=$(leader)
kill_etcd "$dead"
ctl_member=$((dead % 3 + 1))
eventually 15 'there is another leader' other 1
eventually 10 'a change is heard of by all' all_know 7
is "$(records | grep -v '"o1"')" "$before" 'everybody has his subnet still'
start_node n7
eventually 10 'and a new node gets one' has_told n7 'has its subnet'
start_etcd "$dead" 3 --initial-cluster-state existing
await_etcd "$dead"

# ---- a member hangs: it accepts, and says nothing ----
hung=$ctl_member
kill -STOP "${etcd_pid[$hung]}"
ctl_member=$dead
eventually 20 'a change while a member hangs' other 2
eventually 40 'is heard of by all' all_know 9
sleep 7
is "$(records | grep -vE '"(o1|o2|n7)"')" "$before" 'no lease has run out'
kill -CONT "${etcd_pid[$hung]}"

# ---- a member is cut off from the others: it answers, but has no leader ----
await_etcd "$hung"
alone=$((hung % 3 + 1))
ctl_member=$((alone % 3 + 1))
cut_etcd "$alone"
eventually 20 'a change while a member is alone' other 3
eventually 40 'is heard of by all' all_know 10
is "$(records | grep -vE '"(o1|o2|o3|n7)"')" "$before" 'nobody has lost his subnet'
all_end_well
done_testing
