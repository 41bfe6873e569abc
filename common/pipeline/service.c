/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run of the service, from the main thread's view:
 *
 *   load ─► loops ─► generation 1 ─► wait for signals ─┬─ SIGHUP: load, next generation, drain the
 * last └─ SIGTERM, SIGINT, fatal: drain, loops end
 *
 * Everything of a graph happens on loop 0 (loop_call); the main thread only waits.
 */
#include "common/pipeline/service.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/pipeline/graph.h"
#include "common/pipeline/memory.h"
#include "common/pipeline/service_metrics.h"

#define SERVICE_LOG (&(struct log_ctx){.component = "service"})
enum { POLL_MS = 5, METRICS_CLOSE_MS = 2000, CUT_MS = 5000 };

struct service {
    const struct service_program *program;
    const struct config_source *sources;
    size_t n_sources;
    struct config *config;
    struct graph *graph;
    struct service_metrics *metrics;
};

static _Atomic bool has_failed;
static bool
    is_stuck; /* something would not even be cut short: its memory is not touched any more */

/* ---- on loop 0 ---- */

struct step {
    struct service *s;
    struct config *config;
    struct graph *graph;
    struct err e;
    int r;
    bool done;
    uint64_t left;
};

static void on_fatal(struct instance *in, const char *why)
{
    (void)in;
    (void)why; /* logged by instance_fatal */
    has_failed = true;
    kill(getpid(), SIGTERM);
}

static void do_build(void *arg)
{
    struct step *st = arg;
    st->r = graph_new(&st->graph, st->config, st->s->graph, &st->e);
    if (st->r)
        return;
    st->graph->on_fatal = on_fatal;
    st->r = graph_start(st->graph, &st->e);
}

static void do_metrics(void *arg)
{
    struct step *st = arg;
    st->r =
        service_metrics_open(&st->s->metrics, &st->config->telemetry, st->s->program->name, &st->e);
}

static void do_stop(void *arg)
{
    struct step *st = arg;
    st->done = graph_stop(st->graph);
}

static void do_abandon(void *arg)
{
    struct step *st = arg;
    st->left = graph_abandon(st->graph);
}

static void do_free(void *arg)
{
    struct step *st = arg;
    graph_free(&st->graph);
}

static void do_close_metrics(void *arg)
{
    struct service *s = arg;
    service_metrics_close(&s->metrics);
}

static void nothing(void *arg)
{
    (void)arg;
}

/* ---- on the main thread ---- */

/* When it returns no loop is inside a call that had begun before. */
static void loops_barrier(void)
{
    for (unsigned i = 0; i < loops_count(); i++)
        loop_call(loops_get(i), nothing, NULL);
}

static void sleep_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)ms * 1000000}, NULL);
}

/* A second signal to end cuts the drain short. True when there was one. */
static bool is_urged(const sigset_t *set)
{
    int sig = set ? sigtimedwait(set, NULL, &(struct timespec){.tv_nsec = POLL_MS * 1000000L}) : 0;
    if (!set)
        sleep_ms(POLL_MS);
    return sig == SIGTERM || sig == SIGINT;
}

static bool stop_within(struct step *st, uint64_t timeout_ns, const sigset_t *set)
{
    uint64_t deadline = clock_mono_ns() + timeout_ns;
    for (;;) {
        loop_call(loops_get(0), do_stop, st);
        if (st->done || clock_mono_ns() >= deadline || is_urged(set))
            return st->done;
    }
}

/*
 * Drains and frees a graph: what is held at the deadline is dropped and told. `set` are the signals
 * that cut it short, NULL for none. Returns the items dropped.
 */
static uint64_t drain(struct service *s, struct graph *g, uint64_t timeout_ns, const sigset_t *set)
{
    struct step st = {.s = s, .graph = g};
    if (!stop_within(&st, timeout_ns, set)) {
        loop_call(loops_get(0), do_abandon, &st);
        is_stuck = !stop_within(&st, CUT_MS * NS_PER_MS, NULL) || is_stuck;
    }
    if (!st.done) {
        log_error(SERVICE_LOG, "a component does not end: its memory stays");
        return st.left;
    }
    loops_barrier(); /* nobody is inside the graph */
    loops_barrier(); /* and what they posted to each other has run */
    loop_call(loops_get(0), do_free, &st);
    loops_barrier();
    return st.left;
}

