// SPDX-License-Identifier: Apache-2.0
#include <flatnet/net.h>

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* The old pair of commands, as ethtool -K uses it for "tx": they stand for all checksums that the
 * link can compute, and a VXLAN device has but the one. */
static int call(const char *name, uint32_t command, bool *on, struct flat_err *err)
{
	struct ethtool_value value = { .cmd = command, .data = *on };
	struct ifreq request = { .ifr_data = (void *)&value };
	const char *what = command == ETHTOOL_GTXCSUM ? "read" : "set";
	if (!*name || strlen(name) >= sizeof request.ifr_name)
		return flat_fail(err, FLAT_CODE_NETWORK, ENODEV, "%s checksum offload of link '%s'",
				 what, name);
	strcpy(request.ifr_name, name);
	flat_auto_fd fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCETHTOOL, &request) < 0)
		return flat_fail(err, FLAT_CODE_NETWORK, errno, "%s checksum offload of link '%s'",
				 what, name);
	*on = value.data;
	return 0;
}

int flat_link_get_tx_checksum(const char *name, struct flat_err *err)
{
	bool on = false;
	int r = call(name, ETHTOOL_GTXCSUM, &on, err);
	return r < 0 ? r : on;
}

int flat_link_set_tx_checksum(const char *name, bool on, struct flat_err *err)
{
	int r = flat_link_get_tx_checksum(name, err);
	if (r < 0 || r == on) /* what has no such feature need not be told to be without */
		return r < 0 ? r : 0;
	return call(name, ETHTOOL_STXCSUM, &on, err);
}
