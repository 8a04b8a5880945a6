// SPDX-License-Identifier: Apache-2.0
#include "../../agent/kubeconfig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/flat-kubeconfig-XXXXXX";
static char path[64];

static int read_text(const char *text, const char *context, struct flat_arena *arena,
		     struct flat_http_target *target, struct flat_err *err)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	*err = (struct flat_err){ 0 };
	return flat_kubeconfig_read(path, context, arena, target, err);
}

/* A kubeconfig with these members of cluster and user, each "key: value" lines. */
static const char *config(const char *cluster, const char *user)
{
	static char text[4096];
	snprintf(text, sizeof text,
		 "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
		 "contexts:\n- name: c\n  context: {cluster: k, user: u}\n"
		 "clusters:\n- name: k\n  cluster:\n    %s\n"
		 "users:\n- name: other\n  user: {exec: {command: evil}}\n- name: u\n  user:\n    "
		 "%s\n",
		 cluster, user);
	return text;
}

static void test_reads(void **state)
{
	(void)state;
	struct flat_arena arena = { 0 };
	struct flat_http_target t;
	struct flat_err err;
	/* base64 of "-----BEGIN X" */
	if (read_text(
		    config("server: https://192.0.2.1:6443\n    certificate-authority: pki/ca.crt\n"
			   "    tls-server-name: api.example",
			   "client-certificate: /etc/c.crt\n    client-key-data: "
			   "LS0tLS1CRUdJTiBY"),
		    NULL, &arena, &t, &err) < 0)
		fail_msg("%s", err.msg);
	char expected[128];
	snprintf(expected, sizeof expected, "%s/pki/ca.crt", dir);
	assert_string_equal(t.urls[0], "https://192.0.2.1:6443");
	assert_int_equal(t.url_count, 1);
	assert_string_equal(t.ca_file, expected);
	assert_string_equal(t.server_name, "api.example");
	assert_string_equal(t.cert_file, "/etc/c.crt");
	assert_string_equal(t.key_data, "-----BEGIN X");
	assert_null(t.token);
	assert_false(t.insecure);
	/* JSON is YAML */
	if (read_text("{\"contexts\":[{\"name\":\"x\",\"context\":{\"cluster\":\"k\"}}],"
		      "\"clusters\":[{\"name\":\"k\",\"cluster\":{\"server\":\"http://h\","
		      "\"insecure-skip-tls-verify\":true}}]}",
		      "x", &arena, &t, &err) < 0)
		fail_msg("%s", err.msg);
	assert_true(t.insecure);
	assert_string_equal(t.urls[0], "http://h");
	if (read_text(config("server: h", "username: me\n    password: 'a:b'\n    token: t\n"
					  "    tokenFile: tok"),
		      "c", &arena, &t, &err) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(t.basic, "me:a:b");
	assert_string_equal(t.token, "t");
	snprintf(expected, sizeof expected, "%s/tok", dir);
	assert_string_equal(t.token_file, expected);
	flat_arena_free(&arena);
}

static void test_refuses(void **state)
{
	(void)state;
	struct flat_arena arena = { 0 };
	struct flat_http_target t;
	struct flat_err err;
	static const struct {
		const char *cluster, *user, *said;
	} bad[] = {
		{ "server: h", "exec: {command: aws}", "users[name=u].user.exec is not supported" },
		{ "server: h", "auth-provider: {name: gcp}",
		  "user.auth-provider is not supported" },
		{ "server: h", "as: admin", "user.as is not supported" },
		{ "server: h", "client-key: k", "client-certificate is missing" },
		{ "server: h", "client-certificate: k", "client-key is missing" },
		{ "server: h", "token: [a]", "user.token is not a text" },
		{ "server: h", "token: \"a\\0b\"", "user.token has a NUL in it" },
		{ "server: h", "client-certificate-data: '%%%'", "is not base64" },
		{ "server: h", "client-certificate-data: aGFsbG8=", "is not base64 of a PEM text" },
		{ "server: h\n    proxy-url: x", "token: a", "cluster.proxy-url is not supported" },
		{ "other: h", "token: a", "clusters[name=k].cluster.server is missing" },
		{ "insecure-skip-tls-verify: maybe\n    server: h", "token: a",
		  "is neither true nor false" },
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		int r = read_text(config(bad[i].cluster, bad[i].user), NULL, &arena, &t, &err);
		assert_true(r < 0);
		assert_int_equal(err.code, FLAT_CODE_CONFIG);
		if (!strstr(err.msg, bad[i].said))
			fail_msg("'%s' does not say '%s'", err.msg, bad[i].said);
	}
	static const struct {
		const char *text, *said;
	} whole[] = {
		{ "", "it is not a mapping" },
		{ "- a", "it is not a mapping" },
		{ "a: [", "line 2" },
		{ "a: *nowhere", "line 1" },
		{ "{}", "current-context is missing" },
		{ "current-context: c", "contexts is not a list" },
		{ "current-context: c\ncontexts: []", "contexts[name=c] is missing" },
		{ "current-context: c\ncontexts: [7, null, {name: c}]", "].context is missing" },
		{ "current-context: c\ncontexts: [{name: c, context: {}}]", "cluster is missing" },
		{ "a: &a [1,2]\nb: &b [*a,*a]\nc: [*b,*b]\ncurrent-context: *b",
		  "current-context is not a text" },
	};
	for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
		assert_true(read_text(whole[i].text, NULL, &arena, &t, &err) < 0);
		if (!strstr(err.msg, whole[i].said))
			fail_msg("'%s' does not say '%s'", err.msg, whole[i].said);
	}
	assert_true(read_text(config("server: h", "token: a"), "else", &arena, &t, &err) < 0);
	assert_non_null(strstr(err.msg, "contexts[name=else] is missing"));
	unlink(path);
	err = (struct flat_err){ 0 };
	assert_true(flat_kubeconfig_read(path, NULL, &arena, &t, &err) < 0);
	assert_int_equal(err.code, FLAT_CODE_IO);
	flat_arena_free(&arena);
}

static void test_in_cluster(void **state)
{
	(void)state;
	struct flat_arena arena = { 0 };
	struct flat_http_target t;
	struct flat_err err = { 0 };
	assert_int_equal(flat_kubeconfig_in_cluster("https://10.96.0.1:443", "/run/sa", &arena, &t,
						    &err),
			 0);
	assert_string_equal(t.urls[0], "https://10.96.0.1:443");
	assert_string_equal(t.ca_file, "/run/sa/ca.crt");
	assert_string_equal(t.token_file, "/run/sa/token");
	flat_arena_free(&arena);
}

static int make_dir(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof path, "%s/config", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_in_cluster),
	};
	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
