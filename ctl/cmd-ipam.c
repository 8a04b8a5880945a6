// SPDX-License-Identifier: Apache-2.0
/*
 * Looking at addresses: list, show, check. release is in a file of its own: it is the one that
 * changes something.
 */
#include "book.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { OPTIONS = FLAT_OPTION_NETWORK | FLAT_OPTION_CONF_DIR | FLAT_OPTION_DATA_DIR };

static const struct flat_column columns[] = {
	{ .key = "network", .title = "NETWORK" },
	{ .key = "address", .title = "ADDRESS" },
	{ .key = "state", .title = "STATE", .toned = true },
	{ .key = "pod", .title = "POD", .spare = true },
	{ .key = "containerID", .title = "CONTAINER" },
	{ .key = "interface", .title = "IFNAME" },
	{ .key = "hostInterface", .title = "HOST LINK", .spare = true },
};

static enum flat_tone tone_of(enum flat_entry_state state)
{
	switch (state) {
	case FLAT_ENTRY_USED:
		return FLAT_TONE_GOOD;
	case FLAT_ENTRY_IN_FLIGHT:
	case FLAT_ENTRY_FOREIGN:
		return FLAT_TONE_DOUBT;
	case FLAT_ENTRY_LEAKED:
	case FLAT_ENTRY_BROKEN:
	case FLAT_ENTRY_LOST:
		break;
	}
	return FLAT_TONE_BAD;
}

static void add_entry(struct flat_ctl *ctl, struct flat_table *table, const struct flat_book *book,
		      const struct flat_book_entry *e)
{
	struct flat_report *report = &ctl->report;
	char ip[FLAT_IP_TEXT];
	const char *cells[FLAT_LEN(columns)] = {
		flat_keep(report, book->network->name),
		flat_format(report, "%s", flat_ip_text(&e->ip, ip)),
		flat_entry_states[e->state],
		e->pod ? e->pod->name : NULL,
		flat_keep(report, e->container_id),
		flat_keep(report, e->ifname),
		e->pod ? flat_keep(report, e->pod->link.name) : NULL,
	};
	flat_table_add(report, table, tone_of(e->state), cells);
}

typedef int network_fn(struct flat_ctl *ctl, struct flat_scene *scene,
		       const struct flat_network *network, struct flat_table *table,
		       struct flat_err *err);

/* Calls fn for each network that was asked for; the greatest status is returned. */
static int each_network(struct flat_ctl *ctl, network_fn *fn, const struct flat_table *head,
			struct flat_err *err)
{
	struct flat_scene scene;
	int status = FLAT_EXIT_OK;
	int r = flat_scene_open(ctl, &scene, err);
	struct flat_table *table = r >= 0 ? flat_report_table(&ctl->report, head) : NULL;
	for (size_t i = 0; i < scene.network_count && r >= 0; i++) {
		const struct flat_network *network = &scene.networks[i];
		if (ctl->network && strcmp(network->name, ctl->network) != 0)
			continue;
		r = fn(ctl, &scene, network, table, err);
		status = r > status ? r : status;
	}
	flat_scene_close(&scene);
	return r < 0 ? r : status;
}

/* ---- list --------------------------------------------------------------------------------------
 */

static int list(struct flat_ctl *ctl, struct flat_scene *scene, const struct flat_network *network,
		struct flat_table *table, struct flat_err *err)
{
	struct flat_book book = { 0 };
	int r = flat_book_read(ctl, scene, network, &book, err);
	for (size_t i = 0; i < book.count && r >= 0; i++)
		add_entry(ctl, table, &book, &book.entries[i]);
	return r;
}

static int run_list(struct flat_ctl *ctl, struct flat_err *err)
{
	const struct flat_table head = { .key = "addresses",
					 .none = "no address is reserved",
					 .columns = columns,
					 .column_count = FLAT_LEN(columns) };
	return each_network(ctl, list, &head, err);
}

#define STATES                                                                                     \
	"  used       a pod's link stands for it\n"                                                \
	"  in flight  an ADD is at work just now\n"                                                \
	"  foreign    another program reserved it (host-local, flatnet-ipam by itself): only\n"    \
	"             that program's DEL tells that it is over\n"                                  \
	"  leaked     its pod's link is gone\n"                                                    \
	"  broken     its file is empty or unreadable\n"                                           \
	"  lost       a pod's link has the address, and nobody has reserved it\n"

const struct flat_ctl_command flat_command_ipam_list = {
	.name = "ipam list",
	.arguments = "",
	.about = "the addresses that are reserved, and for whom",
	.help = "Lists the addresses that are reserved on this node, of every network, and holds them\n"
		"against the links:\n\n" STATES,
	.options = OPTIONS,
	.run = run_list,
};

