/*
 * monitoring_tls.c - tls:// for monitoring_sdk.c, by OpenSSL 1.1.1 or later; monitoring_tls.h says what it promises.
 *
 * TLS 1.2 and 1.3. The sidecar's certificate is always checked, its host name or address too; there is no switch for that.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "monitoring_tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct monitoring_tls {
    pthread_mutex_t mutex;
    SSL_CTX *context;
    BIO_METHOD *socket;
    char host[256], *certificate, *key, problem[300];
};

struct monitoring_session {
    SSL *ssl;
    struct monitoring_tls *tls;
};

static char *file(const char *name) {
    const char *path = getenv(name);
    return path && *path ? strdup(path) : NULL;
}

/* ---- problems ---- */

static void note(struct monitoring_tls *tls, const char *what, const char *why) {
    if (!tls->problem[0]) snprintf(tls->problem, sizeof tls->problem, "%s: %s", what, why);
}

/* What OpenSSL said last; of a file that isn't there the system's word. Its queue belongs to the thread, so it is left empty. */
static void note_error(struct monitoring_tls *tls, const char *what) {
    unsigned long error = ERR_peek_error();
    const char *reason = ERR_reason_error_string(error);
    if (error && ERR_GET_LIB(error) == ERR_LIB_SYS) reason = strerror(ERR_GET_REASON(error));
    note(tls, what, reason ? reason : "OpenSSL doesn't say why");
    ERR_clear_error();
}

const char *monitoring_tls_problem(const struct monitoring_tls *tls) { return tls->problem[0] ? tls->problem : NULL; }

/* ---- the socket, as OpenSSL sees it: its own kind would raise SIGPIPE ---- */

static int outcome(BIO *bio, ssize_t moved, int retry) {
    BIO_clear_retry_flags(bio);
    if (moved < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_flags(bio, retry | BIO_FLAGS_SHOULD_RETRY);
    return (int)moved;
}

static int socket_write(BIO *bio, const char *bytes, int size) {
    return outcome(bio, send((int)(intptr_t)BIO_get_data(bio), bytes, (size_t)size, MSG_NOSIGNAL), BIO_FLAGS_WRITE);
}

static int socket_read(BIO *bio, char *bytes, int size) {
    return outcome(bio, recv((int)(intptr_t)BIO_get_data(bio), bytes, (size_t)size, 0), BIO_FLAGS_READ);
}

static long socket_control(BIO *bio, int what, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return what == BIO_CTRL_FLUSH; /* nothing is held back */
}

/* ---- what the sessions of a handle have in common ---- */

/* Never ask for a passphrase: there may be nobody to answer. */
static int no_passphrase(char *buffer, int size, int writing, void *nothing) {
    (void)buffer, (void)size, (void)writing, (void)nothing;
    return -1;
}

struct monitoring_tls *monitoring_tls_open(const char *host) {
    struct monitoring_tls *tls = calloc(1, sizeof *tls);
    if (!tls) return NULL;
    pthread_mutex_init(&tls->mutex, NULL);
    char *authority = file("WAFERMON_TLS_CA");
    tls->certificate = file("WAFERMON_TLS_CERT"), tls->key = file("WAFERMON_TLS_KEY");
    snprintf(tls->host, sizeof tls->host, "%.*s", (int)strcspn(host, "%"), host); /* a zone is nothing that a certificate knows */
    tls->context = SSL_CTX_new(TLS_client_method());
    tls->socket = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "wafermon");
    if (!tls->context || !tls->socket || !BIO_meth_set_write(tls->socket, socket_write) || !BIO_meth_set_read(tls->socket, socket_read)
        || !BIO_meth_set_ctrl(tls->socket, socket_control) || !SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION)) {
        ERR_clear_error(), free(authority);
        return monitoring_tls_close(tls), NULL;
    }
    SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_default_passwd_cb(tls->context, no_passphrase);
    SSL_CTX_set_mode(tls->context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(tls->context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    if (authority && !SSL_CTX_load_verify_locations(tls->context, authority, NULL)) note_error(tls, "can't use the file of WAFERMON_TLS_CA");
    if (!authority && !SSL_CTX_set_default_verify_paths(tls->context)) note_error(tls, "can't use the system's authorities");
    free(authority);
    return tls;
}

void monitoring_tls_close(struct monitoring_tls *tls) {
    SSL_CTX_free(tls->context);
    BIO_meth_free(tls->socket);
    pthread_mutex_destroy(&tls->mutex);
    free(tls->certificate), free(tls->key), free(tls);
}

void monitoring_tls_hold(struct monitoring_tls *tls) { pthread_mutex_lock(&tls->mutex); }
void monitoring_tls_let_go(struct monitoring_tls *tls) { pthread_mutex_unlock(&tls->mutex); }

void monitoring_tls_renew(struct monitoring_tls *tls) { pthread_mutex_init(&tls->mutex, NULL); }

/* ---- sessions ---- */

/* Whom to expect, and who we are. False: it can't be said. */
static int introduce(struct monitoring_tls *tls, SSL *ssl) {
    const char *certificate = tls->certificate, *key = tls->key ? tls->key : certificate;
    int is_address = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), tls->host);
    ERR_clear_error();
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (!is_address && (!SSL_set1_host(ssl, tls->host) || !SSL_set_tlsext_host_name(ssl, tls->host))) return note_error(tls, "bad host name"), 0;
    if (!certificate || (SSL_use_certificate_chain_file(ssl, certificate) && SSL_use_PrivateKey_file(ssl, key, SSL_FILETYPE_PEM)))
        return 1;
    return note_error(tls, "can't use the files of WAFERMON_TLS_CERT and WAFERMON_TLS_KEY"), 0;
}

