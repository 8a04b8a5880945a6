#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Another IPAM: found, called and cleaned up as section 4 of the specification says.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

make_pod - a
make_pod - b
plugins=/run/plugins
mkdir -p $plugins/one $plugins/two
# ipam FOLDER NAME <<<SCRIPT: an IPAM that writes its calls to /run/calls
ipam() {
	{
		# shellcheck disable=SC2016
		printf '%s\n' '#!/bin/bash' 'stdin=$(cat)' \
			'printf "%s %s %s %s %s\n" "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_NETNS" "$CNI_IFNAME" "$stdin" >>/run/calls'
		cat
	} >"$plugins/$1/$2"
	chmod +x "$plugins/$1/$2"
}
calls() {
	[[ ! -e /run/calls ]] || cut -d ' ' -f 1 /run/calls | tr '\n' ' '
}
export CNI_PATH=$plugins/one:$plugins/two
answer='{"cniVersion":"1.1.0","ips":[{"address":"10.244.3.5/24","gateway":"10.244.3.1"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["192.0.2.53"]}}'
# try TYPE [JQ...]: ADD of pod a with that IPAM, on a node as new
try() {
	local type=$1
	shift
	remove_all
	rm -f /run/calls
	bare=$(state)
	conf=$(flat_conf ".ipam = {type: \"$type\", own: {key: 1}}" '.prevKey = "kept"' "$@")
	cni ADD a ctr-a eth0 <<<"$conf"
}
refused() { # CODE REGEX CALLS NAME
	cni_fails "$1" "$2" "$4"
	is "$(calls)" "$3" '... the calls of the IPAM'
	is "$(state)" "$bare" '... nothing is left behind'
}

# ---- one that works --------------------------------------------------------------------------------

# shellcheck disable=SC2016
ipam two good <<<'[[ $CNI_COMMAND != ADD ]] || echo '"'$answer'"
try good
cni_ok 'ADD with another IPAM'
is "$(pod_ip - a) $(ip -j -4 address show dev cni0 | jq -r '.[0].addr_info[0].local')" '10.244.3.5 10.244.3.1' '... its addresses are used'
is "$(jq -c '.ips, .dns, .routes' <<<"$cni_out" | tr '\n' ' ')" \
	'[{"interface":2,"address":"10.244.3.5/24","gateway":"10.244.3.1"}] {"nameservers":["192.0.2.53"]} [{"dst":"0.0.0.0/0"}] ' '... and are in the result, with its routes and dns'
is "$(cut -d ' ' -f 1-4 /run/calls)" 'ADD ctr-a /run/netns/a eth0' '... it got the same environment'
is "$(cut -d ' ' -f 5- /run/calls | jq -Sc .)" "$(jq -Sc . <<<"$conf")" '... and the whole configuration'
is "$(store_files)" '' '... our own store is not touched'
result=$cni_out
cni CHECK a ctr-a eth0 <<<"$(with_prev "$conf" "$result")"
cni_ok 'CHECK'
cni STATUS - - - <<<"$conf"
cni_ok 'STATUS'
cni GC '' '' '' <<<"$(jq -c '."cni.dev/valid-attachments" = [{containerID: "ctr-a", ifname: "eth0"}]' <<<"$conf")"
cni_ok 'GC'
is "$(calls)" 'ADD CHECK STATUS GC ' '... each is passed on'
cni DEL a ctr-a eth0 <<<"$conf"
cni_ok 'DEL'
is "$(calls)" 'ADD CHECK STATUS GC DEL ' '... is passed on, too'
cni DEL '' ctr-a eth0 <<<"$conf"
cni_ok 'DEL once more'
is "$(calls)" 'ADD CHECK STATUS GC DEL DEL ' '... is passed on again'
clean_slate 'nothing is left'

# ---- the order of CNI_PATH --------------------------------------------------------------------------

ipam one good <<<'exit 1'
try good
isnt "$cni_rc" 0 'the first folder of CNI_PATH goes first'
rm $plugins/one/good
mkdir $plugins/one/good
try good
cni_ok 'a folder of that name is passed over'
rmdir $plugins/one/good
CNI_PATH=/missing::$plugins/two try good
cni_ok 'so are folders that are not there'
try missing
refused 7 'missing.*CNI_PATH' '' 'an IPAM that is not installed: the name and CNI_PATH are told'
like "$(jq -r .details <<<"$cni_out")" 'install' '... and the cure'
cni DEL a ctr-a eth0 <<<"$conf"
isnt "$cni_rc" 0 'DEL says so, too'
json "$cni_out" '.code == 7' '... with the same code'
CNI_PATH='' try good
refused 7 'CNI_PATH' '' 'CNI_PATH is empty'
for type in two/good ../two/good ..; do
	try "$type"
	refused 7 '/' '' "type \"$type\" is not looked for"
done

# ---- those that do not ------------------------------------------------------------------------------

