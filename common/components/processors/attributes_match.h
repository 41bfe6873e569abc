/* SPDX-License-Identifier: Apache-2.0 */
/* include and exclude of the attributes processor: which spans and log records are touched. */
#ifndef COMPONENTS_ATTRIBUTES_MATCH_H
#define COMPONENTS_ATTRIBUTES_MATCH_H

#include "common/otlp/edit.h"
#include "common/pipeline/option.h"

struct match_attribute {
    const char *key;
    struct option_any value;
};

struct match_library {
    const char *name;
    struct option_any version;
};

/* One block as configured. */
struct match_config {
    bool on;
    int match_type; /* index into match_types */
    struct option_list services, span_names, span_kinds, log_bodies, log_severity_texts;
    struct option_list attributes, resources; /* struct match_attribute */
    struct option_list libraries;             /* struct match_library */
};

extern const struct option match_options[];

/* Compiled from a block. All listed properties must match, values within one are alternatives. */
struct matcher;

int matcher_new(struct matcher **out, const struct match_config *c, enum signal signal,
                struct err *e) MUSTCHECK;
void matcher_free(struct matcher **m);
/* Whether record `i` of the batch matches, resource and scope included. */
bool matcher_test(const struct matcher *m, const struct batch *b, uint32_t record);

#endif
