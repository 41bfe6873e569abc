/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opcodes and ModRM bytes: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2,
 * chapter 2 and appendix A. What kernels emulate: arch/x86/kernel/uprobes.c, branch_setup_xol_ops
 * and push_setup_xol_ops.
 */
#include "agent/ebpf/x86.h"

#include <string.h>

enum { REX_W = 8, REX_R = 4, REX_B = 1 };

struct reader {
    const uint8_t *p;
    size_t n, at;
    uint8_t rex;
    bool has_16bit, has_other_prefix;
    uint8_t modrm;
};

enum shape {
    NONE,     /* no ModRM, nothing written */
    READS,    /* ModRM, nothing written: compares */
    TO_RM,    /* ModRM, written to r/m */
    TO_REG,   /* ModRM, written to reg */
    TO_PLAIN, /* register in the opcode */
    UNKNOWN,
};

struct form {
    enum shape shape;
    unsigned imm; /* bytes; 4 stands for 2 with a 16-bit prefix */
};

static bool take(struct reader *r, uint8_t *out)
{
    if (r->at >= r->n)
        return false;
    *out = r->p[r->at++];
    return true;
}

static void prefixes(struct reader *r)
{
    for (; r->at < r->n; r->at++) {
        uint8_t b = r->p[r->at];

        if (b == 0x66)
            r->has_16bit = true;
        else if (b == 0x64 || b == 0x65 || b == 0xf2 || b == 0xf3 || b == 0x2e || b == 0x3e)
            r->has_other_prefix = true;
        else
            break;
    }
    if (r->at < r->n && (r->p[r->at] & 0xf0) == 0x40)
        r->rex = r->p[r->at++];
}

static bool skip(struct reader *r, size_t n)
{
    if (r->n - r->at < n)
        return false;
    r->at += n;
    return true;
}

/* ModRM, SIB and displacement. */
static bool operand(struct reader *r)
{
    uint8_t sib = 0;
    unsigned mod, rm;

    if (!take(r, &r->modrm))
        return false;
    mod = r->modrm >> 6;
    rm = r->modrm & 7;
    if (mod == 3)
        return true;
    if (rm == 4 && !take(r, &sib))
        return false;
    if (mod == 1)
        return skip(r, 1);
    if (mod == 2 || (mod == 0 && (rm == 5 || (rm == 4 && (sib & 7) == 5))))
        return skip(r, 4);
    return true;
}

/* One-byte opcodes; /digit of groups is not known yet: see group(). */
static struct form form_of(const struct reader *r, uint8_t op)
{
    if (op < 0x40 && (op & 7) < 4) { /* add or adc sbb and sub xor cmp */
        bool is_cmp = op >= 0x38;

        return (struct form){is_cmp ? READS : op & 2 ? TO_REG : TO_RM, 0};
    }
    if (op >= 0x50 && op < 0x58)
        return (struct form){NONE, 0};
    if (op >= 0x58 && op < 0x60)
        return (struct form){TO_PLAIN, 0};
    if (op >= 0xb8 && op < 0xc0)
        return (struct form){TO_PLAIN, r->rex & REX_W ? 8 : 4};
    switch (op) {
    case 0x63: /* movslq */
    case 0x8a:
    case 0x8b:
    case 0x8d:
        return (struct form){TO_REG, 0};
    case 0x84:
    case 0x85: /* test */
        return (struct form){READS, 0};
    case 0x88:
    case 0x89:
        return (struct form){TO_RM, 0};
    case 0x80:
    case 0x83:
    case 0xc6:
        return (struct form){TO_RM, 1};
    case 0x81:
    case 0xc7:
        return (struct form){TO_RM, 4};
    case 0xf6:
    case 0xf7:
        return (struct form){TO_RM, op == 0xf6 ? 1 : 4};
    case 0x3c:
    case 0xa8: /* cmp, test with al */
        return (struct form){NONE, 1};
    case 0x3d:
    case 0xa9:
        return (struct form){NONE, 4};
    case 0x90:
    case 0xc3:
        return (struct form){NONE, 0};
    default:
        return (struct form){UNKNOWN, 0};
    }
}

static struct form form_of_0f(uint8_t op)
{
    if (op == 0x1e || op == 0x1f) /* endbr64 and other nops */
        return (struct form){READS, 0};
    if ((op & 0xf0) == 0x40 || op == 0xb6 || op == 0xb7 || op == 0xbe || op == 0xbf)
        return (struct form){TO_REG, 0}; /* cmov, movzx, movsx */
    if ((op & 0xf0) == 0x90)
        return (struct form){TO_RM, 0}; /* setcc */
    return (struct form){UNKNOWN, 0};
}

