/* SPDX-License-Identifier: Apache-2.0 */
/* A kernel and a disk that can be told to refuse: for tests that link with --wrap (see
 * meson.build). One test includes it. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>

static bool no_tmpfile, no_empty_path, no_proc;
static int fail_at, fail_errno = ENOSPC, calls; /* the fail_at-th call fails; 0: none does */
static char order[32]; /* what was synced (f, d: a directory) and renamed (r) */

static void note(char what)
{
	size_t len = strlen(order);
	if (len + 1 < sizeof order)
		order[len] = what;
}

static bool refuse(void)
{
	if (++calls != fail_at)
		return false;
	errno = fail_errno;
	return true;
}

int __real_openat(int dirfd, const char *path, int flags, ...);
int __wrap_openat(int dirfd, const char *path, int flags, ...);
int __wrap_openat64(int dirfd, const char *path, int flags, ...);
int __real_linkat(int from, const char *path, int to, const char *name, int flags);
int __wrap_linkat(int from, const char *path, int to, const char *name, int flags);
ssize_t __real_write(int fd, const void *data, size_t len);
ssize_t __wrap_write(int fd, const void *data, size_t len);
int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);
int __real_renameat(int from, const char *path, int to, const char *name);
int __wrap_renameat(int from, const char *path, int to, const char *name);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_mkdirat(int dirfd, const char *name, mode_t mode);
int __wrap_mkdirat(int dirfd, const char *name, mode_t mode);

static int open_or_refuse(int dirfd, const char *path, int flags, mode_t mode)
{
	if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return refuse() ? -1 : __real_openat(dirfd, path, flags | O_LARGEFILE, mode);
}

/* Which of the two names is linked depends on _FILE_OFFSET_BITS, which meson sets to 64. */
#define WRAP_OPEN(name)                                                                            \
	int name(int dirfd, const char *path, int flags, ...)                                      \
	{                                                                                          \
		va_list ap;                                                                        \
		va_start(ap, flags);                                                               \
		mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;              \
		va_end(ap);                                                                        \
		return open_or_refuse(dirfd, path, flags, mode);                                   \
	}
WRAP_OPEN(__wrap_openat)
WRAP_OPEN(__wrap_openat64)

int __wrap_linkat(int from, const char *path, int to, const char *name, int flags)
{
	if ((no_empty_path && flags & AT_EMPTY_PATH) || (no_proc && flags & AT_SYMLINK_FOLLOW)) {
		errno = ENOENT;
		return -1;
	}
	return refuse() ? -1 : __real_linkat(from, path, to, name, flags);
}

ssize_t __wrap_write(int fd, const void *data, size_t len)
{
	return refuse() ? -1 : __real_write(fd, data, len);
}

int __wrap_flock(int fd, int operation)
{
	return refuse() ? -1 : __real_flock(fd, operation);
}

int __wrap_renameat(int from, const char *path, int to, const char *name)
{
	if (refuse())
		return -1;
	note('r');
	return __real_renameat(from, path, to, name);
}

int __wrap_fsync(int fd)
{
	struct stat st;
	note(!fstat(fd, &st) && S_ISDIR(st.st_mode) ? 'd' : 'f');
	return refuse() ? -1 : __real_fsync(fd);
}

int __wrap_mkdirat(int dirfd, const char *name, mode_t mode)
{
	return refuse() ? -1 : __real_mkdirat(dirfd, name, mode);
}
