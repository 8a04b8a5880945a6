// SPDX-License-Identifier: Apache-2.0
/*
 * The configuration comes in three steps: the file fills `struct raw` by tables, the flags that are
 * given take the place of values there, and the settle functions make of it what everybody else
 * sees, in one place for each subject: default, check, cure. A fault names the flag where a flag
 * said it, else the key.
 */
#include "conf.h"
#include "source.h"

#include <flatnet/ipam.h>

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	FILE_MAX = 1 << 20,
	READ_TIMEOUT_MS = 2000,
	ENDPOINTS_MAX = 16,
	UNDERLAY_CIDRS_MAX = 16,
	MTU_MIN = 576,	     /* what every IPv4 host must take in one piece (RFC 791) */
	MTU_MIN_IPV6 = 1280, /* RFC 8200, section 5 */
	MTU_MAX = 65535,
	VNI_MAX = (1 << 24) - 1,
	DAY = 24 * 60 * 60,
};

/* As file and flags have it. */
struct raw {
	uint32_t flags; /* bit OPT_*: the value at hand came from the command line */
	const char *node_name, *source, *backend;
	struct flat_json_list cluster_cidrs, pod_cidrs; /* struct flat_prefix */
	uint32_t mtu;
	bool flannel;
	struct {
		uint32_t vni, port;
		const char *name, *name6, *checksum;
	} vxlan;
	struct {
		const char *interface, *regex;
		struct flat_json_list cidrs; /* struct flat_prefix */
		struct flat_ip can_reach;
		struct flat_json_list public_ips; /* struct flat_ip */
	} underlay;
	struct {
		const char *path;
	} file;
	struct {
		struct flat_json_list endpoints; /* const char * */
		const char *prefix, *ca_file, *cert_file, *key_file, *user, *password_file;
		uint32_t subnet_len[FLAT_FAMILIES];
		struct flat_ip subnet_min[FLAT_FAMILIES], subnet_max[FLAT_FAMILIES];
		uint32_t lease;
	} etcd;
	struct {
		const char *kubeconfig, *context, *server, *service_account;
		uint32_t page;
		bool set_network_available;
	} kubernetes;
	struct {
		const char *network, *bridge, *ipam_dir, *conf_file, *conf_template;
		bool ip_masq;
	} cni;
	const char *node_file, *state_file, *subnet_env;
	uint32_t resync, sweep;
	struct {
		const char *level, *format;
	} log;
	struct {
		const char *address;
	} http;
};

/* ---- the file ----------------------------------------------------------------------------------
 */

#define RAW(type, field) type, offsetof(struct raw, field)

static const struct flat_json_field vxlan_fields[] = {
	{ .key = "vni", RAW(FLAT_JSON_UINT32, vxlan.vni), .min = 1, .max = VNI_MAX },
	{ .key = "port", RAW(FLAT_JSON_UINT32, vxlan.port), .min = 1, .max = 65535 },
	{ .key = "name", RAW(FLAT_JSON_STRING, vxlan.name) },
	{ .key = "nameIPv6", RAW(FLAT_JSON_STRING, vxlan.name6) },
	{ .key = "checksum", RAW(FLAT_JSON_STRING, vxlan.checksum) },
	FLAT_JSON_END,
};

static const struct flat_json_field underlay_fields[] = {
	{ .key = "interface", RAW(FLAT_JSON_STRING, underlay.interface) },
	{ .key = "interfaceRegex", RAW(FLAT_JSON_STRING, underlay.regex) },
	{ .key = "cidrs",
	  RAW(FLAT_JSON_PREFIX_OR_LIST, underlay.cidrs),
	  .max = UNDERLAY_CIDRS_MAX },
	{ .key = "canReach", RAW(FLAT_JSON_IP, underlay.can_reach) },
	{ .key = "publicIP", RAW(FLAT_JSON_IP_OR_LIST, underlay.public_ips), .max = FLAT_FAMILIES },
	FLAT_JSON_END,
};

static const struct flat_json_field file_fields[] = {
	{ .key = "path", RAW(FLAT_JSON_STRING, file.path) },
	FLAT_JSON_END,
};

static const struct flat_json_field etcd_fields[] = {
	{ .key = "endpoints", RAW(FLAT_JSON_STRING_LIST, etcd.endpoints), .max = ENDPOINTS_MAX },
	{ .key = "prefix", RAW(FLAT_JSON_STRING, etcd.prefix) },
	{ .key = "caFile", RAW(FLAT_JSON_STRING, etcd.ca_file) },
	{ .key = "certFile", RAW(FLAT_JSON_STRING, etcd.cert_file) },
	{ .key = "keyFile", RAW(FLAT_JSON_STRING, etcd.key_file) },
	{ .key = "user", RAW(FLAT_JSON_STRING, etcd.user) },
	{ .key = "passwordFile", RAW(FLAT_JSON_STRING, etcd.password_file) },
	{ .key = "subnetLen",
	  RAW(FLAT_JSON_UINT32, etcd.subnet_len[FLAT_V4]),
	  .min = 8,
	  .max = 30 },
	{ .key = "subnetMin", RAW(FLAT_JSON_IP, etcd.subnet_min[FLAT_V4]) },
	{ .key = "subnetMax", RAW(FLAT_JSON_IP, etcd.subnet_max[FLAT_V4]) },
	{ .key = "ipv6SubnetLen",
	  RAW(FLAT_JSON_UINT32, etcd.subnet_len[FLAT_V6]),
	  .min = 16,
	  .max = 126 },
	{ .key = "ipv6SubnetMin", RAW(FLAT_JSON_IP, etcd.subnet_min[FLAT_V6]) },
	{ .key = "ipv6SubnetMax", RAW(FLAT_JSON_IP, etcd.subnet_max[FLAT_V6]) },
	{ .key = "leaseSeconds", RAW(FLAT_JSON_UINT32, etcd.lease), .min = 60, .max = 365 * DAY },
	FLAT_JSON_END,
};

static const struct flat_json_field kubernetes_fields[] = {
	{ .key = "kubeconfig", RAW(FLAT_JSON_STRING, kubernetes.kubeconfig) },
	{ .key = "context", RAW(FLAT_JSON_STRING, kubernetes.context) },
	{ .key = "server", RAW(FLAT_JSON_STRING, kubernetes.server) },
	{ .key = "serviceAccountDir", RAW(FLAT_JSON_STRING, kubernetes.service_account) },
	{ .key = "pageSize", RAW(FLAT_JSON_UINT32, kubernetes.page), .min = 1, .max = 5000 },
	{ .key = "setNetworkAvailable", RAW(FLAT_JSON_BOOL, kubernetes.set_network_available) },
	FLAT_JSON_END,
};

