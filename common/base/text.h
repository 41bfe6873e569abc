/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes as text, appended to a latched buf. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include "common/base/buf.h"

/* Standard alphabet (RFC 4648 §4), with or without the = at the end. */
void text_add_base64(struct buf *out, struct str s, bool is_padded);
/* Lower case, two digits a byte. */
void text_add_hex(struct buf *out, struct str s);
/* With its quotes (RFC 8259 §7). Bytes that are no UTF-8 become U+FFFD, one each. */
void text_add_json_string(struct buf *out, struct str s);
void text_add_u64(struct buf *out, uint64_t v);
void text_add_i64(struct buf *out, int64_t v);

#endif
