#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What conf/flatnetd.service grants is enough: a user of its own with two capabilities, and the system
# calls of its filter.
# shellcheck disable=SC2016,SC2034 # what eval gets is for it to expand; agent_prefix is start_agent's
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/agent.sh"

unit=$FLAT_ROOT/conf/flatnetd.service.in
setting() {
	sed -n "s/^$1=//p" "$unit"
}
read -r -a granted < <(setting AmbientCapabilities)
# as_user CAPABILITY...: a prefix
as_user() {
	local all='-all' cap
	for cap; do
		cap=${cap#CAP_}
		all+=,+${cap,,}
	done
	agent_prefix=(setpriv --reuid 990 --regid 990 --clear-groups --bounding-set "$all" --inh-caps "$all"
		--ambient-caps "$all" --no-new-privs)
}
is "$(setting AmbientCapabilities)" "$(setting CapabilityBoundingSet)" 'the unit grants what it leaves'
is "$(setting RuntimeDirectory) $(setting StateDirectory)" 'flatnet flatnet' '... and has the folders made'

make_cluster 2
list=$(node_list 46)
tell_nodes "$list" n1 n2
cidrs='.clusterCIDR = ["10.244.0.0/16", "fd00:10:244::/48"]'
conf() { # BACKEND
	agent_conf n1 "$cidrs" ".backend = \"$1\"" '.stateFile = "/run/flatnet-lib/state.json"' '.sweepSeconds = 1' \
		'.cni.confFile = "/run/cni/10-flatnet.conflist"'
}
# As systemd makes them; the plugin, which is root, works in there, too.
on n1 bash -c 'mkdir -p /run/flatnet /run/flatnet-lib /run/cni && chown 990:990 /run/flatnet /run/flatnet-lib /run/cni'
start_agent n2 "$(agent_conf n2 "$cidrs" '.backend = "vxlan"')"
agent_pod n2 a
ip2=$(pod_ip n2 a) ip2_6=$(pod_ip6 n2 a)
pod_mtu() {
	pod_exec n1 a ip -j link show eth0 | jq '.[0].mtu'
}
port_mtu() {
	on n1 ip -j link show master cni0 | jq '.[0].mtu'
}

# All of its work but one.
as_user "${granted[@]}"
start_agent n1 "$(conf vxlan)"
pid=${agent_pid[n1]}
is "$(awk '/^Uid:/ { print $2 } /^CapEff:/ { print $2 }' "/proc/$pid/status" | xargs)" '990 0000000000001002' \
	'it runs as a user, with CAP_NET_ADMIN and CAP_DAC_OVERRIDE'
ok 'it makes the node ready' wait_for 3 says n1 'this node is ready'
agent_pod n1 a
ok 'pods reach each other by vxlan' wait_for 3 can_ping n1 a "$ip2"
ok '... over IPv6, too' wait_for 3 can_ping n1 a "$ip2_6"
ok '... and the CNI configuration is written' on n1 test -s /run/cni/10-flatnet.conflist
ok '... and the last known state' wait_for 3 on n1 test -s /run/flatnet-lib/state.json
sleep 1
forget_log n1
on n1 bash -c 'ip link del flatnet.1; ip route flush proto 241; nft delete table inet flatnet; ip link set cni0 down
	ip address flush dev cni0; sysctl -q -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 \
	net.ipv4.conf.all.send_redirects=1 net.ipv4.conf.cni0.send_redirects=1'
ok 'tunnel, routes, rules, bridge and sysctls are repaired' wait_for 10 eval 'can_ping n1 a "$ip2" && can_ping n1 a "$ip2_6" && [[ $(on n1 nft list table inet flatnet) == *masquerade* &&
		$(on n1 sysctl -n net.ipv4.ip_forward net.ipv4.conf.cni0.send_redirects | xargs) == "1 0" ]]'
ok '... as the log says' wait_for 1 says n1 'repaired.*kind=sysctl'
unlike "$(agent_log n1)" 'level=error|cannot be set' '... without a word of what it may not'
del_pod n1 a
ok 'a leaked address, in a folder that is root'"'"'s, is freed' wait_for 5 eval \
	'[[ ! $(on n1 find /run/flatnet/ipam -name "10.244.1.*") ]]'

# The MTU of a pod is inside the pod.
agent_pod n1 b
pod_mtu() {
	pod_exec n1 b ip -j link show eth0 | jq '.[0].mtu'
}
forget_log n1
on n1 ip link set eth0 mtu 1400
ok 'the MTU of pods it cannot change, and says so' wait_for 2 says n1 \
	'level=warn.*MTU of pods cannot be changed.*1 pods keep the MTU 1430.*Operation not permitted'
ok '... and the rest goes on: tunnel, port, node file' wait_for 2 eval \
	'[[ $(on n1 ip -j link show flatnet.1 | jq ".[0].mtu") == 1350 && $(port_mtu) == 1330 && $(on n1 cat /run/flatnet/node.json) == *"\"mtu\": 1330"* ]]'
