/* SPDX-License-Identifier: Apache-2.0 */
#include "common/components/exporters/prometheus_labels.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/components/exporters/prometheus_naming.h"

void prometheus_labels_init(struct prometheus_labels *l)
{
    *l = (struct prometheus_labels){0};
    buf_init(&l->text);
}

void prometheus_labels_fini(struct prometheus_labels *l)
{
    buf_fini(&l->text);
    free(l->v);
    *l = (struct prometheus_labels){0};
}

void prometheus_labels_add(struct prometheus_labels *l, struct str key, struct str value)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 16;
        l->v = xrealloc(l->v, l->cap * sizeof(*l->v));
    }
    struct prometheus_label *x = &l->v[l->n++];
    x->name = (uint32_t)l->text.n;
    prometheus_label_name(&l->text, key);
    x->value = (uint32_t)l->text.n;
    prometheus_label_value(&l->text, value);
    x->end = (uint32_t)l->text.n;
}

void prometheus_labels_cut(struct prometheus_labels *l, uint32_t n)
{
    if (n >= l->n)
        return;
    l->text.n = l->v[n].name;
    l->n = n;
}

struct sorted_label {
    struct str name, value;
    uint32_t place; /* among those of one name the order of arrival */
};

static int by_name(const void *a, const void *b)
{
    const struct sorted_label *x = a, *y = b;
    int order = str_cmp(x->name, y->name);
    return order ? order : (x->place > y->place) - (x->place < y->place);
}

static int write_sorted(struct buf *out, const struct sorted_label *v, uint32_t n, bool joins)
{
    for (uint32_t i = 0; i < n; i++) {
        bool again = i > 0 && str_eq(v[i].name, v[i - 1].name);
        if (again && !joins)
            return -EEXIST;
        if (again) {
            out->n--; /* the quote */
            buf_add_byte(out, ';');
        } else {
            if (i > 0)
                buf_add_byte(out, ',');
            buf_add_str(out, v[i].name);
            buf_add_cstr(out, "=\"");
        }
        buf_add_str(out, v[i].value);
        buf_add_byte(out, '"');
    }
    return buf_error(out);
}

int prometheus_labels_write(struct buf *out, const struct prometheus_labels *l, bool joins)
{
    if (buf_error(&l->text))
        return buf_error(&l->text);
    struct sorted_label *v = xcalloc(l->n + 1u, sizeof(*v));
    for (uint32_t i = 0; i < l->n; i++) {
        const struct prometheus_label *x = &l->v[i];
        v[i] = (struct sorted_label){str_make(l->text.p + x->name, x->value - x->name),
                                     str_make(l->text.p + x->value, x->end - x->value), i};
    }
    qsort(v, l->n, sizeof(*v), by_name);
    int r = write_sorted(out, v, l->n, joins);
    free(v);
    return r;
}
