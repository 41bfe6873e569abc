/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/receiver_options.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/ebpf/url.h"
#include "common/base/buf.h"

enum { PORTS_MAX = 65535, EXCLUDED_MAX = 256 };

static const char *const tiers[] = {"auto", "sock_length", "fexit", "kprobe", "syscall", NULL};

static const char *const tls_probes[] = {"auto", "process", "library", NULL};
static const char *const tls_returns[] = {"auto", "return_probe", "behind_call", NULL};

#define AT(field) offsetof(struct ebpf_config, field)
const struct option ebpf_options[] = {
    {.key = "ports",
     .type = OPT_STRINGS,
     .offset = AT(ports),
     .help = "Every process that listens on one of these ports; \"8000-8010\" is a range."},
    {.key = "port", .type = OPT_STRINGS, .offset = AT(ports), .flags = OPT_ALIAS},
    {.key = "executables",
     .type = OPT_STRINGS,
     .offset = AT(exes),
     .help = "Processes whose executable's path matches one of these globs, \"*/nginx\"."},
    {.key = "exe", .type = OPT_STRINGS, .offset = AT(exes), .flags = OPT_ALIAS},
    {.key = "pids", .type = OPT_STRINGS, .offset = AT(pids), .help = "Processes by number."},
    {.key = "pid", .type = OPT_STRINGS, .offset = AT(pids), .flags = OPT_ALIAS},
    {.key = "all",
     .type = OPT_BOOL,
     .offset = AT(all),
     .def = "false",
     .help = "Every process of the host but this product's."},
    {.key = "discovery_file",
     .type = OPT_STRING,
     .offset = AT(discovery_file),
     .help = "Rules that select processes, too, and say what they are called."},
    {.key = "exclude_endpoints",
     .type = OPT_STRINGS,
     .offset = AT(exclude_endpoints),
     .help = "host:port of telemetry back ends: connections to them are never observed."},
    {.key = "capture_tier",
     .type = OPT_ENUM,
     .offset = AT(tier),
     .names = tiers,
     .def = "auto",
     .help = "How socket data is captured. A tier named here that cannot be loaded is an error."},
    {.key = "tls",
     .type = OPT_BOOL,
     .offset = AT(tls),
     .def = "true",
     .help = "Plaintext of OpenSSL, through probes in selected processes."},
    {.key = "tls_probes",
     .type = OPT_ENUM,
     .offset = AT(tls_probes),
     .names = tls_probes,
     .def = "auto",
     .help = "Where probes in TLS libraries are: in selected processes alone (process), so that "
             "others pay nothing, or in all that map the library (library), so that a process of "
             "a few milliseconds is seen; auto: in all while selected programs are being started."},
    {.key = "tls_returns",
     .type = OPT_ENUM,
     .offset = AT(tls_returns),
     .names = tls_returns,
     .def = "auto",
     .help = "How the end of a TLS library's call is seen: by a return probe, or by a probe behind "
             "the call; auto tests at start whether processes outlive return probes."},
    {.key = "scheduler",
     .type = OPT_BOOL,
     .offset = AT(scheduler),
     .def = "false",
     .help = "Time that tasks waited for a CPU, by cgroup, of the whole host."},
    {.key = "client_spans_with_traceparent",
     .type = OPT_BOOL,
     .offset = AT(client_spans_with_traceparent),
     .def = "false",
     .help = "Client spans for requests that carry traceparent, too: somebody else traces those."},
    {.key = "ring_size",
     .type = OPT_UINT,
     .offset = AT(ring_size),
     .def = "8388608",
     .min = 65536,
     .max = 1 << 28,
     .help = "Bytes of a data ring, a power of two."},
    {.key = "rings",
     .type = OPT_UINT,
     .offset = AT(rings),
     .def = "0",
     .max = 8,
     .help =
         "Data rings, each of ring_size; a connection always uses the same one. 0: one for each "
         "8 CPUs, smaller ones where they would take more than 16 MB together."},
    {.key = "control_ring_size",
     .type = OPT_UINT,
     .offset = AT(control_ring_size),
     .def = "262144",
     .min = 65536,
     .max = 1 << 24,
     .help = "Bytes of the ring of process records, a power of two."},
    {.key = "drain_interval",
     .type = OPT_DURATION,
     .offset = AT(drain_interval_ns),
     .def = "100ms",
     .min = 1e6,
     .max = 1e9,
     .help = "Time between two looks into the rings."},
    {.key = "sweep_interval",
     .type = OPT_DURATION,
     .offset = AT(sweep_interval_ns),
     .def = "30s",
     .min = 1e8,
     .max = 3.6e12,
     .help = "Time between two looks for connections whose end was not told."},
    {.key = "metrics_interval",
     .type = OPT_DURATION,
     .offset = AT(metrics_interval_ns),
     .def = "10s",
     .min = 1e8,
     .max = 3.6e12,
     .help = "Time between two exports of metrics."},
    {.key = "max_series",
     .type = OPT_UINT,
     .offset = AT(max_series),
     .def = "2000",
     .min = 10,
     .max = 1000000,
     .help = "Series of metrics; what comes after goes to an overflow series."},
    {.key = "service_name",
     .type = OPT_STRING,
     .offset = AT(service_name),
     .help = "service.name of everything observed, over what the processes' environment says."},
    {.key = "resource_attributes",
     .type = OPT_MAP,
     .offset = AT(resource_attributes),
     .help = "Attributes of every resource."},
    {.key = "redact_query_keys",
     .type = OPT_STRINGS,
     .offset = AT(redact_query_keys),
     .help = "Further query keys whose values are replaced by REDACTED."},
    {.key = "record_file",
     .type = OPT_STRING,
     .offset = AT(record_file),
     .help = "Writes every record to this file, for replays. It then holds captured traffic."},
    OPTION_END,
};

