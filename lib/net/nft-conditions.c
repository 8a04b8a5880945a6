// SPDX-License-Identifier: Apache-2.0
/*
 * Conditions of host ports: expressions in nft's own language, which libnftables reads and writes
 * for us. It is loaded only when there are conditions, and only for the first attachment that has
 * them: every other call of a plugin pays nothing for it, and a host without it lacks nothing else.
 *
 * The text is the configuration's, so the administrator's, but it goes into commands: what would
 * end the rule, or say what to do with a packet, is refused before libnftables sees it.
 */
#include "nft-ports.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#ifdef FLAT_LIBNFTABLES
#include <dlfcn.h>
#include <nftables/libnftables.h>
#endif

/* Statements: a condition says when, not what. */
static const char *const statements[] = {
	"accept", "drop",   "return",	"continue", "queue",   "jump",	     "goto",	 "reject",
	"dnat",	  "snat",   "redirect", "tproxy",   "vmap",    "masquerade", "set",	 "add",
	"update", "delete", "dup",	"fwd",	    "notrack", "flow",	     "synproxy", "comment",
};

static bool is_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       strchr("_-./", c);
}

/* The statement that a word of the text is; NULL: none. Words in quotes are names. */
static const char *find_statement(const char *text)
{
	bool quoted = false;
	for (const char *c = text; *c; c++) {
		quoted ^= *c == '"';
		if (quoted || !is_word(*c) || (c > text && is_word(c[-1])))
			continue;
		size_t len = 1;
		while (c[len] && is_word(c[len]))
			len++;
		for (size_t i = 0; i < FLAT_LEN(statements); i++)
			if (strlen(statements[i]) == len && !strncmp(statements[i], c, len))
				return statements[i];
	}
	return NULL;
}

static bool is_closed(const char *text)
{
	bool quoted = false;
	int depth = 0;
	for (const char *c = text; *c && depth >= 0; c++) {
		quoted ^= *c == '"';
		depth += quoted ? 0 : (*c == '{') - (*c == '}');
	}
	return !quoted && depth == 0;
}

int flat_conditions_check(const char *key, const char *text, struct flat_err *err)
{
	const char *statement = find_statement(text);
	for (const char *c = text; *c; c++) {
		if (*c < ' ' || *c > '~' || strchr(";#\\$`'", *c))
			return flat_fail(
				err, FLAT_CODE_CONFIG, 0,
				"%s: \"%.96s\": character 0x%02x has no place in an nft expression",
				key, text, (unsigned char)*c);
		/* of the header (@nh,0,8), not a set: ours are none of the conditions' business */
		if (*c == '@' && strncmp(c, "@ll,", 4) != 0 && strncmp(c, "@nh,", 4) != 0 &&
		    strncmp(c, "@th,", 4) != 0 && strncmp(c, "@ih,", 4) != 0)
			return flat_fail(
				err, FLAT_CODE_CONFIG, 0,
				"%s: \"%.96s\": sets of other tables cannot be reached from here: write the values, as in { 192.0.2.1, 192.0.2.2 }",
				key, text);
	}
	if (strlen(text) > FLAT_MAX_CONDITIONS)
		return flat_fail(err, FLAT_CODE_CONFIG, 0, "%s: longer than %d bytes", key,
				 FLAT_MAX_CONDITIONS);
	if (!is_closed(text))
		return flat_fail(err, FLAT_CODE_CONFIG, 0,
				 "%s: \"%.96s\": a quote or a brace is not closed", key, text);
	if (statement)
		return flat_fail(
			err, FLAT_CODE_CONFIG, 0,
			"%s: \"%.96s\": \"%s\" says what to do: conditions only say when, as \"ip saddr 192.0.2.0/24\" does",
			key, text, statement);
	return 0;
}

static const char *key_of(const struct flat_ports_side *side)
{
	return side->family == AF_INET ? "conditionsV4" : "conditionsV6";
}

#ifdef FLAT_LIBNFTABLES
#define LIBRARY "libnftables.so.1"

struct library {
	void *handle;
	struct nft_ctx *(*ctx_new)(uint32_t);
	void (*ctx_free)(struct nft_ctx *);
	int (*buffer_output)(struct nft_ctx *);
	int (*buffer_error)(struct nft_ctx *);
	const char *(*error_buffer)(struct nft_ctx *);
	int (*run)(struct nft_ctx *, const char *);
};

