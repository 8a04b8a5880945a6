#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The reference's IPAM plugins below flatnet, as they are: host-local, static, and dhcp with its daemon
# and a real DHCP server on the segment of the bridge.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

[[ -n ${FLAT_REFERENCE:-} ]] || skip_all 'the reference plugins could not be had'
make_pod - a
make_pod - b

# use JQ...: the configuration from here on
use() {
	conf=$(flat_conf "$@")
}
add() { # POD
	cni ADD "$1" "ctr-$1" eth0 <<<"$conf"
	result=$cni_out
}
check() {
	cni CHECK "$1" "ctr-$1" eth0 <<<"$(with_prev "$conf" "$result")"
}
del() {
	cni DEL "$1" "ctr-$1" eth0 <<<"$(with_prev "$conf" "$result")"
}
gc() { # VALID
	cni GC '' '' '' <<<"$(jq -c ".\"cni.dev/valid-attachments\" = $1" <<<"$conf")"
}
status() {
	cni STATUS - - - <<<"$conf"
}
# With a link of that name which is no bridge, what comes after the IPAM fails.
add_fails() { # POD NAME
	ip link add taken0 type veth peer name taken1
	cni ADD "$1" "ctr-$1" eth0 <<<"$(jq -c '.bridge = "taken1"' <<<"$conf")"
	cni_fails 7 'not a bridge' "$2"
	ip link del taken0
}

# ---- host-local ------------------------------------------------------------------------------------------

theirs() {
	find /run/theirs/pods -name '*.*.*.*' -o -name '*:*' 2>/dev/null | sed 's:.*/::' | sort | tr '\n' ' '
}
use '.ipam = {type: "host-local", dataDir: "/run/theirs", ranges: [[{subnet: "10.244.4.0/24"}], [{subnet: "fd00:4::/64"}]]}' \
	'.ipMasq = true'
status
cni_ok 'host-local: STATUS'
add a
cni_ok '... ADD'
is "$(pod_ip - a) $(pod_ip6 - a) " "$(theirs)" '... the addresses are those that it reserved'
ok '... IPv4 works' can_ping - a 10.244.4.1
ok '... and IPv6' can_ping - a fd00:4::1
is "$(pod_mac - a)" 0a:58:0a:f4:04:02 '... the MAC derives from the address'
check a
cni_ok '... CHECK'
mv "/run/theirs/pods/$(pod_ip - a)" "/run/theirs/pods/$(pod_ip6 - a)" /run/
check a
like "$cni_rc $cni_out" '^1 .*host-local' '... CHECK passes on what host-local misses'
mv /run/10.244.4.* /run/fd00* /run/theirs/pods/
gc '[{"containerID": "ctr-a", "ifname": "eth0"}]'
cni_ok '... GC'
check a
cni_ok '... leaves it'
add_fails b '... an ADD that fails after it'
is "$(theirs)" "$(pod_ip - a) $(pod_ip6 - a) " '... gives the addresses back'
del_pod - a
del a
cni_ok '... DEL without the namespace'
is "$(theirs)$(veths)" '' '... leaves nothing'
make_pod - a
remove_all

# ---- static ----------------------------------------------------------------------------------------------

use '.ipam = {type: "static", addresses: [{address: "10.10.0.5/16", gateway: "10.10.0.1"}, {address: "fd00:10::5/64"}],
	routes: [{dst: "0.0.0.0/0", mtu: 1400}], dns: {nameservers: ["10.10.0.53"]}}'
