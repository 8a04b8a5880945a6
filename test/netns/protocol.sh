#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The protocol at its edges: what runtimes leave out, get wrong, or cannot take.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

make_pod - a
conf=$(flat_conf)
bare=$(state)
# bad CODE REGEX NAME: the last call failed so, with one JSON error of the configuration's version
bad() {
	cni_fails "$@"
	json "$cni_out" '.cniVersion | test("^[01]\\.[0-9]\\.[0-9]$")' "... $3: the error has a version"
}

# ---- the command --------------------------------------------------------------------------------

cni - a ctr eth0 <<<"$conf"
is "$cni_rc $cni_out" '0 ' 'no CNI_COMMAND: success, and nothing on stdout'
like "$cni_err" 'CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0' '... the versions on stderr'
for command in ATTACH add 'ADD ' '\n'; do
	cni "$command" a ctr eth0 <<<"$conf"
	bad 4 'unknown CNI_COMMAND: ' "unknown command '$command'"
done

# ---- the environment ----------------------------------------------------------------------------

cni ADD - - - <<<"$conf"
bad 4 'CNI_CONTAINERID.*CNI_NETNS.*CNI_IFNAME' 'ADD with nothing set: all that is missing is named'
cni ADD '' '' '' <<<"$conf"
bad 4 'CNI_CONTAINERID.*CNI_NETNS.*CNI_IFNAME' '... so with everything empty'
cni CHECK - ctr eth0 <<<"$conf"
bad 4 'CNI_NETNS' 'CHECK without CNI_NETNS'
cni DEL a - - <<<"$conf"
bad 4 'CNI_CONTAINERID.*CNI_IFNAME' 'DEL without container and interface'
cni DEL - ctr eth0 <<<"$conf"
cni_ok 'DEL without CNI_NETNS'
for id in -x .x 'a b' a/b ../../etc 'a;b' $'a\nb' é; do
	cni ADD a "$id" eth0 <<<"$conf"
	bad 4 'CNI_CONTAINERID' "container ID $(printf %q "$id")"
done
for ifname in . .. a/b a:b 'a b' $'a\tb' sixteen-letters0 $'a\xa0b' $'\xff'; do
	cni ADD a ctr "$ifname" <<<"$conf"
	bad 4 'CNI_IFNAME' "interface $(printf %q "$ifname")"
done
for verb in ADD DEL CHECK GC STATUS; do
	for name in '""' '"a/b"' '"../x"' '"-a"' null 5; do
		cni "$verb" a ctr eth0 <<<"$(flat_conf ".name = $name")"
		bad 7 'name' "$verb of a network called $name"
	done
done
CNI_PATH='' cni ADD a ctr eth0 <<<"$conf"
cni_ok 'CNI_PATH is not needed where no other plugin is'
CNI_PATH='' cni DEL a ctr eth0 <<<"$conf"
cni_ok '... nor for DEL'
CNI_PATH='' cni STATUS - - - <<<"$conf"
cni_ok '... nor for STATUS'
remove_all

# ---- the namespace ------------------------------------------------------------------------------

: >/run/plain
cni ADD /proc/self/ns/net ctr eth0 <<<"$conf"
bad 8 'the plugin itself runs in' "CNI_NETNS is the plugin's own namespace"
is "$(state)" "$bare" '... noticed before anything was made'
cni ADD /run/plain ctr eth0 <<<"$conf"
bad 8 '/run/plain' 'CNI_NETNS is a plain file'
cni ADD /run ctr eth0 <<<"$conf"
bad 8 '/run' 'CNI_NETNS is a folder'
cni ADD /proc/self/ns/mnt ctr eth0 <<<"$conf"
bad 8 'ns/mnt' 'CNI_NETNS is a namespace of another kind'
cni ADD /run/netns/missing ctr eth0 <<<"$conf"
bad 8 'missing' 'CNI_NETNS does not exist'
mkfifo /run/fifo
CNI_TIMEOUT=5 cni ADD /run/fifo ctr eth0 <<<"$conf"
bad 8 '/run/fifo' 'CNI_NETNS is a pipe that nobody writes to'
is "$(state)" "$bare" '... and nothing of all that is left'
for netns in '' - /run/netns/missing /run/plain /run /proc/self/ns/net; do
	cni ADD a ctr eth0 <<<"$conf"
	cni DEL "$netns" ctr eth0 <<<"$conf"
	cni_ok "DEL with CNI_NETNS '$netns'"
	clean_slate '... nothing is left'
	is "$(pod_link a eth0 .ifname)" '' '... not in the pod either'
	cni DEL "$netns" ctr eth0 <<<"$conf"
	cni_ok '... and once more'
