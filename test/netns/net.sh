#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# lib/net by itself, on the kernel of this machine: the program that meson builds from test-net.c.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"

program=${FLAT_BIN:-}/../test/netns/test-net
[[ -x $program ]] || skip_all 'test-net is not there: build it with meson (it needs cmocka)'
trap - EXIT
CMOCKA_MESSAGE_OUTPUT=TAP exec "$program"
