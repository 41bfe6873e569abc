/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Edits of a sealed batch: they collect in patches and are written once, when the edit is sealed
 * into a new batch that shares the chunks of everything untouched.
 *
 *   batch_edit(&e, b) ── edit_attr_set/delete, edit_drop ... ── edit_seal(&e, &out)
 *
 * Reading goes through the patch: edit_attr_get sees what edit_attr_set put.
 */
#ifndef OTLP_EDIT_H
#define OTLP_EDIT_H

#include "common/otlp/view.h"

struct edit;

enum edit_level { EDIT_RESOURCE, EDIT_SCOPE, EDIT_RECORD };

/* What is edited: a level and the index of the group or record in the batch. */
struct edit_at {
    enum edit_level level;
    uint32_t index;
};

/* Takes a reference to b. -ENOMEM. */
int batch_edit(struct edit **out, struct batch *b) MUSTCHECK;
/* Adds or replaces the attribute (the first of that key stays in place; duplicates of it go). */
void edit_attr_set(struct edit *e, struct edit_at at, struct str key, struct any value);
void edit_attr_delete(struct edit *e, struct edit_at at, struct str key);
bool edit_attr_get(const struct edit *e, struct edit_at at, struct str key, struct any *out);
/* Iterates attributes through the patch; start with *pos = 0. False at the end. */
bool edit_attr_next(const struct edit *e, struct edit_at at, size_t *pos, struct attr *out);
/* Leaves the record out of the sealed batch. */
void edit_drop(struct edit *e, uint32_t record);
/*
 * Writes the patches. The edit is freed in any case. *out is the new batch (span keys refreshed),
 * the old one itself with a reference more when nothing changed, or NULL when every record was
 * dropped.
 */
int edit_seal(struct edit **e, struct batch **out) MUSTCHECK;
void edit_free(struct edit **e);

#endif
