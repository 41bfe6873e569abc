/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line, as the Collector's: flags anywhere, one command. What runs is service.c's.
 *
 *   parse_args ─► command found in `commands` or the program's own ─► its function ─► exit status
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/pipeline/config_load.h"
#include "common/pipeline/option_print.h"
#include "common/pipeline/service.h"
#include "common/pipeline/version.h"

struct cli {
    const struct service_program *program;
    struct config_source *sources;
    size_t n_sources;
    bool has_config, has_own_flag, help, version;
    char *made; /* configuration of make_config or default_config, as "yaml:..." */
    /* The command and what follows it. */
    int argc;
    char **argv;
};

typedef int command_fn(struct cli *c);

struct command {
    const char *name, *help;
    command_fn *run;
};

static command_fn cmd_validate, cmd_components, cmd_print_config, cmd_help;

static const struct command commands[] = {
    {"validate", "check the configuration and every component's start without starting",
     cmd_validate},
    {"components", "list what is built in; components NAME explains the keys of one",
     cmd_components},
    {"print-config", "print the configuration in force (--mode redacted|unredacted)",
     cmd_print_config},
    {"help", "this text", cmd_help},
};

/* ---- arguments ---- */

static int complain(const struct cli *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
static int complain(const struct cli *c, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "%s: ", c->program->name);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nTry '%s --help'.\n", c->program->name);
    return -EINVAL;
}

static void add_source(struct cli *c, const char *text, bool is_set)
{
    c->sources = xrealloc(c->sources, (c->n_sources + 1) * sizeof(*c->sources));
    c->sources[c->n_sources++] = (struct config_source){text, is_set};
}

/*
 * Matches "--name VALUE" or "--name=VALUE". 0: not this flag; else how many arguments it takes, and
 * *value. A value that is missing is complained of and returned as -EINVAL.
 */
static int match_flag(const struct cli *c, const char *name, int i, int argc, char **argv,
                      const char **value)
{
    size_t n = strlen(name);
    if (strncmp(argv[i], name, n) != 0)
        return 0;
    if (argv[i][n] == '=') {
        *value = argv[i] + n + 1;
        return 1;
    }
    if (argv[i][n])
        return 0;
    if (i + 1 >= argc)
        return complain(c, "%s wants a value", name);
    *value = argv[i + 1];
    return 2;
}

static int take_own_flag(struct cli *c, int i, int argc, char **argv)
{
    for (const struct service_flag *f = c->program->flags; f && f->name; f++) {
        const char *value = NULL;
        struct err e = {{0}};
        int used = 1;
        if (f->value)
            used = match_flag(c, f->name, i, argc, argv, &value);
        else if (strcmp(argv[i], f->name) != 0)
            used = 0;
        if (used == 0)
            continue;
        c->has_own_flag = true;
        if (used > 0 && f->take(value, &e) < 0)
            return complain(c, "%s: %s", f->name, e.text);
        return used;
    }
    return 0;
}

/* One flag at argv[i]: how many arguments it took, or -EINVAL. */
static int take_flag(struct cli *c, int i, int argc, char **argv)
{
    const char *value = "";
    int used;

    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
        return c->help = true;
    if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-v") == 0)
        return c->version = true;
    if ((used = match_flag(c, "--config", i, argc, argv, &value)) != 0) {
        if (used > 0)
            add_source(c, value, false);
        c->has_config = true;
        return used;
    }
    if ((used = match_flag(c, "--set", i, argc, argv, &value)) != 0) {
        if (used > 0)
            add_source(c, value, true);
        return used;
    }
    if ((used = match_flag(c, "--feature-gates", i, argc, argv, &value)) != 0)
        return used < 0 || !*value ? used : complain(c, "there are no feature gates: %s", value);
    if ((used = take_own_flag(c, i, argc, argv)) != 0)
        return used;
    return complain(c, "unknown flag %s", argv[i]);
}

static bool is_own_command(const struct cli *c, const char *name)
{
    for (const struct service_command *s = c->program->commands; s && s->name; s++)
        if (strcmp(s->name, name) == 0)
            return true;
    return false;
}

/* The program's own commands and `components` read what follows them; others let flags follow. */
static bool reads_rest(const struct cli *c, const char *name)
{
    return is_own_command(c, name) || strcmp(name, "components") == 0 ||
           strcmp(name, "print-config") == 0 || strcmp(name, "print-initial-config") == 0;
}

static int parse_args(struct cli *c, int argc, char **argv)
{
    for (int i = 1; i < argc;) {
        if (argv[i][0] == '-' && argv[i][1]) {
            int used = take_flag(c, i, argc, argv);
            if (used < 0)
                return used;
            i += used;
            continue;
        }
        if (c->argc)
            return complain(c, "'%s' after the command '%s'", argv[i], c->argv[0]);
        c->argv = argv + i;
        c->argc = 1;
        if (reads_rest(c, argv[i])) {
            c->argc = argc - i;
            return 0;
        }
        i++;
    }
    return 0;
}

