#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Host ports on one node: who reaches a pod by a port of the node and whom the pod then sees, whose a
# port is, and what is left of it when the pod goes, in whatever way.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"
. "${0%/*}/../lib/cluster.sh"

# The sandbox itself is the node, on the wire as 192.0.2.1; the outside has no way to the pods.
make_wire wire
make_node out wire 192.0.2.9/24 2001:db8::9/64
on wire ip link add here type veth peer name up0 netns $$
on wire ip link set here master wire up
ip address add 192.0.2.1/24 dev up0
ip address add 192.0.2.2/24 dev up0
ip address add 2001:db8::1/64 dev up0 nodad
ip address add 2001:db8::2/64 dev up0 nodad
ip link set up0 up
while [[ $(on out ip -6 address show dev eth0 tentative) ]]; do
	sleep 0.05
done
for pod in a b c; do
	make_pod - $pod
done

base=$(flat_conf '.ipMasq = true' '.clusterCIDR = ["10.244.0.0/16", "fd00:10:244::/56"]' \
	'.ipam = {ranges: [[{subnet: "10.244.1.0/24"}], [{subnet: "fd00:10:244:1::/64"}]]}')
# with_ports PORTS [JQ]: the configuration with runtimeConfig.portMappings
with_ports() {
	jq -c --argjson ports "$1" ".runtimeConfig.portMappings = \$ports | ${2:-.}" <<<"$base"
}
# port HOSTPORT CONTAINERPORT [PROTOCOL [HOSTIP]]: one mapping, its keys as go-cni writes them
port() {
	jq -nc '{HostPort: $h, ContainerPort: $c, Protocol: $p, HostIP: $ip}' \
		--argjson h "$1" --argjson c "$2" --arg p "${3:-tcp}" --arg ip "${4:-}"
}
ports() { # PORT...: a list of them
	jq -sc . <<<"$*"
}
# elements [SET]: elements of all maps and sets, or of one, without comments, one per line
elements() {
	nft -j list ruleset | jq -r --arg set "${1:-}" '
		def text: if type == "object" and has("concat") then .concat | map(tostring) | join(" ")
			elif type == "object" and has("elem") then .elem.val | text else tostring end;
		.nftables[] | (.map // .set) | select(. and .table == "flatnet" and ($set == "" or .name == $set)) |
		.name as $name | .elem[]? |
		if type == "array" then "\($name) \(.[0] | text) : \(.[1] | text)" else "\($name) \(text)" end'
}
entries() { # PATTERN: conntrack entries that match
	{ conntrack -L -f ipv4 && conntrack -L -f ipv6; } 2>/dev/null | grep -cE "$1" || :
}

# ---- all ways to a port --------------------------------------------------------------------------------

both=$(with_ports "$(ports "$(port 8080 80)" "$(port 8080 80 udp)" "$(port 8053 53 udp 192.0.2.2)" \
	"$(port 8053 53 tcp 192.0.2.2)" "$(port 8053 53 tcp 2001:db8::2)")")
cni ADD a ctr-a eth0 <<<"$both"
cni_ok 'ADD with host ports, keys as containerd sends them'
result=$cni_out
cni ADD b ctr-b eth0 <<<"$base"
a4=$(pod_ip - a) a6=$(pod_ip6 - a) b4=$(pod_ip - b) b6=$(pod_ip6 - b)
is "$(elements | grep -v pods | sort)" "$(sort <<-END
	hostports4 tcp 8080 : $a4 80
	hostports4 udp 8080 : $a4 80
	hostports4_address 192.0.2.2 tcp 8053 : $a4 53
	hostports4_address 192.0.2.2 udp 8053 : $a4 53
	hostports6 tcp 8080 : $a6 80
	hostports6 udp 8080 : $a6 80
	hostports6_address 2001:db8::2 tcp 8053 : $a6 53
END
)" 'the ports are elements of maps'
cni CHECK a ctr-a eth0 <<<"$(with_prev "$both" "$result")"
cni_ok 'CHECK agrees'
chains=$(nft -s list table inet flatnet | sed '/elements = {/,/}/d')
serve - a web 80
serve - a dns 53

