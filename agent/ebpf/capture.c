/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/capture.h"

#include "common/base/clock.h"

static struct process *process_get(struct capture *c, uint32_t tgid)
{
    struct process *p = tgid ? processes_find(&c->processes, tgid) : NULL;

    if (p || !tgid)
        return p;
    if (c->options.drain_control)
        c->options.drain_control(c->options.arg);
    return processes_get(&c->processes, tgid);
}

/* The process a request belongs to: who made its calls, else who opened the connection. */
static struct process *process_of(struct capture *c, const struct conn *conn,
                                  const struct exchange *x)
{
    return process_get(c, x->tgid ? x->tgid : conn->tgid);
}

static void tell_if_selected(struct capture *c, const struct process *p)
{
    if (p && p->selected && c->options.judged)
        c->options.judged(c->options.arg, p);
}

static void on_exchange(void *arg, const struct conn *conn, enum layer layer,
                        const struct parser *parser, struct exchange *x)
{
    struct capture *c = arg;
    struct http1_exchange *h = CONTAINER_OF(x, struct http1_exchange, base);
    struct process *p = process_of(c, conn, x);

    if (p && p->selected && request_read(&c->request, &c->options.request, conn, layer, h)) {
        spans_add(&c->spans, &c->request, process_span_resource(&c->processes, p), p->tgid,
                  c->wall_offset_ns);
        metrics_request(&c->metrics, &c->request, process_metric_resource(&c->processes, p));
        c->count.spans++;
        c->count.incomplete_spans += c->request.incomplete;
    } else {
        c->count.exchanges_without_span++;
    }
    parser->exchange_free(x);
}

static bool on_wanted(void *arg, const struct conn *conn)
{
    struct capture *c = arg;
    const struct open_record *o = &conn->open;
    const struct selection *s = &c->options.selection;
    struct process *p;

    if (selection_is_excluded(s, o->family, &o->peer) ||
        selection_is_excluded(s, o->family, &o->local))
        return false;
    p = process_get(c, o->tgid);
    if (p && p->ours)
        return false;
    if (p && o->role == ROLE_SERVER && selection_has_port(s, o->local.port))
        processes_select_listener(&c->processes, p->tgid, o->local.port);
    tell_if_selected(c, p);
    /* Who opened it may hand it to a child that is selected: only a known stranger's is unwanted.
     */
    return !p || p->selected || o->role == ROLE_SERVER;
}

void capture_init(struct capture *c, const struct capture_options *o)
{
    struct connections_ops ops = {.exchange = on_exchange, .wanted = on_wanted, .arg = c};

    memset(c, 0, sizeof(*c));
    c->options = *o;
    connections_init(&c->connections, &ops);
    processes_init(&c->processes, &c->options.selection, &c->options.resource);
    spans_init(&c->spans, o->resource.version);
    metrics_init(&c->metrics, o->max_series, o->resource.version, clock_wall_ns());
    request_init(&c->request);
    c->wall_offset_ns = clock_wall_offset_ns();
    c->metrics_at_ns = clock_mono_ns() + o->metrics_interval_ns;
}

void capture_finish(struct capture *c)
{
    connections_fini(&c->connections);
}

void capture_fini(struct capture *c)
{
    connections_fini(&c->connections);
    processes_fini(&c->processes);
    spans_fini(&c->spans);
    metrics_fini(&c->metrics);
    request_fini(&c->request);
}

void capture_begin(struct capture *c)
{
    c->wall_offset_ns = clock_wall_offset_ns();
}

void capture_open(struct capture *c, const struct open_record *r)
{
    connections_open(&c->connections, r);
}

void capture_data(struct capture *c, const struct data_record *r)
{
    connections_data(&c->connections, r);
}

void capture_close(struct capture *c, const struct close_record *r)
{
    connections_close(&c->connections, r);
}

void capture_exec(struct capture *c, const struct exec_record *r)
{
    const struct process *p = processes_exec(&c->processes, r);

    if (p && c->options.judged)
        c->options.judged(c->options.arg, p);
}

void capture_fork(struct capture *c, const struct fork_record *r)
{
    tell_if_selected(c, processes_fork(&c->processes, r));
}

void capture_listens(struct capture *c, uint32_t tgid, uint16_t port)
{
    processes_select_listener(&c->processes, tgid, port);
    tell_if_selected(c, processes_get(&c->processes, tgid));
}

void capture_exit(struct capture *c, const struct exit_record *r)
{
    processes_exit(&c->processes, r);
}

void capture_end(struct capture *c, uint64_t now_ns)
{
    connections_drained(&c->connections, now_ns);
    processes_tick(&c->processes, now_ns);
}

struct batch *capture_spans(struct capture *c, uint64_t *lost)
{
    struct batch *b = spans_take(&c->spans, lost);

    *lost += c->spans.dropped;
    c->spans.dropped = 0;
    return b;
}

struct batch *capture_metrics(struct capture *c, uint64_t now_ns)
{
    if (now_ns < c->metrics_at_ns)
        return NULL;
    c->metrics_at_ns = now_ns + c->options.metrics_interval_ns;
    return metrics_take(&c->metrics, now_ns + (uint64_t)c->wall_offset_ns);
}
