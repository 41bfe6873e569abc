/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where configuration text comes from: --config PATH, file:PATH, env:NAME, yaml:TEXT, and --set.
 * The same three schemes serve ${scheme:...} inside values.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/pipeline/config_tree.h"

static int read_all(int fd, struct buf *out)
{
    for (;;) {
        char *p = buf_reserve(out, 65536);
        if (!p)
            return -ENOMEM;
        ssize_t n = read(fd, p, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        buf_commit(out, (size_t)n);
        if (n == 0)
            return 0;
        if (out->n > YAML_MAX_BYTES)
            return -EFBIG;
    }
}

static int read_file(struct yaml_ctx *c, const char *path, const struct yaml_mark *at,
                     struct str *text)
{
    struct buf b;
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = fd < 0 ? -errno : 0;

    buf_init(&b);
    if (fd >= 0) {
        rc = read_all(fd, &b);
        close(fd);
    }
    if (rc == 0) {
        *text = arena_dup(c->arena, b.n ? buf_str(&b) : STR(""));
        rc = text->p || !b.n ? 0 : report_nomem(c->report);
    } else if (rc == -EFBIG) {
        report_error(c->report, at, NULL, "%s: larger than %d bytes", path, YAML_MAX_BYTES);
    } else {
        report_error(c->report, at, NULL, "cannot read %s: %s", path, strerror(-rc));
    }
    buf_fini(&b);
    return rc;
}

static bool is_env_name(struct str s)
{
    if (s.n == 0 || isdigit((unsigned char)s.p[0]))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!isalnum((unsigned char)s.p[i]) && s.p[i] != '_')
            return false;
    return true;
}

/* NAME or NAME:-default. An unset variable without default is empty, and said. */
static int read_env(struct yaml_ctx *c, const char *opaque, const struct yaml_mark *at,
                    struct str *text)
{
    const char *def = strstr(opaque, ":-");
    struct str name = def ? str_make(opaque, (size_t)(def - opaque)) : str_of(opaque);

    if (!is_env_name(name)) {
        report_error(c->report, at, NULL,
                     "'" STR_FMT "' is no name of an environment variable "
                     "([A-Za-z_][A-Za-z0-9_]*); a literal $ before { is written $$",
                     STR_ARG(name));
        return -EINVAL;
    }
    char *z = xstrndup(name.p, name.n);
    const char *value = getenv(z);
    if (!value && !def)
        report_warning(c->report, at, NULL, "environment variable %s is not set: read as empty", z);
    free(z);
    *text = str_of(value ? value : def ? def + 2 : "");
    return 0;
}

int source_read(struct yaml_ctx *c, const char *scheme, const char *opaque,
                const struct yaml_mark *at, struct str *text)
{
    if (strcmp(scheme, "env") == 0)
        return read_env(c, opaque, at, text);
    if (strcmp(scheme, "file") == 0)
        return read_file(c, opaque, at, text);
    if (strcmp(scheme, "yaml") == 0) {
        *text = str_of(opaque);
        return 0;
    }
    report_error(c->report, at, NULL, "scheme '%s' is not supported: use file, env or yaml",
                 scheme);
    return -EINVAL;
}

/* Length of a scheme in front of ':', at least two letters (one is a drive on Windows); 0 = none.
 */
static size_t scheme_length(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    return n >= 2 && text[n] == ':' && isalpha((unsigned char)text[0]) ? n : 0;
}

static const char *arena_print(struct yaml_ctx *c, const char *a, const char *b)
{
    size_t n = strlen(a) + strlen(b) + 1;
    char *p = arena_alloc(c->arena, n);
    if (!p) {
        report_nomem(c->report);
        return NULL;
    }
    snprintf(p, n, "%s%s", a, b);
    return p;
}

/* --set a.b.c=VALUE: {a: {b: {c: VALUE}}}, VALUE read as YAML. */
static int load_set(struct yaml_ctx *c, const char *arg, struct yaml_node **out)
{
    const char *eq = strchr(arg, '=');
    if (!eq || eq == arg) {
        report_error(c->report, NULL, NULL, "--set %s: write --set path.to.key=value", arg);
        return -EINVAL;
    }
    const char *file = arena_print(c, "--set ", arg);
    struct yaml_mark m = {file, 1, 1};
    struct yaml_node *value, *key = NULL, *root = NULL;
    int rc = file ? yaml_parse(c, str_of(eq + 1), file, &value) : -ENOMEM;
    if (rc < 0)
        return rc;
    struct buf path;
    buf_init(&path);
    for (const char *p = arg; p < eq; p++) {
        if (*p == '.')
            buf_add_cstr(&path, "::");
        else
            buf_add_byte(&path, (uint8_t)*p);
    }
    if (!buf_error(&path))
        key = yaml_scalar_new(c, buf_str(&path), true, &m);
    buf_fini(&path);
    root = key ? yaml_node_new(c, YAML_MAPPING, &m) : NULL;
    if (!root || yaml_set(c, root, key, value) < 0)
        return -EINVAL;
    *out = root;
    return 0;
}

static int load_config(struct yaml_ctx *c, const char *arg, struct yaml_node **out)
{
    size_t n = scheme_length(arg);
    struct str scheme = n ? str_make(arg, n) : STR("file");
    const char *opaque = n ? arg + n + 1 : arg;
    bool is_file = str_is(scheme, "file");
    const char *name = is_file ? arena_print(c, opaque, "")
                               : arena_print(c, str_is(scheme, "yaml") ? "yaml" : arg, "");
    struct yaml_mark nowhere = {0};
    struct str text = {0};

    if (!name)
        return -ENOMEM;
    char *z = xstrndup(scheme.p, scheme.n);
    int rc = source_read(c, z, opaque, &nowhere, &text);
    free(z);
    return rc < 0 ? rc : yaml_parse(c, text, name, out);
}

int source_load(struct yaml_ctx *c, const struct config_source *s, struct yaml_node **out)
{
    int rc = s->is_set ? load_set(c, s->text, out) : load_config(c, s->text, out);
    if (rc < 0)
        return rc;
    if ((*out)->kind == YAML_NULL) { /* an empty file adds nothing */
        *out = yaml_node_new(c, YAML_MAPPING, &(*out)->mark);
        return *out ? 0 : -EINVAL;
    }
    if ((*out)->kind != YAML_MAPPING) {
        report_error(c->report, &(*out)->mark, NULL,
                     "a configuration is a mapping with receivers, exporters, service ...");
        return -EINVAL;
    }
    return yaml_unflatten(c, out);
}
