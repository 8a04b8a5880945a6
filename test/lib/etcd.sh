# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# etcd.sh - members of etcd with TLS on, and nodes that use them, for the tests of the suite etcd.
# Everything is in the sandbox: member N listens on 127.0.0.N. Source it after tap.sh.
#
# Environment, set by test/run: FLAT_DRIVER, the program test/etcd/source-driver.
#
#	make_pki                      $pki: a CA, certificates of the members and of a client, and a
#	                              client's of a CA that nobody knows
#	start_etcd N [MEMBERS [ARG...]]   starts member N of a cluster of MEMBERS (1), and waits until
#	                              it answers
#	kill_etcd N [SIGNAL]          (KILL) and waits for its end
#	cut_etcd N                    the other members cannot talk with it any more, nor it with them
#	ctl [ARG...]                  etcdctl on member $ctl_member (1)
#	records [PREFIX]              all records: KEY<TAB>VALUE, keys without PREFIX/subnets/
#	start_node NAME [ARG...]      a node that uses member 1 and the client's certificate: see
#	                              test/etcd/source-driver.c. $address_NUMBER of n3 is 192.0.2.3
#	stop_node NAME [SIGNAL]       (TERM) and waits for its end
#	view NAME                     the nodes that NAME knows now, sorted: the driver's lines
#	subnets_of NAME [PREFIX]      what etcd has for the node of that name: KEY
#	told NAME [REGEX]             what the node said from its start on
#	has_told NAME REGEX           for `eventually`
#	all_end_well                  asserts that the nodes end when they are told to, without a
#	                              word of a sanitizer. Before done_testing

declare -A etcd_pid=() driver_pid=()
etcd_dir=$(mktemp -d "${TMPDIR:-/tmp}/flat-etcd.XXXXXX")
pki=$etcd_dir/pki
chmod 0755 "$etcd_dir"
ctl_member=1
prefix=/flatnet

stop_all_processes() {
	local pid
	for pid in "${driver_pid[@]}" "${etcd_pid[@]}"; do
		kill -KILL "$pid" 2>/dev/null || :
	done
	rm -rf "$etcd_dir"
}
at_exit stop_all_processes

# certificate NAME CA EXTENSIONS: a key and a certificate in $pki
certificate() {
	openssl ecparam -name prime256v1 -genkey -noout -out "$pki/$1.key"
	openssl req -new -key "$pki/$1.key" -subj "/O=flatnet test/OU=$1" |
		openssl x509 -req -CA "$pki/$2.crt" -CAkey "$pki/$2.key" -CAcreateserial -days 2 \
			-extfile <(printf '%s\n' "$3") -out "$pki/$1.crt" 2>/dev/null
}

make_pki() {
	local ca names='' n
	mkdir -p "$pki"
	for ca in ca other-ca; do
		openssl ecparam -name prime256v1 -genkey -noout -out "$pki/$ca.key"
		openssl req -x509 -new -key "$pki/$ca.key" -subj "/CN=flatnet test $ca" -days 2 -out "$pki/$ca.crt"
	done
	for n in 1 2 3 9; do
		names+=",IP:127.0.0.$n"
	done
	certificate member ca "subjectAltName=DNS:localhost$names
extendedKeyUsage=serverAuth,clientAuth"
	certificate client ca 'extendedKeyUsage=clientAuth'
	certificate stranger other-ca 'extendedKeyUsage=clientAuth'
	chmod 0644 "$pki/member.key" # of a test, for the members' users
}

