/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/recording.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum entry_type {
    ENTRY_BEGIN = 1,
    ENTRY_END,
    ENTRY_OPEN,
    ENTRY_DATA,
    ENTRY_CLOSE,
    ENTRY_EXEC,
    ENTRY_FORK,
    ENTRY_EXIT,
    ENTRY_TYPES,
};

struct drain_entry {
    uint64_t now_ns;
    int64_t wall_offset_ns;
};

struct entry {
    uint32_t type, len; /* of what follows */
};

static const char magic[8] = "TLRREC1\n";
static const uint32_t sizes[ENTRY_TYPES] = {
    [ENTRY_BEGIN] = sizeof(struct drain_entry),  [ENTRY_END] = sizeof(struct drain_entry),
    [ENTRY_OPEN] = sizeof(struct open_record),   [ENTRY_DATA] = sizeof(struct data_record),
    [ENTRY_CLOSE] = sizeof(struct close_record), [ENTRY_EXEC] = sizeof(struct exec_record),
    [ENTRY_FORK] = sizeof(struct fork_record),   [ENTRY_EXIT] = sizeof(struct exit_record),
};

/* ---- writing ---- */

int recording_open(struct recording *r, const char *path, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    r->file = fd < 0 ? NULL : fdopen(fd, "w");
    if (!r->file)
        return err_set(e, -errno, "cannot write %s: %s", path, strerror(errno));
    fwrite(magic, sizeof(magic), 1, r->file);
    fwrite(sizes, sizeof(sizes), 1, r->file);
    return 0;
}

void recording_close(struct recording *r)
{
    if (r->file)
        fclose(r->file);
    r->file = NULL;
}

static void write_entry(struct recording *r, enum entry_type type, const void *p, struct str a,
                        struct str b)
{
    struct entry head = {type, sizes[type] + (uint32_t)(a.n + b.n)};

    if (!r->file)
        return;
    fwrite(&head, sizeof(head), 1, r->file);
    fwrite(p, sizes[type], 1, r->file);
    if (a.n)
        fwrite(a.p, a.n, 1, r->file);
    if (b.n)
        fwrite(b.p, b.n, 1, r->file);
}

#define NOTHING ((struct str){NULL, 0})

void recording_begin(struct recording *r, uint64_t now_ns, int64_t wall_offset_ns)
{
    struct drain_entry d = {now_ns, wall_offset_ns};

    write_entry(r, ENTRY_BEGIN, &d, NOTHING, NOTHING);
}

void recording_end(struct recording *r, uint64_t now_ns)
{
    struct drain_entry d = {now_ns, 0};

    write_entry(r, ENTRY_END, &d, NOTHING, NOTHING);
    if (r->file)
        fflush(r->file);
}

void recording_open_record(struct recording *r, const struct open_record *o)
{
    write_entry(r, ENTRY_OPEN, o, NOTHING, NOTHING);
}

void recording_data(struct recording *r, const struct data_record *d)
{
    struct data_record copy = *d;

    copy.bytes = NULL;
    write_entry(r, ENTRY_DATA, &copy, str_make(d->bytes, d->head + d->tail), NOTHING);
}

void recording_close_record(struct recording *r, const struct close_record *c)
{
    write_entry(r, ENTRY_CLOSE, c, NOTHING, NOTHING);
}

void recording_exec(struct recording *r, const struct exec_record *x)
{
    struct exec_record copy = *x;

    copy.path.p = copy.argv.p = NULL;
    write_entry(r, ENTRY_EXEC, &copy, x->path, x->argv);
}

void recording_fork(struct recording *r, const struct fork_record *f)
{
    write_entry(r, ENTRY_FORK, f, NOTHING, NOTHING);
}

void recording_exit(struct recording *r, const struct exit_record *x)
{
    write_entry(r, ENTRY_EXIT, x, NOTHING, NOTHING);
}

/* ---- reading ---- */

struct reader {
    struct capture *c;
    void (*after_drain)(void *arg);
    void *arg;
};

/* A byte that may be copied into a bool. */
static bool is_bool(const char *body, size_t at)
{
    return (unsigned char)body[at] <= 1;
}

