// SPDX-License-Identifier: Apache-2.0
#include <flatnet/cni.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	FIRST_SIZE = 16 << 10,
	WRITE_TIMEOUT_MS = 10000, /* a reader that does not read must not hold us for ever */
};

/* Waits for the fd. 0: not in time. */
static int wait_for(int fd, short events, int64_t deadline)
{
	for (;;) {
		int64_t left = deadline - flat_now_ms();
		struct pollfd p = { .fd = fd, .events = events };
		int r = poll(&p, 1, left > 0 ? (int)left : 0);
		if (r >= 0)
			return r;
		if (errno != EINTR)
			return -errno;
	}
}

int flat_input_read(int fd, int timeout_ms, char **ret_text, size_t *ret_len, struct flat_err *err)
{
	int64_t deadline = flat_now_ms() + timeout_ms;
	flat_auto_free char *text = NULL;
	size_t len = 0, size = 0;
	for (;;) {
		if (len + 1 >= size) {
			size = size ? 2 * size : FIRST_SIZE;
			char *larger = realloc(text, size);
			if (!larger)
				return flat_fail(err, FLAT_CODE_INTERNAL, ENOMEM,
						 "read standard input");
			text = larger;
		}
		int r = wait_for(fd, POLLIN, deadline);
		if (r == 0)
			return flat_fail(err, FLAT_CODE_IO, ETIMEDOUT,
					 "read standard input: no end of it after %d ms (the "
					 "network configuration belongs there)",
					 timeout_ms);
		ssize_t n = r < 0 ? r : read(fd, text + len, size - len - 1);
		if (n < 0) {
			int sys = r < 0 ? -r : errno;
			if (sys == EINTR || sys == EAGAIN)
				continue;
			return flat_fail(err, FLAT_CODE_IO, sys, "read standard input");
		}
		if (n == 0)
			break;
		len += (size_t)n;
		if (len > FLAT_JSON_MAX_SIZE)
			return flat_fail(err, FLAT_CODE_DECODE, 0,
					 "standard input has more than the %d bytes allowed",
					 FLAT_JSON_MAX_SIZE);
	}
	text[len] = '\0';
	*ret_text = text;
	*ret_len = len;
	text = NULL;
	return 0;
}

int flat_output_write(int fd, const char *text, struct flat_err *err)
{
	int64_t deadline = flat_now_ms() + WRITE_TIMEOUT_MS;
	char newline = '\n';
	size_t len = strlen(text), done = 0;
	while (done < len + 1) {
		size_t rest = done < len ? len - done : 0;
		struct iovec parts[] = { { (void *)(text + (len - rest)), rest }, { &newline, 1 } };
		int r = wait_for(fd, POLLOUT, deadline);
		if (r == 0)
			return flat_fail(err, FLAT_CODE_IO, ETIMEDOUT, "write standard output");
		ssize_t n = r < 0 ? r : writev(fd, parts, FLAT_LEN(parts));
		if (n < 0) {
			int sys = r < 0 ? -r : errno;
			if (sys == EINTR || sys == EAGAIN)
				continue;
			return flat_fail(err, FLAT_CODE_IO, sys, "write standard output");
		}
		done += (size_t)n;
	}
	return 0;
}
