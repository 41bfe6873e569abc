/* SPDX-License-Identifier: Apache-2.0 */
/* Libraries made by hand: functions as compilers write them, in a file of one segment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/ebpf/tls_sites.h"
#include "bpf/wire.h"
#include "common/base/mem.h"

enum { BASE = 0x10000, CODE = 0x1000, SLOT = 0x100, FILE_SIZE = 0x3000, SYMBOLS = 0x2000 };
enum { NAMES = 0x2800, SECTIONS = 0x400 };

struct library_file {
    uint8_t bytes[FILE_SIZE];
    unsigned n_functions, n_names;
    int fd;
};

static void begin(struct library_file *f)
{
    memset(f, 0, sizeof(*f));
    memset(f->bytes + CODE, 0xcc, SYMBOLS - CODE);
    f->n_names = 1;
    f->fd = -1;
}

/* Code in the next slot, exported if it has a name. */
static void put(struct library_file *f, const char *name, const char *code, size_t n)
{
    size_t at = CODE + f->n_functions++ * SLOT;
    Elf64_Sym s = {.st_name = f->n_names,
                   .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
                   .st_shndx = 1,
                   .st_value = BASE + at};

    memcpy(f->bytes + at, code, n);
    if (!name)
        return;
    memcpy(f->bytes + SYMBOLS + f->n_functions * sizeof(s), &s, sizeof(s));
    memcpy(f->bytes + NAMES + f->n_names, name, strlen(name) + 1);
    f->n_names += (unsigned)strlen(name) + 1;
}
#define PUT(f, name, code) put(f, name, code, sizeof(code) - 1)

static void finish(struct library_file *f)
{
    Elf64_Ehdr h = {.e_type = ET_DYN,
                    .e_machine = EM_X86_64,
                    .e_phoff = sizeof(h),
                    .e_phnum = 1,
                    .e_phentsize = sizeof(Elf64_Phdr),
                    .e_shoff = SECTIONS,
                    .e_shnum = 3,
                    .e_shentsize = sizeof(Elf64_Shdr)};
    Elf64_Phdr p = {
        .p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_vaddr = BASE, .p_filesz = FILE_SIZE};
    Elf64_Shdr s[3] = {{0},
                       {.sh_type = SHT_DYNSYM,
                        .sh_offset = SYMBOLS,
                        .sh_link = 2,
                        .sh_size = (f->n_functions + 1) * sizeof(Elf64_Sym)},
                       {.sh_type = SHT_STRTAB, .sh_offset = NAMES, .sh_size = f->n_names}};

    memcpy(h.e_ident, ELFMAG, SELFMAG);
    h.e_ident[EI_CLASS] = ELFCLASS64;
    h.e_ident[EI_DATA] = ELFDATA2LSB;
    memcpy(f->bytes, &h, sizeof(h));
    memcpy(f->bytes + sizeof(h), &p, sizeof(p));
    memcpy(f->bytes + SECTIONS, s, sizeof(s));
    f->fd = memfd_create("library", MFD_CLOEXEC);
    assert_int_equal(write(f->fd, f->bytes, FILE_SIZE), FILE_SIZE);
}

/* A call or jump to slot k from an instruction at `at` in slot `from`; 5 bytes. */
static void link_to(struct library_file *f, unsigned from, size_t at, unsigned k)
{
    int32_t off = (int32_t)(k * SLOT) - (int32_t)(from * SLOT + at + 5);

    memcpy(f->bytes + CODE + from * SLOT + at + 1, &off, sizeof(off));
}

/* push %r13; push %r12; push %rbx; sub $0x30,%rsp */
#define INTERNAL "\x41\x55\x41\x54\x53\x48\x83\xec\x30"
/* sub $0x18,%rsp; xor %eax,%eax; test %edx,%edx; js; mov %rsp,%rcx; movslq %edx,%rdx; call;
 * test %eax,%eax; jle */
#define PLAIN                                                                                      \
    "\x48\x83\xec\x18\x31\xc0\x85\xd2\x78\x2f\x48\x89\xe1\x48\x63\xd2\xe8....\x85\xc0\x7e\x03"
enum { PLAIN_CALL = 16 };
/* sub $8,%rsp; call; xor %edx,%edx; test %eax,%eax */
#define EX "\x48\x83\xec\x08\xe8....\x31\xd2\x85\xc0"
enum { EX_CALL = 4 };

