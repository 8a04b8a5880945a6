// SPDX-License-Identifier: Apache-2.0
/* The model without a kernel: names, aliases, and what a configuration and a lease make of an
 * attachment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <flatnet/plan.h>

static struct flat_prefix prefix(const char *text)
{
	struct flat_prefix p;
	assert_true(flat_prefix_parse(text, &p));
	return p;
}

static struct flat_ip ip(const char *text)
{
	struct flat_ip i;
	assert_true(flat_ip_parse(text, &i));
	return i;
}

static void test_host_veth_name(void **state)
{
	char a[FLAT_IFNAME_LEN], b[FLAT_IFNAME_LEN];
	(void)state;
	flat_name_host_veth("net", "c1", "eth0", a);
	assert_int_equal(strlen(a), 15);
	assert_int_equal(strncmp(a, "veth", 4), 0);
	flat_name_host_veth("net", "c1", "eth0", b);
	assert_string_equal(a, b);
	flat_name_host_veth("net", "c1", "eth1", b);
	assert_string_not_equal(a, b);
	flat_name_host_veth("net2", "c1", "eth0", b);
	assert_string_not_equal(a, b);
	flat_name_host_veth("netc", "1", "eth0", b); /* pieces do not run together */
	assert_string_not_equal(a, b);
	/* it never changes: a newer version must find what an older one made */
	flat_name_host_veth("mynet", "0123456789ab", "eth0", a);
	assert_string_equal(a, "veth217f8294004");
}

static void test_alias_round_trip(void **state)
{
	const struct flat_result_ip ips[] = { { .address = prefix("10.244.1.23/24") },
					      { .address = prefix("fd00::23/64") } };
	char text[FLAT_ALIAS_LEN];
	struct flat_alias alias;
	(void)state;
	flat_alias_format("mynet", "abc", "eth0", ips, 2, "default", "web-0", text);
	assert_string_equal(text, "flatnet mynet abc eth0 10.244.1.23,fd00::23 default/web-0");
	assert_true(flat_alias_parse(text, &alias));
	assert_string_equal(alias.network, "mynet");
	assert_string_equal(alias.container_id, "abc");
	assert_string_equal(alias.ifname, "eth0");
	assert_int_equal(alias.ip_count, 2);
	assert_true(flat_ip_equal(&alias.ips[1], &ips[1].address.ip));

	flat_alias_format("mynet", "abc", "eth0", NULL, 0, NULL, NULL, text);
	assert_true(flat_alias_parse(text, &alias));
	assert_int_equal(alias.ip_count, 0);
}

/* A pod with more addresses than an alias has room for: it says that there may be more. */
static void test_alias_cut(void **state)
{
	(void)state;
	char text[FLAT_ALIAS_LEN];
	struct flat_result_ip ips[5] = { 0 };
	struct flat_alias alias;
	for (size_t i = 0; i < FLAT_LEN(ips); i++) {
		assert_true(flat_prefix_parse("2001:db8:1111:2222:3333:4444:5555:6660/64",
					      &ips[i].address));
		ips[i].address.ip.bytes[15] |= (uint8_t)i;
	}
	flat_alias_format("mynet", "abc", "eth0", ips, 2, NULL, NULL, text);
	assert_true(flat_alias_parse(text, &alias));
	assert_false(alias.cut);
	flat_alias_format("mynet", "abc", "eth0", ips, 5, NULL, NULL, text);
	assert_true(flat_alias_parse(text, &alias));
	assert_in_range(alias.ip_count, 1, 4);
	assert_true(alias.cut);
}

static void test_name_is_host_veth(void **state)
{
	(void)state;
	char name[FLAT_IFNAME_LEN];
	flat_name_host_veth("mynet", "abc", "eth0", name);
	assert_true(flat_name_is_host_veth(name));
	assert_false(flat_name_is_host_veth("veth0"));
	assert_false(flat_name_is_host_veth("vethg012345678"));
	assert_false(flat_name_is_host_veth("veth0123456789A"));
	assert_false(flat_name_is_host_veth("eth00123456789a"));
}

