#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# CHECK misses nothing; STATUS tells what would keep an ADD from succeeding.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

# add POD: ADD with $conf as container ctr-POD; del likewise
add() {
	cni ADD "$1" "ctr-$1" eth0 <<<"$conf"
}
del() {
	cni DEL "$1" "ctr-$1" eth0 <<<"$conf"
}
make_pod - a

# ---- CHECK misses nothing -----------------------------------------------------------------------

conf=$(flat_conf '.ipMasq = true' '.mtu = 1450' '.ipam.routes = [{dst: "192.0.2.0/24"}]')
add a
result=$cni_out
host=$(veth_of ctr-a)
with=$(with_prev "$conf" "$result")
check() {
	cni CHECK a ctr-a eth0 <<<"$with"
}
in_pod() {
	pod_exec - a "$@"
}
# misses REGEX NAME BREAK MEND: CHECK finds what BREAK did and is content after MEND
misses() {
	eval "$3"
	local before
	before=$(state)
	check
	cni_fails 103 "$1" "CHECK: $2"
	is "$(state)" "$before" '... and changes nothing'
	eval "$4"
	check
	cni_ok '... and all is well when it is mended'
}
check
cni_ok 'CHECK right after ADD'
file=$store/pods/$(pod_ip - a)
misses '10\.244\.1\.2.*missing' 'the reservation is gone' "mv $file /run/saved" "mv /run/saved $file"
misses '10\.244\.1\.2.*ctr-b' 'the reservation is another container'\''s' "cp $file /run/saved; printf 'ctr-b\r\neth0\n' >$file" "cat /run/saved >$file"
misses '10\.244\.1\.2.*(empty|unreadable)' 'the reservation is empty' "cp $file /run/saved; : >$file" "cat /run/saved >$file"
misses "$host.*down" 'the host end is down' "ip link set $host down" "ip link set $host up; sleep 0.1"
misses 'cni0.*down' 'the bridge is down' 'ip link set cni0 down' 'ip link set cni0 up; sleep 0.1'
misses "$host.*not a port" 'the host end left the bridge' "ip link set $host nomaster" "ip link set $host master cni0; bridge link set dev $host hairpin on; sleep 0.1"
misses "$host.*MTU 1400, not 1450" 'the MTU of the host end' "ip link set $host mtu 1400" "ip link set $host mtu 1450"
misses 'eth0.*MTU 1500, more than 1450' 'a larger MTU in the pod' 'in_pod ip link set eth0 mtu 1500' 'in_pod ip link set eth0 mtu 1450'
misses 'eth0.*MAC 02:00:00:00:00:09' 'the MAC in the pod' 'in_pod ip link set eth0 address 02:00:00:00:00:09' 'in_pod ip link set eth0 address 0a:58:0a:f4:01:02'
misses "$host.*hairpin off" 'hairpin' "bridge link set dev $host hairpin off" "bridge link set dev $host hairpin on"
misses "$host.*isolated on" 'isolation' "bridge link set dev $host isolated on" "bridge link set dev $host isolated off"
misses 'cni0.*10\.244\.1\.1/24' 'the address of the bridge' 'ip address del 10.244.1.1/24 dev cni0' 'ip address add 10.244.1.1/24 dev cni0'
misses 'eth0.*10\.244\.1\.2/24' 'the address in the pod' 'in_pod ip address add 10.244.1.99/32 dev eth0; in_pod ip address del 10.244.1.2/24 dev eth0' \
	'in_pod ip address add 10.244.1.2/24 dev eth0 noprefixroute; in_pod ip address del 10.244.1.99/32 dev eth0'
