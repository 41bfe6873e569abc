/* SPDX-License-Identifier: Apache-2.0 */
/* The balancer over sub-exporters that only note what they got, on two real loops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "common/components/exporters/load_balancing/balancer.c"
#include "test/unit/common/components/exporters/load_balancing/batches.h"

enum { TRACES_MAX = 4096 };

/* ---- a sub-exporter: keeps what it gets (a queue whose back end does not answer) or takes it ----
 */

struct waiting {
    struct batch *b;
    struct list link;
};

struct fake {
    pthread_mutex_t lock;
    char *endpoint;
    struct list waiting;
    uint64_t held;
    queue_divert_fn *divert;
    void *divert_arg;
};

static struct {
    pthread_mutex_t lock;
    bool keep;
    _Atomic unsigned created, freed;
    /* Which endpoint got each trace, and how many spans of it. */
    char got_by[TRACES_MAX][32];
    unsigned got[TRACES_MAX];
    bool split;
} world = {.lock = PTHREAD_MUTEX_INITIALIZER};

static unsigned trace_number(const uint8_t id[16])
{
    uint64_t tail;
    memcpy(&tail, id + 8, 8);
    return (unsigned)~tail;
}

static void note(const char *endpoint, const struct batch *b)
{
    pthread_mutex_lock(&world.lock);
    for (uint32_t i = 0; i < b->n_records; i++) {
        unsigned t = trace_number(b->keys[i].trace_id);
        ASSERT(t < TRACES_MAX);
        if (world.got[t]++ && strcmp(world.got_by[t], endpoint) != 0)
            world.split = true;
        snprintf(world.got_by[t], sizeof(world.got_by[t]), "%s", endpoint);
    }
    pthread_mutex_unlock(&world.lock);
}

static int fake_create(struct instance *in, struct err *e)
{
    struct fake *f = xcalloc(1, sizeof(*f));
    if (strncmp(in->config, "bad", 3) == 0) {
        free(f);
        return err_set(e, -EINVAL, "bad endpoint");
    }
    pthread_mutex_init(&f->lock, NULL);
    list_init(&f->waiting);
    f->endpoint = xstrdup(in->config);
    in->self = f;
    world.created++;
    return 0;
}

static void send(struct instance *in, struct batch *b)
{
    struct fake *f = in->self;
    note(f->endpoint, b);
    ledger_sent(in, b->signal, b->items);
    batch_unref(&b);
}

static void fake_consume(struct instance *in, struct batch *b, struct ack *a)
{
    struct fake *f = in->self;
    pthread_mutex_lock(&f->lock);
    bool diverted = f->divert != NULL, keep = !diverted && world.keep;
    if (keep) {
        struct waiting *w = xcalloc(1, sizeof(*w));
        w->b = b;
        list_push(&f->waiting, &w->link);
        f->held += b->items;
    }
    pthread_mutex_unlock(&f->lock);
    if (diverted) {
        f->divert(f->divert_arg, b, a);
        return;
    }
    if (!keep)
        send(in, b);
    ack_ok(a);
}

static struct batch *take(struct fake *f)
{
    struct batch *b = NULL;
    pthread_mutex_lock(&f->lock);
    struct list *l = list_pop(&f->waiting);
    if (l) {
        struct waiting *w = LIST_ENTRY(l, struct waiting, link);
        b = w->b;
        f->held -= b->items;
        free(w);
    }
    pthread_mutex_unlock(&f->lock);
    return b;
}

static void fake_divert(struct instance *in, queue_divert_fn *fn, void *arg)
{
    struct fake *f = in->self;
    pthread_mutex_lock(&f->lock);
    f->divert_arg = arg;
    f->divert = fn;
    pthread_mutex_unlock(&f->lock);
    for (struct batch *b; (b = take(f));)
        fn(arg, b, ack_detached());
}

static void fake_stop(struct instance *in)
{
    struct fake *f = in->self;
    for (struct batch *b; (b = take(f));)
        send(in, b);
    instance_stopped(in);
}

static void fake_free(struct instance *in)
{
    struct fake *f = in->self;
    for (struct batch *b; (b = take(f));)
        batch_unref(&b);
    pthread_mutex_destroy(&f->lock);
    free(f->endpoint);
    free(f);
    world.freed++;
}

