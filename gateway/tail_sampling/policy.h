/* SPDX-License-Identifier: Apache-2.0 */
/* Sampling policies: their configuration, and the decision about one trace. */
#ifndef TAIL_SAMPLING_POLICY_H
#define TAIL_SAMPLING_POLICY_H

#include "common/pipeline/option.h"
#include "common/pipeline/telemetry.h"
#include "gateway/tail_sampling/store.h"

struct policy_config {
    const char *name;
    int type; /* enum policy_type */
    struct {
        bool on;
        uint64_t threshold_ms, upper_threshold_ms;
    } latency;
    struct {
        bool on;
        double percentage;
        const char *hash_salt;
    } probabilistic;
    struct {
        bool on;
        struct option_list codes; /* int */
    } status_code;
    struct {
        bool on;
        const char *key;
        struct option_list values; /* const char * */
        bool is_regex, invert;
    } string_attribute;
    struct {
        bool on;
        struct option_list subs; /* struct policy_config */
    } and_block;
};

extern const struct option policy_options[];

struct policies;

/* `prefix`: put in front of policy names in metrics ("name." of a named processor), or "". */
int policies_new(struct policies **out, const struct option_list *configs, bool first_match,
                 const char *prefix, struct err *e) MUSTCHECK;
void policies_free(struct policies **p);
/* Zeroes, for the votes of some decisions; the caller frees it. */
uint32_t *policies_votes_new(const struct policies *p);
/* Whether the trace is kept. Reads its spans only where a policy asks for attributes. */
bool policies_decide(const struct policies *p, struct trace *t, uint32_t *votes);
/* Adds the votes to the metrics. */
void policies_count(const struct policies *p, const uint32_t *votes);

#endif
