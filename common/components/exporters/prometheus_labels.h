/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The labels of one series on their way to its text: gathered in any order, written sorted by name,
 * so that the same labels are the same series whatever the order in which they came.
 */
#ifndef COMPONENTS_PROMETHEUS_LABELS_H
#define COMPONENTS_PROMETHEUS_LABELS_H

#include "common/base/buf.h"

struct prometheus_label {
    uint32_t name, value, end; /* offsets into text: name up to value, value up to end */
};

struct prometheus_labels {
    struct buf text;
    struct prometheus_label *v;
    uint32_t n, cap;
};

void prometheus_labels_init(struct prometheus_labels *l);
void prometheus_labels_fini(struct prometheus_labels *l);
/* `key` becomes a label's name; the value is taken as it is. */
void prometheus_labels_add(struct prometheus_labels *l, struct str key, struct str value);
/* Lets go of all but the first n. */
void prometheus_labels_cut(struct prometheus_labels *l, uint32_t n);
/*
 * Appends name="value",... sorted by name. Two of one name: -EEXIST, or with `joins` one label with
 * both values and ; between them. -ENOMEM.
 */
int prometheus_labels_write(struct buf *out, const struct prometheus_labels *l,
                            bool joins) MUSTCHECK;

#endif
