#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# flatnetctl ipam: the address book held against the links, and what is released and what is not.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/ctl.sh"

store=/run/flatnet/ipam/pods
make_node n1 -
conf=$(flat_conf '.ipam.rangeEnd = "10.244.1.20"')
conf_file n1 "$conf"
ctl_json ipam check
ctl_exits 0 'before the first pod all is well'
json "$ctl_out" '.networks == [{network: "pods", total: 19, used: 0, free: 19, inFlight: 0, foreign: 0, leaked: 0,
	broken: 0, lost: 0, state: "ok"}] and .problems == []' 'with the range of the configuration'

add_pod n1 a "$conf"                                                     # .2 used
leak n1 b "$conf"                                                        # .3 leaked
add_pod n1 c "$conf"                                                     # .4 lost
on n1 rm "$store/10.244.1.4"
on n1 bash -c "printf 'ctr-x\r\neth0' >$store/10.244.1.10"               # as host-local writes
on n1 bash -c ": >$store/10.244.1.11"                                    # broken
on n1 bash -c "printf 'ctr-y\r\neth0\n' >$store/10.244.1.12"             # in flight
on n1 flock -x "$store/10.244.1.12" sleep 1000 &
at_exit kill $!
until on n1 bash -c "! flock -n $store/10.244.1.12 true"; do sleep 0.02; done

state_of() {
	jq -r --arg ip "$1" '.addresses[] | select(.address == $ip).state' <<<"$ctl_out"
}
ctl_json ipam list
ctl_exits 0 'a list is no judgement'
is "$(state_of 10.244.1.2)" used 'a pod has it'
is "$(state_of 10.244.1.3)" leaked 'its link is gone'
is "$(state_of 10.244.1.4)" lost 'nobody has reserved it'
is "$(state_of 10.244.1.10)" foreign 'host-local reserved it'
is "$(state_of 10.244.1.11)" broken 'its file is empty'
is "$(state_of 10.244.1.12)" 'in flight' 'an ADD holds its lock'
json "$ctl_out" '[.addresses[].address | split(".")[3] | tonumber] == [2, 3, 4, 10, 11, 12]' 'in the order of addresses'
json "$ctl_out" '.addresses[] | select(.address == "10.244.1.2") | .containerID == "ctr-a" and .interface == "eth0" and
	(.hostInterface | startswith("veth"))' 'with its owner'

ctl_json ipam check
ctl_exits 1 'check judges'
json "$ctl_out" '.networks[0] | .used == 1 and .leaked == 1 and .lost == 1 and .foreign == 1 and .broken == 1 and
	.inFlight == 1 and .free == 13 and .state == "wrong"' 'and counts'
json "$ctl_out" '.problems | length == 3' 'three are problems'
ok 'the leaked one' problem '10.244.1.3 is leaked: container ctr-b'
ok 'the lost one' problem '10.244.1.4 is used by container ctr-c'
ok 'the broken one' problem '10.244.1.11 is empty or unreadable'
while read -r command; do
	shown n1 "$command"
done < <(jq -r '.problems[].evidence' <<<"$ctl_out")
ctl ipam check
like "$ctl_out" 'Problems.*10\.244\.1\.3 is leaked.*shown by: cat.*cure: +flatnetctl ipam release 10\.244\.1\.3' \
	'for people, too'

ctl_json ipam show 10.244.1.3
ctl_exits 1 'show of a leaked one'
json "$ctl_out" '.state == "leaked" and .network == "pods" and .containerID == "ctr-b" and
	.file == "/run/flatnet/ipam/pods/10.244.1.3" and .range == "10.244.1.1-10.244.1.20"' 'tells all of it'
ctl_json ipam show 10.244.1.2
ctl_exits 0 'show of a used one'
json "$ctl_out" '.state == "used" and .containerID == "ctr-a" and (.hostInterface | startswith("veth"))' '... whose it is'
ctl_json ipam show 10.244.1.15
ctl_exits 0 'show of a free one'
json "$ctl_out" '.state == "free" and .network == "pods"' '... says so'
ctl_json ipam show 10.244.1.1
json "$ctl_out" '.state | startswith("the gateway")' 'the gateway is never free'
ctl_json ipam show 10.244.1.99
json "$ctl_out" '.state | startswith("outside of the range")' 'nor is what is outside of the range'
ctl ipam show 192.0.2.7
ctl_exits 3 "an address of somewhere else"
ctl ipam show nonsense
ctl_exits 2 'what is no address'

