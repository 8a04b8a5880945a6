// SPDX-License-Identifier: Apache-2.0
#include <flatnet/cni.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#define CONF(version, more)                                                                        \
	"{\"cniVersion\":\"" version "\",\"name\":\"pods\",\"type\":\"flatnet\"" more "}"

static const struct flat_env full = {
	.command = "ADD",
	.container_id = "c1",
	.netns = "/run/netns/c1",
	.ifname = "eth0",
	.path = "/opt/cni/bin",
};

static struct flat_env for_command(const char *command)
{
	struct flat_env env = full;
	env.command = command;
	return env;
}

/* Runtimes set the variables of GC and STATUS, but to nothing. */
static struct flat_env for_network(const char *command)
{
	return (struct flat_env){ .command = command,
				  .container_id = "",
				  .netns = "",
				  .ifname = "",
				  .path = "/opt/cni/bin" };
}

static void take(const struct flat_env *env, const char *text, struct flat_request *req)
{
	struct flat_err err = { 0 };
	if (flat_request_parse(env, text, strlen(text), req, &err) < 0)
		fail_msg("%s: %s (%s)", text, err.msg, err.details);
	assert_int_equal(err.code, 0);
}

/* Parses, and expects this code and a message that contains this. */
static void refuse(const struct flat_env *env, const char *text, int code, const char *message)
{
	struct flat_request req = { 0 };
	struct flat_err err = { 0 };
	int r = flat_request_parse(env, text, strlen(text), &req, &err);
	flat_request_free(&req);
	if (r >= 0)
		fail_msg("accepted: %.200s", text);
	if (err.code != code || !strstr(err.msg, message))
		fail_msg("%.200s: code %d \"%s\", not %d \"%s\"", text, err.code, err.msg, code,
			 message);
}

static void commands_are_told_apart(void **state)
{
	static const char *const names[] = { "ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION" };
	enum flat_command command;
	struct flat_err err = { 0 };
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(names); i++) {
		assert_int_equal(flat_command_parse(names[i], &command, &err), 0);
		assert_int_equal(command, i);
	}
	assert_int_equal(flat_command_parse(NULL, &command, &err), -ENOENT);
	assert_int_equal(flat_command_parse("", &command, &err), -ENOENT);
	assert_int_equal(err.code, 0);
	assert_true(flat_command_parse("add", &command, &err) < 0);
	assert_int_equal(err.code, FLAT_CODE_ENV);
	assert_string_equal(err.msg, "unknown CNI_COMMAND: add");
}

static void an_add_is_read_whole(void **state)
{
	struct flat_env env = full;
	struct flat_request req = { 0 };
	(void)state;
	env.args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;FOO=a=b;"
		   "K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u-1;IP=10.244.1.9/24,fd00::9;"
		   "MAC=0a:58:0a:f4:01:09;;IgnoreUnknown=TRUE";
	env.netns_override = "True";
	take(&env, CONF("1.1.0", ",\"ipam\":{\"type\":\"host-local\"}"), &req);
	assert_int_equal(req.command, FLAT_CMD_ADD);
	assert_int_equal(req.version, FLAT_VERSION_1_1_0);
	assert_string_equal(req.container_id, "c1");
	assert_string_equal(req.netns, "/run/netns/c1");
	assert_string_equal(req.ifname, "eth0");
	assert_string_equal(req.path, "/opt/cni/bin");
	assert_true(req.netns_override);
	assert_string_equal(req.name, "pods");
	assert_string_equal(req.type, "flatnet");
	assert_true(req.has_ipam);
	assert_string_equal(req.ipam_type, "host-local");
	assert_string_equal(req.args.pod_namespace, "default");
	assert_string_equal(req.args.pod_name, "web-0");
	assert_string_equal(req.args.pod_infra_id, "c1");
	assert_string_equal(req.args.pod_uid, "u-1");
	assert_int_equal(req.args.ips.count, 2);
	assert_int_equal(((struct flat_ip *)req.args.ips.items)[0].bytes[3], 9);
	assert_int_equal(((struct flat_ip *)req.args.ips.items)[1].family, AF_INET6);
	assert_true(req.args.has_mac);
	assert_null(req.prev_result);
	assert_false(req.has_valid);
	flat_request_free(&req);
	assert_null(req.json);

	take(&full, "{\"CNIVERSION\":\"0.3.1\",\"Name\":\"pods\",\"TYPE\":\"flatnet\"}", &req);
	assert_int_equal(req.version, FLAT_VERSION_0_3_1);
	assert_false(req.has_ipam);
	assert_null(req.ipam_type);
	assert_false(req.netns_override);
	flat_request_free(&req);
	take(&full, CONF("1.0.0", ",\"ipam\":{}"), &req);
	assert_true(req.has_ipam);
	assert_null(req.ipam_type);
	flat_request_free(&req);
}

