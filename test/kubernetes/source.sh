#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The source kubernetes against a real API server: what it tells, and that nothing keeps it from
# telling it. It goes through a forwarder, whose end is a connection that breaks.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/apiserver.sh"

driver=${FLAT_BIN:-}/../test/agent/source-driver
[[ -x $driver ]] || skip_all 'source-driver is not there: build it with meson'
need_apiserver
start_apiserver --feature-gates=IPv6DualStack=true
log=$api/driver.log driver_pid='' forward_pid=''

forward() {
	socat TCP-LISTEN:7443,fork,reuseaddr,bind=127.0.0.1 TCP:127.0.0.1:6443 &
	forward_pid=$!
	disown
}

unforward() { # its children hold the connections
	kill -STOP "$forward_pid"
	pkill -KILL -P "$forward_pid" || :
	kill -KILL "$forward_pid"
}

drive() { # ARG...: a new driver, with an empty log
	[[ -z $driver_pid ]] || kill "$driver_pid" 2>/dev/null || :
	: >"$log"
	"$driver" "$@" >>"$log" 2>&1 &
	driver_pid=$!
	disown
}

says() { # REGEX: since the last look
	grep -qE -- "$1" "$log"
}

forget() {
	: >"$log"
}

has_node() { # REGEX: the last word about a node
	says "^node $1"
}

# ---- rights -------------------------------------------------------------------------------------

user_certificate reader
kubeconfig reader 7443 '{"client-certificate": "reader.crt", "client-key": "reader.key"}'
forward
drive "kubeconfig=$pki/reader.conf" node=n1 page=2
eventually 10 'no right: what the API server says' says '^broken list nodes: .* says 403: nodes is forbidden: User "reader" cannot list'
like "$(<"$log")" 'allow list and watch of nodes by a ClusterRole' 'and the cure'
k create clusterrole flatnetd --verb=get,list,watch --resource=nodes >/dev/null
k create clusterrolebinding flatnetd --clusterrole=flatnetd --user=reader --serviceaccount=kube-system:flatnetd >/dev/null
eventually 35 'with the right it goes on by itself' says '^connected'
like "$(<"$log")" 'synced nodes=0' 'an empty list is whole'
forget

# ---- changes ------------------------------------------------------------------------------------

k apply -f <(node_json n1) >/dev/null
eventually 5 'a new node without a subnet' has_node 'n1$'
k patch node n1 -p '{"spec":{"podCIDR":"10.244.1.0/24","podCIDRs":["10.244.1.0/24","fd00:1::/64"]}}' >/dev/null
eventually 5 'it gets one of each family' has_node 'n1 cidr=10.244.1.0/24 cidr=fd00:1::/64$'
status() { # NODE JSON: merge patch of its status
	timeout 20 curl -sf --cacert "$pki/ca.crt" --cert "$pki/admin.crt" --key "$pki/admin.key" -X PATCH \
		-H 'Content-Type: application/merge-patch+json' -d "$2" "https://127.0.0.1:6443/api/v1/nodes/$1/status" >/dev/null
}
status n1 '{"status":{"addresses":[{"type":"Hostname","address":"n1"},{"type":"ExternalIP","address":"198.51.100.1"},
	{"type":"InternalIP","address":"192.0.2.1"},{"type":"InternalIP","address":"192.0.2.99"},{"type":"InternalIP","address":"2001:db8::1"}]}}'
eventually 5 'and the first InternalIP of each family' has_node 'n1 .* address=192.0.2.1 address=2001:db8::1$'
for i in 2 3 4 5; do
	node_json "n$i" ".spec.podCIDRs = [\"10.244.$i.0/24\"] | .spec.podCIDR = \"10.244.$i.0/24\""
done | k apply -f - >/dev/null
eventually 5 'more nodes' has_node 'n5 cidr=10.244.5.0/24'
k delete node n5 --wait=false >/dev/null
eventually 5 'a node goes' says '^gone n5$'
unlike "$(<"$log")" '(^|\n)begin' 'all of it without another list'

