/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   file_writer_write ─► jobs ─► thread: encode ─► [rotate] ─► write ─► done
 *
 * A write that ends short is taken back, so that the file holds whole messages only.
 */
#include "common/components/exporters/file_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/io/compress.h"
#include "common/otlp/json.h"

enum { LENGTH_PREFIX = 4 };

struct file_writer {
    struct file_writer *next; /* in the registry */
    unsigned refs;
    struct file_config c; /* strings are its own */
    struct log_ctx log;
    char *id;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct file_job *first, **last;
    bool is_ending;
    /* The thread's own: */
    int fd;
    uint64_t size;
    struct buf text;
};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct file_writer *registry;

/* ---- the file ---- */

static int open_file(struct file_writer *w, bool is_first)
{
    int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
    bool keeps = w->c.append || w->c.rotation_on || !is_first;
    int fd = open(w->c.path, flags | (keeps ? 0 : O_TRUNC), 0644);
    struct stat st;
    if (fd < 0)
        return -errno;
    w->size = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    w->fd = fd;
    return 0;
}

/* All directories above the path that are not there. */
static int make_directories(const struct file_config *c)
{
    mode_t mode = (mode_t)strtoul(c->directory_permissions, NULL, 8);
    char *path = xstrdup(c->path);
    int r = 0;
    for (char *p = path + 1; r == 0 && (p = strchr(p, '/')); *p++ = '/') {
        *p = '\0';
        if (mkdir(path, mode) && errno != EEXIST)
            r = -errno;
    }
    free(path);
    return r;
}

/* The file goes on under its name if it cannot be rotated: data first. */
static void rotate(struct file_writer *w)
{
    int r = file_rotate(w->c.path, &w->c);
    int old = w->fd;
    if (r == 0)
        r = open_file(w, false);
    if (r == 0)
        close(old);
    else
        log_error(&w->log, "%s: cannot be rotated: %s", w->c.path, strerror(-r));
}

static int write_all(struct file_writer *w, const char *p, size_t n)
{
    uint64_t most = (w->c.max_megabytes ? w->c.max_megabytes : 100) << 20;
    if (w->c.rotation_on && w->size > 0 && w->size + n > most)
        rotate(w);
    for (size_t at = 0; at < n;) {
        ssize_t k = write(w->fd, p + at, n - at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            int r = k < 0 ? -errno : -EIO;
            if (at > 0 && ftruncate(w->fd, (off_t)w->size) && errno != EINVAL)
                log_error(&w->log, "%s: part of a message stays behind: %s", w->c.path,
                          strerror(errno));
            return r;
        }
        at += (size_t)k;
    }
    w->size += n;
    return 0;
}

/* ---- one batch ---- */

/* The message with its length in front, compressed if asked for. */
static int framed(struct chunk **out, struct file_writer *w, const struct batch *b)
{
    bool is_zstd = w->c.compression == FILE_ZSTD;
    struct chunk *plain = NULL;
    int r = 0;
    if (w->c.format == FILE_PROTO)
        r = batch_frame(&plain, b, is_zstd ? 0 : LENGTH_PREFIX);
    if (r)
        return r;
    if (is_zstd) {
        struct str s = plain ? str_make(plain->data, plain->len) : buf_str(&w->text);
        r = coding_encode(out, CODING_ZSTD, s, LENGTH_PREFIX);
        chunk_unref(&plain);
        if (r)
            return r;
    } else {
        *out = plain;
    }
    ASSERT(*out); /* JSON without compression has no length in front */
    size_t n = (*out)->len - LENGTH_PREFIX;
    for (unsigned i = 0; i < LENGTH_PREFIX; i++)
        (*out)->data[i] = (uint8_t)(n >> (24 - 8 * i));
    return 0;
}