static struct monitoring_session *start(struct monitoring_tls *tls, int fd) {
    struct monitoring_session *session = calloc(1, sizeof *session);
    BIO *bio = BIO_new(tls->socket);
    if (!session || !bio || !(session->ssl = SSL_new(tls->context))) return free(session), BIO_free(bio), NULL;
    session->tls = tls;
    BIO_set_data(bio, (void *)(intptr_t)fd), BIO_set_init(bio, 1);
    SSL_set_bio(session->ssl, bio, bio), SSL_set_connect_state(session->ssl);
    if (introduce(tls, session->ssl)) return session;
    return monitoring_tls_end(&session), NULL;
}

struct monitoring_session *monitoring_tls_start(struct monitoring_tls *tls, int fd) {
    monitoring_tls_hold(tls), ERR_clear_error();
    struct monitoring_session *session = start(tls, fd);
    ERR_clear_error(), monitoring_tls_let_go(tls);
    return session;
}

/* What a call that moved so many bytes gives its caller. */
static ssize_t answer(struct monitoring_session *session, int moved) {
    int error = SSL_get_error(session->ssl, moved);
    long verified = SSL_get_verify_result(session->ssl);
    if (error == SSL_ERROR_SSL && verified != X509_V_OK) note(session->tls, "certificate refused", X509_verify_cert_error_string(verified));
    else if (error == SSL_ERROR_SSL) note_error(session->tls, "failed");
    ERR_clear_error(), monitoring_tls_let_go(session->tls);
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return moved > 0 ? moved : -1;
}

ssize_t monitoring_tls_send(struct monitoring_session *session, const void *bytes, size_t size) {
    monitoring_tls_hold(session->tls), ERR_clear_error();
    return answer(session, SSL_write(session->ssl, bytes, (int)size));
}

ssize_t monitoring_tls_receive(struct monitoring_session *session, void *bytes, size_t size) {
    monitoring_tls_hold(session->tls), ERR_clear_error();
    return answer(session, SSL_read(session->ssl, bytes, (int)size));
}

short monitoring_tls_events(const struct monitoring_session *session) {
    return (short)(POLLIN | (SSL_want_write(session->ssl) ? POLLOUT : 0));
}

void monitoring_tls_finish(struct monitoring_session *session) {
    monitoring_tls_hold(session->tls), ERR_clear_error();
    SSL_shutdown(session->ssl);
    ERR_clear_error(), monitoring_tls_let_go(session->tls);
}

void monitoring_tls_end(struct monitoring_session **session) {
    if (*session) SSL_free((*session)->ssl);
    free(*session), *session = NULL;
}
