// SPDX-License-Identifier: Apache-2.0
/*
 * Releasing what is dead. An address that is given away while its pod lives exists twice, so there
 * is no way to force that here: who wants a live pod's address back deletes the pod. The store
 * judges once more, under its lock, with the links dumped anew: what was true when the book was
 * read may not be any more.
 */
#include "book.h"

#include <errno.h>
#include <string.h>

enum { LOCK_TRIES = 50, LOCK_WAIT_US = 100000, PING_MS = 600 };

static const struct flat_column columns[] = {
	{ .key = "network", .title = "NETWORK" },
	{ .key = "address", .title = "ADDRESS" },
	{ .key = "result", .title = "RESULT", .toned = true },
	{ .key = "why", .title = "WHY", .spare = true },
};

struct release {
	struct flat_ctl *ctl;
	struct flat_scene scene;
	struct flat_table *table;
	bool refused;
};

static void add_row(struct release *op, const char *network, const struct flat_ip *ip,
		    enum flat_tone tone, const char *result, const char *why)
{
	struct flat_report *report = &op->ctl->report;
	char text[FLAT_IP_TEXT];
	const char *cells[FLAT_LEN(columns)] = { flat_keep(report, network),
						 flat_format(report, "%s", flat_ip_text(ip, text)),
						 result, why };
	flat_table_add(report, op->table, tone, cells);
}

static void refuse(struct release *op, const struct flat_book *book,
		   const struct flat_book_entry *e, const char *why)
{
	add_row(op, book->network->name, &e->ip, FLAT_TONE_BAD, "refused", why);
	op->refused = true;
}

struct heard {
	const struct flat_ip *ip;
	bool freed;
};

static void hear(void *arg, enum flat_heal what, const char *container_id, const char *ifname,
		 const struct flat_ip *ip)
{
	struct heard *heard = arg;
	(void)container_id, (void)ifname;
	if (what != FLAT_HEAL_LOST && flat_ip_equal(ip, heard->ip))
		heard->freed = true;
}

/* 1: freed; 0: the store does not think it is dead any more. */
static int free_dead(struct flat_store *store, const struct flat_ipam_witness *witness,
		     const struct flat_book_entry *e, struct flat_err *err)
{
	const struct flat_reservation doubtful = { e->ip, e->inode };
	struct heard heard = { .ip = &e->ip };
	for (int i = 1;; i++) {
		int r = flat_store_heal(store, witness, &doubtful, 1, hear, &heard, err);
		if (r != -EAGAIN || err->code)
			return r < 0 ? r : heard.freed;
		if (i == LOCK_TRIES)
			return flat_fail(err, FLAT_CODE_TRY_LATER, EAGAIN,
					 "the address store is busy");
		flat_sleep_us(LOCK_WAIT_US);
	}
}

/* 1: freed; 0: somebody answers there. */
static int free_foreign(struct flat_store *store, const struct flat_ipam_witness *witness,
			const struct flat_book_entry *e, struct flat_err *err)
{
	int32_t rtt = -1;
	bool answers = false;
	int r = witness->probe(witness->arg, &e->ip, 1, &answers, err);
	/* not all that another plugin makes hangs on our bridge */
	if (r >= 0 && !answers)
		r = flat_net_ping(&e->ip, 1, PING_MS, &rtt, err);
	if (r < 0 || answers || rtt >= 0)
		return r < 0 ? r : 0;
	r = flat_store_release(store, e->container_id, e->ifname ? e->ifname : "", &e->ip, 1, err);
	return r < 0 ? r : 1;
}

static int free_entry(struct release *op, const struct flat_book *book,
		      const struct flat_book_entry *e, struct flat_err *err)
{
	const struct flat_network *network = book->network;
	struct flat_ipam_witness witness = { 0 };
	flat_auto_store *store = NULL;
	const bool foreign = e->state == FLAT_ENTRY_FOREIGN;
	int r = flat_store_open(&network->conf.ipam, network->name, false, NULL, &store, err);
	if (r == -ENOENT && !err->code)
		return 0; /* gone in the meantime, as was wanted */
	if (r >= 0)
		r = flat_witness_open(op->scene.net, network->name, network->conf.gateway_link,
				      true, &witness, err);
	if (r >= 0)
		r = foreign ? free_foreign(store, &witness, e, err)
			    : free_dead(store, &witness, e, err);
	flat_witness_close(&witness);
	if (r < 0)
		return r;
	if (r)
		add_row(op, network->name, &e->ip, FLAT_TONE_GOOD, "freed", NULL);
	else
		refuse(op, book, e,
		       foreign ? "somebody answers at this address"
			       : "it changed hands just now: look again");
	return 0;
}

