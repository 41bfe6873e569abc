/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration in force as YAML: every key with its value, defaults included. */
#include "common/pipeline/config_load.h"
#include "common/pipeline/option_print.h"
#include "common/pipeline/option_value.h"

static void print_section(const struct config *c, enum component_kind kind, bool redact,
                          struct buf *out)
{
    const struct config_component *all = c->components.items;
    bool any = false;

    for (size_t i = 0; i < c->components.n; i++) {
        if (all[i].component->kind != kind)
            continue;
        if (!any)
            buf_addf(out, "%s:\n", kind_section(kind));
        any = true;
        const struct option *table = all[i].component->options;
        bool empty = !table || !table->key;
        buf_addf(out, "  %s:%s\n", all[i].id, empty ? " {}" : "");
        options_print(table, all[i].config, 2, redact, out);
    }
}

static void print_ids(const char *key, unsigned indent, const struct option_list *ids,
                      struct buf *out)
{
    buf_addf(out, "%*s%s: [", (int)indent, "", key);
    for (size_t i = 0; i < ids->n; i++)
        buf_addf(out, "%s%s", i ? ", " : "", ((const char **)ids->items)[i]);
    buf_add_cstr(out, "]\n");
}

static void print_telemetry(const struct config_telemetry *t, struct buf *out)
{
    static const char *const logs[] = {"debug", "info", "warn", "error"};
    static const char *const levels[] = {"none", "basic", "normal", "detailed"};
    const struct option_pair *p = t->resource.items;

    buf_addf(out, "  telemetry:\n    logs:\n      level: %s\n      encoding: %s\n",
             logs[t->logs_level], t->logs_json ? "json" : "console");
    buf_addf(out, "    metrics:\n      level: %s\n", levels[t->metrics_level]);
    if (t->metrics_on) {
        buf_add_cstr(out, "      readers:\n        - pull:\n            exporter:\n"
                          "              prometheus:\n                host: ");
        yaml_print_text(t->metrics_host, out);
        buf_addf(out,
                 "\n                port: %llu\n                without_type_suffix: %s\n"
                 "                without_units: %s\n                without_scope_info: %s\n",
                 (unsigned long long)t->metrics_port, t->without_type_suffix ? "true" : "false",
                 t->without_units ? "true" : "false", t->without_scope_info ? "true" : "false");
    }
    if (t->resource.n)
        buf_add_cstr(out, "    resource:\n");
    for (size_t i = 0; i < t->resource.n; i++) {
        buf_add_cstr(out, "      ");
        yaml_print_key(p[i].key, out);
        buf_add_cstr(out, ": ");
        if (p[i].value)
            yaml_print_text(p[i].value, out);
        else
            buf_add_cstr(out, "null");
        buf_add_byte(out, '\n');
    }
}

void config_print(const struct config *c, bool redact, struct buf *out)
{
    const struct config_pipeline *p = c->pipelines.items;
    char timeout[48];

    for (enum component_kind k = 0; k < KIND_COUNT; k++)
        print_section(c, k, redact, out);
    buf_add_cstr(out, "service:\n");
    print_ids("extensions", 2, &c->extensions, out);
    buf_add_cstr(out, "  pipelines:\n");
    for (size_t i = 0; i < c->pipelines.n; i++) {
        buf_addf(out, "    %s:\n", p[i].id);
        print_ids("receivers", 6, &p[i].receivers, out);
        print_ids("processors", 6, &p[i].processors, out);
        print_ids("exporters", 6, &p[i].exporters, out);
    }
    value_duration_text(c->shutdown_timeout_ns, timeout, sizeof(timeout));
    buf_addf(out, "  shutdown_timeout: %s\n", timeout);
    print_telemetry(&c->telemetry, out);
}
