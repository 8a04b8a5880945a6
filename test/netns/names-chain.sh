#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Chained plugins by the names of the reference's: behind the reference's bridge and behind ours,
# with the other side's CHECK and DEL.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

theirs=${FLAT_REFERENCE:-}
[[ -n $theirs ]] || skip_all 'the reference plugins could not be had'
ours=/var/lib/cni/ours
mkdir -p $ours
cp -L "$FLAT_BIN/flatnet" $ours
for name in bridge host-local portmap bandwidth tuning; do
	ln -s flatnet $ours/$name
done
reservation=/var/lib/cni/networks

# run VERB SIDE PLUGIN POD CONF
run() {
	FLAT_PLUGIN=${!2}/$3 CNI_PATH=${!2} cni "$1" "$4" "ctr-$4" eth0 <<<"$5"
}
base=$(flat_conf '.ipam = {type: "host-local", ranges: [[{subnet: "10.9.0.0/24"}], [{subnet: "fd00:9::/64"}]]} | .isGateway = true | .isDefaultGateway = true')
bridge=$(jq -c '.type = "bridge"' <<<"$base")
fresh() {
	remove_all
	rm -rf $reservation
	local link
	for link in $(ip -j link show type ifb | jq -r '.[].ifname'); do ip link del "$link"; done
}
# first SIDE: pod a by the bridge plugin of that side; its result in $first
first() {
	fresh
	make_pod - a
	run ADD "$1" bridge a "$bridge"
	first=$cni_out
}
# last SIDE: the DEL of the bridge plugin
last() {
	run DEL "$1" bridge a "$(with_prev "$bridge" "$first")"
	del_pod - a 2>/dev/null || :
}
# The namespace goes, and the link a little later, when the kernel comes to it.
lose_pod() {
	local veth i
	veth=$(jq -r '.interfaces[1].name' <<<"$first")
	del_pod - a
	for ((i = 0; i < 100; i++)); do
		ip link show dev "$veth" >/dev/null 2>&1 || return 0
		sleep 0.1
	done
}
without_ifb() {
	jq -Sc '.interfaces |= map(select(.name | test("^(bwp|fbw)") | not))' <<<"$1"
}

# ---- portmap ---------------------------------------------------------------------------------------

portmap=$(jq -c '{cniVersion, name, type: "portmap", runtimeConfig: {portMappings: [
	{hostPort: 8080, containerPort: 80, protocol: "tcp"}, {hostPort: 5353, containerPort: 53, protocol: "udp", hostIP: "192.0.2.1"}]}}' <<<"$base")
make_wire w
ip link add uplink type veth peer name upper netns "${node_pid[w]}"
on w ip link set upper master wire up
ip link set uplink up
ip address add 192.0.2.1/24 dev uplink
make_node out w 192.0.2.9/24

# Does the port lead to the pod, from outside, from here, and through 127.0.0.1?
serve() {
	pod_exec - a timeout 20 socat -T1 TCP-LISTEN:80,reuseaddr,fork SYSTEM:'echo pod' &
	sleep 0.3
}
leads() { # FROM ADDRESS
	[[ $(on "$1" timeout 2 socat -T1 - "TCP:$2:8080,connect-timeout=1" </dev/null 2>/dev/null) == pod ]]
}
traces() { # of host ports, on either side
	{ iptables-save -t nat; ip6tables-save -t nat; nft list ruleset; } 2>/dev/null | grep -cE 'CNI-DN-|(10\.9\.0\.|fd00:9::).*(8080|5353)|(8080|5353).*(10\.9\.0\.|fd00:9::)|10\.9\.0\.[0-9]* (\. )?(80|53)' || :
}

