/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an ELF file exports, and bytes of its code. The file is a stranger's: it is read, not
 * mapped, since who shortens a mapped file ends its reader.
 */
#ifndef AGENT_ELF_H
#define AGENT_ELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

enum { ELF_SEGMENTS = 16 };

struct elf_segment {
    uint64_t address, offset, size;
    bool is_code;
};

struct elf {
    int fd;
    uint16_t machine; /* EM_X86_64, ... */
    struct elf_segment segments[ELF_SEGMENTS];
    unsigned n_segments;
    uint64_t symbols, n_symbols, names, names_size; /* of .dynsym, .dynstr in the file */
};

/* -ENOEXEC: no 64-bit ELF of this machine's byte order. fd stays the caller's. */
int elf_read(struct elf *e, int fd) MUSTCHECK;
/* Addresses of n exported functions by name, 0 for those that are not there. -errno. */
int elf_functions(const struct elf *e, const char *const *names, uint64_t *addresses,
                  size_t n) MUSTCHECK;
/* Where the code of an address is in the file; 0: nowhere. */
uint64_t elf_offset(const struct elf *e, uint64_t address);
/* Code from an address on; how many of the n bytes there are. */
size_t elf_code(const struct elf *e, uint64_t address, uint8_t *out, size_t n);

#endif
