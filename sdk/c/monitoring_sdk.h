/*
 * monitoring_sdk - the wafermon client for C
 *
 * SYNOPSIS
 *     #include "monitoring_sdk.h"
 *
 *     monitoring_sdk *sdk;
 *     monitoring_options options = { .service = "file-receiver" };
 *     int error = monitoring_open(&sdk, &options);
 *     if (error)
 *         fprintf(stderr, "monitoring: %s\n", monitoring_strerror(error));
 *     monitoring_log_event(sdk, "info", "file received",
 *                          MON_STR("file", name), MON_INT("rows", rows), MON_END);
 *     monitoring_close(sdk, -1);
 *     monitoring_free(sdk);
 *
 * DESCRIPTION
 *     A call encodes its message, puts it into a buffer in memory and returns; one thread of the SDK's own sends the buffer to the
 *     sidecar, keeps each message until the sidecar acknowledges it, and sends it again after a lost connection. While the buffer is
 *     full, calls append to spill files, which are sent later. No call waits for the network except flush and close, and none fails
 *     because of it.
 *
 *     All functions may be called from any thread with the same handle, save monitoring_free(). After fork() the child's handle works
 *     and starts empty, also where it was forked without the hooks of pthread_atfork. No signal handler is installed, and SIGPIPE is never raised. At a normal exit every open handle is closed with
 *     its default budget.
 *
 *     No call may be made in a signal handler: a call takes a lock, which the thread that was interrupted may hold, and then waits for ever.
 *     Let the handler set a flag of type volatile sig_atomic_t or write to a pipe, and log where the program looks at it; or block the
 *     signal everywhere and take it in a thread of its own, by sigwait().
 *
 * RETURN VALUE
 *     0, or one of the negative codes below; a NULL handle is MON_EINVAL. A call that returns a code other than MON_ENOMEM has counted
 *     and sent nothing.
 *
 * ENVIRONMENT
 *     Built with TLS (make TLS=1), for tls:// addresses: WAFERMON_TLS_CA, a PEM file of the authorities to trust instead of the system's;
 *     WAFERMON_TLS_CERT and WAFERMON_TLS_KEY, those of the client's own certificate and its key, read at each connection. Besides that and
 *     what the options name: WAFERMON_SPAN_ID (else the span of TRACEPARENT) is the parent of the outermost spans;
 *     WAFERMON_COMPRESS=zlib, built with zlib (make ZLIB=1): what waits goes in compressed frames where the sidecar takes them;
 *     WAFERMON_DISABLED, anything but 0, false and no: calls are checked and counted as dropped, nothing is opened.
 */
#ifndef MONITORING_SDK_H
#define MONITORING_SDK_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef __GNUC__
#define __attribute__(checks)
#endif

/*
 *  MON_EINVAL    a NULL handle, a missing argument, more than MON_MAX_FIELDS fields
 *  MON_ESERVICE  no service, or not 1-128 of A-Z a-z 0-9 . _ - :
 *  MON_ELEVEL    not debug, info, warning, error, critical, or one of their other names: any case, warn, err, fatal, "10" to "50"
 *  MON_ENAME     an empty name
 *  MON_ETRACE    a trace or job id that is not 1-128 printable ASCII characters without space
 *  MON_EPERCENT  not within 0-100
 *  MON_ESTATUS   a span's: not ok or error; a job's: not 1-64 characters
 *  MON_ESPAN     no open span has this id
 *  MON_ETIMEOUT  flush: messages are still waiting
 *  MON_ENOMEM    no memory: the message is counted as dropped
 */
enum monitoring_error {
    MON_OK = 0,
    MON_EINVAL = -1,
    MON_ESERVICE = -2,
    MON_ELEVEL = -3,
    MON_ENAME = -4,
    MON_ETRACE = -5,
    MON_EPERCENT = -6,
    MON_ESTATUS = -7,
    MON_ESPAN = -8,
    MON_ETIMEOUT = -9,
    MON_ENOMEM = -10
};

