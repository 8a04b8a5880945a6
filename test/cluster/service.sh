#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Services as kube-proxy writes them in iptables mode: a ClusterIP with an endpoint on the same and one
# on another node, asked from everywhere, the endpoints themselves included; DNS behind 10.96.0.10; a
# node port. All of it with bridge-nf-call-iptables 1 and 0.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"

make_cluster 3
for node in n1 n2 n3; do # without any way out, a node's own connection would not get as far as nat
	on "$node" ip route add default via 192.0.2.100
done
conf=$(cluster_conf '.ipMasq = true')
pods=(n1-a n1-b n2-a n2-b n3-a)
declare -A ip=()
for pod in "${pods[@]}"; do
	add_pod "${pod%-*}" "$pod" "$conf"
	ip[$pod]=$(pod_ip "${pod%-*}" "$pod")
done
endpoints=(n1-a n2-a)
for pod in "${endpoints[@]}"; do
	serve "${pod%-*}" "$pod" "$pod" 8080
	pod_exec "${pod%-*}" "$pod" setsid dnsmasq --keep-in-foreground --user=root --no-resolv --no-hosts \
		--conf-file=/dev/null --pid-file= --no-daemon --address=/web.cluster.local/10.96.0.80 \
		</dev/null >/dev/null 2>&1 &
	disown
done