drive "kubeconfig=$pki/reader.conf" node=n1 page=2
eventually 10 'a list in pages is whole' says '^synced nodes=4'
is "$(grep -cE '^node n[1-4] cidr=' "$log")" 4 'each node once'
eventually 5 'and a watch follows' says '^connected'

# ---- connections that break ---------------------------------------------------------------------

forget
unforward
eventually 5 'a watch that breaks is told' says '^broken '
k delete node n4 --wait=false >/dev/null
forward
eventually 35 'it is taken up again' says '^connected'
eventually 5 'with what happened meanwhile' says '^gone n4$'
unlike "$(<"$log")" '(^|\n)begin' 'without a list'

forget
stop_api
eventually 5 'an API server that dies is told' says '^broken '
start_api --feature-gates=IPv6DualStack=true
k label node n1 changed=1 >/dev/null
eventually 35 'it comes back' says '^connected'
eventually 5 'and is heard again' has_node 'n1 '

forget
unforward
k delete node n3 --wait=false >/dev/null
k apply -f <(node_json n6) >/dev/null
stop_api
revision=$("$api_bin/etcdctl" --endpoints 127.0.0.1:2379 endpoint status -w json | jq '.[0].Status.header.revision')
"$api_bin/etcdctl" --endpoints 127.0.0.1:2379 compact --physical "$revision" >/dev/null
start_api --feature-gates=IPv6DualStack=true
forward
eventually 35 'what the API server has forgotten makes a list necessary' says '^begin'
eventually 10 'which is whole' says '^synced nodes=3'
like "$(<"$log")" 'node n6' 'and tells what came'
unlike "$(<"$log")" 'node n3' 'and not what went'
eventually 5 'then it watches again' says '^connected'

# ---- hostile objects ----------------------------------------------------------------------------

forget
k apply -f <(node_json evil1 '.spec.podCIDRs = ["0.0.0.0/0"] | .spec.podCIDR = "0.0.0.0/0"') >/dev/null
eventually 5 'a subnet that is everything is told as it is: others judge' has_node 'evil1 cidr=0.0.0.0/0'
k apply -f <(node_json evil2) >/dev/null
status evil2 '{"status":{"addresses":[{"type":"InternalIP","address":"999.1.2.3; rm -rf"}]}}'
eventually 5 'an address that is none' has_node "evil2 fault=its InternalIP '999.1.2.3; rm -rf' is not an address"
jq -nc '{status: {images: [range(8) | {names: ["x" * 120000 + "\(.)", "é\\\"\u0000"], sizeBytes: 1}]}}' >"$api/patch.json"
ok 'a node with names of images of a megabyte' timeout 20 curl -sf --cacert "$pki/ca.crt" --cert "$pki/admin.crt" --key "$pki/admin.key" \
	-X PATCH -H 'Content-Type: application/merge-patch+json' -d "@$api/patch.json" -o "$api/out" "https://127.0.0.1:6443/api/v1/nodes/evil2/status"
jq -nc '{metadata: {annotations: {"flannel.alpha.coreos.com/public-ip": ("y" * 200000)}}}' >"$api/long.json"
ok 'and annotations of 200 kB' timeout 20 curl -sf --cacert "$pki/ca.crt" --cert "$pki/admin.crt" --key "$pki/admin.key" \
	-X PATCH -H 'Content-Type: application/merge-patch+json' -d "@$api/long.json" -o "$api/out" https://127.0.0.1:6443/api/v1/nodes/evil2
forget
k label node n1 changed=2 --overwrite >/dev/null
eventually 5 'does not keep the others from being heard' has_node 'n1 cidr=10.244.1.0/24'
drive "kubeconfig=$pki/reader.conf" node=n1 flannel
eventually 10 'nor a list from being whole' says '^synced nodes=5'
rss=$(awk '/VmHWM/ {print $2}' "/proc/$driver_pid/status")
diag "peak memory: $rss kB"

# ---- who we are, and who they are ---------------------------------------------------------------

drive "kubeconfig=$pki/reader.conf" node=n1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$pki/other.key" \
	-out "$pki/other.crt" -subj /CN=other -days 2 2>/dev/null
