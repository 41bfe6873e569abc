/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/fileless.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/ebpf/url.h"
#include "common/base/buf.h"

/* What the flags said; lists are as they were written. */
static struct {
    struct buf ports, exes, pids; /* items of a YAML list, each ", "-led */
    bool all, client_spans;
    const char *tier, *discovery;
} flags;

/* A YAML scalar that reads back as this text: '...' with quotes doubled, and no ${...} expanded. */
static void put_text(struct buf *b, const char *text, size_t n)
{
    buf_add_byte(b, '\'');
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\'' || text[i] == '$')
            buf_add_byte(b, (uint8_t)text[i]);
        buf_add_byte(b, (uint8_t)text[i]);
    }
    buf_add_byte(b, '\'');
}

static int add_items(struct buf *b, const char *list, const char *what, struct err *e)
{
    while (*list) {
        size_t n = strcspn(list, ",");
        struct str item = str_trim(str_make(list, n));

        if (item.n == 0)
            return err_set(e, -EINVAL, "%s: an empty item", what);
        if (b->n)
            buf_add_cstr(b, ", ");
        put_text(b, item.p, item.n);
        list += n + (list[n] == ',');
    }
    return b->n ? 0 : err_set(e, -EINVAL, "%s needs a value", what);
}

static int take_port(const char *v, struct err *e)
{
    return add_items(&flags.ports, v, "--port", e);
}

static int take_exe(const char *v, struct err *e)
{
    return add_items(&flags.exes, v, "--exe", e);
}

static int take_pid(const char *v, struct err *e)
{
    return add_items(&flags.pids, v, "--pid", e);
}

static int take_all(const char *v, struct err *e)
{
    flags.all = true;
    return 0;
}

static int take_tier(const char *v, struct err *e)
{
    flags.tier = v;
    return 0;
}

static int take_discovery(const char *v, struct err *e)
{
    flags.discovery = v;
    return 0;
}

static int take_client_spans(const char *v, struct err *e)
{
    flags.client_spans = true;
    return 0;
}

const struct service_flag fileless_flags[] = {
    {"--port", "LIST", "observe processes that listen on these ports: 8080,8443,9000-9010",
     take_port},
    {"--exe", "GLOBS", "observe processes by executable: '*/nginx,*/python3*'", take_exe},
    {"--pid", "LIST", "observe processes by number", take_pid},
    {"--all", NULL, "observe every process of this host", take_all},
    {"--discovery", "FILE", "observe and name processes by the rules of a file", take_discovery},
    {"--capture-tier", "TIER", "auto, sock_length, fexit, kprobe or syscall", take_tier},
    {"--client-spans-with-traceparent", NULL,
     "client spans for requests that carry traceparent, too", take_client_spans},
    {NULL, NULL, NULL, NULL},
};

/* ---- the OTEL_ variables ---- */

/* An empty variable counts as unset, as the specification has it. */
static const char *env(const char *name)
{
    const char *v = getenv(name);

    return v && *v ? v : NULL;
}

/* OTEL_EXPORTER_OTLP_<SIGNAL>_<key>, else OTEL_EXPORTER_OTLP_<key>. */
static const char *otlp_env(const char *signal, const char *key, bool *is_own)
{
    char *name = xasprintf("OTEL_EXPORTER_OTLP_%s_%s", signal, key);
    const char *v = env(name);

    free(name);
    if (is_own)
        *is_own = v != NULL;
    if (v)
        return v;
    name = xasprintf("OTEL_EXPORTER_OTLP_%s", key);
    v = env(name);
    free(name);
    return v;
}

struct target_of {
    const char *signal;   /* "TRACES" */
    const char *exporter; /* "otlp_http/traces" */
    const char *url;
    bool is_own, is_grpc;
};

static bool ends_with_grpc_port(const char *url)
{
    const char *authority = strstr(url, "://");
    uint16_t port;

    authority = authority ? authority + 3 : url;
    authority_host(str_make(authority, strcspn(authority, "/")), &port);
    return port == 4317;
}

/*
 * Which protocol. The specification's default is http/protobuf; an endpoint on the port that is
 * registered for OTLP/gRPC says grpc when nothing else is said.
 */
static int read_protocol(struct target_of *t, struct err *e)
{
    const char *p = otlp_env(t->signal, "PROTOCOL", NULL);

    t->url = otlp_env(t->signal, "ENDPOINT", &t->is_own);
    t->is_grpc = p ? strcmp(p, "grpc") == 0 : t->url && ends_with_grpc_port(t->url);
    if (p && !t->is_grpc && strcmp(p, "http/protobuf") != 0)
        return err_set(e, -EINVAL,
                       "OTEL_EXPORTER_OTLP_PROTOCOL: '%s' is not known here: grpc, "
                       "http/protobuf",
                       p);
    if (!t->url)
        t->url = t->is_grpc ? "http://localhost:4317" : "http://localhost:4318";
    return 0;
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef", *at = strchr(digits, c | 0x20);

    return c && at ? (int)(at - digits) : c >= '0' && c <= '9' ? c - '0' : -1;
}