static void test_alias_too_long(void **state)
{
	char id[600], network[201], text[FLAT_ALIAS_LEN];
	const struct flat_result_ip ips[] = { { .address = prefix("10.244.1.23/24") } };
	struct flat_alias alias;
	(void)state;
	memset(id, 'a', sizeof id - 1);
	id[sizeof id - 1] = '\0';
	memset(network, 'n', sizeof network - 1);
	network[sizeof network - 1] = '\0';
	flat_alias_format(network, id, "eth0", ips, 1, "default", "web-0", text);
	assert_true(flat_alias_parse(text, &alias));
	assert_true(flat_alias_names(alias.network, network));
	assert_true(flat_alias_names(alias.container_id, id));
	assert_int_equal(alias.container_id[0], '~');
	assert_int_equal(alias.ip_count, 1);
	id[0] = 'b';
	assert_false(flat_alias_names(alias.container_id, id));
}

static void test_alias_of_others(void **state)
{
	static const char *const others[] = { "",
					      "flatnet",
					      "flatnet ",
					      "flatnet a b",
					      "flatnet a b eth0",
					      "flatnet a b eth0 x",
					      "uplink to rack 7",
					      "flatnet a b eth0 1.2.3.4,",
					      "flatnet a b nameoftoomanybytes 1.2.3.4" };
	struct flat_alias alias;
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(others); i++)
		if (i != 7) /* a trailing comma is harmless */
			assert_false(flat_alias_parse(others[i], &alias));
}

/* ---- plans -------------------------------------------------------------------------------------
 */

struct fixture {
	struct flat_request req;
	struct flat_conf conf;
	struct flat_attachment a;
	struct flat_err err;
};

static void begin(struct fixture *f)
{
	memset(f, 0, sizeof *f);
	f->req.name = "mynet";
	f->req.container_id = "c1";
	f->req.ifname = "eth0";
	f->req.netns = "/run/netns/x";
	f->conf.bridge = "cni0";
	f->conf.is_gateway = f->conf.is_default_gateway = f->conf.hairpin = true;
}

static void test_plan_scene(void **state)
{
	const struct flat_result_ip ips[] = { { prefix("10.244.1.23/24"), ip("10.244.1.1"), -1 } };
	const struct flat_result lease = { .ips = (struct flat_result_ip *)ips, .ip_count = 1 };
	char text[FLAT_MAC_TEXT];
	static struct fixture f;
	(void)state;
	begin(&f);
	f.conf.mtu = 1450;
	assert_int_equal(flat_plan_attachment(&f.req, &f.conf, &lease, &f.a, &f.err), 0);
	assert_string_equal(flat_mac_text(&f.a.pod_mac, text), "0a:58:0a:f4:01:17");
	assert_string_equal(flat_mac_text(&f.a.bridge.mac, text), "0a:58:0a:f4:01:01");
	assert_int_equal(f.a.mtu, 1450);
	assert_true(f.a.hairpin);
	assert_true(f.a.forward4);
	assert_false(f.a.forward6);
	assert_int_equal(f.a.bridge.gateway_count, 1);
	assert_int_equal(f.a.bridge.gateways[0].len, 24);
	/* routed: the gateway on-link, the subnet and the default route over it */
	assert_true(f.a.bridge.routed);
	assert_int_equal(f.a.pod_route_count, 3);
	assert_int_equal(f.a.pod_routes[0].route.dst.len, 32);
	assert_int_equal(f.a.pod_routes[0].route.gw.family, 0);
	assert_int_equal(f.a.pod_routes[1].route.dst.len, 24);
	assert_int_equal(f.a.pod_routes[2].route.dst.len, 0);
	assert_true(flat_ip_equal(&f.a.pod_routes[2].route.gw, &ips[0].gateway));
	/* the result tells the default route alone */
	assert_int_equal(f.a.result_route_count, 1);
	assert_string_equal(f.a.nft.name, "mynet@10.244.1.0/24");
	flat_arena_free(&f.req.arena);
}