is "$(pod_mtu)" 1430 '... and the pod is as it was'
ok '... and the node is ready' eval '[[ $(http_get n1 /readyz) == *" 200 "* ]]'
stop_agent n1
is "$agent_rc" 0 'it ends well'
as_user "${granted[@]}" CAP_SYS_ADMIN
on n1 ip link set eth0 mtu 1500
start_agent n1 "$(conf vxlan)"
wait_for 3 says n1 'this node is ready'
ok 'with CAP_SYS_ADMIN' wait_for 2 eval '[[ $(port_mtu) == 1430 ]]'
on n1 ip link set eth0 mtu 1300
ok '... it can' wait_for 2 eval '[[ $(pod_mtu) == 1230 && $(port_mtu) == 1230 ]]'
stop_agent n1
on n1 ip link set eth0 mtu 1500
as_user "${granted[@]}"
start_agent n1 "$(conf direct)"
wait_for 3 says n1 'this node is ready'
is "$(our_routes n1)" '10.244.2.0/24 192.0.2.2
10.244.3.0/24 192.0.2.3' 'direct routes, too'
stop_agent n1

# The system calls of a life, name resolution (a child's) and TLS included.
if ! command -v systemd-analyze >/dev/null; then
	skip 'the system calls' 'no systemd-analyze'
	done_testing
	exit 0
fi
calls=$TMPDIR/calls
agent_prefix=(strace -f -qq -e trace=socket -o /run/sockets)
start_agent n1 "$(conf vxlan)"
wait_for 5 says n1 'this node is ready'
kill "$(pgrep -P "${agent_pid[n1]}")"
wait "${agent_pid[n1]}" || :
agent_prefix=(strace -f -qq -c -U name -o /run/calls.file)
start_agent n1 "$(conf vxlan)"
wait_for 5 says n1 'this node is ready'
on n1 ip link set eth0 mtu 1400
wait_for 2 eval '[[ $(pod_mtu) == 1330 ]]' || :
on n1 ip link del flatnet.1
wait_for 2 eval '[[ $(our_routes n1) ]]' || :
http_get n1 /metrics >/dev/null
kill -HUP "$(pgrep -P "${agent_pid[n1]}")"
wait_for 3 eval '[[ $(agent_log n1 | grep -c "msg=\"running\"") == 2 ]]' || :
kill "$(pgrep -P "${agent_pid[n1]}")"
wait "${agent_pid[n1]}" || :
families=$(on n1 sed -n 's/.*socket(\([A-Z_0-9]*\),.*/\1/p' /run/sockets | sort -u)
cmp_ok "$(wc -w <<<"$families")" -ge 2 'the families of its sockets are known'
is "$(comm -23 <(printf '%s\n' "$families") <(setting RestrictAddressFamilies | tr ' ' '\n' | sort) | xargs)" '' \
	'... and the unit lets it have them'
# a server that a name leads to, and that speaks no TLS
on n1 socat TCP-LISTEN:2379,bind=127.0.0.1,fork,reuseaddr EXEC:/bin/cat >/dev/null 2>&1 &
server=$!
agent_prefix=(strace -f -qq -c -U name -o /run/calls.etcd)
start_agent n1 "$(conf vxlan | jq -c '.source = "etcd" | .etcd.endpoints = ["https://localhost:2379"]')"
ok 'a server that is called by name' wait_for 5 says n1 'source is away'
sleep 0.5
kill "$(pgrep -P "${agent_pid[n1]}" | head -n 1)"
wait "${agent_pid[n1]}" || :
kill "$server" 2>/dev/null || :
on n1 cat /run/calls.file /run/calls.etcd | awk '$1 !~ /^-|^total|^syscall/ { print $1 }' | sort -u >"$calls"
cmp_ok "$(wc -l <"$calls")" -gt 40 'its system calls are known'
like "$(<"$calls")" '(^|[^a-z])setns([^a-z]|$)' '... with that into a pod'
like "$(<"$calls")" 'clone|fork' '... and the child for names'
allowed() { # what a word of the filter stands for
	local word words
	for word; do
		if [[ $word == @* ]]; then
			mapfile -t words < <(systemd-analyze syscall-filter "$word" 2>/dev/null | sed -n 's/^ \+\([@a-z_0-9-]\+\)$/\1/p')
			allowed "${words[@]}"
		else
			printf '%s\n' "$word"
		fi
	done
}
read -r -a filter < <(setting SystemCallFilter)
allowed "${filter[@]}" | sort -u >"$calls.allowed"
cmp_ok "$(wc -l <"$calls.allowed")" -gt 200 'what the filter of the unit lets through is known'
is "$(comm -23 "$calls" "$calls.allowed" | xargs)" '' '... and that is all that the agent calls'
done_testing
