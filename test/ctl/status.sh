#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# flatnetctl status and version: a node that is well, and one thing after the other broken on purpose:
# each has to be named. Without the agent, and with it.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/ctl.sh"

make_cluster 3
conf=$(cluster_conf '.ipMasq = true')
on n1 mkdir -p /run/net.d
ctl_json status
ctl_exits 0 'a node without flatnet is not ill'
json "$ctl_out" '.networks == [] and .conf == "no CNI configuration names flatnet" and .agent.reached == false' \
	'it says what is not there'

conf_file n1 "$conf"
ctl_json status
ctl_exits 0 'nor is one before its first pod'
json "$ctl_out" '.networks[0] | .name == "pods" and .subnets == ["10.244.1.0/24"] and .pods == 0 and .free == 253 and
	.rules == "no pod yet" and .state == "ok"' 'whose network is known'

add_pod n1 a "$conf"
add_pod n1 b "$conf"
start=${EPOCHREALTIME//[!0-9]/}
ctl_json status
took=$(((${EPOCHREALTIME//[!0-9]/} - start) / 1000))
ctl_exits 0 'a node that is well'
json "$ctl_out" '.problems == []' '... has no problem'
((${FLAT_SANITIZED:-0})) || cmp_ok "$took" -lt 2000 '... and says so within two seconds'
json "$ctl_out" '.node == {name: "n1", addresses: ["192.0.2.1"], podCIDRs: ["10.244.1.0/24"]}' 'the node'
json "$ctl_out" '.peers | .up == 2 and .down == 0 and .direct == 2' 'its peers'
json "$ctl_out" '.networks == [{name: "pods", file: "/run/net.d/10-pods.conflist", subnets: ["10.244.1.0/24"],
	bridge: "cni0", mtu: 1500, pods: 2, used: 2, free: 251, leaked: 0, rules: "ok", state: "ok"}]' 'its network'
ctl status
cmp_ok "$(wc -l <<<"$ctl_out")" -le 24 'it is one screen'
like "$ctl_out" 'node +n1.*peers +2 up, 0 down.*pods +10\.244\.1\.0/24 +cni0 +1500 +2 +2 +251 +0 +ok +ok' 'for people'

broken() { # NAME REGEX COMMAND...: breaks it, looks, and shows the evidence
	local name=$1 regex=$2 command
	shift 2
	on n1 "$@"
	ctl_json status
	ctl_exits 1 "broken: $name"
	ok '... is named, with a cure' problem "$regex"
	command=$(jq -r --arg regex "$regex" 'first(.problems[] | select(.what | test($regex))).evidence' <<<"$ctl_out")
	case $command in
	curl* | journalctl*) ;;
	flatnetctl*) shown n1 "$FLAT_BIN/$command" ;;
	*) shown n1 "$command" ;;
	esac
}
well() { # COMMAND...: mends it
	on n1 "$@"
	ctl_json status
	json "$ctl_out" '.problems == []' '... and well again'
}
veth=$(on n1 ip -j link show type veth | jq -r '[.[] | select(.ifalias? // "" | test("ctr-a")).ifname][0]')

broken 'the bridge is down' "the bridge 'cni0' is down" ip link set cni0 down
on n1 ip route replace 10.244.2.0/24 via 192.0.2.2 proto 241
well ip link set cni0 up
broken 'no gateway address' "'cni0' lacks the pods' gateway address 10.244.1.1/24" ip address del 10.244.1.1/24 dev cni0
json "$ctl_out" '.networks[0].state == "no gateway address"' '... in the table, too'
well ip address add 10.244.1.1/24 dev cni0 noprefixroute
broken 'no forwarding' 'net.ipv4.ip_forward is 0' sysctl -qw net.ipv4.ip_forward=0
well sysctl -qw net.ipv4.ip_forward=1
broken 'a pod link is down' "the link $veth of container ctr-a is down" ip link set "$veth" down
well ip link set "$veth" up
broken 'a rule is gone' "network 'pods': " nft flush chain inet flatnet postrouting
json "$ctl_out" '.networks[0].rules == "wrong"' '... in the table, too'
NODE=n1 cni DEL b ctr-b eth0 <<<"$conf"
NODE=n1 cni ADD b ctr-b eth0 <<<"$conf"
well true
broken 'no route to a node' "node 'n2': there is no route" ip route del 10.244.2.0/24
well ip route add 10.244.2.0/24 via 192.0.2.2 proto 241
broken 'a file before ours' '05-other.conflist comes before' \
	bash -c 'echo "{\"cniVersion\": \"1.0.0\", \"name\": \"x\", \"plugins\": [{\"type\": \"x\"}]}" >/run/net.d/05-other.conflist'
well rm /run/net.d/05-other.conflist
broken 'a file that is no JSON' '20-bad.conf: not valid JSON' bash -c 'echo "{" >/run/net.d/20-bad.conf'
well rm /run/net.d/20-bad.conf
on n1 cp /run/net.d/10-pods.conflist /run/10-pods.conflist
broken 'a configuration that is wrong' "network 'pods': bridgeMode: \"l3\" is neither" \
	bash -c 'jq ".plugins[0].bridgeMode = \"l3\"" /run/10-pods.conflist >/run/net.d/10-pods.conflist'
