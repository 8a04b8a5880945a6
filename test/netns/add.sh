#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# ADD on one node: what the kernel has afterwards, for each key of the configuration.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

number=0 bare=$(state)
# fresh JQ...: a new pod p1, p2, ... in a node as new, and conf: flat_conf JQ...; try: ADD of it
fresh() {
	remove_all
	((number == 0)) || del_pod - "$pod"
	: $((++number))
	pod=p$number
	conf=$(flat_conf "$@")
	make_pod - "$pod"
}
try() {
	fresh "$@"
	cni ADD "$pod" "ctr-$pod" eth0 <<<"$conf"
}
del() {
	cni DEL "$pod" "ctr-$pod" eth0 <<<"$conf"
	cni_ok "$1"
}
# refused CODE REGEX NAME: the ADD failed so, and left nothing behind
refused() {
	cni_fails "$1" "$2" "$3"
	is "$(state)" "$bare"$'\n'"pod $pod lo" "$3: nothing is left behind"
}
result() {
	jq -r "$1" <<<"$cni_out"
}
pod_routes() {
	pod_exec - "$pod" ip -j "${1:--4}" route |
		jq -r '.[] | select(.dst | test("^(fe80|ff00)") | not) | "\(.dst) \(.gateway // .scope // "-")"' | sort
}

# ---- the scene of the mission -------------------------------------------------------------------

echo 0 >/proc/sys/net/ipv4/ip_forward
CNI_ARGS='K8S_POD_NAMESPACE=web;IP=10.244.1.23;K8S_POD_NAME=shop-0;IgnoreUnknown=1' try '.mtu = 1450'
cni_ok 'ADD with a requested address and mtu 1450'
is "$cni_err" '' 'nothing to remark on stderr'
host=$(veth_of "ctr-$pod")
like "$host" '^veth[0-9a-f]{11}$' 'host veth: veth and 11 hex digits, found by its alias'
is "$(link "$host" .ifalias)" "flatnet pods ctr-$pod eth0 10.244.1.23 web/shop-0" 'alias: network, container, interface, address, pod'
is "$(jq -Sc . <<<"$cni_out")" "$(jq -Snc --arg host "$host" --arg mac "$(link "$host" .address)" '{
	cniVersion: "1.1.0",
	interfaces: [
		{name: "cni0", mac: "0a:58:0a:f4:01:01", mtu: 1450},
		{name: $host, mac: $mac, mtu: 1450},
		{name: "eth0", mac: "0a:58:0a:f4:01:17", mtu: 1450, sandbox: "/run/netns/p1"}],
	ips: [{address: "10.244.1.23/24", gateway: "10.244.1.1", interface: 2}],
	routes: [{dst: "0.0.0.0/0", gw: "10.244.1.1"}]}')" 'the result, exactly'
