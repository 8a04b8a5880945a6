#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# lib/net and VXLAN devices: the program that meson builds from test-net-overlay.c.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"

program=${FLAT_BIN:-}/../test/netns/test-net-overlay
[[ -x $program ]] || skip_all 'test-net-overlay is not there: build it with meson (it needs cmocka)'
trap - EXIT
CMOCKA_MESSAGE_OUTPUT=TAP exec "$program"
