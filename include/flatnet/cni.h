/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cni - the protocol: what a runtime sends and what it gets back (CNI spec 1.1.0, and all versions
 * since 0.1.0).
 *
 * Parsing ends in plain structs; no pointer into the JSON tree survives it (texts are copied into
 * an arena). Only this room knows the JSON library.
 */
#pragma once

#include <flatnet/base.h>

/* ---- JSON, by tables ---------------------------------------------------------------------------
 */

enum {
	FLAT_JSON_MAX_SIZE = 4 << 20, /* bytes of input */
	FLAT_JSON_MAX_DEPTH = 64,
};

struct flat_json; /* one parsed document, or a value in it */

/* Parses one JSON text (RFC 8259). Size, nesting, UTF-8 and \u0000 are checked first (code 6:
 * FLAT_CODE_DECODE). Trailing white space is fine, trailing text is not. Free with
 * flat_json_free(). */
int flat_json_parse(const char *text, size_t len, struct flat_json **ret_json,
		    struct flat_err *err);
void flat_json_free(struct flat_json *json); /* the document, not a value in it; NULL is fine */

/* Keys are matched as Go's encoding/json does, because runtimes count on it: case-insensitively
 * (ASCII), and of several equal keys the last one counts. NULL: not an object, no such key, or its
 * value is null. */
const struct flat_json *flat_json_get(const struct flat_json *object, const char *key);
/* As above, but null values are returned: tells "null" from "not there". */
const struct flat_json *flat_json_get_or_null(const struct flat_json *object, const char *key);
bool flat_json_is_null(const struct flat_json *value);
bool flat_json_is_object(const struct flat_json *value);
/* The text of a string value, alive as long as the document; NULL when it is not a string. */
const char *flat_json_text(const struct flat_json *value);

/* The text as a JSON string, in its quotes and escaped; what is not UTF-8 becomes U+FFFD. NULL: no
 * memory. The caller frees. */
char *flat_json_quote(const char *text);

enum flat_json_type {
	FLAT_JSON_BOOL,		  /* bool */
	FLAT_JSON_TRISTATE,	  /* int: -1 not given (set by the caller beforehand), 0, 1 */
	FLAT_JSON_INT,		  /* int64_t within min..max; no fraction, no string */
	FLAT_JSON_INT32,	  /* int32_t, likewise */
	FLAT_JSON_UINT32,	  /* uint32_t, likewise */
	FLAT_JSON_STRING,	  /* const char *, copied to the arena; "" stays "" */
	FLAT_JSON_STRING_LIST,	  /* struct flat_json_list of const char * */
	FLAT_JSON_IP,		  /* struct flat_ip; "" = not given */
	FLAT_JSON_PREFIX,	  /* struct flat_prefix; "" = not given */
	FLAT_JSON_PREFIX_OR_LIST, /* struct flat_json_list of struct flat_prefix; one string or a
				     list */
	FLAT_JSON_IP_OR_LIST,  /* struct flat_json_list of struct flat_ip; one string or a list */
	FLAT_JSON_MAC,	       /* struct flat_mac with `present`: see offset2 */
	FLAT_JSON_OBJECT,      /* an embedded struct, decoded by `table` */
	FLAT_JSON_OBJECT_LIST, /* struct flat_json_list of structs of size elem_size, decoded by
				  `table` */
	FLAT_JSON_CUSTOM,      /* whatever `decode` makes of it */
};

struct flat_json_list {
	void *items; /* in the arena */
	size_t count;
};

struct flat_json_decoder; /* the arena, and the path of the value at hand */

/* One key of an object. A value null counts as not given. Keys that no table names are ignored. */
struct flat_json_field {
	const char *key;
	enum flat_json_type type;
	size_t offset; /* of the target in the struct that the table describes */
	bool required;
	int64_t min, max; /* INT*: the allowed values, named in the error (both 0: what the type
			     holds, at most 2^53); lists: max = most items (0: 4096) */
	size_t offset2;	  /* where not 0: a bool that is set when the key is given */
	const struct flat_json_field
		*table;	  /* OBJECT, OBJECT_LIST; ends with a field without key. CUSTOM: what
			     `decode` takes the objects in it by, for those who list keys */
	size_t elem_size; /* OBJECT_LIST */
	int (*init)(
		void *elem); /* OBJECT_LIST: sets the defaults of a zeroed element; may be NULL */
	int (*decode)(struct flat_json_decoder *d, const struct flat_json *value, void *target,
		      struct flat_err *err);
};
#define FLAT_JSON_END                                                                              \
	{                                                                                          \
		.key = NULL                                                                        \
	}

