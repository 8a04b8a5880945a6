# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# look.sh - looks at the kernel and the store, for the tests of one node. After tap.sh and node.sh.
# All of them look at the sandbox itself, the node "-".
#
#	state                   all that an ADD makes, as text: links of the node and of its pods,
#	                        addresses, routes, rules, reservations. Two of them are equal when
#	                        nothing was left behind. Sysctls, locks and counters do not count.
#	reservations            reserved addresses of network "pods", one per line
#	store_files             reservations of all networks there, by their path
#	veths                   names of all host veths of flatnet, one per line
#	veth_of ID [IFNAME]     host veth of an attachment of network "pods", by its ifalias
#	link NAME JQ            JQ on `ip -j -d link show NAME`; pod_link POD IFNAME JQ likewise
#	sysctl_of PATH          value of a sysctl below /proc/sys; pod_sysctl POD PATH likewise
#	rules JQ                JQ on `nft -j list ruleset`, without counters
#	clean_slate NAME        asserts that no attachment of any kind is there
#	remove_all              removes what flatnet made on this node; pods stay
#	traced ARG...           runs flatnet under strace with these arguments (-e inject=...); the trace
#	                        goes to /run/trace
#	quick VERB POD ID IFNAME CONF    a plugin call without measuring; output on stdout

store=/run/flatnet/ipam

store_files() {
	[[ ! -d $store ]] || find "$store" -type f ! -name lock ! -name 'last_reserved_ip.*' | sort
}

reservations() {
	store_files | sed -n "s:^$store/pods/::p" | sort -V
}

state() {
	local pod line
	{ ip -j -d address && ip -4 -j route && ip -6 -j route; } | jq -rs '
		(.[0] | sort_by(.ifname)[] |
			"link \(.ifname) \(.linkinfo.info_kind // "-") \(.master // "-") \(.ifalias // "-")",
			(.ifname as $link | .addr_info[] | select(.scope == "global") | "address \($link) \(.local)/\(.prefixlen)")),
		(.[1:][] | sort_by(.dst)[] | select(.dst | test("^(fe80|ff00)") | not) |
			"route \(.dst) \(.gateway // "-") \(.dev)")'
	for pod in /run/netns/*; do
		[[ -e $pod ]] || continue
		while IFS= read -r line; do
			printf 'pod %s %s\n' "${pod##*/}" "${line%%[ @]*}"
		done < <(nsenter --net="$pod" ip -br link 2>/dev/null)
	done
	nft -s list ruleset 2>/dev/null | sed 's/^/rule /'
	store_files
}

veths() {
	ip -j link show type veth | jq -r '.[] | select((.ifalias // "") | startswith("flatnet ")) | .ifname'
}

veth_of() {
	ip -j link show type veth |
		jq -r --arg begin "flatnet pods $1 ${2:-eth0} " '.[] | select((.ifalias // "") | startswith($begin)) | .ifname'
}

link() {
	ip -j -d link show dev "$1" 2>/dev/null | jq -r ".[0] | $2"
}

pod_link() {
	pod_exec - "$1" ip -j -d link show dev "$2" 2>/dev/null | jq -r ".[0] | $3"
}

sysctl_of() {
	cat "/proc/sys/$1" 2>/dev/null || echo missing
}

pod_sysctl() {
	pod_exec - "$1" cat "/proc/sys/$2" 2>/dev/null || echo missing
}

rules() {
	nft -j -s list ruleset | jq -r "$1"
}

clean_slate() {
	is "$(veths | wc -l) $(reservations | wc -l) $(store_files | wc -l)" \
		'0 0 0' "$1"
}

remove_all() {
	local name
	for name in $(ip -j link show type veth | jq -r '.[] | select(.ifname | startswith("veth")) | .ifname') \
		$(ip -j link show type bridge | jq -r '.[].ifname'); do
		ip link del "$name" 2>/dev/null || :
	done
	nft flush ruleset
	rm -rf /run/flatnet
}

quick() {
	local plugin=${FLAT_PLUGIN:-flatnet}
	[[ $plugin == */* ]] || plugin=$FLAT_BIN/$plugin
	CNI_COMMAND=$1 CNI_NETNS=/run/netns/$2 CNI_CONTAINERID=$3 CNI_IFNAME=$4 \
		CNI_PATH=$FLAT_BIN${FLAT_REFERENCE:+:$FLAT_REFERENCE} timeout -k 2 30 "$plugin" <<<"$5"
}

# LeakSanitizer cannot work where somebody else traces.
traced() {
	ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 timeout -k 2 30 strace -f -qq -o /run/trace "$@" "$FLAT_BIN/flatnet"
}