misses 'route to 192\.0\.2\.0/24' 'a route' 'in_pod ip route del 192.0.2.0/24' 'in_pod ip route add 192.0.2.0/24 via 10.244.1.1'
misses 'route to 0\.0\.0\.0/0' 'the default route' 'in_pod ip route del default' 'in_pod ip route add default via 10.244.1.1'
misses 'route to 10\.244\.1\.0/24' 'the way to the neighbours' 'in_pod ip route del 10.244.1.0/24' 'in_pod ip route add 10.244.1.0/24 via 10.244.1.1'
nft list ruleset >/run/rules
misses 'nf_tables' 'a rule' "nft delete rule inet flatnet postrouting handle $(nft -a list chain inet flatnet postrouting | sed -n 's/.*masquerade.*handle //p')" 'nft flush ruleset; nft -f /run/rules'
misses 'nf_tables' 'all rules' 'nft flush ruleset' 'nft -f /run/rules'
misses 'ip_forward' 'ip_forward' 'echo 0 >/proc/sys/net/ipv4/ip_forward' 'echo 1 >/proc/sys/net/ipv4/ip_forward'
misses 'eth0.*missing' 'the interface got another name' 'in_pod ip link set eth0 down; in_pod ip link set eth0 name eth7; in_pod ip link set eth7 up; sleep 0.1' \
	'in_pod ip link set eth7 down; in_pod ip link set eth7 name eth0; in_pod ip link set eth0 up; in_pod ip route add 10.244.1.1 dev eth0; in_pod ip route add 10.244.1.0/24 via 10.244.1.1; in_pod ip route add 192.0.2.0/24 via 10.244.1.1; in_pod ip route add default via 10.244.1.1; sleep 0.1'
in_pod ip address add 198.51.100.5/24 dev eth0
in_pod ip route add 203.0.113.0/24 via 10.244.1.1
check
cni_ok 'CHECK: what another plugin added is no difference'
in_pod ip link set eth0 mtu 1400
check
cni_ok '... nor is a smaller MTU, which tuning sets without a word'
in_pod ip link set eth0 mtu 1450
for dst in default 10.244.1.0/24 192.0.2.0/24; do
	in_pod ip route del $dst
	in_pod ip route add $dst via 10.244.1.1 table 100
done
check
cni_ok '... nor are routes in another table, where sbr puts them'
in_pod ip route del default table 100
check
cni_fails 103 'route to 0\.0\.0\.0/0' '... but one that is in none'
cni CHECK a ctr-a eth0 <<<"$(with_prev "$conf" "$(jq 'del(.routes[] | select(.dst == "0.0.0.0/0"))' <<<"$result")")"
cni_ok '... unless prevResult has none: multus takes it away'
cni CHECK a ctr-a eth0 <<<"$(with_prev "$conf" "$(jq '.interfaces[2].sandbox = "/run/netns/b"' <<<"$result")")"
cni_fails 103 '/run/netns/b' 'CHECK: prevResult of another namespace'
cni CHECK missing ctr-a eth0 <<<"$(with_prev "$conf" "$(jq '.interfaces[2].sandbox = "/run/netns/missing"' <<<"$result")")"
cni_fails 8 missing 'CHECK: the namespace is gone'
ip link del "$host"
check
cni_fails 103 "$host.*missing" 'CHECK: the veth is gone'
del a
remove_all

# ---- STATUS -------------------------------------------------------------------------------------

status() {
	cni STATUS - - - <<<"$(flat_conf "$@")"
}
status
cni_ok 'STATUS of a node as new'
is "$cni_out$(find /run/flatnet -mindepth 1 2>/dev/null)" '' '... says nothing and makes nothing'
status 'del(.ipam)'
cni_fails 50 'subnet.*not known' 'STATUS: no subnet is known'
status '.ipam.subnet = "10.244.1.5/24"'
cni_fails 7 'host bits' 'STATUS: a wrong subnet'
mkdir -p /run/ro
mount -t tmpfs -o ro tmpfs /run/ro
status '.ipam.dataDir = "/run/ro/ipam"'
cni_fails 50 '/run/ro' 'STATUS: a store that cannot be written'
umount /run/ro
: >/run/file
status '.ipam.dataDir = "/run/file/ipam"'
cni_fails 50 '/run/file' 'STATUS: a store below a file'
status '.ipam.dataDir = "relative"'
cni_fails 7 'dataDir' 'STATUS: a store that is no path'
ip link add cni0 type veth peer name other0
status
cni_fails 50 'cni0.*not a bridge' 'STATUS: the name of the bridge is taken'
ip link del cni0
status '.ipam = {type: "missing"}'
cni_fails 50 'missing' 'STATUS: the IPAM is not installed'
conf=$(flat_conf '.ipam.subnet = "10.244.1.0/30"')
add a
cni STATUS - - - <<<"$conf"
cni_fails 50 '10\.244\.1\.2' 'STATUS: no address is left'
del a
cni STATUS - - - <<<"$conf"
cni_ok 'STATUS: it is back'
remove_all

done_testing
