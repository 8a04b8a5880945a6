// SPDX-License-Identifier: Apache-2.0
#include <flatnet/base.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int returned(const struct flat_err *err)
{
	return err && err->sys ? -err->sys : -EINVAL;
}

int flat_fail(struct flat_err *err, int code, int sys, const char *fmt, ...)
{
	if (err && err->code == FLAT_CODE_NONE) {
		va_list ap;
		va_start(ap, fmt);
		int n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
		va_end(ap);
		if (sys && n >= 0 && (size_t)n < sizeof err->msg)
			snprintf(err->msg + n, sizeof err->msg - (size_t)n, ": %s", strerror(sys));
		err->code = code;
		err->sys = sys;
	}
	return sys ? -sys : -EINVAL;
}

int flat_detail(struct flat_err *err, const char *fmt, ...)
{
	if (err && err->code != FLAT_CODE_NONE && !err->details[0]) {
		va_list ap;
		va_start(ap, fmt);
		vsnprintf(err->details, sizeof err->details, fmt, ap);
		va_end(ap);
	}
	return returned(err);
}

int flat_wrap(struct flat_err *err, const char *fmt, ...)
{
	if (err && err->code != FLAT_CODE_NONE) {
		char context[sizeof err->msg - 3];
		va_list ap;
		va_start(ap, fmt);
		vsnprintf(context, sizeof context, fmt, ap);
		va_end(ap);
		/* make room in front; what does not fit falls off the end */
		size_t n = strlen(context), room = sizeof err->msg - n - 2;
		size_t inner = strnlen(err->msg, room - 1);
		memmove(err->msg + n + 2, err->msg, inner);
		err->msg[n + 2 + inner] = '\0';
		memcpy(err->msg, context, n);
		memcpy(err->msg + n, ": ", 2);
	}
	return returned(err);
}

void flat_warn(const struct flat_log *log, const char *fmt, ...)
{
	if (!log || !log->say)
		return;
	char line[1024];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	log->say(log->arg, line);
}

void flat_close_fd(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;
		close(*fd);
		errno = saved;
	}
	*fd = -1;
}

void flat_free_ptr(void *ptr)
{
	void **p = ptr;
	free(*p);
	*p = NULL;
}

int64_t flat_now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void flat_sleep_us(unsigned us)
{
	struct timespec t = { .tv_sec = us / 1000000, .tv_nsec = (long)(us % 1000000) * 1000 };
	nanosleep(&t, NULL);
}
