/* SPDX-License-Identifier: Apache-2.0 */
/* No kernel side in this build: replays work, capturing does not. */
#include <errno.h>

#include "agent/ebpf/source.h"

int source_open(struct source **out, const struct source_config *c, struct err *e)
{
    *out = NULL;
    return err_set(e, -ENOSYS, "this build has no kernel side");
}

void source_close(struct source **s)
{
    *s = NULL;
}

const char *source_tier(const struct source *s)
{
    return "none";
}

int source_fd(const struct source *s)
{
    return -1;
}

size_t source_drain(struct source *s, struct capture *c, struct recording *rec)
{
    return 0;
}

void source_drain_control(struct source *s, struct capture *c, struct recording *rec)
{
}

void source_verdicts(struct source *s, const struct capture_verdict *v, size_t n)
{
}

void source_select(struct source *s, const struct process *p)
{
}

void source_tick(struct source *s, struct capture *c, uint64_t now_ns)
{
}