static void test_plan_l2(void **state)
{
	const struct flat_result_ip ips[] = { { prefix("10.1.2.3/16"), ip("10.1.0.1"), -1 } };
	const struct flat_result lease = { .ips = (struct flat_result_ip *)ips, .ip_count = 1 };
	static struct fixture f;
	(void)state;
	begin(&f);
	f.conf.mode = FLAT_BRIDGE_L2;
	assert_int_equal(flat_plan_attachment(&f.req, &f.conf, &lease, &f.a, &f.err), 0);
	assert_false(f.a.bridge.routed);
	assert_int_equal(f.a.pod_route_count, 1);
	flat_arena_free(&f.req.arena);
}

static void test_plan_gateway_is_calculated(void **state)
{
	const struct flat_result_ip ips[] = { { prefix("fd00:1::5/64"), { 0 }, -1 } };
	const struct flat_result lease = { .ips = (struct flat_result_ip *)ips, .ip_count = 1 };
	const struct flat_ip want = ip("fd00:1::1");
	static struct fixture f;
	(void)state;
	begin(&f);
	assert_int_equal(flat_plan_attachment(&f.req, &f.conf, &lease, &f.a, &f.err), 0);
	assert_true(flat_ip_equal(&f.a.ips[0].gateway, &want));
	assert_true(f.a.forward6);
	assert_int_equal(f.a.pod_mac.bytes[0], 0x0e); /* of the hash: there is no IPv4 address */
	flat_arena_free(&f.req.arena);
}

static void test_plan_default_of_ipam_wins(void **state)
{
	const struct flat_result_ip ips[] = { { prefix("10.1.2.3/16"), ip("10.1.0.1"), -1 } };
	struct flat_route routes[] = {
		{ .dst = prefix("0.0.0.0/0"), .gw = ip("10.1.0.254"), .scope = -1 }
	};
	const struct flat_result lease = { .ips = (struct flat_result_ip *)ips,
					   .ip_count = 1,
					   .routes = routes,
					   .route_count = 1 };
	static struct fixture f;
	(void)state;
	begin(&f);
	assert_int_equal(flat_plan_attachment(&f.req, &f.conf, &lease, &f.a, &f.err), 0);
	assert_int_equal(f.a.result_route_count, 1);
	assert_int_equal(f.a.pod_route_count, 3);
	assert_true(flat_ip_equal(&f.a.pod_routes[2].route.gw, &routes[0].gw));
	assert_true(f.a.pod_routes[2].onlink); /* a router among the pods */
	flat_arena_free(&f.req.arena);
}

static void test_plan_gateway_is_own_address(void **state)
{
	const struct flat_result_ip ips[] = { { prefix("10.1.0.1/16"), ip("10.1.0.1"), -1 } };
	const struct flat_result lease = { .ips = (struct flat_result_ip *)ips, .ip_count = 1 };
	static struct fixture f;
	(void)state;
	begin(&f);
	assert_true(flat_plan_attachment(&f.req, &f.conf, &lease, &f.a, &f.err) < 0);
	assert_int_equal(f.err.code, FLAT_CODE_CONFIG);
	flat_arena_free(&f.req.arena);
}

static void test_plan_result(void **state)
{
	const struct flat_result_ip ips[] = { { prefix("10.244.1.23/24"), ip("10.244.1.1"), -1 } };
	const struct flat_result lease = { .ips = (struct flat_result_ip *)ips, .ip_count = 1 };
	struct flat_result result;
	static struct fixture f;
	(void)state;
	begin(&f);
	assert_int_equal(flat_plan_attachment(&f.req, &f.conf, &lease, &f.a, &f.err), 0);
	assert_int_equal(flat_plan_result(&f.req, &f.a, &result, &f.err), 0);
	assert_int_equal(result.interface_count, 3);
	assert_string_equal(result.interfaces[0].name, "cni0");
	assert_string_equal(result.interfaces[2].name, "eth0");
	assert_string_equal(result.interfaces[2].sandbox, "/run/netns/x");
	assert_null(result.interfaces[1].sandbox);
	assert_int_equal(result.ips[0].interface, 2);
	flat_arena_free(&f.req.arena);
}

