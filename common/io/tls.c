/* SPDX-License-Identifier: Apache-2.0 */
#include "common/io/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/mem.h"
#include "common/io/foreign.h"

struct tls_context {
    SSL_CTX *ctx;
    bool is_server, skip_verify;
    char *server_name;
    unsigned char alpn[16]; /* clients: length-prefixed */
    unsigned alpn_len;
};

struct tls {
    SSL *ssl;
    BIO *in, *out; /* owned by ssl */
    bool is_ready;
    char error[256];
};

static void *count_malloc(size_t n, const char *file, int line)
{
    (void)file;
    (void)line;
    return n ? foreign_malloc(n) : NULL;
}

static void *count_realloc(void *p, size_t n, const char *file, int line)
{
    (void)file;
    (void)line;
    return foreign_realloc(p, n);
}

static void count_free(void *p, const char *file, int line)
{
    (void)file;
    (void)line;
    foreign_free(p);
}

/* OpenSSL takes these only before its first allocation. */
__attribute__((constructor)) static void count_openssl(void)
{
    CRYPTO_set_mem_functions(count_malloc, count_realloc, count_free);
}

static bool is_set(const char *s)
{
    return s && s[0] != '\0';
}

static int ssl_failed(struct err *e, const char *doing, const char *file)
{
    char text[200] = "unknown";
    unsigned long code = ERR_get_error();
    if (code)
        ERR_error_string_n(code, text, sizeof(text));
    ERR_clear_error();
    return err_set(e, -EINVAL, "tls: %s '%s': %s", doing, file, text);
}

/* Servers: h2 if the peer offers it, else http/1.1 (RFC 7301). */
static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *n,
                       const unsigned char *in, unsigned in_len, void *arg)
{
    static const unsigned char known[] = "\x02h2\x08http/1.1";
    (void)ssl;
    (void)arg;
    int r = SSL_select_next_proto((unsigned char **)(uintptr_t)out, n, known, sizeof(known) - 1, in,
                                  in_len);
    return r == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

static int load_files(SSL_CTX *ctx, bool is_server, const struct tls_config *c, struct err *e)
{
    if (is_server && (!is_set(c->cert_file) || !is_set(c->key_file)))
        return err_set(e, -EINVAL, "tls: a server needs cert_file and key_file");
    if (is_set(c->cert_file) != is_set(c->key_file))
        return err_set(e, -EINVAL, "tls: cert_file and key_file go together");
    if (is_set(c->cert_file) && SSL_CTX_use_certificate_chain_file(ctx, c->cert_file) != 1)
        return ssl_failed(e, "certificate", c->cert_file);
    if (is_set(c->key_file) && SSL_CTX_use_PrivateKey_file(ctx, c->key_file, SSL_FILETYPE_PEM) != 1)
        return ssl_failed(e, "key", c->key_file);
    if (is_set(c->ca_file) && SSL_CTX_load_verify_locations(ctx, c->ca_file, NULL) != 1)
        return ssl_failed(e, "CA file", c->ca_file);
    if (!is_server && !is_set(c->ca_file))
        SSL_CTX_set_default_verify_paths(ctx);
    return 0;
}

int tls_context_new(struct tls_context **out, bool is_server, const struct tls_config *c,
                    struct err *e)
{
    SSL_CTX *ctx = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
    ASSERT(ctx);
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    int r = load_files(ctx, is_server, c, e);
    if (r) {
        SSL_CTX_free(ctx);
        return r;
    }
    struct tls_context *t = xcalloc(1, sizeof(*t));
    t->ctx = ctx;
    t->is_server = is_server;
    t->skip_verify = c->skip_verify;
    if (is_set(c->server_name))
        t->server_name = xstrdup(c->server_name);
    if (is_server)
        SSL_CTX_set_alpn_select_cb(ctx, choose_alpn, NULL);
    else if (is_set(c->alpn)) {
        size_t n = strlen(c->alpn);
        ASSERT(n < sizeof(t->alpn));
        t->alpn[0] = (unsigned char)n;
        memcpy(t->alpn + 1, c->alpn, n);
        t->alpn_len = (unsigned)n + 1;
    }
    *out = t;
    return 0;
}

void tls_context_free(struct tls_context **c)
{
    if (!*c)
        return;
    SSL_CTX_free((*c)->ctx);
    free((*c)->server_name);
    free(*c);
    *c = NULL;
}

static void set_peer_name(struct tls *t, const char *name, bool skip_verify)
{
    ASN1_OCTET_STRING *ip = a2i_IPADDRESS(name);
    if (!ip)
        SSL_set_tlsext_host_name(t->ssl, name); /* SNI is for names only (RFC 6066 §3) */
    if (!skip_verify) {
        SSL_set_verify(t->ssl, SSL_VERIFY_PEER, NULL);
        if (ip)
            X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->ssl), name);
        else
            SSL_set1_host(t->ssl, name);
    }
    ASN1_OCTET_STRING_free(ip);
}

