/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OTLP/JSON from hostile bytes. What the validating reader accepted is written without an error and
 * is a JSON document of one line for cJSON; what only the walk accepted may be refused, no more.
 *
 * Input: [signal and flags][an Export*ServiceRequest].
 */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "common/otlp/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
    do {                                                                                           \
        if (!(x))                                                                                  \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct batch *b = NULL;
    struct err e = {0};
    struct buf out;

    if (size < 1)
        return 0;
    unsigned flags = data[0] & 0x80 ? BATCH_VALIDATE : 0;
    struct chunk *c = chunk_new(size);
    CHECK(c);
    memcpy(c->data, data + 1, size - 1);
    c->len = size - 1;
    if (batch_read(&b, (enum signal)(data[0] % SIGNAL_COUNT), c, 0, size - 1, flags, &e) == 0) {
        buf_init(&out);
        batch_to_json(b, &out);
        CHECK(!flags || !buf_error(&out));
        if (!buf_error(&out)) {
            CHECK(str_is_utf8(out.p, out.n) && !memchr(out.p, '\n', out.n));
            cJSON *doc = cJSON_ParseWithLength(out.p, out.n);
            CHECK(doc);
            cJSON_Delete(doc);
        }
        buf_fini(&out);
        batch_unref(&b);
    }
    chunk_unref(&c);
    return 0;
}
