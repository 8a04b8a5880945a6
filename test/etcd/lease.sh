#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Records live as long as their lease, and nobody loses a subnet without a word.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/etcd.sh"

make_pki
start_etcd 1
node_options+=(--cluster 10.244.0.0/16 --ttl 3)
knows() { [[ $(view "$1") == *"node $2 "* ]]; }
knows_not() { ! knows "$@"; }

for i in 1 2 3; do
	start_node "n$i"
done
for i in 1 2 3; do
	eventually 5 "n$i has a subnet" has_told "n$i" 'has its subnet'
done
eventually 5 'n1 knows n3' knows n1 n3
sleep 6
is "$(records | wc -l)" 3 'leases are kept alive for longer than they last'
is "$(told n1 'level=(warn|error)')" '' 'without a word'

# ---- a node dies ----
stop_node n3 KILL
died=$SECONDS
eventually 8 'the record of a dead node goes' knows_not n1 n3
cmp_ok $((SECONDS - died)) -le 7 'when its lease has run out'
is "$(subnets_of n3)" '' 'it is gone from etcd'
eventually 2 'and from the other view' knows_not n2 n3

# ---- a node sleeps past its lease ----
had=$(subnets_of n2)
kill -STOP "${driver_pid[n2]}"
eventually 8 'a node that sleeps is gone for the others' knows_not n1 n2
kill -CONT "${driver_pid[n2]}"
eventually 8 'and comes back' knows n1 n2
is "$(subnets_of n2)" "$had" 'with the subnet that it had'
like "$(told n2 'level=warn')" 'is gone from etcd|lease .* ran out' 'which it says'

# ---- and somebody takes its subnet meanwhile ----
kill -STOP "${driver_pid[n2]}"
eventually 8 'it sleeps again' knows_not n1 n2
start_node n4 --fixed "${had/-//}"
eventually 5 'another node takes its subnet' has_told n4 'has its subnet'
kill -CONT "${driver_pid[n2]}"
eventually 8 'it comes back with another one' has_told n1 "^node n2 "
moved() { [[ $(subnets_of n2) && $(subnets_of n2) != "$had" ]]; }
eventually 8 'that is not the old one' moved
like "$(told n2 'level=error')" "lost its subnet.*${had/-//} .*taken by node 'n4'.*delete them" 'and says who has it, and what to do'
is "$(records | cut -f1 | sort -u | wc -l)" 3 'no subnet is there twice'

# ---- hands that meddle ----
key=$(subnets_of n1)
revision=$(ctl get "/flatnet/subnets/$key" -w json | jq .kvs[0].mod_revision)
ctl del "/flatnet/subnets/$key" >/dev/null
is_back() { (($(ctl get "/flatnet/subnets/$key" -w json | jq '.kvs[0].mod_revision // 0') > revision)); }
eventually 3 'a record that is deleted is put back' is_back
like "$(told n1 'level=warn')" "gone from etcd: it is put back.*key=$key" 'with a word'
ctl put "/flatnet/subnets/$key" '{"PublicIP":"192.0.2.99","BackendType":"vxlan","NodeName":"n1"}' >/dev/null
eventually 3 'another one who writes our record is spoken of' \
	has_told n1 "level=error.*somebody else \(192\.0\.2\.99\) writes the record of node 'n1'.*--node-name"
is_right() { records | grep -q '"192.0.2.1".*"n1"'; }
eventually 20 'and it is put right' is_right
eventually 5 'all is well then' has_told n1 'level=info msg="this node.s record in etcd is right again"'
ctl put "/flatnet/subnets/$key" '{"PublicIP":"192.0.2.98","BackendType":"vxlan","NodeName":"n98"}' >/dev/null
eventually 5 'a record that is given to another node is his' has_told n1 "lost its subnet.*taken by node 'n98'"
got_another() { [[ $(subnets_of n1) && $(subnets_of n1) != "$key" ]]; }
eventually 5 'and ours another one' got_another

# ---- reserved by hand: no lease ----
ctl put /flatnet/subnets/10.244.77.0-24 '{"PublicIP":"192.0.2.5","BackendType":"vxlan","NodeName":"n5"}' >/dev/null
start_node n5
eventually 5 'a record that was put there for a node is taken' has_told n5 'podCIDR=10\.244\.77\.0/24'
written() { records | grep -q '^10\.244\.77\.0-24.*VtepMAC'; }
eventually 5 'and filled in' written
is "$(ctl get /flatnet/subnets/10.244.77.0-24 -w json | jq '.kvs[0].lease // 0')" 0 'it stays without a lease'
stop_node n5 KILL
sleep 5
is "$(subnets_of n5)" 10.244.77.0-24 'and so outlives its node'
all_end_well
done_testing
