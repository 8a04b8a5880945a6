#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Host ports in a cluster: from every node, pod and outside host, whatever br_netfilter does; beside
# kube-proxy's rules, beside the reference portmap with either of its backends, and where a firewall
# forwards nothing by default.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"

make_cluster 2
for node in n1 n2; do
	on "$node" ip route add default via 192.0.2.100
done
conf=$(cluster_conf '.ipMasq = true' '.nodes = .nodes[:2]' '.nodes |= map(.address = [.address[0], (.name[1:] | "2001:db8::" + .)] |
	.podCIDRs += ["fd00:10:244:" + (.name[1:]) + "::/64"])' '.clusterCIDR = ["10.244.0.0/16", "fd00:10:244::/48"]')
# mapped PORT...: the configuration with these ports of the host, to port 80 of the pod, tcp and udp
mapped() {
	jq -c --args '.runtimeConfig.portMappings =
		[$ARGS.positional[] | tonumber | {hostPort: ., containerPort: 80, protocol: ("tcp", "udp"), hostIP: ""}]' "$@" <<<"$conf"
}
add_pod n1 a "$(mapped 8080 80)"
add_pod n1 b "$conf"
add_pod n2 c "$(mapped 8080)"
add_pod n2 d "$conf"
for pod in a b; do
	serve n1 $pod $pod 80
done
serve n2 c c 80