/* Decodes `object` into the struct at target, by its table. path: what errors call the object (""
 * at the top, "ipam" below); a fault is code 7 (FLAT_CODE_CONFIG), and its message starts with the
 * path of the faulty value, "ipam.ranges[0][1].subnet", says what was found and what is allowed. */
int flat_json_decode(const struct flat_json *object, const char *path,
		     const struct flat_json_field *table, void *target, struct flat_arena *arena,
		     struct flat_err *err);

/* For decode functions: */
struct flat_arena *flat_json_arena(const struct flat_json_decoder *d);
/* Fails with code 7 and "PATH: text". */
int flat_json_fault(const struct flat_json_decoder *d, struct flat_err *err, const char *fmt, ...)
	FLAT_PRINTF(3, 4);
/* Decodes the value at hand as a field of this kind, into target itself (its offset does not
 * count): for those who keep it in another form. A text "" is for them to take as not given. */
int flat_json_decode_value(struct flat_json_decoder *d, const struct flat_json *value,
			   const struct flat_json_field *field, void *target, struct flat_err *err);
/* Decodes an object below the value at hand. */
int flat_json_decode_object(struct flat_json_decoder *d, const struct flat_json *object,
			    const struct flat_json_field *table, void *target,
			    struct flat_err *err);
/* Calls fn for each item of an array, with the path set to "...[i]"; code 7 when it is not an array
 * or longer than max.
 */
int flat_json_decode_items(struct flat_json_decoder *d, const struct flat_json *array, size_t max,
			   int (*fn)(struct flat_json_decoder *d, const struct flat_json *item,
				     size_t i, void *arg, struct flat_err *err),
			   void *arg, struct flat_err *err);
/* Calls fn for each member of an object whose keys are data and not names, in order, with the path
 * set to "...["KEY"]"; code 7 when it is not an object or larger than max. A value null is passed
 * on. */
int flat_json_decode_members(struct flat_json_decoder *d, const struct flat_json *object,
			     size_t max,
			     int (*fn)(struct flat_json_decoder *d, const char *key,
				       const struct flat_json *value, void *arg,
				       struct flat_err *err),
			     void *arg, struct flat_err *err);
size_t flat_json_count(const struct flat_json *array); /* 0 when it is not an array */
bool flat_json_is_array(const struct flat_json *value);

/* Is every key of the object one that the table names (and below it, where there are tables)? Code
 * 7 names the first that is not, and the known one that it is most like. A key that begins with '_'
 * or
 * "//" is a remark. */
int flat_json_check_keys(const struct flat_json *object, const char *path,
			 const struct flat_json_field *table, struct flat_err *err);

/* The length of the UTF-8 character (RFC 3629: shortest form, no surrogates, at most U+10FFFF) at
 * the start of text, 0 where there is none. */
size_t flat_utf8_char(const char *text, size_t len);

extern const struct flat_json_field
	flat_route_fields[]; /* struct flat_route: dst gw mtu advmss priority table scope */
extern const struct flat_json_field flat_dns_fields[]; /* struct flat_dns */
int flat_route_init(void *route); /* the defaults of a struct flat_route: scope -1 */

/* ---- the request: environment and standard input -----------------------------------------------
 */

enum flat_command {
	FLAT_CMD_ADD,
	FLAT_CMD_DEL,
	FLAT_CMD_CHECK,
	FLAT_CMD_GC,
	FLAT_CMD_STATUS,
	FLAT_CMD_VERSION
};

enum flat_version {
	FLAT_VERSION_0_1_0,
	FLAT_VERSION_0_2_0,
	FLAT_VERSION_0_3_0,
	FLAT_VERSION_0_3_1,
	FLAT_VERSION_0_4_0,
	FLAT_VERSION_1_0_0,
	FLAT_VERSION_1_1_0,
};
const char *flat_version_text(enum flat_version version);

/* The variables of CNI spec section 2, borrowed from the environment by main; NULL = not set. */
struct flat_env {
	const char *command, *container_id, *netns, *ifname, *args, *path;
	const char *netns_override; /* CNI_NETNS_OVERRIDE, as libcni's skel */
};

