#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What few host ports have: conditions, as nft expressions, and a mark. Who may use such a port, what is
# in the kernel for it and when it goes, and which texts are no conditions.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"
. "${0%/*}/../lib/cluster.sh"

# The sandbox itself is the node, on the wire as 192.0.2.1; two others have no way to the pods.
make_wire wire
make_node in wire 192.0.2.9/24 2001:db8::9/64
make_node out wire 192.0.2.10/24 2001:db8::a/64
on wire ip link add here type veth peer name up0 netns $$
on wire ip link set here master wire up
ip address add 192.0.2.1/24 dev up0
ip address add 192.0.2.2/24 dev up0
ip address add 2001:db8::1/64 dev up0 nodad
ip link set up0 up
while [[ $(on in ip -6 address show dev eth0 tentative) || $(on out ip -6 address show dev eth0 tentative) ]]; do
	sleep 0.05
done
for pod in a b c; do
	make_pod - $pod
done

base=$(flat_conf '.ipMasq = true' '.clusterCIDR = ["10.244.0.0/16", "fd00:10:244::/56"]' \
	'.ipam = {ranges: [[{subnet: "10.244.1.0/24"}], [{subnet: "fd00:10:244:1::/64"}]]}')
# conf PORTS [JQ]: the configuration with runtimeConfig.portMappings
conf() {
	jq -c --argjson ports "$1" ".runtimeConfig.portMappings = \$ports | ${2:-.}" <<<"$base"
}
web='[{"hostPort": 7000, "containerPort": 80, "protocol": "tcp"}]'
both='[{"hostPort": 7000, "containerPort": 80, "protocol": "tcp"}, {"hostPort": 7001, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.2"}]'
only_in='.conditionsV4 = ["ip saddr 192.0.2.9"] | .conditionsV6 = ["ip6 saddr 2001:db8::9"]'
side_chains() {
	nft -j list chains inet | jq -r '.nftables[].chain | select(. and .table == "flatnet") | .name' | grep -E '^hostports_(if|mark)_' || :
}
ruleset() { # without handles and counters
	nft -s list ruleset
}
answers() { # ADDRESS PORT: what "in" and "out" hear
	echo "$(ask in - tcp "$1" "$2" || echo none), $(ask out - tcp "$1" "$2" || echo none)"
}

# ---- who may use the port -----------------------------------------------------------------------------

quick ADD b ctr-b eth0 "$base" >/dev/null
bare=$(state)$(ruleset)
cni ADD a ctr-a eth0 <<<"$(conf "$both" "$only_in")"
cni_ok 'ADD with conditions'
result=$cni_out
serve - a web 80
serve - - own 7000
is "$(answers 192.0.2.1 7000)" 'web 192.0.2.9, own 192.0.2.10' 'who meets the condition gets to the pod, the other to the node'
is "$(answers 2001:db8::1 7000)" 'web 2001:db8::9, own 2001:db8::a' '... IPv6'
is "$(answers 192.0.2.2 7001)" 'web 192.0.2.9, none' '... a port of one address'
is "$(ask - b tcp 192.0.2.1 7000 || echo none)" "own $(pod_ip - b)" '... a neighbour does not meet it'
cni CHECK a ctr-a eth0 <<<"$(with_prev "$(conf "$both" "$only_in")" "$result")"
cni_ok 'CHECK agrees'
is "$(side_chains | wc -l)" 2 'each condition is one chain'
rules=$(nft -s list chain inet flatnet hostports)
cni ADD c ctr-c eth0 <<<"$(conf "${web/7000/7002}" "$only_in")"
cni_ok 'another pod with the same conditions'
serve - c other 80
is "$(side_chains | wc -l) $(nft -s list chain inet flatnet hostports)" "2 $rules" '... shares the chains, and adds no rule'
is "$(answers 192.0.2.1 7002)" 'other 192.0.2.9, none' '... and they hold for it'
quick DEL a ctr-a eth0 "$base"
is "$(side_chains | wc -l) $(answers 192.0.2.1 7002)" '2 other 192.0.2.9, none' 'one goes, and the chains are the other'\''s still'
is "$(answers 192.0.2.1 7000)" 'own 192.0.2.9, own 192.0.2.10' '... its port is the node'\''s again'
quick DEL c ctr-c eth0 "$base"
is "$(side_chains)" '' '... the other goes, and they with it'