static const struct tls_site *site(const struct tls_sites *s, uint32_t what)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->sites[i].what == what)
            return &s->sites[i];
    return NULL;
}

static void debian(struct library_file *f)
{
    begin(f);
    PUT(f, NULL, INTERNAL);
    PUT(f, NULL, INTERNAL);
    PUT(f, "SSL_read", PLAIN);
    PUT(f, "SSL_read_ex", EX);
    PUT(f, "SSL_write", PLAIN);
    PUT(f, "SSL_write_ex", EX);
    PUT(f, "SSL_free", "\x48\x85\xff\x0f\x84\x97\x03\x00\x00\x41\x55"); /* test %rdi,%rdi; je */
    link_to(f, 2, PLAIN_CALL, 0);
    link_to(f, 3, EX_CALL, 0);
    link_to(f, 4, PLAIN_CALL, 1);
    link_to(f, 5, EX_CALL, 1);
}

static void inside_of_both_forms(void **ctx)
{
    struct library_file f;
    struct tls_sites s;
    const struct tls_site *r, *w, *end;

    debian(&f);
    finish(&f);
    assert_int_equal(tls_sites_find(&s, f.fd), 0);
    r = site(&s, WIRE_SSL_RECV | WIRE_SSL_EX);
    w = site(&s, WIRE_SSL_SEND | WIRE_SSL_EX);
    end = site(&s, WIRE_SSL_FREE);
    assert_int_equal(s.n, 3);
    assert_int_equal(r->offset, CODE);
    assert_int_equal(w->offset, CODE + SLOT);
    assert_true(r->is_internal && r->is_emulated && r->has_return);
    assert_true(w->is_internal && w->is_emulated && w->has_return);
    assert_int_equal(end->offset, CODE + 6 * SLOT + 3); /* the branch, which is emulated */
    assert_true(end->is_emulated && !end->has_return && !end->is_internal);

    assert_int_equal(s.n_behind, 4);
    assert_true(s.can_do_without_returns);
    assert_int_equal(s.behind[0].offset, CODE + 2 * SLOT + PLAIN_CALL + 5 + 2); /* jle */
    assert_true(s.behind[0].is_emulated);
    assert_int_equal(s.behind[1].offset, CODE + 3 * SLOT + EX_CALL + 5); /* xor, stepped over */
    assert_false(s.behind[1].is_emulated);

    assert_true(tls_sites_hold(&s, f.fd));
    assert_int_equal(pwrite(f.fd, "\x90", 1, CODE), 1);
    assert_false(tls_sites_hold(&s, f.fd));
    close(f.fd);
}

/* What is not proven is probed where its name is. */
static void assert_entries(struct library_file *f)
{
    struct tls_sites s;

    finish(f);
    assert_int_equal(tls_sites_find(&s, f->fd), 0);
    assert_null(site(&s, WIRE_SSL_FREE));
    assert_int_equal(site(&s, WIRE_SSL_RECV)->offset, CODE + 2 * SLOT);
    assert_int_equal(site(&s, WIRE_SSL_RECV | WIRE_SSL_EX)->offset, CODE + 3 * SLOT);
    assert_false(site(&s, WIRE_SSL_RECV)->is_emulated);
    assert_false(site(&s, WIRE_SSL_RECV)->is_internal);
    assert_int_equal(site(&s, WIRE_SSL_SEND)->offset, CODE + 4 * SLOT);
    assert_false(s.can_do_without_returns);
    close(f->fd);
}