done
CNI_NETNS_OVERRIDE=1 cni ADD /proc/self/ns/net ctr pod0 <<<"$(flat_conf '.isDefaultGateway = false' '.ipam = {type: ""}')"
cni_ok 'CNI_NETNS_OVERRIDE=1 allows the own namespace'
remove_all

# ---- what is on stdin ---------------------------------------------------------------------------

cni ADD a ctr eth0 </dev/null
bad 6 'no network configuration' 'an empty stdin'
cni ADD a ctr eth0 <&-
cni_fails 5 'standard input' 'a closed stdin'
for text in ' ' '{' '{"cniVersion":"1.1.0"' nonsense '[]' '"text"' '{} {}' "$conf$conf" "{'name':'pods'}" '{"a":1,}' '{"a":01}' '{"a":NaN}'; do
	cni ADD a ctr eth0 <<<"$text"
	bad 6 '' "stdin: ${text:0:30}"
done
cni ADD a ctr eth0 <<<"$(jq -nc --argjson conf "$conf" '{cniVersion: "1.1.0", name: "pods", plugins: [$conf]}')"
bad 7 'plugins.*list' 'a whole list instead of one plugin'
cni ADD a ctr eth0 < <(head -c 100000 /dev/zero | tr '\0' '[')
bad 6 'nest|deep' '100,000 brackets'
cni ADD a ctr eth0 < <(printf '{"name":"pods","x":' && for _ in {1..50000}; do printf '{"a":'; done)
bad 6 'nest|deep' '50,000 objects in each other'
cni ADD a ctr eth0 < <(head -c 5000000 /dev/zero | tr '\0' ' ')
bad 6 'bytes' '5 MB of nothing'
cni ADD a ctr eth0 < <(printf '{"cniVersion":"1.1.0","name":"pods\xff","type":"flatnet"}')
bad 6 'UTF-8' 'invalid UTF-8'
# shellcheck disable=SC1003
cni ADD a ctr eth0 < <(printf '{"cniVersion":"1.1.0","name":"pods","type":"flatnet","bridge":"a\\u0000b","ipam":{"subnet":"10.244.1.0/24"}}')
bad 6 'u0000' 'a \u0000'
cni ADD a ctr eth0 < <(printf '{"cniVersion":"1.1.0",\0"name":"pods"}')
bad 6 '' 'a NUL byte'
is "$(state)" "$bare" 'nothing of all that is left'

head -c 1048576 /dev/zero | tr '\0' x >/run/big
jq -c --rawfile big /run/big '.runtimeConfig."io.kubernetes.cri.pod-annotations" = {note: $big} | .capabilities = {x: true}' <<<"$conf" >/run/big.json
cni ADD a ctr eth0 </run/big.json
cni_ok '1 MiB of annotations'
cni DEL a ctr eth0 </run/big.json
cni_ok '... for DEL, too'
rm /run/big /run/big.json

CNI_TIMEOUT=50 cni VERSION - - - < <(sleep 20)
cni_ok 'VERSION does not wait for ever for a stdin that never ends'
cmp_ok "$cni_ms" -lt 8000 '... but a moment'
# A GB of input is not swallowed before it is refused.
CNI_TIMEOUT=20 cni ADD a ctr eth0 < <(yes '{"a":1}')
bad 6 'bytes' 'a stdin that never ends'

