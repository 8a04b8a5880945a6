#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Shell scripts, examples, and the rooms' READMEs.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
cd "${0%/*}/../.."

mapfile -t scripts < <(
	find test .ci -type f -not -name '*.md' | sort | while IFS= read -r file; do
		if [[ $file == *.sh ]] || head -c 32 "$file" | grep -qaE '^#!.*(ba)?sh$'; then
			printf '%s\n' "$file"
		fi
	done
)
for file in "${scripts[@]}"; do
	ok "shellcheck: $file" shellcheck "$file"
	if [[ $file != test/lib/* ]]; then
		ok "$file stops at errors" grep -qE '^set -euo pipefail$' "$file"
	fi
	# An argument list may be aligned by spaces after its tabs, but no line begins with them.
	fails "$file is indented by tabs" grep -nE '^ +[^ *]' "$file"
done

for file in conf/*.conflist; do
	ok "$file is a network configuration list" \
		jq -e '(.cniVersion | type == "string") and (.name | type == "string") and
			(.plugins | length > 0) and all(.plugins[]; .type | type == "string")' "$file"
done

for room in lib/base lib/state lib/cni lib/entry lib/net lib/plan ipam plugin agent ctl conf; do
	if [[ -r $room/README.md ]]; then
		cmp_ok "$(wc -l <"$room/README.md")" -le 10 "$room/README.md has at most ten lines"
	else
		fail "$room has a README.md"
	fi
done
done_testing
