// SPDX-License-Identifier: Apache-2.0
/* ipam: the reference host-local's keys, defaults and refusals. */
#include <flatnet/ipam.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* body: what follows name and type. */
static int parse(const char *command, const char *version, const char *args, const char *body,
		 const struct flat_json_list *subnets, struct flat_request *req,
		 struct flat_ipam_conf *conf, struct flat_err *err)
{
	static char text[4096];
	const struct flat_env env = { .command = command,
				      .container_id = "c1",
				      .netns = "/run/netns/x",
				      .ifname = "eth0",
				      .args = args };
	snprintf(text, sizeof text, "{\"cniVersion\":\"%s\",\"name\":\"n\",\"type\":\"t\",%s}",
		 version, body);
	*req = (struct flat_request){ 0 };
	*err = (struct flat_err){ 0 };
	int r = flat_request_parse(&env, text, strlen(text), req, err);
	if (r < 0)
		return r;
	return flat_ipam_conf_parse(req, FLAT_IPAM_DATA_DIR, subnets, conf, err);
}

static const struct flat_ip_range *range(const struct flat_ipam_conf *conf, size_t set, size_t i)
{
	const struct flat_ip_range_set *sets = conf->sets.items;
	assert_true(set < conf->sets.count && i < sets[set].ranges.count);
	return &((const struct flat_ip_range *)sets[set].ranges.items)[i];
}

static void assert_ip(const struct flat_ip *ip, const char *want)
{
	char text[FLAT_IP_TEXT];
	assert_string_equal(flat_ip_text(ip, text), want);
}

static void test_defaults(void **state)
{
	(void)state;
	struct flat_request req;
	struct flat_ipam_conf conf;
	struct flat_err err;
	assert_int_equal(parse("ADD", "1.0.0", NULL,
			       "\"ipam\":{\"Subnet\":\"10.244.1.0/24\",\"ranges\":[[{\"subnet\":"
			       "\"fd00::/64\"}]],\"routes\":[{\"dst\":\"0.0.0.0/0\"}]}",
			       NULL, &req, &conf, &err),
			 0);
	assert_string_equal(conf.data_dir, FLAT_IPAM_DATA_DIR);
	assert_int_equal(conf.sets.count, 2);
	assert_ip(&range(&conf, 0, 0)->start, "10.244.1.1");
	assert_ip(&range(&conf, 0, 0)->end, "10.244.1.254");
	assert_ip(&range(&conf, 0, 0)->gateway, "10.244.1.1");
	assert_ip(&range(&conf, 1, 0)->end, "fd00::ffff:ffff:ffff:ffff");
	assert_int_equal(conf.routes.count, 1);
	assert_int_equal(((struct flat_route *)conf.routes.items)->scope, -1);
	assert_true(flat_ipam_conf_has_range(&req));
	flat_request_free(&req);
}

static void test_network_and_broadcast_are_nobodys(void **state)
{
	(void)state;
	struct flat_request req;
	struct flat_ipam_conf conf;
	struct flat_err err;
	assert_int_equal(parse("ADD", "1.0.0", NULL,
			       "\"ipam\":{\"subnet\":\"10.1.0.0/24\",\"rangeStart\":\"10.1.0.0\","
			       "\"rangeEnd\":\"10.1.0.255\"}",
			       NULL, &req, &conf, &err),
			 0);
	assert_ip(&range(&conf, 0, 0)->start, "10.1.0.1");
	assert_ip(&range(&conf, 0, 0)->end, "10.1.0.254");
	flat_request_free(&req);
}

