#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# etcd is killed, forgets, is lost and made anew, cannot be reached: afterwards all is as it is.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/etcd.sh"

make_pki
start_etcd 1
node_options+=(--cluster 10.244.0.0/16 --ttl 60)
for i in 1 2; do
	start_node "n$i"
	eventually 5 "n$i has a subnet" has_told "n$i" 'has its subnet'
done
knows() { [[ $(view "$1") == *"node $2 "* ]]; }
knows_not() { ! knows "$@"; }
knows_count() { (($(view "$1" | wc -l) == $2)); }
has_records() { (($(records | wc -l) == $1)); }
well() { [[ $(told "$1" '^state' | tail -n 1) == 'state 1 ' ]]; }
other() { # NUMBER: a record as another node would write it
	ctl put "/flatnet/subnets/10.244.200.$1-32" "{\"PublicIP\":\"192.0.2.2$1\",\"BackendType\":\"vxlan\",\"NodeName\":\"o$1\"}" >/dev/null
}
eventually 5 'they know each other' knows n1 n2
before=$(records)

# ---- killed, and back ----
kill_etcd 1
eventually 5 'an etcd that is gone is said' has_told n1 '^state 0 .*127\.0\.0\.1:2379.*tried again$'
sleep 1
start_etcd 1
eventually 20 'it is back: n1' well n1
eventually 20 'n2' well n2
is "$(records)" "$before" 'nothing has changed'
is "$(told n1 '^(begin|gone)' | wc -l)" 1 'and nothing was listed again'
other 1
eventually 5 'the watch goes on' knows n1 o1
kill_etcd 1
start_etcd 1
eventually 10 'a short absence is survived' well n2
other 2
eventually 20 'and the watch goes on' knows n2 o2

# ---- cut off, and meanwhile compacted ----
ctl_member=9
nft add table inet cut
nft add chain inet cut input '{ type filter hook input priority 0; }'
cut() { nft add rule inet cut input ip daddr 127.0.0.1 tcp dport 2379 reject with tcp reset; }
mend() { nft flush chain inet cut input; }
cut
# what is said wakes the connection, and it meets the reset
other 3
ctl del /flatnet/subnets/10.244.200.1-32 >/dev/null
eventually 25 'a node that is cut off says so' has_told n1 '^state 0 .*(refused|reset)'
for i in 4 5 6; do
	other "$i"
done
ctl del /flatnet/subnets/10.244.200.4-32 >/dev/null
ctl compaction "$(ctl get /x -w json | jq .header.revision)" >/dev/null
mend
eventually 20 'it is back' well n1
eventually 20 'it knows what came in between' knows n1 o5
ok 'and what came and went' knows_not n1 o4
eventually 5 'and what had gone' knows_not n1 o1
is "$(told n1 '^synced' | wc -l)" 2 'by a list'
ok 'which it says' has_told n1 'has forgotten what came next'
eventually 20 'n2, too' knows_not n2 o1
same() { diff <(view n1) <(view n2); }
eventually 5 'both know the same' same
other 7
eventually 5 'the watch goes on' knows n1 o7
ctl_member=1

# ---- made anew, empty ----
kill_etcd 1
rm -rf "$etcd_dir/m1"
start_etcd 1
eventually 20 'records are put into an etcd that has lost all' has_records 2
is "$(records)" "$before" 'and are what they were'
eventually 20 'it is well' well n1
eventually 20 'who is not there any more is gone' knows_not n1 o7
eventually 5 'n1 knows n2' knows n1 n2
eventually 5 'n2 knows n1' knows n2 n1

# ---- many records, in pages ----
for i in {0..699}; do
	printf '{"request_put":{"key":"%s","value":"%s"}}\n' \
		"$(printf '/flatnet/subnets/10.244.%d.%d-32' $((210 + i / 250)) $((i % 250)) | base64 -w0)" \
		"$(printf '{"PublicIP":"192.0.2.9","BackendType":"vxlan","NodeName":"m%d"}' "$i" | base64 -w0)"
done >"$etcd_dir/puts"
for from in 1 101 201 301 401 501 601; do
	sed -n "$from,$((from + 99))p" "$etcd_dir/puts" | jq -cs '{success: .}' |
		curl -sS --cacert "$pki/ca.crt" --cert "$pki/client.crt" --key "$pki/client.key" \
			https://127.0.0.1:2379/v3/kv/txn -d @- >/dev/null
done
eventually 10 'seven hundred more nodes are heard of' knows_count n1 702
start_node n3
eventually 10 'and listed' knows_count n3 703
is "$(told n3 '^node m' | wc -l)" 700 'each once'
ctl del --prefix /flatnet/subnets/10.244.21 >/dev/null
eventually 10 'all go at once' knows_count n3 3
all_end_well
done_testing
