#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Tuning: sysctls of the pod's namespace, and the settings of its interface; what may be set, what
# CHECK sees, and what is left of it.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

make_pod - a
make_pod - b
base=$(flat_conf)
# conf JQ...: the configuration with these changes
conf() {
	local filter text=$base
	for filter; do
		text=$(jq -c "$filter" <<<"$text")
	done
	printf '%s' "$text"
}
add() {
	cni ADD a ctr-a eth0 <<<"$(conf "$@")"
}
del() {
	cni DEL a ctr-a eth0 <<<"$base"
}

# ---- what is set ------------------------------------------------------------------------------------------

before=$(pod_sysctl a net/core/somaxconn)
node=$(sysctl_of net/core/somaxconn)
isnt "$before" 300 'the value is another one before'
tuned='.sysctl = {
	"net.core.somaxconn": "300", "net.ipv4.conf.IFNAME.arp_filter": "1",
	"net/ipv4/conf/IFNAME/log_martians": "1", "net.ipv4.tcp_rmem": "4096 65536 1048576",
	"net.ipv4.ip_local_reserved_ports": "8080,9148" } |
	.promisc = true | .allmulti = true | .txQLen = 333 | .mac = "02:00:00:00:00:07" | .mtu = 1400'
add "$tuned"
cni_ok 'ADD with all keys'
result=$cni_out
is "$(pod_sysctl a net/core/somaxconn)" 300 'a sysctl of the namespace'
is "$(pod_sysctl a net/ipv4/conf/eth0/arp_filter)" 1 '... of the interface, by IFNAME'
is "$(pod_sysctl a net/ipv4/conf/eth0/log_martians)" 1 '... written with slashes'
is "$(pod_sysctl a net/ipv4/tcp_rmem)" $'4096\t65536\t1048576' '... of three numbers'
is "$(pod_sysctl a net/ipv4/ip_local_reserved_ports)" 8080,9148 '... of text'
is "$(sysctl_of net/core/somaxconn)" "$node" 'the node keeps its own'
is "$(pod_link a eth0 '[.txqlen, .mtu, .address] | join(" ")')" '333 1400 02:00:00:00:00:07' 'queue length, MTU, MAC'
is "$(pod_link a eth0 '[.flags[] | select(test("PROMISC|ALLMULTI"))] | sort | join(" ")')" 'ALLMULTI PROMISC' 'flags'
is "$(link "$(veth_of ctr-a)" '[.flags[] | select(test("PROMISC|ALLMULTI"))] | length')" 0 '... of the pod'\''s end only'
is "$(jq -r '.interfaces[2] | "\(.mac) \(.mtu)"' <<<"$result")" '02:00:00:00:00:07 1400' '... in the result'

# ---- what CHECK sees ---------------------------------------------------------------------------------------

with=$(with_prev "$(conf "$tuned")" "$result")
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
misses 'sysctl\["net.core.somaxconn"\].*301.*300' 'another value' 'echo 301 >/proc/sys/net/core/somaxconn' \
	'echo 300 >/proc/sys/net/core/somaxconn'
misses 'sysctl\["net.ipv4.tcp_rmem"\]' '... one number of three' 'echo 4096 65536 1048577 >/proc/sys/net/ipv4/tcp_rmem' \
	'echo 4096 65536 1048576 >/proc/sys/net/ipv4/tcp_rmem'
misses 'IFNAME.arp_filter' '... of the interface' 'echo 0 >/proc/sys/net/ipv4/conf/eth0/arp_filter' \
	'echo 1 >/proc/sys/net/ipv4/conf/eth0/arp_filter'
misses 'promisc off' 'promiscuous mode' 'ip link set eth0 promisc off' 'ip link set eth0 promisc on'
misses 'allmulticast off' 'all multicast' 'ip link set eth0 allmulticast off' 'ip link set eth0 allmulticast on'
misses '334 packets.*333' 'queue length' 'ip link set eth0 txqueuelen 334' 'ip link set eth0 txqueuelen 333'
with=$(with_prev "$(conf "$tuned" '.promisc = false')" "$result")
check
cni_fails 103 'promisc on' 'CHECK: "promisc": false is off'
with=$(with_prev "$(conf '.mtu = 1400')" "$result")
check
cni_ok 'CHECK has nothing to say of what is not configured'

del
cni_ok DEL
is "$(pod_link a eth0 .ifname)" '' 'the interface is gone with all that was set on it'
is "$(pod_sysctl a net/core/somaxconn)" 300 'what is of the namespace stays, as with the reference'
del_pod - a
make_pod - a

# ---- who says it -------------------------------------------------------------------------------------------

add '.sysctl = {"net.core.somaxconn": "300", "net.ipv4.ip_default_ttl": "50"} | .promisc = true | .txQLen = 5 | .mtu = 1400 |
	.mac = "02:00:00:00:00:07"' \
	'.args.cni = {sysctl: {"net/core/somaxconn": "301", "net.ipv4.tcp_keepalive_time": "99"}, promisc: false, allmulti: true, txQLen: 0, mtu: 1300,
	mac: "02:00:00:00:00:08"}'
