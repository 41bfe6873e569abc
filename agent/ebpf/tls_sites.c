/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/tls_sites.h"

#include <elf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "agent/ebpf/x86.h"
#include "bpf/wire.h"
#include "common/base/mem.h"

enum { PROLOGUE = 192, STEPS = 24 };
#define BIT(reg) (1u << (reg))

enum function {
    SSL_READ,
    SSL_READ_EX,
    SSL_WRITE,
    SSL_WRITE_EX,
    SSL_WRITE_EX2,
    SSL_PEEK,
    SSL_DO_HANDSHAKE,
    SSL_SENDFILE,
    SSL_FREE,
    FUNCTIONS,
};

static const char *const names[FUNCTIONS] = {
    [SSL_READ] = "SSL_read",
    [SSL_READ_EX] = "SSL_read_ex",
    [SSL_WRITE] = "SSL_write",
    [SSL_WRITE_EX] = "SSL_write_ex",
    [SSL_WRITE_EX2] = "SSL_write_ex2",
    [SSL_PEEK] = "SSL_peek",
    [SSL_DO_HANDSHAKE] = "SSL_do_handshake",
    [SSL_SENDFILE] = "SSL_sendfile",
    [SSL_FREE] = "SSL_free",
};

/* The first call of a function. */
struct call {
    uint64_t target, behind; /* behind: 0 when it is a jump */
};

struct finder {
    struct tls_sites *out;
    struct elf elf;
    uint64_t at[FUNCTIONS];
};

static void read_code(const struct finder *f, uint64_t address, struct tls_site *s)
{
    struct x86_insn i;

    s->offset = elf_offset(&f->elf, address);
    if (elf_code(&f->elf, address, s->code, sizeof(s->code)) != sizeof(s->code))
        s->offset = 0;
    if (f->elf.machine == EM_X86_64)
        s->is_emulated = x86_decode(s->code, sizeof(s->code), &i) && i.is_emulated;
    else
        s->is_emulated = true; /* fixed size: stepping is rare, and nothing can be chosen better */
}

static void add(struct finder *f, const char *name, uint64_t address, uint32_t what)
{
    struct tls_site *s = &f->out->sites[f->out->n];

    if (!address || f->out->n == TLS_SITES)
        return;
    memset(s, 0, sizeof(*s));
    s->name = name;
    s->what = what;
    s->has_return = (what & WIRE_SSL_CALL) != WIRE_SSL_FREE;
    read_code(f, address, s);
    if (s->offset)
        f->out->n++;
}

/* Goes straight on from the function's entry to its first call; until there, no register of `keep`
 * may be written. */
static bool first_call(const struct finder *f, uint64_t address, uint32_t keep, struct call *out)
{
    uint8_t code[PROLOGUE];
    size_t n = elf_code(&f->elf, address, code, sizeof(code)), at = 0;
    struct x86_insn i;

    for (unsigned k = 0; k < STEPS && x86_decode(code + at, n - at, &i); k++) {
        if (i.kind == X86_CALL || i.kind == X86_JMP) {
            out->target = address + at + (uint64_t)(int64_t)i.target;
            out->behind = i.kind == X86_CALL ? address + at + i.len : 0;
            return elf_offset(&f->elf, out->target) != 0;
        }
        if (i.kind == X86_RET || (i.writes & keep))
            return false;
        at += i.len;
    }
    return false;
}

static bool is_exported(const struct finder *f, uint64_t address)
{
    for (unsigned i = 0; i < FUNCTIONS; i++)
        if (f->at[i] == address)
            return true;
    return false;
}

/* Where the end of the call can be seen in its caller: a branch on the result, if one follows. */
static void add_behind(struct finder *f, const char *name, const struct call *c)
{
    struct tls_site *s = &f->out->behind[f->out->n_behind];
    uint8_t code[TLS_CODE];
    size_t n = elf_code(&f->elf, c->behind, code, sizeof(code)), at = 0;
    struct x86_insn i;

    memset(s, 0, sizeof(*s));
    s->name = name;
    s->is_internal = true;
    for (unsigned k = 0; k < 3 && x86_decode(code + at, n - at, &i); k++) {
        if (i.is_emulated || (i.writes & (BIT(X86_AX) | BIT(X86_SP))) || i.kind == X86_RET)
            break;
        at += i.len;
    }
    read_code(f, c->behind + (i.is_emulated ? at : 0), s);
    if (s->offset)
        f->out->n_behind++;
}

/* A few plain instructions, which no jump through a table of addresses begins with. */
static bool is_function(const struct finder *f, uint64_t address)
{
    uint8_t code[PROLOGUE];
    size_t n = elf_code(&f->elf, address, code, sizeof(code)), at = 0;
    struct x86_insn i;

    for (unsigned k = 0; k < 3; k++, at += i.len)
        if (!x86_decode(code + at, n - at, &i) || i.kind == X86_JMP || i.kind == X86_CALL ||
            i.kind == X86_RET)
            return false;
    return true;
}

