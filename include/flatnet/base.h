/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base - errors, ownership, addresses: the words that every room speaks.
 *
 * Conventions of the whole project:
 *  - A function that can fail returns int: 0 or positive on success, negative errno on failure, and
 *    fills the struct flat_err that it takes last. The first error set in an object wins.
 *  - `ret_*` outputs are written on success only. A plain pointer parameter borrows.
 *  - Libraries never print, never exit and never read the environment.
 *  - Addresses are kept in network byte order.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FLAT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define FLAT_LEN(a)	       (sizeof(a) / sizeof((a)[0]))

/* ---- errors ------------------------------------------------------------------------------------
 */

/* CNI error codes: CNI spec 1.1.0, section 2 "Error". 8 and 999 are libcni's. */
enum flat_code {
	FLAT_CODE_NONE = 0,
	FLAT_CODE_VERSION = 1,	   /* incompatible CNI version */
	FLAT_CODE_UNSUPPORTED = 2, /* unsupported field; the message has key and value */
	FLAT_CODE_UNKNOWN = 3,	   /* unknown container: the runtime need not clean up */
	FLAT_CODE_ENV = 4,	   /* invalid environment variable */
	FLAT_CODE_IO = 5,	   /* I/O failure */
	FLAT_CODE_DECODE = 6,	   /* content that is not JSON */
	FLAT_CODE_CONFIG = 7,	   /* invalid network configuration */
	FLAT_CODE_NETNS = 8,	   /* CNI_NETNS is not a usable network namespace */
	FLAT_CODE_TRY_LATER = 11,  /* transient: the runtime should try again */
	FLAT_CODE_NOT_READY = 50,  /* STATUS: an ADD could not succeed now */
	FLAT_CODE_DEGRADED = 51,   /* STATUS: as 50, and existing attachments may suffer */
	FLAT_CODE_NETWORK = 100,   /* ours: the kernel refused a step of the attachment */
	FLAT_CODE_EXHAUSTED = 101, /* ours: no free address in a range */
	FLAT_CODE_IN_USE = 102,	   /* ours: a requested address or name is taken */
	FLAT_CODE_MISMATCH = 103,  /* ours: CHECK found a difference */
	FLAT_CODE_INTERNAL = 999,  /* anything not classified, as libcni does */
};

/* Fixed buffers: an out-of-memory error can still be told. Zero-initialise with `= { 0 }`. */
struct flat_err {
	int code;	   /* enum flat_code; 0 = nothing set */
	int sys;	   /* the true errno as a positive number; 0 = none */
	char msg[512];	   /* outermost context first */
	char details[512]; /* the kernel's own sentence (extended ack), or the cure */
};

/* Sets *err unless something is set already; returns -sys, or -EINVAL when sys is 0. err may be
 * NULL. flat_fail() appends ": strerror(sys)" to the message when sys is not 0. */
int flat_fail(struct flat_err *err, int code, int sys, const char *fmt, ...) FLAT_PRINTF(4, 5);
/* Sets the details of a set error, unless it has some. Returns -err->sys or -EINVAL, as
 * flat_fail(). */
int flat_detail(struct flat_err *err, const char *fmt, ...) FLAT_PRINTF(2, 3);
/* Prefixes the message with "context: ". Returns -err->sys or -EINVAL, to be returned by the
 * caller. */
int flat_wrap(struct flat_err *err, const char *fmt, ...) FLAT_PRINTF(2, 3);

/* A place for warnings: things that the person should know though the call succeeds. */
struct flat_log {
	void (*say)(void *arg, const char *line); /* one line, no newline */
	void *arg;
};
/* Says one line; does nothing when log is NULL. */
void flat_warn(const struct flat_log *log, const char *fmt, ...) FLAT_PRINTF(2, 3);

/* ---- ownership ---------------------------------------------------------------------------------
 */

void flat_close_fd(int *fd);   /* closes *fd when >= 0 and sets it to -1; keeps errno */
void flat_free_ptr(void *ptr); /* frees *(void **)ptr and sets it to NULL */
#define flat_auto_fd   __attribute__((cleanup(flat_close_fd))) int
#define flat_auto_free __attribute__((cleanup(flat_free_ptr)))