static uint64_t fake_held(struct instance *in)
{
    struct fake *f = in->self;
    pthread_mutex_lock(&f->lock);
    uint64_t held = f->held;
    pthread_mutex_unlock(&f->lock);
    return held;
}

static const struct component fake_component = {
    .kind = KIND_EXPORTER,
    .name = "fake",
    .signals = SIGNAL_ALL,
    .create = fake_create,
    .consume = fake_consume,
    .stop = fake_stop,
    .free = fake_free,
    .held = fake_held,
};

static void *fake_config(const void *lb_config, const char *endpoint)
{
    return xstrdup(endpoint);
}

static const struct balancer_sub fake_sub = {&fake_component, fake_config, fake_divert};

/* ---- the balancer as a node ---- */

struct fixture {
    struct node node;
    struct balancer *lb;
};

static uint64_t parent_held(struct instance *in)
{
    return balancer_held(CONTAINER_OF(in->node, struct fixture, node)->lb);
}

static const struct component parent_component = {
    .kind = KIND_EXPORTER, .name = "load_balancing", .signals = SIGNAL_ALL, .held = parent_held};

/* Everything that changes the balancer runs on loop 0. */
struct call {
    struct fixture *f;
    const char *const *endpoints;
    size_t n;
};

static void call_start(void *arg)
{
    struct fixture *f = arg;
    ASSERT(balancer_new(&f->lb, &f->node.in, &fake_sub, NULL, ROUTE_TRACE_ID) == 0);
    balancer_set_resolver(f->lb, "static");
    balancer_start(f->lb);
}

static void call_set(void *arg)
{
    struct call *c = arg;
    balancer_set_endpoints(c->f->lb, c->endpoints, c->n);
}

static void call_stop(void *arg)
{
    balancer_stop(((struct fixture *)arg)->lb);
}

static void call_free(void *arg)
{
    balancer_free(&((struct fixture *)arg)->lb);
}

static void set_list(struct fixture *f, const char *const *endpoints, size_t n)
{
    struct call c = {f, endpoints, n};
    loop_call(loops_get(0), call_set, &c);
}

static void begin(struct fixture *f, const char *id)
{
    memset(f, 0, sizeof(*f));
    memset(world.got, 0, sizeof(world.got));
    world.keep = world.split = false;
    world.created = world.freed = 0;
    f->node.in = (struct instance){.magic = INSTANCE_MAGIC,
                                   .component = &parent_component,
                                   .id = id,
                                   .signal = SIGNAL_TRACES,
                                   .log = {.component = id},
                                   .self = f,
                                   .node = &f->node};
    f->node.account[SIGNAL_TRACES] = ledger_account(&f->node.in, SIGNAL_TRACES);
    loop_call(loops_get(0), call_start, f);
    ledger_set_holder(f->node.account[SIGNAL_TRACES], &f->node.in);
}

/* Waits up to 10 s for a condition. */
#define AWAIT(cond)                                                                                \
    do {                                                                                           \
        for (int i_ = 0; !(cond) && i_ < 2000; i_++)                                               \
            nanosleep(&(struct timespec){0, 5000000}, NULL);                                       \
        assert_true(cond);                                                                         \
    } while (0)

static void end(struct fixture *f)
{
    loop_call(loops_get(0), call_stop, f);
    AWAIT(atomic_load(&f->node.is_stopped));
    ledger_clear_holder(f->node.account[SIGNAL_TRACES], &f->node.in);
    loop_call(loops_get(0), call_free, f);
    assert_int_equal(world.created, world.freed);
}

struct answer {
    struct ack ack;
    _Atomic int done;
    struct verdict verdict;
};

static void on_answer(void *arg, const struct verdict *v)
{
    struct answer *a = arg;
    a->verdict = *v;
    atomic_store(&a->done, 1);
}

/* One batch of `n` spans through the balancer; its verdict. */
static struct verdict offer(struct fixture *f, uint64_t first_trace, uint32_t n)
{
    struct answer a = {0};
    struct batch *b = make_traces(first_trace, n, 2);
    atomic_fetch_add(&f->node.account[SIGNAL_TRACES]->in, b->items);
    ack_init(&a.ack, NULL, on_answer, &a);
    balancer_consume(f->lb, b, &a.ack);
    AWAIT(atomic_load(&a.done));
    return a.verdict;
}

