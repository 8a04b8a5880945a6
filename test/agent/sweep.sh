#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The agent's sweep: whoever is killed and whatever is lost, addresses and links come back without a
# DEL; and an ADD at work, a living pod and another program's reservation are never touched.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

sweeper=$FLAT_BIN/../test/agent/sweeper
[[ -x $sweeper ]] || skip_all 'there is no agent in this build'
conf=$(flat_conf)

sweep() { # EVERY_MS PASSES: in the foreground; what it tells is in /run/sweep and /run/sweep.err
	"$sweeper" pods 10.244.1.0/24 "$1" "$2" >/run/sweep 2>/run/sweep.err
}
start_sweeping() { # EVERY_MS
	"$sweeper" pods 10.244.1.0/24 "$1" -1 >/run/sweep 2>/run/sweep.err &
	sweeping=$!
	at_exit kill "$sweeping"
	eventually 5 'the sweeper is at work' test -s /run/sweep
}
stop_sweeping() {
	kill "$sweeping"
	wait "$sweeping" || :
}
told() { # KEY: of the last pass
	tail -n 1 /run/sweep | tr ' ' '\n' | sed -n "s/^$1=//p"
}
all_veths() {
	ip -j link show type veth | jq -r '.[] | select(.ifname | startswith("veth")) | .ifname'
}
nothing_left() {
	[[ -z $(reservations)$(all_veths)$(ip -br link show type ifb) ]]
}
bare_links() {
	ip -j link show type veth | jq -r '.[] | select((.ifalias // "") == "") | .ifname'
}
bare_are() {
	(($(bare_links | wc -l) == $1))
}
no_veths() {
	[[ -z $(all_veths) ]]
}
# An ADD that is stopped or killed at the N-th CALL. interrupt POD SIGNAL CALL N [CONF]
interrupt() {
	CNI_COMMAND=ADD CNI_NETNS=/run/netns/$1 CNI_CONTAINERID=ctr-$1 CNI_IFNAME=eth0 CNI_PATH=/run/bin \
		traced -e "trace=$3" -e "inject=$3:signal=$2:when=$4" <<<"${5:-$conf}" >"/run/out-$1" 2>/run/stderr || :
}
pods=()
new_pod() {
	make_pod - "$1"
	pods+=("$1")
}

# ---- at rest ----------------------------------------------------------------------------------------------

for ((i = 0; i < 250; i++)); do
	ip netns add "rest$i"
	quick ADD "rest$i" "ctr-rest$i" eth0 "$conf" >/dev/null
done
sweep 20 40
is "$(sort -u -k1,1 /run/sweep | cut -d' ' -f1)" back=0 '250 pods live: nothing is to be done'
is "$(told pods) $(<"/run/sweep.err")" '250/253/0 ' '... used, size and healed are told'
best=$(grep -o 'us=[0-9]*' /run/sweep | tail -n +2 | cut -d= -f2 | sort -n | head -n 20 | tail -n 1)
diag "a pass at rest with 250 pods: $best us (median)"
if [[ -n ${FLAT_SANITIZED:-} ]]; then
	skip_kernel 'a pass takes less than 2 ms' 'sanitizers'
else
	cmp_ok "$best" -lt 2000 'a pass takes less than 2 ms'
	strace -f -qq -e trace=openat,recvmsg,sendmsg -o /run/trace "$sweeper" pods 10.244.1.0/24 1 20 >/run/sweep
	cmp_ok "$(grep -c '"10\.244\.1\.' /run/trace)" -le 500 '... no reservation is opened after the first pass'
	asked=$(grep -c sendmsg /run/trace)
	strace -f -qq -e trace=sendmsg -o /run/trace "$sweeper" pods 10.244.1.0/24 1 3 >/run/sweep
	is "$asked" "$(grep -c sendmsg /run/trace)" '... nor is the kernel asked again: 20 passes ask what 3 do'
fi

# ---- the book is lost -----------------------------------------------------------------------------------------

book() {
	(cd "$store/pods" && for file in 10.*; do printf '%s %s\n' "$file" "$(tr '\r\n' '  ' <"$file")"; done)
}
as_before() {
	[[ $(book) == "$before" ]]
}
before=$(book)
start_sweeping 100
for lost in "$store/pods/10.244.1.9" "$store/pods" "$store" "$store/pods/10*"; do
	# shellcheck disable=SC2086
	rm -rf $lost
	eventually 5 "$lost is removed while the pods live: it is written anew, owner by owner" as_before