static const struct flat_json_field cni_fields[] = {
	{ .key = "network", RAW(FLAT_JSON_STRING, cni.network) },
	{ .key = "bridge", RAW(FLAT_JSON_STRING, cni.bridge) },
	{ .key = "ipMasq", RAW(FLAT_JSON_BOOL, cni.ip_masq) },
	{ .key = "ipamDir", RAW(FLAT_JSON_STRING, cni.ipam_dir) },
	{ .key = "confFile", RAW(FLAT_JSON_STRING, cni.conf_file) },
	{ .key = "confTemplate", RAW(FLAT_JSON_STRING, cni.conf_template) },
	FLAT_JSON_END,
};

static const struct flat_json_field log_fields[] = {
	{ .key = "level", RAW(FLAT_JSON_STRING, log.level) },
	{ .key = "format", RAW(FLAT_JSON_STRING, log.format) },
	FLAT_JSON_END,
};

static const struct flat_json_field http_fields[] = {
	{ .key = "address", RAW(FLAT_JSON_STRING, http.address) },
	FLAT_JSON_END,
};

static const struct flat_json_field conf_fields[] = {
	{ .key = "nodeName", RAW(FLAT_JSON_STRING, node_name) },
	{ .key = "source", RAW(FLAT_JSON_STRING, source) },
	{ .key = "file", FLAT_JSON_OBJECT, 0, .table = file_fields },
	{ .key = "etcd", FLAT_JSON_OBJECT, 0, .table = etcd_fields },
	{ .key = "kubernetes", FLAT_JSON_OBJECT, 0, .table = kubernetes_fields },
	{ .key = "clusterCIDR",
	  RAW(FLAT_JSON_PREFIX_OR_LIST, cluster_cidrs),
	  .max = FLAT_NFT_MAX_PREFIXES },
	{ .key = "podCIDRs", RAW(FLAT_JSON_PREFIX_OR_LIST, pod_cidrs), .max = FLAT_NODE_CIDRS },
	{ .key = "backend", RAW(FLAT_JSON_STRING, backend) },
	{ .key = "mtu", RAW(FLAT_JSON_UINT32, mtu), .min = 0, .max = MTU_MAX },
	{ .key = "flannelCompat", RAW(FLAT_JSON_BOOL, flannel) },
	{ .key = "vxlan", FLAT_JSON_OBJECT, 0, .table = vxlan_fields },
	{ .key = "underlay", FLAT_JSON_OBJECT, 0, .table = underlay_fields },
	{ .key = "cni", FLAT_JSON_OBJECT, 0, .table = cni_fields },
	{ .key = "nodeFile", RAW(FLAT_JSON_STRING, node_file) },
	{ .key = "stateFile", RAW(FLAT_JSON_STRING, state_file) },
	{ .key = "subnetEnv", RAW(FLAT_JSON_STRING, subnet_env) },
	{ .key = "resyncSeconds", RAW(FLAT_JSON_UINT32, resync), .min = 1, .max = DAY },
	{ .key = "sweepSeconds", RAW(FLAT_JSON_UINT32, sweep), .min = 0, .max = DAY },
	{ .key = "log", FLAT_JSON_OBJECT, 0, .table = log_fields },
	{ .key = "http", FLAT_JSON_OBJECT, 0, .table = http_fields },
	FLAT_JSON_END,
};

static const char *given(const char *text)
{
	return text && text[0] ? text : NULL;
}

/* A regular file of at most FILE_MAX bytes. Unlike the state room this follows symbolic links: a
 * ConfigMap's files are some. */
static int read_text(const char *path, char **ret_text, size_t *ret_len, struct flat_err *err)
{
	struct stat st;
	flat_auto_fd fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return flat_fail(err, FLAT_CODE_IO, errno, "open '%.256s'", path);
	if (fstat(fd, &st) < 0)
		return flat_fail(err, FLAT_CODE_IO, errno, "look at '%.256s'", path);
	if (!S_ISREG(st.st_mode))
		return flat_fail(err, FLAT_CODE_IO, 0, "'%.256s' is not a regular file", path);
	if (st.st_size > FILE_MAX)
		return flat_fail(err, FLAT_CODE_IO, 0,
				 "'%.256s' has more than the %d bytes allowed", path, FILE_MAX);
	const int r = flat_input_read(fd, READ_TIMEOUT_MS, ret_text, ret_len, err);
	return r < 0 ? flat_wrap(err, "'%.256s'", path) : r;
}

static int read_conf(const char *path, struct flat_arena *arena, struct raw *raw,
		     struct flat_err *err)
{
	flat_auto_free char *text = NULL;
	struct flat_json *json = NULL;
	size_t len = 0;
	int r = read_text(path, &text, &len, err);
	if (r < 0)
		return flat_wrap(err, "configuration");
	r = flat_json_parse(text, len, &json, err);
	if (r >= 0 && !flat_json_is_object(json))
		r = flat_fail(err, FLAT_CODE_CONFIG, 0, "is not an object {...}");
	if (r >= 0)
		r = flat_json_check_keys(json, "", conf_fields, err);
	if (r >= 0)
		r = flat_json_decode(json, "", conf_fields, raw, arena, err);
	flat_json_free(json);
	return r < 0 ? flat_wrap(err, "configuration '%.256s'", path) : 0;
}

/* ---- the flags ---------------------------------------------------------------------------------
 */

enum {
	OPT_CONFIG,
	OPT_CHECK_CONFIG,
	OPT_SOURCE,
	OPT_KUBECONFIG,
	OPT_CONTEXT,
	OPT_NODE_NAME,
	OPT_ETCD_ENDPOINTS,
	OPT_ETCD_PREFIX,
	OPT_NODES_FILE,
	OPT_BACKEND,
	OPT_INTERFACE,
	OPT_PUBLIC_IP,
	OPT_CLUSTER_CIDR,
	OPT_LOG_LEVEL,
	OPT_LOG_FORMAT,
	OPT_METRICS_ADDRESS,
	OPT_VERSION,
	OPT_HELP,
	OPT_COUNT,
	OPT_NONE = OPT_COUNT, /* no flag says this */
};

static const struct option options[] = {
	[OPT_CONFIG] = { "config", required_argument, NULL, OPT_CONFIG },
	[OPT_CHECK_CONFIG] = { "check-config", no_argument, NULL, OPT_CHECK_CONFIG },
	[OPT_SOURCE] = { "source", required_argument, NULL, OPT_SOURCE },
	[OPT_KUBECONFIG] = { "kubeconfig", required_argument, NULL, OPT_KUBECONFIG },
	[OPT_CONTEXT] = { "context", required_argument, NULL, OPT_CONTEXT },
	[OPT_NODE_NAME] = { "node-name", required_argument, NULL, OPT_NODE_NAME },
	[OPT_ETCD_ENDPOINTS] = { "etcd-endpoints", required_argument, NULL, OPT_ETCD_ENDPOINTS },
	[OPT_ETCD_PREFIX] = { "etcd-prefix", required_argument, NULL, OPT_ETCD_PREFIX },
	[OPT_NODES_FILE] = { "nodes-file", required_argument, NULL, OPT_NODES_FILE },
	[OPT_BACKEND] = { "backend", required_argument, NULL, OPT_BACKEND },
	[OPT_INTERFACE] = { "interface", required_argument, NULL, OPT_INTERFACE },
	[OPT_PUBLIC_IP] = { "public-ip", required_argument, NULL, OPT_PUBLIC_IP },
	[OPT_CLUSTER_CIDR] = { "cluster-cidr", required_argument, NULL, OPT_CLUSTER_CIDR },
	[OPT_LOG_LEVEL] = { "log-level", required_argument, NULL, OPT_LOG_LEVEL },
	[OPT_LOG_FORMAT] = { "log-format", required_argument, NULL, OPT_LOG_FORMAT },
	[OPT_METRICS_ADDRESS] = { "metrics-address", required_argument, NULL, OPT_METRICS_ADDRESS },
	[OPT_VERSION] = { "version", no_argument, NULL, OPT_VERSION },
	[OPT_HELP] = { "help", no_argument, NULL, OPT_HELP },
	[OPT_COUNT] = { 0 },
};

