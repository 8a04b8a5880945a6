# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# image.sh - a container image without a registry.
#
#	make_image FILE [NAME [COMMAND [PROGRAM...]]]
#	    packs the static busybox, and each PROGRAM with the libraries that it is linked with, into
#	    FILE, a tar in the format of `docker save`, which ctr and podman import. NAME is
#	    registry.local/busybox:1 and COMMAND /bin/sh, unless given.

make_image() {
	local file=$1 image=${2:-registry.local/busybox:1} command=${3:-/bin/sh}
	shift "$(($# < 3 ? $# : 3))"
	local work layer config
	work=$(mktemp -d)
	mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/proc" "$work/root/sys" "$work/root/dev" \
		"$work/root/run" "$work/root/tmp" "$work/image"
	cp "$(command -v busybox)" "$work/root/bin/busybox"
	local name library
	for name in sh ping ip sleep cat hostname nc timeout true wget nslookup; do
		ln -s busybox "$work/root/bin/$name"
	done
	for name; do
		cp -L "$name" "$work/root/bin/"
		for library in $(ldd "$name" 2>/dev/null | grep -o '/[^ ]*' || :); do
			mkdir -p "$work/root/${library%/*}"
			cp -L "$library" "$work/root/$library"
		done
	done
	printf 'root:x:0:0:root:/:/bin/sh\n' >"$work/root/etc/passwd"
	printf 'root:x:0:\n' >"$work/root/etc/group"
	tar -C "$work/root" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$work/layer.tar" .
	layer=$(sha256sum <"$work/layer.tar")
	layer=${layer%% *}
	mkdir "$work/image/$layer"
	mv "$work/layer.tar" "$work/image/$layer/layer.tar"
	jq -nc --arg arch "$(dpkg --print-architecture)" --arg layer "sha256:$layer" --arg command "$command" '{
		architecture: $arch, os: "linux", created: "1970-01-01T00:00:00Z",
		config: {Env: ["PATH=/bin"], Cmd: [$command]},
		rootfs: {type: "layers", diff_ids: [$layer]},
		history: [{created: "1970-01-01T00:00:00Z", created_by: "flatnet tests"}]
	}' >"$work/config.json"
	config=$(sha256sum <"$work/config.json")
	config=${config%% *}
	mv "$work/config.json" "$work/image/$config.json"
	jq -nc --arg image "$image" --arg config "$config.json" --arg layer "$layer/layer.tar" \
		'[{Config: $config, RepoTags: [$image], Layers: [$layer]}]' >"$work/image/manifest.json"
	tar -C "$work/image" --owner=0 --group=0 --numeric-owner --mtime=@0 -cf "$file" .
	rm -rf "$work"
}
