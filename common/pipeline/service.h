/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program's main() is: command line, configuration, loops, generations, signals, drain.
 */
#ifndef PIPELINE_SERVICE_H
#define PIPELINE_SERVICE_H

#include "common/pipeline/config.h"

/* A flag of the program. `take` keeps the value (NULL for a flag without one); -EINVAL with text.
 */
struct service_flag {
    const char *name;  /* "--port" */
    const char *value; /* its value's name in --help, "LIST"; NULL: takes none */
    const char *help;
    int (*take)(const char *value, struct err *e);
};

struct service_program {
    const char *name;                          /* "tailrace-gateway" */
    const char *description;                   /* for --help */
    const struct component *const *components; /* NULL-ended */
    const char *default_config; /* YAML used without --config; NULL: --config is required */
    unsigned max_loops;         /* 0 = one per CPU granted */
    /* The program's own flags ("--port"), key NULL ends the list; may be NULL. */
    const struct service_flag *flags;
    /*
     * Configuration made of flags and environment when no --config was given, instead of
     * default_config: heap text, freed by the caller. May be NULL, and may return NULL for "none".
     */
    char *(*make_config)(struct err *e);
    /* Further subcommand ("doctor"): returns exit status. NULL-name-ended list; may be NULL. */
    const struct service_command {
        const char *name, *help;
        int (*run)(int argc, char **argv);
    } * commands;
};

/*
 * The two halves below service_main (cli.c): the command line is read there, the rest is service.c.
 *
 * service_run loads the sources (config_load; problems go to stderr, exit status 1), runs until
 * SIGTERM or SIGINT, loads the same sources again at SIGHUP. Returns the exit status. service_check
 * creates every instance of the loaded configuration and starts none: `validate`.
 */
int service_run(const struct service_program *p, const struct config_source *src, size_t n);
int service_check(const struct service_program *p, const struct config *c, struct err *e);

/*
 * Runs the program: `--config FILE` (repeatable), `--set`, validate, components, --help, --version,
 * print-config. Returns the exit status.
 */
int service_main(const struct service_program *p, int argc, char **argv);

#endif
