#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A /24 to its last address, and one pod more.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

get() {
	jq -r "$1" <<<"$cni_out"
}
# add POD [IFNAME]: ADD with $conf as container ctr-POD
add() {
	cni ADD "$1" "ctr-$1" "${2:-eth0}" <<<"$conf"
}
# ---- a whole /24 --------------------------------------------------------------------------------

for ((i = 1; i <= 254; i++)); do
	echo "netns add n$i"
done | ip -batch -
conf=$(flat_conf)
for ((i = 1; i <= 253; i++)); do
	quick ADD "n$i" "ctr-n$i" eth0 "$conf" || break
done >/run/results
is "$(jq -s length /run/results)" 253 '253 ADDs in a /24'
is "$(jq -r '.ips[0].address' /run/results | sort -u | wc -l)" 253 '... give 253 addresses, each once'
is "$(jq -r '.ips[0].address' /run/results | head -n 3 | tr '\n' ' ')" '10.244.1.2/24 10.244.1.3/24 10.244.1.4/24 ' '... in their order'
unlike "$(jq -r '.ips[0].address' /run/results | tr '\n' ' ')" '10\.244\.1\.(0|1|255)/' '... none of them the network, the gateway or the broadcast'
is "$(ip -all netns exec ip -4 -o address show dev eth0 2>/dev/null | grep -oE 'inet 10[0-9.]+' | sort -u | wc -l)" 253 '... and the kernel has them'
cni STATUS - - - <<<"$conf"
cni_fails 50 '10\.244\.1\..*reserved|no free address' 'STATUS of a full range is 50, and says so'
before=$(state)
add n254
cni_fails 101 '10\.244\.1\.[0-9]+-10\.244\.1\.254.*253' 'the 254th is refused with code 101, range and counts'
is "$(state)" "$before" '... and leaves nothing behind'
quick DEL n100 ctr-n100 eth0 "$conf"
add n254
is "$(get '.ips[0].address')" 10.244.1.101/24 'the one that comes back is given out again'
# A range that is full of the dead heals by itself: 20 pods whose links went without DEL.
for ((i = 1; i <= 20; i++)); do
	ip link del "$(veth_of "ctr-n$i")"
done
cni STATUS - - - <<<"$conf"
cni_ok 'STATUS: with 20 dead pods an ADD would succeed'
add n1
cni_ok '... and it does'
like "$(get '.ips[0].address')" '^10\.244\.1\.([2-9]|1[0-9]|2[01])/24$' '... with the address of a dead one'

done_testing
