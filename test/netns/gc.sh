#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# GC removes what is stale, all of it, and nothing else.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

conf=$(flat_conf)
other=$(flat_conf '.name = "other"' '.bridge = "br-other"' '.ipam.subnet = "10.244.7.0/24"')
for pod in a b c d; do
	make_pod - "$pod"
done
# gc KEY=JSON...: GC with these keys in the configuration
gc() {
	local pair text=$conf
	for pair; do
		text=$(jq -c --arg key "${pair%%=*}" --argjson value "${pair#*=}" '.[$key] = $value' <<<"$text")
	done
	cni GC '' '' '' <<<"$text"
}
fresh() {
	remove_all
	local pod
	for pod in a b c; do
		quick ADD "$pod" "ctr-$pod" eth0 "$conf" >/dev/null
	done
	quick ADD d ctr-d eth0 "$other" >/dev/null
	quick ADD a ctr-a net1 "$other" >/dev/null
}
attached() { # which attachments of network "pods" the kernel has
	ip -j link show type veth | jq -r '[.[] | .ifalias // "" | select(startswith("flatnet pods ")) | split(" ")[2]] | sort | join(" ")'
}
others() { # what GC of "pods" must not touch
	ip -j link | jq -r '.[] | select((.ifalias // "") | startswith("flatnet pods ") | not) | "\(.ifname) \(.ifalias // "")"' | sort
	store_files | grep -v "^$store/pods/" || :
}

# ---- the list ------------------------------------------------------------------------------------

fresh
before=$(others)
gc 'cni.dev/valid-attachments=[{"containerID":"ctr-b","ifname":"eth0"}]'
cni_ok 'GC with one valid attachment'
is "$cni_out" '' '... says nothing on stdout'
is "$(attached)" 'ctr-b' '... removes the links of the others'
is "$(reservations)" 10.244.1.3 '... and their reservations'
is "$(others)" "$before" '... and nothing of another network'
is "$(pod_link a eth0 .ifname) $(pod_link b eth0 .ifname)" ' eth0' '... the interfaces in the pods went with their links'
ok '... the valid one works' can_ping - b 10.244.1.1
gc 'cni.dev/valid-attachments=[{"containerID":"ctr-b","ifname":"eth0"}]'
cni_ok '... once more'
is "$(attached)" 'ctr-b' '... changes nothing'

fresh
gc 'cni.dev/valid-attachments=[{"containerID":"ctr-b","ifname":"eth1"},{"containerID":"ctr","ifname":"eth0"},{"containerID":"ctr-bb","ifname":"eth0"}]'
is "$(attached)" '' 'another interface or nearly the same container is not it'
for value in '[]' null; do
	fresh
	before=$(others)
	gc "cni.dev/valid-attachments=$value"
	cni_ok "GC with $value: nothing is valid"
	is "$(attached)$(reservations)" '' '... all of the network goes'
	is "$(others)" "$before" '... and nothing else'
done
fresh
gc 'cni.dev/attachments=[{"containerID":"ctr-c","ifname":"eth0"}]'
cni_ok 'GC with the key of older libcni'
is "$(attached) $(reservations)" 'ctr-c 10.244.1.4' '... is understood'
fresh
gc 'cni.dev/valid-attachments=[{"containerID":"ctr-a","ifname":"eth0"}]' 'cni.dev/attachments=[{"containerID":"ctr-c","ifname":"eth0"}]'
is "$(attached)" 'ctr-a' 'the new key goes before the old one'
fresh
gc
cni_ok 'GC without any list'
is "$(attached)" 'ctr-a ctr-b ctr-c' '... takes nothing that lives'
like "$cni_err" 'valid-attachments' '... and says why on stderr'
for value in 5 '"x"' '[5]' '[{}]' '[{"containerID":"a"}]' '{"containerID":"a","ifname":"b"}'; do
	gc "cni.dev/valid-attachments=$value"
	cni_fails 7 'valid-attachments' "GC with $value"
done
is "$(attached)" 'ctr-a ctr-b ctr-c' '... takes nothing either'

# ---- half of an attachment -----------------------------------------------------------------------

fresh
ip link del "$(veth_of ctr-a)"
printf '' >"$store/pods/10.244.1.200"
printf 'garbage without an end' >"$store/pods/10.244.1.201"
printf 'gone-long-ago\r\neth0' >"$store/pods/10.244.1.202"
gc 'cni.dev/valid-attachments=[{"containerID":"ctr-b","ifname":"eth0"},{"containerID":"ctr-c","ifname":"eth0"}]'
cni_ok 'GC of reservations without a link, and of files that are none'
is "$(reservations | tr '\n' ' ')" '10.244.1.3 10.244.1.4 ' '... they are gone'
fresh
ip link del "$(veth_of ctr-a)"
gc
is "$(reservations | tr '\n' ' ')" '10.244.1.3 10.244.1.4 ' 'without a list, the reservation of a dead link goes'
fresh
rm -r "$store/pods"
gc 'cni.dev/valid-attachments=[{"containerID":"ctr-b","ifname":"eth0"}]'
cni_ok 'GC without a store'
is "$(attached)" 'ctr-b' '... removes the stale links'
remove_all
gc 'cni.dev/valid-attachments=[]'
cni_ok 'GC of a network that never was'
is "$(find /run/flatnet -mindepth 1 ! -name '*.lock' 2>/dev/null)" '' '... makes nothing but perhaps a lock'

