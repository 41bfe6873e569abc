/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/processes.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/otlp/encode.h"

enum {
    PROCESSES_MAX = 100000,
    PROC_TEXT_MAX = 256 << 10, /* of an environment */
};
#define KEEP_GONE_NS (30 * NS_PER_S)

static bool process_eq(const void *value, const void *key)
{
    return ((const struct process *)value)->tgid == *(const uint32_t *)key;
}

struct process *processes_find(const struct processes *ps, uint32_t tgid)
{
    return hashmap_find(&ps->by_tgid, hash_bytes(&tgid, sizeof(tgid)), process_eq, &tgid);
}

static void process_free(struct process *p)
{
    free(p->path);
    free(p->service_name);
    free(p->container_id);
    free(p->attributes);
    buf_fini(&p->span_resource);
    buf_fini(&p->metric_resource);
    CLEAR_MAGIC(p);
    free(p);
}

static void forget(struct processes *ps, struct process *p)
{
    hashmap_take(&ps->by_tgid, hash_bytes(&p->tgid, sizeof(p->tgid)), process_eq, &p->tgid);
    list_remove(&p->link);
    ps->n--;
    process_free(p);
}

static struct process *add(struct processes *ps, uint32_t tgid)
{
    struct process *p = ps->n < PROCESSES_MAX ? xcalloc(1, sizeof(*p)) : NULL;

    if (!p)
        return NULL;
    SET_MAGIC(p, PROCESS_MAGIC);
    p->tgid = tgid;
    p->rule = p->handed_rule = DISCOVERY_NONE;
    p->path = xstrdup("");
    p->service_name = xstrdup("unknown_service");
    p->container_id = xstrdup("");
    p->attributes = xstrdup("");
    buf_init(&p->span_resource);
    buf_init(&p->metric_resource);
    if (hashmap_add(&ps->by_tgid, hash_bytes(&tgid, sizeof(tgid)), p)) {
        process_free(p);
        return NULL;
    }
    list_init(&p->link);
    list_push(&ps->all, &p->link);
    ps->n++;
    return p;
}

static void set(char **field, struct str value)
{
    free(*field);
    *field = xstrndup(value.n ? value.p : "", value.n);
}

/* ---- /proc ---- */

