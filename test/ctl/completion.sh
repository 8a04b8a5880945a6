#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What flatnetctl completion prints, used by the shells themselves.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
. "${0%/*}/../lib/node.sh"
. "${0%/*}/../lib/ctl.sh"

NODE=-
cd /run
commands=$("$FLAT_BIN/flatnetctl" --help | sed -n '/^Commands:/,/^Options:/s/^  \([a-z][a-z ]*[a-z]\).*/\1/p' |
	sed 's/ [ ].*//')
first=$(cut -d' ' -f1 <<<"$commands" | sort -u | tr '\n' ' ')

for shell in bash zsh fish; do
	ctl completion "$shell"
	ctl_exits 0 "completion $shell"
	printf '%s\n' "$ctl_out" >"/run/tmp/$shell"
	ok "$shell takes it" "$shell" -n "/run/tmp/$shell"
	ctl_json completion "$shell"
	is "$(jq -r .script <<<"$ctl_out")" "$(<"/run/tmp/$shell")" '... and JSON has the same'
done
ctl completion csh
ctl_exits 2 'another shell'
like "$ctl_err" 'there are: bash, zsh, fish' '... and which there are'

# shellcheck disable=SC1091
. /run/tmp/bash
in_bash() { # WORD...: what bash offers for the last one
	COMP_WORDS=(flatnetctl "$@") COMP_CWORD=$#
	COMPREPLY=()
	_flatnetctl 2>/dev/null
	printf '%s\n' "${COMPREPLY[@]}" | sed 's/ *$//' | sort -u | tr '\n' ' '
}
cp /run/tmp/zsh /run/tmp/_flatnetctl
# shellcheck disable=SC2016
in_zsh() { # the functions that a completion calls are replaced by ones that print
	zsh -fc '
		_describe() { printf "%s\n" ${verbs%%:*}; }
		_arguments() { printf "%s\n" "$@"; }
		words=(flatnetctl "$@") CURRENT=$(($# + 1)) fpath=(/run/tmp $fpath)
		autoload -Uz _flatnetctl
		_flatnetctl' zsh "$@" | sed 's/^\(--[a-z-]*\).*/\1/' | sort -u | tr '\n' ' '
}
in_fish() {
	HOME=/run/tmp fish -c "source /run/tmp/fish; complete -C 'flatnetctl $*'" | cut -f1 | sort -u | tr '\n' ' '
}
for shell in bash zsh fish; do
	want=$first
	[[ $shell != bash ]] || want=$(tr ' ' '\n' <<<"--help help $first" | grep . | sort -u | tr '\n' ' ')
	is "$("in_$shell" '')" "$want" "$shell: the commands"
	offered=$("in_$shell" ipam '')
	for word in list show check release; do
		like " $offered" " $word " "$shell: ipam $word"
	done
	offered=$("in_$shell" ipam release --)
	like " $offered" ' --leaked ' "$shell: an option of the command"
	unlike " $offered" ' --agent ' "$shell: and none of another one"
	offered=$("in_$shell" status --)
	like " $offered" ' --agent .*--json ' "$shell: options of its own and of all"
	unlike " $offered" ' --leaked ' "$shell: and none of another one"
done
is "$(in_bash st)" 'status ' 'bash: the begin of a command'
is "$(in_bash --color a)" 'always auto ' 'bash: the values of an option'
is "$(in_bash --color always ipam sh)" 'show ' 'bash: an option and its value are no command'
mkdir -p /run/tmp/files
touch /run/tmp/files/a.conflist
is "$(in_bash conf check /run/tmp/files/)" '/run/tmp/files/a.conflist ' 'bash: files'
is "$(in_fish conf check /run/tmp/files/)" '/run/tmp/files/a.conflist ' 'fish: files'
is "$(in_bash status --conf-dir /run/tmp/fi)" '/run/tmp/files ' 'bash: folders'
done_testing
