/*
 * monitoring_core.h - what the files of the C SDK have in common; not for programs.
 *
 * How it works. A call formats its message on its own stack and then, under the handle's one mutex, copies the bytes into a ring. The
 * sender thread alone gives seqs and talks to sockets. It holds the mutex too, and releases it only where it waits or moves bytes: in
 * poll, send, name look-ups and around a spill file's renaming and reading; with TLS, for handshakes too.
 *
 * A stream is a client id, its records and its connection. There are two: the main one, and one for the spill file that is being sent,
 * whose lines are loaded into a ring of their own; so one piece of code greets, sends, resends and settles both.
 *
 * Invariants, whenever the mutex is free:
 *   stats.called = acked + rejected + dropped + handed_over + (main.given - main.first) + main.waiting + in_spill - stats_lines
 *   ring records, from tail to head: seqs first .. given-1 (the window), then `waiting` more without a seq
 *   first <= next <= given, where next is the seq at `cursor`; sent < given
 *   only files[file_count - 1] may be written, and only while `writing`; spill.active means that files[0] is being sent
 */
#ifndef MONITORING_CORE_H
#define MONITORING_CORE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* flock, getentropy, pipe2, SOCK_CLOEXEC, vasprintf */
#endif
#include "monitoring_sdk.h"

#include <netdb.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>

#pragma GCC visibility push(hidden)

/* Where there is TLS (make TLS=1) and it is used, the first; else the second. */
#ifdef MONITORING_TLS
#include "monitoring_tls.h"
#define TLS(used, with, without) ((used) ? (with) : (without))
#else
#define TLS(used, with, without) (without)
#endif

/* The same for compression (make ZLIB=1). */
#ifdef MONITORING_ZLIB
#include "monitoring_zlib.h"
#define ZLIB(with, without) (with)
#else
#define ZLIB(with, without) (without)
#endif

enum {
    MAX_LINE = 65536,
    SUFFIX = 64,
    MAX_BODY = MAX_LINE - 52, /* a line's end, ,"client":"…","seq":N}, has 52 bytes at the most */
    SMALL = 4096,             /* what is formatted on the caller's stack */
    SPILL_FILE = 1 << 20,
    SPILL_TOTAL = 64 << 20,
    MAX_STREAMS = 1000,      /* spill files that a stats line names */
    STATS_DUE = 9000,        /* milliseconds after a message */
    FRAME_LEAST = 1024,      /* bytes of lines that are worth a frame */
    SPILL_FILES = 80,        /* more than SPILL_TOTAL / (SPILL_FILE - MAX_LINE), so that the bytes are the limit */
    MAX_WAITING = 4 << 20,   /* bytes of lines without a seq; the last one may pass it */
    MAX_WINDOW = SPILL_FILE, /* bytes of lines with one, which close() may have to put into one spill file */
    RING = MAX_WAITING + MAX_WINDOW + MAX_LINE,
    BATCH = 16384,
    OUT = BATCH + MAX_LINE + SUFFIX,
    IN = 8192,
    PATH = 1400,
    WORD = 200, /* of a reply's word, what is more is cut */
    CUTS = 256, /* how often a string of a long message is cut, and below which length none is */
    SHORT = 64,
    FAREWELL = 200, /* milliseconds for what is still on its way when a handle is closed */
    QUIET = 5000,   /* milliseconds without a byte after which a connection is dead */
    LINGER = 10     /* milliseconds that the sender looks for itself before it asks to be woken */
};

/* ---- clocks ---- */

