#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The main job says what it promises, leaves nothing behind, and --keep and --remove work.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"

demo=${0%/*}/../demo
holders() {
	pgrep -fc "^flatnet-hold " || :
}

ok 'the demo succeeds' timeout 200 "$demo"
out=$(timeout 200 "$demo" --keep 2>&1) || :
like "$out" '30 of 30 pairs reach each other' 'all pairs reach each other'
like "$out" '30 of 30 pairs see the true address' 'with their own addresses'
like "$out" '10\.244\.3\.3 ' 'the second pod of the third node'
like "$out" ' 1450 ' 'the MTU is as configured'
like "$out" '0a:58:0a:f4:01:02' 'the MAC is derived from the address'
isnt "$(holders)" 0 '--keep keeps the nodes'
command=$(sed -n 's/^ *sudo \(nsenter .* ping .*\)/\1/p' <<<"$out")
# The words are the demo's own.
# shellcheck disable=SC2086
ok 'the commands that it prints work' timeout 20 $command
fails 'it does not start over itself' timeout 60 "$demo"
ok '--remove removes it' timeout 60 "$demo" --remove
is "$(holders)" 0 'no process is left'
fails 'and no folder' test -e /run/flatnet-demo

timeout 200 "$demo" >/dev/null 2>&1 &
pid=$!
sleep 1.5
kill -TERM "$pid"
fails 'it can be interrupted' wait "$pid"
eventually 5 'and leaves no process' bash -c '! pgrep -f "^flatnet-hold "'
done_testing
