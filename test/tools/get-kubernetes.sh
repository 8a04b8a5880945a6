#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Brings a Kubernetes 1.20 and what its nodes need, from Debian packages only, into a folder.
#
#   get-kubernetes.sh [-f|-n] [FOLDER]    default: ${XDG_CACHE_HOME:-$HOME/.cache}/flatnet-kubernetes
#
#   FOLDER/bin/   kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl:
#                 1.20.2, built from bookworm's source package with bullseye's Go 1.15;
#                 pause, from the same source; etcd, containerd 1.7 with its shim and ctr, of trixie;
#                 runc of bookworm
#   FOLDER/cni/   loopback, of trixie's reference plugins: containerd executes it for every pod
#
# Why these: Kubernetes 1.20 is the one that Debian has the source of; it speaks CRI v1alpha2 only, which
# containerd 2 does not; and bookworm's runc runs with both layouts of control groups.
#
# Nothing is installed and the system's apt state is not touched. What is there is kept (-f makes all
# of it anew), so a second call returns at once; -n makes nothing. Seven minutes on two CPUs, 3 GB
# while it builds, 650 MB kept.
# Exit status: 0 all there, 1 something could not be had (the message says what), 2 usage.

set -euo pipefail
umask 022
LC_ALL=C; export LC_ALL
here=$(cd "${0%/*}" && pwd)

KUBERNETES=1.20.2
COMMANDS=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl)

die() { printf 'get-kubernetes.sh: %s\n' "$*" >&2; exit 1; }
say() { printf '%s\n' "$*" >&2; }
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

force='' look=''
while [ $# -gt 0 ]; do
	case $1 in
	-f) force=1 ;;
	-n) look=1 ;;
	-h|--help) usage; exit 0 ;;
	--) shift; break ;;
	-*) usage >&2; exit 2 ;;
	*) break ;;
	esac
	shift
done
[ $# -le 1 ] || { usage >&2; exit 2; }
if [ $# = 1 ]; then dest=$1; else dest=${XDG_CACHE_HOME:-${HOME:?HOME is not set; name a folder}/.cache}/flatnet-kubernetes; fi

has() { # PROGRAM...: are they there? Each is moved into its place when it is whole.
	local f
	for f; do [ -x "$dest/$f" ] || return 1; done
}
ready=(bin/etcd bin/containerd bin/containerd-shim-runc-v2 bin/ctr bin/runc cni/loopback)
built=("${COMMANDS[@]/#/bin/}" bin/pause)

if [ -n "$look" ]; then
	has "${ready[@]}" "${built[@]}" || die "not all of it is in $dest"
	exit 0
fi
[ -z "$force" ] || rm -f "${ready[@]/#/$dest/}" "${built[@]/#/$dest/}"
if ! has "${ready[@]}" "${built[@]}"; then
	for t in apt-get apt-cache apt-config dpkg dpkg-deb dpkg-source flock gcc make rsync tar xz; do
		command -v "$t" >/dev/null || die "$t is missing (test/tools/install kubernetes brings all that is needed)"
	done
fi
mkdir -p "$dest/bin" "$dest/cni" || die "cannot make $dest"
dest=$(cd "$dest" && pwd)
work=$dest/.work
arch=$(dpkg --print-architecture)

exec 9>"$dest/.lock"
flock 9
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
rm -rf "$work"
mkdir -p "$work"
. "$here/../lib/debian.sh"

put() { install -m 755 "$1" "$dest/$2.new" && mv "$dest/$2.new" "$dest/$2"; }

# ---- ready-made ----------------------------------------------------------------------------------

if ! has "${ready[@]}"; then
	for p in etcd-server containerd containernetworking-plugins; do deb trixie $p "$work/tree"; done
	deb bookworm runc "$work/tree"
	for f in usr/bin/etcd usr/bin/containerd usr/bin/containerd-shim-runc-v2 usr/bin/ctr usr/sbin/runc; do
		put "$work/tree/$f" "bin/${f##*/}"
	done
	put "$work/tree/usr/lib/cni/loopback" cni/loopback
fi

# ---- built ---------------------------------------------------------------------------------------

if ! has "${built[@]}"; then
	deb bullseye golang-1.15-src "$work/go"
	deb bullseye golang-1.15-go "$work/go"
	source_of bookworm kubernetes "$work/src"
	tree=$work/kubernetes
	# apt has checked the hashes of what it fetched, against a signed index
	dpkg-source --no-check -x "$work"/src/kubernetes_*.dsc "$tree" >"$work/build.log" 2>&1 || die "cannot unpack the source of kubernetes"
	# the version is written like 1.20.5+really1.20.2-1.1
	v=$(sed -nE '1{s/^[^(]*\(([^)]*)\).*/\1/;s/.*\+really//;s/[-+~].*//p}' "$tree/debian/changelog")
	[ "$v" = "$KUBERNETES" ] || die "bookworm's source is of kubernetes $v, wanted $KUBERNETES"
	# Without this file the build asks git, and finds the wrong repository where FOLDER lies inside one.
	printf "KUBE_GIT_COMMIT='debian'\nKUBE_GIT_TREE_STATE='archive'\nKUBE_GIT_VERSION='v%s'\nKUBE_GIT_MAJOR='1'\nKUBE_GIT_MINOR='20'\n" \
		"$v" >"$work/version"
	say "building kubernetes $v"
	goroot=$work/go/usr/lib/go-1.15
	mkdir -p "$tree/.go/src/k8s.io"
	ln -sfn ../../.. "$tree/.go/src/k8s.io/kubernetes"
	(cd "$tree/.go/src/k8s.io/kubernetes" && env -i PATH="$goroot/bin:$PATH" HOME="$work" GOROOT="$goroot" GOPATH="$tree/.go" \
		GOCACHE="$work/gocache" CGO_ENABLED=0 GO111MODULE=off GOPROXY=off GOFLAGS='' KUBE_GIT_VERSION_FILE="$work/version" \
		make WHAT="${COMMANDS[*]/#/cmd/}" GOLDFLAGS='-s -w') >>"$work/build.log" 2>&1 ||
		die "kubernetes $v does not build: $(tail -n 5 "$work/build.log" | tr '\n' ' ')"
	for p in "${COMMANDS[@]}"; do put "$tree/_output/bin/$p" "bin/$p"; done
	gcc -Os -static -DVERSION=3.2 -o "$work/pause" "$tree/build/pause/linux/pause.c" || die 'pause does not build'
	put "$work/pause" bin/pause
fi

# ---- does it start? ------------------------------------------------------------------------------

o=$("$dest/bin/kubelet" --version 2>&1) || die "kubelet does not start here: $o"
[ "$o" = "Kubernetes v$KUBERNETES" ] || die "kubelet is of another version: $o (-f makes it anew)"
for p in 'etcd --version' 'containerd --version' 'runc --version'; do
	# shellcheck disable=SC2086  # a program and its option
	o=$("$dest/bin/"$p 2>&1) || die "$p does not start here: $o"
done
printf '%s\n' "$dest"
