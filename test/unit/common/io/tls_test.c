/* SPDX-License-Identifier: Apache-2.0 */
/* Handshakes between two ends in memory: whom a client believes, what is agreed, what breaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <openssl/pem.h>
#include <unistd.h>

#include "common/base/chunk.h"
#include "common/io/tls.c"

static char dir[] = "/tmp/tls_test.XXXXXX";
static char ca_file[64], other_ca_file[64], cert_file[64], key_file[64];

/* ---- certificates of the test's own ---- */

struct identity {
    EVP_PKEY *key;
    X509 *cert;
};

static void add_extension(X509 *cert, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
    X509_EXTENSION *x = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(x);
    X509_add_ext(cert, x, -1);
    X509_EXTENSION_free(x);
}

/* issuer NULL: signs itself, an authority. */
static struct identity make_identity(const char *name, const char *san, const struct identity *by)
{
    struct identity id = {EVP_EC_gen("P-256"), X509_new()};
    X509_NAME *subject = X509_get_subject_name(id.cert);
    static long serial = 1;
    X509_set_version(id.cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(id.cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(id.cert), 3600);
    X509_set_pubkey(id.cert, id.key);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(id.cert, by ? X509_get_subject_name(by->cert) : subject);
    if (!by)
        add_extension(id.cert, NID_basic_constraints, "critical,CA:TRUE");
    if (san)
        add_extension(id.cert, NID_subject_alt_name, san);
    assert_true(X509_sign(id.cert, by ? by->key : id.key, EVP_sha256()) > 0);
    return id;
}

static void write_identity(const struct identity *id, const char *cert, const char *key)
{
    FILE *f = fopen(cert, "we");
    assert_non_null(f);
    PEM_write_X509(f, id->cert);
    fclose(f);
    f = key ? fopen(key, "we") : NULL;
    if (f) {
        PEM_write_PrivateKey(f, id->key, NULL, NULL, 0, NULL, NULL);
        fclose(f);
    }
}

static void identity_free(struct identity *id)
{
    EVP_PKEY_free(id->key);
    X509_free(id->cert);
}

static int group_setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(ca_file, sizeof(ca_file), "%s/ca.pem", dir);
    snprintf(other_ca_file, sizeof(other_ca_file), "%s/other.pem", dir);
    snprintf(cert_file, sizeof(cert_file), "%s/cert.pem", dir);
    snprintf(key_file, sizeof(key_file), "%s/key.pem", dir);
    struct identity ca = make_identity("ca", NULL, NULL),
                    other = make_identity("other", NULL, NULL);
    struct identity leaf = make_identity("leaf", "DNS:gateway.test,IP:127.0.0.1", &ca);
    write_identity(&ca, ca_file, NULL);
    write_identity(&other, other_ca_file, NULL);
    write_identity(&leaf, cert_file, key_file);
    identity_free(&ca);
    identity_free(&other);
    identity_free(&leaf);
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    unlink(ca_file);
    unlink(other_ca_file);
    unlink(cert_file);
    unlink(key_file);
    return rmdir(dir);
}

/* ---- two ends ---- */

struct pair {
    struct tls_context *server_context, *client_context;
    struct tls *server, *client;
};

static void pair_init(struct pair *p, const struct tls_config *client, const char *host)
{
    struct tls_config server = {.on = true, .cert_file = cert_file, .key_file = key_file};
    struct err e;
    assert_int_equal(tls_context_new(&p->server_context, true, &server, &e), 0);
    assert_int_equal(tls_context_new(&p->client_context, false, client, &e), 0);
    assert_int_equal(tls_new(&p->server, p->server_context, NULL), 0);
    assert_int_equal(tls_new(&p->client, p->client_context, host), 0);
}

static void pair_fini(struct pair *p)
{
    tls_free(&p->client);
    tls_free(&p->server);
    tls_context_free(&p->client_context);
    tls_context_free(&p->server_context);
}

/* Carries bytes over in pieces of at most `step`. */
static int carry(struct tls *from, struct tls *to, size_t step)
{
    uint8_t piece[4096];
    size_t n;
    int r = 0;
    while (r == 0 && (n = tls_drain(from, piece, MIN(step, sizeof(piece)))) > 0)
        r = tls_feed(to, piece, n);
    return r;
}

