/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records to a file and back, so that all of user space runs again without a kernel and without
 * root.
 *
 *   "TLRREC1\n", sizes of the record structs, then entries: type, length, struct, its bytes.
 *
 * A recording holds what was captured from connections: keep it as safe as the traffic itself.
 */
#ifndef AGENT_RECORDING_H
#define AGENT_RECORDING_H

#include <stdio.h>

#include "agent/ebpf/capture.h"
#include "common/base/err.h"

struct recording {
    FILE *file; /* NULL: not recording, all calls do nothing */
};

int recording_open(struct recording *r, const char *path, struct err *e) MUSTCHECK;
void recording_close(struct recording *r);
void recording_begin(struct recording *r, uint64_t now_ns, int64_t wall_offset_ns);
void recording_end(struct recording *r, uint64_t now_ns);
void recording_open_record(struct recording *r, const struct open_record *o);
void recording_data(struct recording *r, const struct data_record *d);
void recording_close_record(struct recording *r, const struct close_record *c);
void recording_exec(struct recording *r, const struct exec_record *x);
void recording_fork(struct recording *r, const struct fork_record *f);
void recording_exit(struct recording *r, const struct exit_record *x);

/*
 * Feeds a recording to c. after_drain is called at the end of each drain, for taking the spans; may
 * be NULL. -EBADMSG with the offset in e for a file that is damaged.
 */
int recording_replay(const char *path, struct capture *c, void (*after_drain)(void *arg), void *arg,
                     struct err *e) MUSTCHECK;
/* The same from memory, for fuzzing. */
int recording_replay_bytes(struct str bytes, struct capture *c, void (*after_drain)(void *arg),
                           void *arg, struct err *e) MUSTCHECK;

#endif
