/* SPDX-License-Identifier: Apache-2.0 */
/*
 * entry - what the main of every CNI plugin does: environment, standard input, one answer on
 * standard output, exit status. The only code that reads the environment and prints, beside a main
 * itself.
 */
#pragma once

#include <flatnet/cni.h>

struct flat_plugin {
	const char *name;   /* of the executable: starts each line on standard error */
	const char *about;  /* what a person reads who starts it by hand: "CNI plugin, ..." */
	const char *manual; /* the page of section 8 that tells more */
	/* Carries out any command but VERSION. A command that has a result prints it itself, on
	 * output_fd: when that fails, it can still be undone. The error is printed by the caller.
	 */
	int (*carry_out)(void *arg, struct flat_request *req, const struct flat_log *log,
			 int output_fd, struct flat_err *err);
	void *arg;
};

/* Returns the exit status. Logs go to standard error. */
int flat_plugin_main(const struct flat_plugin *plugin);