# reach NAME WANT NODE POD ADDRESS PORT: over tcp and udp, the pod answers and sees WANT
reach() {
	local proto
	for proto in tcp udp; do
		is "$(ask "$3" "$4" $proto "$5" "$6" || echo none)" "$2" "$1, $proto"
	done
}
reach 'from outside' 'web 192.0.2.9' out - 192.0.2.1 8080
reach 'from outside, IPv6' 'web 2001:db8::9' out - 2001:db8::1 8080
reach 'from outside, another address of the node' 'web 192.0.2.9' out - 192.0.2.2 8080
reach 'from the node' 'web 192.0.2.1' - - 192.0.2.1 8080
reach 'from the node, IPv6' 'web 2001:db8::1' - - 2001:db8::1 8080
reach 'from the node, its bridge' 'web 10.244.1.1' - - 10.244.1.1 8080
reach 'from the node, 127.0.0.1' 'web 10.244.1.1' - - 127.0.0.1 8080
reach 'from a neighbour' "web $b4" - b 192.0.2.1 8080
reach 'from a neighbour, IPv6' "web $b6" - b 2001:db8::1 8080
reach 'from a neighbour, the gateway' "web $b4" - b 10.244.1.1 8080
reach 'from the pod itself' 'web 10.244.1.1' - a 192.0.2.1 8080
reach 'from the pod itself, IPv6' 'web fd00:10:244:1::1' - a 2001:db8::1 8080
reach 'hostIP, from outside' 'dns 192.0.2.9' out - 192.0.2.2 8053
reach 'hostIP, from the pod itself' 'dns 10.244.1.1' - a 192.0.2.2 8053
is "$(ask out - tcp 2001:db8::2 8053 || echo none)" 'dns 2001:db8::9' 'hostIP, IPv6'
fails 'another address than hostIP does not lead there' ask out - tcp 192.0.2.1 8053
fails '... nor an IPv6 one' ask out - tcp 2001:db8::1 8053
fails '... nor 127.0.0.1' ask - - tcp 127.0.0.1 8053

# [::1]: where NAT is done before the kernel looks for forged packets, no answer gets through.
if sysctl -q -w net.bridge.bridge-nf-call-ip6tables=1 2>/dev/null; then
	cni ADD c ctr-c eth0 <<<"$(with_ports "$(ports "$(port 9 9)")")"
	fails '[::1] does not lead there, where br_netfilter is on' ask - - tcp ::1 8080
	like "$(timeout 2 bash -c 'exec 3<>/dev/tcp/::1/8080' 2>&1 || :)" refused '... and says so at once'
	quick DEL c ctr-c eth0 "$base"
	cni ADD c ctr-c eth0 <<<"$(with_ports "$(ports "$(port 9 9 tcp ::1)")")"
	cni_fails 2 'hostIP ::1 of hostPort 9 is not supported while net.bridge.bridge-nf-call-ip6tables is 1' '... as a hostIP it is refused'
	sysctl -q -w net.bridge.bridge-nf-call-ip6tables=0
	cni CHECK a ctr-a eth0 <<<"$(with_prev "$both" "$result")"
	cni_fails 103 'chains of host ports|route by which' '... CHECK tells when that has changed'
fi
cni ADD c ctr-c eth0 <<<"$(with_ports "$(ports "$(port 8054 53 tcp ::1)" "$(port 8054 53 udp ::1)")")"
cni_ok 'hostIP ::1, where br_netfilter is off'
serve - c six 53
reach 'from the node, [::1]' 'web fd00:10:244:1::1' - - ::1 8080
reach 'hostIP ::1' 'six fd00:10:244:1::1' - - ::1 8054
fails '... does not lead there from outside' ask out - tcp 2001:db8::1 8054
cni CHECK a ctr-a eth0 <<<"$(with_prev "$both" "$result")"
cni_ok '... CHECK agrees'
ip -6 route del local ::1 dev cni0
fails '... no answer gets through without the route of the bridge' ask - - tcp ::1 8080
cni CHECK a ctr-a eth0 <<<"$(with_prev "$both" "$result")"
cni_fails 103 'route by which \[::1\] gets answers' '... CHECK misses it'
quick DEL c ctr-c eth0 "$base"
del_pod - c
make_pod - c
quick ADD c ctr-c eth0 "$(with_ports "$(ports "$(port 9 9)")")" >/dev/null
reach '... and the next ADD with a port brings it back' 'web fd00:10:244:1::1' - - ::1 8080
quick DEL c ctr-c eth0 "$base"
sysctl -q -w net.bridge.bridge-nf-call-ip6tables=1 2>/dev/null || :
quick ADD c ctr-c eth0 "$(with_ports "$(ports "$(port 9 9)")")" >/dev/null
quick DEL c ctr-c eth0 "$base"
chains=$(nft -s list table inet flatnet | sed '/elements = {/,/}/d')
# a port that is not on the node is none of ours
on out ip route add 198.51.100.0/24 via 192.0.2.1
serve out - far 8080
is "$(ask - b tcp 192.0.2.9 8080 || echo none)" 'far 192.0.2.1' 'the same port of another host is left alone'