/* The function inside of both; ex is the form that hands its arguments on. */
static bool add_internal(struct finder *f, enum function plain, enum function ex, uint32_t what)
{
    uint32_t keep = BIT(X86_DI) | BIT(X86_SI) | BIT(X86_DX) | BIT(X86_CX);
    struct call a, b;

    if (f->elf.machine != EM_X86_64 || !f->at[plain] || !f->at[ex])
        return false;
    if (what & WIRE_SSL_EX2)
        keep |= BIT(X86_R8);
    if (!first_call(f, f->at[plain], 0, &a) || !first_call(f, f->at[ex], keep, &b) ||
        a.target != b.target || !a.behind || is_exported(f, a.target) || !is_function(f, a.target))
        return false;
    add(f, names[plain], a.target, what);
    if (!f->out->n || f->out->sites[f->out->n - 1].what != what)
        return false;
    f->out->sites[f->out->n - 1].is_internal = true;
    add_behind(f, names[plain], &a);
    if (b.behind)
        add_behind(f, names[ex], &b);
    else
        f->out->can_do_without_returns = false; /* it does not come back to the _ex form */
    return true;
}

/* Nothing is done at its end, so a later instruction will do, while the argument is there. */
static void add_free(struct finder *f)
{
    uint64_t address = f->at[SSL_FREE];
    uint8_t code[PROLOGUE];
    size_t n = address ? elf_code(&f->elf, address, code, sizeof(code)) : 0, at = 0;
    struct x86_insn i;

    for (unsigned k = 0; f->elf.machine == EM_X86_64 && k < STEPS; k++) {
        if (!x86_decode(code + at, n - at, &i) || (i.writes & BIT(X86_DI)) || i.kind == X86_RET)
            break;
        if (i.is_emulated) {
            address += at;
            break;
        }
        at += i.len;
    }
    add(f, names[SSL_FREE], address, WIRE_SSL_FREE);
}

int tls_sites_find(struct tls_sites *s, int fd)
{
    struct finder f = {.out = s};
    bool reads, writes;
    int r;

    memset(s, 0, sizeof(*s));
    s->can_do_without_returns = true;
    r = elf_read(&f.elf, fd);
    if (r == 0)
        r = elf_functions(&f.elf, names, f.at, FUNCTIONS);
    if (r)
        return r;
    if (!f.at[SSL_READ] || !f.at[SSL_WRITE])
        return -ENOENT;
    reads = add_internal(&f, SSL_READ, SSL_READ_EX, WIRE_SSL_RECV | WIRE_SSL_EX);
    if (!reads) {
        add(&f, names[SSL_READ], f.at[SSL_READ], WIRE_SSL_RECV);
        add(&f, names[SSL_READ_EX], f.at[SSL_READ_EX], WIRE_SSL_RECV | WIRE_SSL_EX);
    }
    writes = add_internal(&f, SSL_WRITE, SSL_WRITE_EX, WIRE_SSL_SEND | WIRE_SSL_EX) ||
             add_internal(&f, SSL_WRITE, SSL_WRITE_EX2, WIRE_SSL_SEND | WIRE_SSL_EX2);
    if (!writes) {
        add(&f, names[SSL_WRITE], f.at[SSL_WRITE], WIRE_SSL_SEND);
        add(&f, names[SSL_WRITE_EX], f.at[SSL_WRITE_EX], WIRE_SSL_SEND | WIRE_SSL_EX);
    }
    s->can_do_without_returns &= reads && writes;
    add_free(&f);
    add(&f, names[SSL_DO_HANDSHAKE], f.at[SSL_DO_HANDSHAKE], WIRE_SSL_HANDSHAKE);
    add(&f, names[SSL_SENDFILE], f.at[SSL_SENDFILE], WIRE_SSL_SENDFILE);
    return 0;
}

static bool holds(const struct tls_site *s, int fd)
{
    uint8_t now[TLS_CODE];

    return pread(fd, now, sizeof(now), (off_t)s->offset) == (ssize_t)sizeof(now) &&
           memcmp(now, s->code, sizeof(now)) == 0;
}

bool tls_sites_hold(const struct tls_sites *s, int fd)
{
    for (unsigned i = 0; i < s->n; i++)
        if (!holds(&s->sites[i], fd))
            return false;
    for (unsigned i = 0; i < s->n_behind; i++)
        if (!holds(&s->behind[i], fd))
            return false;
    return true;
}

void tls_site_describe(const struct tls_site *s, struct buf *out)
{
    buf_addf(out, "%s%s%s%s", out->n ? ", " : "", s->is_internal ? "the function inside " : "",
             s->name, s->is_emulated ? "" : " (stepped over, slow)");
}
