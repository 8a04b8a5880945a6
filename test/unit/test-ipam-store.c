// SPDX-License-Identifier: Apache-2.0
/* ipam: each address once, none lost, and nothing left behind. */
#include <flatnet/ipam.h>
#include <flatnet/state.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "refuse.h"

/* ---- a directory, ranges and a witness of our own -----------------------------------------------
 */

static char base[64], network_dir[128];

static int setup(void **state)
{
	(void)state;
	strcpy(base, "/tmp/flatnet-test-XXXXXX");
	if (!mkdtemp(base))
		return -1;
	snprintf(network_dir, sizeof network_dir, "%s/net", base);
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
	return nftw(base, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static struct flat_ip ip_of(const char *text)
{
	struct flat_ip ip = { 0 };
	assert_true(flat_ip_parse(text, &ip));
	return ip;
}

static struct flat_ip_range range_of(const char *subnet, const char *start, const char *end)
{
	struct flat_ip_range range = { 0 };
	assert_true(flat_prefix_parse(subnet, &range.subnet));
	range.start = ip_of(start);
	range.end = ip_of(end);
	range.gateway = flat_ip_next(&range.subnet.ip);
	return range;
}

struct fixture {
	struct flat_ip_range ranges[4];
	struct flat_ip_range_set sets[4];
	struct flat_ip requested[4];
	struct flat_ipam_conf conf;
};

/* One set for each range. */
static void fixture_init(struct fixture *f, size_t sets)
{
	f->conf.data_dir = base;
	f->conf.sets = (struct flat_json_list){ f->sets, sets };
	for (size_t i = 0; i < sets; i++)
		f->sets[i].ranges = (struct flat_json_list){ &f->ranges[i], 1 };
}

static struct fixture slash24(void)
{
	return (struct fixture){ .ranges = { range_of("10.244.1.0/24", "10.244.1.1",
						      "10.244.1.254") } };
}

static struct fixture slash29(void)
{
	return (struct fixture){ .ranges = { range_of("10.1.0.0/29", "10.1.0.1", "10.1.0.6") } };
}

static struct flat_store *open_store(struct fixture *f)
{
	struct flat_err err = { 0 };
	struct flat_store *store = NULL;
	assert_int_equal(flat_store_open(&f->conf, "net", true, NULL, &store, &err), 0);
	return store;
}

struct fake {
	const char *alive[8]; /* container IDs */
	struct flat_claim claims[4];
	size_t claim_count;
	struct flat_ip answering[4];
	size_t answering_count;
	int looks, probes;
	bool blind;
};

static int fake_look(void *arg, struct flat_err *err)
{
	struct fake *fake = arg;
	fake->looks++;
	return fake->blind ? flat_fail(err, FLAT_CODE_NETWORK, EPERM, "dump links") : 0;
}

static bool fake_is_alive(void *arg, const char *container_id, const char *ifname,
			  const struct flat_ip *ip)
{
	struct fake *fake = arg;
	(void)ifname;
	(void)ip;
	assert_int_not_equal(fake->looks, 0);
	for (size_t i = 0; i < FLAT_LEN(fake->alive); i++)
		if (fake->alive[i] && !strcmp(fake->alive[i], container_id))
			return true;
	return false;
}

static int fake_each_claim(void *arg, int (*fn)(void *fn_arg, const struct flat_claim *claim),
			   void *fn_arg)
{
	struct fake *fake = arg;
	for (size_t i = 0; i < fake->claim_count; i++) {
		int r = fn(fn_arg, &fake->claims[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int fake_probe(void *arg, const struct flat_ip *ips, size_t count, bool *ret_answers,
		      struct flat_err *err)
{
	struct fake *fake = arg;
	(void)err;
	fake->probes++;
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < fake->answering_count; j++)
			if (flat_ip_equal(&ips[i], &fake->answering[j]))
				ret_answers[i] = true;
	return 0;
}

static struct flat_ipam_witness witness_of(struct fake *fake)
{
	return (struct flat_ipam_witness){ .look = fake_look,
					   .is_alive = fake_is_alive,
					   .each_claim = fake_each_claim,
					   .probe = fake_probe,
					   .arg = fake };
}

static int temporary_files;

static int count_reservations(void)
{
	DIR *dir = opendir(network_dir);
	int n = 0;
	temporary_files = 0;
	for (const struct dirent *d; dir && (d = readdir(dir));) {
		struct flat_ip ip;
		n += flat_ip_parse(d->d_name, &ip);
		temporary_files +=
			!strncmp(d->d_name, FLAT_STATE_TEMP_PREFIX, strlen(FLAT_STATE_TEMP_PREFIX));
	}
	if (dir)
		closedir(dir);
	return n;
}

static void path_of(const char *name, char *buf, size_t size)
{
	snprintf(buf, size, "%s/%s", network_dir, name);
}

static void write_file(const char *name, const char *text)
{
	char path[256];
	path_of(name, path, sizeof path);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
	assert_int_equal(fclose(f), 0);
}

static void assert_file(const char *name, const char *want)
{
	char path[256];
	flat_auto_free char *text = NULL;
	path_of(name, path, sizeof path);
	assert_true(flat_state_read(AT_FDCWD, path, 1000, &text, NULL) >= 0);
	assert_string_equal(text, want);
}

static bool exists(const char *name)
{
	char path[256];
	path_of(name, path, sizeof path);
	return !access(path, F_OK);
}

/* Reserves, lets go of the lock; the address as text, or NULL and the error's code. */
static const char *reserve(struct flat_store *store, const char *id,
			   const struct flat_ipam_witness *witness, struct flat_err *err)
{
	static char text[FLAT_IP_TEXT];
	struct flat_lease lease;
	*err = (struct flat_err){ 0 };
	if (flat_store_reserve(store, id, "eth0", witness, &lease, err) < 0) {
		assert_int_not_equal(err->code, 0);
		return NULL;
	}
	flat_ip_text(&lease.ips[0].address.ip, text);
	flat_lease_close(&lease);
	return text;
}

/* ---- tests --------------------------------------------------------------------------------------
 */

static void test_layout(void **state)
{
	(void)state;
	struct fixture f = slash24();
	struct flat_err err = { 0 };
	struct fake fake = { 0 };
	struct flat_ipam_witness witness = witness_of(&fake);
	struct flat_lease lease;
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	assert_int_equal(flat_store_reserve(store, "c1", "eth0", NULL, &lease, &err), 0);
	assert_int_equal(lease.count, 1);
	assert_int_equal(lease.ips[0].address.len, 24);
	assert_true(flat_store_is_in_flight(store, &lease.ips[0].address.ip));
	flat_lease_close(&lease);
	struct flat_ip ip = ip_of("10.244.1.2");
	assert_false(flat_store_is_in_flight(store, &ip));
	assert_file("10.244.1.2", "c1\r\neth0");
	assert_file("last_reserved_ip.0", "10.244.1.2");
	assert_string_equal(reserve(store, "c2", &witness, &err), "10.244.1.3");
	assert_file("10.244.1.3", "c2\r\neth0\n");
	assert_int_equal(fake.looks, 0); /* nothing to ask the kernel for */
}

static void test_whole_slash24(void **state)
{
	(void)state;
	struct fixture f = slash24();
	struct fake fake = { 0 };
	struct flat_ipam_witness witness = witness_of(&fake);
	struct flat_err err;
	bool seen[256] = { false };
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	for (int i = 0; i < 253; i++) {
		struct flat_ip ip = ip_of(reserve(store, "c", &witness, &err));
		assert_false(seen[ip.bytes[3]]);
		assert_in_range(ip.bytes[3], 2, 254);
		seen[ip.bytes[3]] = true;
	}
	fake.alive[0] = "c";
	assert_null(reserve(store, "late", &witness, &err));
	assert_int_equal(err.code, FLAT_CODE_EXHAUSTED);
	assert_non_null(strstr(err.msg, "10.244.1.1-10.244.1.254"));
	assert_non_null(strstr(err.msg, "'net'"));
	assert_non_null(strstr(err.msg, "253 of 253"));
	assert_non_null(strstr(err.msg, network_dir));
	assert_non_null(strstr(err.details, "subnet"));
	assert_int_equal(count_reservations(), 253);
	/* one goes, and the next gets its place, wherever it is */
	struct flat_ip freed = ip_of("10.244.1.77");
	fake.alive[0] = "c";
	assert_int_equal(flat_store_release(store, "c", "eth0", &freed, 1, &err), 1);
	assert_string_equal(reserve(store, "next", &witness, &err), "10.244.1.77");
}

static void test_round_robin_over_ranges(void **state)
{
	(void)state;
	struct fixture f = { .ranges = { range_of("10.1.0.0/24", "10.1.0.10", "10.1.0.11"),
					 range_of("10.2.0.0/24", "10.2.0.1", "10.2.0.2") } };
	struct flat_err err;
	char id[8] = "a";
	const char *want[] = { "10.1.0.10", "10.1.0.11", "10.2.0.2" };
	fixture_init(&f, 1);
	f.sets[0].ranges.count = 2;
	flat_auto_store *store = open_store(&f);
	for (size_t i = 0; i < 3; i++, id[0]++)
		assert_string_equal(reserve(store, id, NULL, &err), want[i]);
	assert_null(reserve(store, "x", NULL, &err));
	assert_int_equal(err.code, FLAT_CODE_EXHAUSTED);
	assert_int_equal(flat_store_release(store, "a", "eth0", NULL, 0, &err), 1);
	assert_int_equal(flat_store_release(store, "b", "eth0", NULL, 0, &err), 1);
	/* not the one freed last: the one after the last one given */
	assert_string_equal(reserve(store, "y", NULL, &err), "10.1.0.10");
}

static void test_last_reserved_missing_or_corrupt(void **state)
{
	(void)state;
	struct fixture f = slash24();
	struct flat_err err;
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	assert_string_equal(reserve(store, "a", NULL, &err), "10.244.1.2");
	write_file("last_reserved_ip.0", "10.244.1.200");
	assert_string_equal(reserve(store, "b", NULL, &err), "10.244.1.201");
	write_file("last_reserved_ip.0", "garbage");
	assert_string_equal(reserve(store, "c", NULL, &err), "10.244.1.3");
	write_file("last_reserved_ip.0", "");
	assert_string_equal(reserve(store, "d", NULL, &err), "10.244.1.4");
	write_file("last_reserved_ip.0", "10.244.1.254\n");
	assert_string_equal(reserve(store, "e", NULL, &err), "10.244.1.5");
}

static void test_dual_stack_is_whole_or_nothing(void **state)
{
	(void)state;
	struct fixture f = { .ranges = { range_of("fd00:0:0:1::/64", "fd00:0:0:1::1",
						  "fd00:0:0:1:ffff:ffff:ffff:ffff"),
					 range_of("10.1.0.0/30", "10.1.0.1", "10.1.0.2") } };
	struct flat_lease lease;
	struct flat_err err = { 0 };
	fixture_init(&f, 2);
	flat_auto_store *store = open_store(&f);
	assert_int_equal(flat_store_reserve(store, "c1", "eth0", NULL, &lease, &err), 0);
	assert_int_equal(lease.count, 2);
	flat_lease_close(&lease);
	assert_true(exists("fd00:0:0:1::2"));
	assert_true(exists("10.1.0.2"));
	assert_file("last_reserved_ip.1", "10.1.0.2");
	assert_null(reserve(store, "c2", NULL, &err));
	assert_int_equal(err.code, FLAT_CODE_EXHAUSTED);
	assert_int_equal(count_reservations(), 2);
	/* the end of 2^64 addresses, without a walk */
	write_file("last_reserved_ip.0", "fd00:0:0:1:ffff:ffff:ffff:ffff");
	f.conf.sets.count = 1;
	flat_auto_store *second = open_store(&f);
	assert_string_equal(reserve(second, "c3", NULL, &err), "fd00:0:0:1::3");
}

static void test_requested(void **state)
{
	(void)state;
	struct fixture f = slash29();
	struct fake fake = { .alive = { "owner" } };
	struct flat_ipam_witness witness = witness_of(&fake);
	struct flat_err err;
	fixture_init(&f, 1);
	f.conf.requested = (struct flat_json_list){ f.requested, 1 };
	f.requested[0] = ip_of("10.1.0.4");
	flat_auto_store *store = open_store(&f);
	assert_string_equal(reserve(store, "owner", &witness, &err), "10.1.0.4");
	assert_null(reserve(store, "other", &witness, &err));
	assert_int_equal(err.code, FLAT_CODE_IN_USE);
	assert_non_null(strstr(err.msg, "owner"));
	fake.alive[0] = NULL; /* a dead owner makes room */
	assert_string_equal(reserve(store, "other", &witness, &err), "10.1.0.4");
	assert_file("10.1.0.4", "other\r\neth0\n");
	const char *const bad[] = { "10.1.0.1", "10.1.0.0", "10.1.0.7", "10.9.0.1" };
	for (size_t i = 0; i < FLAT_LEN(bad); i++) {
		f.requested[0] = ip_of(bad[i]);
		flat_auto_store *again = open_store(&f);
		assert_null(reserve(again, "third", &witness, &err));
		assert_non_null(strstr(err.msg, bad[i]));
		assert_int_equal(err.code, i ? FLAT_CODE_CONFIG : FLAT_CODE_IN_USE);
	}
	f.requested[0] = ip_of("10.1.0.5");
	f.requested[1] = ip_of("10.1.0.6");
	f.conf.requested.count = 2;
	flat_auto_store *two = open_store(&f);
	assert_null(reserve(two, "third", &witness, &err));
	assert_int_equal(err.code, FLAT_CODE_CONFIG);
	f.requested[1] = f.requested[0]; /* said twice is said once */
	flat_auto_store *twice = open_store(&f);
	assert_string_equal(reserve(twice, "third", &witness, &err), "10.1.0.5");
	assert_int_equal(count_reservations(), 2);
}

static void test_duplicate_is_refused_to_strangers(void **state)
{
	(void)state;
	struct fixture f = slash29();
	struct flat_err err;
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	assert_non_null(reserve(store, "c1", NULL, &err));
	assert_null(reserve(store, "c1", NULL, &err));
	assert_int_equal(err.code, FLAT_CODE_IN_USE);
	assert_non_null(strstr(err.msg, "duplicate allocation is not allowed"));
	assert_int_equal(count_reservations(), 1);
}

static void test_release(void **state)
{
	(void)state;
	struct fixture f = slash29();
	struct flat_err err = { 0 };
	struct flat_ip hint = ip_of("10.1.0.2"), foreign = ip_of("10.1.0.3");
	char hashed[32];
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	write_file("10.1.0.2", "c1\r\neth0");
	write_file("10.1.0.3", "c1\r\nnet1\n");
	write_file("10.1.0.4", "");
	assert_int_equal(flat_store_release(store, "c1", "eth0", &foreign, 1, &err), 1);
	assert_false(exists("10.1.0.2"));
	assert_true(exists("10.1.0.3"));
	assert_true(exists("10.1.0.4"));
	assert_int_equal(flat_store_release(store, "c1", "eth0", &hint, 1, &err), 0);
	assert_int_equal(flat_store_release(store, "c1", "eth0", NULL, 0, &err), 0);
	hint = ip_of("10.1.0.4"); /* said to be ours, and a crash took the content */
	assert_int_equal(flat_store_release(store, "c1", "eth0", &hint, 1, &err), 1);
	write_file("10.1.0.5", "old");
	assert_int_equal(flat_store_release(store, "old", "eth0", NULL, 0, &err), 1);
	snprintf(hashed, sizeof hashed, "~%016" PRIx64 "\r\neth0\n", flat_hash(0, "long", 4));
	write_file("10.1.0.6", hashed);
	assert_int_equal(flat_store_release(store, "other", "eth0", NULL, 0, &err), 0);
	assert_int_equal(flat_store_check(store, "long", "eth0", NULL, 0, &err), 0);
	assert_int_equal(flat_store_release(store, "long", "eth0", NULL, 0, &err), 1);
	assert_int_equal(count_reservations(), 1);
}

static void test_odd_files(void **state)
{
	(void)state;
	struct fixture f = slash29();
	struct flat_err err = { 0 };
	char path[256], id[2001];
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	path_of("10.1.0.2", path, sizeof path);
	assert_int_equal(mkdir(path, 0755), 0);
	path_of("10.1.0.3", path, sizeof path);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	path_of("10.1.0.4", path, sizeof path);
	assert_int_equal(mkfifo(path, 0600), 0);
	write_file(".flatnet-1-1", "left over");
	memset(id, 'x', 2000);
	id[2000] = '\0';
	struct flat_lease lease;
	assert_int_equal(flat_store_reserve(store, id, "eth0", NULL, &lease, &err), 0);
	flat_lease_close(&lease);
	assert_true(exists("10.1.0.5"));
	assert_int_equal(flat_store_check(store, id, "eth0", &(struct flat_ip){ 0 }, 0, &err), 0);
	assert_int_equal(flat_store_release(store, id, "eth0", NULL, 0, &err), 1);
	assert_false(exists(".flatnet-1-1"));
	assert_int_equal(err.code, 0);
	struct flat_json_list none = { 0 };
	flat_store_gc(store, &none, NULL, NULL, NULL, &err); /* cannot remove the directory */
	assert_int_equal(count_reservations(), 1);
}

static void test_check(void **state)
{
	(void)state;
	struct fixture f = slash29();
	struct flat_err err = { 0 };
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	struct flat_ip ip = ip_of(reserve(store, "c1", NULL, &err)), other = ip_of("10.1.0.5");
	assert_int_equal(flat_store_check(store, "c1", "eth0", &ip, 1, &err), 0);
	assert_int_equal(flat_store_check(store, "c1", "eth0", NULL, 0, &err), 0);
	assert_true(flat_store_check(store, "c1", "eth0", &other, 1, &err) < 0);
	assert_int_equal(err.code, FLAT_CODE_MISMATCH);
	err = (struct flat_err){ 0 };
	assert_true(flat_store_check(store, "c2", "eth0", &ip, 1, &err) < 0);
	assert_non_null(strstr(err.msg, "'c1'"));
	err = (struct flat_err){ 0 };
	assert_true(flat_store_check(store, "c1", "net1", NULL, 0, &err) < 0);
	assert_int_equal(err.code, FLAT_CODE_MISMATCH);
}

static void test_heal(void **state)
{
	(void)state;
	struct fixture f = slash29();
	struct fake fake = { .alive = { "live" } };
	struct flat_ipam_witness witness = witness_of(&fake);
	struct flat_err err;
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	write_file("10.1.0.2", "live\r\neth0\n");
	write_file("10.1.0.3", "dead\r\neth0\n");
	write_file("10.1.0.4", "foreign\r\neth0");
	write_file("10.1.0.5", "silent\r\neth0");
	write_file("10.1.0.6", "");
	write_file("last_reserved_ip.0", "10.1.0.6");
	fake.answering[0] = ip_of("10.1.0.4");
	fake.answering_count = 1;
	assert_string_equal(reserve(store, "n1", &witness, &err), "10.1.0.3");
	assert_int_equal(fake.looks, 1);
	assert_int_equal(fake.probes, 0); /* there was something without asking */
	fake.alive[1] = "n1";
	assert_string_equal(reserve(store, "n2", &witness, &err), "10.1.0.6");
	fake.alive[2] = "n2";
	assert_string_equal(reserve(store, "n3", &witness, &err), "10.1.0.5");
	assert_int_equal(fake.probes, 1);
	fake.alive[3] = "n3";
	assert_null(reserve(store, "n4", &witness, &err));
	assert_int_equal(err.code, FLAT_CODE_EXHAUSTED);
	assert_file("10.1.0.4", "foreign\r\neth0");
	witness.probe = NULL;
	fake.answering_count = 0;
	assert_null(reserve(store, "n4", &witness, &err));
	assert_true(exists("10.1.0.4"));
	fake.alive[0] = NULL;
	fake.blind = true; /* who cannot see must not judge */
	assert_null(reserve(store, "n4", &witness, &err));
	assert_int_equal(err.code, FLAT_CODE_NETWORK);
	assert_true(exists("10.1.0.2"));
}

static void test_in_flight_is_never_freed(void **state)
{
	(void)state;
	struct fixture f = slash29();
	struct fake fake = { 0 };
	struct flat_ipam_witness witness = witness_of(&fake);
	struct flat_json_list none = { 0 };
	struct flat_lease leases[5];
	struct flat_err err = { 0 };
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(flat_store_reserve(store, "c", "eth0", &witness, &leases[i], &err),
				 0);
	assert_null(reserve(store, "late", &witness, &err));
	assert_int_equal(err.code, FLAT_CODE_EXHAUSTED);
	err = (struct flat_err){ 0 };
	assert_int_equal(flat_store_gc(store, &none, &witness, NULL, NULL, &err), 0);
	assert_int_equal(count_reservations(), 5);
	flat_lease_close(&leases[3]);
	assert_non_null(reserve(store, "late", &witness, &err));
	flat_lease_release(store, &leases[0]);
	assert_int_equal(count_reservations(), 4);
	for (size_t i = 0; i < 5; i++)
		flat_lease_close(&leases[i]);
}

static void test_hashed_owner_is_alive(void **state)
{
	(void)state;
	struct fixture f = { .ranges = { range_of("10.1.0.0/30", "10.1.0.1", "10.1.0.2") } };
	char hashed[20];
	snprintf(hashed, sizeof hashed, "~%016" PRIx64, flat_hash(0, "long", 4));
	struct fake fake = { .alive = { hashed } };
	struct flat_ipam_witness witness = witness_of(&fake);
	struct flat_err err;
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	assert_non_null(reserve(store, "long", &witness, &err));
	assert_null(reserve(store, "late", &witness, &err));
	assert_file("10.1.0.2", "long\r\neth0\n");
}

static void test_rebuild(void **state)
{
	(void)state;
	struct fixture f = slash29();
	struct flat_ip two[] = { ip_of("10.1.0.2"), ip_of("fd00::2") }, three = ip_of("10.1.0.3");
	struct fake fake = { .claims = { { "p1", "eth0", two, 2 },
					 { "~0123456789abcdef", "eth0", &three, 1 } },
			     .claim_count = 2 };
	struct flat_ipam_witness witness = witness_of(&fake);
	struct flat_err err;
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	assert_string_equal(reserve(store, "new", &witness, &err), "10.1.0.4");
	assert_file("10.1.0.2", "p1\r\neth0\n");
	assert_file("fd00::2", "p1\r\neth0\n");
	assert_file("10.1.0.3", "~0123456789abcdef\r\neth0\n");
	assert_int_equal(fake.looks, 1);
	assert_non_null(reserve(store, "new2", &witness, &err));
	assert_int_equal(fake.looks, 1);
}

static int gc_freed;

static void count_freed(void *arg, const char *container_id, const char *ifname,
			const struct flat_ip *ip)
{
	(void)arg;
	(void)ifname;
	(void)ip;
	assert_non_null(container_id);
	gc_freed++;
}

static void test_gc(void **state)
{
	(void)state;
	struct fixture f = slash29();
	struct fake fake = { .alive = { "linked" } };
	struct flat_ipam_witness witness = witness_of(&fake);
	struct flat_attachment_id ids[] = { { "valid", "eth0" } };
	struct flat_json_list valid = { ids, 1 };
	struct flat_err err = { 0 };
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	write_file("10.1.0.2", "valid\r\neth0");
	write_file("10.1.0.3", "valid\r\nnet1");
	write_file("10.1.0.4", "linked\r\neth0\n");
	write_file("10.1.0.5", "gone\r\neth0\n");
	/* without a list: what is certain without it */
	write_file("10.1.0.6", "gone2\r\neth0\n");
	assert_int_equal(flat_store_gc(store, NULL, NULL, NULL, NULL, &err), 0);
	assert_int_equal(flat_store_gc(store, NULL, &witness, NULL, NULL, &err), 2);
	assert_int_equal(count_reservations(), 3);
	write_file("10.1.0.5", "gone\r\neth0\n");
	write_file("10.1.0.6", "");
	gc_freed = 0;
	assert_int_equal(flat_store_gc(store, &valid, &witness, count_freed, NULL, &err), 3);
	assert_int_equal(gc_freed, 3);
	assert_true(exists("10.1.0.2"));
	assert_true(exists("10.1.0.4"));
	assert_int_equal(count_reservations(), 2);
	assert_int_equal(flat_store_gc(store, &valid, NULL, NULL, NULL, &err), 1);
	assert_true(exists("10.1.0.2"));
}

static char healed[512];

static void note_healed(void *arg, enum flat_heal what, const char *container_id,
			const char *ifname, const struct flat_ip *ip)
{
	char text[FLAT_IP_TEXT];
	size_t len = strlen(healed);
	(void)arg;
	snprintf(healed + len, sizeof healed - len, "%d %s %s %s;", what, container_id, ifname,
		 flat_ip_text(ip, text));
}

static void test_heal_unasked(void **state)
{
	(void)state;
	struct fixture f = slash29();
	struct flat_ip five = ip_of("10.1.0.5"), six = ip_of("10.1.0.6");
	struct fake fake = { .alive = { "linked" },
			     .claims = { { "broken", "eth0", &five, 1 },
					 { "lost", "eth0", &six, 1 } },
			     .claim_count = 2 };
	struct flat_ipam_witness witness = witness_of(&fake);
	struct flat_err err = { 0 };
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	write_file("10.1.0.1", "gone\r\neth0\n");
	write_file("10.1.0.2", "linked\r\neth0\n");
	write_file("10.1.0.3", "theirs\r\neth0");
	write_file("10.1.0.4", "gone2\r\neth0\n");
	write_file("10.1.0.5", "");
	flat_auto_free struct flat_reservation *list = NULL;
	size_t count = 0;
	assert_int_equal(flat_store_list(store, &list, &count, &err), 0);
	assert_int_equal(count, 5);

	/* somebody writes: not now */
	flat_auto_fd dir = open(network_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), lock = -1;
	assert_int_equal(flat_state_lock(dir, "lock", LOCK_EX, 0, &lock, &err), 0);
	int64_t start = flat_now_ms();
	assert_int_equal(flat_store_heal(store, &witness, list, count, note_healed, NULL, &err),
			 -EAGAIN);
	assert_int_equal(err.code, 0);
	assert_in_range(flat_now_ms() - start, 0, 1000);
	flat_close_fd(&lock);
	/* blind: nothing is known to be dead */
	fake.blind = true;
	assert_true(flat_store_heal(store, &witness, list, count, NULL, NULL, &err) < 0);
	assert_int_equal(count_reservations(), 5);
	fake.blind = false;
	err = (struct flat_err){ 0 };

	/* only what is asked about, and only if it is the same file still */
	healed[0] = '\0';
	list[3].inode++;
	assert_int_equal(flat_store_heal(store, &witness, list, 4, note_healed, NULL, &err), 2);
	assert_string_equal(healed, "0 gone eth0 10.1.0.1;2 lost eth0 10.1.0.6;");
	assert_file("10.1.0.6", "lost\r\neth0\n");
	assert_true(exists("10.1.0.3"));
	assert_true(exists("10.1.0.4"));
	/* an ADD in flight is nobody's to judge */
	list[3].inode--;
	flat_auto_fd held = openat(dir, "10.1.0.4", O_RDONLY | O_CLOEXEC);
	assert_int_equal(flock(held, LOCK_EX | LOCK_NB), 0);
	assert_int_equal(flat_store_heal(store, &witness, list, 4, note_healed, NULL, &err), 0);
	flat_close_fd(&held);
	/* an empty file goes, and a live link has its address back at once */
	healed[0] = '\0';
	assert_int_equal(flat_store_heal(store, &witness, list, count, note_healed, NULL, &err), 3);
	assert_string_equal(healed, "0 gone2 eth0 10.1.0.4;1   10.1.0.5;2 broken eth0 10.1.0.5;");
	assert_file("10.1.0.5", "broken\r\neth0\n");
	assert_int_equal(flat_store_heal(store, &witness, NULL, 0, note_healed, NULL, &err), 0);
	assert_int_equal(count_reservations(), 4);
}

static void test_look_up(void **state)
{
	(void)state;
	struct fixture f = slash29();
	struct flat_ip two = ip_of("10.1.0.2"), three = ip_of("10.1.0.3"), four = ip_of("10.1.0.4");
	struct flat_err err = { 0 };
	char hashed[20];
	snprintf(hashed, sizeof hashed, "~%016" PRIx64, flat_hash(0, "long", 4));
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	write_file("10.1.0.2", "long\r\neth0\n");
	write_file("10.1.0.3", "theirs\r\neth0");
	write_file("10.1.0.4", "");
	flat_auto_owner ours = { 0 }, theirs = { 0 }, none = { 0 };
	assert_int_equal(flat_store_look_up(store, &two, &ours, &err), 1);
	assert_true(ours.in_process);
	assert_true(flat_owner_is(&ours, "long", "eth0"));
	assert_true(flat_owner_is(&ours, hashed, "eth0"));
	assert_false(flat_owner_is(&ours, hashed, "net1"));
	assert_false(flat_owner_is(&ours, "other", "eth0"));
	assert_int_equal(flat_store_look_up(store, &three, &theirs, &err), 1);
	assert_false(theirs.in_process);
	assert_int_equal(flat_store_look_up(store, &four, &none, &err), -EBADMSG);
	struct flat_ip five = flat_ip_next(&four);
	assert_int_equal(flat_store_look_up(store, &five, &none, &err), 0);
	assert_int_equal(err.code, 0);
}

static void test_subnet_size(void **state)
{
	(void)state;
	static const struct {
		const char *subnet;
		uint64_t size;
	} cases[] = {
		{ "10.244.1.0/24", 253 }, { "10.1.0.0/29", 5 },		 { "10.1.0.0/30", 1 },
		{ "10.1.0.0/31", 0 },	  { "fd00:1::/64", UINT64_MAX }, { "fd00:1::/120", 254 },
	};
	for (size_t i = 0; i < FLAT_LEN(cases); i++) {
		struct flat_prefix subnet;
		assert_true(flat_prefix_parse(cases[i].subnet, &subnet));
		assert_true(flat_ipam_subnet_size(&subnet) == cases[i].size);
	}
}

static void test_status(void **state)
{
	(void)state;
	struct fixture f = slash29();
	struct fake fake = { 0 };
	struct flat_ipam_witness witness = witness_of(&fake);
	struct flat_err err = { 0 };
	fixture_init(&f, 1);
	assert_int_equal(flat_ipam_status(&f.conf, "net", &witness, &err), 0);
	assert_false(exists("lock")); /* it made nothing */
	flat_auto_store *store = open_store(&f);
	assert_int_equal(flat_ipam_status(&f.conf, "net", &witness, &err), 0);
	for (int i = 0; i < 5; i++)
		assert_non_null(reserve(store, "c", &witness, &err));
	fake.looks = 0;
	assert_int_equal(flat_ipam_status(&f.conf, "net", &witness, &err), 0);
	assert_int_equal(fake.looks, 1);
	assert_int_equal(count_reservations(), 5); /* it only counted the dead */
	fake.alive[0] = "c";
	assert_true(flat_ipam_status(&f.conf, "net", &witness, &err) < 0);
	assert_int_equal(err.code, FLAT_CODE_NOT_READY);
	assert_non_null(strstr(err.msg, "10.1.0.1-10.1.0.6"));
	err = (struct flat_err){ 0 };
	assert_true(flat_ipam_status(&f.conf, "net", NULL, &err) < 0);
	assert_int_equal(err.code, FLAT_CODE_NOT_READY);
}

/* ---- many at once, and death -------------------------------------------------------------------
 */

static void test_concurrent(void **state)
{
	(void)state;
	enum { PROCESSES = 8, EACH = 100 };
	struct fixture f = { .ranges = { range_of("10.1.0.0/16", "10.1.0.1", "10.1.255.254") } };
	struct fake fake = { 0 };
	struct flat_ipam_witness witness = witness_of(&fake);
	pid_t pids[PROCESSES];
	struct flat_err err = { 0 };
	fixture_init(&f, 1);
	for (int p = 0; p < PROCESSES; p++) {
		pids[p] = fork();
		if (pids[p])
			continue;
		struct flat_store *store = NULL;
		struct flat_lease lease;
		if (flat_store_open(&f.conf, "net", true, NULL, &store, &err) < 0)
			_exit(2);
		for (int i = 0; i < EACH; i++) {
			char id[32];
			snprintf(id, sizeof id, "c%d-%d", p, i);
			if (flat_store_reserve(store, id, "eth0", &witness, &lease, &err) < 0)
				_exit(1);
			flat_lease_close(&lease);
		}
		_exit(0);
	}
	for (int p = 0; p < PROCESSES; p++) {
		int status;
		waitpid(pids[p], &status, 0);
		assert_int_equal(status, 0);
	}
	assert_int_equal(count_reservations(), PROCESSES * EACH);
	flat_auto_store *store = open_store(&f);
	for (int p = 0; p < PROCESSES; p++)
		for (int i = 0; i < EACH; i += 33) {
			char id[32];
			snprintf(id, sizeof id, "c%d-%d", p, i);
			assert_int_equal(flat_store_check(store, id, "eth0", NULL, 0, &err), 0);
		}
}

static void test_killed(void **state)
{
	(void)state;
	struct fixture f = slash24();
	struct fake fake = { 0 };
	struct flat_ipam_witness witness = witness_of(&fake);
	struct flat_err err = { 0 };
	fixture_init(&f, 1);
	flat_auto_store *store = open_store(&f);
	for (int i = 0; i < 100; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			struct flat_lease leases[3];
			for (int n = 0; n < 3; n++)
				flat_store_reserve(store, "victim", "eth0", &witness, &leases[n],
						   &err);
			pause();
		}
		flat_sleep_us((unsigned)rand() % 1500);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		int n = count_reservations();
		/* as many as there are: none partial, none of nobody */
		assert_int_equal(flat_store_release(store, "victim", "eth0", NULL, 0, &err), n);
		assert_int_equal(count_reservations(), 0);
		assert_int_equal(temporary_files, 0);
	}
}

/* ---- a disk that refuses -----------------------------------------------------------------------
 */

static void test_every_call_fails(void **state)
{
	(void)state;
	struct fixture f = { .ranges = { range_of("10.1.0.0/29", "10.1.0.1", "10.1.0.6"),
					 range_of("fd00::/64", "fd00::1", "fd00::ffff") } };
	struct fake fake = { 0 };
	struct flat_ipam_witness witness = witness_of(&fake);
	fixture_init(&f, 2);
	for (int n = 1;; n++) {
		struct flat_store *store = NULL;
		struct flat_err err = { 0 };
		struct flat_lease lease;
		assert_true(n < 200);
		calls = 0;
		fail_at = n;
		int r = flat_store_open(&f.conf, "net", true, NULL, &store, &err);
		if (r >= 0)
			r = flat_store_reserve(store, "c", "eth0", &witness, &lease, &err);
		bool clean = calls < n;
		fail_at = 0;
		assert_int_equal(r < 0, err.code != 0);
		assert_int_equal(count_reservations(), r < 0 ? 0 : 2);
		assert_int_equal(temporary_files, 0);
		if (r >= 0)
			flat_lease_release(store, &lease);
		assert_int_equal(count_reservations(), 0);
		flat_store_close(store);
		if (clean)
			break;
	}
}

/* In a mount namespace of its own; 0: as it should be, 77: no right to mount, else what failed. */
static int on_a_bad_disk(const char *options, unsigned long flags)
{
	struct fixture f = slash29();
	struct flat_lease lease;
	struct flat_err err = { 0 };
	flat_auto_store *store = NULL;
	f.conf.data_dir = base;
	f.conf.sets = (struct flat_json_list){ f.sets, 1 };
	f.sets[0].ranges = (struct flat_json_list){ f.ranges, 1 };
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "", MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", base, "tmpfs", 0, options) < 0)
		return 77;
	if (flat_store_open(&f.conf, "net", true, NULL, &store, &err) < 0)
		return 1;
	if (flags & MS_RDONLY && mount("none", base, "", MS_REMOUNT | flags, options) < 0)
		return 77;
	if (!(flags & MS_RDONLY)) { /* fill it up */
		char path[128];
		snprintf(path, sizeof path, "%s/fill", base);
		int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		char block[4096] = { 0 };
		while (__real_write(fd, block, sizeof block) > 0)
			;
	}
	int want = flags & MS_RDONLY ? FLAT_CODE_IO : FLAT_CODE_TRY_LATER;
	if (flat_store_reserve(store, "c", "eth0", NULL, &lease, &err) >= 0)
		return 2;
	if (err.code != want)
		return 3;
	if (count_reservations() != 0)
		return 4;
	err = (struct flat_err){ 0 };
	if (flat_ipam_status(&f.conf, "net", NULL, &err) >= 0 || err.code != FLAT_CODE_NOT_READY)
		return 5;
	return 0;
}

static void check_bad_disk(const char *options, unsigned long flags)
{
	int status = 0;
	pid_t pid = fork();
	if (pid == 0)
		_exit(on_a_bad_disk(options, flags));
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		fprintf(stderr, "# skip: mounting a tmpfs takes root\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_full_disk(void **state)
{
	(void)state;
	check_bad_disk("size=64k", 0);
}

static void test_read_only_disk(void **state)
{
	(void)state;
	check_bad_disk("size=64k", MS_RDONLY);
}

int main(void)
{
	unsigned seed = (unsigned)getpid();
	fprintf(stderr, "# random seed %u\n", seed);
	srand(seed);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_layout),
		TEST(test_whole_slash24),
		TEST(test_round_robin_over_ranges),
		TEST(test_last_reserved_missing_or_corrupt),
		TEST(test_dual_stack_is_whole_or_nothing),
		TEST(test_requested),
		TEST(test_duplicate_is_refused_to_strangers),
		TEST(test_release),
		TEST(test_odd_files),
		TEST(test_check),
		TEST(test_heal),
		TEST(test_in_flight_is_never_freed),
		TEST(test_hashed_owner_is_alive),
		TEST(test_rebuild),
		TEST(test_gc),
		TEST(test_heal_unasked),
		TEST(test_look_up),
		TEST(test_subnet_size),
		TEST(test_status),
		TEST(test_concurrent),
		TEST(test_killed),
		TEST(test_every_call_fails),
		TEST(test_full_disk),
		TEST(test_read_only_disk),
	};
	return cmocka_run_group_tests_name("ipam-store", tests, NULL, NULL);
}
