#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# VLANs on one bridge: which ones a port is in, who reaches whom, what CHECK sees, what a failed ADD
# and DEL leave. Each port is compared with that of the reference bridge plugin, too.
set -euo pipefail
[[ ${FLAT_IN_VM:-} ]] || exec "${0%/*}/boot" "$0"
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

# vlan_conf VLAN SUBNET [JQ...]: a network of that VLAN
vlan_conf() {
	local vlan=$1 subnet=$2
	shift 2
	flat_conf ".name = \"vlan$vlan\" | .vlan = $vlan | .ipam.subnet = \"$subnet\" | .bridge = \"br0\"" "$@"
}
# The VLANs of a port, as "100pu 200 300-302": PVID, untagged.
port_vlans() {
	bridge -j vlan show | jq -r --arg port "$1" '[.[] | select(.ifname == $port) | .vlans[] |
		{id: .vlan, end: .vlan, flags: ((.flags // []) as $f |
			(if $f | index("PVID") then "p" else "" end) +
			(if $f | index("Egress Untagged") then "u" else "" end))}] |
		reduce .[] as $v ([];
			if length > 0 and .[-1].flags == $v.flags and .[-1].end + 1 == $v.id
			then .[-1].end = $v.id else . + [$v] end) |
		map("\(.id)" + (if .end > .id then "-\(.end)" else "" end) + .flags) | join(" ")'
}
host_end() { # POD: its port
	jq -r '.interfaces[1].name' <<<"${result[$1]}"
}
gateway_port() {
	ip -j -d link show dev "$1" | jq -r '.[0].link'
}
declare -A result=() conf=()
add() { # POD CONF
	make_pod - "$1"
	conf[$1]=$2
	cni ADD "$1" "ctr-$1" eth0 <<<"$2"
	result[$1]=$cni_out
}
check() {
	cni CHECK "$1" "ctr-$1" eth0 <<<"$(with_prev "${conf[$1]}" "${result[$1]}")"
}
del() {
	cni DEL "$1" "ctr-$1" eth0 <<<"$(with_prev "${conf[$1]}" "${result[$1]}")"
}
# Does somebody in the pod's own Ethernet segment answer for this address?
arp() { # POD ADDRESS
	pod_exec - "$1" busybox arping -f -q -c 2 -w 2 -I eth0 "$2"
}

before=$(state)

# ---- two pods of VLAN 100, one of VLAN 200 --------------------------------------------------------

hundred=$(vlan_conf 100 10.100.0.0/24) two_hundred=$(vlan_conf 200 10.200.0.0/24)
add a "$hundred"
cni_ok 'ADD of a pod in VLAN 100'
add b "$hundred"
cni_ok '... and of another one'
add c "$two_hundred"
cni_ok 'ADD of a pod in VLAN 200 of the same bridge'
is "$(link br0 .linkinfo.info_data.vlan_filtering)" 1 'the bridge filters VLANs'
is "$(port_vlans "$(host_end a)")" 100pu "the first pod's port is natively in VLAN 100 only"
is "$(port_vlans "$(host_end b)")" 100pu "... the second's, too"
is "$(port_vlans "$(host_end c)")" 200pu "the third's is in VLAN 200"
like "$(gateway_port br0.100)" '^vethg[0-9a-f]{10}$' "the gateway of VLAN 100 has a port with a derived name"
is "$(port_vlans "$(gateway_port br0.100)")" 100pu '... natively in VLAN 100 only'
is "$(port_vlans "$(gateway_port br0.200)")" 200pu "the gateway's of VLAN 200 in that one"
is "$(link "$(gateway_port br0.100)" .master)" br0 '... on the bridge'
is "$(state | grep '^address br0')" 'address br0.100 10.100.0.1/24
address br0.200 10.200.0.1/24' 'the addresses of the node are there, and not on the bridge'
is "$(link br0.100 .address)" 0a:58:0a:64:00:01 "the gateway's MAC derives from its address"
isnt "$(link br0 .address)" 0a:58:0a:64:00:01 "... the bridge's does not"
is "$(sysctl_of net/ipv4/ip_forward)$(sysctl_of net/ipv6/conf/br0.100/accept_ra)$(sysctl_of net/ipv4/conf/br0.100/send_redirects)" \
	100 'sysctls are those of the gateway'