/* ---- host ports --------------------------------------------------------------------------------
 */

static int parse(const char *command, const char *body, struct fixture *f)
{
	static char text[4096];
	const struct flat_env env = { .command = command,
				      .container_id = "c1",
				      .netns = "/run/netns/x",
				      .ifname = "eth0",
				      .args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0" };
	const struct flat_host host = { 0 };
	memset(f, 0, sizeof *f);
	snprintf(text, sizeof text,
		 "{\"cniVersion\":\"1.0.0\",\"name\":\"mynet\",\"type\":\"flatnet\","
		 "\"ipam\":{\"subnet\":\"10.244.1.0/24\"},%s}",
		 body);
	int r = flat_request_parse(&env, text, strlen(text), &f->req, &f->err);
	/* no list of nodes: nobody asks the kernel */
	return r < 0 ? r
		     : flat_conf_parse(&f->req, &flat_defaults_flatnet, &host, NULL, NULL, &f->conf,
				       &f->err);
}

static int plan(const char *body, struct fixture *f)
{
	const struct flat_result_ip ips[] = { { prefix("10.244.1.23/24"), ip("10.244.1.1"), -1 },
					      { prefix("10.244.1.24/24"), ip("10.244.1.1"), -1 },
					      { prefix("fd00::23/64"), ip("fd00::1"), -1 } };
	const struct flat_result lease = { .ips = (struct flat_result_ip *)ips, .ip_count = 3 };
	int r = parse("ADD", body, f);
	return r < 0 ? r : flat_plan_attachment(&f->req, &f->conf, &lease, &f->a, &f->err);
}

static void assert_port(const struct fixture *f, size_t i, uint8_t protocol, const char *host,
			uint16_t port, const char *pod, uint16_t pod_port)
{
	const struct flat_port *p = &f->a.ports.items[i];
	char text[FLAT_IP_TEXT];
	assert_true(i < f->a.ports.count);
	assert_int_equal(p->protocol, protocol);
	assert_int_equal(p->port, port);
	assert_int_equal(p->pod_port, pod_port);
	assert_string_equal(flat_ip_text(&p->host, text), host);
	assert_string_equal(flat_ip_text(&p->pod, text), pod);
}

/* A DHCP server is asked over the pod's link, and the gateway that it tells of is not the node. */
static void test_over_link(void **state)
{
	static struct fixture f, other;
	char host[FLAT_IFNAME_LEN];
	struct flat_mac mac;
	(void)state;
	assert_int_equal(plan("\"ipam\":{\"type\":\"dhcp\"}", &f), 0);
	assert_true(f.conf.ipam_over_link);
	assert_false(f.conf.is_gateway);
	assert_int_equal(f.a.bridge.gateway_count, 0);
	flat_plan_link(&f.req, &f.conf, &f.a);
	assert_int_equal(f.a.ip_count, 0);
	assert_string_equal(f.a.gateway.name, "cni0");
	flat_name_host_veth("mynet", "c1", "eth0", host);
	assert_string_equal(f.a.host_ifname, host);
	mac = f.a.pod_mac; /* known without an address, and the same each time */
	flat_plan_link(&f.req, &f.conf, &f.a);
	assert_memory_equal(&f.a.pod_mac, &mac, sizeof mac);
	flat_request_free(&f.req);

	assert_int_equal(parse("ADD", "\"isGateway\":true,\"ipam\":{\"type\":\"dhcp\"}", &other),
			 0);
	assert_true(other.conf.is_gateway);
	flat_request_free(&other.req);
	assert_int_equal(parse("ADD", "\"ipam\":{\"type\":\"host-local\"}", &other), 0);
	assert_false(other.conf.ipam_over_link);
	assert_true(other.conf.is_gateway);
	flat_request_free(&other.req);
}

static void test_ports(void **state)
{
	static struct fixture f;
	(void)state;
	assert_int_equal(
		plan("\"runtimeConfig\":{\"PortMappings\":[{\"HostPort\":8080,\"ContainerPort\":80,"
		     "\"Protocol\":\"tcp\",\"HostIP\":\"\"},{\"hostPort\":53,\"containerPort\":5353,"
		     "\"protocol\":\"UDP\",\"hostIP\":\"192.0.2.1\"}]},\"portMappings\":[{\"hostPort\":"
		     "9,\"containerPort\":9,\"hostIP\":\"::\"},{\"hostPort\":8080,\"containerPort\":80}]",
		     &f),
		0);
	assert_int_equal(f.a.ports.count, 4); /* the last is the first again */
	assert_port(&f, 0, IPPROTO_TCP, "0.0.0.0", 8080, "10.244.1.23", 80);
	assert_port(&f, 1, IPPROTO_TCP, "::", 8080, "fd00::23", 80);
	assert_port(&f, 2, IPPROTO_UDP, "192.0.2.1", 53, "10.244.1.23", 5353);
	assert_port(&f, 3, IPPROTO_TCP, "::", 9, "fd00::23", 9);
	assert_true(f.a.ports.snat && !f.a.ports.masquerade_all && f.a.ports_loopback);
	assert_string_equal(f.a.ports.owner, f.a.host_ifname);
	assert_string_equal(f.a.ports.label, "shop/web-0 c1");
	assert_null(f.a.ports.bridge); /* routed: neighbours' answers come by */
	flat_request_free(&f.req);
}

static void test_port_keys(void **state)
{
	static struct fixture f;
	(void)state;
	assert_int_equal(plan("\"snat\":false,\"masqAll\":true,\"bridgeMode\":\"l2\","
			      "\"portMappings\":[{\"hostPort\":1,\"containerPort\":65535}]",
			      &f),
			 0);
	assert_true(!f.a.ports.snat && !f.a.ports.masquerade_all && !f.a.ports_loopback);
	assert_string_equal(f.a.ports.bridge, "cni0");
	flat_request_free(&f.req);
	assert_int_equal(plan("\"masqAll\":true,\"markMasqBit\":0", &f), 0);
	assert_true(f.conf.ports_masquerade_all);
	assert_int_equal(f.conf.ports_mark, 1);
	assert_int_equal(f.a.ports.count, 0);
	flat_request_free(&f.req);
}

static void test_port_faults(void **state)
{
	static const struct {
		int code;
		const char *body, *text;
	} faults[] = {
		{ FLAT_CODE_CONFIG, "\"runtimeConfig\":{\"portMappings\":[{\"hostPort\":0}]}",
		  "runtimeConfig.portMappings[0].hostPort: 0 is not a whole number from 1 to 65535" },
		{ FLAT_CODE_CONFIG, "\"portMappings\":[{\"hostPort\":1}]",
		  "portMappings[0].containerPort: missing" },
		{ FLAT_CODE_CONFIG,
		  "\"portMappings\":[{\"hostPort\":1,\"containerPort\":1,\"protocol\":\"dccp\"}]",
		  "portMappings[0].protocol: \"dccp\" is not \"tcp\", \"udp\" or \"sctp\"" },
		{ FLAT_CODE_CONFIG,
		  "\"portMappings\":[{\"hostPort\":1,\"containerPort\":1,\"protocol\":6}]",
		  "portMappings[0].protocol: is not a string" },
		{ FLAT_CODE_CONFIG,
		  "\"portMappings\":[{\"hostPort\":1,\"containerPort\":1,\"hostIP\":\"ff02::1\"}]",
		  "portMappings[0].hostIP: ff02::1 is a multicast" },
		{ FLAT_CODE_CONFIG,
		  "\"portMappings\":[{\"hostPort\":1,\"containerPort\":1},{\"hostPort\":1,"
		  "\"containerPort\":2}]",
		  "portMappings: hostPort 1/tcp cannot lead to both containerPort 1 and 2" },
		{ FLAT_CODE_CONFIG, "\"markMasqBit\":-1", "markMasqBit: -1 is not" },
		{ FLAT_CODE_UNSUPPORTED, "\"conditionsV4\":[\"!\",\"-s\",\"192.0.2.0/24\"]",
		  "conditionsV4: \"! -s 192.0.2.0/24\" is for iptables" },
		{ FLAT_CODE_CONFIG, "\"conditionsV6\":[\"ip6 saddr ::1\",\"accept\"]",
		  "conditionsV6: \"ip6 saddr ::1 accept\": \"accept\" says what to do" },
		{ FLAT_CODE_CONFIG, "\"conditionsV4\":[\"a;b\"]",
		  "conditionsV4: \"a;b\": character 0x3b has no place" },
		{ FLAT_CODE_CONFIG, "\"conditionsV4\":[\"a {\"]",
		  "conditionsV4: \"a {\": a quote or a brace is not closed" },
		{ FLAT_CODE_UNSUPPORTED, "\"externalSetMarkChain\":\"X\"",
		  "externalSetMarkChain: \"X\" is not supported" },
	};
	static struct fixture f;
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(faults); i++) {
		assert_true(plan(faults[i].body, &f) < 0);
		assert_int_equal(f.err.code, faults[i].code);
		if (strncmp(f.err.msg, faults[i].text, strlen(faults[i].text)) != 0)
			assert_string_equal(f.err.msg, faults[i].text);
		flat_request_free(&f.req);
	}
}

