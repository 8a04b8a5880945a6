// SPDX-License-Identifier: Apache-2.0
#include "tls.h"

#include "file.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct flat_tls {
	gnutls_session_t session;
	gnutls_certificate_credentials_t credentials;
	bool done;	  /* the handshake */
	const char *host; /* what the certificate must be for */
	const char *ca;	  /* for messages */
	char text[];	  /* host, ca */
};

static int fail_tls(struct flat_err *err, int r, const char *what)
{
	return flat_fail(err, FLAT_CODE_IO, EPROTO, "%s: %s", what, gnutls_strerror(r));
}

/* The text that is given, or the file's, which the caller frees by *ret_file. */
static int load(const char *data, const char *path, const char *what, char **ret_file,
		gnutls_datum_t *ret_text, struct flat_err *err)
{
	if (!data) {
		int r = flat_file_read(path, what, ret_file, err);
		if (r < 0)
			return r;
		data = *ret_file;
	}
	*ret_text =
		(gnutls_datum_t){ .data = (unsigned char *)data, .size = (unsigned)strlen(data) };
	return 0;
}

static int set_ca(struct flat_tls *tls, const struct flat_http_target *target, struct flat_err *err)
{
	if (!target->ca_data && !target->ca_file) {
		int r = gnutls_certificate_set_x509_system_trust(tls->credentials);
		return r < 0 ? fail_tls(err, r, "load the system's CA certificates") : 0;
	}
	flat_auto_free char *file = NULL;
	gnutls_datum_t text;
	int r = load(target->ca_data, target->ca_file, "CA file", &file, &text, err);
	if (r < 0)
		return r;
	r = gnutls_certificate_set_x509_trust_mem(tls->credentials, &text, GNUTLS_X509_FMT_PEM);
	if (r > 0)
		return 0;
	return flat_fail(err, FLAT_CODE_IO, 0, "there is no PEM certificate in %s: %s", tls->ca,
			 r ? gnutls_strerror(r) : "it is empty");
}

static int set_client(struct flat_tls *tls, const struct flat_http_target *target,
		      struct flat_err *err)
{
	flat_auto_free char *cert_file = NULL, *key_file = NULL;
	gnutls_datum_t cert, key;
	int r = load(target->cert_data, target->cert_file, "client certificate", &cert_file, &cert,
		     err);
	if (r < 0)
		return r;
	r = load(target->key_data, target->key_file, "client key", &key_file, &key, err);
	if (r < 0)
		return r;
	r = gnutls_certificate_set_x509_key_mem2(tls->credentials, &cert, &key, GNUTLS_X509_FMT_PEM,
						 NULL, 0);
	if (key_file)
		explicit_bzero(key_file, strlen(key_file));
	if (r >= 0)
		return 0;
	return flat_fail(err, FLAT_CODE_IO, 0, "client certificate '%s' with key '%s': %s",
			 target->cert_data ? "(data)" : target->cert_file,
			 target->key_data ? "(data)" : target->key_file, gnutls_strerror(r));
}

static int prepare(struct flat_tls *tls, const struct flat_http_target *target, int fd,
		   struct flat_err *err)
{
	int r = gnutls_certificate_allocate_credentials(&tls->credentials);
	if (r < 0)
		return fail_tls(err, r, "prepare TLS");
	if (!target->insecure && (r = set_ca(tls, target, err)) < 0)
		return r;
	if ((target->cert_data || target->cert_file) && (r = set_client(tls, target, err)) < 0)
		return r;
	/* no tickets: connections are few and long; what resumption needs would be kept for each */
	r = gnutls_init(&tls->session,
			GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS);
	if (r < 0)
		return fail_tls(err, r, "prepare TLS");
	r = gnutls_set_default_priority_append(tls->session, "-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2",
					       NULL, 0);
	if (r >= 0)
		r = gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, tls->credentials);
	struct flat_ip ip;
	if (r >= 0 && !flat_ip_parse(tls->host, &ip)) /* RFC 6066: names only */
		r = gnutls_server_name_set(tls->session, GNUTLS_NAME_DNS, tls->host,
					   strlen(tls->host));
	gnutls_datum_t alpn = { .data = (unsigned char *)"http/1.1", .size = 8 };
	if (r >= 0)
		r = gnutls_alpn_set_protocols(tls->session, &alpn, 1, 0);
	if (r < 0)
		return fail_tls(err, r, "prepare TLS");
	gnutls_transport_set_int(tls->session, fd);
	gnutls_handshake_set_timeout(tls->session, GNUTLS_INDEFINITE_TIMEOUT);
	return 0;
}

