# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# node.sh - nodes, wires, pods and plugin calls, for the shell tests and the demo.
#
# Where things live. A test runs in a sandbox (test/tools/sandbox): its own network, mount and PID
# namespace, with /run, /var/lib/cni and /etc/cni of its own. The sandbox itself is the node "-".
# make_node adds more nodes: each has its own network namespace, /run and /sys, held by one sleeping
# process. Pods are network namespaces in /run/netns of their node. It all ends with the processes.
#
# Environment, set by test/run:
#	FLAT_BIN        folder with flatnet and flatnet-ipam
#	FLAT_REFERENCE  folder with the reference plugins 1.9.1; empty when they could not be had
#	FLAT_CNITOOL    cnitool; empty when it could not be had
#	FLAT_FLANNEL    flannel's CNI plugin 0.9.0; empty when it could not be had
#	FLAT_SANITIZED  1 when the plugins were built with ASan and UBSan (times mean nothing then)
#	FLAT_ROOT       the source tree
#
# NODES
#	make_wire WIRE                    an Ethernet segment
#	make_node NODE WIRE [ADDR/LEN...] a node with eth0 (1500 bytes) on WIRE; WIRE "-": no eth0.
#	                                  An outside host is a node, too.
#	on NODE COMMAND [ARG...]          runs COMMAND in the node ("-": here)
#	kill_node NODE                    the node loses its power
# PODS
#	make_pod NODE POD                 an empty pod: /run/netns/POD on that node, loopback up
#	del_pod NODE POD                  removes the network namespace
#	pod_exec NODE POD COMMAND...      runs COMMAND in the pod
#	pod_ip NODE POD [IFNAME]          its IPv4 address; pod_ip6: its global IPv6 address
#	pod_mac NODE POD [IFNAME]         its MAC address
#	can_ping NODE POD ADDRESS         one ping with an answer within a second (IPv4 or IPv6)
# CONFIGURATIONS (JSON on stdout)
#	flat_conf [JQ...]                 of one flatnet network: cniVersion 1.1.0, name "pods",
#	                                  ipam.subnet 10.244.1.0/24; each JQ filter changes it
#	plugin_conf FILE [NAME]           what libcni sends to the (first) plugin of a conflist
#	with_prev CONF RESULT             CONF with prevResult, as CHECK and DEL get it
# CALLS
#	[NODE=n1] [CNI_ARGS=...] cni VERB POD ID IFNAME <<<"$conf"
#	    runs the plugin FLAT_PLUGIN (default flatnet; a name or a path) as a runtime does. The
#	    configuration comes on stdin by redirection; a pipe would lose the variables it sets:
#	        cni_rc   exit status          cni_out  stdout (one JSON text)
#	        cni_ms, cni_us  time of the plugin alone (milli-, microseconds)     cni_err  stderr
#	    POD: a pod's name, or a path; "" = CNI_NETNS set and empty; "-" = not set at all. ID and
#	    IFNAME likewise. The call always returns 0. CNI_PATH, CNI_TIMEOUT (30 s) can be given;
#	    the array cni_wrap goes before the plugin: cni_wrap=(strace -f ...).
#	cni_ok NAME                       asserts that the last call succeeded
#	cni_fails CODE REGEX NAME         asserts that it failed with one JSON error of this code whose
#	                                  msg or details match REGEX
#	add_pod NODE POD CONF             make_pod and ADD as container "ctr-POD", ifname eth0; result
#	                                  in cni_out
#	remove_pod NODE POD CONF          DEL of the same and del_pod

declare -A node_pid=()
cni_rc=0 cni_out='' cni_err='' cni_ms=0 cni_us=0
cni_wrap=()

# A process that holds new namespaces until it is killed. Sets held_pid once they are ready.
# hold NAME MOUNTS...: each of MOUNTS is hidden under an empty tmpfs of the node's own.
hold() {
	local name=$1 fifo
	shift
	fifo=$(mktemp -u "${TMPDIR:-/tmp}/flat-hold.XXXXXX")
	mkfifo -m 0600 "$fifo"
	# shellcheck disable=SC2016
	setsid unshare -n -m --propagation slave bash -c '
		set -e
		fifo=$1; shift
		exec 3>"$fifo"
		ip link set lo up
		mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
		for dir; do mount -t tmpfs -o mode=0755 tmpfs "$dir"; done
		mkdir -p /run/netns /run/lock
		mount --bind /run/netns /run/netns
		echo ready >&3
		exec 3>&-
		exec -a "flatnet-hold" sleep infinity
	' hold "$fifo" "$@" </dev/null >/dev/null 2>"$fifo.log" &
	held_pid=$!
	disown
	local word=''
	read -r -t 10 word <"$fifo" || :
	if [[ $word != ready ]]; then
		printf 'cannot make the namespaces of %s: %s\n' "$name" "$(<"$fifo.log")" >&2
		rm -f "$fifo" "$fifo.log"
		return 1
	fi
	rm -f "$fifo" "$fifo.log"
}

make_wire() {
	hold "wire $1" /run
	node_pid[$1]=$held_pid
	# No multicast snooping, no spanning tree: a wire carries everything at once.
	on "$1" ip link add wire type bridge forward_delay 0 mcast_snooping 0
	on "$1" ip link set wire up
}

make_node() {
	local node=$1 wire=$2 address
	shift 2
	hold "node $node" /run
	node_pid[$node]=$held_pid
	[[ $wire != - ]] || return 0
	on "$wire" ip link add "$node" type veth peer name eth0 netns "${node_pid[$node]}"
	on "$wire" ip link set "$node" master wire up
	for address; do
		case $address in
		*:*) on "$node" ip address add "$address" dev eth0 nodad ;;
		*) on "$node" ip address add "$address" dev eth0 ;;
		esac
	done
	on "$node" ip link set eth0 up
}