is "$(pod_mac - "$pod")" 0a:58:0a:f4:01:17 'MAC of the pod: 0a:58 and its address'
is "$(pod_link "$pod" eth0 '"\(.mtu) \(.operstate) \(.linkinfo.info_kind)"')" '1450 UP veth' 'eth0: MTU 1450, up, a veth'
is "$(link "$host" '"\(.mtu) \(.operstate) \(.master)"')" '1450 UP cni0' 'host veth: MTU 1450, up, a port of cni0'
is "$(link cni0 '"\(.mtu) \(.address) \(.linkinfo.info_kind)"')" '1450 0a:58:0a:f4:01:01 bridge' 'bridge: MTU 1450, MAC of the gateway'
is "$(cat /sys/class/net/cni0/addr_assign_type)" 3 'the MAC of the bridge was set at creation (udev leaves it alone)'
is "$(cat "/sys/class/net/$host/addr_assign_type")" 3 'so was that of the host veth'
is "$(bridge -j -d link show dev "$host" | jq -r '.[0] | "\(.hairpin) \(.isolated) \(.state)"')" 'true false forwarding' 'port: hairpin, not isolated, forwarding'
is "$(pod_ip - "$pod")" 10.244.1.23 'the pod has its address'
is "$(ip -j -4 address show dev cni0 | jq -r '.[0].addr_info[] | "\(.local)/\(.prefixlen)"')" 10.244.1.1/24 'the bridge has the gateway'
is "$(pod_routes)" $'10.244.1.0/24 10.244.1.1\n10.244.1.1 link\ndefault 10.244.1.1' 'routed: every way of the pod leads through the node'
is "$(sysctl_of net/ipv4/ip_forward)" 1 'ip_forward is on'
is "$(sysctl_of net/ipv4/conf/all/send_redirects) $(sysctl_of net/ipv4/conf/cni0/send_redirects)" '0 0' 'the bridge sends no redirects'
is "$(pod_sysctl "$pod" net/ipv4/conf/eth0/arp_notify)" 1 'arp_notify in the pod'
is "$(sysctl_of net/ipv6/conf/cni0/accept_ra)" 0 'the bridge believes no router'
is "$(link cni0 .promiscuity) $(link cni0 '.flags | index("PROMISC") != null')" '0 false' 'the bridge is not promiscuous'
ok 'the pod reaches its gateway' can_ping - "$pod" 10.244.1.1
ok 'the node reaches the pod' ping -n -q -c 1 -W 1 10.244.1.23
ok 'the pod reaches itself' can_ping - "$pod" 10.244.1.23
is "$(reservations)" 10.244.1.23 'one reservation'
is "$(tr '\r' '|' <"$store/pods/10.244.1.23" | head -n 2 | tr '\n' ',')" "ctr-$pod|,eth0," 'in the layout of host-local'
first=$cni_out
make_pod - neighbour
cni ADD neighbour ctr-neighbour eth0 <<<"$conf"
cni_ok 'ADD of a neighbour'
is "$(result '.ips[0].address')" 10.244.1.24/24 'it gets the next address'
ok 'they reach each other' can_ping - neighbour 10.244.1.23
ok 'and back' can_ping - "$pod" 10.244.1.24
cni CHECK "$pod" "ctr-$pod" eth0 <<<"$(with_prev "$conf" "$first")"
cni_ok 'CHECK agrees'
before=$(state)
cni ADD "$pod" "ctr-$pod" eth0 <<<"$conf"
cni_fails 102 'attached.*already' 'a second ADD of the same attachment is refused'
is "$(state)" "$before" '... and leaves the first as it is'
cni ADD "$pod" other eth0 <<<"$conf"
cni_fails 102 'eth0' 'so is another container with the same interface in that namespace'
is "$(state)" "$before" '... and leaves nothing behind'
cni DEL neighbour ctr-neighbour eth0 <<<"$conf"
del 'DEL'
clean_slate 'after DEL no veth and no reservation is left'
is "$(pod_link "$pod" eth0 .ifname)" '' 'nor an interface in the pod'
del 'DEL once more'
del_pod - neighbour

# ---- what the node is for the pod ---------------------------------------------------------------

try '.bridgeMode = "l2"'
cni_ok 'bridgeMode l2'
is "$(pod_routes)" $'10.244.1.0/24 link\ndefault 10.244.1.1' 'l2: the subnet is on the wire'
try '.bridgeMode = "l3"'
refused 7 'bridgeMode' 'an unknown bridgeMode'

try '.isGateway = false'
cni_ok 'isGateway false'
is "$(pod_routes)" '10.244.1.0/24 link' 'no gateway: the subnet alone'
is "$(ip -j -4 address show dev cni0 | jq '[.[0].addr_info[]?] | length')" 0 '... and no address on the bridge'
json "$cni_out" '(.routes // []) == [] and (.ips[0] | .address == "10.244.1.2/24")' '... and no route in the result'
try '.isGateway = false' '.bridgeMode = "routed"'
refused 7 'isGateway' 'routed without a gateway'
try '.isGateway = false' '.isDefaultGateway = true'
cni_ok 'isDefaultGateway implies isGateway'
like "$(pod_routes)" 'default 10.244.1.1' '... with its route'

