#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Beside firewalls that forward nothing by default: iptables with Docker's chains, ufw, firewalld, a
# chain of nf_tables, iptables-legacy. Each is overcome, or named with what lifts it.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/look.sh"

make_wire wire
make_node out wire 192.0.2.9/24
on wire ip link add here type veth peer name up0 netns $$
on wire ip link set here master wire up
ip address add 192.0.2.1/24 dev up0
ip link set up0 up
on out ip route add 10.244.0.0/16 via 192.0.2.1
conf=$(flat_conf)
make_pod - a
make_pod - b

# The pod's way to the outside, from there, and to its neighbour through the node.
connected() {
	can_ping - a 192.0.2.9 && on out ping -n -q -c 1 -W 1 "$(pod_ip - a)" >/dev/null && can_ping - a "$(pod_ip - b)"
}
# A first ADD of a node says it: so the warning is b's.
first() {
	cni ADD b ctr-b eth0 <<<"$conf"
	warned=$cni_err
	cni ADD a ctr-a eth0 <<<"$conf"
	again=$cni_err
	cni STATUS - - - <<<"$conf"
	status=$cni_err
}
over() {
	quick DEL a ctr-a eth0 "$conf"
	quick DEL b ctr-b eth0 "$conf"
	nft flush ruleset
}
silent() { # NAME
	is "$warned$again$status" '' "$1: there is nothing to say"
}
named() { # NAME REGEX
	fails "$1: (pods are cut off)" connected
	like "$warned" "pods may be cut off: .*$2" "$1: the first ADD names it"
	is "$again" '' '... the second one does not'
	is "$cni_rc" 0 '... STATUS is no failure'
	like "$status" "pods may be cut off: .*$2" '... but says it'
}
# cure REGEX: the command that the warning has in quotes
cure() {
	# shellcheck disable=SC2016
	sed -n 's/.*`\(.*\)`.*/\1/p' <<<"$status"
}

first
silent 'no firewall'
ok '... and pods have their network' connected
over

# ---- iptables: overcome ------------------------------------------------------------------------------

docker() { # its chains as Docker 28 makes them, for its own bridge
	iptables -P FORWARD DROP
	iptables -N DOCKER-USER
	iptables -N DOCKER-FORWARD
	iptables -N DOCKER-ISOLATION-STAGE-1
	iptables -N DOCKER-ISOLATION-STAGE-2
	iptables -A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
	iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
	iptables -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
	iptables -A DOCKER-FORWARD -i docker0 -j ACCEPT
	iptables -I FORWARD -j DOCKER-FORWARD
	iptables -I FORWARD -j DOCKER-USER
}
docker
first
silent 'Docker was there first'
ok '... and pods have their network' connected
iptables -D FORWARD -j DOCKER-USER # as it does when it starts again
iptables -D FORWARD -j DOCKER-FORWARD
iptables -I FORWARD -j DOCKER-FORWARD
iptables -I FORWARD -j DOCKER-USER
ok '... also when Docker comes again' connected
over
first
docker
fails 'Docker comes later: (pods are cut off)' connected
quick DEL a ctr-a eth0 "$conf"
quick ADD a ctr-a eth0 "$conf" >/dev/null
ok '... until the next ADD' connected
over

if command -v ufw >/dev/null; then
	mkdir -p /run/ufw
	for dir in /etc/ufw /etc/default; do # ufw keeps its state there
		mount -t tmpfs -o mode=0755 tmpfs /mnt
		cp -a $dir/. /mnt
		mount --move /mnt $dir
	done
	if ufw --force enable >/run/ufw.log 2>&1; then
		like "$(iptables -S FORWARD)" '-P FORWARD DROP' 'ufw: (it drops what is forwarded)'
		first
		silent 'ufw'
		ok '... and pods have their network' connected
		ufw reload >/dev/null 2>&1
		ok '... also after a reload' connected
		ufw --force disable >/dev/null 2>&1 || :
	else
		skip 'ufw' "it cannot be enabled here: $(tail -n 1 /run/ufw.log)"
	fi
	over
	iptables -P FORWARD ACCEPT
else
	skip 'ufw' 'it is not installed'
fi

# ---- nf_tables: named ----------------------------------------------------------------------------------

nft -f - <<'END'
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
	}
}
END
first
named 'a chain of nf_tables' "chain 'forward' of table 'inet filter' has the policy drop"
eval "$(cure)"
nft insert rule inet filter forward ip daddr 10.244.1.0/24 accept
ok '... and the cure cures' connected
over

if iptables-legacy -P FORWARD DROP 2>/dev/null; then
	first
	named 'iptables-legacy' 'iptables-legacy has the FORWARD policy drop'
	cure=$(cure)
	eval "${cure%%;*}"
	iptables-legacy -I FORWARD -d 10.244.1.0/24 -j ACCEPT
	ok '... and the cure cures' connected
	iptables-legacy -F FORWARD
	iptables-legacy -P FORWARD ACCEPT
	over
	first
	silent 'iptables-legacy that accepts'
	over
else
	skip_kernel 'iptables-legacy' 'it has no ip_tables'
fi

# ---- firewalld ---------------------------------------------------------------------------------------------

if command -v firewalld >/dev/null && command -v dbus-daemon >/dev/null; then
	mkdir -p /run/dbus
	export DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/dbus/bus
	cat >/run/dbus/conf <<-'END'
		<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
			"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
		<busconfig><type>system</type><listen>unix:path=/run/dbus/bus</listen>
		<policy context="default"><allow own="*"/><allow send_destination="*"/><allow user="*"/><allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/><allow send_type="method_call"/><allow send_type="signal"/></policy></busconfig>
	END
	dbus-daemon --config-file=/run/dbus/conf --nofork --nopidfile >/run/dbus.log 2>&1 &
	mount -t tmpfs -o mode=0755 tmpfs /mnt
	[[ ! -d /etc/firewalld ]] || cp -a /etc/firewalld/. /mnt
	mkdir -p /etc/firewalld
	mount --move /mnt /etc/firewalld
	firewalld --nofork --nopid >/run/firewalld.log 2>&1 &
	for ((i = 0; i < 200; i++)); do
		! timeout 5 firewall-cmd --state >/dev/null 2>&1 || break
		sleep 0.1
	done
	if timeout 5 firewall-cmd --state >/dev/null 2>&1; then
		first
		named 'firewalld' 'firewalld rejects'
		eval "$(cure)" >/dev/null
		ok '... and the cure cures: to the outside' can_ping - a 192.0.2.9
		ok '... and between pods' can_ping - a "$(pod_ip - b)"
		firewall-cmd --zone=trusted --add-source=192.0.2.9 >/dev/null
		ok '... and from the node whose address was added' connected
	else
		skip 'firewalld' "it does not start here: $(tail -n 1 /run/firewalld.log)"
	fi
	jobs -p | xargs -r kill 2>/dev/null || :
else
	skip 'firewalld' 'it is not installed'
fi

done_testing