/* The comment of an element has 127 characters: the pod's name first, and some of the ID. */
static void test_port_label(void **state)
{
	static struct fixture f;
	char id[65], pod[254];
	(void)state;
	assert_int_equal(parse("ADD", "\"portMappings\":[{\"hostPort\":1,\"containerPort\":1}]",
			       &f),
			 0);
	const struct flat_result_ip ips[] = { { prefix("10.244.1.23/24"), ip("10.244.1.1"), -1 } };
	const struct flat_result lease = { .ips = (struct flat_result_ip *)ips, .ip_count = 1 };
	memset(id, 'a', sizeof id - 1);
	memset(pod, 'p', sizeof pod - 1);
	id[sizeof id - 1] = pod[sizeof pod - 1] = '\0';
	f.req.container_id = id;
	f.req.args.pod_name = pod;
	assert_int_equal(flat_plan_attachment(&f.req, &f.conf, &lease, &f.a, &f.err), 0);
	assert_int_equal(strlen(f.a.ports.label), 103);
	assert_int_equal(strncmp(f.a.ports.label, "shop/pppp", 9), 0);
	assert_string_equal(f.a.ports.label + 103 - 13, " aaaaaaaaaaaa");
	flat_request_free(&f.req);
}

/* ---- bandwidth ---------------------------------------------------------------------------------
 */