/* CNI_ARGS. Unknown keys are code 4 unless IgnoreUnknown is 1 or true, wherever it stands. */
struct flat_args {
	const char *pod_namespace, *pod_name, *pod_uid, *pod_infra_id; /* K8S_*; NULL = not given */
	struct flat_json_list ips; /* struct flat_ip: IP=a[/n][,b[/n]]; a prefix is ignored */
	struct flat_mac mac;
	bool has_mac;
};

struct flat_attachment_id {
	const char *container_id, *ifname;
};

/* What every plugin's request has. Plugins decode their own keys from `json` by tables of theirs.
 */
struct flat_request {
	enum flat_command command;
	enum flat_version version;
	const char *container_id, *netns, *ifname, *path; /* "" where not given */
	bool netns_override;
	struct flat_args args;
	const char *name, *type;	 /* of the network, of the plugin */
	bool has_ipam;			 /* the key `ipam` is an object */
	const char *ipam_type;		 /* NULL: no such key */
	struct flat_result *prev_result; /* in the arena; NULL = none */
	bool has_valid; /* GC: a list of valid attachments was given (null and [] are empty lists)
			 */
	struct flat_json_list valid; /* struct flat_attachment_id */

	struct flat_json *json; /* owned: the whole configuration */
	const char *text;	/* borrowed: the same as it came, for delegates */
	size_t text_len;
	struct flat_arena arena;
};

/* Which command? Code 4 for an unknown one. -ENOENT with err not set: CNI_COMMAND is not set at all
 * (a person started us). */
int flat_command_parse(const char *text, enum flat_command *ret_command, struct flat_err *err);

/* Validates environment and configuration whole, for any command but VERSION: required variables
 * (code 4; CNI_PATH is only needed by who delegates), names (codes 3, 4, 7), JSON (6), cniVersion
 * (1; empty = 0.1.0), commands that the version does not have (1), prevResult in any version (7).
 * *ret_req is all-zero before; free with flat_request_free() even on failure. On failure
 * ret_req->version tells which version the error is to be printed in, as far as known. text is
 * borrowed. */
int flat_request_parse(const struct flat_env *env, const char *text, size_t len,
		       struct flat_request *ret_req, struct flat_err *err);
void flat_request_free(struct flat_request *req);
/* The tables of the keys that every plugin has, but for those of the protocol itself (cniVersion,
 * prevResult, cni.dev/...); NULL after the last. */
const struct flat_json_field *flat_request_table(size_t i);

/* May `text` be a container ID / network name: ^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$ (CNI spec section 2)?
 */
bool flat_name_is_valid(const char *text);
/* May `text` name an interface: 1..15 bytes, not "." or "..", no '/', ':' or white space
 * (dev_valid_name in net/core/dev.c)? */
bool flat_ifname_is_valid(const char *text);

/* ---- annotations of the pod --------------------------------------------------------------------
 */

/* What the pod asks for by its annotations, which containerd and CRI-O send as
 * runtimeConfig["io.kubernetes.cri.pod-annotations"]; as far as allowPodAnnotations lets it. */
struct flat_annotations {
	struct flat_json_list ips; /* struct flat_ip: cni.flatnet/ip */
	struct flat_mac mac;	   /* cni.flatnet/mac */
	bool has_mac;
	/* kubernetes.io/ingress-bandwidth, egress-bandwidth: bits per second; 0: not given */
	uint64_t ingress_rate, egress_rate;
};
#define FLAT_ANNOTATION_PATH(key) "runtimeConfig.io.kubernetes.cri.pod-annotations[\"" key "\"]"
#define FLAT_ANNOTATION_IP	  "cni.flatnet/ip"
/* Code 7 names the annotation. Memory is req's arena. What is not allowed is not looked at. */
int flat_annotations_parse(struct flat_request *req, struct flat_annotations *ret_annotations,
			   struct flat_err *err);
extern const struct flat_json_field flat_annotation_fields[]; /* the keys that it reads */

/* ---- a network configuration file ---------------------------------------------------------------
 */

struct flat_plugin_conf {
	const char *type;
	const char *text; /* what the plugin gets on standard input */
};