done
: >"$store/pods/10.244.1.7"
eventually 10 'the reservation of a living pod is emptied: it is written anew' as_before
quick DEL rest7 ctr-rest7 eth0 "$conf"
is "$(reservations | wc -l)" 249 'DEL of such a pod frees its address'
stop_sweeping
cmp_ok "$(grep -c 'address is reserved again' /run/sweep.err)" -ge 501 '... each is said'
for ((i = 0; i < 250; i++)); do
	ip netns del "rest$i"
done
eventually 20 'the pods die without DEL' no_veths
sweep 600 3
is "$(reservations)" '' '... their addresses are back'

# ---- killed, and the namespace gone ---------------------------------------------------------------------------

start_sweeping 1000
killed=0
shaped=$(jq -c '.egressRate = 8000000 | .egressBurst = 800000' <<<"$conf")
for call in sendmsg recvmsg linkat renameat setns writev flock exit_group; do
	for n in 1 2 3 4 6 8 11 15; do
		[[ $call != exit_group || $n == 1 ]] || continue
		new_pod "k$call$n"
		interrupt "k$call$n" KILL "$call" "$n" "$shaped"
		! grep -q 'killed by SIGKILL' /run/trace || : $((++killed))
		ip netns del "k$call$n"
	done
done
cmp_ok "$killed" -gt 20 "ADD is killed at $killed points, its namespace removed, and nobody sends DEL"
for ((i = 0; i < 8; i++)); do # those that came through die with their pods, too
	nothing_left && break
	sleep 1
done
ok '... within ten seconds every address and link is back, IFBs among them' nothing_left
stop_sweeping

# ---- host ports -------------------------------------------------------------------------------------------------

start_sweeping 100
owned() {
	nft list ruleset | grep -c 'comment "flatnet veth' || :
}
none_owned() {
	(($(owned) == ${1:-0}))
}
mapped=$(jq -c '.portMappings = [{hostPort: 8080, containerPort: 80}]' <<<"$conf")
make_pod - port
make_pod - other
quick ADD port ctr-port eth0 "$mapped" >/dev/null
quick ADD other ctr-other eth0 "$(jq -c '.portMappings[0].hostPort = 8081' <<<"$mapped")" >/dev/null
is "$(owned)" 4 'two pods with a port of the host'
del_pod - port
eventually 5 'one dies without DEL: its port is given back' none_owned 2
like "$(nft list map inet flatnet hostports4)" '8081' '... the other one keeps its own'
quick DEL other ctr-other eth0 "$conf"
del_pod - other
eventually 5 '... until its DEL' none_owned
stop_sweeping
like "$(</run/sweep.err)" 'removed host ports' '... and it is said'

# ---- bandwidth ----------------------------------------------------------------------------------------------------

start_sweeping 100
ifbs_are() { # COUNT
	(($(ip -j link show type ifb | jq length) == $1))
}
make_pod - fast
make_pod - other
quick ADD fast ctr-fast eth0 "$shaped" >/dev/null
quick ADD other ctr-other eth0 "$shaped" >/dev/null
ok 'two pods with a rate have an IFB each' ifbs_are 2
del_pod - fast
eventually 5 'one dies without DEL: its IFB is removed' ifbs_are 1
quick DEL other ctr-other eth0 "$conf"
del_pod - other
ok '... the other one kept its own until its DEL' ifbs_are 0
stop_sweeping

# ---- killed, and the namespace stays; stopped ------------------------------------------------------------------

