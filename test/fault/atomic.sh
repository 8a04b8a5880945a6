#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# All or nothing: each system call of an ADD fails once. For each kind of call, its first is made to
# fail, then its second, and so on until an ADD passes without meeting a fault. An ADD that fails
# says one JSON error and leaves the node as it was; one that succeeds all the same must be whole.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

make_wire wire
on wire ip link add here type veth peer name up0 netns $$
on wire ip link set here master wire up
ip address add 192.0.2.1/24 dev up0
ip link set up0 up
make_pod - a
make_pod - b
conf=$(flat_conf '.ipMasq = true' '.mtu = 1450' '.sysctl = {"net.core.somaxconn": "300"}' '.portMappings = [{hostPort: 8080, containerPort: 80}, {hostPort: 53, containerPort: 53, protocol: "udp"}]' \
	'.ingressRate = 8000000 | .ingressBurst = 800000 | .egressRate = 8000000 | .egressBurst = 800000' '.nodeName = "one"' 'del(.ipam)' '.nodes = [
	{name: "one", address: "192.0.2.1", podCIDRs: ["10.244.1.0/24"]},
	{name: "two", address: "192.0.2.2", podCIDRs: ["10.244.2.0/24"]}]')

# whole: the state, and what else an ADD sets in the pod
whole() {
	state
	pod_sysctl a net/core/somaxconn
}

# one_json TEXT: exactly one error
one_json() {
	jq -es 'length == 1 and (.[0] | .code > 0 and (.msg | length > 0))' <<<"$1" >/dev/null 2>&1
}

# break_all CALL ERROR: prints a line for each fault that went wrong; sets met to how many there were
break_all() {
	local n rc out got
	met=0 refused=0
	for ((n = 1; n <= 200; n++)); do
		rc=0
		out=$(CNI_COMMAND=ADD CNI_NETNS=/run/netns/a CNI_CONTAINERID=ctr-a CNI_IFNAME=eth0 \
			traced -e "trace=$1" -e "inject=$1:error=$2:when=$n" <<<"$conf" 2>/run/stderr) || rc=$?
		grep -q INJECTED /run/trace || break
		: $((++met))
		if ((rc != 0)); then
			: $((++refused))
			# 127: not even the libraries could be loaded, and that is not ours to tell
			((rc == 127)) || one_json "$out" || echo "$1 #$n $2: exit $rc, stdout is '$out', stderr '$(</run/stderr)'"
			got=$(whole)
			[[ $got == "$bare" ]] || echo "$1 #$n $2: left behind, after '$out': $(diff <(echo "$bare") <(echo "$got") | grep '^[<>]')"
			# and the next one is as if nothing had been
			if ! out=$(quick ADD a ctr-a eth0 "$conf"); then
				echo "$1 #$n $2: the next ADD failed: $out"
			fi
		elif ! quick CHECK a ctr-a eth0 "$(with_prev "$conf" "$out")" >/run/check; then
			echo "$1 #$n $2: succeeded, but CHECK says $(</run/check)"
		fi
		quick DEL a ctr-a eth0 "$conf" || echo "$1 #$n $2: DEL failed"
		start_over
	done
	quick DEL a ctr-a eth0 "$conf"
	start_over
	((n <= 200)) || echo "$1: no end after $n faults"
}

# try CALL ERROR WHERE
try() {
	local faults
	break_all "$1" "$2" >/run/faults
	faults=$(</run/faults)
	is "$faults" '' "$3: $1 fails with $2, at any of its $met times ($refused ADDs refused)"
	: $((total += met))
}

# Sanitizers use some of these calls themselves, and cannot do without.
calls=(sendmsg:ENOBUFS recvmsg:ENOBUFS linkat:ENOSPC renameat:EIO setns:EPERM writev:EIO flock:ENOLCK socket:EMFILE bind:ENOBUFS)
if [[ -z ${FLAT_SANITIZED:-} ]]; then
	calls+=(openat:EMFILE write:ENOSPC read:EIO poll:ENOMEM mkdirat:ENOSPC newfstatat:EACCES
		setsockopt:ENOPROTOOPT getsockname:ENOBUFS fsync:EIO getrandom:EIO close:EIO unlinkat:EIO fcntl:EINVAL ftruncate:EIO)
fi

# ---- the first pod of a node: everything is made, and everything goes again ---------------------------

