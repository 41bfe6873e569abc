/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Series are found under a mutex and kept by who counts; counting is a relaxed add on the thread's
 * own cache line. Nothing is ever freed: series live as long as the service.
 */
#include "common/pipeline/telemetry.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/base/hashmap.h"

enum { STRIPES = 8 };

struct stripe {
    _Alignas(64) _Atomic uint64_t n;
};

struct series {
    const struct metric_desc *desc;
    char *labels; /* `{a="b",c="d"}` or "" : as exposed */
    struct series *next;
    struct stripe stripes[STRIPES]; /* counters */
    _Atomic int64_t value;          /* gauges */
    telemetry_read_fn *read;
    void *read_arg;
    pthread_mutex_t lock; /* histograms */
    uint64_t *buckets, count;
    double sum;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct series *all; /* newest first */
static int level = LEVEL_NORMAL;

static _Atomic unsigned next_stripe;
static _Thread_local unsigned my_stripe;

static struct stripe *stripe_of(struct series *s)
{
    if (UNLIKELY(my_stripe == 0))
        my_stripe = 1 + atomic_fetch_add(&next_stripe, 1) % STRIPES;
    return &s->stripes[my_stripe - 1];
}

static bool with_type_suffix, with_units;

void telemetry_set_names(bool type_suffix, bool units)
{
    with_type_suffix = type_suffix;
    with_units = units;
}

void telemetry_set_level(int l)
{
    level = l;
}

static void add_label_value(struct buf *b, const char *v)
{
    for (; *v; v++) {
        if (*v == '"' || *v == '\\')
            buf_addf(b, "\\%c", *v);
        else if (*v == '\n')
            buf_add_cstr(b, "\\n");
        else
            buf_add_byte(b, (uint8_t)*v);
    }
}

static char *labels_text(const struct label *labels, unsigned n)
{
    struct buf b;
    buf_init(&b);
    for (unsigned i = 0; i < n; i++) {
        buf_addf(&b, "%c%s=\"", i ? ',' : '{', labels[i].key);
        add_label_value(&b, labels[i].value ? labels[i].value : "");
        buf_add_byte(&b, '"');
    }
    if (n)
        buf_add_byte(&b, '}');
    char *text = xstrdup(buf_cstr(&b));
    buf_fini(&b);
    return text;
}

static struct series *find_or_make(const struct metric_desc *d, const struct label *labels,
                                   unsigned n)
{
    char *text = labels_text(labels, n);
    for (struct series *s = all; s; s = s->next) {
        if (s->desc == d && strcmp(s->labels, text) == 0) {
            free(text);
            return s;
        }
    }
    struct series *s = aligned_alloc(64, (sizeof(*s) + 63) & ~(size_t)63);
    ASSERT(s);
    *s = (struct series){.desc = d, .labels = text, .next = all};
    pthread_mutex_init(&s->lock, NULL);
    if (d->kind == METRIC_KIND_HISTOGRAM)
        s->buckets = xcalloc(d->n_bounds + 1, sizeof(*s->buckets));
    all = s;
    return s;
}

struct series *telemetry_series(const struct metric_desc *d, const struct label *labels, unsigned n)
{
    ASSERT(n <= TELEMETRY_MAX_LABELS);
    pthread_mutex_lock(&lock);
    struct series *s = find_or_make(d, labels, n);
    pthread_mutex_unlock(&lock);
    return s;
}

void telemetry_gauge(const struct metric_desc *d, const struct label *labels, unsigned n,
                     telemetry_read_fn *fn, void *arg)
{
    pthread_mutex_lock(&lock);
    struct series *s = find_or_make(d, labels, n);
    s->read = fn;
    s->read_arg = arg;
    pthread_mutex_unlock(&lock);
}

void telemetry_forget(void *arg)
{
    pthread_mutex_lock(&lock);
    for (struct series *s = all; s; s = s->next) {
        if (s->read_arg == arg) {
            s->read = NULL;
            s->read_arg = NULL;
        }
    }
    pthread_mutex_unlock(&lock);
}

void series_add(struct series *s, uint64_t n)
{
    atomic_fetch_add_explicit(&stripe_of(s)->n, n, memory_order_relaxed);
}

void series_set(struct series *s, int64_t v)
{
    atomic_store_explicit(&s->value, v, memory_order_relaxed);
}

void series_observe(struct series *s, double v)
{
    uint32_t i = 0;
    while (i < s->desc->n_bounds && s->desc->bounds[i] < v)
        i++;
    pthread_mutex_lock(&s->lock);
    s->buckets[i]++;
    s->count++;
    s->sum += v;
    pthread_mutex_unlock(&s->lock);
}

uint64_t series_value(const struct series *s)
{
    uint64_t sum = 0;
    if (s->desc->kind == METRIC_KIND_GAUGE)
        return (uint64_t)atomic_load_explicit(&s->value, memory_order_relaxed);
    for (unsigned i = 0; i < STRIPES; i++)
        sum += atomic_load_explicit(&s->stripes[i].n, memory_order_relaxed);
    return sum;
}

/* ---- exposition ---- */

static const char *unit_word(const struct metric_desc *d)
{
    static const struct {
        const char *unit, *word;
    } units[] = {{"s", "seconds"}, {"ms", "milliseconds"}, {"us", "microseconds"}, {"By", "bytes"}};
    for (size_t i = 0; d->unit && i < ARRAY_LEN(units); i++)
        if (strcmp(units[i].unit, d->unit) == 0 && !strstr(d->name, units[i].word))
            return units[i].word;
    return NULL;
}

void telemetry_name(const struct metric_desc *d, struct buf *out)
{
    const char *unit = with_units ? unit_word(d) : NULL;
    buf_addf(out, "otelcol_%s", d->name);
    if (unit)
        buf_addf(out, "_%s", unit);
    if (with_type_suffix && d->kind == METRIC_KIND_COUNTER)
        buf_add_cstr(out, "_total");
}

static void expose_histogram(struct series *s, const char *name, struct buf *out)
{
    const struct metric_desc *d = s->desc;
    uint64_t sum = 0;
    size_t n = strlen(s->labels);
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i <= d->n_bounds; i++) {
        sum += s->buckets[i];
        buf_addf(out, "%s_bucket{", name);
        if (n)
            buf_addf(out, "%.*s,", (int)n - 2, s->labels + 1);
        if (i < d->n_bounds)
            buf_addf(out, "le=\"%g\"} %" PRIu64 "\n", d->bounds[i], sum);
        else
            buf_addf(out, "le=\"+Inf\"} %" PRIu64 "\n", sum);
    }
    buf_addf(out, "%s_sum%s %.17g\n", name, s->labels, s->sum);
    buf_addf(out, "%s_count%s %" PRIu64 "\n", name, s->labels, s->count);
    pthread_mutex_unlock(&s->lock);
}

