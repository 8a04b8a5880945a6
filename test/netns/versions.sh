#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Every version of the CNI specification: the shape of the result, and prevResult in that shape.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

make_pod - a
printf 'nameserver 192.0.2.53\n' >/run/resolv
dual='.ipam = {ranges: [[{subnet: "10.244.1.0/24"}], [{subnet: "fd00:10:244:1::/64"}]], routes: [{dst: "192.0.2.0/24", mtu: 1300}], resolvConf: "/run/resolv"}'

# What each version's result is, for the same attachment of both families.
shape() {
	jq -Sc 'del(.interfaces[]?.mac) | if .interfaces then .interfaces[1].name = "HOST" else . end' <<<"$1"
}
old='{ip4: {ip: "10.244.1.2/24", gateway: "10.244.1.1", routes: [{dst: "192.0.2.0/24"}, {dst: "0.0.0.0/0", gw: "10.244.1.1"}]},
	ip6: {ip: "fd00:10:244:1::2/64", gateway: "fd00:10:244:1::1", routes: [{dst: "::/0", gw: "fd00:10:244:1::1"}]},
	dns: {nameservers: ["192.0.2.53"]}}'
links='[{name: "cni0"}, {name: "HOST"}, {name: "eth0", sandbox: "/run/netns/a"}]'
routes='[{dst: "192.0.2.0/24"}, {dst: "0.0.0.0/0", gw: "10.244.1.1"}, {dst: "::/0", gw: "fd00:10:244:1::1"}]'
ips='[{address: "10.244.1.2/24", gateway: "10.244.1.1", interface: 2}, {address: "fd00:10:244:1::2/64", gateway: "fd00:10:244:1::1", interface: 2}]'
middle="{interfaces: $links, ips: ($ips | .[0].version = \"4\" | .[1].version = \"6\"), routes: $routes, dns: {nameservers: [\"192.0.2.53\"]}}"
new="{interfaces: $links, ips: $ips, routes: $routes, dns: {nameservers: [\"192.0.2.53\"]}}"
newest="$new | .interfaces[].mtu = 1450 | .routes[0].mtu = 1300"
declare -A want=([0.1.0]=$old [0.2.0]=$old [0.3.0]=$middle [0.3.1]=$middle [0.4.0]=$middle [1.0.0]=$new [1.1.0]=$newest)

for version in 0.1.0 0.2.0 0.3.0 0.3.1 0.4.0 1.0.0 1.1.0; do
	remove_all
	conf=$(flat_conf "$dual" ".cniVersion = \"$version\"" '.mtu = 1450')
	cni ADD a ctr eth0 <<<"$conf"
	cni_ok "ADD $version"
	result=$cni_out
	is "$(shape "$result")" "$(jq -Snc "${want[$version]} | .cniVersion = \"$version\"")" "... the result has the shape of $version"
	json "$result" '[.interfaces[]? | .mac | test("^[0-9a-f:]{17}$")] | all' '... each interface has its MAC'
	is "$(pod_exec - a ip -d route show 192.0.2.0/24 | grep -o 'mtu 1300')" 'mtu 1300' '... whatever the version can tell, the route has its MTU'
	case $version in
	0.[123].*)
		cni CHECK a ctr eth0 <<<"$(with_prev "$conf" "$result")"
		cni_fails 1 'does not allow CHECK' "... there is no CHECK in $version"
		;;
	*)
		cni CHECK a ctr eth0 <<<"$(with_prev "$conf" "$result")"
		cni_ok "... CHECK with prevResult in $version"
		cni CHECK a ctr eth0 <<<"$(with_prev "$conf" "$(jq -c 'del(.cniVersion)' <<<"$result")")"
		cni_ok '... and without a cniVersion in prevResult'
		cni CHECK a ctr eth0 <<<"$conf"
		cni_fails 7 'prevResult' '... not without prevResult'
		;;
	esac
	if [[ $version == 1.1.0 ]]; then
		cni STATUS - - - <<<"$conf"
		cni_ok '... STATUS'
		cni GC '' '' '' <<<"$(jq -c '."cni.dev/valid-attachments" = [{containerID: "ctr", ifname: "eth0"}]' <<<"$conf")"
		cni_ok '... GC'
		is "$cni_out" '' '... says nothing'
	else
		for verb in STATUS GC; do
			cni "$verb" - - - <<<"$conf"
			cni_fails 1 "does not allow $verb" "... there is no $verb in $version"
		done
	fi
	json "$(cni DEL a ctr eth0 <<<'{' && echo "$cni_out")" '.code == 6' '... (input that is cut is an error)'
	cni DEL a ctr eth0 <<<"$(with_prev "$conf" "$result")"
	cni_ok "... DEL with prevResult in $version"
	is "$cni_out" '' '... says nothing'
	clean_slate '... and nothing is left'