# shellcheck disable=SC2016
ipam one bad <<<'[[ $CNI_COMMAND == DEL ]] || { echo '"'"'{"cniVersion":"1.1.0","code":117,"msg":"no luck","details":"today"}'"'"'; exit 1; }'
try bad
refused 117 'no luck' 'ADD DEL ' 'an IPAM that fails: its own code, and it gets DEL'
json "$cni_out" '.details == "today"' '... and its details'
ipam one bad <<<'exit 3'
try bad
refused 999 'bad.*3' 'ADD DEL ' 'an IPAM that fails without a word'
# shellcheck disable=SC2016
ipam one bad <<<'kill -SEGV $$'
try bad
refused 999 'bad.*signal 11' 'ADD DEL ' 'an IPAM that crashes'
for text in garbage '' '{' '[]' '5' '{"ips":5}' '{"cniVersion":"9.0.0","ips":[]}' '{"cniVersion":"1.1.0","ips":[{"address":"nonsense"}]}'; do
	ipam one bad <<<"printf '%s' '$text'"
	try bad
	refused "$(jq '.code | if IN(1, 6, 7) then . else 0 end' <<<"$cni_out")" 'bad' 'ADD DEL ' "an IPAM that prints '$text'"
done
ipam one bad <<<'yes | head -c 3000000'
try bad
refused "$(jq '.code | if IN(5, 6, 999) then . else 0 end' <<<"$cni_out")" 'bad' 'ADD DEL ' 'an IPAM that prints without an end'
for text in '{"cniVersion":"1.1.0","ips":[]}' '{"cniVersion":"1.1.0"}' null; do
	ipam one bad <<<"printf '%s' '$text'"
	try bad
	refused 7 'no address' 'ADD DEL ' "an IPAM without addresses: $text"
done
printf 'no program' >$plugins/one/bad
chmod +x $plugins/one/bad
try bad
isnt "$cni_rc" 0 'a file that is no program'
is "$(state)" "$bare" '... nothing is left behind'
chmod -x $plugins/one/bad
try bad
isnt "$cni_rc" 0 'a file that may not be run'
is "$(state)" "$bare" '... nothing is left behind'
ipam one bad <<<'echo "a word on stderr" >&2; echo '"'$answer'"
try bad
like "$cni_err" 'a word on stderr' "stderr of the IPAM is passed through"

# What comes after the IPAM fails: it gets DEL.
ip link add taken0 type veth peer name taken1
try good '.bridge = "taken1"'
cni_fails 7 'not a bridge' 'a failure after the IPAM'
is "$(calls)" 'ADD DEL ' '... it gets DEL'
ip link del taken0
# shellcheck disable=SC2016
ipam one stubborn <<<'[[ $CNI_COMMAND == ADD ]] && echo '"'$answer'"' || { echo '"'"'{"code":120,"msg":"will not"}'"'"'; exit 1; }'
try stubborn
cni_ok 'an IPAM whose DEL fails: ADD'
cni DEL a ctr-a eth0 <<<"$conf"
cni_fails 120 'will not' '... DEL tells its error'
is "$(veths)" '' '... and removes the link all the same'
# shellcheck disable=SC2016
ipam one sick <<<'echo '"'"'{"code":50,"msg":"not today"}'"'"'; exit 1'
cni STATUS - - - <<<"$(flat_conf '.ipam = {type: "sick"}')"
cni_fails 50 'not today' 'STATUS of an IPAM that is not ready'

# ---- the reference's --------------------------------------------------------------------------------

if [[ -n ${FLAT_REFERENCE:-} ]]; then
	CNI_PATH=$FLAT_REFERENCE
	for version in 0.2.0 0.4.0 1.0.0 1.1.0; do
		try host-local ".cniVersion = \"$version\"" '.ipam = {type: "host-local", dataDir: "/run/theirs", ranges: [[{subnet: "10.244.4.0/24"}], [{subnet: "fd00:4::/64"}]], routes: [{dst: "0.0.0.0/0"}]}'
		cni_ok "host-local, version $version"
		is "$(pod_ip - a) $(pod_ip6 - a)" "$(cd /run/theirs/pods && echo 10.*) $(cd /run/theirs/pods && echo fd*)" '... the addresses that it reserved'
		cni DEL a ctr-a eth0 <<<"$(with_prev "$conf" "$cni_out")"
		is "$(find /run/theirs/pods -name '10.*' -o -name 'fd*')" '' '... and they go back'
	done
	try static '.ipam = {type: "static", addresses: [{address: "10.10.0.5/16", gateway: "10.10.0.1"}], routes: [{dst: "192.0.2.0/24", gw: "10.10.0.9"}]}' '.ipMasq = true'
	cni_ok 'static'
	is "$(pod_ip - a) $(pod_exec - a ip -j route show 192.0.2.0/24 | jq -r '.[0].gateway')" '10.10.0.5 10.10.0.9' '... its address and its route'
	like "$(nft list ruleset)" '10\.10\.0\.0/16.*masquerade' '... and its subnet is masqueraded'
	cni CHECK a ctr-a eth0 <<<"$(with_prev "$conf" "$cni_out")"
	cni_ok '... CHECK'
	cni DEL a ctr-a eth0 <<<"$conf"
	cni_ok '... DEL'
else
	skip 'host-local and static' 'the reference plugins could not be had'
fi

done_testing
