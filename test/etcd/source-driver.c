// SPDX-License-Identifier: Apache-2.0
/*
 * source-driver [OPTION...] - the source etcd, and nothing else of the agent: what it tells becomes
 * lines on standard output, for the scripts beside it.
 *
 *	begin | synced
 *	node NAME podCIDR,... address,... mac,... fault-or-dash
 *	gone NAME
 *	state 1|0 WHY
 *
 *	--name NAME --address IP (again: IPv6) --cluster CIDR (again) --fixed CIDR (again)
 *	--last CIDR (again: what it remembers of an earlier life)
 *	--endpoint URL (again) --prefix KEY --ca FILE --cert FILE --key FILE --user U --password
 *FILE
 *	--len N --len6 N --min IP --max IP --ttl SECONDS --flannel --direct --listen (publishes
 *nothing)
 */
#include "../../agent/source.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { MAX = 8 };

struct driver {
	struct flat_agent_conf conf;
	struct flat_self self;
	const char *endpoints[MAX];
	struct flat_source *source;
	bool listen;
};

static void comma(size_t i)
{
	if (i)
		putchar(',');
}

static void on_begin(void *arg)
{
	(void)arg;
	puts("begin");
}

static void on_node(void *arg, const struct flat_node *node, const char *fault)
{
	struct driver *driver = arg;
	char text[FLAT_PREFIX_TEXT];
	size_t n = 0;
	printf("node %s ", node->name);
	for (size_t i = 0; i < node->pod_cidr_count; i++) {
		comma(i);
		fputs(flat_prefix_text(&node->pod_cidrs[i], text), stdout);
	}
	putchar(' ');
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (node->addresses[f].family) {
			comma(n++);
			fputs(flat_ip_text(&node->addresses[f], text), stdout);
		}
	putchar(' ');
	n = 0;
	for (int f = 0; f < FLAT_FAMILIES; f++)
		if (node->has_vtep[f]) {
			comma(n++);
			fputs(flat_mac_text(&node->vtep[f], text), stdout);
		}
	printf(" %s\n", fault ? fault : "-");
	/* As the agent does: it says again what it now knows about itself. */
	if (driver->source && !driver->listen && !strcmp(node->name, driver->conf.node_name)) {
		memcpy(driver->self.node.pod_cidrs, node->pod_cidrs, sizeof node->pod_cidrs);
		driver->self.node.pod_cidr_count = node->pod_cidr_count;
	}
}

static void on_gone(void *arg, const char *name)
{
	(void)arg;
	printf("gone %s\n", name);
}

static void on_synced(void *arg)
{
	(void)arg;
	puts("synced");
}

static void on_state(void *arg, bool connected, const char *why)
{
	(void)arg;
	printf("state %d %s\n", connected, why ? why : "");
}

static void on_signal(struct ev_loop *loop, ev_signal *signal, int revents)
{
	(void)signal;
	(void)revents;
	ev_break(loop, EVBREAK_ALL);
}

static void need(bool right, const char *what)
{
	if (right)
		return;
	fprintf(stderr, "source-driver: bad or too many: %s\n", what);
	exit(2);
}

