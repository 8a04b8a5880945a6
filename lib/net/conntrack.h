/* SPDX-License-Identifier: Apache-2.0 */
/* Private to lib/net: what conntrack remembers of pods and ports. */
#pragma once

#include <flatnet/net.h>

/* On a conversation of nfnetlink: forgets the connections from and to these pods, and what was sent
 * to these ports of the node by UDP and SCTP. Bounded; a kernel without conntrack has nothing to
 * forget. */
int flat_conntrack_forget(struct flat_net *net, const struct flat_ip *pods, size_t pod_count,
			  const struct flat_port *ports, size_t port_count, struct flat_err *err);
