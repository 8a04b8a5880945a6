# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# cluster.sh - a cluster on one wire, and who talks to whom in it. Needs tap.sh and node.sh.
#
#	make_cluster COUNT           wire "lan"; nodes n1, n2, ... with 192.0.2.N/24 and
#	                             2001:db8::N/64; node "out", an outside host, with .100 and ::100 and
#	                             no route to any pod
#	settle NODE...               waits until these nodes have no tentative IPv6 address: a neighbour that
#	                             the packet of another needs is asked for from the link-local one
#	node_list FAMILIES           the list of the nodes n1..n3 as JSON; FAMILIES: 4, 6, 46
#	cluster_conf [JQ...]         a configuration with that list and neither mtu nor ipam; each JQ
#	                             filter changes it
#	serve NODE POD|- NAME PORT   answers each TCP connection and each UDP datagram to PORT, IPv4 and
#	                             IPv6, with the line "NAME PEER"; returns when it listens; POD "-": on
#	                             the node itself
#	ask NODE POD|- tcp|udp ADDRESS PORT   prints that line; fails when there is none within 2 s
#	lookup NODE POD|- tcp|udp SERVER NAME   the address of a name, from a DNS server's last answer
#	no_loss NODE POD ADDRESS     the first echo request is answered within a second
#	bridge_nf 0|1                net.bridge.bridge-nf-call-{ip,ip6}tables on all nodes; fails when the
#	                             kernel has no such thing
#	our_routes NODE [-6]         routes of protocol 241: "DST GATEWAY", sorted

cluster_nodes=()

make_cluster() {
	local i
	make_wire lan
	for ((i = 1; i <= $1; i++)); do
		make_node "n$i" lan "192.0.2.$i/24" "2001:db8::$i/64"
		cluster_nodes+=("n$i")
	done
	make_node out lan 192.0.2.100/24 2001:db8::100/64
	settle "${cluster_nodes[@]}" out
}

settle() {
	local node end=$((SECONDS + 10))
	for node; do
		while [[ $(on "$node" ip -6 address show tentative) ]]; do
			if ((SECONDS > end)); then
				printf 'an address of %s stays tentative:\n%s\n' "$node" "$(on "$node" ip -6 address)" >&2
				return 1
			fi
			sleep 0.05
		done
	done
}

node_list() {
	jq -nc --arg families "$1" '[range(1; 4) | tostring as $i | {
		name: "n\($i)",
		address: [if $families | contains("4") then "192.0.2.\($i)" else empty end,
			if $families | contains("6") then "2001:db8::\($i)" else empty end],
		podCIDRs: [if $families | contains("4") then "10.244.\($i).0/24" else empty end,
			if $families | contains("6") then "fd00:10:244:\($i)::/64" else empty end]}]'
}

cluster_conf() {
	local filter='.' f
	for f; do
		filter+=" | ($f)"
	done
	jq -nc --argjson nodes "$(node_list 4)" \
		"{cniVersion: \"1.1.0\", name: \"pods\", type: \"flatnet\", nodes: \$nodes} | $filter"
}

in_pod() { # NODE POD|- COMMAND...
	if [[ $2 == - ]]; then
		on "$1" "${@:3}"
	else
		pod_exec "$@"
	fi
}

serve() {
	local node=$1 pod=$2 name=$3 port=$4 family only='' end
	# A server of UDP has to read what it answers, else socat gives up before the answer.
	for family in 4 6; do
		((family == 4)) || only=,ipv6only=1
		in_pod "$node" "$pod" setsid socat "TCP$family-LISTEN:$port,fork,reuseaddr,backlog=64$only" \
			"SYSTEM:echo $name \$SOCAT_PEERADDR" </dev/null >/dev/null 2>&1 &
		disown
		in_pod "$node" "$pod" setsid socat "UDP$family-RECVFROM:$port,fork,reuseaddr$only" \
			"SYSTEM:read -r _; echo $name \$SOCAT_PEERADDR" </dev/null >/dev/null 2>&1 &
		disown
	done
	end=$((SECONDS + 10))
	until (($(in_pod "$node" "$pod" ss -Hltun "sport = :$port" | wc -l) == 4)); do
		if ((SECONDS > end)); then
			printf 'no server on port %s of %s on %s\n' "$port" "$pod" "$node" >&2
			return 1
		fi
		sleep 0.02
	done
}

ask() {
	local answer
	# shellcheck disable=SC2016
	answer=$(in_pod "$1" "$2" timeout 2 bash -c '
		exec 3<>"/dev/$1/$2/$3" || exit 1
		[[ $1 == tcp ]] || echo hello >&3
		dd bs=512 count=1 status=none <&3
	' ask "$3" "$4" "$5" 2>/dev/null) || return 1
	case $answer in
	*\[*\]) # socat writes IPv6 addresses in full
		sed -E 's/\[(.*)\]/\1/; s/([: ])0{1,3}/\1/g; s/(:0)+:/::/' <<<"$answer"
		;;
	?*) printf '%s\n' "$answer" ;;
	*) return 1 ;;
	esac
}

lookup() {
	local label query='\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00'
	for label in ${5//./ }; do
		query+=$(printf '\\x%02x%s' "${#label}" "$label")
	done
	query+='\x00\x00\x01\x00\x01'
	[[ $3 == udp ]] || query="\\x00\\x$(printf %02x $((${#5} + 18)))$query"
	# shellcheck disable=SC2016
	in_pod "$1" "$2" timeout 2 bash -c '
		exec 3<>"/dev/$1/$2/53" || exit 1
		printf "$3" | dd bs=512 iflag=fullblock status=none >&3 # in one piece
		dd bs=512 count=1 status=none <&3 | tail -c 4 | od -An -tu1
	' lookup "$3" "$4" "$query" 2>/dev/null | awk 'NF == 4 { print $1 "." $2 "." $3 "." $4 }'
}

no_loss() {
	pod_exec "$1" "$2" ping -n -q -c 1 -W 1 "$3"
}

bridge_nf() {
	local node key
	for node in "${cluster_nodes[@]}"; do
		for key in bridge-nf-call-iptables bridge-nf-call-ip6tables; do
			on "$node" sysctl -q -w "net.bridge.$key=$1" 2>/dev/null || return 1
			[[ $(on "$node" sysctl -n "net.bridge.$key") == "$1" ]] || return 1
		done
	done
}

our_routes() {
	on "$1" ip -j "${2:--4}" route show proto 241 | jq -r '[.[] | .dst + " " + .gateway] | sort | .[]'
}
