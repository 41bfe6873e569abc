/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions of x86-64 as compilers begin functions with them: how long one is, what kind, and
 * which registers it writes. Whatever else there is, is refused: nothing is concluded then.
 */
#ifndef AGENT_X86_H
#define AGENT_X86_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum x86_kind { X86_OTHER, X86_PUSH, X86_NOP, X86_CALL, X86_JMP, X86_JCC, X86_RET };

enum x86_register {
    X86_AX,
    X86_CX,
    X86_DX,
    X86_BX,
    X86_SP,
    X86_BP,
    X86_SI,
    X86_DI,
    X86_R8,
};

struct x86_insn {
    unsigned len;
    enum x86_kind kind;
    uint32_t writes; /* bits of registers, rsp of pushes and calls not counted */
    int32_t target;  /* of a call or jump, from the instruction's first byte */
    /* Kernels run it without stepping over it, since they know what it does; ten times cheaper. */
    bool is_emulated;
};

/* False: not known, or cut off after n bytes. */
bool x86_decode(const uint8_t *code, size_t n, struct x86_insn *out);

#endif
