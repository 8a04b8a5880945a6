#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Who may: certificates, users, passwords, tokens, rights. What is wrong is said, with a cure, and
# the agent goes on by itself when it is put right.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/etcd.sh"

make_pki
start_etcd 1
node_options+=(--cluster 10.244.0.0/16 --ttl 60)
well() { [[ $(told "$1" '^state' | tail -n 1) == 'state 1 ' ]]; }

# ---- certificates ----
cp "$pki/other-ca.crt" "$pki/n1-ca.crt"
start_node n1 --ca "$pki/n1-ca.crt"
eventually 5 'a CA that did not sign the member is said' has_told n1 '^state 0 .*certificate'
like "$(told n1 '^state 0' | tail -n 1)" 'etcd\.caFile' 'with the key to look at'
cp "$pki/ca.crt" "$pki/n1-ca.crt"
eventually 25 'the right one is taken without a restart' has_told n1 'has its subnet'

"$FLAT_DRIVER" --name n2 --address 192.0.2.2 --ca "$pki/ca.crt" "${node_options[@]}" \
	</dev/null >"$etcd_dir/n2.out" 2>&1 &
driver_pid[n2]=$!
eventually 5 'no certificate of a client is said' has_told n2 '^state 0 .*etcd\.certFile'
like "$(told n2 '^state 0')" 'wants a client certificate' 'as what it is'
stop_node n2

for kind in crt key; do
	cp "$pki/stranger.$kind" "$pki/n2.$kind"
done
start_node n2 --cert "$pki/n2.crt" --key "$pki/n2.key"
eventually 5 'a certificate of a foreign CA is said' has_told n2 '^state 0 .*etcd\.certFile'
for kind in crt key; do
	cp "$pki/client.$kind" "$pki/n2.$kind"
done
eventually 25 'a new certificate is taken without a restart' has_told n2 'has its subnet'
start_node n3 --cert "$pki/not-there.crt"
eventually 5 'a file that is not there is named' has_told n3 '^state 0 .*not-there\.crt'
stop_node n3

# ---- users ----
ctl user add root:secret >/dev/null
ctl user grant-role root root >/dev/null
ctl role add nodes >/dev/null
ctl user add flat:correct >/dev/null
ctl user grant-role flat nodes >/dev/null
ctl auth enable >/dev/null
root() { ctl --user root:secret "$@"; }
start_node n4
eventually 5 'that etcd asks for a user is said' has_told n4 '^state 0 .*etcd\.user and etcd\.passwordFile'
stop_node n4
printf 'wrong\n' >"$etcd_dir/password"
start_node n4 --user flat --password "$etcd_dir/password"
eventually 5 'a wrong password is said' has_told n4 "^state 0 log in to https://127\.0\.0\.1:2379 as 'flat'.*invalid user ID or password.*etcd\.passwordFile"
unlike "$(told n4)" 'wrong' 'and not shown'
printf 'correct\n' >"$etcd_dir/password"
eventually 25 'with the right one it is still not allowed' has_told n4 '^state 0 .*permission denied.*etcdctl role grant-permission ROLE readwrite /flatnet/ --prefix'
root role grant-permission nodes readwrite /flatnet/ --prefix=true >/dev/null
eventually 25 'then it is' has_told n4 'has its subnet'
eventually 5 'and all is well' well n4
start_node n5 --user flat --password "$etcd_dir/not-there"
eventually 5 'a password file that is not there is named' has_told n5 "^state 0 .*not-there"
stop_node n5

# ---- tokens ----
kill_etcd 1
start_etcd 1
eventually 25 'tokens that died with the member are replaced' well n4
root put /flatnet/subnets/10.244.200.1-32 '{"PublicIP":"192.0.2.21","BackendType":"vxlan","NodeName":"o1"}' >/dev/null
eventually 10 'and the watch goes on' has_told n4 '^node o1 '
root role revoke-permission nodes /flatnet/ --prefix=true >/dev/null
stop_node n4
start_node n4 --user flat --password "$etcd_dir/password"
eventually 5 'rights that are taken away are missed' has_told n4 '^state 0 .*permission denied'
root role grant-permission nodes readwrite /flatnet/ --prefix=true >/dev/null
eventually 25 'and used again' has_told n4 'has its subnet'
root auth disable >/dev/null
stop_node n4
start_node n4 --user flat --password "$etcd_dir/password"
eventually 10 'an etcd that asks nobody is no trouble either' has_told n4 'has its subnet'
all_end_well
done_testing