/* --set lies over every --config, wherever it stands on the command line. */
static void put_sets_last(struct cli *c)
{
    struct config_source *sorted = xcalloc(c->n_sources + 1, sizeof(*sorted));
    size_t n = 0;
    for (int set = 0; set < 2; set++)
        for (size_t i = 0; i < c->n_sources; i++)
            if (c->sources[i].is_set == set)
                sorted[n++] = c->sources[i];
    free(c->sources);
    c->sources = sorted;
}

/*
 * Adds the program's own configuration when no --config was given: --set changes it, too. Flags
 * that make a configuration and a file that is one cannot both be meant.
 */
static int complete_sources(struct cli *c)
{
    const struct service_program *p = c->program;
    struct err e = {{0}};
    char *text = NULL;

    if (c->has_config && c->has_own_flag && p->make_config)
        return complain(c, "--config cannot go with flags that make a configuration");
    if (c->has_config) {
        put_sets_last(c);
        return 0;
    }
    if (p->make_config) {
        text = p->make_config(&e);
        if (!text && e.text[0])
            return complain(c, "%s", e.text);
    }
    if (!text && p->default_config)
        text = xstrdup(p->default_config);
    if (!text)
        return complain(c, "at least one config flag must be provided: --config FILE");
    c->made = xasprintf("yaml:%s", text);
    free(text);
    add_source(c, c->made, false);
    put_sets_last(c);
    return 0;
}

/* ---- commands ---- */

/* Loads; problems and warnings go to standard error. NULL when it is not valid. */
static struct config *load(struct cli *c)
{
    struct config *config = NULL;
    struct buf problems;

    if (complete_sources(c) < 0)
        return NULL;
    buf_init(&problems);
    int rc = config_load(&config, c->sources, c->n_sources, c->program->components, &problems);
    fputs(buf_cstr(&problems), stderr);
    if (rc < 0 && problems.n == 0)
        fprintf(stderr, "%s: %s\n", c->program->name, strerror(-rc));
    buf_fini(&problems);
    return config;
}

static int cmd_validate(struct cli *c)
{
    struct config *config = load(c);
    struct err e = {{0}};
    if (!config)
        return 1;
    int rc = service_check(c->program, config, &e);
    if (rc < 0)
        fprintf(stderr, "%s\n", e.text);
    config_free(&config);
    return rc < 0;
}

/* Flags after print-config; common ones may stand there, too. */
static int print_config_args(struct cli *c, bool *redact)
{
    for (int i = 1; i < c->argc;) {
        const char *value = "";
        int used = match_flag(c, "--mode", i, c->argc, c->argv, &value);
        if (used > 0 && strcmp(value, "unredacted") == 0)
            *redact = false;
        else if (used > 0 && strcmp(value, "redacted") != 0)
            return complain(c, "--mode is redacted or unredacted");
        if (used == 0)
            used = c->argv[i][0] == '-' ? take_flag(c, i, c->argc, c->argv)
                                        : complain(c, "'%s' after print-config", c->argv[i]);
        if (used < 0)
            return used;
        i += used;
    }
    return 0;
}

static int cmd_print_config(struct cli *c)
{
    bool redact = true;
    struct buf out;
    if (print_config_args(c, &redact) < 0)
        return 1;
    struct config *config = load(c);
    if (!config)
        return 1;
    buf_init(&out);
    config_print(config, redact, &out);
    fputs(buf_cstr(&out), stdout);
    buf_fini(&out);
    config_free(&config);
    return 0;
}

/* ---- components ---- */

static const char page_head[] =
    "<!-- Written by `components --reference` from the option tables. Do not edit. -->\n";

/*
 * Adds to DIR/exporters.md (and so on) the components that are not in it yet: so both programs can
 * write into one folder.
 */
static int write_page(const char *dir, enum component_kind kind, const struct service_program *p)
{
    char *path = xasprintf("%s/%s.md", dir, kind_section(kind));
    FILE *f = fopen(path, "a+");
    struct buf old, page;
    int rc = f ? 0 : -errno;

    buf_init(&old);
    buf_init(&page);
    for (size_t n = 1; f && n > 0;) {
        char *q = buf_reserve(&old, 65536);
        n = q ? fread(q, 1, 65536, f) : 0;
        buf_commit(&old, n);
    }
    if (old.n == 0)
        buf_addf(&page, "%s\n# %c%s\n\n", page_head, kind_section(kind)[0] - 'a' + 'A',
                 kind_section(kind) + 1);
    for (const struct component *const *c = p->components; *c && f; c++) {
        char *title = xasprintf("\n## %s\n", (*c)->name);
        if ((*c)->kind == kind && !strstr(buf_cstr(&old), title))
            options_reference(*c, &page);
        free(title);
    }
    if (f && page.n && (fwrite(page.p, 1, page.n, f) != page.n || fflush(f) != 0))
        rc = -EIO;
    if (f)
        fclose(f);
    if (rc < 0)
        fprintf(stderr, "cannot write %s: %s\n", path, strerror(-rc));
    buf_fini(&old);
    buf_fini(&page);
    free(path);
    return rc;
}

