/* SPDX-License-Identifier: Apache-2.0 */
/* Problems as lines, in the order of their places. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/pipeline/config_tree.h"

/* Where a line of the report stands in its text, and the place that it is about. */
struct report_line {
    struct yaml_mark mark;
    unsigned file, seq; /* number of the file, of the line: by first appearance */
    size_t at, n;
};

/* Notes the line that has just been added. Without memory the order stays as it is. */
static void index_line(struct report *r, const struct yaml_mark *mark, size_t at)
{
    struct report_line *v = try_realloc(r->lines, (r->n_lines + 1) * sizeof(*v));
    if (!v)
        return;
    struct report_line *l = &v[r->n_lines];
    *l = (struct report_line){.seq = (unsigned)r->n_lines, .at = at, .n = r->out->n - at};
    if (mark && mark->file) {
        l->mark = *mark;
        l->file = (unsigned)r->n_lines + 1;
    }
    for (size_t i = 0; l->mark.file && i < r->n_lines; i++) {
        if (v[i].mark.file && strcmp(v[i].mark.file, l->mark.file) == 0) {
            l->file = v[i].file;
            break;
        }
    }
    r->lines = v;
    r->n_lines++;
}

static void add_line(struct report *r, const struct yaml_mark *mark, const char *path,
                     const char *word, const char *text)
{
    size_t at = r->out->n;
    if (mark && mark->file && mark->line)
        buf_addf(r->out, "%s:%u:%u: ", mark->file, mark->line, mark->column);
    else if (mark && mark->file)
        buf_addf(r->out, "%s: ", mark->file);
    buf_add_cstr(r->out, word);
    if (path && *path)
        buf_addf(r->out, "%s: ", path);
    buf_addf(r->out, "%s\n", text);
    if (r->is_sorted)
        index_line(r, mark, at);
}

static int line_cmp(const void *a, const void *b)
{
    const struct report_line *x = a, *y = b;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    if (x->mark.line != y->mark.line)
        return x->mark.line < y->mark.line ? -1 : 1;
    if (x->mark.column != y->mark.column)
        return x->mark.column < y->mark.column ? -1 : 1;
    return x->seq < y->seq ? -1 : 1;
}

void report_sort(struct report *r)
{
    struct buf sorted;
    size_t first = r->n_lines ? r->lines[0].at : 0, sum = 0;

    buf_init(&sorted);
    if (r->n_lines > 1)
        qsort(r->lines, r->n_lines, sizeof(*r->lines), line_cmp);
    for (size_t i = 0; i < r->n_lines && !buf_error(r->out); i++) {
        buf_add(&sorted, r->out->p + r->lines[i].at, r->lines[i].n);
        sum += r->lines[i].n;
    }
    /* Only if each line was noted: a report in disorder is better than one with a hole. */
    if (!buf_error(&sorted) && !buf_error(r->out) && first + sum == r->out->n && sum)
        memcpy(r->out->p + first, sorted.p, sum);
    buf_fini(&sorted);
    free(r->lines);
    r->lines = NULL;
    r->n_lines = 0;
}

void report_error(struct report *r, const struct yaml_mark *mark, const char *path, const char *fmt,
                  ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    r->errors++;
    add_line(r, mark, path, "", text);
}

void report_warning(struct report *r, const struct yaml_mark *mark, const char *path,
                    const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    r->warnings++;
    add_line(r, mark, path, "warning: ", text);
}

int report_nomem(struct report *r)
{
    r->errors++;
    if (!r->nomem)
        add_line(r, NULL, NULL, "", "out of memory while the configuration was read");
    r->nomem = true;
    return -ENOMEM;
}
