/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread that writes one file. Exporters of all signals, and of the generation before a reload,
 * share it if they name the same path with the same options.
 */
#ifndef EXPORTERS_FILE_WRITER_H
#define EXPORTERS_FILE_WRITER_H

#include "common/base/log.h"
#include "common/otlp/batch.h"

enum file_format { FILE_JSON, FILE_PROTO };
enum file_compression { FILE_PLAIN, FILE_ZSTD, FILE_UNSET };

struct file_config {
    const char *path, *directory_permissions; /* the latter octal */
    int format, compression;
    bool append, create_directory;
    bool rotation_on, localtime;
    uint64_t max_megabytes, max_days, max_backups; /* 0: 100; no age; keep all */
};

/* One batch to be written: in the caller's storage until done was called, on the writer's thread.
 */
struct file_job {
    struct file_job *next;
    struct batch *batch; /* borrowed */
    int error;           /* 0 or -errno; then nothing of it is in the file */
    void (*done)(struct file_job *j);
};

struct file_writer;
/* Opens the file and starts the thread, or shares them. -errno with the path in e. */
int file_writer_open(struct file_writer **out, const struct file_config *c, struct log_ctx log,
                     struct err *e) MUSTCHECK;
/* From any thread. */
void file_writer_write(struct file_writer *w, struct file_job *j);
/* The last one waits until all jobs are done, then closes the file. */
void file_writer_close(struct file_writer **w);

/*
 * file_rotate.c: gives the file at `path` the name path-TIME.ext, and removes what is beyond
 * max_backups or older than max_days. 0 when the path is free now, else -errno.
 */
int file_rotate(const char *path, const struct file_config *c) MUSTCHECK;

#endif
