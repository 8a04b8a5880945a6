#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# flatnetctl conf check: what is right, what is wrong and where; and that the plugin says the same.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/ctl.sh"

make_node n1 -
on n1 mkdir -p /run/net.d
check() { # LIST-OR-PLUGIN [OPTION...]: a configuration on one line
	on n1 bash -c 'cat >/run/try.conf' <<<"$1"
	ctl_json conf check /run/try.conf "${@:2}"
}
list() { # JQ on a list with one plugin of flatnet
	jq -nc '{cniVersion: "1.0.0", name: "pods", plugins: [{type: "flatnet", ipam: {subnet: "10.244.1.0/24"}}]} | '"$1"
}

# The examples are right, wherever they are meant for.
for file in "$FLAT_ROOT"/conf/*.conflist; do
	ctl_json conf check "$file" --node node-1
	ctl_exits 0 "conf/${file##*/} is right"
	json "$ctl_out" '.problems == [] and all(.plugins[]; .result | startswith("right"))' '... and no problem'
done
ctl_json conf check "$FLAT_ROOT/conf/10-flatnet.conflist"
json "$ctl_out" '.plugins[0] | .result == "right so far" and (.remark | test("subnet of this node is not known"))' \
	'what the agent has not told yet is no fault of the file'
ctl conf check "$FLAT_ROOT/conf/10-flatnet-nodes.conflist"
ctl_exits 1 'a list of nodes without this one'
like "$ctl_out" "none of the 3 entries is this host" '... is wrong here'
ctl conf check "$FLAT_ROOT/conf/flatnetd.json"
ctl_exits 3 "the agent's file"
like "$ctl_err" "is the agent's.*flatnetd --config .*flatnetd.json --check-config" '... is known, and who reads it'

wrong() { # CONFIGURATION WHAT-REGEX NAME
	check "$1"
	ctl_exits 1 "$3"
	ok '... says where, and what to do' problem "$2"
}
check "$(list .)"
ctl_exits 0 'a list'
check "$(list '.plugins += [{type: "portmap", capabilities: {portMappings: true}}]')"
ctl_exits 0 "another vendor's plugin in it"
json "$ctl_out" '.plugins[1] | .type == "portmap" and (.remark | test("another vendor"))' '... is not judged'
check '{"cniVersion": "1.0.0", "name": "pods", "type": "flatnet", "ipam": {"subnet": "10.1.0.0/24"}}'
ctl_exits 0 'a single one'
json "$ctl_out" '.plugins[0].plugin == ""' '... is no list'

wrong '{"cniVersion": "1.0.0",' 'not valid JSON: line 2, column 1|line 1, column' 'what is not JSON'
wrong '[]' 'not a JSON object' 'what is no object'
wrong "$(list 'del(.name)')" 'name: missing' 'a list without a name'
wrong "$(list '.name = "a/b"')" 'name: "a/b" is not a network name' 'a name that is none'
wrong "$(list '.plugins = []')" 'plugins: must be a list of 1 to 64' 'a list of nothing'
wrong "$(list '.plugins[0] = 7')" 'plugins\[0\]: is not an object' 'a plugin that is none'
wrong "$(list 'del(.plugins[0].type)')" 'plugins\[0\]\.type: missing' 'a plugin without a type'
wrong "$(list '.cniVersion = "9.9.9"')" 'plugins\[0\]: incompatible CNI versions' 'a version that is not known'
wrong "$(list '.cniVersion = 1')" 'cniVersion: it is a string' 'a version that is no string'
wrong "$(list '.plugins[0].ipam.subnet = "10.244.1.0/33"')" 'plugins\[0\]: ipam\.subnet: ' 'a subnet that is none'
wrong "$(list '.plugins[0].ipam.rangeEnd = "10.9.0.1"')" 'plugins\[0\]: .*10\.9\.0\.1' 'the end of another range'
wrong "$(list '.plugins[0].mtu = "1500"')" 'plugins\[0\]: mtu: ' 'a number as text'
wrong "$(list '.plugins[0].mtu = 17')" 'plugins\[0\]: mtu: 17 is too small' 'a number that is too small'
wrong "$(list '.plugins[0].bridgeMode = "l3"')" 'bridgeMode: "l3" is neither "routed" nor "l2"' 'a word that is none of two'
wrong "$(list '.plugins[0].ipMask = true')" 'there is no key .ipMask' 'a misspelt key'
json "$ctl_out" '.problems[0].cure | test("ipMasq")' '... and how it is spelt'
wrong "$(list '.plugins[0].ipam.subnett = "10.0.0.0/8"')" 'ipam: there is no key .subnett' 'a misspelt key of ipam'
check "$(list '.plugins[0] += {_remark: "why", capabilities: {portMappings: true}, portMappings: []}')"
ctl_exits 0 'remarks, capabilities and keys of features are known'
check "$(list '.plugins[0].ipam = {type: "host-local", anything: 1}')"
ctl_exits 0 "another IPAM's keys are its own"
check "$(list '.plugins[0] = {type: "bridge", ipam: {type: "flatnet-ipam", subnet: "10.1.0.0/24"}}')"
ctl_exits 0 'flatnet-ipam below another plugin'
check "$(list '.plugins[0] = {type: "flannel", ipam: {type: "flatnet-ipam"}}')"
ctl_exits 0 '... without a range, which that one may put in'
json "$ctl_out" '.plugins[0].remark | test("names no range")' '... as is remarked'

ctl conf check /run/nothing.conf
ctl_exits 3 'a file that is not there'
like "$ctl_err" "'/run/nothing.conf': No such file" '... is named'
on n1 ln -sf /run/try.conf /run/link.conf
on n1 bash -c 'cat >/run/try.conf' <<<"$(list .)"
ctl conf check /run/link.conf
ctl_exits 0 'a link to a file'

# What it takes for right, the plugin takes.
make_pod n1 a
NODE=n1 cni ADD a ctr-a eth0 <<<"$(list '.plugins[0] + {name, cniVersion}')"
cni_ok 'the plugin agrees with what is right'
NODE=n1 cni ADD a ctr-b eth0 <<<"$(list '.plugins[0] + {name, cniVersion, bridgeMode: "l3"}')"
cni_fails 7 'bridgeMode: "l3" is neither' 'and with what is wrong'
done_testing
