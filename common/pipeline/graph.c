/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building goes from the back: exporters, then connectors and processors from the last to the first
 * of each pipeline, receivers last. That is the order of starting too; stopping goes the other way,
 * level by level, so that what a level hands on finds the next one running.
 */
#include "common/pipeline/graph.h"

#include <errno.h>
#include <stdlib.h>

#include "common/pipeline/memory.h"

#define GRAPH_LOG (&(struct log_ctx){.component = "graph"})

static const struct config_component *find_config(const struct config *c, enum component_kind kind,
                                                  const char *id)
{
    const struct config_component *v = c->components.items;
    for (size_t i = 0; i < c->components.n; i++)
        if (v[i].component->kind == kind && strcmp(v[i].id, id) == 0)
            return &v[i];
    return NULL;
}

static bool same(const char *a, const char *b)
{
    return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

/* What makes an instance: kind, id, and per kind the pipeline or signals. */
struct identity {
    enum component_kind kind;
    const char *id, *pipeline;
    enum signal signal, makes;
};

static struct node *find_node(const struct graph *g, const struct identity *w)
{
    for (unsigned i = 0; g && i < g->n; i++) {
        const struct instance *in = &g->nodes[i]->in;
        if (in->component->kind == w->kind && strcmp(in->id, w->id) == 0 &&
            same(in->pipeline, w->pipeline) && in->signal == w->signal && in->makes == w->makes)
            return g->nodes[i];
    }
    return NULL;
}

static struct node *add_node(struct graph *g, const struct config_component *cc,
                             const struct identity *w)
{
    struct node *n = find_node(g, w);
    if (n)
        return n;
    n = xcalloc(1, sizeof(*n));
    n->graph = g;
    n->place = &cc->mark;
    n->in = (struct instance){
        .magic = INSTANCE_MAGIC,
        .component = cc->component,
        .id = cc->id,
        .pipeline = w->pipeline,
        .signal = w->signal,
        .makes = w->makes,
        .config = cc->config,
        .log = {.component = cc->id},
        .node = n,
    };
    n->gates = xcalloc(loops_count() ? loops_count() : 1, sizeof(*n->gates));
    g->nodes = xrealloc(g->nodes, (g->n + 1) * sizeof(*g->nodes));
    g->nodes[g->n++] = n;
    return n;
}

static void need_account(struct node *n, enum signal s)
{
    if (!n->account[s])
        n->account[s] = ledger_account(&n->in, s);
}

/* A receiver keeps books of all that it may make, also where no pipeline takes it. */
static void need_all_accounts(struct node *n)
{
    for (unsigned s = 0; s < SIGNAL_COUNT; s++)
        if (n->in.component->signals & SIGNAL_BIT(s))
            need_account(n, (enum signal)s);
}

static void connect(struct node *from, struct node *to, enum signal s)
{
    struct edges *out = &from->out[s];
    for (unsigned i = 0; i < out->n; i++)
        if (out->v[i].to == to)
            return;
    need_account(from, s);
    need_account(to, s);
    out->v = xrealloc(out->v, (out->n + 1) * sizeof(*out->v));
    out->v[out->n++] = (struct edge){to, ledger_edge(from->account[s], to->account[s])};
    to->up = xrealloc(to->up, (to->n_up + 1) * sizeof(struct node *));
    to->up[to->n_up++] = from;
}

/* ---- building ---- */

/* Nodes of the last stage of a pipeline: exporters, and connectors into pipelines of their signal.
 */
static void add_sinks(struct graph *g, const struct config_pipeline *p)
{
    const char *const *ids = p->exporters.items;
    const struct config_pipeline *all = g->config->pipelines.items;
    for (size_t i = 0; i < p->exporters.n; i++) {
        const struct config_component *cc = find_config(g->config, KIND_EXPORTER, ids[i]);
        if (cc) {
            struct identity w = {KIND_EXPORTER, cc->id, NULL, p->signal, p->signal};
            need_account(add_node(g, cc, &w), p->signal);
            continue;
        }
        cc = find_config(g->config, KIND_CONNECTOR, ids[i]);
        ASSERT(cc); /* config_load checked the reference */
        for (size_t k = 0; k < g->config->pipelines.n; k++) {
            const char *const *from = all[k].receivers.items;
            for (size_t j = 0; j < all[k].receivers.n; j++) {
                if (strcmp(from[j], cc->id) != 0 ||
                    !config_connects(cc->component, p->signal, all[k].signal))
                    continue;
                struct identity w = {KIND_CONNECTOR, cc->id, NULL, p->signal, all[k].signal};
                struct node *n = add_node(g, cc, &w);
                need_account(n, p->signal);
                need_account(n, all[k].signal);
            }
        }
    }
}

/* Edges from `from` to every sink of the pipeline. */
static void connect_sinks(struct graph *g, const struct config_pipeline *p, struct node *from)
{
    const char *const *ids = p->exporters.items;
    for (size_t i = 0; i < p->exporters.n; i++)
        for (unsigned k = 0; k < g->n; k++) {
            struct instance *in = &g->nodes[k]->in;
            bool is_sink =
                in->component->kind == KIND_EXPORTER || in->component->kind == KIND_CONNECTOR;
            if (is_sink && in->signal == p->signal && strcmp(in->id, ids[i]) == 0)
                connect(from, g->nodes[k], p->signal);
        }
}

/* The nodes that feed the pipeline: receivers, and connectors that make its signal. */
static void connect_sources(struct graph *g, const struct config_pipeline *p, struct node *first)
{
    const char *const *ids = p->receivers.items;
    for (size_t i = 0; i < p->receivers.n; i++) {
        const struct config_component *cc = find_config(g->config, KIND_RECEIVER, ids[i]);
        if (cc) {
            struct identity w = {KIND_RECEIVER, cc->id, NULL, 0, 0};
            struct node *n = add_node(g, cc, &w);
            need_all_accounts(n);
            if (first)
                connect(n, first, p->signal);
            else
                connect_sinks(g, p, n);
            continue;
        }
        for (unsigned k = 0; k < g->n; k++) {
            struct node *n = g->nodes[k];
            if (n->in.component->kind != KIND_CONNECTOR || n->in.makes != p->signal ||
                strcmp(n->in.id, ids[i]) != 0)
                continue;
            if (first)
                connect(n, first, p->signal);
            else
                connect_sinks(g, p, n);
        }
    }
}

static void add_processors(struct graph *g, const struct config_pipeline *p, struct node **first)
{
    const char *const *ids = p->processors.items;
    struct node *next = NULL;
    for (size_t i = p->processors.n; i-- > 0;) {
        const struct config_component *cc = find_config(g->config, KIND_PROCESSOR, ids[i]);
        ASSERT(cc);
        struct identity w = {KIND_PROCESSOR, cc->id, p->id, p->signal, p->signal};
        struct node *n = add_node(g, cc, &w);
        need_account(n, p->signal);
        if (next)
            connect(n, next, p->signal);
        else
            connect_sinks(g, p, n);
        next = n;
    }
    *first = next;
}

static void add_extensions(struct graph *g)
{
    const char *const *ids = g->config->extensions.items;
    for (size_t i = 0; i < g->config->extensions.n; i++) {
        const struct config_component *cc = find_config(g->config, KIND_EXTENSION, ids[i]);
        ASSERT(cc);
        struct identity w = {KIND_EXTENSION, cc->id, NULL, 0, 0};
        add_node(g, cc, &w);
    }
}

static void build(struct graph *g)
{
    const struct config_pipeline *p = g->config->pipelines.items;
    size_t n = g->config->pipelines.n;
    struct node **first = xcalloc(n + 1, sizeof(struct node *));
    for (size_t i = 0; i < n; i++)
        add_sinks(g, &p[i]);
    for (size_t i = 0; i < n; i++)
        add_processors(g, &p[i], &first[i]);
    for (size_t i = 0; i < n; i++)
        connect_sources(g, &p[i], first[i]);
    add_extensions(g);
    free(first);
}

static bool only_extensions(const struct graph *g)
{
    for (unsigned i = 0; i < g->n; i++)
        if (g->nodes[i] && g->nodes[i]->in.component->kind != KIND_EXTENSION)
            return false;
    return true;
}

/* Puts every node behind all the nodes it leads to, by repeated picking; extensions are the last.
 */
static void sort_nodes(struct graph *g)
{
    struct node **sorted = xcalloc(g->n + 1, sizeof(struct node *));
    unsigned done = 0;
    bool progress = true;
    while (done < g->n && progress) {
        progress = false;
        for (unsigned i = 0; i < g->n; i++) {
            struct node *n = g->nodes[i];
            bool is_extension = n && n->in.component->kind == KIND_EXTENSION;
            bool ready = n && (!is_extension || only_extensions(g));
            for (unsigned s = 0; ready && s < SIGNAL_COUNT; s++)
                for (unsigned k = 0; ready && k < n->out[s].n; k++) {
                    bool placed = false;
                    for (unsigned j = 0; j < done; j++)
                        placed |= sorted[j] == n->out[s].v[k].to;
                    ready = placed;
                }
            if (!ready)
                continue;
            sorted[done++] = n;
            g->nodes[i] = NULL;
            progress = true;
        }
    }
    ASSERT(done == g->n); /* config_load refused cycles */
    free(g->nodes);
    g->nodes = sorted;
}

/* Puts file:line:column and path in front, as all problems of a configuration have them. */
static void tell_place(const struct node *n, struct err *e)
{
    err_prefix(e, "%s::%s: ", kind_section(n->in.component->kind), n->in.id);
    if (n->place->file && n->place->line)
        err_prefix(e, "%s:%u:%u: ", n->place->file, n->place->line, n->place->column);
}

static int create(struct node *n, struct err *e)
{
    const struct component *c = n->in.component;
    int r = c->create ? c->create(&n->in, e) : 0;
    if (r) {
        tell_place(n, e);
        return r;
    }
    n->is_created = true;
    return 0;
}

/* Shares the running instance's state where the component says that nothing of its identity
 * changed. */
static void adopt(struct node *n, struct graph *old)
{
    const struct instance *in = &n->in;
    struct identity w = {in->component->kind, in->id, in->pipeline, in->signal, in->makes};
    struct node *before = find_node(old, &w);
    if (!before || before->in.component != in->component || !in->component->adopt)
        return;
    if (in->component->adopt(&n->in, &before->in))
        before->is_adopted = true;
}

int graph_new(struct graph **out, const struct config *c, struct graph *old, struct err *e)
{
    static uint64_t generations;
    struct graph *g = xcalloc(1, sizeof(*g));
    g->config = c;
    g->number = ++generations;
    build(g);
    sort_nodes(g);
    for (unsigned i = 0; i < g->n; i++) {
        int r = create(g->nodes[i], e);
        if (r) {
            graph_free(&g);
            return r;
        }
    }
    g->old = old;
    *out = g;
    return 0;
}

int graph_start(struct graph *g, struct err *e)
{
    for (unsigned i = 0; i < g->n; i++) {
        struct node *n = g->nodes[i];
        if (g->old)
            adopt(n, g->old);
        for (unsigned s = 0; s < SIGNAL_COUNT; s++)
            if (n->account[s])
                ledger_set_holder(n->account[s], &n->in);
        int r = n->in.component->start ? n->in.component->start(&n->in, e) : 0;
        if (r) {
            tell_place(n, e);
            for (; i < g->n; i++) /* nothing to stop: free() ends what a start had begun */
                atomic_store(&g->nodes[i]->is_stopped, true);
            return r;
        }
        atomic_store(&n->is_started, true);
        node_tell_gate(n); /* what was told before the start was left out */
    }
    g->old = NULL;
    return 0;
}

/* ---- stopping ---- */

static bool upstream_stopped(const struct node *n)
{
    for (unsigned i = 0; i < n->n_up; i++)
        if (!atomic_load(&n->up[i]->is_stopped))
            return false;
    return true;
}

/* Extensions outlive the pipelines: they tell that these drain. */
static bool pipelines_stopped(const struct graph *g)
{
    for (unsigned i = 0; i < g->n; i++)
        if (g->nodes[i]->in.component->kind != KIND_EXTENSION &&
            !atomic_load(&g->nodes[i]->is_stopped))
            return false;
    return true;
}

static void tell_draining(struct node *n)
{
    if (n->is_draining || !n->is_started || n->is_adopted)
        return;
    n->is_draining = true;
    if (n->in.component->draining)
        n->in.component->draining(&n->in);
}

bool graph_stop(struct graph *g)
{
    bool all = true, is_drained = pipelines_stopped(g);
    for (unsigned i = g->n; i-- > 0;) {
        struct node *n = g->nodes[i];
        if (atomic_load(&n->is_stopped))
            continue;
        bool is_extension = n->in.component->kind == KIND_EXTENSION;
        if (is_extension)
            tell_draining(n);
        if (!upstream_stopped(n) || (is_extension && !is_drained)) {
            all = false;
            continue;
        }
        if (n->is_started) {
            n->is_started = false;
            if (n->is_adopted || !n->in.component->stop)
                instance_stopped(&n->in);
            else
                n->in.component->stop(&n->in);
        } else if (!n->is_created || !n->in.component->stop) {
            atomic_store(&n->is_stopped, true);
        }
        all &= atomic_load(&n->is_stopped);
    }
    return all;
}

uint64_t graph_held(const struct graph *g)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < g->n; i++) {
        struct instance *in = &g->nodes[i]->in;
        if (in->component->held && in->self && !g->nodes[i]->is_adopted)
            sum += in->component->held(in);
    }
    return sum;
}

uint64_t graph_abandon(struct graph *g)
{
    uint64_t left = graph_held(g);
    for (unsigned i = 0; i < g->n; i++) {
        struct node *n = g->nodes[i];
        bool is_over = atomic_load(&n->is_stopped) || !n->is_created || n->is_adopted;
        if (!is_over && n->in.component->abandon)
            n->in.component->abandon(&n->in);
    }
    return left;
}

void graph_free(struct graph **gp)
{
    struct graph *g = *gp;
    if (!g)
        return;
    for (unsigned i = g->n; i-- > 0;) {
        struct node *n = g->nodes[i];
        for (unsigned s = 0; s < SIGNAL_COUNT; s++)
            if (n->account[s])
                ledger_clear_holder(n->account[s], &n->in);
        if (n->is_created && n->in.component->free)
            n->in.component->free(&n->in);
    }
    for (unsigned i = 0; i < g->n; i++) {
        struct node *n = g->nodes[i];
        for (unsigned s = 0; s < SIGNAL_COUNT; s++)
            free(n->out[s].v);
        free(n->up);
        free(n->gates);
        free(n->marks);
        free(n);
    }
    free(g->nodes);
    free(g);
    *gp = NULL;
}