int tls_new(struct tls **out, struct tls_context *c, const char *host)
{
    struct tls *t = xcalloc(1, sizeof(*t));
    t->ssl = SSL_new(c->ctx);
    if (!t->ssl) {
        free(t);
        return -ENOMEM;
    }
    t->in = BIO_new(BIO_s_mem());
    t->out = BIO_new(BIO_s_mem());
    ASSERT(t->in && t->out);
    SSL_set_bio(t->ssl, t->in, t->out);
    if (c->is_server) {
        SSL_set_accept_state(t->ssl);
    } else {
        SSL_set_connect_state(t->ssl);
        if (c->alpn_len)
            SSL_set_alpn_protos(t->ssl, c->alpn, c->alpn_len);
        set_peer_name(t, c->server_name ? c->server_name : host, c->skip_verify);
    }
    *out = t;
    return 0;
}

void tls_free(struct tls **t)
{
    if (!*t)
        return;
    SSL_free((*t)->ssl);
    free(*t);
    *t = NULL;
}

static int failed(struct tls *t)
{
    unsigned long code = ERR_get_error();
    long verify = SSL_get_verify_result(t->ssl);
    if (verify != X509_V_OK)
        snprintf(t->error, sizeof(t->error), "certificate: %s",
                 X509_verify_cert_error_string(verify));
    else if (code)
        ERR_error_string_n(code, t->error, sizeof(t->error));
    else
        snprintf(t->error, sizeof(t->error), "TLS connection broken");
    ERR_clear_error();
    return -EPROTO;
}

int tls_feed(struct tls *t, const uint8_t *p, size_t n)
{
    while (n > 0) {
        int step = n > INT32_MAX ? INT32_MAX : (int)n;
        int r = BIO_write(t->in, p, step);
        if (r <= 0)
            return failed(t);
        p += r;
        n -= (size_t)r;
    }
    return 0;
}

int tls_handshake(struct tls *t)
{
    if (t->is_ready)
        return 1;
    ERR_clear_error();
    int r = SSL_do_handshake(t->ssl);
    if (r == 1) {
        t->is_ready = true;
        return 1;
    }
    int why = SSL_get_error(t->ssl, r);
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : failed(t);
}

int tls_read(struct tls *t, uint8_t *p, size_t n)
{
    ERR_clear_error();
    int r = SSL_read(t->ssl, p, (int)n);
    if (r > 0)
        return r;
    int why = SSL_get_error(t->ssl, r);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        return 0;
    return why == SSL_ERROR_ZERO_RETURN ? -ESHUTDOWN : failed(t);
}

int tls_write(struct tls *t, const uint8_t *p, size_t n)
{
    ERR_clear_error();
    while (n > 0) { /* a memory BIO takes everything */
        int r = SSL_write(t->ssl, p, n > (1 << 20) ? 1 << 20 : (int)n);
        if (r <= 0)
            return failed(t);
        p += r;
        n -= (size_t)r;
    }
    return 0;
}

size_t tls_drain(struct tls *t, uint8_t *p, size_t n)
{
    int r = BIO_read(t->out, p, n > INT32_MAX ? INT32_MAX : (int)n);
    return r > 0 ? (size_t)r : 0;
}

bool tls_is_ready(const struct tls *t)
{
    return t->is_ready;
}

const char *tls_error(const struct tls *t)
{
    return t->error;
}
