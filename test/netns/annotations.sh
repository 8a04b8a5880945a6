#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What a pod asks for by its annotations, where it may; and what else runtimes send as capabilities.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

make_pod - a
make_pod - b
base=$(flat_conf '.allowPodAnnotations = ["ip", "mac"]' \
	'.ipam = {ranges: [[{subnet: "10.244.1.0/24"}], [{subnet: "fd00:10:244:1::/64"}]]}')
# asks ANNOTATIONS [JQ]: the configuration with these annotations, among others
asks() {
	jq -c --argjson a "$1" '.runtimeConfig["io.kubernetes.cri.pod-annotations"] =
		({"example.com/other": "cni.flatnet/ip", "kubernetes.io/config.seen": "today"} + $a) | '"${2:-.}" <<<"$base"
}
add() {
	cni ADD a ctr-a eth0 <<<"$1"
}
del() {
	cni DEL a ctr-a eth0 <<<"$base"
}
ip='{"cni.flatnet/ip": "10.244.1.77"}'
both='{"cni.flatnet/ip": "10.244.1.77,fd00:10:244:1::77", "cni.flatnet/mac": "02:00:00:00:00:77"}'

# ---- what is given -----------------------------------------------------------------------------------------

add "$(asks "$both")"
cni_ok 'ADD with annotations'
result=$cni_out
is "$(pod_ip - a) $(pod_ip6 - a) $(pod_mac - a)" '10.244.1.77 fd00:10:244:1::77 02:00:00:00:00:77' 'addresses and MAC are the pod'\''s choice'
is "$(reservations | xargs)" '10.244.1.77 fd00:10:244:1::77' '... and reserved'
is "$(jq -r '[.interfaces[2].mac, .ips[].address] | join(" ")' <<<"$result")" '02:00:00:00:00:77 10.244.1.77/24 fd00:10:244:1::77/64' \
	'... and in the result'
ok 'the pod reaches its gateway' can_ping - a 10.244.1.1
cni CHECK a ctr-a eth0 <<<"$(with_prev "$(asks "$both")" "$result")"
cni_ok 'CHECK agrees'
bare=$(state)
cni ADD b ctr-b eth0 <<<"$(asks "$ip")"
cni_fails 102 "10.244.1.77.*ctr-a" 'an address that is taken: whose it is'
is "$(state)" "$bare" '... and nothing is left behind'
del
cni_ok DEL
is "$(reservations)" '' 'the addresses are free again'
add "$(asks "$ip")"
is "$(pod_ip - a)" 10.244.1.77 'one of two families'
like "$(pod_ip6 - a)" '^fd00:10:244:1::' '... the other is given as always'
del

# ---- who goes before -----------------------------------------------------------------------------------------

add "$(asks "$both" '.runtimeConfig += {ips: ["10.244.1.88"], mac: "02:00:00:00:00:88"}')"
is "$(pod_ip - a) $(pod_ip6 - a) $(pod_mac - a)" '10.244.1.88 fd00:10:244:1::77 02:00:00:00:00:88' 'runtimeConfig goes before, family by family'
del
add "$(asks "$both" '.args.cni = {ips: ["10.244.1.88"], mac: "02:00:00:00:00:88"}')"
is "$(pod_ip - a) $(pod_mac - a)" '10.244.1.88 02:00:00:00:00:88' '... args.cni, too'
del
CNI_ARGS='IP=10.244.1.88;MAC=02:00:00:00:00:88' add "$(asks "$both")"
is "$(pod_ip - a) $(pod_mac - a)" '10.244.1.88 02:00:00:00:00:88' '... and CNI_ARGS'
del
add "$(asks "$both" '.mac = "02:00:00:00:00:99"')"
is "$(pod_mac - a)" 02:00:00:00:00:77 'the configuration'\''s "mac" does not'
del

# ---- what does not count ---------------------------------------------------------------------------------------

