#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# flatnetctl pods: what the links tell, for people and for machines; and the command line itself.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/ctl.sh"

make_node n1 -
ctl pods
ctl_exits 3 'a folder of configurations that was named and is not there: cannot look'
like "$ctl_err" '/run/net.d.*No such file' '... and it is named'
on n1 mkdir -p /run/net.d
ctl pods
ctl_exits 0 'a node without pods is well'
is "$ctl_out" 'no pod of flatnet is on this node' '... and says so'

conf=$(flat_conf '.mtu = 1400' 'del(.ipam.subnet)' \
	'.ipam.ranges = [[{subnet: "10.244.1.0/24"}], [{subnet: "fd00:1::/64"}]]')
conf_file n1 "$conf"
CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0' add_pod n1 a "$conf"
link=$(jq -r '.interfaces[1].name' <<<"$cni_out")
add_pod n1 b "$(jq -c '.name = "other"' <<<"$conf")"
# somebody else's
on n1 ip link add veth00000000000 type veth peer name theirs
on n1 ip link set veth00000000000 alias 'not of flatnet'

ctl_json pods
ctl_exits 0 'two pods'
json "$ctl_out" '.pods | length == 2' 'and no link of others'
json "$ctl_out" '.pods[] | select(.containerID == "ctr-a") | .network == "pods" and .pod == "shop/web-0" and
	.addresses == ["10.244.1.2", "fd00:1::2"] and .interface == "eth0" and .bridge == "cni0" and .mtu == 1400 and
	.state == "up"' 'all of a pod'
is "$(jq -r '.pods[] | select(.containerID == "ctr-a").hostInterface' <<<"$ctl_out")" "$link" 'by the link that ADD told'
json "$ctl_out" '.pods[] | select(.containerID == "ctr-b") | .network == "other" and .pod == null' \
	'a pod without a name has none'

ctl_json pods --network other
json "$ctl_out" '[.pods[].containerID] == ["ctr-b"]' '--network shows one network'
ctl pods --network nonsense
ctl_exits 3 'a network that is not there'
like "$ctl_err" "no network 'nonsense'" '... is named'

ctl pods
like "$ctl_out" 'NETWORK +ADDRESS +POD +CONTAINER' 'a table has a head'
like "$ctl_out" 'pods +10\.244\.1\.2,fd00:1::2 +shop/web-0 +ctr-a +eth0 +veth' 'and a row for people'
unlike "$ctl_out" $'\033' 'no colour where it is no terminal'
ctl pods --color always
like "$ctl_out" $'\033\\[32mup' 'colour where it is asked for'
on n1 script -qec "TERM=xterm $FLAT_BIN/flatnetctl pods --conf-dir /run/net.d" /run/typescript >/dev/null
like "$(on n1 cat /run/typescript)" $'\033\\[32mup' 'colour on a terminal'
on n1 script -qec "TERM=xterm NO_COLOR=1 $FLAT_BIN/flatnetctl pods --conf-dir /run/net.d" /run/typescript >/dev/null
unlike "$(on n1 cat /run/typescript)" $'\033\\[' 'unless NO_COLOR is set'

# What others wrote does not speak to the terminal.
on n1 ip link set "$link" alias "flatnet pods ctr-a eth0 10.244.1.2 shop/$(printf '\033')[31mweb"
ctl pods
unlike "$ctl_out" $'\033' 'an escape in a name is not printed'
like "$ctl_out" 'shop/\?\[31mweb' '... but shown'
ctl_json pods
json "$ctl_out" '.pods[] | select(.containerID == "ctr-a").pod == "shop/\u001b[31mweb"' '... and JSON has it as it is'

on n1 ip link set "$link" down
ctl_json pods
ctl_exits 1 'a link that is down is wrong'
json "$ctl_out" '.pods[] | select(.containerID == "ctr-a").state == "down"' '... and shown as such'
on n1 ip link set "$link" up nomaster
ctl_json pods
json "$ctl_out" '.pods[] | select(.containerID == "ctr-a").state == "not on a bridge"' 'a link that has left the bridge, too'

# ---- the command line

ctl
ctl_exits 2 'no command'
like "$ctl_err" 'usage: flatnetctl COMMAND' '... tells the usage'
is "$ctl_out" '' '... on standard error'
ctl nonsense
ctl_exits 2 'an unknown command'
like "$ctl_err" "no command 'nonsense'.*there are: status, pods" '... tells which there are'
ctl ipam
ctl_exits 2 'half a command'
like "$ctl_err" "'ipam' what\\?.*there are: ipam list, ipam show" '... tells the other halves'
ctl pods --nonsense
ctl_exits 2 'an unknown option'
ctl pods --leaked
ctl_exits 2 'an option of another command'
like "$ctl_err" "'pods' takes no --leaked" '... is named'
ctl pods --network
like "$ctl_err" '--network: NAME is missing' 'an option without its value'
ctl pods --color=blue
ctl_exits 2 'a value that is not allowed'
like "$ctl_err" "'blue' is none of: auto always never" '... tells which are'
ctl pods extra
ctl_exits 2 'an argument too many'
ctl --json pods --network=other
json "$ctl_out" '[.pods[].containerID] == ["ctr-b"]' 'options may stand anywhere'
ctl --help
ctl_exits 0 'help'
commands=$(sed -n '/^Commands:/,/^Options:/s/^  \([a-z]*\( [a-z]*\)\{0,1\}\).*/\1/p' <<<"$ctl_out" | sed 's/ *$//')
cmp_ok "$(wc -l <<<"$commands")" -ge 10 'names all commands'
while read -r command; do
	# shellcheck disable=SC2086
	ctl $command --help
	ctl_exits 0 "help of $command"
	like "$ctl_out" "usage: flatnetctl $command.*--json" '... tells usage and options'
done <<<"$commands"
full() { # a standard output that is full
	on n1 bash -c "$FLAT_BIN/flatnetctl pods --conf-dir /run/net.d >/dev/full"
}
fails 'what cannot be printed is a failure' full
done_testing
