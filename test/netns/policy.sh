#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Whom a pod may be reached by: each ingressPolicy in each mode, on two bridges of one node, beside what
# the reference plugin firewall makes of it; and what becomes of isolation when it is tampered with,
# when pods go in whatever way, and when an ADD fails.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"
. "${0%/*}/../lib/cluster.sh"

# The sandbox is the node: pods a and b on cni0, c and d on cni1; the outside knows the way to them.
make_wire wire
make_node out wire 192.0.2.9/24 2001:db8::9/64
on wire ip link add here type veth peer name up0 netns $$
on wire ip link set here master wire up
ip address add 192.0.2.1/24 dev up0
ip address add 2001:db8::1/64 dev up0 nodad
ip link set up0 up
on out ip route add 10.244.0.0/15 via 192.0.2.1
on out ip route add fd00:10:244::/47 via 2001:db8::1
for pod in a b c d; do
	make_pod - $pod
done
# conf BRIDGE_NUMBER [JQ...]
conf() {
	local n=$1
	shift
	flat_conf ".name = \"net$n\" | .bridge = \"cni$n\"" ".ipam = {ranges: [[{subnet: \"10.24$((4 + n)).1.0/24\"}], [{subnet: \"fd00:10:24$((4 + n)):1::/64\"}]]}" "$@"
}
declare -A of=([a]=0 [b]=0 [c]=1 [d]=1)
# add_all POLICY0 POLICY1 [JQ]
add_all() {
	local pod policy
	for pod in a b c d; do
		policy=$1
		[[ ${of[$pod]} == 0 ]] || policy=$2
		quick ADD $pod ctr-$pod eth0 "$(conf "${of[$pod]}" ".ingressPolicy = \"$policy\"" "${3:-.}")" >/dev/null
	done
}
remove_pods() {
	local pod
	for pod in a b c d; do
		quick DEL $pod ctr-$pod eth0 "$(conf "${of[$pod]}")"
	done
}
# ways: who reaches whom by both families, in one line; all at once
ways() {
	local way from to result dir=/run/ways
	rm -rf $dir
	mkdir $dir
	for way in a-b b-a c-d a-c c-a d-b out-a out-c node-a node-d a-out c-out; do
		from=${way%-*} to=${way#*-}
		for result in 4 6; do
			(
				target=192.0.2.9
				[[ $result == 4 ]] || target=2001:db8::9
				[[ $to == out ]] || target=$({ [[ $result == 4 ]] && pod_ip - "$to"; } || pod_ip6 - "$to")
				run=(pod_exec - "$from")
				[[ $from != out ]] || run=(on out)
				[[ $from != node ]] || run=()
				"${run[@]}" ping -n -q -c 2 -i 0.2 -W 1 "$target" >/dev/null 2>&1 || touch $dir/$way
			) &
		done
	done
	wait
	for way in a-b b-a c-d a-c c-a d-b out-a out-c node-a node-d a-out c-out; do
		[[ -e $dir/$way ]] || printf '%s ' $way
	done
}
always='out-a out-c node-a node-d a-out c-out '
inside='a-b b-a c-d '
across='a-c c-a d-b '
for mode in routed l2; do
	for want in "open open $inside$across" "same-bridge same-bridge $inside" "isolated same-bridge c-d " \
		"isolated isolated " "same-bridge open $inside$across" "open isolated a-b b-a $across"; do
		read -r first second want <<<"$want"
		add_all "$first" "$second" ".bridgeMode = \"$mode\""
		is "$(ways)" "${want:+$want }$always" "$mode, $first and $second: who reaches whom"
		remove_pods
	done
done

# The strictest pod of a bridge decides, as long as it is there.
add_all same-bridge open
cni DEL b ctr-b eth0 <<<"$(conf 0)"
cni ADD b ctr-b eth0 <<<"$(conf 0 '.ingressPolicy = "isolated"')"
fails 'an isolated pod beside another: they do not reach each other' can_ping - a "$(pod_ip - b)"
cni DEL b ctr-b eth0 <<<"$(conf 0)"
cni ADD b ctr-b eth0 <<<"$(conf 0 '.ingressPolicy = "same-bridge"')"
ok '... until it is gone' can_ping - a "$(pod_ip - b)"

# What is known goes on.
pod_exec - a socat TCP-LISTEN:7000,fork,reuseaddr EXEC:cat &
until pod_exec - a ss -ltn | grep -q 7000; do sleep 0.05; done
coproc talk { pod_exec - c socat - "TCP:$(pod_ip - a):7000"; }
say() {
	local answer=''
	echo "$1" >&"${talk[1]}"
	read -r -t 2 answer <&"${talk[0]}" || :
	echo "$answer"
}
is "$(say one)" one 'a connection from a bridge without a policy'
cni DEL d ctr-d eth0 <<<"$(conf 1)"
cni ADD d ctr-d eth0 <<<"$(conf 1 '.ingressPolicy = "same-bridge"')"
fails '... which has one now: nothing new' can_ping - c "$(pod_ip - a)"
is "$(say two)" two '... what is there goes on'
# shellcheck disable=SC2154 # coproc sets it
kill "$talk_PID"
remove_pods

# Host ports: from outside and from the node, not from another bridge, and not from the same when isolated.
for policy in open same-bridge isolated; do
	add_all $policy $policy
	quick DEL a ctr-a eth0 "$(conf 0)"
	quick ADD a ctr-a eth0 "$(conf 0 ".ingressPolicy = \"$policy\"" '.portMappings = [{hostPort: 8080, containerPort: 80}]')" >/dev/null
	[[ $policy != open ]] || serve - a web 80
	got=''
	for from in out- - -b -c; do
		node=${from%-*} pod=${from#*-}
		[[ -z $(ask "${node:--}" "${pod:--}" tcp 192.0.2.1 8080 || :) ]] || got+="$from "
	done
	case $policy in
	open) want='out- - -b -c ' ;;
	same-bridge) want='out- - -b ' ;;
	*) want='out- - ' ;;
	esac
	is "$got" "$want" "$policy: who reaches a host port (out-: outside, -: the node, -b, -c: pods)"
	remove_pods
