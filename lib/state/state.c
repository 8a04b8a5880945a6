// SPDX-License-Identifier: Apache-2.0
/*
 * A file appears by link(2) or rename(2) alone, after its content is complete: so readers need no
 * lock, and a writer that dies leaves nothing but, where the file system has no O_TMPFILE, a name
 * that starts with FLAT_STATE_TEMP_PREFIX.
 */
#include <flatnet/state.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	TEMP_NAME = 64,
	TEMP_TRIES = 16,       /* leftovers of dead processes with our number */
	LOCK_REOPEN_TRIES = 8, /* somebody removes the lock file again and again */
	READ_CHUNK = 512,      /* a reservation fits at once */
};

/* A full disk passes: the runtime should try again. */
static int code_of(int sys)
{
	return sys == ENOSPC || sys == EDQUOT ? FLAT_CODE_TRY_LATER : FLAT_CODE_IO;
}

static int check_dir(int fd, const char *path, struct flat_err *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return flat_fail(err, FLAT_CODE_IO, errno, "look at directory '%s'", path);
	if ((st.st_mode & S_IWOTH) && !(st.st_mode & S_ISVTX)) {
		flat_fail(err, FLAT_CODE_IO, EPERM, "directory '%s' can be written by everybody",
			  path);
		return flat_detail(err, "run: chmod o-w '%s'", path);
	}
	return 0;
}

