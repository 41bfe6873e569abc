/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one line an event to stderr, as "console" text or JSON with fixed keys (ts, level,
 * component, peer, msg). Context comes from the object's log_ctx, not from the message.
 * Thread-safe: a line is one write. Rate-limited per call site: after 10 lines of a site within
 * 10 s every 100th passes, with the number of those left out.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

#include "common/base/mem.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_NONE };

struct log_ctx {
    const char *component; /* "otlp/2", "tail_sampling", "graph" */
    const char *peer;      /* address of the other side, or NULL */
};

void log_setup(enum log_level min, bool json);
enum log_level log_min(void);
/* -EINVAL for an unknown word. Knows debug, info, warn, error, as the Collector does. */
int log_level_parse(const char *word, enum log_level *out);
/* Diverts lines to fn (tests, console). NULL restores stderr. */
typedef void log_sink_fn(void *arg, enum log_level level, const char *line, size_t n);
void log_divert(log_sink_fn *fn, void *arg);

struct log_site {
    _Atomic unsigned seen;
    _Atomic unsigned long long window_start_ns;
};
void log_line(struct log_site *site, enum log_level level, const struct log_ctx *ctx,
              const char *fmt, ...) PRINTF_LIKE(4, 5);

#define LOG_AT(level, ctx, ...)                                                                    \
    do {                                                                                           \
        if ((level) >= log_min()) {                                                                \
            static struct log_site site_;                                                          \
            log_line(&site_, level, ctx, __VA_ARGS__);                                             \
        }                                                                                          \
    } while (0)
#define log_debug(ctx, ...) LOG_AT(LOG_DEBUG, ctx, __VA_ARGS__)
#define log_info(ctx, ...) LOG_AT(LOG_INFO, ctx, __VA_ARGS__)
#define log_warn(ctx, ...) LOG_AT(LOG_WARN, ctx, __VA_ARGS__)
#define log_error(ctx, ...) LOG_AT(LOG_ERROR, ctx, __VA_ARGS__)

#endif