is "$(jq -c '[.interfaces[].name]' <<<"${result[a]}")" \
	"[\"br0\",\"$(host_end a)\",\"eth0\",\"br0.100\"]" 'the result names the gateway, as the last interface'
is "$(jq -r '.interfaces[3].mac' <<<"${result[a]}")" 0a:58:0a:64:00:01 '... with its MAC'

ok 'a pod reaches its neighbour in the VLAN' can_ping - a "$(pod_ip - b)"
ok '... and its gateway' can_ping - a 10.100.0.1
ok 'the pod of the other VLAN reaches its gateway' can_ping - c 10.200.0.1
ok 'the node reaches a pod' ping -n -q -c 1 -W 1 "$(pod_ip - b)"
ok 'at layer 2 the neighbour answers' arp a "$(pod_ip - b)"
pod_exec - c ip address add 10.100.0.99/24 dev eth0
fails '... an address on the same bridge in another VLAN does not' arp a 10.100.0.99
pod_exec - c ip address del 10.100.0.99/24 dev eth0
ok '... the way there is through the node' can_ping - a "$(pod_ip - c)"
# A tag is no way around: the port takes what has none.
pod_exec - a ip link add link eth0 name eth0.200 type vlan id 200
pod_exec - a ip address add 10.200.0.66/24 dev eth0.200
pod_exec - a ip link set eth0.200 up
fails '... nor by a tag of its own' pod_exec - a busybox arping -f -q -c 2 -w 2 -I eth0.200 10.200.0.1
pod_exec - a ip link del eth0.200

# ---- CHECK ----------------------------------------------------------------------------------------

for pod in a b c; do
	check "$pod"
	cni_ok "CHECK of pod $pod passes"
done
bridge vlan del vid 100 dev "$(host_end a)"
check a
cni_fails 103 'natively in VLAN 0, not 100: `bridge vlan add vid 100 ' 'CHECK sees that the VLAN is gone'
check b
cni_ok "... and that the neighbour's is not"
bridge vlan add vid 100 dev "$(host_end a)" pvid untagged
check a
cni_ok 'CHECK passes after its own advice'
bridge vlan add vid 200 dev "$(host_end a)"
check a
cni_fails 103 'is in VLAN 200, too' 'CHECK sees a VLAN too many'
bridge vlan del vid 200 dev "$(host_end a)"
bridge vlan add vid 100 dev "$(host_end a)" pvid
check a
cni_fails 103 'sends VLAN 100 with' 'CHECK sees that the VLAN is tagged'
bridge vlan add vid 100 dev "$(host_end a)" pvid untagged
check a
cni_ok '... and that it is not any more'
bridge vlan del vid 100 dev "$(gateway_port br0.100)"
check a
cni_fails 103 'VLAN' 'CHECK sees that the gateway has lost its VLAN'
fails '... which the pod notices' can_ping - a 10.100.0.1
add d "$hundred"
cni_ok 'the next ADD'
check a
cni_ok '... mends it'
ok '... for all' can_ping - a 10.100.0.1
ip link set br0.100 down
check a
cni_fails 103 "'br0.100' is down" 'CHECK sees that the gateway is down'
ip link set br0.100 up
ip address del 10.100.0.1/24 dev br0.100
check a
cni_fails 103 'br0.100.*10.100.0.1/24' 'CHECK sees that the gateway has no address'
ip link del br0.100
check a
cni_fails 103 'br0.100.* is missing' 'CHECK sees that the gateway is gone'
del d
cni_ok 'DEL without a gateway'
del_pod - d
add d "$hundred"
cni_ok 'ADD makes it again'
check a
cni_ok '... whole'
ok '... and it works' can_ping - a 10.100.0.1