/* What the digit in ModRM says of an opcode that stands for a group. False: unknown. */
static bool group(const struct reader *r, uint8_t op, struct form *f)
{
    unsigned digit = r->modrm >> 3 & 7;

    if (op == 0x80 || op == 0x81 || op == 0x83) {
        if (digit == 7)
            f->shape = READS;
    } else if (op == 0xc6 || op == 0xc7) {
        return digit == 0;
    } else if (op == 0xf6 || op == 0xf7) {
        f->shape = READS;
        return digit == 0; /* test; the others write more than one register or none */
    }
    return true;
}

/* jcc, call, jmp: the target counts from the instruction's end. */
static bool branch(struct reader *r, struct x86_insn *out, enum x86_kind kind, unsigned width)
{
    int32_t off;

    if (r->has_16bit || r->n - r->at < width)
        return false;
    if (width == 1)
        off = (int8_t)r->p[r->at];
    else
        memcpy(&off, r->p + r->at, sizeof(off));
    r->at += width;
    out->kind = kind;
    out->target = (int32_t)((uint32_t)off + (uint32_t)r->at);
    out->is_emulated = true;
    return true;
}

static bool is_branch(struct reader *r, uint8_t op, bool two, struct x86_insn *out, bool *known)
{
    if (two && (op & 0xf0) == 0x80)
        *known = branch(r, out, X86_JCC, 4);
    else if (!two && (op & 0xf0) == 0x70)
        *known = branch(r, out, X86_JCC, 1);
    else if (!two && (op == 0xe8 || op == 0xe9))
        *known = branch(r, out, op == 0xe8 ? X86_CALL : X86_JMP, 4);
    else if (!two && op == 0xeb)
        *known = branch(r, out, X86_JMP, 1);
    else
        return false;
    return true;
}

/* Without REX, 4 to 7 of bytes are ah, ch, dh, bh. */
static uint32_t bit_of(const struct reader *r, unsigned reg, bool is_byte, unsigned high)
{
    if (is_byte && !r->rex && reg >= 4)
        return 1u << (reg - 4);
    return 1u << (reg | (r->rex & high ? 8 : 0));
}

static uint32_t written(const struct reader *r, uint8_t op, bool two, const struct form *f)
{
    bool is_byte = two ? (op & 0xf0) == 0x90 : !(op & 1);

    if (f->shape == TO_REG)
        return bit_of(r, r->modrm >> 3 & 7, is_byte, REX_R);
    if (f->shape == TO_RM && r->modrm >> 6 == 3)
        return bit_of(r, r->modrm & 7, is_byte, REX_B);
    if (f->shape == TO_PLAIN)
        return 1u << ((op & 7) | (r->rex & REX_B ? 8 : 0));
    return 0;
}

static void name_kind(const struct reader *r, uint8_t op, bool two, struct x86_insn *out)
{
    bool has_prefix = r->has_16bit || r->has_other_prefix;

    if (!two && op >= 0x50 && op < 0x58) {
        out->kind = X86_PUSH;
        out->is_emulated = !has_prefix && !(r->rex & ~(0x40 | REX_B));
    } else if (!two && op == 0x90) {
        out->kind = X86_NOP;
        out->is_emulated = !has_prefix && !r->rex;
    } else if (!two && op == 0xc3) {
        out->kind = X86_RET;
    } else if (two && (op == 0x1e || op == 0x1f)) {
        out->kind = X86_NOP;
    }
}

bool x86_decode(const uint8_t *code, size_t n, struct x86_insn *out)
{
    struct reader r = {.p = code, .n = n};
    struct form f;
    uint8_t op;
    bool two, known = false;

    memset(out, 0, sizeof(*out));
    prefixes(&r);
    if (!take(&r, &op))
        return false;
    two = op == 0x0f;
    if (two && !take(&r, &op))
        return false;
    if (!is_branch(&r, op, two, out, &known)) {
        f = two ? form_of_0f(op) : form_of(&r, op);
        known = f.shape != UNKNOWN;
        if (known && (f.shape == READS || f.shape == TO_RM || f.shape == TO_REG))
            known = operand(&r) && (two || group(&r, op, &f));
        if (known && f.imm == 4 && r.has_16bit)
            f.imm = 2;
        known = known && skip(&r, f.imm);
        out->writes = known ? written(&r, op, two, &f) : 0;
        name_kind(&r, op, two, out);
    }
    out->len = (unsigned)r.at;
    return known;
}