static void assert_rate(const struct flat_rate *rate, uint64_t bytes, uint32_t burst,
			uint32_t limit)
{
	assert_int_equal(rate->rate, bytes);
	assert_int_equal(rate->burst, burst);
	assert_int_equal(rate->limit, limit);
}

static void test_bandwidth(void **state)
{
	static struct fixture f;
	struct flat_result result;
	(void)state;
	assert_int_equal(plan("\"runtimeConfig\":{\"bandwidth\":{\"IngressRate\":8000000,"
			      "\"IngressBurst\":800000,\"EgressRate\":80000000000,"
			      "\"EgressBurst\":4294967295}}",
			      &f),
			 0);
	/* what may wait: the burst, and 25 ms of the rate */
	assert_rate(&f.a.shaping.to, 1000000, 100000, 125000);
	assert_rate(&f.a.shaping.from, 10000000000, 100000000, 350000000); /* burst: 10 ms */
	assert_int_equal(strncmp(f.a.shaping.ifb, "fbw", 3), 0);
	assert_string_equal(f.a.shaping.ifb + 3, f.a.host_ifname + 4);
	assert_int_equal(f.a.shaping.ifb_mac.bytes[0] & 3, 2); /* local, of one station */
	assert_int_equal(flat_plan_result(&f.req, &f.a, &result, &f.err), 0);
	assert_int_equal(result.interface_count, 4);
	assert_string_equal(result.interfaces[3].name, f.a.shaping.ifb);
	flat_request_free(&f.req);

	/* the kernel's VLAN gateway is before it, and a rate to the pod takes no IFB */
	assert_int_equal(plan("\"vlan\":7,\"egressRate\":8,\"egressBurst\":2147483647", &f), 0);
	assert_rate(&f.a.shaping.from, 1, 65536, 65536);
	assert_rate(&f.a.shaping.to, 0, 0, 0);
	assert_int_equal(flat_plan_result(&f.req, &f.a, &result, &f.err), 0);
	assert_int_equal(result.interface_count, 5);
	assert_string_equal(result.interfaces[4].name, f.a.shaping.ifb);
	flat_request_free(&f.req);
	assert_int_equal(plan("\"ingressRate\":8000,\"ingressBurst\":8,\"mtu\":9000", &f), 0);
	assert_rate(&f.a.shaping.to, 1000, 9018, 9043); /* one packet */
	assert_int_equal(flat_plan_result(&f.req, &f.a, &result, &f.err), 0);
	assert_int_equal(result.interface_count, 3);
	flat_request_free(&f.req);
	assert_int_equal(plan("\"ingressRate\":9007199254740991,\"ingressBurst\":34359738359", &f),
			 0);
	assert_rate(&f.a.shaping.to, 1125899906842623, UINT32_MAX - 1, UINT32_MAX);
	flat_request_free(&f.req);
}

