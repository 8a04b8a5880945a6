#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The node-wide rules: what they say, that they stay the same however many pods, that they come back.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

make_wire wire
make_node outside wire 192.0.2.9/24
# The sandbox itself is on the wire as 192.0.2.1; the outside has no way back to the pods.
on wire ip link add here type veth peer name up0 netns $$
on wire ip link set here master wire up
ip address add 192.0.2.1/24 dev up0
ip link set up0 up
for pod in a b c d e f g h i j; do
	make_pod - $pod
done
conf=$(flat_conf '.ipMasq = true' '.clusterCIDR = "10.244.0.0/16"')
ruleset() {
	nft -a -s list ruleset
}
chain() { # CHAIN: its rules, without handles
	nft -s list chain inet flatnet "$1" 2>/dev/null | grep -E 'comment|hook' | sed 's/ comment .*//; s/^[[:space:]]*//'
}
# as_outside POD [ADDRESS]: the address under which the outside, at that address, sees the pod
as_outside() {
	on outside timeout 5 python3 -c '
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 5300))
open("/run/ready", "w")
s.settimeout(4)
print(s.recvfrom(64)[1][0])' "${2:-192.0.2.9}" >/run/seen 2>/run/seen.err &
	local server=$! i
	for ((i = 0; i < 100; i++)); do
		on outside test -e /run/ready && break
		sleep 0.02
	done
	pod_exec - "$1" bash -c "echo hello >/dev/udp/${2:-192.0.2.9}/5300"
	wait "$server" || :
	on outside rm -f /run/ready
	cat /run/seen
}

# ---- what they say ----------------------------------------------------------------------------------

quick ADD a ctr-a eth0 "$conf" >/dev/null
one=$(ruleset)
is "$(rules '[.nftables[].table? | select(.) | "\(.family) \(.name)"] | join(",")')" 'inet flatnet' 'one table, inet flatnet'
is "$(chain postrouting)" 'type nat hook postrouting priority srcnat; policy accept;
meta mark & 0x00004000 == 0x00004000 return
ip saddr 10.244.1.0/24 ip daddr != 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random' 'masquerade what leaves the cluster; what kube-proxy marked is its own'
is "$(chain forward)" 'type filter hook forward priority filter; policy accept;
ip saddr 10.244.0.0/16 accept
ip daddr 10.244.0.0/16 accept' 'accept forwarding from and to the cluster'
unlike "$one" '10\.244\.1\.2[^0-9/.]' 'no address of a pod in any rule'
is "$(as_outside a)" 192.0.2.1 'the outside sees the node'
ok 'the pod gets answers from an outside that knows no way back' can_ping - a 192.0.2.9
on outside ip route add 10.244.0.0/16 via 192.0.2.1
quick ADD a ctr-a eth1 "$conf" >/dev/null || :
quick DEL a ctr-a eth1 "$conf" >/dev/null
for pod in b c d e f g h i j; do
	quick ADD $pod ctr-$pod eth0 "$conf" >/dev/null
done
is "$(ruleset)" "$one" 'after ten pods the ruleset is the same, to the handle'
quick DEL a ctr-a eth0 "$conf"
is "$(ruleset)" "$one" 'and after DEL'
on outside ip address add 10.244.9.9/32 dev eth0
ip route add 10.244.9.9 via 192.0.2.9
is "$(as_outside b 10.244.9.9)" "$(pod_ip - b)" 'another node of the cluster sees the pod itself'

# ---- they come back ----------------------------------------------------------------------------------

text=$(nft -s list ruleset)
restored() { # NAME COMMAND...: what COMMAND spoils, the next ADD mends
	local name=$1
	shift
	"$@"
	quick ADD a ctr-a eth0 "$conf" >/dev/null
	is "$(nft -s list ruleset)" "$text" "$name: the next ADD mends it"
	quick DEL a ctr-a eth0 "$conf"
}
handle() { # CHAIN TEXT
	nft -a list chain inet flatnet "$1" | sed -n "s/.*$2.*# handle //p" | head -n 1
}
restored 'nft flush ruleset' nft flush ruleset
restored 'the table is gone' nft delete table inet flatnet
restored 'the chains are empty' nft flush table inet flatnet
restored 'a rule is gone' nft delete rule inet flatnet postrouting handle "$(handle postrouting masquerade)"
restored 'another rule is gone' nft delete rule inet flatnet forward handle "$(handle forward 'ip daddr')"
restored 'a rule twice' nft add rule inet flatnet forward ip saddr 10.244.0.0/16 accept comment '"flatnet:pods:00000000:0"'

# ---- changed configurations ---------------------------------------------------------------------------

