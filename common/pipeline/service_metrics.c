/* SPDX-License-Identifier: Apache-2.0 */
#include "common/pipeline/service_metrics.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/io/http_server.h"
#include "common/pipeline/ledger.h"
#include "common/pipeline/telemetry.h"
#include "common/pipeline/version.h"

#define SERVICE_METRICS_MAGIC 0x534d4554u

struct service_metrics {
    unsigned magic;
    struct http_server *server;
    struct http_handler handler;
    const char *program;
    char endpoint[300];
    struct buf resource; /* labels of target_info */
};

static uint64_t started_ns;
static char instance_id[37];
static _Atomic unsigned closing;

const char *service_instance_id(void)
{
    unsigned char r[16];
    if (instance_id[0])
        return instance_id;
    started_ns = clock_mono_ns();
    ssize_t n = getrandom(r, sizeof(r), 0);
    ASSERT(n == (ssize_t)sizeof(r));
    r[6] = (r[6] & 0x0f) | 0x40; /* RFC 9562: version 4 */
    r[8] = (r[8] & 0x3f) | 0x80;
    snprintf(instance_id, sizeof(instance_id),
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", r[0], r[1],
             r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14],
             r[15]);
    return instance_id;
}

static double process_rss(void)
{
    unsigned long pages = 0, rss = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f)
        return 0;
    int n = fscanf(f, "%lu %lu", &pages, &rss);
    fclose(f);
    return n == 2 ? (double)rss * (double)sysconf(_SC_PAGESIZE) : 0;
}

static void put_gauge(struct buf *out, const char *name, const char *help, double v)
{
    buf_addf(out, "# HELP %s %s\n# TYPE %s gauge\n%s %.17g\n", name, help, name, name, v);
}

static const struct metric_desc uptime_desc = {"process_uptime",
                                               "Uptime of the process in seconds.",
                                               "s",
                                               METRIC_KIND_COUNTER,
                                               LEVEL_BASIC,
                                               NULL,
                                               0};
static const struct metric_desc cpu_desc = {"process_cpu_seconds",
                                            "CPU user and system time in seconds.",
                                            "s",
                                            METRIC_KIND_COUNTER,
                                            LEVEL_BASIC,
                                            NULL,
                                            0};
static const struct metric_desc rss_desc = {"process_memory_rss",
                                            "Resident memory in bytes.",
                                            "By",
                                            METRIC_KIND_GAUGE,
                                            LEVEL_BASIC,
                                            NULL,
                                            0};

/* The Collector has these of Go's runtime; here they are the memory of telemetry. */
static const struct metric_desc in_use_desc = {"process_runtime_heap_alloc_bytes",
                                               "Bytes of telemetry in use.",
                                               "By",
                                               METRIC_KIND_GAUGE,
                                               LEVEL_BASIC,
                                               NULL,
                                               0};
static const struct metric_desc mapped_desc = {"process_runtime_total_sys_memory_bytes",
                                               "Bytes taken from the system for telemetry.",
                                               "By",
                                               METRIC_KIND_GAUGE,
                                               LEVEL_BASIC,
                                               NULL,
                                               0};

static void put_process(struct buf *out, const struct metric_desc *d, double v)
{
    struct buf name;
    buf_init(&name);
    telemetry_name(d, &name);
    buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", buf_cstr(&name), d->help,
             buf_cstr(&name), d->kind == METRIC_KIND_COUNTER ? "counter" : "gauge", buf_cstr(&name),
             v);
    buf_fini(&name);
}

