#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A node's own subnet as an agent tells it: flatnet's node.json, flannel's subnet.env; and what becomes
# of a node whose subnet changes.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"

make_cluster 1
serve out - out 80
bare='{"cniVersion": "1.1.0", "name": "pods", "type": "flatnet"}'

tell() { # FILE TEXT: writes a file of the node
	on n1 mkdir -p "${1%/*}"
	on n1 tee "$1" <<<"$2" >/dev/null
}
add() { # POD CONF
	make_pod n1 "$1"
	NODE=n1 cni ADD "$1" "ctr-$1" eth0 <<<"$2"
}
del() { # POD CONF
	NODE=n1 cni DEL "$1" "ctr-$1" eth0 <<<"$2"
	del_pod n1 "$1"
}

# Nobody has told yet.
add a "$bare"
cni_fails 11 '/run/flatnet/node\.json.*(agent|ipam\.subnet)' 'without subnet: try later, and why'
is "$(on n1 ip -br link | grep -c -e cni0 -e veth)" 0 '... and nothing is left'
NODE=n1 cni STATUS - - - <<<"$bare"
cni_fails 50 '/run/flatnet/node\.json' '... STATUS: not ready'
NODE=n1 cni DEL a ctr-a eth0 <<<"$bare"
cni_ok '... DEL has nothing against it'
NODE=n1 cni GC - - - <<<"$(jq -c '. + {"cni.dev/valid-attachments": []}' <<<"$bare")"
cni_ok '... nor has GC'
del_pod n1 a

tell /run/flatnet/node.json '{"podCIDRs": [], "clusterCIDR": []}'
add a "$bare"
cni_fails 11 'node\.json.*no subnet' 'a file without a subnet: try later'
del a "$bare"
tell /run/flatnet/node.json '{"podCIDRs": ["10.244.7.0/24"'
add a "$bare"
cni_fails 6 'node\.json' 'a broken file is named'
del a "$bare"
tell /run/flatnet/node.json '{"podCIDRs": ["10.244.7.0/33"]}'
add a "$bare"
cni_fails 7 'node\.json.*podCIDRs\[0\]' 'a wrong value is named'
del a "$bare"

# node.json
tell /run/flatnet/node.json '{"podCIDRs": ["10.50.7.0/24"], "clusterCIDR": ["10.50.0.0/16"], "mtu": 1450}'
NODE=n1 cni STATUS - - - <<<"$bare"
cni_ok 'STATUS is content as soon as the file is there'
masq=$(jq -c '.ipMasq = true' <<<"$bare")
add a "$masq"
cni_ok 'so is ADD'
like "$(pod_ip n1 a)" '^10\.50\.7\.[0-9]+$' 'the address is of the told subnet'
is "$(pod_exec n1 a ip -j link show eth0 | jq '.[0].mtu')" 1450 'the MTU is the told one'
is "$(ask n1 a tcp 192.0.2.100 80)" 'out 192.0.2.1' 'the outside is reached'
like "$(on n1 nft list table inet flatnet)" 'daddr != 10\.50\.0\.0/16' "the told network is the cluster's"
result=$cni_out
NODE=n1 cni CHECK a ctr-a eth0 <<<"$(with_prev "$masq" "$result")"
cni_ok 'CHECK is content'
add b "$(jq -c '.mtu = 1400 | .clusterCIDR = "10.48.0.0/12"' <<<"$masq")"
is "$(pod_exec n1 b ip -j link show eth0 | jq '.[0].mtu')" 1400 "the configuration's MTU goes first"
like "$(on n1 nft list table inet flatnet)" 'daddr != 10\.48\.0\.0/12' '... and so does its clusterCIDR'
del b "$masq"
add b "$(jq -c '.bridge = "cni1" | .name = "own" | .ipam.subnet = "10.60.0.0/24"' <<<"$bare")"
like "$(pod_ip n1 b)" '^10\.60\.0\.' '... and its ipam.subnet'
del b "$(jq -c '.name = "own"' <<<"$bare")"

# The node gets another subnet.
tell /run/flatnet/node.json '{"podCIDRs": ["10.50.8.0/24"], "clusterCIDR": ["10.50.0.0/16"]}'
add b "$masq"
cni_fails 102 "bridge 'cni0' has the address 10\.50\.7\.1/24, not 10\.50\.8\.1/24" \
	'another subnet while pods use the old one is an error that names both'
