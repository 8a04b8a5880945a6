#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Subnets are handed out: each once, the same over restarts, and a word when there is none.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/etcd.sh"

make_pki
start_etcd 1

# ---- three nodes at once, both families ----
dual=(--cluster 10.244.0.0/16 --cluster fd00:10:244::/48)
for i in 1 2 3; do
	start_node "n$i" --address "2001:db8::$i" "${dual[@]}"
done
all_there() { # COUNT [PREFIX]
	(($(records "${2:-}" | wc -l) == $1))
}
eventually 10 'three nodes have a record' all_there 3
is "$(records | cut -f1 | sort -u | wc -l)" 3 'each another one'
like "$(records | cut -f1 | head -n 1)" '^10\.244\.[0-9]+\.0-24&fd00:10:244:[0-9a-f:]*:-64$' 'a /24 and a /64'
is "$(records | cut -f1 | sed -E 's/.*&fd00:10:244:(0:)?([0-9a-f]*):+-64/\2/' | while read -r hex; do
	printf '%d\n' "0x${hex:-0}"
done | sort)" \
	"$(records | cut -f1 | sed -E 's/^10\.244\.([0-9]+)\..*/\1/' | sort)" 'with the same number in both families'
same_view() {
	[[ $(view "$1") == "$(view "$2")" && $(view "$1" | wc -l) == "$3" ]]
}
eventually 5 'n1 and n2 know the same three nodes' same_view n1 n2 3
eventually 5 'n3, too' same_view n1 n3 3
like "$(view n1 | head -n 1)" '192\.0\.2\.1,2001:db8::1 0a:58:0a:f4:.*:00' 'with their addresses and VTEP'

# ---- restarts ----
before=$(ctl get --prefix /flatnet/subnets/ -w json | jq -c '[.kvs[] | [.key, .create_revision, .mod_revision, .lease]]')
stop_node n2 KILL
start_node n2 --address "2001:db8::2" "${dual[@]}"
eventually 5 'a restarted node has its subnet' has_told n2 'has its subnet'
is "$(ctl get --prefix /flatnet/subnets/ -w json | jq -c '[.kvs[] | [.key, .create_revision, .mod_revision, .lease]]')" \
	"$before" 'a restart writes nothing: key, revisions and lease are the same'
stop_node n2
start_node n2 --address "2001:db8::22" "${dual[@]}"
moved() { records | grep -q '"PublicIPv6":"2001:db8::22"'; }
eventually 5 'a new address is written' moved
is "$(ctl get --prefix /flatnet/subnets/ -w json | jq -c '[.kvs[] | [.key, .create_revision]]')" \
	"$(jq -c '[.[] | .[0:2]]' <<<"$before")" 'into the same record'
for i in 1 2 3; do
	stop_node "n$i"
done

# ---- thirty from a range of 32 ----
prefix=/thirty
kill -STOP "${etcd_pid[1]}" # so that all come at once
for i in {1..30}; do
	start_node "n$i" --cluster 10.1.0.0/19
done
sleep 1
kill -CONT "${etcd_pid[1]}"
eventually 30 'thirty nodes get one of 32' all_there 30 /thirty
is "$(records | cut -f1 | sort -u | wc -l)" 30 'each another one'
is "$(records | cut -f2 | jq -r .NodeName | sort -u | wc -l)" 30 'and each node one'
eventually 5 'the last to come knows all of them' same_view n1 n30 30
is "$(for i in {1..30}; do told "n$i" 'has its subnet'; done | wc -l)" 30 'nobody had to move'
for i in {1..30}; do
	stop_node "n$i" KILL
done

# ---- exhaustion ----
prefix=/four
for i in 1 2 3 4; do
	start_node "n$i" --cluster 10.2.0.0/22
done
eventually 10 'four of four are taken' all_there 4 /four
start_node n5 --cluster 10.2.0.0/22
eventually 5 'the fifth says so, with counts' has_told n5 '^node n5  192\.0\.2\.5 .* no subnet is free: 4 of the 4 /24 to hand out of 10\.2\.0\.0/22'
sleep 2
is "$(told n5 'no subnet is free' | wc -l)" 1 'once'
is "$(view n5 | grep -vc '^node n5 ')" 4 'it knows the others all the same'
stop_node n2
ctl del "/four/subnets/$(subnets_of n2)" >/dev/null
free_now=$SECONDS
eventually 5 'a subnet that becomes free is taken' has_told n5 'has its subnet'
cmp_ok $((SECONDS - free_now)) -le 2 'at once'
like "$(view n5 | grep '^node n5 ')" ' -$' 'and all is well'
start_node n2 --cluster 10.2.0.0/22
eventually 5 'who comes late has none' has_told n2 'no subnet is free'
for i in 1 2 3 4 5; do
	stop_node "n$i" KILL
