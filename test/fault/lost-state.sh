#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The store is lost, damaged, full or read-only, while pods live.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

conf=$(flat_conf)
for pod in a b c d e; do
	make_pod - $pod
done
address() {
	jq -r '.ips[0].address // .msg' <<<"$cni_out"
}
add() {
	cni ADD "$1" "ctr-$1" eth0 <<<"$conf"
}
fresh() { # a, b and c live
	remove_all
	for pod in a b c; do
		quick ADD $pod ctr-$pod eth0 "$conf" >/run/$pod
	done
}

# ---- gone -----------------------------------------------------------------------------------------------------

for lost in "$store" "$store/pods" "$store/pods/*" /run/flatnet; do
	fresh
	# shellcheck disable=SC2086
	rm -rf $lost
	add d
	cni_ok "$lost is removed while three pods live: ADD"
	is "$(address)" 10.244.1.5/24 '... gives no address twice'
	is "$(reservations | tr '\n' ' ')" '10.244.1.2 10.244.1.3 10.244.1.4 10.244.1.5 ' '... and has written the book anew'
	cni CHECK b ctr-b eth0 <<<"$(with_prev "$conf" "$(</run/b)")"
	cni_ok '... CHECK of a pod from before'
	quick DEL a ctr-a eth0 "$conf"
	is "$(reservations | tr '\n' ' ')" '10.244.1.3 10.244.1.4 10.244.1.5 ' '... DEL of a pod from before frees its address'
done
fresh
rm -rf "$store"
CNI_ARGS='IP=10.244.1.3' add d
cni_fails 102 '10\.244\.1\.3.*ctr-b' 'without a store, a request for the address of a living pod is refused'
fresh
rm -rf "$store"
cni CHECK a ctr-a eth0 <<<"$(with_prev "$conf" "$(</run/a)")"
cni_fails 103 "$store/pods" 'CHECK: the store is gone'
cni DEL a ctr-a eth0 <<<"$conf"
cni_ok 'DEL without a store'
is "$(veth_of ctr-a)" '' '... removes the link'
printf garbage >"$store" 2>/dev/null || { mkdir -p /run/flatnet && printf garbage >"$store"; }
before=$(state)
add d
cni_fails 5 "$store" 'a file where the store should be: ADD says so'
is "$(state)" "$before" '... and leaves nothing behind'
cni DEL b ctr-b eth0 <<<"$conf"
is "$(veth_of ctr-b)" '' '... DEL removes the link'
rm "$store"

# ---- damaged ----------------------------------------------------------------------------------------------------

fresh
: >"$store/pods/10.244.1.5"
printf 'no end of line' >"$store/pods/10.244.1.6"
head -c 100000 /dev/urandom >"$store/pods/10.244.1.7"
mkdir "$store/pods/10.244.1.8"
: >"$store/pods/not-an-address"
ln -s /etc/passwd "$store/pods/10.244.1.9"
add d
cni_ok 'ADD beside damaged reservations'
like "$(address)" '^10\.244\.1\.[0-9]+/24$' '... gives an address'
cni DEL d ctr-d eth0 <<<"$conf"
cni_ok '... DEL'
cni DEL e ctr-never eth0 <<<"$conf"
cni_ok '... DEL of a pod that never was, which has to read them all'
cni GC '' '' '' <<<"$(jq -c '."cni.dev/valid-attachments" = [{containerID: "ctr-a", ifname: "eth0"}]' <<<"$conf")"
is "$(reservations | grep -E '10\.244\.1\.[2-7]$' | tr '\n' ' ')" '10.244.1.2 ' '... GC keeps the valid one only'
ok '... and has not followed the link' test -s /etc/passwd
rm -rf "$store"

conf=$(flat_conf '.ipam += {rangeStart: "10.244.1.10", rangeEnd: "10.244.1.12"}')
for content in '' garbage $'ctr-dead\r\neth0'; do
	remove_all
	mkdir -p "$store/pods"
	for i in 10 11 12; do
		printf '%s' "$content" >"$store/pods/10.244.1.$i"
	done
	add a
	cni_ok "a range full of '$(printf %q "$content")' heals by itself"
	cni DEL a ctr-a eth0 <<<"$conf"