/* "k=v,k2=v2" with percent-encoded values, as a YAML mapping in flow style. */
static void put_headers(struct buf *b, const char *key, const char *list)
{
    struct buf value;
    bool any = false;

    buf_init(&value);
    while (*list) {
        size_t n = strcspn(list, ",");
        const char *eq = memchr(list, '=', n);

        if (eq) {
            struct str name = str_trim(str_make(list, (size_t)(eq - list)));
            struct str v = str_trim(str_make(eq + 1, n - (size_t)(eq + 1 - list)));

            buf_reset(&value);
            for (size_t i = 0; i < v.n; i++) {
                int hi = v.p[i] == '%' && i + 2 < v.n ? hex_digit(v.p[i + 1]) : -1;
                int lo = hi >= 0 ? hex_digit(v.p[i + 2]) : -1;

                buf_add_byte(&value, lo >= 0 ? (uint8_t)(hi << 4 | lo) : (uint8_t)v.p[i]);
                i += lo >= 0 ? 2 : 0;
            }
            buf_add_cstr(b, any ? ", " : key);
            put_text(b, name.p, name.n);
            buf_add_cstr(b, ": ");
            put_text(b, value.n ? value.p : "", value.n);
            any = true;
        }
        list += n + (list[n] == ',');
    }
    if (any)
        buf_add_cstr(b, "}\n");
    buf_fini(&value);
}

static void put_line(struct buf *b, const char *key, const char *value)
{
    if (!value)
        return;
    buf_addf(b, "    %s: ", key);
    put_text(b, value, strlen(value));
    buf_add_byte(b, '\n');
}

static void put_tls(struct buf *b, const struct target_of *t)
{
    const char *insecure = otlp_env(t->signal, "INSECURE", NULL);
    bool is_plain = strncmp(t->url, "http://", 7) == 0;
    bool has_scheme = strstr(t->url, "://") != NULL;
    const char *files[3] = {otlp_env(t->signal, "CERTIFICATE", NULL),
                            otlp_env(t->signal, "CLIENT_CERTIFICATE", NULL),
                            otlp_env(t->signal, "CLIENT_KEY", NULL)};
    static const char *const keys[3] = {"  ca_file", "  cert_file", "  key_file"};

    if (!has_scheme && t->is_grpc)
        is_plain = insecure && strcasecmp(insecure, "true") == 0;
    buf_addf(b, "    tls:\n      insecure: %s\n", is_plain ? "true" : "false");
    for (unsigned i = 0; i < 3; i++)
        put_line(b, keys[i], files[i]);
}

/* One exporter of one signal. */
static void put_exporter(struct buf *b, const struct target_of *t)
{
    const char *headers = otlp_env(t->signal, "HEADERS", NULL);
    const char *timeout = otlp_env(t->signal, "TIMEOUT", NULL);
    const char *compression = otlp_env(t->signal, "COMPRESSION", NULL);
    uint64_t ms;

    buf_addf(b, "  %s:\n", t->exporter);
    if (!t->is_grpc && t->is_own) /* a signal's own endpoint is used as it is */
        put_line(b, strcmp(t->signal, "TRACES") == 0 ? "traces_endpoint" : "metrics_endpoint",
                 t->url);
    else
        put_line(b, "endpoint", t->url);
    put_tls(b, t);
    put_line(b, "compression", compression);
    if (timeout && !str_to_u64(str_of(timeout), &ms))
        buf_addf(b, "    timeout: %llums\n", (unsigned long long)ms);
    if (headers)
        put_headers(b, "    headers: {", headers);
}

/* host:port of an endpoint, for the list of what is never observed. */
static void put_excluded(struct buf *b, const struct target_of *t)
{
    const char *p = strstr(t->url, "://");
    bool is_tls = strncmp(t->url, "https://", 8) == 0;
    uint16_t port;
    struct str host;
    char *text;

    p = p ? p + 3 : t->url;
    host = authority_host(str_make(p, strcspn(p, "/")), &port);
    if (!port)
        port = is_tls ? 443 : t->is_grpc ? 4317 : 80;
    text = memchr(host.p, ':', host.n) ? xasprintf("[%.*s]:%u", STR_ARG(host), port)
                                       : xasprintf("%.*s:%u", STR_ARG(host), port);
    if (b->n)
        buf_add_cstr(b, ", ");
    put_text(b, text, strlen(text));
    free(text);
}