const char *flat_agent_flags_help(void)
{
	return "  --config FILE           the configuration, JSON (flatnetd(8)); flags override it\n"
	       "  --check-config          say whether configuration and flags are right, and stop\n"
	       "  --source SOURCE         where the nodes come from: kubernetes, etcd or file\n"
	       "  --kubeconfig FILE       how to reach the API server, when not in a pod\n"
	       "  --context NAME          of the kubeconfig, other than its current one\n"
	       "  --node-name NAME        of this node (default: $NODE_NAME, then the host's name)\n"
	       "  --etcd-endpoints URL[,URL...]\n"
	       "  --etcd-prefix KEY       below which the nodes are (default: /flatnet)\n"
	       "  --nodes-file FILE       list of the nodes, JSON\n"
	       "  --backend BACKEND       direct, vxlan or auto (default)\n"
	       "  --interface NAME        the link to the other nodes (default: of the default route)\n"
	       "  --public-ip ADDRESS     others reach this node by it; once for each family\n"
	       "  --cluster-cidr CIDR[,CIDR...]\n"
	       "                          the flat network (default: 10.244.0.0/16)\n"
	       "  --log-level LEVEL       error, warn, info (default) or debug\n"
	       "  --log-format FORMAT     keys (default) or json\n"
	       "  --metrics-address ADDRESS:PORT|off\n"
	       "                          health and metrics (default: 127.0.0.1:9464)\n"
	       "  --version\n"
	       "  --help\n";
}

/* The next flag, -1 after the last, -EINVAL with err. */
static int next_flag(int argc, char *const *argv, struct flat_err *err)
{
	/* '+': arguments stay where they are; ':': a missing argument is told from an unknown
	 * flag */
	const int at = optind ? optind : 1;
	const int c = getopt_long(argc, argv, "+:", options, NULL);
	if (c >= 0 && c < OPT_COUNT)
		return c;
	if (c == ':') {
		flat_fail(err, FLAT_CODE_CONFIG, 0, "%.64s: needs an argument", argv[at]);
		return flat_detail(err, "flatnetd --help tells which");
	}
	if (c != -1) {
		flat_fail(err, FLAT_CODE_CONFIG, 0, "%.64s: there is no such flag", argv[at]);
		return flat_detail(err, "flatnetd --help lists them");
	}
	if (optind < argc) {
		flat_fail(err, FLAT_CODE_CONFIG, 0, "\"%.64s\" belongs to no flag", argv[optind]);
		return flat_detail(err, "flatnetd --help lists them");
	}
	return -1;
}

static void rewind_flags(void)
{
	optind = 0; /* glibc's way to start anew, GNU extensions included */
	opterr = 0;
}

int flat_agent_flags_parse(int argc, char *const *argv, struct flat_agent_flags *ret_flags,
			   struct flat_err *err)
{
	struct flat_agent_flags flags = { .argc = argc, .argv = argv };
	int c;
	rewind_flags();
	while ((c = next_flag(argc, argv, err)) >= 0) {
		if (c == OPT_CONFIG)
			flags.config = optarg;
		else if (c == OPT_CHECK_CONFIG)
			flags.check = true;
		else if (c == OPT_VERSION)
			flags.version = true;
		else if (c == OPT_HELP)
			flags.help = true;
	}
	if (c != -1)
		return c;
	*ret_flags = flags;
	return 0;
}

typedef bool parse_item(const char *text, void *target);

static bool parse_prefix(const char *text, void *target)
{
	return flat_prefix_parse(text, target);
}

static bool parse_ip(const char *text, void *target)
{
	return flat_ip_parse(text, target);
}

/* Appends what stands between the commas of text. parse NULL: texts. */
static int split(const char *flag, const char *text, size_t size, size_t max, parse_item *parse,
		 const char *expected, struct flat_arena *arena, struct flat_json_list *list,
		 struct flat_err *err)
{
	char *copy = flat_arena_strdup(arena, text), *save = NULL;
	if (!list->items)
		list->items = flat_arena_alloc(arena, max * size);
	if (!copy || !list->items)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "%s", flag);
	for (char *one = strtok_r(copy, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
		char *item = (char *)list->items + list->count * size;
		if (list->count == max)
			return flat_fail(err, FLAT_CODE_CONFIG, 0, "%s: more than the %zu allowed",
					 flag, max);
		if (!parse)
			memcpy(item, &one, sizeof one);
		else if (!parse(one, item))
			return flat_fail(err, FLAT_CODE_CONFIG, 0, "%s: \"%.64s\" is not %s", flag,
					 one, expected);
		list->count++;
	}
	return 0;
}

/* A list that a flag gives takes the whole place of the file's. */
static void begin_list(struct raw *raw, int opt, struct flat_json_list *list)
{
	if (!(raw->flags & 1U << opt))
		*list = (struct flat_json_list){ 0 };
}

static int apply_flag(struct raw *raw, int opt, const char *value, struct flat_arena *arena,
		      struct flat_err *err)
{
	int r = 0;
	switch (opt) {
	case OPT_SOURCE:
		raw->source = value;
		break;
	case OPT_KUBECONFIG:
		raw->kubernetes.kubeconfig = value;
		break;
	case OPT_CONTEXT:
		raw->kubernetes.context = value;
		break;
	case OPT_NODE_NAME:
		raw->node_name = value;
		break;
	case OPT_ETCD_ENDPOINTS:
		begin_list(raw, opt, &raw->etcd.endpoints);
		r = split("--etcd-endpoints", value, sizeof(const char *), ENDPOINTS_MAX, NULL, "",
			  arena, &raw->etcd.endpoints, err);
		break;
	case OPT_ETCD_PREFIX:
		raw->etcd.prefix = value;
		break;
	case OPT_NODES_FILE:
		raw->file.path = value;
		break;
	case OPT_BACKEND:
		raw->backend = value;
		break;
	case OPT_INTERFACE: /* it takes the place of any other choice */
		raw->underlay.interface = value;
		raw->underlay.regex = NULL;
		raw->underlay.cidrs.count = 0;
		raw->underlay.can_reach.family = 0;
		break;
	case OPT_PUBLIC_IP:
		begin_list(raw, opt, &raw->underlay.public_ips);
		r = split("--public-ip", value, sizeof(struct flat_ip), FLAT_FAMILIES, parse_ip,
			  "an IP address", arena, &raw->underlay.public_ips, err);
		break;
	case OPT_CLUSTER_CIDR:
		begin_list(raw, opt, &raw->cluster_cidrs);
		r = split("--cluster-cidr", value, sizeof(struct flat_prefix),
			  FLAT_NFT_MAX_PREFIXES, parse_prefix,
			  "a subnet in CIDR form, like 10.244.0.0/16", arena, &raw->cluster_cidrs,
			  err);
		break;
	case OPT_LOG_LEVEL:
		raw->log.level = value;
		break;
	case OPT_LOG_FORMAT:
		raw->log.format = value;
		break;
	case OPT_METRICS_ADDRESS:
		raw->http.address = value;
		break;
	default:
		return 0;
	}
	raw->flags |= 1U << opt;
	return r;
}

