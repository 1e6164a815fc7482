/*
 * monitoring_tls.h - what monitoring_sdk.c asks of monitoring_tls.c where both are compiled with -DMONITORING_TLS; not for programs.
 *
 * No function waits for the network or raises SIGPIPE. What concerns one handle is called by one thread at a time: the SDK's sender, or
 * after its end the one that closes. Those that compute or read files do so under a lock of the handle's own, for the sake of fork alone:
 * the thread that forks holds it meanwhile, so that the child finds whole sessions, and no thread of the SDK's inside OpenSSL. Open and close
 * have no lock yet, or none any more; the SDK doesn't fork during these either.
 */
#ifndef MONITORING_TLS_H
#define MONITORING_TLS_H

#include <sys/types.h>

#pragma GCC visibility push(hidden)

struct monitoring_tls;     /* what the sessions of a handle have in common: whom they trust, who they are */
struct monitoring_session; /* one connection's */

/*
 * For a sidecar whose certificate has to be for this host, a name or an address. Takes WAFERMON_TLS_CA, _CERT and _KEY from the
 * environment; without the first, the system's authorities are trusted. One that can't be used is a problem, and then nobody is trusted.
 * NULL: no memory.
 */
struct monitoring_tls *monitoring_tls_open(const char *host);
void monitoring_tls_close(struct monitoring_tls *tls);

void monitoring_tls_hold(struct monitoring_tls *tls);
void monitoring_tls_let_go(struct monitoring_tls *tls);

/* In a child that was forked while somebody may have had the lock: a new one. */
void monitoring_tls_renew(struct monitoring_tls *tls);

/* What went wrong first, for people; NULL: nothing, or nothing that TLS had a part in. */
const char *monitoring_tls_problem(const struct monitoring_tls *tls);

/*
 * A session on a connected, non-blocking socket, which stays the caller's. Reads the files of WAFERMON_TLS_CERT and WAFERMON_TLS_KEY
 * anew, so that a renewed certificate is shown from the next connection on. NULL after a problem.
 */
struct monitoring_session *monitoring_tls_start(struct monitoring_tls *tls, int fd);

/*
 * Like send and recv: how many bytes, or -1 and errno, which is EAGAIN when the socket has to have one of the events first. Either one
 * carries on with the handshake. What was to be sent then has to be offered again. The end of the session is -1 too.
 */
ssize_t monitoring_tls_send(struct monitoring_session *session, const void *bytes, size_t size);
ssize_t monitoring_tls_receive(struct monitoring_session *session, void *bytes, size_t size);
short monitoring_tls_events(const struct monitoring_session *session);

/* Say goodbye to the other side. Ending a session sends nothing: in a forked child it is still the parent's; so it takes no lock. */
void monitoring_tls_finish(struct monitoring_session *session);
void monitoring_tls_end(struct monitoring_session **session);

#pragma GCC visibility pop
#endif
