# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# ctl.sh - flatnetctl on the nodes of a test. Needs tap.sh and node.sh.
#
#	conf_file NODE CONF [NAME]   writes CONF, as cni() takes it, to /run/net.d/NAME of the node
#	                             (10-pods.conflist) as a list of that one plugin
#	ctl ARGUMENT...              runs flatnetctl on the node NODE (default n1): sets
#	                                 ctl_rc   exit status     ctl_out, ctl_err   what it printed
#	                             with --conf-dir /run/net.d, --plugin-dir and --node where the
#	                             command takes them. Returns 0 always
#	ctl_json ARGUMENT...         the same with --json; ctl_out has to be one JSON object
#	ctl_exits STATUS NAME        asserts the exit status of the last one
#	problem REGEX                does the last ctl_json have a problem whose text matches, with a
#	                             cure? For ok and fails
#	shown NODE COMMAND           asserts that a problem's evidence is a command that can be run there
#	                             (it may well fail, or print nothing: that is what it shows)
#	leak NODE POD CONF           makes a pod and takes its link away: its address stays

ctl_rc=0 ctl_out='' ctl_err=''

conf_file() {
	on "$1" mkdir -p /run/net.d
	jq '{cniVersion, name, plugins: [del(.name, .cniVersion)]}' <<<"$2" |
		on "$1" tee "/run/net.d/${3:-10-pods.conflist}" >/dev/null
}

ctl() {
	local node=${NODE:-n1} out options=()
	case "${1:-} ${2:-}" in
	*--help* | "help "*) ;;
	status*) options=(--conf-dir /run/net.d --plugin-dir "$FLAT_BIN" --node "$node") ;;
	nodes* | routes*) options=(--conf-dir /run/net.d --node "$node") ;;
	pods* | ipam*) options=(--conf-dir /run/net.d) ;;
	version*) options=(--plugin-dir "$FLAT_BIN") ;;
	esac
	out=$(mktemp "${TMPDIR:-/tmp}/flat-ctl.XXXXXX")
	ctl_rc=0
	on "$node" timeout 20 "$FLAT_BIN/flatnetctl" "$@" "${options[@]}" >"$out" 2>"$out.err" || ctl_rc=$?
	ctl_out=$(<"$out") ctl_err=$(<"$out.err")
	rm -f "$out" "$out.err"
}

ctl_json() {
	ctl "$@" --json
	if [[ -z $ctl_out ]] || ! jq -e 'type == "object"' <<<"$ctl_out" >/dev/null 2>&1; then
		fail "flatnetctl $* prints one JSON object"
		diag "  exit $ctl_rc: ${ctl_out:0:2000} $ctl_err"
		ctl_out='{}'
	fi
}

ctl_exits() {
	if ((ctl_rc == $1)); then
		pass "$2"
	else
		fail "$2"
		diag "  exit $ctl_rc, not $1"
		diag "${ctl_out:0:2000}"
		diag "${ctl_err:0:2000}"
	fi
}

problem() {
	[[ $ctl_out ]] && jq -e --arg regex "$1" 'any(.problems[]; (.what | test($regex)) and .cure)' <<<"$ctl_out"
}

shown() {
	local rc=0 out
	out=$(on "$1" timeout 20 bash -c "$2" 2>&1) || rc=$?
	if ((rc < 124)) && [[ ! $out =~ (usage|Usage|unrecognized|garbage|Unknown) ]]; then
		pass "shown by: $2"
	else
		fail "shown by: $2"
		diag "  exit $rc: $out"
	fi
}

leak() {
	local link
	add_pod "$1" "$2" "$3"
	# shellcheck disable=SC2154
	link=$(jq -r '.interfaces[1].name' <<<"$cni_out")
	on "$1" ip link del "$link"
}
