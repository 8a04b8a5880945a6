// SPDX-License-Identifier: Apache-2.0
/* agent: what it writes for others is whole and theirs; what it remembers is right, or nothing. */
#include "../../agent/nodefile.h"

#include <flatnet/state.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- a directory, a node and a configuration ----------------------------------------------------
 */

static char dir[64], node_file[96], env_file[96], conf_file[96], state_file[96];

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/flatnet-test-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(node_file, sizeof node_file, "%s/run/node.json", dir);
	snprintf(env_file, sizeof env_file, "%s/run/flannel/subnet.env", dir);
	snprintf(conf_file, sizeof conf_file, "%s/net.d/10-flatnet.conflist", dir);
	snprintf(state_file, sizeof state_file, "%s/lib/state.json", dir);
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	return remove(path);
}

static int teardown(void **state)
{
	(void)state;
	return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static struct flat_prefix prefix_of(const char *text)
{
	struct flat_prefix prefix;
	assert_true(flat_prefix_parse(text, &prefix));
	return prefix;
}

static struct flat_ip ip_of(const char *text)
{
	struct flat_ip ip;
	assert_true(flat_ip_parse(text, &ip));
	return ip;
}

static struct flat_agent_conf conf_of(void)
{
	return (struct flat_agent_conf){
		.cluster = { .cidrs = { prefix_of("10.244.0.0/16"), prefix_of("fd00:244::/48") },
			     .cidr_count = 2 },
		.cni = { .network = "pods",
			 .bridge = "cni0",
			 .ip_masq = true,
			 .ipam_dir = "/run/flatnet/ipam",
			 .conf_file = conf_file },
		.node_file = node_file,
		.subnet_env = env_file,
	};
}

static struct flat_node node_of(const char *name, unsigned number)
{
	char text[64];
	struct flat_node node = { .name = name, .pod_cidr_count = 1, .since = UINT64_MAX - number };
	snprintf(text, sizeof text, "10.%u.%u.0/24", 100 + number / 256, number % 256);
	node.pod_cidrs[0] = prefix_of(text);
	snprintf(text, sizeof text, "192.168.%u.%u", number / 250, 1 + number % 250);
	node.addresses[FLAT_V4] = ip_of(text);
	return node;
}

static struct flat_node dual_of(const char *name)
{
	struct flat_node node = node_of(name, 7);
	node.pod_cidrs[1] = prefix_of("fd00:244:0:7::/64");
	node.pod_cidr_count = 2;
	node.addresses[FLAT_V6] = ip_of("2001:db8::7");
	node.has_vtep[FLAT_V4] = node.has_vtep[FLAT_V6] = true;
	assert_true(flat_mac_parse("0a:58:0a:64:07:00", &node.vtep[FLAT_V4]));
	assert_true(flat_mac_parse("0a:58:0a:64:07:06", &node.vtep[FLAT_V6]));
	return node;
}

static char *content(const char *path)
{
	struct flat_err err = { 0 };
	char *text = NULL;
	if (flat_state_read(AT_FDCWD, path, 16 << 20, &text, &err) < 0)
		fail_msg("read '%s': %s", path, err.msg);
	return text;
}

static void assert_content(const char *path, const char *want)
{
	flat_auto_free char *text = content(path);
	assert_string_equal(text, want);
}

static void put(const char *path, const char *text, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, text, len), len);
	close(fd);
}

static ino_t inode(const char *path)
{
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	return st.st_ino;
}

/* What is said on standard error meanwhile. */
static int stderr_copy;

static void listen_to_stderr(void)
{
	char path[96];
	snprintf(path, sizeof path, "%s/stderr", dir);
	fflush(stderr);
	stderr_copy = dup(2);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	dup2(fd, 2);
	close(fd);
}

static char *said(void)
{
	char path[96];
	snprintf(path, sizeof path, "%s/stderr", dir);
	dup2(stderr_copy, 2);
	close(stderr_copy);
	return content(path);
}

/* ---- the node file and subnet.env ---------------------------------------------------------------
 */

