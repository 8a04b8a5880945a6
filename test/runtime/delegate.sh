#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# flatnet below plugins that make a configuration and have another plugin carry it out: flannel's, which
# is the real one of Debian 11 (0.9.0), and calls exactly as its version 1.9.1 and multus 4 make them, of
# which Debian has no package.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"
. "${0%/*}/../lib/cluster.sh"

[[ -n ${FLAT_REFERENCE:-} && -n ${FLAT_FLANNEL:-} ]] || skip_all 'the reference plugins could not be had'
export CNI_PATH=$FLAT_BIN:$FLAT_REFERENCE

# The sandbox is the node, on the wire as 192.0.2.1; the outside has no way to the pods.
make_wire wire
make_node out wire 192.0.2.9/24
on wire ip link add here type veth peer name up0 netns $$
on wire ip link set here master wire up
ip address add 192.0.2.1/24 dev up0
ip link set up0 up
for pod in a b; do
	make_pod - $pod
done

# ---- flannel's plugin --------------------------------------------------------------------------------

# flanneld IPMASQ: what it writes
flanneld() {
	mkdir -p /run/flannel
	printf '%s\n' FLANNEL_NETWORK=10.244.0.0/16 FLANNEL_SUBNET=10.244.1.1/24 FLANNEL_MTU=1450 "FLANNEL_IPMASQ=$1" \
		>/run/flannel/subnet.env
}
# flannel VERB POD: runs it with $conf
flannel() {
	FLAT_PLUGIN=$FLAT_FLANNEL cni "$1" "$2" "ctr-$2" eth0 <<<"$conf"
}
their_addresses() {
	find /var/lib/cni/networks/cbr0 -name '10.*' 2>/dev/null | sed 's:.*/::' | sort | tr '\n' ' '
}
scratch() { # what flannel has written down for DEL
	find /var/lib/cni/flannel -type f 2>/dev/null | wc -l
}
masquerades() {
	rules '[.nftables[].rule | select(. and any(.expr[]; has("masquerade")))] | length'
}
for case in 'false 0.3.1 {}' 'true 0.4.0 {}' 'true 0.4.0 {"type":"flatnet-ipam"}' 'false 0.2.0 {"dataDir":"/run/theirs"}'; do
	read -r masquerade version ipam <<<"$case"
	flanneld "$masquerade"
	conf=$(jq -nc --argjson ipam "$ipam" --arg v "$version" '{cniVersion: $v, name: "cbr0", type: "flannel", ipam: $ipam,
		delegate: {type: "flatnet", hairpinMode: true, isDefaultGateway: true}}')
	flannel ADD a
	cni_ok "flannel, $case: ADD"
	result=$cni_out
	flannel ADD b
	cni_ok '... and of another pod'
	a=$(pod_ip - a) b=$(pod_ip - b)
	like "$a $b" '^10\.244\.1\.[0-9]+ 10\.244\.1\.[0-9]+$' '... addresses of the subnet'
	case $ipam in
	'{}') is "$(their_addresses)" "$(printf '%s\n' "$a" "$b" | sort | tr '\n' ' ')" '... which host-local keeps' ;;
	*flatnet-ipam*) is "$(store_files)" "$(printf '%s\n' "$store/cbr0/$a" "$store/cbr0/$b" | sort)" '... which flatnet keeps' ;;
	*) is "$(find /run/theirs/cbr0 -name '10.*' | wc -l)" 2 '... which are kept where they are to be' ;;
	esac
	is "$(pod_link a eth0 .mtu) $(link "$(veths | head -n 1)" .linkinfo.info_slave_data.hairpin)" '1450 true' "... flannel's MTU, and the delegate's hairpin"
	is "$(pod_exec - a ip -j route show 10.244.0.0/16 | jq -r '.[0].gateway') $(pod_exec - a ip -j route show default | jq -r '.[0].gateway')" \
		'10.244.1.1 10.244.1.1' '... the routes'
	is "$(masquerades)" "$([[ $masquerade == true ]] && echo 0 || echo 1)" '... masquerades when flanneld does not'
	ok '... the pods reach each other' can_ping - a "$b"
	if [[ $masquerade == false ]]; then
		ok '... and the outside' can_ping - a 192.0.2.9
	fi
	flannel DEL b
	cni_ok '... DEL'
	# What flannel sends for DEL is what it wrote down; a plugin that forwards CHECK sends the same.
	if [[ $version == 0.4.0 ]]; then
		cni CHECK a ctr-a eth0 <<<"$(with_prev "$(cat /var/lib/cni/flannel/ctr-a)" "$result")"
		cni_ok '... CHECK of what it wrote down'
		flannel CHECK a
		cni_ok '... and by flannel'
	fi
	del_pod - a
	flannel DEL a
	cni_ok '... DEL without the namespace'
	is "$(veths)$(their_addresses)$(store_files)$(find /run/theirs -name '10.*' 2>/dev/null) $(scratch)" ' 0' '... leaves nothing'
	flannel DEL a
	cni_ok '... DEL once more'
	make_pod - a
	remove_all
done

flanneld true
conf=$(jq -nc '{cniVersion: "0.4.0", name: "cbr0", type: "flannel", delegate: {type: "flatnet"},
	runtimeConfig: {portMappings: [{hostPort: 8080, containerPort: 80, protocol: "tcp"}]}}')
