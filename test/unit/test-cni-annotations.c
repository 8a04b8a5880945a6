// SPDX-License-Identifier: Apache-2.0
/* Annotations of the pod: which count, what they say, and what is refused. */
#include <flatnet/cni.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#define PATH "runtimeConfig.io.kubernetes.cri.pod-annotations"

/* With these kinds allowed, of a pod with these annotations. */
static int parse(const char *allowed, const char *annotations, struct flat_request *req,
		 struct flat_annotations *found, struct flat_err *err)
{
	static char text[2048];
	const struct flat_env env = {
		.command = "ADD", .container_id = "c1", .netns = "/run/netns/x", .ifname = "eth0"
	};
	memset(req, 0, sizeof *req);
	*err = (struct flat_err){ 0 };
	*found = (struct flat_annotations){ 0 };
	snprintf(text, sizeof text,
		 "{\"cniVersion\":\"1.0.0\",\"name\":\"mynet\",\"type\":\"flatnet\","
		 "\"runtimeConfig\":{\"io.kubernetes.cri.pod-annotations\":%s}%s%s}",
		 annotations, allowed ? ",\"allowPodAnnotations\":" : "", allowed ? allowed : "");
	assert_int_equal(flat_request_parse(&env, text, strlen(text), req, err), 0);
	return flat_annotations_parse(req, found, err);
}

static const char all[] =
	"{\"cni.flatnet/ip\":\"10.244.1.5,fd00::5/64\",\"cni.flatnet/mac\":\"0a:58:00:00:00:01\","
	"\"kubernetes.io/ingress-bandwidth\":\"10M\",\"kubernetes.io/egress-bandwidth\":\"1.5Gi\","
	"\"other\":5}";

static void test_allowed(void **state)
{
	struct flat_request req;
	struct flat_annotations found;
	struct flat_err err;
	char text[FLAT_IP_TEXT];
	(void)state;
	assert_int_equal(parse("[\"ip\",\"mac\",\"bandwidth\"]", all, &req, &found, &err), 0);
	assert_int_equal(found.ips.count, 2);
	assert_string_equal(flat_ip_text(&((struct flat_ip *)found.ips.items)[1], text), "fd00::5");
	assert_true(found.has_mac && found.mac.bytes[5] == 1);
	assert_int_equal(found.ingress_rate, 10000000);
	assert_int_equal(found.egress_rate, 1610612736);
	flat_request_free(&req);
	assert_int_equal(parse("[\"mac\"]", all, &req, &found, &err), 0);
	assert_true(found.has_mac && !found.ips.count && !found.ingress_rate);
	flat_request_free(&req);
	/* what does not count is not looked at */
	static const char *const none[] = { NULL, "[]", "null" };
	for (size_t i = 0; i < FLAT_LEN(none); i++) {
		assert_int_equal(parse(none[i], "{\"cni.flatnet/ip\":\"nonsense\"}", &req, &found,
				       &err),
				 0);
		assert_int_equal(found.ips.count, 0);
		flat_request_free(&req);
		assert_int_equal(parse(none[i], "5", &req, &found, &err), 0);
		flat_request_free(&req);
	}
	/* of several equal ones the last; empty is not given; another case is another annotation */
	assert_int_equal(parse("[\"ip\"]",
			       "{\"cni.flatnet/ip\":\"10.0.0.1\",\"cni.flatnet/ip\":\"10.0.0.2\","
			       "\"CNI.flatnet/ip\":\"x\",\"cni.flatnet/mac\":\"x\"}",
			       &req, &found, &err),
			 0);
	assert_int_equal(found.ips.count, 1);
	assert_string_equal(flat_ip_text(found.ips.items, text), "10.0.0.2");
	flat_request_free(&req);
	assert_int_equal(parse("[\"ip\"]", "{\"cni.flatnet/ip\":\"\"}", &req, &found, &err), 0);
	assert_int_equal(found.ips.count, 0);
	flat_request_free(&req);
}

