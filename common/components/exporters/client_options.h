/* SPDX-License-Identifier: Apache-2.0 */
/* What the exporters that dial a back end have in common: tls, compression, endpoints, headers. */
#ifndef COMPONENTS_CLIENT_OPTIONS_H
#define COMPONENTS_CLIENT_OPTIONS_H

#include "common/io/compress.h"
#include "common/io/http_client.h"
#include "common/pipeline/option.h"

struct client_tls_config {
    bool insecure, insecure_skip_verify;
    const char *server_name_override, *ca_file, *cert_file, *key_file;
};

enum client_compression { COMPRESS_GZIP, COMPRESS_ZSTD, COMPRESS_NONE };
extern const char *const client_compressions[];
extern const struct option client_tls_options[];

/*
 * The address to dial out of "host:port", "http://host:port" (plain) or "https://host:port" (TLS),
 * and whether TLS is spoken: it is unless the scheme or tls.insecure says otherwise. path: what
 * follows the authority ("" if nothing). default_port NULL: a port is needed.
 */
struct client_endpoint {
    char address[300];
    const char *path; /* into the text given */
    bool use_tls;
};
int client_endpoint_parse(struct client_endpoint *out, const char *text,
                          const struct client_tls_config *tls, const char *default_port,
                          struct err *e) MUSTCHECK;
/* NULL out when no TLS is spoken. */
int client_tls_context(struct tls_context **out, const struct client_endpoint *ep,
                       const struct client_tls_config *tls, const char *alpn,
                       struct err *e) MUSTCHECK;

/*
 * The body of the call: the request as it was received, or framed; compressed as configured.
 * *is_compressed tells. -ENOMEM.
 */
struct batch;
int client_body(struct http_call *call, const struct batch *b, enum client_compression c,
                bool *is_compressed) MUSTCHECK;
const char *client_compression_name(enum client_compression c);

#endif
