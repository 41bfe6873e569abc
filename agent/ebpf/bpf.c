/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel as a source of records: loads and attaches the BPF object, drains its rings, writes
 * its maps. The only file that knows libbpf.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/ebpf/bpf_counts.h"
#include "agent/ebpf/bpf_iter.h"
#include "agent/ebpf/bpf_load.h"
#include "agent/ebpf/bpf_memory.h"
#include "agent/ebpf/bpf_rings.h"
#include "agent/ebpf/bpf_tls.h"
#include "agent/ebpf/bpf_verdicts.h"
#include "agent/ebpf/source.h"
#include "bpf/wire.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/pipeline/telemetry.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "bpf/tailrace.skel.h"
#pragma GCC diagnostic pop

#define BPF_LOG (&(struct log_ctx){.component = "ebpf"})
#define SOURCE_MAGIC 0x42504653u

struct source {
    unsigned magic;
    struct tailrace *skel; /* loaded's */
    struct rings rings;
    struct verdicts verdicts;
    struct capture *capture; /* of the drain that is under way */
    struct recording *recording;
    size_t drained;
    struct loaded loaded;
    const struct selection *selection;
    bool has_tls;
    struct libraries libraries;
    struct counts counts;
    uint64_t memory_ns; /* when it was looked at */
    bool is_over_budget;
    struct tls_probes probes;
    uint64_t sweep_interval_ns, swept_ns;
    uint64_t counters[WIRE_COUNTERS], missed;
};

/* ---- records ---- */

static const enum hole holes[] = {
    [WIRE_HOLE_NONE] = HOLE_NONE,   [WIRE_HOLE_NO_BUFFER] = HOLE_NO_BUFFER,
    [WIRE_HOLE_FAULT] = HOLE_FAULT, [WIRE_HOLE_TRUNCATED] = HOLE_TRUNCATED,
    [WIRE_HOLE_LIMIT] = HOLE_LIMIT,
};

static const enum role roles[] = {
    [WIRE_ROLE_UNKNOWN] = ROLE_UNKNOWN,
    [WIRE_ROLE_CLIENT] = ROLE_CLIENT,
    [WIRE_ROLE_SERVER] = ROLE_SERVER,
};

static void on_open(struct source *s, const struct wire_open *w)
{
    struct open_record r = {
        .cookie = w->cookie,
        .time_ns = w->h.time_ns,
        .cgroup = w->cgroup,
        .family = w->family,
        .role = w->role < ARRAY_LEN(roles) ? roles[w->role] : ROLE_UNKNOWN,
        .local.port = w->local_port,
        .peer.port = w->peer_port,
        .netns = w->netns,
        .tgid = w->tgid,
        .listener_port = w->listener_port,
        .joined = w->joined,
        .learnt = w->learnt,
        .first_pos = {w->first_pos[WIRE_SEND], w->first_pos[WIRE_RECV]},
    };
    memcpy(r.local.address, w->local, sizeof(r.local.address));
    memcpy(r.peer.address, w->peer, sizeof(r.peer.address));
    capture_open(s->capture, &r);
    if (s->recording)
        recording_open_record(s->recording, &r);
}

static void on_data(struct source *s, const struct wire_data *w, size_t size)
{
    if (sizeof(*w) + w->head + w->tail > size)
        return;
    struct data_record r = {
        .cookie = w->cookie,
        .ssl = w->ssl,
        .first_ns = w->first_ns,
        .end_ns = w->h.time_ns,
        .pos = w->pos,
        .other_pos = w->other_pos,
        .len = w->bytes,
        .head = w->head,
        .tail = w->tail,
        .bytes = (const uint8_t *)(w + 1),
        .tgid = w->tgid,
        .tid = w->tid,
        .generation = w->generation,
        .layer = w->layer == WIRE_LAYER_TLS ? LAYER_TLS : LAYER_SOCKET,
        .dir = w->dir == WIRE_SEND ? DIR_SEND : DIR_RECEIVE,
        .hole = w->hole < ARRAY_LEN(holes) ? holes[w->hole] : HOLE_NO_BUFFER,
        .lost_before = w->lost_before,
    };
    capture_data(s->capture, &r);
    if (w->opaque && s->has_tls)
        libraries_does_tls(&s->libraries, w->tgid);
    if (s->recording)
        recording_data(s->recording, &r);
}