static void close_library(struct library *lib)
{
	if (lib->handle)
		dlclose(lib->handle);
}
#define flat_auto_library __attribute__((cleanup(close_library))) struct library

static bool load(struct library *lib, const char *name, void *function)
{
	void *symbol = dlsym(lib->handle, name);
	memcpy(function, &symbol, sizeof symbol); /* as POSIX has it, and ISO C does not */
	return symbol != NULL;
}

static int open_library(const struct flat_ports_side *side, struct library *lib,
			struct flat_err *err)
{
	lib->handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (lib->handle && load(lib, "nft_ctx_new", &lib->ctx_new) &&
	    load(lib, "nft_ctx_free", &lib->ctx_free) &&
	    load(lib, "nft_ctx_buffer_output", &lib->buffer_output) &&
	    load(lib, "nft_ctx_buffer_error", &lib->buffer_error) &&
	    load(lib, "nft_ctx_get_error_buffer", &lib->error_buffer) &&
	    load(lib, "nft_run_cmd_from_buffer", &lib->run))
		return 0;
	flat_fail(
		err, FLAT_CODE_UNSUPPORTED, 0,
		"%s: \"%.96s\" is not supported without %s: install it (Debian: libnftables1), or leave the conditions out",
		key_of(side), side->text, LIBRARY);
	const char *why = dlerror();
	if (why)
		flat_detail(err, "%s", why);
	return -ENOSYS;
}

/* What nft says, without where: the first line, after "Error: ". */
static int blame(const struct flat_ports_side *side, const char *said, struct flat_err *err)
{
	const char *what = strstr(said, "Error: ");
	what = what ? what + strlen("Error: ") : said;
	const int len = (int)strcspn(what, "\n");
	const bool kernel = !strncmp(what, "Could not process rule", 22);
	flat_fail(err, kernel ? FLAT_CODE_UNSUPPORTED : FLAT_CODE_CONFIG, 0,
		  kernel ? "%s: the kernel refuses \"%.96s\"" : "%s: nft does not take \"%.96s\"",
		  key_of(side), side->text);
	flat_detail(err, "%.*s", len, what);
	return kernel ? -EOPNOTSUPP : -EINVAL;
}

static int run(const struct library *lib, const struct flat_ports_side *side, const char *commands,
	       struct flat_err *err)
{
	struct nft_ctx *ctx = lib->ctx_new(NFT_CTX_DEFAULT);
	int r = 0;
	if (!ctx || lib->buffer_output(ctx) || lib->buffer_error(ctx))
		r = flat_fail(err, FLAT_CODE_NETWORK, ENOMEM, "%s: %s", key_of(side), LIBRARY);
	else if (lib->run(ctx, commands))
		r = blame(side, lib->error_buffer(ctx), err);
	if (ctx)
		lib->ctx_free(ctx);
	return r;
}

int flat_conditions_write(const struct flat_ports_side *side, struct flat_err *err)
{
	const char *table = flat_nft_chains[FLAT_NFT_PORTS].table, *chain = side->chain;
	flat_auto_library lib = { 0 };
	char commands[FLAT_MAX_CONDITIONS + 1024], tag[2][FLAT_NFT_TAG];
	int r = flat_conditions_check(key_of(side), side->text, err);
	if (r >= 0)
		r = open_library(side, &lib, err);
	if (r < 0)
		return r;
	for (int i = 0; i < 2; i++)
		flat_ports_tag_side(side, i, tag[i], sizeof tag[i]);
	snprintf(commands, sizeof commands,
		 "add table inet %s\n"
		 "add chain inet %s %s\n"
		 "flush chain inet %s %s\n"
		 "add rule inet %s %s %s return comment \"%s\"\n"
		 "add rule inet %s %s accept comment \"%s\"\n",
		 table, table, chain, table, chain, table, chain, side->text, tag[0], table, chain,
		 tag[1]);
	return run(&lib, side, commands, err);
}
#else
int flat_conditions_write(const struct flat_ports_side *side, struct flat_err *err)
{
	flat_fail(
		err, FLAT_CODE_UNSUPPORTED, 0,
		"%s: \"%.96s\" is not supported: this flatnet is built without libnftables: use one built with it, or leave the conditions out",
		key_of(side), side->text);
	return -ENOSYS;
}
#endif