static void all_missing_variables_are_named(void **state)
{
	struct flat_env env = { .command = "ADD" };
	(void)state;
	refuse(&env, CONF("1.0.0", ""), FLAT_CODE_ENV,
	       "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing");
	env = for_network("DEL");
	refuse(&env, CONF("1.0.0", ""), FLAT_CODE_ENV,
	       "required env variables [CNI_CONTAINERID,CNI_IFNAME] missing");
	env = full;
	env.command = "CHECK";
	env.netns = "";
	refuse(&env, "garbage", FLAT_CODE_ENV, "required env variables [CNI_NETNS] missing");
	env.command = NULL;
	refuse(&env, CONF("1.0.0", ""), FLAT_CODE_ENV, "[CNI_COMMAND] missing");
}

static void a_del_needs_little(void **state)
{
	struct flat_env env = { .command = "DEL", .container_id = "default-c1", .ifname = "eth0" };
	struct flat_request req = { 0 };
	(void)state;
	env.args = "IP=nonsense;MAC=x;NOT A PAIR;UNKNOWN=1";
	take(&env, CONF("1.1.0", ",\"prevResult\":{\"ips\":[{\"address\":\"oops\"}]}"), &req);
	assert_string_equal(req.netns, "");
	assert_string_equal(req.path, "");
	assert_null(req.prev_result);
	assert_int_equal(req.args.ips.count, 0);
	assert_false(req.args.has_mac);
	flat_request_free(&req);
	env.netns = "/run/\xff";
	take(&env, CONF("1.1.0", ",\"prevResult\":{\"ips\":[{\"address\":\"10.0.0.2/8\"}]}"), &req);
	assert_int_equal(req.prev_result->ip_count, 1);
	flat_request_free(&req);
}

static void names_are_checked(void **state)
{
	static const char *const bad_ids[] = {
		"-c", "c/d", "../c", "c d", ".c", "c\n", "\xc3\xa9"
	};
	static const char *const bad_ifs[] = { ".",    "..",  "a/b",
					       "a:b",  "a b", "abcdefghijklmnop",
					       "a\tb", "\xff" };
	static const char *const good_ifs[] = { "eth0", "abcdefghijklmno", "a.b", "...",
						"\xc3\xa9" };
	char id[1100], name[300], conf[400];
	struct flat_env env = full;
	struct flat_request req = { 0 };
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(bad_ids); i++) {
		env.container_id = bad_ids[i];
		refuse(&env, CONF("1.0.0", ""), FLAT_CODE_ENV, "CNI_CONTAINERID: ");
	}
	memset(id, 'a', sizeof id);
	env.container_id = id;
	id[1025] = '\0';
	refuse(&env, CONF("1.0.0", ""), FLAT_CODE_ENV, "1025 bytes long; at most 1024");
	id[1024] = '\0';
	take(&env, CONF("1.0.0", ""), &req);
	flat_request_free(&req);
	env = full;
	for (size_t i = 0; i < FLAT_LEN(bad_ifs); i++) {
		env.ifname = bad_ifs[i];
		refuse(&env, CONF("1.0.0", ""), FLAT_CODE_ENV, "CNI_IFNAME: ");
	}
	for (size_t i = 0; i < FLAT_LEN(good_ifs); i++)
		assert_true(flat_ifname_is_valid(good_ifs[i]));
	assert_false(flat_ifname_is_valid(""));
	env = full;
	env.netns = "/run/\xff";
	refuse(&env, CONF("1.0.0", ""), FLAT_CODE_ENV, "CNI_NETNS");
	for (int len = 200; len <= 201; len++) {
		memset(name, 'n', sizeof name);
		name[len] = '\0';
		strcpy(conf, "{\"type\":\"flatnet\",\"name\":\"");
		strcat(strcat(conf, name), "\"}");
		if (len == 201) {
			refuse(&full, conf, FLAT_CODE_CONFIG, "at most 200");
		} else {
			take(&full, conf, &req);
			flat_request_free(&req);
		}
	}
}