json "$ctl_out" '.networks[0].state == "conf is wrong"' '... in the table, too'
well cp /run/10-pods.conflist /run/net.d/10-pods.conflist
leak n1 c "$conf"
broken 'a leaked address' 'is leaked: container ctr-c' true
json "$ctl_out" '.networks[0].leaked == 1' '... and counted'
well "$FLAT_BIN/flatnetctl" ipam release --leaked
on n2 ip link set eth0 down
broken 'a node that is gone' "node 'n2': 192.0.2.2 does not answer" true
on n2 ip link set eth0 up
on n1 ip link set cni0 name cni9
broken 'no bridge' "the bridge 'cni0' is gone, and 2 pods are here" true
well ip link set cni9 name cni0
small=$(jq -c '.ipam = {rangeStart: "10.244.1.200", rangeEnd: "10.244.1.200", subnet: "10.244.1.0/24"}' <<<"$conf")
conf_file n1 "$small"
add_pod n1 d "$small"
broken 'a range that is full' "no address is free, of 1" true
remove_pod n1 d "$small"
well cp /run/10-pods.conflist /run/net.d/10-pods.conflist
on n1 mkdir -p /run/none
on n1 "$FLAT_BIN/flatnetctl" status --json --conf-dir /run/net.d --node n1 --plugin-dir /run/none >/run/tmp/out || :
ctl_out=$(</run/tmp/out)
ok 'a plugin that is not installed' problem 'the plugin cannot be started: /run/none/flatnet: not installed'

# ---- version

ctl_json version
ctl_exits 0 'the versions agree'
version=$(jq -r '.programs[] | select(.program == "flatnetctl").version' <<<"$ctl_out")
is "$(jq -r '.programs[] | select(.program == "flatnet").version' <<<"$ctl_out")" "$version" "the plugin's"
is "$(jq -r '.programs[] | select(.program == "flatnet-ipam").version' <<<"$ctl_out")" "$version" "flatnet-ipam's"
json "$ctl_out" '.cniVersions[0] == "0.1.0" and .cniVersions[-1] == "1.1.0" and (.kernel | startswith("Linux "))' \
	'of the protocol and the kernel'
# shellcheck disable=SC2016
on n1 bash -c 'printf "#!/bin/sh\necho \"flatnet 9.9.9: another\" >&2\n" >/run/none/flatnet
	printf "#!/bin/sh\nsleep 60\n" >/run/none/flatnet-ipam
	chmod +x /run/none/*'
rc=0
start=$SECONDS
on n1 "$FLAT_BIN/flatnetctl" version --json --plugin-dir /run/none >/run/tmp/out || rc=$?
is "$rc" 1 'a plugin of another version'
json "$(</run/tmp/out)" '.programs[] | select(.program == "flatnet") | .version == "9.9.9" and (.remark | test("another version"))' \
	'... is told'
json "$(</run/tmp/out)" '.programs[] | select(.program == "flatnet-ipam") | .version == null and (.remark | test("not of flatnet"))' \
	'and one that says nothing'
cmp_ok $((SECONDS - start)) -le 6 '... is not waited for'

# ---- with the agent

[[ -x $FLAT_BIN/flatnetd ]] || {
	skip 'the agent' 'flatnetd was not built'
	done_testing
}
. "${0%/*}/../lib/agent.sh"
tell_nodes "$(node_list 4)" n2
on n2 mkdir -p /run/net.d
conf_file n2 "$agent_plugin_conf"
NODE=n2
ctl_json status
ctl_exits 1 'a node whose agent does not run'
ok '... which is needed' problem "the agent does not run, and this node's subnet is not known"
json "$ctl_out" '.networks[0].state == "not ready"' '... in the table, too'
start_agent n2 "$(agent_conf n2)"
wait_for 5 bash -c "$(declare -f on http_get); declare -A node_pid=([n2]=${node_pid[n2]}); http_get n2 /readyz | grep -q ' 200 '"
ctl_json status --state-file /run/state/state.json
ctl_exits 0 'with the agent all is well'
json "$ctl_out" '.agent | .reached and .ready and .source == "file" and .version == "'"$version"'"' 'it is asked'
json "$ctl_out" '.node.podCIDRs == ["10.244.2.0/24"] and .peers.up == 2' 'and what it remembers is shown'
ctl_json version
json "$ctl_out" '.programs[] | select(.program == "flatnetd").version == "'"$version"'"' 'and its version'
tell_nodes "$(node_list 4 | jq -c 'del(.[1])')" n2
wait_for 5 says n2 'not in|vanished|gone' || :
wait_for 5 bash -c "$(declare -f on http_get); declare -A node_pid=([n2]=${node_pid[n2]}); http_get n2 /readyz | grep -q ' 503 '"
ctl_json status --state-file /run/state/state.json
ctl_exits 1 'an agent that is not ready'
ok '... says why' problem 'the agent is not ready: .'
on n2 "$FLAT_BIN/flatnetctl" status --json --agent 127.0.0.1:1 --conf-dir /run/net.d --node n2 >/run/tmp/out || :
json "$(</run/tmp/out)" '.agent.reached == false' 'another place is asked where it is named'
ctl status --agent nonsense
ctl_exits 3 'a place that is none'
done_testing
