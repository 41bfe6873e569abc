/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program's main() is: command line, configuration, loops, generations, signals, drain.
 */
#ifndef PIPELINE_SERVICE_H
#define PIPELINE_SERVICE_H

#include "common/pipeline/config.h"

struct service_program {
    const char *name;        /* "tailrace-gateway" */
    const char *description; /* for --help */
    const struct component *const *components; /* NULL-ended */
    const char *default_config; /* YAML used without --config; NULL: --config is required */
    unsigned max_loops;         /* 0 = one per CPU granted */
    /* Further subcommand ("doctor"): returns exit status. NULL-name-ended list; may be NULL. */
    const struct service_command {
        const char *name, *help;
        int (*run)(int argc, char **argv);
    } *commands;
};

/*
 * Runs the program: `--config FILE` (repeatable), `--set`, validate, components, --help, --version,
 * print-config. Returns the exit status.
 */
int service_main(const struct service_program *p, int argc, char **argv);

/* The memory a receiver may ask for before it reads; see memory_limiter. */
uint64_t service_memory_ceiling(void);

#endif
