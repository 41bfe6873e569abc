/* SPDX-License-Identifier: Apache-2.0 */
/* Where the list of backends comes from: written down, or asked of the DNS again and again. */
#ifndef LOAD_BALANCING_RESOLVER_H
#define LOAD_BALANCING_RESOLVER_H

#include "common/components/exporters/load_balancing/balancer.h"
#include "common/pipeline/option.h"

struct resolver_config {
    bool static_on, dns_on;
    struct option_list hostnames; /* const char * */
    const char *hostname, *port;
    uint64_t interval_ns, timeout_ns;
};

extern const struct option resolver_options[];
/* -EINVAL unless there is exactly one. */
int resolver_validate(const struct resolver_config *c, struct err *e);

struct resolver;

/* Feeds the balancer from now on. Loop 0. */
void resolver_start(struct resolver **out, const struct resolver_config *c, struct balancer *lb,
                    const struct log_ctx *log);
/* "static" or "dns". */
const char *resolver_name(const struct resolver_config *c);
/* No answer reaches the balancer any more. Loop 0. */
void resolver_stop(struct resolver **r);

#endif
