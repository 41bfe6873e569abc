/* SPDX-License-Identifier: Apache-2.0 */
/* Cryptographic digests, by OpenSSL. */
#ifndef IO_DIGEST_H
#define IO_DIGEST_H

#include <stddef.h>

#define DIGEST_SHA256_HEX 64

/* SHA-256 (FIPS 180-4) of n bytes as 64 lower-case hexadecimal digits and a NUL. */
void digest_sha256_hex(const void *p, size_t n, char hex[DIGEST_SHA256_HEX + 1]);

#endif