static void test_node_file(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	struct flat_agent_conf conf = conf_of();
	struct flat_node self = node_of("n1", 7), unknown = { .name = "n1" };
	struct flat_arena arena = { 0 };
	struct flat_node_file file;
	conf.subnet_env = NULL;
	assert_int_equal(flat_nodefile_write(&conf, &unknown, 1450, &err), 0);
	assert_int_equal(access(node_file, F_OK), -1);
	assert_int_equal(flat_nodefile_write(&conf, &self, 1450, &err), 1);
	assert_int_equal(flat_node_file_read(node_file, &arena, &file, &err), 0);
	assert_int_equal(file.mtu, 1450);
	assert_string_equal(file.node_name, "n1");
	assert_int_equal(file.pod_cidrs.count, 1);
	assert_true(flat_prefix_equal(file.pod_cidrs.items, &self.pod_cidrs[0]));
	assert_int_equal(file.cluster_cidrs.count, 2);
	ino_t before = inode(node_file);
	assert_int_equal(flat_nodefile_write(&conf, &self, 1450, &err), 0);
	assert_int_equal(inode(node_file), before);
	assert_int_equal(flat_nodefile_write(&conf, &self, 1400, &err), 1);
	put(node_file, "", 0); /* somebody truncates it */
	assert_int_equal(flat_nodefile_write(&conf, &self, 1400, &err), 1);
	/* a subnet that the source does not know any more is not taken from the pods */
	assert_int_equal(flat_nodefile_write(&conf, &unknown, 1400, &err), 0);
	assert_int_equal(flat_node_file_read(node_file, &arena, &file, &err), 0);
	flat_arena_free(&arena);
}

static void test_subnet_env(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	struct flat_agent_conf conf = conf_of();
	struct flat_node self = dual_of("n1"), old = node_of("n1", 7);
	assert_int_equal(flat_nodefile_write(&conf, &self, 1450, &err), 1);
	assert_content(env_file, "FLANNEL_NETWORK=10.244.0.0/16\n"
				 "FLANNEL_SUBNET=10.100.7.1/24\n"
				 "FLANNEL_IPV6_NETWORK=fd00:244::/48\n"
				 "FLANNEL_IPV6_SUBNET=fd00:244:0:7::1/64\n"
				 "FLANNEL_MTU=1450\n"
				 "FLANNEL_IPMASQ=true\n");
	assert_int_equal(flat_nodefile_write(&conf, &self, 1450, &err), 0);
	conf.cni.ip_masq = false;
	assert_int_equal(flat_nodefile_write(&conf, &old, 1500, &err), 1);
	assert_content(env_file, "FLANNEL_NETWORK=10.244.0.0/16\n"
				 "FLANNEL_SUBNET=10.100.7.1/24\n"
				 "FLANNEL_MTU=1500\n"
				 "FLANNEL_IPMASQ=false\n");
	/* flannel's plugin would choke on a file without an MTU */
	flat_nodefile_write(&conf, &self, 0, &err);
	flat_auto_free char *text = content(env_file);
	assert_non_null(strstr(text, "FLANNEL_MTU=1500"));
}

static void test_node_file_fails(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	struct flat_agent_conf conf = conf_of();
	struct flat_node self = node_of("n1", 7);
	char path[96];
	snprintf(path, sizeof path, "%s/run", dir);
	put(path, "", 0); /* a file where the folder should be */
	assert_true(flat_nodefile_write(&conf, &self, 1450, &err) < 0);
	assert_non_null(strstr(err.msg, path));
}

/* ---- the CNI configuration ----------------------------------------------------------------------
 */

static void test_conflist(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	struct flat_agent_conf conf = conf_of();
	struct flat_json *json = NULL;
	conf.cni.network = "quo\"te\\d";
	assert_int_equal(flat_cniconf_write(&conf, &err), 1);
	flat_auto_free char *text = content(conf_file);
	assert_int_equal(flat_json_parse(text, strlen(text), &json, &err), 0);
	assert_string_equal(flat_json_text(flat_json_get(json, "name")), "quo\"te\\d");
	assert_true(flat_json_is_array(flat_json_get(json, "plugins")));
	flat_json_free(json);
	assert_non_null(strstr(text, node_file));
	assert_non_null(strstr(text, "/run/flatnet/ipam"));
	ino_t before = inode(conf_file);
	assert_int_equal(flat_cniconf_write(&conf, &err), 0);
	assert_int_equal(inode(conf_file), before);
	conf.cni.ip_masq = false;
	assert_int_equal(flat_cniconf_write(&conf, &err), 1);
	assert_int_not_equal(inode(conf_file), before);
	conf.cni.conf_file = NULL;
	assert_int_equal(flat_cniconf_write(&conf, &err), 0);
}