before=$(on n1 sh -c "ls $store; cat $store/*" | sha256sum)
ctl ipam list
ctl ipam check
ctl ipam show 10.244.1.3
is "$(on n1 sh -c "ls $store; cat $store/*" | sha256sum)" "$before" 'looking changes nothing'

# ---- release

ctl ipam release
ctl_exits 2 'release of nothing'
ctl ipam release 10.244.1.3 --leaked
ctl_exits 2 'release of one and of all'
ctl_json ipam release 10.244.1.2
ctl_exits 4 "a pod's address is refused"
json "$ctl_out" '.released[0] | .result == "refused" and (.why | test("delete the pod"))' '... with the reason'
ok '... and stays reserved' on n1 test -s "$store/10.244.1.2"
ok '... and works' pod_exec n1 a ping -c 1 -W 1 10.244.1.1
ctl_json ipam release 10.244.1.12
ctl_exits 4 'so is one in flight'
ok '... it stays' on n1 test -s "$store/10.244.1.12"
ctl_json ipam release 10.244.1.10
ctl_exits 4 "so is another program's"
json "$ctl_out" '.released[0].why | test("--foreign")' '... unless one insists'
ok '... it stays' on n1 test -s "$store/10.244.1.10"
ctl_json ipam release 10.244.1.3 10.244.1.17
ctl_exits 0 'a leaked one and a free one'
json "$ctl_out" '[.released[].result] == ["freed", "free already"]' 'are told apart'
fails 'the file is gone' on n1 test -e "$store/10.244.1.3"
ok 'the lost one is reserved again, by the way' on n1 grep -q ctr-c "$store/10.244.1.4"
ctl_json ipam release --leaked
ctl_exits 0 'all that are leaked'
json "$ctl_out" '[.released[] | .address, .result] == ["10.244.1.11", "freed"]' 'are the broken one now'
ctl ipam release --leaked
is "$ctl_out" 'nothing is leaked' 'then none are left'

# Another program's pod may hang on another bridge, or on none.
on n1 ip netns add theirs
on n1 ip link add foreign type veth peer name eth0 netns theirs
on n1 ip -n theirs address add 10.244.1.10/24 dev eth0
on n1 ip -n theirs link set eth0 up
on n1 ip link set foreign up
on n1 ip route add 10.244.1.10 dev foreign
on n1 ip address add 192.0.2.1/32 dev foreign
on n1 ip -n theirs route add 192.0.2.1 dev eth0
ctl_json ipam release 10.244.1.10 --foreign
ctl_exits 4 'who answers keeps his address'
json "$ctl_out" '.released[0].why | test("answers")' '... and that is why'
on n1 ip link del foreign
ctl_json ipam release 10.244.1.10 --foreign
ctl_exits 0 "another program's, with nobody there"
fails '... is gone' on n1 test -e "$store/10.244.1.10"

# Two with one address.
on n1 ip link set "$(on n1 ip -j link show type veth | jq -r '.[] | select(.ifalias? // "" | test("ctr-c")).ifname')" \
	alias 'flatnet pods ctr-c eth0 10.244.1.2'
ctl_json ipam check
ctl_exits 1 'two pods with one address'
ok '... are named' problem '10.244.1.2 .*ctr-a.*ctr-c|10.244.1.2 .*ctr-c.*ctr-a'

# A store that no configuration tells of, and one elsewhere.
on n1 mkdir -p /run/flatnet/ipam/old /run/elsewhere/there
on n1 bash -c "printf 'ctr-o\r\neth0\n' >/run/flatnet/ipam/old/10.9.0.2; printf 'ctr-e\r\neth0' >/run/elsewhere/there/10.8.0.2"
ctl_json ipam list --network old
json "$ctl_out" '.addresses | length == 1 and .[0].state == "leaked"' 'a network whose configuration is gone'
ctl_json ipam list --data-dir /run/elsewhere --network there
json "$ctl_out" '.addresses[0] | .containerID == "ctr-e" and .state == "foreign"' 'a folder of another program'
done_testing
