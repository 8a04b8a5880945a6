// SPDX-License-Identifier: Apache-2.0
#include "conf-private.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

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
static void begin_list(struct flat_raw *raw, int opt, struct flat_json_list *list)
{
	if (!(raw->flags & 1U << opt))
		*list = (struct flat_json_list){ 0 };
}

static int apply_flag(struct flat_raw *raw, int opt, const char *value, struct flat_arena *arena,
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

int flat_raw_apply_flags(struct flat_raw *raw, const struct flat_agent_flags *flags,
			 struct flat_arena *arena, struct flat_err *err)
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

const char *flat_raw_place(const struct flat_raw *raw, int opt, const char *key)
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
