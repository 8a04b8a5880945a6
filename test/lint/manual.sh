#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# flatnetd(8) names the keys and flags that there are, and no others; the example has none but these.
# flatnetctl(1) names its commands and options.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"
cd "${0%/*}/../.."

# The tables of agent/conf.c: those below the first level have their object's name.
keys_in_source() {
	awk '
		/^static const struct flat_json_field [a-z_]*_fields\[\]/ {
			table = $5
			sub(/_fields.*/, "", table)
			prefix = table == "conf" ? "" : table "."
		}
		match($0, /\.key = "[^"]*"/) {
			key = substr($0, RSTART + 8, RLENGTH - 9)
			if ($0 !~ /FLAT_JSON_OBJECT,/)
				print prefix key
		}
	' agent/conf.c | sort
}

keys_in_manual() {
	sed -n '/^\.Sh CONFIGURATION/,/^\.Sh SIGNALS/s/^\.It Li \(.*\) No (.*/\1/p' doc/flatnetd.8 |
		tr -d ' ' | tr ',' '\n' | sort
}

flags_in_source() {
	sed -n 's/^.*{ "\([a-z-]*\)", \(required\|no\)_argument.*/\1/p' agent/conf-flags.c | sort
}

flags_in_manual() {
	sed -n '/^\.Sh OPTIONS/,/^\.Sh CONFIGURATION/s/^\.It Fl -\([a-z-]*\).*/\1/p' doc/flatnetd.8 | sort
}

flags_in_help() {
	sed -n 's/^.*"  --\([a-z-]*\).*/\1/p' agent/conf-flags.c | sort
}

cmp_ok "$(keys_in_source | wc -l)" -gt 40 'the tables were read'
is "$(keys_in_manual)" "$(keys_in_source)" 'keys of the configuration'
cmp_ok "$(flags_in_source | wc -l)" -eq 18 'the flags were read'
is "$(flags_in_manual)" "$(flags_in_source)" 'flags in the manual'
is "$(flags_in_help)" "$(flags_in_source)" 'flags in the help'

unknown=$(jq -r '[paths(scalars)] | .[] | map(select(type == "string")) |
	select(any(.[]; startswith("_")) | not) | join(".")' conf/flatnetd.json | sort -u |
	comm -23 - <(keys_in_source))
is "$unknown" '' 'keys of conf/flatnetd.json'

# flatnetctl(1) has the commands and options of the tables, and no others.
is "$(sed -n '/^\.Sh COMMANDS/,/^\.Sh OPTIONS/s/^\.It Cm //p' doc/flatnetctl.1 | sed 's/ \(Ar\|Cm\) .*//' | sort)" \
	"$(sed -n 's/^\t\.name = "\([a-z ]*\)",$/\1/p' ctl/cmd-*.c | sort)" 'commands of flatnetctl'
is "$(sed -n '/^\.Sh OPTIONS/,/^\.Sh ENVIRONMENT/s/^\.It Fl -\([a-z-]*\).*/\1/p' doc/flatnetctl.1 | sort)" \
	"$(sed -n '/flat_options\[\] = {/,/^};/s/^\t{ \.name = "\([a-z-]*\)",.*/\1/p' ctl/options.c | sort)" 'options of flatnetctl'
done_testing
