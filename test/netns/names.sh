#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# By the names of the reference plugins: the same configuration gives the same result and leaves the
# same in the kernel, and each side takes over the pods of the other.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

theirs=${FLAT_REFERENCE:-}
[[ -n $theirs ]] || skip_all 'the reference plugins could not be had'
# As the option reference_names installs them; seen by all nodes, as the store is.
ours=/var/lib/cni/ours
mkdir -p $ours
cp -L "$FLAT_BIN/flatnet" $ours
for name in bridge host-local loopback; do
	ln -s flatnet $ours/"$name"
done
reservation=/var/lib/cni/networks

# side SIDE: the plugins of "ours" or "theirs" from here on
side() {
	plugins=${!1} CNI_PATH=${!1}
}
# run VERB PLUGIN POD CONF [IFNAME]
run() {
	FLAT_PLUGIN=$plugins/$2 cni "$1" "$3" "ctr-$3" "${5:-eth0}" <<<"$4"
}
# conf [JQ...]: of the reference bridge plugin
conf() {
	flat_conf '.type = "bridge" | .ipam = {type: "host-local", ranges: [[{subnet: "10.9.0.0/24"}]]}' "$@"
}
# What may differ: names and MACs by chance, and the MTU, which the reference does not tell.
plain() {
	jq -Sc 'del(.interfaces[]?.mtu) | .interfaces[]? |= (
		if .mac and .mac != "00:00:00:00:00:00" then .mac = "MAC" else . end |
		if (.name | test("^veth[0-9a-f]+$")) then .name = "VETH" else . end)' <<<"$1"
}
# All that can be seen of a pod and its bridge.
seen() {
	local pod=$1 bridge=$2 key
	pod_exec - "$pod" ip -j -d address | jq -Sc '.[] | {ifname, flags: (.flags | sort), mtu, kind: .linkinfo.info_kind,
		addresses: [.addr_info[] | select(.scope != "link") | {local, prefixlen, broadcast, scope, tentative}],
		link: [.addr_info[] | select(.scope == "link") | .prefixlen]}'
	pod_exec - "$pod" ip -j route | jq -Sc '.[]'
	pod_exec - "$pod" ip -6 -j route | jq -Sc '.[]'
	for key in ipv4/conf/eth0/arp_notify ipv6/conf/eth0/accept_dad ipv6/conf/eth0/enhanced_dad ipv6/conf/eth0/keep_addr_on_down ipv6/conf/eth0/disable_ipv6; do
		echo "$key $(pod_sysctl "$pod" "net/$key")"
	done
	ip -j -d address show dev "$bridge" | jq -Sc '.[] | {mtu, flags: (.flags | sort), promiscuity, addresses: [.addr_info[] | select(.scope != "link") | {local, prefixlen}],
		vlan: .linkinfo.info_data.vlan_filtering}'
	ip -j -d link show master "$bridge" | jq -Sc '.[] | {mtu, flags: (.flags | sort), operstate,
		port: .linkinfo.info_slave_data | {hairpin, isolated, state, learning, flood, mcast_flood, bcast_flood, neigh_suppress, proxy_arp, proxy_arp_wifi}}'
	for key in ipv4/ip_forward ipv6/conf/all/forwarding ipv6/conf/$bridge/accept_ra; do
		echo "$key $(sysctl_of "net/$key")"
	done
	find $reservation -type f | sort | while IFS= read -r key; do
		printf '%s %s\n' "$key" "$(tr '\r\n' '  ' <"$key" | sed 's/ *$//')"
	done
}
fresh() {
	remove_all
	rm -rf $reservation
	mkdir -p $reservation
	echo 0 >/proc/sys/net/ipv4/ip_forward
	echo 0 >/proc/sys/net/ipv6/conf/all/forwarding
}

