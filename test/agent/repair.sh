#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What somebody breaks by hand is whole again within a second, and the log says what and why.
# shellcheck disable=SC2016 # what eval gets is for it to expand
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/agent.sh"

make_cluster 3
list=$(node_list 46)
tell_nodes "$list" n1 n2 n3
cidrs='.clusterCIDR = ["10.244.0.0/16", "fd00:10:244::/48"]'
for node in n1 n2 n3; do
	start_agent "$node" "$(agent_conf "$node" "$cidrs" '.backend = "vxlan"')"
done
for node in n1 n2 n3; do
	ok "$node is ready" wait_for 5 says "$node" 'this node is ready'
	agent_pod "$node" a
done
ip2=$(pod_ip n2 a) ip2_6=$(pod_ip6 n2 a)
ok 'pods reach each other over IPv4' wait_for 2 can_ping n1 a "$ip2"
ok '... and over IPv6' wait_for 2 can_ping n1 a "$ip2_6"

reached() {
	pod_exec n1 a ping -n -q -c 1 -W 0.2 "$ip2" && pod_exec n1 a ping -n -q -c 1 -W 0.2 "$ip2_6"
}
has_route() { # DST
	[[ $(on n1 ip route show "$1" proto 241) ]]
}
has_neigh() {
	[[ $(on n1 ip neigh show 10.244.2.0 dev flatnet.1) == *'lladdr 0a:58:0a:f4:02:00 PERMANENT'* ]]
}
has_fdb() {
	[[ $(on n1 bridge fdb show dev flatnet.1) == *'0a:58:0a:f4:02:00 dst 192.0.2.2 '* ]]
}
has_address() { # LINK ADDRESS
	[[ $(on n1 ip -o address show dev "$1" to "$2") ]]
}
is_up() { # LINK
	[[ $(on n1 ip -o link show "$1" up) ]]
}
has_mac() { # LINK MAC
	[[ $(on n1 ip -j link show "$1" | jq -r '.[0].address') == "$2" ]]
}
sysctl_is() { # KEY VALUE
	[[ $(on n1 sysctl -n "$1") == "$2" ]]
}
has_rules() {
	local rules
	rules=$(on n1 nft list table inet flatnet) && [[ $rules == *masquerade* && $rules == *'saddr 10.244.0.0/16 accept'* ]]
}
break_it() { # COMMAND...: on n1, after a moment of rest, and forgets what the log said before
	sleep 0.1
	forget_log n1
	on n1 "$@"
}

# A bridge that is new is left to its maker for a moment.
sleep 1
unlike "$(agent_log n1)" 'repaired' 'an ADD is no disturbance'
before=$(on n1 nft -a list ruleset)
events=$(quiet n1 3)
is "$events" '' 'nothing is written when nothing changes'
is "$(on n1 nft -a list ruleset)" "$before" '... to the rules neither'

# Each part by itself.
break_it ip route del 10.244.2.0/24
repaired n1 'a deleted route' 'kind=route .*10\.244\.2\.0/24 of node .n2. was missing.*cause=.*10\.244\.2\.0/24' \
	has_route 10.244.2.0/24
break_it ip route flush proto 241
repaired n1 'all routes' 'kind=route .*count=2' eval 'has_route 10.244.2.0/24 && has_route 10.244.3.0/24'
break_it ip route replace 10.244.2.0/24 via 192.0.2.3 proto 241
repaired n1 'a route that leads elsewhere' 'kind=route .*led elsewhere' \
	eval '[[ $(on n1 ip route show 10.244.2.0/24) == *"via 10.244.2.0 dev flatnet.1"* ]]'
break_it ip -6 route del fd00:10:244:2::/64
repaired n1 'a deleted IPv6 route' 'kind=route .*fd00:10:244:2::/64' \
	eval '[[ $(on n1 ip -6 route show fd00:10:244:2::/64 proto 241) ]]'
break_it ip neigh del 10.244.2.0 dev flatnet.1
repaired n1 'a deleted neighbour' 'kind=neighbour .*10\.244\.2\.0.*n2' has_neigh
break_it ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:01 nud permanent dev flatnet.1
repaired n1 'a changed neighbour' 'kind=neighbour .*wrong' has_neigh
break_it bridge fdb del 0a:58:0a:f4:02:00 dev flatnet.1 dst 192.0.2.2
repaired n1 'a deleted forwarding entry' 'kind=fdb .*0a:58:0a:f4:02:00.*n2' has_fdb
break_it ip link set flatnet.1 down
repaired n1 'the tunnel set down' 'kind=link .*flatnet\.1' eval 'is_up flatnet.1 && has_route 10.244.2.0/24 && reached'
break_it ip link set flatnet.1 address 02:00:00:00:00:02
repaired n1 "the tunnel's MAC" 'kind=link .*MAC' has_mac flatnet.1 0a:58:0a:f4:01:00
break_it ip link set flatnet.1 mtu 1300
repaired n1 "the tunnel's MTU" 'kind=link .*MTU' \
	eval '[[ $(on n1 ip -j link show flatnet.1 | jq ".[0].mtu") == 1450 ]]'