# The bridge is deleted under all of them.
for pod in a b c d; do
	del "$pod"
	cni_ok "DEL of pod $pod"
	del_pod - "$pod"
done
clean_slate 'nothing of the pods is left'
ip link del br0
add a "$hundred"
cni_ok 'a gateway without its bridge does not keep ADD from working'
is "$(link "$(gateway_port br0.100)" .master) $(port_vlans "$(gateway_port br0.100)")" 'br0 100pu' '... it is attached again'
ok '... and works' can_ping - a 10.100.0.1
del a
del_pod - a
remove_all
is "$(state)" "$before" 'a clean node'

# ---- trunks, the default VLAN; the same with the reference ----------------------------------------

declare -A trunks=(
	['.vlanTrunk = [{minID: 300, maxID: 302}, {id: 400}]']='1pu 300-302 400'
	['.vlan = 100 | .vlanTrunk = [{minID: 300, maxID: 302}, {id: 304}]']='100pu 300-302 304'
	['.vlan = 100 | .preserveDefaultVlan = true']='1u 100pu'
	['.vlanTrunk = [{minID: 2, maxID: 4094}]']='1pu 2-4094'
	['.vlanTrunk = [{id: 300}] | .preserveDefaultVlan = true']='1pu 300'
	['.vlan = 4094']='4094pu'
)
for change in "${!trunks[@]}"; do
	want=${trunks[$change]}
	add a "$(flat_conf '.bridge = "br0" | .isGateway = false | .ipMasq = false' "$change")"
	cni_ok "$change"
	is "$(port_vlans "$(host_end a)")" "$want" "... the port is in $want"
	check a
	cni_ok '... CHECK agrees'
	del a
	del_pod - a
	remove_all
	[[ ${FLAT_REFERENCE:-} ]] || continue
	make_pod - a
	FLAT_PLUGIN=$FLAT_REFERENCE/bridge cni ADD a ctr-a eth0 <<<"$(flat_conf \
		'.bridge = "br0" | .cniVersion = "1.0.0" | .type = "bridge" | .ipam.type = "host-local"' "$change")"
	cni_ok '... the reference takes it'
	is "$(port_vlans "$(jq -r '.interfaces[1].name' <<<"$cni_out")")" "$want" '... and means the same'
	del_pod - a
	remove_all
	rm -rf /var/lib/cni
done
add a "$(flat_conf '.bridge = "br0" | .isGateway = false' '.vlan = 100 | .vlanTrunk = [{minID: 99, maxID: 101}]')"
is "$(port_vlans "$(host_end a)")" '99 100pu 101' 'the VLAN of untagged packets stays so inside a trunk'
del a
del_pod - a
add a "$(flat_conf '.bridge = "br0" | .isGateway = false' '.vlan = 100 | .preserveDefaultVlan = true')"
check a
cni_ok 'with preserveDefaultVlan CHECK does not mind other VLANs'
bridge vlan del vid 100 dev "$(host_end a)"
check a
cni_fails 103 'VLAN' '... but that its own is gone'
del a
del_pod - a
remove_all

# What is said in VLAN 1 reaches a port that has stayed in it, and no other. It answers in its own.
heard() { # what came into the pod while somebody in VLAN 1 asked
	local was
	was=$(received)
	busybox arping -q -c 3 -w 3 -I one0 10.100.0.2 || :
	echo $(($(received) - was))
}
received() {
	pod_exec - a ip -j -s link show dev eth0 | jq '.[0].stats64.rx.packets'
}
for keep in false true; do
	add a "$(flat_conf '.bridge = "br0" | .isGateway = false | .ipam.subnet = "10.100.0.0/24"' \
		".vlan = 100 | .preserveDefaultVlan = $keep")"
	ip link add one0 type veth peer name one1
	ip link set one1 master br0 up
	ip address add 10.100.0.200/24 dev one0
	ip link set one0 up
	sleep 1
	if [[ $keep == true ]]; then
		cmp_ok "$(heard)" -ge 3 'with preserveDefaultVlan the pod hears VLAN 1'
	else
		cmp_ok "$(heard)" -lt 3 'a pod of another VLAN hears nothing of VLAN 1'
	fi
	fails '... and is in VLAN 100 only, when it speaks' arp a 10.100.0.200
	ip link del one0
	del a
	del_pod - a