flannel ADD a
cni_ok 'flannel passes on what the runtime asks for'
serve - a web 80
is "$(ask out - tcp 192.0.2.1 8080)" 'web 192.0.2.9' '... a port of the host leads to the pod'
before=$(state)
flannel ADD b
like "$cni_rc $cni_out" '^1 .*8080' '... an ADD that fails below flannel says why'
is "$(state)" "$before" '... and leaves nothing'
flannel DEL b
cni_ok '... its DEL'
is "$(state)" "$before" '... takes nothing from others'
flannel DEL a
cni_ok '... DEL'
fails '... the port is gone' ask out - tcp 192.0.2.1 8080
is "$(veths)$(their_addresses) $(scratch)" ' 0' '... nothing is left'
rm /run/flannel/subnet.env
flannel ADD a
like "$cni_rc $cni_out" '^1 .*subnet.env' 'without flanneld flannel fails by itself'
remove_all

# Version 1.9.1 sends this, keys in this order, for both families; it has no GC and no STATUS of its own.
conf='{"cniVersion":"1.1.0","hairpinMode":true,"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.244.1.0/24"}],[{"subnet":"fd00:10:244:1::/64"}]],"routes":[{"dst":"10.244.0.0/16"},{"dst":"fd00:10:244::/48"}],"type":"host-local"},"isDefaultGateway":true,"mtu":1450,"name":"cbr0","type":"flatnet"}'
cni STATUS - - - <<<"$conf"
cni_ok 'flannel 1.9.1: STATUS'
cni ADD a ctr-a eth0 <<<"$conf"
cni_ok '... ADD'
result=$cni_out
cni CHECK a ctr-a eth0 <<<"$(with_prev "$conf" "$result")"
cni_ok '... CHECK'
cni ADD b ctr-b eth0 <<<"$conf"
ok '... IPv4 works' can_ping - a "$(pod_ip - b)"
ok '... and IPv6' can_ping - a "$(pod_ip6 - b)"
is "$(pod_exec - a ip -j -6 route show fd00:10:244::/48 | jq -r '.[0].gateway')" fd00:10:244:1::1 '... the routes'
cni GC '' '' '' <<<"$(jq -c '."cni.dev/valid-attachments" = [{containerID: "ctr-b", ifname: "eth0"}]' <<<"$conf")"
cni_ok '... GC'
is "$(veths | wc -l)" 1 '... leaves what is valid'
for pod in a b; do
	cni DEL $pod ctr-$pod eth0 <<<"$conf"
	cni_ok '... DEL without prevResult'
done
is "$(veths)$(their_addresses)" '' '... nothing is left'
remove_all

# ---- multus ----------------------------------------------------------------------------------------------

# It calls libcni for each network of a pod, with CNI_ARGS of its own and behind them those of the runtime
# once more (pkg/types/conf.go). net1 has addresses and MAC by the pod's annotation.
pod_args='K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=ctr-a;K8S_POD_UID=5e4c'
export CNI_ARGS="IgnoreUnknown=true;$pod_args;IgnoreUnknown=1;$pod_args"
first=$(flat_conf '.name = "default"' '.ipMasq = true')
second=$(flat_conf '.name = "storage"' '.bridge = "storage0"' '.ipam.subnet = "10.250.0.0/24"' '.isDefaultGateway = false' \
	'.runtimeConfig = {ips: ["10.250.0.77/24"], mac: "02:00:00:00:00:77"}')
cni ADD a ctr-a eth0 <<<"$first"
cni_ok 'multus: ADD of the cluster'\''s network'
eth0=$cni_out
cni ADD a ctr-a net1 <<<"$second"
cni_ok '... and of another one'
net1=$cni_out
is "$(pod_ip - a net1) $(pod_mac - a net1)" '10.250.0.77 02:00:00:00:00:77' '... with the address and the MAC asked for'
like "$(ip -j link show type veth | jq -r '.[].ifalias // ""')" 'storage ctr-a net1 10\.250\.0\.77 shop/web-0' '... the link tells whose it is'
ok '... both work' pod_exec - a ping -n -q -c 1 -W 1 -I net1 10.250.0.1
ok '... each by itself' pod_exec - a ping -n -q -c 1 -W 1 -I eth0 10.244.1.1
cni CHECK a ctr-a net1 <<<"$(with_prev "$second" "$net1")"
cni_ok '... CHECK'
# The annotation "default-route": multus takes the one of eth0 away, in the pod and in the cached result,
# and puts one by net1 in both (pkg/netutils).
pod_exec - a ip route del default
pod_exec - a ip route add default via 10.250.0.1
eth0=$(jq 'del(.routes[] | select(.dst == "0.0.0.0/0"))' <<<"$eth0")
net1=$(jq '.routes += [{dst: "0.0.0.0/0", gw: "10.250.0.1"}]' <<<"$net1")
cni CHECK a ctr-a eth0 <<<"$(with_prev "$first" "$eth0")"
cni_ok '... CHECK when another network has got the default route'
cni CHECK a ctr-a net1 <<<"$(with_prev "$second" "$net1")"
cni_ok '... and of that network'
ok '... the pod goes out by it' can_ping - a 192.0.2.1
# GC gets the attachments of all networks alike.
cni GC '' '' '' <<<"$(jq -c '."cni.dev/valid-attachments" = [{containerID: "ctr-a", ifname: "eth0"}, {containerID: "ctr-a", ifname: "net1"}]' <<<"$second")"
cni_ok '... GC'
is "$(veths | wc -l)" 2 '... leaves both'
cni DEL a ctr-a net1 <<<"$(with_prev "$second" "$net1")"
cni_ok '... DEL of one network'
is "$(veths | wc -l) $(store_files)" "1 $store/default/$(pod_ip - a)" '... leaves the other'
del_pod - a
cni DEL '' ctr-a eth0 <<<"$first"
cni_ok '... DEL from its own cache, when the pod is gone'
cni DEL '' ctr-a net1 <<<"$second"
cni_ok '... of both'
is "$(veths)$(store_files)" '' '... nothing is left'

done_testing
