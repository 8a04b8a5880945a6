#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# lib/cluster by itself, on the kernel of this machine: the program that meson builds from test-cluster.c.
set -euo pipefail
. "${0%/*}/../lib/tap.sh"

program=${FLAT_BIN:-}/../test/netns/test-cluster
[[ -x $program ]] || skip_all 'test-cluster is not there: build it with meson (it needs cmocka)'
trap - EXIT
CMOCKA_MESSAGE_OUTPUT=TAP exec "$program"