# ---- keys and values ----------------------------------------------------------------------------

cni ADD a ctr eth0 <<<'{"cniVersion":"1.1.0","name":"wrong","name":"pods","type":"flatnet","mtu":900,"mtu":1400,"MTU":1450,"IPAM":{"Subnet":"10.244.7.0/24"}}'
cni_ok 'keys twice, and in capitals'
is "$(pod_link a eth0 .mtu) $(pod_ip - a)" '1450 10.244.7.2' '... the last one counts, whatever its case'
cni DEL a ctr eth0 <<<"$conf"
clean_slate '... and the name was the last one, too'
cni ADD a ctr eth0 <<<"$(flat_conf 'del(.ipam.subnet)' '.runtimeConfig.ipRanges = [{Subnet: "10.244.8.0/24", RangeStart: "10.244.8.9", RangeEnd: "10.244.8.9", Gateway: "10.244.8.1"}]')"
cni_ok "go-cni's capitals, and its flat list"
is "$(pod_ip - a)" 10.244.8.9 '... are understood'
remove_all
cni ADD a ctr eth0 <<<"$(flat_conf '.capabilities = {x: true}' '.unknown = {deep: [1, {}]}' '.mtu = null' '.isGateway = null' '.dns = null' '.args = {labels: []}' '.runtimeConfig = {other: 1}')"
cni_ok 'unknown keys and nulls'
remove_all
while IFS='|' read -r filter path; do
	cni ADD a ctr eth0 <<<"$(flat_conf "$filter")"
	bad 7 "^$path" "$filter"
done <<'END'
.mtu = "1450"|mtu: 
.mtu = 1450.5|mtu: 
.mtu = 1e308|mtu: 
.mtu = -1|mtu: 
.mtu = 99999999999999999999|mtu: 
.isGateway = "true"|isGateway: 
.ipMasq = 1|ipMasq: 
.bridge = 5|bridge: 
.bridge = ["cni0"]|bridge: 
.ipam = "host-local"|ipam
.ipam = []|ipam
.ipam.subnet = 10|ipam.subnet: 
.ipam.subnet = "10.244.1.0"|ipam.subnet: 
.ipam.subnet = "10.244.1.0/33"|ipam.subnet: 
.ipam.subnet = "10.244.01.0/24"|ipam.subnet: 
.ipam.ranges = [[{subnet: "nonsense"}]]|ipam.ranges\[0\]\[0\].subnet: 
.ipam.ranges = [[{subnet: "10.9.0.0/24", rangeStart: "x"}]]|ipam.ranges\[0\]\[0\].rangeStart: 
.ipam.routes = [{gw: "10.244.1.1"}]|ipam.routes\[0\].dst: 
.ipam.routes = [{dst: "10.0.0.0/8", gw: "x"}]|ipam.routes\[0\].gw: 
.ipam.routes = [{dst: "10.0.0.0/8", mtu: -5}]|ipam.routes\[0\].mtu: 
.ipam.routes = {}|ipam.routes
.ipam.dataDir = "relative"|ipam.dataDir: 
.ipam.type = "../../bin/sh"|.*ipam|plugin
.runtimeConfig = []|runtimeConfig
.runtimeConfig.mac = "x"|runtimeConfig.mac: 
.runtimeConfig.ips = ["x"]|runtimeConfig.ips\[0\]: 
.args.cni.ips = "10.244.1.5"|args.cni.ips
.dns.nameservers = "1.1.1.1"|dns.nameservers
.vlanTrunk = [{minID: "a"}]|vlanTrunk\[0\].minID: 
.nodes = [{name: "n"}]|nodes\[0\]
.clusterCIDR = "10.244.0.0"|clusterCIDR
END
cni ADD a ctr eth0 <<<"$(flat_conf '.prevResult = {"ips": 5}')"
bad 7 '^prevResult' 'a prevResult that is none'
cni ADD a ctr eth0 <<<"$(flat_conf 'del(.type)')"
bad 7 'type' 'no type'
is "$(state)" "$bare" 'nothing of all that is left'

