// SPDX-License-Identifier: Apache-2.0
/*
 * What an API server may send, and what a kubeconfig may hold: no crash, no leak, and the same is
 * heard however the text is cut into pieces.
 *
 * Input: a byte (0: kubeconfig; else JSON in pieces of so many bytes), the text.
 */
#include "../../agent/kube-node.h"
#include "../../agent/kubeconfig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "does not hold: %s\n", what);
	abort();
}

static void hear(void *arg, const struct flat_kube_object *object)
{
	uint64_t *hash = arg;
	must(strlen(object->name) <= FLAT_NODE_NAME_MAX, "a name is bounded");
	must(object->node.pod_cidr_count <= FLAT_NODE_CIDRS, "subnets are counted");
	*hash = flat_hash(*hash, object->type, strlen(object->type));
	*hash = flat_hash(*hash, object->name, strlen(object->name));
	*hash = flat_hash(*hash, object->fault, strlen(object->fault));
	*hash = flat_hash(*hash, object->node.pod_cidrs,
			  object->node.pod_cidr_count * sizeof *object->node.pod_cidrs);
	*hash = flat_hash(*hash, object->node.addresses, sizeof object->node.addresses);
	*hash = flat_hash(*hash, object->annotations, sizeof object->annotations);
}

/* Returns whether it is JSON. */
static bool read_pieces(const uint8_t *data, size_t size, size_t piece, bool flannel,
			uint64_t *ret_hash)
{
	const struct flat_cluster_conf conf = { .vni = 1, .flannel = flannel };
	struct flat_kube_reader *reader;
	struct flat_err err = { 0 };
	int r = flat_kube_reader_open(&conf, "self", hear, ret_hash, &reader, &err);
	must(r >= 0, "a reader is opened");
	for (size_t i = 0; i < size && r >= 0; i += piece)
		r = flat_kube_reader_feed(reader, (const char *)data + i,
					  size - i < piece ? size - i : piece, &err);
	if (r >= 0)
		r = flat_kube_reader_end(reader, &err);
	must((r < 0) == (err.code != 0), "a failure has a code");
	const char *next = flat_kube_reader_continue(reader);
	if (next)
		*ret_hash = flat_hash(*ret_hash, next, strlen(next));
	flat_kube_reader_close(reader);
	return r >= 0;
}

static void read_kubeconfig(const uint8_t *data, size_t size)
{
	char path[64];
	int fd = memfd_create("kubeconfig", MFD_CLOEXEC);
	must(fd >= 0 && write(fd, data, size) == (ssize_t)size, "a file is made");
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	struct flat_arena arena = { 0 };
	struct flat_http_target target = { 0 };
	struct flat_err err = { 0 };
	int r = flat_kubeconfig_read(path, NULL, &arena, &target, &err);
	must((r < 0) == (err.code != 0), "a failure has a code");
	must(r < 0 || target.urls[0][0], "there is a server");
	flat_arena_free(&arena);
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (!data[0]) {
		read_kubeconfig(data + 1, size - 1);
		return 0;
	}
	uint64_t whole = 0, pieces = 0;
	bool flannel = data[0] & 1;
	bool valid = read_pieces(data + 1, size - 1, size, flannel, &whole);
	must(read_pieces(data + 1, size - 1, data[0], flannel, &pieces) == valid,
	     "pieces are as good as the whole");
	must(!valid || whole == pieces, "the same is heard");
	char message[64];
	flat_auto_free char *body = strndup((const char *)data + 1, size - 1);
	flat_kube_message(body, message, sizeof message);
	return 0;
}