int flat_tls_open(const struct flat_http_target *target, const char *host, int fd,
		  struct flat_tls **ret_tls, struct flat_err *err)
{
	if (target->server_name)
		host = target->server_name;
	const char *ca = target->ca_file;
	if (target->ca_data)
		ca = "the given CA data";
	else if (!ca)
		ca = "the system's CA certificates";
	const char *quote = ca == target->ca_file ? "'" : "";
	size_t host_size = strlen(host) + 1, ca_size = strlen(ca) + sizeof "CA file ''";
	struct flat_tls *tls = calloc(1, sizeof *tls + host_size + ca_size);
	if (!tls)
		return flat_fail(err, FLAT_CODE_IO, ENOMEM, "prepare TLS");
	memcpy(tls->text, host, host_size);
	tls->host = tls->text;
	snprintf(tls->text + host_size, ca_size, "%s%s%s%s", *quote ? "CA file " : "", quote, ca,
		 quote);
	tls->ca = tls->text + host_size;
	int r = prepare(tls, target, fd, err);
	if (r < 0) {
		flat_tls_close(tls);
		return r;
	}
	if (!target->insecure)
		gnutls_session_set_verify_cert(tls->session, tls->host, 0);
	*ret_tls = tls;
	return 0;
}

void flat_tls_close(struct flat_tls *tls)
{
	if (!tls)
		return;
	if (tls->session) {
		if (tls->done)
			gnutls_bye(tls->session, GNUTLS_SHUT_WR); /* what goes at once, goes */
		gnutls_deinit(tls->session);
	}
	if (tls->credentials)
		gnutls_certificate_free_credentials(tls->credentials);
	free(tls);
}

/* "192.0.2.1, api.example" */
static void print_names(gnutls_x509_crt_t cert, char *buf, size_t size)
{
	size_t used = 0;
	buf[0] = '\0';
	for (unsigned i = 0; i < 64; i++) {
		char name[256];
		size_t len = sizeof name - 1;
		int type = gnutls_x509_crt_get_subject_alt_name(cert, i, name, &len, NULL);
		if (type == GNUTLS_E_SHORT_MEMORY_BUFFER)
			continue;
		if (type < 0)
			break;
		char text[FLAT_IP_TEXT];
		struct flat_ip ip = { .family = len == 4 ? AF_INET : AF_INET6 };
		if (type == GNUTLS_SAN_IPADDRESS && (len == 4 || len == 16)) {
			memcpy(ip.bytes, name, len);
			snprintf(name, sizeof name, "%s", flat_ip_text(&ip, text));
		} else if (type == GNUTLS_SAN_DNSNAME) {
			name[len] = '\0';
		} else {
			continue;
		}
		int n = snprintf(buf + used, size - used, "%s%s", used ? ", " : "", name);
		if (n < 0 || (size_t)n >= size - used) {
			buf[used] = '\0';
			break;
		}
		used += (size_t)n;
	}
}

static void print_day(time_t when, char *buf, size_t size)
{
	struct tm tm;
	if (when == (time_t)-1 || !gmtime_r(&when, &tm) ||
	    !strftime(buf, size, "%Y-%m-%dT%H:%M:%SZ", &tm))
		snprintf(buf, size, "an unknown time");
}