static inline long long micros(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static inline long long millis(void) {
    return micros(CLOCK_MONOTONIC) / 1000;
}

/* ---- monitoring_text.c ---- */

/*
 * Where to write. Each put function writes at `at` and returns where the next one goes on; like snprintf, what does not fit is counted,
 * not written. Positions are passed by value, so that the processor does not wait for memory between one and the next.
 */
struct text {
    char *data;
    size_t size;
};

static inline size_t put(struct text text, size_t at, const char *bytes, size_t length) {
    if (at <= text.size && length <= text.size - at)
        memcpy(text.data + at, bytes, length);
    return at + length;
}

static inline size_t put_word(struct text text, size_t at, const char *word) {
    return put(text, at, word, strlen(word));
}

/* clang-format off */
#define STRING(key, text) { key, MON_STRING, { .string = (text) } }
#define INTEGER(key, value_) { key, MON_INTEGER, { .integer = (value_) } }
#define NUMBER(key, value_) { key, MON_NUMBER, { .number = (value_) } }
/* clang-format on */

/* What a call has to say; all of it belongs to the caller. NULL strings among its own fields are left out. */
struct message {
    const char *type, *trace_id, *span_id;
    long long ts;
    const monitoring_field *own, *fields;
    size_t own_count, field_count;
    const char *group;     /* of fields: "context" or "tags" */
    const size_t *lengths; /* of the strings in own, then in fields, once they had to be cut */
};

struct reply {
    int stats, zlib; /* what a welcome offers */
    char type[WORD], code[WORD], detail[WORD];
    long long seq, acked;
};

void mon_make_id(char id[17]);
int mon_is_trace_id(const char *id);
int mon_is_hex(const char *text, size_t length);
uint64_t mon_random_bits(void);
size_t mon_put_integer(struct text text, size_t at, long long number);
size_t mon_put_fields(struct text text, size_t at, const char *before, const monitoring_field *fields, size_t count,
                      const size_t *lengths, int context);
size_t mon_encode(struct text text, const struct message *message, const char *origin);
size_t mon_encode_long(struct text text, struct message *message, const char *origin);
size_t mon_put_number(struct text text, size_t at, double number);
int mon_read_reply(const char *at, struct reply *reply);
void mon_put_traceparent(const char *trace, const char *span, char parent[56]);
size_t mon_suffix(char *line, const char *client, long long seq);

/* ---- the handle ---- */

enum phase { RESTING, DIALING, GREETING, OPEN };

struct stream { /* see the invariants above */
    int active; /* the main one always is */
    int fd, attempts, welcomed;
    int skipping;                     /* the rest of a long reply */
    int offered, framed;              /* by the last welcome: stats lines may be sent, lines may go in frames */
    struct addrinfo *found, *address; /* of the attempt under way: all of them, and the next one to try */
    enum phase phase;
    char client[17], *ring;
    struct monitoring_session *session; /* of TLS */
    size_t ring_size;                   /* where records may start is below it */
    size_t tail, cursor, head;          /* offsets: the first record, the next to send, the end */
    size_t window_bytes, waiting_bytes; /* of lines */
    size_t out_at, out_length, in_length;
    size_t line_at;                /* in out: the line with the seq `wire` */
    size_t frame_at, frame_length; /* of a frame that stands for all of `out`; 0: there is none */
    char *frame;
    long long first, next, given, sent, waiting;
    long long wire;  /* the seq that leaves next */
    long long due;   /* the end of a rest or of patience */
    long long heard; /* when there was something, or nothing, to hear */
    char out[OUT], in[IN];
};

struct spill_file {
    int fd;
    char client[17];
    long long lines;
    size_t bytes;
};

struct span {
    struct span *next;
    char id[17], parent_id[17], trace_id[129], *name;
    long long start, start_monotonic;
    const void *owner; /* the thread that started it */
    int inherited;     /* the process that forked this one started it */
};

struct monitoring_sdk {
    monitoring_sdk *next;
    pthread_mutex_t mutex;
    pthread_t sender;
    pthread_cond_t news;                          /* something is settled, a stream rests, the sender has gone */
    int running, stopping, gone, wake[2], asleep; /* asleep: the sender wants a byte through the pipe */
    int closed, disabled, warned, buffer, file_count, writing;
    int spill_shared; /* below /tmp, where others may have made it */
    char service[129], host[256], *token, tcp_host[256], tcp_port[6],
        unix_path[sizeof((struct sockaddr_un *)0)->sun_path];
    char trace_id[129], parent_id[17], spill_dir[1024], origin[2048]; /* origin: ,"service":…,"host":…,"pid":… */
    struct monitoring_tls *tls;
    pthread_key_t thread;
    uintptr_t threads;  /* a number for each thread that has started a span, never used again */
    struct span *spans; /* newest first */
    long long pid, cpu, cpu_at, in_spill;
    monitoring_stats stats;
    unsigned long long unreported, told; /* told: what `called` was at the last stats line */
    long long tell_at, stats_lines;      /* when the next one is due, 0 for never; how many are in the main ring */
    int finished, compress;              /* the final one is told; zlib is wanted and not yet refused */
    int stream_count;                    /* of the spill files since the beginning, the newest last */
    struct {
        char client[17];
        long long last;
    } streams[MAX_STREAMS];
    size_t spill_bytes;
    struct spill_file files[SPILL_FILES];
    struct stream main, spill;
};

/* ---- monitoring_sender.c; with the lock held ---- */

int mon_is_full(const monitoring_sdk *sdk);
long long mon_waiting(const monitoring_sdk *sdk);
void mon_wake_sender(monitoring_sdk *sdk);
int mon_wait_news(monitoring_sdk *sdk, long long deadline);
void mon_warn_once(monitoring_sdk *sdk, const char *what, const char *detail);
void mon_append(struct stream *stream, const char *body, size_t length);
int mon_spill(monitoring_sdk *sdk, char *line, size_t length);
void mon_start_sender(monitoring_sdk *sdk);
void mon_leave(monitoring_sdk *sdk, long long deadline);
void mon_hang_up(struct stream *stream);
void mon_end_spill_stream(monitoring_sdk *sdk);
void mon_drop_ring(struct stream *stream);
void mon_forget_oldest_file(monitoring_sdk *sdk);
void mon_forget_addresses(struct stream *stream);
void mon_tell_stats(monitoring_sdk *sdk, int final);

/* ---- monitoring_sdk.c ---- */

void mon_lock(monitoring_sdk *sdk);
void mon_unlock(monitoring_sdk *sdk);

#pragma GCC visibility pop
#endif
