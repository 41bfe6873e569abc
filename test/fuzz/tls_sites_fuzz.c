/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of strangers' processes: libraries in which places for probes are looked for. Whatever is
 * found lies in the file, and its code is what was looked at.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/ebpf/tls_sites.h"
#include "agent/ebpf/x86.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct tls_site *s, size_t size)
{
    if (!s->name || !s->offset || s->offset > size - TLS_CODE)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("library", MFD_CLOEXEC);
    struct tls_sites s;
    struct x86_insn i;

    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    if (x86_decode(data, size, &i) && (i.len == 0 || i.len > size))
        abort();
    if (tls_sites_find(&s, fd) == 0) {
        if (s.n > TLS_SITES || s.n_behind > TLS_BEHIND || !tls_sites_hold(&s, fd))
            abort();
        for (unsigned k = 0; k < s.n; k++)
            check(&s.sites[k], size);
        for (unsigned k = 0; k < s.n_behind; k++)
            check(&s.behind[k], size);
    }
    close(fd);
    return 0;
}