done

# ---- what is wrong is said --------------------------------------------------------------------------

cni ADD a ctr-a eth0 <<<"$(conf 0 '.ingressPolicy = "closed"')"
cni_fails 7 'ingressPolicy: "closed" is not "open", "same-bridge" or "isolated"' 'an unknown policy'
cni ADD a ctr-a eth0 <<<"$(conf 0 '.ipspoofchk = true' '.ipam = {type: ""}')"
cni_fails 7 'ipspoofchk: needs ipam' 'ipspoofchk without addresses'
cni ADD a ctr-a eth0 <<<"$(conf 0 '.ipspoofchk = "yes"')"
cni_fails 7 'ipspoofchk' 'ipspoofchk that is no bool'

# ---- CHECK ---------------------------------------------------------------------------------------------

guarded=$(conf 0 '.ipspoofchk = true' '.ingressPolicy = "isolated"')
begin() { # both pods are there, and all is well
	local pod
	for pod in a b; do
		cni DEL $pod ctr-$pod eth0 <<<"$guarded"
	done
	nft delete table bridge flatnet 2>/dev/null || : # with what is not ours
	cni ADD b ctr-b eth0 <<<"$(conf 0 '.macspoofchk = true' '.ingressPolicy = "same-bridge"')"
	cni ADD a ctr-a eth0 <<<"$guarded"
	prev=$cni_out host=$(jq -r '.interfaces[1].name' <<<"$cni_out") mac=$(pod_mac - a)
	check
	((cni_rc == 0)) || fail "CHECK agrees: $cni_out"
}
check() {
	cni CHECK a ctr-a eth0 <<<"$(with_prev "$guarded" "$prev")"
}
begin
check
cni_ok 'CHECK agrees'
tamper() { # REGEX NAME NFT...: there HOST, MAC and IP are the pod's own
	local regex=$1 name=$2 command
	shift 2
	command=${*//HOST/$host}
	command=${command//MAC/$mac}
	nft "${command//IP/$(pod_ip - a)}"
	check
	cni_fails 103 "${regex//HOST/$host}" "CHECK misses $name"
	begin
}
tamper "'bridge flatnet' are missing" 'the table of checks' delete table bridge flatnet
tamper "'inet flatnet_ingress' are missing" 'the table of policies' delete table inet flatnet_ingress
tamper "'bridge flatnet' are missing" 'a chain' flush chain bridge flatnet spoofcheck
tamper "'bridge flatnet' has a rule that is not" 'a rule too many' insert rule bridge flatnet spoofcheck accept
tamper "'HOST' of set 'spoofcheck_links' is missing" 'the link' 'delete element bridge flatnet spoofcheck_links { HOST }'
tamper "set 'spoofcheck4' is missing" 'its address' 'delete element bridge flatnet spoofcheck4 { HOST . MAC . IP }'
tamper "set 'spoofcheck6' allows more" 'another address' 'add element bridge flatnet spoofcheck6 { HOST . MAC . fd00:10:244:1::77 }'
tamper "set 'spoofcheck_macs' allows more" 'a way around addresses' 'add element bridge flatnet spoofcheck_macs { HOST . MAC }'
tamper "set 'isolated_pods' is missing" 'its policy' 'delete element inet flatnet_ingress isolated_pods { cni0 . HOST }'
tamper "set 'bridges' is missing" 'the bridge' 'delete element inet flatnet_ingress bridges { cni0 }'
tamper "set 'within' allows more" 'a way within the bridge' 'add element inet flatnet_ingress within { cni0 . cni0 }'
ip link set "$host" type bridge_slave group_fwd_mask 0
check
cni_fails 103 'group_fwd_mask' 'CHECK misses the way of reserved groups'
# shellcheck disable=SC2016
eval "$(jq -r .msg <<<"$cni_out" | sed 's/.*`\(.*\)`.*/\1/')"
check
cni_ok '... and its cure cures'
nft flush chain bridge flatnet spoofcheck
cni ADD c ctr-c eth0 <<<"$(conf 1 '.macspoofchk = true')"
check
cni_ok 'the next ADD puts the rules back'
cni DEL c ctr-c eth0 <<<"$(conf 1)"

# ---- pods that go in whatever way --------------------------------------------------------------------------

left() { # what the sets say of links, one per line
	nft list table bridge flatnet | grep -o 'comment "flatnet veth[^"]*"' | sort -u
	nft list table inet flatnet_ingress | grep -o 'comment "flatnet [^"]*"' | sort -u
}
cni DEL b ctr-b eth0 <<<"$(conf 0)"
cni_ok 'DEL'
is "$(left | sort -u)" "$(printf '%s\n' "comment \"flatnet $host\"" 'comment "flatnet cni0"' | sort)" '... takes what is its own'
netns=$(mktemp -d)/gone
cni DEL "$netns" ctr-a eth0 <<<"$(conf 0 'del(.ipam)')"
cni_ok 'DEL without the namespace, and by another configuration'
is "$(left)" '' '... takes everything'

make_pod - e # where no server runs
make_pod - f
fails_quietly() {
	! "$@" 2>/dev/null
}
gone() { # POD: its namespace goes, and its link, and there is no DEL
	local link
	link=$(cni_link "$1")
	del_pod - "$1"
	eventually 5 '(the namespace of a pod goes, and its link)' fails_quietly ip link show dev "$link"
	make_pod - "$1"
}
cni_link() {
	ip -j link show type veth | jq -r --arg id " ctr-$1 " '.[] | select((.ifalias // "") | contains($id)) | .ifname'
}
cni ADD e ctr-e eth0 <<<"$guarded"
cni ADD f ctr-f eth0 <<<"$guarded"
kept=$(cni_link f)
gone e
cmp_ok "$(left | sort -u | wc -l)" -eq 3 'a namespace that goes leaves its elements'
cni GC - - - <<<"$(jq -c '.["cni.dev/valid-attachments"] = [{containerID: "ctr-f", ifname: "eth0"}]' <<<"$guarded")"
cni_ok 'GC'
is "$(left | sort -u)" "$(printf '%s\n' "comment \"flatnet $kept\"" 'comment "flatnet cni0"' | sort)" '... removes them, and no others'
cni GC - - - <<<"$(jq -c '.["cni.dev/valid-attachments"] = []' <<<"$guarded")"
is "$(left)" '' 'GC of a pod that is there, and of no valid attachment'