static int apply_flags(const struct flat_agent_flags *flags, struct flat_arena *arena,
		       struct raw *raw, struct flat_err *err)
{
	int opt;
	rewind_flags();
	while ((opt = next_flag(flags->argc, flags->argv, err)) >= 0) {
		/* the arena, because argv is somebody else's */
		const char *value = optarg ? flat_arena_strdup(arena, optarg) : NULL;
		if (optarg && !value)
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "read the flags");
		if (value && !value[0] && opt != OPT_CONFIG)
			return flat_fail(err, FLAT_CODE_CONFIG, 0, "--%s: must not be empty",
					 options[opt].name);
		const int r = apply_flag(raw, opt, value, arena, err);
		if (r < 0)
			return r;
	}
	return opt == -1 ? 0 : opt;
}

/* ---- checks ------------------------------------------------------------------------------------
 */

/* What a fault calls a value: "--backend", "vxlan.port". */
static const char *where(const struct raw *raw, int opt, const char *key)
{
	static const char *const names[OPT_COUNT] = {
		[OPT_SOURCE] = "--source",
		[OPT_KUBECONFIG] = "--kubeconfig",
		[OPT_CONTEXT] = "--context",
		[OPT_NODE_NAME] = "--node-name",
		[OPT_ETCD_ENDPOINTS] = "--etcd-endpoints",
		[OPT_ETCD_PREFIX] = "--etcd-prefix",
		[OPT_NODES_FILE] = "--nodes-file",
		[OPT_BACKEND] = "--backend",
		[OPT_INTERFACE] = "--interface",
		[OPT_PUBLIC_IP] = "--public-ip",
		[OPT_CLUSTER_CIDR] = "--cluster-cidr",
		[OPT_LOG_LEVEL] = "--log-level",
		[OPT_LOG_FORMAT] = "--log-format",
		[OPT_METRICS_ADDRESS] = "--metrics-address",
	};
	return opt != OPT_NONE && raw->flags & 1U << opt ? names[opt] : key;
}

static int refuse(struct flat_err *err, const char *place, const char *fmt, ...) FLAT_PRINTF(3, 4);
static int refuse(struct flat_err *err, const char *place, const char *fmt, ...)
{
	char text[384];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return flat_fail(err, FLAT_CODE_CONFIG, 0, "%s: %s", place, text);
}

/* One of count words; NULL: the first. */
static int choose(const char *place, const char *text, const char *const *words, size_t count,
		  int *ret_index, struct flat_err *err)
{
	char all[128] = "";
	for (size_t i = 0, n = 0; i < count; i++) {
		if (!given(text) || !strcmp(text, words[i])) {
			*ret_index = (int)i;
			return 0;
		}
		n += (size_t)snprintf(all + n, sizeof all - n, "%s%s", i ? ", " : "", words[i]);
	}
	return refuse(err, place, "\"%.64s\" is not one of %s", text, all);
}

/* NULL and "" stay as they are. */
static int check_path(const char *place, const char *path, struct flat_err *err)
{
	if (!given(path))
		return 0;
	if (path[0] != '/')
		return refuse(err, place, "\"%.128s\" must be an absolute path", path);
	if (strlen(path) >= PATH_MAX)
		return refuse(err, place, "\"%.64s...\" is longer than a path can be", path);
	if (path[strlen(path) - 1] == '/')
		return refuse(err, place, "\"%.128s\" ends with '/': name it without", path);
	return 0;
}

static int check_ifname(const char *place, const char *name, struct flat_err *err)
{
	if (flat_ifname_is_valid(name))
		return 0;
	return refuse(err, place,
		      "\"%.64s\" cannot name an interface: 1 to 15 characters, without '/', ':' "
		      "or white space",
		      name);
}

/* Can a packet be sent there from another host? */
static bool is_reachable(const struct flat_ip *ip)
{
	static const char *const nowhere[] = { "0.0.0.0/8",	 "127.0.0.0/8", "224.0.0.0/3",
					       "169.254.0.0/16", "::/127",	"fe80::/10",
					       "ff00::/8" };
	for (size_t i = 0; i < FLAT_LEN(nowhere); i++) {
		struct flat_prefix prefix;
		if (flat_prefix_parse(nowhere[i], &prefix) && flat_prefix_contains(&prefix, ip))
			return false;
	}
	return true;
}

static bool has_host_bits(const struct flat_prefix *prefix)
{
	const struct flat_ip first = flat_prefix_first(prefix);
	return !flat_ip_equal(&first, &prefix->ip);
}

static int check_prefix(const char *place, const struct flat_prefix *prefix, struct flat_err *err)
{
	char text[FLAT_PREFIX_TEXT], clean_text[FLAT_PREFIX_TEXT];
	const struct flat_prefix clean = { flat_prefix_first(prefix), prefix->len };
	if (has_host_bits(prefix))
		return refuse(err, place, "%s has host bits set: the network is %s",
			      flat_prefix_text(prefix, text), flat_prefix_text(&clean, clean_text));
	return 0;
}

/* https://HOST[:PORT], without more. */
static int check_url(const char *place, const char *url, struct flat_err *err)
{
	const char *host = !strncmp(url, "https://", 8)	 ? url + 8
			   : !strncmp(url, "http://", 7) ? url + 7
							 : NULL;
	if (!host)
		return refuse(err, place,
			      "\"%.128s\" is not a URL: http:// or https://, host and port", url);
	const size_t host_len = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/");
	const char *rest = host + (host_len <= strlen(host) ? host_len : strlen(host));
	bool good = host_len && host_len <= 255 && host_len <= strlen(host);
	if (good && host[0] == '[') {
		char text[FLAT_IP_TEXT];
		struct flat_ip ip;
		good = host_len - 2 < sizeof text;
		if (good) {
			memcpy(text, host + 1, host_len - 2);
			text[host_len - 2] = '\0';
			good = flat_ip_parse(text, &ip) && ip.family == AF_INET6;
		}
	}
	for (size_t i = 0; good && host[0] != '[' && i < host_len; i++)
		good = isalnum((unsigned char)host[i]) || strchr("-._", host[i]);
	if (!good)
		return refuse(err, place, "\"%.128s\": the host is neither a name nor an address",
			      url);
	if (*rest == ':') {
		uint64_t port;
		if (!flat_uint_parse(rest + 1, 65535, &port) || !port)
			return refuse(err, place,
				      "\"%.128s\": the port is not a number up to 65535", url);
	} else if (*rest) {
		return refuse(err, place, "\"%.128s\": must end with the host or the port", url);
	}
	return 0;
}