# alike NAME CONF: both sides do it in turn on the same node
alike() {
	local name=$1 conf=$2 who bridge full
	local -A result state code after
	bridge=$(jq -r '.bridge // "cni0"' <<<"$conf")
	for who in theirs ours; do
		fresh
		side $who
		make_pod - a
		run ADD bridge a "$conf"
		code[$who]=$cni_rc result[$who]=$(plain "$cni_out") state[$who]=
		full=$conf
		if ((!cni_rc)); then
			full=$(with_prev "$conf" "$cni_out")
			state[$who]=$(seen a "$bridge")
			if [[ ! $(jq -r .cniVersion <<<"$conf") =~ ^0.[123] ]]; then
				run CHECK bridge a "$full"
				code[$who]+=" $cni_rc"
			fi
		fi
		run DEL bridge a "$full"
		code[$who]+=" $cni_rc"
		after[$who]=$(ip -br link | sed 's/[ @].*//' | sort | tr '\n' ' '; find $reservation -type f | sort)
		del_pod - a
	done
	is "${code[ours]}" "${code[theirs]}" "$name: exit codes"
	is "${result[ours]}" "${result[theirs]}" "$name: the result"
	is "${state[ours]}" "${state[theirs]}" "$name: the kernel and the store"
	is "${after[ours]}" "${after[theirs]}" "$name: what is left after DEL"
}

for version in 0.1.0 0.2.0 0.3.0 0.3.1 0.4.0 1.0.0 1.1.0; do
	alike "version $version" "$(conf ".cniVersion = \"$version\"")"
done
alike 'gateway' "$(conf '.isGateway = true')"
alike 'default gateway' "$(conf '.isDefaultGateway = true | .ipMasq = true')"
alike 'a default route by the IPAM' "$(conf '.isGateway = true | .ipam.routes = [{dst: "0.0.0.0/0"}]')"
alike 'a default route by both' "$(conf '.isDefaultGateway = true | .ipam.routes = [{dst: "0.0.0.0/0", gw: "10.9.0.1"}]')"
alike 'routes' "$(conf '.isGateway = true | .ipam.routes = [{dst: "192.0.2.0/24"}, {dst: "198.51.100.0/24", gw: "10.9.0.7"}]')"
alike 'both families' "$(conf '.isDefaultGateway = true | .ipam.ranges += [[{subnet: "fd00:9::/64"}]]')"
alike 'IPv6 alone' "$(conf '.isDefaultGateway = true | .ipam.ranges = [[{subnet: "fd00:9::/64"}]]')"
# CHECK of the reference fails here: it looks for an IPAM of the name "".
alike 'layer 2' "$(conf 'del(.ipam) | .cniVersion = "0.3.1"')"
alike 'layer 2 by an empty type' "$(conf '.ipam = {type: ""} | .cniVersion = "0.3.1"')"
alike 'layer 2, interface down' "$(conf 'del(.ipam) | .disableContainerInterface = true | .cniVersion = "0.3.1"')"
alike 'hairpin' "$(conf '.hairpinMode = true')"
alike 'promiscuous' "$(conf '.promiscMode = true')"
alike 'isolated' "$(conf '.portIsolation = true')"
alike 'MTU' "$(conf '.mtu = 1400')"
alike 'DAD' "$(conf '.enabledad = true | .ipam.ranges += [[{subnet: "fd00:9::/64"}]]')"
alike 'MAC' "$(conf '.runtimeConfig.mac = "02:00:00:00:00:17" | .args.cni.mac = "02:00:00:00:00:18"')"
alike 'dns' "$(conf '.dns = {nameservers: ["192.0.2.53"], domain: "example.test", search: ["a.test"], options: ["ndots:2"]}')"
alike 'another bridge' "$(conf '.bridge = "br7" | .isGateway = true')"
alike 'keys of flatnet do not count' "$(conf '.isGateway = true | .bridgeMode = "routed" | .clusterCIDR = "nonsense" | .nodes = 5 | .portMappings = "none" | .runtimeConfig.portMappings = [{hostPort: 80, containerPort: 80, protocol: "tcp"}]')"

# ---- what both refuse ------------------------------------------------------------------------------

# refused CODE REGEX JQ...: ours leaves nothing behind
refused() {
	local want=$1 regex=$2 conf who
	shift 2
	conf=$(conf "$@")
	for who in theirs ours; do
		fresh
		side $who
		make_pod - a
		bare=$(state)
		run ADD bridge a "$conf"
		if [[ $who == theirs ]]; then
			isnt "$cni_rc" 0 "$*: the reference refuses it"
		else
			cni_fails "$want" "$regex" '... so do we'
			is "$(state)" "$bare" '... and nothing is left behind'
		fi
		del_pod - a
	done
}
refused 7 'hairpin.*promisc' '.hairpinMode = true | .promiscMode = true'
refused 7 'disableContainerInterface' '.disableContainerInterface = true'
refused 7 'missing.*CNI_PATH' '.ipam.type = "missing"'
refused 7 'vlan' '.vlan = 4095'
refused 7 'vlanTrunk.*maxID' '.vlanTrunk = [{minID: 5}]'
refused 7 'no IP ranges' 'del(.ipam.ranges)'
refused 101 'no IP addresses available' '.ipam.ranges = [[{subnet: "10.9.0.0/24", rangeStart: "10.9.0.1", rangeEnd: "10.9.0.1"}]]'
refused 5 'resolvConf' '.ipam.resolvConf = "/missing"'
refused 7 'isGateway' '.isGateway = "yes"'