jq '.clusters[0].cluster["certificate-authority"] = "other.crt"' "$pki/reader.conf" >"$pki/wrong.conf"
drive "kubeconfig=$pki/wrong.conf" node=n1
eventually 10 'another CA' says "^broken list nodes: GET https://127.0.0.1:7443/api/v1/nodes: certificate of '127.0.0.1' is not signed by CA file '$pki/other.crt' \\(it was issued by 'CN=test-ca'"

account=$api/account
mkdir "$account"
cp "$pki/ca.crt" "$account/ca.crt"
drive server=https://127.0.0.1:7443 "service-account=$account" node=n1
eventually 5 'a token that is not there yet' says '^broken .*token file .*No such file'
service_account_token >"$account/token"
eventually 35 'and then is' says '^connected'
good=$(<"$account/token")
forget
sed -i 's/.\{8\}$/xxxxxxxx/' "$account/token" # of the last one alone only two bits count
unforward
forward
eventually 35 'a token that is not valid any more' says '^broken .* says 401: Unauthorized'
like "$(<"$log")" 'token or client certificate is not, or no longer, valid' 'and the cure'
printf '%s' "$good" >"$account/token.new"
mv "$account/token.new" "$account/token"
eventually 35 'and one that is' says '^connected'

# ---- flannel ------------------------------------------------------------------------------------

prefix=flannel.alpha.coreos.com
annotation() { # NODE NAME
	k get node "$1" -o json | jq -r --arg name "$prefix/$2" '.metadata.annotations[$name]'
}
k annotate node n2 "$prefix/kube-subnet-manager=true" "$prefix/backend-type=vxlan" "$prefix/public-ip=192.0.2.2" \
	"$prefix/backend-data={\"VNI\":1,\"VtepMAC\":\"0a:00:00:00:00:02\"}" >/dev/null
k annotate node n6 "$prefix/kube-subnet-manager=true" "$prefix/backend-type=wireguard" "$prefix/public-ip=192.0.2.6" >/dev/null
drive "kubeconfig=$pki/reader.conf" node=n1 flannel publish=192.0.2.1,10.244.1.0/24 available
eventually 10 "flannel's node, as it told itself" has_node 'n2 cidr=10.244.2.0/24 address=192.0.2.2 vtep=0a:00:00:00:00:02$'
eventually 5 'one of another backend' has_node "n6 fault=it has flannel's backend 'wireguard'"
eventually 5 'without the right to patch: said' says 'cannot tell the others.*403.*allow patch of nodes/status'
is "$(annotation n1 public-ip)" null 'nothing was written'
k create clusterrole flatnetd-status --verb=patch --resource=nodes/status >/dev/null
k create clusterrolebinding flatnetd-status --clusterrole=flatnetd-status --user=reader >/dev/null
published() {
	[[ $(annotation n1 public-ip) == "$1" ]]
}
eventually 35 'with it, the node is told' published 192.0.2.1
is "$(annotation n1 kube-subnet-manager)" true "as flannel's"
is "$(annotation n1 backend-type)" vxlan 'its backend'
is "$(annotation n1 backend-data)" '{"VNI":1,"VtepMAC":"0a:58:0a:f4:01:00"}' 'its MAC'
unavailable() {
	k get node n1 -o json | jq -r '.status.conditions[] | select(.type == "NetworkUnavailable") | .status + " " + .reason'
}
is_available() {
	[[ $(unavailable) == 'False FlatnetIsUp' ]]
}
eventually 10 'and its network is available' is_available
k annotate node n1 "$prefix/public-ip=192.0.2.77" --overwrite >/dev/null
eventually 10 'what somebody changes is set right' published 192.0.2.1
k annotate node n1 "$prefix/public-ip-overwrite=203.0.113.1" >/dev/null
eventually 10 "but a person's word counts" published 203.0.113.1
version=$(k get node n1 -o json | jq -r .metadata.resourceVersion)
sleep 3
is "$(k get node n1 -o json | jq -r .metadata.resourceVersion)" "$version" 'then there is peace'
kill "$driver_pid"
done_testing
