/* SPDX-License-Identifier: Apache-2.0 */
/* The text format 0.0.4 of what a store holds. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/components/exporters/prometheus_store.h"

/*
 * As Go's strconv writes it (format g, shortest): the text of a bucket's bound is a label's value,
 * which must be the same as that of a Collector's.
 */
static void put_double(struct buf *out, double v)
{
    char text[40];
    int more = 0; /* digits after the first */
    if (isnan(v) || isinf(v)) {
        buf_add_cstr(out, isnan(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf");
        return;
    }
    do
        snprintf(text, sizeof(text), "%.*e", more, v);
    while (strtod(text, NULL) != v && ++more < 17);
    long exponent = strtol(strchr(text, 'e') + 1, NULL, 10);
    if (exponent >= -4 && exponent < 6)
        snprintf(text, sizeof(text), "%.*f", (int)MAX(more - exponent, 0), v);
    buf_add_cstr(out, text);
}

/* name_suffix{labels,extra="value"} */
static void put_name(struct buf *out, const struct prometheus_series *s, const char *suffix,
                     const char *extra, double at)
{
    buf_add_str(out, s->family->name);
    buf_add_cstr(out, suffix);
    if (s->labels.n || extra)
        buf_add_byte(out, '{');
    buf_add_str(out, s->labels);
    if (extra) {
        if (s->labels.n)
            buf_add_byte(out, ',');
        buf_addf(out, "%s=\"", extra);
        put_double(out, at);
        buf_add_byte(out, '"');
    }
    if (s->labels.n || extra)
        buf_add_byte(out, '}');
    buf_add_byte(out, ' ');
}

static void end_line(struct buf *out, const struct prometheus_options *o,
                     const struct prometheus_series *s)
{
    if (o->send_timestamps && s->time_ns)
        buf_addf(out, " %" PRIu64, (uint64_t)(s->time_ns / NS_PER_MS));
    buf_add_byte(out, '\n');
}

static void put_count_and_sum(struct buf *out, const struct prometheus_options *o,
                              const struct prometheus_series *s)
{
    put_name(out, s, "_sum", NULL, 0);
    put_double(out, s->sum);
    end_line(out, o, s);
    put_name(out, s, "_count", NULL, 0);
    buf_addf(out, "%" PRIu64, s->count);
    end_line(out, o, s);
}

static void put_series(struct buf *out, const struct prometheus_options *o,
                       const struct prometheus_series *s)
{
    uint64_t cumulative = 0;
    switch (s->family->type) {
    case PROM_HISTOGRAM:
        for (uint32_t i = 0; i < s->n_bounds; i++) {
            cumulative += s->buckets[i];
            put_name(out, s, "_bucket", "le", s->bounds[i]);
            buf_addf(out, "%" PRIu64, cumulative);
            end_line(out, o, s);
        }
        put_name(out, s, "_bucket", "le", INFINITY);
        buf_addf(out, "%" PRIu64, s->count);
        end_line(out, o, s);
        put_count_and_sum(out, o, s);
        break;
    case PROM_SUMMARY:
        for (uint32_t i = 0; i < s->n_bounds; i++) {
            put_name(out, s, "", "quantile", s->bounds[i]);
            put_double(out, s->quantiles[i]);
            end_line(out, o, s);
        }
        put_count_and_sum(out, o, s);
        break;
    default:
        put_name(out, s, "", NULL, 0);
        put_double(out, s->value);
        end_line(out, o, s);
    }
}

static int by_family(const void *a, const void *b)
{
    struct prometheus_series *const *x = a, *const *y = b;
    return str_cmp((*x)->key, (*y)->key); /* begins with the family's name and a NUL */
}

/* One line, whatever stands in it. */
static void put_help(struct buf *out, struct str help)
{
    for (size_t i = 0; i < help.n; i++) {
        if (help.p[i] == '\\' || help.p[i] == '\n')
            buf_add_byte(out, '\\');
        buf_add_byte(out, help.p[i] == '\n' ? 'n' : (uint8_t)help.p[i]);
    }
}

void prometheus_store_expose(struct prometheus_store *s, const struct prometheus_options *o,
                             uint64_t now_ns, struct buf *out)
{
    static const char *const types[] = {"counter", "gauge", "histogram", "summary"};
    const struct prometheus_family *last = NULL;
    prometheus_store_expire(s, o, now_ns);
    struct prometheus_series **sorted =
        xcalloc(s->series.n + 1, sizeof(struct prometheus_series *));
    size_t n = 0;
    for (struct prometheus_series *x = s->all; x; x = x->next)
        if (x->has_value)
            sorted[n++] = x;
    qsort(sorted, n, sizeof(struct prometheus_series *), by_family);
    for (size_t i = 0; i < n; i++) {
        const struct prometheus_family *f = sorted[i]->family;
        ASSERT(f);
        if (f != last) {
            buf_addf(out, "# HELP " STR_FMT " ", STR_ARG(f->name));
            put_help(out, f->help);
            buf_addf(out, "\n# TYPE " STR_FMT " %s\n", STR_ARG(f->name), types[f->type]);
            last = f;
        }
        put_series(out, o, sorted[i]);
    }
    free(sorted);
}