status
cni_ok 'static: STATUS'
add a
cni_ok '... ADD'
is "$(pod_ip - a) $(pod_ip6 - a) $(jq -r '.dns.nameservers[0]' <<<"$result")" '10.10.0.5 fd00:10::5 10.10.0.53' '... its addresses and dns'
is "$(pod_exec - a ip -j route show default | jq -r '.[0] | "\(.gateway) \(.metrics[0].mtu)"')" '10.10.0.1 1400' '... and its route'
ok '... IPv4 works' can_ping - a 10.10.0.1
ok '... and IPv6' can_ping - a fd00:10::1
check a
cni_ok '... CHECK'
gc '[]'
cni_ok '... GC'
is "$(veths)" '' '... takes the link away'
del a
cni_ok '... DEL after it'
use '.ipam = {type: "static"}' '.isGateway = false'
CNI_ARGS='IP=10.11.0.7/24;GATEWAY=10.11.0.1;IgnoreUnknown=1' add a
cni_ok 'static: the address in CNI_ARGS'
is "$(pod_ip - a)" 10.11.0.7 '... is the pod'\''s'
CNI_ARGS='IP=10.11.0.7/24;GATEWAY=10.11.0.1;IgnoreUnknown=1' check a
cni_ok '... CHECK'
del a
is "$(veths)" '' '... DEL'
remove_all

# ---- dhcp ------------------------------------------------------------------------------------------------

# A bridge of the node with a wire in it, on which a router gives addresses, to be renewed every three
# seconds.
make_wire wire
make_node router wire 10.9.0.1/24
on router ip address add 192.0.2.1/32 dev lo
on wire ip link add here type veth peer name up0 netns $$
on wire ip link set here master wire up
ip link add br0 type bridge
ip link set up0 master br0 up
ip link set br0 up
# The reference's daemon says good-bye from 0.0.0.0, which no UDP socket of Linux ever gets; servers that
# read raw packets do. The rule makes dnsmasq one of these.
on router nft -f - <<'END'
table netdev dhcp {
	chain in {
		type filter hook ingress device eth0 priority 0
		ip saddr 0.0.0.0 ip daddr 10.9.0.1 udp dport 67 ip saddr set 10.9.0.250
	}
}
END
serve_dhcp() { # NODE LINK PREFIX: on that link, which has the address PREFIX.1/24, of which two addresses are to be had
	on "$1" dnsmasq --no-daemon --conf-file=/dev/null --port=0 "--interface=$2" --bind-interfaces --user=root --group=root \
		--no-ping "--dhcp-range=$3.100,$3.101,255.255.255.0,2m" --dhcp-authoritative --dhcp-leasefile=/run/leases \
		"--dhcp-option=option:router,$3.1" --dhcp-option-force=option:T1,3 --log-dhcp --log-facility=/run/dnsmasq.log \
		</dev/null >/dev/null 2>&1 &
	disown
	local end=$((SECONDS + 10))
	until on "$1" ss -Hlun 'sport = 67' | grep -q .; do
		((SECONDS < end)) || return 1
		sleep 0.02
	done
}
said() { # REGEX: how often the server said it
	on router grep -cE "$1" /run/dnsmasq.log || :
}
leases() {
	on router cut -d ' ' -f 3 /run/leases 2>/dev/null | sort | tr '\n' ' '
}
leased() { # COUNT
	(($(leases | wc -w) == $1))
}
use '.bridge = "br0" | .ipam = {type: "dhcp"}'
bare=$(state)
add a
like "$cni_rc $cni_out" '^1 .*ipam .dhcp.*daemon' 'dhcp: without its daemon ADD fails, and says so'
is "$(state)" "$bare" '... and leaves nothing'
"$FLAT_REFERENCE/dhcp" daemon -timeout 2s -resendtimeout 5s </dev/null >/run/dhcp.log 2>&1 &
disown
eventually 5 '... the daemon is there' test -S /run/cni/dhcp.sock
serve_dhcp router eth0 10.9.0
status
cni_ok '... STATUS'
add a
cni_ok '... ADD'
is "$(pod_ip - a) " "$(leases)" '... the address is a lease of the server'
is "$(jq -r '.interfaces[2].mac' <<<"$result")" "$(pod_mac - a)" '... the MAC is in the result'
is "$(on router cut -d ' ' -f 2 /run/leases)" "$(pod_mac - a)" '... the server knows the pod by it'
is "$(jq -r '.ips[0].gateway, .routes[0].dst' <<<"$result" | tr '\n' ' ')" '10.9.0.1 0.0.0.0/0 ' '... the gateway is the network'\''s'
is "$(ip -j -4 address show dev br0 | jq -c '[.[].addr_info[]?]')" '[]' '... the node takes no address of it'
ok '... the pod reaches what is behind the router' can_ping - a 192.0.2.1
check a
cni_ok '... CHECK'
acks=$(said 'DHCPACK\(eth0\)')
more_acks() {
	(($(said 'DHCPACK\(eth0\)') > acks))
}
eventually 10 '... the lease is renewed' more_acks
is "$(pod_ip - a) " "$(leases)" '... with the same address'
result_a=$result
add b
cni_ok '... ADD of another pod'
ok '... they reach each other' can_ping - a "$(pod_ip - b)"
gc '[{"containerID": "ctr-a", "ifname": "eth0"}, {"containerID": "ctr-b", "ifname": "eth0"}]'
cni_ok '... GC'
is "$(veths | wc -l)" 2 '... leaves them'
make_pod - c
before=$(state)
add c
isnt "$cni_rc" 0 '... ADD when the server has no address left'
is "$(state)" "$before" '... leaves nothing'
cni ADD b ctr-b2 eth0 <<<"$conf"
cni_fails 102 "interface 'eth0'" '... ADD of a name that is taken'
is "$(state)" "$before" '... leaves nothing'
result=$cni_out
cni DEL b ctr-b eth0 <<<"$conf"
cni_ok '... DEL without prevResult'
eventually 5 '... gives the lease back' leased 1
cmp_ok "$(said 'DHCPRELEASE\(eth0\)')" -eq 1 '... by a message to the server'
cni DEL b ctr-b eth0 <<<"$conf"
cni_ok '... DEL once more'
# The last step fails: nobody reads the result.
CNI_COMMAND=ADD CNI_NETNS=/run/netns/c CNI_CONTAINERID=ctr-c CNI_IFNAME=eth0 CNI_PATH=$FLAT_BIN:$FLAT_REFERENCE \
	"$FLAT_BIN/flatnet" <<<"$conf" >/dev/full 2>&1 && rc=0 || rc=$?