start_over() {
	pod_exec - a sysctl -qw net.core.somaxconn="$somaxconn" # DEL leaves it
	[[ -z $shared ]] || return 0
	ip link del cni0 2>/dev/null || :
	ip route del 10.244.2.0/24 2>/dev/null || :
	nft flush ruleset
}
shared='' somaxconn=$(pod_sysctl a net/core/somaxconn)
bare=$(whole)
total=0
for pair in "${calls[@]}"; do
	# The way back into the own namespace must not fail: the process ends there.
	[[ $pair != setns:* ]] || continue
	try "${pair%:*}" "${pair#*:}" 'first pod'
done
rc=0
out=$(CNI_COMMAND=ADD CNI_NETNS=/run/netns/a CNI_CONTAINERID=ctr-a CNI_IFNAME=eth0 \
	traced -e trace=setns -e inject=setns:error=EPERM:when=1 <<<"$conf" 2>/dev/null) || rc=$?
ok 'first pod: setns fails' one_json "$out"
is "$rc $(whole)" "1 $bare" '... nothing is left behind'
cmp_ok "$total" -gt $((${FLAT_SANITIZED:-0} ? 40 : 100)) "$total faults met"

# ---- beside another pod: what is shared stays, what is not goes ------------------------------------------

quick ADD b ctr-b eth0 "$(jq -c '.portMappings = [{hostPort: 8081, containerPort: 80}]' <<<"$conf")" >/dev/null
shared=1
bare=$(whole)
for pair in sendmsg:ENOMEM recvmsg:ENOMEM linkat:EACCES writev:EPIPE; do
	try "${pair%:*}" "${pair#*:}" 'second pod'
done
if [[ -z ${FLAT_SANITIZED:-} ]]; then
	try openat ENFILE 'second pod'
fi
ok 'the other pod still has its network' can_ping - b 10.244.1.1

# ---- what fails for good, not once ------------------------------------------------------------------------

quick DEL b ctr-b eth0 "$conf"
shared=''
start_over
bare=$(whole)
for pair in linkat:ENOSPC renameat:ENOSPC setns:EPERM writev:EIO socket:EMFILE; do
	rc=0
	out=$(CNI_COMMAND=ADD CNI_NETNS=/run/netns/a CNI_CONTAINERID=ctr-a CNI_IFNAME=eth0 \
		traced -e "trace=${pair%:*}" -e "inject=${pair%:*}:error=${pair#*:}" <<<"$conf" 2>/run/stderr) || rc=$?
	is "$rc $(whole)" "1 $bare" "${pair%:*} always fails with ${pair#*:}: nothing is left behind"
	[[ $pair == writev:* ]] || ok '... one JSON error' one_json "$out"
done
if [[ -z ${FLAT_SANITIZED:-} ]]; then
	rc=0
	out=$(ulimit -n 6 && quick ADD a ctr-a eth0 "$conf" 2>/dev/null) || rc=$?
	isnt "$rc" 0 'no file descriptors: refused'
	is "$(whole)" "$bare" '... nothing is left behind'

	# Memory runs out, a little later each time, until there is enough. (A failure of a single
	# brk(2) is not survived by the C library itself.) Below 3 MB not even the libraries fit.
	met=0
	: >/run/faults
	for ((kb = 2400; kb < 20000; kb += 12)); do
		rc=0
		out=$(ulimit -v "$kb" && CNI_COMMAND=ADD CNI_NETNS=/run/netns/a CNI_CONTAINERID=ctr-a CNI_IFNAME=eth0 \
			"$FLAT_BIN/flatnet" <<<"$conf" 2>/dev/null) || rc=$?
		((rc != 0)) || break
		# the dynamic loader's end is not ours
		! ((rc == 127 || rc == 139)) || [[ -n $out ]] || continue
		: $((++met))
		if [[ $(whole) != "$bare" ]]; then
			echo "$kb KB: left behind, after '$out'" >>/run/faults
			quick DEL a ctr-a eth0 "$conf"
			start_over
		fi
		one_json "$out" || echo "$kb KB: exit $rc, stdout is '$out'" >>/run/faults
	done
	is "$(</run/faults)" '' "memory runs out: all or nothing ($met ADDs refused, $kb KB are enough)"
	quick DEL a ctr-a eth0 "$conf"
fi

done_testing