/* ---- subject by subject ------------------------------------------------------------------------
 */

struct settle {
	struct raw *raw;
	const struct flat_agent_env *env;
	struct flat_agent_conf *conf;
};

static bool covers(const struct flat_cluster_conf *cluster, const struct flat_prefix *prefix)
{
	for (size_t i = 0; i < cluster->cidr_count; i++)
		if (cluster->cidrs[i].len <= prefix->len &&
		    flat_prefix_contains(&cluster->cidrs[i], &prefix->ip))
			return true;
	return false;
}

static bool has_family(const struct flat_cluster_conf *cluster, int family)
{
	for (size_t i = 0; i < cluster->cidr_count; i++)
		if (cluster->cidrs[i].ip.family == family)
			return true;
	return false;
}

static int settle_cidrs(struct settle *s, struct flat_err *err)
{
	const char *place = where(s->raw, OPT_CLUSTER_CIDR, "clusterCIDR");
	struct flat_cluster_conf *cluster = &s->conf->cluster;
	const struct flat_json_list *told = &s->raw->cluster_cidrs;
	char a[FLAT_PREFIX_TEXT], b[FLAT_PREFIX_TEXT];
	if (!told->count) {
		flat_prefix_parse("10.244.0.0/16", &cluster->cidrs[0]);
		cluster->cidr_count = 1;
	}
	for (size_t i = 0; i < told->count; i++) {
		const struct flat_prefix *cidr = &((const struct flat_prefix *)told->items)[i];
		int r = check_prefix(place, cidr, err);
		if (r < 0)
			return r;
		if (!cidr->len)
			return refuse(err, place, "%s is the whole world: name the pods' network",
				      flat_prefix_text(cidr, a));
		for (size_t k = 0; k < i; k++)
			if (flat_prefix_overlaps(cidr, &cluster->cidrs[k]))
				return refuse(err, place, "%s and %s overlap: name the larger one",
					      flat_prefix_text(&cluster->cidrs[k], a),
					      flat_prefix_text(cidr, b));
		cluster->cidrs[cluster->cidr_count++] = *cidr;
	}
	for (size_t i = 0; i < s->raw->pod_cidrs.count; i++) {
		const struct flat_prefix *cidr =
			&((const struct flat_prefix *)s->raw->pod_cidrs.items)[i];
		char here[32];
		snprintf(here, sizeof here, "podCIDRs[%zu]", i);
		int r = check_prefix(here, cidr, err);
		if (r < 0)
			return r;
		if (!covers(cluster, cidr))
			return refuse(err, here, "%s is not inside clusterCIDR: add it there",
				      flat_prefix_text(cidr, a));
		for (size_t k = 0; k < i; k++)
			if (flat_prefix_overlaps(cidr, &s->conf->pod_cidrs[k]))
				return refuse(err, here, "%s overlaps %s",
					      flat_prefix_text(cidr, a),
					      flat_prefix_text(&s->conf->pod_cidrs[k], b));
		s->conf->pod_cidrs[s->conf->pod_cidr_count++] = *cidr;
	}
	return 0;
}

static int settle_mtu(struct settle *s, struct flat_err *err)
{
	const uint32_t mtu = s->raw->mtu;
	const bool ipv6 = has_family(&s->conf->cluster, AF_INET6);
	if (mtu && mtu < (ipv6 ? MTU_MIN_IPV6 : MTU_MIN))
		return refuse(err, "mtu", "%u is less than the %d that %s needs; 0: as the link's",
			      mtu, ipv6 ? MTU_MIN_IPV6 : MTU_MIN, ipv6 ? "IPv6" : "IPv4");
	s->conf->cluster.mtu = mtu;
	return 0;
}

static int settle_backend(struct settle *s, struct flat_err *err)
{
	static const char *const backends[] = { "auto", "direct", "vxlan" };
	static const char *const checksums[] = { "auto", "on", "off" };
	static const char *const keys[] = { "vxlan.name", "vxlan.nameIPv6" };
	const struct raw *raw = s->raw;
	struct flat_cluster_conf *cluster = &s->conf->cluster;
	const char *const names[] = { given(raw->vxlan.name), given(raw->vxlan.name6) };
	int index = 0;
	int r = choose(where(raw, OPT_BACKEND, "backend"), raw->backend, backends,
		       FLAT_LEN(backends), &index, err);
	if (r < 0)
		return r;
	cluster->backend = (enum flat_backend)index;
	r = choose("vxlan.checksum", raw->vxlan.checksum, checksums, FLAT_LEN(checksums), &index,
		   err);
	if (r < 0)
		return r;
	s->conf->checksum = (enum flat_checksum)index;
	cluster->vni = raw->vxlan.vni;
	cluster->port = (uint16_t)raw->vxlan.port;
	cluster->flannel = raw->flannel;
	for (size_t i = 0; i < FLAT_FAMILIES; i++) {
		char name[32];
		if (names[i])
			snprintf(name, sizeof name, "%.31s", names[i]);
		else if (raw->flannel)
			snprintf(name, sizeof name, "flannel%s.%u", i == FLAT_V6 ? "-v6" : "",
				 cluster->vni);
		else
			snprintf(name, sizeof name, "flatnet%s.%u", i == FLAT_V6 ? "6" : "",
				 cluster->vni);
		if (!names[i] && strlen(name) >= FLAT_IFNAME_LEN)
			return refuse(err, keys[i],
				      "'%s', made of vxlan.vni, has more than %d characters: give "
				      "a shorter name",
				      name, FLAT_IFNAME_LEN - 1);
		r = check_ifname(keys[i], names[i] ? names[i] : name, err);
		if (r < 0)
			return r;
		snprintf(cluster->link[i], sizeof cluster->link[i], "%.15s", name);
	}
	if (!strcmp(cluster->link[FLAT_V4], cluster->link[FLAT_V6]))
		return refuse(err, "vxlan.nameIPv6", "\"%s\" is vxlan.name too: give another name",
			      cluster->link[FLAT_V6]);
	return 0;
}