# SCTP by hand: this needs no protocol in the kernel, only its NAT.
sctp=$(cat <<'END'
import socket, struct, sys, time
def crc32c(data):
	crc = 0xffffffff
	for byte in data:
		crc ^= byte
		for _ in range(8):
			crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
	return crc ^ 0xffffffff
def listen(family):
	s = socket.socket(family, socket.SOCK_RAW, 132)
	s.settimeout(4)
	open("/run/ready", "w")
	data, peer = s.recvfrom(2048)
	if family == socket.AF_INET:
		data = data[20:]
	src, dst, _, sum = struct.unpack("!HHII", data[:12])
	good = struct.unpack("<I", data[8:12])[0] == crc32c(data[:8] + bytes(4) + data[12:])
	print(dst, peer[0], "good" if good else "bad", "checksum")
def init(family, address, port):
	s = socket.socket(family, socket.SOCK_RAW, 132)
	chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x1234, 65535, 1, 1, 1)
	head = struct.pack("!HHI", 40000, port, 0)
	s.sendto(head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk, (address, 0))
family = socket.AF_INET6 if sys.argv[2] == "6" else socket.AF_INET
listen(family) if sys.argv[1] == "listen" else init(family, sys.argv[3], int(sys.argv[4]))
END
)
sctp_seen() { # FAMILY ADDRESS PORT: what the pod c sees when the outside sends an INIT there
	rm -f /run/ready
	pod_exec - c timeout 5 python3 -c "$sctp" listen "$1" >/run/seen 2>/dev/null &
	local server=$! i
	for ((i = 0; i < 200; i++)); do
		[[ ! -e /run/ready ]] || break
		sleep 0.02
	done
	on out python3 -c "$sctp" init "$1" "$2" "$3"
	wait "$server" || :
	cat /run/seen
}
cni ADD c ctr-c eth0 <<<"$(with_ports "$(ports "$(port 3868 3868 SCTP)" "$(port 3869 3000 sctp 2001:db8::2)")")"
cni_ok 'ADD with SCTP ports'
if [[ -e /proc/sys/net/netfilter/nf_conntrack_sctp_timeout_closed ]]; then
	is "$(sctp_seen 4 192.0.2.1 3868)" '3868 192.0.2.9 good checksum' 'SCTP from outside'
	is "$(sctp_seen 6 2001:db8::2 3869)" '3000 2001:db8::9 good checksum' 'SCTP, IPv6, hostIP and another port'
else
	skip_kernel 'SCTP from outside' 'conntrack does not know SCTP'
fi
quick DEL c ctr-c eth0 "$base"

# What is for ::1 and comes from a pod is never taken, whatever the routes.
serve - - own6 9998
pod_exec - b ip -6 route del local ::1 dev lo table local
pod_exec - b ip -6 route add ::1/128 via fd00:10:244:1::1
like "$(ask - - tcp ::1 9998 || echo none)" '^own6 .*::1$' 'a service on ::1 is for the node'
dropped=$(sed -n 's/^Ip6InHdrErrors[[:space:]]*//p' /proc/net/snmp6)
fails '... and a pod does not reach it by that address' ask - b tcp ::1 9998
cmp_ok "$(sed -n 's/^Ip6InHdrErrors[[:space:]]*//p' /proc/net/snmp6)" -gt "$dropped" '... its packets came, and were dropped'
pod_exec - b ip -6 route del ::1/128 via fd00:10:244:1::1
pod_exec - b ip -6 route add local ::1 dev lo table local

