#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Many at once.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

conf=$(flat_conf '.ipMasq = true')
export conf FLAT_BIN
for ((i = 0; i < 64; i++)); do
	echo "netns add p$i"
done | ip -batch -
mkdir /run/out
# at_once N VERB < list of pods: N calls at a time; output in /run/out/POD, status appended to /run/rc
at_once() {
	# shellcheck disable=SC2016
	xargs -P "$1" -I POD bash -c '
		rc=0
		CNI_COMMAND=$1 CNI_NETNS=/run/netns/$2 CNI_CONTAINERID=ctr-$2 CNI_IFNAME=eth0 \
			timeout 60 "$FLAT_BIN/flatnet" <<<"$conf" >/run/out/$2 2>>/run/stderr || rc=$?
		echo $rc >>/run/rc' call "$2" POD
}
all_ok() { # COUNT NAME
	is "$(sort /run/rc | uniq -c | tr -s ' ' | sed 's/^ //')" "$1 0" "$2"
	[[ ! -s /run/stderr ]] || diag "$(head -n 5 /run/stderr)"
	rm -f /run/rc /run/stderr
}
pods() {
	seq -f 'p%g' "$1" "$2"
}

# ---- 64 ADDs, eight at a time, on a node with no bridge yet -----------------------------------------

pods 0 63 | at_once 8 ADD
all_ok 64 '64 ADDs, eight at a time, with no bridge before'
is "$(jq -r '.ips[0].address' /run/out/* | sort -u | wc -l)" 64 '... 64 addresses'
is "$(reservations | wc -l) $(veths | wc -l)" '64 64' '... 64 reservations, 64 links'
is "$(ip -all netns exec ip -4 -o address show dev eth0 2>/dev/null | grep -oE 'inet 10[0-9.]+' | sort -u | wc -l)" 64 '... the kernel has them'
is "$(jq -r '.interfaces[0].mac' /run/out/* | sort -u)" 0a:58:0a:f4:01:01 '... all tell the same bridge'
is "$(ip -j -4 address show dev cni0 | jq -r '[.[0].addr_info[].local] | join(" ")')" 10.244.1.1 '... which has one address'
is "$(nft -s list ruleset | grep -c masquerade)" 1 '... and the rules are there once'
ok '... the first reaches the last' can_ping - p0 "$(pod_ip - p63)"
for pod in p0 p31 p63; do
	cni CHECK $pod ctr-$pod eth0 <<<"$(with_prev "$conf" "$(</run/out/$pod)")"
	cni_ok "... CHECK of $pod"
done

# ---- DEL ------------------------------------------------------------------------------------------------

printf 'p0\np0\np0\np0\np0\np0\np0\np0\n' | at_once 8 DEL
all_ok 8 'eight DELs of one pod at once'
is "$(veth_of ctr-p0)" '' '... it is gone'
pods 1 63 | at_once 8 DEL
all_ok 63 '63 DELs, eight at a time'
clean_slate 'nothing is left'

# ---- one attachment, many ADDs ----------------------------------------------------------------------------

printf 'p1\np1\np1\np1\np1\np1\n' | at_once 6 ADD
is "$(sort /run/rc | uniq -c | tr -s ' ' | tr '\n' ,)" ' 1 0, 5 1,' 'six ADDs of one attachment at once: one succeeds'
rm -f /run/rc /run/stderr
is "$(reservations | wc -l) $(veths | wc -l)" '1 1' '... one reservation, one link'
is "$(pod_ip - p1)" "$(reservations)" '... which belong together'
echo p1 | at_once 1 DEL
rm -f /run/rc
clean_slate 'and nothing after DEL'

# ---- coming and going ----------------------------------------------------------------------------------------

churn() {
	local i
	for ((i = 0; i < 8; i++)); do
		CNI_COMMAND=ADD CNI_NETNS=/run/netns/$1 CNI_CONTAINERID=ctr-$1 CNI_IFNAME=eth0 \
			timeout 60 "$FLAT_BIN/flatnet" <<<"$conf" >/run/out/"$1" 2>>/run/stderr || echo "ADD $(</run/out/"$1")" >>/run/rc
		CNI_COMMAND=DEL CNI_NETNS=/run/netns/$1 CNI_CONTAINERID=ctr-$1 CNI_IFNAME=eth0 \
			timeout 60 "$FLAT_BIN/flatnet" <<<"$conf" >/run/out/"$1" 2>>/run/stderr || echo "DEL $(</run/out/"$1")" >>/run/rc
	done
}
remove_all
: >/run/rc
workers=()
for pod in p0 p1 p2 p3 p4 p5; do
	churn $pod &
	workers+=($!)
done
for ((i = 0; i < 10; i++)); do
	quick GC p0 '' '' "$(jq -c '."cni.dev/valid-attachments" = [range(6) | {containerID: "ctr-p\(.)", ifname: "eth0"}]' <<<"$conf")" >>/run/rc 2>&1 || :
	sleep 0.05
done
wait "${workers[@]}"
is "$(</run/rc)" '' 'six pods come and go eight times each, with GC in between: no failure'
clean_slate 'nothing is left'

# A range of two for four pods: some fail with 101, nobody gets what another has.
conf=$(flat_conf '.ipam += {rangeStart: "10.244.1.10", rangeEnd: "10.244.1.11"}')
for _ in 1 2 3; do
	rm -f /run/rc /run/out/*
	pods 0 3 | at_once 4 ADD
	is "$(sort /run/rc | tr '\n' ' ')" '0 0 1 1 ' 'two addresses for four pods: two succeed'
	is "$(jq -r '.code // empty' /run/out/* | sort -u)" 101 '... the others hear that the range is full'
	is "$(reservations | tr '\n' ' ')$(veths | wc -l)" '10.244.1.10 10.244.1.11 2' '... both addresses are used'
	pods 0 3 | at_once 4 DEL
	clean_slate '... and come back'
done

# Two networks on two bridges, and IPv6, at once.
remove_all
rm -f /run/rc /run/out/*
conf=$(flat_conf '.name = "other"' '.bridge = "br1"' '.ipam = {ranges: [[{subnet: "10.244.2.0/24"}], [{subnet: "fd00:2::/64"}]]}')
pods 0 15 | at_once 8 ADD &
other=$!
conf=$(flat_conf)
pods 16 31 | at_once 8 ADD
wait "$other"
all_ok 32 'two networks at once, one of them dual stack'
is "$(veths | wc -l)" 32 '... all are there'

done_testing