mkdir -p /run/bin
cat >/run/bin/fixed-ipam <<-'SCRIPT'
	#!/bin/sh
	cat >/dev/null
	[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/24", "gateway": "10.9.0.1"}]}'
SCRIPT
chmod +x /run/bin/fixed-ipam
ln -s "$FLAT_BIN/flatnet" "$FLAT_BIN/flatnet-ipam" /run/bin/
foreign=$(flat_conf '.name = "foreign" | .bridge = "cni7" | .ipam = {type: "fixed-ipam"}')
other=$(jq -c '.name = "other" | .bridge = "cni8"' <<<"$foreign")
for pod in dead alone slow slower; do
	new_pod $pod
done
interrupt dead KILL setns 2
interrupt alone KILL setns 2 "$foreign"
interrupt slow STOP setns 2 &
slow=$!
interrupt slower STOP setns 2 "$other" &
slower=$!
eventually 10 'two ADDs are killed and two stopped when their links are there, bare' \
	bare_are 4
ip link add veth0123456789a type veth peer name vethabcdef01234
ip link set veth0123456789a master cni0
sweep 1000 8
is "$(bare_links | wc -l) $(reservations | wc -l)" '6 2' 'none is touched at first'
sweep 1000 13
is "$(told orphans) $(told leases)" '2 1' 'after some seconds the links of the dead are removed, and the address is back'
is "$(reservations | wc -l)" 1 '... not that of the ADD at work'
is "$(bare_links | grep -c -e veth0123456789a -e vethabcdef01234)" 2 "... nor somebody else's veth pair"
ip link del veth0123456789a
for pid in $(pgrep -x flatnet); do
	kill -CONT "$pid"
done
wait "$slow" "$slower"
json "$(</run/out-slow)" '.ips[0].address' 'an ADD that was stopped for so long comes to its end'
json "$(</run/out-slower)" '.ips[0].address' '... so does the one with another IPAM'
quick CHECK slow ctr-slow eth0 "$(with_prev "$conf" "$(</run/out-slow)")" >/run/check || :
is "$(</run/check)" '' '... and CHECK is content'
sweep 10 3
is "$(told back)" 0 'a sweep finds nothing to do'
quick DEL slow ctr-slow eth0 "$conf"
CNI_PATH=/run/bin cni DEL slower ctr-slower eth0 <<<"$other"
cni_ok '... nor has DEL of them anything against it'

# ---- others' ----------------------------------------------------------------------------------------------------

remove_all
new_pod a
new_pod b
quick ADD a ctr-a eth0 "$conf" >/run/a
printf 'theirs\r\neth0' >"$store/pods/10.244.1.77"
mkdir -p "$store/others"
printf 'theirs\r\neth0' >"$store/others/10.7.0.2"
: >"$store/pods/10.244.1.78"
sweep 10 140
is "$(reservations | tr '\n' ' ')" '10.244.1.2 10.244.1.77 ' "another program's reservation stays, an empty one goes"
ok '... that of another network, too' test -s "$store/others/10.7.0.2"
like "$(</run/sweep.err)" 'free again.*10\.244\.1\.78' '... and that is said'

# Two claim one address.
quick ADD b ctr-b eth0 "$conf" >/run/b
link=$(veth_of ctr-b)
ip link set "$link" alias 'flatnet pods ctr-b eth0 10.244.1.2,10.244.1.3'
sweep 10 20
is "$(grep -c 'claims an address' /run/sweep.err)" 1 'two links claim one address: it is said, once'
is "$(reservations | tr '\n' ' ')" '10.244.1.2 10.244.1.3 10.244.1.77 ' '... and nothing is touched'
ip link set "$link" alias 'flatnet pods ctr-b eth0 10.244.1.3'

# Somebody writes.
quick DEL b ctr-b eth0 "$conf"
printf 'gone\r\neth0\n' >"$store/pods/10.244.1.90"
flock --no-fork "$store/pods/lock" sleep 30 &
holder=$!
at_exit kill "$holder"
eventually 5 'the store is locked' bash -c "! flock -n $store/pods/lock true"
sweep 600 3
cmp_ok "$(grep -o 'us=[0-9]*' /run/sweep | cut -d= -f2 | sort -n | tail -n 1)" -lt 1000000 '... the sweep does not wait'
is "$(told back) $(reservations | grep -c 90)" '0 1' '... and leaves it for the next time'
kill "$holder"
wait "$holder" || :
sweep 600 3
is "$(reservations | grep -c 90)" 0 '... when it comes back'
like "$(</run/sweep.err)" 'free again.*10\.244\.1\.90' '... and says so'

# ---- storm --------------------------------------------------------------------------------------------------------

remove_all
worker() { # NUMBER CYCLES
	local i out id
	for ((i = 0; i < $2; i++)); do
		id=storm-$1-$i
		out=$(quick ADD "s$1" "$id" eth0 "$conf") || echo "ADD $id: $out"
		quick CHECK "s$1" "$id" eth0 "$(with_prev "$conf" "$out")" >/run/check-"$1" || echo "CHECK $id: $(<"/run/check-$1")"
		jq -r '.ips[0].address' <<<"$out" >>/run/addresses
		quick DEL "s$1" "$id" eth0 "$conf" || echo "DEL $id"
	done
}
for ((i = 0; i < 8; i++)); do
	new_pod "s$i"
done
: >/run/addresses
start_sweeping 100
workers=()
for ((i = 0; i < 8; i++)); do
	worker "$i" 40 >"/run/worker-$i" 2>&1 &
	workers+=("$!")
done
wait "${workers[@]}"
sleep 0.3
stop_sweeping
is "$(cat /run/worker-*)" '' '8 at a time, 320 cycles of ADD, CHECK and DEL while sweeping: each succeeds'
is "$(wc -l </run/addresses)" 320 '... each has an address'
is "$(told orphans) $(told leases)" '0 0' '... nothing was healed that was not ill'
clean_slate '... and nothing is left'

done_testing
