#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# kill -9 at any system call of an ADD. Then: DEL without prevResult removes everything; or ADD is
# repeated and succeeds or fails cleanly; or nobody comes, and GC or the next pod gets the address.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

make_pod - a
make_pod - b
conf=$(flat_conf '.ipMasq = true' '.portMappings = [{hostPort: 8080, containerPort: 80}]')
other=$(flat_conf '.ipMasq = true')

# Of this attachment; bridge and rules are the node's, and stay.
remains() {
	ip -j link show type veth | jq -r '.[].ifname'
	pod_exec - a ip -j link show eth0 2>/dev/null | jq -r '"in the pod: " + .[].ifname'
	nft list ruleset 2>/dev/null | grep -o 'comment "flatnet veth.*' || :
	store_files
}
killed() { # CALL N: false when there is no such call any more
	CNI_COMMAND=ADD CNI_NETNS=/run/netns/a CNI_CONTAINERID=ctr-a CNI_IFNAME=eth0 \
		traced -e "trace=$1" -e "inject=$1:signal=KILL:when=$2" <<<"$conf" >/run/out 2>/run/stderr && return 1
	grep -q 'killed by SIGKILL' /run/trace
}
# each CALL FUNCTION: FUNCTION after every death; it prints what is wrong
each() {
	local n
	deaths=0
	for ((n = 1; n <= 200; n++)); do
		killed "$1" "$n" || break
		: $((++deaths))
		"$2" | sed "s/^/$1 #$n: /"
		remove_all
	done
	quick DEL a ctr-a eth0 "$conf"
	remove_all
}
try() { # FUNCTION NAME CALL...
	local function=$1 name=$2 call all=0
	shift 2
	: >/run/wrong
	for call; do
		each "$call" "$function" >>/run/wrong
		: $((all += deaths))
	done
	is "$(</run/wrong)" '' "$name ($all deaths)"
	cmp_ok "$all" -gt 20 '... enough of them'
}

# ---- and DEL ----------------------------------------------------------------------------------------------

then_del() {
	local out left
	out=$(quick DEL a ctr-a eth0 "$conf") || echo "DEL failed: $out"
	left=$(remains)
	[[ -z $left ]] || echo "DEL left: $left"
}
calls=(sendmsg recvmsg linkat renameat setns writev flock exit_group)
[[ -n ${FLAT_SANITIZED:-} ]] || calls+=(openat close write unlinkat socket)
try then_del 'kill -9, then DEL without prevResult: nothing is left' "${calls[@]}"

# ---- and ADD again ----------------------------------------------------------------------------------------

then_add() {
	local out left
	if out=$(quick ADD a ctr-a eth0 "$conf" 2>/run/stderr); then
		quick CHECK a ctr-a eth0 "$(with_prev "$conf" "$out")" >/run/check || echo "ADD succeeded, but CHECK says $(</run/check)"
	elif ! jq -es 'length == 1 and .[0].code == 102' <<<"$out" >/dev/null; then
		echo "ADD failed, but not cleanly: $out"
	fi
	# the runtime's next container, in any case
	out=$(quick ADD b ctr-b eth0 "$other") || echo "ADD of another pod failed: $out"
	quick DEL a ctr-a eth0 "$conf"
	quick DEL b ctr-b eth0 "$conf"
	left=$(remains)
	[[ -z $left ]] || echo "left: $left"
}
try then_add 'kill -9, then ADD again: as new, or refused as a duplicate' sendmsg linkat flock writev

# ---- and GC -----------------------------------------------------------------------------------------------

gc=$(jq -c '."cni.dev/valid-attachments" = []' <<<"$conf")
then_gc() {
	local out left
	out=$(quick GC '' '' '' "$gc") || echo "GC failed: $out"
	left=$(remains)
	[[ -z $left ]] || echo "GC left: $left"
}
try then_gc 'kill -9, no DEL: GC frees all' sendmsg recvmsg linkat writev

# ---- and nobody -------------------------------------------------------------------------------------------

# One address; the pod dies with its ADD, as a sandbox that failed does; the next pod gets it.
conf=$(flat_conf '.ipam += {rangeStart: "10.244.1.10", rangeEnd: "10.244.1.10"}')
then_nobody() {
	local out i
	del_pod - a
	for ((i = 0; i < 100; i++)); do
		[[ -n $(ip -j link show type veth | jq -r '.[].ifname') ]] || break
		sleep 0.02
	done
	out=$(quick ADD b ctr-b eth0 "$conf" 2>/run/stderr) || echo "the next ADD failed: $out"
	[[ $(reservations) == 10.244.1.10 ]] || echo "reserved: $(reservations)"
	quick DEL b ctr-b eth0 "$conf"
	make_pod - a
}
try then_nobody 'kill -9, nobody comes: a range that is exhausted heals by itself' sendmsg linkat setns writev exit_group

# ---- a DEL that is killed -----------------------------------------------------------------------------------

: >/run/wrong
deaths=0
for call in sendmsg unlinkat openat flock; do
	[[ -z ${FLAT_SANITIZED:-} || $call != openat ]] || continue
	for ((n = 1; n <= 50; n++)); do
		quick ADD a ctr-a eth0 "$conf" >/dev/null
		CNI_COMMAND=DEL CNI_NETNS=/run/netns/a CNI_CONTAINERID=ctr-a CNI_IFNAME=eth0 \
			traced -e "trace=$call" -e "inject=$call:signal=KILL:when=$n" <<<"$conf" >/run/out 2>&1 && break
		: $((++deaths))
		out=$(quick DEL a ctr-a eth0 "$conf") || echo "$call #$n: the second DEL failed: $out" >>/run/wrong
		left=$(remains)
		[[ -z $left ]] || echo "$call #$n: left: $left" >>/run/wrong
	done
done
is "$(</run/wrong)" '' "kill -9 in a DEL, then DEL again: nothing is left ($deaths deaths)"

done_testing