static int settle_source(struct settle *s, struct flat_err *err)
{
	static const struct flat_source_type *const types[] = {
		&flat_source_kubernetes,
		&flat_source_etcd,
		&flat_source_file,
	};
	static const char *const words[] = { "kubernetes", "etcd", "file" };
	const struct raw *raw = s->raw;
	const uint32_t flags = raw->flags;
	int index = -1;
	if (given(raw->source)) {
		int told = 0;
		int r = choose(where(raw, OPT_SOURCE, "source"), raw->source, words,
			       FLAT_LEN(words), &told, err);
		if (r < 0)
			return r;
		s->conf->source = types[told];
		return 0;
	}
	/* not told: what is named tells it, first on the command line, then in the file, then by
	 * where we are */
	bool named[] = { flags & 1U << OPT_KUBECONFIG, flags & 1U << OPT_ETCD_ENDPOINTS,
			 flags & 1U << OPT_NODES_FILE };
	if (!named[0] && !named[1] && !named[2]) {
		named[0] = given(raw->kubernetes.kubeconfig) || given(raw->kubernetes.server);
		named[1] = raw->etcd.endpoints.count;
		named[2] = given(raw->file.path);
	}
	if (named[0] + named[1] + named[2] > 1)
		return refuse(err, "source",
			      "settings of several are given: say which of kubernetes, etcd, file "
			      "counts");
	for (int i = 0; i < 3; i++)
		if (named[i])
			index = i;
	if (index < 0 && given(s->env->service_host))
		index = 0;
	if (index < 0) {
		refuse(err, "source", "is not told: where do the nodes come from?");
		return flat_detail(err, "kubernetes (--kubeconfig FILE, or run in a pod), etcd "
					"(--etcd-endpoints URL), or file (--nodes-file FILE)");
	}
	s->conf->source = types[index];
	return 0;
}

static int settle_name(struct settle *s, struct flat_err *err)
{
	const char *place = where(s->raw, OPT_NODE_NAME, "nodeName");
	const char *name = given(s->raw->node_name);
	if (!name) {
		name = given(s->env->node_name);
		place = "NODE_NAME";
	}
	if (!name) {
		/* as the kubelet does */
		char *lower = flat_arena_strdup(&s->conf->arena,
						given(s->env->host_name) ? s->env->host_name : "");
		if (!lower)
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "nodeName");
		for (char *c = lower; *c && s->conf->source == &flat_source_kubernetes; c++)
			*c = (char)tolower((unsigned char)*c);
		name = lower;
		place = "the host's name";
	}
	if (!flat_name_is_valid(name) || strlen(name) > FLAT_NODE_NAME_MAX) {
		refuse(err, place, "\"%.64s\" cannot name a node", name);
		return flat_detail(err,
				   "letters, digits, '-', '_' and '.', at most %d; set nodeName or "
				   "--node-name",
				   FLAT_NODE_NAME_MAX);
	}
	s->conf->node_name = flat_arena_strdup(&s->conf->arena, name);
	return s->conf->node_name ? 0 : flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "nodeName");
}

static int settle_file(struct settle *s, struct flat_err *err)
{
	const char *place = where(s->raw, OPT_NODES_FILE, "file.path");
	const char *path = given(s->raw->file.path);
	int r = check_path(place, path, err);
	if (r < 0)
		return r;
	if (!path && s->conf->source == &flat_source_file)
		return refuse(err, "file.path",
			      "is needed with source file: the list of the nodes");
	s->conf->file.path = path;
	return 0;
}

/* Bounds of the subnets that are handed out. */
static int settle_subnets(struct settle *s, int family, struct flat_err *err)
{
	static const char *const keys[][3] = {
		{ "etcd.subnetLen", "etcd.subnetMin", "etcd.subnetMax" },
		{ "etcd.ipv6SubnetLen", "etcd.ipv6SubnetMin", "etcd.ipv6SubnetMax" },
	};
	const struct flat_cluster_conf *cluster = &s->conf->cluster;
	const int i = family == AF_INET6 ? FLAT_V6 : FLAT_V4;
	const struct flat_ip *bounds[] = { &s->raw->etcd.subnet_min[i],
					   &s->raw->etcd.subnet_max[i] };
	const uint8_t len = (uint8_t)s->raw->etcd.subnet_len[i];
	char text[FLAT_PREFIX_TEXT], clean_text[FLAT_PREFIX_TEXT];
	for (size_t k = 0; k < cluster->cidr_count; k++)
		if (cluster->cidrs[k].ip.family == family && cluster->cidrs[k].len >= len)
			return refuse(err, keys[i][0],
				      "/%u is no part of clusterCIDR %s: give a greater number",
				      len, flat_prefix_text(&cluster->cidrs[k], text));
	for (size_t k = 0; k < 2; k++) {
		const struct flat_prefix subnet = { *bounds[k], len };
		if (!bounds[k]->family)
			continue;
		if (bounds[k]->family != family)
			return refuse(err, keys[i][1 + k], "%s is not of %s",
				      flat_ip_text(bounds[k], text),
				      family == AF_INET6 ? "IPv6" : "IPv4");
		if (!covers(cluster, &subnet))
			return refuse(err, keys[i][1 + k], "%s is not inside clusterCIDR",
				      flat_ip_text(bounds[k], text));
		if (has_host_bits(&subnet)) {
			const struct flat_ip first = flat_prefix_first(&subnet);
			return refuse(err, keys[i][1 + k], "%s begins no /%u: its subnet is %s",
				      flat_ip_text(bounds[k], text), len,
				      flat_ip_text(&first, clean_text));
		}
	}
	if (bounds[0]->family && bounds[1]->family && flat_ip_compare(bounds[0], bounds[1]) > 0)
		return refuse(err, keys[i][2], "%s is before %s", flat_ip_text(bounds[1], text),
			      keys[i][1]);
	s->conf->etcd.subnet_len[i] = len;
	s->conf->etcd.subnet_min[i] = *bounds[0];
	s->conf->etcd.subnet_max[i] = *bounds[1];
	return 0;
}