# The loopback of the node is its own, though the bridge may bring answers for it.
is "$(sysctl_of net/ipv4/conf/cni0/route_localnet)" 1 'answers for 127.0.0.1 may come from the bridge'
serve - - own 9999
pod_exec - b ip route add 127.0.0.0/8 via 10.244.1.1 table 9
pod_exec - b ip rule add to 127.0.0.0/8 table 9 pref 0 2>/dev/null || :
pod_exec - b ip rule add from all lookup local pref 10
pod_exec - b ip rule del pref 0 lookup local 2>/dev/null || :
pod_exec - b sysctl -q -w net.ipv4.conf.all.route_localnet=1
is "$(ask - - tcp 127.0.0.1 9999 || echo none)" 'own 127.0.0.1' 'a service on 127.0.0.1 is for the node'
fails '... and a pod does not reach it by that address' ask - b tcp 127.0.0.1 9999
nft flush chain inet flatnet hostports_guard
is "$(ask - b tcp 127.0.0.1 9999 || echo none)" "own $b4" '(it would without our guard)'
cni CHECK a ctr-a eth0 <<<"$(with_prev "$both" "$result")"
cni_fails 103 'chains of host ports' 'CHECK misses the guard'
cni ADD c ctr-c eth0 <<<"$(with_ports "$(ports "$(port 9 9)")")"
fails '... and the next ADD with a port brings it back' ask - b tcp 127.0.0.1 9999
quick DEL c ctr-c eth0 "$base"
is "$(nft -s list table inet flatnet | sed '/elements = {/,/}/d')" "$chains" '... the chains are as before'

# ---- whose port it is ---------------------------------------------------------------------------------

before=$(elements)
clash() { # NAME PORT REGEX
	CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=late' cni ADD c ctr-c eth0 \
		<<<"$(with_ports "$(ports "$(port 7000 80)" "$2")")"
	cni_fails 102 "$3" "$1 is refused, and named"
	is "$(elements) $(pod_ip - c)" "$before " '... and nothing is left'
}
clash 'a port that is taken' "$(port 8080 81)" 'host port 8080/tcp is taken by container ctr-a'
clash 'with a hostIP, too' "$(port 8080 81 udp 192.0.2.1)" '8080/udp is taken by container ctr-a'
clash 'the port of one address, for all of them,' "$(port 8053 81 udp)" '8053/udp of address 192.0.2.2 is taken by'
clash 'the port of the same address' "$(port 8053 81 tcp 2001:db8::2)" '8053/tcp of address 2001:db8::2 is taken by'
CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0' cni ADD c ctr-c eth0 \
	<<<"$(with_ports "$(ports "$(port 8053 80 udp 192.0.2.1)" "$(port 8080 80 sctp)" "$(port 8053 80 tcp 127.0.0.1)")")"
cni_ok 'another address or another protocol is another port'
make_pod - d
cni ADD d ctr-d eth0 <<<"$(with_ports "$(ports "$(port 8053 1 tcp 127.0.0.1)")")"
cni_fails 102 '8053/tcp of address 127.0.0.1 is taken by shop/web-0 ctr-c' 'a pod is named by its name'
cni_fails 102 "$(veth_of ctr-c)" '... and its link'
quick DEL c ctr-c eth0 "$base"
is "$(elements)" "$before" 'DEL takes the ports of its pod, and no others'

# A pod whose network namespace went without a DEL.
quick ADD c ctr-c eth0 "$(with_ports "$(ports "$(port 7000 80)" "$(port 7001 80)")")" >/dev/null
del_pod - c
no_link() {
	[[ ! $(veth_of ctr-c) ]]
}
eventually 5 'the namespace of a pod goes, and its link' no_link
cmp_ok "$(elements | grep -c ' 700[01] ')" -eq 4 '... its ports are still there'
cni ADD d ctr-d eth0 <<<"$(with_ports "$(ports "$(port 7000 81)")")"
cni_ok '... and whoever wants one of them gets it'
is "$(elements hostports4 | grep ' 700')" "hostports4 tcp 7000 : $(pod_ip - d) 81" '... the other one has gone with it'
cni DEL c ctr-c eth0 <<<"$base"
cni_ok 'the late DEL'
is "$(elements hostports4 | grep ' 700')" "hostports4 tcp 7000 : $(pod_ip - d) 81" '... does not take what is another'\''s now'
quick DEL d ctr-d eth0 "$base"
is "$(elements)" "$before" '... and all is as before'

# ---- ways to go ------------------------------------------------------------------------------------------

