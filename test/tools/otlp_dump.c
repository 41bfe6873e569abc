/* SPDX-License-Identifier: Apache-2.0 */
/*
 * otlp_dump [traces|metrics|logs]: reads requests of that signal from stdin, each as a 4-byte
 * little-endian length and its bytes, and prints for each a line of JSON: what batch_read makes of
 * it, framed again, as OTLP/JSON, split in halves, with every other record selected and, metrics
 * apart, with one attribute set and one deleted on every record. For comparison with another
 * decoder.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/otlp/edit.h"
#include "common/otlp/encode.h"
#include "common/otlp/json.h"

static void put_hex(const char *name, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    printf(", \"%s\": \"", name);
    for (size_t i = 0; i < n; i++)
        printf("%02x", p[i]);
    printf("\"");
}

static void put_framed(const char *name, struct batch *b)
{
    struct chunk *c = NULL;
    struct str raw = b->raw;
    b->raw = (struct str){NULL, 0}; /* written anew, not passed through */
    if (batch_frame(&c, b, 0) == 0)
        put_hex(name, c->data, c->len);
    b->raw = raw;
    chunk_unref(&c);
}

static void put_edited(struct batch *b)
{
    struct edit *e;
    struct batch *out = NULL;
    ASSERT(batch_edit(&e, b) == 0);
    for (uint32_t i = 0; i < b->n_records; i++) {
        struct edit_at at = {EDIT_RECORD, i};
        edit_attr_delete(e, at, STR("a"));
        edit_attr_set(e, at, STR("added"), any_int((int64_t)i));
    }
    for (uint32_t r = 0; r < b->n_resources; r++)
        edit_attr_set(e, (struct edit_at){EDIT_RESOURCE, r}, STR("r"), any_str(STR("set")));
    ASSERT(edit_seal(&e, &out) == 0);
    if (out)
        put_framed("edited", out);
    if (out && out != b) {
        struct str raw = out->raw;
        struct chunk *c = NULL;
        /* What an exporter sends as it lies is what the tables say. */
        out->raw = (struct str){NULL, 0};
        ASSERT(batch_frame(&c, out, 0) == 0 && str_eq(raw, str_make(c->data, c->len)));
        chunk_unref(&c);
    }
    batch_unref(&out);
}

static void put_json(const struct batch *b)
{
    struct buf out;
    buf_init(&out);
    batch_to_json(b, &out);
    ASSERT(!buf_error(&out));
    put_hex("json", out.p, out.n);
    buf_fini(&out);
}

static void put_split(struct batch *b)
{
    struct batch *head = NULL, *tail = NULL;
    if (b->items < 2)
        return;
    ASSERT(batch_split(&head, &tail, b, b->items / 2) == 0);
    printf(", \"head_items\": %" PRIu64, head->items);
    put_framed("head", head);
    put_framed("tail", tail);
    batch_unref(&head);
    batch_unref(&tail);
}

static void put_half(const struct batch *b)
{
    uint32_t *idx = xcalloc(b->n_records + 1, sizeof(*idx)), n = 0;
    struct batch *out = NULL;
    for (uint32_t i = 0; i < b->n_records; i += 2)
        idx[n++] = i;
    ASSERT(batch_select(&out, b, idx, n) == 0);
    if (out)
        put_framed("half", out);
    batch_unref(&out);
    free(idx);
}

static void put_spans(const struct batch *b)
{
    printf(", \"spans\": [");
    for (uint32_t i = 0; i < b->n_records; i++) {
        const struct span_key *k = &b->keys[i];
        printf("%s{\"start\": %" PRIu64 ", \"end\": %" PRIu64
               ", \"status\": %u, \"kind\": %u, \"flags\": %u",
               i ? ", " : "", k->start_ns, k->end_ns, k->status, k->kind, k->flags);
        put_hex("trace", k->trace_id, 16);
        put_hex("span", k->span_id, 8);
        put_hex("parent", k->parent_span_id, 8);
        struct str name = span_name(&b->records[i]);
        put_hex("name", name.p, name.n);
        printf("}");
    }
    printf("]");
}

static void dump(enum signal signal, struct chunk *c, size_t n)
{
    struct batch *b = NULL;
    struct err e = {""};
    if (batch_read(&b, signal, c, 0, n, BATCH_VALIDATE, &e)) {
        printf("{\"ok\": false");
        put_hex("error", e.text, strlen(e.text));
        printf("}\n");
        return;
    }
    printf("{\"ok\": true, \"items\": %" PRIu64, b->items);
    if (signal == SIGNAL_TRACES)
        put_spans(b);
    put_framed("framed", b);
    put_json(b);
    put_split(b);
    if (signal != SIGNAL_METRICS)
        put_edited(b);
    put_half(b);
    printf("}\n");
    batch_unref(&b);
}

int main(int argc, char **argv)
{
    enum signal signal = SIGNAL_TRACES;
    uint32_t n;
    if (argc > 2 || (argc == 2 && signal_parse(str_of(argv[1]), &signal))) {
        fprintf(stderr, "usage: otlp_dump [traces|metrics|logs]\n");
        return 2;
    }
    while (fread(&n, sizeof(n), 1, stdin) == 1) {
        struct chunk *c = chunk_new(n + 1);
        ASSERT(c);
        if (fread(c->data, 1, n, stdin) != n)
            return 1;
        c->len = n;
        dump(signal, c, n);
        chunk_unref(&c);
    }
    pool_detach();
    return 0;
}
