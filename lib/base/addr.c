// SPDX-License-Identifier: Apache-2.0
#include <flatnet/base.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

bool flat_ip_parse(const char *text, struct flat_ip *ret_ip)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	struct flat_ip ip = { 0 };
	/* inet_pton takes neither leading zeros in a dotted quad nor a zone, which is what we want
	 */
	if (inet_pton(AF_INET, text, ip.bytes) == 1) {
		ip.family = AF_INET;
	} else if (inet_pton(AF_INET6, text, ip.bytes) == 1) {
		ip.family = AF_INET6;
		if (!memcmp(ip.bytes, mapped, sizeof mapped)) {
			memmove(ip.bytes, ip.bytes + 12, 4);
			memset(ip.bytes + 4, 0, 12);
			ip.family = AF_INET;
		}
	} else {
		return false;
	}
	*ret_ip = ip;
	return true;
}

bool flat_prefix_parse(const char *text, struct flat_prefix *ret_prefix)
{
	char address[FLAT_IP_TEXT];
	const char *slash = strchr(text, '/');
	struct flat_prefix prefix;
	uint64_t len;
	if (!slash || (size_t)(slash - text) >= sizeof address)
		return false;
	memcpy(address, text, (size_t)(slash - text));
	address[slash - text] = '\0';
	if (!flat_ip_parse(address, &prefix.ip))
		return false;
	/* an IPv4-mapped prefix would need its length mapped, too: nobody writes that */
	if (prefix.ip.family == AF_INET && strchr(address, ':'))
		return false;
	if (!flat_uint_parse(slash + 1, flat_ip_bits(&prefix.ip), &len))
		return false;
	prefix.len = (uint8_t)len;
	*ret_prefix = prefix;
	return true;
}

bool flat_mac_parse(const char *text, struct flat_mac *ret_mac)
{
	struct flat_mac mac;
	char separator = '\0';
	for (int i = 0; i < 6; i++) {
		int high = flat_hex_digit(text[0]), low = high < 0 ? -1 : flat_hex_digit(text[1]);
		if (low < 0)
			return false;
		mac.bytes[i] = (uint8_t)(high << 4 | low);
		text += 2;
		if (i == 5)
			break;
		if (i == 0 && (*text == ':' || *text == '-'))
			separator = *text;
		if (!separator || *text++ != separator)
			return false;
	}
	if (*text)
		return false;
	*ret_mac = mac;
	return true;
}

const char *flat_ip_text(const struct flat_ip *ip, char *buf)
{
	if (!ip->family || !inet_ntop(ip->family, ip->bytes, buf, FLAT_IP_TEXT))
		strcpy(buf, "none");
	return buf;
}

const char *flat_prefix_text(const struct flat_prefix *prefix, char *buf)
{
	flat_ip_text(&prefix->ip, buf);
	size_t n = strlen(buf);
	snprintf(buf + n, FLAT_PREFIX_TEXT - n, "/%u", prefix->len);
	return buf;
}

const char *flat_mac_text(const struct flat_mac *mac, char *buf)
{
	const uint8_t *b = mac->bytes;
	snprintf(buf, FLAT_MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4],
		 b[5]);
	return buf;
}

unsigned flat_ip_bits(const struct flat_ip *ip)
{
	return ip->family == AF_INET ? 32 : 128;
}

size_t flat_ip_size(const struct flat_ip *ip)
{
	return ip->family == AF_INET ? 4 : 16;
}

bool flat_ip_equal(const struct flat_ip *a, const struct flat_ip *b)
{
	return flat_ip_compare(a, b) == 0;
}

int flat_ip_compare(const struct flat_ip *a, const struct flat_ip *b)
{
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	return memcmp(a->bytes, b->bytes, flat_ip_size(a));
}

struct flat_ip flat_ip_next(const struct flat_ip *ip)
{
	struct flat_ip next = *ip;
	for (size_t i = flat_ip_size(ip); i-- > 0;)
		if (++next.bytes[i])
			break;
	return next;
}

struct flat_ip flat_ip_prev(const struct flat_ip *ip)
{
	struct flat_ip prev = *ip;
	for (size_t i = flat_ip_size(ip); i-- > 0;)
		if (prev.bytes[i]--)
			break;
	return prev;
}

/* The bits of byte i that belong to the host part of a prefix of this length. */
static uint8_t host_mask(unsigned len, size_t i)
{
	if (len >= 8 * (i + 1))
		return 0;
	if (len <= 8 * i)
		return 0xff;
	return (uint8_t)(0xff >> (len - 8 * i));
}

struct flat_ip flat_prefix_first(const struct flat_prefix *prefix)
{
	struct flat_ip ip = prefix->ip;
	for (size_t i = 0; i < flat_ip_size(&ip); i++)
		ip.bytes[i] &= (uint8_t)~host_mask(prefix->len, i);
	return ip;
}

struct flat_ip flat_prefix_last(const struct flat_prefix *prefix)
{
	struct flat_ip ip = prefix->ip;
	for (size_t i = 0; i < flat_ip_size(&ip); i++)
		ip.bytes[i] |= host_mask(prefix->len, i);
	return ip;
}

bool flat_prefix_contains(const struct flat_prefix *prefix, const struct flat_ip *ip)
{
	if (prefix->ip.family != ip->family)
		return false;
	struct flat_prefix other = { .ip = *ip, .len = prefix->len };
	struct flat_ip a = flat_prefix_first(prefix), b = flat_prefix_first(&other);
	return flat_ip_equal(&a, &b);
}

bool flat_prefix_overlaps(const struct flat_prefix *a, const struct flat_prefix *b)
{
	return a->len <= b->len ? flat_prefix_contains(a, &b->ip) : flat_prefix_contains(b, &a->ip);
}

bool flat_prefix_equal(const struct flat_prefix *a, const struct flat_prefix *b)
{
	return a->len == b->len && flat_ip_equal(&a->ip, &b->ip);
}