done
conf=$(flat_conf)
remove_all
for last in '' garbage 10.99.0.1 10.244.1.254 fd00::1; do
	remove_all
	mkdir -p "$store/pods"
	printf '%s' "$last" >"$store/pods/last_reserved_ip.0"
	add a
	is "$(address)" 10.244.1.2/24 "last_reserved_ip.0 is '$last': the first address is next"
done

# ---- full -----------------------------------------------------------------------------------------------------------

remove_all
mkdir -p /run/small
mount -t tmpfs -o size=64k tmpfs /run/small
conf=$(flat_conf '.ipam.dataDir = "/run/small/ipam"')
add a
cni_ok 'a store on a small file system'
head -c 200000 /dev/zero >/run/small/fill 2>/dev/null || :
before=$(state)
add b
cni_fails 11 'No space left|full' 'the file system is full'
is "$(state)" "$before" '... nothing is left behind'
is "$(find /run/small/ipam -name '10.*' -printf '%f ')" '10.244.1.2 ' '... no empty reservation either'
cni STATUS - - - <<<"$conf"
diag "STATUS of a full file system: $cni_rc $cni_out"
cni DEL a ctr-a eth0 <<<"$conf"
cni_ok '... DEL works'
is "$(find /run/small/ipam -name '10.*')" '' '... and frees the address'
rm /run/small/fill
add b
cni_ok 'there is space again: ADD'
cni DEL b ctr-b eth0 <<<"$conf"
umount /run/small
mount -t tmpfs -o nr_inodes=6 tmpfs /run/small
rc=0
for pod in a b c d e; do
	before=$(state)
	add $pod
	((cni_rc == 0)) || break
done
cni_fails 11 'No space left' 'no inode is left'
is "$(state)" "$before" '... nothing is left behind'
umount /run/small

# ---- read-only ----------------------------------------------------------------------------------------------------------

remove_all
mount -t tmpfs tmpfs /run/small
add a
mount -o remount,ro /run/small
before=$(state)
add b
cni_fails '5' 'Read-only' 'the store is read-only: ADD'
is "$(state)" "$before" '... nothing is left behind'
cni STATUS - - - <<<"$conf"
cni_fails 50 '/run/small' '... STATUS says so'
cni DEL a ctr-a eth0 <<<"$conf"
isnt "$cni_rc" 0 '... DEL cannot free the address, and says so'
is "$(veth_of ctr-a)" '' '... but the link is gone'
mount -o remount,rw /run/small
cni DEL a ctr-a eth0 <<<"$conf"
cni_ok '... DEL when it can be written again'
is "$(find /run/small/ipam -name '10.*')" '' '... frees it'

# Read-only /proc/sys: what is set already need not be written.
remove_all
conf=$(flat_conf)
add a
mount --bind /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_forward
mount -o remount,bind,ro /proc/sys/net/ipv4/ip_forward
add b
cni_ok 'ip_forward is on and cannot be written: ADD'
mount -o remount,bind,rw /proc/sys/net/ipv4/ip_forward
echo 0 >/proc/sys/net/ipv4/ip_forward
mount -o remount,bind,ro /proc/sys/net/ipv4/ip_forward
before=$(state)
add c
cni_fails 100 'ip_forward.*Read-only' 'it is off and cannot be written'
is "$(state)" "$before" '... nothing is left behind'
umount /proc/sys/net/ipv4/ip_forward

# A lock that somebody holds must not hang an ADD for ever.
remove_all
mkdir -p "$store/pods"
: >"$store/pods/lock"
flock "$store/pods/lock" sleep 40 &
holder=$!
at_exit kill "$holder"
CNI_TIMEOUT=35 add a
isnt "$cni_rc" 124 'somebody holds the lock: ADD does not hang'
cni_fails "$(jq '.code | if IN(5, 11) then . else 0 end' <<<"$cni_out")" "$store/pods|lock" '... and says what it waited for'

done_testing