# ---- which host-local it is ------------------------------------------------------------------------

executed() { # how many programs bridge executes for an ADD, by strace
	rm -rf $reservation
	cni_wrap=(strace -f -qq -o /run/trace -e trace=execve)
	run ADD bridge a "$(conf)"
	cni_wrap=()
	cni_ok "$1"
	is "$(grep -c 'execve.* = 0' /run/trace)" "$2" '... programs'
	is "$(cat $reservation/pods/10.9.0.2)" "$(printf 'ctr-a\r\neth0')" '... the reservation is where the reference puts it'
	run DEL bridge a "$(conf)"
	cni_ok '... DEL'
	fails '... removes it' test -e $reservation/pods/10.9.0.2
}
export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 # strace is there
fresh
make_pod - a
side ours
executed 'host-local is a link to this program: nothing is executed' 1
CNI_PATH=/missing:$ours/.:$theirs executed '... by whatever path' 1
CNI_PATH=$theirs:$ours executed 'CNI_PATH has another one before: that is executed' 2
mkdir /run/copies
cp $ours/flatnet /run/copies/bridge
cp $ours/flatnet /run/copies/host-local
plugins=/run/copies CNI_PATH=/run/copies executed 'copies do, too' 2
del_pod - a

# ---- taking over, and going back -------------------------------------------------------------------

# rules of either side that belong to a pod
pod_rules() {
	nft list ruleset 2>/dev/null | grep -c "$1" || :
}
# turn FROM TO CONF NAME: a pod of one side is CHECKed and DELed by the other, while both run pods on
# one bridge
turn() {
	local from=$1 to=$2 conf=$3 name="$4: from $1 to $2" first
	fresh
	make_pod - a
	make_pod - b
	side "$from"
	run ADD bridge a "$conf"
	cni_ok "$name: ADD"
	first=$cni_out
	side "$to"
	run CHECK bridge a "$(with_prev "$conf" "$first")"
	cni_ok "$name: CHECK by the other"
	run ADD bridge b "$conf"
	cni_ok "$name: ADD of a second pod by the other"
	is "$(jq -r '.ips[0].address' <<<"$cni_out")" 10.9.0.3/24 "$name: ... with the next address"
	ok "$name: they reach each other" can_ping - a 10.9.0.3
	run CHECK bridge a "$(with_prev "$conf" "$first")"
	cni_ok "$name: CHECK once more"
	run DEL bridge a "$(with_prev "$conf" "$first")"
	if [[ $to == theirs && $conf == *ipMasq* ]]; then
		like "$cni_out" "CNI-.*does not exist" "$name: DEL by the other misses its own rules, once"
	else
		cni_ok "$name: DEL by the other"
	fi
	fails "$name: the reservation is gone" test -e $reservation/pods/10.9.0.2
	is "$(pod_exec - a ip -br link show eth0 2>/dev/null)" '' "$name: the interface is gone"
	is "$(ip -j link show master cni0 | jq length)" 1 "$name: ... and its port"
	is "$(pod_rules '10\.9\.0\.2')" 0 "$name: no rule knows its address"
	run DEL bridge a "$(with_prev "$conf" "$first")"
	cni_ok "$name: DEL once more"
	run DEL bridge b "$conf"
	cni_ok "$name: DEL of the second pod, without prevResult"
	is "$(ip -j link show master cni0 | jq length)" 0 "$name: nothing is left on the bridge"
	is "$(find $reservation/pods -name '[1f][0d]*')" '' "$name: ... nor in the store"
	del_pod - a
	del_pod - b
}
gateway='.isDefaultGateway = true | .ipMasq = true'
for backend in iptables nftables; do
	turn theirs ours "$(conf "$gateway | .ipMasqBackend = \"$backend\" | .ipam.ranges += [[{subnet: \"fd00:9::/64\"}]]")" "$backend"
	unlike "$(nft list ruleset)" 'CNI-[0-9a-f]' "$backend: the pod's chains are gone"