# What kube-proxy 1.2x in iptables mode writes for one port of a Service.
# service CHAIN PROTO IP PORT TARGET: its rules in table nat
service() {
	local chain=$1 proto=$2 vip=$3 port=$4 target=$5 i=0 pod left
	echo "-A KUBE-SERVICES -d $vip/32 -p $proto -m comment --comment \"demo/$chain cluster IP\" -m $proto --dport $port -j KUBE-SVC-$chain"
	echo "-A KUBE-SVC-$chain ! -s 10.244.0.0/16 -d $vip/32 -p $proto -m comment --comment \"demo/$chain cluster IP\" -m $proto --dport $port -j KUBE-MARK-MASQ"
	for pod in "${endpoints[@]}"; do
		left=$((${#endpoints[@]} - i++))
		echo ":KUBE-SEP-$chain-$i - [0:0]" >>"$chains"
		echo "-A KUBE-SEP-$chain-$i -s ${ip[$pod]}/32 -m comment --comment demo/$chain -j KUBE-MARK-MASQ"
		echo "-A KUBE-SEP-$chain-$i -p $proto -m comment --comment demo/$chain -m $proto -j DNAT --to-destination ${ip[$pod]}:$target"
		if ((left > 1)); then
			echo "-A KUBE-SVC-$chain -m comment --comment \"demo/$chain -> ${ip[$pod]}:$target\" -m statistic --mode random --probability $(jq -n "1/$left" | xargs printf '%.11f') -j KUBE-SEP-$chain-$i"
		else
			echo "-A KUBE-SVC-$chain -m comment --comment \"demo/$chain -> ${ip[$pod]}:$target\" -j KUBE-SEP-$chain-$i"
		fi
	done
	echo ":KUBE-SVC-$chain - [0:0]" >>"$chains"
}
chains=$TMPDIR/chains rules=$TMPDIR/rules
: >"$chains"
{
	service WEBTCP tcp 10.96.0.80 80 8080
	service WEBUDP udp 10.96.0.80 80 8080
	service DNSUDP udp 10.96.0.10 53 53
	service DNSTCP tcp 10.96.0.10 53 53
	echo '-A KUBE-NODEPORTS -p tcp -m comment --comment demo/WEBTCP -m tcp --dport 30080 -j KUBE-EXT-WEBTCP'
	echo '-A KUBE-EXT-WEBTCP -m comment --comment "masquerade traffic for demo/WEBTCP external destinations" -j KUBE-MARK-MASQ'
	echo '-A KUBE-EXT-WEBTCP -j KUBE-SVC-WEBTCP'
} >"$rules"
{
	cat <<-'END'
		*filter
		:KUBE-FORWARD - [0:0]
		-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
		-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
		-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
		-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		COMMIT
		*nat
		:KUBE-SERVICES - [0:0]
		:KUBE-NODEPORTS - [0:0]
		:KUBE-POSTROUTING - [0:0]
		:KUBE-MARK-MASQ - [0:0]
		:KUBE-EXT-WEBTCP - [0:0]
	END
	cat "$chains"
	cat <<-'END'
		-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
		-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
		-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
		-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
		-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
		-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
		-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
	END
	cat "$rules"
	cat <<-'END'
		-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
		COMMIT
	END
} >"$TMPDIR/kube-proxy"
for node in n1 n2 n3; do
	ok "$node takes kube-proxy's rules" on "$node" iptables-restore --noflush <"$TMPDIR/kube-proxy"
done

# hits NODE POD PROTO PORT COUNT: asks COUNT times; notes who answered and whom he saw
declare -A hit=()
hits() {
	local node=$1 pod=$2 proto=$3 i answer who peer
	hit=() silent=0 strange=''
	for ((i = 0; i < $4; i++)); do
		if ! answer=$(ask "$node" "$pod" "$proto" 10.96.0.80 80); then
			((++silent < 3)) || return 0 # each costs two seconds
			continue
		fi
		read -r who peer <<<"$answer"
		hit[$who]=$((${hit[$who]:-0} + 1))
		if [[ $pod == "$who" ]]; then # hairpin: it sees its node's bridge, or itself
			[[ $peer == "10.244.${node#n}.1" ]] || strange+=" $who saw $peer"
		elif [[ $pod != - ]]; then
			[[ $peer == "${ip[$pod]}" ]] || strange+=" $who saw $peer"
		fi
	done
}

tries=20 # by chance, one of two endpoints is missed in 20 tries once in 500,000 runs
for nf in 1 0; do
	if ! bridge_nf $nf; then
		skip_kernel "bridge-nf-call-iptables $nf" 'no br_netfilter'
		((nf == 0)) || continue
	fi
	for pod in "${pods[@]}"; do
		for proto in tcp udp; do
			hits "${pod%-*}" "$pod" $proto $tries
			is "$silent" 0 "bridge-nf $nf: $pod reaches the ClusterIP every time, $proto"
			is "${hit[n1-a]:+yes} ${hit[n2-a]:+yes}" 'yes yes' "... and both endpoints serve"
			is "$strange" '' '... and see who asks, a hairpin apart'
		done
		for proto in udp tcp; do
			is "$(for i in 1 2 3 4; do lookup "${pod%-*}" "$pod" $proto 10.96.0.10 web.cluster.local; done | sort | uniq -c | xargs)" \
				'4 10.96.0.80' "bridge-nf $nf: $pod resolves a name at 10.96.0.10, $proto"
		done
	done
	for node in n1 n3; do
		hits $node - tcp $tries
		is "$silent ${hit[n1-a]:+yes} ${hit[n2-a]:+yes}" '0 yes yes' "bridge-nf $nf: $node itself reaches it"
	done
	answers=''
	for node in 1 2 3; do
		for i in 1 2 3 4 5; do
			answer=$(ask out - tcp "192.0.2.$node" 30080) || answer=none
			answers+="${answer% *} "
		done
	done
	unlike "$answers" none "bridge-nf $nf: an outside host reaches the node port of each node"
	ok "bridge-nf $nf: pods of one node reach each other directly" no_loss n1 n1-b "${ip[n1-a]}"
done

# Why pods of one node go through the node: on-link, and without bridge-nf, the reply comes back
# over the bridge with the wrong source.
if bridge_nf 0; then
	pod_exec n1 n1-a ip route replace 10.244.1.0/24 dev eth0 scope link
	hits n1 n1-b tcp $tries
	cmp_ok "$silent" -gt 0 '(a neighbour that answers over the bridge is not heard)'
	pod_exec n1 n1-a ip route replace 10.244.1.0/24 via 10.244.1.1
	hits n1 n1-b tcp $tries
	is "$silent" 0 '(and is again through the node)'
fi

# The same with a firewall that forwards nothing by default.
for node in n1 n2 n3; do
	on "$node" iptables -P FORWARD DROP
	add_pod "$node" "$node-late" "$conf"
	ip[$node-late]=$(pod_ip "$node" "$node-late")
done
for pod in n1-late n2-late n3-late n1-a; do
	hits "${pod%-*}" "$pod" tcp $tries
	is "$silent ${hit[n1-a]:+yes} ${hit[n2-a]:+yes}$strange" '0 yes yes' \
		"with FORWARD DROP, $pod reaches the ClusterIP"
done
answer=$(ask out - tcp 192.0.2.3 30080) || answer=none
like "$answer" '^n[12]-a ' 'with FORWARD DROP, an outside host reaches the node port'

done_testing