static bool is_power_of_two(uint64_t n)
{
    return n && !(n & (n - 1));
}

int ebpf_validate(const void *config, struct err *e)
{
    const struct ebpf_config *c = config;
    struct selection_storage s;
    int res;

    if (!c->all && !c->ports.n && !c->exes.n && !c->pids.n && !c->discovery_file[0])
        return err_set(e, -EINVAL,
                       "nothing is selected: one of ports, executables, pids, all, "
                       "discovery_file");
    if (!is_power_of_two(c->ring_size) || !is_power_of_two(c->control_ring_size))
        return err_set(e, -EINVAL, "ring_size and control_ring_size must be powers of two");
    res = selection_read(&s, c, e);
    if (!res)
        selection_free(&s);
    return res;
}

static const char *text_at(const struct option_list *l, size_t i)
{
    return ((const char *const *)l->items)[i];
}

/* "8080" or "8000-8010". */
static int read_ports(struct selection_storage *out, const char *text, struct err *e)
{
    uint16_t from, to;

    if (!port_range_read(text, &from, &to))
        return err_set(e, -EINVAL, "ports: '%s' is no port and no range of ports", text);
    out->ports = xrealloc(out->ports, (out->s.n_ports + to - from + 1u) * sizeof(*out->ports));
    for (uint32_t port = from; port <= to && out->s.n_ports < PORTS_MAX; port++)
        out->ports[out->s.n_ports++] = (uint16_t)port;
    return 0;
}

/* What the rules match joins what the keys select. */
static int read_rules(struct selection_storage *out, const char *path, struct err *e)
{
    int res = discovery_load(&out->discovery, path, &out->discovery_text, e);

    out->s.discovery = out->discovery;
    for (unsigned i = 0; !res && i < out->discovery->n_rules; i++) {
        const struct discovery_rule *r = &out->discovery->rules[i];

        for (unsigned k = 0; k < r->n_ports && !res; k++)
            res = read_ports(out, r->ports[k], e);
        out->pids = xrealloc(out->pids, (out->s.n_pids + r->n_pids + 1) * sizeof(*out->pids));
        for (unsigned k = 0; k < r->n_pids; k++)
            out->pids[out->s.n_pids++] = r->pids[k];
        out->exes = xrealloc(out->exes, (out->s.n_exes + r->n_executables + 1) * sizeof(char *));
        for (unsigned k = 0; k < r->n_executables; k++)
            out->exes[out->s.n_exes++] = r->executables[k];
    }
    return res;
}

static int read_pids(struct selection_storage *out, const struct ebpf_config *c, struct err *e)
{
    out->pids = xcalloc(c->pids.n + 1, sizeof(*out->pids));
    for (size_t i = 0; i < c->pids.n; i++) {
        uint64_t n;

        if (str_to_u64(str_of(text_at(&c->pids, i)), &n) || n < 1 || n > UINT32_MAX)
            return err_set(e, -EINVAL, "pids: '%s' is no process number", text_at(&c->pids, i));
        out->pids[out->s.n_pids++] = (uint32_t)n;
    }
    return 0;
}

static char *join_attributes(const struct option_list *l)
{
    char *all = xstrdup("");

    for (size_t i = 0; i < l->n; i++) {
        const struct option_pair *p = (const struct option_pair *)l->items + i;
        char *more = xasprintf("%s%s%s=%s", all, i ? "," : "", p->key, p->value);

        free(all);
        all = more;
    }
    return all;
}

static void add_list(struct buf *b, const char *name, const struct option_list *l)
{
    buf_addf(b, "%s", name);
    for (size_t i = 0; i < l->n; i++)
        buf_addf(b, "\n%s", text_at(l, i));
    buf_add_byte(b, 0);
}