done
remove_all

# A trunk alone: what has no tag is in VLAN 1, where the gateway is, and tags lead to others.
add t "$(flat_conf '.name = "trunk" | .bridge = "br0" | .vlanTrunk = [{id: 300}]')"
cni_ok 'ADD of a trunk with a gateway'
ok '... without a tag it reaches the gateway' can_ping - t 10.244.1.1
add u "$(flat_conf '.name = "trunk" | .bridge = "br0" | .vlanTrunk = [{minID: 299, maxID: 301}]')"
cni_ok '... and of another one'
for pod in t u; do
	pod_exec - $pod ip link add link eth0 name eth0.300 type vlan id 300
	pod_exec - $pod ip address add "10.30.0.$([[ $pod == t ]] && echo 1 || echo 2)/24" dev eth0.300
	pod_exec - $pod ip link set eth0.300 up
done
ok '... tagged packets go from trunk to trunk' can_ping - t 10.30.0.2
for pod in t u; do
	del $pod
	del_pod - $pod
done
remove_all

# Tagged packets of a trunk reach the VLAN's pods, others do not.
add a "$hundred"
add t "$(flat_conf '.name = "trunk" | .bridge = "br0" | .ipam = {type: ""} | .vlanTrunk = [{minID: 99, maxID: 101}]')"
cni_ok 'ADD of a trunk'
pod_exec - t ip link add link eth0 name eth0.100 type vlan id 100
pod_exec - t ip link add link eth0 name eth0.102 type vlan id 102
pod_exec - t ip address add 10.100.0.50/24 dev eth0.100
pod_exec - t ip link set eth0.100 up
ok 'a VLAN interface in a trunk reaches the pod of that VLAN' can_ping - t "$(pod_ip - a)"
ok '... and the gateway' can_ping - t 10.100.0.1
pod_exec - t ip address del 10.100.0.50/24 dev eth0.100
pod_exec - t ip address add 10.100.0.50/24 dev eth0.102
pod_exec - t ip link set eth0.102 up
fails 'one of a VLAN outside of the trunk reaches nobody' can_ping - t 10.100.0.1
for pod in a t; do
	del "$pod"
	del_pod - "$pod"
done
remove_all

# ---- both families, L2 mode -----------------------------------------------------------------------

add a "$(vlan_conf 100 10.100.0.0/24 'del(.ipam.subnet) | .ipam.ranges = [[{subnet: "10.100.0.0/24"}], [{subnet: "fd00:100::/64"}]]')"
cni_ok 'ADD of both families'
ok '... IPv6 works at once' can_ping - a fd00:100::1
ok '... and IPv4' can_ping - a 10.100.0.1
check a
cni_ok '... CHECK passes'
del a
del_pod - a
remove_all
add a "$(vlan_conf 100 10.100.0.0/24 '.bridgeMode = "l2"')"
add b "$(vlan_conf 100 10.100.0.0/24 '.bridgeMode = "l2"')"
ok 'neighbours reach each other in L2 mode' can_ping - a "$(pod_ip - b)"
ok '... and the gateway' can_ping - b 10.100.0.1
for pod in a b; do
	del "$pod"
	del_pod - "$pod"
done
remove_all

# ---- many at once ---------------------------------------------------------------------------------

for i in {1..8}; do
	make_pod - "m$i"
