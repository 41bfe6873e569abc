/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One layer of a connection, socket or TLS plaintext: whose requests it carries, which parser reads
 * it, and how much the kernel is to show of it. Records come here one by one, in the order of their
 * stream: connections.c sees to that, and is the only user.
 */
#ifndef AGENT_CHANNEL_H
#define AGENT_CHANNEL_H

#include "agent/ebpf/connections.h"

/* A record on its way to a parser. */
struct delivery {
    struct data_record r;
    uint64_t since;   /* drain in which it came */
    bool starts_call; /* its first byte is the call's */
};

/* Where a record belongs. */
struct lane {
    struct connections *cs;
    struct conn *c;
    enum layer layer;
    enum direction dir;
};

static inline struct stream_state *lane_stream(const struct lane *l)
{
    return &l->c->layers[l->layer].dir[l->dir];
}
static inline struct capture_account *lane_account(const struct lane *l)
{
    return &l->cs->ledger.layers[l->layer][l->dir];
}
/* By which calls of this process a flow passes: its role tells. */
enum direction conn_dir_of(const struct conn *c, enum flow flow);

/* What the kernel is to show of this connection from here on; nothing is done if it does. */
void conn_verdict(struct connections *cs, struct conn *c, enum capture_mode mode,
                  enum parser_depth depth);

/* Before a record is fed: sets the channel up at first sight. False: its bytes wait for something.
 */
bool channel_ready(const struct lane *l, const struct data_record *r, bool force);
/* A record that is next in its stream. Returns the bytes done with: all but what waits. */
uint64_t channel_feed(const struct lane *l, const struct delivery *d, bool force);
/* n bytes that no record brought; HOLE_NONE: that none was to bring. r: the one behind it. */
void channel_feed_hole(const struct lane *l, uint64_t n, enum hole why,
                       const struct data_record *r);
void channel_tick(const struct lane *l, uint64_t now_ns);
/* What is under way comes out. */
void channel_end(struct connections *cs, struct conn *c, enum layer layer);

#endif
