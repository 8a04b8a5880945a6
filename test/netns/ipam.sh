#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Addresses: which one is next, requests, range sets, DEL; one store with host-local.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

get() {
	jq -r "$1" <<<"$cni_out"
}
# add POD [IFNAME]: ADD with $conf as container ctr-POD; del likewise
add() {
	cni ADD "$1" "ctr-$1" "${2:-eth0}" <<<"$conf"
}
del() {
	cni DEL "$1" "ctr-$1" "${2:-eth0}" <<<"$conf"
}
next() { # the address that the next pod gets, which goes again at once
	add spare
	address=$(get '.ips[0].address // .msg')
	del spare
}

for pod in a b c spare; do
	make_pod - "$pod"
done

# ---- which one is next --------------------------------------------------------------------------

conf=$(flat_conf '.ipam += {subnet: "10.244.1.0/29"}')
seen=''
for _ in {1..7}; do
	next
	seen+="${address%/29} "
done
is "$seen" '10.244.1.2 10.244.1.3 10.244.1.4 10.244.1.5 10.244.1.6 10.244.1.2 10.244.1.3 ' 'round robin: what was freed last comes last'
add a
conf=$(flat_conf '.ipam += {subnet: "10.244.1.0/29", rangeStart: "10.244.1.5", rangeEnd: "10.244.1.6"}')
add b
is "$(get '.ips[0].address')" 10.244.1.5/29 'rangeStart'
add c
is "$(get '.ips[0].address')" 10.244.1.6/29 '... to rangeEnd'
add spare
cni_fails 101 '10\.244\.1\.5-10\.244\.1\.6' '... and not further'
remove_all

conf=$(flat_conf)
CNI_ARGS='IP=10.244.1.77' next
is "$address" 10.244.1.77/24 'CNI_ARGS IP'
conf=$(flat_conf '.args.cni.ips = ["10.244.1.78/16"]')
CNI_ARGS='IP=10.244.1.77' next
is "$address" 10.244.1.78/24 'args.cni.ips goes before it; the length is the subnet'\''s'
conf=$(flat_conf '.args.cni.ips = ["10.244.1.78"]' '.runtimeConfig.ips = ["10.244.1.79"]')
CNI_ARGS='IP=10.244.1.77' next
is "$address" 10.244.1.79/24 'runtimeConfig.ips goes before both'
conf=$(flat_conf)
CNI_ARGS='IP=10.244.1.9' add a
before=$(state)
CNI_ARGS='IP=10.244.1.9' add b
cni_fails 102 '10\.244\.1\.9.*ctr-a' 'a requested address that is taken: the owner is named'
CNI_ARGS='IP=10.244.1.1' add b
cni_fails 102 "10.244.1.1.*gateway" "a request for the gateway's"
CNI_ARGS='IP=10.9.9.9' add b
cni_fails 7 '10\.9\.9\.9' 'a request outside of the ranges'
CNI_ARGS='IP=10.244.1.20,10.244.1.21' add b
cni_fails 7 '10\.244\.1\.21' 'two requests for one range set'
is "$(state)" "$before" 'nothing of those that were refused is left'
remove_all

# ---- range sets ---------------------------------------------------------------------------------

