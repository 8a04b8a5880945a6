#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# interop.sh - the real host-local and the real flatnet-ipam take turns on one directory.
#
#	FLAT_REFERENCE=DIR   where the reference's host-local is (see test/tools/get-reference.sh)
#	FLAT_IPAM=FILE       flatnet-ipam (default: that in FLAT_BIN, else in build/ipam)
set -euo pipefail
. "${0%/*}/../lib/tap.sh"

reference=${FLAT_REFERENCE:-}
ours=${FLAT_IPAM:-${FLAT_BIN:-${0%/*}/../../build/ipam}/flatnet-ipam}
[[ -n $reference && -x $reference/host-local ]] ||
	skip_all "no host-local in FLAT_REFERENCE='$reference': run test/tools/get-reference.sh"
[[ -x $ours ]] || skip_all "no flatnet-ipam at '$ours': build it, or set FLAT_IPAM"

work=$(mktemp -d)
at_exit rm -rf "$work"
dir=$work/data/net
subnet=10.1.0.0/28

# WHO COMMAND CONTAINER [IFNAME]: the answer is in $answer, the exit code is returned
answer=''
call() {
	local program=$ours conf
	[[ $1 == theirs ]] && program=$reference/host-local
	conf='{"cniVersion":"'${version:-1.0.0}'","name":"net","type":"t","ipam":{"type":"host-local",
		"dataDir":"'$work/data'","ranges":[[{"subnet":"'$subnet'"}],[{"subnet":"fd00:0:0:1::/64"}]]}'${extra:-}'}'
	answer=$(CNI_COMMAND=$2 CNI_CONTAINERID=$3 CNI_NETNS=/none CNI_IFNAME=${4:-eth0} \
		CNI_PATH=$reference timeout 30 "$program" <<<"$conf")
}
# The call must fail; unlike with fails(), its answer stays.
refused() {
	local name=$1
	shift
	if call "$@"; then
		fail "$name"
	else
		pass "$name"
	fi
}
address() {
	jq -r '[.ips[].address] | join(" ")' <<<"$answer"
}
reserved() {
	find "$dir" -type f ! -name lock ! -name 'last_reserved_ip.*' | wc -l
}
clear_all() {
	rm -rf "$work/data"
}

# in turn
call ours ADD a1
is "$(address)" '10.1.0.2/28 fd00:0:0:1::2/64' 'the first address is the same as theirs'
call theirs ADD b1
is "$(address)" '10.1.0.3/28 fd00:0:0:1::3/64' 'host-local goes on after our last one'
call ours ADD a2
is "$(address)" '10.1.0.4/28 fd00:0:0:1::4/64' 'we go on after host-local'
is "$(od -An -c "$dir/10.1.0.2" | tr -d ' \n')" "$(od -An -c "$dir/10.1.0.3" | tr -d ' \n' | sed s/b1/a1/)" \
	'our files are like theirs, byte for byte'
is "$(stat -c %a "$dir/10.1.0.2" "$dir/fd00:0:0:1::2" | sort -u)" 600 'and nobody else can read them'
ok 'host-local CHECKs what we reserved' call theirs CHECK a1
ok 'we CHECK what host-local reserved' call ours CHECK b1
fails 'host-local refuses a duplicate of ours' call theirs ADD a1
refused 'we refuse a duplicate of theirs' ours ADD b1
like "$answer" 'duplicate allocation is not allowed' 'and say so with the same words'
ok 'host-local DELs what we reserved' call theirs DEL a1
ok 'we DEL what host-local reserved' call ours DEL b1
ok 'we DEL again' call ours DEL b1
is "$(reserved)" 2 'and only the third container is left'

# the mark of in-process reservations
printf 'm1\r\neth0\n' >"$dir/10.1.0.9"
ok 'host-local CHECKs a reservation with our mark' call theirs CHECK m1
ok 'host-local DELs a reservation with our mark' call theirs DEL m1
fails 'and it is gone' test -e "$dir/10.1.0.9"

# older files, and two interfaces
printf 'old' >"$dir/10.1.0.9"
ok 'a file of an old host-local is DELed' call ours DEL old
fails 'and it is gone' test -e "$dir/10.1.0.9"
call theirs ADD two eth0
call ours ADD two net1
call ours DEL two eth0
is "$(grep -l -r "two" "$dir" | wc -l)" 2 'DEL of eth0 leaves net1 alone'
ok 'which host-local finds' call theirs CHECK two net1

# what crashes leave
clear_all
call ours ADD a1
touch "$dir/.flatnet-1-1"
: >"$dir/10.1.0.5"
ok 'host-local minds neither a temporary nor an empty file' call theirs ADD b1
ok 'DEL meets an empty file' call ours DEL nobody
fails 'and sweeps temporary files' test -e "$dir/.flatnet-1-1"
for i in 3 4 5 6 7 8 9 10 11 12 13; do
	call ours ADD "c$i" || fail "ADD c$i"
done
is "$(reserved)" 26 'the address of the empty file is given out in the end'
refused 'the range is exhausted' ours ADD late
json "$answer" '.code == 101 and (.msg | contains("10.1.0.1-10.1.0.14") and contains("13 of 13"))' \
	'code and text name it'
is "$(reserved)" 26 'and nothing is left behind'
fails 'for host-local, too' call theirs ADD late

# STATUS, GC
version=1.1.0
refused 'STATUS tells' ours STATUS ''
json "$answer" '.code == 50' 'with code 50'
ok 'GC without a list' call ours GC ''
is "$(reserved)" 26 'frees nothing'
extra=',"cni.dev/valid-attachments":[{"containerID":"b1","ifname":"eth0"}]' call ours GC ''
is "$(reserved)" 2 'GC with a list keeps what is on it'
ok 'STATUS is content' call ours STATUS ''
version=1.0.0
ok 'host-local CHECKs what is left' call theirs CHECK b1
version=1.1.0
extra=',"cni.dev/valid-attachments":null' call ours GC ''
is "$(reserved)" 0 'null is an empty list'
unset version

# output that nobody takes
fails 'ADD to a full standard output fails' bash -c "
	echo '{\"cniVersion\":\"1.0.0\",\"name\":\"net\",\"type\":\"t\",\"ipam\":{\"dataDir\":\"$work/data\",\"subnet\":\"10.1.0.0/28\"}}' |
	CNI_COMMAND=ADD CNI_CONTAINERID=full CNI_NETNS=/none CNI_IFNAME=eth0 '$ours' >/dev/full 2>/dev/null"
is "$(reserved)" 0 'and leaves no reservation'

# both exclude each other
clear_all
mkdir -p "$dir"
started=$(date +%s%N)
flock "$dir/lock" sleep 1 &
sleep 0.2
call ours ADD waiting
cmp_ok $((($(date +%s%N) - started) / 1000000)) -ge 900 'we wait for the lock that host-local takes'
wait

# at once
clear_all
subnet=10.1.0.0/16
for i in $(seq 40); do
	for who in ours theirs; do
		(call "$who" ADD "$who-$i" && address >"$work/got.$who.$i") &
	done
	((i % 5)) || wait
done
wait
is "$(cat "$work"/got.* | wc -l)" 80 'forty ADDs of each side at once succeed'
is "$(cat "$work"/got.* | tr ' ' '\n' | sort -u | wc -l)" 160 'and get distinct addresses'
is "$(reserved)" 160 'none is lost'
for i in $(seq 40); do
	(call theirs DEL "ours-$i") &
	(call ours DEL "theirs-$i") &
	((i % 5)) || wait
done
wait
is "$(reserved)" 0 'each side DELs all of the other at once'
done_testing
