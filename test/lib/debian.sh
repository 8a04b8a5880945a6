# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# debian.sh - Debian packages of any suite, unpacked into folders, for test/tools/get-*.sh. Nothing is
# installed and the system's apt state is not touched: every apt call runs with a private APT_CONFIG.
# The mirror is the one that this machine's apt uses for Debian.
#
# Who sources this has set work (a folder to work in) and arch, and has the functions say and die.
#
#	deb SUITE PACKAGE TREE              fetches a binary package (apt checks its hash) and unpacks it
#	                                    into TREE; sets version
#	source_of SUITE PACKAGE FOLDER [OPTION]...   fetches the files of a source package, with these
#	                                    options of apt-get
#	repo deb|deb-src SUITE              makes the private apt of a suite, APT_CONFIG
#	                                    $work/apt/TYPE-SUITE/apt.conf, its index fetched once

# shellcheck disable=SC2154  # work, arch

# The base URI of the Debian archive: what apt itself reports for its downloaded indexes, or, where
# there are none, the first source that names a suite of Debian's with component main.
mirror() {
	# shellcheck disable=SC2016  # the format is apt's to expand
	m=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | sed -n 1p) || :
	if [ -z "$m" ]; then
		list='' parts=''
		eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
		m=$(for f in "$list" "$parts"/*.list "$parts"/*.sources; do
			[ -r "$f" ] || continue
			case $f in
			*.sources)      # deb822: fold each stanza to one line "deb URI SUITES... COMPONENTS..."
				awk 'function flush(   i, n, u) {
					if (type ~ /(^| )deb( |$)/ && on != "no") { n = split(uri, u, " "); for (i = 1; i <= n; i++) print "deb", u[i], suite, comp }
					type = uri = suite = comp = on = key = "" }
				     /^#/ { next } /^[ \t]*$/ { flush(); next }
				     /^[^ \t]/ { key = tolower($1); sub(/^[^:]*:[ \t]*/, "") }
				     key == "types:" { type = type " " $0 } key == "uris:" { uri = uri " " $0 } key == "suites:" { suite = suite " " $0 }
				     key == "components:" { comp = comp " " $0 } key == "enabled:" { on = tolower($0) }
				     END { flush() }' "$f" ;;
			*)	sed -n 's/^[ \t]*deb[ \t]\{1,\}\(\[[^]]*\][ \t]*\)\{0,1\}/deb /p' "$f" ;;
			esac
		done | awk '$2 !~ /^cdrom:/ && / main( |$)/ { for (i = 3; i <= NF; i++)
			if ($i ~ /^(oldstable|stable|testing|unstable|sid|bookworm|trixie|forky)$/) { if (!found++) print $2; break } }') || :
	fi
	[ -n "$m" ] || die "apt's sources on this machine name no Debian archive (suite stable, bookworm, sid ... with component main)"
	printf '%s\n' "${m%/}"
}

# Signatures are checked as always; only the age of the index is not (a mirror may serve sid late).
repo() {
	r=$work/apt/$1-$2
	[ ! -e "$r/ready" ] || return 0
	[ -n "${uri:-}" ] || uri=$(mirror) || exit 1
	mkdir -p "$r/lists/partial" "$r/cache/archives/partial" "$r/none"
	: >"$r/status"
	{
		printf 'Types: %s\nURIs: %s\nSuites: %s\nComponents: main\nArchitectures: %s\n' "$1" "$uri" "$2" "$arch"
		for k in /usr/share/keyrings/debian-archive-keyring.gpg /usr/share/keyrings/debian-archive-keyring.pgp; do
			[ ! -r "$k" ] || { printf 'Signed-By: %s\n' "$k"; break; }
		done
	} >"$r/private.sources"
	# Of the system's own configuration only how to reach the mirror is taken over (proxies, time limits).
	{
		apt-config dump | grep -E '^Acquire::(http|https|Retries|ForceIPv[46])[: ]' || :
		cat <<-E
		Dir::Etc::main "/dev/null"; Dir::Etc::parts "$r/none";
		Dir::Etc::sourcelist "$r/private.sources"; Dir::Etc::sourceparts "$r/none";
		Dir::Etc::preferences "/dev/null"; Dir::Etc::preferencesparts "$r/none";
		Dir::State "$r"; Dir::State::lists "$r/lists"; Dir::State::status "$r/status";
		Dir::Cache "$r/cache"; Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";
		Acquire::Languages "none"; Acquire::Check-Valid-Until "false";
		APT::Update::Error-Mode "any"; APT::Sandbox::User "root";
		E
	} >"$r/apt.conf"
	say "reading the index of $2 ($1)"
	APT_CONFIG=$r/apt.conf apt-get -q update >"$r/log" 2>&1 ||
		die "cannot read the index of suite $2 at $uri: $(sed -n '/^[EW]:/p' "$r/log" | sed -n 1,3p | tr '\n' ' ')"
	: >"$r/ready"
}

# What apt said; a 404 for a file that the index names is a mirror whose index lags behind its files.
why() {
	sed -n '/^E:/{p;q}' "$1"
	! grep -q ' 404 ' "$1" || echo "(the mirror's index is older than its files: try again when it has caught up)"
}

deb() {
	repo deb "$1"
	d=$work/deb/$2; rm -rf "$d"; mkdir -p "$d" "$3"
	say "fetching $2 from $1"
	(cd "$d" && APT_CONFIG=$work/apt/deb-$1/apt.conf apt-get -q download "$2") >"$d.log" 2>&1 ||
		die "package $2 cannot be had from $1: $(why "$d.log")"
	version=$(dpkg-deb -f "$d"/*.deb Version)
	dpkg-deb -x "$d"/*.deb "$3" || die "cannot unpack $2 $version"
	rm -rf "$d"
}

source_of() {
	repo deb-src "$1"
	say "fetching the source of $2 from $1"
	mkdir -p "$3"
	(cd "$3" && APT_CONFIG=$work/apt/deb-src-$1/apt.conf apt-get -q source --download-only "${@:4}" "$2") >"$3.log" 2>&1 ||
		die "the source of $2 cannot be had from $1: $(why "$3.log")"
}
