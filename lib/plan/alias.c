// SPDX-License-Identifier: Apache-2.0
/*
 * Names. The hash of (network, container ID, interface) names the host veth; its ifalias spells the
 * same three out, with the pod's addresses, so that the kernel itself is the second copy of the
 * address book.
 */
#include <flatnet/plan.h>

#include <stdio.h>
#include <string.h>

void flat_name_host_veth(const char *network, const char *container_id, const char *ifname,
			 char ret_name[static FLAT_IFNAME_LEN])
{
	uint64_t h = flat_hash(0, network, strlen(network));
	h = flat_hash(h, container_id, strlen(container_id));
	h = flat_hash(h, ifname, strlen(ifname));
	snprintf(ret_name, FLAT_IFNAME_LEN, "veth%011llx", (unsigned long long)(h >> 20));
}

void flat_name_ifb(const char *host_ifname, char ret_name[static FLAT_IFNAME_LEN])
{
	snprintf(ret_name, FLAT_IFNAME_LEN, "fbw%.11s",
		 strlen(host_ifname) > 4 ? host_ifname + 4 : "");
}

bool flat_name_has_ifb(const char *name)
{
	return flat_name_is_host_veth(name) || (strlen(name) == 12 && !strncmp(name, "veth", 4) &&
						strspn(name + 4, "0123456789abcdef") == 8);
}

bool flat_name_is_host_veth(const char *name)
{
	return strlen(name) == 15 && !strncmp(name, "veth", 4) &&
	       strspn(name + 4, "0123456789abcdef") == 11;
}

enum {
	HASHED_LEN = 18, /* "~", 16 digits, NUL */
	LIST_LEN = 140,	 /* of the addresses */
};

static void hashed(const char *name, char ret_text[static HASHED_LEN])
{
	snprintf(ret_text, HASHED_LEN, "~%016llx",
		 (unsigned long long)flat_hash(0, name, strlen(name)));
}

bool flat_alias_names(const char *written, const char *name)
{
	char text[HASHED_LEN];
	if (!strcmp(written, name))
		return true;
	if (written[0] != '~')
		return false;
	hashed(name, text);
	return !strcmp(written, text);
}

void flat_alias_format(const char *network, const char *container_id, const char *ifname,
		       const struct flat_result_ip *ips, size_t ip_count, const char *pod_namespace,
		       const char *pod_name, char ret_text[static FLAT_ALIAS_LEN])
{
	char list[FLAT_ALIAS_LEN] = "-", text[FLAT_IP_TEXT], network_hash[HASHED_LEN],
	     id_hash[HASHED_LEN];
	size_t n = 0;
	/* 3 IPv6 addresses fill half of it; an attachment with more keeps the first ones */
	for (size_t i = 0; i < ip_count; i++) {
		flat_ip_text(&ips[i].address.ip, text);
		if (n + strlen(text) + 2 > LIST_LEN)
			break;
		n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? "," : "", text);
	}
	if (strlen(network) + strlen(container_id) + strlen(ifname) + strlen(list) + 12 >
	    FLAT_ALIAS_LEN) {
		hashed(container_id, id_hash);
		container_id = id_hash;
	}
	if (strlen(network) + strlen(container_id) + strlen(ifname) + strlen(list) + 12 >
	    FLAT_ALIAS_LEN) {
		hashed(network, network_hash);
		network = network_hash;
	}
	int len = snprintf(ret_text, FLAT_ALIAS_LEN, "flatnet %s %s %s %s", network, container_id,
			   ifname, list);
	/* who it is, for the reader of `ip link`, where there is room */
	if (pod_namespace && pod_name &&
	    strlen(pod_namespace) + strlen(pod_name) + 3 + (size_t)len <= FLAT_ALIAS_LEN)
		snprintf(ret_text + len, FLAT_ALIAS_LEN - (size_t)len, " %s/%s", pod_namespace,
			 pod_name);
}

/* Cuts the next word off *text into buf; false when there is none or it does not fit. */
static bool word(const char **text, char *buf, size_t size)
{
	size_t len = strcspn(*text, " ");
	if (!len || len >= size)
		return false;
	memcpy(buf, *text, len);
	buf[len] = '\0';
	*text += len;
	*text += **text == ' ';
	return true;
}

bool flat_alias_parse(const char *text, struct flat_alias *ret_alias)
{
	struct flat_alias alias = { 0 };
	char list[FLAT_ALIAS_LEN], *save = NULL;
	if (strncmp(text, "flatnet ", 8) != 0)
		return false;
	text += 8;
	if (!word(&text, alias.network, sizeof alias.network) ||
	    !word(&text, alias.container_id, sizeof alias.container_id) ||
	    !word(&text, alias.ifname, sizeof alias.ifname) || !word(&text, list, sizeof list))
		return false;
	/* the next one would not have fitted, had it been the longest */
	alias.cut = strlen(list) + FLAT_IP_TEXT + 1 > LIST_LEN;
	if (strcmp(list, "-") != 0)
		for (char *ip = strtok_r(list, ",", &save); ip; ip = strtok_r(NULL, ",", &save))
			if (alias.ip_count == FLAT_MAX_LEASE ||
			    !flat_ip_parse(ip, &alias.ips[alias.ip_count++]))
				return false;
	*ret_alias = alias;
	return true;
}

const char *flat_alias_pod(const char *text)
{
	if (strncmp(text, "flatnet ", 8) != 0)
		return NULL;
	for (int words = 0; words < 5 && text; words++) {
		text = strchr(text, ' ');
		text = text ? text + 1 : NULL;
	}
	return text && text[0] ? text : NULL;
}
