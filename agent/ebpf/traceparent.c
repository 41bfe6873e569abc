/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/traceparent.h"

#include <sys/random.h>

#include "common/base/clock.h"
#include "common/base/mem.h"

enum {
    LENGTH = 55, /* 00-<32>-<16>-<2> */
};

/* Lower case only, as the recommendation has it; -1 for anything else. */
static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Lower-case hex only (3.2.2.2). */
static bool hex_bytes(const char *p, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int high = hex_digit(p[2 * i]), low = hex_digit(p[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool is_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

bool traceparent_parse(struct str s, struct trace_context *out)
{
    uint8_t version;

    if (s.n < LENGTH || !hex_bytes(s.p, &version, 1) || version == 0xff)
        return false;
    if (version == 0 ? s.n != LENGTH : s.n > LENGTH && s.p[LENGTH] != '-')
        return false;
    if (s.p[2] != '-' || s.p[35] != '-' || s.p[52] != '-')
        return false;
    return hex_bytes(s.p + 3, out->trace_id, 16) && hex_bytes(s.p + 36, out->span_id, 8) &&
           hex_bytes(s.p + 53, &out->flags, 1) && !is_zero(out->trace_id, 16) &&
           !is_zero(out->span_id, 8);
}

static void seed(uint64_t s[4])
{
    if (getrandom(s, 4 * sizeof(*s), 0) == 4 * sizeof(*s))
        return;
    s[0] = clock_wall_ns();
    s[1] = clock_mono_ns();
    s[2] = (uint64_t)(uintptr_t)s;
}

/* xoshiro256**, by Blackman and Vigna: passes what tests of randomness there are. */
static uint64_t next(uint64_t s[4])
{
    uint64_t result = s[1] * 5, t = s[1] << 17;

    result = (result << 7 | result >> 57) * 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = s[3] << 45 | s[3] >> 19;
    return result;
}

void random_id(uint8_t *out, size_t n)
{
    static _Thread_local uint64_t state[4]; /* never all zero, once it is seeded */
    uint64_t all, *s = state;

    if (!(s[0] | s[1] | s[2] | s[3]))
        seed(s);
    do {
        all = 0;
        for (size_t i = 0; i < n; i += 8) {
            uint64_t v = next(s);

            memcpy(out + i, &v, 8);
            all |= v;
        }
    } while (!all);
}