static void take(struct driver *driver, int opt, const char *value)
{
	struct flat_agent_conf *conf = &driver->conf;
	struct flat_node *node = &driver->self.node;
	struct flat_prefix prefix;
	struct flat_ip ip;
	switch (opt) {
	case 'n':
		conf->node_name = value;
		break;
	case 'a':
		need(flat_ip_parse(value, &ip), "--address");
		node->addresses[flat_family_index(ip.family)] = ip;
		break;
	case 'c':
		need(flat_prefix_parse(value, &prefix) && conf->cluster.cidr_count < 4,
		     "--cluster");
		conf->cluster.cidrs[conf->cluster.cidr_count++] = prefix;
		break;
	case 'f':
		need(flat_prefix_parse(value, &prefix) && conf->pod_cidr_count < FLAT_NODE_CIDRS,
		     "--fixed");
		conf->pod_cidrs[conf->pod_cidr_count++] = prefix;
		break;
	case 'l':
		need(flat_prefix_parse(value, &prefix) && node->pod_cidr_count < FLAT_NODE_CIDRS,
		     "--last");
		node->pod_cidrs[node->pod_cidr_count++] = prefix;
		break;
	case 'e':
		need(conf->etcd.endpoints.count < MAX, "--endpoint");
		driver->endpoints[conf->etcd.endpoints.count++] = value;
		break;
	case 'p':
		conf->etcd.prefix = value;
		break;
	case 'A':
		conf->etcd.ca_file = value;
		break;
	case 'C':
		conf->etcd.cert_file = value;
		break;
	case 'K':
		conf->etcd.key_file = value;
		break;
	case 'u':
		conf->etcd.user = value;
		break;
	case 'w':
		conf->etcd.password_file = value;
		break;
	case '4':
		conf->etcd.subnet_len[FLAT_V4] = (uint8_t)strtoul(value, NULL, 10);
		break;
	case '6':
		conf->etcd.subnet_len[FLAT_V6] = (uint8_t)strtoul(value, NULL, 10);
		break;
	case 'm':
		need(flat_ip_parse(value, &conf->etcd.subnet_min[FLAT_V4]), "--min");
		break;
	case 'M':
		need(flat_ip_parse(value, &conf->etcd.subnet_max[FLAT_V4]), "--max");
		break;
	case 't':
		conf->etcd.lease_ttl = (uint32_t)strtoul(value, NULL, 10);
		break;
	case 'F':
		conf->cluster.flannel = true;
		break;
	case 'd':
		driver->self.backend = FLAT_BACKEND_DIRECT;
		break;
	case 'L':
		driver->listen = true;
		break;
	default:
		exit(2);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "name", 1, NULL, 'n' },    { "address", 1, NULL, 'a' },
		{ "cluster", 1, NULL, 'c' }, { "fixed", 1, NULL, 'f' },
		{ "last", 1, NULL, 'l' },    { "endpoint", 1, NULL, 'e' },
		{ "prefix", 1, NULL, 'p' },  { "ca", 1, NULL, 'A' },
		{ "cert", 1, NULL, 'C' },    { "key", 1, NULL, 'K' },
		{ "user", 1, NULL, 'u' },    { "password", 1, NULL, 'w' },
		{ "len", 1, NULL, '4' },     { "len6", 1, NULL, '6' },
		{ "min", 1, NULL, 'm' },     { "max", 1, NULL, 'M' },
		{ "ttl", 1, NULL, 't' },     { "flannel", 0, NULL, 'F' },
		{ "direct", 0, NULL, 'd' },  { "listen", 0, NULL, 'L' },
		{ NULL, 0, NULL, 0 },
	};
	static struct driver driver = {
		.conf = { .node_name = "n1",
			  .source = &flat_source_etcd,
			  .etcd = { .prefix = "/flatnet",
				    .subnet_len = { 24, 64 },
				    .lease_ttl = 60 },
			  .cluster = { .vni = 1, .port = 8472 } },
		.self = { .backend = FLAT_BACKEND_VXLAN },
	};
	int opt;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		take(&driver, opt, optarg);
	driver.conf.etcd.endpoints.items = driver.endpoints;
	driver.self.node.name = driver.conf.node_name;
	setvbuf(stdout, NULL, _IOLBF, 0);
	flat_log_setup(FLAT_LEVEL_DEBUG, FLAT_LOG_KEYS);

	const struct flat_listener listener = {
		.begin = on_begin,
		.node = on_node,
		.gone = on_gone,
		.synced = on_synced,
		.state = on_state,
		.arg = &driver,
	};
	struct ev_loop *loop = ev_default_loop(0);
	struct flat_err err = { 0 };
	ev_signal term, hup;
	ev_signal_init(&term, on_signal, SIGTERM);
	ev_signal_start(loop, &term);
	ev_signal_init(&hup, on_signal, SIGINT);
	ev_signal_start(loop, &hup);
	if (flat_source_etcd.open(loop, &driver.conf, &listener, &driver.source, &err) < 0) {
		flat_say_error(FLAT_LEVEL_ERROR, "cannot open the source", &err);
		return 1;
	}
	if (!driver.listen)
		flat_source_etcd.publish(driver.source, &driver.self);
	ev_run(loop, 0);
	flat_source_etcd.close(driver.source);
	return 0;
}