done

# ---- bounds, fixed subnets, what was remembered ----
prefix=/some
start_node n1 --cluster 10.3.0.0/16 --min 10.3.7.0 --max 10.3.7.0
eventually 5 'between the bounds' has_told n1 'podCIDR=10\.3\.7\.0/24'
start_node n2 --cluster 10.3.0.0/16 --fixed 10.3.9.0/24
eventually 5 'a fixed subnet is claimed' has_told n2 'podCIDR=10\.3\.9\.0/24'
start_node n3 --cluster 10.3.0.0/16 --fixed 10.3.9.128/25
eventually 5 'one that overlaps another node is an error that names it' \
	has_told n3 "^node n3 .* the subnet 10\.3\.9\.128/25 of this node is taken by node 'n2' \(192\.0\.2\.2, key 10\.3\.9\.0-24\)"
like "$(view n3)" 'give one of the two nodes other podCIDRs' 'with a cure'
is "$(subnets_of n3)" '' 'and nothing is claimed'
stop_node n2
ctl del /some/subnets/10.3.9.0-24 >/dev/null
eventually 3 'until the other one goes' has_told n3 'podCIDR=10\.3\.9\.128/25'
start_node n4 --cluster 10.3.0.0/16 --last 10.3.44.0/24
eventually 5 'a remembered subnet is taken again' has_told n4 'podCIDR=10\.3\.44\.0/24'
start_node n5 --cluster 10.3.0.0/16 --last 10.3.44.0/24
eventually 5 'unless somebody has it' has_told n5 'has its subnet'
like "$(told n5 'lost its subnet')" "level=error.*10\.3\.44\.0/24.*taken by node 'n4'" 'which is said'
isnt "$(subnets_of n5)" 10.3.44.0-24 'and another one is taken'
start_node n6 --cluster 10.3.0.0/16 --cluster fd00:3::/48 --last 10.3.66.0/24
eventually 5 'what is remembered is completed' has_told n6 'podCIDR="10\.3\.66\.0/24, fd00:3:0:42::/64"'
stop_node n4
start_node n4 --cluster 10.3.0.0/16 --cluster fd00:3::/48
eventually 5 'a node that gets a second family keeps the first' \
	has_told n4 'podCIDR="10\.3\.44\.0/24, fd00:3:0:2c::/64"'
is "$(subnets_of n4)" '10.3.44.0-24&fd00:3:0:2c::-64' 'its old record is gone'
stop_node n1
start_node n1 --cluster 10.3.0.0/16 --min 10.3.200.0 --max 10.3.201.0
eventually 5 'a subnet that is not handed out any more is given up' has_told n1 'podCIDR=10\.3\.20[01]\.0/24'
like "$(told n1 'level=warn')" 'none of those to hand out now.*10\.3\.7\.0/24' 'with a word'
is "$(subnets_of n1 | wc -l)" 1 'for the new one'

# ---- two that overlap under different keys: the older one wins ----
for key in 10.3.80.0-23 10.3.80.0-24; do
	ctl put /some/subnets/$key '{"PublicIP":"192.0.2.8","BackendType":"vxlan","NodeName":"n8"}' >/dev/null
done
start_node n8 --cluster 10.3.0.0/16
eventually 5 'of two records of its own a node takes the younger that fits' has_told n8 'podCIDR=10\.3\.80\.0/24'
ctl put /some/subnets/10.3.80.0-23 '{"PublicIP":"192.0.2.9","BackendType":"vxlan","NodeName":"n9"}' >/dev/null
eventually 5 'an older record of another node wins' has_told n8 "level=error.*10\.3\.80\.0/24.*taken by node 'n9'"
has_moved() { [[ $(subnets_of n8) && $(subnets_of n8) != 10.3.80.* ]]; }
eventually 5 'and ours moves' has_moved

# ---- malformed and hostile records ----
ctl put /some/subnets/nonsense '{}' >/dev/null
ctl put /some/subnets/10.3.50.0-24 '{"PublicIP":' >/dev/null
ctl put /some/subnets/0.0.0.0-0 '{"PublicIP":"192.0.2.66","NodeName":"all"}' >/dev/null
eventually 5 'a bad key is told with its fault' has_told n4 '^node nonsense    its key is no subnet'
eventually 5 'a bad value, too' has_told n4 '^node 10\.3\.50\.0-24 10\.3\.50\.0/24   not valid JSON'
eventually 5 'who claims everything is told as it is' has_told n4 '^node all 0\.0\.0\.0/0'
start_node n7 --cluster 10.3.0.0/16
eventually 5 'and takes nothing from anybody' has_told n7 'has its subnet'
ctl del /some/subnets/nonsense >/dev/null
eventually 5 'a bad record goes as well' has_told n4 '^gone nonsense$'
all_end_well
done_testing