/* ---- show --------------------------------------------------------------------------------------
 */

static bool is_in_range(const struct flat_network *network, const struct flat_ip *ip,
			const struct flat_ip_range **ret_range, bool *ret_gateway)
{
	const struct flat_ip_range_set *sets = network->conf.ipam.sets.items;
	for (size_t i = 0; i < network->conf.ipam.sets.count; i++) {
		const struct flat_ip_range *ranges = sets[i].ranges.items;
		for (size_t k = 0; k < sets[i].ranges.count; k++) {
			if (!flat_prefix_contains(&ranges[k].subnet, ip))
				continue;
			*ret_range = &ranges[k];
			*ret_gateway = flat_ipam_set_is_gateway(&sets[i], ip);
			return true;
		}
	}
	return false;
}

static void add_fact(struct flat_ctl *ctl, const char *key, const char *title, const char *value)
{
	flat_report_fact(&ctl->report,
			 &(struct flat_fact){ .key = key, .title = title, .value = value });
}

static void tell(struct flat_ctl *ctl, const struct flat_network *network,
		 const struct flat_book_entry *e, const char *ip, const char *state,
		 const struct flat_ip_range *range)
{
	struct flat_report *report = &ctl->report;
	char a[FLAT_IP_TEXT], b[FLAT_IP_TEXT];
	add_fact(ctl, "address", "address", ip);
	flat_report_fact(report,
			 &(struct flat_fact){ .key = "state",
					      .title = "state",
					      .tone = e ? tone_of(e->state) : FLAT_TONE_PLAIN,
					      .value = state });
	add_fact(ctl, "network", "network", flat_keep(report, network->name));
	add_fact(ctl, "range", "range",
		 range ? flat_format(report, "%s-%s", flat_ip_text(&range->start, a),
				     flat_ip_text(&range->end, b))
		       : NULL);
	add_fact(ctl, "containerID", "container", e ? flat_keep(report, e->container_id) : NULL);
	add_fact(ctl, "interface", "interface", e ? flat_keep(report, e->ifname) : NULL);
	add_fact(ctl, "pod", "pod", e && e->pod ? e->pod->name : NULL);
	add_fact(ctl, "hostInterface", "host link",
		 e && e->pod ? flat_keep(report, e->pod->link.name) : NULL);
	add_fact(ctl, "file", "file",
		 e && e->inode
			 ? flat_format(report, "%s/%s/%s", network->data_dir, network->name, ip)
			 : NULL);
}

/* 1: told */
static int show_in(struct flat_ctl *ctl, struct flat_scene *scene,
		   const struct flat_network *network, const struct flat_ip *ip,
		   struct flat_err *err)
{
	const struct flat_ip_range *range = NULL;
	struct flat_book book = { 0 };
	char buf[FLAT_IP_TEXT];
	bool gateway = false;
	const bool inside = is_in_range(network, ip, &range, &gateway);
	int r = flat_book_read(ctl, scene, network, &book, err);
	if (r < 0)
		return r;
	const char *text = flat_format(&ctl->report, "%s", flat_ip_text(ip, buf));
	for (size_t i = 0; i < book.count; i++) {
		const struct flat_book_entry *e = &book.entries[i];
		if (!flat_ip_equal(&e->ip, ip))
			continue;
		tell(ctl, network, e, text, flat_entry_states[e->state], range);
		ctl->report.has_problems = true;
		flat_book_complain(ctl, &(struct flat_book){ network, &book.entries[i], 1 });
		return 1;
	}
	if (!inside)
		return 0;
	const bool handed_out =
		flat_ip_compare(ip, &range->start) >= 0 && flat_ip_compare(ip, &range->end) <= 0;
	tell(ctl, network, NULL, text,
	     gateway	  ? "the gateway's: never given to a pod"
	     : handed_out ? "free"
			  : "outside of the range: never given to a pod",
	     range);
	ctl->report.has_problems = true;
	return 1;
}

static int run_show(struct flat_ctl *ctl, struct flat_err *err)
{
	struct flat_scene scene;
	struct flat_ip ip;
	if (!flat_ip_parse(ctl->args[0], &ip)) {
		flat_fail(err, FLAT_CODE_CONFIG, 0, "'%.64s' is not an IP address", ctl->args[0]);
		flat_detail(err, "like 10.244.1.23 or fd00::17, without a prefix length");
		return FLAT_EXIT_USAGE;
	}
	int told = 0, r = flat_scene_open(ctl, &scene, err);
	for (size_t i = 0; i < scene.network_count && r >= 0 && !told; i++) {
		const struct flat_network *network = &scene.networks[i];
		if (ctl->network && strcmp(network->name, ctl->network) != 0)
			continue;
		r = told = show_in(ctl, &scene, network, &ip, err);
	}
	flat_scene_close(&scene);
	if (r >= 0 && !told) {
		flat_fail(err, FLAT_CODE_CONFIG, 0,
			  "%s is in no range of this node, and nobody has reserved it",
			  ctl->args[0]);
		flat_detail(err, "flatnetctl nodes tells which node has which subnet");
		return FLAT_EXIT_FAILED;
	}
	return r < 0 ? r : ctl->report.problem_count ? FLAT_EXIT_WRONG : FLAT_EXIT_OK;
}

