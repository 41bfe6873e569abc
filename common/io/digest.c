/* SPDX-License-Identifier: Apache-2.0 */
#include "common/io/digest.h"

#include <openssl/evp.h>

#include "common/base/mem.h"

void digest_sha256_hex(const void *p, size_t n, char hex[DIGEST_SHA256_HEX + 1])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    int ok = EVP_Digest(p ? p : "", n, md, &len, EVP_sha256(), NULL);
    ASSERT(ok == 1 && len * 2 == DIGEST_SHA256_HEX);
    for (size_t i = 0; i < len; i++) {
        hex[2 * i] = digits[md[i] >> 4];
        hex[2 * i + 1] = digits[md[i] & 15];
    }
    hex[DIGEST_SHA256_HEX] = '\0';
}