break_it ip address del 10.244.1.0/32 dev flatnet.1
repaired n1 "the tunnel's address" 'kind=address .*10\.244\.1\.0/32' has_address flatnet.1 10.244.1.0/32
break_it ip link del flatnet.1
repaired n1 'the tunnel deleted' 'kind=link .*flatnet\.1. was missing' eval 'has_neigh && has_fdb && reached'
break_it ip link del flatnet6.1
repaired n1 'the tunnel over IPv6 deleted' 'kind=link .*flatnet6\.1. was missing' reached

# What the plugin made.
break_it ip address del 10.244.1.1/24 dev cni0
repaired n1 "the bridge's address" 'kind=bridge .*10\.244\.1\.1/24.*cause=.*removed' has_address cni0 10.244.1.1
break_it ip -6 address del fd00:10:244:1::1/64 dev cni0
repaired n1 "the bridge's IPv6 address" 'kind=bridge .*fd00:10:244:1::1/64' has_address cni0 fd00:10:244:1::1
break_it ip link set cni0 down
repaired n1 'the bridge set down' 'kind=bridge .*was down' eval 'is_up cni0 && reached'
break_it nft flush table inet flatnet
repaired n1 'the rules flushed' 'kind=rules' has_rules
break_it nft delete table inet flatnet
repaired n1 "the rules' table deleted" 'kind=rules .*cause=.*flatnet' has_rules
break_it nft flush ruleset
repaired n1 'the whole ruleset flushed' 'kind=rules' has_rules
break_it sysctl -q -w net.ipv4.ip_forward=0
repaired n1 'IPv4 forwarding' 'kind=sysctl .*ip_forward was 0' sysctl_is net.ipv4.ip_forward 1
break_it sysctl -q -w net.ipv6.conf.all.forwarding=0
repaired n1 'IPv6 forwarding' 'kind=sysctl .*ipv6.*forwarding was 0' sysctl_is net.ipv6.conf.all.forwarding 1
break_it sysctl -q -w net.ipv4.conf.cni0.send_redirects=1
repaired n1 'redirects' 'kind=sysctl .*cni0/send_redirects' sysctl_is net.ipv4.conf.cni0.send_redirects 0

# All at once.
break_it bash -c 'ip link del flatnet.1; ip route flush proto 241; nft flush ruleset; ip link set cni0 down
	ip address flush dev cni0; sysctl -q -w net.ipv4.ip_forward=0'
repaired n1 'all at once' 'kind=rules' eval 'has_neigh && has_fdb && has_route 10.244.2.0/24 && has_rules &&
	is_up cni0 && has_address cni0 10.244.1.1 && has_address cni0 fd00:10:244:1::1 && sysctl_is net.ipv4.ip_forward 1'
ok '... and pods reach each other again' wait_for 3 reached

# iptables' policy of drop comes after the start.
sleep 0.1
forget_log n1
if on n1 iptables-nft -P FORWARD DROP 2>/dev/null; then
	repaired n1 'a FORWARD chain that drops' 'kind=rules .*cause=.*filter' reached
	on n1 iptables-nft -P FORWARD ACCEPT
else
	skip_kernel 'a FORWARD chain that drops' 'no iptables-nft'
fi

# What is nobody's business.
on n1 ip route add 10.244.77.0/24 via 192.0.2.2 proto 4
on n1 ip route add 198.51.100.0/24 via 192.0.2.2 proto 241
on n1 ip route add 10.244.78.0/24 via 192.0.2.2 proto 241
on n1 nft add table inet other
repaired n1 'a route of ours that leads to no node is removed' 'kind=route .*10\.244\.78\.0/24' \
	eval '! has_route 10.244.78.0/24'
ok "another program's route stays" eval '[[ $(on n1 ip route show 10.244.77.0/24) ]]'
ok '... one of our protocol out of the flat network, too' has_route 198.51.100.0/24
ok '... and another table' on n1 nft list table inet other

# Somebody who fights costs little, and loses.
pid=${agent_pid[n1]}
cpu() {
	local stat
	read -r -a stat <"/proc/$pid/stat"
	printf '%s\n' $((stat[13] + stat[14]))
}
forget_log n1
start=$(cpu)
on n1 timeout 5 bash -c 'while :; do ip route del 10.244.2.0/24 2>/dev/null; done' || :
spent=$(($(cpu) - start))
rounds=$(grep -c 'kind=route' <<<"$(agent_log n1)") || :
diag "5 seconds of fight: $rounds rounds, $spent ticks"
cmp_ok "$rounds" -ge 5 'a fight goes on'
((${FLAT_SANITIZED:-0})) || cmp_ok "$spent" -le 75 'a fight takes less than 15 % of a processor'
repaired n1 '... and is won' 'kind=route' has_route 10.244.2.0/24

# Nothing but rest.
sleep 1
start=$(cpu)
sleep 10
spent=$(($(cpu) - start))
((${FLAT_SANITIZED:-0})) || cmp_ok "$spent" -le 2 'at rest it takes next to nothing'
is "$(quiet n1 2)" '' 'in the end nothing is written any more'

done_testing