conf=$(flat_conf '.ipam = {ranges: [[{subnet: "10.244.1.0/30"}, {subnet: "10.244.2.0/30"}]]}')
add a
one=$(get '.ips[0].address')
add b
is "$one $(get '.ips[0].address')" '10.244.1.2/30 10.244.2.2/30' 'two ranges of one set: one after the other'
add c
cni_fails 101 '10\.244\.1\.2.*10\.244\.2\.2' '... both are named when both are full'
remove_all
conf=$(flat_conf '.ipam = {ranges: [[{subnet: "10.244.1.0/24"}], [{subnet: "10.244.5.0/24"}]]}')
add a
cni_ok 'two range sets of one family'
is "$(get '[.ips[].address] | join(" ")')" '10.244.1.2/24 10.244.5.2/24' '... one address of each'
is "$(pod_exec - a ip -j -4 address show dev eth0 | jq -r '[.[0].addr_info[].local] | join(" ")')" '10.244.1.2 10.244.5.2' '... the pod has both'
ok '... and reaches both gateways' can_ping - a 10.244.5.1
cni CHECK a ctr-a eth0 <<<"$(with_prev "$conf" "$cni_out")"
cni_ok '... CHECK agrees'
del a
clean_slate '... and DEL frees both'
remove_all
conf=$(flat_conf '.ipam = {ranges: [[{subnet: "10.244.1.0/24"}], [{subnet: "10.244.6.0/30"}]]}')
add a
before=$(state)
add b
cni_fails 101 'range 1.*10\.244\.6\.2' 'the second set is full'
is "$(state)" "$before" '... and the address of the first goes back'
remove_all
for ranges in '[{Subnet: "10.244.8.0/24"}, {Subnet: "fd00:8::/64"}]' '[[{subnet: "10.244.8.0/24"}], [{subnet: "fd00:8::/64"}]]'; do
	conf=$(flat_conf 'del(.ipam.subnet)' ".runtimeConfig.ipRanges = $ranges")
	add a
	is "$(get '[.ips[].address] | join(" ")')" '10.244.8.2/24 fd00:8::2/64' "ipRanges: $ranges"
	remove_all
done
while IFS='|' read -r filter regex; do
	conf=$(flat_conf "$filter")
	add a
	cni_fails 7 "$regex" "$filter"
done <<'END'
.ipam = {ranges: [[]]}|empty range set
.ipam = {subnet: "10.244.1.0/31"}|too small
.ipam = {ranges: [[{subnet: "10.244.1.0/24"}, {subnet: "fd00::/64"}]]}|mixed address families
.ipam = {ranges: [[{subnet: "10.244.1.0/24"}, {subnet: "10.244.1.128/25"}]]}|overlap
.ipam = {ranges: [[{subnet: "10.244.1.0/24"}], [{subnet: "10.244.0.0/16"}]]}|range set 0 overlaps with 1
.ipam.rangeStart = "10.244.2.1"|RangeStart 10.244.2.1 not in network
.ipam.rangeEnd = "10.244.2.1"|RangeEnd 10.244.2.1 not in network
.ipam += {rangeStart: "10.244.1.9", rangeEnd: "10.244.1.8"}|RangeStart.*after RangeEnd
.ipam.gateway = "fd00::1"|gateway.*family
END
conf=$(flat_conf '.cniVersion = "0.2.0"' '.ipam = {ranges: [[{subnet: "10.244.1.0/24"}], [{subnet: "10.244.5.0/24"}]]}')
add a
cni_fails 7 '0\.2\.0.*more than 1 address per family' 'two addresses of a family in a version that cannot tell them'
is "$(store_files)" '' 'no reservation of all those is left'

# ---- and back -----------------------------------------------------------------------------------

conf=$(flat_conf)
add a
cni DEL a ctr-a eth0 <<<"$(with_prev "$conf" "$cni_out")"
cni_ok 'DEL with prevResult'
clean_slate '... frees the address'
add a eth0
cni_ok 'two interfaces of one container: the first'
result=$cni_out
add a eth1
cni_ok '... the second'
second=$cni_out
is "$(pod_ip - a eth0) $(pod_ip - a eth1)" "$(reservations | tr '\n' ' ' | sed 's/ $//')" '... each has its address'
cni CHECK a ctr-a eth1 <<<"$(with_prev "$conf" "$second")"
cni_ok '... CHECK of the second'
del a eth1
cni_ok '... DEL of the second'
is "$(reservations)" "$(pod_ip - a eth0)" '... leaves the first its address'
ok '... and its network' can_ping - a 10.244.1.1
cni CHECK a ctr-a eth0 <<<"$(with_prev "$conf" "$result")"
cni_ok '... CHECK of the first'
del a eth0
clean_slate '... DEL of the first frees that, too'
remove_all
conf=$(flat_conf '.ipam.dataDir = "/run/elsewhere"')
add a
is "$(find /run/elsewhere/pods -name '10.*' -printf '%f')" 10.244.1.2 'dataDir'
del a
is "$(find /run/elsewhere/pods -name '10.*' -printf '%f')" '' '... DEL looks there, too'
remove_all