static int open_dir(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int fail_open_dir(int dirfd, const char *name, const char *path, int sys,
			 struct flat_err *err)
{
	struct stat st;
	flat_fail(err, FLAT_CODE_IO, sys, "open directory '%s'", path);
	if (!fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISLNK(st.st_mode))
		flat_detail(err, "it is a symbolic link: name the directory that it points to");
	return -sys;
}

/* mkdir -p, but for the last part */
static int make_parents(const char *path, struct flat_err *err)
{
	char part[PATH_MAX];
	size_t len = strlen(path);
	if (len >= sizeof part)
		return flat_fail(err, FLAT_CODE_IO, ENAMETOOLONG, "make directory '%.64s...'",
				 path);
	for (size_t i = 1; i < len; i++) {
		if (path[i] != '/' || path[i - 1] == '/')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return flat_fail(err, code_of(errno), errno, "make directory '%s'", part);
	}
	return 0;
}

static int open_or_make(int dirfd, const char *name, const char *path, bool create, int *ret_fd,
			struct flat_err *err)
{
	flat_auto_fd fd = open_dir(dirfd, name);
	if (fd == -ENOENT && create) {
		int r = dirfd == AT_FDCWD ? make_parents(name, err) : 0;
		if (r < 0)
			return r;
		if (mkdirat(dirfd, name, 0755) < 0 && errno != EEXIST)
			return flat_fail(err, code_of(errno), errno, "make directory '%s'", path);
		fd = open_dir(dirfd, name);
	}
	if (fd == -ENOENT && !create)
		return -ENOENT;
	if (fd < 0)
		return fail_open_dir(dirfd, name, path, -fd, err);
	int r = check_dir(fd, path, err);
	if (r < 0)
		return r;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

int flat_state_open_dir(const char *path, bool create, int *ret_fd, struct flat_err *err)
{
	return open_or_make(AT_FDCWD, path, path, create, ret_fd, err);
}

int flat_state_open_subdir(int dirfd, const char *name, bool create, int *ret_fd,
			   struct flat_err *err)
{
	if (!name[0] || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		return flat_fail(err, FLAT_CODE_IO, EINVAL, "'%s' cannot name a directory", name);
	return open_or_make(dirfd, name, name, create, ret_fd, err);
}

int flat_state_read(int dirfd, const char *name, size_t max, char **ret_text, struct flat_err *err)
{
	/* O_NONBLOCK: a FIFO in the place of a file must not stop us */
	flat_auto_fd fd =
		openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0)
		return flat_fail(err, FLAT_CODE_IO, errno, "open '%s'", name);
	struct stat st;
	if (fstat(fd, &st) < 0)
		return flat_fail(err, FLAT_CODE_IO, errno, "look at '%s'", name);
	if (!S_ISREG(st.st_mode))
		return flat_fail(err, FLAT_CODE_IO, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
				 "'%s' is not a regular file", name);
	if (max > INT_MAX - 1)
		max = INT_MAX - 1;
	flat_auto_free char *text = NULL;
	size_t len = 0, size = 0;
	for (;;) {
		if (size - len < 2) {
			size_t want = size ? 2 * size : READ_CHUNK;
			if (want > max + 2)
				want = max + 2; /* one byte more than allowed, to see it, and NUL */
			char *more = realloc(text, want);
			if (!more)
				return flat_fail(err, FLAT_CODE_IO, ENOMEM, "read '%s'", name);
			text = more;
			size = want;
		}
		ssize_t n = read(fd, text + len, size - len - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return flat_fail(err, FLAT_CODE_IO, errno, "read '%s'", name);
		if (n == 0)
			break;
		len += (size_t)n;
		if (len > max)
			return flat_fail(err, FLAT_CODE_IO, EFBIG, "'%s' is larger than %zu bytes",
					 name, max);
	}
	text[len] = '\0';
	*ret_text = text;
	text = NULL;
	return (int)len;
}

static int write_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(fd, text, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

/* A new file under a temporary name. */
static int open_named(int dirfd, char *temp)
{
	static unsigned counter;
	for (int i = 0; i < TEMP_TRIES; i++) {
		snprintf(temp, TEMP_NAME, FLAT_STATE_TEMP_PREFIX "%d-%u", (int)getpid(), counter++);
		int fd = openat(dirfd, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
				0600);
		if (fd >= 0)
			return fd;
		if (errno != EEXIST)
			break;
	}
	int sys = errno;
	temp[0] = '\0'; /* nothing of ours to remove */
	return -sys;
}

/* Writes and locks fd, then makes it visible. temp: its name; "" for one without. */
static int publish(int dirfd, int fd, const char *temp, const char *name, const char *text,
		   size_t len)
{
	int r = write_all(fd, text, len);
	if (r < 0)
		return r;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return -errno;
	if (temp[0])
		return linkat(dirfd, temp, dirfd, name, 0) < 0 ? -errno : 0;
	if (!linkat(fd, "", dirfd, name, AT_EMPTY_PATH))
		return 0;
	/* ENOENT: it takes CAP_DAC_READ_SEARCH, or Linux 6.10 (do_linkat in fs/namei.c) */
	if (errno != ENOENT)
		return -errno;
	char path[32];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, path, dirfd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

static int create_unnamed(int dirfd, const char *name, const char *text, size_t len, int *ret_fd)
{
	flat_auto_fd fd = openat(dirfd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int r = publish(dirfd, fd, "", name, text, len);
	if (r < 0)
		return r;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

static int create_named(int dirfd, const char *name, const char *text, size_t len, int *ret_fd)
{
	char temp[TEMP_NAME] = "";
	flat_auto_fd fd = open_named(dirfd, temp);
	if (fd < 0)
		return fd;
	int r = publish(dirfd, fd, temp, name, text, len);
	unlinkat(dirfd, temp, 0); /* also after success: `name` is the file's second link */
	if (r < 0)
		return r;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

int flat_state_create(int dirfd, const char *name, const char *text, size_t len, int *ret_fd,
		      struct flat_err *err)
{
	int r = create_unnamed(dirfd, name, text, len, ret_fd);
	/* EOPNOTSUPP, EISDIR, EINVAL: no O_TMPFILE on this file system or kernel; ENOENT, ENOTDIR,
	 * EACCES: no capability and no /proc to link through */
	if (r == -EOPNOTSUPP || r == -EISDIR || r == -EINVAL || r == -ENOENT || r == -ENOTDIR ||
	    r == -EACCES)
		r = create_named(dirfd, name, text, len, ret_fd);
	if (r == -EEXIST)
		return r;
	if (r < 0)
		return flat_fail(err, code_of(-r), -r, "create '%s'", name);
	return 0;
}

/* A directory's entries are synced by a descriptor of its own: dirfd may be AT_FDCWD or O_PATH. */
static int sync_dir(int dirfd)
{
	flat_auto_fd fd = open_dir(dirfd, ".");
	if (fd < 0)
		return fd;
	/* EINVAL: a file system that has nothing to sync */
	return fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
}

static int replace(int dirfd, const char *name, const char *text, size_t len, bool durable,
		   struct flat_err *err)
{
	char temp[TEMP_NAME] = "";
	flat_auto_fd fd = open_named(dirfd, temp);
	int r = fd < 0 ? fd : write_all(fd, text, len);
	if (r >= 0 && durable)
		r = fsync(fd) < 0 ? -errno : 0;
	if (r >= 0)
		r = renameat(dirfd, temp, dirfd, name) < 0 ? -errno : 0;
	if (r >= 0) {
		temp[0] = '\0';
		r = durable ? sync_dir(dirfd) : 0;
	}
	if (r >= 0)
		return 0;
	if (temp[0])
		unlinkat(dirfd, temp, 0);
	return flat_fail(err, code_of(-r), -r, "write '%s'", name);
}

int flat_state_replace(int dirfd, const char *name, const char *text, size_t len,
		       struct flat_err *err)
{
	return replace(dirfd, name, text, len, false, err);
}

int flat_state_replace_durable(int dirfd, const char *name, const char *text, size_t len,
			       struct flat_err *err)
{
	return replace(dirfd, name, text, len, true, err);
}

/* 1: locked; 0: the file was removed while we waited, try again */
static int lock_once(int dirfd, const char *name, int operation, int64_t deadline, int *ret_fd,
		     struct flat_err *err)
{
	flat_auto_fd fd =
		openat(dirfd, name, O_RDONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	if (fd < 0)
		return flat_fail(err, code_of(errno), errno, "open lock file '%s'", name);
	unsigned pause_us = 50;
	while (flock(fd, operation | LOCK_NB) < 0) {
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return flat_fail(err, FLAT_CODE_IO, errno, "lock '%s'", name);
		if (flat_now_ms() >= deadline)
			return flat_fail(err, FLAT_CODE_TRY_LATER, ETIMEDOUT,
					 "another process holds the lock '%s'", name);
		flat_sleep_us(pause_us);
		if (pause_us < 2000)
			pause_us *= 2;
	}
	struct stat st;
	if (fstat(fd, &st) < 0)
		return flat_fail(err, FLAT_CODE_IO, errno, "look at lock file '%s'", name);
	if (st.st_nlink == 0)
		return 0;
	*ret_fd = fd;
	fd = -1;
	return 1;
}

int flat_state_lock(int dirfd, const char *name, int operation, int timeout_ms, int *ret_fd,
		    struct flat_err *err)
{
	int64_t deadline = flat_now_ms() + timeout_ms;
	for (int i = 0; i < LOCK_REOPEN_TRIES; i++) {
		int r = lock_once(dirfd, name, operation, deadline, ret_fd, err);
		if (r)
			return r < 0 ? r : 0;
	}
	return flat_fail(err, FLAT_CODE_TRY_LATER, ETIMEDOUT,
			 "the lock file '%s' is removed again and again", name);
}

int flat_state_is_locked(int dirfd, const char *name)
{
	flat_auto_fd fd =
		openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	/* shared, so that two who look at once do not see each other */
	if (!flock(fd, LOCK_SH | LOCK_NB))
		return 0;
	return errno == EWOULDBLOCK ? 1 : -errno;
}
