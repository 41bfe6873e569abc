/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes written in place are the bytes that encode_attr writes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/otlp/encode.h"

static void assert_same(const struct buf *a, const struct buf *b)
{
    assert_int_equal(buf_error(a), 0);
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->p, b->p, a->n);
}

static void texts(void **state)
{
    char value[300];
    struct buf a, b;
    (void)state;
    memset(value, 'v', sizeof(value));
    buf_init(&a);
    buf_init(&b);
    for (size_t n = 0; n <= sizeof(value); n++) {
        struct str v = str_make(n ? value : NULL, n);
        encode_text(&a, SPAN_ATTRIBUTES, STR("http.request.method"), v);
        encode_attr(&b, SPAN_ATTRIBUTES, STR("http.request.method"), any_str(v));
    }
    assert_same(&a, &b);
    buf_fini(&a);
    buf_fini(&b);
}

static void numbers(void **state)
{
    struct buf a, b;
    (void)state;
    buf_init(&a);
    buf_init(&b);
    for (unsigned bit = 0; bit < 64; bit++) {
        for (uint64_t v = (1ULL << bit) - 1; v <= 1ULL << bit && v + 1 != 0; v++) {
            encode_number(&a, SPAN_ATTRIBUTES, STR("server.port"), v);
            encode_attr(&b, SPAN_ATTRIBUTES, STR("server.port"), any_int((int64_t)v));
        }
    }
    encode_number(&a, 1, STR("most"), UINT64_MAX);
    encode_attr(&b, 1, STR("most"), any_int(-1));
    assert_same(&a, &b);
    buf_fini(&a);
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts), cmocka_unit_test(numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
