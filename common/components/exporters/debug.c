/* SPDX-License-Identifier: Apache-2.0 */
/*
 * debug: writes what arrives to the terminal. basic: a line a batch with its counts; normal: a line
 * a span, log record or metric; detailed: attributes, too.
 */
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "common/otlp/view.h"
#include "common/pipeline/node.h"

enum verbosity { BASIC, NORMAL, DETAILED };
static const char *const verbosities[] = {"basic", "normal", "detailed", NULL};

struct debug_config {
    int verbosity;
};

static const struct option debug_options[] = {
    {.key = "verbosity",
     .type = OPT_ENUM,
     .offset = offsetof(struct debug_config, verbosity),
     .names = verbosities,
     .def = "basic",
     .help = "How much is written."},
    OPTION_UNSUPPORTED("sampling_initial"),
    OPTION_UNSUPPORTED("sampling_thereafter"),
    OPTION_UNSUPPORTED("use_internal_logger"),
    OPTION_UNSUPPORTED("output_paths"),
    OPTION_UNSUPPORTED("sending_queue"),
    OPTION_END,
};

static void put_hex(struct buf *out, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_addf(out, "%02x", p[i]);
}

static void put_clean(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        if (c < 0x20 || c == 0x7f)
            buf_addf(out, "\\x%02x", c);
        else
            buf_add_byte(out, c);
    }
}

static void put_attr(struct buf *out, const char *indent, const struct attr *a)
{
    struct buf text;
    buf_init(&text);
    any_to_text(any_read(a->value), &text);
    buf_addf(out, "%s-> ", indent);
    put_clean(out, a->key);
    buf_add_cstr(out, ": ");
    put_clean(out, buf_str(&text));
    buf_add_byte(out, '\n');
    buf_fini(&text);
}

static void put_record_attrs(struct buf *out, struct str body, uint32_t number)
{
    struct wire w = wire_of(body);
    struct attr a;
    while (attr_next(&w, number, &a))
        put_attr(out, "         ", &a);
}

static void put_span(struct buf *out, const struct batch *b, uint32_t i)
{
    static const char *const kinds[] = {"Unspecified", "Internal", "Server",
                                        "Client",      "Producer", "Consumer"};
    static const char *const statuses[] = {"Unset", "Ok", "Error"};
    const struct span_key *k = &b->keys[i];
    uint64_t us = k->end_ns > k->start_ns ? (k->end_ns - k->start_ns) / 1000 : 0;
    put_hex(out, k->trace_id, 16);
    buf_add_byte(out, ' ');
    put_hex(out, k->span_id, 8);
    buf_addf(out, " %-8s %-5s %7" PRIu64 ".%03" PRIu64 " ms  ", kinds[k->kind], statuses[k->status],
             us / 1000, us % 1000);
    put_clean(out, resource_service_name(b->resources[k->resource].envelope));
    buf_add_cstr(out, "  ");
    put_clean(out, span_name(&b->records[i]));
    struct any v;
    struct str body = record_body(&b->records[i]);
    if (attr_find(body, SPAN_ATTRIBUTES, STR("url.path"), &v) && v.type == ANY_STRING) {
        buf_add_byte(out, ' ');
        put_clean(out, v.s);
    }
    if (attr_find(body, SPAN_ATTRIBUTES, STR("http.response.status_code"), &v) && v.type == ANY_INT)
        buf_addf(out, " %" PRId64, v.i);
    buf_add_byte(out, '\n');
}

static void put_record(struct buf *out, const struct batch *b, uint32_t i)
{
    struct str body = record_body(&b->records[i]);
    if (b->signal == SIGNAL_TRACES) {
        put_span(out, b, i);
    } else if (b->signal == SIGNAL_METRICS) {
        put_clean(out, message_bytes(body, 1));
        buf_addf(out, " (%u points)\n", (unsigned)b->records[i].items);
    } else {
        struct buf text;
        buf_init(&text);
        any_to_text(any_read(message_bytes(body, 5)), &text);
        put_clean(out, buf_str(&text));
        buf_add_byte(out, '\n');
        buf_fini(&text);
    }
}

static void put_batch(struct buf *out, const struct batch *b, enum verbosity v)
{
    buf_addf(out, "%s: %u resources, %u records, %" PRIu64 " items\n", signal_info[b->signal].name,
             b->n_resources, b->n_records, b->items);
    uint32_t last = UINT32_MAX;
    for (uint32_t i = 0; v > BASIC && i < b->n_records; i++) {
        uint32_t res = batch_resource_of_scope(b, batch_scope_of_record(b, i));
        struct envelope_iter it;
        struct attr a;
        if (v == DETAILED && res != last) {
            buf_add_cstr(out, "   Resource attributes:\n");
            envelope_attrs(&it, b->resources[res].envelope);
            while (envelope_attr_next(&it, RESOURCE_ATTRIBUTES, &a))
                put_attr(out, "      ", &a);
            last = res;
        }
        buf_add_cstr(out, "   ");
        put_record(out, b, i);
        if (v == DETAILED && b->signal != SIGNAL_METRICS)
            put_record_attrs(out, record_body(&b->records[i]),
                             b->signal == SIGNAL_LOGS ? LOG_ATTRIBUTES : SPAN_ATTRIBUTES);
    }
}

/* Whole or not at all does not matter to a terminal; a closed pipe does not stop the service. */
static void write_all(const char *p, size_t n)
{
    while (n > 0) {
        ssize_t k = write(STDOUT_FILENO, p, n);
        if (k < 0 && errno != EINTR && errno != EAGAIN)
            return;
        p += k > 0 ? k : 0;
        n -= k > 0 ? (size_t)k : 0;
    }
}

static void debug_consume(struct instance *in, struct batch *b, struct ack *a)
{
    const struct debug_config *c = in->config;
    struct buf out;
    buf_init(&out);
    put_batch(&out, b, (enum verbosity)c->verbosity);
    if (buf_error(&out) == 0)
        write_all(out.p, out.n);
    buf_fini(&out);
    ledger_sent(in, b->signal, b->items);
    batch_unref(&b);
    ack_ok(a);
}

static const char *const old_names[] = {"logging", NULL};

const struct component debug_component = {
    .kind = KIND_EXPORTER,
    .name = "debug",
    .aliases = old_names,
    .help = "Writes what arrives to the terminal.",
    .signals = SIGNAL_ALL,
    .stability = STABILITY_ALPHA,
    .affinity = AFFINITY_NONE,
    .options = debug_options,
    .config_size = sizeof(struct debug_config),
    .consume = debug_consume,
};