# ---- CNI_ARGS -----------------------------------------------------------------------------------

CNI_ARGS='FOO=1' cni ADD a ctr eth0 <<<"$conf"
bad 4 'FOO' 'an unknown key in CNI_ARGS'
CNI_ARGS='FOO=1;IgnoreUnknown=0' cni ADD a ctr eth0 <<<"$conf"
bad 4 'FOO' '... IgnoreUnknown=0'
CNI_ARGS='nonsense' cni ADD a ctr eth0 <<<"$conf"
bad 4 'KEY=VALUE' 'CNI_ARGS without ='
CNI_ARGS='IP=10.244.1' cni ADD a ctr eth0 <<<"$conf"
bad 4 'IP' 'CNI_ARGS with half an address'
for args in 'FOO=1;IgnoreUnknown=1' 'IgnoreUnknown=true;FOO=1;BAR=a=b' 'FOO=;IgnoreUnknown=TRUE;' ';;K8S_POD_NAME=x;' 'K8S_POD_NAMESPACE=n;K8S_POD_NAME=p;K8S_POD_UID=u;K8S_POD_INFRA_CONTAINER_ID=c'; do
	CNI_ARGS=$args cni ADD a ctr eth0 <<<"$conf"
	cni_ok "CNI_ARGS '$args'"
	CNI_ARGS='nonsense;FOO=1' cni DEL a ctr eth0 <<<"$conf"
	cni_ok '... DEL does not mind what is in CNI_ARGS'
done
is "$(state | grep -v -e cni0 -e ^rule)" "$bare" 'nothing but the bridge and its rules is left'

# ---- nobody takes the result --------------------------------------------------------------------

# deaf NAME REDIRECTION: an ADD whose stdout is that
deaf() {
	local rc=0
	remove_all
	eval "timeout 10 env CNI_COMMAND=ADD CNI_NETNS=/run/netns/a CNI_CONTAINERID=ctr CNI_IFNAME=eth0 \
		\"\$FLAT_BIN/flatnet\" <<<\"\$conf\" $2" 2>/run/stderr || rc=$?
	is "$rc" 1 "$1: exit 1"
	is "$(state)" "$bare" '... nothing is left behind'
}
remove_all
deaf 'stdout closed' '>&-'
deaf 'stdout full' '>/dev/full'
deaf 'stdout read-only' '1</dev/null'
remove_all
rc=0
# shellcheck disable=SC2016
timeout 10 env CNI_COMMAND=ADD CNI_NETNS=/run/netns/a CNI_CONTAINERID=ctr CNI_IFNAME=eth0 conf="$conf" \
	bash -c 'set -o pipefail; { sleep 0.2; "$FLAT_BIN/flatnet" <<<"$conf"; } | :' || rc=$?
is "$rc" 1 'stdout whose reader has gone: exit 1, not killed by SIGPIPE'
is "$(state)" "$bare" '... nothing is left behind'

# ---- not only for ADD: one JSON object, whatever goes wrong -------------------------------------

for verb in ADD DEL CHECK GC STATUS; do
	for text in '' '{' '[]' '{"cniVersion":"7"}' '{"cniVersion":"1.1.0"}' '{"cniVersion":"1.1.0","name":"pods"}'; do
		cni "$verb" a ctr eth0 <<<"$text"
		cni_fails "$(jq -r '.code // 0' <<<"$cni_out" 2>/dev/null || echo 0)" . "$verb with '$text': one JSON error"
	done
	FLAT_PLUGIN=flatnet-ipam cni "$verb" a ctr eth0 <<<'{'
	cni_fails 6 '' "flatnet-ipam $verb with '{'"
done
is "$(state)" "$bare" 'nothing of all that is left'

done_testing