make_pod - c
mapped=$(with_ports "$(ports "$(port 7000 80)" "$(port 7000 80 udp)" "$(port 7001 80 tcp 127.0.0.1)")")
gone() { # NAME COMMAND...
	local name=$1
	shift
	[[ -e /run/netns/c ]] || make_pod - c
	quick ADD c ctr-c eth0 "$mapped" >/run/result
	cmp_ok "$(elements | wc -l)" -gt "$(wc -l <<<"$before")" "(a pod with ports)"
	ok "$name" "$@"
	is "$(elements)" "$before" '... and its ports are gone'
	quick DEL c ctr-c eth0 "$base"
}
no_netns() {
	CNI_COMMAND=DEL CNI_CONTAINERID=ctr-c CNI_IFNAME=eth0 CNI_PATH=$FLAT_BIN "$FLAT_BIN/flatnet" <<<"$base"
}
netns_first() {
	del_pod - c
	quick DEL c ctr-c eth0 "$base"
}
twice() {
	quick DEL c ctr-c eth0 "$mapped" && quick DEL c ctr-c eth0 "$mapped"
}
changed() {
	quick DEL c ctr-c eth0 "$(jq -c '.ipMasq = false | .isGateway = false | .snat = false' <<<"$base")"
}
gc() { # VALID...
	CNI_COMMAND=GC CNI_PATH=$FLAT_BIN "$FLAT_BIN/flatnet" <<<"$(jq -c --args \
		'.["cni.dev/valid-attachments"] = [$ARGS.positional[] | {containerID: ., ifname: "eth0"}]' "$@" <<<"$base")"
}
gc_blind() {
	del_pod - c
	sleep 0.3
	CNI_COMMAND=GC CNI_PATH=$FLAT_BIN "$FLAT_BIN/flatnet" <<<"$base"
}
add_in_vain() { # CONF: nobody takes the result
	! quick ADD c ctr-c eth0 "$1" >/dev/full
}
failed_late() {
	quick DEL c ctr-c eth0 "$base" && add_in_vain "$mapped"
}
gone 'DEL as ADD was' quick DEL c ctr-c eth0 "$mapped"
gone 'DEL without runtimeConfig' quick DEL c ctr-c eth0 "$base"
gone 'DEL with prevResult' quick DEL c ctr-c eth0 "$(with_prev "$base" "$(</run/result)")"
gone 'DEL without CNI_NETNS' no_netns
gone 'DEL after the namespace' netns_first
gone 'DEL twice' twice
gone 'DEL after the configuration has changed' changed
gone 'GC that does not know the pod' gc ctr-a ctr-b
gone 'GC without a list, after the namespace' gc_blind
gone 'an ADD whose result nobody takes' failed_late
ok 'GC that knows them all' gc ctr-a ctr-b
is "$(elements)" "$before" '... takes nothing'
reach 'after all that' 'web 192.0.2.9' out - 192.0.2.1 8080

# ---- conntrack -------------------------------------------------------------------------------------------

# A client that asks again and again from one port keeps an entry alive that leads nowhere.
send() { # ADDRESS PORT: one datagram from port 40000 of the outside; prints the answer's text
	on out timeout 3 python3 -c '
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 40000))
s.settimeout(0.7)
s.sendto(b"hello\n", (sys.argv[1], int(sys.argv[2])))
try: print(s.recv(64).split()[0].decode())
except (TimeoutError, ConnectionError): print("none")' "$1" "$2"
}
[[ -e /run/netns/c ]] || make_pod - c
for to in 192.0.2.1 2001:db8::1; do
	is "$(send $to 7000)" none "a datagram to $to, before there is a port"
	cmp_ok "$(entries "^udp.*dst=$to .*dport=7000")" -ge 1 '... is remembered by conntrack'
	on out bash -c "echo x >/dev/udp/$to/7009" # not ours
	quick ADD c ctr-c eth0 "$mapped" >/dev/null
	is "$(entries 'dport=7000')" 0 '... ADD with that port makes it forget'
	cmp_ok "$(entries 'dport=7009')" -ge 1 '... and leaves others alone'
	serve - c first 80
	is "$(send $to 7000)" first '... the next one is answered'
	cmp_ok "$(entries "dport=7000 .*src=($(pod_ip - c)|$(pod_ip6 - c)) ")" -ge 1 '... and remembered with the pod'
	quick DEL c ctr-c eth0 "$base"
	is "$(entries 'dport=7000')" 0 '... DEL makes it forget'
	del_pod - c
	make_pod - c
	quick ADD c ctr-new eth0 "$mapped" >/dev/null
	serve - c second 80
	is "$(send $to 7000)" second '... the next pod with that port is reached by the same client'
	quick DEL c ctr-new eth0 "$base"
	del_pod - c
	make_pod - c
