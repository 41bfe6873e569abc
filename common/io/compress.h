/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole-buffer compression: libdeflate in, ISA-L out, zstd both ways. Sizes that a peer claims are
 * hints: output never passes max_out.
 */
#ifndef IO_COMPRESS_H
#define IO_COMPRESS_H

#include "common/base/chunk.h"
#include "common/base/str.h"

enum coding { CODING_IDENTITY, CODING_GZIP, CODING_ZLIB, CODING_ZSTD, CODING_UNKNOWN };

/* "", "identity", "gzip", "deflate", "zlib", "zstd". */
enum coding coding_parse(struct str name);

/*
 * The decoded bytes behind `headroom` spare ones in a new chunk. -EBADMSG for broken data, -E2BIG
 * when it is larger than max_out, -ENOMEM when memory or `ceiling` (of mem_reserve; 0 = the limit)
 * does not allow what it grows to. Several gzip members or zstd frames in a row are one body.
 */
struct coding_limits {
    size_t max_out;
    uint64_t ceiling;
};
int coding_decode(struct chunk **out, enum coding c, struct str in, size_t headroom,
                  const struct coding_limits *l) MUSTCHECK;
/* The same the other way (gzip and zstd; level 1). */
int coding_encode(struct chunk **out, enum coding c, struct str in, size_t headroom) MUSTCHECK;

#endif