done
declare -A job=()
for i in {1..8}; do
	vlan=$((i % 2 ? 100 : 200))
	quick ADD "m$i" "ctr-m$i" eth0 "$(vlan_conf $vlan 10.$vlan.0.0/24)" >"$TMPDIR/m$i" 2>&1 &
	job[$i]=$!
done
bad=''
for i in "${!job[@]}"; do
	wait "${job[$i]}" || bad+=" m$i: $(<"$TMPDIR/m$i")"
done
is "$bad" '' 'eight ADDs at once, of two VLANs and no bridge yet, all succeed'
bad=''
for i in {1..8}; do
	vlan=$((i % 2 ? 100 : 200))
	[[ $(port_vlans "$(jq -r '.interfaces[1].name' "$TMPDIR/m$i")") == "${vlan}pu" ]] || bad+=" m$i"
	can_ping - "m$i" "10.$vlan.0.1" || bad+=" m$i!"
done
is "$bad" '' '... each in its VLAN, with its gateway'
is "$(ip -j link show master br0 | jq length)" 10 '... which there is once for each VLAN'
for i in {1..8}; do
	vlan=$((i % 2 ? 100 : 200))
	quick DEL "m$i" "ctr-m$i" eth0 "$(vlan_conf $vlan 10.$vlan.0.0/24)"
	del_pod - "m$i"
done
remove_all

# ---- what cannot be ------------------------------------------------------------------------------

is "$(state)" "$before" 'a clean node'
make_pod - a
empty=$(state)
cni ADD a ctr-a eth0 <<<"$(vlan_conf 100 10.100.0.0/24 '.bridge = "bridge0123456"')"
cni_fails 7 "'bridge0123456.100' has more than 15 characters" "a bridge's name that leaves no room is refused"
cni ADD a ctr-a eth0 <<<"$(vlan_conf 100 10.100.0.0/24 '.vlanTrunk = [{id: 0}]')"
cni_fails 7 'vlanTrunk\[0\].id' 'so is VLAN 0 in a trunk'
cni ADD a ctr-a eth0 <<<"$(vlan_conf 4095 10.100.0.0/24)"
cni_fails 7 vlan '... and VLAN 4095'
is "$(state)" "$empty" '... nothing is left'
ip link add br0.100 type bridge
with_other=$(state)
cni ADD a ctr-a eth0 <<<"$hundred"
cni_fails 7 "'br0.100' exists and is not" "somebody else's br0.100 is not touched"
is "$(state)" "$with_other" '... nothing is left of that ADD'
ip link del br0.100
# The last step fails: nobody reads the result.
CNI_COMMAND=ADD CNI_NETNS=/run/netns/a CNI_CONTAINERID=ctr-a CNI_IFNAME=eth0 CNI_PATH=$FLAT_BIN \
	"$FLAT_BIN/flatnet" <<<"$hundred" >/dev/full 2>&1 && rc=0 || rc=$?
cmp_ok "$rc" -ne 0 'an ADD whose result cannot be written fails'
is "$(state)" "$empty" '... and takes back bridge, gateway, port, rules and reservation'
make_pod - b
add b2 "$two_hundred"
with_b2=$(state)
CNI_COMMAND=ADD CNI_NETNS=/run/netns/b2 CNI_CONTAINERID=ctr-a CNI_IFNAME=eth0 CNI_PATH=$FLAT_BIN \
	"$FLAT_BIN/flatnet" <<<"$two_hundred" >/dev/null 2>&1 && rc=0 || rc=$?
cmp_ok "$rc" -ne 0 'an ADD for a name that is taken fails'
is "$(state)" "$with_b2" '... and leaves the gateway of others'
ok '... working' can_ping - b2 10.200.0.1
del b2
cni_ok DEL
ip link add br1 type bridge
cni ADD a ctr-a eth0 <<<"$(vlan_conf 100 10.100.0.0/24 '.bridge = "br1"')"
cni_fails 2 "bridge 'br1' has no VLAN filtering" 'a bridge that does not filter is refused'

done_testing