/* Which exporters a signal has: 1 otlp, 2 console, 0 none; OTEL_<SIGNAL>_EXPORTER. */
static int exporter_kind(const char *signal, struct err *e)
{
    char *name = xasprintf("OTEL_%s_EXPORTER", signal);
    const char *v = env(name);
    int kind = 1;

    if (v && strcmp(v, "none") == 0)
        kind = 0;
    else if (v && strcmp(v, "console") == 0)
        kind = 2;
    else if (v && strcmp(v, "otlp") != 0)
        kind = err_set(e, -EINVAL, "%s: '%s' is not known here: otlp, console, none", name, v);
    free(name);
    return kind;
}

static void put_receiver(struct buf *b, const char *excluded)
{
    const char *service = env("OTEL_SERVICE_NAME"), *attributes = env("OTEL_RESOURCE_ATTRIBUTES");

    buf_add_cstr(b, "receivers:\n  ebpf:\n");
    if (flags.ports.n)
        buf_addf(b, "    ports: [%s]\n", buf_cstr(&flags.ports));
    if (flags.exes.n)
        buf_addf(b, "    executables: [%s]\n", buf_cstr(&flags.exes));
    if (flags.pids.n)
        buf_addf(b, "    pids: [%s]\n", buf_cstr(&flags.pids));
    if (flags.all)
        buf_add_cstr(b, "    all: true\n");
    put_line(b, "discovery_file", flags.discovery);
    put_line(b, "capture_tier", flags.tier);
    if (flags.client_spans)
        buf_add_cstr(b, "    client_spans_with_traceparent: true\n");
    put_line(b, "service_name", service);
    if (attributes)
        put_headers(b, "    resource_attributes: {", attributes);
    if (*excluded)
        buf_addf(b, "    exclude_endpoints: [%s]\n", excluded);
}

static const struct {
    const char *signal, *pipeline, *grpc, *http;
} signals[] = {
    {"TRACES", "traces", "otlp_grpc/traces", "otlp_http/traces"},
    {"METRICS", "metrics", "otlp_grpc/metrics", "otlp_http/metrics"},
};

struct draft {
    struct buf exporters, pipelines, excluded;
    bool has_console;
};

static int put_signal(struct draft *d, unsigned i, struct err *e)
{
    struct target_of t = {.signal = signals[i].signal};
    int kind = exporter_kind(t.signal, e);

    if (kind <= 0)
        return kind;
    if (kind == 2) {
        d->has_console = true;
        t.exporter = "debug";
    } else {
        int res = read_protocol(&t, e);

        if (res)
            return res;
        t.exporter = t.is_grpc ? signals[i].grpc : signals[i].http;
        put_exporter(&d->exporters, &t);
        put_excluded(&d->excluded, &t);
    }
    buf_addf(&d->pipelines, "    %s: {receivers: [ebpf], processors: [batch], exporters: [%s]}\n",
             signals[i].pipeline, t.exporter);
    return 0;
}

static char *assemble(struct draft *d)
{
    struct buf b;
    char *text;

    buf_init(&b);
    put_receiver(&b, buf_cstr(&d->excluded));
    buf_add_cstr(&b, "processors:\n  batch:\n    timeout: 200ms\nexporters:\n");
    buf_add_str(&b, buf_str(&d->exporters));
    if (d->has_console)
        buf_add_cstr(&b, "  debug:\n    verbosity: detailed\n");
    buf_addf(&b, "service:\n  pipelines:\n%s", buf_cstr(&d->pipelines));
    text = xstrdup(buf_cstr(&b));
    buf_fini(&b);
    return text;
}

char *fileless_config(struct err *e)
{
    struct draft d = {.has_console = false};
    char *text = NULL;
    int res = 0;

    e->text[0] = 0;
    if (!flags.ports.n && !flags.exes.n && !flags.pids.n && !flags.all && !flags.discovery) {
        if (env("OTEL_EXPORTER_OTLP_ENDPOINT"))
            err_set(e, -EINVAL, "nothing is selected: --port, --exe, --pid, --discovery or --all");
        return NULL;
    }
    buf_init(&d.exporters);
    buf_init(&d.pipelines);
    buf_init(&d.excluded);
    for (unsigned i = 0; i < ARRAY_LEN(signals) && !res; i++)
        res = put_signal(&d, i, e);
    if (!res && d.pipelines.n == 0)
        res = err_set(e, -EINVAL, "OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER are both none");
    if (!res)
        text = assemble(&d);
    buf_fini(&d.exporters);
    buf_fini(&d.pipelines);
    buf_fini(&d.excluded);
    return text;
}
