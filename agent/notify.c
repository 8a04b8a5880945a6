// SPDX-License-Identifier: Apache-2.0
#include "notify.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

int flat_notify_open(const char *path, struct flat_notify *ret_notify, struct flat_err *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	ret_notify->fd = -1;
	if (!path || !path[0])
		return 0;
	const size_t len = strlen(path);
	if ((path[0] != '/' && path[0] != '@') || len < 2 || len >= sizeof address.sun_path)
		return flat_fail(err, FLAT_CODE_ENV, 0,
				 "NOTIFY_SOCKET '%.128s' is neither a path nor \"@name\"", path);
	memcpy(address.sun_path, path, len);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	flat_auto_fd fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* an abstract name is as long as is said, and has no NUL at its end */
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len +
					  (path[0] == '/'))) < 0)
		return flat_fail(err, FLAT_CODE_ENV, errno, "NOTIFY_SOCKET '%.128s'", path);
	ret_notify->fd = fd;
	fd = -1;
	return 0;
}

void flat_notify_close(struct flat_notify *notify)
{
	flat_close_fd(&notify->fd);
}

/* A manager that does not take it has a reason, and will hear the next one. */
static void tell(const struct flat_notify *notify, const char *text)
{
	if (notify->fd >= 0)
		(void)send(notify->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void flat_notify_ready(const struct flat_notify *notify)
{
	tell(notify, "READY=1");
}

void flat_notify_reloading(const struct flat_notify *notify)
{
	char text[80];
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%lld",
		 (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
	tell(notify, text);
}

void flat_notify_stopping(const struct flat_notify *notify)
{
	tell(notify, "STOPPING=1");
}

void flat_notify_watchdog(const struct flat_notify *notify)
{
	tell(notify, "WATCHDOG=1");
}

void flat_notify_status(const struct flat_notify *notify, const char *text)
{
	char line[600];
	snprintf(line, sizeof line, "STATUS=%.500s", text);
	for (char *c = line; *c; c++)
		if (*c == '\n')
			*c = ' ';
	tell(notify, line);
}