declare -A address=([n1]=192.0.2.1 [n2]=192.0.2.2)
ways() { # NAME: each node's port 8080 from everywhere
	local from node proto who bad='' tried=0
	for from in out:- n1:- n1:a n1:b n2:- n2:c n2:d; do
		for node in n1 n2; do
			who=a
			[[ $node == n1 ]] || who=c
			for proto in tcp udp; do
				for to in "${address[$node]}" "2001:db8::${node#n}"; do
					: $((++tried))
					[[ $(ask "${from%:*}" "${from#*:}" $proto "$to" 8080 || echo none) == "$who "* ]] ||
						bad+="${from/:/ } does not reach $to by $proto; "
				done
			done
			[[ ${from%:*} != "$node" || ${from#*:} != - ]] ||
				[[ $(ask "$node" - tcp 127.0.0.1 8080) == "$who "* ]] || bad+="$node does not reach itself by 127.0.0.1"
		done
	done
	is "$bad" '' "$1: all $tried ways to the host ports"
}
for nf in 1 0; do
	if bridge_nf $nf; then
		ways "bridge-nf $nf"
	else
		skip_kernel "bridge-nf $nf" 'no br_netfilter'
	fi
done
is "$(ask n2 d tcp 192.0.2.1 8080 || echo none)" 'a 192.0.2.2' 'a pod of another node is seen as its node, as by any outside host'

# ---- kube-proxy --------------------------------------------------------------------------------------------

a=$(pod_ip n1 a) b=$(pod_ip n1 b)
kube_proxy() { # as kube-proxy writes a Service with a node port for the endpoints a and b
	cat <<-END
		*nat
		:KUBE-SERVICES - [0:0]
		:KUBE-NODEPORTS - [0:0]
		:KUBE-POSTROUTING - [0:0]
		:KUBE-MARK-MASQ - [0:0]
		:KUBE-SVC-WEB - [0:0]
		:KUBE-EXT-WEB - [0:0]
		:KUBE-SEP-A - [0:0]
		:KUBE-SEP-B - [0:0]
		-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
		-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
		-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
		-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
		-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
		-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
		-A KUBE-POSTROUTING -j MASQUERADE --random-fully
		-A KUBE-SERVICES -d 10.96.0.80/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-WEB
		-A KUBE-SVC-WEB ! -s 10.244.0.0/16 -d 10.96.0.80/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
		-A KUBE-SVC-WEB -m statistic --mode nth --every 2 --packet 0 -j KUBE-SEP-A
		-A KUBE-SVC-WEB -j KUBE-SEP-B
		-A KUBE-SEP-A -s $a/32 -j KUBE-MARK-MASQ
		-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination $a:80
		-A KUBE-SEP-B -s $b/32 -j KUBE-MARK-MASQ
		-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination $b:80
		-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-WEB
		-A KUBE-EXT-WEB -j KUBE-MARK-MASQ
		-A KUBE-EXT-WEB -j KUBE-SVC-WEB
		-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
		COMMIT
	END
}
# four NODE POD ADDRESS PORT: who answers four times
four() {
	local i answer
	for i in 1 2 3 4; do
		answer=$(ask "$1" "$2" tcp "$3" "$4") || answer=none
		echo "${answer% *}"
	done | sort | uniq -c | xargs
}
services() { # NAME
	local from
	for from in n1:a n1:b n2:c n2:d n1:- n2:-; do
		is "$(four "${from%:*}" "${from#*:}" 10.96.0.80 80)" '2 a 2 b' "$1: ${from/:/ } reaches the Service at both endpoints"
	done
	is "$(four out - 192.0.2.2 30080)" '2 a 2 b' "$1: the outside reaches the node port"
	is "$(ask n1 b tcp "$a" 80 || echo none)" "a $b" "$1: a neighbour is seen with its own address"
}
for node in n1 n2; do
	kube_proxy | on $node iptables-restore --noflush
done
ways 'kube-proxy, written later'
services 'kube-proxy, written later'
# the other way round: our chains come last
for node in n1 n2; do
	on $node nft delete table inet flatnet
done
NODE=n1 cni DEL a ctr-a eth0 <<<"$conf"
NODE=n2 cni DEL c ctr-c eth0 <<<"$conf"
del_pod n1 a
del_pod n2 c
add_pod n1 a "$(jq -c '.runtimeConfig.ips = [$a]' --arg a "$a" <<<"$(mapped 8080 80)")"
add_pod n2 c "$(mapped 8080)"
serve n1 a a 80
serve n2 c c 80
ways 'kube-proxy, written before'
services 'kube-proxy, written before'
# A Service that has the port of the node is kube-proxy's.
add_pod n1 e "$(mapped 30080)"
is "$(four out - 192.0.2.1 30080)" '2 a 2 b' 'the node port of a Service goes before a host port'
remove_pod n1 e "$conf"
bridge_nf 1 || :
ways 'kube-proxy, bridge-nf 1'

# ---- the reference portmap -----------------------------------------------------------------------------------

if [[ ${FLAT_REFERENCE:-} ]]; then
	for backend in iptables nftables; do
		# its own pod, on its own bridge
		make_pod n1 ref
		bridge='{"cniVersion": "1.0.0", "name": "ref", "type": "bridge", "bridge": "ref0", "isGateway": true, "ipMasq": true,
			"ipam": {"type": "host-local", "dataDir": "/run/ref", "subnet": "10.99.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}'
		NODE=n1 FLAT_PLUGIN=$FLAT_REFERENCE/bridge cni ADD ref ctr-ref eth0 <<<"$bridge"
		cni_ok "the reference bridge makes a pod"
		portmap=$(jq -nc --argjson prev "$cni_out" --arg backend $backend '{cniVersion: "1.0.0", name: "ref", type: "portmap",
			backend: $backend, snat: true, prevResult: $prev,
			runtimeConfig: {portMappings: [{hostPort: 9090, containerPort: 80, protocol: "tcp"}]}}')
		NODE=n1 FLAT_PLUGIN=$FLAT_REFERENCE/portmap cni ADD ref ctr-ref eth0 <<<"$portmap"
		cni_ok "... and portmap, with $backend, its port"
		serve n1 ref ref 80
		is "$(ask out - tcp 192.0.2.1 9090 || echo none)" 'ref 192.0.2.100' '... which the outside reaches'
		is "$(ask n1 - tcp 127.0.0.1 9090 || echo none)" 'ref 10.99.0.1' '... and the node by 127.0.0.1'
		ways "beside portmap with $backend"
		add_pod n1 e "$(mapped 9091)"
		serve n1 e e 80
		is "$(ask out - tcp 192.0.2.1 9091 || echo none)" 'e 192.0.2.100' '... a new port of ours, too'
		remove_pod n1 e "$conf"
		is "$(ask out - tcp 192.0.2.1 9090 || echo none)" 'ref 192.0.2.100' '... after its DEL portmap'\''s is still there'
		NODE=n1 FLAT_PLUGIN=$FLAT_REFERENCE/portmap cni DEL ref ctr-ref eth0 <<<"$portmap"
		cni_ok '... and portmap'\''s DEL'
		ways "after portmap with $backend"
		# behind flatnet in a chain, for pods without ports of ours
		add_pod n1 e "$conf"
		NODE=n1 FLAT_PLUGIN=$FLAT_REFERENCE/portmap cni ADD e ctr-e eth0 <<<"$(jq -c --argjson prev "$cni_out" \
			'.prevResult = $prev | .prevResult.cniVersion = "1.0.0"' <<<"$portmap")"
		cni_ok "portmap with $backend behind flatnet"
		serve n1 e e 80
		is "$(ask out - tcp 192.0.2.1 9090 || echo none)" 'e 192.0.2.100' '... leads to the pod'
		NODE=n1 FLAT_PLUGIN=$FLAT_REFERENCE/portmap cni DEL e ctr-e eth0 <<<"$portmap"
		remove_pod n1 e "$conf"
		NODE=n1 FLAT_PLUGIN=$FLAT_REFERENCE/bridge cni DEL ref ctr-ref eth0 <<<"$bridge"
		del_pod n1 ref
	done
else
	skip 'beside the reference portmap' 'the reference plugins could not be had'
fi

# ---- a firewall ------------------------------------------------------------------------------------------------

for node in n1 n2; do
	on $node iptables -P FORWARD DROP
	on $node ip6tables -P FORWARD DROP
	add_pod $node late "$(mapped 7000)"
	serve $node late late 80
done
ways 'with FORWARD DROP'
is "$(ask out - tcp 192.0.2.1 7000 || echo none)" 'late 192.0.2.100' '... and a new port'

done_testing
