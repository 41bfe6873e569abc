/* SPDX-License-Identifier: Apache-2.0 */
#include "common/io/compress.h"

#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <libdeflate.h>
#include <pthread.h>
#include <stdlib.h>
#include <zstd.h>

enum { FIRST_GUESS = 64 << 10, HIGHEST_RATIO_HINT = 20 };

enum coding coding_parse(struct str name)
{
    static const struct {
        const char *name;
        enum coding coding;
    } names[] = {{"", CODING_IDENTITY},    {"identity", CODING_IDENTITY}, {"gzip", CODING_GZIP},
                 {"deflate", CODING_ZLIB}, {"zlib", CODING_ZLIB},         {"zstd", CODING_ZSTD}};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_ieq(name, str_of(names[i].name)))
            return names[i].coding;
    return CODING_UNKNOWN;
}

/* What the thread's codecs need, made once and freed with the thread. */
struct codecs {
    struct libdeflate_decompressor *inflate;
    ZSTD_DCtx *zstd_in;
    ZSTD_CCtx *zstd_out;
    uint8_t *level_buf;
};

static pthread_key_t codecs_key;
static pthread_once_t codecs_once = PTHREAD_ONCE_INIT;

static void free_codecs(void *p)
{
    struct codecs *c = p;
    libdeflate_free_decompressor(c->inflate);
    ZSTD_freeDCtx(c->zstd_in);
    ZSTD_freeCCtx(c->zstd_out);
    free(c->level_buf);
    free(c);
}

static void make_key(void)
{
    ASSERT(pthread_key_create(&codecs_key, free_codecs) == 0);
}

static struct codecs *thread_codecs(void)
{
    pthread_once(&codecs_once, make_key);
    struct codecs *c = pthread_getspecific(codecs_key);
    if (c)
        return c;
    c = xcalloc(1, sizeof(*c));
    c->inflate = libdeflate_alloc_decompressor();
    c->zstd_in = ZSTD_createDCtx();
    c->zstd_out = ZSTD_createCCtx();
    c->level_buf = xalloc(ISAL_DEF_LVL1_DEFAULT);
    ASSERT(c->inflate && c->zstd_in && c->zstd_out);
    pthread_setspecific(codecs_key, c);
    return c;
}

/* What is written to: at most `limit` bytes in all, each step asked of the memory limit first. */
struct output {
    struct chunk *k;
    size_t limit;
    uint64_t ceiling;
};

static int grow(struct output *o, size_t cap)
{
    if (mem_reserve(cap, o->ceiling))
        return -ENOMEM;
    int r = 0;
    if (o->k)
        r = chunk_grow(&o->k, cap);
    else if (!(o->k = chunk_new(cap)))
        r = -ENOMEM;
    mem_unreserve(cap); /* it is memory in use now, or none */
    return r;
}

/* Twice the room, at most the limit. Chunks come in classes: the room may be above it already. */
static int more_room(struct output *o)
{
    if (o->k->cap >= o->limit)
        return -E2BIG;
    return grow(o, MIN(o->k->cap * 2, o->limit));
}

/* The gzip trailer's length (RFC 1952) is a good first guess where it is plausible. */
static size_t guess_size(enum coding c, struct str in, size_t max_out)
{
    uint32_t claimed = 0;
    if (c == CODING_GZIP && in.n >= 18)
        memcpy(&claimed, in.p + in.n - 4, 4);
    size_t guess = claimed && claimed / HIGHEST_RATIO_HINT <= in.n ? claimed : in.n * 4;
    return MIN(MAX(guess, (size_t)FIRST_GUESS), max_out);
}

static int inflate_all(struct output *o, enum coding c, struct str in)
{
    struct libdeflate_decompressor *d = thread_codecs()->inflate;
    while (in.n > 0) {
        size_t used = 0, made = 0, room = MIN(o->k->cap, o->limit) - o->k->len;
        uint8_t *to = o->k->data + o->k->len;
        enum libdeflate_result r =
            c == CODING_GZIP ? libdeflate_gzip_decompress_ex(d, in.p, in.n, to, room, &used, &made)
                             : libdeflate_zlib_decompress_ex(d, in.p, in.n, to, room, &used, &made);
        if (r == LIBDEFLATE_INSUFFICIENT_SPACE) {
            /* A member is decoded in one go: again from its start with twice the room. */
            int g = more_room(o);
            if (g)
                return g;
            continue;
        }
        if (r != LIBDEFLATE_SUCCESS)
            return -EBADMSG;
        o->k->len += made;
        in.p += used;
        in.n -= used;
    }
    return 0;
}

