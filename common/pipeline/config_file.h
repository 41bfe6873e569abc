/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML files of a fixed shape (rules, tables), read into structs by a libcyaml schema. Pipeline
 * files, whose keys are free, are config.h's.
 */
#ifndef PIPELINE_CONFIG_FILE_H
#define PIPELINE_CONFIG_FILE_H

#include "common/base/err.h"

struct cyaml_schema_value;

/*
 * Reads the file into *out, which the schema describes (a mapping with CYAML_FLAG_POINTER). On
 * failure -errno, and the error is "path:line:column: what". *text is the file's content, for
 * config_file_error and for telling files apart; freed by the caller.
 */
int config_file_load(const char *path, const struct cyaml_schema_value *schema, void **out,
                     char **text, struct err *e);
void config_file_free(const struct cyaml_schema_value *schema, void **data);
/* Puts the place of entry i of the list under `key` before the error's text. */
void config_file_place(const char *path, const char *text, const char *key, size_t i,
                       struct err *e);

#endif