/* Text of /proc/TGID/name into b; false when it is not to be had. */
static bool read_proc(const struct processes *ps, uint32_t tgid, const char *name, struct buf *b)
{
    char path[300];
    ssize_t n = -1;
    int fd;

    snprintf(path, sizeof(path), "%s/%u/%s", ps->proc, tgid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    buf_reset(b);
    b->max = PROC_TEXT_MAX;
    do {
        void *p = buf_reserve(b, 8192);

        n = p ? read(fd, p, 8192) : 0;
        if (n > 0)
            buf_commit(b, (size_t)n);
    } while (n > 0);
    close(fd);
    return n == 0;
}

static bool read_exe(const struct processes *ps, uint32_t tgid, char *out, size_t size)
{
    static const char deleted[] = " (deleted)";
    char path[300];
    ssize_t n;

    snprintf(path, sizeof(path), "%s/%u/exe", ps->proc, tgid);
    n = readlink(path, out, size - 1);
    if (n <= 0)
        return false;
    out[n] = 0;
    if ((size_t)n > sizeof(deleted) && strcmp(out + n - (sizeof(deleted) - 1), deleted) == 0)
        out[n - (ssize_t)(sizeof(deleted) - 1)] = 0;
    return true;
}

static struct str env_value(struct str env, struct str name)
{
    while (env.n) {
        const char *end = memchr(env.p, 0, env.n);
        size_t n = end ? (size_t)(end - env.p) : env.n;

        if (n > name.n && env.p[name.n] == '=' && memcmp(env.p, name.p, name.n) == 0)
            return str_make(env.p + name.n + 1, n - name.n - 1);
        env = end ? str_make(end + 1, env.n - n - 1) : (struct str){NULL, 0};
    }
    return (struct str){NULL, 0};
}

struct str container_id_of(struct str text)
{
    struct str best = {NULL, 0};
    size_t run = 0;

    if (!text.p)
        return best;
    /* Runs of exactly 64; the innermost of a path, since containers may nest. */
    for (size_t i = 0; i <= text.n; i++) {
        bool hex = i < text.n &&
                   (isdigit((unsigned char)text.p[i]) || (text.p[i] >= 'a' && text.p[i] <= 'f'));

        if (!hex && run == 64)
            best = str_make(text.p + i - 64, 64);
        run = hex ? run + 1 : 0;
    }
    return best;
}

/* The value of key in "k=v,k2=v2" (OTEL_RESOURCE_ATTRIBUTES); empty when missing. */
static struct str listed_attribute(struct str list, struct str key)
{
    struct str found = {NULL, 0};

    while (list.n) {
        const char *comma = memchr(list.p, ',', list.n), *eq;
        struct str pair = str_make(list.p, comma ? (size_t)(comma - list.p) : list.n);

        list = comma ? str_make(comma + 1, list.n - pair.n - 1) : (struct str){NULL, 0};
        eq = pair.n ? memchr(pair.p, '=', pair.n) : NULL;
        if (eq && str_eq(str_trim(str_make(pair.p, (size_t)(eq - pair.p))), key))
            found = str_trim(str_make(eq + 1, pair.n - (size_t)(eq + 1 - pair.p)));
    }
    return found;
}

/* ---- what is known of a process ---- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* What is known of a process decides which rule names it. */
static uint32_t rule_of(const struct discovery *d, const struct process *p)
{
    uint32_t by_pid = discovery_by_pid(d, p->tgid);
    uint32_t by_exe = p->path[0] ? discovery_by_executable(d, p->path) : DISCOVERY_NONE;

    return MIN(p->handed_rule, MIN(by_pid, by_exe));
}

static void judge(const struct processes *ps, struct process *p)
{
    const struct selection *s = ps->selection;

    p->rule = rule_of(s->discovery, p);
    p->ours = selection_is_ours(s, p->tgid, p->path);
    p->image_selected = !p->ours && p->path[0] && selection_has_exe(s, p->path);
    p->selected =
        !p->ours && (s->all || p->inherits || selection_has_pid(s, p->tgid) || p->image_selected);
}

/* service.name: the operator's, the process's own environment, else its executable. */
static void name_service(const struct processes *ps, struct process *p, struct str env)
{
    struct str name = str_of(ps->resource.service_name);
    struct str attributes = env_value(env, STR("OTEL_RESOURCE_ATTRIBUTES"));

    if (attributes.n)
        set(&p->attributes, attributes);
    if (!name.n)
        name = env_value(env, STR("OTEL_SERVICE_NAME"));
    if (!name.n)
        name = listed_attribute(str_of(p->attributes), STR("service.name"));
    if (!name.n)
        name = listed_attribute(str_of(ps->resource.attributes), STR("service.name"));
    if (!name.n && p->path[0])
        name = str_of(base_name(p->path));
    if (name.n)
        set(&p->service_name, name);
}

/* Reads what /proc tells. False when the process is gone. */
static bool look_up(const struct processes *ps, struct process *p)
{
    char exe[4096];
    struct buf b;
    bool there = read_exe(ps, p->tgid, exe, sizeof(exe));

    p->checked = true;
    buf_init(&b);
    if (there)
        set(&p->path, str_of(exe));
    if (read_proc(ps, p->tgid, "cgroup", &b)) {
        there = true;
        set(&p->container_id, container_id_of(buf_str(&b)));
    }
    buf_reset(&b);
    if (!read_proc(ps, p->tgid, "environ", &b))
        buf_reset(&b);
    name_service(ps, p, buf_str(&b));
    buf_fini(&b);
    return there;
}

/* What changed makes old envelopes wrong. */
static void renew(const struct processes *ps, struct process *p)
{
    buf_reset(&p->span_resource);
    buf_reset(&p->metric_resource);
    judge(ps, p);
}

struct process *processes_get(struct processes *ps, uint32_t tgid)
{
    struct process *p = processes_find(ps, tgid);

    if (p)
        return p;
    p = add(ps, tgid);
    if (!p)
        return NULL;
    look_up(ps, p);
    renew(ps, p);
    return p;
}

static void adopt_from_parent(struct processes *ps, struct process *p, uint32_t parent, bool image)
{
    struct process *from = processes_find(ps, parent);

    p->parent = parent;
    if (!from || from == p)
        return;
    set(&p->container_id, str_of(from->container_id));
    p->inherits = from->inherits || selection_has_pid(ps->selection, from->tgid);
    p->handed_rule = MIN(from->handed_rule, discovery_by_pid(ps->selection->discovery, from->tgid));
    if (!image)
        return;
    set(&p->path, str_of(from->path));
    set(&p->service_name, str_of(from->service_name));
    set(&p->attributes, str_of(from->attributes));
}

struct process *processes_exec(struct processes *ps, const struct exec_record *r)
{
    struct process *p = processes_find(ps, r->tgid);
    bool image_known = false;

    if (p && p->exit_ns) {
        forget(ps, p); /* the number was used again */
        p = NULL;
    }
    if (!p)
        p = add(ps, r->tgid);
    if (!p)
        return NULL;
    adopt_from_parent(ps, p, r->parent, false);
    p->cgroup = r->cgroup;
    set(&p->attributes, (struct str){NULL, 0});
    set(&p->path, r->path);
    image_known = look_up(ps, p);
    /* Another program since: /proc speaks of that one only if the name agrees with the record's. */
    if (!image_known)
        name_service(ps, p, (struct str){NULL, 0});
    renew(ps, p);
    if (!p->image_selected && !p->ours && r->path.n) {
        char *asked =
            xstrndup(r->path.p, r->path.n); /* a link's name may be the one that was meant */

        p->image_selected = selection_has_exe(ps->selection, asked);
        p->selected |= p->image_selected;
        p->rule = MIN(p->rule, discovery_by_executable(ps->selection->discovery, asked));
        free(asked);
    }
    return p;
}

struct process *processes_fork(struct processes *ps, const struct fork_record *r)
{
    struct process *p = processes_find(ps, r->tgid);

    if (p && p->exit_ns) {
        forget(ps, p);
        p = NULL;
    }
    if (!p)
        p = add(ps, r->tgid);
    if (!p)
        return NULL;
    p->cgroup = r->cgroup;
    adopt_from_parent(ps, p, r->parent, true);
    if (!p->path[0])
        look_up(ps, p);
    renew(ps, p);
    return p;
}

void processes_exit(struct processes *ps, const struct exit_record *r)
{
    struct process *p = processes_find(ps, r->tgid);

    if (!p)
        return;
    p->exit_ns = MAX(r->time_ns, 1u);
    list_remove(&p->link);
    list_push(&ps->gone, &p->link);
}

void processes_select_listener(struct processes *ps, uint32_t tgid, uint16_t port)
{
    struct process *p = processes_get(ps, tgid);
    uint32_t rule = discovery_by_port(ps->selection->discovery, port);

    if (!p || (p->inherits && rule >= p->handed_rule))
        return;
    p->inherits = true;
    p->handed_rule = MIN(p->handed_rule, rule);
    renew(ps, p);
}

void processes_tick(struct processes *ps, uint64_t now_ns)
{
    while (!list_is_empty(&ps->gone)) {
        struct process *p = LIST_ENTRY(ps->gone.next, struct process, link);

        if (p->exit_ns + KEEP_GONE_NS > now_ns)
            break;
        forget(ps, p);
    }
}

void processes_scan(struct processes *ps, void (*fn)(void *arg, const struct process *p), void *arg)
{
    DIR *d = opendir(ps->proc);
    struct dirent *e;

    if (!d)
        return;
    while ((e = readdir(d))) {
        uint64_t pid;
        struct process *p;

        if (str_to_u64(str_of(e->d_name), &pid) || pid == 0 || pid > UINT32_MAX)
            continue;
        p = processes_get(ps, (uint32_t)pid);
        if (p && p->selected && fn)
            fn(arg, p);
    }
    closedir(d);
}

/* ---- resources ---- */

/* Whether attributes that are already encoded have that key: the first one is who is believed. */
static bool has_key(const struct buf *attrs, struct str key)
{
    struct wire w = wire_of(buf_str(attrs));
    struct field f;

    while (wire_next(&w, &f) == 1)
        if (str_eq(message_bytes(f.bytes, 1), key))
            return true;
    return false;
}

static void put(struct buf *out, const char *key, const char *value)
{
    if (value && value[0] && !has_key(out, str_of(key)))
        encode_attr_str(out, RESOURCE_ATTRIBUTES, key, str_of(value));
}

static void put_rule(struct buf *out, const struct discovery_rule *r)
{
    put(out, "service.name", r->name);
    put(out, "service.namespace", r->namespace);
    for (unsigned i = 0; i < r->n_attributes; i++)
        put(out, r->attributes[i].key, r->attributes[i].value);
}

/* "k=v,k2=v2", values percent-encoded (W3C Baggage), as resource attributes; taken keys are left
 * out. */
static void put_listed(struct buf *out, struct str list)
{
    while (list.n) {
        const char *comma = memchr(list.p, ',', list.n), *eq;
        struct str pair = str_make(list.p, comma ? (size_t)(comma - list.p) : list.n), key, value;
        char text[512];
        size_t n = 0;

        list = comma ? str_make(comma + 1, list.n - pair.n - 1) : (struct str){NULL, 0};
        eq = pair.n ? memchr(pair.p, '=', pair.n) : NULL;
        if (!eq)
            continue;
        key = str_trim(str_make(pair.p, (size_t)(eq - pair.p)));
        value = str_trim(str_make(eq + 1, pair.n - (size_t)(eq + 1 - pair.p)));
        if (key.n == 0 || str_is(key, "service.name"))
            continue;
        for (size_t i = 0; i < value.n && n < sizeof(text); i++) {
            unsigned byte;

            if (value.p[i] == '%' && i + 2 < value.n &&
                sscanf(value.p + i + 1, "%2x", &byte) == 1) {
                text[n++] = (char)byte;
                i += 2;
            } else {
                text[n++] = value.p[i];
            }
        }
        if (str_is_utf8(text, n) && str_is_utf8(key.p, key.n) && !has_key(out, key))
            encode_attr(out, RESOURCE_ATTRIBUTES, key, any_str(str_make(text, n)));
    }
}

/*
 * Each process is an instance of its service unless it was given an id: nginx's workers have one
 * name, and what is counted for each of them must stay apart where service.name and this are all
 * that is left of a resource (Prometheus: job and instance).
 */
static void put_instance_id(const struct processes *ps, const struct process *p, struct buf *attrs)
{
    static const struct str key = {"service.instance.id", 19};
    if (listed_attribute(str_of(p->attributes), key).n ||
        listed_attribute(str_of(ps->resource.attributes), key).n)
        return;
    char *id = xasprintf("%s:%u", ps->host, p->tgid);
    put(attrs, key.p, id);
    free(id);
}

static void make_resource(const struct processes *ps, const struct process *p, bool with_pid,
                          struct buf *out)
{
    const struct discovery_rule *rule = discovery_rule(ps->selection->discovery, p->rule);
    struct buf attrs;

    buf_init(&attrs);
    if (rule)
        put_rule(&attrs, rule);
    put(&attrs, "service.name", p->service_name);
    put_listed(&attrs, str_of(p->attributes));
    put_listed(&attrs, str_of(ps->resource.attributes));
    put(&attrs, "host.name", ps->host);
    put(&attrs, "container.id", p->container_id);
    if (p->path[0]) {
        put(&attrs, "process.executable.name", base_name(p->path));
        put(&attrs, "process.executable.path", p->path);
    }
    if (with_pid) {
        put_instance_id(ps, p, &attrs);
        encode_attr_int(&attrs, RESOURCE_ATTRIBUTES, "process.pid", p->tgid);
        if (p->parent)
            encode_attr_int(&attrs, RESOURCE_ATTRIBUTES, "process.parent_pid", p->parent);
    }
    put(&attrs, "telemetry.distro.name", "tailrace-agent");
    put(&attrs, "telemetry.distro.version", ps->resource.version);
    buf_reset(out);
    encode_resource_envelope(out, buf_str(&attrs), (struct str){NULL, 0});
    buf_fini(&attrs);
}

struct str process_span_resource(struct processes *ps, struct process *p)
{
    if (p->span_resource.n == 0)
        make_resource(ps, p, true, &p->span_resource);
    return buf_str(&p->span_resource);
}

struct str process_metric_resource(struct processes *ps, struct process *p)
{
    if (p->metric_resource.n == 0)
        make_resource(ps, p, false, &p->metric_resource);
    return buf_str(&p->metric_resource);
}

void process_cgroup_resource(const struct processes *ps, uint64_t cgroup, const char *path,
                             struct buf *out)
{
    struct str container = container_id_of(str_of(path));
    struct buf attrs;
    char id[32];

    buf_init(&attrs);
    snprintf(id, sizeof(id), "%llu", (unsigned long long)cgroup);
    put(&attrs, "host.name", ps->host);
    put(&attrs, "cgroup.id", id);
    if (path)
        put(&attrs, "cgroup.path", path);
    if (container.n)
        encode_attr_str(&attrs, RESOURCE_ATTRIBUTES, "container.id", container);
    put_listed(&attrs, str_of(ps->resource.attributes));
    put(&attrs, "telemetry.distro.name", "tailrace-agent");
    put(&attrs, "telemetry.distro.version", ps->resource.version);
    buf_reset(out);
    encode_resource_envelope(out, buf_str(&attrs), (struct str){NULL, 0});
    buf_fini(&attrs);
}

void processes_init(struct processes *ps, const struct selection *s,
                    const struct resource_options *o)
{
    memset(ps, 0, sizeof(*ps));
    hashmap_init(&ps->by_tgid);
    list_init(&ps->all);
    list_init(&ps->gone);
    ps->selection = s;
    ps->resource = *o;
    ps->proc = "/proc";
    if (gethostname(ps->host, sizeof(ps->host) - 1))
        ps->host[0] = 0;
}

void processes_fini(struct processes *ps)
{
    while (!list_is_empty(&ps->all))
        forget(ps, LIST_ENTRY(ps->all.next, struct process, link));
    while (!list_is_empty(&ps->gone))
        forget(ps, LIST_ENTRY(ps->gone.next, struct process, link));
    hashmap_fini(&ps->by_tgid);
}
