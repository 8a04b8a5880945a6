// SPDX-License-Identifier: Apache-2.0
/* agent: every key, every refusal with its path and cure, and who overrides whom. */
#include "../../agent/conf.h"
#include "../../agent/source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/flat-test-conf.XXXXXX";
static struct flat_agent_conf conf;
static struct flat_err err;
static struct flat_agent_env env;

static void write_file(const char *name, const char *text)
{
	FILE *file = fopen(name, "we");
	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

/* json NULL: no file. The flags follow, up to NULL. */
static int load(const char *json, ...)
{
	static char *argv[64];
	int argc = 0;
	struct flat_agent_flags flags;
	va_list ap;
	argv[argc++] = (char *)"flatnetd";
	if (json) {
		write_file(path, json);
		argv[argc++] = (char *)"--config";
		argv[argc++] = path;
	}
	va_start(ap, json);
	for (char *flag; (flag = va_arg(ap, char *));)
		argv[argc++] = flag;
	va_end(ap);
	argv[argc] = NULL;
	flat_agent_conf_free(&conf);
	err = (struct flat_err){ 0 };
	int r = flat_agent_flags_parse(argc, argv, &flags, &err);
	return r < 0 ? r : flat_agent_conf_load(&flags, &env, &conf, &err);
}
#define LOAD(...) load(__VA_ARGS__, (char *)NULL)

/* With source file, unless the body says another. */
static int load_body(const char *body)
{
	static char json[8192];
	snprintf(json, sizeof json, "{%s%s%s}",
		 strstr(body, "\"source\"") ? "" : "\"source\":\"file\",\"file\":{\"path\":\"/n\"}",
		 body[0] && !strstr(body, "\"source\"") ? "," : "", body);
	return LOAD(json);
}

static void assert_ip(const struct flat_ip *ip, const char *want)
{
	char text[FLAT_IP_TEXT];
	assert_string_equal(flat_ip_text(ip, text), want);
}

static void assert_cidr(const struct flat_prefix *prefix, const char *want)
{
	char text[FLAT_PREFIX_TEXT];
	assert_string_equal(flat_prefix_text(prefix, text), want);
}

static void reset(void)
{
	env = (struct flat_agent_env){ .host_name = "Host1" };
}

static void test_defaults(void **state)
{
	(void)state;
	reset();
	assert_int_equal(LOAD(NULL, "--nodes-file", "/etc/flatnet/nodes.json"), 0);
	assert_string_equal(conf.node_name, "Host1");
	assert_ptr_equal(conf.source, &flat_source_file);
	assert_string_equal(conf.file.path, "/etc/flatnet/nodes.json");
	assert_int_equal(conf.cluster.cidr_count, 1);
	assert_cidr(&conf.cluster.cidrs[0], "10.244.0.0/16");
	assert_int_equal(conf.cluster.backend, FLAT_BACKEND_AUTO);
	assert_int_equal(conf.cluster.vni, 1);
	assert_int_equal(conf.cluster.port, 8472);
	assert_string_equal(conf.cluster.link[FLAT_V4], "flatnet.1");
	assert_string_equal(conf.cluster.link[FLAT_V6], "flatnet6.1");
	assert_int_equal(conf.cluster.mtu, 0);
	assert_false(conf.cluster.flannel);
	assert_int_equal(conf.checksum, FLAT_CHECKSUM_AUTO);
	assert_int_equal(conf.pod_cidr_count, 0);
	assert_null(conf.underlay.interface);
	assert_null(conf.underlay.regex);
	assert_int_equal(conf.underlay.cidrs.count, 0);
	assert_int_equal(conf.underlay.can_reach.family, 0);
	assert_int_equal(conf.underlay.public_address[0].family, 0);
	assert_string_equal(conf.cni.network, "flatnet");
	assert_string_equal(conf.cni.bridge, "cni0");
	assert_true(conf.cni.ip_masq);
	assert_string_equal(conf.cni.ipam_dir, "/run/flatnet/ipam");
	assert_null(conf.cni.conf_file);
	assert_null(conf.cni.conf_template);
	assert_string_equal(conf.node_file, "/run/flatnet/node.json");
	assert_string_equal(conf.state_file, "/var/lib/flatnet/state.json");
	assert_null(conf.subnet_env);
	assert_int_equal(conf.resync, 60);
	assert_int_equal(conf.sweep, 5);
	assert_int_equal(conf.log_level, FLAT_LEVEL_INFO);
	assert_int_equal(conf.log_format, FLAT_LOG_KEYS);
	assert_ip(&conf.http.address, "127.0.0.1");
	assert_int_equal(conf.http.port, 9464);
	assert_string_equal(conf.etcd.prefix, "/flatnet");
	assert_int_equal(conf.etcd.lease_ttl, 86400);
	assert_int_equal(conf.kubernetes.page, 500);
}

static const char *text_at(const struct flat_json_list *list, size_t i)
{
	assert_true(i < list->count);
	return ((const char *const *)list->items)[i];
}

static void test_every_key(void **state)
{
	(void)state;
	reset();
	assert_int_equal(
		LOAD("{\"nodeName\":\"n1\",\"source\":\"etcd\",\"file\":{\"path\":\"/n.json\"},"
		     "\"etcd\":{\"endpoints\":[\"https://a:2379\",\"http://[2001:db8::1]\"],"
		     "\"prefix\":\"/p\",\"caFile\":\"/ca\",\"certFile\":\"/c\",\"keyFile\":\"/k\","
		     "\"user\":\"u\",\"passwordFile\":\"/pw\",\"subnetLen\":26,"
		     "\"subnetMin\":\"10.1.0.64\",\"subnetMax\":\"10.1.9.0\",\"ipv6SubnetLen\":80,"
		     "\"ipv6SubnetMin\":\"fd00::\",\"ipv6SubnetMax\":\"fd00:0:0:5::\","
		     "\"leaseSeconds\":60},"
		     "\"kubernetes\":{\"kubeconfig\":\"/kc\",\"context\":\"x\","
		     "\"serviceAccountDir\":\"/sa\",\"pageSize\":7,\"setNetworkAvailable\":true},"
		     "\"clusterCIDR\":[\"10.1.0.0/16\",\"fd00::/48\"],"
		     "\"podCIDRs\":\"10.1.2.0/24\",\"backend\":\"vxlan\",\"mtu\":1400,"
		     "\"vxlan\":{\"vni\":7,\"port\":4789,\"name\":\"v4\",\"nameIPv6\":\"v6\","
		     "\"checksum\":\"off\"},"
		     "\"underlay\":{\"interfaceRegex\":\"^eth[0-9]\","
		     "\"publicIP\":[\"192.0.2.1\",\"2001:db8::1\"]},"
		     "\"cni\":{\"network\":\"net\",\"bridge\":\"br0\",\"ipMasq\":false,"
		     "\"ipamDir\":\"/ipam\",\"confFile\":\"/etc/cni/net.d/10-f.conflist\"},"
		     "\"nodeFile\":\"/nf\",\"stateFile\":\"\",\"subnetEnv\":\"/se\","
		     "\"resyncSeconds\":1,\"sweepSeconds\":0,"
		     "\"log\":{\"level\":\"debug\",\"format\":\"json\"},"
		     "\"http\":{\"address\":\"[::1]:80\"},\"_remark\":1,\"//\":\"another\"}"),
		0);
	assert_string_equal(conf.node_name, "n1");
	assert_ptr_equal(conf.source, &flat_source_etcd);
	assert_string_equal(conf.file.path, "/n.json");
	assert_int_equal(conf.etcd.endpoints.count, 2);
	assert_string_equal(text_at(&conf.etcd.endpoints, 1), "http://[2001:db8::1]");
	assert_string_equal(conf.etcd.prefix, "/p");
	assert_string_equal(conf.etcd.ca_file, "/ca");
	assert_string_equal(conf.etcd.cert_file, "/c");
	assert_string_equal(conf.etcd.key_file, "/k");
	assert_string_equal(conf.etcd.user, "u");
	assert_string_equal(conf.etcd.password_file, "/pw");
	assert_int_equal(conf.etcd.subnet_len[FLAT_V4], 26);
	assert_int_equal(conf.etcd.subnet_len[FLAT_V6], 80);
	assert_ip(&conf.etcd.subnet_min[FLAT_V4], "10.1.0.64");
	assert_ip(&conf.etcd.subnet_max[FLAT_V4], "10.1.9.0");
	assert_ip(&conf.etcd.subnet_max[FLAT_V6], "fd00:0:0:5::");
	assert_int_equal(conf.etcd.lease_ttl, 60);
	assert_string_equal(conf.kubernetes.kubeconfig, "/kc");
	assert_string_equal(conf.kubernetes.context, "x");
	assert_string_equal(conf.kubernetes.service_account, "/sa");
	assert_int_equal(conf.kubernetes.page, 7);
	assert_true(conf.kubernetes.set_network_available);
	assert_int_equal(conf.cluster.cidr_count, 2);
	assert_cidr(&conf.cluster.cidrs[1], "fd00::/48");
	assert_int_equal(conf.pod_cidr_count, 1);
	assert_cidr(&conf.pod_cidrs[0], "10.1.2.0/24");
	assert_int_equal(conf.cluster.backend, FLAT_BACKEND_VXLAN);
	assert_int_equal(conf.cluster.mtu, 1400);
	assert_int_equal(conf.cluster.vni, 7);
	assert_int_equal(conf.cluster.port, 4789);
	assert_string_equal(conf.cluster.link[FLAT_V4], "v4");
	assert_string_equal(conf.cluster.link[FLAT_V6], "v6");
	assert_int_equal(conf.checksum, FLAT_CHECKSUM_OFF);
	assert_string_equal(conf.underlay.regex, "^eth[0-9]");
	assert_ip(&conf.underlay.public_address[FLAT_V4], "192.0.2.1");
	assert_ip(&conf.underlay.public_address[FLAT_V6], "2001:db8::1");
	assert_string_equal(conf.cni.network, "net");
	assert_string_equal(conf.cni.bridge, "br0");
	assert_false(conf.cni.ip_masq);
	assert_string_equal(conf.cni.ipam_dir, "/ipam");
	assert_string_equal(conf.cni.conf_file, "/etc/cni/net.d/10-f.conflist");
	assert_string_equal(conf.node_file, "/nf");
	assert_null(conf.state_file);
	assert_string_equal(conf.subnet_env, "/se");
	assert_int_equal(conf.resync, 1);
	assert_int_equal(conf.sweep, 0);
	assert_int_equal(conf.log_level, FLAT_LEVEL_DEBUG);
	assert_int_equal(conf.log_format, FLAT_LOG_JSON);
	assert_ip(&conf.http.address, "::1");
	assert_int_equal(conf.http.port, 80);

	assert_int_equal(load_body("\"underlay\":{\"interface\":\"eth1\"}"), 0);
	assert_string_equal(conf.underlay.interface, "eth1");
	assert_int_equal(load_body("\"underlay\":{\"cidrs\":[\"192.0.2.0/24\"]}"), 0);
	assert_int_equal(conf.underlay.cidrs.count, 1);
	assert_int_equal(load_body("\"underlay\":{\"canReach\":\"192.0.2.9\"}"), 0);
	assert_ip(&conf.underlay.can_reach, "192.0.2.9");
	assert_int_equal(load_body("\"http\":{\"address\":\"off\"}"), 0);
	assert_int_equal(conf.http.address.family, 0);
	assert_int_equal(load_body("\"kubernetes\":{\"server\":\"https://api.example:6443\"},"
				   "\"source\":\"kubernetes\""),
			 0);
	assert_string_equal(conf.kubernetes.server, "https://api.example:6443");
}

static void test_flannel(void **state)
{
	(void)state;
	reset();
	assert_int_equal(load_body("\"flannelCompat\":true,\"vxlan\":{\"vni\":4096}"), 0);
	assert_true(conf.cluster.flannel);
	assert_string_equal(conf.cluster.link[FLAT_V4], "flannel.4096");
	assert_string_equal(conf.cluster.link[FLAT_V6], "flannel-v6.4096");
	assert_string_equal(conf.etcd.prefix, "/coreos.com/network");
}

static void test_template(void **state)
{
	(void)state;
	static char json[512];
	char template[] = "/tmp/flat-test-template.XXXXXX";
	const int fd = mkstemp(template);
	reset();
	assert_true(fd >= 0);
	close(fd);
	snprintf(json, sizeof json,
		 "\"cni\":{\"confFile\":\"/x.conflist\",\"confTemplate\":\"%s\"}", template);
	write_file(template,
		   "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"t\"}]}");
	assert_int_equal(load_body(json), 0);
	assert_string_equal(
		conf.cni.conf_template,
		"{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[{\"type\":\"t\"}]}");
	write_file(template, "{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"plugins\":[]}");
	assert_int_equal(load_body(json), -EINVAL);
	assert_int_equal(err.code, FLAT_CODE_CONFIG);
	assert_non_null(strstr(err.msg, "cni.confTemplate: "));
	assert_non_null(strstr(err.msg, "plugins are needed"));
	unlink(template);
	assert_true(load_body(json) < 0);
	assert_non_null(strstr(err.msg, "No such file"));
}

struct refusal {
	const char *body, *place, *text; /* text: a piece of the message, or of the cure */
};

static void test_refusals(void **state)
{
	(void)state;
	static const struct refusal refusals[] = {
		{ "\"nodename\":3", "nodeName: ", "3 is not a string" },
		{ "\"nodeName\":\"a b\"", "nodeName: ", "cannot name a node" },
		{ "\"nodName\":\"a\"", "there is no key \"nodName\"",
		  "did you mean \"nodeName\"?" },
		{ "\"zzz\":1", "there is no key \"zzz\"", "known are: nodeName, source" },
		{ "\"vxlan\":{\"prot\":1}", "vxlan: there is no key", "did you mean \"port\"?" },
		{ "\"etcd\":{\"endpoint\":[]}", "etcd: there is no key", "\"endpoints\"" },
		{ "\"etcd\":[]", "etcd: ", "a list is not an object" },
		{ "\"source\":\"zookeeper\"", "source: ", "is not one of kubernetes, etcd, file" },
		{ "\"source\":\"file\"", "file.path: ", "is needed with source file" },
		{ "\"source\":\"etcd\"", "etcd.endpoints: ", "a list of URLs" },
		{ "\"source\":\"kubernetes\"", "kubernetes.kubeconfig: ", "--kubeconfig FILE" },
		{ "\"source\":\"file\",\"file\":{\"path\":\"n\"}", "file.path: ", "absolute" },
		{ "\"source\":\"file\",\"file\":{\"path\":\"/n/\"}",
		  "file.path: ", "ends with '/'" },
		{ "\"clusterCIDR\":\"10.244.1.0/16\"",
		  "clusterCIDR: ", "host bits set: the network is 10.244.0.0/16" },
		{ "\"clusterCIDR\":\"0.0.0.0/0\"", "clusterCIDR: ", "the whole world" },
		{ "\"clusterCIDR\":[\"10.0.0.0/8\",\"10.1.0.0/16\"]",
		  "clusterCIDR: ", "overlap: name the larger one" },
		{ "\"clusterCIDR\":\"10.244\"", "clusterCIDR: ", "in CIDR form" },
		{ "\"podCIDRs\":\"10.244.1.1/24\"", "podCIDRs[0]: ", "10.244.1.0/24" },
		{ "\"podCIDRs\":[\"10.244.1.0/24\",\"10.9.0.0/24\"]",
		  "podCIDRs[1]: ", "not inside clusterCIDR" },
		{ "\"podCIDRs\":[\"10.244.1.0/24\",\"10.244.1.0/25\"]",
		  "podCIDRs[1]: ", "overlaps 10.244.1.0/24" },
		{ "\"backend\":\"udp\"", "backend: ", "is not one of auto, direct, vxlan" },
		{ "\"mtu\":-1", "mtu: ", "from 0 to 65535" },
		{ "\"mtu\":500", "mtu: ", "less than the 576 that IPv4 needs" },
		{ "\"mtu\":1200,\"clusterCIDR\":\"fd00::/48\"", "mtu: ", "1280 that IPv6 needs" },
		{ "\"flannelCompat\":\"true\"", "flannelCompat: ", "without quotes" },
		{ "\"vxlan\":{\"vni\":16777216}", "vxlan.vni: ", "from 1 to 16777215" },
		{ "\"vxlan\":{\"port\":0}", "vxlan.port: ", "from 1 to 65535" },
		{ "\"vxlan\":{\"name\":\"a/b\"}", "vxlan.name: ", "cannot name an interface" },
		{ "\"vxlan\":{\"name\":\"sixteen.letters.\"}", "vxlan.name: ", "1 to 15" },
		{ "\"vxlan\":{\"nameIPv6\":\"a b\"}", "vxlan.nameIPv6: ", "white space" },
		{ "\"vxlan\":{\"name\":\"x\",\"nameIPv6\":\"x\"}",
		  "vxlan.nameIPv6: ", "give another name" },
		{ "\"vxlan\":{\"vni\":10000000}", "vxlan.name: ", "give a shorter name" },
		{ "\"vxlan\":{\"checksum\":\"yes\"}", "vxlan.checksum: ", "auto, on, off" },
		{ "\"underlay\":{\"interface\":\"a:1\"}", "underlay.interface: ", "':'" },
		{ "\"underlay\":{\"interface\":\"a\",\"canReach\":\"192.0.2.1\"}",
		  "underlay: ", "give one of them" },
		{ "\"underlay\":{\"interfaceRegex\":\"[\"}", "underlay.interfaceRegex: ", "\"[\"" },
		{ "\"underlay\":{\"cidrs\":\"x\"}", "underlay.cidrs: ", "in CIDR form" },
		{ "\"underlay\":{\"canReach\":\"x\"}", "underlay.canReach: ", "an IP address" },
		{ "\"underlay\":{\"canReach\":\"127.0.0.1\"}", "underlay.canReach: ", "no link" },
		{ "\"underlay\":{\"publicIP\":\"169.254.0.1\"}",
		  "underlay.publicIP: ", "no other node can reach" },
		{ "\"underlay\":{\"publicIP\":[\"192.0.2.1\",\"192.0.2.2\"]}",
		  "underlay.publicIP: ", "two of one family" },
		{ "\"etcd\":{\"endpoints\":[\"https://a\",\"a:2379\"]}",
		  "etcd.endpoints[1]: ", "is not a URL" },
		{ "\"etcd\":{\"endpoints\":[\"https://a/\"]}",
		  "etcd.endpoints[0]: ", "must end with the host or the port" },
		{ "\"etcd\":{\"endpoints\":[\"https://a:0\"]}", "etcd.endpoints[0]: ", "port" },
		{ "\"etcd\":{\"endpoints\":[\"https://\"]}", "etcd.endpoints[0]: ", "the host" },
		{ "\"etcd\":{\"endpoints\":[\"https://[::1\"]}",
		  "etcd.endpoints[0]: ", "the host" },
		{ "\"etcd\":{\"endpoints\":[\"https://[zz]:1\"]}",
		  "etcd.endpoints[0]: ", "the host" },
		{ "\"etcd\":{\"prefix\":\"x\"}", "etcd.prefix: ", "must begin with '/'" },
		{ "\"etcd\":{\"prefix\":\"/x/\"}", "etcd.prefix: ", "not end with it" },
		{ "\"etcd\":{\"caFile\":\"x\"}", "etcd.caFile: ", "absolute" },
		{ "\"etcd\":{\"certFile\":\"/x\"}", "etcd.keyFile: ", "belong together" },
		{ "\"etcd\":{\"keyFile\":\"/x\"}", "etcd.certFile: ", "belong together" },
		{ "\"etcd\":{\"certFile\":\"x\",\"keyFile\":\"/x\"}",
		  "etcd.certFile: ", "absolute" },
		{ "\"etcd\":{\"certFile\":\"/x\",\"keyFile\":\"x\"}",
		  "etcd.keyFile: ", "absolute" },
		{ "\"etcd\":{\"user\":\"x\"}", "etcd.passwordFile: ", "belong together" },
		{ "\"etcd\":{\"passwordFile\":\"/x\"}", "etcd.user: ", "belong together" },
		{ "\"etcd\":{\"leaseSeconds\":1}", "etcd.leaseSeconds: ", "from 60" },
		{ "\"etcd\":{\"subnetLen\":31}", "etcd.subnetLen: ", "from 8 to 30" },
		{ "\"etcd\":{\"ipv6SubnetLen\":127}", "etcd.ipv6SubnetLen: ", "from 16 to 126" },
#define ETCD "\"source\":\"etcd\",\"etcd\":{\"endpoints\":[\"http://a\"],"
		{ ETCD "\"subnetLen\":16}", "etcd.subnetLen: ", "no part of clusterCIDR" },
		{ ETCD "\"subnetMin\":\"10.9.0.0\"}",
		  "etcd.subnetMin: ", "not inside clusterCIDR" },
		{ ETCD "\"subnetMin\":\"fd00::\"}", "etcd.subnetMin: ", "is not of IPv4" },
		{ ETCD "\"subnetMax\":\"10.244.1.1\"}",
		  "etcd.subnetMax: ", "its subnet is 10.244.1.0" },
		{ ETCD "\"subnetMin\":\"10.244.2.0\",\"subnetMax\":\"10.244.1.0\"}",
		  "etcd.subnetMax: ", "is before etcd.subnetMin" },
		{ ETCD "\"ipv6SubnetMin\":\"10.0.0.0\"}",
		  "etcd.ipv6SubnetMin: ", "is not of IPv6" },
		{ ETCD "\"ipv6SubnetMax\":\"fd00::\"}", "etcd.ipv6SubnetMax: ", "not inside" },
		{ "\"kubernetes\":{\"kubeconfig\":\"x\"}", "kubernetes.kubeconfig: ", "absolute" },
		{ "\"kubernetes\":{\"serviceAccountDir\":\"x\"}",
		  "kubernetes.serviceAccountDir: ", "absolute" },
		{ "\"kubernetes\":{\"server\":\"x\"}", "kubernetes.server: ", "is not a URL" },
		{ "\"kubernetes\":{\"server\":\"https://x\",\"kubeconfig\":\"/x\"}",
		  "kubernetes.server: ", "give one of the two" },
		{ "\"kubernetes\":{\"context\":\"x\"}", "kubernetes.context: ", "kubeconfig too" },
		{ "\"kubernetes\":{\"pageSize\":0}", "kubernetes.pageSize: ", "from 1 to 5000" },
		{ "\"kubernetes\":{\"setNetworkAvailable\":1}",
		  "kubernetes.setNetworkAvailable: ", "true or false" },
		{ "\"cni\":{\"network\":\"a/b\"}", "cni.network: ", "cannot name a network" },
		{ "\"cni\":{\"bridge\":\"..\"}", "cni.bridge: ", "cannot name an interface" },
		{ "\"cni\":{\"bridge\":\"flatnet.1\"}", "cni.bridge: ", "VXLAN device's name" },
		{ "\"cni\":{\"ipMasq\":0}", "cni.ipMasq: ", "true or false" },
		{ "\"cni\":{\"ipamDir\":\"x\"}", "cni.ipamDir: ", "absolute" },
		{ "\"cni\":{\"confFile\":\"x\"}", "cni.confFile: ", "absolute" },
		{ "\"cni\":{\"confFile\":\"/x.conf\"}", "cni.confFile: ", ".conflist" },
		{ "\"cni\":{\"confTemplate\":\"/x\"}", "cni.confFile: ", "is missing" },
		{ "\"cni\":{\"confFile\":\"/x.conflist\",\"confTemplate\":\"x\"}",
		  "cni.confTemplate: ", "absolute" },
		{ "\"nodeFile\":\"x\"", "nodeFile: ", "absolute" },
		{ "\"stateFile\":\"x\"", "stateFile: ", "absolute" },
		{ "\"subnetEnv\":\"x\"", "subnetEnv: ", "absolute" },
		{ "\"resyncSeconds\":0", "resyncSeconds: ", "from 1 to 86400" },
		{ "\"sweepSeconds\":86401", "sweepSeconds: ", "from 0 to 86400" },
		{ "\"log\":{\"level\":\"loud\"}", "log.level: ", "error, warn, info, debug" },
		{ "\"log\":{\"format\":\"xml\"}", "log.format: ", "keys, json" },
		{ "\"http\":{\"address\":\"localhost:1\"}", "http.address: ", "nor \"off\"" },
		{ "\"http\":{\"address\":\"127.0.0.1\"}", "http.address: ", "like 127.0.0.1:9464" },
		{ "\"http\":{\"address\":\"::1:80\"}", "http.address: ", "[::1]:9464" },
		{ "\"http\":{\"address\":\"127.0.0.1:0\"}", "http.address: ", "a port" },
	};
	reset();
	for (size_t i = 0; i < FLAT_LEN(refusals); i++) {
		const struct refusal *r = &refusals[i];
		const int got = load_body(r->body);
		if (got >= 0 || err.code != FLAT_CODE_CONFIG || !strstr(err.msg, r->place) ||
		    (!strstr(err.msg, r->text) && !strstr(err.details, r->text)))
			fail_msg("%s: %d %d \"%s\" (%s)", r->body, got, err.code, err.msg,
				 err.details);
	}
}

static void test_files_that_are_none(void **state)
{
	(void)state;
	reset();
	assert_true(LOAD("{") < 0);
	assert_int_equal(err.code, FLAT_CODE_DECODE);
	assert_non_null(strstr(err.msg, path));
	assert_true(LOAD("[]") < 0);
	assert_non_null(strstr(err.msg, "is not an object"));
	assert_true(LOAD(NULL, "--config", "/nowhere/x.json") < 0);
	assert_non_null(strstr(err.msg, "configuration '/nowhere/x.json': No such file"));
	assert_true(LOAD(NULL, "--config", "/dev/zero") < 0);
	assert_non_null(strstr(err.msg, "not a regular file"));
}

static void test_flags_win(void **state)
{
	(void)state;
	reset();
	env.node_name = "from-env";
	assert_int_equal(LOAD("{\"nodeName\":\"f\",\"source\":\"etcd\",\"backend\":\"direct\","
			      "\"etcd\":{\"endpoints\":[\"http://a\"],\"prefix\":\"/a\"},"
			      "\"kubernetes\":{\"kubeconfig\":\"/a\",\"context\":\"a\"},"
			      "\"file\":{\"path\":\"/a\"},"
			      "\"underlay\":{\"interfaceRegex\":\"a\",\"publicIP\":\"192.0.2.1\"},"
			      "\"clusterCIDR\":\"10.1.0.0/16\",\"log\":{\"level\":\"error\"},"
			      "\"http\":{\"address\":\"off\"}}",
			      "--source", "kubernetes", "--kubeconfig", "/b", "--context", "b",
			      "--node-name", "b", "--etcd-endpoints", "http://b,http://c",
			      "--etcd-endpoints", "http://d", "--etcd-prefix", "/b", "--nodes-file",
			      "/b", "--backend", "vxlan", "--interface", "eth9", "--public-ip",
			      "192.0.2.2", "--public-ip", "2001:db8::2", "--cluster-cidr",
			      "10.2.0.0/16,fd00::/48", "--log-level", "debug", "--log-format",
			      "json", "--metrics-address", "0.0.0.0:1"),
			 0);
	assert_string_equal(conf.node_name, "b");
	assert_ptr_equal(conf.source, &flat_source_kubernetes);
	assert_string_equal(conf.kubernetes.kubeconfig, "/b");
	assert_string_equal(conf.kubernetes.context, "b");
	assert_int_equal(conf.etcd.endpoints.count, 3);
	assert_string_equal(text_at(&conf.etcd.endpoints, 0), "http://b");
	assert_string_equal(text_at(&conf.etcd.endpoints, 2), "http://d");
	assert_string_equal(conf.etcd.prefix, "/b");
	assert_string_equal(conf.file.path, "/b");
	assert_int_equal(conf.cluster.backend, FLAT_BACKEND_VXLAN);
	assert_string_equal(conf.underlay.interface, "eth9");
	assert_null(conf.underlay.regex);
	assert_ip(&conf.underlay.public_address[FLAT_V4], "192.0.2.2");
	assert_ip(&conf.underlay.public_address[FLAT_V6], "2001:db8::2");
	assert_int_equal(conf.cluster.cidr_count, 2);
	assert_cidr(&conf.cluster.cidrs[0], "10.2.0.0/16");
	assert_int_equal(conf.log_level, FLAT_LEVEL_DEBUG);
	assert_int_equal(conf.log_format, FLAT_LOG_JSON);
	assert_ip(&conf.http.address, "0.0.0.0");
}

static void test_flags_are_refused_by_name(void **state)
{
	(void)state;
	static const struct {
		const char *flag, *value, *text;
	} wrong[] = {
		{ "--sauce", "file", "--sauce: there is no such flag" },
		{ "--source", NULL, "--source: needs an argument" },
		{ "--backend", "", "--backend: must not be empty" },
		{ "stray", NULL, "\"stray\" belongs to no flag" },
		{ "--source", "x", "--source: \"x\" is not one of" },
		{ "--backend", "x", "--backend: \"x\" is not one of" },
		{ "--node-name", "a b", "--node-name: \"a b\" cannot name a node" },
		{ "--kubeconfig", "x", "--kubeconfig: \"x\" must be an absolute path" },
		{ "--etcd-endpoints", "http://a,x", "--etcd-endpoints[1]: \"x\" is not a URL" },
		{ "--etcd-prefix", "x", "--etcd-prefix: " },
		{ "--nodes-file", "x", "--nodes-file: \"x\" must be an absolute path" },
		{ "--interface", "a/b", "--interface: \"a/b\" cannot name an interface" },
		{ "--public-ip", "x", "--public-ip: \"x\" is not an IP address" },
		{ "--public-ip", "192.0.2.1,192.0.2.2", "--public-ip: two of one family" },
		{ "--public-ip", "1.1.1.1,::1,2.2.2.2", "--public-ip: more than the 2 allowed" },
		{ "--cluster-cidr", "10.0.0.0", "--cluster-cidr: \"10.0.0.0\" is not a subnet" },
		{ "--cluster-cidr", "10.0.0.1/8", "--cluster-cidr: 10.0.0.1/8 has host bits" },
		{ "--log-level", "x", "--log-level: \"x\" is not one of" },
		{ "--log-format", "x", "--log-format: \"x\" is not one of" },
		{ "--metrics-address", "x", "--metrics-address: \"x\" is not an address" },
	};
	reset();
	for (size_t i = 0; i < FLAT_LEN(wrong); i++) {
		const int r = load("{\"source\":\"file\",\"file\":{\"path\":\"/n\"}}",
				   wrong[i].flag, wrong[i].value, (char *)NULL);
		if (r >= 0 || err.code != FLAT_CODE_CONFIG || !strstr(err.msg, wrong[i].text))
			fail_msg("%s %s: %d \"%s\"", wrong[i].flag, wrong[i].value, r, err.msg);
	}
}

static void test_which_source(void **state)
{
	(void)state;
	reset();
	assert_int_equal(LOAD(NULL), -EINVAL);
	assert_non_null(strstr(err.msg, "source: "));
	assert_non_null(strstr(err.details, "kubernetes"));
	assert_non_null(strstr(err.details, "etcd"));
	assert_non_null(strstr(err.details, "file"));
	assert_int_equal(LOAD(NULL, "--etcd-endpoints", "http://a"), 0);
	assert_ptr_equal(conf.source, &flat_source_etcd);
	assert_int_equal(LOAD(NULL, "--kubeconfig", "/k"), 0);
	assert_ptr_equal(conf.source, &flat_source_kubernetes);
	/* two of them: one must be named */
	assert_int_equal(LOAD(NULL, "--kubeconfig", "/k", "--nodes-file", "/n"), -EINVAL);
	assert_non_null(strstr(err.msg, "say which"));
	/* the command line first */
	assert_int_equal(LOAD("{\"file\":{\"path\":\"/n\"}}", "--kubeconfig", "/k"), 0);
	assert_ptr_equal(conf.source, &flat_source_kubernetes);
	/* what is named counts more than where we are */
	env.service_host = "10.96.0.1";
	env.service_port = "443";
	assert_int_equal(LOAD(NULL, "--nodes-file", "/n"), 0);
	assert_ptr_equal(conf.source, &flat_source_file);
	assert_null(conf.kubernetes.server);
	assert_int_equal(LOAD(NULL), 0);
	assert_ptr_equal(conf.source, &flat_source_kubernetes);
	assert_string_equal(conf.kubernetes.server, "https://10.96.0.1:443");
	assert_string_equal(conf.kubernetes.service_account,
			    "/var/run/secrets/kubernetes.io/serviceaccount");
	env.service_host = "fd00::1";
	env.service_port = NULL;
	assert_int_equal(LOAD(NULL), 0);
	assert_string_equal(conf.kubernetes.server, "https://[fd00::1]:443");
	env.service_host = "a/b";
	assert_true(LOAD(NULL) < 0);
	assert_non_null(strstr(err.msg, "KUBERNETES_SERVICE_HOST"));
}

static void test_node_name(void **state)
{
	(void)state;
	static char longer[FLAT_NODE_NAME_MAX + 2];
	reset();
	/* as the kubelet: its Node object has the lower case */
	assert_int_equal(LOAD(NULL, "--kubeconfig", "/k"), 0);
	assert_string_equal(conf.node_name, "host1");
	env.node_name = "n-env";
	assert_int_equal(LOAD(NULL, "--kubeconfig", "/k"), 0);
	assert_string_equal(conf.node_name, "n-env");
	env.node_name = "";
	memset(longer, 'x', sizeof longer - 1);
	env.host_name = longer;
	assert_true(LOAD(NULL, "--kubeconfig", "/k") < 0);
	assert_non_null(strstr(err.msg, "the host's name"));
	assert_non_null(strstr(err.details, "--node-name"));
}

static void test_questions(void **state)
{
	(void)state;
	char *const argv[] = { (char *)"flatnetd",
			       (char *)"--help",
			       (char *)"--version",
			       (char *)"--config",
			       (char *)"f",
			       (char *)"--check-config",
			       NULL };
	struct flat_agent_flags flags;
	err = (struct flat_err){ 0 };
	assert_int_equal(flat_agent_flags_parse(6, argv, &flags, &err), 0);
	assert_true(flags.help && flags.version && flags.check);
	assert_string_equal(flags.config, "f");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_every_key),
		cmocka_unit_test(test_flannel),
		cmocka_unit_test(test_template),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_files_that_are_none),
		cmocka_unit_test(test_flags_win),
		cmocka_unit_test(test_flags_are_refused_by_name),
		cmocka_unit_test(test_which_source),
		cmocka_unit_test(test_node_name),
		cmocka_unit_test(test_questions),
	};
	const int fd = mkstemp(path);
	if (fd < 0)
		return 1;
	close(fd);
	const int failed = cmocka_run_group_tests(tests, NULL, NULL);
	flat_agent_conf_free(&conf);
	unlink(path);
	return failed;
}