try '.isDefaultGateway = false'
cni_ok 'isDefaultGateway false'
is "$(pod_routes)" $'10.244.1.0/24 10.244.1.1\n10.244.1.1 link' '... no default route in the pod'
json "$cni_out" '(.routes // []) == [] and .ips[0].gateway == "10.244.1.1"' '... nor in the result, but the gateway'

try '.ipam.routes = [{dst: "192.0.2.0/24"}, {dst: "198.51.100.0/24", gw: "10.244.1.9", mtu: 1300, priority: 50}, {dst: "0.0.0.0/0"}]'
cni_ok 'routes of the IPAM'
is "$(pod_routes)" $'10.244.1.0/24 10.244.1.1\n10.244.1.1 link\n192.0.2.0/24 10.244.1.1\n198.51.100.0/24 10.244.1.9\ndefault 10.244.1.1' '... are in the pod, once each'
is "$(pod_exec - "$pod" ip -d route show 198.51.100.0/24 | grep -oE '(mtu|metric) [0-9]+' | sort | tr '\n' ' ')" 'metric 50 mtu 1300 ' '... with their attributes'
json "$cni_out" '[.routes[] | .dst] == ["192.0.2.0/24", "198.51.100.0/24", "0.0.0.0/0"]' '... and in the result'
cni CHECK "$pod" "ctr-$pod" eth0 <<<"$(with_prev "$conf" "$cni_out")"
cni_ok '... and CHECK finds them'

try '.ipam.gateway = "10.244.1.254"'
cni_ok 'ipam.gateway'
is "$(ip -j -4 address show dev cni0 | jq -r '.[0].addr_info[].local') $(link cni0 .address)" '10.244.1.254 0a:58:0a:f4:01:fe' '... is the address of the bridge, and its MAC'

# ---- both families ------------------------------------------------------------------------------

try '.ipam = {ranges: [[{subnet: "10.244.1.0/24"}], [{subnet: "fd00:10:244:1::/64"}]]}'
cni_ok 'dual stack'
cmp_ok "$cni_ms" -lt $((${FLAT_SANITIZED:-0} ? 20000 : 1000)) '... without waiting for duplicate address detection'
is "$(pod_ip - "$pod") $(pod_ip6 - "$pod")" '10.244.1.2 fd00:10:244:1::2' '... one address of each'
is "$(pod_exec - "$pod" ip -j -6 address show dev eth0 | jq '[.[0].addr_info[] | select(.tentative)] | length')" 0 '... none tentative'
like "$(pod_routes -6)" 'default fd00:10:244:1::1' '... and a default route'
is "$(sysctl_of net/ipv6/conf/all/forwarding)" 1 '... IPv6 forwarding is on'
ok '... the gateway answers' can_ping - "$pod" fd00:10:244:1::1
json "$cni_out" '[.ips[].interface] == [2, 2] and [.routes[].dst] == ["0.0.0.0/0", "::/0"]' '... the result has both'
del '... DEL'
clean_slate '... and nothing is left'

try '.ipam = {subnet: "fd00:10:244:1::/64"}'
cni_ok 'IPv6 alone'
like "$(pod_mac - "$pod")" '^[0-9a-f][26ae]:' '... a locally administered MAC'
ok '... the gateway answers' can_ping - "$pod" fd00:10:244:1::1

try '.ipam.subnet = "fd00:10:244:1::/64"' '.enabledad = true'
cni_ok 'enabledad true'
is "$(pod_sysctl "$pod" net/ipv6/conf/eth0/accept_dad) $(pod_sysctl "$pod" net/ipv6/conf/eth0/enhanced_dad)" '1 1' '... accept_dad and enhanced_dad are 1 in the pod'
try '.ipam.subnet = "fd00:10:244:1::/64"'
is "$(pod_sysctl "$pod" net/ipv6/conf/eth0/accept_dad)" 0 'enabledad false: accept_dad is 0'