/* Until both are ready or one fails; what the client's side came to. */
static int shake_hands(struct pair *p, size_t step)
{
    for (int i = 0; i < 20; i++) {
        int c = tls_handshake(p->client);
        carry(p->client, p->server, step);
        int s = c < 0 ? c : tls_handshake(p->server);
        carry(p->server, p->client, step);
        if (c < 0 || s < 0)
            return c < 0 ? c : s;
        if (c == 1 && s == 1)
            return 1;
    }
    return 0;
}

static int try_client(const struct tls_config *client, const char *host, char *why, size_t why_n)
{
    struct pair p;
    pair_init(&p, client, host);
    int r = shake_hands(&p, 4096);
    snprintf(why, why_n, "%s", tls_error(p.client));
    pair_fini(&p);
    return r;
}

/* ---- tests ---- */

static void a_client_believes_the_right_certificate_only(void **state)
{
    static const struct {
        const char *ca, *host, *server_name;
        bool skip_verify;
        const char *why; /* NULL: believed */
    } cases[] = {
        {ca_file, "gateway.test", NULL, false, NULL},
        {ca_file, "127.0.0.1", NULL, false, NULL},
        {ca_file, "GATEWAY.test", NULL, false, NULL},
        {ca_file, "10.0.0.1", "gateway.test", false, NULL},
        {ca_file, "other.test", NULL, false, "hostname mismatch"},
        {ca_file, "leaf", NULL, false, "hostname mismatch"}, /* a common name is no host name */
        {ca_file, "127.0.0.2", NULL, false, "IP address mismatch"},
        {ca_file, "gateway.test", "other.test", false, "hostname mismatch"},
        {other_ca_file, "gateway.test", NULL, false, "unable to get local issuer certificate"},
        {NULL, "gateway.test", NULL, false, "unable to get local issuer certificate"},
        {other_ca_file, "other.test", NULL, true, NULL},
    };
    char why[256];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tls_config c = {.on = true,
                               .ca_file = cases[i].ca,
                               .server_name = cases[i].server_name,
                               .skip_verify = cases[i].skip_verify};
        int r = try_client(&c, cases[i].host, why, sizeof(why));
        assert_int_equal(r, cases[i].why ? -EPROTO : 1);
        if (cases[i].why && !strstr(why, cases[i].why))
            fail_msg("case %zu: '%s'", i, why);
    }
}

static void the_protocol_is_agreed_in_the_handshake(void **state)
{
    static const struct {
        const char *asked, *got;
    } cases[] = {{"h2", "h2"}, {"http/1.1", "http/1.1"}, {"spdy/3", ""}, {"", ""}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tls_config c = {.on = true, .ca_file = ca_file, .alpn = cases[i].asked};
        struct pair p;
        const unsigned char *name = NULL;
        unsigned n = 0;
        pair_init(&p, &c, "gateway.test");
        assert_int_equal(shake_hands(&p, 4096), 1);
        SSL_get0_alpn_selected(p.client->ssl, &name, &n);
        assert_int_equal(n, strlen(cases[i].got));
        assert_memory_equal(n ? (const char *)name : "", cases[i].got, n);
        pair_fini(&p);
    }
}

static void bytes_arrive_however_they_are_cut(void **state)
{
    static const size_t steps[] = {1, 7, 4096};
    static uint8_t sent[100000], got[100000];
    (void)state;
    for (size_t i = 0; i < sizeof(sent); i++)
        sent[i] = (uint8_t)(i * 31 >> 3);
    for (size_t k = 0; k < ARRAY_LEN(steps); k++) {
        struct tls_config c = {.on = true, .ca_file = ca_file};
        struct pair p;
        size_t n = 0;
        int r;
        pair_init(&p, &c, "gateway.test");
        assert_int_equal(shake_hands(&p, steps[k]), 1);
        assert_int_equal(tls_write(p.client, sent, sizeof(sent)), 0);
        assert_int_equal(carry(p.client, p.server, steps[k]), 0);
        while ((r = tls_read(p.server, got + n, MIN((size_t)5000, sizeof(got) - n + 1))) > 0)
            n += (size_t)r;
        assert_int_equal(r, 0);
        assert_int_equal(n, sizeof(sent));
        assert_memory_equal(sent, got, n);
        SSL_shutdown(p.client->ssl);
        assert_int_equal(carry(p.client, p.server, steps[k]), 0);
        assert_int_equal(tls_read(p.server, got, sizeof(got)), -ESHUTDOWN);
        pair_fini(&p);
    }
}