seen() { # NAME WANT CONDITIONS [ADDRESS]: what "in" and "out" hear from port 7000 under conditionsV4
	del_pod - c
	make_pod - c
	cni ADD c ctr-c eth0 <<<"$(conf "${web/7000/7003}" ".conditionsV4 = $3")"
	cni_ok "$1: ADD"
	serve - c web 80
	is "$(answers 192.0.2.1 7003)" "$2" '... who gets through'
	quick DEL c ctr-c eth0 "$base"
}
in_only='web 192.0.2.9, none' out_only='none, web 192.0.2.10' all='web 192.0.2.9, web 192.0.2.10'
seen 'in several parts' "$out_only" '["ip", "saddr", "!=", "192.0.2.9"]'
seen 'two of them' "$in_only" '["iifname \"up0\"", "ip saddr 192.0.2.0-192.0.2.9"]'
seen 'a set of prefixes' "$in_only" '["ip saddr { 192.0.2.8/31, 198.51.100.0/24 }"]'
seen 'the address asked for' 'none, none' '["ip daddr != 192.0.2.1"]'
seen 'the link' 'none, none' '["iifname != { \"up0\", \"lo\" }"]'
seen 'a statement without a verdict' "$all" '["counter"]'
seen 'bits of the header' "$in_only" '["@nh,96,32 0xc0000209"]'
seen 'blanks' "$all" '["", " "]'

# A neighbour who was let through gets its answer; so does the pod itself.
del_pod - c
make_pod - c
quick ADD c ctr-c eth0 "$(conf "$web" '.conditionsV4 = ["ip saddr 10.244.0.0/16"]')" >/dev/null
serve - c web 80
is "$(ask - b tcp 192.0.2.1 7000 || echo none) $(ask - c tcp 192.0.2.1 7000 || echo none)" \
	"web $(pod_ip - b) web 10.244.1.1" 'conditions that pods meet: a neighbour, and the pod itself'
is "$(ask - - tcp 127.0.0.1 7000 || echo none)" 'own 127.0.0.1' '... and 127.0.0.1 does not'
quick DEL c ctr-c eth0 "$base"

# The example that we give: private addresses only.
example=$(jq -c '.plugins[0] + {cniVersion, name} | .name = "pods" | .runtimeConfig.portMappings = [{hostPort: 7000, containerPort: 80}]' \
	"$FLAT_ROOT/conf/host-ports-limited.conflist")
quick DEL b ctr-b eth0 "$base"
remove_all
del_pod - c
make_pod - c
cni ADD c ctr-c eth0 <<<"$example"
cni_ok 'ADD with the example configuration'
serve - c web 80
on in ip address add 192.168.7.9/24 dev eth0
ip address add 192.168.7.1/24 dev up0
is "$(ask in - tcp 192.0.2.1 7000 || echo none)" 'own 192.0.2.9' '... of a public address it takes none'
is "$(ask in - tcp 192.168.7.1 7000 || echo none)" 'web 192.168.7.9' '... of a private one it does'
is "$(side_chains | sed 's/_if_.*/_if/')" "$(printf 'hostports_if\nhostports_mark_2000')" '... each key has its chain'
quick DEL c ctr-c eth0 "$example"
remove_all

# ---- what is left of it ---------------------------------------------------------------------------------