# With it an ADD takes a second or two. An interface that somebody removes meanwhile is no success: while
# the address is tentative, or before that was looked at (the third setns).
is_tentative() {
	[[ $(pod_exec - "$pod" ip -6 -o address show dev eth0 tentative) == *fd00* && $(ip -o link show master cni0 up) ]]
}
for delay in 0 2000000; do
	fresh '.ipam.subnet = "fd00:10:244:1::/64"' '.enabledad = true'
	CNI_COMMAND=ADD CNI_NETNS=/run/netns/$pod CNI_CONTAINERID=ctr-$pod CNI_IFNAME=eth0 \
		traced -e trace=setns -e inject="setns:delay_enter=$delay:when=3" <<<"$conf" >/run/out 2>/run/stderr &
	add=$!
	for _ in {1..500}; do
		! is_tentative 2>/dev/null || break
		sleep 0.01
	done
	pod_exec - "$pod" ip link del eth0
	cni_rc=0
	wait "$add" || cni_rc=$?
	cni_out=$(</run/out)
	refused 100 "interface 'eth0' is gone again" "an interface that goes while ADD waits ($delay us)"
done

# ---- the link -----------------------------------------------------------------------------------

for mtu in 0 68 1280 9000 65535; do
	try ".mtu = $mtu"
	cni_ok "mtu $mtu"
	is "$(pod_link "$pod" eth0 .mtu)" "$((mtu ? mtu : 1500))" "... is the pod's"
done
for mtu in -1 1 67 65536 1e9 1450.5 '"1450"' true; do
	try ".mtu = $mtu"
	refused 7 '^mtu: ' "mtu $mtu"
done

try '.hairpinMode = false'
cni_ok 'hairpinMode false'
is "$(bridge -j -d link show dev "$(veth_of "ctr-$pod")" | jq '.[0].hairpin')" false '... hairpin is off'
try '.hairpinMode = true'
is "$(bridge -j -d link show dev "$(veth_of "ctr-$pod")" | jq '.[0].hairpin')" true 'hairpinMode true: hairpin is on'
try '.promiscMode = true'
cni_ok 'promiscMode'
is "$(link cni0 '.flags | index("PROMISC") != null')" true '... the bridge is promiscuous'
is "$(bridge -j -d link show dev "$(veth_of "ctr-$pod")" | jq '.[0].hairpin')" false '... and hairpin is off then'
try '.promiscMode = true' '.hairpinMode = true'
refused 7 'hairpin.*promisc' 'promiscMode with hairpinMode'
try '.portIsolation = true'
cni_ok 'portIsolation'
is "$(bridge -j -d link show dev "$(veth_of "ctr-$pod")" | jq '.[0].isolated')" true '... the port is isolated'
is "$(pod_routes)" $'10.244.1.0/24 link\ndefault 10.244.1.1' '... and there is no way around it through the node'
try '.bridge = "br-web"'
cni_ok 'bridge'
is "$(link "$(veth_of "ctr-$pod")" .master)" br-web '... has the pod'
is "$(link cni0 .ifname)" '' '... and cni0 is not made'
for name in much-too-long-name 'a b' a/b .; do
	try ".bridge = \"$name\""
	refused 7 '^bridge: ' "bridge \"$name\""
done

# ---- the MAC, in the precedence of the conventions ----------------------------------------------

