#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Routes to other nodes: written when they have to be, left alone when not, and never somebody
# else's.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/cluster.sh"

make_cluster 3
conf=$(cluster_conf)
both=$'10.244.2.0/24 192.0.2.2\n10.244.3.0/24 192.0.2.3'

# cycle CONF: ADD and DEL of a pod on n1, for the sake of the routes
cycle() {
	make_pod n1 x
	NODE=n1 cni ADD x ctr-x eth0 <<<"$1"
	local rc=$cni_rc out=$cni_out err=$cni_err
	NODE=n1 cni DEL x ctr-x eth0 <<<"$1"
	del_pod n1 x
	cni_rc=$rc cni_out=$out cni_err=$err
}

add_pod n1 a "$conf"
added=$cni_out
is "$(our_routes n1)" "$both" 'an ADD brings a route to each other node, of protocol 241'
is "$(on n1 ip route show 10.244.1.0/24 | grep -c 'dev cni0')" 1 'its own subnet is on the bridge'

# watch_routes: what `ip monitor route` says while the function runs. A route of our own marks begin
# and end. The kernel's own IPv6 link-local routes for new links do not count.
watch_routes() {
	local log=$TMPDIR/monitor i
	nsenter -t "${node_pid[n1]}" -n -- timeout 20 ip monitor route >"$log" &
	local pid=$!
	for ((i = 0; i < 100; i++)); do
		on n1 ip route replace 203.0.113.0/24 dev lo
		! grep -q 203.0.113.0/24 "$log" || break
		sleep 0.05
	done
	"$@"
	on n1 ip route add 203.0.114.0/24 dev lo
	for ((i = 0; i < 100; i++)); do
		! grep -q 203.0.114.0/24 "$log" || break
		sleep 0.05
	done
	kill "$pid" 2>/dev/null || :
	wait "$pid" 2>/dev/null || :
	on n1 ip route del 203.0.113.0/24
	on n1 ip route del 203.0.114.0/24
	grep -q 203.0.114.0/24 "$log" || echo 'the monitor has not seen the end'
	grep -v -e '203\.0\.11[34]\.' -e ' fe80:' -e '^fe80:' -e 'ff00::/8' "$log" || :
}
is "$(watch_routes cycle "$conf")" '' 'nothing is written when nothing has changed'
is "$(watch_routes on n1 ip route del 10.244.2.0/24 | grep -c Deleted)" 1 '(the monitor can tell)'
like "$(watch_routes cycle "$conf")" '^10\.244\.2\.0/24 via 192\.0\.2\.2 [^
]*$' 'only the missing one is written'

on n1 ip route replace 10.244.3.0/24 via 192.0.2.2 proto 241
with_prev=$(with_prev "$conf" "$added")
NODE=n1 cni CHECK a ctr-a eth0 <<<"$with_prev"
cni_fails 103 "route to node 'n3'.*another gateway" 'CHECK sees a wrong gateway'
cycle "$conf"
is "$(our_routes n1)" "$both" 'a wrong gateway is corrected'
NODE=n1 cni CHECK a ctr-a eth0 <<<"$with_prev"
cni_ok '... and CHECK is content'
on n1 ip route del 10.244.3.0/24
NODE=n1 cni CHECK a ctr-a eth0 <<<"$with_prev"
cni_fails 103 "route to node 'n3'.*missing" 'CHECK sees a missing route'
is "$(our_routes n1)" '10.244.2.0/24 192.0.2.2' '... and writes none'
cycle "$conf"

# A node moves, one leaves, one comes.
cycle "$(cluster_conf '.nodes[2].address = "192.0.2.33"')"
is "$(our_routes n1)" $'10.244.2.0/24 192.0.2.2\n10.244.3.0/24 192.0.2.33' "a node's new address is followed"
cycle "$(cluster_conf 'del(.nodes[2])')"
is "$(our_routes n1)" '10.244.2.0/24 192.0.2.2' 'the route to a node that left the list is removed'
cycle "$(cluster_conf '.nodes += [{name: "n4", address: "192.0.2.4", podCIDRs: ["10.244.4.0/24", "10.244.5.0/24"]}]')"
is "$(our_routes n1)" "$both"$'\n10.244.4.0/24 192.0.2.4\n10.244.5.0/24 192.0.2.4' 'a node may have several subnets'
cycle "$conf"
is "$(our_routes n1)" "$both" 'all of them go with it'

