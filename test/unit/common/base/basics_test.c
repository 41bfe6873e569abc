/* SPDX-License-Identifier: Apache-2.0 */
/* Latched builders, error texts, the clock, the log's limit, the hash's secret, letters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/hashmap.h"
#include "common/base/log.h"

static const char *self; /* this program, to be run again */

/* After the first error all that follows does nothing, and the first error is told. */
static void a_builder_latches_its_first_error(void **state)
{
    struct buf b;
    buf_init(&b);
    b.max = 8;
    buf_add_cstr(&b, "12345");
    buf_addf(&b, "%s", "6789"); /* one too many */
    assert_int_equal(buf_error(&b), -E2BIG);
    assert_int_equal(b.n, 5);
    b.error = -ENOMEM;
    buf_add_byte(&b, 'x'); /* there would be room */
    buf_add_str(&b, STR("y"));
    buf_add(&b, "z", 1);
    assert_null(buf_reserve(&b, 1));
    assert_string_equal(buf_cstr(&b), "");
    assert_int_equal(buf_error(&b), -ENOMEM);
    assert_int_equal(b.n, 5);
    buf_reset(&b);
    assert_int_equal(buf_error(&b), 0);
    buf_addf(&b, "%d", 7);
    memcpy(buf_reserve(&b, 2), "ab", 2);
    buf_commit(&b, 2);
    assert_string_equal(buf_cstr(&b), "7ab");
    buf_fini(&b);
}

static void an_error_is_told_from_the_outside_in(void **state)
{
    struct err e;
    assert_int_equal(err_set(&e, -EINVAL, "port %d", 5), -EINVAL);
    err_prefix(&e, "%s: ", "endpoint");
    assert_string_equal(e.text, "endpoint: port 5");
    char big[2 * sizeof(e.text)];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    err_prefix(&e, "%s", big); /* cut, not overrun */
    assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
}

static void the_clock_stands_still_and_moves_as_told(void **state)
{
    uint64_t before = clock_mono_ns();
    assert_true(clock_mono_ns() >= before);
    clock_freeze(1000, 5000);
    assert_int_equal(clock_mono_ns(), 1000);
    assert_int_equal(clock_wall_ns(), 5000);
    clock_advance(NS_PER_S);
    assert_int_equal(clock_mono_ns(), 1000 + NS_PER_S);
    assert_int_equal(clock_wall_ns(), 5000 + NS_PER_S);
    clock_thaw();
    assert_true(clock_mono_ns() >= before && clock_mono_ns() != 1000 + NS_PER_S);
}

static void count_line(void *arg, enum log_level level, const char *line, size_t n)
{
    unsigned *lines = arg;
    assert_int_equal(level, LOG_WARN);
    assert_non_null(memmem(line, n, "again", 5));
    ++*lines;
}

/* Ten lines of a place within ten seconds, then every hundredth; afterwards ten again. */
static void a_place_in_the_code_does_not_flood_the_log(void **state)
{
    struct log_ctx ctx = {"test", NULL};
    unsigned lines = 0;
    clock_freeze(NS_PER_S, NS_PER_S);
    log_divert(count_line, &lines);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 300; i++)
            log_warn(&ctx, "again");
        clock_advance(11 * NS_PER_S);
        assert_in_range(lines, (round + 1) * 12, (round + 1) * 13);
    }
    log_divert(NULL, NULL);
    clock_thaw();
}

/* The hash of the same bytes in another process of this program. */
static unsigned long long hash_elsewhere(void)
{
    unsigned long long h = 0;
    char command[4200];
    snprintf(command, sizeof(command), "'%s' --hash", self);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%llx", &h), 1);
    assert_int_equal(pclose(f), 0);
    return h;
}

/* Keys are chosen by strangers: what collides in one process must not collide in the next. */
static void the_hash_has_a_secret_of_each_process(void **state)
{
    unsigned long long here = hash_str(STR("key"));
    unsigned long long one = hash_elsewhere(), two = hash_elsewhere();
    assert_true(here == hash_str(STR("key")));
    assert_true(here != one && one != two && here != two);
}

/* Each byte against each other one, at each place of words of some lengths. */
static void upper_and_lower_case_are_equal(void **state)
{
    for (size_t n = 1; n < 20; n++) {
        for (unsigned pair = 0; pair < 65536; pair++) {
            char a[20], b[20];
            unsigned char x = (unsigned char)pair, y = (unsigned char)(pair >> 8);
            size_t at = pair % n;
            memset(a, 'q', n);
            memset(b, 'Q', n);
            a[at] = (char)x;
            b[at] = (char)y;
            bool same = x == y || ((x ^ y) == 0x20 && (x | 0x20) >= 'a' && (x | 0x20) <= 'z');
            assert_int_equal(str_ieq(str_make(a, n), str_make(b, n)), same);
        }
    }
    assert_true(str_ieq(STR("Content-Length"), STR("content-length")));
    assert_false(str_ieq(STR("Content-Length"), STR("content-length ")));
    assert_true(str_ieq((struct str){NULL, 0}, (struct str){NULL, 0}));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_builder_latches_its_first_error),
        cmocka_unit_test(an_error_is_told_from_the_outside_in),
        cmocka_unit_test(the_clock_stands_still_and_moves_as_told),
        cmocka_unit_test(a_place_in_the_code_does_not_flood_the_log),
        cmocka_unit_test(the_hash_has_a_secret_of_each_process),
        cmocka_unit_test(upper_and_lower_case_are_equal),
    };
    if (argc > 1 && strcmp(argv[1], "--hash") == 0) {
        printf("%llx\n", (unsigned long long)hash_str(STR("key")));
        return 0;
    }
    self = argv[0];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
