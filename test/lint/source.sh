#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Format and static analysis of the C sources.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
cd "${0%/*}/../.."

log=$(mktemp)
at_exit rm -f "$log"
mapfile -t sources < <(find include lib ipam plugin agent ctl test -name '*.[ch]' | sort)
mapfile -t units < <(find lib ipam plugin agent ctl -name '*.c' | sort)

for file in "${sources[@]}"; do
	case $(head -n 1 "$file") in
	'// SPDX-License-Identifier: Apache-2.0' | '/* SPDX-License-Identifier: Apache-2.0 */') ;;
	*) fail "$file begins with its licence" ;;
	esac
done
pass "licences of ${#sources[@]} files looked at"

format() {
	clang-format --dry-run -Werror "${sources[@]}" >"$log" 2>&1 && return 0
	grep -E ': (error|warning):' "$log" | cut -d: -f1,2 | uniq
	echo 'cure: clang-format -i (version 14, as in Debian 12)'
	return 1
}
ok "clang-format has nothing to say about ${#sources[@]} files" format

tidy() {
	printf '%s\n' "${units[@]}" |
		xargs -P "$(nproc)" -n 4 clang-tidy -p "$FLAT_BUILD" --quiet >"$log" 2>/dev/null && return 0
	grep -E ': (error|warning):' "$log" | sort -u
	return 1
}
if [[ -r $FLAT_BUILD/compile_commands.json ]]; then
	ok "clang-tidy finds nothing in ${#units[@]} files" tidy
else
	skip 'clang-tidy' "there is no build in $FLAT_BUILD"
fi

# Its idea of a leak does not know __attribute__((cleanup)), either; NULL is a pointer here, not 0.
ok "cppcheck finds nothing in ${#units[@]} files" \
	cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability --inline-suppr \
	--inconclusive --std=c11 --suppress=missingIncludeSystem --suppress=unmatchedSuppression \
	--suppress=memleak --suppress=resourceLeak --suppress=varFuncNullUB \
	--suppress=normalCheckLevelMaxBranches -D_GNU_SOURCE '-DFLAT_VERSION="0"' '-DFLAT_PLUGIN_DIR="/opt/cni/bin"' -Iinclude -j "$(nproc)" "${units[@]}"
done_testing