static int fail_certificate(struct flat_tls *tls, unsigned status, struct flat_err *err)
{
	char text[256] = "", names[256] = "", issuer[200] = "", from[32], until[32];
	time_t begin = -1, end = -1;
	unsigned count = 0;
	const gnutls_datum_t *peers = gnutls_certificate_get_peers(tls->session, &count);
	gnutls_x509_crt_t cert;
	if (peers && count && gnutls_x509_crt_init(&cert) >= 0) {
		if (gnutls_x509_crt_import(cert, &peers[0], GNUTLS_X509_FMT_DER) >= 0) {
			size_t size = sizeof issuer;
			if (gnutls_x509_crt_get_issuer_dn(cert, issuer, &size) < 0)
				issuer[0] = '\0';
			print_names(cert, names, sizeof names);
			begin = gnutls_x509_crt_get_activation_time(cert);
			end = gnutls_x509_crt_get_expiration_time(cert);
		}
		gnutls_x509_crt_deinit(cert);
	}
	print_day(begin, from, sizeof from);
	print_day(end, until, sizeof until);
	const int code = FLAT_CODE_IO, sys = 0;
	if (status & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNER_NOT_CA |
		      GNUTLS_CERT_SIGNATURE_FAILURE)) {
		flat_fail(err, code, sys, "certificate of '%s' is not signed by %s", tls->host,
			  tls->ca);
		return flat_detail(err, "it was issued by '%s': give that CA's certificate",
				   issuer);
	}
	if (status & GNUTLS_CERT_EXPIRED) {
		flat_fail(err, code, sys, "certificate of '%s' expired at %s", tls->host, until);
		return flat_detail(err, "renew the server's certificate, or its CA's, if the clock "
					"of this machine is right");
	}
	if (status & GNUTLS_CERT_NOT_ACTIVATED) {
		flat_fail(err, code, sys, "certificate of '%s' is valid only from %s on", tls->host,
			  from);
		return flat_detail(err, "is the clock of this machine right?");
	}
	if (status & GNUTLS_CERT_UNEXPECTED_OWNER) {
		flat_fail(err, code, sys, "certificate is not for '%s', but for %s", tls->host,
			  names[0] ? names : "no name at all");
		return flat_detail(err,
				   "use one of its names, or have a certificate issued that "
				   "names '%s' as well",
				   tls->host);
	}
	gnutls_datum_t said;
	if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &said, 0) >= 0) {
		snprintf(text, sizeof text, "%s", (const char *)said.data);
		gnutls_free(said.data);
	}
	return flat_fail(err, code, sys, "certificate of '%s' is not trusted: %s", tls->host, text);
}

static int fail_session(struct flat_tls *tls, int r, const char *what, struct flat_err *err)
{
	if (r == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR || r == GNUTLS_E_CERTIFICATE_ERROR)
		return fail_certificate(tls, gnutls_session_get_verify_cert_status(tls->session),
					err);
	if (r == GNUTLS_E_FATAL_ALERT_RECEIVED) {
		gnutls_alert_description_t alert = gnutls_alert_get(tls->session);
		const char *name = gnutls_alert_get_name(alert);
		flat_fail(err, FLAT_CODE_IO, EPROTO, "%s: the server refused: %s", what,
			  name ? name : "unknown alert");
		if (alert == GNUTLS_A_CERTIFICATE_REQUIRED || alert == GNUTLS_A_BAD_CERTIFICATE ||
		    alert == GNUTLS_A_UNKNOWN_CA || alert == GNUTLS_A_CERTIFICATE_EXPIRED)
			flat_detail(err, "it wants a client certificate that its CA signed");
		return -EPROTO;
	}
	if (r == GNUTLS_E_PREMATURE_TERMINATION)
		return flat_fail(err, FLAT_CODE_IO, ECONNRESET, "%s", what);
	if (r == GNUTLS_E_PUSH_ERROR || r == GNUTLS_E_PULL_ERROR)
		return flat_fail(err, FLAT_CODE_IO, errno ? errno : ECONNRESET, "%s", what);
	fail_tls(err, r, what);
	if (r == GNUTLS_E_UNEXPECTED_PACKET || r == GNUTLS_E_UNEXPECTED_PACKET_LENGTH ||
	    r == GNUTLS_E_UNSUPPORTED_VERSION_PACKET)
		flat_detail(err, "does that port speak TLS? else begin the URL with http:");
	return -EPROTO;
}

int flat_tls_handshake(struct flat_tls *tls, struct flat_err *err)
{
	errno = 0;
	int r = gnutls_handshake(tls->session);
	if (r == GNUTLS_E_SUCCESS) {
		tls->done = true;
		return 1;
	}
	if (!gnutls_error_is_fatal(r))
		return 0;
	return fail_session(tls, r, "TLS handshake", err);
}

bool flat_tls_wants_write(const struct flat_tls *tls)
{
	return gnutls_record_get_direction(tls->session) == 1;
}

ssize_t flat_tls_read(struct flat_tls *tls, void *buf, size_t size, struct flat_err *err)
{
	errno = 0;
	ssize_t n = gnutls_record_recv(tls->session, buf, size);
	if (n >= 0)
		return n;
	if (!gnutls_error_is_fatal((int)n))
		return -EAGAIN;
	return fail_session(tls, (int)n, "read", err);
}

ssize_t flat_tls_write(struct flat_tls *tls, const void *data, size_t len, struct flat_err *err)
{
	errno = 0;
	ssize_t n = gnutls_record_send(tls->session, data, len);
	if (n >= 0)
		return n;
	if (!gnutls_error_is_fatal((int)n))
		return -EAGAIN;
	return fail_session(tls, (int)n, "write", err);
}

bool flat_tls_pending(const struct flat_tls *tls)
{
	return gnutls_record_check_pending(tls->session) > 0;
}