CNI_ARGS='MAC=02:00:00:00:00:01' try .
is "$(pod_mac - "$pod")" 02:00:00:00:00:01 'MAC of CNI_ARGS'
CNI_ARGS='MAC=02:00:00:00:00:01' try '.args.cni.mac = "02:00:00:00:00:02"'
is "$(pod_mac - "$pod")" 02:00:00:00:00:02 'args.cni.mac goes before it'
CNI_ARGS='MAC=02:00:00:00:00:01' try '.args.cni.mac = "02:00:00:00:00:02"' '.runtimeConfig.mac = "02:00:00:00:00:03"'
is "$(pod_mac - "$pod")" 02:00:00:00:00:03 'runtimeConfig.mac goes before both'
is "$(result '.interfaces[2].mac')" 02:00:00:00:00:03 '... and is in the result'
try '.runtimeConfig.mac = "01:00:5e:00:00:01"'
refused 7 'multicast' 'a multicast MAC'
try '.runtimeConfig.mac = "02:00:00"'
refused 7 'runtimeConfig.mac' 'no MAC at all'
CNI_ARGS='MAC=nonsense' try .
refused 4 'MAC' 'no MAC in CNI_ARGS'

# ---- without addresses --------------------------------------------------------------------------

try '.ipam = {type: ""}'
cni_ok 'layer 2 only'
json "$cni_out" '(.ips // []) == [] and (.interfaces | length) == 3' '... the result has interfaces and no address'
is "$(pod_link "$pod" eth0 .operstate)" UP '... eth0 is up'
is "$(pod_routes)" '' '... without routes'
is "$(reservations)" '' '... nor reservations'
cni CHECK "$pod" "ctr-$pod" eth0 <<<"$(with_prev "$conf" "$cni_out")"
cni_ok '... CHECK agrees'
del '... DEL'
clean_slate '... and nothing is left'

try '.disableContainerInterface = true' '.ipam = {type: ""}'
cni_ok 'disableContainerInterface'
is "$(pod_link "$pod" eth0 .operstate)" DOWN '... eth0 stays down'
try '.disableContainerInterface = true'
refused 7 'disableContainerInterface.*ipam' 'disableContainerInterface with ipam'

# ---- dns ----------------------------------------------------------------------------------------

printf 'nameserver 192.0.2.53\nsearch a.example b.example\noptions ndots:5\n' >/run/resolv
try '.ipam.resolvConf = "/run/resolv"'
is "$(result '.dns | tojson')" '{"nameservers":["192.0.2.53"],"search":["a.example","b.example"],"options":["ndots:5"]}' 'resolvConf'
try '.ipam.resolvConf = "/run/resolv"' '.dns = {nameservers: ["198.51.100.53"], domain: "c.example"}'
is "$(result '.dns | tojson')" '{"nameservers":["198.51.100.53"],"domain":"c.example"}' 'dns of the configuration goes before it'
try '.ipam.resolvConf = "/run/missing"'
refused 5 'resolvConf.*missing' 'resolvConf that is not there'

# ---- the bridge that is there already -----------------------------------------------------------

remove_all
ip link add cni0 type bridge
ip address add 10.99.0.1/16 dev cni0
ip link set cni0 up
conf=$(flat_conf)
make_pod - a
cni ADD a ctr-a eth0 <<<"$conf"
cni_ok 'an address that nobody uses is replaced'
is "$(ip -j -4 address show dev cni0 | jq -r '[.[0].addr_info[].local] | join(" ")')" 10.244.1.1 '... by the gateway'
conf=$(flat_conf '.ipam.subnet = "10.244.9.0/24"' '.name = "other"')
make_pod - b
before=$(state)
cni ADD b ctr-b eth0 <<<"$conf"
cni_fails 102 'cni0.*10\.244\.1\.1/24' 'a second network on the same bridge with another subnet is refused, and told why'
like "$(result .details)" 'forceAddress|ip link show master' '... and what to do'
is "$(state)" "$before" '... and leaves nothing behind'
cni ADD b ctr-b eth0 <<<"$(jq -c '.forceAddress = true' <<<"$conf")"
cni_ok 'forceAddress'
is "$(ip -j -4 address show dev cni0 | jq -r '[.[0].addr_info[].local] | join(" ")')" 10.244.9.1 '... replaces it all the same'
del_pod - a
del_pod - b

