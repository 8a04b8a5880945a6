// SPDX-License-Identifier: Apache-2.0
#include <flatnet/net.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int open_sysctl(const char *path, int flags)
{
	char full[PATH_MAX];
	assert(path[0] != '/' && !strstr(path, "../"));
	int n = snprintf(full, sizeof full, "/proc/sys/%s", path);
	if (n < 0 || (size_t)n >= sizeof full)
		return -ENAMETOOLONG;
	int fd = open(full, flags | O_CLOEXEC | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

int flat_sysctl_get(const char *path, char *buf, size_t size, struct flat_err *err)
{
	flat_auto_fd fd = open_sysctl(path, O_RDONLY);
	if (fd == -ENOENT)
		return -ENOENT;
	if (fd < 0)
		return flat_fail(err, FLAT_CODE_NETWORK, -fd, "read /proc/sys/%s", path);
	ssize_t n = read(fd, buf, size - 1);
	if (n < 0)
		return flat_fail(err, FLAT_CODE_NETWORK, errno, "read /proc/sys/%s", path);
	while (n > 0 && buf[n - 1] == '\n')
		n--;
	buf[n] = '\0';
	return (int)n;
}

int flat_sysctl_write(const char *path, const char *value, struct flat_err *err)
{
	flat_auto_fd fd = open_sysctl(path, O_WRONLY);
	if (fd == -ENOENT)
		return -ENOENT;
	const char *text = *value ? value : "\n";
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return flat_fail(err, FLAT_CODE_NETWORK, fd < 0 ? -fd : errno,
				 "write '%s' to /proc/sys/%s", value, path);
	return 0;
}

int flat_sysctl_set(const char *path, const char *value, struct flat_err *err)
{
	char now[128];
	struct flat_err e = { 0 };
	int r = flat_sysctl_get(path, now, sizeof now, err);
	if (r < 0)
		return r;
	if (!strcmp(now, value))
		return 0;
	r = flat_sysctl_write(path, value, &e);
	if (r >= 0)
		return 1;
	if (r == -EROFS || r == -EACCES || r == -EPERM)
		flat_detail(&e,
			    "it is '%s' now; set it on the host (sysctl -w), or let this "
			    "process write to /proc/sys",
			    now);
	if (err && err->code == FLAT_CODE_NONE)
		*err = e;
	return r;
}
