#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Bandwidth on Debian's kernel, whose modules it takes: that they are found, that CHECK understands
# what they tell, that a packet passes, and what is said when one is not there.
set -euo pipefail
[[ ${FLAT_IN_VM:-} ]] || exec "${0%/*}/boot" "$0"
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

conf=$(flat_conf '.ingressRate = 8000000 | .ingressBurst = 4294967295' '.egressRate = 80000000000 | .egressBurst = 800000000')
make_pod - a
cni ADD a ctr-a eth0 <<<"$conf"
cni_ok 'ADD'
veth=$(veth_of ctr-a)
is "$(tc -j qdisc show dev "$veth" root | jq -c '.[] | [.kind, .options.rate]')" '["tbf",1000000]' 'the rate to the pod'
is "$(tc -j qdisc show dev "fbw${veth#veth}" root | jq -c '.[] | [.kind, .options.rate]')" '["tbf",10000000000]' \
	'the rate from the pod, of more than 32 bits'
like "$(tc filter show dev "$veth" ingress)" "Redirect to device fbw${veth#veth}\\) stolen" 'what the pod sends goes there'
ok 'a packet passes both' can_ping - a 10.244.1.1
cni CHECK a ctr-a eth0 <<<"$(with_prev "$conf" "$cni_out")"
cni_ok 'CHECK agrees'
quick DEL a ctr-a eth0 "$conf"
is "$(ip -br link show type ifb | grep fbw || :)$(veths)" '' 'DEL leaves nothing (ifb0 and ifb1 are the module'\''s own)'

modprobe -r ifb
find /lib/modules -name 'ifb.ko*' -exec rm {} +
cni ADD a ctr-a eth0 <<<"$conf"
cni_fails 2 "bandwidth: add ifb .*modprobe" 'without the module ifb: told as what this kernel cannot do'
is "$(veths)" '' '... and nothing is left'
cni ADD a ctr-a eth0 <<<"$(jq -c '.egressRate = 0 | .egressBurst = 0' <<<"$conf")"
cni_ok 'a rate to the pod takes no ifb'
quick DEL a ctr-a eth0 "$conf"
done_testing