/* The text of a code, never NULL. */
const char *monitoring_strerror(int error);

typedef struct monitoring_sdk monitoring_sdk;

/*
 * Options override the environment; what is NULL, empty or 0 comes from there, else it has the default.
 *  service    WAFERMON_SERVICE, OTEL_SERVICE_NAME; needed
 *  url        WAFERMON_URL: tcp://host:port, tcp://[address]:port, unix:///path, with TLS tls://host:port; a bad one warns once and
 *             tcp://127.0.0.1:7411 serves
 *  trace_id   WAFERMON_TRACE_ID, TRACEPARENT; a given one is checked
 *  spill_dir  WAFERMON_SPILL_DIR; /var/spool/wafermon if it is writable, else /tmp/wafermon-UID
 *  token      WAFERMON_TOKEN, where the listener asks for one
 *  buffer     WAFERMON_BUFFER, how many messages wait in memory: 1000
 */
typedef struct monitoring_options {
    const char *service, *url, *trace_id;
    int buffer;
    const char *spill_dir, *token;
} monitoring_options;

/*
 * Counts of messages; called includes the SDK's own reports of drops. At rest, always: called = acked + rejected + dropped + waiting +
 * handed_over.
 *  state        "connected", "disconnected" or "overflow"; a static string
 *  sent         gone to a socket for the first time; resent: once more
 *  acked        in the sidecar's journal; rejected: refused by the sidecar, which keeps them as dead letters
 *  dropped      spill full or not writable, after close, disabled, no memory
 *  spilled      written to spill files
 *  waiting      unsent, unacknowledged, and in spill files still ours
 *  handed_over  in spill files that somebody else took up or that close left
 *  reconnects   welcomes but the first
 */
typedef struct monitoring_stats {
    const char *state;
    unsigned long long called, sent, acked, rejected, dropped, spilled, waiting, handed_over, resent, reconnects;
} monitoring_stats;

/*
 * The fields of a context or of tags, at most MON_MAX_FIELDS, ended by MON_END:
 *     MON_STR(key, const char *)   NULL is null in a context and left out of tags
 *     MON_INT(key, long long)      beyond 2^53: a string
 *     MON_NUM(key, double)         NaN and infinities: null
 *     MON_BOOL(key, int)           in tags the string "true" or "false"
 *     MON_UINT(key, unsigned long long)   beyond 2^53: a string
 *     MON_COUNTER   no field: among the tags of a metric it says that the value is an increment, how many more since the last call
 *     MON_FIELDS(const monitoring_field *, size_t count)   any number of them, for bindings and for what is known only at run time
 * The conditionals let the compiler refuse a key or string that is none.
 */
#define MON_STR(key, string) (1 ? (key) : (const char *)0), (int)MON_STRING, (1 ? (string) : (const char *)0)
#define MON_INT(key, integer) (1 ? (key) : (const char *)0), (int)MON_INTEGER, (long long)(integer)
#define MON_NUM(key, number) (1 ? (key) : (const char *)0), (int)MON_NUMBER, (double)(number)
#define MON_BOOL(key, truth) (1 ? (key) : (const char *)0), (int)MON_TRUTH, (int)((truth) ? 1 : 0)
#define MON_UINT(key, natural) (1 ? (key) : (const char *)0), (int)MON_UNSIGNED, (unsigned long long)(natural)
#define MON_COUNTER "", (int)MON_COUNTS
#define MON_FIELDS(fields, count) "", (int)MON_LIST, (1 ? (fields) : (const monitoring_field *)0), (size_t)(count)
#define MON_END (const char *)0

typedef enum monitoring_kind {
    MON_STRING = 1,
    MON_INTEGER,
    MON_NUMBER,
    MON_TRUTH,
    MON_UNSIGNED,
    MON_LIST,
    MON_COUNTS,
    MON_MAX_FIELDS = 64
} monitoring_kind;