static void test_refusals(void **state)
{
	(void)state;
	static const struct {
		const char *version, *ipam, *text;
	} cases[] = {
		{ "1.0.0", "\"subnet\":\"10.1.0.1/24\"",
		  "invalid range set 0: Network has host bits set. For a subnet mask of length 24 "
		  "the network address is 10.1.0.0" },
		{ "1.0.0", "\"subnet\":\"10.1.0.0/31\"",
		  "invalid range set 0: Network 10.1.0.0/31 too small to allocate from" },
		{ "1.0.0", "\"subnet\":\"10.1.0.0/32\"", "too small to allocate from" },
		{ "1.0.0", "\"subnet\":\"fd00::/127\"", "too small to allocate from" },
		{ "1.0.0", "\"subnet\":\"fd00::/128\"", "too small to allocate from" },
		{ "1.0.0", "\"subnet\":\"10.1.0.0/24\",\"rangeStart\":\"10.2.0.1\"",
		  "invalid range set 0: RangeStart 10.2.0.1 not in network 10.1.0.0/24" },
		{ "1.0.0", "\"subnet\":\"10.1.0.0/24\",\"rangeEnd\":\"10.2.0.1\"",
		  "invalid range set 0: RangeEnd 10.2.0.1 not in network 10.1.0.0/24" },
		{ "1.0.0",
		  "\"subnet\":\"10.1.0.0/24\",\"rangeStart\":\"10.1.0.9\",\"rangeEnd\":"
		  "\"10.1.0.8\"",
		  "is after RangeEnd" },
		{ "1.0.0", "\"ranges\":[[]]", "invalid range set 0: empty range set" },
		{ "1.0.0", "\"ranges\":[]", "no IP ranges specified" },
		{ "1.0.0", "\"rangeStart\":\"10.1.0.4\"", "no IP ranges specified" },
		{ "1.0.0", "\"ranges\":[[{}]]", "invalid range set 0: a range without subnet" },
		{ "1.0.0", "\"ranges\":[[{\"subnet\":\"10.1.0.0/24\"},{\"subnet\":\"fd00::/64\"}]]",
		  "invalid range set 0: mixed address families" },
		{ "1.0.0",
		  "\"ranges\":[[{\"subnet\":\"10.1.0.0/24\"},{\"subnet\":\"10.1.0.0/25\"}]]",
		  "invalid range set 0: subnets 10.1.0.1-10.1.0.254 and 10.1.0.1-10.1.0.126 "
		  "overlap" },
		{ "1.0.0",
		  "\"ranges\":[[{\"subnet\":\"10.1.0.0/24\"}],[{\"subnet\":\"10.1.0.0/25\"}]]",
		  "range set 0 overlaps with 1" },
		{ "0.2.0",
		  "\"ranges\":[[{\"subnet\":\"10.1.0.0/24\"}],[{\"subnet\":\"10.2.0.0/24\"}]]",
		  "CNI version 0.2.0 does not support more than 1 address per family" },
		{ "1.0.0", "\"subnet\":7", "ipam.subnet" },
		{ "1.0.0", "\"ranges\":[[{\"subnet\":\"x\"}]]", "ipam.ranges[0][0].subnet" },
		{ "1.0.0", "\"ranges\":[{\"subnet\":\"10.1.0.0/24\"}]", "ipam.ranges[0]" },
		{ "1.0.0", "\"subnet\":\"10.1.0.0/24\",\"dataDir\":\"rel\"", "ipam.dataDir" },
		{ "1.0.0", "\"subnet\":\"10.1.0.0/24\",\"routes\":[{\"gw\":\"10.1.0.1\"}]",
		  "ipam.routes[0].dst" },
	};
	for (size_t i = 0; i < FLAT_LEN(cases); i++) {
		struct flat_request req;
		struct flat_ipam_conf conf;
		struct flat_err err;
		char body[512];
		snprintf(body, sizeof body, "\"ipam\":{%s}", cases[i].ipam);
		assert_true(parse("ADD", cases[i].version, NULL, body, NULL, &req, &conf, &err) <
			    0);
		assert_int_equal(err.code, FLAT_CODE_CONFIG);
		if (!strstr(err.msg, cases[i].text))
			fail_msg("'%s' has not '%s'", err.msg, cases[i].text);
		flat_request_free(&req);
	}
}

static void test_cleaning_does_not_depend_on_ranges(void **state)
{
	(void)state;
	static const char *const bodies[] = { "\"ipam\":{}",
					      "\"ipam\":{\"subnet\":\"10.1.0.1/24\"}", "\"x\":1",
					      "\"ipam\":{\"resolvConf\":\"/nowhere\"}" };
	for (size_t i = 0; i < FLAT_LEN(bodies); i++) {
		struct flat_request req;
		struct flat_ipam_conf conf;
		struct flat_err err;
		assert_int_equal(parse("DEL", "1.0.0", NULL, bodies[i], NULL, &req, &conf, &err),
				 0);
		assert_int_equal(err.code, 0);
		assert_int_equal(conf.sets.count, 0);
		flat_request_free(&req);
	}
}

static void test_subnets_stand_in(void **state)
{
	(void)state;
	struct flat_prefix prefixes[2];
	struct flat_json_list subnets = { prefixes, 2 };
	struct flat_request req;
	struct flat_ipam_conf conf;
	struct flat_err err;
	assert_true(flat_prefix_parse("10.244.3.0/24", &prefixes[0]));
	assert_true(flat_prefix_parse("fd00:3::/64", &prefixes[1]));
	assert_int_equal(parse("ADD", "1.0.0", NULL, "\"ipam\":{}", &subnets, &req, &conf, &err),
			 0);
	assert_false(flat_ipam_conf_has_range(&req));
	assert_int_equal(conf.sets.count, 2);
	assert_ip(&range(&conf, 1, 0)->gateway, "fd00:3::1");
	flat_request_free(&req);
	assert_int_equal(parse("ADD", "1.0.0", NULL, "\"ipam\":{\"subnet\":\"10.9.0.0/24\"}",
			       &subnets, &req, &conf, &err),
			 0);
	assert_int_equal(conf.sets.count, 1);
	flat_request_free(&req);
}

