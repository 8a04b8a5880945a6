#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Rooms use only what lies below them, and each library is known to one room.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
cd "${0%/*}/../.."

# room: the headers of include/flatnet that it may include. A header is a room's contract.
declare -A may=(
	[lib/base]='base'
	[lib/state]='base state'
	[lib/cni]='base cni'
	[lib/entry]='base cni entry'
	[lib/net]='base net'
	[lib/cluster]='base state cni net cluster'
	[ipam]='base state cni ipam'
	[lib/plan]='base state cni net cluster ipam plan'
	[plugin]='base state cni net cluster ipam plan'
	[agent]='base state cni net cluster ipam plan'
	[ctl]='base state cni net cluster ipam plan'
)
# A main is on top of the house, whatever room it lives in.
may_main='base state cni entry net cluster ipam plan'

check() { # FILE ALLOWED
	local file=$1 header bad=''
	while IFS= read -r header; do
		[[ " $2 " == *" $header "* ]] || bad+=" $header"
	done < <(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]flatnet\/\([a-z0-9_-]*\)\.h[>"].*/\1/p' "$file")
	is "$bad" '' "$file includes only what lies below"
}

shopt -s nullglob
for room in "${!may[@]}"; do
	for file in "$room"/*.[ch]; do
		if [[ $file == */main.c ]]; then
			check "$file" "$may_main"
		else
			check "$file" "${may[$room]}"
		fi
	done
done
for file in include/flatnet/*.h; do
	name=$(basename "$file" .h)
	case $name in
	plan) check "$file" "${may[lib/plan]}" ;;
	ipam) check "$file" "${may[ipam]}" ;;
	*) check "$file" "${may[lib/$name]:-base $name}" ;;
	esac
	is "$(grep -nE '(struct (nl_|rtnl_|nftnl_|mnl_)|cJSON)' "$file" || :)" '' "$file knows no type of a library"
done

only_in() { # REGEX ROOM WHAT
	local found
	found=$(grep -lE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($1)" -r include lib ipam plugin agent ctl --include='*.[ch]' |
		grep -v "^$2/" || :)
	is "$found" '' "$3 only in $2"
}
only_in 'netlink/|libmnl/|libnftnl/' lib/net 'libnl, libmnl and libnftnl'
only_in 'cjson/' lib/cni 'cJSON'
only_in 'gnutls/|http_parser\.h|yajl/|yaml\.h|microhttpd\.h|ev\.h' agent 'GnuTLS, http-parser, yajl, libyaml, libmicrohttpd and libev'

# Libraries do not print, exit or read the environment; lib/entry is what the mains share.
found=$(grep -nE '(^|[^a-z_])(printf\(|fprintf\(std|puts\(|perror\(|exit\(|getenv\(|secure_getenv\(|setenv\()' \
	lib/*/*.c ipam/*.c plugin/*.c agent/*.c ctl/*.c | grep -vE '^(lib/entry/|[a-z/]*/main\.c:)|^[^:]*:[0-9]*:[[:space:]]*(/?\*|//)' || :)
is "$found" '' 'only a main prints, exits or reads the environment'

# O_CLOEXEC everywhere: what opens a descriptor says so.
found=$(grep -nE '(^|[^a-z_>])(open|openat|socket|accept4|pipe2|dup3|epoll_create1|inotify_init1|memfd_create|fcntl)\(' \
	lib/*/*.c ipam/*.c plugin/*.c agent/*.c ctl/*.c | grep -vE 'CLOEXEC|F_SETFD|F_GETFD|F_GETFL|F_SETFL|F_GETPIPE|F_SETPIPE' || :)
[[ -z $found ]] || found=$(while IFS=: read -r file line _; do
	sed -n "$line,$((line + 2))p" "$file" | grep -q CLOEXEC || printf '%s:%s\n' "$file" "$line"
done <<<"$found")
is "$found" '' 'descriptors are born O_CLOEXEC'
done_testing
