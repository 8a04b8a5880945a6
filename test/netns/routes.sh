#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Attributes of a pod's routes: in the kernel, in the result, and in what CHECK compares.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

make_pod - a

routed=$(flat_conf '.ipam = {ranges: [[{subnet: "10.244.1.0/24"}], [{subnet: "fd00:10:244:1::/64"}]], routes: [
	{dst: "0.0.0.0/0"}, {dst: "198.51.100.0/24", mtu: 1300, advmss: 1200, priority: 50},
	{dst: "198.51.100.0/24", priority: 60}, {dst: "203.0.113.0/24", table: 1000, mtu: 1250},
	{dst: "192.0.2.7/32", scope: 253}, {dst: "127.9.0.0/16", scope: 254},
	{dst: "2001:db8:7::/48", mtu: 1290, advmss: 1220, priority: 70, table: 77}]}')
cni ADD a ctr-a eth0 <<<"$routed"
cni_ok 'ADD with attributes of routes'
result=$cni_out
# routes FAMILY ARG...: what ip-route(8) says, without what every route has
routes() {
	pod_exec - a ip "$@" | sed 's/ *$//; s/ proto boot//; s/ pref medium//; s/ dev eth0//' | sort
}
is "$(routes -4 route show table all | grep -E '^(198|203|192|127.9)')" "$(sort <<-END
	198.51.100.0/24 via 10.244.1.1 metric 50 mtu 1300 advmss 1200
	198.51.100.0/24 via 10.244.1.1 metric 60
	203.0.113.0/24 via 10.244.1.1 table 1000 mtu 1250
	192.0.2.7 scope link
	127.9.0.0/16 scope host
END
)" 'mtu, advmss, priority, table and scope are in the kernel'
is "$(routes -6 route show table 77)" '2001:db8:7::/48 via fd00:10:244:1::1 metric 70 mtu 1290 advmss 1220' '... of IPv6, too'
is "$(jq -c '[.routes[] | select(.dst | test("^(198|203|192|127.9|2001)")) | del(.dst)]' <<<"$result")" \
	'[{"mtu":1300,"advmss":1200,"priority":50},{"priority":60},{"mtu":1250,"table":1000},{"scope":253},{"scope":254},{"mtu":1290,"advmss":1220,"priority":70,"table":77}]' \
	'... and in the result'
with=$(with_prev "$routed" "$result")
check() {
	cni CHECK a ctr-a eth0 <<<"$with"
}
check
cni_ok 'CHECK agrees'
# misses REGEX NAME BREAK MEND
misses() {
	pod_exec - a bash -c "$3"
	check
	cni_fails 103 "$1" "CHECK: $2"
	pod_exec - a bash -c "$4"
	check
	cni_ok '... and all is well when it is mended'
}
change() { # ROUTE WRONG RIGHT REGEX
	misses "$4" "$1 $2" "ip route change $1 $2" "ip route change $1 $3"
}
change '198.51.100.0/24 via 10.244.1.1' 'metric 50 mtu 1301 advmss 1200' 'metric 50 mtu 1300 advmss 1200' '198.51.100.0/24 .*mtu 1300.*is another'
change '198.51.100.0/24 via 10.244.1.1' 'metric 50 mtu 1300' 'metric 50 mtu 1300 advmss 1200' 'advmss 1200.*is another'
change '203.0.113.0/24 via 10.244.1.1 table 1000' 'mtu 1251' 'mtu 1250' 'table 1000.*is another'
misses '198.51.100.0/24 .*metric 60.*is another' 'the metric' 'ip route del 198.51.100.0/24 metric 60' \
	'ip route add 198.51.100.0/24 via 10.244.1.1 metric 60'
misses '203.0.113.0/24 .*table 1000.*is missing' 'the table' \
	'ip route del 203.0.113.0/24 table 1000; ip route add 203.0.113.0/24 via 10.244.1.1 mtu 1250' \
	'ip route add 203.0.113.0/24 via 10.244.1.1 mtu 1250 table 1000; ip route del 203.0.113.0/24 table main'
misses '127.9.0.0/16 .*scope 254' 'the scope' 'ip route del 127.9.0.0/16; ip route add 127.9.0.0/16 dev eth0 scope link' \
	'ip route del 127.9.0.0/16; ip route add 127.9.0.0/16 dev eth0 scope host'
misses '2001:db8:7::/48 .*mtu 1290' 'of IPv6' 'ip -6 route change 2001:db8:7::/48 via fd00:10:244:1::1 table 77 metric 70 mtu 1291 advmss 1220' \
	'ip -6 route change 2001:db8:7::/48 via fd00:10:244:1::1 table 77 metric 70 mtu 1290 advmss 1220'
cni DEL a ctr-a eth0 <<<"$routed"
cni_ok DEL
done_testing
