#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What lib/net tells of the kernel: the program that meson builds from test-net-events.c.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"

program=${FLAT_BIN:-}/../test/netns/test-net-events
[[ -x $program ]] || skip_all 'test-net-events is not there: build it with meson (it needs cmocka)'
trap - EXIT
CMOCKA_MESSAGE_OUTPUT=TAP exec "$program"
