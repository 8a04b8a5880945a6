// SPDX-License-Identifier: Apache-2.0
/*
 * The sweep by itself, for test/agent/sweep.sh: sweeper NETWORK CIDR EVERY_MS PASSES [DIR]
 *
 * One line on standard output for each pass: what came back, its time in microseconds, the
 * network's figures, repairs, and the error, if there was one.
 */
#include "../../agent/sweep.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int run(struct flat_sweep *sweep, struct flat_net *net, const struct flat_agent_conf *conf,
	       unsigned every_ms, int passes)
{
	static struct flat_status status;
	for (int i = 0; passes < 0 || i < passes; i++) {
		struct flat_err err = { 0 };
		double start = now_us();
		int r = flat_sweep_run(sweep, conf, net, &status, &err);
		double took = now_us() - start;
		printf("back=%d us=%.0f", r < 0 ? -1 : r, took);
		for (size_t k = 0; k < status.ipam_count; k++)
			printf(" %s=%llu/%llu/%llu", status.ipam[k].network,
			       (unsigned long long)status.ipam[k].used,
			       (unsigned long long)status.ipam[k].size,
			       (unsigned long long)status.ipam[k].healed);
		printf(" orphans=%llu leases=%llu%s%s\n",
		       (unsigned long long)status.repairs[FLAT_UPKEEP_ORPHAN],
		       (unsigned long long)status.repairs[FLAT_UPKEEP_LEASE],
		       r < 0 ? " error=" : "", r < 0 ? err.msg : "");
		if (fflush(stdout))
			return 1;
		if (i + 1 != passes)
			flat_sleep_us(every_ms * 1000);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct flat_agent_conf conf = { 0 };
	struct flat_sweep *sweep = NULL;
	struct flat_net *net = NULL;
	struct flat_err err = { 0 };
	struct flat_prefix cidr;
	if (argc < 5 || !flat_prefix_parse(argv[2], &cidr)) {
		fprintf(stderr, "usage: sweeper NETWORK CIDR EVERY_MS PASSES [DIR]\n");
		return 2;
	}
	conf.cni.network = argv[1];
	conf.cni.bridge = "cni0";
	conf.cni.ipam_dir = argc > 5 ? argv[5] : "/run/flatnet/ipam";
	int r = flat_net_open(&net, &err);
	if (r >= 0)
		r = flat_sweep_open(&sweep, &err);
	if (r < 0) {
		fprintf(stderr, "sweeper: %s\n", err.msg);
		return 1;
	}
	flat_sweep_set_cidrs(sweep, &cidr, 1);
	r = run(sweep, net, &conf, (unsigned)atoi(argv[3]), atoi(argv[4]));
	flat_sweep_close(sweep);
	flat_net_close(net);
	return r;
}
