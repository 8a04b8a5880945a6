#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A node of ours and one that is as flannel makes it, on one wire: their pods reach each other. What
# flannel does is done here by hand, from what stands in etcd (pkg/backend/vxlan of flannel).
# shellcheck disable=SC2016 # what eval gets is for it to expand
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/agent.sh"

make_cluster 3
on n1 etcd --name n1 --data-dir /run/etcd --listen-client-urls http://127.0.0.1:2379,http://192.0.2.1:2379 \
	--advertise-client-urls http://192.0.2.1:2379 --listen-peer-urls http://127.0.0.1:2380 \
	--initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster n1=http://127.0.0.1:2380 \
	--log-level error >"$TMPDIR/etcd.log" 2>&1 &
at_exit kill "$!"
ctl() {
	on n1 env ETCDCTL_API=3 etcdctl --endpoints http://127.0.0.1:2379 "$@"
}
prefix=/coreos.com/network
wait_for 20 ctl put $prefix/config '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}' ||
	skip_all "etcd does not start: $(<"$TMPDIR/etcd.log")"

# flannel's node n2: device, bridge, a pod, and its record.
on n2 bash -c 'ip link add flannel.1 type vxlan id 1 local 192.0.2.2 dev eth0 nolearning dstport 8472 &&
	ip address add 10.5.2.0/32 dev flannel.1 && ip link set flannel.1 mtu 1450 up &&
	sysctl -q -w net.ipv4.ip_forward=1 && ip link add cni0 type bridge && ip address add 10.5.2.1/24 dev cni0 &&
	ip link set cni0 mtu 1450 up'
make_pod n2 a
on n2 ip link add veth0 mtu 1450 master cni0 type veth peer name eth0 mtu 1450 netns a
on n2 ip link set veth0 up
pod_exec n2 a bash -c 'ip link set eth0 up && ip address add 10.5.2.2/24 dev eth0 && ip route add default via 10.5.2.1'
record() { # ADDRESS MAC
	jq -nc --arg ip "$1" --arg mac "$2" \
		'{PublicIP: $ip, PublicIPv6: null, BackendType: "vxlan", BackendData: {VNI: 1, VtepMAC: $mac}}'
}
mac2=$(on n2 ip -j link show flannel.1 | jq -r '.[0].address')
ctl put $prefix/subnets/10.5.2.0-24 "$(record 192.0.2.2 "$mac2")" >/dev/null

# Ours, n1 and n3.
for node in n1 n3; do
	start_agent "$node" "$(agent_conf "$node" '.source = "etcd"' 'del(.file)' '.flannelCompat = true' \
		'.clusterCIDR = "10.5.0.0/16"' '.backend = "vxlan"' '.underlay.interface = "eth0"' '.etcd.endpoints = ["http://192.0.2.1:2379"]')"
done
for node in n1 n3; do
	ok "$node has a subnet of flannel's network, and is ready" wait_for 10 says "$node" 'this node is ready'
	agent_pod "$node" a
	like "$(pod_ip "$node" a)" '^10\.5\.' '... and its pod an address of it'
done
is "$(on n1 ip -j -d link show flannel.1 | jq -c '.[0] | [.mtu, (.linkinfo.info_data | .id, .port, .learning, .local)]')" \
	'[1450,1,8472,false,"192.0.2.1"]' "the device is flannel's"
ok 'the way to its node goes by the MAC that it told' wait_for 2 eval \
	'[[ $(on n1 ip neigh show 10.5.2.0 dev flannel.1) == *"$mac2 PERMANENT"* && $(on n1 bridge fdb show dev flannel.1) == *"$mac2 dst 192.0.2.2 "* ]]'

# What flannel's node does with each record.
follow() {
	ctl get --prefix $prefix/subnets/ -w json | jq -r '.kvs[] |
		(.key | @base64d | split("/")[-1] | split("-")[0]) + " " +
		(.value | @base64d | fromjson | .PublicIP + " " + .BackendData.VtepMAC)' |
		while read -r subnet address mac; do
			[[ $address != 192.0.2.2 ]] || continue
			on n2 bash -c 'ip neigh replace "$0" lladdr "$2" dev flannel.1 nud permanent &&
				bridge fdb replace "$2" dev flannel.1 dst "$1" self permanent &&
				ip route replace "$0/24" via "$0" dev flannel.1 onlink' "$subnet" "$address" "$mac"
		done
}
follow
is "$(on n2 ip route show dev flannel.1 | wc -l)" 2 "from our records flannel's node knows two others"
for node in n1 n3; do
	ok "$node's pod reaches flannel's pod" wait_for 2 can_ping "$node" a 10.5.2.2
	ok '... and the other way' wait_for 2 can_ping n2 a "$(pod_ip "$node" a)"
done
ok 'our pods reach each other, too' wait_for 2 can_ping n1 a "$(pod_ip n3 a)"
serve n2 a flannel 80
is "$(ask n1 a tcp 10.5.2.2 80)" "flannel $(pod_ip n1 a)" 'with their own address'
ok 'a packet of full size passes' pod_exec n1 a ping -n -q -c 1 -W 1 -M 'do' -s 1422 10.5.2.2

# Its device is made anew, as flannel does at a restart with another MAC.
on n2 ip link set flannel.1 address 0e:00:00:00:00:22 # takes its neighbours along
follow
ctl put $prefix/subnets/10.5.2.0-24 "$(record 192.0.2.2 0e:00:00:00:00:22)" >/dev/null
ok 'it tells another MAC: followed' wait_for 2 can_ping n1 a 10.5.2.2
# It goes.
ctl del $prefix/subnets/10.5.2.0-24 >/dev/null
ok "its record goes: the way goes" wait_for 2 eval '[[ ! $(on n1 ip route show 10.5.2.0/24) ]]'
ok '... and the others stay' can_ping n1 a "$(pod_ip n3 a)"
done_testing
