/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regular expressions as the Collector's users know them (RE2 syntax, unanchored), run by PCRE2
 * with match and heap limits. What RE2 does not know - look-around, back-references, recursion,
 * conditions, atomic groups, possessive quantifiers, verbs - is refused at compile time.
 */
#ifndef BASE_REGEX_H
#define BASE_REGEX_H

#include <stdbool.h>

#include "common/base/err.h"
#include "common/base/str.h"

struct regex; /* immutable once compiled: any thread may match with it */

#define REGEX_MAX_GROUPS 16

/* -EINVAL with "offset N: what" for a bad pattern. */
int regex_new(struct regex **out, const char *pattern, struct err *e) MUSTCHECK;
void regex_free(struct regex **r);

/* Whether it matches anywhere. A match that runs into the limits, or a subject that is not UTF-8,
 * does not. */
bool regex_match(const struct regex *r, struct str subject);

/*
 * Groups of the first match: groups[0] is the whole match, unset ones are {NULL, 0}. Number of
 * groups filled (at least 1), or 0 when it does not match.
 */
unsigned regex_groups(const struct regex *r, struct str subject, struct str *groups, unsigned n);

/* Name of group i (from 1), or NULL when it has none. */
const char *regex_group_name(const struct regex *r, unsigned i);
unsigned regex_group_count(const struct regex *r);

#endif
