/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file: writes telemetry to a file, as JSON, a line a batch, or as protobuf messages behind their
 * lengths. No queue: who sent a batch is answered when it is written.
 *
 *   consume ─► queue (off) ─► push ─► writer's thread ─► back on the loop: queue_done
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/components/exporters/file_writer.h"
#include "common/pipeline/queue.h"

static const char *const formats[] = {"json", "proto", NULL};
static const char *const compressions[] = {"none", "zstd", "", NULL};

#define AT(field) offsetof(struct file_config, field)
static const struct option rotation_options[] = {
    {.key = "max_megabytes",
     .type = OPT_UINT,
     .offset = AT(max_megabytes),
     .def = "100",
     .help = "Size at which a file is given its final name and a new one begun; 0: 100."},
    {.key = "max_days",
     .type = OPT_UINT,
     .offset = AT(max_days),
     .def = "0",
     .max = 36500,
     .help = "Age at which rotated files are removed; 0: never."},
    {.key = "max_backups",
     .type = OPT_UINT,
     .offset = AT(max_backups),
     .def = "100",
     .help = "Rotated files that are kept; 0: all."},
    {.key = "localtime",
     .type = OPT_BOOL,
     .offset = AT(localtime),
     .def = "false",
     .help = "Names of rotated files have local time, not UTC."},
    OPTION_END,
};

static const struct option file_options[] = {
    {.key = "path",
     .type = OPT_STRING,
     .offset = AT(path),
     .flags = OPT_REQUIRED,
     .help = "The file. Without append or rotation it is emptied at start."},
    {.key = "format",
     .type = OPT_ENUM,
     .offset = AT(format),
     .names = formats,
     .def = "json",
     .help = "json: a line for each batch. proto: a 4-byte big-endian length before each message."},
    {.key = "compression",
     .type = OPT_ENUM,
     .offset = AT(compression),
     .names = compressions,
     .def = "none",
     .help = "zstd: each message is compressed by itself, with its length in front in both "
             "formats."},
    {.key = "append",
     .type = OPT_BOOL,
     .offset = AT(append),
     .def = "false",
     .help = "Keep what is in the file at start."},
    {.key = "rotation",
     .type = OPT_STRUCT,
     .offset = 0,
     .sub = rotation_options,
     .presence = OPT_OFF_DEFAULT,
     .on_offset = AT(rotation_on),
     .help = "Begin a new file when one is full."},
    {.key = "create_directory",
     .type = OPT_BOOL,
     .offset = AT(create_directory),
     .def = "false",
     .help = "Make the directories above the file."},
    {.key = "directory_permissions",
     .type = OPT_STRING,
     .offset = AT(directory_permissions),
     .def = "0755",
     .help = "Mode of directories that are made, octal."},
    OPTION_NO_EFFECT("flush_interval", "Every batch is written before it is acknowledged."),
    OPTION_UNSUPPORTED("group_by"),
    OPTION_UNSUPPORTED("encoding"),
    OPTION_END,
};

#define FILE_MAGIC 0x46494c45u

/* Waiting for the writer at which the entry closes, and opens again. */
enum { CLOSE_BYTES = 32 << 20, OPEN_BYTES = 8 << 20 };

struct file_exporter {
    unsigned magic;
    _Atomic unsigned refs; /* the instance's and one per attempt */
    struct queue *queue;
    struct file_writer *writer;
    _Atomic uint64_t waiting_bytes;
    struct entry entry;
};

struct attempt {
    struct file_job job;
    struct task task;
    struct file_exporter *self;
    struct queue_request *request;
    struct loop *loop;
};

/* No queue and no retry: the sender is told. */
static const struct queue_config no_queue;

static void unref(struct file_exporter *self)
{
    if (atomic_fetch_sub(&self->refs, 1) > 1)
        return;
    entry_fini(&self->entry);
    CLEAR_MAGIC(self);
    free(self);
}

static bool is_full(void *arg, bool was)
{
    struct file_exporter *self = arg;
    return self->waiting_bytes >= (was ? OPEN_BYTES : CLOSE_BYTES);
}

/* Counts bytes in (out: negative); closes or opens the entry. */
static void count_waiting(struct file_exporter *self, int64_t bytes)
{
    self->waiting_bytes += (uint64_t)bytes;
    entry_update(&self->entry, is_full, self);
}

