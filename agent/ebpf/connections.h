/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections, by socket cookie. Records come in the order of the ring; what comes out is exchanges
 * and verdicts.
 *
 *   record ─► connection ─► layer (socket or TLS plaintext) ─► stream: in order by position
 *          ─► parser ─► exchange ─► ops.exchange
 *                    └► verdict, written to the kernel after the drain
 *
 * Order. A direction's records may be swapped by a position or two (two threads on one socket), and
 * a response may be told before its request. Both wait, at most until the end of the next drain;
 * then a gap is a hole and an unasked response is nobody's.
 */
#ifndef AGENT_CONNECTIONS_H
#define AGENT_CONNECTIONS_H

#include "agent/ebpf/capture_ledger.h"
#include "agent/ebpf/parsers/parser.h"
#include "agent/ebpf/record.h"
#include "common/base/hashmap.h"
#include "common/base/list.h"

struct held; /* a record that waits */

/* One direction of one layer. */
struct stream_state {
    bool started;
    uint64_t next;    /* position of the next byte for the parser */
    uint64_t end_ns;  /* of the call that brought the byte before */
    struct list held; /* by position */
};

enum channel_state { CHANNEL_NEW, CHANNEL_PARSING, CHANNEL_SKIPPING };

/* One layer of a connection: two streams and what reads them. */
struct channel {
    enum channel_state state;
    const struct parser *parser;
    void *parser_state;
    uint32_t generation;
    bool used;
    struct stream_state dir[DIR_COUNT];
};

#define CONN_MAGIC 0x434f4e4eu

struct conn {
    unsigned magic;
    uint64_t cookie; /* 0: only TLS plaintext is known */
    uint64_t ssl;
    uint32_t tgid; /* of the last call */
    bool opened, joined, listed, alive;
    bool is_tls; /* it began with a TLS record */
    enum role role;
    struct open_record open; /* when opened */
    uint64_t last_ns, exchanges;
    uint64_t used;          /* the drain of its last record */
    unsigned broken;        /* in a row */
    unsigned role_calls;    /* looked at for a role */
    enum capture_mode mode; /* last verdict */
    enum parser_depth depth;
    struct answer_layout layout; /* that the kernel was told */
    unsigned n_layouts;          /* how often */
    struct channel layers[LAYER_COUNT];
    struct list link;    /* all connections, oldest use first */
    struct list waiting; /* those with held records */
};

struct connections_ops {
    /* A finished exchange: the callee frees it (parser->exchange_free). */
    void (*exchange)(void *arg, const struct conn *c, enum layer layer, const struct parser *p,
                     struct exchange *x);
    /* Connections that are opened are shown once, before their first data (selection, metrics). */
    bool (*wanted)(void *arg, const struct conn *c);
    void *arg;
};

struct connections {
    struct hashmap by_key;
    struct conn *last; /* found; NULL: none, or it is gone */
    struct list all, waiting;
    struct connections_ops ops;
    struct capture_ledger ledger;
    uint64_t drain; /* number of the present one; those that follow quickly count as one */
    uint64_t ticked_ns, epoch_ns;
    size_t n, held_bytes;
    struct capture_verdict *verdicts;
    size_t n_verdicts, cap_verdicts;
};

void connections_init(struct connections *cs, const struct connections_ops *ops);
/* Ends every connection: what is under way comes out as cut exchanges. */
void connections_fini(struct connections *cs);

void connections_open(struct connections *cs, const struct open_record *r);
void connections_data(struct connections *cs, const struct data_record *r);
void connections_close(struct connections *cs, const struct close_record *r);
/*
 * The ring is empty: what waited since the drain before is given up. The verdicts of this drain are
 * in cs->verdicts[0..n_verdicts); connections_verdicts_taken() when they are written.
 */
void connections_drained(struct connections *cs, uint64_t now_ns);
void connections_verdicts_taken(struct connections *cs);

/* Finds lost closes: begin, name every living cookie, end. */
void connections_sweep_begin(struct connections *cs);
void connections_sweep_alive(struct connections *cs, uint64_t cookie);
void connections_sweep_end(struct connections *cs, uint64_t before_ns);

/* Bytes that wait, per direction: the ledger's last term. */
uint64_t connections_held(const struct connections *cs, enum layer layer, enum direction dir);

#endif