remove_all
ip link add cni0 type bridge
ip link set cni0 address 02:aa:aa:aa:aa:aa
try_mac=$(link cni0 .address)
make_pod - c
cni ADD c ctr-c eth0 <<<"$(flat_conf)"
cni_ok 'a bridge that is there, down and without an address'
is "$(link cni0 '"\(.operstate) \(.address)"')" "UP $try_mac" '... is taken up, and keeps its MAC'
is "$(result '.interfaces[0].mac')" "$try_mac" '... which the result tells'
del_pod - c

remove_all
ip link add cni0 type veth peer name other0
make_pod - d
before=$(state)
cni ADD d ctr-d eth0 <<<"$(flat_conf)"
cni_fails 7 "cni0.*not a bridge" 'a link of that name that is no bridge'
is "$(state)" "$before" '... stays as it is, and nothing is left behind'
ip link del cni0
del_pod - d

# ---- what is not supported ----------------------------------------------------------------------

if ip link add probe0 type bridge vlan_filtering 1 2>/dev/null && [[ $(link probe0 .linkinfo.info_data.vlan_filtering) == 1 ]]; then
	ip link del probe0
	skip 'VLAN keys on a kernel without VLAN filtering' 'this kernel has it'
else
	ip link del probe0 2>/dev/null || :
	try '.vlan = 100'
	refused 2 'vlan' 'vlan on a kernel without VLAN filtering'
	try '.vlanTrunk = [{minID: 100, maxID: 200}, {id: 5}]'
	refused 2 'vlanTrunk' 'vlanTrunk on a kernel without VLAN filtering'
fi
try '.vlan = 4095'
refused 7 '^vlan: ' 'vlan 4095'
try '.vlanTrunk = [{minID: 200, maxID: 100}]'
refused 7 'minID.*greater' 'vlanTrunk: minID above maxID'
try '.vlanTrunk = [{minID: 100}]'
refused 7 'maxID.*missing' 'vlanTrunk: without maxID'
try '.ipMasqBackend = "iptables"' '.ipMasq = true'
cni_ok 'ipMasqBackend iptables'
like "$cni_err" 'ipMasqBackend' '... says on stderr that it is not used'
try '.ipMasqBackend = "pf"'
refused 7 'ipMasqBackend.*pf' 'an unknown ipMasqBackend'
try '.ipam.subnet = "10.244.1.5/24"'
refused 7 'host bits' 'a subnet with host bits'
try 'del(.ipam)'
refused 11 'not known' 'no subnet anywhere'

# ---- odd but right ------------------------------------------------------------------------------

remove_all
long=$(printf 'x%.0s' {1..1000})
make_pod - e
conf=$(flat_conf '.name = ("n" * 200)')
cni ADD e "$long" eth0.123456789a <<<"$conf"
cni_ok 'names as long as they come'
like "$(link "$(jq -r '.interfaces[1].name' <<<"$cni_out")" .ifalias)" '^flatnet [^ ]+ ~[0-9a-f]{16} eth0.123456789a 10.244.1.2$' '... the alias has their hash'
cni CHECK e "$long" eth0.123456789a <<<"$(with_prev "$conf" "$cni_out")"
cni_ok '... CHECK agrees'
cni DEL e "$long" eth0.123456789a <<<"$conf"
cni_ok '... DEL'
clean_slate '... and nothing is left'

conf=$(flat_conf)
cni ADD e ctr-e eth0 <<<"$conf"
pod_exec - e ip link set eth0 down
pod_exec - e ip link set eth0 name lan0
cni DEL e ctr-e eth0 <<<"$conf"
cni_ok 'DEL after the pod renamed its interface'
clean_slate '... and nothing is left'
pod_exec - e ip link add eth0 type veth peer name eth9
cni DEL e ctr-e eth0 <<<"$conf"
cni_ok "DEL where eth0 is somebody else's"
is "$(pod_link e eth0 .ifname)" eth0 '... leaves it alone'

done_testing