# port_turn FIRST ADDER OTHER NAME CONF
port_turn() {
	local who=$1 adder=$2 other=$3 name="portmap: $1's bridge, $2's portmap, $3's CHECK and DEL${4:+, $4}" conf=${5:-$portmap} prev
	first "$who"
	run ADD "$adder" portmap a "$(with_prev "$conf" "$first")"
	cni_ok "$name: ADD"
	is "$(jq -Sc . <<<"$cni_out")" "$(jq -Sc . <<<"$first")" "$name: the result is passed on"
	prev=$cni_out
	serve
	ok "$name: from outside" leads out 192.0.2.1
	ok "$name: from the node" leads - 192.0.2.1
	ok "$name: through 127.0.0.1" leads - 127.0.0.1
	run CHECK "$other" portmap a "$(with_prev "$conf" "$prev")"
	cni_ok "$name: CHECK"
	run DEL "$other" portmap a "$(with_prev "$conf" "$prev")"
	cni_ok "$name: DEL"
	fails "$name: ... the port is closed" leads out 192.0.2.1
	[[ $other == theirs && $adder == ours ]] || is "$(traces)" 0 "$name: ... no trace of it is left"
	run DEL "$other" portmap a "$(with_prev "$conf" "$prev")"
	cni_ok "$name: DEL once more"
	last "$who"
	cni_ok "$name: DEL of the bridge"
}
port_turn ours ours ours
port_turn theirs ours ours
port_turn ours theirs ours
port_turn theirs theirs ours
port_turn theirs theirs ours 'by nftables' "$(jq -c '.backend = "nftables"' <<<"$portmap")"

# Ways in which a pod goes; its ports go with it.
for who in ours theirs; do
	for adder in ours theirs; do
		first $who
		run ADD $adder portmap a "$(with_prev "$portmap" "$first")"
		run DEL ours portmap a "$portmap"
		cni_ok "portmap: $who's bridge, $adder's portmap: DEL without prevResult"
		is "$(traces)" 0 '... leaves no trace'
		last $who
		first $who
		run ADD $adder portmap a "$(with_prev "$portmap" "$first")"
		lose_pod
		run DEL ours portmap a "$portmap"
		cni_ok "portmap: $who's bridge, $adder's portmap: DEL after the namespace, without prevResult"
		is "$(traces)" 0 '... leaves no trace'
		last $who
		first $who
		run ADD $adder portmap a "$(with_prev "$portmap" "$first")"
		FLAT_PLUGIN=$ours/portmap cni DEL '' ctr-a eth0 <<<"$(with_prev "$portmap" "$cni_out")"
		cni_ok "portmap: $who's bridge, $adder's portmap: DEL with an empty CNI_NETNS"
		is "$(traces)" 0 '... leaves no trace'
		last $who
	done
	first $who
	run ADD ours portmap a "$(with_prev "$portmap" "$first")"
	FLAT_PLUGIN=$ours/portmap cni GC '' '' '' <<<"$(jq -c '."cni.dev/valid-attachments" = []' <<<"$portmap")"
	cni_ok "portmap: GC"
	cmp_ok "$(traces)" -gt 0 '... leaves what a link stands for'
	make_pod - b
	run ADD "$who" bridge b "$bridge"
	run ADD ours portmap b "$(with_prev "$portmap" "$cni_out")"
	cni_fails 102 '8080.*ctr-a' "portmap: a port that is taken, behind $who's bridge, names the owner"
	run DEL "$who" bridge b "$bridge"
	del_pod - b
	last $who
done

first ours
run ADD ours portmap a "$portmap"
cni_fails 7 'chained' 'portmap: no prevResult'
run ADD ours portmap a "$(with_prev "$(jq -c 'del(.runtimeConfig)' <<<"$portmap")" "$first")"
is "$(jq -Sc . <<<"$cni_out")" "$(jq -Sc . <<<"$first")" 'portmap: without ports it passes on what came'
run ADD ours portmap a "$(with_prev "$(jq -c '.runtimeConfig.portMappings[0].hostPort = 0' <<<"$portmap")" "$first")"
cni_fails 7 'portMappings\[0\]\.hostPort' 'portmap: hostPort 0'
run CHECK ours portmap a "$(with_prev "$portmap" "$first")"
cni_fails 103 'route_localnet|8080' 'portmap: CHECK of ports that are not there'
last ours
first ours
old=$(jq -c '.cniVersion = "0.2.0" | .prevResult = {cniVersion: "0.2.0", ip4: {ip: "10.9.0.2/24"}}' <<<"$portmap")
run ADD ours portmap a "$old"
cni_ok 'portmap: version 0.2.0, whose prevResult names no interfaces'
serve
ok '... leads to the pod' leads out 192.0.2.1
run DEL ours portmap a "$old"
is "$(traces)" 0 '... and DEL takes it back'
last ours

