/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load_balancing: whole traces (or services) to one of several backends, by the Collector's ring.
 *
 *   consume ─► route (ring) ─► an otlp_grpc sub-exporter a backend: its queue, retries, connections
 *                ▲
 *   resolver ────┘ static or dns
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/components/exporters/load_balancing/balancer.h"
#include "common/components/exporters/load_balancing/resolver.h"
#include "common/components/exporters/otlp_grpc.h"
#include "common/pipeline/option_print.h"

struct lb_config {
    int routing_key; /* enum route_key */
    struct otlp_grpc_config otlp;
    struct resolver_config resolver;
};

/* In the order of enum route_key. */
static const char *const routing_keys[] = {"", "traceID", "service", NULL};

#define AT(f) offsetof(struct lb_config, f)
static const struct option protocol_options[] = {
    {.key = "otlp",
     .type = OPT_STRUCT,
     .offset = AT(otlp),
     .sub = otlp_grpc_options,
     .flags = OPT_TEMPLATE,
     .help = "Keys of the otlp_grpc exporter; endpoint is replaced by each backend's."},
    OPTION_END,
};

static const struct option load_balancing_options[] = {
    {.key = "routing_key",
     .type = OPT_ENUM,
     .offset = AT(routing_key),
     .names = routing_keys,
     .def = "",
     .help = "What stays together. Default: traceID for traces, service for the rest."},
    {.key = "protocol",
     .type = OPT_STRUCT,
     .offset = 0,
     .sub = protocol_options,
     .help = "How backends are spoken to."},
    {.key = "resolver",
     .type = OPT_STRUCT,
     .offset = AT(resolver),
     .sub = resolver_options,
     .help = "Where the list of backends comes from; exactly one."},
    {.key = "routing_attributes", .type = OPT_TREE, .flags = OPT_UNSUPPORTED},
    {.key = "timeout",
     .type = OPT_TREE,
     .flags = OPT_UNSUPPORTED,
     .help = "set it under protocol::otlp"},
    {.key = "retry_on_failure",
     .type = OPT_TREE,
     .flags = OPT_UNSUPPORTED,
     .help = "set it under protocol::otlp"},
    {.key = "sending_queue",
     .type = OPT_TREE,
     .flags = OPT_UNSUPPORTED,
     .help = "set it under protocol::otlp"},
    OPTION_END,
};

static int lb_validate(const void *config, struct err *e)
{
    const struct lb_config *c = config;
    if (c->otlp.endpoint[0])
        return err_set(e, -EINVAL,
                       "protocol::otlp::endpoint is each backend's own: name them under resolver");
    int r = queue_config_validate(&c->otlp.queue, e);
    if (r) {
        err_prefix(e, "protocol::otlp::");
        return r;
    }
    return resolver_validate(&c->resolver, e);
}

/* ---- sub-exporters ---- */

/* The endpoint's text belongs to the balancer's backend, and lives as long. */
static void *sub_config(const void *lb_config, const char *endpoint)
{
    const struct lb_config *c = lb_config;
    struct otlp_grpc_config *copy = xalloc(sizeof(*copy));
    *copy = c->otlp;
    copy->endpoint = endpoint;
    return copy;
}

static const struct balancer_sub otlp_sub = {
    .component = &otlp_grpc_component,
    .config_for = sub_config,
    .divert = otlp_grpc_divert,
};

/* ---- the component ---- */

#define LB_MAGIC 0x4c424558u

/* Shared by the instances of reloads that change the list of backends only, or nothing. */
struct load_balancing {
    unsigned magic;
    unsigned refs; /* loop 0 */
    bool is_started;
    struct balancer *balancer;
    struct resolver *resolver;
};

static struct load_balancing *self_of(const struct instance *in)
{
    return CAST_OBJ(struct load_balancing, in->self, LB_MAGIC);
}

static int lb_create(struct instance *in, struct err *e)
{
    const struct lb_config *c = in->config;
    enum route_key key = route_key_of((enum route_key)c->routing_key, in->signal);
    if (in->signal == SIGNAL_METRICS && key == ROUTE_TRACE_ID)
        return err_set(e, -EINVAL, "routing_key traceID does not exist for metrics");
    struct load_balancing *self = xcalloc(1, sizeof(*self));
    SET_MAGIC(self, LB_MAGIC);
    self->refs = 1;
    in->self = self;
    return balancer_new(&self->balancer, in, &otlp_sub, c, key);
}

static void lb_free(struct instance *in);

/* All keys of the sub-exporters at once, as text. */
static bool same_protocol(const struct lb_config *a, const struct lb_config *b)
{
    struct buf x, y;
    buf_init(&x);
    buf_init(&y);
    options_print(otlp_grpc_options, &a->otlp, 0, false, &x);
    options_print(otlp_grpc_options, &b->otlp, 0, false, &y);
    bool same = !buf_error(&x) && !buf_error(&y) && str_eq(buf_str(&x), buf_str(&y));
    buf_fini(&x);
    buf_fini(&y);
    return same;
}

/*
 * The balancer goes on, with its backends, queues and connections; start() gives it the new list,
 * and what waits for a backend that is not in it goes to others.
 */
static bool lb_adopt(struct instance *in, struct instance *old)
{
    const struct lb_config *c = in->config, *before = old->config;
    if (c->routing_key != before->routing_key || !same_protocol(c, before))
        return false;
    struct load_balancing *running = self_of(old);
    lb_free(in);
    running->refs++;
    in->self = running;
    balancer_adopt(running->balancer, in, c);
    return true;
}

static int lb_start(struct instance *in, struct err *e)
{
    const struct lb_config *c = in->config;
    struct load_balancing *self = self_of(in);
    (void)e;
    resolver_stop(&self->resolver); /* the one of the configuration before */
    balancer_set_resolver(self->balancer, resolver_name(&c->resolver));
    if (!self->is_started)
        balancer_start(self->balancer);
    self->is_started = true;
    resolver_start(&self->resolver, &c->resolver, self->balancer, &in->log);
    return 0;
}

static void lb_consume(struct instance *in, struct batch *b, struct ack *a)
{
    balancer_consume(self_of(in)->balancer, b, a);
}

static void lb_stop(struct instance *in)
{
    struct load_balancing *self = self_of(in);
    resolver_stop(&self->resolver);
    balancer_stop(self->balancer);
}

static void lb_abandon(struct instance *in)
{
    struct load_balancing *self = self_of(in);
    resolver_stop(&self->resolver);
    balancer_abandon(self->balancer);
}

static uint64_t lb_held(struct instance *in)
{
    return balancer_held(self_of(in)->balancer);
}

static void lb_free(struct instance *in)
{
    struct load_balancing *self = self_of(in);
    in->self = NULL;
    if (--self->refs > 0)
        return;
    resolver_stop(&self->resolver);
    balancer_free(&self->balancer);
    CLEAR_MAGIC(self);
    free(self);
}

static const char *const old_names[] = {"loadbalancing", NULL};

const struct component load_balancing_component = {
    .kind = KIND_EXPORTER,
    .name = "load_balancing",
    .aliases = old_names,
    .help =
        "Spreads data over several backends so that each trace, or each service, is whole on one.",
    .signals = SIGNAL_ALL,
    .stability = STABILITY_BETA,
    .affinity = AFFINITY_PROCESS,
    .options = load_balancing_options,
    .config_size = sizeof(struct lb_config),
    .validate = lb_validate,
    .create = lb_create,
    .adopt = lb_adopt,
    .start = lb_start,
    .consume = lb_consume,
    .stop = lb_stop,
    .abandon = lb_abandon,
    .held = lb_held,
    .free = lb_free,
};
