/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ebpf: the receiver that asks no one for data. It drains the kernel's rings on a timer (or
 * earlier, when the kernel says so), and hands on spans when there are many or some have waited for
 * a while, and metrics each interval.
 *
 *   timer ─► source_drain ─► capture ─► verdicts to the kernel
 *                                   └─► spans, metrics ─► node_emit
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/ebpf/capture_metrics.h"
#include "agent/ebpf/receiver_options.h"
#include "agent/ebpf/source.h"
#include "common/base/clock.h"
#include "common/pipeline/node.h"

#include <uv.h> /* after ours: it brings a second MIN and MAX */

#define RECEIVER_MAGIC 0x45425046u
/* A batch costs as much as a hundred spans, so they wait for each other. */
#define SPANS_WAIT_NS (200 * NS_PER_MS)
enum { SPANS_ENOUGH = 1000 };

struct receiver {
    unsigned magic;
    struct instance *in;
    const struct ebpf_config *config;
    struct selection_storage selection;
    struct capture capture;
    struct capture_metrics *counters;
    struct source *source;
    struct recording recording;
    struct loop_timer *timer;
    uv_poll_t *poll;
    char *identity;
    uint64_t second_ns; /* of the last tick */
    uint64_t spans_ns;  /* since when spans wait; 0 = none do */
    bool is_capturing, is_stopping;
};

/* ---- what comes out ---- */

static void emit(struct receiver *r, struct batch *b)
{
    if (!b)
        return;
    ledger_made(r->in, b->signal, b->items);
    if (node_has_output(r->in, b->signal)) {
        node_emit(r->in, b, ack_detached());
        return;
    }
    ledger_dropped(r->in, b->signal, b->items, "no_pipeline");
    batch_unref(&b);
}

static bool are_spans_due(const struct receiver *r, uint64_t now)
{
    size_t n = r->capture.spans.n;

    return r->is_stopping || n >= SPANS_ENOUGH || r->capture.spans.dropped ||
           (n && now - r->spans_ns >= SPANS_WAIT_NS);
}

static void hand_on(struct receiver *r, uint64_t now)
{
    uint64_t lost = 0;

    if (r->capture.spans.n && !r->spans_ns)
        r->spans_ns = now;
    /* Spans wait in their own bounded buffer while the exit is closed. */
    if (!node_outputs_open(r->in) && !r->is_stopping)
        return;
    if (are_spans_due(r, now)) {
        emit(r, capture_spans(&r->capture, &lost));
        r->spans_ns = 0;
    }
    if (lost) {
        ledger_made(r->in, SIGNAL_TRACES, lost);
        ledger_dropped(r->in, SIGNAL_TRACES, lost, "receiver_full");
    }
    emit(r, capture_metrics(&r->capture, now));
}

static void drain(struct receiver *r)
{
    struct capture *c = &r->capture;
    struct connections *cs = &c->connections;
    uint64_t now = clock_mono_ns();
    bool more;

    if (!r->is_capturing)
        return;
    capture_begin(c);
    recording_begin(&r->recording, now, c->wall_offset_ns);
    source_drain(r->source, c, &r->recording, &more);
    source_sweep(r->source, c, &r->recording, now);
    capture_end(c, now);
    recording_end(&r->recording, now);
    if (cs->n_verdicts)
        source_verdicts(r->source, cs->verdicts, cs->n_verdicts);
    connections_verdicts_taken(cs);
    if (now >= r->second_ns + NS_PER_S) {
        r->second_ns = now;
        source_tick(r->source, c, now);
        capture_metrics_update(r->counters, c);
    }
    hand_on(r, now);
}

static void on_timer(void *arg)
{
    drain(CAST_OBJ(struct receiver, arg, RECEIVER_MAGIC));
}

static void on_readable(uv_poll_t *p, int status, int events)
{
    if (status == 0)
        drain(CAST_OBJ(struct receiver, p->data, RECEIVER_MAGIC));
}

static void on_control(void *arg)
{
    struct receiver *r = CAST_OBJ(struct receiver, arg, RECEIVER_MAGIC);

    if (r->source)
        source_drain_control(r->source, &r->capture, &r->recording);
}

static void on_judged(void *arg, const struct process *p)
{
    struct receiver *r = CAST_OBJ(struct receiver, arg, RECEIVER_MAGIC);

    if (r->source)
        source_select(r->source, p);
}

/* ---- life ---- */

static int ebpf_create(struct instance *in, struct err *e)
{
    const struct ebpf_config *config = in->config;
    struct receiver *r = xcalloc(1, sizeof(*r));
    struct capture_options o;

    SET_MAGIC(r, RECEIVER_MAGIC);
    r->in = in;
    r->config = config;
    in->self = r;
    memset(&o, 0, sizeof(o));
    if (selection_read(&r->selection, config, e)) {
        CLEAR_MAGIC(r);
        free(r);
        in->self = NULL;
        return -EINVAL;
    }
    o.selection = r->selection.s;
    o.resource = (struct resource_options){config->service_name, r->selection.attributes, "0.1.0"};
    o.request.redacted_keys = r->selection.redacted;
    o.request.client_spans_with_traceparent = config->client_spans_with_traceparent;
    o.metrics_interval_ns = config->metrics_interval_ns;
    o.max_series = config->max_series;
    o.drain_control = on_control;
    o.judged = on_judged;
    o.arg = r;
    capture_init(&r->capture, &o);
    r->identity = ebpf_identity(config, &r->selection);
    r->counters = capture_metrics_new(in->id);
    return 0;
}