static bool replay_data(struct capture *c, const char *body, size_t rest)
{
    struct data_record d;

    if (!is_bool(body, offsetof(struct data_record, lost_before)))
        return false;
    memcpy(&d, body, sizeof(d));
    d.bytes = (const uint8_t *)body + sizeof(d);
    if (d.layer >= LAYER_COUNT || d.dir >= DIR_COUNT || d.hole >= HOLE_COUNT ||
        (uint64_t)d.head + d.tail != rest || rest > d.len)
        return false;
    capture_data(c, &d);
    return true;
}

static bool replay_exec(struct capture *c, const char *body, size_t rest)
{
    struct exec_record x;

    memcpy(&x, body, sizeof(x));
    if (x.path.n > rest || x.argv.n > rest - x.path.n)
        return false;
    x.path.p = body + sizeof(x);
    x.argv.p = x.path.p + x.path.n;
    capture_exec(c, &x);
    return true;
}

static bool replay_open(struct capture *c, const char *body)
{
    struct open_record o;

    if (!is_bool(body, offsetof(struct open_record, joined)))
        return false;
    memcpy(&o, body, sizeof(o));
    if (o.role > ROLE_SERVER)
        return false;
    capture_open(c, &o);
    return true;
}

static void replay_drain(const struct reader *r, enum entry_type type, const char *body)
{
    struct drain_entry d;

    memcpy(&d, body, sizeof(d));
    if (type == ENTRY_BEGIN) {
        r->c->wall_offset_ns = d.wall_offset_ns;
        return;
    }
    capture_end(r->c, d.now_ns);
    if (r->after_drain)
        r->after_drain(r->arg);
    connections_verdicts_taken(&r->c->connections);
}

static bool replay_entry(const struct reader *r, const struct entry *head, const char *body)
{
    size_t rest = head->len - sizes[head->type];
    struct close_record close;
    struct fork_record fork;
    struct exit_record x;

    switch ((enum entry_type)head->type) {
    case ENTRY_BEGIN:
    case ENTRY_END:
        replay_drain(r, (enum entry_type)head->type, body);
        return true;
    case ENTRY_OPEN:
        return replay_open(r->c, body);
    case ENTRY_DATA:
        return replay_data(r->c, body, rest);
    case ENTRY_EXEC:
        return replay_exec(r->c, body, rest);
    case ENTRY_CLOSE:
        if (!is_bool(body, offsetof(struct close_record, has_pos)))
            return false;
        memcpy(&close, body, sizeof(close));
        capture_close(r->c, &close);
        return true;
    case ENTRY_FORK:
        memcpy(&fork, body, sizeof(fork));
        capture_fork(r->c, &fork);
        return true;
    case ENTRY_EXIT:
        memcpy(&x, body, sizeof(x));
        capture_exit(r->c, &x);
        return true;
    default:
        return false;
    }
}

int recording_replay_bytes(struct str s, struct capture *c, void (*after_drain)(void *arg),
                           void *arg, struct err *e)
{
    struct reader r = {c, after_drain, arg};
    size_t at = sizeof(magic) + sizeof(sizes);

    if (!s.p || s.n < at || memcmp(s.p, magic, sizeof(magic)) != 0)
        return err_set(e, -EBADMSG, "not a recording");
    if (memcmp(s.p + sizeof(magic), sizes, sizeof(sizes)) != 0)
        return err_set(e, -EBADMSG, "a recording of another version or machine");
    while (at + sizeof(struct entry) <= s.n) {
        struct entry head;

        memcpy(&head, s.p + at, sizeof(head));
        if (head.type == 0 || head.type >= ENTRY_TYPES || head.len < sizes[head.type] ||
            head.len > s.n - at - sizeof(head))
            break;
        if (!replay_entry(&r, &head, s.p + at + sizeof(head)))
            break;
        at += sizeof(head) + head.len;
    }
    if (at != s.n)
        return err_set(e, -EBADMSG, "damaged at byte %zu", at);
    return 0;
}

int recording_replay(const char *path, struct capture *c, void (*after_drain)(void *arg), void *arg,
                     struct err *e)
{
    FILE *f = fopen(path, "re");
    struct buf b;
    size_t n;
    int res;

    if (!f)
        return err_set(e, -errno, "cannot read %s: %s", path, strerror(errno));
    buf_init(&b);
    do {
        void *p = buf_reserve(&b, 65536);

        n = p ? fread(p, 1, 65536, f) : 0;
        buf_commit(&b, n);
    } while (n > 0);
    fclose(f);
    res = recording_replay_bytes(buf_str(&b), c, after_drain, arg, e);
    buf_fini(&b);
    return res;
}
