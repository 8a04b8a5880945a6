// SPDX-License-Identifier: Apache-2.0
/*
 * What may stand in etcd: keys, records, flannel's configuration, base64. No crash, no leak; what
 * is read and written again is read as the same.
 *
 * Input: a byte (0: base64, 1: flannel's configuration, else a record: so many bytes are its key),
 * the text.
 */
#include "../../agent/base64.h"
#include "../../agent/etcd-record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

static void base64(const char *text, size_t size)
{
	char *bytes = malloc(size / 4 * 3 + 1), *again = malloc(FLAT_BASE64_SIZE(size));
	size_t len = 0;
	if (bytes && again && flat_base64_decode(text, size, bytes, &len)) {
		must(flat_base64_encode(bytes, len, again) == size, "the same length");
		must(!memcmp(again, text, size), "the same text");
	}
	free(bytes);
	free(again);
}

static void record(const char *key, const char *value, size_t size, struct flat_arena *arena)
{
	struct flat_record record, again;
	struct flat_err err = { 0 };
	char text[FLAT_RECORD_KEY];
	int r = flat_record_parse(key, value, size, arena, &record, &err);
	must(record.node.name && strlen(record.node.name) <= FLAT_NODE_NAME_MAX, "a bounded name");
	must(r >= 0 || err.msg[0], "a fault is told");
	if (r < 0 || !record.named)
		return;
	char *printed = flat_record_print(&record.node, FLAT_BACKEND_VXLAN, 1);
	must(printed && flat_record_parse(flat_record_key_text(record.cidrs, text), printed,
					  strlen(printed), arena, &again, &err) >= 0,
	     "what is written can be read");
	must(!strcmp(again.node.name, record.node.name), "the same name");
	must(!memcmp(again.node.addresses, record.node.addresses, sizeof again.node.addresses),
	     "the same addresses");
	free(printed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct flat_arena arena = { 0 };
	struct flat_err err = { 0 };
	if (!size)
		return 0;
	const char *text = (const char *)data + 1;
	size_t len = size - 1, cut = data[0] < len ? data[0] : len;
	if (data[0] == 0) {
		base64(text, len);
	} else if (data[0] == 1) {
		struct flat_netconf conf;
		if (flat_netconf_parse(text, len, &arena, &conf, &err) >= 0)
			for (int f = 0; f < FLAT_FAMILIES; f++)
				must(flat_subnets_check(&conf.pools[f], &err) >= 0,
				     "what is accepted is right");
	} else {
		char *key = strndup(text, cut);
		if (key)
			record(key, text + cut, len - cut, &arena);
		free(key);
	}
	flat_arena_free(&arena);
	return 0;
}