# ---- what is not ours -----------------------------------------------------------------------------

fresh
ip link add veth12345678 type veth peer name other0
ip link set veth12345678 master cni0 alias 'my own'
ip link add veth00000000000 type veth peer name other1
ip link add other2 type veth peer name other3
ip link set other2 alias 'flatnet podsX ctr-a eth0 10.244.1.2'
ip link set other3 alias 'flatnet'
before=$(others)
gc 'cni.dev/valid-attachments=[]'
cni_ok 'GC beside links of others'
is "$(others)" "$before" '... leaves them alone'
is "$(attached)" '' '... and takes ours'

# ---- an ADD that is on its way --------------------------------------------------------------------

# is_there: the host link of ctr-a. It may have no alias yet.
is_there() {
	[[ -n $(link "$host" .ifname) ]]
}
wait_for_link() {
	local i
	for ((i = 0; i < 50; i++)); do
		! is_there || break
		sleep 0.02
	done
}
fresh
host=$(veth_of ctr-a)
quick DEL a ctr-a eth0 "$conf" >/dev/null
# The ADD sleeps two seconds before it goes into the pod: its link is there, its address reserved.
CNI_COMMAND=ADD CNI_NETNS=/run/netns/a CNI_CONTAINERID=ctr-a CNI_IFNAME=eth0 \
	traced -e trace=setns -e inject=setns:delay_enter=2000000:when=1 <<<"$conf" >/run/late 2>/run/late.err &
late=$!
wait_for_link
ok 'an ADD is on its way: its link is there' is_there
is "$(pod_link a eth0 .operstate)" DOWN '... and not finished'
gc 'cni.dev/valid-attachments=[]'
cni_ok 'GC meanwhile'
is "$(attached)" '' '... takes the others'
ok '... but not that' is_there
like "$(reservations)" '^10\.244\.1\.[0-9]+$' '... nor its reservation'
rc=0
wait "$late" || rc=$?
is "$rc" 0 '... and the ADD succeeds'
cni CHECK a ctr-a eth0 <<<"$(with_prev "$conf" "$(</run/late)")"
cni_ok '... CHECK agrees'
gc 'cni.dev/valid-attachments=[]'
is "$(attached)$(reservations)" '' 'once it is done, GC takes it'

# The same with an IPAM that is not ours: no reservation tells that it is on its way.
mkdir -p /run/plugins
# shellcheck disable=SC2016
printf '#!/bin/sh\ncat >/dev/null\n[ "$CNI_COMMAND" != ADD ] || echo '"'"'{"cniVersion":"1.1.0","ips":[{"address":"10.244.1.5/24"}]}'"'"'\n' >/run/plugins/theirs
chmod +x /run/plugins/theirs
conf=$(flat_conf '.ipam = {type: "theirs"}')
CNI_COMMAND=ADD CNI_NETNS=/run/netns/a CNI_CONTAINERID=ctr-a CNI_IFNAME=eth0 CNI_PATH=/run/plugins \
	traced -e trace=setns -e inject=setns:delay_enter=1500000:when=1 <<<"$conf" >/run/late 2>/run/late.err &
late=$!
wait_for_link
CNI_PATH=/run/plugins gc 'cni.dev/valid-attachments=[]'
rc=0
wait "$late" || rc=$?
is "$rc $(attached)" '0 ctr-a' 'an ADD on its way with another IPAM is left alone, too'
CNI_PATH=/run/plugins gc 'cni.dev/valid-attachments=[]'
is "$(attached)" '' '... until it is done'
conf=$(flat_conf)

# ---- many ------------------------------------------------------------------------------------------

remove_all
make_pod - many
for ((i = 0; i < 100; i++)); do
	quick ADD many "ctr-$i" "e$i" "$(jq -c '.isGateway = false' <<<"$conf")" >/dev/null || break
done
is "$(attached | wc -w) $(reservations | wc -l)" '100 100' '100 attachments'
gc 'cni.dev/valid-attachments=[]'
cni_ok 'GC of 100'
is "$(attached | wc -w) $(reservations | wc -l)" '0 0' '... they are gone'
# One by one they take 100 times an RCU grace period or two: at least 1.2 s.
cmp_ok "$cni_ms" -lt $((${FLAT_SANITIZED:-0} ? 60000 : 1200)) "... at once ($cni_ms ms)"

# ---- flatnet-ipam on its own -----------------------------------------------------------------------

remove_all
conf=$(flat_conf '.type = "bridge"' '.ipam.type = "flatnet-ipam"')
for pod in a b; do
	FLAT_PLUGIN=flatnet-ipam quick ADD "$pod" "ctr-$pod" eth0 "$conf" >/dev/null
done
FLAT_PLUGIN=flatnet-ipam gc
cni_ok 'flatnet-ipam GC without a list'
is "$(reservations | wc -l)" 2 '... takes nothing: only the list tells who lives'
FLAT_PLUGIN=flatnet-ipam gc 'cni.dev/valid-attachments=[{"containerID":"ctr-b","ifname":"eth0"}]'
cni_ok 'flatnet-ipam GC with one valid attachment'
is "$(reservations)" 10.244.1.3 '... keeps that'

done_testing
