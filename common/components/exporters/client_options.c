/* SPDX-License-Identifier: Apache-2.0 */
#include "common/components/exporters/client_options.h"

#include <errno.h>
#include <stdio.h>

#include "common/otlp/batch.h"

const char *const client_compressions[] = {"gzip", "zstd", "none", NULL};

#define AT(field) offsetof(struct client_tls_config, field)
const struct option client_tls_options[] = {
    {.key = "insecure",
     .type = OPT_BOOL,
     .offset = AT(insecure),
     .def = "false",
     .help = "Speak plain text."},
    {.key = "insecure_skip_verify",
     .type = OPT_BOOL,
     .offset = AT(insecure_skip_verify),
     .def = "false",
     .help = "Accept any certificate."},
    {.key = "server_name_override",
     .type = OPT_STRING,
     .offset = AT(server_name_override),
     .help = "Name that the certificate must have."},
    {.key = "ca_file",
     .type = OPT_STRING,
     .offset = AT(ca_file),
     .help = "Certificates of authorities, PEM; without it the system's."},
    {.key = "cert_file",
     .type = OPT_STRING,
     .offset = AT(cert_file),
     .help = "Client certificate, PEM."},
    {.key = "key_file", .type = OPT_STRING, .offset = AT(key_file), .help = "Its key, PEM."},
    OPTION_UNSUPPORTED("ca_pem"),
    OPTION_UNSUPPORTED("cert_pem"),
    OPTION_UNSUPPORTED("key_pem"),
    OPTION_UNSUPPORTED("min_version"),
    OPTION_UNSUPPORTED("max_version"),
    OPTION_UNSUPPORTED("cipher_suites"),
    OPTION_UNSUPPORTED("include_insecure_cipher_suites"),
    OPTION_UNSUPPORTED("curve_preferences"),
    OPTION_UNSUPPORTED("include_system_ca_certs_pool"),
    OPTION_UNSUPPORTED("reload_interval"),
    OPTION_UNSUPPORTED("tpm"),
    OPTION_END,
};

static bool take_prefix(const char **s, const char *prefix)
{
    size_t n = strlen(prefix);
    if (strncmp(*s, prefix, n) != 0)
        return false;
    *s += n;
    return true;
}

/* gRPC's own names of a target that mean the same as host:port; others are refused. */
static int check_scheme(const char **at, const char *text, bool is_url, bool has_scheme,
                        struct err *e)
{
    if (has_scheme)
        return 0;
    if (is_url)
        return err_set(e, -EINVAL, "endpoint '%s': must begin with http:// or https://", text);
    if (strncmp(*at, "unix:", 5) == 0)
        return err_set(e, -EINVAL, "endpoint '%s': Unix sockets do not exist in this build", text);
    if (!take_prefix(at, "dns:///"))
        (void)take_prefix(at, "passthrough:///");
    if (strstr(*at, "://"))
        return err_set(e, -EINVAL, "endpoint '%s': unknown scheme", text);
    return 0;
}

int client_endpoint_parse(struct client_endpoint *out, const char *text,
                          const struct client_tls_config *tls, const char *default_port,
                          struct err *e)
{
    const char *at = text;
    bool is_plain = take_prefix(&at, "http://");
    bool is_tls = !is_plain && take_prefix(&at, "https://");
    int r = check_scheme(&at, text, default_port != NULL, is_plain || is_tls, e);
    if (r)
        return r;
    size_t n = strcspn(at, "/");
    const char *colon = memchr(at, ':', n), *bracket = memchr(at, ']', n);
    if (bracket)
        colon = bracket[1] == ':' ? bracket + 1 : NULL;
    out->use_tls = is_tls || (!is_plain && !tls->insecure);
    out->path = at + n;
    if (!colon && !default_port)
        return err_set(e, -EINVAL, "endpoint '%s': needs a port", text);
    if (n == 0 || n > sizeof(out->address) - 8)
        return err_set(e, -EINVAL, "endpoint '%s': want host:port", text);
    if (colon)
        snprintf(out->address, sizeof(out->address), "%.*s", (int)n, at);
    else
        snprintf(out->address, sizeof(out->address), "%.*s:%s", (int)n, at,
                 is_tls ? "443" : default_port);
    return 0;
}

int client_tls_context(struct tls_context **out, const struct client_endpoint *ep,
                       const struct client_tls_config *tls, const char *alpn, struct err *e)
{
    struct tls_config c = {.on = true,
                           .ca_file = tls->ca_file,
                           .cert_file = tls->cert_file,
                           .key_file = tls->key_file,
                           .server_name = tls->server_name_override,
                           .skip_verify = tls->insecure_skip_verify,
                           .alpn = alpn};
    *out = NULL;
    return ep->use_tls ? tls_context_new(out, false, &c, e) : 0;
}

static enum coding coding_of(enum client_compression c)
{
    return c == COMPRESS_GZIP ? CODING_GZIP : c == COMPRESS_ZSTD ? CODING_ZSTD : CODING_IDENTITY;
}

/* The request's bytes: as they were received, or framed. */
static int plain_body(struct http_call *call, const struct batch *b)
{
    if (b->raw.p) {
        call->body = chunk_ref(b->chunks[0]);
        call->body_off = (size_t)((const uint8_t *)b->raw.p - call->body->data);
        call->body_len = b->raw.n;
        return 0;
    }
    int r = batch_frame(&call->body, b, 0);
    call->body_len = r ? 0 : call->body->len;
    return r;
}

int client_body(struct http_call *call, const struct batch *b, enum client_compression c,
                bool *is_compressed)
{
    int r = plain_body(call, b);
    *is_compressed = c != COMPRESS_NONE;
    if (r || c == COMPRESS_NONE)
        return r;
    struct chunk *plain = call->body;
    struct str body = str_make(plain->data + call->body_off, call->body_len);
    call->body = NULL;
    r = coding_encode(&call->body, coding_of(c), body, 0);
    chunk_unref(&plain);
    call->body_off = 0;
    call->body_len = r ? 0 : call->body->len;
    return r;
}

const char *client_compression_name(enum client_compression c)
{
    return client_compressions[c];
}
