/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/parsers/parser.h"

const struct parser *const parsers[] = {
#define PARSER(id) &parser_##id,
#include "agent/ebpf/parsers/parsers.def"
#undef PARSER
    NULL,
};