nft flush ruleset
quick DEL b ctr-b eth0 "$base"
quick ADD b ctr-b eth0 "$base" >/dev/null
quick ADD a ctr-a eth0 "$(conf "${web/7000/7009}")" >/dev/null
bare=$(ruleset)
mapped=$(conf "$both" "$only_in | .markMasqBit = 13")
gone() { # NAME COMMAND...
	local name=$1
	shift
	[[ -e /run/netns/c ]] || make_pod - c
	quick ADD c ctr-c eth0 "$mapped" >/dev/null
	is "$(side_chains | wc -l)" 3 '(a pod with conditions and a mark)'
	ok "$name" "$@"
	is "$(ruleset)" "$bare" '... and all is as before'
	quick DEL c ctr-c eth0 "$base"
}
netns_first() {
	del_pod - c
	quick DEL c ctr-c eth0 "$base"
}
gc() {
	CNI_COMMAND=GC CNI_PATH=$FLAT_BIN "$FLAT_BIN/flatnet" <<<"$(jq -c '.["cni.dev/valid-attachments"] =
		[{containerID: "ctr-a", ifname: "eth0"}, {containerID: "ctr-b", ifname: "eth0"}]' <<<"$base")"
}
no_link() {
	[[ ! $(veth_of ctr-c) ]]
}
gc_blind() {
	del_pod - c
	eventually 5 '(its link goes)' no_link
	CNI_COMMAND=GC CNI_PATH=$FLAT_BIN "$FLAT_BIN/flatnet" <<<"$base"
}
adds() { # CONF
	quick ADD c ctr-c eth0 "$1" >/dev/null
}
in_vain() { # CONF: nobody takes the result
	! quick ADD c ctr-c eth0 "$1" >/dev/full
}
failed_late() {
	quick DEL c ctr-c eth0 "$base" && in_vain "$mapped"
}
gone 'DEL as ADD was' quick DEL c ctr-c eth0 "$mapped"
gone 'DEL without the keys' quick DEL c ctr-c eth0 "$base"
gone 'DEL after the namespace' netns_first
gone 'GC that does not know the pod' gc
gone 'GC after the namespace' gc_blind
gone 'an ADD whose result nobody takes' failed_late

# The transaction of the chain is one of its own; who is killed after it leaves it behind.
nft add chain inet flatnet hostports_if_0123456789abcdef
nft add rule inet flatnet hostports_if_0123456789abcdef accept
ok 'GC after an ADD was killed behind its chain of conditions' gc
is "$(ruleset)" "$bare" '... takes it away'

cni ADD c ctr-c eth0 <<<"$(conf "${web/7000/7009}" "$only_in")"
cni_fails 102 '7009/tcp is taken by container ctr-a' 'a port that is taken, with conditions, too'
is "$(ruleset)" "$bare" '... nothing is left'
quick ADD c ctr-c eth0 "$(conf "$web" "$only_in")" >/dev/null
make_pod - d
cni ADD d ctr-d eth0 <<<"$(conf "$web" '.conditionsV4 = ["ip saddr 192.0.2.10"]')"
cni_fails 102 '7000/tcp is taken by container ctr-c' 'the same port for others is the same port'
is "$(side_chains | wc -l)" 2 '... and its condition is not left'

# ---- CHECK ------------------------------------------------------------------------------------------------

quick DEL c ctr-c eth0 "$base"
result=$(quick ADD c ctr-c eth0 "$mapped")
chain=hostports_if_$(nft -j list map inet flatnet hostports4_if | jq -r '.nftables[].map | select(.) | .elem[0][1].jump.target' | cut -d_ -f3)
broken() { # NAME REGEX COMMAND...: and the next ADD repairs the chain
	local name=$1 regex=$2
	shift 2
	"$@"
	cni CHECK c ctr-c eth0 <<<"$(with_prev "$mapped" "$result")"
	cni_fails 103 "$regex" "CHECK misses $name"
	quick DEL c ctr-c eth0 "$base"
	result=$(quick ADD c ctr-c eth0 "$mapped")
	cni CHECK c ctr-c eth0 <<<"$(with_prev "$mapped" "$result")"
	cni_ok '... and is content after another ADD'
}
broken 'the rules of the conditions' "chain '$chain' .*conditionsV4" nft flush chain inet flatnet "$chain"
broken 'a rule among them' "chain '$chain' .*conditionsV4" nft insert rule inet flatnet "$chain" return
broken 'the way to them' "set 'hostports4_if'" nft delete element inet flatnet hostports4_if '{ tcp . 7000 }'
broken 'the way of a port of one address' "set 'hostports4_address_if'" nft flush map inet flatnet hostports4_address_if
broken 'the rule of the mark' "chain 'hostports_mark_2000' .*markMasqBit" nft flush chain inet flatnet hostports_mark_2000
broken 'the way to the mark' "set 'hostports6_marks'" nft flush map inet flatnet hostports6_marks
quick DEL c ctr-c eth0 "$base"
quick DEL a ctr-a eth0 "$base"
# A pod whose chain was damaged while another uses it: the chain is repaired in its place.
quick ADD c ctr-c eth0 "$(conf "$web" "$only_in")" >/dev/null
nft flush chain inet flatnet "$chain"
quick ADD a ctr-a eth0 "$(conf "${web/7000/7009}" "$only_in")" >/dev/null
is "$(nft -s list chain inet flatnet "$chain" | grep -cE 'ip saddr 192.0.2.9 return|accept')" 2 'an ADD with the same conditions repairs the chain'
quick DEL a ctr-a eth0 "$base"
quick DEL c ctr-c eth0 "$base"