static int unzstd_all(struct output *o, struct str in)
{
    ZSTD_DCtx *d = thread_codecs()->zstd_in;
    ZSTD_inBuffer from = {in.p, in.n, 0};
    size_t r = 0;
    ZSTD_DCtx_reset(d, ZSTD_reset_session_only);
    ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, 23); /* 8 MiB, as RFC 8878 recommends */
    while (from.pos < from.size || r != 0) {
        /* At the limit: what is left may be the frame's end, which makes no byte. */
        int g = o->k->len < MIN(o->k->cap, o->limit) ? 0 : more_room(o);
        if (g && g != -E2BIG)
            return g;
        ZSTD_outBuffer to = {o->k->data + o->k->len, MIN(o->k->cap, o->limit) - o->k->len, 0};
        size_t before = from.pos;
        r = ZSTD_decompressStream(d, &to, &from);
        if (ZSTD_isError(r))
            return -EBADMSG;
        o->k->len += to.pos;
        if (to.pos == 0 && from.pos == before)
            return g ? g : -EBADMSG; /* cut: it wants more and there is none */
    }
    return 0;
}

int coding_decode(struct chunk **out, enum coding c, struct str in, size_t headroom,
                  const struct coding_limits *l)
{
    struct output o = {.limit = headroom + l->max_out, .ceiling = l->ceiling};
    int r = grow(&o, headroom + guess_size(c, in, l->max_out));
    if (r)
        return r;
    o.k->len = headroom;
    if (c == CODING_GZIP || c == CODING_ZLIB)
        r = in.n ? inflate_all(&o, c, in) : -EBADMSG;
    else if (c == CODING_ZSTD)
        r = unzstd_all(&o, in);
    else
        r = -EBADMSG;
    if (r) {
        chunk_unref(&o.k);
        return r;
    }
    *out = o.k;
    return 0;
}

/*
 * ISA-L returns with the upper parts of the vector registers in use: from then on SSE code is
 * slower and a context switch saves more (seen with XGETBV(1), and as 0.4 us a span of the agent).
 */
static void release_upper_vectors(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vzeroupper" ::
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                               "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                               "xmm15");
#endif
}

static int gzip(struct chunk *k, struct str in)
{
    struct isal_zstream z;
    isal_deflate_stateless_init(&z);
    z.level = 1;
    z.level_buf = thread_codecs()->level_buf;
    z.level_buf_size = ISAL_DEF_LVL1_DEFAULT;
    z.gzip_flag = IGZIP_GZIP;
    z.end_of_stream = 1;
    z.next_in = (uint8_t *)(uintptr_t)in.p;
    z.avail_in = (uint32_t)in.n;
    z.next_out = k->data + k->len;
    z.avail_out = (uint32_t)(k->cap - k->len);
    int r = isal_deflate_stateless(&z);
    release_upper_vectors();
    if (r != COMP_OK)
        return -ENOMEM; /* the only failure of valid input: no room, and the bound rules that out */
    k->len = (size_t)(z.next_out - k->data);
    return 0;
}

int coding_encode(struct chunk **out, enum coding c, struct str in, size_t headroom)
{
    size_t bound = c == CODING_ZSTD ? ZSTD_compressBound(in.n) : in.n + in.n / 1000 + 1024;
    struct chunk *k = in.n < UINT32_MAX / 2 ? chunk_new(headroom + bound) : NULL;
    int r = 0;
    if (!k)
        return -ENOMEM;
    k->len = headroom;
    if (c == CODING_ZSTD) {
        size_t n = ZSTD_compressCCtx(thread_codecs()->zstd_out, k->data + headroom,
                                     k->cap - headroom, in.p, in.n, 1);
        r = ZSTD_isError(n) ? -ENOMEM : 0;
        k->len += r ? 0 : n;
    } else {
        r = c == CODING_GZIP ? gzip(k, in) : -EINVAL;
    }
    if (r) {
        chunk_unref(&k);
        return r;
    }
    *out = k;
    return 0;
}