static int write_reference(const char *dir, const struct service_program *p)
{
    for (enum component_kind k = 0; k < KIND_COUNT; k++)
        if (write_page(dir, k, p) < 0)
            return 1;
    return 0;
}

static int explain(struct cli *c, const char *name, struct buf *out)
{
    bool found = false;
    for (enum component_kind k = 0; k < KIND_COUNT; k++) {
        const struct component *m = registry_find(c->program->components, k, str_of(name));
        if (!m)
            continue;
        found = true;
        buf_addf(out, "%s ", kind_word(k));
        options_reference(m, out);
    }
    return found ? 0 : complain(c, "no component is called '%s'", name);
}

static int cmd_components(struct cli *c)
{
    const struct service_program *p = c->program;
    struct buf out;
    int rc = 0;

    if (c->argc >= 2 && strcmp(c->argv[1], "--reference") == 0)
        return c->argc == 3 ? write_reference(c->argv[2], p)
                            : complain(c, "components --reference DIR") < 0;
    buf_init(&out);
    if (c->argc == 1)
        components_print(p->name, p->description, tailrace_version(), p->components, &out);
    else if (c->argc == 2 && strcmp(c->argv[1], "--schema") == 0)
        components_schema(p->components, &out);
    else if (c->argc == 2 && c->argv[1][0] != '-')
        rc = explain(c, c->argv[1], &out);
    else
        rc = complain(c, "components takes NAME, --schema or --reference DIR");
    fputs(buf_cstr(&out), stdout);
    buf_fini(&out);
    return rc < 0;
}

/* ---- help ---- */

static void help_line(const char *name, const char *value, const char *help)
{
    char *left = xasprintf("%s%s%s", name, value ? " " : "", value ? value : "");
    printf("  %-32s %s\n", left, help);
    free(left);
}

static void help_components(const struct service_program *p)
{
    for (enum component_kind k = 0; k < KIND_COUNT; k++) {
        const char *sep = "";
        printf("  %-11s", kind_section(k));
        for (const struct component *const *c = p->components; *c; c++) {
            if ((*c)->kind != k)
                continue;
            printf("%s %s", sep, (*c)->name);
            sep = ",";
        }
        putchar('\n');
    }
}

static int cmd_help(struct cli *c)
{
    const struct service_program *p = c->program;

    printf("%s: %s\n\nUsage: %s [--config FILE ...] [flags] [command]\n\nFlags:\n", p->name,
           p->description, p->name);
    help_line("--config", "SOURCE",
              "file, file:PATH, env:NAME or yaml:TEXT; repeatable, later wins");
    help_line("--set", "KEY.PATH=VALUE", "one value over all files, as YAML; repeatable");
    for (const struct service_flag *f = p->flags; f && f->name; f++)
        help_line(f->name, f->value, f->help);
    help_line("--version", NULL, "print the version");
    help_line("--help", NULL, "this text");
    printf("\nCommands (none: run):\n");
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        help_line(commands[i].name, NULL, commands[i].help);
    for (const struct service_command *s = p->commands; s && s->name; s++)
        help_line(s->name, NULL, s->help);
    printf("\nBuilt in (components NAME explains one):\n");
    help_components(p);
    return 0;
}

/* ---- entry ---- */

static int run_command(struct cli *c)
{
    const char *name = c->argv[0], *names[64];
    size_t n = 0;
    char hint[160];

    for (const struct service_command *s = c->program->commands; s && s->name; s++) {
        if (strcmp(s->name, name) == 0)
            return s->run(c->argc, c->argv);
        if (n < 32)
            names[n++] = s->name;
    }
    if (strcmp(name, "print-initial-config") == 0)
        return cmd_print_config(c);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].run(c);
        names[n++] = commands[i].name;
    }
    complain(c, "unknown command '%s'%s", name, option_hint(name, names, n, hint, sizeof(hint)));
    return 1;
}

int service_main(const struct service_program *p, int argc, char **argv)
{
    struct cli c = {.program = p};
    int status = 1;

    if (parse_args(&c, argc, argv) == 0) {
        if (c.help) {
            status = cmd_help(&c);
        } else if (c.version) {
            printf("%s version %s\n", p->name, tailrace_version());
            status = 0;
        } else if (c.argc) {
            status = run_command(&c);
        } else if (complete_sources(&c) == 0) {
            status = service_run(p, c.sources, c.n_sources);
        }
    }
    free(c.sources);
    free(c.made);
    return status;
}