/* Memory that lives and dies together: what a parser allocates. Zero-initialise. */
struct flat_arena {
	struct flat_arena_block *first;
};
void *flat_arena_alloc(struct flat_arena *arena,
		       size_t size); /* zeroed, max-aligned; NULL = ENOMEM */
char *flat_arena_strdup(struct flat_arena *arena, const char *text);
void flat_arena_free(struct flat_arena *arena); /* all of it; may be called again */

/* ---- addresses ---------------------------------------------------------------------------------
 */

enum { FLAT_IFNAME_LEN = 16 }; /* IFNAMSIZ: 15 bytes and a NUL */

struct flat_ip {
	uint8_t family;	   /* AF_INET, AF_INET6; 0 = none */
	uint8_t bytes[16]; /* network byte order; IPv4 in the first four, the others zero */
};

struct flat_prefix {
	struct flat_ip ip; /* host bits may be set: an interface address is a prefix too */
	uint8_t len;	   /* 0..32, 0..128 */
};

struct flat_mac {
	uint8_t bytes[6];
};

enum { FLAT_IP_TEXT = 46, FLAT_PREFIX_TEXT = 50, FLAT_MAC_TEXT = 18 };

/* Strict: decimal dotted quad without leading zeros, or RFC 4291 text without zone; IPv4-mapped
 * IPv6 becomes IPv4. False leaves *ret_ip untouched. */
bool flat_ip_parse(const char *text, struct flat_ip *ret_ip);
/* "address/len"; both parts are required. */
bool flat_prefix_parse(const char *text, struct flat_prefix *ret_prefix);
bool flat_mac_parse(const char *text,
		    struct flat_mac *ret_mac); /* "0a:58:0a:f4:01:17", or with '-' */
/* The texts are RFC 5952's. The buffer needs FLAT_IP_TEXT, ... bytes; it is returned. */
const char *flat_ip_text(const struct flat_ip *ip, char *buf);
const char *flat_prefix_text(const struct flat_prefix *prefix, char *buf);
const char *flat_mac_text(const struct flat_mac *mac, char *buf);

unsigned flat_ip_bits(const struct flat_ip *ip); /* 32, 128 */
size_t flat_ip_size(const struct flat_ip *ip);	 /* 4, 16 */
bool flat_ip_equal(const struct flat_ip *a, const struct flat_ip *b);
int flat_ip_compare(const struct flat_ip *a,
		    const struct flat_ip *b);	       /* family first, then value */
struct flat_ip flat_ip_next(const struct flat_ip *ip); /* wraps to zero after the last */
struct flat_ip flat_ip_prev(const struct flat_ip *ip);
struct flat_ip
flat_prefix_first(const struct flat_prefix *prefix); /* host bits zero: the network address */
struct flat_ip
flat_prefix_last(const struct flat_prefix *prefix); /* host bits one: IPv4 broadcast */
bool flat_prefix_contains(const struct flat_prefix *prefix, const struct flat_ip *ip);
bool flat_prefix_overlaps(const struct flat_prefix *a, const struct flat_prefix *b);
bool flat_prefix_equal(const struct flat_prefix *a,
		       const struct flat_prefix *b); /* host bits count */

/* A route, as in a CNI result: CNI spec 1.1.0, section 5 "routes". */
struct flat_route {
	struct flat_prefix dst;		       /* host bits zero */
	struct flat_ip gw;		       /* family 0: none given */
	uint32_t mtu, advmss, priority, table; /* 0: not given */
	int scope;			       /* RT_SCOPE_*; -1: not given */
};

/* ---- small things ------------------------------------------------------------------------------
 */

/* FNV-1a over 64 bits, then mixed (splitmix64's finaliser). Not for adversaries; names derive from
 * it, so it never changes. Start with seed 0 and pass the last value on to hash several pieces. */
uint64_t flat_hash(uint64_t seed, const void *data, size_t len);
/* Strict decimal without sign, space or leading zeros, at most max. */
bool flat_uint_parse(const char *text, uint64_t max, uint64_t *ret_value);
/* 0..15; -1: not a hexadecimal digit. */
int flat_hex_digit(char c);
/* CLOCK_MONOTONIC in milliseconds. */
int64_t flat_now_ms(void);
void flat_sleep_us(unsigned us);