static int settle_etcd(struct settle *s, struct flat_err *err)
{
	const struct raw *raw = s->raw;
	const char *place = where(raw, OPT_ETCD_ENDPOINTS, "etcd.endpoints");
	const char *const *urls = raw->etcd.endpoints.items;
	const char *prefix = given(raw->etcd.prefix);
	int r = 0;
	for (size_t i = 0; i < raw->etcd.endpoints.count && r >= 0; i++) {
		char here[48];
		snprintf(here, sizeof here, "%s[%zu]", place, i);
		r = check_url(here, urls[i], err);
	}
	if (r < 0)
		return r;
	if (!raw->etcd.endpoints.count && s->conf->source == &flat_source_etcd)
		return refuse(err, "etcd.endpoints",
			      "is needed with source etcd: a list of URLs, like "
			      "https://192.0.2.1:2379");
	if (!prefix)
		prefix = raw->flannel ? "/coreos.com/network" : "/flatnet";
	place = where(raw, OPT_ETCD_PREFIX, "etcd.prefix");
	if (prefix[0] != '/' || !prefix[1] || prefix[strlen(prefix) - 1] == '/' ||
	    strlen(prefix) > 256)
		return refuse(
			err, place,
			"\"%.64s\" must begin with '/', not end with it, and have at most 256 "
			"characters",
			prefix);
	const struct {
		const char *key, *path;
	} files[] = {
		{ "etcd.caFile", raw->etcd.ca_file },
		{ "etcd.certFile", raw->etcd.cert_file },
		{ "etcd.keyFile", raw->etcd.key_file },
		{ "etcd.passwordFile", raw->etcd.password_file },
	};
	for (size_t i = 0; i < FLAT_LEN(files) && r >= 0; i++)
		r = check_path(files[i].key, files[i].path, err);
	if (r < 0)
		return r;
	if (!given(raw->etcd.cert_file) != !given(raw->etcd.key_file))
		return refuse(err, given(raw->etcd.cert_file) ? "etcd.keyFile" : "etcd.certFile",
			      "is missing: certificate and key belong together");
	if (!given(raw->etcd.user) != !given(raw->etcd.password_file))
		return refuse(err, given(raw->etcd.user) ? "etcd.passwordFile" : "etcd.user",
			      "is missing: user and password belong together");
	s->conf->etcd.endpoints = raw->etcd.endpoints;
	s->conf->etcd.prefix = prefix;
	s->conf->etcd.ca_file = given(raw->etcd.ca_file);
	s->conf->etcd.cert_file = given(raw->etcd.cert_file);
	s->conf->etcd.key_file = given(raw->etcd.key_file);
	s->conf->etcd.user = given(raw->etcd.user);
	s->conf->etcd.password_file = given(raw->etcd.password_file);
	s->conf->etcd.lease_ttl = raw->etcd.lease;
	if (s->conf->source != &flat_source_etcd) /* the lengths are of no meaning then */
		return 0;
	r = settle_subnets(s, AF_INET, err);
	return r < 0 ? r : settle_subnets(s, AF_INET6, err);
}

static int settle_kubernetes(struct settle *s, struct flat_err *err)
{
	const struct raw *raw = s->raw;
	const struct flat_agent_env *env = s->env;
	const char *kubeconfig = given(raw->kubernetes.kubeconfig);
	const char *server = given(raw->kubernetes.server);
	const bool wanted = s->conf->source == &flat_source_kubernetes;
	int r = check_path(where(raw, OPT_KUBECONFIG, "kubernetes.kubeconfig"), kubeconfig, err);
	if (r >= 0)
		r = check_path("kubernetes.serviceAccountDir", raw->kubernetes.service_account,
			       err);
	if (r >= 0 && server)
		r = check_url("kubernetes.server", server, err);
	if (r < 0)
		return r;
	if (kubeconfig && server)
		return refuse(err, "kubernetes.server",
			      "is named by kubernetes.kubeconfig: give one of the two");
	if (given(raw->kubernetes.context) && !kubeconfig)
		return refuse(err, where(raw, OPT_CONTEXT, "kubernetes.context"),
			      "is one of a kubeconfig: give kubernetes.kubeconfig too");
	if (wanted && !kubeconfig && !server && given(env->service_host)) {
		const char *host = env->service_host;
		const char *port = given(env->service_port) ? env->service_port : "443";
		const bool bare6 = strchr(host, ':') && host[0] != '[';
		char url[320];
		if (snprintf(url, sizeof url, "https://%s%s%s:%s", bare6 ? "[" : "", host,
			     bare6 ? "]" : "", port) >= (int)sizeof url)
			return refuse(err, "KUBERNETES_SERVICE_HOST", "is too long");
		r = check_url("KUBERNETES_SERVICE_HOST and _PORT", url, err);
		if (r < 0)
			return r;
		server = flat_arena_strdup(&s->conf->arena, url);
		if (!server)
			return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "kubernetes.server");
	}
	if (wanted && !kubeconfig && !server) {
		refuse(err, "kubernetes.kubeconfig", "is needed outside of a pod");
		return flat_detail(err, "--kubeconfig FILE, or kubernetes.server with a service "
					"account's token");
	}
	s->conf->kubernetes.kubeconfig = kubeconfig;
	s->conf->kubernetes.context = given(raw->kubernetes.context);
	s->conf->kubernetes.server = server;
	s->conf->kubernetes.service_account =
		given(raw->kubernetes.service_account)
			? raw->kubernetes.service_account
			: "/var/run/secrets/kubernetes.io/serviceaccount";
	s->conf->kubernetes.page = raw->kubernetes.page;
	s->conf->kubernetes.set_network_available = raw->kubernetes.set_network_available;
	return 0;
}

static int settle_underlay(struct settle *s, struct flat_err *err)
{
	const struct raw *raw = s->raw;
	const char *place = where(raw, OPT_INTERFACE, "underlay.interface");
	const char *name = given(raw->underlay.interface), *regex = given(raw->underlay.regex);
	char text[FLAT_IP_TEXT];
	if (!!name + !!regex + !!raw->underlay.cidrs.count + !!raw->underlay.can_reach.family > 1)
		return refuse(err, "underlay",
			      "interface, interfaceRegex, cidrs and canReach each choose the "
			      "link: give one of them");
	if (name) {
		int r = check_ifname(place, name, err);
		if (r < 0)
			return r;
	}
	if (regex) {
		regex_t compiled;
		char why[128];
		const int r = regcomp(&compiled, regex, REG_EXTENDED | REG_NOSUB);
		if (r) {
			regerror(r, &compiled, why, sizeof why);
			return refuse(err, "underlay.interfaceRegex", "\"%.64s\": %s", regex, why);
		}
		regfree(&compiled);
	}
	for (size_t i = 0; i < raw->underlay.public_ips.count; i++) {
		const struct flat_ip *ip =
			&((const struct flat_ip *)raw->underlay.public_ips.items)[i];
		struct flat_ip *target =
			&s->conf->underlay
				 .public_address[ip->family == AF_INET6 ? FLAT_V6 : FLAT_V4];
		place = where(raw, OPT_PUBLIC_IP, "underlay.publicIP");
		if (!is_reachable(ip))
			return refuse(err, place, "no other node can reach %s",
				      flat_ip_text(ip, text));
		if (target->family)
			return refuse(err, place,
				      "two of one family: give one IPv4 and one IPv6 address");
		*target = *ip;
	}
	if (raw->underlay.can_reach.family && !is_reachable(&raw->underlay.can_reach))
		return refuse(err, "underlay.canReach", "no link leads to %s",
			      flat_ip_text(&raw->underlay.can_reach, text));
	s->conf->underlay.interface = name;
	s->conf->underlay.regex = regex;
	s->conf->underlay.cidrs = raw->underlay.cidrs;
	s->conf->underlay.can_reach = raw->underlay.can_reach;
	return 0;
}

/* The template must be what a runtime takes, or no pod would ever start. */
static int read_template(struct settle *s, const char *path, struct flat_err *err)
{
	flat_auto_free char *text = NULL;
	struct flat_json *json = NULL;
	size_t len = 0;
	int r = read_text(path, &text, &len, err);
	if (r >= 0)
		r = flat_json_parse(text, len, &json, err);
	if (r >= 0 && (!flat_json_text(flat_json_get(json, "cniVersion")) ||
		       !flat_json_text(flat_json_get(json, "name")) ||
		       !flat_json_count(flat_json_get(json, "plugins"))))
		r = flat_fail(err, FLAT_CODE_CONFIG, 0,
			      "'%.128s' is not a network configuration list: cniVersion, name and "
			      "plugins are needed",
			      path);
	flat_json_free(json);
	if (r < 0)
		return flat_wrap(err, "cni.confTemplate");
	s->conf->cni.conf_template = flat_arena_strdup(&s->conf->arena, text);
	if (!s->conf->cni.conf_template)
		return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM, "cni.confTemplate");
	return 0;
}

