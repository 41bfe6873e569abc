/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/clock.h"

enum { BURST = 10, EVERY = 100 };
#define WINDOW_NS (10 * NS_PER_S)

static _Atomic int min_level = LOG_INFO;
static _Atomic bool as_json;
static log_sink_fn *sink;
static void *sink_arg;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_setup(enum log_level min, bool json)
{
    min_level = (int)min;
    as_json = json;
}

enum log_level log_min(void)
{
    return (enum log_level)atomic_load_explicit(&min_level, memory_order_relaxed);
}

int log_level_parse(const char *word, enum log_level *out)
{
    for (unsigned i = 0; i < ARRAY_LEN(level_names); i++) {
        if (strcasecmp(word, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

void log_divert(log_sink_fn *fn, void *arg)
{
    sink_arg = arg;
    sink = fn;
}

/* 0: leave out. Otherwise how many were left out before this one, plus 1. */
static unsigned admit(struct log_site *site)
{
    unsigned long long now = clock_mono_ns();
    unsigned long long start = atomic_load(&site->window_start_ns);
    if ((start == 0 || now - start > WINDOW_NS) &&
        atomic_compare_exchange_strong(&site->window_start_ns, &start, now ? now : 1)) {
        unsigned seen = atomic_exchange(&site->seen, 1);
        return 1 + (seen > BURST ? (seen - BURST) % EVERY : 0);
    }
    unsigned seen = atomic_fetch_add(&site->seen, 1) + 1;
    if (seen <= BURST)
        return 1;
    return (seen - BURST) % EVERY == 0 ? EVERY : 0;
}

static void add_time(struct buf *b)
{
    struct tm tm;
    uint64_t now = clock_wall_ns();
    time_t s = (time_t)(now / NS_PER_S);
    gmtime_r(&s, &tm);
    buf_addf(b, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
             tm.tm_hour, tm.tm_min, tm.tm_sec, (unsigned)(now / NS_PER_MS % 1000));
}

/* Text of strangers may stand in a line: control characters are escaped in both encodings. */
static void add_escaped(struct buf *b, const char *s, bool json)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (json && (c == '"' || c == '\\'))
            buf_addf(b, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            buf_addf(b, "\\u%04x", c);
        else
            buf_add_byte(b, c);
    }
}

static void add_pair(struct buf *b, const char *key, const char *value)
{
    if (!value)
        return;
    buf_addf(b, ",\"%s\":\"", key);
    add_escaped(b, value, true);
    buf_add_byte(b, '"');
}

static void write_line(struct buf *b, enum log_level level)
{
    buf_add_byte(b, '\n');
    if (buf_error(b))
        return;
    if (sink) {
        sink(sink_arg, level, b->p, b->n);
        return;
    }
    ssize_t n = write(STDERR_FILENO, b->p, b->n); /* one write a line */
    (void)n;                                      /* nowhere to tell */
}

void log_line(struct log_site *site, enum log_level level, const struct log_ctx *ctx,
              const char *fmt, ...)
{
    unsigned admitted = admit(site);
    if (admitted == 0)
        return;
    char msg[2048];
    struct buf b;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    buf_init(&b);
    const char *component = ctx ? ctx->component : NULL, *peer = ctx ? ctx->peer : NULL;
    if (as_json) {
        buf_addf(&b, "{\"level\":\"%s\",\"ts\":\"", level_names[level]);
        add_time(&b);
        buf_add_byte(&b, '"');
        add_pair(&b, "component", component);
        add_pair(&b, "peer", peer);
        add_pair(&b, "msg", msg);
        if (admitted > 1)
            buf_addf(&b, ",\"left_out\":%u", admitted - 1);
        buf_add_byte(&b, '}');
    } else {
        add_time(&b);
        buf_addf(&b, "\t%s\t%s\t", level_names[level], component ? component : "-");
        add_escaped(&b, msg, false);
        if (peer)
            buf_addf(&b, "\tpeer=%s", peer);
        if (admitted > 1)
            buf_addf(&b, "\t(%u like it left out)", admitted - 1);
    }
    write_line(&b, level);
    buf_fini(&b);
}
