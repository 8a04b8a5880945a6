#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# This node's own subnet, after clusterCIDR has been changed: neither what is remembered nor what the
# source tells is used when it lies outside.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"
. "${0%/*}/../lib/agent.sh"

make_cluster 1
list=$(node_list 4 | jq -c '.[:1]')
tell_nodes "$list" n1
start_agent n1 "$(agent_conf n1)"
ok 'a node with a subnet in the flat network is ready' wait_for 3 says n1 'this node is ready'
saved() {
	on n1 grep -q 10.244.1.0 /run/state/state.json
}
ok 'its subnet is remembered' wait_for 5 saved
stop_agent n1
on n1 rm /run/nodes.json
start_agent n1 "$(agent_conf n1 '.clusterCIDR = "10.99.0.0/16"')"
sleep 0.5
unlike "$(agent_log n1)" 'this node is ready' 'what is remembered, and lies outside, is not used'
tell_nodes "$list" n1
ok 'what the source tells is refused, by name' \
	wait_for 3 says n1 '10\.244\.1\.0/24 is not inside clusterCIDR'
unlike "$(agent_log n1)" 'this node is ready' '... and the node is not ready'
stop_agent n1
done_testing