const struct flat_ctl_command flat_command_ipam_show = {
	.name = "ipam show",
	.arguments = "ADDRESS",
	.about = "whose an address is",
	.help = "Tells everything of one address of this node: its network and range, whose it is, by\n"
		"which link, and in which file that is written.\n\n"
		"Exit status 1: it is leaked, broken or lost; 3: it is not of this node.",
	.options = OPTIONS,
	.min_args = 1,
	.max_args = 1,
	.run = run_show,
};

/* ---- check -------------------------------------------------------------------------------------
 */

static const struct flat_column check_columns[] = {
	{ .key = "network", .title = "NETWORK" },
	{ .key = "total", .title = "TOTAL", .kind = FLAT_KIND_NUMBER },
	{ .key = "used", .title = "USED", .kind = FLAT_KIND_NUMBER },
	{ .key = "free", .title = "FREE", .kind = FLAT_KIND_NUMBER },
	{ .key = "inFlight", .title = "IN FLIGHT", .kind = FLAT_KIND_NUMBER },
	{ .key = "foreign", .title = "FOREIGN", .kind = FLAT_KIND_NUMBER },
	{ .key = "leaked", .title = "LEAKED", .kind = FLAT_KIND_NUMBER },
	{ .key = "broken", .title = "BROKEN", .kind = FLAT_KIND_NUMBER },
	{ .key = "lost", .title = "LOST", .kind = FLAT_KIND_NUMBER },
	{ .key = "state", .title = "STATE", .toned = true },
};

static int check(struct flat_ctl *ctl, struct flat_scene *scene, const struct flat_network *network,
		 struct flat_table *table, struct flat_err *err)
{
	struct flat_report *report = &ctl->report;
	struct flat_book book = { 0 };
	struct flat_room room;
	int r = flat_book_read(ctl, scene, network, &book, err);
	if (r < 0)
		return r;
	flat_book_room(&book, &room);
	const size_t wrong = flat_book_complain(ctl, &book);
	const char *cells[FLAT_LEN(check_columns)] = {
		flat_keep(report, network->name),
		room.total ? flat_format(report, "%" PRIu64, room.total) : NULL,
		flat_format(report, "%zu", flat_book_count(&book, FLAT_ENTRY_USED)),
		room.total ? flat_format(report, "%" PRIu64, room.free) : NULL,
		flat_format(report, "%zu", flat_book_count(&book, FLAT_ENTRY_IN_FLIGHT)),
		flat_format(report, "%zu", flat_book_count(&book, FLAT_ENTRY_FOREIGN)),
		flat_format(report, "%zu", flat_book_count(&book, FLAT_ENTRY_LEAKED)),
		flat_format(report, "%zu", flat_book_count(&book, FLAT_ENTRY_BROKEN)),
		flat_format(report, "%zu", flat_book_count(&book, FLAT_ENTRY_LOST)),
		wrong ? "wrong" : "ok",
	};
	flat_table_add(report, table, wrong ? FLAT_TONE_BAD : FLAT_TONE_GOOD, cells);
	return wrong ? FLAT_EXIT_WRONG : FLAT_EXIT_OK;
}

static int run_check(struct flat_ctl *ctl, struct flat_err *err)
{
	const struct flat_table head = { .key = "networks",
					 .none = "no network on this node has addresses",
					 .columns = check_columns,
					 .column_count = FLAT_LEN(check_columns) };
	ctl->report.has_problems = true;
	return each_network(ctl, check, &head, err);
}

const struct flat_ctl_command flat_command_ipam_check = {
	.name = "ipam check",
	.arguments = "",
	.about = "are all addresses accounted for?",
	.help = "Holds the reservations of each network against the pods' links, counts them, and\n"
		"names what is wrong: addresses that are leaked, broken or lost, that two pods have,\n"
		"or that one pod has reserved and another one uses. Changes nothing.\n\n" STATES
		"\nTOTAL and FREE are of the ranges in the CNI configuration of this node.\n\n"
		"Exit status 1: something is wrong.",
	.options = OPTIONS,
	.run = run_check,
};