static int64_t unexplained(struct fixture *f)
{
    return ledger_unexplained(f->node.account[SIGNAL_TRACES]);
}

static const char *const three[] = {"a:1", "b:2", "c:3"};
static const char *const two[] = {"a:1", "c:3"};

/* Every trace 0..n has its two spans, at the owner that a ring of these endpoints names. */
static void expect_whole(unsigned n, const char *const *endpoints, size_t n_endpoints)
{
    struct ring *ring;
    assert_int_equal(ring_new(&ring, endpoints, n_endpoints), 0);
    assert_false(world.split);
    for (unsigned t = 0; t < n; t++) {
        uint8_t id[16];
        trace_id_of(t, id);
        assert_int_equal(world.got[t], 2);
        assert_string_equal(world.got_by[t], ring_endpoint(ring, ring_owner(ring, id, 16)));
    }
    ring_free(&ring);
}

/* ---- tests ---- */

static void closed_until_a_backend_is_known(void **state)
{
    struct fixture f;
    begin(&f, "lb/unknown");
    assert_int_equal(atomic_load(&f.node.closed), 1);
    struct verdict v = offer(&f, 0, 2);
    assert_int_equal(v.status, ACK_RETRYABLE);
    assert_string_equal(v.reason, "no_backend");
    set_list(&f, three, 0); /* an empty answer */
    assert_int_equal(atomic_load(&f.node.closed), 1);
    set_list(&f, three, 3);
    assert_int_equal(atomic_load(&f.node.closed), 0);
    assert_int_equal(offer(&f, 0, 2).status, ACK_OK);
    assert_int_equal(unexplained(&f), 0);
    end(&f);
}

static void whole_traces_at_their_owners(void **state)
{
    struct fixture f;
    begin(&f, "lb/whole");
    set_list(&f, three, 3);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(offer(&f, i * 100, 200).status, ACK_OK);
    expect_whole(1000, three, 3);
    assert_int_equal(unexplained(&f), 0);
    assert_int_equal(world.created, 3);
    end(&f);
}

static void what_waits_for_a_removed_backend_goes_to_its_new_owner(void **state)
{
    struct fixture f;
    begin(&f, "lb/removed");
    set_list(&f, three, 3);
    world.keep = true;
    for (unsigned i = 0; i < 10; i++)
        offer(&f, i * 100, 200);
    assert_int_equal(balancer_held(f.lb), 2000);
    assert_int_equal(unexplained(&f), 0);
    set_list(&f, two, 2);
    assert_int_equal(balancer_held(f.lb), 2000); /* moved, not sent, not lost */
    assert_int_equal(unexplained(&f), 0);
    AWAIT(world.freed == 1); /* the third is gone, the two others stayed */
    assert_int_equal(world.created, 3);
    end(&f); /* stopping sends what waits */
    expect_whole(1000, two, 2);
    assert_int_equal(f.node.account[SIGNAL_TRACES]->sent, 2000);
}

static void an_equal_or_empty_list_changes_nothing(void **state)
{
    static const char *const mixed[] = {"c:3", "a:1", "b:2"};
    struct fixture f;
    begin(&f, "lb/equal");
    set_list(&f, three, 3);
    struct backend_set *set = f.lb->set;
    set_list(&f, mixed, 3);
    set_list(&f, three, 0);
    assert_ptr_equal(f.lb->set, set);
    assert_int_equal(world.created, 3);
    end(&f);
}

static void a_backend_may_come_back(void **state)
{
    struct fixture f;
    begin(&f, "lb/back");
    for (int i = 0; i < 20; i++) {
        set_list(&f, i % 2 ? two : three, i % 2 ? 2 : 3);
        offer(&f, 0, 200);
    }
    set_list(&f, three, 3);
    memset(world.got, 0, sizeof(world.got));
    world.split = false;
    offer(&f, 0, 200);
    expect_whole(100, three, 3);
    AWAIT(world.created - world.freed == 3);
    assert_int_equal(unexplained(&f), 0);
    end(&f);
}