kill_node() {
	kill -KILL "${node_pid[$1]}" 2>/dev/null || :
	unset "node_pid[$1]"
}

kill_all_nodes() {
	local node
	for node in "${!node_pid[@]}"; do
		kill_node "$node"
	done
}

on() {
	local node=$1
	shift
	if [[ $node == - ]]; then
		"$@"
	else
		nsenter -t "${node_pid[$node]:?no such node: $node}" -m -n -- "$@"
	fi
}

make_pod() {
	on "$1" ip netns add "$2"
	pod_exec "$1" "$2" ip link set lo up
}

del_pod() {
	on "$1" ip netns del "$2"
}

pod_exec() {
	local node=$1 pod=$2
	shift 2
	on "$node" nsenter --net="/run/netns/$pod" -- "$@"
}

pod_ip() {
	pod_exec "$1" "$2" ip -j -4 address show dev "${3:-eth0}" |
		jq -r '[.[].addr_info[]?|select(.scope=="global").local][0] // ""'
}

pod_ip6() {
	pod_exec "$1" "$2" ip -j -6 address show dev "${3:-eth0}" |
		jq -r '[.[].addr_info[]?|select(.scope=="global").local][0] // ""'
}

pod_mac() {
	pod_exec "$1" "$2" ip -j link show dev "${3:-eth0}" | jq -r '.[0].address'
}

can_ping() {
	pod_exec "$1" "$2" ping -n -q -c 1 -W 1 "$3" >/dev/null 2>&1
}

flat_conf() {
	local filter='{cniVersion: "1.1.0", name: "pods", type: "flatnet", ipam: {subnet: "10.244.1.0/24"}}' f
	for f; do
		filter+=" | ($f)"
	done
	jq -nc "$filter"
}

plugin_conf() {
	jq -c --arg type "${2:-}" '
		. as $list |
		[.plugins[] | select($type == "" or .type == $type)][0] |
		del(.capabilities) +
		{name: $list.name, cniVersion: ($list.cniVersion // "0.1.0")}' "$1"
}

with_prev() {
	jq -c --argjson prev "$2" '. + {prevResult: $prev}' <<<"$1"
}

cni() {
	local verb=$1 netns=$2 id=$3 ifname=$4 plugin=${FLAT_PLUGIN:-flatnet} out
	# shellcheck disable=SC2016
	local timed='s=${EPOCHREALTIME//[!0-9]/}; "$@" 3>&- || rc=$?; echo "$((${EPOCHREALTIME//[!0-9]/} - s))" >&3; exit "${rc:-0}"'
	local env=(-u CNI_NETNS -u CNI_CONTAINERID -u CNI_IFNAME -u CNI_COMMAND)
	[[ $plugin == */* ]] || plugin=$FLAT_BIN/$plugin
	[[ $netns == */* || -z $netns || $netns == - ]] || netns=/run/netns/$netns
	[[ $verb == - ]] || env+=("CNI_COMMAND=$verb")
	[[ $netns == - ]] || env+=("CNI_NETNS=$netns")
	[[ $id == - ]] || env+=("CNI_CONTAINERID=$id")
	[[ $ifname == - ]] || env+=("CNI_IFNAME=$ifname")
	env+=("CNI_PATH=${CNI_PATH-$FLAT_BIN${FLAT_REFERENCE:+:$FLAT_REFERENCE}}")
	out=$(mktemp "${TMPDIR:-/tmp}/flat-cni.XXXXXX")
	cni_rc=0
	on "${NODE:--}" timeout -k 2 "${CNI_TIMEOUT:-30}" env "${env[@]}" \
		bash -c "$timed" cni "${cni_wrap[@]}" "$plugin" >"$out" 2>"$out.err" 3>"$out.us" || cni_rc=$?
	cni_err=$(<"$out.err") cni_us=$(<"$out.us")
	# shellcheck disable=SC2034
	cni_us=${cni_us:-0} cni_ms=$((cni_us / 1000))
	cni_out=$(<"$out")
	rm -f "$out" "$out.err" "$out.us"
}

cni_ok() {
	if ((cni_rc == 0)); then
		pass "$1"
	else
		fail "$1"
		diag "  exit $cni_rc: $cni_out"
		[[ -z $cni_err ]] || diag "  stderr: $cni_err"
	fi
}

cni_fails() {
	local said
	said=$(jq -rs --argjson code "$1" \
		'if length == 1 and .[0].code == $code then .[0].msg + "\n" + (.[0].details // "") else "" end' \
		<<<"$cni_out" 2>/dev/null) || said=
	if ((cni_rc > 0 && cni_rc < 124)) && [[ -n $said && $said =~ $2 ]]; then
		pass "$3"
	else
		fail "$3"
		diag "  want: failure with code $1 and a text like: $2"
		diag "   got: exit $cni_rc: ${cni_out:0:2000}"
		[[ -z $cni_err ]] || diag "  stderr: $cni_err"
	fi
}

add_pod() {
	make_pod "$1" "$2"
	NODE=$1 cni ADD "$2" "ctr-$2" eth0 <<<"$3"
	if ((cni_rc != 0)); then
		printf 'ADD of pod %s on %s failed: %s %s\n' "$2" "$1" "$cni_out" "$cni_err" >&2
		return 1
	fi
}

remove_pod() {
	NODE=$1 cni DEL "$2" "ctr-$2" eth0 <<<"$3"
	del_pod "$1" "$2"
	if ((cni_rc != 0)); then
		printf 'DEL of pod %s on %s failed: %s %s\n' "$2" "$1" "$cni_out" "$cni_err" >&2
		return 1
	fi
}