static void test_rates(void **state)
{
	static const struct {
		const char *text;
		uint64_t rate; /* 0: refused */
	} cases[] = {
		{ "1000", 1000 },
		{ "1k", 1000 },
		{ "1Ki", 1024 },
		{ "2M", 2000000 },
		{ "2Mi", 2097152 },
		{ "0.5G", 500000000 },
		{ "1.0005k", 1001 },
		{ "1T", 1000000000000 },
		{ "1P", 1000000000000000 },
		{ "0.5Ti", 549755813888 },
		{ "1e6", 1000000 },
		{ "1E+6", 1000000 },
		{ "1.k", 1000 },
		{ "999", 0 },
		{ "1.1P", 0 },
		{ "1Pi", 0 },
		{ "1E", 0 },
		{ "5000m", 0 },
		{ "1e", 0 },
		{ "1e6k", 0 },
		{ "-1M", 0 },
		{ "+1M", 0 },
		{ "M", 0 },
		{ ".5M", 0 },
		{ "1,5M", 0 },
		{ "1 M", 0 },
		{ " 1M", 0 },
		{ "0x1000", 0 },
		{ "1m", 0 },
		{ "1K", 0 },
		{ "10Mbit", 0 },
		{ "inf", 0 },
		{ "nan", 0 },
		{ "1e999", 0 },
		{ "10000000000000000000000000000000000e-30M", 0 },
	};
	struct flat_request req;
	struct flat_annotations found;
	struct flat_err err;
	char body[128], message[256];
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(cases); i++) {
		snprintf(body, sizeof body, "{\"kubernetes.io/ingress-bandwidth\":\"%s\"}",
			 cases[i].text);
		const int r = parse("[\"bandwidth\"]", body, &req, &found, &err);
		if ((r >= 0) != (cases[i].rate != 0) || found.ingress_rate != cases[i].rate)
			fail_msg("'%s' is %llu", cases[i].text,
				 (unsigned long long)found.ingress_rate);
		if (r < 0) {
			snprintf(message, sizeof message,
				 PATH "[\"kubernetes.io/ingress-bandwidth\"]: \"%s\" is not a rate",
				 cases[i].text);
			assert_int_equal(err.code, FLAT_CODE_CONFIG);
			assert_int_equal(strncmp(err.msg, message, strlen(message)), 0);
		}
		flat_request_free(&req);
	}
}

static void test_faults(void **state)
{
	static const struct {
		const char *allowed, *annotations, *msg;
	} cases[] = {
		{ "[\"ip\"]", "{\"cni.flatnet/ip\":\"10.0.0.1,x\"}",
		  PATH "[\"cni.flatnet/ip\"]: \"x\" is not an IP address" },
		{ "[\"ip\"]", "{\"cni.flatnet/ip\":5}",
		  PATH "[\"cni.flatnet/ip\"]: is not a string" },
		{ "[\"ip\"]",
		  "{\"cni.flatnet/ip\":\"::1,::2,::3,::4,::5,::6,::7,::8,::9,::a,::b,::c,::d,::e,"
		  "::f,::10,::11\"}",
		  PATH "[\"cni.flatnet/ip\"]: names more than 16" },
		{ "[\"mac\"]", "{\"cni.flatnet/mac\":\"02:00\"}",
		  PATH "[\"cni.flatnet/mac\"]: \"02:00\" is not a MAC" },
		{ "[\"mac\"]", "{\"cni.flatnet/mac\":\"01:00:00:00:00:01\"}",
		  PATH "[\"cni.flatnet/mac\"]: 01:00:00:00:00:01 is a multicast" },
		{ "[\"mac\"]", "[]", PATH ": a list is not an object" },
		{ "[\"vlan\"]", "{}",
		  "allowPodAnnotations[0]: \"vlan\" is not \"ip\", \"mac\" or \"bandwidth\"" },
		{ "[\"ip\",true]", "{}", "allowPodAnnotations[1]: " },
		{ "true", "{}", "allowPodAnnotations: true is not a list" },
	};
	struct flat_request req;
	struct flat_annotations found;
	struct flat_err err;
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(cases); i++) {
		assert_true(parse(cases[i].allowed, cases[i].annotations, &req, &found, &err) < 0);
		assert_int_equal(err.code, FLAT_CODE_CONFIG);
		if (strncmp(err.msg, cases[i].msg, strlen(cases[i].msg)) != 0)
			assert_string_equal(err.msg, cases[i].msg);
		flat_request_free(&req);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_rates),
		cmocka_unit_test(test_faults),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