cmp_ok "$rc" -ne 0 '... an ADD whose result cannot be written'
eventually 5 '... gives its lease back' leased 1
cmp_ok "$(said 'DHCPRELEASE\(eth0\)')" -eq 2 '... by a message, too'
fails '... and takes its link back' pod_exec - c ip link show eth0
result=$result_a
del_pod - a
del a
cni_ok '... DEL without the namespace'
eventually 5 '... gives the lease back' leased 0
is "$(veths)" '' '... leaves no link'
for version in 0.2.0 0.3.1 0.4.0 1.0.0; do
	use ".cniVersion = \"$version\"" '.bridge = "br0" | .ipam = {type: "dhcp"}'
	add c
	cni_ok "... ADD, version $version"
	ok '... works' can_ping - c 192.0.2.1
	del c
	cni_ok '... DEL'
done
use '.bridge = "br0" | .ipam = {type: "dhcp"}' '.runtimeConfig.mac = "02:00:00:00:00:77"'
add c
is "$(pod_mac - c) $(on router cut -d ' ' -f 2 /run/leases)" '02:00:00:00:00:77 02:00:00:00:00:77' '... with a MAC that the runtime asks for'
del c
del_pod - c

# The node is the router itself.
ip link add br1 type bridge
ip address add 10.8.0.1/24 dev br1
ip link set br1 up
serve_dhcp - br1 10.8.0
use '.bridge = "br1" | .isGateway = true | .ipMasq = true | .ipam = {type: "dhcp"}'
make_pod - a
add a
cni_ok 'dhcp from the node itself, which is the gateway: ADD'
result_a=$result
add b
cni_ok '... and of another pod'
ok '... they reach each other' can_ping - a "$(pod_ip - b)"
like "$(pod_exec - a ip route show 10.8.0.0/24)" 'via 10\.8\.0\.1' '... through the node'
ok '... and the gateway' can_ping - a 10.8.0.1
check b
cni_ok '... CHECK'
like "$(nft list ruleset)" 'ip saddr 10\.8\.0\.0/24 .*masquerade' '... the subnet is masqueraded'
del b
cni_ok '... DEL'
result=$result_a
del a
cni_ok '... of both'
is "$(veths)" '' '... leaves no link'

done_testing