static void test_template(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	struct flat_agent_conf conf = conf_of();
	conf.cni.conf_template = "{\"name\":  \"x\"}\n"; /* its content */
	assert_int_equal(flat_cniconf_write(&conf, &err), 1);
	assert_content(conf_file, "{\"name\":  \"x\"}\n");
	assert_int_equal(flat_cniconf_write(&conf, &err), 0);
}

static void test_withdraw(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	struct flat_agent_conf conf = conf_of();
	struct flat_node self = node_of("n1", 1);
	assert_int_equal(flat_cniconf_withdraw(&conf, &err), 0);
	assert_int_equal(flat_cniconf_write(&conf, &err), 1);
	assert_int_equal(flat_nodefile_write(&conf, &self, 1450, &err),
			 1); /* pods may be there: DEL needs it */
	assert_int_equal(flat_cniconf_withdraw(&conf, &err), 0);
	assert_int_equal(access(conf_file, F_OK), 0);
	unlink(node_file);
	assert_int_equal(flat_cniconf_withdraw(&conf, &err), 1);
	assert_int_equal(access(conf_file, F_OK), -1);
	assert_int_equal(flat_cniconf_withdraw(&conf, &err), 0);
	conf.cni.conf_file = NULL;
	assert_int_equal(flat_cniconf_withdraw(&conf, &err), 0);
}

static void test_another_goes_first(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	struct flat_agent_conf conf = conf_of();
	char path[128];
	assert_int_equal(flat_cniconf_write(&conf, &err), 1);
	const char *const harmless[] = { "00-readme", "99-later.conflist", "05-saved.conf.bak" };
	const char *const others[] = { "05-cilium.conflist", "06-x.conf" };
	listen_to_stderr();
	for (size_t i = 0; i < FLAT_LEN(harmless); i++) {
		snprintf(path, sizeof path, "%s/net.d/%s", dir, harmless[i]);
		put(path, "{}", 2);
	}
	flat_cniconf_write(&conf, &err);
	flat_auto_free char *nothing = said();
	assert_string_equal(nothing, "");
	listen_to_stderr();
	for (size_t i = 0; i < FLAT_LEN(others); i++) {
		snprintf(path, sizeof path, "%s/net.d/%s", dir, others[i]);
		put(path, "{}", 2);
	}
	flat_cniconf_write(&conf, &err);
	flat_cniconf_write(&conf, &err);
	flat_auto_free char *warning = said();
	char *first = strstr(warning, "05-cilium.conflist");
	assert_non_null(first);
	assert_null(strstr(first + 1, "05-cilium.conflist")); /* once */
	assert_int_equal(access(path, F_OK), 0);
}

/* ---- the last known state -----------------------------------------------------------------------
 */

static int load(struct flat_arena *arena, struct flat_node *self, struct flat_json_list *nodes)
{
	struct flat_err err = { 0 };
	int r = flat_statefile_load(state_file, "n1", arena, self, nodes, &err);
	if (r < 0)
		assert_int_not_equal(err.code, 0);
	return r;
}

static void test_state(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	struct flat_node self = dual_of("n1"), two = node_of("n2", 2), three = dual_of("n\"3"),
			 waiting = { .name = "n4" }, got;
	const struct flat_node *const nodes[] = { &two, &three, &waiting };
	struct flat_arena arena = { 0 };
	struct flat_json_list list;
	assert_int_equal(load(&arena, &got, &list), 0);
	assert_int_equal(flat_statefile_save(state_file, &self, nodes, 3, &err), 0);
	assert_int_equal(load(&arena, &got, &list), 1);
	assert_true(flat_node_equal(&got, &self));
	assert_int_equal(list.count, 3);
	for (size_t i = 0; i < FLAT_LEN(nodes); i++) {
		const struct flat_node *node = &((const struct flat_node *)list.items)[i];
		assert_true(flat_node_equal(node, nodes[i]));
		assert_string_equal(node->name, nodes[i]->name);
		assert_true(node->since == nodes[i]->since);
	}
	/* it is JSON for others */
	struct flat_json *json = NULL;
	flat_auto_free char *text = content(state_file);
	assert_int_equal(flat_json_parse(text, strlen(text), &json, &err), 0);
	assert_int_equal(flat_json_count(flat_json_get(json, "nodes")), 3);
	flat_json_free(json);
	/* another node's disk */
	assert_int_equal(flat_statefile_load(state_file, "n2", &arena, &got, &list, &err), 0);
	/* nobody else, and no subnet */
	assert_int_equal(flat_statefile_save(state_file, &(struct flat_node){ .name = "n1" }, NULL,
					     0, &err),
			 0);
	assert_int_equal(load(&arena, &got, &list), 1);
	assert_int_equal(got.pod_cidr_count, 0);
	assert_int_equal(list.count, 0);
	flat_arena_free(&arena);
}

