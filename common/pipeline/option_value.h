/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scalar values as YAML and Go read them: what kind a plain word is, and its value. No memory, no
 * places; option.c adds those.
 */
#ifndef PIPELINE_OPTION_VALUE_H
#define PIPELINE_OPTION_VALUE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/str.h"

enum value_kind { VALUE_NULL, VALUE_BOOL, VALUE_INT, VALUE_FLOAT, VALUE_STRING };

/* What a plain (unquoted) scalar is, by the rules of the Collector's YAML parser. */
enum value_kind value_kind(const char *text);
/* true/True/TRUE and false's likes. -EINVAL for anything else. */
int value_bool(const char *text, bool *out);
/* Decimal, 0x, 0o, leading-0 octal, 0b, '_' between digits. -EINVAL; -ERANGE past 64 bits. */
int value_int(const char *text, int64_t *out);
int value_uint(const char *text, uint64_t *out);
/* Also .inf, -.inf, .nan. */
int value_double(const char *text, double *out);
/*
 * A Go duration ("1h2m3.5s", units ns us µs ms s m h; "0"), in nanoseconds. A bare integer is
 * nanoseconds, as in the Collector. -EINVAL; -ERANGE when negative or past 292 years.
 */
int value_duration(const char *text, uint64_t *ns);
/* The shortest Go spelling: 90000000000 -> "1m30s". out holds 40 bytes at least. */
void value_duration_text(uint64_t ns, char *out, size_t n);
/* host:port ("", IPv6 in brackets) or scheme://something. NULL when good, else what is wrong. */
const char *value_endpoint_fault(const char *text);
/* A component id, type or type/name. NULL when good, else what is wrong. */
const char *value_id_fault(const char *text);
/* The type of an id: what stands before '/'. */
struct str value_id_type(const char *id);

#endif
