#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Three nodes: every pod reaches every pod, as itself, with packets of the underlay's size.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"

make_cluster 3
# No size that a kernel would choose by itself.
for node in n1 n2 n3; do
	on "$node" ip link set eth0 mtu 1430
done
conf=$(cluster_conf '.ipMasq = true')

# The first packet, right after ADD has returned, between nodes and on one node.
lost=''
add_pod n1 first "$conf"
add_pod n2 far "$conf"
first=$(pod_ip n1 first) far=$(pod_ip n2 far)
for ((i = 1; i <= 20; i++)); do
	make_pod n3 "p$i"
	NODE=n3 cni ADD "p$i" "ctr-p$i" eth0 <<<"$conf"
	((i % 2)) && to=$first || to=$far
	((i > 1)) && ((i % 4 == 0)) && to=$(pod_ip n3 "p$((i - 1))")
	no_loss n3 "p$i" "$to" >/dev/null || lost+=" $i"
done
is "$lost" '' 'the first packet after each of 20 ADDs is answered'
lost=''
for ((i = 1; i <= 20; i++)); do
	make_pod n1 "q$i"
	NODE=n1 cni ADD "q$i" "ctr-q$i" eth0 <<<"$conf"
	to=$(jq -r '.ips[0].address | split("/")[0]' <<<"$cni_out")
	no_loss n2 far "$to" >/dev/null || lost+=" $i"
done
is "$lost" '' 'and so is the first packet to each of 20 new pods'
for ((i = 1; i <= 20; i++)); do
	remove_pod n3 "p$i" "$conf"
	remove_pod n1 "q$i" "$conf"
done

# The same address again, for another container with another MAC: no stale neighbour entry.
ip=10.244.3.77
lost=''
for mac in '' 0a:00:00:00:00:01 0a:00:00:00:00:02; do
	make_pod n3 again
	NODE=n3 CNI_ARGS="IP=$ip${mac:+;MAC=$mac}" cni ADD again ctr-again eth0 <<<"$conf"
	((cni_rc == 0)) || lost+=" ADD: $cni_out"
	no_loss n1 first "$ip" >/dev/null || lost+=" ${mac:-own}"
	remove_pod n3 again "$conf"
done
is "$lost" '' 'a reused address with another MAC answers at once'

for node in n1 n2 n3; do
	for pod in a b; do
		add_pod "$node" "$node-$pod" "$conf"
		serve "$node" "$node-$pod" "$node-$pod" 8080
	done
done

wrong='' sources=''
for from in n1-a n1-b n2-a n2-b n3-a n3-b; do
	for to in n1-a n1-b n2-a n2-b n3-a n3-b; do
		address=$(pod_ip "${to%-*}" "$to")
		can_ping "${from%-*}" "$from" "$address" || wrong+=" $from>$to"
		for proto in tcp udp; do
			answer=$(ask "${from%-*}" "$from" "$proto" "$address" 8080) || answer='no answer'
			[[ $answer == "$to $(pod_ip "${from%-*}" "$from")" ]] ||
				sources+=" $from>$to/$proto: $answer;"
		done
	done
done
is "$wrong" '' 'all 36 pairs ping'
is "$sources" '' 'each sees the address of the other, TCP and UDP'

# The same on the wire.
capture=$TMPDIR/wire
on lan timeout 8 tcpdump -n -i wire -c 4 -l 'icmp and net 10.244.0.0/16' >"$capture" 2>"$capture.err" &
tcpdump=$!
for ((i = 0; i < 100; i++)); do
	! grep -q listening "$capture.err" || break
	sleep 0.05
done
a=$(pod_ip n1 n1-a) b=$(pod_ip n2 n2-b)
pod_exec n1 n1-a ping -n -q -c 2 -i 0.2 "$b" >/dev/null || :
wait "$tcpdump" || :
is "$(grep -c "IP $a > $b: ICMP echo request" "$capture")" 2 'requests cross the wire from pod to pod'
is "$(grep -c "IP $b > $a: ICMP echo reply" "$capture")" 2 'and so do the replies'

# A node reaches pods of every node, and pods reach every node.
ok 'a node reaches a pod of another node' on n1 ping -n -q -c 1 -W 1 "$b"
ok 'a node reaches its own pod' on n2 ping -n -q -c 1 -W 1 "$b"
ok 'a pod reaches another node' no_loss n1 n1-a 192.0.2.2
is "$(serve n3 - n3 8081; ask n1 n1-a tcp 192.0.2.3 8081)" 'n3 192.0.2.1' \
	'... as its node: nodes are outside of the flat network'
is "$(ask n3 n3-a tcp 10.244.3.1 8081)" "n3 $(pod_ip n3 n3-a)" 'a pod reaches its own node as itself'

# Sizes.
is "$(pod_exec n1 n1-a cat /sys/class/net/eth0/mtu 2>/dev/null ||
	pod_exec n1 n1-a ip -j link show eth0 | jq '.[0].mtu')" 1430 "the pod's MTU is the underlay's"
is "$(on n1 ip -j link show cni0 | jq '.[0].mtu')" 1430 "the bridge's, too"
ok 'the largest packet passes, undivided' \
	pod_exec n1 n1-a ping -n -q -c 1 -W 1 -M "do" -s $((1430 - 28)) "$b"
fails 'a larger one is refused' pod_exec n1 n1-a ping -n -q -c 1 -W 1 -M "do" -s $((1430 - 27)) "$b"
add_pod n2 small "$(cluster_conf '.mtu = 1400')"
is "$(pod_exec n2 small ip -j link show eth0 | jq '.[0].mtu')" 1400 'a configured MTU is taken'
json "$cni_out" '[.interfaces[] | select(.sandbox).mtu] == [1400]' '... and told in the result'

# One pod less, and nothing else.
remove_pod n1 n1-b "$conf"
ok 'neighbours of a removed pod go on' no_loss n2 n2-a "$a"

done_testing
