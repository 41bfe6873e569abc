/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text errors, for start-up and configuration only. The data path has codes and counters.
 * A function that takes `struct err *` returns -errno and sets the text before it returns.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>

#include "common/base/mem.h"

struct err {
    char text[1024];
};

/* Sets the text (cut at the struct's size) and returns `code`, so that `return err_set(...)` works.
 */
int err_set(struct err *e, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Puts "context: " in front of the text. */
void err_prefix(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
