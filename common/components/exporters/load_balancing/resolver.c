/* SPDX-License-Identifier: Apache-2.0 */
#include "common/components/exporters/load_balancing/resolver.h"

#include <errno.h>
#include <stdlib.h>

struct resolver {
    struct balancer *balancer;
};

#define AT(f) offsetof(struct resolver_config, f)
static const struct option static_options[] = {
    {.key = "hostnames", .type = OPT_STRINGS, .offset = AT(hostnames), .flags = OPT_REQUIRED,
     .help = "host or host:port; port 4317 where none is written."},
    OPTION_END,
};

const struct option resolver_options[] = {
    {.key = "static", .type = OPT_STRUCT, .offset = 0, .sub = static_options,
     .presence = OPT_OFF_NONE, .on_offset = AT(static_on), .help = "A fixed list."},
    {.key = "dns", .type = OPT_TREE, .flags = OPT_UNSUPPORTED},
    {.key = "k8s", .type = OPT_TREE, .flags = OPT_UNSUPPORTED,
     .help = "use dns with a headless service"},
    {.key = "aws_cloud_map", .type = OPT_TREE, .flags = OPT_UNSUPPORTED},
    OPTION_END,
};

int resolver_validate(const struct resolver_config *c, struct err *e)
{
    if (c->static_on + c->dns_on != 1)
        return err_set(e, -EINVAL, "resolver: exactly one of static and dns is needed");
    if (c->static_on && c->hostnames.n == 0)
        return err_set(e, -EINVAL, "resolver::static::hostnames: at least one is needed");
    return 0;
}

const char *resolver_name(const struct resolver_config *c)
{
    return c->static_on ? "static" : "dns";
}

void resolver_start(struct resolver **out, const struct resolver_config *c, struct balancer *lb,
                    const struct log_ctx *log)
{
    struct resolver *r = xcalloc(1, sizeof(*r));
    (void)log;
    r->balancer = lb;
    *out = r;
    balancer_resolved(lb, true);
    balancer_set_endpoints(lb, c->hostnames.items, c->hostnames.n);
}

void resolver_stop(struct resolver **r)
{
    free(*r);
    *r = NULL;
}