# ---- the mark ---------------------------------------------------------------------------------------------

nft -f - <<-'END'
	table inet look {
		set marks { type mark; flags dynamic; }
		chain out { type route hook output priority mangle; tcp dport 7000 meta mark set 0x1; }
		chain post { type filter hook postrouting priority 200; tcp dport 80 ct state new add @marks { meta mark }; }
	}
END
marks() { # of the first packets to a pod since the last call
	nft -j list set inet look marks | jq -c '[.nftables[].set | select(.) | .elem[]?] | sort'
	nft flush set inet look marks
}
del_pod - c
make_pod - c
for bit in 13 31; do
	quick ADD c ctr-c eth0 "$(conf "$web" ".markMasqBit = $bit")" >/dev/null
	serve - c web 80
	marks >/dev/null
	is "$(ask - c tcp 192.0.2.1 7000) $(marks)" "web 10.244.1.1 [$((1 << bit))]" "markMasqBit $bit: what is masqueraded has the mark"
	is "$(ask in - tcp 192.0.2.1 7000) $(marks)" 'web 192.0.2.9 [0]' '... and what is not has none'
	is "$(ask - - tcp 127.0.0.1 7000) $(marks)" "web 10.244.1.1 [$((1 << bit | 1))]" '... beside what others marked'
	is "$(side_chains)" "hostports_mark_$(printf %x $((1 << bit)))" '... by one chain'
	quick DEL c ctr-c eth0 "$base"
	is "$(side_chains)" '' '... which goes with the pod'
	del_pod - c
	make_pod - c
done
quick ADD c ctr-c eth0 "$(conf "$web" '.markMasqBit = 0 | .masqAll = true')" >/dev/null
serve - c web 80
is "$(ask in - tcp 2001:db8::1 7000) $(marks)" 'web fd00:10:244:1::1 [1]' 'with masqAll, from anywhere, IPv6'
quick DEL c ctr-c eth0 "$base"
quick ADD c ctr-c eth0 "$(conf "$web" '.markMasqBit = 13 | .snat = false')" >/dev/null
is "$(side_chains)" '' 'snat false: nothing is masqueraded, nothing marked'
quick DEL c ctr-c eth0 "$base"
nft delete table inet look

# ---- texts ------------------------------------------------------------------------------------------------

before=$(ruleset)
refuse() { # CODE REGEX NAME VALUE [KEY]
	cni ADD c ctr-c eth0 <<<"$(jq -c --arg key "${5:-conditionsV4}" --argjson value "$4" '.[$key] = $value' <<<"$(conf "$web")")"
	cni_fails "$1" "$2" "refused: $3"
}
refuse 7 'conditionsV4: nft does not take "ip sadr 1".*syntax error|unexpected' 'not of the language' '["ip sadr 1"]'
refuse 7 'conditionsV6: nft does not take' 'not of the language, IPv6' '["ip6 saddr 192.0.2.1"]' conditionsV6
refuse 7 'conditionsV4: nft does not take' 'half an expression' '["ip saddr"]'
refuse 7 'conditionsV4: nft does not take' 'a chain within' '["counter { counter }"]'
refuse 7 'conditionsV4: .*is not closed|says what' 'a rule of its own' '["counter } add rule inet flatnet x {"]'
for char in ';' $'\n' '#' $'\\' '$' $'\t' 'é'; do
	refuse 7 'conditionsV4: .*has no place in an nft expression' "$(printf 'a text with %q' "$char")" \
		"$(jq -nc --arg c "$char" '["counter \($c) add table inet evil"]')"
done
for text in 'ip saddr { 192.0.2.9' 'counter }' 'counter } chain x {' 'iifname "up0'; do
	refuse 7 'a quote or a brace is not closed' "$text" "$(jq -nc --arg t "$text" '[$t]')"
done
for text in accept 'ip saddr 192.0.2.9 drop' 'counter jump hostports' 'tcp dport vmap { 80 : accept }' 'meta mark set 1' 'dnat to 192.0.2.9'; do
	refuse 7 'says what to do: conditions only say when' "$text" "$(jq -nc --arg t "$text" '[$t]')"
