/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of sending_queue and retry_on_failure, with the Collector's defaults. */
#include "common/pipeline/queue.h"

static const char *const sizers[] = {"requests", "items", "bytes", NULL};
static const char *const batch_sizers[] = {"items", "bytes", NULL};

#define AT(field) offsetof(struct queue_config, field)
#define ONE_TO(max_) .min = 1, .max = max_

static const struct option batch_options[] = {
    {.key = "flush_timeout", .type = OPT_DURATION, .offset = AT(flush_timeout_ns), .def = "200ms",
     ONE_TO(1e18), .help = "Longest time that an item waits for others."},
    {.key = "min_size", .type = OPT_UINT, .offset = AT(min_size), .def = "8192",
     .help = "Size at which a batch is sent."},
    {.key = "max_size", .type = OPT_UINT, .offset = AT(max_size), .def = "0",
     .help = "Largest size of a batch; 0 for no bound."},
    {.key = "sizer", .type = OPT_ENUM, .offset = AT(batch_sizer), .names = batch_sizers,
     .def = "items", .help = "What min_size and max_size count."},
    OPTION_UNSUPPORTED("partition"),
    OPTION_END,
};

const struct option queue_options[] = {
    {.key = "num_consumers", .type = OPT_UINT, .offset = AT(num_consumers), .def = "10",
     ONE_TO(10000), .help = "Requests that are sent at the same time."},
    {.key = "queue_size", .type = OPT_UINT, .offset = AT(queue_size), .def = "1000", ONE_TO(1e15),
     .help = "Capacity, in units of sizer."},
    {.key = "sizer", .type = OPT_ENUM, .offset = AT(sizer), .names = sizers, .def = "requests",
     .help = "What queue_size counts."},
    {.key = "block_on_overflow", .type = OPT_BOOL, .offset = AT(block_on_overflow), .def = "false",
     .help = "When full: hold senders back (true) or refuse (false)."},
    {.key = "wait_for_result", .type = OPT_BOOL, .offset = AT(wait_for_result), .def = "false",
     .help = "Senders wait until the back end has answered."},
    {.key = "batch", .type = OPT_STRUCT, .offset = 0, .sub = batch_options,
     .presence = OPT_OFF_DEFAULT, .on_offset = AT(batch_on),
     .help = "Merges requests before they are sent."},
    OPTION_UNSUPPORTED("storage"),
    OPTION_END,
};

const struct option retry_options[] = {
    {.key = "initial_interval", .type = OPT_DURATION, .offset = AT(initial_interval_ns),
     .def = "5s", .help = "Time before the first retry."},
    {.key = "randomization_factor", .type = OPT_DOUBLE, .offset = AT(randomization_factor),
     .def = "0.5", .min = 0, .max = 1, .help = "Spread of the interval: 0.5 is 50 % up or down."},
    {.key = "multiplier", .type = OPT_DOUBLE, .offset = AT(multiplier), .def = "1.5",
     .help = "Growth of the interval with each retry."},
    {.key = "max_interval", .type = OPT_DURATION, .offset = AT(max_interval_ns), .def = "30s",
     .help = "Longest interval."},
    {.key = "max_elapsed_time", .type = OPT_DURATION, .offset = AT(max_elapsed_ns), .def = "5m",
     .help = "Time after which data is given up; 0 for never."},
    OPTION_END,
};