# What is not ours.
on n1 ip route add 10.244.77.0/24 via 192.0.2.2
on n1 ip route add 10.99.0.0/24 via 192.0.2.2 proto 241
cycle "$conf"
ok "a foreign route into the cluster's network is left alone" \
	grep -q '10.244.77.0/24' <<<"$(on n1 ip route show)"
ok 'a route of ours into another network, too' grep -q '10.99.0.0/24' <<<"$(on n1 ip route show)"
on n1 ip route del 10.244.77.0/24
on n1 ip route del 10.99.0.0/24

on n1 ip route del 10.244.2.0/24
on n1 ip route add 10.244.2.0/24 via 192.0.2.2 proto static
cycle "$conf"
cni_ok "a foreign route that leads to the node's address will do"
is "$(on n1 ip -j route show 10.244.2.0/24 | jq -r '.[].protocol')" static '... and stays what it is'
on n1 ip route replace 10.244.2.0/24 via 192.0.2.3 proto static
cycle "$conf"
cni_fails 100 "route to node 'n2' \(10\.244\.2\.0/24 via 192\.0\.2\.2\).*another program's route" \
	'one that leads elsewhere is an error that names node and cure'
is "$(on n1 ip -j route show 10.244.2.0/24 | jq -r '.[].gateway')" 192.0.2.3 '... and stays, too'
is "$(on n1 ip -br link show master cni0 | wc -l)" 1 '... and nothing is left of the pod'
on n1 ip route del 10.244.2.0/24
cycle "$conf"
is "$(our_routes n1)" "$both" '... and without it all is well again'

# An address that no network of this host has: direct routes need one.
off=$(cluster_conf '.nodes[2].address = "198.51.100.3"')
for router in '' 'with a default route'; do
	[[ -z $router ]] || on n1 ip route add default via 192.0.2.100
	cycle "$off"
	cni_fails 11 "n3.*198\.51\.100\.3|10\.244\.3\.0/24.*198\.51\.100\.3" \
		"an address off the links is an error that names it${router:+ ($router)}"
	like "$cni_out" "address must be on a network of this host" '... and says what is needed'
	like "$cni_out" "node 'n3'" '... and names the node'
	is "$(on n1 ip -br link show master cni0 | wc -l)" 1 '... and nothing is left of the pod'
done
on n1 ip route del default

# A node without any pod: a failed ADD takes its own routes back, and those of others stay.
make_pod n2 y
NODE=n2 cni ADD y ctr-y eth0 <<<"$off"
cni_fails 11 '198\.51\.100\.3' 'an ADD that fails at the routes, on a fresh node'
is "$(our_routes n2)" '' '... leaves no route'
is "$(on n2 ip -br link | grep -c -e cni0 -e veth)" 0 '... and no link'
on n2 ip route add 10.244.1.0/24 via 192.0.2.1 proto 241
NODE=n2 cni ADD y ctr-y eth0 <<<"$off"
is "$(our_routes n2)" '10.244.1.0/24 192.0.2.1' '... and a route that was there before stays'

# Racing ADDs agree.
for ((i = 1; i <= 8; i++)); do
	make_pod n3 "r$i"
done
race() {
	local i pids=()
	for ((i = 1; i <= 8; i++)); do
		(
			NODE=n3 cni ADD "r$i" "ctr-r$i" eth0 <<<"$conf"
			((cni_rc == 0)) || { echo "r$i: $cni_out" >&2; exit 1; }
		) &
		pids+=($!)
	done
	local pid rc=0
	for pid in "${pids[@]}"; do
		wait "$pid" || rc=1
	done
	return "$rc"
}
ok 'eight ADDs at once on a fresh node succeed' race
is "$(our_routes n3)" $'10.244.1.0/24 192.0.2.1\n10.244.2.0/24 192.0.2.2' '... with each route once'

# Many nodes.
many=$(cluster_conf '.nodes += [range(10; 250) | tostring | {name: "m\(.)", address: "192.0.2.\(.)", podCIDRs: ["10.244.\(.).0/24"]}]')
cycle "$many"
cni_ok 'a list of 243 nodes is taken'
is "$(our_routes n1 | wc -l)" 242 '... with a route to each of the others'
is "$(watch_routes cycle "$many")" '' '... written once'
cycle "$conf"
is "$(our_routes n1)" "$both" '... and gone with them'

# DEL of the last pod leaves the routes: the next ADD needs them.
remove_pod n1 a "$conf"
is "$(our_routes n1)" "$both" 'routes outlive the last pod'

done_testing