static void watch(struct receiver *r)
{
    int fd = source_fd(r->source);

    if (fd < 0)
        return;
    r->poll = xcalloc(1, sizeof(*r->poll));
    r->poll->data = r;
    if (uv_poll_init(loop_uv(loops_get(0)), r->poll, fd)) {
        free(r->poll);
        r->poll = NULL;
        return;
    }
    uv_poll_start(r->poll, UV_READABLE, on_readable);
}

static void on_listener(void *arg, uint32_t tgid, uint16_t port)
{
    struct receiver *r = CAST_OBJ(struct receiver, arg, RECEIVER_MAGIC);

    processes_select_listener(&r->capture.processes, tgid, port);
}

static int ebpf_start(struct instance *in, struct err *e)
{
    struct receiver *r = CAST_OBJ(struct receiver, in->self, RECEIVER_MAGIC);
    const struct ebpf_config *c = r->config;
    struct source_config sc = {.tier = (enum capture_tier)c->tier,
                               .ring_bytes = c->ring_size,
                               .control_ring_bytes = c->control_ring_size,
                               .rings = (unsigned)c->rings,
                               .sweep_interval_ns = c->sweep_interval_ns,
                               .tls = c->tls,
                               .tls_probes = c->tls_probes,
                               .tls_returns = c->tls_returns,
                               .scheduler = c->scheduler,
                               .selection = &r->capture.options.selection};
    uint64_t ms = MAX(c->drain_interval_ns / NS_PER_MS, 1u);
    int res;

    if (r->source)
        return 0; /* adopted: it never stopped */
    selection_resolve(&r->selection, c, &in->log);
    r->capture.options.selection = r->selection.s;
    if (c->record_file[0] && (res = recording_open(&r->recording, c->record_file, e)))
        return res;
    res = source_open(&r->source, &sc, e);
    if (res)
        return res;
    r->is_capturing = true;
    source_holders(r->source, on_listener, r);
    processes_scan(&r->capture.processes, on_judged, r);
    log_info(&in->log, "capturing by tier %s", source_tier(r->source));
    r->timer = loop_timer_new(loops_get(0), on_timer, r);
    loop_timer_start(r->timer, ms, ms);
    watch(r);
    return 0;
}

static void on_poll_closed(uv_handle_t *h)
{
    free(h);
}

static void stop_capturing(struct receiver *r)
{
    loop_timer_free(&r->timer);
    if (r->poll) {
        uv_poll_stop(r->poll);
        uv_close((uv_handle_t *)r->poll, on_poll_closed);
        r->poll = NULL;
    }
    r->is_capturing = false;
    source_close(&r->source);
    recording_close(&r->recording);
}

static void ebpf_stop(struct instance *in)
{
    struct receiver *r = CAST_OBJ(struct receiver, in->self, RECEIVER_MAGIC);

    r->is_stopping = true;
    drain(r);
    if (r->source)
        stop_capturing(r);
    r->capture.metrics_at_ns = 0; /* what was counted since the last interval */
    hand_on(r, clock_mono_ns());
    instance_stopped(in);
}

static void receiver_free(struct receiver *r)
{
    if (r->source || r->timer)
        stop_capturing(r);
    recording_close(&r->recording);
    capture_metrics_free(&r->counters);
    capture_fini(&r->capture);
    selection_free(&r->selection);
    free(r->identity);
    CLEAR_MAGIC(r);
    free(r);
}

static void ebpf_free(struct instance *in)
{
    if (in->self) /* else the next generation has it */
        receiver_free(CAST_OBJ(struct receiver, in->self, RECEIVER_MAGIC));
    in->self = NULL;
}

/*
 * A reload. With the same keys the running receiver goes on, with its connections; texts of its
 * selection are the new configuration's from here on. With other keys it ends before the new one
 * begins, since two at a time would see every request twice.
 */
static bool ebpf_adopt(struct instance *in, struct instance *old)
{
    struct receiver *mine = CAST_OBJ(struct receiver, in->self, RECEIVER_MAGIC);
    struct receiver *r = CAST_OBJ(struct receiver, old->self, RECEIVER_MAGIC);
    struct selection_storage texts = mine->selection;

    if (!r->source || strcmp(r->identity, mine->identity) != 0) {
        drain(r);
        if (r->source)
            stop_capturing(r);
        return false;
    }
    texts.excluded = r->selection.excluded;
    texts.s.excluded = r->selection.s.excluded;
    texts.s.n_excluded = r->selection.s.n_excluded;
    mine->selection = r->selection;
    mine->selection.excluded = NULL;
    r->selection = texts;
    r->config = in->config;
    r->capture.options.selection = texts.s;
    r->capture.options.request.redacted_keys = texts.redacted;
    r->capture.options.resource.service_name = r->config->service_name;
    r->capture.options.resource.attributes = texts.attributes;
    r->capture.processes.resource = r->capture.options.resource;
    r->in = in;
    in->self = r;
    old->self = NULL;
    receiver_free(mine);
    return true;
}

static void ebpf_gate(struct instance *in, struct loop *loop, bool open)
{
    struct receiver *r = in->self;

    if (r && open && r->is_capturing && loop == loops_get(0))
        hand_on(r, clock_mono_ns());
}

const struct component ebpf_component = {
    .kind = KIND_RECEIVER,
    .name = "ebpf",
    .help = "Sees the requests of unchanged programs on this host in the kernel.",
    .signals = SIGNAL_BIT(SIGNAL_TRACES) | SIGNAL_BIT(SIGNAL_METRICS),
    .stability = STABILITY_ALPHA,
    .affinity = AFFINITY_PROCESS,
    .options = ebpf_options,
    .config_size = sizeof(struct ebpf_config),
    .validate = ebpf_validate,
    .create = ebpf_create,
    .adopt = ebpf_adopt,
    .start = ebpf_start,
    .stop = ebpf_stop,
    .free = ebpf_free,
    .gate = ebpf_gate,
};