static void expose_series(struct series *s, const char *name, struct buf *out)
{
    const struct metric_desc *d = s->desc;
    if (d->kind == METRIC_KIND_HISTOGRAM)
        expose_histogram(s, name, out);
    else if (d->kind == METRIC_KIND_COUNTER)
        buf_addf(out, "%s%s %" PRIu64 "\n", name, s->labels, series_value(s));
    else if (s->read)
        buf_addf(out, "%s%s %.17g\n", name, s->labels, s->read(s->read_arg));
    else if (!s->read_arg)
        buf_addf(out, "%s%s %" PRId64 "\n", name, s->labels,
                 atomic_load_explicit(&s->value, memory_order_relaxed));
}

/* Sorted by name, so that the series of one metric stand together below its HELP and TYPE. */
static int by_name(const void *a, const void *b)
{
    struct series *const *x = a, *const *y = b;
    int r = strcmp((*x)->desc->name, (*y)->desc->name);
    return r ? r : strcmp((*x)->labels, (*y)->labels);
}

void telemetry_expose(struct buf *out)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    const char *last = "";
    struct buf name;
    size_t n = 0, i = 0;
    buf_init(&name);
    pthread_mutex_lock(&lock);
    for (struct series *s = all; s; s = s->next)
        n++;
    struct series **sorted = xcalloc(n + 1, sizeof(struct series *));
    for (struct series *s = all; s; s = s->next)
        sorted[i++] = s;
    qsort(sorted, n, sizeof(struct series *), by_name);
    for (i = 0; i < n; i++) {
        const struct metric_desc *d = sorted[i]->desc;
        if ((int)d->level > level)
            continue;
        if (strcmp(d->name, last) != 0) {
            buf_reset(&name);
            telemetry_name(d, &name);
            buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", buf_cstr(&name), d->help, buf_cstr(&name),
                     types[d->kind]);
        }
        last = d->name;
        expose_series(sorted[i], buf_cstr(&name), out);
    }
    buf_fini(&name);
    pthread_mutex_unlock(&lock);
    free(sorted);
}
