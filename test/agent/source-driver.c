// SPDX-License-Identifier: Apache-2.0
/*
 * A source of nodes alone, without the agent around it: prints what it tells, a line an event.
 *
 *   source-driver kubeconfig=FILE | server=URL service-account=DIR
 *                 [node=NAME] [page=N] [flannel] [publish=IP,CIDR] [available] [quiet]
 *
 * quiet: only the ends of lists, with their time and this process's memory, and changes after the
 * first, with the time of day.
 */
#include "../../agent/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static bool quiet;
static bool synced;
static size_t told;
static int64_t started_ms;

static void print_memory(void)
{
	char line[256];
	FILE *file = fopen("/proc/self/status", "r");
	while (file && fgets(line, sizeof line, file)) {
		if (!strncmp(line, "VmHWM:", 6) || !strncmp(line, "VmRSS:", 6) ||
		    !strncmp(line, "RssAnon:", 8))
			printf(" %.*s%d", (int)strcspn(line, ":") + 1, line,
			       atoi(strchr(line, ':') + 1));
	}
	if (file)
		fclose(file);
}

static void on_begin(void *arg)
{
	(void)arg;
	told = 0;
	started_ms = flat_now_ms();
	puts("begin");
}

static void on_node(void *arg, const struct flat_node *node, const char *fault)
{
	(void)arg;
	char text[FLAT_PREFIX_TEXT];
	told++;
	if (quiet && !synced)
		return;
	printf("node %s", node->name);
	for (size_t i = 0; i < node->pod_cidr_count; i++)
		printf(" cidr=%s", flat_prefix_text(&node->pod_cidrs[i], text));
	for (int family = 0; family < FLAT_FAMILIES; family++) {
		if (node->addresses[family].family)
			printf(" address=%s", flat_ip_text(&node->addresses[family], text));
		if (node->has_vtep[family])
			printf(" vtep=%s", flat_mac_text(&node->vtep[family], text));
	}
	if (node->since == UINT64_MAX)
		printf(" since=never");
	if (fault)
		printf(" fault=%s", fault);
	if (quiet) {
		struct timespec now;
		clock_gettime(CLOCK_REALTIME, &now);
		printf(" at=%lld.%03ld", (long long)now.tv_sec, now.tv_nsec / 1000000);
	}
	putchar('\n');
}

static void on_gone(void *arg, const char *name)
{
	(void)arg;
	printf("gone %s\n", name);
}

static void on_synced(void *arg)
{
	(void)arg;
	synced = true;
	printf("synced nodes=%zu", told);
	if (quiet) {
		printf(" ms=%lld", (long long)(flat_now_ms() - started_ms));
		print_memory();
	}
	putchar('\n');
}

static void on_state(void *arg, bool connected, const char *why)
{
	(void)arg;
	printf("%s%s%s\n", connected ? "connected" : "broken", why ? " " : "", why ? why : "");
}

static const char *value_of(const char *arg, const char *key)
{
	size_t len = strlen(key);
	return !strncmp(arg, key, len) && arg[len] == '=' ? arg + len + 1 : NULL;
}

static bool parse_self(const char *text, struct flat_self *self)
{
	char ip[FLAT_IP_TEXT];
	const char *comma = strchr(text, ',');
	struct flat_ip address;
	if (!comma || (size_t)(comma - text) >= sizeof ip)
		return false;
	snprintf(ip, sizeof ip, "%.*s", (int)(comma - text), text);
	if (!flat_ip_parse(ip, &address) || !flat_prefix_parse(comma + 1, &self->node.pod_cidrs[0]))
		return false;
	self->node.pod_cidr_count = 1;
	self->node.addresses[flat_family_index(address.family)] = address;
	self->backend = FLAT_BACKEND_VXLAN;
	return true;
}

int main(int argc, char **argv)
{
	struct flat_agent_conf conf = { .node_name = "self",
					.kubernetes = { .page = 250 },
					.cluster = { .vni = 1, .port = 8472 } };
	struct flat_self self = { 0 };
	bool publish = false;
	for (int i = 1; i < argc; i++) {
		const char *value;
		if ((value = value_of(argv[i], "kubeconfig"))) {
			conf.kubernetes.kubeconfig = value;
		} else if ((value = value_of(argv[i], "server"))) {
			conf.kubernetes.server = value;
		} else if ((value = value_of(argv[i], "service-account"))) {
			conf.kubernetes.service_account = value;
		} else if ((value = value_of(argv[i], "node"))) {
			conf.node_name = value;
		} else if ((value = value_of(argv[i], "page"))) {
			conf.kubernetes.page = (uint32_t)atoi(value);
		} else if ((value = value_of(argv[i], "publish"))) {
			publish = parse_self(value, &self);
		} else if (!strcmp(argv[i], "flannel")) {
			conf.cluster.flannel = true;
		} else if (!strcmp(argv[i], "available")) {
			conf.kubernetes.set_network_available = true;
		} else if (!strcmp(argv[i], "quiet")) {
			quiet = true;
		} else {
			fprintf(stderr, "source-driver: what is '%s'?\n", argv[i]);
			return 2;
		}
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	const struct flat_listener listener = { on_begin,  on_node,  on_gone,
						on_synced, on_state, NULL };
	struct ev_loop *loop = ev_default_loop(0);
	struct flat_source *source;
	struct flat_err err = { 0 };
	if (flat_source_kubernetes.open(loop, &conf, &listener, &source, &err) < 0) {
		printf("refused %s\n", err.msg);
		return 1;
	}
	if (publish)
		flat_source_kubernetes.publish(source, &self);
	ev_run(loop, 0);
	return 0;
}
