/* SPDX-License-Identifier: Apache-2.0 */
/* tailrace-agent replay FILE: a recording once more, its spans as lines of text. */
#ifndef AGENT_REPLAY_H
#define AGENT_REPLAY_H

#include "common/base/buf.h"
#include "common/otlp/batch.h"

/* argv[1] is the file. Returns the exit status. */
int replay_command(int argc, char **argv);
/*
 * One line a span: "server GET 200 127.0.0.1:8080 /path ... 1500us", without ids and wall times, so
 * that two replays of one recording print the same.
 */
void replay_print(struct buf *out, const struct batch *b);

#endif