# ---- bandwidth -------------------------------------------------------------------------------------

bandwidth=$(jq -c '{cniVersion, name, type: "bandwidth", runtimeConfig: {bandwidth: {ingressRate: 16000000, ingressBurst: 1600000, egressRate: 8000000, egressBurst: 800000}}}' <<<"$base")
# All TBFs: rate, burst and latency in the order of rates
shapers() {
	tc -j qdisc show | jq -Sc '[.[] | select(.kind == "tbf") | .options | {rate, burst, lat}] | sort_by(.rate)'
}
ifbs() {
	ip -j link show type ifb | jq length
}
want=
for who in theirs ours; do
	for adder in theirs ours; do
		for other in theirs ours; do
			[[ $other == ours || $adder == theirs ]] || continue
			name="bandwidth: $who's bridge, $adder's bandwidth, $other's CHECK and DEL"
			first $who
			run ADD $adder bandwidth a "$(with_prev "$bandwidth" "$first")"
			cni_ok "$name: ADD"
			is "$(without_ifb "$cni_out")" "$(jq -Sc . <<<"$first")" "$name: the result is passed on"
			is "$(jq -c '.interfaces[-1] | [.name, .mac]' <<<"$cni_out")" \
				"$(ip -j link show type ifb | jq -c '.[] | [.ifname, .address]')" "$name: ... with the IFB"
			prev=$cni_out
			[[ -n $want ]] || want=$(shapers)
			is "$(shapers)" "$want" "$name: the shapers are the reference's"
			run CHECK $other bandwidth a "$(with_prev "$bandwidth" "$prev")"
			cni_ok "$name: CHECK"
			run DEL $other bandwidth a "$(with_prev "$bandwidth" "$prev")"
			cni_ok "$name: DEL"
			is "$(ifbs)" 0 "$name: ... the IFB is gone"
			run DEL $other bandwidth a "$(with_prev "$bandwidth" "$prev")"
			cni_ok "$name: DEL once more"
			last $who
			is "$(ip -j link show master cni0 | jq length)" 0 "$name: nothing is left"
		done
	done
	first $who
	run ADD ours bandwidth a "$(with_prev "$bandwidth" "$first")"
	lose_pod
	run DEL ours bandwidth a "$bandwidth"
	is "$(ifbs)" 0 "bandwidth: DEL after the namespace, without prevResult, behind $who's bridge"
	last $who
	first $who
	run ADD ours bandwidth a "$(with_prev "$bandwidth" "$first")"
	FLAT_PLUGIN=$ours/bandwidth cni GC '' '' '' <<<"$(jq -c '."cni.dev/valid-attachments" = []' <<<"$bandwidth")"
	is "$(ifbs)" 1 "bandwidth: GC leaves what a link stands for, behind $who's bridge"
	ip link del "$(jq -r '.interfaces[1].name' <<<"$first")"
	FLAT_PLUGIN=$ours/bandwidth cni GC '' '' '' <<<"$(jq -c '."cni.dev/valid-attachments" = []' <<<"$bandwidth")"
	is "$(ifbs)" 0 '... and removes the rest'
	last $who
done
first ours
run ADD ours bandwidth a "$(with_prev "$(jq -c 'del(.runtimeConfig)' <<<"$bandwidth")" "$first")"
is "$(jq -Sc . <<<"$cni_out")$(ifbs)" "$(jq -Sc . <<<"$first")0" 'bandwidth: without rates it passes on what came'
with_prev "$bandwidth" "$first" >/run/conf
fails 'bandwidth: an ADD whose result nobody takes fails' bash -c "CNI_PATH=$ours CNI_COMMAND=ADD CNI_CONTAINERID=ctr-a CNI_NETNS=/run/netns/a CNI_IFNAME=eth0 $ours/bandwidth </run/conf >/dev/full"
is "$(ifbs)" 0 '... and leaves no IFB'
last ours

# ---- tuning ----------------------------------------------------------------------------------------

tuning=$(jq -c '{cniVersion, name, type: "tuning", mac: "02:00:00:00:00:17", mtu: 1400, promisc: true, allmulti: true, txQLen: 77,
	sysctl: {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "300"}}' <<<"$base")
