/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/capture_metrics.h"

#include <stdlib.h>

#include "common/pipeline/telemetry.h"

static const char *const layer_names[LAYER_COUNT] = {"socket", "tls"};
static const char *const dir_names[DIR_COUNT] = {"send", "receive"};

enum { FATE_PASSED, FATE_PARSED, FATE_SKIPPED, FATE_HELD, FATE_COUNT };
static const char *const fate_names[FATE_COUNT] = {"passed", "parsed", "skipped", "held"};

static const struct metric_desc bytes_desc = {
    "ebpf_stream_bytes",
    "Stream bytes of selected connections: passed = parsed + skipped + held + holes by reason.",
    "By",
    METRIC_KIND_GAUGE,
    LEVEL_BASIC,
    NULL,
    0};
static const struct metric_desc holes_desc = {"ebpf_stream_hole_bytes",
                                              "Stream bytes that were not seen, by reason.",
                                              "By",
                                              METRIC_KIND_GAUGE,
                                              LEVEL_BASIC,
                                              NULL,
                                              0};
static const struct metric_desc events_desc = {
    "ebpf_events", "What the receiver met.", "{events}", METRIC_KIND_GAUGE, LEVEL_BASIC, NULL, 0};
static const struct metric_desc now_desc = {"ebpf_tracked",
                                            "What the receiver keeps now.",
                                            "{objects}",
                                            METRIC_KIND_GAUGE,
                                            LEVEL_BASIC,
                                            NULL,
                                            0};

enum event {
    EVENT_RECORDS,
    EVENT_OPENS,
    EVENT_CLOSES,
    EVENT_LOST_CLOSES,
    EVENT_OVERLAP_BYTES,
    EVENT_UNSEEN_HEAD_POSSIBLE,
    EVENT_UNKNOWN_ROLE,
    EVENT_GIVEN_UP,
    EVENT_TLS_WITHOUT_PLAINTEXT,
    EVENT_HELD_OVERFLOW,
    EVENT_SPANS,
    EVENT_INCOMPLETE_SPANS,
    EVENT_EXCHANGES_WITHOUT_SPAN,
    EVENT_COUNT,
};
static const char *const event_names[EVENT_COUNT] = {
    "records",
    "opens",
    "closes",
    "lost_closes",
    "overlap_bytes",
    "unseen_head_possible_bytes",
    "unknown_role",
    "given_up",
    "tls_without_plaintext",
    "held_overflow",
    "spans",
    "incomplete_spans",
    "exchanges_without_span",
};

struct capture_metrics {
    struct series *bytes[LAYER_COUNT][DIR_COUNT][FATE_COUNT];
    struct series *holes[LAYER_COUNT][DIR_COUNT][HOLE_COUNT];
    struct series *events[EVENT_COUNT];
    struct series *connections, *processes, *series;
};

struct capture_metrics *capture_metrics_new(const char *id)
{
    struct capture_metrics *m = xcalloc(1, sizeof(*m));
    struct label l[4] = {{"receiver", id}};

    for (unsigned i = 0; i < EVENT_COUNT; i++) {
        l[1] = (struct label){"event", event_names[i]};
        m->events[i] = telemetry_series(&events_desc, l, 2);
    }
    for (unsigned i = 0; i < LAYER_COUNT * DIR_COUNT; i++) {
        unsigned layer = i / DIR_COUNT, dir = i % DIR_COUNT;

        l[1] = (struct label){"layer", layer_names[layer]};
        l[2] = (struct label){"direction", dir_names[dir]};
        for (unsigned f = 0; f < FATE_COUNT; f++) {
            l[3] = (struct label){"fate", fate_names[f]};
            m->bytes[layer][dir][f] = telemetry_series(&bytes_desc, l, 4);
        }
        for (unsigned h = HOLE_NONE + 1; h < HOLE_COUNT; h++) {
            l[3] = (struct label){"reason", hole_names[h]};
            m->holes[layer][dir][h] = telemetry_series(&holes_desc, l, 4);
        }
    }
    l[1] = (struct label){"kind", "connections"};
    m->connections = telemetry_series(&now_desc, l, 2);
    l[1] = (struct label){"kind", "processes"};
    m->processes = telemetry_series(&now_desc, l, 2);
    l[1] = (struct label){"kind", "metric_series"};
    m->series = telemetry_series(&now_desc, l, 2);
    return m;
}

void capture_metrics_free(struct capture_metrics **m)
{
    free(*m); /* series live as long as the service */
    *m = NULL;
}

static void update_ledger(struct capture_metrics *m, const struct connections *cs)
{
    for (unsigned l = 0; l < LAYER_COUNT; l++) {
        for (unsigned d = 0; d < DIR_COUNT; d++) {
            const struct capture_account *a = &cs->ledger.layers[l][d];
            uint64_t held = connections_held(cs, (enum layer)l, (enum direction)d);

            series_set(m->bytes[l][d][FATE_PASSED], (int64_t)(a->passed + held));
            series_set(m->bytes[l][d][FATE_PARSED], (int64_t)a->parsed);
            series_set(m->bytes[l][d][FATE_SKIPPED], (int64_t)a->skipped);
            series_set(m->bytes[l][d][FATE_HELD], (int64_t)held);
            for (unsigned h = HOLE_NONE + 1; h < HOLE_COUNT; h++)
                series_set(m->holes[l][d][h], (int64_t)a->holes[h]);
        }
    }
}

void capture_metrics_update(struct capture_metrics *m, const struct capture *c)
{
    const struct capture_ledger *l = &c->connections.ledger;
    const uint64_t events[EVENT_COUNT] = {
        [EVENT_RECORDS] = l->records,
        [EVENT_OPENS] = l->opens,
        [EVENT_CLOSES] = l->closes,
        [EVENT_LOST_CLOSES] = l->lost_closes,
        [EVENT_OVERLAP_BYTES] = l->overlaps,
        [EVENT_UNSEEN_HEAD_POSSIBLE] = l->unseen_head_possible,
        [EVENT_UNKNOWN_ROLE] = l->unknown_role,
        [EVENT_GIVEN_UP] = l->given_up,
        [EVENT_TLS_WITHOUT_PLAINTEXT] = l->tls_without_plaintext,
        [EVENT_HELD_OVERFLOW] = l->held_overflow,
        [EVENT_SPANS] = c->count.spans,
        [EVENT_INCOMPLETE_SPANS] = c->count.incomplete_spans,
        [EVENT_EXCHANGES_WITHOUT_SPAN] = c->count.exchanges_without_span,
    };

    for (unsigned i = 0; i < EVENT_COUNT; i++)
        series_set(m->events[i], (int64_t)events[i]);
    update_ledger(m, &c->connections);
    series_set(m->connections, (int64_t)c->connections.n);
    series_set(m->processes, (int64_t)c->processes.n);
    series_set(m->series, (int64_t)c->metrics.n);
}