static void the_name_is_checked_for_every_command(void **state)
{
	static const char *const commands[] = { "ADD", "DEL", "CHECK", "GC", "STATUS" };
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(commands); i++) {
		struct flat_env env = i < 3 ? for_command(commands[i]) : for_network(commands[i]);
		refuse(&env, "{\"cniVersion\":\"1.1.0\",\"type\":\"flatnet\"}", FLAT_CODE_CONFIG,
		       "missing network name");
		refuse(&env, "{\"cniVersion\":\"1.1.0\",\"type\":\"flatnet\",\"name\":\"\"}",
		       FLAT_CODE_CONFIG, "missing network name");
		refuse(&env, "{\"cniVersion\":\"1.1.0\",\"type\":\"flatnet\",\"name\":\"../x\"}",
		       FLAT_CODE_CONFIG, "name: \"../x\" is not a network name");
	}
}

static void versions_are_exact(void **state)
{
	static const char *const texts[] = { "0.1.0", "0.2.0", "0.3.0", "0.3.1",
					     "0.4.0", "1.0.0", "1.1.0" };
	struct flat_request req = { 0 };
	struct flat_err err = { 0 };
	struct flat_env env;
	char conf[200];
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(texts); i++) {
		assert_string_equal(flat_version_text((enum flat_version)i), texts[i]);
		strcpy(conf, "{\"type\":\"flatnet\",\"name\":\"n\",\"cniVersion\":\"");
		strcat(strcat(conf, texts[i]), "\"}");
		take(&full, conf, &req);
		assert_int_equal(req.version, i);
		flat_request_free(&req);
		env = for_command("CHECK");
		if (i < FLAT_VERSION_0_4_0)
			refuse(&env, conf, FLAT_CODE_VERSION,
			       "config version does not allow CHECK");
		env = for_network("GC");
		if (i < FLAT_VERSION_1_1_0)
			refuse(&env, conf, FLAT_CODE_VERSION, "config version does not allow GC");
		env = for_network("STATUS");
		if (i < FLAT_VERSION_1_1_0)
			refuse(&env, conf, FLAT_CODE_VERSION,
			       "config version does not allow STATUS");
	}
	take(&full, "{\"type\":\"flatnet\",\"name\":\"n\"}", &req);
	assert_int_equal(req.version, FLAT_VERSION_0_1_0);
	flat_request_free(&req);
	take(&full, CONF("", ""), &req);
	assert_int_equal(req.version, FLAT_VERSION_0_1_0);
	flat_request_free(&req);
	refuse(&full, CONF("1.1", ""), FLAT_CODE_VERSION, "incompatible CNI versions");
	refuse(&full, "{\"cniVersion\":1,\"name\":\"n\",\"type\":\"t\"}", FLAT_CODE_CONFIG,
	       "cniVersion");
	assert_true(flat_request_parse(&full, CONF("9.9.9", ""), strlen(CONF("9.9.9", "")), &req,
				       &err) < 0);
	assert_int_equal(req.version, FLAT_VERSION_1_1_0);
	assert_string_equal(err.details,
			    "config is \"9.9.9\", plugin supports [\"0.1.0\" \"0.2.0\" "
			    "\"0.3.0\" \"0.3.1\" \"0.4.0\" \"1.0.0\" \"1.1.0\"]");
	flat_request_free(&req);
}

static void errors_are_told_in_the_configs_version(void **state)
{
	struct flat_request req = { 0 };
	struct flat_err err = { 0 };
	struct flat_env env = full;
	(void)state;
	env.ifname = "a/b";
	assert_true(flat_request_parse(&env, CONF("0.4.0", ""), strlen(CONF("0.4.0", "")), &req,
				       &err) < 0);
	assert_int_equal(req.version, FLAT_VERSION_0_4_0);
	flat_request_free(&req);
}

