#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# One network of flannel's nodes and ours: each reads what the other writes.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/etcd.sh"

make_pki
start_etcd 1
prefix=/coreos.com/network
node_options+=(--flannel --cluster 10.5.0.0/16)

# ---- the configuration is flannel's ----
start_node n1
eventually 5 'without its configuration there is no subnet' \
	has_told n1 "^node n1 .* flannel's configuration is not in etcd yet - etcdctl put $prefix/config"
ctl put $prefix/config '{"Network":"10.9.0.0/16","Backend":{"Type":"vxlan"}}' >/dev/null
eventually 10 'another network is refused' has_told n1 "flannel's network 10\.9\.0\.0/16 is not this node's - set clusterCIDR to 10\.9\.0\.0/16"
ctl put $prefix/config '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":7}}' >/dev/null
eventually 20 'so is another VNI' has_told n1 'set vxlan\.vni to 7'
stop_node n1
ctl put $prefix/config '{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard"}}' >/dev/null
start_node n1
eventually 10 'and a backend that is not spoken here' has_told n1 'neither vxlan nor host-gw'
stop_node n1
ctl put $prefix/config '{"Network":' >/dev/null
start_node n1
eventually 5 'and what is no configuration' has_told n1 "^node n1 .* etcd's key $prefix/config: .*JSON"
stop_node n1
ctl put $prefix/config '{"Network":"10.5.0.0/16","SubnetLen":20,"SubnetMin":"10.5.32.0","SubnetMax":"10.5.64.0",
	"Backend":{"Type":"vxlan"}}' >/dev/null

# ---- flannel's record: ours to see ----
ctl put $prefix/subnets/10.5.48.0-20 \
	'{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}' >/dev/null
start_node n1
eventually 5 'a flannel node is seen' has_told n1 '^node 10\.5\.48\.0-20 10\.5\.48\.0/20 192\.168\.64\.3 c6:d2:32:6f:8f:44 -$'
eventually 5 'this node has a subnet' has_told n1 'has its subnet'
like "$(subnets_of n1)" '^10\.5\.(32|64)\.0-20$' 'of the length and between the bounds that flannel has'

# ---- ours: flannel's to see. Its rules: pkg/subnet/subnet.go, pkg/lease/lease.go ----
flannel_key='(\d+\.\d+.\d+.\d+)-(\d+)(?:&([a-f\d:]+)-(\d+))?$'
ok 'our key is one of flannel' grep -qP "$flannel_key" <<<"$prefix/subnets/$(subnets_of n1)"
value=$(records | grep '"n1"' | cut -f2)
json "$value" '.PublicIP == "192.0.2.1" and (.PublicIPv6 == null or (.PublicIPv6 | type) == "string")' 'PublicIP is a string'
json "$value" '.BackendType == "vxlan" and .BackendData.VNI == 1' 'BackendType is what flannel waits for'
json "$value" '.BackendData.VtepMAC | test("^([0-9a-f]{2}:){5}[0-9a-f]{2}$")' 'VtepMAC is a MAC address'
isnt "$(ctl get "$prefix/subnets/$(subnets_of n1)" -w json | jq '.kvs[0].lease // 0')" 0 'it is on a lease, as flannel asks the time to live of each'

# ---- flannel goes, we come: same address, same subnet ----
ctl put $prefix/config '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}' >/dev/null
ctl del $prefix/subnets/10.5.48.0-20 >/dev/null
eventually 5 'a flannel node goes' has_told n1 '^gone 10\.5\.48\.0-20$'
read -r _ lease _ < <(ctl lease grant 600)
ctl put --lease "$lease" $prefix/subnets/10.5.99.0-24 \
	'{"PublicIP":"192.0.2.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:45"}}' >/dev/null
start_node n2
eventually 5 'the record with our address is ours' has_told n2 'podCIDR=10\.5\.99\.0/24'
is "$(subnets_of n2)" 10.5.99.0-24 'under its key'
eventually 5 'the others hear of the name' has_told n1 '^node n2 10\.5\.99\.0/24 192\.0\.2\.2 0a:58:0a:05:63:00 -$'
eventually 5 'and that the nameless one is gone' has_told n1 '^gone 10\.5\.99\.0-24$'
is "$(view n2 | wc -l)" 2 'nothing is left over in its own view'

# ---- back to flannel: it overwrites the record with its address ----
stop_node n2
ctl put $prefix/subnets/10.5.99.0-24 \
	'{"PublicIP":"192.0.2.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:46"}}' >/dev/null
eventually 5 'a node that goes back to flannel is seen' has_told n1 '^node 10\.5\.99\.0-24 10\.5\.99\.0/24 192\.0\.2\.2 c6:d2:32:6f:8f:46 -$'
eventually 5 'under that name alone' has_told n1 '^gone n2$'

# ---- both families ----
ctl put $prefix/config '{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}' >/dev/null
start_node n3 --cluster fd00:5::/48 --address 2001:db8::3
eventually 5 'dual stack' has_told n3 'has its subnet'
ok 'its key is one of flannel' grep -qP "$flannel_key" <<<"$(subnets_of n3)"
json "$(records | grep '"n3"' | cut -f2)" '.PublicIPv6 == "2001:db8::3" and (.BackendV6Data.VtepMAC | test("^0a:58:"))' 'with what flannel has for IPv6'
unlike "$(subnets_of n3)" '^10\.5\.0\.0-|&fd00:5::-' 'the first subnet of a network is not handed out, as with flannel'

# ---- host-gw ----
ctl put $prefix/config '{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}' >/dev/null
start_node n4
eventually 5 'backends differ' has_told n4 "flannel's backend is host-gw, this node's is not - set backend to direct"
start_node n6 --direct
eventually 5 'backends agree' has_told n6 'has its subnet'
is "$(records | grep '"n6"' | cut -f2)" '{"PublicIP":"192.0.2.6","BackendType":"host-gw","NodeName":"n6"}' 'as flannel writes it'
all_end_well
done_testing
