/* SPDX-License-Identifier: Apache-2.0 */
/* A ring in a file, written as the kernel writes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/ebpf/ring.h"

enum { SIZE = 4096 };
#define BUSY (1u << 31)
#define DISCARD (1u << 30)

static int fd;
static uint8_t *file; /* consumer's page, producers' page, data */
static size_t page;

static char seen[16][SIZE];
static size_t lens[16], n_seen, nested;
static struct ring ring;

static void on_record(void *arg, const void *record, size_t len)
{
    assert_ptr_equal(arg, &ring);
    memcpy(seen[n_seen], record, len);
    lens[n_seen++] = len;
    nested += ring_consume(&ring, 10);
}

static int setup(void **ctx)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    fd = memfd_create("ring", 0);
    if (fd < 0 || ftruncate(fd, (off_t)(2 * page + SIZE)))
        return -1;
    file = mmap(NULL, 2 * page + SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    n_seen = nested = 0;
    return ring_open(&ring, fd, SIZE, on_record, &ring);
}

static int teardown(void **ctx)
{
    ring_close(&ring);
    munmap(file, 2 * page + SIZE);
    return close(fd);
}

static unsigned long *consumed(void)
{
    return (void *)file;
}

static unsigned long *produced(void)
{
    return (void *)(file + page);
}

static uint32_t *reserve(const char *text, uint32_t len, uint32_t flags)
{
    unsigned long at = *produced();
    uint32_t *head = (void *)(file + 2 * page + at % SIZE);

    assert_true(at - *consumed() + len + 15 < SIZE);
    *head = len | flags;
    for (uint32_t i = 0; i < len; i++)
        file[2 * page + (at + 8 + i) % SIZE] = (uint8_t)text[i];
    *produced() = at + ((len + 8 + 7) & ~7u);
    return head;
}

static void put(const char *text)
{
    reserve(text, (uint32_t)strlen(text), 0);
}

static void order(void **ctx)
{
    uint32_t *busy;

    assert_int_equal(ring_consume(&ring, 10), 0);
    put("first");
    reserve("nothing", 7, DISCARD);
    put("second one");
    busy = reserve("third", 5, BUSY);
    put("fourth");
    assert_int_equal(ring_consume(&ring, 10), 2);
    assert_string_equal(seen[0], "first");
    assert_string_equal(seen[1], "second one");
    assert_int_equal(*consumed(), 16 + 16 + 24);
    *busy &= ~BUSY;
    assert_int_equal(ring_consume(&ring, 1), 1);
    assert_int_equal(ring_consume(&ring, 10), 1);
    assert_string_equal(seen[3], "fourth");
    assert_int_equal(*consumed(), *produced());
    assert_int_equal(nested, 0);
}

/* Records end at, and go round, each possible place before the end. */
static void round_the_end(void **ctx)
{
    char text[SIZE] = {0};

    for (size_t i = 0; i + 1 < sizeof(text); i++)
        text[i] = (char)('a' + i % 23);
    for (uint32_t i = 0, len = 1; i < 5000; i++, len = len % 1990 + 7) {
        reserve(text + i % 23, len, 0);
        n_seen = 0;
        assert_int_equal(ring_consume(&ring, 10), 1);
        assert_int_equal(lens[0], len);
        assert_memory_equal(seen[0], text + i % 23, len);
        assert_int_equal(*consumed(), *produced());
    }
    assert_true(*consumed() > 100 * SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(order, setup, teardown),
        cmocka_unit_test_setup_teardown(round_the_end, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