static void on_close(struct source *s, const struct wire_close *w)
{
    struct close_record r = {.cookie = w->cookie,
                             .time_ns = w->h.time_ns,
                             .pos = {w->pos[WIRE_SEND], w->pos[WIRE_RECV]},
                             .has_pos = true};
    capture_close(s->capture, &r);
    if (s->recording)
        recording_close_record(s->recording, &r);
}

static void forget_last(struct source *s, uint32_t tgid)
{
    uint32_t *last = &s->skel->bss->selected_last[tgid % WIRE_ENDS];

    __atomic_compare_exchange_n(last, &tgid, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* As select() and deselect() of bpf/maps.h. */
static void select_process(struct source *s, uint32_t tgid, uint8_t how)
{
    uint32_t *n = &s->skel->bss->selected_ends[tgid % WIRE_ENDS];
    int map = bpf_map__fd(s->skel->maps.selected);

    __atomic_add_fetch(n, 1, __ATOMIC_SEQ_CST);
    if (bpf_map_update_elem(map, &tgid, &how, BPF_NOEXIST) &&
        /* It was there; unless it has gone meanwhile. */
        (bpf_map_update_elem(map, &tgid, &how, BPF_EXIST) == 0 ||
         bpf_map_update_elem(map, &tgid, &how, BPF_NOEXIST)))
        __atomic_sub_fetch(n, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&s->skel->bss->selected_last[tgid % WIRE_ENDS], tgid, __ATOMIC_SEQ_CST);
    if (bpf_map_lookup_elem(map, &tgid, &how)) /* deselected meanwhile, which did not see it */
        forget_last(s, tgid);
}

static void deselect_process(struct source *s, uint32_t tgid)
{
    if (bpf_map__delete_elem(s->skel->maps.selected, &tgid, sizeof(tgid), 0) == 0)
        __atomic_sub_fetch(&s->skel->bss->selected_ends[tgid % WIRE_ENDS], 1, __ATOMIC_SEQ_CST);
    forget_last(s, tgid);
}

/* User space's judgement of an executable is remembered in the kernel by its inode. */
static void judge_executable(struct source *s, const struct wire_exec *w)
{
    struct process *p = processes_get(&s->capture->processes, w->tgid);
    uint8_t yes = p && p->image_selected, value = WIRE_SELECTED;
    if (!s->selection->n_exes || !p)
        return;
    bpf_map__update_elem(s->skel->maps.executables, &w->exe, sizeof(w->exe), &yes, sizeof(yes),
                         BPF_ANY);
    if (yes)
        bpf_map__update_elem(s->skel->maps.selected, &w->tgid, sizeof(w->tgid), &value,
                             sizeof(value), BPF_EXIST);
    else if (!p->selected)
        deselect_process(s, w->tgid);
}

static void start_tls(struct source *s, uint32_t tgid)
{
    const struct process *p = processes_get(&s->capture->processes, tgid);

    if (s->has_tls && p && p->selected && !p->ours)
        libraries_started(&s->libraries, tgid, clock_mono_ns());
}

static void on_exec(struct source *s, const struct wire_exec *w)
{
    struct exec_record r = {
        .tgid = w->tgid,
        .parent = w->parent,
        .time_ns = w->h.time_ns,
        .start_ns = w->start_ns,
        .cgroup = w->cgroup,
        .inode = w->exe.inode,
        .path = str_make(w->path, MIN(w->path_len, (uint32_t)WIRE_PATH)),
        .argv = str_make(w->argv, MIN(w->argv_len, (uint32_t)WIRE_ARGV)),
    };
    capture_exec(s->capture, &r);
    judge_executable(s, w);
    start_tls(s, w->tgid);
    if (s->recording)
        recording_exec(s->recording, &r);
}

static void on_process(struct source *s, const struct wire_process *w)
{
    if (w->h.type == WIRE_FORK) {
        struct fork_record r = {w->tgid, w->parent, w->h.time_ns, w->cgroup};
        capture_fork(s->capture, &r);
        if (s->recording)
            recording_fork(s->recording, &r);
    } else if (w->h.type == WIRE_LISTENS) {
        capture_listens(s->capture, w->tgid, (uint16_t)w->parent);
    } else if (w->h.type == WIRE_MAPPED) {
        if (s->has_tls)
            libraries_changed(&s->libraries, w->tgid);
    } else {
        struct exit_record r = {w->tgid, w->h.time_ns};
        capture_exit(s->capture, &r);
        if (s->has_tls)
            libraries_gone(&s->libraries, w->tgid);
        if (s->recording)
            recording_exit(s->recording, &r);
    }
}

static void on_record(void *arg, const void *data, size_t size)
{
    struct source *s = CAST_OBJ(struct source, arg, SOURCE_MAGIC);
    const struct wire_head *h = data;
    s->drained++;
    switch (h->type) {
    case WIRE_OPEN:
        on_open(s, data);
        break;
    case WIRE_DATA:
        on_data(s, data, size);
        break;
    case WIRE_CLOSE:
        on_close(s, data);
        break;
    case WIRE_EXEC:
        on_exec(s, data);
        break;
    case WIRE_FORK:
    case WIRE_EXIT:
    case WIRE_LISTENS:
    case WIRE_MAPPED:
        on_process(s, data);
        break;
    default:
        break;
    }
}

/* ---- start ---- */

/* What libbpf has to say, in the debug log. Of a verifier's long story the end tells why. */
__attribute__((format(printf, 2, 0))) static int to_log(enum libbpf_print_level level,
                                                        const char *fmt, va_list ap)
{
    enum { TOLD = 1500 };
    char *text;
    int n;

    if (level != LIBBPF_WARN || log_min() > LOG_DEBUG || (n = vasprintf(&text, fmt, ap)) < 0)
        return 0;
    if (n > TOLD)
        log_debug(BPF_LOG, "%.100s ... %s", text, text + n - TOLD);
    else
        log_debug(BPF_LOG, "%s", text);
    free(text);
    return 0;
}

/* ---- TLS libraries ---- */

static struct tls_links *attach_library(void *arg, const struct library *l, uint32_t tgid)
{
    struct source *s = CAST_OBJ(struct source, arg, SOURCE_MAGIC);
    struct tls_links *links = tls_attach(&s->probes, &l->sites, l->fd, tgid);
    struct buf what;

    if (!links) {
        /* A process that has ended meanwhile needs none. */
        if (errno != ESRCH)
            log_warn(BPF_LOG, "TLS library %s: not observed: %s", l->name,
                     errno == ENOTSUP  ? "the ends of its calls cannot be seen here"
                     : errno == EMFILE ? "too many probes, which this kernel attaches one by one"
                                       : strerror(errno));
        return NULL;
    }
    buf_init(&what);
    tls_describe(&s->probes, &l->sites, &what);
    if (tgid)
        log_info(BPF_LOG, "TLS library %s in process %u: probes on %s", l->name, tgid,
                 buf_cstr(&what));
    else
        log_info(BPF_LOG, "TLS library %s in all processes: probes on %s", l->name,
                 buf_cstr(&what));
    buf_fini(&what);
    return links;
}

static void detach_library(void *arg, struct tls_links *links)
{
    struct source *s = CAST_OBJ(struct source, arg, SOURCE_MAGIC);

    tls_detach(&s->probes, links);
}

static void on_looked(void *arg, uint32_t tgid)
{
    struct source *s = CAST_OBJ(struct source, arg, SOURCE_MAGIC);

    bpf_map__delete_elem(s->skel->maps.mapping, &tgid, sizeof(tgid), 0);
}

static bool has_program(const struct bpf_program *p)
{
    return bpf_program__fd(p) >= 0;
}

static void begin_tls(struct source *s, const struct source_config *c)
{
    const struct selection *sel = c->selection;
    struct libraries_ops ops = {.attach = attach_library, .detach = detach_library, .arg = s};
    enum library_probes probes = c->tls_probes;

    s->has_tls = c->tls && has_program(s->skel->progs.tr_ssl_enter) &&
                 has_program(s->skel->progs.tr_ssl_leave);
    if (!s->has_tls)
        return;
    tls_probes_init(&s->probes, s->skel, c->tls_returns);
    if (s->skel->links.tr_mapping)
        ops.looked = on_looked;
    if (!s->probes.has_multi || (sel->all && probes == PROBES_AUTO))
        probes = PROBES_LIBRARY;
    libraries_init(&s->libraries, &ops, probes, sel->n_exes > 0, clock_mono_ns());
    libraries_look_default(&s->libraries);
}

/*
 * The kernel tells processes by their numbers in its first PID namespace; in another one none of
 * them would be found in /proc, and nothing would be seen without a word. Its inode is fixed:
 * PROC_PID_INIT_INO, include/linux/proc_ns.h.
 */
static bool sees_the_hosts_processes(void)
{
    enum { PID_INIT_INO = 0xEFFFFFFC };
    struct stat st;
    return stat("/proc/self/ns/pid", &st) == 0 && st.st_ino == (ino_t)(unsigned)PID_INIT_INO;
}

int source_open(struct source **out, const struct source_config *c, struct err *e)
{
    if (!sees_the_hosts_processes())
        return err_set(
            e, -EPERM,
            "not in the host's PID namespace: processes cannot be told (hostPID: true in "
            "Kubernetes, --pid=host for a container)");
    struct source *s = xcalloc(1, sizeof(*s));
    SET_MAGIC(s, SOURCE_MAGIC);
    if (c->tier == TIER_SYSCALL) {
        source_close(&s);
        return err_set(e, -ENOTSUP, "capture_tier: syscall is not there yet");
    }
    libbpf_set_print(to_log);
    counts_init(&s->counts);
    s->selection = c->selection;
    s->sweep_interval_ns = c->sweep_interval_ns;
    int r = bpf_load(&s->loaded, c, e);
    if (r == 0) {
        s->skel = s->loaded.skel;
        verdicts_init(&s->verdicts, s->skel);
        r = rings_open(&s->rings, &s->loaded, bpf_map__fd(s->skel->maps.control_ring), on_record,
                       s);
        if (r)
            r = err_set(e, r, "ring buffer: %s", strerror(-r));
    }
    if (r) {
        source_close(&s);
        return r;
    }
    begin_tls(s, c);
    *out = s;
    return 0;
}

void source_close(struct source **sp)
{
    struct source *s = *sp;
    if (!s)
        return;
    CHECK_OBJ(s, SOURCE_MAGIC);
    libraries_fini(&s->libraries);
    tls_probes_fini(&s->probes);
    rings_close(&s->rings);
    verdicts_fini(&s->verdicts);
    counts_fini(&s->counts);
    bpf_unload(&s->loaded);
    CLEAR_MAGIC(s);
    free(s);
    *sp = NULL;
}

const char *source_tier(const struct source *s)
{
    return tier_name(s->loaded.tier);
}

int source_fd(const struct source *s)
{
    return s->rings.epoll;
}

/* ---- running ---- */

void source_drain_control(struct source *s, struct capture *c, struct recording *rec)
{
    s->capture = c;
    s->recording = rec;
    rings_consume_control(&s->rings);
}

size_t source_drain(struct source *s, struct capture *c, struct recording *rec, bool *more)
{
    s->drained = 0;
    source_drain_control(s, c, rec);
    *more = rings_consume(&s->rings);
    if (s->has_tls) {
        libraries_look(&s->libraries, clock_mono_ns());
        s->skel->bss->probes_follow = !libraries_is_everywhere(&s->libraries);
    }
    return s->drained;
}

void source_holders(struct source *s, void (*fn)(void *arg, uint32_t tgid, uint16_t port),
                    void *arg)
{
    iter_files(s->skel, fn, arg);
}

struct sweep {
    struct connections *cs;
    uint64_t n;
};

static void on_alive(void *arg, uint64_t cookie)
{
    struct sweep *sweep = arg;

    sweep->n++;
    if (cookie)
        connections_sweep_alive(sweep->cs, cookie);
}

void source_sweep(struct source *s, struct capture *c, struct recording *rec, uint64_t now_ns)
{
    struct sweep sweep = {&c->connections, 0};
    bool more;

    if (now_ns < s->swept_ns + s->sweep_interval_ns)
        return;
    s->swept_ns = now_ns;
    connections_sweep_begin(sweep.cs);
    if (iter_alive(s->skel, s->loaded.tier, on_alive, &sweep))
        return;
    s->skel->bss->conn_states_live = sweep.n;
    source_drain(s, c, rec, &more); /* what was told of those that ended meanwhile */
    if (!more)
        connections_sweep_end(sweep.cs, now_ns);
}

void source_verdicts(struct source *s, const struct capture_verdict *v, size_t n)
{
    verdicts_write(&s->verdicts, v, n);
}

void source_select(struct source *s, const struct process *p)
{
    bool for_good = p->inherits || selection_has_pid(s->selection, p->tgid);
    bool yes = p->selected && !p->ours;
    if (yes)
        select_process(s, p->tgid, for_good ? WIRE_SELECTED_FOR_GOOD : WIRE_SELECTED);
    else
        deselect_process(s, p->tgid);
    if (yes && s->has_tls)
        libraries_watch(&s->libraries, p->tgid, clock_mono_ns());
    else if (s->has_tls)
        libraries_gone(&s->libraries, p->tgid);
}

static const char *const counter_names[WIRE_COUNTERS] = {
    [WIRE_LOST_RECORDS] = "lost_records",
    [WIRE_LOST_BYTES] = "lost_bytes",
    [WIRE_LOST_CONTROL] = "lost_control",
    [WIRE_NO_COOKIE] = "no_cookie",
    [WIRE_NO_STATE] = "no_state",
    [WIRE_PASSED_SEND] = "passed_send_bytes",
    [WIRE_PASSED_RECV] = "passed_receive_bytes",
    [WIRE_CGROUPS_FULL] = "cgroups_full",
    [WIRE_SCHED_UNSEEN] = "sched_unseen",
    [WIRE_UNTOLD_BYTES] = "tls_bytes_of_unknown_socket",
};
static const struct metric_desc kernel_desc = {
    "ebpf_kernel_count",
    "What the kernel side counts: losses, and stream bytes that passed.",
    "{count}",
    METRIC_KIND_GAUGE,
    LEVEL_BASIC,
    NULL,
    0};

static void expose_counters(const struct source *s)
{
    for (unsigned k = 0; k < WIRE_COUNTERS; k++) {
        struct label l = {"counter", counter_names[k]};

        series_set(telemetry_series(&kernel_desc, &l, 1), (int64_t)s->counters[k]);
    }
    struct label missed = {"counter", "missed_runs"};
    series_set(telemetry_series(&kernel_desc, &missed, 1), (int64_t)s->missed);
}

/* Sums over CPUs; losses are told as they grow. */
static void read_counters(struct source *s)
{
    uint64_t missed = tier_missed(s->skel, &s->loaded.links);
    int cpus = libbpf_num_possible_cpus();
    uint64_t *values = xcalloc((size_t)MAX(cpus, 1), sizeof(*values));
    uint64_t lost_before = s->counters[WIRE_LOST_RECORDS];
    for (uint32_t k = 0; k < WIRE_COUNTERS && cpus > 0; k++) {
        uint64_t sum = 0;
        if (bpf_map__lookup_elem(s->skel->maps.counters, &k, sizeof(k), values,
                                 (size_t)cpus * sizeof(*values), 0))
            continue;
        for (int i = 0; i < cpus; i++)
            sum += values[i];
        s->counters[k] = sum;
    }
    free(values);
    if (s->counters[WIRE_LOST_RECORDS] > lost_before)
        log_warn(BPF_LOG, "ring full: %llu records lost so far, %llu bytes of streams",
                 (unsigned long long)s->counters[WIRE_LOST_RECORDS],
                 (unsigned long long)s->counters[WIRE_LOST_BYTES]);
    if (missed > s->missed)
        log_warn(BPF_LOG, "%llu times so far a hook was reached and its program was not run",
                 (unsigned long long)missed);
    s->missed = missed;
}

/* Told once: it does not shrink by itself. */
static void look_at_memory(struct source *s, uint64_t now_ns)
{
    uint64_t bytes;

    if (s->memory_ns && now_ns < s->memory_ns + 10 * NS_PER_S)
        return;
    s->memory_ns = now_ns;
    bytes = memory_expose(s->skel);
    if (bytes > MAP_BUDGET_BYTES && !s->is_over_budget) {
        s->is_over_budget = true;
        log_warn(BPF_LOG, "the kernel side takes %llu MB, more than the %u it is meant to",
                 (unsigned long long)bytes >> 20, MAP_BUDGET_BYTES >> 20);
    }
}

void source_tick(struct source *s, struct capture *c, uint64_t now_ns)
{
    counts_read(&s->counts, s->skel, c, now_ns);
    read_counters(s);
    expose_counters(s);
    look_at_memory(s, now_ns);
    if (s->has_tls)
        libraries_tick(&s->libraries, now_ns);
}
