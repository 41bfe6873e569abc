/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of sending_queue and retry_on_failure, with the Collector's defaults. */
#include <errno.h>

#include "common/pipeline/queue.h"

/* In the order of enum queue_sizer. */
static const char *const sizers[] = {"", "requests", "items", "bytes", NULL};

#define AT(field) offsetof(struct queue_config, field)
#define ONE_TO(max_) .min = 1, .max = max_

static const struct option batch_options[] = {
    {.key = "flush_timeout",
     .type = OPT_DURATION,
     .offset = AT(flush_timeout_ns),
     .def = "200ms",
     ONE_TO(1e18),
     .help = "Longest time that an item waits for others."},
    {.key = "min_size",
     .type = OPT_UINT,
     .offset = AT(min_size),
     .def = "8192",
     .help = "Size at which a batch is sent."},
    {.key = "max_size",
     .type = OPT_UINT,
     .offset = AT(max_size),
     .def = "0",
     .help = "Largest size of a batch; 0 for no bound."},
    {.key = "sizer",
     .type = OPT_ENUM,
     .offset = AT(batch_sizer),
     .names = sizers,
     .def = "",
     .help = "What min_size and max_size count: items or bytes. Without it the queue's sizer if "
             "that is written, else items."},
    OPTION_UNSUPPORTED("partition"),
    OPTION_END,
};

const struct option queue_options[] = {
    {.key = "num_consumers",
     .type = OPT_UINT,
     .offset = AT(num_consumers),
     .def = "10",
     ONE_TO(10000),
     .help = "Requests that are sent at the same time."},
    {.key = "queue_size",
     .type = OPT_UINT,
     .offset = AT(queue_size),
     .def = "1000",
     ONE_TO(1e15),
     .help = "Capacity, in units of sizer."},
    {.key = "sizer",
     .type = OPT_ENUM,
     .offset = AT(sizer),
     .names = sizers,
     .def = "",
     .help = "What queue_size counts: requests (the default), items or bytes."},
    {.key = "block_on_overflow",
     .type = OPT_BOOL,
     .offset = AT(block_on_overflow),
     .def = "false",
     .help = "When full: hold senders back (true) or refuse (false)."},
    {.key = "wait_for_result",
     .type = OPT_BOOL,
     .offset = AT(wait_for_result),
     .def = "false",
     .help = "Senders wait until the back end has answered."},
    {.key = "batch",
     .type = OPT_STRUCT,
     .offset = 0,
     .sub = batch_options,
     .presence = OPT_OFF_DEFAULT,
     .on_offset = AT(batch_on),
     .help = "Merges requests before they are sent."},
    OPTION_UNSUPPORTED("storage"),
    OPTION_END,
};

const struct option retry_options[] = {
    {.key = "initial_interval",
     .type = OPT_DURATION,
     .offset = AT(initial_interval_ns),
     .def = "5s",
     .help = "Time before the first retry."},
    {.key = "randomization_factor",
     .type = OPT_DOUBLE,
     .offset = AT(randomization_factor),
     .def = "0.5",
     .min = 0,
     .max = 1,
     .help = "Spread of the interval: 0.5 is 50 % up or down."},
    {.key = "multiplier",
     .type = OPT_DOUBLE,
     .offset = AT(multiplier),
     .def = "1.5",
     .min = 0,
     .max = 1e6,
     .help = "Growth of the interval with each retry."},
    {.key = "max_interval",
     .type = OPT_DURATION,
     .offset = AT(max_interval_ns),
     .def = "30s",
     .help = "Longest interval."},
    {.key = "max_elapsed_time",
     .type = OPT_DURATION,
     .offset = AT(max_elapsed_ns),
     .def = "5m",
     .help = "Time after which data is given up; 0 for never."},
    OPTION_END,
};

enum queue_sizer queue_sizer_of(const struct queue_config *c)
{
    return c->sizer == SIZER_UNSET ? SIZER_REQUESTS : (enum queue_sizer)c->sizer;
}

enum queue_sizer queue_batch_sizer_of(const struct queue_config *c)
{
    int own = c->batch_sizer == SIZER_UNSET ? c->sizer : c->batch_sizer;
    return own == SIZER_UNSET ? SIZER_ITEMS : (enum queue_sizer)own;
}

static int check_batch(const struct queue_config *c, struct err *e)
{
    enum queue_sizer sizer = queue_batch_sizer_of(c);
    if (sizer == SIZER_REQUESTS)
        return err_set(e, -EINVAL, "sending_queue::batch::sizer: must be items or bytes%s",
                       c->batch_sizer ? "" : "; without it sending_queue::sizer is taken");
    if (c->max_size && c->max_size < c->min_size)
        return err_set(e, -EINVAL,
                       "sending_queue::batch::max_size must be at least min_size, or 0");
    if (sizer == queue_sizer_of(c) && c->min_size > c->queue_size)
        return err_set(e, -EINVAL, "sending_queue::batch::min_size must be at most queue_size");
    return 0;
}

static int check_retry(const struct queue_config *c, struct err *e)
{
    if (c->max_elapsed_ns && c->max_elapsed_ns < c->initial_interval_ns)
        return err_set(
            e, -EINVAL,
            "retry_on_failure::max_elapsed_time must be at least initial_interval, or 0");
    if (c->max_elapsed_ns && c->max_elapsed_ns < c->max_interval_ns)
        return err_set(e, -EINVAL,
                       "retry_on_failure::max_elapsed_time must be at least max_interval, or 0");
    return 0;
}

int queue_config_validate(const struct queue_config *c, struct err *e)
{
    int r = c->queue_on && c->batch_on ? check_batch(c, e) : 0;
    return r == 0 && c->retry_on ? check_retry(c, e) : r;
}
