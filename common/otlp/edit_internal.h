/* SPDX-License-Identifier: Apache-2.0 */
/* What edit.c (collecting changes) and edit_seal.c (writing them) share. */
#ifndef OTLP_EDIT_INTERNAL_H
#define OTLP_EDIT_INTERNAL_H

#include "common/otlp/batch_internal.h"
#include "common/otlp/edit.h"

#define EDIT_MAGIC 0x45444954u

enum change_op {
    CHANGE_SET,    /* replaces the first of that key, or is new */
    CHANGE_DELETE, /* all of that key go */
    CHANGE_APPEND, /* set after a delete: new */
    CHANGE_GONE,
};

struct change {
    struct change *next;
    struct str key;
    struct str field; /* the KeyValue with tag and length; key and value lie in it */
    struct str value; /* AnyValue bytes */
    enum change_op op;
    bool is_placed; /* while sealing: it stands where the old one stood */
};

struct piece {
    const void *p;
    size_t n;
};

struct edit {
    unsigned magic;
    struct batch *b;
    struct arena arena;
    struct change **changes[3]; /* by level, made at the first change of that level */
    uint8_t *dropped;           /* by record */
    uint32_t n_dropped;
    bool is_changed, failed;
    size_t growth; /* at most so many bytes more than before */
    struct buf scratch;
    const struct change *last_set; /* the same attribute is often set on every record */
    enum edit_level last_level;
    struct piece *pieces; /* while sealing */
    size_t n_pieces, cap_pieces;
};

uint32_t edit__attributes_number(const struct edit *e, enum edit_level level);
/* A record's message; of a group its envelope, whose fields 1 are the message in pieces. */
struct str edit__bytes_at(const struct edit *e, struct edit_at at);
struct change *edit__changes_at(const struct edit *e, struct edit_at at);
/* The edited batch; NULL when every record was dropped. -ENOMEM. */
int edit__seal(struct edit *e, struct batch **out) MUSTCHECK;

#endif