static void expose_process(struct buf *out)
{
    struct rusage u;
    struct mem_usage m;
    getrusage(RUSAGE_SELF, &u);
    mem_usage_get(&m);
    double cpu = (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
                 (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    put_process(out, &uptime_desc, (double)(clock_mono_ns() - started_ns) / 1e9);
    put_process(out, &cpu_desc, cpu);
    put_process(out, &rss_desc, process_rss());
    put_process(out, &in_use_desc, (double)m.in_use);
    put_process(out, &mapped_desc, (double)m.mapped);
    put_gauge(out, "tailrace_memory_mapped_bytes", "Memory taken from the system for telemetry.",
              (double)m.mapped);
    put_gauge(out, "tailrace_memory_in_use_bytes", "Memory of telemetry in use.", (double)m.in_use);
    put_gauge(out, "tailrace_memory_reserved_bytes",
              "Memory promised to requests that are being received.", (double)m.reserved);
    put_gauge(out, "tailrace_memory_refused", "Allocations refused by the limit.",
              (double)m.refused);
}

static int on_head(void *arg, struct http_request *r, uint64_t *max_body)
{
    (void)arg;
    *max_body = 4096;
    if (!str_is(r->path, "/metrics"))
        return 404;
    return str_is(r->method, "GET") || str_is(r->method, "HEAD") ? 0 : 405;
}

static void on_message(void *arg, struct http_request *r)
{
    struct service_metrics *m = CAST_OBJ(struct service_metrics, arg, SERVICE_METRICS_MAGIC);
    struct http_header type = {"content-type", STR("text/plain; version=0.0.4; charset=utf-8")};
    struct buf out;
    buf_init(&out);
    buf_addf(&out,
             "# HELP target_info Target metadata\n# TYPE target_info gauge\n"
             "target_info{%s} 1\n",
             buf_cstr(&m->resource));
    expose_process(&out);
    telemetry_expose(&out);
    ledger_expose_processors(&out);
    ledger_expose(&out);
    struct http_response resp = {.status = buf_error(&out) ? 500 : 200,
                                 .headers = &type,
                                 .n_headers = 1,
                                 .body = buf_str(&out)};
    http_respond(r, &resp);
    buf_fini(&out);
}

static void on_refuse(void *arg, struct http_request *r, enum http_refusal why)
{
    struct http_response resp = {.status = why == HTTP_OVERLOADED ? 503 : 400};
    (void)arg;
    http_respond(r, &resp);
}

static void add_label(struct buf *out, const char *key, const char *value)
{
    if (out->n)
        buf_add_byte(out, ',');
    if (isdigit((unsigned char)*key))
        buf_add_cstr(out, "key_");
    for (const char *c = key; *c; c++)
        buf_add_byte(out, isalnum((unsigned char)*c) ? (uint8_t)*c : '_');
    buf_add_cstr(out, "=\"");
    for (const char *c = value; *c; c++) {
        if (*c == '"' || *c == '\\' || *c == '\n')
            buf_add_byte(out, '\\');
        buf_add_byte(out, *c == '\n' ? 'n' : (uint8_t)*c);
    }
    buf_add_byte(out, '"');
}

/* Labels of target_info: the program's own attributes unless given otherwise or taken away by null.
 */
static void add_resource(struct buf *out, const struct option_list *l, const char *program)
{
    const struct option_pair own[] = {{"service.name", program},
                                      {"service.version", tailrace_version()},
                                      {"service.instance.id", service_instance_id()}};
    const struct option_pair *p = l->items;
    for (size_t k = 0; k < ARRAY_LEN(own); k++) {
        bool is_given = false;
        for (size_t i = 0; i < l->n; i++)
            is_given = is_given || strcmp(p[i].key, own[k].key) == 0;
        if (!is_given)
            add_label(out, own[k].key, own[k].value);
    }
    for (size_t i = 0; i < l->n; i++)
        if (p[i].value)
            add_label(out, p[i].key, p[i].value);
}

int service_metrics_open(struct service_metrics **out, const struct config_telemetry *c,
                         const char *program, struct err *e)
{
    *out = NULL;
    service_instance_id();
    telemetry_set_level(c->metrics_level);
    telemetry_set_names(!c->without_type_suffix, !c->without_units);
    if (!c->metrics_on || c->metrics_level == LEVEL_NONE)
        return 0;
    struct service_metrics *m = xcalloc(1, sizeof(*m));
    SET_MAGIC(m, SERVICE_METRICS_MAGIC);
    m->program = program;
    m->handler = (struct http_handler){
        .arg = m, .head = on_head, .message = on_message, .refuse = on_refuse};
    buf_init(&m->resource);
    add_resource(&m->resource, &c->resource, program);
    bool is_v6 = strchr(c->metrics_host, ':') != NULL;
    snprintf(m->endpoint, sizeof(m->endpoint), is_v6 ? "[%s]:%u" : "%s:%u", c->metrics_host,
             (unsigned)c->metrics_port);
    struct http_server_config sc = {.endpoint = m->endpoint};
    int r = http_server_open(&m->server, &sc, &m->handler, e);
    if (r) {
        err_prefix(e, "service::telemetry::metrics: ");
        buf_fini(&m->resource);
        free(m);
        return r;
    }
    *out = m;
    return 0;
}

static void closed(void *arg)
{
    struct service_metrics *m = CAST_OBJ(struct service_metrics, arg, SERVICE_METRICS_MAGIC);
    buf_fini(&m->resource);
    CLEAR_MAGIC(m);
    free(m);
    closing--;
}

void service_metrics_close(struct service_metrics **mp)
{
    struct service_metrics *m = *mp;
    if (!m)
        return;
    *mp = NULL;
    closing++;
    http_server_close(&m->server, closed, m);
}

unsigned service_metrics_closing(void)
{
    return closing;
}
