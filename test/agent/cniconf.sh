#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The CNI configuration is there when, and only when, ADD can work; who reads it finds it whole.
# shellcheck disable=SC2016 # what eval gets is for it to expand
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/agent.sh"

make_cluster 1
list=$(node_list 4)
file=/run/cni/10-flatnet.conflist
named=".cni.confFile = \"$file\""
there() {
	on n1 test -e "$file"
}
template() { # NAME PADDING: a whole configuration, of some size
	jq -nc --arg name "$1" --argjson n "$2" '{cniVersion: "1.0.0", name: $name, plugins: [
		{type: "flatnet", ipMasq: true, _remark: ("x" * $n)}], end: "end"}'
}
install_template() {
	on n1 bash -c 'cat >/run/template.new && mv /run/template.new /run/template' <<<"$1"
}

# Not before.
start_agent n1 "$(agent_conf n1 "$named")"
sleep 0.3
fails 'before the node is known there is no configuration' there
tell_nodes "$(jq -c '.[0].podCIDRs = []' <<<"$list")" n1
sleep 0.3
fails '... nor before it has a subnet' there
tell_nodes "$list" n1
ok 'with the subnet it is' wait_for 2 there
ok '... and what it leads to was there before' on n1 test /run/flatnet/node.json -ot "$file"
json "$(on n1 cat "$file")" '.name == "pods" and .plugins[0].type == "flatnet"' '... a list with flatnet'

# It works as it is.
conf=$(on n1 jq -c '. as $list | .plugins[0] + {name: $list.name, cniVersion: $list.cniVersion}' "$file")
make_pod n1 a
NODE=n1 cni ADD a ctr-a eth0 <<<"$conf"
cni_ok 'a pod is added by it'

# Not without need, nor halves.
before=$(on n1 stat -c %i "$file")
tell_nodes "$(jq -c '. + [{name: "n9", address: "192.0.2.9", podCIDRs: "10.244.9.0/24"}]' <<<"$list")" n1
wait_for 2 says n1 'node accepted.*n9'
is "$(on n1 stat -c %i "$file")" "$before" 'what is the same is not written again'
on n1 bash -c 'echo {} >"$0"' "$file"
tell_nodes "$list" n1
ok 'what somebody changed is written again' wait_for 2 eval '[[ $(on n1 jq -r .name "$file") == pods ]]'

# A node that is not ready any more: DEL needs the configuration, STATUS tells.
tell_nodes '[{"name": "n9", "address": "192.0.2.9", "podCIDRs": "10.244.9.0/24"}]' n1
ok 'the node vanishes from the list: it is not ready' wait_for 2 says n1 'this node is not ready'
ok '... the configuration stays, for DEL' there
tell_nodes "$list" n1
stop_agent n1
ok '... as it does when the agent stops' there

# Another one that runtimes would take.
on n1 bash -c 'echo {} >/run/cni/05-other.conflist'
start_agent n1 "$(agent_conf n1 "$named")"
ok 'one that comes before it by name is warned of' wait_for 2 says n1 "level=warn.*05-other\.conflist.*remove or rename it"
on n1 rm /run/cni/05-other.conflist
stop_agent n1

# A reboot: the disk has the configuration of before, the kernel has nothing.
NODE=n1 cni DEL a ctr-a eth0 <<<"$conf"
on n1 rm -rf /run/flatnet /run/state /run/nodes.json
start_agent n1 "$(agent_conf n1 "$named")"
ok 'after a reboot, an old configuration is taken away' wait_for 1 eval '! there'
ok '... and said' says n1 'earlier boot taken away'
tell_nodes "$list" n1
ok '... until the node is ready' wait_for 2 there
stop_agent n1
on n1 rm -rf /run/flatnet
start_agent n1 "$(agent_conf n1 "$named")"
ok 'where the last known state makes it ready, it is not' wait_for 2 says n1 'this node is ready'
unlike "$(agent_log n1)" 'taken away' '... taken away'
stop_agent n1

# A template, changed as it is read: nobody sees less than one of the two.
# shellcheck disable=SC2034
one=$(template one 20000) two=$(template two 50000)
install_template "$one"
start_agent n1 "$(agent_conf n1 "$named" '.cni.confTemplate = "/run/template"')"
ok 'a template is written as it is' wait_for 2 eval '[[ $(on n1 cat "$file") == "$one" ]]'
# shellcheck disable=SC2154
nsenter -t "${node_pid[n1]}" -m -n -- python3 - "$file" /run/reads /run/enough >"$TMPDIR/read" <<'PYTHON' 2>&1 &
import json, os, sys, time
seen, end = set(), time.monotonic() + 60
while time.monotonic() < end and not os.path.exists(sys.argv[3]):
	with open(sys.argv[1]) as f:
		seen.add(json.load(f)["name"])
	open(sys.argv[2], "w").close()
print(*sorted(seen))
PYTHON
reader=$!
wait_for 10 on n1 test -e /run/reads
for name in two one two one two; do
	install_template "${!name}"
	kill -HUP "${agent_pid[n1]}"
	wait_for 5 eval '[[ $(on n1 jq -r .name "$file") == "$name" ]]'
done
on n1 touch /run/enough
wait "$reader" || :
is "$(<"$TMPDIR/read")" 'one two' 'who reads all the time finds one or the other, whole'
is "$(on n1 ls -A /run/cni)" 10-flatnet.conflist 'no temporary file is left'
done_testing