static void old_versions_and_plain_bytes_are_refused(void **state)
{
    static const char plain[] = "POST /v1/traces HTTP/1.1\r\nhost: x\r\n\r\n";
    struct tls_config c = {.on = true, .ca_file = ca_file};
    struct pair p;
    (void)state;
    pair_init(&p, &c, "gateway.test");
    assert_int_equal(tls_feed(p.server, (const uint8_t *)plain, sizeof(plain) - 1), 0);
    assert_int_equal(tls_handshake(p.server), -EPROTO);
    assert_true(strlen(tls_error(p.server)) > 0);
    pair_fini(&p);
    pair_init(&p, &c, "gateway.test");
    SSL_set_min_proto_version(p.client->ssl, TLS1_VERSION);
    SSL_set_max_proto_version(p.client->ssl, TLS1_1_VERSION);
    SSL_set_cipher_list(p.client->ssl, "DEFAULT:@SECLEVEL=0");
    assert_int_equal(shake_hands(&p, 4096), -EPROTO);
    pair_fini(&p);
}

static void a_changed_byte_is_noticed(void **state)
{
    struct tls_config c = {.on = true, .ca_file = ca_file};
    struct pair p;
    uint8_t record[4096], out[256];
    (void)state;
    pair_init(&p, &c, "gateway.test");
    assert_int_equal(shake_hands(&p, 4096), 1);
    assert_int_equal(tls_write(p.client, (const uint8_t *)"hello", 5), 0);
    size_t n = tls_drain(p.client, record, sizeof(record));
    assert_true(n > 10);
    record[n - 3] ^= 1;
    assert_int_equal(tls_feed(p.server, record, n), 0);
    assert_int_equal(tls_read(p.server, out, sizeof(out)), -EPROTO);
    pair_fini(&p);
}

static void wrong_files_are_named(void **state)
{
    struct tls_context *t = NULL;
    struct err e;
    (void)state;
    struct tls_config none = {.on = true};
    assert_int_equal(tls_context_new(&t, true, &none, &e), -EINVAL);
    assert_non_null(strstr(e.text, "needs cert_file and key_file"));
    struct tls_config half = {.on = true, .cert_file = cert_file};
    assert_int_equal(tls_context_new(&t, false, &half, &e), -EINVAL);
    assert_non_null(strstr(e.text, "go together"));
    struct tls_config missing = {.on = true, .ca_file = "/nonexistent/ca.pem"};
    assert_int_equal(tls_context_new(&t, false, &missing, &e), -EINVAL);
    assert_non_null(strstr(e.text, "/nonexistent/ca.pem"));
    struct tls_config swapped = {.on = true, .cert_file = key_file, .key_file = cert_file};
    assert_int_equal(tls_context_new(&t, true, &swapped, &e), -EINVAL);
    assert_non_null(strstr(e.text, key_file));
    assert_null(t);
}

static void what_connections_cost_is_counted(void **state)
{
    enum { N = 20 };
    static struct pair p[N];
    struct tls_config c = {.on = true, .ca_file = ca_file};
    struct mem_usage before, during, after;
    (void)state;
    mem_usage_get(&before);
    for (int i = 0; i < N; i++) {
        pair_init(&p[i], &c, "gateway.test");
        assert_int_equal(shake_hands(&p[i], 4096), 1);
    }
    mem_usage_get(&during);
    for (int i = 0; i < N; i++)
        pair_fini(&p[i]);
    mem_usage_get(&after);
    assert_true(during.in_use > before.in_use + N * 8192);
    assert_true(after.in_use <= before.in_use + FOREIGN_STEP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_believes_the_right_certificate_only),
        cmocka_unit_test(the_protocol_is_agreed_in_the_handshake),
        cmocka_unit_test(bytes_arrive_however_they_are_cut),
        cmocka_unit_test(old_versions_and_plain_bytes_are_refused),
        cmocka_unit_test(a_changed_byte_is_noticed),
        cmocka_unit_test(wrong_files_are_named),
        cmocka_unit_test(what_connections_cost_is_counted),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
