/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/text.h"

void text_add_base64(struct buf *out, struct str s, bool is_padded)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < s.n; i += 3) {
        size_t left = s.n - i;
        uint32_t v = (uint32_t)(uint8_t)s.p[i] << 16;
        v |= left > 1 ? (uint32_t)(uint8_t)s.p[i + 1] << 8 : 0;
        v |= left > 2 ? (uint32_t)(uint8_t)s.p[i + 2] : 0;
        char quad[4] = {digits[v >> 18], digits[v >> 12 & 63], left > 1 ? digits[v >> 6 & 63] : '=',
                        left > 2 ? digits[v & 63] : '='};
        buf_add(out, quad, is_padded || left > 2 ? 4 : left + 1);
    }
}

void text_add_hex(struct buf *out, struct str s)
{
    static const char digits[] = "0123456789abcdef";
    char *p = s.n ? buf_reserve(out, 2 * s.n) : NULL;
    if (!p)
        return;
    for (size_t i = 0; i < s.n; i++) {
        p[2 * i] = digits[(uint8_t)s.p[i] >> 4];
        p[2 * i + 1] = digits[s.p[i] & 15];
    }
    buf_commit(out, 2 * s.n);
}

/* Length of the UTF-8 sequence that s begins with; 0: none. */
static size_t sequence(struct str s)
{
    for (size_t n = 1; n <= 4 && n <= s.n; n++)
        if (str_is_utf8(s.p, n))
            return n;
    return 0;
}

void text_add_json_string(struct buf *out, struct str s)
{
    if (s.n == 0) {
        buf_add_cstr(out, "\"\"");
        return;
    }
    bool is_text = str_is_utf8(s.p, s.n);
    size_t from = 0;
    buf_add_byte(out, '"');
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        bool is_plain = c >= 0x20 && c != '"' && c != '\\';
        if (is_plain && (is_text || c < 0x80))
            continue;
        size_t step = is_plain ? sequence(str_make(s.p + i, s.n - i)) : 0;
        if (step > 0) {
            i += step - 1;
            continue;
        }
        buf_add(out, s.p + from, i - from);
        from = i + 1;
        if (is_plain)
            buf_add_cstr(out, "\xef\xbf\xbd");
        else if (c < 0x20)
            buf_addf(out, "\\u%04x", c);
        else
            buf_addf(out, "\\%c", c);
    }
    buf_add(out, s.p + from, s.n - from);
    buf_add_byte(out, '"');
}

void text_add_u64(struct buf *out, uint64_t v)
{
    char text[20];
    size_t at = sizeof(text);
    do {
        text[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    buf_add(out, text + at, sizeof(text) - at);
}

void text_add_i64(struct buf *out, int64_t v)
{
    if (v < 0)
        buf_add_byte(out, '-');
    text_add_u64(out, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}
