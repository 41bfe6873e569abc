/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stream bytes of selected connections, to the byte:
 *
 *      passed = parsed + skipped + holes{reason} + held
 *
 * `passed` is counted where positions advance, the right side where bytes are given to somebody.
 * Plaintext of TLS has accounts of its own.
 */
#ifndef AGENT_CAPTURE_LEDGER_H
#define AGENT_CAPTURE_LEDGER_H

#include "agent/ebpf/record.h"

struct capture_ledger {
    struct capture_account {
        uint64_t passed;
        uint64_t parsed;  /* content that a parser took */
        uint64_t skipped; /* content that no verdict or parser asked for */
        uint64_t holes[HOLE_COUNT];
    } layers[LAYER_COUNT][DIR_COUNT];
    uint64_t records, opens, closes, lost_closes;
    uint64_t overlaps;              /* bytes that came twice: dropped, and no part of the sums */
    uint64_t unseen_head_possible;  /* bytes, neither captured nor proven to be body */
    uint64_t unknown_role;          /* connections without one: no spans */
    uint64_t given_up;              /* connections that made no sense for long: no more spans */
    uint64_t tls_without_plaintext; /* connections that began as TLS, and none of it was seen */
    uint64_t held_overflow;         /* records that could not wait for want of memory */
};

#endif