static int load(struct service *s, struct config **out)
{
    struct buf problems;
    buf_init(&problems);
    int r = config_load(out, s->sources, s->n_sources, s->program->components, &problems);
    if (problems.n)
        fprintf(stderr, "%s%s", buf_cstr(&problems),
                problems.p[problems.n - 1] == '\n' ? "" : "\n");
    buf_fini(&problems);
    return r;
}

static void apply_telemetry(const struct config *c)
{
    log_setup((enum log_level)c->telemetry.logs_level, c->telemetry.logs_json);
}

static void reload(struct service *s)
{
    struct step st = {.s = s};
    if (load(s, &st.config)) {
        log_error(SERVICE_LOG, "configuration not reloaded: the running one stays");
        return;
    }
    loop_call(loops_get(0), do_build, &st);
    if (st.r) {
        log_error(SERVICE_LOG, "configuration not reloaded: %s; the running one stays", st.e.text);
        if (st.graph)
            drain(s, st.graph, st.config->shutdown_timeout_ns, NULL);
        config_free(&st.config);
        return;
    }
    struct graph *old = s->graph;
    struct config *old_config = s->config;
    s->graph = st.graph;
    s->config = st.config;
    apply_telemetry(s->config);
    loops_barrier();
    uint64_t left = drain(s, old, old_config->shutdown_timeout_ns, NULL);
    if (left)
        log_error(SERVICE_LOG, "%llu items of the old configuration dropped at the deadline",
                  (unsigned long long)left);
    if (!is_stuck)
        config_free(&old_config);
    log_info(SERVICE_LOG, "configuration reloaded");
}

/* Waits for a signal; true when the service shall end. */
static bool wait_signal(struct service *s, const sigset_t *set)
{
    int sig = sigwaitinfo(set, NULL);
    if (sig == SIGHUP) {
        reload(s);
        return false;
    }
    return sig == SIGTERM || sig == SIGINT;
}

/* TAILRACE_LOOPS: the number of event loops, in place of one for each CPU granted. */
static unsigned loops_wanted(const struct service_program *p)
{
    const char *text = getenv("TAILRACE_LOOPS");
    uint64_t n = 0;
    if (text && str_to_u64(str_of(text), &n) == 0 && n > 0 && n <= 256)
        return (unsigned)n;
    return p->max_loops;
}

static int run(struct service *s)
{
    struct step st = {.s = s, .config = s->config};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    st.r = loops_start(loops_wanted(s->program), &st.e);
    if (st.r == 0)
        loop_call(loops_get(0), do_metrics, &st);
    if (st.r == 0)
        loop_call(loops_get(0), do_build, &st);
    if (st.r) {
        log_error(SERVICE_LOG, "cannot start: %s", st.e.text);
        has_failed = true;
    } else {
        s->graph = st.graph;
        log_info(SERVICE_LOG, "Everything is ready. Begin running and processing data.");
        while (!wait_signal(s, &set))
            ;
        log_info(SERVICE_LOG, "shutting down");
        st.graph = s->graph;
    }
    uint64_t left = st.graph ? drain(s, st.graph, s->config->shutdown_timeout_ns, &set) : 0;
    if (left) {
        log_error(SERVICE_LOG, "%llu items dropped at shutdown: the deadline passed",
                  (unsigned long long)left);
        has_failed = true;
    }
    if (is_stuck) {
        fflush(NULL);
        _exit(1);
    }
    if (loops_count()) {
        loop_call(loops_get(0), do_close_metrics, s);
        for (unsigned i = 0; service_metrics_closing() && i < METRICS_CLOSE_MS / POLL_MS; i++)
            sleep_ms(POLL_MS);
        loops_stop();
    }
    return has_failed ? 1 : 0;
}

int service_run(const struct service_program *p, const struct config_source *src, size_t n)
{
    struct service s = {.program = p, .sources = src, .n_sources = n};
    if (load(&s, &s.config))
        return 1;
    apply_telemetry(s.config);
    mem_limit_set(memory_total() / 10 * 9);
    int status = run(&s);
    config_free(&s.config);
    return status;
}

/* ---- validate ---- */

struct check {
    const struct config *config;
    struct err *e;
    int r;
};

static void do_check(void *arg)
{
    struct check *c = arg;
    struct graph *g = NULL;
    c->r = graph_new(&g, c->config, NULL, c->e);
    graph_free(&g);
}

int service_check(const struct service_program *p, const struct config *c, struct err *e)
{
    struct check check = {.config = c, .e = e};
    (void)p;
    int r = loops_start(1, e);
    if (r)
        return r;
    loop_call(loops_get(0), do_check, &check);
    loops_stop();
    return check.r;
}
