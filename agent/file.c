// SPDX-License-Identifier: Apache-2.0
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int flat_file_read(const char *path, const char *what, char **ret_text, struct flat_err *err)
{
	/* O_NONBLOCK: a FIFO in the place of a file must not stop us */
	flat_auto_fd fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return flat_fail(err, FLAT_CODE_IO, errno, "%s '%s'", what, path);
	struct stat st;
	if (fstat(fd, &st) < 0)
		return flat_fail(err, FLAT_CODE_IO, errno, "%s '%s'", what, path);
	if (!S_ISREG(st.st_mode))
		return flat_fail(err, FLAT_CODE_IO, EINVAL, "%s '%s' is not a regular file", what,
				 path);
	if (st.st_size > FLAT_FILE_MAX)
		return flat_fail(err, FLAT_CODE_IO, EFBIG, "%s '%s'", what, path);
	/* one byte more than its size: a file that grows meanwhile is seen to */
	size_t size = (size_t)st.st_size + 1, len = 0;
	flat_auto_free char *text = malloc(size + 1);
	if (!text)
		return flat_fail(err, FLAT_CODE_IO, ENOMEM, "%s '%s'", what, path);
	while (len < size) {
		ssize_t n = read(fd, text + len, size - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return flat_fail(err, FLAT_CODE_IO, errno, "%s '%s'", what, path);
		if (n == 0)
			break;
		len += (size_t)n;
	}
	if (len == size)
		return flat_fail(err, FLAT_CODE_IO, EAGAIN, "%s '%s' changes while it is read",
				 what, path);
	text[len] = '\0';
	*ret_text = text;
	text = NULL;
	return (int)len;
}
