// SPDX-License-Identifier: Apache-2.0
/* state: whole files or none, whatever call fails and whenever the writer dies. */
#include <flatnet/state.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "refuse.h"

/* ---- a directory for each test ------------------------------------------------------------------
 */

static char dir[64];
static int dirfd;

static int setup(void **state)
{
	(void)state;
	no_tmpfile = no_empty_path = no_proc = false;
	fail_at = calls = 0;
	memset(order, 0, sizeof order);
	strcpy(dir, "/tmp/flatnet-test-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dirfd < 0 ? -1 : 0;
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
	fail_at = 0;
	close(dirfd);
	return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static int seen;

static int count_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)path;
	(void)st;
	(void)where;
	seen += type == FTW_F || type == FTW_SL;
	return 0;
}

static int files(void)
{
	seen = 0;
	assert_int_equal(nftw(dir, count_one, 8, FTW_PHYS), 0);
	return seen;
}

static void assert_content(const char *name, const char *want)
{
	flat_auto_free char *text = NULL;
	struct flat_err err = { 0 };
	assert_int_equal(flat_state_read(dirfd, name, 100000, &text, &err), (int)strlen(want));
	assert_string_equal(text, want);
}

/* ---- tests --------------------------------------------------------------------------------------
 */

static void test_open_dir_makes_missing_parts(void **state)
{
	(void)state;
	char path[128];
	struct flat_err err = { 0 };
	struct stat st;
	flat_auto_fd fd = -1, sub = -1;
	umask(022);
	snprintf(path, sizeof path, "%s/a/b/c", dir);
	assert_int_equal(flat_state_open_dir(path, false, &fd, &err), -ENOENT);
	assert_int_equal(err.code, 0);
	assert_int_equal(flat_state_open_dir(path, true, &fd, &err), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(flat_state_open_subdir(fd, "net", false, &sub, &err), -ENOENT);
	assert_int_equal(flat_state_open_subdir(fd, "net", true, &sub, &err), 0);
	assert_int_equal(flat_state_open_subdir(fd, "..", true, &sub, &err), -EINVAL);
}

static void test_open_dir_refuses(void **state)
{
	(void)state;
	char path[128], link[128];
	struct flat_err err = { 0 };
	flat_auto_fd fd = -1;
	snprintf(path, sizeof path, "%s/open", dir);
	snprintf(link, sizeof link, "%s/link", dir);
	assert_int_equal(mkdir(path, 0777), 0);
	assert_int_equal(chmod(path, 0777), 0);
	assert_int_equal(flat_state_open_dir(path, true, &fd, &err), -EPERM);
	assert_non_null(strstr(err.details, "chmod"));
	assert_int_equal(chmod(path, 01777), 0);
	err = (struct flat_err){ 0 };
	assert_int_equal(flat_state_open_dir(path, true, &fd, &err), 0);
	assert_int_equal(symlink(path, link), 0);
	assert_true(flat_state_open_dir(link, true, &fd, &err) < 0);
	assert_non_null(strstr(err.details, "symbolic link"));
}

static void test_read(void **state)
{
	(void)state;
	flat_auto_free char *text = NULL, *big = malloc(70001);
	struct flat_err err = { 0 };
	flat_auto_fd fd = -1;
	assert_int_equal(flat_state_read(dirfd, "none", 10, &text, &err), -ENOENT);
	assert_int_equal(err.code, 0);
	memset(big, 'x', 70000);
	big[70000] = '\0';
	assert_int_equal(flat_state_create(dirfd, "big", big, 70000, &fd, &err), 0);
	assert_content("big", big);
	assert_int_equal(flat_state_read(dirfd, "big", 69999, &text, &err), -EFBIG);
	assert_int_equal(symlinkat("big", dirfd, "link"), 0);
	err = (struct flat_err){ 0 };
	assert_int_equal(flat_state_read(dirfd, "link", 100000, &text, &err), -ELOOP);
	assert_int_equal(mkfifoat(dirfd, "fifo", 0600), 0);
	err = (struct flat_err){ 0 };
	assert_int_equal(flat_state_read(dirfd, "fifo", 10, &text, &err), -EINVAL);
	err = (struct flat_err){ 0 };
	assert_int_equal(flat_state_read(dirfd, ".", 10, &text, &err), -EISDIR);
}

static void check_create(void)
{
	struct flat_err err = { 0 };
	struct stat st;
	flat_auto_fd fd = -1, other = -1;
	assert_int_equal(flat_state_create(dirfd, "f", "one", 3, &fd, &err), 0);
	assert_int_equal(flat_state_create(dirfd, "f", "two", 3, &other, &err), -EEXIST);
	assert_int_equal(err.code, 0);
	assert_int_equal(other, -1);
	assert_content("f", "one");
	assert_int_equal(files(), 1);
	assert_int_equal(fstatat(dirfd, "f", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(flat_state_is_locked(dirfd, "f"), 1);
	flat_close_fd(&fd);
	assert_int_equal(flat_state_is_locked(dirfd, "f"), 0);
	assert_int_equal(flat_state_is_locked(dirfd, "none"), 0);
}

static void test_create(void **state)
{
	(void)state;
	check_create();
}

static void test_create_without_capability(void **state)
{
	(void)state;
	no_empty_path = true;
	check_create();
}

static void test_create_without_proc(void **state)
{
	(void)state;
	no_empty_path = no_proc = true;
	check_create();
}

static void test_create_without_tmpfile(void **state)
{
	(void)state;
	no_tmpfile = true;
	check_create();
}

static void test_replace(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	assert_int_equal(flat_state_replace(dirfd, "f", "one", 3, &err), 0);
	assert_int_equal(flat_state_replace(dirfd, "f", "second", 6, &err), 0);
	assert_content("f", "second");
	assert_int_equal(files(), 1);
}

/* The file before its name, the directory after: any other order can leave an empty file. */
static void test_replace_durable(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	assert_int_equal(flat_state_replace(dirfd, "f", "one", 3, &err), 0);
	assert_string_equal(order, "r");
	memset(order, 0, sizeof order);
	assert_int_equal(flat_state_replace_durable(dirfd, "f", "second", 6, &err), 0);
	assert_string_equal(order, "frd");
	assert_content("f", "second");
	for (int n = 1;; n++) {
		struct flat_err full = { 0 };
		assert_true(n < 50);
		memset(order, 0, sizeof order);
		calls = 0;
		fail_at = n;
		int r = flat_state_replace_durable(dirfd, "f", "third", 5, &full);
		bool failed = calls >= n;
		fail_at = 0;
		assert_int_equal(files(), 1);
		if (!failed)
			break;
		assert_int_equal(r, -ENOSPC);
		/* of the directory's sync: nobody knows which one a loss of power leaves */
		assert_content("f", strchr(order, 'r') ? "third" : "second");
		if (strchr(order, 'r')) /* for the next round */
			assert_int_equal(flat_state_replace(dirfd, "f", "second", 6, &full), 0);
	}
	assert_string_equal(order, "frd");
	assert_content("f", "third");
}

/* Fails the first call, the second, ... until a run passes clean. */
static void fail_each(bool tmpfile, int with, int code)
{
	for (int n = 1;; n++) {
		struct flat_err err = { 0 };
		flat_auto_fd fd = -1;
		assert_true(n < 50);
		no_tmpfile = !tmpfile;
		fail_errno = with;
		calls = 0;
		fail_at = n;
		int r = flat_state_create(dirfd, "f", "one", 3, &fd, &err);
		if (r >= 0)
			r = flat_state_replace(dirfd, "g", "two", 3, &err);
		bool failed = calls >= n;
		fail_at = 0;
		if (r < 0) {
			assert_int_equal(r, -with);
			assert_int_equal(err.sys, with);
			assert_int_equal(err.code, code);
		}
		/* never a part, never a leftover */
		if (fd >= 0)
			assert_content("f", "one");
		assert_int_equal(files(), (fd >= 0) + (r >= 0));
		unlinkat(dirfd, "f", 0);
		unlinkat(dirfd, "g", 0);
		if (!failed)
			break;
		assert_true(r < 0);
	}
}

static void test_every_call_fails(void **state)
{
	(void)state;
	fail_each(true, EIO, FLAT_CODE_IO);
	fail_each(false, EIO, FLAT_CODE_IO);
	fail_each(true, ENOSPC, FLAT_CODE_TRY_LATER);
	fail_each(false, ENOSPC, FLAT_CODE_TRY_LATER);
}

static void test_lock(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	flat_auto_fd a = -1, b = -1;
	assert_int_equal(flat_state_lock(dirfd, "lock", LOCK_SH, 0, &a, &err), 0);
	assert_int_equal(flat_state_lock(dirfd, "lock", LOCK_SH, 0, &b, &err), 0);
	flat_close_fd(&b);
	int64_t start = flat_now_ms();
	assert_int_equal(flat_state_lock(dirfd, "lock", LOCK_EX, 100, &b, &err), -ETIMEDOUT);
	assert_in_range(flat_now_ms() - start, 100, 2000);
	assert_int_equal(err.code, FLAT_CODE_TRY_LATER);
	flat_close_fd(&a);
	assert_int_equal(flat_state_lock(dirfd, "lock", LOCK_EX, 0, &b, &err), 0);
	assert_int_equal(flat_state_is_locked(dirfd, "lock"), 1);
}

/* A lock on a file that is there no more excludes nobody. */
static void test_lock_is_of_the_file_that_is_there(void **state)
{
	(void)state;
	struct flat_err err = { 0 };
	flat_auto_fd a = -1, b = -1;
	assert_int_equal(flat_state_lock(dirfd, "lock", LOCK_EX, 0, &a, &err), 0);
	pid_t pid = fork();
	if (pid == 0) {
		flat_sleep_us(50000);
		unlinkat(dirfd, "lock", 0);
		_exit(0); /* and with it the copy of a */
	}
	flat_close_fd(&a);
	assert_int_equal(flat_state_lock(dirfd, "lock", LOCK_EX, 5000, &b, &err), 0);
	waitpid(pid, NULL, 0);
	assert_int_equal(faccessat(dirfd, "lock", F_OK, 0), 0);
}

static void check_kill(bool tmpfile)
{
	for (int i = 0; i < 60; i++) {
		no_tmpfile = !tmpfile;
		pid_t pid = fork();
		if (pid == 0) {
			for (int n = 0; n < 1000; n++) {
				char name[16];
				flat_auto_fd fd = -1;
				snprintf(name, sizeof name, "f%d", n);
				flat_state_create(dirfd, name, "0123456789", 10, &fd, NULL);
			}
			_exit(0);
		}
		flat_sleep_us((unsigned)rand() % 4000);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		for (int n = 0; n < 1000; n++) {
			char name[16];
			snprintf(name, sizeof name, "f%d", n);
			if (faccessat(dirfd, name, F_OK, 0))
				break;
			assert_content(name, "0123456789");
			assert_int_equal(flat_state_is_locked(dirfd, name), 0);
			unlinkat(dirfd, name, 0);
		}
		if (tmpfile)
			assert_int_equal(files(), 0);
	}
}

static void test_killed_writer(void **state)
{
	(void)state;
	check_kill(true);
	check_kill(false);
}

int main(void)
{
	unsigned seed = (unsigned)getpid();
	fprintf(stderr, "# random seed %u\n", seed);
	srand(seed);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_open_dir_makes_missing_parts),
		TEST(test_open_dir_refuses),
		TEST(test_read),
		TEST(test_create),
		TEST(test_create_without_capability),
		TEST(test_create_without_proc),
		TEST(test_create_without_tmpfile),
		TEST(test_replace),
		TEST(test_replace_durable),
		TEST(test_every_call_fails),
		TEST(test_lock),
		TEST(test_lock_is_of_the_file_that_is_there),
		TEST(test_killed_writer),
	};
	return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
