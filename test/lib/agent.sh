# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# agent.sh - the node agent on the nodes of a test. Needs tap.sh and node.sh; with cluster.sh's nodes
# its list is node_list's.
#
#	agent_conf NODE [JQ...]      a configuration: source file, /run/nodes.json of the node, network
#	                             "pods", state in the node's /run. Each JQ changes it
#	tell_nodes LIST NODE...      gives these nodes a list of nodes (JSON)
#	start_agent NODE CONF [FLAG...]   runs flatnetd there, and waits until it says that it runs
#	                             agent_prefix: an array of words that go before the command
#	stop_agent NODE [SIGNAL]     ends it (TERM) and waits; agent_rc is its exit status
#	agent_log NODE               what it has said since it was started (or forget_log)
#	forget_log NODE
#	says NODE REGEX              has it said a line like that?
#	agent_pod NODE POD           a pod by the node file alone (agent_plugin_conf): cni_out has the
#	                             result
#	http_get NODE PATH           what its web server answers, head and body
#	metric NODE NAME             a value of its metrics, by its whole name
#	repaired NODE NAME REGEX COMMAND...   COMMAND succeeds within a second, and the log has a line
#	                             like REGEX. Takes the time: repaired_ms
#	quiet NODE SECONDS           nothing in that node's network changes: prints what does
#
# Waits are polls: nothing here sleeps for as long as something may take.

[[ -x $FLAT_BIN/flatnetd ]] || skip_all 'flatnetd was not built: a library of it is missing'

declare -A agent_pid=()
agent_prefix=()
agent_rc=0 repaired_ms=0
agent_plugin_conf='{"cniVersion": "1.1.0", "name": "pods", "type": "flatnet", "ipMasq": true}'

agent_conf() {
	local node=$1 filter='.' f
	shift
	for f; do
		filter+=" | ($f)"
	done
	jq -nc --arg node "$node" '{
		nodeName: $node, source: "file", file: {path: "/run/nodes.json"}, backend: "auto",
		cni: {network: "pods"}, stateFile: "/run/state/state.json",
		log: {level: "debug"}} | '"$filter"
}

tell_nodes() {
	local list=$1 node
	shift
	for node; do
		on "$node" bash -c 'cat >/run/nodes.new && mv /run/nodes.new /run/nodes.json' <<<"$list"
	done
}

agent_log_file() {
	printf '%s/agent-%s.log\n' "${TMPDIR:-/tmp}" "$1"
}

agent_log() {
	cat "$(agent_log_file "$1")"
}

forget_log() {
	: >"$(agent_log_file "$1")"
}

says() {
	grep -Eq -- "$2" "$(agent_log_file "$1")"
}

wait_for() { # SECONDS COMMAND...
	local end=$((${EPOCHREALTIME//[!0-9]/} + $1 * 1000000))
	shift
	until "$@" >/dev/null 2>&1; do
		((${EPOCHREALTIME//[!0-9]/} < end)) || return 1
		sleep 0.02
	done
}

start_agent() {
	local node=$1 conf=$2 log
	shift 2
	log=$(agent_log_file "$node")
	on "$node" tee /run/flatnetd.json <<<"$conf" >/dev/null
	: >"$log"
	# shellcheck disable=SC2154
	# not by on(): the process is to be the agent itself, not a shell that waits for it
	nsenter -t "${node_pid[$node]}" -m -n -- setsid "${agent_prefix[@]}" "$FLAT_BIN/flatnetd" --config /run/flatnetd.json "$@" \
		</dev/null >>"$log" 2>&1 &
	agent_pid[$node]=$!
	if ! wait_for 10 says "$node" 'msg="running"'; then
		printf 'flatnetd does not run on %s:\n%s\n' "$node" "$(agent_log "$node")" >&2
		return 1
	fi
}

stop_agent() {
	local pid=${agent_pid[$1]}
	kill "-${2:-TERM}" "$pid"
	agent_rc=0
	# shellcheck disable=SC2034
	wait "$pid" || agent_rc=$?
	unset "agent_pid[$1]"
}

agent_pod() {
	add_pod "$1" "$2" "$agent_plugin_conf"
}

http_get() {
	# shellcheck disable=SC2016
	on "$1" bash -c 'exec 3<>/dev/tcp/127.0.0.1/9464 && printf "GET %s HTTP/1.0\r\n\r\n" "$0" >&3 && cat <&3' "$2"
}

metric() {
	http_get "$1" /metrics | awk -v name="$2" '$1 == name { print $2 }'
}

repaired() {
	local node=$1 name=$2 regex=$3 start=${EPOCHREALTIME//[!0-9]/}
	shift 3
	if ! wait_for 3 "$@"; then
		fail "$name"
		diag "  never true: $*"
		diag "$(agent_log "$node" | tail -n 8)"
		return 0
	fi
	repaired_ms=$(((${EPOCHREALTIME//[!0-9]/} - start) / 1000))
	if ((repaired_ms > 1000 && ${FLAT_SANITIZED:-0} == 0)); then
		fail "$name"
		diag "  took $repaired_ms ms"
	elif ! wait_for 2 says "$node" "$regex"; then
		fail "$name"
		diag "  repaired, but the log has no: $regex"
		diag "$(agent_log "$node" | tail -n 8)"
	else
		pass "$name"
		diag "$repaired_ms ms: $name"
	fi
}

quiet() {
	local events
	events=$(on "$1" timeout "$2" ip -o monitor link address route 2>/dev/null) || :
	grep -v -e 'proto kernel' -e 'NOARP' <<<"$events" || :
}