off=$(jq -c '.ipMasq = false' <<<"$conf")
quick ADD a ctr-a eth0 "$off" >/dev/null
unlike "$(nft list ruleset)" 'masquerade' 'ipMasq false: the next ADD takes the masquerading away'
like "$(chain forward)" '10.244.0.0/16 accept' '... forwarding stays accepted'
is "$(as_outside a)" "$(pod_ip - a)" '... the outside sees the pod itself'
quick DEL a ctr-a eth0 "$off"
quick ADD a ctr-a eth0 "$(jq -c '.clusterCIDR = ["10.244.0.0/16", "192.0.2.0/24"]' <<<"$conf")" >/dev/null
like "$(chain postrouting)" 'ip daddr != \{ *10.244.0.0/16, *192.0.2.0/24 *\}|ip daddr != 10.244.0.0/16 ip daddr != 192.0.2.0/24' 'clusterCIDR may be a list'
is "$(as_outside a)" "$(pod_ip - a)" '... inside of which nothing is masqueraded'
quick DEL a ctr-a eth0 "$conf"
remove_all
quick ADD a ctr-a eth0 "$(flat_conf '.ipMasq = true')" >/dev/null
like "$(chain postrouting)" 'ip saddr 10.244.1.0/24 ip daddr != 10.244.1.0/24' 'without clusterCIDR the pods'\'' own subnet is the cluster'
remove_all

# ---- two networks --------------------------------------------------------------------------------------

other=$(flat_conf '.name = "other"' '.bridge = "br-other"' '.ipam.subnet = "10.245.7.0/24"' '.clusterCIDR = "10.245.0.0/16"')
quick ADD a ctr-a eth0 "$conf" >/dev/null
alone=$(chain postrouting)
quick ADD b ctr-b eth0 "$other" >/dev/null
is "$(chain postrouting)" "$alone" 'a second network without ipMasq adds nothing to postrouting'
is "$(chain forward | grep -c accept\$)" 4 '... and its own to forward'
is "$(as_outside b)" 10.245.7.2 '... its pods are not masqueraded'
both=$(ruleset)
quick DEL a ctr-a eth0 "$conf"
quick ADD c ctr-c eth0 "$other" >/dev/null
quick ADD a ctr-a eth0 "$conf" >/dev/null
is "$(ruleset)" "$both" 'neither disturbs the other'
remove_all

# ---- both families -----------------------------------------------------------------------------------------

dual=$(flat_conf '.ipMasq = true' '.ipam = {ranges: [[{subnet: "10.244.1.0/24"}], [{subnet: "fd00:10:244:1::/64"}]]}' '.clusterCIDR = ["10.244.0.0/16", "fd00:10:244::/56"]')
quick ADD a ctr-a eth0 "$dual" >/dev/null
like "$(chain postrouting)" 'ip6 saddr fd00:10:244:1::/64 ip6 daddr != fd00:10:244::/56 ip6 daddr != ff00::/8 masquerade fully-random' 'IPv6 likewise'
remove_all

# ---- beside iptables ------------------------------------------------------------------------------------------

if iptables -P FORWARD DROP 2>/dev/null && [[ $(iptables -V) == *nf_tables* ]]; then
	quick ADD a ctr-a eth0 "$conf" >/dev/null
	ok 'FORWARD policy DROP of iptables: the pod still reaches the outside' can_ping - a 192.0.2.9
	ok '... iptables can read its table' iptables -S FORWARD
	is "$(iptables -S FORWARD | head -n 1)" '-P FORWARD DROP' '... and its policy is as it was'
	cmp_ok "$(iptables -S FORWARD | wc -l)" -le 3 '... with two rules more, at most'
	before=$(iptables-save)
	quick ADD b ctr-b eth0 "$conf" >/dev/null
	is "$(iptables-save | grep -v '^#')" "$(grep -v '^#' <<<"$before")" '... another pod changes nothing'
	ok '... pods reach each other' can_ping - b "$(pod_ip - a)"
	iptables -F FORWARD
	quick ADD c ctr-c eth0 "$conf" >/dev/null
	ok '... after iptables -F the next ADD mends it' can_ping - a 192.0.2.9
	ok '... iptables can still write' iptables -A FORWARD -s 203.0.113.0/24 -j DROP
	cni CHECK c ctr-c eth0 <<<"$(with_prev "$conf" "$(jq -nc '{cniVersion: "1.1.0", ips: [{address: "'"$(pod_ip - c)"'/24", gateway: "10.244.1.1"}]}')")"
	cni_ok '... CHECK agrees'
	remove_all
	iptables -P FORWARD ACCEPT
	quick ADD a ctr-a eth0 "$conf" >/dev/null
	is "$(iptables -S FORWARD)" '-P FORWARD ACCEPT' 'with policy ACCEPT nothing is put there'
	ok '... iptables can make chains beside our table' iptables -t nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE
	ok '... and delete them' iptables -t nat -F
else
	skip_kernel 'beside iptables' 'no iptables over nf_tables'
fi
remove_all

# What kube-proxy marks goes out by its own rule, not by ours.
quick ADD a ctr-a eth0 "$conf" >/dev/null
nft -f - <<'END'
table ip kube {
	chain pre {
		type filter hook prerouting priority mangle; policy accept;
		ip saddr 10.244.1.0/24 meta mark set meta mark or 0x4000
	}
}
END
is "$(as_outside a)" "$(pod_ip - a)" 'the mark 0x4000 is left to kube-proxy'
nft delete table ip kube

done_testing