typedef struct monitoring_field {
    const char *key;
    monitoring_kind kind;
    union {
        const char *string;
        long long integer;
        double number;
        unsigned long long natural;
    } value; /* a MON_TRUTH is an integer */
} monitoring_field;

/* Make a handle and start its sender thread. A sidecar that is away is no error. *sdk is NULL after an error. */
int monitoring_open(monitoring_sdk **sdk, const monitoring_options *options);

/* Something happened. The variant with f formats its message as printf does and takes no context. */
int monitoring_log_event(monitoring_sdk *sdk, const char *level, const char *message, ...) __attribute__((sentinel));
int monitoring_log_eventf(monitoring_sdk *sdk, const char *level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A measured value with its tags; unit (UCUM where there is one) may be NULL. */
int monitoring_log_metric(monitoring_sdk *sdk, const char *name, double value, const char *unit, ...)
    __attribute__((sentinel));

/* How far a job is, 0-100 percent. status NULL is "running"; "done", "failed" and "cancelled" end the job. */
int monitoring_log_progress(monitoring_sdk *sdk, const char *job_id, double percent, const char *status);

/*
 * What a process uses: cpu in percent of one core, mem in resident bytes, disk and net in bytes since its start. NaN leaves a field
 * out. The second one measures the calling process itself: cpu is the mean since the previous call (at first since monitoring_open);
 * mem and disk where the system tells; net never, since no system counts it by process.
 */
int monitoring_log_resource(monitoring_sdk *sdk, double cpu, double mem, double disk, double net);
int monitoring_log_own_resource(monitoring_sdk *sdk);

/*
 * A stretch of work. start fills id; until the end, what the same thread logs with this handle belongs to the span. trace_id NULL takes
 * the current one, and where there is none makes one. A span may be ended from any thread; status NULL is "ok", else "ok" or "error".
 * In a forked child ending a span of the parent returns 0 and sends nothing.
 */
int monitoring_start_span(monitoring_sdk *sdk, const char *name, const char *trace_id, char id[17]);
int monitoring_start_span_tags(monitoring_sdk *sdk, const char *name, const char *trace_id, char id[17], ...)
    __attribute__((sentinel));
int monitoring_end_span(monitoring_sdk *sdk, const char *id, const char *status, ...) __attribute__((sentinel));

/* The trace of what follows outside of spans. */
int monitoring_set_trace_id(monitoring_sdk *sdk, const char *trace_id);

/*
 * The environment that puts a child process into the current trace, under the current span: WAFERMON_TRACE_ID, WAFERMON_SPAN_ID and, for
 * programs that speak OpenTelemetry, TRACEPARENT. Where there is no trace, there are no variables. The SDK never calls setenv(), which no
 * threaded program can do safely: add variables, a NULL-terminated array of "NAME=value", to the envp of execve() or posix_spawn(), or
 * give each to putenv() between fork() and exec().
 */
typedef struct monitoring_env {
    char *variables[4], trace_id[160], span_id[40], traceparent[80];
} monitoring_env;
int monitoring_child_env(monitoring_sdk *sdk, monitoring_env *env);

int monitoring_get_stats(monitoring_sdk *sdk, monitoring_stats *stats);

/* Wait until nothing is waiting; MON_ETIMEOUT when something still is after so many milliseconds (negative: 5000). */
int monitoring_flush(monitoring_sdk *sdk, int milliseconds);

/*
 * Flush for so many milliseconds (negative: 2000; not at all while disconnected), write what is left to a spill file and disconnect.
 * The handle stays valid: later calls count as dropped. monitoring_free() closes and releases it; no other call may then run or follow.
 */
int monitoring_close(monitoring_sdk *sdk, int milliseconds);
void monitoring_free(monitoring_sdk *sdk);

#ifdef __cplusplus
}
#endif
#endif
