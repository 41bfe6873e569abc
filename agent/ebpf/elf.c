/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/elf.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/mem.h"

enum { TABLE_MAX = 64 << 20, HEADERS_MAX = 4096 };

static int read_at(int fd, void *out, size_t n, uint64_t at)
{
    ssize_t got;

    if (at > INT64_MAX)
        return -ENOEXEC;
    got = pread(fd, out, n, (off_t)at);
    if (got < 0)
        return -errno;
    return (size_t)got == n ? 0 : -ENOEXEC;
}

/* A table of the file on the heap; NULL: too large or not there. */
static void *read_table(int fd, uint64_t at, uint64_t n)
{
    void *p = n && n <= TABLE_MAX ? try_alloc((size_t)n) : NULL;

    if (p && read_at(fd, p, (size_t)n, at)) {
        free(p);
        return NULL;
    }
    return p;
}

static void add_segment(struct elf *e, const Elf64_Phdr *p)
{
    if (p->p_type != PT_LOAD || e->n_segments == ELF_SEGMENTS)
        return;
    e->segments[e->n_segments++] =
        (struct elf_segment){p->p_vaddr, p->p_offset, p->p_filesz, p->p_flags & PF_X};
}

static int read_segments(struct elf *e, const Elf64_Ehdr *h)
{
    for (unsigned i = 0; i < h->e_phnum; i++) {
        Elf64_Phdr p;
        int r = read_at(e->fd, &p, sizeof(p), h->e_phoff + i * sizeof(p));

        if (r)
            return r;
        add_segment(e, &p);
    }
    return 0;
}

static int read_sections(struct elf *e, const Elf64_Ehdr *h)
{
    for (unsigned i = 0; i < h->e_shnum; i++) {
        Elf64_Shdr s, names;
        int r = read_at(e->fd, &s, sizeof(s), h->e_shoff + i * sizeof(s));

        if (r)
            return r;
        if (s.sh_type != SHT_DYNSYM || s.sh_link >= h->e_shnum)
            continue;
        r = read_at(e->fd, &names, sizeof(names), h->e_shoff + s.sh_link * sizeof(s));
        if (r)
            return r;
        e->symbols = s.sh_offset;
        e->n_symbols = s.sh_size / sizeof(Elf64_Sym);
        e->names = names.sh_offset;
        e->names_size = names.sh_size;
        break;
    }
    return 0;
}

int elf_read(struct elf *e, int fd)
{
    const unsigned data = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB;
    Elf64_Ehdr h;
    int r = read_at(fd, &h, sizeof(h), 0);

    memset(e, 0, sizeof(*e));
    e->fd = fd;
    if (r)
        return r;
    if (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_ident[EI_CLASS] != ELFCLASS64 ||
        h.e_ident[EI_DATA] != data || h.e_phnum > HEADERS_MAX || h.e_shnum > HEADERS_MAX ||
        (h.e_phnum && h.e_phentsize != sizeof(Elf64_Phdr)) ||
        (h.e_shnum && h.e_shentsize != sizeof(Elf64_Shdr)))
        return -ENOEXEC;
    e->machine = h.e_machine;
    r = read_segments(e, &h);
    return r ? r : read_sections(e, &h);
}

static bool is_name(const char *names, uint64_t size, uint32_t at, const char *name)
{
    size_t n = strlen(name) + 1;

    return at < size && size - at >= n && memcmp(names + at, name, n) == 0;
}

int elf_functions(const struct elf *e, const char *const *names, uint64_t *addresses, size_t n)
{
    Elf64_Sym *symbols;
    char *text;
    bool is_read;

    memset(addresses, 0, n * sizeof(*addresses));
    if (!e->n_symbols)
        return 0;
    if (e->n_symbols > TABLE_MAX / sizeof(*symbols))
        return -E2BIG;
    symbols = read_table(e->fd, e->symbols, e->n_symbols * sizeof(*symbols));
    text = read_table(e->fd, e->names, e->names_size);
    is_read = symbols && text;
    for (uint64_t i = 0; is_read && i < e->n_symbols; i++) {
        const Elf64_Sym *s = &symbols[i];

        if (ELF64_ST_TYPE(s->st_info) != STT_FUNC || s->st_shndx == SHN_UNDEF)
            continue;
        for (size_t k = 0; k < n; k++)
            if (is_name(text, e->names_size, s->st_name, names[k]))
                addresses[k] = s->st_value;
    }
    free(symbols);
    free(text);
    return is_read ? 0 : -ENOEXEC;
}

static const struct elf_segment *code_at(const struct elf *e, uint64_t address)
{
    for (unsigned i = 0; i < e->n_segments; i++) {
        const struct elf_segment *s = &e->segments[i];

        if (s->is_code && address >= s->address && address - s->address < s->size)
            return s;
    }
    return NULL;
}

uint64_t elf_offset(const struct elf *e, uint64_t address)
{
    const struct elf_segment *s = code_at(e, address);

    return s ? address - s->address + s->offset : 0;
}

size_t elf_code(const struct elf *e, uint64_t address, uint8_t *out, size_t n)
{
    const struct elf_segment *s = code_at(e, address);
    uint64_t left = s ? s->size - (address - s->address) : 0;
    size_t want = left < n ? (size_t)left : n;

    if (!want || read_at(e->fd, out, want, address - s->address + s->offset))
        return 0;
    return want;
}