static void test_damaged_state(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	struct flat_node self = dual_of("n1"), two = node_of("n2", 2), got;
	const struct flat_node *const nodes[] = { &two };
	struct flat_arena arena = { 0 };
	struct flat_json_list list;
	assert_int_equal(flat_statefile_save(state_file, &self, nodes, 1, &err), 0);
	flat_auto_free char *text = content(state_file);
	const size_t len = strlen(text);
	for (size_t i = 0; i < len; i++) {
		put(state_file, text, i); /* cut off */
		assert_true(load(&arena, &got, &list) < 0);
		for (unsigned bit = 0; bit < 8; bit++) {
			text[i] ^= (char)(1 << bit);
			put(state_file, text, len);
			assert_true(load(&arena, &got, &list) < 0);
			text[i] ^= (char)(1 << bit);
		}
		char was = text[i];
		text[i] = '\0';
		put(state_file, text, len);
		assert_true(load(&arena, &got, &list) < 0);
		text[i] = was;
	}
	flat_auto_free char *longer = calloc(1, len + 2);
	memcpy(longer, text, len);
	put(state_file, longer, len + 1); /* with a NUL */
	assert_true(load(&arena, &got, &list) < 0);
	longer[len] = '\n';
	put(state_file, longer, len + 1);
	assert_true(load(&arena, &got, &list) < 0);
	/* and as it was */
	put(state_file, text, len);
	assert_int_equal(load(&arena, &got, &list), 1);
	flat_arena_free(&arena);
}

static void test_leftovers_of_killed_writers(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	struct flat_node self = dual_of("n1");
	char path[128];
	assert_int_equal(flat_statefile_save(state_file, &self, NULL, 0, &err), 0);
	snprintf(path, sizeof path, "%s/lib/" FLAT_STATE_TEMP_PREFIX "12345-1", dir);
	put(path, "half", 4);
	assert_int_equal(flat_statefile_save(state_file, &self, NULL, 0, &err), 0);
	assert_int_equal(access(path, F_OK), -1);
}

static void test_many_nodes(void **state)
{
	(void)state;
	enum { MANY = 5000 };
	struct flat_err err = { 0 };
	struct flat_node self = dual_of("n1"), got;
	struct flat_node *nodes = calloc(MANY, sizeof *nodes);
	const struct flat_node **list = calloc(MANY, sizeof *list);
	char(*names)[32] = calloc(MANY, sizeof *names);
	struct flat_arena arena = { 0 };
	struct flat_json_list loaded;
	struct stat st;
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(names[i], sizeof names[i], "node-%u.example.org", i);
		nodes[i] = node_of(names[i], i);
		list[i] = &nodes[i];
	}
	int64_t start = flat_now_ms();
	assert_int_equal(flat_statefile_save(state_file, &self, list, MANY, &err), 0);
	int64_t saved = flat_now_ms();
	assert_int_equal(load(&arena, &got, &loaded), 1);
	int64_t end = flat_now_ms();
	assert_int_equal(stat(state_file, &st), 0);
	fprintf(stderr, "# %d nodes: %lld bytes, saved in %lld ms, loaded in %lld ms\n", MANY,
		(long long)st.st_size, (long long)(saved - start), (long long)(end - saved));
	assert_in_range(st.st_size, 1, 1 << 20);
	assert_in_range(end - start, 0, 10000); /* slow only when something is quadratic */
	assert_int_equal(loaded.count, MANY);
	assert_true(
		flat_node_equal(&((struct flat_node *)loaded.items)[MANY - 1], &nodes[MANY - 1]));
	flat_arena_free(&arena);
	free(nodes);
	free(list);
	free(names);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_node_file),	       TEST(test_subnet_env),
		TEST(test_node_file_fails),    TEST(test_conflist),
		TEST(test_template),	       TEST(test_withdraw),
		TEST(test_another_goes_first), TEST(test_state),
		TEST(test_damaged_state),      TEST(test_leftovers_of_killed_writers),
		TEST(test_many_nodes),
	};
	return cmocka_run_group_tests_name("agent-nodefile", tests, NULL, NULL);
}