static void unproven(void **ctx)
{
    struct library_file f;

    begin(&f); /* other functions inside */
    PUT(&f, NULL, INTERNAL);
    PUT(&f, NULL, INTERNAL);
    PUT(&f, "SSL_read", PLAIN);
    PUT(&f, "SSL_read_ex", EX);
    PUT(&f, "SSL_write", PLAIN);
    link_to(&f, 2, PLAIN_CALL, 0);
    link_to(&f, 3, EX_CALL, 1);
    link_to(&f, 4, PLAIN_CALL, 1);
    assert_entries(&f);

    begin(&f); /* xor %ecx,%ecx; call: it hands on something else */
    PUT(&f, NULL, INTERNAL);
    PUT(&f, NULL, INTERNAL);
    PUT(&f, "SSL_read", PLAIN);
    PUT(&f, "SSL_read_ex", "\x31\xc9\x90\x90\xe8....");
    PUT(&f, "SSL_write", PLAIN);
    link_to(&f, 2, PLAIN_CALL, 0);
    link_to(&f, 3, EX_CALL, 0);
    link_to(&f, 4, PLAIN_CALL, 1);
    assert_entries(&f);

    begin(&f); /* bnd jmp *x(%rip): no function */
    PUT(&f, NULL, "\xf3\x0f\x1e\xfa\xf2\xff\x25\x01\x02\x03\x04");
    PUT(&f, NULL, INTERNAL);
    PUT(&f, "SSL_read", PLAIN);
    PUT(&f, "SSL_read_ex", EX);
    PUT(&f, "SSL_write", PLAIN);
    link_to(&f, 2, PLAIN_CALL, 0);
    link_to(&f, 3, EX_CALL, 0);
    link_to(&f, 4, PLAIN_CALL, 1);
    assert_entries(&f);

    begin(&f); /* the same, but it has a name, and so perhaps other callers and arguments */
    PUT(&f, "SSL_peek", INTERNAL);
    PUT(&f, NULL, INTERNAL);
    PUT(&f, "SSL_read", PLAIN);
    PUT(&f, "SSL_read_ex", EX);
    PUT(&f, "SSL_write", PLAIN);
    link_to(&f, 2, PLAIN_CALL, 0);
    link_to(&f, 3, EX_CALL, 0);
    link_to(&f, 4, PLAIN_CALL, 1);
    assert_entries(&f);
}

/* OpenSSL 3.3 and later: SSL_write_ex goes by way of SSL_write_ex2, whose count is the 5th. */
static void five_arguments(void **ctx)
{
    struct library_file f;
    struct tls_sites s;

    begin(&f);
    PUT(&f, NULL, INTERNAL);
    PUT(&f, NULL, INTERNAL);
    PUT(&f, "SSL_read", PLAIN);
    PUT(&f, "SSL_read_ex", EX);
    PUT(&f, "SSL_write", PLAIN);
    PUT(&f, "SSL_write_ex", "\x49\x89\xc8\x31\xc9\xe9...."); /* mov %rcx,%r8; xor %ecx,%ecx; jmp */
    PUT(&f, "SSL_write_ex2", EX);
    link_to(&f, 2, PLAIN_CALL, 0);
    link_to(&f, 3, EX_CALL, 0);
    link_to(&f, 4, PLAIN_CALL, 1);
    link_to(&f, 5, 5, 6);
    link_to(&f, 6, EX_CALL, 1);
    finish(&f);
    assert_int_equal(tls_sites_find(&s, f.fd), 0);
    assert_int_equal(site(&s, WIRE_SSL_SEND | WIRE_SSL_EX2)->offset, CODE + SLOT);
    assert_null(site(&s, WIRE_SSL_SEND | WIRE_SSL_EX));
    close(f.fd);
}

/* Files are strangers': whatever is cut off or changed, there is an answer. */
static void any_file(void **ctx)
{
    struct library_file f;
    struct tls_sites s;

    debian(&f);
    finish(&f);
    for (size_t n = FILE_SIZE; n > 0; n = n > 0x800 ? n - 0x37 : n - 1) {
        assert_int_equal(ftruncate(f.fd, (off_t)n), 0);
        if (tls_sites_find(&s, f.fd) == 0)
            assert_true(s.n <= TLS_SITES);
    }
    close(f.fd);
    for (size_t at = 0; at < SECTIONS + 3 * sizeof(Elf64_Shdr); at += at < 256 ? 1 : 4) {
        debian(&f);
        finish(&f);
        assert_int_equal(pwrite(f.fd, "\xff\xff\xff\xff", 4, (off_t)at), 4);
        if (tls_sites_find(&s, f.fd) == 0)
            assert_true(s.n <= TLS_SITES);
        close(f.fd);
    }
    begin(&f);
    PUT(&f, "SSL_load_error_strings", INTERNAL);
    finish(&f);
    assert_int_equal(tls_sites_find(&s, f.fd), -ENOENT);
    close(f.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inside_of_both_forms),
        cmocka_unit_test(unproven),
        cmocka_unit_test(five_arguments),
        cmocka_unit_test(any_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