/* On the request's loop. */
static void on_written(struct task *task)
{
    struct attempt *t = CONTAINER_OF(task, struct attempt, task);
    struct file_exporter *self = t->self;
    struct outcome o = {.kind = OUTCOME_SENT, .reason = "written"};
    if (t->job.error)
        o = (struct outcome){.kind =
                                 t->job.error == -EBADMSG ? OUTCOME_PERMANENT : OUTCOME_RETRYABLE,
                             .reason = "the file cannot be written",
                             .detail = strerror(-t->job.error)};
    count_waiting(self, -(int64_t)t->job.batch->bytes);
    queue_done(self->queue, t->request, &o);
    batch_unref(&t->job.batch);
    free(t);
    unref(self);
}

/* On the writer's thread. */
static void on_job(struct file_job *j)
{
    struct attempt *t = CONTAINER_OF(j, struct attempt, job);
    t->task.run = on_written;
    loop_post(t->loop, &t->task);
}

static void push(struct instance *in, struct queue_request *request)
{
    struct file_exporter *self = CAST_OBJ(struct file_exporter, in->self, FILE_MAGIC);
    struct attempt *t = xcalloc(1, sizeof(*t));
    t->self = self;
    t->request = request;
    t->loop = request->loop;
    t->job.batch = batch_ref(request->batch);
    t->job.done = on_job;
    self->refs++;
    count_waiting(self, (int64_t)request->batch->bytes);
    file_writer_write(self->writer, &t->job);
}

/* ---- life ---- */

static int file_validate(const void *config, struct err *e)
{
    const struct file_config *c = config;
    char *end;
    unsigned long mode = strtoul(c->directory_permissions, &end, 8);
    if (!c->path[0])
        return err_set(e, -EINVAL, "path must be non-empty");
    if (c->append && c->rotation_on)
        return err_set(e, -EINVAL, "append and rotation cannot be used together");
    if (c->append && c->compression == FILE_ZSTD)
        return err_set(e, -EINVAL, "append and compression cannot be used together");
    if (*end || end == c->directory_permissions || mode > 0777)
        return err_set(e, -EINVAL, "directory_permissions: want an octal mode such as \"0755\"");
    return 0;
}

static int file_create(struct instance *in, struct err *e)
{
    struct file_exporter *self = xcalloc(1, sizeof(*self));
    (void)e;
    SET_MAGIC(self, FILE_MAGIC);
    self->refs = 1;
    entry_init(&self->entry, in);
    in->self = self;
    return queue_new(&self->queue, in, &no_queue, push);
}

static int file_start(struct instance *in, struct err *e)
{
    struct file_exporter *self = in->self;
    int r = file_writer_open(&self->writer, in->config, in->log, e);
    if (r == 0)
        queue_start(self->queue);
    return r;
}

static void file_consume(struct instance *in, struct batch *b, struct ack *a)
{
    struct file_exporter *self = CAST_OBJ(struct file_exporter, in->self, FILE_MAGIC);
    queue_consume(self->queue, b, a);
}

static void file_stop(struct instance *in)
{
    struct file_exporter *self = in->self;
    queue_stop(self->queue);
}

static void file_abandon(struct instance *in)
{
    struct file_exporter *self = in->self;
    queue_abandon(self->queue);
}

static uint64_t file_held(struct instance *in)
{
    struct file_exporter *self = in->self;
    return queue_held(self->queue);
}

static void file_free(struct instance *in)
{
    struct file_exporter *self = CAST_OBJ(struct file_exporter, in->self, FILE_MAGIC);
    in->self = NULL;
    file_writer_close(&self->writer);
    queue_free(&self->queue);
    unref(self);
}

const struct component file_component = {
    .kind = KIND_EXPORTER,
    .name = "file",
    .help = "Writes telemetry to a file.",
    .signals = SIGNAL_ALL,
    .stability = STABILITY_ALPHA,
    .affinity = AFFINITY_PROCESS,
    .options = file_options,
    .config_size = sizeof(struct file_config),
    .validate = file_validate,
    .create = file_create,
    .start = file_start,
    .consume = file_consume,
    .stop = file_stop,
    .abandon = file_abandon,
    .held = file_held,
    .free = file_free,
};
