#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What a pod may send: frames made by hand, from pods of each kind, with what becomes of them. A
# neighbour writes down all that reaches it, and the node's tables tell whom they believed.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

both='.ipam = {ranges: [[{subnet: "10.244.1.0/24"}], [{subnet: "fd00:10:244:1::/64"}]]}'
everybody=ff:ff:ff:ff:ff:ff
serial=0

# send POD FRAME...: each as frames.py takes it; there MAC, IP, IP6 and LL are the pod's own. Returns
# when the neighbour has seen what there was to see; /run/sent has a line for each.
send() {
	local pod=$1 text i
	shift
	text=$(printf '%s\n' "$@" "arp from=MAC to=$everybody src=IP dst=198.51.100.$((++serial))")
	text=${text//MAC/${mac[$pod]}}
	text=${text//IP6/${ip6[$pod]}}
	text=${text//IP/${ip[$pod]}}
	text=${text//LL/${ll[$pod]}}
	frames_in "$pod" send eth0 <<<"$text" >/run/sent
	for ((i = 0; i < 500; i++)); do # a message of its own, the last one
		! grep -q "^$(tail -n 1 /run/sent)" /run/seen || return 0
		sleep 0.02
	done
	fail "$pod can send what is its own"
}
frames_in() { # POD ARG...
	pod_exec - "$1" python3 "$FLAT_ROOT/test/lib/frames.py" "${@:2}"
}
names=() wants=() tries=()
# try NAME WANT_OPEN WANT_MAC WANT_IP FRAME: what becomes of it, sent by each kind of pod
try() {
	names+=("$1")
	wants+=("$2 $3 $4")
	tries+=("$5")
}
try_all() {
	local pod i column=0 want line
	for pod in open mac ip; do
		: >/run/seen
		send $pod "${tries[@]}"
		for i in "${!tries[@]}"; do
			read -ra want <<<"${wants[i]}"
			line=$(sed -n "$((i + 1))p" /run/sent)
			is "$(grep -q "^$line" /run/seen && echo seen || echo dropped)" "${want[column]}" "$mode, $pod: ${names[i]}"
		done
		: $((++column))
	done
}

ways() { # MODE
	mode=$1
	local conf pod
	conf=$(flat_conf "$both" ".bridgeMode = \"$mode\"")
	declare -gA mac=() ip=() ip6=() ll=()
	for pod in victim open mac ip; do
		make_pod - $pod
		case $pod in
		mac) quick ADD $pod ctr-$pod eth0 "$(jq -c '.macspoofchk = true' <<<"$conf")" >/dev/null ;;
		ip) quick ADD $pod ctr-$pod eth0 "$(jq -c '.ipspoofchk = true' <<<"$conf")" >/dev/null ;;
		*) quick ADD $pod ctr-$pod eth0 "$conf" >/dev/null ;;
		esac
		mac[$pod]=$(pod_mac - $pod) ip[$pod]=$(pod_ip - $pod) ip6[$pod]=$(pod_ip6 - $pod)
		ll[$pod]=$(pod_exec - $pod ip -j -6 address show dev eth0 scope link | jq -r '[.[].addr_info[].local // empty][0]')
	done
	: >/run/seen
	frames_in victim log eth0 >>/run/seen 2>/dev/null &
	logger=$!
	while ! grep -q ready /run/seen; do sleep 0.02; done

	names=() wants=() tries=()
	local to=to=${mac[victim]} v4=${ip[victim]} v6=${ip6[victim]} other=02:00:00:00:00:99
	try 'its own' seen seen seen "udp $to from=MAC src=IP dst=$v4"
	try 'its own, IPv6' seen seen seen "udp6 $to from=MAC src=IP6 dst=$v6"
	try 'its own, broadcast' seen seen seen "udp from=MAC src=IP dst=255.255.255.255"
	try 'its own, multicast' seen seen seen "udp6 to=33:33:00:00:00:01 from=MAC src=LL dst=ff02::1"
	try 'another MAC' seen dropped dropped "udp $to from=$other src=IP dst=$v4"
	try 'another MAC, broadcast' seen dropped dropped "udp from=$other src=IP dst=255.255.255.255"
	try 'another MAC, IPv6 multicast' seen dropped dropped "udp6 to=33:33:00:00:00:01 from=$other src=IP6 dst=ff02::1"
	try 'another MAC, no protocol' seen dropped dropped "raw $to from=$other type=0x88b5"
	try 'another MAC, with a tag' seen dropped dropped "udp tag=7 $to from=$other src=IP dst=$v4"
	try 'another address' seen seen dropped "udp $to from=MAC src=10.244.1.77 dst=$v4"
	try 'an outside address' seen seen dropped "udp $to from=MAC src=198.51.100.1 dst=$v4"
	try 'another address, broadcast' seen seen dropped "udp from=MAC src=10.244.1.1 dst=255.255.255.255"
	try 'another address, with a tag' seen seen dropped "udp tag=7 $to from=MAC src=10.244.1.77 dst=$v4"
	try 'no address' seen seen dropped "udp $to from=MAC src=0.0.0.0 dst=$v4"
	try 'DHCP, which it does not need' seen seen dropped "dhcp from=MAC"
	try 'another IPv6 address' seen seen dropped "udp6 $to from=MAC src=fd00:10:244:1::77 dst=$v6"
	try 'another link-local address' seen seen dropped "udp6 $to from=MAC src=fe80::77 dst=$v6"
	try 'no IPv6 address' seen seen dropped "udp6 $to from=MAC src=:: dst=$v6"
	try 'another protocol' seen seen dropped "raw $to from=MAC type=0x88b5"
	try 'ARP of its own' seen seen seen "arp $to from=MAC src=IP dst=$v4"
	try 'an ARP probe' seen seen seen "arp from=MAC src=0.0.0.0 dst=IP"
	try 'ARP for another address' seen seen dropped "arp $to from=MAC src=10.244.1.77 dst=$v4"
	try 'ARP for another MAC' seen seen dropped "arp $to from=MAC sha=$other src=IP dst=$v4"
	try 'ARP from another MAC' seen dropped dropped "arp $to from=$other sha=MAC src=IP dst=$v4"
	try 'an advertisement of its own' seen seen seen "na $to from=MAC src=IP6 dst=$v6 target=IP6"
	try 'an advertisement for another address' seen seen dropped "na $to from=MAC src=IP6 dst=$v6 target=fd00:10:244:1::77"
	try 'a solicitation for another address' seen seen seen "ns $to from=MAC src=IP6 dst=$v6 target=$v6"
	try 'duplicate detection of its own' seen seen seen "ns to=33:33:ff:00:00:02 from=MAC src=:: dst=ff02::1:ff00:2 target=IP6"
	try '... of another address' seen seen dropped "ns to=33:33:ff:00:00:77 from=MAC src=:: dst=ff02::1:ff00:77 target=fd00:10:244:1::77"
	try 'a multicast listener before it has an address' seen seen seen "mld to=33:33:00:00:00:16 from=MAC src=:: dst=ff02::16"
	try "a router's advertisement" seen seen dropped "ra to=33:33:00:00:00:01 from=MAC src=LL dst=ff02::1"

	try_all

	# Whom the node believes.
	believed

	: >/run/seen
	kill $logger
	wait $logger 2>/dev/null || :
	for pod in victim open mac ip; do
		quick DEL $pod ctr-$pod eth0 "$conf"
		del_pod - $pod
	done
	ip link del cni0
}

neigh_of() { # ADDRESS
	ip -j neigh show "$1" dev cni0 | jq -r '.[0].lladdr // "none"'
}
# Does the bridge think that the victim is behind that pod's port?
port_of_victim() {
	bridge -j fdb show br cni0 | jq -r --arg mac "${mac[victim]}" '[.[] | select(.mac == $mac) | .ifname][0] // "none"'
}
# Everybody knows the truth.
settle() {
	ip neigh flush dev cni0
	until can_ping - victim 10.244.1.1 && ping -n -q -c 1 -W 1 "${ip[victim]}" >/dev/null &&
		can_ping - victim fd00:10:244:1::1 && ping -n -q -c 1 -W 1 "${ip6[victim]}" >/dev/null; do
		sleep 0.1
	done
}
believed() {
	local pod want to gw home seen
	gw=$(link cni0 .address)
	home=$(veth_of ctr-victim)
	for pod in open mac ip; do
		settle
		is "$(neigh_of "${ip[victim]}") $(neigh_of "${ip6[victim]}") $(port_of_victim)" "${mac[victim]} ${mac[victim]} $home" \
			"$mode: (the node knows the victim)"
		want=${mac[$pod]}
		[[ $pod != ip ]] || want=${mac[victim]}
		# ARP does not change an entry that is fresh (arp_process(): locktime)
		sleep 1.1
		send $pod "arp to=$gw from=MAC src=${ip[victim]} dst=10.244.1.1" \
			"na to=$gw from=MAC src=IP6 dst=fd00:10:244:1::1 target=${ip6[victim]}"
		is "$(neigh_of "${ip[victim]}")" "$want" "$mode, $pod: an address is $([[ $pod == ip ]] && echo 'not ')stolen by ARP"
		is "$(neigh_of "${ip6[victim]}")" "$want" "$mode, $pod: ... and $([[ $pod == ip ]] && echo 'not ')by neighbour discovery"
		for to in $everybody 01:80:c2:00:00:0e; do
			settle
			want=$home
			[[ $pod != open ]] || want=$(veth_of ctr-open)
			for _ in 1 2 3 4 5; do # the victim may say something right after it
				send $pod "raw to=$to from=${mac[victim]} type=0x88cc"
				seen=$(port_of_victim)
				[[ $pod == open && $seen != "$want" ]] || break
			done
			is "$seen" "$want" "$mode, $pod: a port is $([[ $pod != open ]] && echo 'not ')stolen by the victim's MAC, to $to"
		done
	done
}

for m in routed l2; do
	ways $m
done
done_testing