static void full_backends_close_the_entry_when_all_are(void **state)
{
    struct fixture f;
    begin(&f, "lb/full");
    set_list(&f, three, 3);
    for (int i = 0; i < 2; i++)
        atomic_fetch_add(&f.lb->set->of[i]->node.closed, 1);
    offer(&f, 0, 200);
    assert_int_equal(atomic_load(&f.node.closed), 0);
    atomic_fetch_add(&f.lb->set->of[2]->node.closed, 1);
    offer(&f, 0, 200);
    assert_int_equal(atomic_load(&f.node.closed), 1);
    for (int i = 0; i < 3; i++)
        atomic_fetch_sub(&f.lb->set->of[i]->node.closed, 1);
    AWAIT(atomic_load(&f.node.closed) == 0);
    end(&f);
}

static void a_port_is_added_for_dialling_only(void **state)
{
    static const char *const bare[] = {"gw-0", "gw-1:1"};
    struct fixture f;
    begin(&f, "lb/port");
    set_list(&f, bare, 2);
    assert_string_equal(f.lb->set->of[0]->endpoint, "gw-0:4317");
    assert_string_equal(f.lb->set->of[1]->endpoint, "gw-1:1");
    assert_string_equal(ring_endpoint(f.lb->set->ring, 0), "gw-0");
    end(&f);
}

static void a_backend_that_cannot_be_made_refuses_its_share(void **state)
{
    static const char *const one_bad[] = {"a:1", "bad:1"};
    struct fixture f;
    begin(&f, "lb/bad");
    set_list(&f, one_bad, 2);
    struct verdict v = offer(&f, 0, 200);
    assert_int_equal(v.status, ACK_RETRYABLE);
    assert_int_equal(unexplained(&f), 0);
    assert_true(f.node.account[SIGNAL_TRACES]->sent > 0);
    end(&f);
}

struct sender {
    struct fixture *f;
    unsigned first;
    pthread_t thread;
};

static void *send_many(void *arg)
{
    struct sender *s = arg;
    for (unsigned i = 0; i < 100; i++)
        if (offer(s->f, s->first + i * 20, 40).status != ACK_OK)
            return s;
    return NULL;
}

static void nothing_is_lost_while_the_list_changes(void **state)
{
    struct fixture f;
    struct sender s[2] = {{&f, 0}, {&f, 2000}};
    begin(&f, "lb/changing");
    set_list(&f, three, 3);
    world.keep = true;
    for (int i = 0; i < 2; i++)
        pthread_create(&s[i].thread, NULL, send_many, &s[i]);
    for (int i = 0; i < 50; i++) {
        set_list(&f, i % 2 ? three : two, i % 2 ? 3 : 2);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    for (int i = 0; i < 2; i++) {
        void *failed;
        pthread_join(s[i].thread, &failed);
        assert_null(failed);
    }
    assert_int_equal(unexplained(&f), 0);
    assert_int_equal(balancer_held(f.lb), 8000);
    set_list(&f, three, 3);
    end(&f);
    for (unsigned t = 0; t < 4000; t++)
        assert_int_equal(world.got[t], 2);
    assert_int_equal(f.node.account[SIGNAL_TRACES]->sent, 8000);
}

static int start_loops(void **state)
{
    struct err e = {{0}};
    return loops_start(2, &e);
}

static int stop_loops(void **state)
{
    loops_stop();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closed_until_a_backend_is_known),
        cmocka_unit_test(whole_traces_at_their_owners),
        cmocka_unit_test(what_waits_for_a_removed_backend_goes_to_its_new_owner),
        cmocka_unit_test(an_equal_or_empty_list_changes_nothing),
        cmocka_unit_test(a_backend_may_come_back),
        cmocka_unit_test(full_backends_close_the_entry_when_all_are),
        cmocka_unit_test(a_port_is_added_for_dialling_only),
        cmocka_unit_test(a_backend_that_cannot_be_made_refuses_its_share),
        cmocka_unit_test(nothing_is_lost_while_the_list_changes),
    };
    return cmocka_run_group_tests(tests, start_loops, stop_loops);
}
