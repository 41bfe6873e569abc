/* SPDX-License-Identifier: Apache-2.0 */
/* In which processes libraries have probes: decided here, with attachments that are only counted.
 * The process that is observed is this one, which has libssl mapped; another number stands for a
 * process that has nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/ebpf/libraries.h"
#include "common/base/clock.h"

#define NOW (1000 * NS_PER_S)
#define FIVE_MINUTES (300 * NS_PER_S)

struct tls_links {
    uint32_t tgid;
};

static unsigned everywhere, alone, looked;

static struct tls_links *attach(void *arg, const struct library *l, uint32_t tgid)
{
    struct tls_links *links = malloc(sizeof(*links));

    assert_true(l->fd >= 0 && l->sites.n > 0);
    links->tgid = tgid;
    *(tgid ? &alone : &everywhere) += 1;
    return links;
}

static void detach(void *arg, struct tls_links *links)
{
    *(links->tgid ? &alone : &everywhere) -= 1;
    free(links);
}

static void on_looked(void *arg, uint32_t tgid)
{
    looked++;
}

static const struct libraries_ops ops = {.attach = attach, .detach = detach, .looked = on_looked};

static void in_the_process_alone(void **ctx)
{
    struct libraries ls;
    uint32_t me = (uint32_t)getpid();

    libraries_init(&ls, &ops, PROBES_AUTO, false, NOW);
    libraries_look_default(&ls);
    assert_int_equal(everywhere + alone, 0);
    libraries_watch(&ls, me, NOW);
    assert_int_equal(everywhere, 0);
    assert_int_equal(alone, 1);
    libraries_watch(&ls, me, NOW); /* each connection says so again */
    assert_int_equal(alone, 1);
    libraries_tick(&ls, NOW + 2 * FIVE_MINUTES); /* somebody maps it */
    assert_int_equal(alone, 1);
    libraries_gone(&ls, me);
    assert_int_equal(alone, 0);
    libraries_fini(&ls);
}

/* A start puts them into all processes, at once; without another one they are the process's own
 * again. */
static void everywhere_while_programs_start(void **ctx)
{
    struct libraries ls;
    uint32_t me = (uint32_t)getpid();

    libraries_init(&ls, &ops, PROBES_AUTO, false, NOW);
    libraries_watch(&ls, me, NOW);
    assert_int_equal(alone, 1);
    libraries_started(&ls, me, NOW);
    assert_int_equal(everywhere, 1);
    assert_int_equal(alone, 0);
    libraries_look(&ls, NOW + NS_PER_S);
    assert_int_equal(everywhere, 1);
    libraries_tick(&ls, NOW + FIVE_MINUTES - 1);
    assert_int_equal(everywhere, 1);
    libraries_started(&ls, me, NOW + FIVE_MINUTES - 1);
    libraries_look(&ls, NOW + FIVE_MINUTES);
    libraries_tick(&ls, NOW + FIVE_MINUTES + NS_PER_S);
    assert_int_equal(everywhere, 1);
    libraries_tick(&ls, NOW + 2 * FIVE_MINUTES);
    assert_int_equal(everywhere, 0);
    assert_int_equal(alone, 1);
    libraries_fini(&ls);
    assert_int_equal(everywhere + alone, 0);
}

static void as_it_is_asked_for(void **ctx)
{
    struct libraries ls;
    uint32_t me = (uint32_t)getpid();

    libraries_init(&ls, &ops, PROBES_PROCESS, true, NOW);
    libraries_started(&ls, me, NOW);
    assert_int_equal(everywhere, 0);
    assert_int_equal(alone, 1);
    libraries_fini(&ls);

    libraries_init(&ls, &ops, PROBES_LIBRARY, false, NOW);
    libraries_watch(&ls, me, NOW);
    libraries_tick(&ls, NOW + 1000 * FIVE_MINUTES);
    assert_int_equal(everywhere, 1);
    assert_int_equal(alone, 0);
    libraries_gone(&ls, me);
    libraries_tick(&ls, NOW + 1001 * FIVE_MINUTES);
    libraries_tick(&ls, NOW + 1003 * FIVE_MINUTES); /* nobody's for five minutes */
    assert_int_equal(everywhere, 0);
    libraries_fini(&ls);

    libraries_init(&ls, &ops, PROBES_AUTO, true,
                   NOW); /* selected by name: the first must not be missed */
    libraries_watch(&ls, me, NOW);
    assert_int_equal(everywhere, 1);
    assert_int_equal(alone, 0);
    libraries_fini(&ls);
}

/* Looking costs; who maps files all the time is not looked at all the time. */
static void seldom_where_nothing_is_new(void **ctx)
{
    struct libraries ls;
    uint32_t me = (uint32_t)getpid();

    libraries_init(&ls, &ops, PROBES_AUTO, false, NOW);
    libraries_watch(&ls, me, NOW);
    looked = 0;
    for (uint64_t t = NOW; t < NOW + 10 * NS_PER_S; t += 10 * NS_PER_MS) {
        libraries_changed(&ls, me);
        libraries_look(&ls, t);
    }
    assert_true(looked >= 10 && looked < 30);
    libraries_fini(&ls);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_the_process_alone),
        cmocka_unit_test(everywhere_while_programs_start),
        cmocka_unit_test(as_it_is_asked_for),
        cmocka_unit_test(seldom_where_nothing_is_new),
    };

    if (!dlopen("libssl.so.3", RTLD_NOW))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
