/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC's frame, and answers as they leave: what http_respond would be given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define http_respond captured_respond
#include "common/io/grpc.c"
#undef http_respond

static struct {
    int n, status;
    char headers[2048], trailers[256]; /* "name: value\n" each */
    uint8_t body[512];
    size_t body_n;
} sent;

static void add_lines(char *to, const struct http_header *h, unsigned n)
{
    to[0] = '\0';
    for (unsigned i = 0; i < n; i++)
        to += sprintf(to, "%s: " STR_FMT "\n", h[i].name, STR_ARG(h[i].value));
}

void captured_respond(struct http_request *r, const struct http_response *resp)
{
    (void)r;
    sent.n++;
    sent.status = resp->status;
    add_lines(sent.headers, resp->headers, resp->n_headers);
    add_lines(sent.trailers, resp->trailers, resp->n_trailers);
    sent.body_n = resp->body.n;
    if (resp->body.n)
        memcpy(sent.body, resp->body.p, resp->body.n);
}

static struct http_request request_of(const void *p, size_t n)
{
    struct http_request r = {.body = chunk_new(HTTP_BODY_HEADROOM + n)};
    memcpy(r.body->data + HTTP_BODY_HEADROOM, p, n);
    r.body->len = HTTP_BODY_HEADROOM + n;
    return r;
}

static int parse(const void *p, size_t n, struct str *out, bool *is_compressed)
{
    struct http_request r = request_of(p, n);
    int result = grpc_message(&r, out, is_compressed);
    if (result == 0) /* the bytes are where they came, not copied */
        assert_ptr_equal(out->p, r.body->data + HTTP_BODY_HEADROOM + GRPC_PREFIX);
    chunk_unref(&r.body);
    return result;
}

static void one_whole_message_is_taken(void **state)
{
    struct str m;
    bool is_compressed;
    (void)state;
    assert_int_equal(parse("\0\0\0\0\3abc", 8, &m, &is_compressed), 0);
    assert_int_equal(m.n, 3);
    assert_false(is_compressed);
    assert_int_equal(parse("\1\0\0\0\3abc", 8, &m, &is_compressed), 0);
    assert_true(is_compressed);
    assert_int_equal(parse("\0\0\0\0\0", 5, &m, &is_compressed), 0);
    assert_int_equal(m.n, 0);
}

static void anything_else_is_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } bad[] = {
        {"", 0},                               /* no prefix */
        {"\0\0\0\0", 4},                       /* a cut one */
        {"\0\0\0\0\4abc", 8},                  /* promises more than there is */
        {"\0\0\0\0\2abc", 8},                  /* or less */
        {"\0\0\0\0\1a\0\0\0\0\1b", 12},        /* two messages in a unary call */
        {"\2\0\0\0\3abc", 8},                  /* unknown flag */
        {"\0\xff\xff\xff\xff\x61\x62\x63", 8}, /* 4 GiB */
    };
    struct http_request none = {0};
    struct str m;
    bool is_compressed;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(parse(bad[i].bytes, bad[i].n, &m, &is_compressed), -EBADMSG);
    assert_int_equal(grpc_message(&none, &m, &is_compressed), -EBADMSG);
}

static void a_prefix_is_what_a_message_begins_with(void **state)
{
    uint8_t p[GRPC_PREFIX];
    (void)state;
    grpc_prefix(p, false, 0x01020304);
    assert_memory_equal(p, "\0\1\2\3\4", 5);
    grpc_prefix(p, true, 7);
    assert_memory_equal(p, "\1\0\0\0\7", 5);
}

static void success_carries_its_status_behind_the_message(void **state)
{
    struct http_request r = {0};
    static const uint8_t large[200] = {1, 2, 3};
    (void)state;
    grpc_respond(&r, (struct str){NULL, 0});
    assert_int_equal(sent.status, 200);
    assert_string_equal(sent.headers, "content-type: application/grpc\n");
    assert_string_equal(sent.trailers, "grpc-status: 0\n");
    assert_int_equal(sent.body_n, 5);
    assert_memory_equal(sent.body, "\0\0\0\0\0", 5);
    grpc_respond(&r, str_make(large, sizeof(large)));
    assert_int_equal(sent.body_n, 205);
    assert_memory_equal(sent.body, "\0\0\0\0\xc8\1\2\3", 8);
}

static void an_error_is_one_block_of_headers(void **state)
{
    struct http_request r = {0};
    (void)state;
    grpc_respond_status(&r, GRPC_UNAVAILABLE, "come again", STR("\x08\x0e"));
    assert_int_equal(sent.status, 200);
    assert_int_equal(sent.body_n, 0);
    assert_string_equal(sent.trailers, "");
    assert_string_equal(sent.headers, "content-type: application/grpc\n"
                                      "grpc-status: 14\n"
                                      "grpc-message: come again\n"
                                      "grpc-status-details-bin: CA4\n");
    grpc_respond_status(&r, GRPC_INTERNAL, NULL, STR(""));
    assert_string_equal(sent.headers, "content-type: application/grpc\n"
                                      "grpc-status: 13\n"
                                      "grpc-message: \n");
}

/* Percent-encoding of grpc-message: a header field may not hold what a message may. */
static void what_a_header_may_not_hold_is_encoded(void **state)
{
    struct http_request r = {0};
    (void)state;
    grpc_respond_status(&r, GRPC_INTERNAL, "100% \"\xc3\xa9\"\r\nx: y\x7f~", STR(""));
    assert_non_null(strstr(sent.headers, "\ngrpc-message: 100%25 \"%C3%A9\"%0D%0Ax: y%7F~\n"));
}

/* RFC 4648 §10, without padding. */
static void details_are_base64(void **state)
{
    static const char *const cases[][2] = {{"f", "Zg"},          {"fo", "Zm8"},
                                           {"foo", "Zm9v"},      {"foob", "Zm9vYg"},
                                           {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"}};
    struct http_request r = {0};
    char want[64];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        grpc_respond_status(&r, GRPC_UNKNOWN, "", str_of(cases[i][0]));
        snprintf(want, sizeof(want), "\ngrpc-status-details-bin: %s\n", cases[i][1]);
        assert_non_null(strstr(sent.headers, want));
    }
    grpc_respond_status(&r, GRPC_UNKNOWN, "", STR("\xff\xef\xbe"));
    assert_non_null(strstr(sent.headers, "bin: /+++\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_whole_message_is_taken),
        cmocka_unit_test(anything_else_is_refused),
        cmocka_unit_test(a_prefix_is_what_a_message_begins_with),
        cmocka_unit_test(success_carries_its_status_behind_the_message),
        cmocka_unit_test(an_error_is_one_block_of_headers),
        cmocka_unit_test(what_a_header_may_not_hold_is_encoded),
        cmocka_unit_test(details_are_base64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
