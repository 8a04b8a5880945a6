// SPDX-License-Identifier: Apache-2.0
/*
 * The client against a server of the test's own, in a process of its own, on the loopback. What the
 * server says is scripted by the path. With TLS the server is `openssl s_server -HTTP`-like: a
 * small GnuTLS server here, with certificates that openssl(1) makes once per run.
 */
#include "../../agent/http.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/flat-http-XXXXXX";

/* ---- the server ---- */

struct peer {
	int fd;
	gnutls_session_t session;
};

static ssize_t peer_read(struct peer *peer, char *buf, size_t size)
{
	return peer->session ? gnutls_record_recv(peer->session, buf, size)
			     : read(peer->fd, buf, size);
}

static void say(struct peer *peer, const char *text)
{
	size_t len = strlen(text);
	while (len) {
		ssize_t n = peer->session ? gnutls_record_send(peer->session, text, len)
					  : write(peer->fd, text, len);
		if (n <= 0)
			_exit(0);
		text += n;
		len -= (size_t)n;
	}
}

/* The whole request, body included. */
static bool next_request(struct peer *peer, char *buf, size_t size)
{
	size_t len = 0;
	for (;;) {
		ssize_t n = peer_read(peer, buf + len, size - 1 - len);
		if (n <= 0)
			return false;
		len += (size_t)n;
		buf[len] = '\0';
		if (buf[0] == 22) { /* TLS, where none is spoken */
			say(peer, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
			return false;
		}
		const char *end = strstr(buf, "\r\n\r\n"), *length = strstr(buf, "Content-Length:");
		if (end && (!length || strlen(end + 4) >= (size_t)atoi(length + 15)))
			return true;
	}
}

static void serve(struct peer *peer)
{
	static char buf[65536];
	static char big[300001];
	char text[256];
	int requests = 0;
	while (next_request(peer, buf, sizeof buf)) {
		requests++;
		char *path = strchr(buf, ' ') + 1;
		if (!strncmp(path, "/count", 6)) {
			snprintf(text, sizeof text,
				 "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n%03d", requests);
			say(peer, text);
		} else if (!strncmp(path, "/chunks", 7)) {
			say(peer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
				  "3\r\nabc\r\n");
			usleep(20000);
			say(peer, "2;ext=1\r\nde\r\n0\r\nTrailer: x\r\n\r\n");
		} else if (!strncmp(path, "/eof", 4)) {
			say(peer, "HTTP/1.1 200 OK\r\n\r\nuntil the end");
			return;
		} else if (!strncmp(path, "/cut", 4)) {
			say(peer, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
			return;
		} else if (!strncmp(path, "/echo", 5)) {
			snprintf(text, sizeof text,
				 "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", strlen(buf));
			say(peer, text);
			say(peer, buf);
		} else if (!strncmp(path, "/busy", 5)) {
			say(peer,
			    "HTTP/1.1 429 Too Many\r\nretry-AFTER: 7\r\nContent-Length: 4\r\n\r\n"
			    "wait");
		} else if (!strncmp(path, "/hang", 5)) {
			usleep(5000000);
		} else if (!strncmp(path, "/drip", 5)) {
			say(peer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
			for (int i = 0; i < 6; i++) {
				usleep(100000);
				say(peer, "1\r\n.\r\n");
			}
			usleep(5000000);
		} else if (!strncmp(path, "/continue", 9)) {
			say(peer, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
		} else if (!strncmp(path, "/once", 5)) {
			say(peer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
			return; /* closes without a word */
		} else if (!strncmp(path, "/big", 4)) {
			memset(big, 'x', sizeof big - 1);
			say(peer, "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n");
			say(peer, big);
		} else if (!strncmp(path, "/headers", 8)) {
			say(peer, "HTTP/1.1 200 OK\r\n");
			for (int i = 0; i < 100000; i++)
				say(peer, "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n");
			say(peer, "\r\n");
		} else if (!strncmp(path, "/twice", 6)) {
			say(peer, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
				  "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2");
		} else {
			say(peer, "SSH-2.0-nonsense\r\n\r\n");
			return;
		}
	}
}

struct server {
	pid_t pid;
	char url[64];
};

static int listen_on_loopback(uint16_t *ret_port)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof address;
	assert_int_equal(bind(fd, (void *)&address, len), 0);
	assert_int_equal(getsockname(fd, (void *)&address, &len), 0);
	assert_int_equal(listen(fd, 16), 0);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

static gnutls_certificate_credentials_t server_credentials(const char *cert, bool ask)
{
	char cert_path[128], key_path[128], ca_path[128];
	snprintf(cert_path, sizeof cert_path, "%s/%s.crt", dir, cert);
	snprintf(key_path, sizeof key_path, "%s/%s.key", dir, cert);
	snprintf(ca_path, sizeof ca_path, "%s/ca.crt", dir);
	gnutls_certificate_credentials_t credentials;
	gnutls_certificate_allocate_credentials(&credentials);
	if (gnutls_certificate_set_x509_key_file(credentials, cert_path, key_path,
						 GNUTLS_X509_FMT_PEM) < 0)
		_exit(3);
	if (ask)
		gnutls_certificate_set_x509_trust_file(credentials, ca_path, GNUTLS_X509_FMT_PEM);
	return credentials;
}

/* One process a connection. cert NULL: no TLS. */
static struct server start_server(const char *cert, bool ask)
{
	uint16_t port;
	int listener = listen_on_loopback(&port);
	struct server server;
	snprintf(server.url, sizeof server.url, "http%s://127.0.0.1:%u", cert ? "s" : "", port);
	server.pid = fork();
	if (server.pid) {
		close(listener);
		return server;
	}
	setpgid(0, 0);
	close(STDOUT_FILENO); /* whoever reads it waits for us else */
	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGALRM, SIG_DFL);
	alarm(60);
	gnutls_certificate_credentials_t credentials = cert ? server_credentials(cert, ask) : NULL;
	for (;;) {
		struct peer peer = { .fd = accept(listener, NULL, NULL) };
		if (peer.fd < 0)
			continue;
		if (fork()) {
			close(peer.fd);
			continue;
		}
		alarm(30);
		if (cert) {
			gnutls_init(&peer.session, GNUTLS_SERVER);
			gnutls_set_default_priority(peer.session);
			gnutls_credentials_set(peer.session, GNUTLS_CRD_CERTIFICATE, credentials);
			gnutls_certificate_server_set_request(peer.session,
							      ask ? GNUTLS_CERT_REQUIRE
								  : GNUTLS_CERT_IGNORE);
			if (ask)
				gnutls_session_set_verify_cert(peer.session, NULL, 0);
			gnutls_transport_set_int(peer.session, peer.fd);
			if (gnutls_handshake(peer.session) < 0)
				_exit(0);
		}
		serve(&peer);
		if (peer.session)
			gnutls_bye(peer.session, GNUTLS_SHUT_WR);
		_exit(0);
	}
}

static void stop_server(struct server *server)
{
	setpgid(server->pid, server->pid);
	kill(-server->pid, SIGKILL);
	waitpid(server->pid, NULL, 0);
}

/* ---- the client ---- */

struct result {
	struct ev_loop *loop;
	char data[1 << 16];
	size_t len, pieces;
	size_t stop_after; /* data() says no after so many bytes; 0: never */
	int status, retry_after, calls;
	char body[1024];
	struct flat_err err;
	struct flat_http *close_in_data, *close_in_done;
	struct flat_http_call *cancel_in_data;
};

static bool take(void *arg, const char *data, size_t len)
{
	struct result *result = arg;
	result->pieces++;
	if (result->len + len < sizeof result->data)
		memcpy(result->data + result->len, data, len);
	result->len += len;
	if (result->cancel_in_data) {
		flat_http_cancel(result->cancel_in_data);
		ev_break(result->loop, EVBREAK_ALL);
	}
	if (result->close_in_data) {
		flat_http_close(result->close_in_data);
		ev_break(result->loop, EVBREAK_ALL);
	}
	return !result->stop_after || result->len < result->stop_after;
}

static void done(void *arg, int status, const char *body, int retry_after,
		 const struct flat_err *err)
{
	struct result *result = arg;
	result->calls++;
	result->status = status;
	result->retry_after = retry_after;
	snprintf(result->body, sizeof result->body, "%s", body);
	if (err)
		result->err = *err;
	if (result->close_in_done)
		flat_http_close(result->close_in_done);
	ev_break(result->loop, EVBREAK_ALL);
}

static struct flat_http *open_target(struct ev_loop *loop, const struct flat_http_target *target)
{
	struct flat_err err = { 0 };
	struct flat_http *http;
	if (flat_http_open(loop, target, &http, &err) < 0)
		fail_msg("%s", err.msg);
	return http;
}

static struct flat_http_call *begin(struct flat_http *http, struct result *result, const char *path,
				    double timeout, bool stream)
{
	struct flat_http_request request = { .method = "GET",
					     .path = path,
					     .timeout = timeout,
					     .stream = stream,
					     .max_body = 400000,
					     .data = take,
					     .done = done,
					     .arg = result };
	struct ev_loop *loop = result->loop;
	memset(result, 0, sizeof *result);
	result->loop = loop;
	struct flat_http_call *call = flat_http_start(http, &request, NULL);
	assert_non_null(call);
	assert_int_equal(result->calls, 0);
	return call;
}

static void get(struct flat_http *http, struct result *result, const char *path)
{
	begin(http, result, path, 5., false);
	ev_run(result->loop, 0);
	assert_int_equal(result->calls, 1);
	if (result->len < sizeof result->data)
		result->data[result->len] = '\0';
}

static struct result *new_result(void)
{
	struct result *result = test_calloc(1, sizeof *result);
	result->loop = ev_loop_new(0);
	return result;
}

static void free_result(struct result *result)
{
	ev_loop_destroy(result->loop);
	test_free(result);
}

static struct flat_http *open_url(struct result *result, const char *url)
{
	struct flat_http_target target = { .urls = &url, .url_count = 1 };
	return open_target(result->loop, &target);
}

static void test_answers(void **state)
{
	(void)state;
	struct server server = start_server(NULL, false);
	struct result *r = new_result();
	struct flat_http *http = open_url(r, server.url);
	get(http, r, "/chunks?limit=1");
	assert_int_equal(r->status, 200);
	assert_string_equal(r->data, "abcde");
	get(http, r, "/eof");
	assert_string_equal(r->data, "until the end");
	assert_int_equal(r->status, 200);
	get(http, r, "/busy");
	assert_int_equal(r->status, 429);
	assert_int_equal(r->retry_after, 7);
	assert_string_equal(r->body, "wait");
	assert_int_equal(r->len, 0);
	get(http, r, "/continue");
	assert_int_equal(r->status, 204);
	assert_int_equal(r->err.code, 0);
	get(http, r, "/big");
	assert_int_equal(r->len, 300000);
	flat_http_close(http);
	stop_server(&server);
	free_result(r);
}

static void test_bad_answers(void **state)
{
	(void)state;
	struct server server = start_server(NULL, false);
	struct result *r = new_result();
	struct flat_http *http = open_url(r, server.url);
	char expected[128];
	get(http, r, "/cut?secret=1");
	snprintf(expected, sizeof expected, "GET %s/cut: read answer: Connection reset by peer",
		 server.url);
	assert_string_equal(r->err.msg, expected);
	get(http, r, "/nonsense");
	assert_non_null(strstr(r->err.msg, "read answer: "));
	get(http, r, "/headers");
	assert_non_null(strstr(r->err.msg, "read answer: too many header bytes"));
	get(http, r, "/twice"); /* what nobody asked for is not taken for an answer */
	assert_string_equal(r->data, "1");
	get(http, r, "/count");
	assert_string_equal(r->data, "001");
	struct flat_http_request request = { .method = "GET",
					     .path = "/big",
					     .timeout = 5,
					     .max_body = 1000,
					     .data = take,
					     .done = done,
					     .arg = r };
	r->calls = 0;
	r->err = (struct flat_err){ 0 };
	flat_http_start(http, &request, NULL);
	ev_run(r->loop, 0);
	assert_int_equal(r->calls, 1);
	assert_int_equal(r->err.sys, EFBIG);
	flat_http_close(http);
	stop_server(&server);
	free_result(r);
}

static void test_keeps_connections(void **state)
{
	(void)state;
	struct server server = start_server(NULL, false);
	struct result *r = new_result();
	struct flat_http *http = open_url(r, server.url);
	for (int i = 1; i < 4; i++) {
		char expected[8];
		snprintf(expected, sizeof expected, "%03d", i);
		get(http, r, "/count");
		assert_string_equal(r->data, expected);
	}
	/* closed by the server after the answer: the next request meets that, and another is made
	 */
	get(http, r, "/once");
	assert_string_equal(r->data, "ok");
	get(http, r, "/count");
	assert_string_equal(r->data, "001");
	flat_http_close(http);
	stop_server(&server);
	free_result(r);
}

static void test_times_out(void **state)
{
	(void)state;
	struct server server = start_server(NULL, false);
	struct result *r = new_result();
	struct flat_http *http = open_url(r, server.url);
	int64_t start = flat_now_ms();
	begin(http, r, "/hang", 0.3, false);
	ev_run(r->loop, 0);
	assert_int_equal(r->err.sys, ETIMEDOUT);
	assert_non_null(strstr(r->err.msg, "no whole answer within 0.3 s"));
	/* a stream lives as long as it talks */
	start = flat_now_ms();
	begin(http, r, "/drip", 0.4, true);
	ev_run(r->loop, 0);
	assert_int_equal(r->len, 6);
	assert_int_equal(r->err.sys, ETIMEDOUT);
	assert_non_null(strstr(r->err.msg, "nothing heard for 0.4 s"));
	assert_true(flat_now_ms() - start > 900 && flat_now_ms() - start < 3000);
	/* anything else does not */
	begin(http, r, "/drip", 0.4, false);
	ev_run(r->loop, 0);
	assert_in_range(r->len, 1, 5);
	flat_http_close(http);
	stop_server(&server);
	free_result(r);
}

/* From inside a callback, everything may be torn down. */
static void test_cancels(void **state)
{
	(void)state;
	struct server server = start_server(NULL, false);
	struct result *r = new_result();
	struct flat_http *http = open_url(r, server.url);
	flat_http_cancel(begin(http, r, "/count", 5., false));
	struct flat_http_call *call = begin(http, r, "/chunks", 5., true);
	r->cancel_in_data = call;
	ev_run(r->loop, 0);
	assert_int_equal(r->calls, 0);
	assert_int_equal(r->pieces, 1);
	begin(http, r, "/big", 5., true);
	r->stop_after = 1000;
	ev_run(r->loop, 0);
	assert_int_equal(r->calls, 1);
	assert_int_equal(r->err.sys, ECANCELED);
	begin(http, r, "/count", 5., false);
	r->close_in_done = http;
	ev_run(r->loop, 0);
	assert_int_equal(r->calls, 1);
	http = open_url(r, server.url);
	begin(http, r, "/chunks", 5., true);
	r->close_in_data = http;
	ev_run(r->loop, 0);
	assert_int_equal(r->calls, 0);
	http = open_url(r, server.url);
	begin(http, r, "/hang", 5., false);
	flat_http_close(http);
	ev_run(r->loop, EVRUN_NOWAIT);
	assert_int_equal(r->calls, 0);
	stop_server(&server);
	free_result(r);
}

static void test_rotates(void **state)
{
	(void)state;
	uint16_t port;
	int closed = listen_on_loopback(&port); /* a port that nobody listens at */
	close(closed);
	char dead[64];
	snprintf(dead, sizeof dead, "http://127.0.0.1:%u", port);
	struct server server = start_server(NULL, false);
	const char *urls[] = { dead, server.url };
	struct result *r = new_result();
	struct flat_http_target target = { .urls = urls, .url_count = 2 };
	struct flat_http *http = open_target(r->loop, &target);
	get(http, r, "/count");
	assert_int_equal(r->status, 200);
	get(http, r, "/count");
	assert_string_equal(r->data, "002"); /* stays with who answers */
	stop_server(&server);
	get(http, r, "/count");
	assert_int_equal(r->calls, 1);
	assert_non_null(strstr(r->err.msg, "Connection refused"));
	flat_http_close(http);
	free_result(r);
}

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void test_authorizes(void **state)
{
	(void)state;
	char token[128];
	snprintf(token, sizeof token, "%s/token", dir);
	struct server server = start_server(NULL, false);
	struct result *r = new_result();
	const char *urls[] = { server.url };
	struct flat_http_target target = { .urls = urls, .url_count = 1, .token_file = token };
	unlink(token);
	struct flat_http *http = open_target(r->loop, &target);
	get(http, r, "/echo");
	assert_non_null(strstr(r->err.msg, "token file"));
	assert_int_equal(r->err.sys, ENOENT);
	write_file(token, "first\n");
	get(http, r, "/echo");
	assert_non_null(strstr(r->data, "\r\nAuthorization: Bearer first\r\n"));
	write_file(token, "  second  ");
	get(http, r, "/echo");
	assert_non_null(strstr(r->data, "\r\nAuthorization: Bearer second\r\n"));
	write_file(token, "third\r\nX-Evil: 1");
	get(http, r, "/echo");
	assert_non_null(strstr(r->err.msg, "has characters that no token has"));
	flat_http_close(http);
	target = (struct flat_http_target){ .urls = urls, .url_count = 1, .basic = "me:secret" };
	http = open_target(r->loop, &target);
	struct flat_http_request request = { .method = "PATCH",
					     .path = "/echo",
					     .body = "{}",
					     .type = "application/merge-patch+json",
					     .timeout = 5,
					     .data = take,
					     .done = done,
					     .arg = r };
	r->len = 0;
	flat_http_start(http, &request, NULL);
	ev_run(r->loop, 0);
	assert_non_null(strstr(r->data, "PATCH /echo HTTP/1.1\r\nHost: 127.0.0.1:"));
	assert_non_null(strstr(r->data, "\r\nAuthorization: Basic bWU6c2VjcmV0\r\n"));
	assert_non_null(strstr(r->data, "\r\nContent-Type: application/merge-patch+json\r\n"
					"Content-Length: 2\r\n\r\n{}"));
	/* a request's own */
	request.authorization = "its-own";
	r->len = 0;
	memset(r->data, 0, sizeof r->data);
	flat_http_start(http, &request, NULL);
	ev_run(r->loop, 0);
	assert_non_null(strstr(r->data, "\r\nAuthorization: its-own\r\n"));
	assert_null(strstr(r->data, "Basic"));
	flat_http_close(http);
	stop_server(&server);
	free_result(r);
}

static void test_resolves(void **state)
{
	(void)state;
	struct server server = start_server(NULL, false);
	struct result *r = new_result();
	char url[64];
	snprintf(url, sizeof url, "http://localhost:%s", strrchr(server.url, ':') + 1);
	struct flat_http *http = open_url(r, url);
	get(http, r, "/count");
	assert_int_equal(r->status, 200);
	flat_http_close(http);
	http = open_url(r, "http://no-such-host.invalid:1");
	begin(http, r, "/count", 15., false);
	ev_run(r->loop, 0);
	assert_non_null(strstr(r->err.msg, "look up 'no-such-host.invalid'"));
	begin(http, r, "/count", 15., false);
	ev_run(r->loop, EVRUN_NOWAIT);
	ev_run(r->loop, EVRUN_NOWAIT);
	flat_http_close(http); /* while it is asked */
	stop_server(&server);
	free_result(r);
}

static void test_refuses_targets(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"192.0.2.1:6443",
		"ftp://192.0.2.1",
		"https://",
		"https://a b",
		"https://u@h",
		"https://h:0",
		"https://h:65536",
		"https://h:1x",
		"https://[::1",
		"https://[::1]x",
		"https://[192.0.2.1]:1",
		"https://h/?q",
		"https://-h",
		"https://[fe80::1%eth0]:1",
		"https://h\r\nX: 1",
	};
	struct result *r = new_result();
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct flat_http_target target = { .urls = &bad[i], .url_count = 1 };
		struct flat_http *http;
		struct flat_err err = { 0 };
		assert_true(flat_http_open(r->loop, &target, &http, &err) < 0);
		assert_int_equal(err.code, FLAT_CODE_CONFIG);
	}
	free_result(r);
}

static void test_escapes(void **state)
{
	(void)state;
	char buf[16];
	assert_true(flat_http_escape("a-Z_0.~", buf, sizeof buf));
	assert_string_equal(buf, "a-Z_0.~");
	assert_true(flat_http_escape("a/ %\xff", buf, sizeof buf));
	assert_string_equal(buf, "a%2F%20%25%FF");
	assert_false(flat_http_escape("a/ %\xff", buf, 13));
	assert_true(flat_http_escape("a/ %\xff", buf, 14));
	assert_false(flat_http_escape("", buf, 0));
}

/* ---- TLS ---- */

static char *in_dir(const char *name)
{
	static char paths[4][128];
	static unsigned turn;
	char *path = paths[turn++ % 4];
	snprintf(path, sizeof paths[0], "%s/%s", dir, name);
	return path;
}

static void get_tls(struct result *r, struct server *server, struct flat_http_target target)
{
	const char *url = server->url;
	target.urls = &url;
	target.url_count = 1;
	struct flat_http *http = open_target(r->loop, &target);
	get(http, r, "/count");
	flat_http_close(http);
}

static void test_tls(void **state)
{
	(void)state;
	struct result *r = new_result();
	struct server server = start_server("server", false);
	struct flat_http_target target = { .ca_file = in_dir("ca.crt") };
	get_tls(r, &server, target);
	if (r->err.code)
		fail_msg("%s", r->err.msg);
	assert_string_equal(r->data, "001");
	const char *url = server.url;
	target.urls = &url;
	target.url_count = 1;
	struct flat_http *http = open_target(r->loop, &target);
	get(http, r, "/big"); /* many records */
	assert_int_equal(r->len, 300000);
	get(http, r, "/count");
	assert_string_equal(r->data, "002");
	flat_http_close(http);
	target.ca_file = in_dir("other.crt");
	get_tls(r, &server, target);
	assert_non_null(
		strstr(r->err.msg, "certificate of '127.0.0.1' is not signed by CA file '"));
	assert_non_null(strstr(r->err.details, "it was issued by 'CN=flat-ca'"));
	target.insecure = true;
	get_tls(r, &server, target);
	assert_int_equal(r->status, 200);
	target.insecure = false;
	target.ca_file = in_dir("ca.crt");
	target.server_name = "api.example";
	get_tls(r, &server, target);
	assert_int_equal(r->status, 200);
	target.server_name = "other.example";
	get_tls(r, &server, target);
	assert_non_null(strstr(r->err.msg, "certificate is not for 'other.example', but for "
					   "127.0.0.1, api.example"));
	target.ca_file = in_dir("missing.crt");
	get_tls(r, &server, target);
	assert_non_null(strstr(r->err.msg, "missing.crt': No such file or directory"));
	write_file(in_dir("empty.crt"), "nothing\n");
	target.ca_file = in_dir("empty.crt");
	get_tls(r, &server, target);
	assert_non_null(strstr(r->err.msg, "there is no PEM certificate in CA file"));
	stop_server(&server);
	server = start_server("expired", false);
	target = (struct flat_http_target){ .ca_file = in_dir("ca.crt") };
	get_tls(r, &server, target);
	assert_non_null(strstr(r->err.msg, "certificate of '127.0.0.1' expired at 2020-01-02T"));
	stop_server(&server);
	server = start_server(NULL, false);
	memmove(server.url + 5, server.url + 4, strlen(server.url + 4) + 1);
	server.url[4] = 's';
	get_tls(r, &server, target);
	assert_non_null(strstr(r->err.msg, "TLS handshake"));
	if (!strstr(r->err.details, "does that port speak TLS?"))
		fail_msg("%s", r->err.msg);
	stop_server(&server);
	free_result(r);
}

static void test_tls_client(void **state)
{
	(void)state;
	struct result *r = new_result();
	struct server server = start_server("server", true);
	struct flat_http_target target = { .ca_file = in_dir("ca.crt") };
	get_tls(r, &server, target);
	assert_non_null(strstr(r->err.msg, "GET https://127.0.0.1:"));
	assert_int_not_equal(r->err.code, 0);
	target.cert_file = in_dir("client.crt");
	target.key_file = in_dir("client.key");
	get_tls(r, &server, target);
	if (r->err.code)
		fail_msg("%s", r->err.msg);
	assert_string_equal(r->data, "001");
	target.key_file = in_dir("server.key");
	get_tls(r, &server, target);
	assert_non_null(strstr(r->err.msg, "client certificate '"));
	stop_server(&server);
	free_result(r);
}

static int make_certificates(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	char command[4096];
	snprintf(command, sizeof command,
		 "cd %s && exec >log 2>&1 && set -e\n"
		 "key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'\n"
		 "for ca in ca other; do openssl req -x509 $key -keyout $ca.key -out $ca.crt "
		 "-subj /CN=flat-$ca -days 3650; done\n"
		 "echo 'subjectAltName=IP:127.0.0.1,DNS:api.example' >san\n"
		 "for name in server expired client; do\n"
		 "openssl req $key -keyout $name.key -out $name.csr -subj /CN=$name\n"
		 "if [ $name = expired ]; then\n"
		 "mkdir -p db && : >db/index && echo 01 >db/serial\n"
		 "printf '[ca]\\ndefault_ca=d\\n[d]\\ndatabase=db/index\\nserial=db/serial\\n"
		 "new_certs_dir=db\\ndefault_md=sha256\\npolicy=p\\n[p]\\ncommonName=supplied\\n' "
		 ">db/conf\n"
		 "openssl ca -batch -config db/conf -cert ca.crt -keyfile ca.key -in $name.csr "
		 "-out $name.crt -startdate 20200101000000Z -enddate 20200102000000Z -extfile san\n"
		 "else openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial "
		 "-out $name.crt -days 3650 -extfile san; fi\n"
		 "done\n",
		 dir);
	return system(command) ? -1 : 0;
}

static int remove_certificates(void **state)
{
	(void)state;
	char command[64];
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command) ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_bad_answers),
		cmocka_unit_test(test_keeps_connections),
		cmocka_unit_test(test_times_out),
		cmocka_unit_test(test_cancels),
		cmocka_unit_test(test_rotates),
		cmocka_unit_test(test_authorizes),
		cmocka_unit_test(test_resolves),
		cmocka_unit_test(test_refuses_targets),
		cmocka_unit_test(test_escapes),
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_tls_client),
	};
	return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