done

# prevResult of one version in a configuration of another, as after an upgrade of the configuration
remove_all
conf=$(flat_conf "$dual")
cni ADD a ctr eth0 <<<"$(jq -c '.cniVersion = "0.2.0"' <<<"$conf")"
cni DEL a ctr eth0 <<<"$(with_prev "$conf" "$cni_out")"
cni_ok 'DEL with a prevResult of an older version'
clean_slate '... nothing is left'
cni ADD a ctr eth0 <<<"$conf"
cni DEL a ctr eth0 <<<"$(jq -c '.prevResult = {"ips": "nonsense"}' <<<"$conf")"
cni_ok 'DEL with a prevResult that makes no sense'
clean_slate '... nothing is left'
cni ADD a ctr eth0 <<<"$conf"
cni DEL a ctr eth0 <<<"$(jq -c '.prevResult = {cniVersion: "1.1.0", ips: [{address: "10.244.1.77/24"}]}' <<<"$conf")"
cni_ok 'DEL with the prevResult of somebody else'
clean_slate '... nothing is left'

# ---- versions that are none ---------------------------------------------------------------------

before=$(state)
for version in 1.2.0 1.1 v1.1.0 0.0.1 latest ' 1.0.0'; do
	cni ADD a ctr eth0 <<<"$(flat_conf ".cniVersion = \"$version\"")"
	cni_fails 1 'incompatible CNI versions' "cniVersion \"$version\""
	json "$cni_out" '.details | contains("1.1.0")' '... the versions that there are are named'
done
cni ADD a ctr eth0 <<<"$(flat_conf '.cniVersion = 1.1')"
cni_fails 7 '^cniVersion' 'a number is no version'
is "$(state)" "$before" 'nothing is left behind'
cni ADD a ctr eth0 <<<"$(flat_conf 'del(.cniVersion)')"
cni_ok 'no version at all'
json "$cni_out" '.cniVersion == "0.1.0" and (.ip4.ip | test("^10.244.1.[0-9]+/24$"))' '... is 0.1.0'
cni DEL a ctr eth0 <<<"$(flat_conf '.cniVersion = ""')"
cni_ok 'so is the empty one'

# ---- VERSION ------------------------------------------------------------------------------------

all='["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]'
for version in 0.1.0 0.4.0 1.0.0 1.1.0; do
	cni VERSION dummy '' dummy <<<"{\"cniVersion\":\"$version\"}"
	cni_ok "VERSION of $version"
	is "$(jq -Sc . <<<"$cni_out")" "{\"cniVersion\":\"$version\",\"supportedVersions\":$all}" '... echoes the version, and lists all'
done
for input in '' '{' 'nonsense' '[]' '{"cniVersion":"9.9.9"}' '{"cniVersion":5}'; do
	cni VERSION - - - <<<"$input"
	cni_ok "VERSION with '$input' on stdin"
	json "$cni_out" ".supportedVersions == $all" '... lists all versions'
done
cni VERSION - - - </dev/null
cni_ok 'VERSION with an empty stdin'
cni VERSION - - - <&-
cni_ok 'VERSION with a closed stdin'
FLAT_PLUGIN=flatnet-ipam
cni VERSION - - - <<<'{"cniVersion":"1.0.0"}'
is "$(jq -Sc . <<<"$cni_out")" "{\"cniVersion\":\"1.0.0\",\"supportedVersions\":$all}" 'flatnet-ipam answers the same'

done_testing