char *ebpf_identity(const struct ebpf_config *c, const struct selection_storage *s)
{
    char *attributes = join_attributes(&c->resource_attributes), *text;
    struct buf b;

    buf_init(&b);
    add_list(&b, "ports", &c->ports);
    add_list(&b, "exes", &c->exes);
    add_list(&b, "pids", &c->pids);
    add_list(&b, "exclude", &c->exclude_endpoints);
    add_list(&b, "redact", &c->redact_query_keys);
    buf_addf(&b, "%d%d%d%d %d %llu %llu %llu %llu %llu %llu %llu\n%s\n%s\n%s\n%s", c->all, c->tls,
             c->scheduler, c->client_spans_with_traceparent, c->tier,
             (unsigned long long)c->ring_size, (unsigned long long)c->control_ring_size,
             (unsigned long long)c->drain_interval_ns, (unsigned long long)c->metrics_interval_ns,
             (unsigned long long)c->max_series, (unsigned long long)c->rings,
             (unsigned long long)c->sweep_interval_ns, c->service_name, c->record_file, attributes,
             s->discovery_text ? s->discovery_text : "");
    for (size_t i = 0; i < b.n; i++)
        if (!b.p[i])
            b.p[i] = '\t';
    text = xstrdup(buf_cstr(&b));
    buf_fini(&b);
    free(attributes);
    return text;
}

int selection_read(struct selection_storage *out, const struct ebpf_config *c, struct err *e)
{
    size_t n = 0;
    int res = 0;

    memset(out, 0, sizeof(*out));
    for (size_t i = 0; i < c->ports.n && !res; i++)
        res = read_ports(out, text_at(&c->ports, i), e);
    if (!res)
        res = read_pids(out, c, e);
    out->exes = xcalloc(c->exes.n + 1, sizeof(*out->exes));
    for (size_t i = 0; i < c->exes.n; i++)
        out->exes[out->s.n_exes++] = text_at(&c->exes, i);
    if (!res && c->discovery_file[0])
        res = read_rules(out, c->discovery_file, e);
    if (res) {
        selection_free(out);
        return res;
    }
    out->s.ports = out->ports;
    out->s.pids = out->pids;
    out->s.exes = out->exes;
    out->s.all = c->all;
    out->s.self = (uint32_t)getpid();
    out->attributes = join_attributes(&c->resource_attributes);
    while (query_sensitive_keys[n])
        n++;
    out->redacted = xcalloc(n + c->redact_query_keys.n + 1, sizeof(*out->redacted));
    memcpy(out->redacted, query_sensitive_keys, n * sizeof(*out->redacted));
    for (size_t i = 0; i < c->redact_query_keys.n; i++)
        out->redacted[n++] = text_at(&c->redact_query_keys, i);
    return 0;
}

static void add_excluded(struct selection_storage *s, const struct addrinfo *a)
{
    struct endpoint *x;

    if (s->s.n_excluded == EXCLUDED_MAX)
        return;
    s->excluded = xrealloc(s->excluded, (s->s.n_excluded + 1) * sizeof(*x));
    x = &s->excluded[s->s.n_excluded++];
    memset(x, 0, sizeof(*x));
    if (a->ai_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)a->ai_addr;

        memcpy(x->address, &in6->sin6_addr, 16);
        x->port = ntohs(in6->sin6_port);
    } else {
        const struct sockaddr_in *in4 = (const void *)a->ai_addr;

        x->address[10] = x->address[11] = 0xff;
        memcpy(x->address + 12, &in4->sin_addr, 4);
        x->port = ntohs(in4->sin_port);
    }
    s->s.excluded = s->excluded;
}

void selection_resolve(struct selection_storage *s, const struct ebpf_config *c,
                       const struct log_ctx *log)
{
    for (size_t i = 0; i < c->exclude_endpoints.n; i++) {
        const char *text = text_at(&c->exclude_endpoints, i);
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
        uint16_t port;
        struct str host = authority_host(str_of(text), &port);
        char *name = xstrndup(host.p, host.n), service[8];
        int res;

        snprintf(service, sizeof(service), "%u", port);
        res = getaddrinfo(name, service, &hints, &found);
        if (res)
            log_warn(log, "exclude_endpoints: %s: %s", text, gai_strerror(res));
        for (const struct addrinfo *a = found; a; a = a->ai_next)
            if (a->ai_family == AF_INET || a->ai_family == AF_INET6)
                add_excluded(s, a);
        if (found)
            freeaddrinfo(found);
        free(name);
    }
}

void selection_free(struct selection_storage *s)
{
    free(s->ports);
    free(s->pids);
    free(s->exes);
    discovery_free(&s->discovery);
    free(s->discovery_text);
    free(s->redacted);
    free(s->excluded);
    free(s->attributes);
    memset(s, 0, sizeof(*s));
}