/* A list of plugins (conflist), or one alone, as libcni reads it. */
struct flat_conf_file {
	const char *name; /* of the network */
	bool is_list;
	struct flat_plugin_conf *plugins;
	size_t plugin_count;
};

/* Memory is the arena's. Code 6 for what is not JSON, 7 for what libcni would refuse; with the path
 * of the faulty value. What the keys of a plugin mean is the plugin's to say. */
int flat_conf_file_parse(const char *text, size_t len, struct flat_arena *arena,
			 struct flat_conf_file *ret_file, struct flat_err *err);

/* ---- results -----------------------------------------------------------------------------------
 */

struct flat_dns {
	struct flat_json_list nameservers; /* const char * */
	const char *domain;		   /* NULL or "": none */
	struct flat_json_list search;	   /* const char * */
	struct flat_json_list options;	   /* const char * */
};
bool flat_dns_is_empty(const struct flat_dns *dns);

enum { FLAT_MAX_INTERFACES = 64, FLAT_MAX_IPS = 64, FLAT_MAX_ROUTES = 1024 };

struct flat_result_interface {
	const char *name;
	struct flat_mac mac;
	bool has_mac;
	uint32_t mtu;			  /* 0: not given; printed since 1.1.0 */
	const char *sandbox;		  /* NULL or "": on the host */
	const char *socket_path, *pci_id; /* of other plugins, since 1.1.0; NULL or "": none */
};

struct flat_result_ip {
	struct flat_prefix address;
	struct flat_ip gateway; /* family 0: none */
	int interface;		/* index into interfaces; -1: none */
};

/* A result, whatever the version; arrays in an arena. Zero-initialise. */
struct flat_result {
	struct flat_result_interface *interfaces;
	size_t interface_count;
	struct flat_result_ip *ips;
	size_t ip_count;
	struct flat_route *routes;
	size_t route_count;
	struct flat_dns dns;
};

/* Reads a result in the format of its own `cniVersion`, else of `version`. Code 7 with the path
 * when it is malformed. path is "prevResult", or what else errors shall call it. */
int flat_result_parse(const struct flat_json *json, enum flat_version version, const char *path,
		      struct flat_arena *arena, struct flat_result *ret_result,
		      struct flat_err *err);
/* Prints as one JSON object in the shape of `version`; the text is the caller's to free. Code 7
 * where the version cannot hold it (0.1.0 and 0.2.0 need an address). */
int flat_result_print(const struct flat_result *result, enum flat_version version, char **ret_text,
		      struct flat_err *err);
/* The error as one JSON object {cniVersion, code, msg, details}; NULL only when memory is out. The
 * caller frees. */
char *flat_error_print(const struct flat_err *err, enum flat_version version);
/* The answer to VERSION, with the input's cniVersion echoed where it is one of ours (spec
 * section 4.6), else 1.1.0. text may be empty or garbage. */
char *flat_version_print(const char *text, size_t len);

/* ---- delegation: CNI spec section 4 ------------------------------------------------------------
 */

/* Executes the plugin `type`, found in the directories of req->path, with the same environment
 * (environ, CNI_COMMAND replaced) and the same configuration; its stderr is ours. Bounded: 1 MiB of
 * output, 60 s, then it is killed. ADD: *ret_result (arena of req) is what it printed, code 7 when
 * it has no address; an ADD that fails after the start is followed by its DEL, as the spec asks.
 * Other commands: ret_result NULL. Fails with the plugin's own code and message; code 7 and -ENOENT
 * when no directory has it. */
int flat_delegate_run(struct flat_request *req, const char *type, enum flat_command command,
		      struct flat_result *ret_result, struct flat_err *err);
/* Would that execute the very file that runs now, a link of another name to it? Then it can be done
 * without. When in doubt: false. */
bool flat_delegate_is_self(const struct flat_request *req, const char *type);

/* ---- main's half: standard input and output ----------------------------------------------------
 */

/* Reads fd to its end: at most FLAT_JSON_MAX_SIZE bytes (code 6) and timeout_ms (code 5). The
 * caller frees *ret_text.
 */
int flat_input_read(int fd, int timeout_ms, char **ret_text, size_t *ret_len, struct flat_err *err);
/* Writes all of text and a newline; code 5 on failure. SIGPIPE must be ignored. */
int flat_output_write(int fd, const char *text, struct flat_err *err);