add "$(asks "$both" 'del(.allowPodAnnotations)')"
cni_ok 'ADD where nothing is allowed'
isnt "$(pod_ip - a)" 10.244.1.77 '... gives what it gives'
isnt "$(pod_mac - a)" 02:00:00:00:00:77 '... and the MAC of that'
del
add "$(asks "$both" '.allowPodAnnotations = ["ip", "bandwidth"]')"
is "$(pod_ip - a) $(pod_mac - a)" '10.244.1.77 0a:58:0a:f4:01:4d' 'only what is allowed'
del
add "$(asks '{"cni.flatnet/ip": "nonsense"}' 'del(.allowPodAnnotations)')"
cni_ok 'nonsense is not looked at where nothing is allowed'
del

# ---- what is refused -------------------------------------------------------------------------------------------

bare=$(state)
refused() { # CODE REGEX NAME CONF
	add "$4"
	cni_fails "$1" "$2" "$3"
	is "$(state)" "$bare" '... and nothing is left behind'
}
path='runtimeConfig\.io\.kubernetes\.cri\.pod-annotations\["cni\.flatnet/'
refused 7 "${path}ip\"\\].*10\\.9\\.9\\.9.*10\\.244\\.1\\." 'an address of another node' "$(asks '{"cni.flatnet/ip": "10.9.9.9"}')"
refused 7 "${path}ip\"\\].*\"ten\"" 'no address' "$(asks '{"cni.flatnet/ip": "ten"}')"
refused 7 '10.244.1.78' 'two of one range' "$(asks '{"cni.flatnet/ip": "10.244.1.77,10.244.1.78"}')"
refused 7 "${path}mac\"\\].*\"ten\"" 'no MAC' "$(asks '{"cni.flatnet/mac": "ten"}')"
refused 7 "${path}mac\"\\].*multicast" 'a MAC of many' "$(asks '{"cni.flatnet/mac": "01:00:5e:00:00:01"}')"
refused 7 'allowPodAnnotations\[0\].*"all".*"ip", "mac" or "bandwidth"' 'what cannot be allowed' "$(asks "$ip" '.allowPodAnnotations = ["all"]')"
refused 2 "${path}ip\"\\].*10.244.1.77" 'an address where another IPAM gives them' "$(asks "$ip" '.ipam = {type: "static"}')"
refused 2 "${path}ip\"\\]" 'an address where there are none' "$(asks "$ip" '.ipam = {}  | .ipam.type = ""')"

# ---- other capabilities ------------------------------------------------------------------------------------------

dns() { # JQ: what the result says of dns
	add "$(jq -c "$1" <<<"$base")"
	jq -c .dns <<<"$cni_out"
	del
}
printf 'nameserver 192.0.2.1\nsearch ipam.example\n' >/run/resolv
is "$(dns '.ipam.resolvConf = "/run/resolv"')" '{"nameservers":["192.0.2.1"],"search":["ipam.example"]}' 'ipam.resolvConf'
is "$(dns '.ipam.resolvConf = "/run/resolv" | .dns = {domain: "conf.example"}')" '{"domain":"conf.example"}' 'dns goes before it'
is "$(dns '.ipam.resolvConf = "/run/resolv" | .dns = {domain: "conf.example"} |
	.runtimeConfig.dns = {Servers: ["192.0.2.2"], Searches: ["pod.example"], Options: ["ndots:5"]}')" \
	'{"nameservers":["192.0.2.2"],"search":["pod.example"],"options":["ndots:5"]}' 'runtimeConfig.dns goes before that, as containerd writes it'
is "$(dns '.dns = {domain: "conf.example"} | .runtimeConfig.dns = {Servers: null, Searches: [], Options: []}')" '{"domain":"conf.example"}' \
	'... unless it says nothing'
add "$(jq -c '.runtimeConfig.dns = {servers: "192.0.2.2"}' <<<"$base")"
cni_fails 7 'runtimeConfig.dns.servers' '... or says it wrong'
for aliases in '["web", "db"]' '{"pods": ["web"]}' null; do
	add "$(jq -c --argjson aliases "$aliases" '.runtimeConfig += {aliases: $aliases, cgroupPath: "/kubepods/a"}' <<<"$base")"
	cni_ok "aliases as $aliases and cgroupPath are accepted"
	del
done
done_testing