done
# What a pod asks of another host's port is another thing.
serve out - far 7000
quick ADD c ctr-c eth0 "$base" >/dev/null
is "$(ask - b udp 192.0.2.9 7000 || echo none)" 'far 192.0.2.1' 'a pod asks port 7000 of another host'
cmp_ok "$(entries "dst=192.0.2.9 .*dport=7000")" -ge 1 '... which is remembered'
quick DEL c ctr-c eth0 "$base"
quick ADD c ctr-c eth0 "$mapped" >/dev/null
cmp_ok "$(entries "dst=192.0.2.9 .*dport=7000")" -ge 1 '... also when a pod gets that port here'
quick DEL c ctr-c eth0 "$base"
del_pod - c
make_pod - c

# ---- CHECK -----------------------------------------------------------------------------------------------

broken() { # NAME REGEX COMMAND...
	local name=$1 regex=$2
	shift 2
	"$@"
	cni CHECK a ctr-a eth0 <<<"$(with_prev "$both" "$result")"
	cni_fails 103 "$regex" "CHECK misses $name"
}
broken 'a port' 'host port 8080/udp.*hostports4' nft delete element inet flatnet hostports4 '{ udp . 8080 }'
nft add element inet flatnet hostports4 "{ udp . 8080 : $a4 . 80 }"
broken 'one with another owner' 'host port 8080/udp' true
nft delete element inet flatnet hostports4 '{ udp . 8080 }'
nft add element inet flatnet hostports4 "{ udp . 8080 comment \"flatnet $(veth_of ctr-a) x\" : $a4 . 80 }"
broken 'the source addresses' "set 'hostports6_pods'" nft flush set inet flatnet hostports6_pods
nft add element inet flatnet hostports6_pods "{ $a6 . $a6 comment \"flatnet $(veth_of ctr-a) x\" }"
broken 'the sysctl' route_localnet sysctl -q -w net.ipv4.conf.cni0.route_localnet=0
sysctl -q -w net.ipv4.conf.cni0.route_localnet=1
cni CHECK a ctr-a eth0 <<<"$(with_prev "$both" "$result")"
cni_ok '... and is content when all is back'
broken 'a chain' 'chains of host ports' nft flush chain inet flatnet hostports
quick DEL a ctr-a eth0 "$base"
is "$(elements)" '' 'the last port goes'

# ---- keys ------------------------------------------------------------------------------------------------

seen() { # CONF NODE POD ADDRESS: what a client learns from port 7000 of pod c under this configuration
	[[ -e /run/netns/c ]] && del_pod - c
	make_pod - c
	quick ADD c ctr-c eth0 "$1" >/dev/null
	serve - c web 80
	ask "$2" "$3" tcp "$4" 7000 || echo none
	quick DEL c ctr-c eth0 "$base"
}
one=$(ports "$(port 7000 80)")
is "$(seen "$(with_ports "$one" '.masqAll = true')" out - 192.0.2.1)" 'web 10.244.1.1' 'masqAll: the outside gets the node'\''s address'
is "$(seen "$(with_ports "$one" '.masqAll = true')" out - 2001:db8::1)" 'web fd00:10:244:1::1' '... IPv6, too'
is "$(seen "$(with_ports "$one" '.snat = false')" out - 192.0.2.1)" 'web 192.0.2.9' 'snat false: from outside'
is "$(seen "$(with_ports "$one" '.snat = false')" - c 192.0.2.1)" none '... the pod does not reach itself'
is "$(seen "$(with_ports "$one" '.snat = false | .masqAll = true')" out - 192.0.2.1)" 'web 192.0.2.9' '... nor does masqAll do anything'
static=$(jq -c --argjson ports "$one" '.portMappings = $ports' <<<"$base")
is "$(seen "$static" out - 192.0.2.1)" 'web 192.0.2.9' 'portMappings of the configuration itself'
is "$(seen "$(jq -c --argjson ports "$one" '.portMappings = $ports' <<<"$(with_ports "$(ports "$(port 7001 81)")")")" out - 192.0.2.1)" \
	'web 192.0.2.9' '... beside runtimeConfig'\''s'