/* The configuration's own keys, or the runtime's: never some of each. */
static void test_bandwidth_precedence(void **state)
{
	static struct fixture f;
	(void)state;
	assert_int_equal(plan("\"egressRate\":0,\"runtimeConfig\":{\"bandwidth\":{"
			      "\"ingressRate\":8000,\"ingressBurst\":8000}}",
			      &f),
			 0);
	assert_rate(&f.a.shaping.to, 0, 0, 0);
	flat_request_free(&f.req);
	assert_int_equal(plan("\"egressRate\":null,\"runtimeConfig\":{\"bandwidth\":{"
			      "\"ingressRate\":8000,\"ingressBurst\":16000}}",
			      &f),
			 0);
	assert_rate(&f.a.shaping.to, 1000, 2000, 2025);
	flat_request_free(&f.req);
}

#define ANNOTATED                                                                                  \
	"\"allowPodAnnotations\":[\"bandwidth\"],\"runtimeConfig\":{"                              \
	"\"io.kubernetes.cri.pod-annotations\":{\"kubernetes.io/ingress-bandwidth\":\"80k\"}"

/* Before what is for all pods, behind what the runtime asks for this one. */
static void test_bandwidth_annotations(void **state)
{
	static struct fixture f;
	(void)state;
	assert_int_equal(plan(ANNOTATED "}", &f), 0);
	assert_rate(&f.a.shaping.to, 10000, 65536, 65786);
	assert_rate(&f.a.shaping.from, 0, 0, 0);
	flat_request_free(&f.req);
	assert_int_equal(plan("\"ingressRate\":8000,\"ingressBurst\":16000,\"egressRate\":8000,"
			      "\"egressBurst\":16000," ANNOTATED "}",
			      &f),
			 0);
	assert_rate(&f.a.shaping.to, 10000, 65536, 65786);
	assert_rate(&f.a.shaping.from, 1000, 2000, 2025);
	flat_request_free(&f.req);
	assert_int_equal(plan(ANNOTATED ",\"bandwidth\":{\"ingressRate\":8000,"
					"\"ingressBurst\":16000}}",
			      &f),
			 0);
	assert_rate(&f.a.shaping.to, 1000, 2000, 2025);
	flat_request_free(&f.req);
}

