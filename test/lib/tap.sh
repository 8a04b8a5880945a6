# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# tap.sh - assertions that print TAP, for the shell tests. Source it first:
#
#	#!/bin/bash
#	# SPDX-License-Identifier: Apache-2.0
#	set -euo pipefail
#	. "${0%/*}/../lib/tap.sh"
#	. "${0%/*}/../lib/node.sh"          # only where nodes, pods and plugins are needed
#	...
#	done_testing
#
# One assertion is one line, and it returns 0 whether it passed or not, so that `set -e` stops the
# script for what nobody expected, and only for that. NAME comes last and says what must hold.
#
#	ok NAME COMMAND [ARG...]        COMMAND succeeds (its output is shown when it does not)
#	fails NAME COMMAND [ARG...]     COMMAND fails
#	is GOT WANT NAME                the texts are equal
#	isnt GOT OTHER NAME             they differ
#	like TEXT REGEX NAME            TEXT matches the extended regular expression
#	unlike TEXT REGEX NAME          it does not
#	cmp_ok A OP B NAME              integers; OP: -lt -le -eq -ne -ge -gt
#	json TEXT JQ NAME               `jq -e JQ` on TEXT gives neither false nor null
#	eventually SECONDS NAME COMMAND [ARG...]    COMMAND succeeds within so many seconds
#	pass NAME, fail NAME            unconditionally
#	skip NAME REASON                this one was not tried (CI counts it as a failure)
#	skip_kernel NAME REASON         as above, because the kernel cannot: never a failure
#	skip_all REASON                 nothing in this script can be tried; exits 77
#	skip_all_kernel REASON          as above, because the kernel cannot
#	diag TEXT...                    a remark, on stderr
#	plan N                          optional: how many assertions there must be
#	done_testing                    last line of every script: prints the plan and exits
#	at_exit COMMAND [ARG...]        runs at the end, whatever happens; last added runs first
#
# A script that dies before done_testing says where and exits with a failure.

tap_count=0 tap_failed=0 tap_planned='' tap_done='' tap_where=''
tap_cleanups=()

diag() {
	local line
	while IFS= read -r line; do
		printf '# %s\n' "$line" >&2
	done <<<"$*"
}

pass() {
	printf 'ok %d - %s\n' $((++tap_count)) "$1"
}

fail() {
	printf 'not ok %d - %s\n' $((++tap_count)) "$1"
	: $((++tap_failed))
	local i where=''
	for ((i = 1; i < ${#BASH_SOURCE[@]}; i++)); do
		[[ ${BASH_SOURCE[i]} == */lib/* ]] || where="${BASH_SOURCE[i]##*/}:${BASH_LINENO[i - 1]}${where:+ > $where}"
	done
	diag "  $where"
}

ok() {
	local name=$1 out rc=0
	shift
	out=$("$@" 2>&1) || rc=$?
	if ((rc == 0)); then
		pass "$name"
	else
		fail "$name"
		diag "  exit $rc: $(cut -c1-300 <<<"$*")"
		[[ -z $out ]] || diag "${out:0:2000}"
	fi
}

fails() {
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then
		fail "$name"
		diag "  succeeded: $*"
		[[ -z $out ]] || diag "${out:0:2000}"
	else
		pass "$name"
	fi
}

is() {
	if [[ $1 == "$2" ]]; then
		pass "$3"
	else
		fail "$3"
		diag "   got: ${1:0:2000}"
		diag "  want: ${2:0:2000}"
	fi
}

isnt() {
	if [[ $1 != "$2" ]]; then
		pass "$3"
	else
		fail "$3"
		diag "  both: ${1:0:2000}"
	fi
}

like() {
	if [[ $1 =~ $2 ]]; then
		pass "$3"
	else
		fail "$3"
		diag "    text: ${1:0:2000}"
		diag "  has no: $2"
	fi
}

unlike() {
	if [[ $1 =~ $2 ]]; then
		fail "$3"
		diag "  text: ${1:0:2000}"
		diag "   has: $2"
	else
		pass "$3"
	fi
}

cmp_ok() {
	if [[ $1 =~ ^-?[0-9]+$ && $3 =~ ^-?[0-9]+$ ]] && test "$1" "$2" "$3"; then
		pass "$4"
	else
		fail "$4"
		diag "  it does not hold that: '$1' $2 '$3'"
	fi
}

json() {
	# of no text at all jq 1.6 thinks well
	if [[ $1 == *[![:space:]]* ]] && jq -e "$2" <<<"$1" >/dev/null 2>&1; then
		pass "$3"
	else
		fail "$3"
		diag "        text: ${1:0:2000}"
		diag "  not so: jq $2"
	fi
}

eventually() {
	local end=$((SECONDS + $1 + 1)) name=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		if ((SECONDS >= end)); then
			fail "$name"
			diag "  never succeeded: $*"
			return 0
		fi
		sleep 0.1
	done
	pass "$name"
}

skip() {
	printf 'ok %d - %s # SKIP %s\n' $((++tap_count)) "$1" "$2"
}

skip_kernel() {
	skip "$1" "kernel: $2"
}

skip_all() {
	printf '1..0 # SKIP %s\n' "$1"
	tap_done=1
	exit 77
}

skip_all_kernel() {
	skip_all "kernel: $1"
}

plan() {
	tap_planned=$1
}

done_testing() {
	local want=${tap_planned:-$tap_count}
	printf '1..%d\n' "$want"
	tap_done=1
	if ((want != tap_count)); then
		diag "planned $want assertions, ran $tap_count"
		exit 1
	fi
	exit $((tap_failed > 0))
}

at_exit() {
	tap_cleanups+=("$(printf '%q ' "$@")")
}

tap_at_exit() {
	local rc=$? i
	trap - EXIT
	set +e
	for ((i = ${#tap_cleanups[@]} - 1; i >= 0; i--)); do
		eval "${tap_cleanups[i]}"
	done
	if [[ -z $tap_done ]]; then
		diag "${0##*/} died with status $rc after $tap_count assertions${tap_where:+, near $tap_where}"
		((rc != 0)) || rc=1
	fi
	exit "$rc"
}
set -E
trap 'tap_where="${BASH_SOURCE[0]-}:$LINENO: $BASH_COMMAND"' ERR
trap tap_at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