cni_ok 'ADD with args.cni'
is "$(for key in core/somaxconn ipv4/ip_default_ttl ipv4/tcp_keepalive_time; do pod_sysctl a net/$key; done | xargs)" '301 50 99' \
	'args.cni.sysctl goes before, key by key'
is "$(pod_link a eth0 '[.txqlen // 0, .mtu, .address] | join(" ")')" '0 1300 02:00:00:00:00:08' '... and so do the others'
is "$(pod_link a eth0 '[.flags[] | select(test("PROMISC|ALLMULTI"))] | join(" ")')" ALLMULTI '... "promisc": false, too'
is "$(link "$(veth_of ctr-a)" .mtu) $(link cni0 .mtu)" '1400 1400' 'the MTU of one pod is none of the others'\'''
is "$(jq -r '[.interfaces[].mtu] | join(" ")' <<<"$cni_out")" '1400 1400 1300' '... in the result'
cni CHECK a ctr-a eth0 <<<"$(with_prev "$(conf '.mtu = 1400' '.args.cni = {mtu: 1300}')" "$cni_out")"
cni_ok '... and CHECK knows'
del
CNI_ARGS='MAC=02:00:00:00:00:09' add '.mac = "02:00:00:00:00:07"'
is "$(pod_mac - a)" 02:00:00:00:00:09 'CNI_ARGS goes before "mac"'
del
add '.args.cni.sysctl = {"net.core.somaxconn": "302"}'
is "$cni_rc $(pod_sysctl a net/core/somaxconn)" '0 302' 'args.cni.sysctl alone (the reference panics)'
del
cni ADD a ctr-a net.1 <<<"$(conf '.sysctl = {"net.ipv4.conf.IFNAME.arp_ignore": "2"}')"
is "$cni_rc $(pod_sysctl a net/ipv4/conf/net.1/arp_ignore)" '0 2' 'an interface with a dot in its name'
cni DEL a ctr-a net.1 <<<"$base"
add '.disableContainerInterface = true | del(.ipam) | .promisc = true | .txQLen = 7 | .sysctl = {"net.ipv4.conf.IFNAME.arp_ignore": "1"}'
is "$cni_rc $(pod_link a eth0 '"\(.txqlen) \(.flags | index("PROMISC") != null)"') $(pod_sysctl a net/ipv4/conf/eth0/arp_ignore)" '0 7 true 1' \
	'an interface that stays down'
del

# ---- what is refused ---------------------------------------------------------------------------------------

bare=$(state)
# refused CODE REGEX NAME JQ
refused() {
	local was
	was=$(pod_sysctl a net/core/somaxconn)
	add '.sysctl = {"net.core.somaxconn": "311"}' "$4"
	cni_fails "$1" "$2" "$3"
	is "$(state) $(pod_sysctl a net/core/somaxconn)" "$bare $was" '... and nothing is left behind'
}
refused 7 'sysctl\["kernel.panic"\].*net\.' 'what is not of the network' '.sysctl["kernel.panic"] = "1"'
refused 7 'sysctl\["net/../kernel/panic"\]' 'a way out' '.sysctl["net/../kernel/panic"] = "1"'
refused 7 'sysctl\["net.ipv4...kernel.panic"\]' 'a way out, with dots' '.sysctl["net.ipv4...kernel.panic"] = "1"'
refused 7 'sysctl\["net.ipv4"\].*group' 'a folder' '.sysctl["net.ipv4"] = "1"'
refused 7 'sysctl\["net"\]' 'nothing at all' '.sysctl["net"] = "1"'
refused 2 'sysctl\["net.ipv4.tcp_nonsense"\].*"1"' 'a sysctl that this kernel does not have' '.sysctl["net.ipv4.tcp_nonsense"] = "1"'
refused 7 'sysctl\["net.ipv4.ip_default_ttl"\].*"many"' 'a value that the kernel refuses' '.sysctl["net.ipv4.ip_default_ttl"] = "many"'
refused 7 'sysctl\["net.ipv4.ip_default_ttl"\].*5 is not a string' 'a number' '.sysctl["net.ipv4.ip_default_ttl"] = 5'
refused 7 'args.cni.sysctl\["kernel.panic"\]' '... in args.cni' '.args.cni.sysctl["kernel.panic"] = "1"'
refused 7 'sysctl.*again' 'one sysctl twice' '.sysctl["net/core/somaxconn"] = "1"'
refused 7 'sysctl.*is not an object' 'no object' '.sysctl = ["net.core.somaxconn"]'
refused 7 'promisc.*true or false' promisc '.promisc = "yes"'
refused 7 'allmulti.*true or false' allmulti '.allmulti = 1'
refused 7 'txQLen.*0 to 4294967295' txQLen '.txQLen = -1'
refused 7 'mac.*02:0' mac '.mac = "02:00"'
refused 7 'args.cni.mtu.*68 to 65535' args.cni.mtu '.args.cni.mtu = 67'
cni ADD a ctr-a eth0 <<<"${base%\}},\"sysctl\":{\"net.core.somaxconn\":\"1\",\"net.core.somaxconn\":\"2\"}}"
cni_fails 7 'sysctl.*twice' 'a key that is there twice'

# ---- the administrator's list -------------------------------------------------------------------------------

mkdir -p /etc/cni/tuning
# allows LINE KEY: does this line let the key in?
allows() {
	printf '%s\n' "$1" >/etc/cni/tuning/allowlist.conf
	add ".sysctl = {\"$2\": \"1\"}"
	del_rc=$cni_rc
	del
	return "$del_rc"
}
ok 'a line that matches' allows '^net\.ipv4\.conf\.IFNAME\.[a-z_]*$' net.ipv4.conf.IFNAME.arp_filter
ok '... anywhere, as the reference has it' allows 'arp_f' net.ipv4.conf.IFNAME.arp_filter
ok '... among others' allows $'\n  net.core\\..*  \n\narp_filter\n' net.ipv4.conf.IFNAME.arp_filter
fails 'the key counts as it is written' allows '^net\.ipv4\.conf\.eth0\.arp_filter$' net.ipv4.conf.IFNAME.arp_filter
ok 'what Go knows and POSIX does not' allows '^net\.ipv\d\.(?:conf|neigh)\.[\w.]+?$' net.ipv4.conf.IFNAME.arp_filter
fails '... and no more than that' allows '^net\.ipv\d\.(?:conf|neigh)\.[^\w]+$' net.ipv4.conf.IFNAME.arp_filter
printf 'net.ipv4.*\n' >/etc/cni/tuning/allowlist.conf
refused 7 'sysctl\["net.core.somaxconn"\].*allowlist.conf' 'what is not on the list' .
refused 7 'args.cni.sysctl\["net.core.optmem_max"\].*allowlist.conf' '... from args.cni' \
	'.sysctl = {} | .args.cni.sysctl["net.core.optmem_max"] = "1"'
add '.promisc = true'
cni_ok 'no sysctl, no list'
result=$cni_out
cni CHECK a ctr-a eth0 <<<"$(with_prev "$(conf '.sysctl = {"net.core.somaxconn": "'"$(pod_sysctl a net/core/somaxconn)"'"}')" "$result")"
cni_ok 'CHECK does not ask the list: the pod was let in'
del
cni STATUS - - - <<<"$(conf '.sysctl = {"net.core.somaxconn": "1"}')"
cni_fails 7 'sysctl\["net.core.somaxconn"\].*allowlist.conf' 'STATUS tells what is not on the list'
printf 'net.(\n' >/etc/cni/tuning/allowlist.conf
refused 7 'allowlist.conf: line 1: "net.\("' 'a line that is no regular expression' .
printf 'ok\n\\bnet\n' >/etc/cni/tuning/allowlist.conf
refused 7 'allowlist.conf: line 2' 'a line that cannot be read' .
: >/etc/cni/tuning/allowlist.conf
refused 7 'no line of' 'an empty list' .
rm /etc/cni/tuning/allowlist.conf
mkdir /etc/cni/tuning/allowlist.conf
refused 5 'allowlist.conf' 'a list that cannot be read' .
rmdir /etc/cni/tuning/allowlist.conf
printf 'somaxconn\n' >/etc/cni/tuning/real
ln -s real /etc/cni/tuning/allowlist.conf
add '.sysctl = {"net.core.somaxconn": "312"}'
cni_ok 'a list behind a symbolic link'
del
rm /etc/cni/tuning/allowlist.conf

# ---- an ADD that fails later ---------------------------------------------------------------------------------

del_pod - a
make_pod - a
was=$(pod_sysctl a net/core/somaxconn) ttl=$(pod_sysctl a net/ipv4/ip_default_ttl)
cni ADD b ctr-b eth0 <<<"$(conf '.portMappings = [{hostPort: 80, containerPort: 80}]')"
add '.sysctl = {"net.core.somaxconn": "311", "net.ipv4.ip_default_ttl": "51"} | .portMappings = [{hostPort: 80, containerPort: 80}]'
cni_fails 102 'ctr-b' 'the port is taken'
is "$(pod_sysctl a net/core/somaxconn) $(pod_sysctl a net/ipv4/ip_default_ttl)" "$was $ttl" 'the sysctls are put back'
add '.sysctl = {"net.core.somaxconn": "311", "net.ipv4.ip_default_ttl": "nonsense"}'
is "$cni_rc $(pod_sysctl a net/core/somaxconn)" "1 $was" '... also when one of them is refused'

# ---- no cost for others --------------------------------------------------------------------------------------

calls() { # CONF REGEX: how many calls of an ADD match
	CNI_COMMAND=ADD CNI_NETNS=/run/netns/a CNI_CONTAINERID=ctr-a CNI_IFNAME=eth0 traced -e trace=setns,sendmsg,openat <<<"$1" >/dev/null
	del
	grep -c "$2" /run/trace || :
}
is "$(calls "$(conf '.promisc = true' '.allmulti = true' '.txQLen = 5')" RTM_NEWLINK)" "$(calls "$base" RTM_NEWLINK)" \
	'flags and queue length cost no request'
is "$(calls "$base" '/etc/cni/tuning')" 0 'a pod without sysctls: the list is not read'
done_testing