static void what_is_no_configuration_is_refused(void **state)
{
	char *deep = malloc(100001);
	(void)state;
	refuse(&full, "", FLAT_CODE_DECODE, "no network configuration");
	refuse(&full, " \n", FLAT_CODE_DECODE, "no network configuration");
	refuse(&full, "{", FLAT_CODE_DECODE, "network configuration: not valid JSON");
	refuse(&full, "[]", FLAT_CODE_DECODE, "not a JSON object");
	refuse(&full, "null", FLAT_CODE_DECODE, "not a JSON object");
	refuse(&full, CONF("1.0.0", ",\"bridge\":\"cni0\\u0000x\""), FLAT_CODE_DECODE, "\\u0000");
	refuse(&full, CONF("1.0.0", ",\"bridge\":\"\xff\""), FLAT_CODE_DECODE, "UTF-8");
	assert_non_null(deep);
	memset(deep, '[', 100000);
	deep[100000] = '\0';
	refuse(&full, deep, FLAT_CODE_DECODE, "64 levels");
	free(deep);
	refuse(&full,
	       "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"flatnet\"}]}",
	       FLAT_CODE_CONFIG, "whole network configuration list");
	refuse(&full, "{\"cniVersion\":\"1.0.0\",\"name\":\"n\"}", FLAT_CODE_CONFIG,
	       "type: missing");
	refuse(&full, "{\"name\":\"n\",\"type\":[]}", FLAT_CODE_CONFIG,
	       "type: a list is not a string");
	refuse(&full, "{\"name\":7,\"type\":\"t\"}", FLAT_CODE_CONFIG, "name: 7 is not a string");
	refuse(&full, CONF("1.0.0", ",\"ipam\":\"host-local\""), FLAT_CODE_CONFIG,
	       "ipam: \"host-local\" is not an object");
	refuse(&full, CONF("1.0.0", ",\"ipam\":{\"type\":5}"), FLAT_CODE_CONFIG,
	       "ipam.type: 5 is not a string");
}

static void the_last_of_equal_keys_counts(void **state)
{
	struct flat_request req = { 0 };
	(void)state;
	take(&full, CONF("1.0.0", ",\"name\":\"second\",\"NAME\":\"third\""), &req);
	assert_string_equal(req.name, "third");
	flat_request_free(&req);
}

static void bad_args_are_refused_on_add(void **state)
{
	static const struct {
		const char *args, *message;
	} bad[] = {
		{ "FOO=1", "the key \"FOO\" is not known" },
		{ "FOO=1;IgnoreUnknown=0", "the key \"FOO\" is not known" },
		{ "FOO", "\"FOO\" is not KEY=VALUE" },
		{ "IP=10.0.0.256", "IP: \"10.0.0.256\" is not an IP address" },
		{ "IP=10.0.0.1/33", "IP: \"10.0.0.1/33\" is not an IP address" },
		{ "IP=1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,"
		  "1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1,1.1.1.1",
		  "more than 16" },
		{ "MAC=0a", "MAC: \"0a\" is not a MAC address" },
		{ "k8s_pod_name=x", "not known" },
		{ "IgnoreUnknown=1;IP=x", "IP: \"x\"" },
	};
	struct flat_env env = full;
	struct flat_request req = { 0 };
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(bad); i++) {
		env.args = bad[i].args;
		refuse(&env, CONF("1.0.0", ""), FLAT_CODE_ENV, bad[i].message);
	}
	env.args = "FOO=1;IgnoreUnknown=true;IP=;MAC=";
	take(&env, CONF("1.0.0", ""), &req);
	assert_int_equal(req.args.ips.count, 0);
	flat_request_free(&req);
	env = for_network("STATUS");
	env.args = "IP=bad;UNKNOWN=1";
	take(&env, CONF("1.1.0", ""), &req);
	flat_request_free(&req);
}