static int write_batch(struct file_writer *w, const struct batch *b)
{
    struct chunk *c = NULL;
    buf_reset(&w->text);
    if (w->c.format == FILE_JSON) {
        bool is_line = w->c.compression != FILE_ZSTD;
        batch_to_json(b, &w->text);
        if (is_line)
            buf_add_byte(&w->text, '\n');
        if (buf_error(&w->text))
            return buf_error(&w->text);
        if (is_line)
            return write_all(w, w->text.p, w->text.n);
    }
    int r = framed(&c, w, b);
    if (r == 0)
        r = write_all(w, (const char *)c->data, c->len);
    chunk_unref(&c);
    return r;
}

static void *run(void *arg)
{
    struct file_writer *w = arg;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct file_job *j = w->first;
        if (!j && w->is_ending)
            break;
        if (!j) {
            pthread_cond_wait(&w->wake, &w->lock);
            continue;
        }
        w->first = j->next;
        if (!w->first)
            w->last = &w->first;
        pthread_mutex_unlock(&w->lock);
        j->error = write_batch(w, j->batch);
        j->done(j);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    pool_detach();
    return NULL;
}

void file_writer_write(struct file_writer *w, struct file_job *j)
{
    j->next = NULL;
    pthread_mutex_lock(&w->lock);
    *w->last = j;
    w->last = &j->next;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

/* ---- life ---- */

static bool same_options(const struct file_config *a, const struct file_config *b)
{
    return a->format == b->format && a->compression == b->compression && a->append == b->append &&
           a->rotation_on == b->rotation_on && a->localtime == b->localtime &&
           a->max_megabytes == b->max_megabytes && a->max_days == b->max_days &&
           a->max_backups == b->max_backups;
}

static void free_writer(struct file_writer *w)
{
    if (w->fd >= 0)
        close(w->fd);
    buf_fini(&w->text);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->wake);
    free((void *)(uintptr_t)w->c.path);
    free((void *)(uintptr_t)w->c.directory_permissions);
    free(w->id);
    free(w);
}

static int new_writer(struct file_writer **out, const struct file_config *c, struct log_ctx log,
                      struct err *e)
{
    struct file_writer *w = xcalloc(1, sizeof(*w));
    int r = 0;
    w->c = *c;
    w->c.path = xstrdup(c->path);
    w->c.directory_permissions = xstrdup(c->directory_permissions);
    w->id = xstrdup(log.component); /* the instance may be gone before its writer */
    w->log = (struct log_ctx){.component = w->id};
    w->fd = -1;
    w->refs = 1;
    w->last = &w->first;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    if (c->create_directory)
        r = make_directories(c);
    if (r == 0)
        r = open_file(w, true);
    if (r == 0)
        r = -pthread_create(&w->thread, NULL, run, w);
    if (r) {
        err_set(e, r, "%s: %s", c->path, strerror(-r));
        free_writer(w);
        return r;
    }
    *out = w;
    return 0;
}

int file_writer_open(struct file_writer **out, const struct file_config *c, struct log_ctx log,
                     struct err *e)
{
    struct file_writer *w;
    int r = 0;
    pthread_mutex_lock(&registry_lock);
    for (w = registry; w && strcmp(w->c.path, c->path) != 0; w = w->next)
        continue;
    if (w && !same_options(&w->c, c)) {
        r = err_set(e, -EBUSY, "%s: is being written with other options", c->path);
    } else if (w) {
        w->refs++;
    } else if ((r = new_writer(&w, c, log, e)) == 0) {
        w->next = registry;
        registry = w;
    }
    pthread_mutex_unlock(&registry_lock);
    *out = r ? NULL : w;
    return r;
}

void file_writer_close(struct file_writer **wp)
{
    struct file_writer *w = *wp;
    if (!w)
        return;
    *wp = NULL;
    pthread_mutex_lock(&registry_lock);
    bool is_last = --w->refs == 0;
    if (is_last) {
        struct file_writer **at = &registry;
        while (*at != w)
            at = &(*at)->next;
        *at = w->next;
    }
    pthread_mutex_unlock(&registry_lock);
    if (!is_last)
        return;
    pthread_mutex_lock(&w->lock);
    w->is_ending = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    free_writer(w);
}
