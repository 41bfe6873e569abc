/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "agent/ebpf/x86.h"
#include "common/base/mem.h"

#define BIT(reg) (1u << (reg))

static const struct {
    const char *code;
    size_t n;
    enum x86_kind kind;
    bool is_emulated;
    uint32_t writes;
    int32_t target;
} known[] = {
#define CODE(s) s, sizeof(s) - 1
    {CODE("\x55"), X86_PUSH, true, 0, 0},                         /* push %rbp */
    {CODE("\x41\x55"), X86_PUSH, true, 0, 0},                     /* push %r13 */
    {CODE("\x48\x55"), X86_PUSH, false, 0, 0},                    /* rex.W push %rbp */
    {CODE("\x90"), X86_NOP, true, 0, 0},                          /* nop */
    {CODE("\x66\x90"), X86_NOP, false, 0, 0},                     /* xchg %ax,%ax */
    {CODE("\x0f\x1f\x44\x00\x00"), X86_NOP, false, 0, 0},         /* nopl 0(%rax,%rax,1) */
    {CODE("\xf3\x0f\x1e\xfa"), X86_NOP, false, 0, 0},             /* endbr64 */
    {CODE("\x48\x83\xec\x18"), X86_OTHER, false, BIT(X86_SP), 0}, /* sub $0x18,%rsp */
    {CODE("\x48\x81\xec\x00\x01\x00\x00"), X86_OTHER, false, BIT(X86_SP), 0},
    {CODE("\x64\x48\x8b\x04\x25\x28\x00\x00\x00"), X86_OTHER, false, BIT(X86_AX), 0},
    {CODE("\x48\x89\x44\x24\x08"), X86_OTHER, false, 0, 0},       /* mov %rax,8(%rsp) */
    {CODE("\x31\xc0"), X86_OTHER, false, BIT(X86_AX), 0},         /* xor %eax,%eax */
    {CODE("\x85\xd2"), X86_OTHER, false, 0, 0},                   /* test %edx,%edx */
    {CODE("\x48\x85\xff"), X86_OTHER, false, 0, 0},               /* test %rdi,%rdi */
    {CODE("\x48\x83\x7f\x30\x00"), X86_OTHER, false, 0, 0},       /* cmpq $0,0x30(%rdi) */
    {CODE("\x48\x89\xe1"), X86_OTHER, false, BIT(X86_CX), 0},     /* mov %rsp,%rcx */
    {CODE("\x48\x63\xd2"), X86_OTHER, false, BIT(X86_DX), 0},     /* movslq %edx,%rdx */
    {CODE("\x49\x89\xc8"), X86_OTHER, false, BIT(X86_R8), 0},     /* mov %rcx,%r8 */
    {CODE("\x4c\x8b\x47\x08"), X86_OTHER, false, BIT(X86_R8), 0}, /* mov 8(%rdi),%r8 */
    {CODE("\x48\x8d\x0d\x11\x22\x33\x44"), X86_OTHER, false, BIT(X86_CX), 0}, /* lea x(%rip),%rcx */
    {CODE("\x88\xc5"), X86_OTHER, false, BIT(X86_CX), 0},                     /* mov %al,%ch */
    {CODE("\x40\x88\xc6"), X86_OTHER, false, BIT(X86_SI), 0},                 /* mov %al,%sil */
    {CODE("\xb9\x01\x00\x00\x00"), X86_OTHER, false, BIT(X86_CX), 0},         /* mov $1,%ecx */
    {CODE("\x49\xb8\x01\x02\x03\x04\x05\x06\x07\x08"), X86_OTHER, false, BIT(X86_R8), 0},
    {CODE("\x66\x81\xf9\x34\x12"), X86_OTHER, false, 0, 0},   /* cmp $0x1234,%cx */
    {CODE("\x5f"), X86_OTHER, false, BIT(X86_DI), 0},         /* pop %rdi */
    {CODE("\x0f\x44\xc2"), X86_OTHER, false, BIT(X86_AX), 0}, /* cmove %edx,%eax */
    {CODE("\x0f\x95\xc1"), X86_OTHER, false, BIT(X86_CX), 0}, /* setne %cl */
    {CODE("\xf6\x47\x44\x01"), X86_OTHER, false, 0, 0},       /* testb $1,0x44(%rdi) */
    {CODE("\xe8\x3d\xfe\xff\xff"), X86_CALL, true, 0, 5 - 0x1c3},
    {CODE("\xe9\x00\x01\x00\x00"), X86_JMP, true, 0, 5 + 0x100},
    {CODE("\xeb\xfe"), X86_JMP, true, 0, 0},
    {CODE("\x78\x2f"), X86_JCC, true, 0, 2 + 0x2f},                  /* js */
    {CODE("\x0f\x84\x97\x03\x00\x00"), X86_JCC, true, 0, 6 + 0x397}, /* je */
    {CODE("\xc3"), X86_RET, false, 0, 0},
};

static void instructions(void **ctx)
{
    for (size_t k = 0; k < ARRAY_LEN(known); k++) {
        const uint8_t *code = (const uint8_t *)known[k].code;
        uint8_t longer[24] = {0};
        struct x86_insn i;

        memcpy(longer, code, known[k].n);
        assert_true(x86_decode(longer, sizeof(longer), &i));
        assert_int_equal(i.len, known[k].n);
        assert_int_equal(i.kind, known[k].kind);
        assert_int_equal(i.is_emulated, known[k].is_emulated);
        assert_int_equal(i.writes, known[k].writes);
        assert_int_equal(i.target, known[k].target);
        for (size_t n = 0; n < known[k].n; n++)
            assert_false(x86_decode(code, n, &i)); /* cut off */
    }
}

static void refuses(void **ctx)
{
    static const struct {
        const char *code;
        size_t n;
    } unknown[] = {
        {CODE("\xff\x25\x00\x00\x00\x00")}, /* jmp *x(%rip): of a table of addresses */
        {CODE("\xf2\xff\x25\x00\x00\x00\x00")},
        {CODE("\xff\xe0")},         /* jmp *%rax */
        {CODE("\x0f\x05")},         /* syscall */
        {CODE("\xcc")},             /* a breakpoint, of somebody else */
        {CODE("\xc5\xf8\x77")},     /* vzeroupper */
        {CODE("\xf7\xe1")},         /* mul %ecx */
        {CODE("\x87\xca")},         /* xchg %ecx,%edx */
        {CODE("\x66\xe8\x01\x02")}, /* call with a 16-bit prefix */
    };
    struct x86_insn i;

    for (size_t k = 0; k < ARRAY_LEN(unknown); k++) {
        uint8_t code[16] = {0};

        memcpy(code, unknown[k].code, unknown[k].n);
        assert_false(x86_decode(code, sizeof(code), &i));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instructions),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