static void test_runtime_ranges(void **state)
{
	(void)state;
	struct flat_request req;
	struct flat_ipam_conf conf;
	struct flat_err err;
	/* a list of lists goes before what the configuration has */
	assert_int_equal(parse("ADD", "1.0.0", NULL,
			       "\"ipam\":{\"subnet\":\"10.1.0.0/24\"},\"runtimeConfig\":{"
			       "\"ipRanges\":[[{\"subnet\":\"10.2.0.0/24\"}]]}",
			       NULL, &req, &conf, &err),
			 0);
	assert_int_equal(conf.sets.count, 2);
	assert_ip(&range(&conf, 0, 0)->gateway, "10.2.0.1");
	flat_request_free(&req);
	/* go-cni's flat list, with its keys: one pool for each family */
	assert_int_equal(parse("ADD", "1.0.0", NULL,
			       "\"runtimeConfig\":{\"ipRanges\":[{\"Subnet\":\"10.2.0.0/24\","
			       "\"RangeStart\":\"10.2.0.9\",\"RangeEnd\":\"\",\"Gateway\":\"\"},"
			       "{\"Subnet\":\"fd00::/64\"},{\"Subnet\":\"10.3.0.0/24\"}]}",
			       NULL, &req, &conf, &err),
			 0);
	assert_true(flat_ipam_conf_has_range(&req));
	assert_int_equal(conf.sets.count, 2);
	assert_ip(&range(&conf, 0, 0)->start, "10.2.0.9");
	assert_ip(&range(&conf, 0, 1)->start, "10.3.0.1");
	assert_ip(&range(&conf, 1, 0)->start, "fd00::1");
	flat_request_free(&req);
}

static void test_requested(void **state)
{
	(void)state;
	struct flat_request req;
	struct flat_ipam_conf conf;
	struct flat_err err;
	/* set by set, runtimeConfig goes before args, and args before CNI_ARGS */
	assert_int_equal(parse("ADD", "1.0.0", "IgnoreUnknown=1;IP=10.1.0.7/24,fd00::7",
			       "\"ipam\":{\"ranges\":[[{\"subnet\":\"10.1.0.0/24\"}],[{\"subnet\":"
			       "\"fd00::/64\"}]]},\"args\":{\"cni\":{\"ips\":[\"10.1.0.8/24\"]}},"
			       "\"runtimeConfig\":{\"ips\":[\"10.1.0.9\"]}",
			       NULL, &req, &conf, &err),
			 0);
	assert_int_equal(conf.requested.count, 2);
	assert_ip(&((struct flat_ip *)conf.requested.items)[0], "10.1.0.9");
	assert_ip(&((struct flat_ip *)conf.requested.items)[1], "fd00::7");
	flat_request_free(&req);
	assert_true(
		parse("ADD", "1.0.0", NULL,
		      "\"ipam\":{\"subnet\":\"10.1.0.0/24\"},\"runtimeConfig\":{\"ips\":[\"x\"]}",
		      NULL, &req, &conf, &err) < 0);
	assert_int_equal(err.code, FLAT_CODE_CONFIG);
	assert_non_null(strstr(err.msg, "runtimeConfig.ips[0]"));
	flat_request_free(&req);
}

static void test_resolv_conf(void **state)
{
	(void)state;
	struct flat_request req;
	struct flat_ipam_conf conf;
	struct flat_err err;
	char file[] = "/tmp/flatnet-test-XXXXXX", link[64], body[256];
	int fd = mkstemp(file);
	const char text[] = "# comment\nnameserver 10.0.0.53\nnameserver\t10.0.0.54 \n"
			    "domain example.org\r\nsearch a.org b.org\noptions ndots:5 edns0\n"
			    "nonsense\nnameserver\n;x";
	assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
	close(fd);
	snprintf(link, sizeof link, "%s.link", file);
	assert_int_equal(symlink(file, link), 0); /* as systemd-resolved makes it */
	snprintf(body, sizeof body, "\"ipam\":{\"subnet\":\"10.1.0.0/24\",\"resolvConf\":\"%s\"}",
		 link);
	assert_int_equal(parse("ADD", "1.0.0", NULL, body, NULL, &req, &conf, &err), 0);
	assert_int_equal(conf.dns.nameservers.count, 2);
	assert_string_equal(((const char **)conf.dns.nameservers.items)[1], "10.0.0.54");
	assert_string_equal(conf.dns.domain, "example.org");
	assert_int_equal(conf.dns.search.count, 2);
	assert_int_equal(conf.dns.options.count, 2);
	flat_request_free(&req);
	unlink(link);
	unlink(file);
	assert_true(parse("ADD", "1.0.0", NULL, body, NULL, &req, &conf, &err) < 0);
	assert_non_null(strstr(err.msg, link));
	flat_request_free(&req);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_network_and_broadcast_are_nobodys),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_cleaning_does_not_depend_on_ranges),
		cmocka_unit_test(test_subnets_stand_in),
		cmocka_unit_test(test_runtime_ranges),
		cmocka_unit_test(test_requested),
		cmocka_unit_test(test_resolv_conf),
	};
	return cmocka_run_group_tests_name("ipam-conf", tests, NULL, NULL);
}