done
refuse 7 'sets of other tables cannot be reached' '@hostports4_pods' '["ip saddr . ip daddr @hostports4_pods"]'
refuse 7 'conditionsV4: longer than 1024 bytes' 'a very long one' "$(jq -nc '["ip saddr { \([range(200) | "192.0.2.\(. + 1)"] | join(", ")) }"]')"
refuse 7 'conditionsV4: "ip" is not a list' 'no list' '"ip"'
refuse 7 'conditionsV4\[1\]: 7 is not' 'a list with a number' '["counter", 7]'
refuse 2 'conditionsV4: "! -s 192.0.2.0/24" is for iptables.*write it as an nft expression' 'of iptables' '["!", "-s", "192.0.2.0/24"]'
refuse 2 'conditionsV6: "-s 2001:db8::/32" is for iptables' 'of iptables, IPv6' '["-s", "2001:db8::/32"]' conditionsV6
cni ADD c ctr-c eth0 <<<"$(conf "$web" '.conditionsV4 = ["counter"] | .conditionsV6 = ["nonsense"]')"
cni_fails 7 'conditionsV6: nft does not take "nonsense"' 'refused: the second, when the first is in the kernel already'
is "$(ruleset)$(pod_ip - c)" "$before" '... and nothing is left of any of them'
ok 'a quoted name may be any word' adds "$(conf "$web" '.conditionsV4 = ["iifname != \"drop\""]')"
quick DEL c ctr-c eth0 "$base"

# ---- what it costs ----------------------------------------------------------------------------------------

traced() { # CONF: the programs run and libraries opened by an ADD
	CNI_COMMAND=ADD CNI_CONTAINERID=ctr-c CNI_NETNS=/run/netns/c CNI_IFNAME=eth0 CNI_PATH=$FLAT_BIN \
		strace -f -qq -o /run/trace -e trace=execve,openat "$FLAT_BIN/flatnet" <<<"$1" >/dev/null
	echo "$(grep -c 'execve(' /run/trace) $(grep -c 'libnftables.*= [0-9]' /run/trace)"
	quick DEL c ctr-c eth0 "$base"
}
is "$(traced "$(conf "$web" "$only_in")")" '1 2' 'no program is run for conditions; libnftables is loaded'
is "$(traced "$(conf "$web")")" '1 0' '... without conditions it is not'
quick ADD a ctr-a eth0 "$(conf "${web/7000/7009}" "$only_in")" >/dev/null
is "$(traced "$(conf "$web" "$only_in")")" '1 0' '... nor where another pod has the same'
quick DEL a ctr-a eth0 "$base"
library=$(ldconfig -p | sed -n 's/.*libnftables\.so\.1.*=> //p' | head -n 1)
mount --bind /dev/null "$library"
refuse 2 'conditionsV4: "ip saddr 192.0.2.9" is not supported without libnftables.so.1: install it \(Debian: libnftables1\)' \
	'a host without libnftables' '["ip saddr 192.0.2.9"]'
ok '... which takes ports without conditions' adds "$(conf "$web" '.markMasqBit = 5')"
quick DEL c ctr-c eth0 "$base"
umount "$library"
is "$(ruleset)" "$before" '... and nothing is left'

# A node of its own: what the first ADD of all makes goes with it when it fails.
quick DEL b ctr-b eth0 "$base"
remove_all
nft flush ruleset
del_pod - c
make_pod - c
bare=$(state)
single=$(conf "$web" '.ipMasq = false | .isGateway = false | .ipam = {subnet: "10.244.1.0/24"} | .conditionsV4 = ["counter"]')
ok 'the first ADD of a node fails at its end' in_vain "$single"
is "$(state)" "$bare" '... and leaves nothing'
cni ADD c ctr-c eth0 <<<"$(jq -c '.conditionsV4 = ["ip saddr nonsense"]' <<<"$single")"
cni_fails 7 'conditionsV4' '... or at its conditions'
is "$(state)" "$bare" '... and leaves nothing'
double=$(jq -c '.ipam = {ranges: [[{subnet: "10.244.1.0/24"}], [{subnet: "fd00:10:244:1::/64"}]]} | .conditionsV6 = ["nonsense"]' <<<"$single")
cni ADD c ctr-c eth0 <<<"$double"
cni_fails 7 'conditionsV6' '... or at the second of two'
is "$(state)" "$bare" '... and leaves nothing'

done_testing