like "$cni_out" 'forceAddress' '... and the cures'
ok '... and the pods go on' no_loss n1 a 192.0.2.100
is "$(on n1 ip -br link show master cni0 | wc -l)" 1 '... and nothing of the new pod is left'
del b "$masq"
del a "$masq"
add b "$masq"
cni_ok 'with the last pod gone, the bridge gets the new address'
is "$(on n1 ip -j -4 address show cni0 | jq -r '[.[].addr_info[].local] | join(" ")')" 10.50.8.1 '... and only that'
is "$(ask n1 b tcp 192.0.2.100 80)" 'out 192.0.2.1' '... and the pods of the new one are masqueraded'
tell /run/flatnet/node.json '{"podCIDRs": ["10.50.9.0/24"], "clusterCIDR": ["10.50.0.0/16"]}'
add c "$(jq -c '.forceAddress = true' <<<"$masq")"
cni_ok 'forceAddress does it at once'
is "$(on n1 ip -j -4 address show cni0 | jq -r '[.[].addr_info[].local] | join(" ")')" 10.50.9.1 '... as asked'
del b "$masq"
del c "$masq"

# flannel's file
tell /run/flannel/subnet.env 'FLANNEL_NETWORK=10.51.0.0/16
FLANNEL_SUBNET=10.51.3.1/24
FLANNEL_IPV6_NETWORK=fd00:10:51::/48
FLANNEL_IPV6_SUBNET=fd00:10:51:3::1/64
FLANNEL_MTU=1420
FLANNEL_IPMASQ=true'
flannel=$(jq -c '.name = "flannel" | .bridge = "cni5" | .subnetFile = "/run/flannel/subnet.env"' <<<"$bare")
add a "$flannel"
cni_ok "flannel's subnet.env will do"
json "$cni_out" '[.ips[].address] | (.[0] | test("^10[.]51[.]3[.][0-9]+/24$")) and (.[1] | test("^fd00:10:51:3::[0-9a-f]+/64$"))' \
	'... for both families'
json "$cni_out" '[.ips[].gateway] == ["10.51.3.1", "fd00:10:51:3::1"]' '... with its gateways'
is "$(pod_exec n1 a ip -j link show eth0 | jq '.[0].mtu')" 1420 '... and its MTU'
fails '... and with FLANNEL_IPMASQ=true masquerading is left to flanneld' ask n1 a tcp 192.0.2.100 80
add b "$(jq -c '.ipMasq = true' <<<"$flannel")"
is "$(ask n1 b tcp 192.0.2.100 80)" 'out 192.0.2.1' 'ipMasq in the configuration goes first'
del b "$flannel"
tell /run/flannel/subnet.env 'FLANNEL_NETWORK=10.51.0.0/16
FLANNEL_SUBNET=10.51.3.1/24
FLANNEL_IPMASQ=false'
add b "$flannel"
is "$(ask n1 b tcp 192.0.2.100 80)" 'out 192.0.2.1' 'with FLANNEL_IPMASQ=false, flatnet masquerades'
like "$(on n1 nft list table inet flatnet)" 'daddr != 10\.51\.0\.0/16' "... what leaves flannel's network"
del b "$flannel"
add b "$(jq -c '.ipMasq = false' <<<"$flannel")"
cni_ok '... unless it is told not to'
fails '... and then it does not' ask n1 b tcp 192.0.2.100 80
del b "$flannel"
tell /run/flannel/subnet.env 'FLANNEL_SUBNET=nonsense'
add b "$flannel"
cni_fails 7 'subnet\.env.*FLANNEL_SUBNET.*nonsense' 'nonsense in it is named'
del b "$flannel"
on n1 rm /run/flannel/subnet.env
add b "$flannel"
cni_fails 11 '/run/flannel/subnet\.env' 'without it: try later'
del b "$flannel"
del a "$flannel"
cni_ok 'DEL does not need it'
add b "$(jq -c '.subnetFile = "subnet.env"' <<<"$flannel")"
cni_fails 7 'subnetFile.*absolute' 'subnetFile is an absolute path'

done_testing
