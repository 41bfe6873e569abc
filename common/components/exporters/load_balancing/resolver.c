/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of backends. A failed or empty DNS answer keeps the list that there is: a name server's
 * trouble must not take the backends away.
 *
 * Addresses are spelled as the Collector's dns resolver spells them, since the ring hashes that
 * text: "ip:port", IPv6 in brackets, without ":port" when the port is set to "".
 */
#include "common/components/exporters/load_balancing/resolver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/io/dns.h"

#define RESOLVER_MAGIC 0x4c425253u

/* Asked again after this long while there is no list at all. */
enum { FIRST_RETRY_MS = 1000 };

struct resolver {
    unsigned magic;
    struct balancer *balancer;
    const struct resolver_config *config;
    struct log_ctx log;
    struct dns_query *query;
    struct loop_timer *timer;
    bool has_failed;
};

#define AT(f) offsetof(struct resolver_config, f)
static const struct option static_options[] = {
    {.key = "hostnames",
     .type = OPT_STRINGS,
     .offset = AT(hostnames),
     .flags = OPT_REQUIRED,
     .help = "host or host:port; port 4317 where none is written."},
    OPTION_END,
};

static const struct option dns_options[] = {
    {.key = "hostname",
     .type = OPT_STRING,
     .offset = AT(hostname),
     .flags = OPT_REQUIRED,
     .help = "Name whose A and AAAA records are the backends."},
    {.key = "port",
     .type = OPT_STRING,
     .offset = AT(port),
     .def = "4317",
     .help = "Port of every backend."},
    {.key = "interval",
     .type = OPT_DURATION,
     .offset = AT(interval_ns),
     .def = "5s",
     .help = "Time between two lookups."},
    {.key = "timeout",
     .type = OPT_DURATION,
     .offset = AT(timeout_ns),
     .def = "1s",
     .help = "Time for one lookup."},
    OPTION_END,
};

const struct option resolver_options[] = {
    {.key = "static",
     .type = OPT_STRUCT,
     .offset = 0,
     .sub = static_options,
     .presence = OPT_OFF_NONE,
     .on_offset = AT(static_on),
     .help = "A fixed list."},
    {.key = "dns",
     .type = OPT_STRUCT,
     .offset = 0,
     .sub = dns_options,
     .presence = OPT_OFF_NONE,
     .on_offset = AT(dns_on),
     .help = "The addresses of a name, looked up again and again."},
    {.key = "k8s",
     .type = OPT_TREE,
     .flags = OPT_UNSUPPORTED,
     .help = "use dns with a headless service"},
    {.key = "aws_cloud_map", .type = OPT_TREE, .flags = OPT_UNSUPPORTED},
    OPTION_END,
};

int resolver_validate(const struct resolver_config *c, struct err *e)
{
    uint64_t port;
    if (c->static_on + c->dns_on != 1)
        return err_set(e, -EINVAL, "resolver: exactly one of static and dns is needed");
    if (c->static_on && c->hostnames.n == 0)
        return err_set(e, -EINVAL, "resolver::static::hostnames: at least one is needed");
    if (c->dns_on && *c->port && (str_to_u64(str_of(c->port), &port) < 0 || port > 65535))
        return err_set(e, -EINVAL, "resolver::dns::port: '%s' is no port", c->port);
    return 0;
}

const char *resolver_name(const struct resolver_config *c)
{
    return c->static_on ? "static" : "dns";
}

/* ---- dns ---- */

static char *spell(const char *address, const char *port)
{
    bool is_v6 = strchr(address, ':') != NULL;
    return xasprintf("%s%s%s%s%s", is_v6 ? "[" : "", address, is_v6 ? "]" : "", *port ? ":" : "",
                     port);
}

static void take_list(struct resolver *r, const struct dns_answer *a)
{
    char **list = xcalloc(a->n, sizeof(char *));
    for (size_t i = 0; i < a->n; i++)
        list[i] = spell(a->addresses[i], r->config->port);
    balancer_set_endpoints(r->balancer, (const char *const *)list, a->n);
    for (size_t i = 0; i < a->n; i++)
        free(list[i]);
    free(list);
}

static uint64_t interval_ms(const struct resolver *r)
{
    uint64_t ms = (r->config->interval_ns ? r->config->interval_ns : 5 * NS_PER_S) / NS_PER_MS;
    return MAX(balancer_has_list(r->balancer) ? ms : MIN(ms, (uint64_t)FIRST_RETRY_MS), 1u);
}

static void on_answer(void *arg, const struct dns_answer *a)
{
    struct resolver *r = CAST_OBJ(struct resolver, arg, RESOLVER_MAGIC);
    r->query = NULL;
    balancer_resolved(r->balancer, a->error == 0);
    if (a->error) {
        log_warn(&r->log, "failed to resolve %s: %s; %s", r->config->hostname, a->why,
                 balancer_has_list(r->balancer) ? "the backends stay as they are"
                                                : "there is no backend yet");
    } else {
        if (r->has_failed)
            log_info(&r->log, "%s is resolved again", r->config->hostname);
        take_list(r, a);
    }
    r->has_failed = a->error != 0;
    loop_timer_start(r->timer, interval_ms(r), 0);
}

static void look_up(void *arg)
{
    struct resolver *r = CAST_OBJ(struct resolver, arg, RESOLVER_MAGIC);
    uint64_t timeout = r->config->timeout_ns ? r->config->timeout_ns : NS_PER_S;
    r->query =
        dns_lookup(loops_get(0), r->config->hostname, MAX(timeout / NS_PER_MS, 1u), on_answer, r);
}

void resolver_start(struct resolver **out, const struct resolver_config *c, struct balancer *lb,
                    const struct log_ctx *log)
{
    struct resolver *r = xcalloc(1, sizeof(*r));
    SET_MAGIC(r, RESOLVER_MAGIC);
    r->balancer = lb;
    r->config = c;
    r->log = *log;
    *out = r;
    if (c->static_on) {
        balancer_resolved(lb, true);
        balancer_set_endpoints(lb, c->hostnames.items, c->hostnames.n);
        return;
    }
    r->timer = loop_timer_new(loops_get(0), look_up, r);
    look_up(r);
}

void resolver_stop(struct resolver **p)
{
    struct resolver *r = *p;
    if (!r)
        return;
    dns_cancel(&r->query);
    loop_timer_free(&r->timer);
    CLEAR_MAGIC(r);
    free(r);
    *p = NULL;
}