of_link() {
	pod_exec - a ip -j -d link show eth0 | jq -c '.[0] | [.address, .mtu, .txqlen, (.promiscuity > 0), (.flags | index("ALLMULTI") != null)]'
}
settings() {
	of_link
	pod_sysctl a net/ipv4/conf/eth0/arp_filter
	pod_sysctl a net/core/somaxconn
}
want=
for adder in theirs ours; do
	for other in theirs ours; do
		name="tuning by $adder, CHECK and DEL by $other"
		first ours
		before=$(of_link)
		run ADD $adder tuning a "$(with_prev "$tuning" "$first")"
		cni_ok "$name: ADD"
		is "$(jq -Sc . <<<"$cni_out")" "$(jq -Sc '.interfaces[2].mac = "02:00:00:00:00:17" | .interfaces[2].mtu |= if . and "'$adder'" == "ours" then 1400 else . end' <<<"$first")" "$name: the result"
		prev=$cni_out
		[[ -n $want ]] || want=$(settings)
		is "$(settings)" "$want" "$name: the interface and the sysctls"
		isnt "$before" "$(of_link)" "$name: ... which are others than before"
		ok "$name: the pod is still reached" ping -n -q -c 1 -W 2 10.9.0.2
		run CHECK $other tuning a "$(with_prev "$tuning" "$prev")"
		cni_ok "$name: CHECK"
		run DEL $other tuning a "$(with_prev "$tuning" "$prev")"
		cni_ok "$name: DEL"
		is "$(of_link)" "$before" "$name: ... the interface is as before"
		is "$(find /run/cni/tuning -type f)" '' "$name: ... and no file is left"
		run DEL $other tuning a "$(with_prev "$tuning" "$prev")"
		cni_ok "$name: DEL once more"
		last ours
	done
	first ours
	run ADD $adder tuning a "$(with_prev "$tuning" "$first")"
	del_pod - a
	run DEL ours tuning a "$tuning"
	cni_ok "tuning by $adder: DEL by ours after the namespace"
	is "$(find /run/cni/tuning -type f)" '' '... leaves no file'
	last ours
done
first ours
before=$(settings)
run ADD ours tuning a "$(with_prev "$(jq -c '.sysctl["net.core.missing"] = "1"' <<<"$tuning")" "$first")"
cni_fails 2 'net\.core\.missing' 'tuning: a sysctl that is not there'
is "$(settings)$(find /run/cni/tuning -type f)" "$before" '... and nothing has changed'
with_prev "$tuning" "$first" >/run/conf
fails 'tuning: an ADD whose result nobody takes fails' bash -c "CNI_PATH=$ours CNI_COMMAND=ADD CNI_CONTAINERID=ctr-a CNI_NETNS=/run/netns/a CNI_IFNAME=eth0 $ours/tuning </run/conf >/dev/full"
is "$(settings)$(find /run/cni/tuning -type f)" "$before" '... and nothing has changed'
run ADD ours tuning a "$tuning"
cni_fails 7 'chained' 'tuning: no prevResult'
for jq in '.mac = "01:00:00:00:00:01"' '.mtu = 5' '.dataDir = "here"' '.sysctl = {"kernel.hostname": "x"}'; do
	run ADD ours tuning a "$(with_prev "$(jq -c "$jq" <<<"$tuning")" "$first")"
	cni_fails 7 '' "tuning: $jq"
done
is "$(settings)" "$before" '... nothing has changed'
# later ones win: CNI_ARGS, runtimeConfig, args.cni
for step in '.|02:00:00:00:00:33' '.runtimeConfig.mac = "02:00:00:00:00:34"|02:00:00:00:00:34' '.args.cni.mac = "02:00:00:00:00:35"|02:00:00:00:00:35'; do
	tuning=$(jq -c "${step%|*}" <<<"$tuning")
	for who in theirs ours; do
		CNI_ARGS='MAC=02:00:00:00:00:33' run ADD $who tuning a "$(with_prev "$tuning" "$first")"
		is "$(pod_mac - a)" "${step##*|}" "tuning by $who: the MAC of ${step%%=*}"
		run DEL $who tuning a "$(with_prev "$tuning" "$first")"
	done
done
last ours
done_testing