static bool ends_with(const char *text, const char *end)
{
	const size_t len = strlen(text), end_len = strlen(end);
	return len > end_len && !strcmp(text + len - end_len, end);
}

static int settle_cni(struct settle *s, struct flat_err *err)
{
	const struct raw *raw = s->raw;
	struct flat_agent_conf *conf = s->conf;
	const char *network = given(raw->cni.network) ? raw->cni.network : "flatnet";
	const char *bridge = given(raw->cni.bridge) ? raw->cni.bridge : "cni0";
	const char *conf_file = given(raw->cni.conf_file);
	const char *template = given(raw->cni.conf_template);
	if (!flat_name_is_valid(network))
		return refuse(err, "cni.network",
			      "\"%.64s\" cannot name a network: letters, digits, '-', '_' and '.'",
			      network);
	int r = check_ifname("cni.bridge", bridge, err);
	if (r >= 0)
		r = check_path("cni.ipamDir", raw->cni.ipam_dir, err);
	if (r >= 0)
		r = check_path("cni.confFile", conf_file, err);
	if (r >= 0)
		r = check_path("cni.confTemplate", template, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < FLAT_FAMILIES; i++)
		if (!strcmp(bridge, conf->cluster.link[i]))
			return refuse(err, "cni.bridge", "\"%s\" is the VXLAN device's name too",
				      bridge);
	if (conf_file && !ends_with(conf_file, ".conflist"))
		return refuse(err, "cni.confFile",
			      "\"%.128s\" must end with .conflist: runtimes go by it", conf_file);
	if (template && !conf_file)
		return refuse(err, "cni.confFile", "is missing: where does confTemplate go?");
	conf->cni.network = network;
	conf->cni.bridge = bridge;
	conf->cni.ip_masq = raw->cni.ip_masq;
	conf->cni.ipam_dir = given(raw->cni.ipam_dir) ? raw->cni.ipam_dir : FLAT_IPAM_DATA_DIR;
	conf->cni.conf_file = conf_file;
	return template ? read_template(s, template, err) : 0;
}

static int settle_files(struct settle *s, struct flat_err *err)
{
	const struct raw *raw = s->raw;
	int r = check_path("nodeFile", raw->node_file, err);
	if (r >= 0)
		r = check_path("stateFile", raw->state_file, err);
	if (r >= 0)
		r = check_path("subnetEnv", raw->subnet_env, err);
	if (r < 0)
		return r;
	s->conf->node_file = given(raw->node_file) ? raw->node_file : FLAT_NODE_FILE;
	s->conf->state_file =
		raw->state_file ? given(raw->state_file) : "/var/lib/flatnet/state.json";
	s->conf->subnet_env = given(raw->subnet_env);
	s->conf->resync = raw->resync;
	s->conf->sweep = raw->sweep;
	return 0;
}

static int settle_log(struct settle *s, struct flat_err *err)
{
	static const char *const levels[] = { "error", "warn", "info", "debug" };
	static const char *const formats[] = { "keys", "json" };
	const struct raw *raw = s->raw;
	int level = FLAT_LEVEL_INFO, format = FLAT_LOG_KEYS, r = 0;
	if (given(raw->log.level))
		r = choose(where(raw, OPT_LOG_LEVEL, "log.level"), raw->log.level, levels,
			   FLAT_LEN(levels), &level, err);
	if (r >= 0)
		r = choose(where(raw, OPT_LOG_FORMAT, "log.format"), raw->log.format, formats,
			   FLAT_LEN(formats), &format, err);
	s->conf->log_level = (enum flat_level)level;
	s->conf->log_format = (enum flat_log_format)format;
	return r;
}

static int settle_http(struct settle *s, struct flat_err *err)
{
	const char *place = where(s->raw, OPT_METRICS_ADDRESS, "http.address");
	const char *text = given(s->raw->http.address) ? s->raw->http.address : "127.0.0.1:9464";
	const char *colon = strrchr(text, ':');
	char host[FLAT_IP_TEXT + 2] = "";
	uint64_t port = 0;
	struct flat_ip ip = { 0 };
	if (!strcmp(text, "off"))
		return 0;
	if (colon && (size_t)(colon - text) < sizeof host)
		memcpy(host, text, (size_t)(colon - text));
	const size_t len = strlen(host);
	const bool bracketed = len > 2 && host[0] == '[' && host[len - 1] == ']';
	if (bracketed)
		host[len - 1] = '\0';
	const bool good = colon && flat_ip_parse(host + bracketed, &ip) &&
			  (ip.family == AF_INET6) == bracketed &&
			  flat_uint_parse(colon + 1, 65535, &port) && port;
	if (!good)
		return refuse(err, place,
			      "\"%.64s\" is not an address and a port, like 127.0.0.1:9464 or "
			      "[::1]:9464, nor \"off\"",
			      text);
	s->conf->http.address = ip;
	s->conf->http.port = (uint16_t)port;
	return 0;
}

/* ---- all together ------------------------------------------------------------------------------
 */

int flat_agent_conf_load(const struct flat_agent_flags *flags, const struct flat_agent_env *env,
			 struct flat_agent_conf *ret_conf, struct flat_err *err)
{
	/* the cluster first: others are held against it */
	static int (*const steps[])(struct settle * s, struct flat_err * err) = {
		settle_source, settle_name, settle_cidrs,      settle_mtu,	settle_backend,
		settle_file,   settle_etcd, settle_kubernetes, settle_underlay, settle_cni,
		settle_files,  settle_log,  settle_http,
	};
	struct raw raw = {
		.vxlan = { .vni = 1, .port = 8472 },
		.etcd = { .subnet_len = { [FLAT_V4] = 24, [FLAT_V6] = 64 }, .lease = DAY },
		.kubernetes = { .page = 500 },
		.cni = { .ip_masq = true },
		.resync = 60,
		.sweep = 5,
	};
	struct settle s = { .raw = &raw, .env = env, .conf = ret_conf };
	*ret_conf = (struct flat_agent_conf){ 0 };
	int r = 0;
	if (flags->config)
		r = read_conf(flags->config, &ret_conf->arena, &raw, err);
	if (r >= 0)
		r = apply_flags(flags, &ret_conf->arena, &raw, err);
	for (size_t i = 0; i < FLAT_LEN(steps) && r >= 0; i++)
		r = steps[i](&s, err);
	return r < 0 ? r : 0;
}

void flat_agent_conf_free(struct flat_agent_conf *conf)
{
	flat_arena_free(&conf->arena);
	*conf = (struct flat_agent_conf){ 0 };
}