done
turn ours theirs "$(conf "$gateway | .ipam.ranges += [[{subnet: \"fd00:9::/64\"}]]")" 'back'
turn ours theirs "$(conf '.isGateway = true')" 'back, without ipMasq'
turn theirs ours "$(conf '.cniVersion = "0.4.0"')" 'version 0.4.0'

# Other ways in which a pod of the reference goes
went() { # NAME COMMAND...: after COMMAND, DEL by us
	local name=$1
	shift
	fresh
	make_pod - a
	side theirs
	run ADD bridge a "$(conf "$gateway")"
	full=$(with_prev "$(conf "$gateway")" "$cni_out") netns=a
	side ours
	"$@"
	FLAT_PLUGIN=$plugins/bridge cni DEL "$netns" ctr-a eth0 <<<"$full"
	cni_ok "a pod of the reference, $name: DEL"
	is "$(ip -j link show master cni0 | jq length) $(find $reservation/pods -name '10*') $(pod_rules '10\.9\.0\.2')" '0  0' \
		'... link, reservation and rules are gone'
	del_pod - a 2>/dev/null || :
}
no_prev() {
	full=$(conf "$gateway")
}
no_netns() {
	netns=''
}
renamed() {
	pod_exec - a ip link set eth0 down name eth9
}
old_prev() {
	full=$(jq '.cniVersion = "0.2.0" | .prevResult = {cniVersion: "0.2.0", ip4: {ip: "10.9.0.2/24"}}' <<<"$full")
}
went 'without prevResult' no_prev
went 'with an empty CNI_NETNS' no_netns
went 'its interface renamed' renamed
went 'its namespace gone' del_pod - a
went 'with a prevResult that names no interfaces' old_prev

fresh
make_pod - a
pod_exec - a ip link add eth0 type veth peer name other
ip link add cni0 type bridge
ip link set cni0 up
pod_exec - a ip link set other netns 1
ip link set other up
run DEL bridge a "$(conf)"
cni_ok "somebody else's interface: DEL"
isnt "$(ip -br link show other)" '' '... leaves it'
ip link del other
del_pod - a

# ---- masquerading as the reference's: all but the pod's own subnet ---------------------------------

make_wire w
make_node n1 w 192.0.2.1/24
make_node out w 192.0.2.9/24
on out ip address add 10.244.7.7/32 dev eth0
on n1 ip route add 10.244.7.7/32 via 192.0.2.9
on n1 ip netns add a
conf=$(conf "$gateway" '.ipam.ranges[0][0].subnet = "10.244.1.0/24"')
NODE=n1 run ADD bridge a "$conf"
cni_ok 'a pod of 10.244.1.0/24'
ok '... reaches the outside, which knows no way back' can_ping n1 a 192.0.2.9
ok '... also in 10.244.0.0/16, which is nothing special here' can_ping n1 a 10.244.7.7
like "$(on n1 nft list ruleset)" '10\.244\.1\.0/24 ip daddr != 10\.244\.1\.0/24.*masquerade' '... by one rule'
unlike "$(on n1 nft list ruleset)" 'accept$|accept comment' '... and nothing is accepted for it'
NODE=n1 run DEL bridge a "$conf"
cni_ok '... DEL'

# ---- macspoofchk -----------------------------------------------------------------------------------

# sends SRC: a frame from pod a with that MAC arrives at pod b
sends() {
	local i logger frame rc=1 frames=$FLAT_ROOT/test/lib/frames.py
	: >/run/seen
	pod_exec - b python3 "$frames" log eth0 >>/run/seen 2>/dev/null &
	logger=$!
	for ((i = 0; i < 250; i++)); do
		! grep -q ready /run/seen || break
		sleep 0.02
	done
	frame=$(pod_exec - a python3 "$frames" send eth0 <<<"raw from=$1 type=0x88b5")
	for ((i = 0; i < 100 && rc != 0; i++)); do
		! grep -q "^$frame" /run/seen || rc=0
		sleep 0.02
	done
	kill "$logger"
	wait "$logger" 2>/dev/null || :
	[[ $frame ]] && return "$rc"
}
for who in theirs ours; do
	fresh
	side $who
	make_pod - a
	make_pod - b
	run ADD bridge b "$(conf)"
	run ADD bridge a "$(conf '.macspoofchk = true | .ingressPolicy = "isolated" | .ipspoofchk = true')"
	cni_ok "macspoofchk by $who: ADD"
	full=$(with_prev "$(conf '.macspoofchk = true')" "$cni_out")
	ok "macspoofchk by $who: its own MAC passes" sends "$(pod_mac - a)"
	fails "macspoofchk by $who: another does not" sends 02:00:00:00:00:66
	ok "macspoofchk by $who: the neighbour is reached" can_ping - a 10.9.0.2
	side ours
	run CHECK bridge a "$full"
	cni_ok "macspoofchk by $who: CHECK by ours"
	run DEL bridge a "$full"
	cni_ok "macspoofchk by $who: DEL by ours"
	del_pod - a
	del_pod - b
done

# ---- GC and STATUS, of which the reference has little ----------------------------------------------

fresh
side ours
make_pod - a
make_pod - b
run ADD bridge a "$(conf "$gateway")"
run ADD bridge b "$(conf "$gateway")"
FLAT_PLUGIN=$plugins/bridge cni GC '' '' '' <<<"$(conf '."cni.dev/valid-attachments" = [{containerID: "ctr-a", ifname: "eth0"}]')"
cni_ok 'GC'
is "$(ip -j link show master cni0 | jq length) $(cd $reservation/pods && echo 10*)" '1 10.9.0.2' '... keeps who is valid, and nobody else'
FLAT_PLUGIN=$plugins/bridge cni STATUS '' '' '' <<<"$(conf)"
cni_ok 'STATUS'
FLAT_PLUGIN=$plugins/bridge cni STATUS '' '' '' <<<"$(conf '.ipam.type = "missing"')"
cni_fails 50 'missing' 'STATUS without the IPAM'
FLAT_PLUGIN=$plugins/host-local cni STATUS '' '' '' <<<"$(conf)"
cni_ok 'STATUS of host-local'
del_pod - a
del_pod - b

# ---- host-local ------------------------------------------------------------------------------------

# alike_ipam NAME CONF: result of each of three pods, DEL of the second, a fourth, all files
alike_ipam() {
	local name=$1 who
	local -A said
	for who in theirs ours; do
		rm -rf $reservation
		side $who
		said[$who]=
		for pod in p q r -q s; do
			[[ $pod != -* ]] || { run DEL host-local "${pod#-}" "$2"; continue; }
			run ADD host-local "$pod" "$2"
			said[$who]+="$cni_rc $(jq -Sc 'if .code then "failed" else . end' <<<"$cni_out")"$'\n'
		done
		said[$who]+=$(cd $reservation && find . -type f ! -name lock | sort | while IFS= read -r file; do stat -c '%n %a' "$file" && od -An -c "$file"; done)
	done
	is "${said[ours]}" "${said[theirs]}" "host-local, $name"
}
alike_ipam 'plain' "$(conf)"
alike_ipam 'single range' "$(conf '.ipam = {type: "host-local", subnet: "10.8.0.0/29", rangeStart: "10.8.0.3", rangeEnd: "10.8.0.5", gateway: "10.8.0.4"}')"
alike_ipam 'sets and routes' "$(conf '.ipam.ranges = [[{subnet: "10.8.0.0/30"}, {subnet: "10.8.1.0/24"}], [{subnet: "fd00:8::/64"}]] | .ipam.routes = [{dst: "0.0.0.0/0"}, {dst: "192.0.2.0/24", gw: "10.8.0.1", mtu: 1400, advmss: 1360, priority: 5, table: 7, scope: 253}]')"
alike_ipam 'version 0.2.0' "$(conf '.cniVersion = "0.2.0"')"
alike_ipam 'version 0.4.0' "$(conf '.cniVersion = "0.4.0"')"
alike_ipam 'requested address' "$(conf '.runtimeConfig.ips = ["10.9.0.77"]')"
alike_ipam 'another directory' "$(conf ".ipam.dataDir = \"$reservation/deeper/down\"")"
printf 'nameserver 192.0.2.53\nsearch a.test b.test\noptions ndots:3\ndomain c.test\n' >/run/resolv.conf
alike_ipam 'resolvConf' "$(conf '.ipam.resolvConf = "/run/resolv.conf"')"

# ---- loopback --------------------------------------------------------------------------------------

# alike_lo NAME CONF [COMMAND...]: ADD, CHECK and DEL in a new namespace, after COMMAND in it
alike_lo() {
	local name=$1 conf=$2 who verb
	shift 2
	local -A said
	for who in theirs ours; do
		side $who
		said[$who]=
		ip netns add a
		(($# == 0)) || pod_exec - a "$@"
		for verb in ADD CHECK DEL DEL; do
			[[ $verb != CHECK || $conf == *1.?.0* ]] || continue
			run $verb loopback a "$conf" lo
			said[$who]+="$verb $cni_rc $(jq -Sc 'if .code then "failed" else . end' <<<"$cni_out") $(pod_exec - a ip -br address show lo)"$'\n'
		done
		ip netns del a
		run DEL loopback a "$conf" lo
		said[$who]+="gone $cni_rc"
		FLAT_PLUGIN=$plugins/loopback cni DEL '' ctr-a lo <<<"$conf"
		said[$who]+="empty $cni_rc"
	done
	is "${said[ours]}" "${said[theirs]}" "loopback, $name"
}
lo='{"cniVersion":"VERSION","name":"cni-loopback","type":"loopback"}'
for version in 1.0.0 1.1.0; do
	alike_lo "version $version" "${lo/VERSION/$version}"
done
# To older versions the reference says what only the newer ones understand.
for version in 0.2.0 0.3.1 0.4.0; do
	side ours
	ip netns add a
	run ADD loopback a "${lo/VERSION/$version}" lo
	if [[ $version == 0.2.0 ]]; then
		is "$(jq -c '[.ip4.ip, .ip6.ip]' <<<"$cni_out")" '["127.0.0.1/8","::1/128"]' "loopback, version $version"
	else
		is "$(jq -c '[.ips[] | .version, .address, .interface], [.interfaces[].name]' <<<"$cni_out" | tr '\n' ' ')" \
			'["4","127.0.0.1/8",0,"6","::1/128",0] ["lo"] ' "loopback, version $version"
	fi
	ip netns del a
done
alike_lo 'as a link of a chain' "$(jq -c '.cniVersion = "1.0.0" | .prevResult = {cniVersion: "1.0.0", interfaces: [{name: "eth0", sandbox: "/x"}], ips: [{address: "10.0.0.5/8", interface: 0}]}' <<<"$lo")"
alike_lo 'without IPv6' "${lo/VERSION/1.1.0}" sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6'
alike_lo 'with a foreign address' "${lo/VERSION/1.1.0}" ip address add 192.0.2.8/24 dev lo
side ours
ip netns add a
run ADD loopback a "${lo/VERSION/1.1.0}" lo
pod_exec - a ip link set lo down
run CHECK loopback a "${lo/VERSION/1.1.0}" lo
cni_fails 103 'down' 'loopback: CHECK of one that is down'
FLAT_PLUGIN=$plugins/loopback cni DEL /proc/self/ns/net ctr-a lo <<<"${lo/VERSION/1.1.0}"
like "$(ip -br link show lo)" 'UNKNOWN|UP' "loopback: DEL leaves the node's own alone"
echo text >/run/file
FLAT_PLUGIN=$plugins/loopback cni DEL /run/file ctr-a lo <<<"${lo/VERSION/1.1.0}"
cni_ok 'loopback: DEL of a namespace that is no namespace any more'
ip netns del a

# ---- names -----------------------------------------------------------------------------------------

for name in bridge host-local loopback; do
	like "$(CNI_COMMAND='' env -u CNI_COMMAND $ours/"$name" 2>&1)" "^$name .*flatnet" "$name says what it is"
	is "$(CNI_COMMAND=VERSION $ours/"$name" <<<'{"cniVersion":"1.1.0"}' | jq -c .supportedVersions)" \
		"$(CNI_COMMAND=VERSION "$theirs/$name" <<<'{"cniVersion":"1.1.0"}' | jq -c .supportedVersions)" "$name: versions"
done
ln -s flatnet $ours/somebody
like "$(env -u CNI_COMMAND $ours/somebody 2>&1)" '^flatnet ' 'any other name is flatnet'
like "$(env -u CNI_COMMAND bash -c "exec -a '' $ours/flatnet" 2>&1)" '^flatnet ' '... and so is none'
done_testing
