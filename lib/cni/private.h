/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share and nobody else needs. */
#pragma once

#include <flatnet/cni.h>

bool flat_utf8_is_valid(const char *text, size_t len);
/* A copy with U+FFFD in place of each byte that is not UTF-8, and without a character that is cut
 * at the end: texts pass through fixed buffers. NULL: no memory. The caller frees. */
char *flat_utf8_clean(const char *text);
/* As much of text as fits into size bytes, in quotes, without control characters; "..." tells that
 * it was cut. Returns buf. */
const char *flat_quote(const char *text, char *buf, size_t size);
enum { FLAT_QUOTE = 96 };

/* Is this one JSON text as RFC 8259 has it, within our bounds? Code 6 otherwise. */
int flat_json_scan(const char *text, size_t len, struct flat_err *err);

bool flat_json_is_space(char c); /* what RFC 8259 takes for white space */

/* flat_fail() for want of memory. */
int flat_no_memory(struct flat_err *err);

/* True when text names one of the versions. */
bool flat_version_parse(const char *text, enum flat_version *ret_version);
/* ["0.1.0" "0.2.0" ...], as libcni writes it. */
const char *flat_versions_text(char *buf, size_t size);

/* Addresses with commas between them; a prefix length is passed over. -EINVAL: *ret_bad is none;
 * -E2BIG, -ENOMEM. Cuts text to pieces. */
enum { FLAT_MAX_IP_LIST = 16 };
int flat_ip_list_parse(struct flat_arena *arena, char *text, struct flat_json_list *ret_ips,
		       const char **ret_bad);

/* CNI_ARGS into *ret_args, whose texts live in the arena. lenient: faults are passed over. */
int flat_args_parse(const char *text, bool lenient, struct flat_arena *arena,
		    struct flat_args *ret_args, struct flat_err *err);

/* One run of a program: text on its standard input, what it writes on its standard output. */
struct flat_exec {
	const char *file;
	char *const *env;
	const char *text;
	size_t text_len;
	size_t max_output; /* bytes; more, and it is killed */
	int timeout_ms;	   /* as well */
	char *output;	   /* out: NUL-terminated; the caller frees it, on failure as well */
	size_t output_len;
	int status; /* out: as waitpid() gives it */
};
/* Runs it in a process group of its own, which is killed whole when a bound is broken, and always
 * reaps it. -ENOENT, -EACCES, -ENOEXEC ...: it was not started. -ETIMEDOUT, -EFBIG: it was killed.
 */
int flat_exec_run(struct flat_exec *run, struct flat_err *err);