static void prev_result_is_read_in_its_version(void **state)
{
	static const char *const confs[] = {
		CONF("0.2.0", ",\"prevResult\":{\"ip4\":{\"ip\":\"10.0.0.2/8\"}}"),
		CONF("0.4.0",
		     ",\"prevResult\":{\"ips\":[{\"version\":\"4\",\"address\":\"10.0.0.2/8\"}]}"),
		CONF("1.0.0",
		     ",\"prevResult\":{\"cniVersion\":\"0.2.0\",\"ip4\":{\"ip\":\"10.0.0.2/"
		     "8\"}}"),
		CONF("1.1.0", ",\"PrevResult\":{\"IPs\":[{\"Address\":\"10.0.0.2/8\"}]}"),
	};
	struct flat_request req = { 0 };
	char text[FLAT_PREFIX_TEXT];
	(void)state;
	for (size_t i = 0; i < FLAT_LEN(confs); i++) {
		take(&full, confs[i], &req);
		assert_non_null(req.prev_result);
		assert_int_equal(req.prev_result->ip_count, 1);
		assert_string_equal(flat_prefix_text(&req.prev_result->ips[0].address, text),
				    "10.0.0.2/8");
		flat_request_free(&req);
	}
	take(&full, CONF("1.0.0", ",\"prevResult\":null"), &req);
	assert_null(req.prev_result);
	flat_request_free(&req);
	refuse(&full, CONF("1.0.0", ",\"prevResult\":{\"ips\":[{\"address\":\"10.0.0.2\"}]}"),
	       FLAT_CODE_CONFIG, "prevResult.ips[0].address: \"10.0.0.2\" is not");
	refuse(&full, CONF("1.0.0", ",\"prevResult\":[]"), FLAT_CODE_CONFIG, "prevResult: ");
	struct flat_env env = for_network("STATUS");
	take(&env, CONF("1.1.0", ",\"prevResult\":5"), &req);
	flat_request_free(&req);
}

static void missing_null_and_empty_attachments_differ(void **state)
{
	struct flat_env env = for_network("GC");
	struct flat_request req = { 0 };
	(void)state;
	take(&env, CONF("1.1.0", ",\"capabilities\":{\"portMappings\":true}"), &req);
	assert_false(req.has_valid);
	flat_request_free(&req);
	take(&env,
	     CONF("1.1.0", ",\"cni.dev/valid-attachments\":null,\"cni.dev/attachments\":null"),
	     &req);
	assert_true(req.has_valid);
	assert_int_equal(req.valid.count, 0);
	flat_request_free(&req);
	take(&env, CONF("1.1.0", ",\"cni.dev/valid-attachments\":[]"), &req);
	assert_true(req.has_valid);
	flat_request_free(&req);
	take(&env,
	     CONF("1.1.0", ",\"cni.dev/attachments\":[{\"containerID\":\"c1\",\"ifname\":\"eth0\"},"
			   "{\"ContainerID\":\"c2\",\"IfName\":\"net1\"}]"),
	     &req);
	assert_true(req.has_valid);
	assert_int_equal(req.valid.count, 2);
	const struct flat_attachment_id *ids = req.valid.items;
	assert_string_equal(ids[1].container_id, "c2");
	assert_string_equal(ids[1].ifname, "net1");
	flat_request_free(&req);
	/* what cannot be read must not be taken for "nothing is valid" */
	refuse(&env, CONF("1.1.0", ",\"cni.dev/valid-attachments\":{}"), FLAT_CODE_CONFIG,
	       "cni.dev/valid-attachments: an object is not a list");
	refuse(&env, CONF("1.1.0", ",\"cni.dev/valid-attachments\":[{\"ifname\":\"eth0\"}]"),
	       FLAT_CODE_CONFIG, "cni.dev/valid-attachments[0].containerID: missing");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(commands_are_told_apart),
		cmocka_unit_test(an_add_is_read_whole),
		cmocka_unit_test(all_missing_variables_are_named),
		cmocka_unit_test(a_del_needs_little),
		cmocka_unit_test(names_are_checked),
		cmocka_unit_test(the_name_is_checked_for_every_command),
		cmocka_unit_test(versions_are_exact),
		cmocka_unit_test(errors_are_told_in_the_configs_version),
		cmocka_unit_test(what_is_no_configuration_is_refused),
		cmocka_unit_test(the_last_of_equal_keys_counts),
		cmocka_unit_test(bad_args_are_refused_on_add),
		cmocka_unit_test(prev_result_is_read_in_its_version),
		cmocka_unit_test(missing_null_and_empty_attachments_differ),
	};
	return cmocka_run_group_tests_name("cni-request", tests, NULL, NULL);
}