static void test_bandwidth_faults(void **state)
{
	static const struct {
		int code;
		const char *body, *text;
	} faults[] = {
		{ FLAT_CODE_CONFIG, "\"ingressRate\":1000",
		  "ingressBurst: if rate is set, burst must also be set: 1 to 34359738359 bits" },
		{ FLAT_CODE_CONFIG, "\"runtimeConfig\":{\"bandwidth\":{\"EgressBurst\":1000}}",
		  "runtimeConfig.bandwidth.egressRate: if burst is set, rate must also be set: 8 to" },
		{ FLAT_CODE_CONFIG, "\"egressRate\":7,\"egressBurst\":7",
		  "egressRate: 7 is too little: 0 (no limit) or 8 to 9007199254740991 bits per second" },
		{ FLAT_CODE_CONFIG, "\"egressRate\":1000,\"egressBurst\":34359738360",
		  "egressBurst: 34359738360 is not a whole number from 0 to 34359738359" },
		{ FLAT_CODE_CONFIG, "\"runtimeConfig\":{\"bandwidth\":{\"ingressRate\":-1}}",
		  "runtimeConfig.bandwidth.ingressRate: -1 is not a whole number from 0" },
		{ FLAT_CODE_CONFIG, "\"ingressRate\":\"1M\"", "ingressRate: \"1M\" is not" },
		{ FLAT_CODE_CONFIG, "\"ingressRate\":1.5", "ingressRate: 1.5 is not" },
		{ FLAT_CODE_CONFIG, "\"runtimeConfig\":{\"bandwidth\":[]}",
		  "runtimeConfig.bandwidth: " },
		{ FLAT_CODE_UNSUPPORTED,
		  "\"runtimeConfig\":{\"bandwidth\":{\"shapedSubnets\":[\"a\"]}}",
		  "runtimeConfig.bandwidth.shapedSubnets: [\"a\"] is not supported" },
		{ FLAT_CODE_UNSUPPORTED, "\"unshapedSubnets\":[\"a\",\"b\"]",
		  "unshapedSubnets: [\"a\", ...] is not supported" },
	};
	static struct fixture f;
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(faults); i++) {
		assert_true(plan(faults[i].body, &f) < 0);
		assert_int_equal(f.err.code, faults[i].code);
		if (strncmp(f.err.msg, faults[i].text, strlen(faults[i].text)) != 0)
			assert_string_equal(f.err.msg, faults[i].text);
		flat_request_free(&f.req);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bandwidth),
		cmocka_unit_test(test_bandwidth_precedence),
		cmocka_unit_test(test_bandwidth_annotations),
		cmocka_unit_test(test_bandwidth_faults),
		cmocka_unit_test(test_ports),
		cmocka_unit_test(test_port_keys),
		cmocka_unit_test(test_port_faults),
		cmocka_unit_test(test_port_label),
		cmocka_unit_test(test_host_veth_name),
		cmocka_unit_test(test_alias_round_trip),
		cmocka_unit_test(test_alias_too_long),
		cmocka_unit_test(test_alias_cut),
		cmocka_unit_test(test_name_is_host_veth),
		cmocka_unit_test(test_alias_of_others),
		cmocka_unit_test(test_plan_scene),
		cmocka_unit_test(test_plan_l2),
		cmocka_unit_test(test_plan_gateway_is_calculated),
		cmocka_unit_test(test_plan_default_of_ipam_wins),
		cmocka_unit_test(test_plan_gateway_is_own_address),
		cmocka_unit_test(test_plan_result),
		cmocka_unit_test(test_over_link),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