# ---- flatnet-ipam on its own, and host-local in the same directory ------------------------------

conf=$(flat_conf '.ipam.type = "flatnet-ipam"')
FLAT_PLUGIN=flatnet-ipam cni ADD a ctr-a eth0 <<<"$conf"
cni_ok 'flatnet-ipam ADD'
is "$(jq -Sc . <<<"$cni_out")" '{"cniVersion":"1.1.0","ips":[{"address":"10.244.1.2/24","gateway":"10.244.1.1"}]}' '... its result'
result=$cni_out
FLAT_PLUGIN=flatnet-ipam cni CHECK a ctr-a eth0 <<<"$(with_prev "$conf" "$result")"
cni_ok '... CHECK'
FLAT_PLUGIN=flatnet-ipam cni ADD a ctr-a eth0 <<<"$conf"
cni_fails 102 'duplicate' '... ADD again'
FLAT_PLUGIN=flatnet-ipam cni STATUS - - - <<<"$conf"
cni_ok '... STATUS'
add b
is "$(get '.ips[0].address')" 10.244.1.3/24 'flatnet honours the reservation'
del b
FLAT_PLUGIN=flatnet-ipam cni DEL a ctr-a eth0 <<<"$conf"
cni_ok '... DEL'
FLAT_PLUGIN=flatnet-ipam cni DEL '' ctr-a eth0 <<<"$conf"
cni_ok '... DEL again'
FLAT_PLUGIN=flatnet-ipam cni CHECK a ctr-a eth0 <<<"$(with_prev "$conf" "$result")"
cni_fails 103 'ctr-a' '... CHECK afterwards'
clean_slate 'nothing is left'
remove_all

if [[ -n ${FLAT_REFERENCE:-} ]]; then
	conf=$(flat_conf)
	theirs=$(jq -c '.cniVersion = "1.0.0" | .type = "bridge" | .isGateway = true |
		.ipam += {type: "host-local", dataDir: "/run/flatnet/ipam"}' <<<"$conf")
	bridge_plugin() {
		FLAT_PLUGIN=$FLAT_REFERENCE/bridge cni "$1" "$2" "theirs-$2" eth0 <<<"$theirs"
	}
	bridge_plugin ADD a
	is "$(get '.ips[0].address')" 10.244.1.2/24 'the reference plugins attach a pod'
	CNI_ARGS='IP=10.244.1.2' add b
	cni_fails 102 '10\.244\.1\.2.*theirs' 'flatnet does not give its address to another'
	add b
	is "$(get '.ips[0].address')" 10.244.1.3/24 '... but the next one'
	bridge_plugin ADD c
	is "$(get '.ips[0].address')" 10.244.1.4/24 "nor do they give out flatnet's"
	FLAT_PLUGIN=$FLAT_REFERENCE/host-local cni CHECK b ctr-b eth0 <<<"$theirs"
	cni_ok 'host-local finds the reservation of flatnet'
	cni STATUS - - - <<<"$(flat_conf '.ipam.subnet = "10.244.1.0/29"')"
	cni_ok 'STATUS of the common store'
	cni DEL a theirs-a eth0 <<<"$conf"
	cni_ok 'flatnet DEL of what the reference reserved'
	is "$(reservations | tr '\n' ' ')" '10.244.1.3 10.244.1.4 ' '... frees it'
	bridge_plugin DEL c
	FLAT_PLUGIN=$FLAT_REFERENCE/host-local cni DEL b ctr-b eth0 <<<"$theirs"
	is "$(reservations | tr '\n' ' ')" '' 'host-local frees what flatnet reserved'
	printf 'old-style' >"$store/pods/10.244.1.9"
	cni DEL '' old-style eth0 <<<"$conf"
	is "$(reservations)" '' 'a reservation with nothing but the container, as old ones are, is freed by DEL'
else
	skip 'one store with host-local' 'the reference plugins could not be had'
fi

done_testing
