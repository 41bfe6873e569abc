/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration from a stranger's text: YAML, merging with itself, substitution, option tables,
 * references. Whatever loads must print as YAML that loads again.
 */
#include <stdint.h>
#include <stdlib.h>

#include "common/pipeline/config.h"
#include "common/pipeline/option_print.h"
#include "test/unit/common/pipeline/sample_components.h"

static int load(struct config **out, struct str text, struct buf *problems)
{
    struct buf b;
    buf_init(&b);
    buf_add_cstr(&b, "yaml:");
    buf_add_str(&b, text);
    struct config_source twice[] = {{buf_cstr(&b), false}, {buf_cstr(&b), false}};
    int rc = config_load(out, twice, 2, sample_components, problems);
    buf_fini(&b);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *c = NULL, *again = NULL;
    struct buf problems, printed;

    if (size > 65536 || memmem(data, size, "file:", 5)) /* reads no files of the host */
        return 0;
    buf_init(&problems);
    buf_init(&printed);
    if (load(&c, str_make(data, size), &problems) == 0) {
        config_print(c, false, &printed);
        if (load(&again, buf_str(&printed), &problems) < 0)
            abort();
    }
    config_free(&c);
    config_free(&again);
    buf_fini(&problems);
    buf_fini(&printed);
    return 0;
}
