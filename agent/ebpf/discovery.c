/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/discovery.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>

#include "common/base/str.h"
#include "common/pipeline/config_file.h"

enum { RULES_MAX = 10000, ITEMS_MAX = 1000, NAME_MAX_BYTES = 255, VALUE_MAX_BYTES = 4096 };
#define OPTIONAL (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)

static const cyaml_schema_field_t attribute_fields[] = {
    CYAML_FIELD_STRING_PTR("key", CYAML_FLAG_POINTER, struct discovery_attribute, key, 1,
                           NAME_MAX_BYTES),
    CYAML_FIELD_STRING_PTR("value", CYAML_FLAG_POINTER, struct discovery_attribute, value, 0,
                           VALUE_MAX_BYTES),
    CYAML_FIELD_END};

static const cyaml_schema_value_t attribute_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct discovery_attribute, attribute_fields)};
static const cyaml_schema_value_t text_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, VALUE_MAX_BYTES)};
static const cyaml_schema_value_t pid_schema = {CYAML_VALUE_UINT(CYAML_FLAG_DEFAULT, uint32_t)};

static const cyaml_schema_field_t rule_fields[] = {
    CYAML_FIELD_STRING_PTR("name", OPTIONAL, struct discovery_rule, name, 1, NAME_MAX_BYTES),
    CYAML_FIELD_STRING_PTR("namespace", OPTIONAL, struct discovery_rule, namespace, 1,
                           NAME_MAX_BYTES),
    CYAML_FIELD_SEQUENCE_COUNT("ports", OPTIONAL, struct discovery_rule, ports, n_ports,
                               &text_schema, 1, ITEMS_MAX),
    CYAML_FIELD_SEQUENCE_COUNT("executables", OPTIONAL, struct discovery_rule, executables,
                               n_executables, &text_schema, 1, ITEMS_MAX),
    CYAML_FIELD_SEQUENCE_COUNT("pids", OPTIONAL, struct discovery_rule, pids, n_pids, &pid_schema,
                               1, ITEMS_MAX),
    CYAML_FIELD_SEQUENCE_COUNT("attributes", OPTIONAL, struct discovery_rule, attributes,
                               n_attributes, &attribute_schema, 1, ITEMS_MAX),
    CYAML_FIELD_END};

static const cyaml_schema_value_t rule_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct discovery_rule, rule_fields)};
static const cyaml_schema_field_t file_fields[] = {
    CYAML_FIELD_SEQUENCE_COUNT("rules", CYAML_FLAG_POINTER, struct discovery, rules, n_rules,
                               &rule_schema, 1, RULES_MAX),
    CYAML_FIELD_END};
static const cyaml_schema_value_t file_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct discovery, file_fields)};

bool port_range_read(const char *text, uint16_t *from, uint16_t *to)
{
    const char *dash = strchr(text, '-');
    struct str first = dash ? str_make(text, (size_t)(dash - text)) : str_of(text);
    struct str last = dash ? str_of(dash + 1) : first;
    uint64_t a, b;

    if (str_to_u64(str_trim(first), &a) || str_to_u64(str_trim(last), &b) || a < 1 || b > 65535 ||
        a > b)
        return false;
    *from = (uint16_t)a;
    *to = (uint16_t)b;
    return true;
}

/* What a schema cannot say. */
static int check(const struct discovery_rule *r, struct err *e)
{
    uint16_t from, to;

    if (!r->n_ports && !r->n_executables && !r->n_pids)
        return err_set(e, -EINVAL, "the rule matches nothing: one of ports, executables, pids");
    for (unsigned i = 0; i < r->n_ports; i++)
        if (!port_range_read(r->ports[i], &from, &to))
            return err_set(e, -EINVAL, "ports: '%s' is no port and no range of ports", r->ports[i]);
    for (unsigned i = 0; i < r->n_pids; i++)
        if (r->pids[i] == 0)
            return err_set(e, -EINVAL, "pids: 0 is no process number");
    for (unsigned i = 0; i < r->n_attributes; i++)
        if (strcmp(r->attributes[i].key, "service.name") == 0 ||
            strcmp(r->attributes[i].key, "service.namespace") == 0)
            return err_set(e, -EINVAL, "attributes: %s is what name and namespace say",
                           r->attributes[i].key);
    return 0;
}

int discovery_load(struct discovery **out, const char *path, char **text, struct err *e)
{
    void *data = NULL;
    int res = config_file_load(path, &file_schema, &data, text, e);

    *out = data;
    for (unsigned i = 0; !res && i < (*out)->n_rules; i++) {
        res = check(&(*out)->rules[i], e);
        if (res)
            config_file_place(path, *text, "rules", i, e);
    }
    if (res) {
        discovery_free(out);
        free(*text);
        *text = NULL;
    }
    return res;
}

void discovery_free(struct discovery **d)
{
    void *data = *d;

    if (data)
        config_file_free(&file_schema, &data);
    *d = NULL;
}

uint32_t discovery_by_port(const struct discovery *d, uint16_t port)
{
    uint16_t from, to;

    for (unsigned i = 0; d && i < d->n_rules; i++)
        for (unsigned k = 0; k < d->rules[i].n_ports; k++)
            if (port_range_read(d->rules[i].ports[k], &from, &to) && port >= from && port <= to)
                return i;
    return DISCOVERY_NONE;
}

uint32_t discovery_by_executable(const struct discovery *d, const char *path)
{
    for (unsigned i = 0; d && i < d->n_rules; i++)
        for (unsigned k = 0; k < d->rules[i].n_executables; k++)
            if (fnmatch(d->rules[i].executables[k], path, 0) == 0)
                return i;
    return DISCOVERY_NONE;
}

uint32_t discovery_by_pid(const struct discovery *d, uint32_t pid)
{
    for (unsigned i = 0; d && i < d->n_rules; i++)
        for (unsigned k = 0; k < d->rules[i].n_pids; k++)
            if (d->rules[i].pids[k] == pid)
                return i;
    return DISCOVERY_NONE;
}

const struct discovery_rule *discovery_rule(const struct discovery *d, uint32_t i)
{
    return d && i < d->n_rules ? &d->rules[i] : NULL;
}
