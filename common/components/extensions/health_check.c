/* SPDX-License-Identifier: Apache-2.0 */
/* health_check: GET answers 200 once the pipelines run and 503 while they start or stop. */
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/io/http_server.h"
#include "common/pipeline/node.h"

struct health_config {
    const char *endpoint, *path;
};

static const struct option health_options[] = {
    {.key = "endpoint",
     .type = OPT_ENDPOINT,
     .offset = offsetof(struct health_config, endpoint),
     .def = "localhost:13133",
     .help = "Address to listen on."},
    {.key = "path",
     .type = OPT_STRING,
     .offset = offsetof(struct health_config, path),
     .def = "/",
     .help = "Path that is answered; one that ends in / stands for all below it."},
    OPTION_NO_EFFECT("check_collector_pipeline", "As in the Collector."),
    OPTION_UNSUPPORTED("tls"),
    OPTION_UNSUPPORTED("auth"),
    OPTION_UNSUPPORTED("response_body"),
    OPTION_END,
};

#define HEALTH_MAGIC 0x484c5448u

/* Shared between generations that listen on the same endpoint. */
struct health {
    unsigned magic;
    unsigned refs;
    struct instance *in;
    struct http_server *server;
    struct http_handler handler;
    uint64_t up_since_ns; /* Unix time */
    _Atomic bool is_up;
};

static bool is_answered(struct str path, const char *configured)
{
    size_t n = strlen(configured);
    bool is_tree = n > 0 && configured[n - 1] == '/';
    return is_tree ? str_has_prefix(path, str_of(configured)) : str_is(path, configured);
}

static int on_head(void *arg, struct http_request *r, uint64_t *max_body)
{
    struct health *self = arg;
    const struct health_config *c = self->in->config;
    *max_body = 4096;
    return is_answered(r->path, c->path) ? 0 : 404;
}

/* The Collector's answer: {"status": ..., "upSince": ..., "uptime": ...}. Freed by the caller. */
static char *body_of(const struct health *self, bool is_up)
{
    cJSON *body = cJSON_CreateObject();
    char *text;
    cJSON_AddStringToObject(body, "status", is_up ? "Server available" : "Server not available");
    if (is_up) {
        char since[40], uptime[40];
        uint64_t up_ms = (clock_wall_ns() - self->up_since_ns) / NS_PER_MS;
        time_t s = (time_t)(self->up_since_ns / NS_PER_S);
        struct tm tm;
        gmtime_r(&s, &tm);
        strftime(since, sizeof(since), "%Y-%m-%dT%H:%M:%SZ", &tm);
        snprintf(uptime, sizeof(uptime), "%" PRIu64 ".%03" PRIu64 "s", up_ms / 1000, up_ms % 1000);
        cJSON_AddStringToObject(body, "upSince", since);
        cJSON_AddStringToObject(body, "uptime", uptime);
    }
    text = cJSON_PrintUnformatted(body);
    cJSON_Delete(body);
    return text;
}

static void on_message(void *arg, struct http_request *r)
{
    struct health *self = CAST_OBJ(struct health, arg, HEALTH_MAGIC);
    struct http_header type = {"content-type", STR("application/json")};
    bool is_up = self->is_up;
    char *body = body_of(self, is_up);
    struct http_response resp = {
        .status = is_up ? 200 : 503, .headers = &type, .n_headers = 1, .body = str_of(body)};
    http_respond(r, &resp);
    cJSON_free(body);
}

static void on_refuse(void *arg, struct http_request *r, enum http_refusal why)
{
    struct http_response resp = {.status = why == HTTP_OVERLOADED ? 503 : 400};
    (void)arg;
    http_respond(r, &resp);
}

static int health_create(struct instance *in, struct err *e)
{
    struct health *self = xcalloc(1, sizeof(*self));
    (void)e;
    SET_MAGIC(self, HEALTH_MAGIC);
    self->refs = 1;
    self->in = in;
    self->handler = (struct http_handler){
        .arg = self, .head = on_head, .message = on_message, .refuse = on_refuse};
    in->self = self;
    return 0;
}

static void health_free(struct instance *in)
{
    struct health *self = CAST_OBJ(struct health, in->self, HEALTH_MAGIC);
    in->self = NULL;
    if (--self->refs > 0)
        return;
    CLEAR_MAGIC(self);
    free(self);
}

static bool health_adopt(struct instance *in, struct instance *old)
{
    const struct health_config *a = in->config, *b = old->config;
    struct health *running = CAST_OBJ(struct health, old->self, HEALTH_MAGIC);
    if (in->self == running || strcmp(a->endpoint, b->endpoint) != 0)
        return false;
    health_free(in);
    running->refs++;
    in->self = running;
    return true;
}

static int health_start(struct instance *in, struct err *e)
{
    struct health *self = in->self;
    const struct health_config *c = in->config;
    struct http_server_config sc = {.endpoint = c->endpoint};
    self->in = in;
    /* Extensions start last: when this answers, everything runs. */
    if (!self->server) {
        int r = http_server_open(&self->server, &sc, &self->handler, e);
        if (r)
            return r;
        self->up_since_ns = clock_wall_ns();
    }
    self->is_up = true;
    return 0;
}

static void on_closed(void *arg)
{
    struct health *self = CAST_OBJ(struct health, arg, HEALTH_MAGIC);
    instance_stopped(self->in);
}

static void health_draining(struct instance *in)
{
    struct health *self = in->self;
    self->is_up = false;
}

static void health_stop(struct instance *in)
{
    struct health *self = in->self;
    self->is_up = false;
    if (self->server)
        http_server_close(&self->server, on_closed, self);
    else
        instance_stopped(in);
}

const struct component health_check_component = {
    .kind = KIND_EXTENSION,
    .name = "health_check",
    .help = "Answers whether the service runs.",
    .stability = STABILITY_BETA,
    .affinity = AFFINITY_PROCESS,
    .options = health_options,
    .config_size = sizeof(struct health_config),
    .create = health_create,
    .adopt = health_adopt,
    .start = health_start,
    .draining = health_draining,
    .stop = health_stop,
    .free = health_free,
};