start_etcd() {
	local n=$1 members=${2:-1} cluster='' i
	shift
	(($# == 0)) || shift
	for ((i = 1; i <= members; i++)); do
		cluster+="${cluster:+,}m$i=https://127.0.0.$i:2380"
	done
	# A user of its own for each member: so nftables can tell them apart.
	mkdir -p "$etcd_dir/m$n"
	chown -R "$((64000 + n))" "$etcd_dir/m$n"
	# 127.0.0.9 is member 1's back door: for ctl, while the front is shut.
	setpriv --reuid $((64000 + n)) --clear-groups -- \
		etcd --name "m$n" --data-dir "$etcd_dir/m$n" --initial-cluster "$cluster" \
		--listen-client-urls "https://127.0.0.$n:2379$( ((n != 1)) || printf ',https://127.0.0.9:2379')" \
		--advertise-client-urls "https://127.0.0.$n:2379" \
		--listen-peer-urls "https://127.0.0.$n:2380" --initial-advertise-peer-urls "https://127.0.0.$n:2380" \
		--cert-file "$pki/member.crt" --key-file "$pki/member.key" --trusted-ca-file "$pki/ca.crt" \
		--client-cert-auth --peer-cert-file "$pki/member.crt" --peer-key-file "$pki/member.key" \
		--peer-trusted-ca-file "$pki/ca.crt" --peer-client-cert-auth \
		--unsafe-no-fsync "$@" </dev/null >>"$etcd_dir/m$n.log" 2>&1 &
	etcd_pid[$n]=$!
	disown
	if ((members == 1)); then
		await_etcd "$n"
	fi
}

await_etcd() {
	local end=$((SECONDS + 30))
	until ETCDCTL_API=3 etcdctl --endpoints "https://127.0.0.$1:2379" --cacert "$pki/ca.crt" \
		--cert "$pki/client.crt" --key "$pki/client.key" --command-timeout=2s \
		endpoint health >/dev/null 2>&1; do
		if ((SECONDS >= end)); then
			tail -n 20 "$etcd_dir/m$1.log" >&2
			return 1
		fi
		sleep 0.1
	done
}

kill_etcd() {
	local pid=${etcd_pid[$1]}
	kill "-${2:-KILL}" "$pid"
	while [[ -d /proc/$pid ]]; do
		sleep 0.05
	done
	unset "etcd_pid[$1]"
}

cut_etcd() {
	nft -f - <<-EOF
		table inet cut {
			chain output {
				type filter hook output priority 0
				meta skuid $((64000 + $1)) tcp dport 2380 drop
				meta skuid $((64000 + $1)) tcp sport 2380 drop
				ip daddr 127.0.0.$1 tcp dport 2380 drop
			}
		}
	EOF
}

ctl() {
	ETCDCTL_API=3 etcdctl --endpoints "https://127.0.0.$ctl_member:2379" --cacert "$pki/ca.crt" \
		--cert "$pki/client.crt" --key "$pki/client.key" --command-timeout=10s "$@"
}

records() {
	ctl get --prefix "${1:-$prefix}/subnets/" -w json |
		jq -r --arg prefix "${1:-$prefix}/subnets/" \
			'.kvs[]? | "\(.key | @base64d | ltrimstr($prefix))\t\(.value | @base64d)"'
}

start_node() {
	local name=$1 number=${1//[!0-9]/}
	shift
	[[ ! -e $etcd_dir/$name.out ]] || cat "$etcd_dir/$name.out" >>"$etcd_dir/former-lives"
	"$FLAT_DRIVER" --name "$name" --address "192.0.2.$number" --prefix "$prefix" \
		--ca "$pki/ca.crt" --cert "$pki/client.crt" --key "$pki/client.key" \
		"${node_options[@]}" "$@" </dev/null >"$etcd_dir/$name.out" 2>&1 &
	driver_pid[$name]=$!
	disown
}
node_options=(--endpoint https://127.0.0.1:2379)

stop_node() {
	local pid=${driver_pid[$1]}
	kill "-${2:-TERM}" "$pid"
	while [[ -d /proc/$pid ]]; do
		sleep 0.02
	done
	unset "driver_pid[$1]"
}

told() {
	grep -E -- "${2:-.}" "$etcd_dir/$1.out" || :
}

has_told() {
	grep -qE -- "$2" "$etcd_dir/$1.out"
}

view() {
	awk '$1 == "begin" { split("", listed); listing = 1 }
		$1 == "node" { node[$2] = $0; listed[$2] = 1 }
		$1 == "gone" { delete node[$2] }
		$1 == "synced" { for (n in node) if (!(n in listed)) delete node[n]; listing = 0 }
		END { for (n in node) print node[n] }' "$etcd_dir/$1.out" | sort
}

subnets_of() {
	records "${2:-$prefix}" | while IFS=$'\t' read -r key value; do
		[[ $(jq -r '.NodeName // empty' <<<"$value" 2>/dev/null) != "$1" ]] || printf '%s\n' "$key"
	done
}

all_end_well() {
	local name
	for name in "${!driver_pid[@]}"; do
		stop_node "$name"
	done
	is "$(grep -hE 'Sanitizer|runtime error' "$etcd_dir"/*.out "$etcd_dir/former-lives" 2>/dev/null | head -n 5)" '' 'all nodes end well'
}
