/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options are data: a component's configuration is a plain struct and a table that says for each
 * key its type, default, range, offset and help. The table parses and validates with
 * file:line:column and the nearest key, prints --help, writes the reference page and the Helm
 * values schema.
 *
 * Memory: everything a table fills in (strings, lists, nested lists) belongs to the arena of the
 * configuration and lives as long as its generation.
 */
#ifndef PIPELINE_OPTION_H
#define PIPELINE_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/str.h"

struct yaml_node; /* a node of the tree with marks; config.h */

enum option_type {
    OPT_BOOL,      /* bool */
    OPT_INT,       /* int64_t */
    OPT_UINT,      /* uint64_t */
    OPT_DOUBLE,    /* double */
    OPT_DURATION,  /* uint64_t, nanoseconds; Go duration string, bare integer = nanoseconds */
    OPT_STRING,    /* const char *, never NULL: "" when unset */
    OPT_SECRET,    /* const char *, printed as [REDACTED] */
    OPT_ENUM,      /* int: index into names */
    OPT_ENDPOINT,  /* const char *, host:port checked */
    OPT_ID,        /* const char *: a component id, type or type/name */
    OPT_ANY,       /* struct option_any: scalar attribute value */
    OPT_STRINGS,   /* struct option_list of const char * */
    OPT_DOUBLES,   /* struct option_list of double */
    OPT_DURATIONS, /* struct option_list of uint64_t */
    OPT_ENUMS,     /* struct option_list of int */
    OPT_MAP,       /* struct option_list of struct option_pair (free keys, string values) */
    OPT_HEADERS,   /* the same, also accepts a list of {name, value}; values are secret */
    OPT_STRUCT,    /* nested struct at offset, table in sub */
    OPT_LIST,      /* struct option_list of structs (sub, elem_size) */
    OPT_TREE,      /* const struct yaml_node *: the component reads it itself; NULL when unset */
};

struct option_list {
    void *items;
    size_t n;
};

struct option_pair {
    const char *key, *value;
};

struct option_any {
    enum { OPTION_NONE, OPTION_STRING, OPTION_BOOL, OPTION_INT, OPTION_DOUBLE } type;
    const char *s; /* the text as written, for all types */
    bool b;
    int64_t i;
    double d;
};

/* For OPT_STRUCT: how an absent, empty or filled block reads (the Collector's three kinds of
 * optional). */
enum option_presence {
    OPT_PLAIN = 0,   /* always there; defaults where nothing is written */
    OPT_OFF_NONE,    /* off; `key: {}` or content turns it on */
    OPT_OFF_DEFAULT, /* off; `key:` turns it on with defaults */
    OPT_ON,          /* on; `enabled: false` turns it off */
};

enum option_flag {
    OPT_REQUIRED = 1,
    OPT_DEPRECATED = 2, /* accepted, with a warning that quotes help */
    OPT_ALIAS = 4, /* another spelling of the option before it in the table: same offset, hidden */
    OPT_NO_EFFECT = 8, /* accepted for compatibility; a warning says that it does nothing */
    OPT_TEMPLATE =
        32, /* OPT_STRUCT: its required keys are the component's to fill in, not the user's */
    OPT_UNSUPPORTED = 16, /* the Collector knows it, we do not: refused by name; help may say why */
};

struct option {
    const char *key;
    enum option_type type;
    size_t offset;
    const char *def;  /* default, as YAML text; NULL = zero value */
    const char *help; /* one or two sentences for users */
    unsigned flags;
    double min, max;               /* numbers and durations (ns); both 0 = unbounded */
    const char *const *names;      /* OPT_ENUM(S): NULL-ended */
    const struct option *sub;      /* OPT_STRUCT, OPT_LIST: ends with key NULL */
    size_t elem_size;              /* OPT_LIST */
    enum option_presence presence; /* OPT_STRUCT */
    size_t on_offset; /* OPT_STRUCT other than plain: bool that says whether it is on */
};

#define OPTION_END                                                                                 \
    {                                                                                              \
        .key = NULL                                                                                \
    }
/* Keys of the Collector that are refused by name, or taken and said to do nothing. */
#define OPTION_UNSUPPORTED(name)                                                                   \
    {                                                                                              \
        .key = name, .type = OPT_TREE, .flags = OPT_UNSUPPORTED                                    \
    }
#define OPTION_NO_EFFECT(name, why)                                                                \
    {                                                                                              \
        .key = name, .type = OPT_TREE, .flags = OPT_NO_EFFECT, .help = why                         \
    }

#endif