is "$(seen "$(with_ports "$(ports "$(port 7000 80)" "$(port 7000 80 tcp 127.0.0.1)")")" - - 127.0.0.1)" 'web 10.244.1.1' \
	'one port for any address, and the same for one'
is "$(seen "$(with_ports "$(ports "$(port 7000 80 tcp 0.0.0.0)")")" out - 192.0.2.1)" 'web 192.0.2.9' 'hostIP 0.0.0.0 is any IPv4 address'
is "$(seen "$(with_ports "$(ports "$(port 7000 80 tcp 0.0.0.0)")")" out - 2001:db8::1)" none '... and no IPv6 one'
is "$(seen "$(with_ports "$(ports "$(port 7000 80 tcp ::)")")" out - 2001:db8::1)" 'web 2001:db8::9' 'hostIP :: is any IPv6 address'
sysctl -q -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 2>/dev/null || :
l2=$(with_ports "$one" '.bridgeMode = "l2"')
cni DEL b ctr-b eth0 <<<"$base"
del_pod - b
make_pod - b
quick ADD b ctr-b eth0 "$(jq -c '.bridgeMode = "l2"' <<<"$base")" >/dev/null
is "$(seen "$l2" - b 192.0.2.1)" 'web 10.244.1.1' 'bridgeMode l2: a neighbour on the same bridge, br_netfilter off'
is "$(seen "$l2" - b 2001:db8::1)" 'web fd00:10:244:1::1' '... IPv6'
is "$(seen "$l2" - c 192.0.2.1)" 'web 10.244.1.1' '... the pod itself'
is "$(seen "$l2" out - 192.0.2.1)" 'web 192.0.2.9' '... the outside'
quick DEL b ctr-b eth0 "$base"

# ---- values ----------------------------------------------------------------------------------------------

del_pod - c
make_pod - c
refuse() { # CODE REGEX NAME CONF
	cni ADD c ctr-c eth0 <<<"$4"
	cni_fails "$1" "$2" "refused: $3"
}
bad() { # REGEX NAME PORT
	refuse 7 "$1" "$2" "$(with_ports "[$(port 1 1), $3]")"
}
bad 'runtimeConfig\.portMappings\[1\]\.hostPort: 0 is not a whole number from 1 to 65535' 'hostPort 0' "$(port 0 80)"
bad 'portMappings\[1\]\.hostPort: 65536 is not' 'hostPort 65536' "$(port 65536 80)"
bad 'portMappings\[1\]\.hostPort: 80\.5 is not' 'hostPort 80.5' "$(port 80.5 80)"
bad 'portMappings\[1\]\.hostPort: "80" is not .* without quotes' 'hostPort "80"' "$(port '"80"' 80)"
bad 'portMappings\[1\]\.containerPort: -1 is not' 'containerPort -1' "$(port 80 -1)"
bad 'portMappings\[1\]\.containerPort: missing' 'no containerPort' '{"hostPort": 80}'
bad 'portMappings\[1\]\.protocol: "icmp" is not "tcp", "udp" or "sctp"' 'protocol icmp' "$(port 80 80 icmp)"
bad 'portMappings\[1\]\.hostIP: "localhost" is not an IP address' 'hostIP localhost' "$(port 80 80 tcp localhost)"
bad 'portMappings\[1\]\.hostIP: 224\.0\.0\.1 is a multicast' 'hostIP 224.0.0.1' "$(port 80 80 tcp 224.0.0.1)"
bad 'hostPort 1/tcp cannot lead to both containerPort 1 and 2' 'one port, two places' "$(port 1 2)"
refuse 7 'portMappings: "x" is not a list' 'no list' "$(with_ports '"x"')"
refuse 7 'portMappings\[0\]: 8080 is not an object' 'a list of numbers' "$(with_ports '[8080]')"
refuse 7 'hostIP 2001:db8::1 of hostPort 80: the pod has no address of that family' 'hostIP of another family' \
	"$(jq -c '.ipam = {subnet: "10.244.1.0/24"}' <<<"$(with_ports "[$(port 80 80 tcp 2001:db8::1)]")")"