static int decide(struct release *op, const struct flat_book *book, const struct flat_book_entry *e,
		  struct flat_err *err)
{
	struct flat_report *report = &op->ctl->report;
	switch (e->state) {
	case FLAT_ENTRY_USED:
	case FLAT_ENTRY_LOST:
		refuse(op, book, e,
		       flat_format(report, "a pod uses it (container %s): delete the pod",
				   e->container_id));
		return 0;
	case FLAT_ENTRY_IN_FLIGHT:
		refuse(op, book, e, "an ADD is at work with it: try again");
		return 0;
	case FLAT_ENTRY_FOREIGN:
		if (op->ctl->foreign)
			break;
		refuse(op, book, e,
		       "another program reserved it: its DEL or GC frees it; if that is gone for "
		       "good, --foreign does");
		return 0;
	case FLAT_ENTRY_LEAKED:
	case FLAT_ENTRY_BROKEN:
		break;
	}
	return free_entry(op, book, e, err);
}

/* ip NULL: all that are leaked or broken. Returns how many there were. */
static int release_in(struct release *op, const struct flat_network *network,
		      const struct flat_ip *ip, struct flat_err *err)
{
	struct flat_book book = { 0 };
	int n = 0, r = flat_book_read(op->ctl, &op->scene, network, &book, err);
	for (size_t i = 0; i < book.count && r >= 0; i++) {
		const struct flat_book_entry *e = &book.entries[i];
		const bool dead = e->state == FLAT_ENTRY_LEAKED || e->state == FLAT_ENTRY_BROKEN ||
				  (e->state == FLAT_ENTRY_FOREIGN && op->ctl->foreign);
		if (ip ? !flat_ip_equal(&e->ip, ip) : !dead)
			continue;
		r = decide(op, &book, e, err);
		n++;
		if (ip)
			break;
	}
	return r < 0 ? r : n;
}

static int release_one(struct release *op, const struct flat_ip *ip, struct flat_err *err)
{
	int found = 0, r = 0;
	for (size_t i = 0; i < op->scene.network_count && r >= 0; i++) {
		const struct flat_network *network = &op->scene.networks[i];
		if (op->ctl->network && strcmp(network->name, op->ctl->network) != 0)
			continue;
		r = release_in(op, network, ip, err);
		found += r > 0;
	}
	if (r >= 0 && !found)
		add_row(op, op->ctl->network, ip, FLAT_TONE_PLAIN, "free already",
			"nobody has reserved it");
	return r < 0 ? r : 0;
}

static int release(struct release *op, struct flat_err *err)
{
	const struct flat_table head = { .key = "released",
					 .none = "nothing is leaked",
					 .columns = columns,
					 .column_count = FLAT_LEN(columns) };
	int r = 0;
	op->table = flat_report_table(&op->ctl->report, &head);
	for (size_t i = 0; i < op->ctl->arg_count && r >= 0; i++) {
		struct flat_ip ip;
		flat_ip_parse(op->ctl->args[i], &ip); /* run() has tried */
		r = release_one(op, &ip, err);
	}
	for (size_t i = 0; i < op->scene.network_count && r >= 0 && op->ctl->leaked; i++) {
		const struct flat_network *network = &op->scene.networks[i];
		if (!op->ctl->network || !strcmp(network->name, op->ctl->network))
			r = release_in(op, network, NULL, err);
	}
	return r < 0 ? r : op->refused ? FLAT_EXIT_REFUSED : FLAT_EXIT_OK;
}

static int run(struct flat_ctl *ctl, struct flat_err *err)
{
	struct release op = { .ctl = ctl };
	struct flat_ip ip;
	if (ctl->leaked == (ctl->arg_count > 0)) {
		flat_fail(err, FLAT_CODE_CONFIG, 0,
			  "'ipam release' takes either addresses or --leaked");
		return FLAT_EXIT_USAGE;
	}
	for (size_t i = 0; i < ctl->arg_count; i++)
		if (!flat_ip_parse(ctl->args[i], &ip)) {
			flat_fail(err, FLAT_CODE_CONFIG, 0, "'%.64s' is not an IP address",
				  ctl->args[i]);
			return FLAT_EXIT_USAGE;
		}
	int r = flat_scene_open(ctl, &op.scene, err);
	if (r >= 0)
		r = release(&op, err);
	flat_scene_close(&op.scene);
	return r;
}

const struct flat_ctl_command flat_command_ipam_release = {
	.name = "ipam release",
	.arguments = "ADDRESS...",
	.about = "frees addresses that are reserved for nobody",
	.help = "Frees addresses whose reservation is leaked or broken: these, or with --leaked all\n"
		"such. An address that a pod uses is refused, always: delete the pod instead. One that\n"
		"another program reserved is refused unless --foreign is given, and then freed only\n"
		"when nobody answers to ARP, ND or ping there. Where a network's addresses are freed,\n"
		"those that are lost are reserved again.\n\n"
		"Exit status 4: at least one was refused; the others were freed.",
	.options = FLAT_OPTION_NETWORK | FLAT_OPTION_CONF_DIR | FLAT_OPTION_DATA_DIR |
		   FLAT_OPTION_LEAKED | FLAT_OPTION_FOREIGN,
	.max_args = 256,
	.run = run,
};