# The same container again, whose elements are still there, with another MAC.
cni ADD e ctr-e eth0 <<<"$guarded"
gone e
cni ADD e ctr-e eth0 <<<"$(jq -c '.runtimeConfig.mac = "02:11:22:33:44:55"' <<<"$guarded")"
cni_ok 'ADD where an earlier life left its elements'
is "$(nft list set bridge flatnet spoofcheck4 | grep -o ' \. [0-9a-f:]* \. ' | sort -u)" ' . 02:11:22:33:44:55 . ' '... replaces them'
ok '... and the pod has its network, with a MAC of its own' can_ping - e 10.244.1.1
cni DEL e ctr-e eth0 <<<"$guarded"

# ---- an ADD that fails --------------------------------------------------------------------------------------

before=$(state)
cni_wrap=(strace -f -qq -o /run/trace -e inject=writev:error=EPIPE)
CNI_TIMEOUT=60 cni ADD a ctr-a eth0 <<<"$guarded"
cni_wrap=()
isnt "$cni_rc" 0 'an ADD that cannot tell its result'
is "$(state)" "$before" '... leaves nothing, and what was there'
nft delete table bridge flatnet
before=$(state)
cni_wrap=(strace -f -qq -o /run/trace -e inject=writev:error=EPIPE)
CNI_TIMEOUT=60 cni ADD a ctr-a eth0 <<<"$guarded"
cni_wrap=()
is "$(state)" "$before" '... nor the table that it made'
nft delete table inet flatnet_ingress
quick ADD a ctr-a eth0 "$(conf 0)" >/dev/null
is "$(nft list tables)" 'table inet flatnet' 'without these keys there is none of it'
quick DEL a ctr-a eth0 "$(conf 0)"

done_testing