refuse 7 'portMappings: a pod without addresses' 'a pod without addresses' "$(jq -c '.ipam = {type: ""}' <<<"$(with_ports "$one")")"
refuse 7 'markMasqBit: 32 is not' 'markMasqBit 32' "$(jq -c '.markMasqBit = 32' <<<"$base")"
refuse 7 'snat: "no" is not true or false' 'snat "no"' "$(jq -c '.snat = "no"' <<<"$base")"
refuse 2 'externalSetMarkChain: "KUBE-MARK-MASQ" is not supported: it is a chain of iptables' 'externalSetMarkChain' "$(jq -c '.externalSetMarkChain = "KUBE-MARK-MASQ"' <<<"$base")"
is "$(elements | grep -v bridges)$(pod_ip - c)" '' '... and nothing is left of any of them'
cni ADD c ctr-c eth0 <<<"$(jq -c '.conditionsV4 = [] | .conditionsV6 = null | .portMappings = null | .runtimeConfig.portMappings = []' <<<"$base")"
cni_ok 'empty lists are nothing'
quick DEL c ctr-c eth0 "$base"

# ---- many ------------------------------------------------------------------------------------------------

many=$(jq -nc '[range(200) | {hostPort: (20000 + .), containerPort: 80, protocol: "tcp"}]')
quick ADD a ctr-a eth0 "$(with_ports "$one")" >/dev/null
rules=$(nft -s list table inet flatnet | grep -c 'comment "flatnet:')
quick ADD c ctr-c eth0 "$(with_ports "$many")" >/dev/null
is "$(elements hostports4 | wc -l)" 201 '200 ports of one pod'
is "$(nft -s list table inet flatnet | grep -c 'comment "flatnet:')" "$rules" '... and not one rule more'
serve - c many 80
is "$(ask out - tcp 192.0.2.1 20000 || echo none) $(ask out - tcp 192.0.2.1 20199 || echo none)" 'many 192.0.2.9 many 192.0.2.9' \
	'... the first and the last lead there'
cni DEL c ctr-c eth0 <<<"$base"
is "$(elements hostports4 | wc -l)" 1 '... and all go at once'
quick DEL a ctr-a eth0 "$base"
remove_all

# ---- at once ---------------------------------------------------------------------------------------------

pods=(p1 p2 p3 p4 p5 p6 p7 p8)
at_once() { # VERB CONF: for each pod at the same time, PORT in CONF another number; prints how many succeeded
	local i=0 pod conf
	for pod in "${pods[@]}"; do
		conf=${2/PORT/$((7000 + i++))}
		quick "$1" "$pod" "ctr-$pod" eth0 "$conf" >"/run/at-once-$pod" && echo yes &
	done | grep -c yes || :
}
for pod in "${pods[@]}"; do
	make_pod - "$pod"
done
is "$(at_once ADD "$(with_ports '[{"hostPort": 7000, "containerPort": 80}]')")" 1 'eight pods want the same port: one gets it'
is "$(elements hostports4 | wc -l) $(cat /run/at-once-* | jq -c 'select(.code == 102)' | wc -l)" '1 7' '... and the others hear who'
is "$(at_once DEL "$base")" 8 '... DEL of all of them'
is "$(elements hostports4 | wc -l)" 0 '... leaves none'
is "$(at_once ADD "$(with_ports '[{"hostPort": 70707, "containerPort": 80}]' | sed s/70707/PORT/)")" 8 'eight pods with a port each, at once'
is "$(elements hostports4 | wc -l)" 8 '... have it'
is "$(at_once DEL "$base") $(elements hostports4 | wc -l)" '8 0' '... and go at once'
for pod in "${pods[@]}"; do
	del_pod - "$pod"
done
remove_all

# ---- nothing is left ---------------------------------------------------------------------------------------

bare=$(state)
for conf in "$(with_ports "$one")" "$(with_ports "$one" '.ipMasq = false | .isGateway = false | .ipam = {subnet: "10.244.1.0/24"}')"; do
	ok 'the first ADD of a node, with a port, fails at its end' add_in_vain "$conf"
	is "$(state)" "$bare" '... and leaves nothing, no chain, no map'
done
quick ADD a ctr-a eth0 "$base" >/dev/null
bare=$(state)
ok 'the first ADD with a port fails, beside another pod,' add_in_vain "$(with_ports "$one")"
is "$(state)" "$bare" '... and leaves nothing, no chain, no map'
quick ADD c ctr-c eth0 "$(with_ports "$one")" >/dev/null
unlike "$bare" hostports 'a node without ports has no chains for them'
quick DEL c ctr-c eth0 "$base"

done_testing
