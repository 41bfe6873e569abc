/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Closes descriptors off the loop: the end of a probe waits until no CPU is in it, 10 to 100 ms.
 * Several at a time wait for the same.
 */
#ifndef AGENT_CLOSER_H
#define AGENT_CLOSER_H

struct closer;

void closer_new(struct closer **out);
/* The descriptor is the closer's from now on. */
void closer_give(struct closer *c, int fd);
/* Returns when all are closed. */
void closer_free(struct closer **c);

#endif
