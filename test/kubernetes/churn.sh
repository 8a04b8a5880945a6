#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Pods come and go, thirty at a time, while containerd, kubelet and flatnetd are killed at random
# moments. What is left is exactly what the live pods have.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/image.sh"
. "${0%/*}/../lib/kubernetes.sh"

seed=${FLAT_SEED:-$RANDOM}
diag "FLAT_SEED=$seed kills the same ones again, as far as time repeats itself"

start_control_plane
start_kube_nodes n1 n2 n3
wait_ready 60 n1 n2 n3
apply "$(workload DaemonSet a .)" "$(workload Deployment churn '.spec.replicas = 0')"
eventually 30 'a pod on each node' ready_pods 3 app=a

our_rules() {
	local node
	for node in "${kube_nodes[@]}"; do
		on "$node" nft -s list table inet flatnet
	done
}
residents() { # of the pods found: those that stay, where they are, and with which address
	local pod
	for pod in "${pods[@]}"; do
		[[ $pod != a-* ]] || printf '%s %s %s %s\n' "$pod" "${where[$pod]}" "${ip[$pod]}" "${netns[$pod]}"
	done | sort
}
# containerd and kubelet are done: processes live in as many networks as there are pods. (A file that
# holds a network in /run/netns proves nothing: a containerd that is killed at the right moment leaves
# an empty one behind for ever.)
at_rest() {
	local node have=0
	for node in "${kube_nodes[@]}"; do
		# shellcheck disable=SC2016
		: $((have += $(at "$node" bash -c 'readlink /proc/[0-9]*/ns/net | sort -u | wc -l') - 1))
	done
	((have == 3)) && ready_pods 3 app=a && ready_pods 0 app=churn
}
# A containerd that dies between a plugin's ADD and its own note of it never calls DEL. That is a matter
# of milliseconds after a link came: it is stopped then, the plugin ends, and it dies.
kill_between() { # NODE; fails when no link comes within 3 s
	# shellcheck disable=SC2016
	at "$1" bash -c '
		containerd=$(</run/containerd.pid)
		timeout 3 ip monitor link | {
			read -r _ || exit 1
			kill -STOP "$containerd"
			sleep 0.3
			kill -KILL "$containerd"
		}'
}
kill_some() { # SEED: until it is killed itself
	local victims=(containerd containerd kubelet flatnetd) node victim
	RANDOM=$1
	while :; do
		sleep $((RANDOM % 3)).$((RANDOM % 10))
		node=n$((1 + RANDOM % 3)) victim=${victims[RANDOM % 4]}
		if [[ $victim == containerd ]] && kill_between "$node" 2>/dev/null; then
			victim+=' (after ADD)'
		else
			kill_daemon "$node" "$victim"
		fi
		echo "$victim of $node," >>"$kube/kills"
	done
}

find_pods
rules=$(our_rules) stay=$(residents)
isnt "$rules" '' 'there are rules to compare'
is "$(wc -l <<<"$stay")" 3 'and three pods that stay'

for round in 1 2 3 4 5; do
	: >"$kube/kills"
	# The first two rounds show what is normal.
	killer=''
	if ((round > 2)); then
		kill_some $((seed + round)) &
		killer=$!
	fi
	begin=$SECONDS
	k scale deployment churn --replicas=30 >/dev/null
	# Each kill may cost kubelet a back-off of ten seconds and more.
	eventually 150 "round $round: thirty pods are Ready" ready_pods 30 app=churn
	up=$((SECONDS - begin))
	if ((round == 1)); then
		find_pods
		is "${#pods[@]}" 33 'all of them have an address'
		is "$(printf '%s\n' "${ip[@]}" | sort -u | wc -l)" 33 '... of their own'
		is "$(all_pairs)" '' '... and everybody pings everybody'
		is "$(exact)" '' 'addresses and links are those of the live pods'
	fi
	begin=$SECONDS
	k scale deployment churn --replicas=0 >/dev/null
	((round < 3)) || sleep 5 # the way down is shot at, too
	if [[ $killer ]]; then
		kill "$killer"
		wait "$killer" 2>/dev/null || :
		diag "killed: $(sort "$kube/kills" | uniq -c | xargs)"
		cmp_ok "$(wc -l <"$kube/kills")" -ge 1 "round $round: some have been killed"
	fi
	eventually 120 "round $round: they have gone" at_rest
	leaked=$(exact)
	diag "round $round: thirty pods Ready after $up s, gone after $((SECONDS - begin)) s${leaked:+; leaked then: $(xargs <<<"$leaked")}"
	# Whatever leaked, the agent has found out.
	eventually 10 "round $round: ten seconds later nothing is left of them" is_exact
	((round != 2)) || is "$(failed_sandboxes)" 0 'no pod had to try twice'
done

# The same again, slowly, without the agent, until an address has leaked; then it comes. Half of the
# tries leak one: in the others containerd was quicker with its note.
stop_daemon n1 flatnetd
leaked=''
for ((i = 0; i < 5 && ${#leaked} == 0; i++)); do
	kill_between n1 &
	k scale deployment churn --replicas=6 >/dev/null
	wait $! || :
	k scale deployment churn --replicas=0 >/dev/null
	sleep 2
	for ((j = 0; j < 60; j++)); do
		! at_rest || break
		sleep 0.5
	done
	leaked=$(exact)
done
diag "without an agent, after $i tries: ${leaked:-nothing leaked}"
daemon_again n1 flatnetd
eventually 10 'an agent returns what leaked before it started' is_exact

find_pods
is "$(exact)" '' 'addresses and links are those of the live pods'
is "$(our_rules)" "$rules" 'the rules are what they were'
is "$(residents)" "$stay" 'the pods that stayed are where they were, with their networks'
is "$(all_pairs)" '' 'and reach each other'
host_untouched
done_testing
