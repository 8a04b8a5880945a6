// SPDX-License-Identifier: Apache-2.0
#include "store.h"

#include <flatnet/state.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The reference trims white space around the whole, and splits at "\r\n". */
static bool parse(struct flat_record *record, size_t len)
{
	char *text = record->text;
	if (strlen(text) != len)
		return false; /* blocks of zeros, after a power loss */
	record->marked = len && text[len - 1] == '\n';
	while (len && is_space(text[len - 1]))
		text[--len] = '\0';
	while (is_space(*text))
		text++;
	if (!*text)
		return false;
	char *split = strstr(text, "\r\n");
	record->container_id = text;
	record->ifname = "";
	if (split) {
		*split = '\0';
		record->ifname = split + 2;
	}
	record->marked = record->marked && record->ifname[0];
	return true;
}

int flat_record_read(struct flat_store *store, const char *name, struct flat_record *ret_record,
		     struct flat_err *err)
{
	struct flat_err why = { 0 };
	struct flat_record record = { 0 };
	int len = flat_state_read(store->dirfd, name, FLAT_STORE_MAX_RECORD, &record.text, &why);
	if (len == -ENOENT)
		return 0;
	/* these are about us, not about the file */
	if (len == -ENOMEM || len == -EMFILE || len == -ENFILE || len == -EACCES || len == -EPERM) {
		if (err && err->code == FLAT_CODE_NONE)
			*err = why;
		return flat_wrap(err, "reservation in '%s'", store->path);
	}
	if (len < 0)
		return -EBADMSG;
	if (!parse(&record, (size_t)len)) {
		free(record.text);
		return -EBADMSG;
	}
	*ret_record = record;
	return 1;
}

void flat_record_free(struct flat_record *record)
{
	flat_free_ptr(&record->text);
}

void flat_record_hashed(const char *container_id, char *buf)
{
	snprintf(buf, FLAT_STORE_HASHED, "~%016" PRIx64,
		 flat_hash(0, container_id, strlen(container_id)));
}

bool flat_record_is_of(const struct flat_record *record, const char *container_id,
		       const char *ifname)
{
	if (record->ifname[0] && strcmp(record->ifname, ifname))
		return false;
	if (record->container_id[0] != '~')
		return !strcmp(record->container_id, container_id);
	char hashed[FLAT_STORE_HASHED];
	flat_record_hashed(container_id, hashed);
	return !strcmp(record->container_id, hashed);
}

char *flat_record_text(const char *container_id, const char *ifname, bool marked, size_t *ret_len)
{
	char *text = NULL;
	int len = asprintf(&text, "%s\r\n%s%s", container_id, ifname, marked ? "\n" : "");
	if (len < 0)
		return NULL;
	*ret_len = (size_t)len;
	return text;
}
