# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# build.sh - what the commands have in common: where things are, root, packages, builds.
#
#	FLAT_ROOT      the source tree
#	FLAT_BUILD     the build folder (build/ in the tree, unless the environment says otherwise);
#	               variants are beside it: build-clang/, build-sanitize/, build-fuzz/
#	FLAT_WERROR=1  compiler warnings are errors
#
#	need_root WHY            says how to run the command and exits unless root
#	build VARIANT            configures and builds; VARIANT: plain, clang, sanitize, fuzz.
#	                         Sets built_in; all output goes to a log, shown when it fails
#	collect_plugins DIR      links the built plugins side by side in DIR, as in /opt/cni/bin,
#	                         and flatnetd and flatnetctl

FLAT_ROOT=$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd)
FLAT_BUILD=${FLAT_BUILD:-$FLAT_ROOT/build}
export FLAT_ROOT FLAT_BUILD
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

need_root() {
	((EUID == 0)) && return 0
	printf '%s needs root %s: sudo %s\n' "${0##*/}" "$1" "$0" >&2
	exit 2
}

build() {
	local variant=$1 options=(-Dwerror=false) cc=gcc log
	built_in=$FLAT_BUILD
	[[ $variant == plain ]] || built_in+=-$variant
	[[ -z ${FLAT_WERROR:-} ]] || options=(-Dwerror=true)
	[[ -z ${FLAT_MUST_RUN:-} ]] || options+=(-Dagent=enabled)
	case $variant in
	clang)
		cc=clang
		;;
	sanitize)
		cc=clang
		options+=('-Db_sanitize=address,undefined' -Db_lundef=false)
		;;
	fuzz)
		cc=clang
		options+=(-Dfuzz=true)
		;;
	esac
	mkdir -p "$built_in"
	log=$built_in/build.log
	(
		if [[ -e $built_in/build.ninja ]]; then
			meson configure "$built_in" "${options[@]}"
		else
			CC=$cc meson setup "${options[@]}" "$built_in" "$FLAT_ROOT"
		fi
		ninja -C "$built_in"
	) </dev/null >"$log" 2>&1 || {
		printf '\nbuilding in %s failed; the end of %s:\n\n' "$built_in" "$log" >&2
		tail -n 40 "$log" >&2
		return 1
	}
	# Under sudo the tree is somebody's: let them go on with it.
	[[ -z ${SUDO_UID:-} ]] || chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$built_in"
}

collect_plugins() {
	mkdir -p "$1"
	ln -sf "$built_in/plugin/flatnet" "$built_in/ipam/flatnet-ipam" "$1/"
	[[ ! -x $built_in/agent/flatnetd ]] || ln -sf "$built_in/agent/flatnetd" "$1/"
	ln -sf "$built_in/ctl/flatnetctl" "$1/"
}
