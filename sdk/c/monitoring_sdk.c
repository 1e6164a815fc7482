/*
 * monitoring_sdk.c - the wafermon client for C; monitoring_sdk.h says what it does for its callers.
 *
 * How it works. A call formats its message on its own stack and then, under the handle's one mutex, copies the bytes into a ring. The
 * sender thread is the only one that gives seqs and talks to sockets. Between two lock sections it reads the ring unlocked: records
 * between `tail` and `head` never change, and nobody but the sender moves `tail` and `cursor`.
 *
 * A stream is a client id, its records and its connection. There are two: the main one, and one for the spill file that is being sent,
 * whose lines are loaded into a ring of their own; so one piece of code greets, sends, resends and settles both.
 *
 * Invariants, whenever the mutex is free:
 *   stats.called = acked + rejected + dropped + handed_over + (main.given - main.first) + main.waiting + in_spill
 *   ring records, from tail to head: seqs first .. given-1 (the window), then `waiting` more without a seq
 *   first <= next <= given, where next is the seq at `cursor`; sent < given
 *   only files[file_count - 1] may be written, and only while `writing`; spill.active means that files[0] is being sent
 */
#if !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE /* flock, getentropy */
#endif
#if !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif

#include "monitoring_sdk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_LINE = 65536,
    SUFFIX = 64,                                               /* room for ,"client":"0123456789abcdef","seq":9007199254740992}\n */
    MAX_BODY = MAX_LINE - 52,                                  /* a line without that suffix, which has 52 bytes at the most */
    MAX_WAITING = 4 << 20,                                     /* bytes in the ring without a seq */
    MAX_WINDOW = 4 << 20,                                      /* bytes in the ring with one */
    RING = MAX_WAITING + MAX_WINDOW + 2 * (MAX_LINE + SUFFIX), /* each bound may be passed by one record */
    OUT = 2 * MAX_LINE,
    IN = 8192,
    SMALL = 4096, /* what is formatted on the caller's stack */
    SPILL_FILE = 1 << 20,
    SPILL_TOTAL = 64 << 20,
    SPILL_FILES = 80, /* more than SPILL_TOTAL / (SPILL_FILE - MAX_LINE), so that the bytes are the limit */
    QUIET = 5000,     /* milliseconds without a byte after which a connection is dead */
    LINGER = 10       /* milliseconds that the sender looks for itself before it asks to be woken */
};

/* ---- clocks, ids, checks ---- */

static long long micros(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static long long millis(void)
{
    return micros(CLOCK_MONOTONIC) / 1000;
}

static uint64_t random_bits(void)
{
    uint64_t bits = 0;
    while (getentropy(&bits, sizeof bits) != 0 && errno == EINTR)
        ;
    return bits;
}

static void make_id(char id[17])
{
    snprintf(id, 17, "%016llx", (unsigned long long)random_bits());
}

static int is_trace_id(const char *id)
{
    size_t length = 0;
    if (!id)
        return 0;
    for (; id[length]; length++)
        if (length == 128 || id[length] <= ' ' || id[length] > '~')
            return 0;
    return length > 0;
}

static int is_hex(const char *text, size_t length)
{
    return strspn(text, "0123456789abcdef") >= length && strspn(text, "0") < length;
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* ---- JSON text ---- */

/* Like snprintf: what does not fit is counted, not written. */
struct text {
    char *data;
    size_t size, length;
};

static void put(struct text *text, const char *bytes, size_t length)
{
    if (text->length + length <= text->size)
        memcpy(text->data + text->length, bytes, length);
    text->length += length;
}

#define PUT(text, literal) put(text, literal, sizeof literal - 1)

static void put_integer(struct text *text, long long number)
{
    char digits[24], *at = digits + sizeof digits;
    unsigned long long rest = number < 0 ? 0 - (unsigned long long)number : (unsigned long long)number;
    do
        *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0)
        *--at = '-';
    put(text, at, (size_t)(digits + sizeof digits - at));
}

static void put_number(struct text *text, double number)
{
    /* Few decimals, the usual case, without printf: an integer below 10^15 divided by a power of ten is rounded as strtod would. */
    static const double powers[] = { 1, 10, 100, 1000, 10000 };
    double size = fabs(number);
    if (size < 1e10 && (size >= 1e-4 || (size == 0 && !signbit(number)))) {
        for (int places = 0; places < 5; places++) {
            long long scaled = (long long)(size * powers[places] + 0.5);
            if ((double)scaled / powers[places] != size)
                continue;
            char digits[32], *at = digits + sizeof digits;
            for (int place = 0; place <= places || scaled; place++, scaled /= 10) {
                if (place == places && places)
                    *--at = '.';
                *--at = (char)('0' + scaled % 10);
            }
            if (number < 0)
                *--at = '-';
            put(text, at, (size_t)(digits + sizeof digits - at));
            return;
        }
    }
    char printed[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(printed, sizeof printed, "%.*g", digits, number);
        if (strtod(printed, NULL) == number)
            break;
    }
    /* The program's locale may have another decimal point. */
    size_t before = strspn(printed, "-0123456789"), after = strcspn(printed + before, "0123456789e");
    put(text, printed, before);
    if (after)
        PUT(text, ".");
    put(text, printed + before + after, strlen(printed + before + after));
}

static int is_plain(unsigned char c)
{
    return c >= ' ' && c < 0x80 && c != '"' && c != '\\';
}

/* The bytes of the valid UTF-8 sequence at `at`, or 0: cut off, overlong, a surrogate, beyond U+10FFFF. */
static size_t sequence(const unsigned char *at, size_t left)
{
    size_t length = at[0] < 0xC2 ? 0 : at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : at[0] < 0xF5 ? 4 : 0;
    if (!length || left < length)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    if ((at[0] == 0xE0 && at[1] < 0xA0) || (at[0] == 0xED && at[1] > 0x9F) || (at[0] == 0xF0 && at[1] < 0x90) || (at[0] == 0xF4 && at[1] > 0x8F))
        return 0;
    return length;
}

/* Write the character at `at`, which is not plain; the number of bytes it had in the string. */
static size_t put_special(struct text *text, const char *at, size_t left)
{
    unsigned char c = (unsigned char)*at;
    const char *names = "\"\"\\\\\nn\tt\rr";
    if (c >= 0x80) {
        size_t length = sequence((const unsigned char *)at, left);
        put(text, length ? at : "\xEF\xBF\xBD", length ? length : 3);
        return length ? length : 1;
    }
    for (; *names; names += 2)
        if (names[0] == (char)c) {
            char escape[2] = { '\\', names[1] };
            put(text, escape, 2);
            return 1;
        }
    char escape[6] = { '\\', 'u', '0', '0', (char)('0' + (c >> 4)), "0123456789abcdef"[c & 15] };
    put(text, escape, 6);
    return 1;
}

/* How many bytes of the string fit into `room` bytes of JSON, at a character's boundary. */
static size_t fitting(const char *string, size_t length, size_t room)
{
    struct text text = { NULL, 0, 0 };
    size_t at = 0;
    while (at < length) {
        size_t step = 1;
        if (is_plain((unsigned char)string[at]))
            text.length++;
        else
            step = put_special(&text, string + at, length - at);
        if (text.length > room)
            break;
        at += step;
    }
    return at;
}

static void put_string(struct text *text, const char *string, size_t length)
{
    size_t at = 0;
    PUT(text, "\"");
    while (at < length) {
        size_t run = at;
        while (at < length && is_plain((unsigned char)string[at]))
            at++;
        put(text, string + run, at - run);
        if (at < length)
            at += put_special(text, string + at, length - at);
    }
    PUT(text, "\"");
}

/* ---- messages ---- */

#define OWN_STR(name, text) { name, MON_KIND_STR, { .string = (text) } }
#define OWN_INT(name, number_) { name, MON_KIND_INT, { .integer = (number_) } }
#define OWN_NUM(name, number_) { name, MON_KIND_NUM, { .number = (number_) } }

/* What a call has to say; all of it belongs to the caller. */
struct message {
    const char *type;
    long long ts;
    const char *trace_id, *span_id;            /* NULL: left out */
    const monitoring_field *own;               /* fields of the message itself; NULL strings are left out */
    size_t own_count;
    const char *group;                         /* "context" or "tags" */
    const monitoring_field *fields;
    size_t field_count;
    const size_t *lengths;                     /* of the strings in own, then in fields, where they had to be cut */
};

enum { NULLS = 1, BOOLS = 2 }; /* what a group takes: a context both, tags neither */

static size_t put_fields(struct text *text, char before, const monitoring_field *fields, size_t count, const size_t *lengths, int takes)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        const monitoring_field *field = &fields[i];
        const char *string = field->value.string;
        if (field->kind == MON_KIND_STR && !string && !(takes & NULLS))
            continue;
        put(text, kept++ ? "," : &before, 1);
        put_string(text, field->key, strlen(field->key));
        PUT(text, ":");
        switch (field->kind) {
        case MON_KIND_STR:
            if (string)
                put_string(text, string, lengths ? lengths[i] : strlen(string));
            else
                PUT(text, "null");
            break;
        case MON_KIND_INT: {
            int exact = field->value.integer <= 1LL << 53 && field->value.integer >= -(1LL << 53);
            put(text, "\"", !exact);
            put_integer(text, field->value.integer);
            put(text, "\"", !exact);
            break;
        }
        case MON_KIND_NUM:
            if (isfinite(field->value.number))
                put_number(text, field->value.number);
            else
                PUT(text, "null");
            break;
        default: {
            const char *truth = field->value.integer ? "true" : "false";
            put(text, "\"", !(takes & BOOLS));
            put(text, truth, strlen(truth));
            put(text, "\"", !(takes & BOOLS));
        }
        }
    }
    return kept;
}

/* The body: a line up to its `client`. */
static void encode(struct text *text, const struct message *message, const char *origin, size_t origin_length)
{
    PUT(text, "{\"type\":\"");
    put(text, message->type, strlen(message->type));
    PUT(text, "\",\"ts\":");
    put_integer(text, message->ts);
    put(text, origin, origin_length);
    if (message->trace_id) {
        PUT(text, ",\"trace_id\":");
        put_string(text, message->trace_id, strlen(message->trace_id));
    }
    if (message->span_id) {
        PUT(text, ",\"span_id\":");
        put_string(text, message->span_id, strlen(message->span_id));
    }
    put_fields(text, ',', message->own, message->own_count, message->lengths, 0);
    if (message->field_count) {
        size_t start = text->length;
        PUT(text, ",\"");
        put(text, message->group, strlen(message->group));
        PUT(text, "\":");
        const size_t *lengths = message->lengths ? message->lengths + message->own_count : NULL;
        if (put_fields(text, '{', message->fields, message->field_count, lengths, message->group[0] == 'c' ? NULLS | BOOLS : 0))
            PUT(text, "}");
        else
            text->length = start;
    }
    if (message->lengths)
        PUT(text, ",\"truncated\":true");
}

static const char *string_at(const struct message *message, size_t index)
{
    const monitoring_field *field = index < message->own_count ? &message->own[index] : &message->fields[index - message->own_count];
    return field->kind == MON_KIND_STR ? field->value.string : NULL;
}

/* Encode what is longer than MAX_BODY: cut the longest string again and again, and drop the group when that takes too long to help. */
static int encode_cut(struct text *text, struct message *message, const char *origin, size_t origin_length)
{
    enum { CUTS = 256, SHORT = 64 };
    size_t *lengths = malloc((message->own_count + message->field_count) * sizeof *lengths);
    if (!lengths)
        return MON_ENOMEM;
    for (size_t i = 0; i < message->own_count + message->field_count; i++) {
        const char *string = string_at(message, i);
        lengths[i] = string ? strnlen(string, MAX_LINE + 1) : 0;
    }
    message->lengths = lengths;
    for (int cuts = 0;; cuts++) {
        text->length = 0;
        encode(text, message, origin, origin_length);
        if (text->length <= MAX_BODY)
            break;
        size_t over = text->length - MAX_BODY, longest = 0;
        for (size_t i = 1; i < message->own_count + message->field_count; i++)
            if (lengths[i] > lengths[longest])
                longest = i;
        if (message->field_count && (cuts >= CUTS || lengths[longest] < SHORT)) {
            message->field_count = 0;
            continue;
        }
        struct text encoded = { NULL, 0, 0 };
        put_string(&encoded, string_at(message, longest), lengths[longest]);
        /* At most half of it, so that several long strings share the loss. */
        size_t room = encoded.length / 2 > over ? encoded.length - 2 - over : encoded.length / 2;
        lengths[longest] = fitting(string_at(message, longest), lengths[longest], room);
    }
    message->lengths = NULL;
    free(lengths);
    return MON_OK;
}

/* ---- what the sidecar says ---- */

struct reply {
    char type[16], code[40], detail[200];
    long long seq, acked;
};

static const char *skip_space(const char *at)
{
    return at + strspn(at, " \t\r");
}

/* Behind the string that starts at `at`, or NULL; its raw bytes, cut to size - 1, go into `copy`. */
static const char *read_string(const char *at, char *copy, size_t size)
{
    size_t length = 0;
    if (*at++ != '"')
        return NULL;
    for (; *at && *at != '"'; at++) {
        if (length + 1 < size)
            copy[length++] = *at;
        if (*at == '\\' && !*++at)
            return NULL;
    }
    copy[length] = '\0';
    return *at ? at + 1 : NULL;
}

/* Behind the value at `at`, or NULL. It is not checked further than its end requires. */
static const char *skip_value(const char *at)
{
    char ignored[1];
    int depth = 0;
    do {
        if (*at == '"') {
            if (!(at = read_string(at, ignored, sizeof ignored)))
                return NULL;
            continue;
        }
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
        if (!*at)
            return NULL;
        at++;
    } while (depth > 0 || !strchr(",}", *at));
    return at;
}

/* Read one reply, a line without its newline, ended by a NUL. False: not an object, and nothing of it counts. */
static int read_reply(const char *line, struct reply *reply)
{
    memset(reply, 0, sizeof *reply);
    const char *at = skip_space(line);
    if (*at++ != '{')
        return 0;
    while (*(at = skip_space(at)) != '}') {
        char key[16], *end;
        if (!(at = read_string(at, key, sizeof key)) || *(at = skip_space(at)) != ':')
            return 0;
        at = skip_space(at + 1);
        char *string = strcmp(key, "type") == 0 ? reply->type : strcmp(key, "code") == 0 ? reply->code : strcmp(key, "detail") == 0 ? reply->detail : NULL;
        size_t size = string == reply->type ? sizeof reply->type : string == reply->code ? sizeof reply->code : sizeof reply->detail;
        long long *number = strcmp(key, "seq") == 0 ? &reply->seq : strcmp(key, "acked") == 0 ? &reply->acked : NULL;
        if (string && *at == '"') {
            at = read_string(at, string, size);
        } else if (number && (*number = strtoll(at, &end, 10), end != at)) {
            at = end;
        } else {
            at = skip_value(at);
        }
        if (!at || !strchr(",}", *(at = skip_space(at))) || !*at)
            return 0;
        at += *at == ',';
    }
    return 1;
}

/* ---- the handle ---- */

enum phase { RESTING, CONNECTING, GREETING, OPEN };

/* See the invariants above. `phase` and all that the ring has are changed under the mutex; the rest is the sender's alone. */
struct stream {
    int active; /* the main stream always */
    char client[17];
    char *ring;
    size_t ring_size;          /* records start below it, the last one may reach beyond */
    size_t tail, cursor, head; /* offsets: first record, next to send, end */
    long long first, next, given, sent, waiting;
    size_t window_bytes, waiting_bytes;
    enum phase phase;
    int fd, attempts, welcomed;
    long long due;   /* when RESTING ends, or an unanswered connection is given up */
    long long heard; /* when the last byte came, or the window was last empty */
    struct addrinfo *addresses, *address;
    long long wire; /* the seq whose newline comes next in `out` */
    size_t out_at, out_length, in_length;
    int skipping; /* the rest of a reply that is too long */
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
    char id[17], parent_id[17], trace_id[129];
    char *name;
    long long start, start_monotonic;
    const void *owner; /* the thread that started it */
    int inherited;     /* it belongs to the process that forked us */
};

struct monitoring_sdk {
    monitoring_sdk *next;
    pthread_mutex_t mutex;
    pthread_cond_t news; /* quiet, a phase has changed, the sender has gone */
    pthread_t sender;
    int running, stopping, resolving, gone;
    int orphan, freed; /* closed while the sender was stuck in a name look-up: it frees the handle if it is the last */
    int asleep; /* the sender wants a byte through the pipe */
    int wake[2];
    int closed, disabled, warned, buffer;
    char service[129], host[256], *token;
    char unix_path[sizeof((struct sockaddr_un *)0)->sun_path], tcp_host[256], tcp_port[6];
    char origin[1024]; /* ,"service":…,"host":…,"pid":… */
    size_t origin_length;
    pid_t pid;
    pthread_key_t thread; /* a number for each thread that has started a span, never used again */
    uintptr_t threads;
    struct span *spans; /* newest first */
    char trace_id[129], parent_id[17];
    long long cpu, cpu_at;
    monitoring_stats stats;
    unsigned long long in_spill, unreported;
    char spill_dir[1024];
    int spill_shared; /* it is below /tmp, where others may have made it */
    struct spill_file files[SPILL_FILES];
    int file_count, writing;
    size_t spill_bytes;
    struct stream main, spill;
};

/* The only globals: pthread_atfork and atexit hand no argument to their functions, so these have to find every handle. */
static pthread_mutex_t handles_mutex = PTHREAD_MUTEX_INITIALIZER;
static monitoring_sdk *handles;
static int hooked;

static int is_full(const monitoring_sdk *sdk)
{
    return sdk->main.waiting >= sdk->buffer || sdk->main.waiting_bytes >= MAX_WAITING;
}

static int is_quiet(const monitoring_sdk *sdk)
{
    return sdk->main.first == sdk->main.given && !sdk->main.waiting && !sdk->in_spill;
}

static void wake_sender(monitoring_sdk *sdk)
{
    sdk->asleep = 0;
    if (sdk->running && write(sdk->wake[1], "", 1) < 0) {
        /* Full: it wakes anyway. */
    }
}

/* Wait for news until a time of millis(); false when it has come. */
static int wait_news(monitoring_sdk *sdk, long long deadline)
{
    struct timespec until = { (time_t)(deadline / 1000), (long)(deadline % 1000) * 1000000 };
    return pthread_cond_timedwait(&sdk->news, &sdk->mutex, &until) != ETIMEDOUT;
}

static void warn_once(monitoring_sdk *sdk, const char *what, const char *detail)
{
    if (!sdk->warned)
        fprintf(stderr, "wafermon: %s: %.300s\n", what, detail);
    sdk->warned = 1;
}

static void make_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void destroy(monitoring_sdk *sdk)
{
    pthread_mutex_destroy(&sdk->mutex);
    pthread_cond_destroy(&sdk->news);
    free(sdk);
}

/* ---- the ring ---- */

static size_t record(const struct stream *stream, size_t at, const char **body)
{
    uint32_t length;
    memcpy(&length, stream->ring + at, sizeof length);
    *body = stream->ring + at + sizeof length;
    return length;
}

static size_t after(const struct stream *stream, size_t at, size_t length)
{
    at += sizeof(uint32_t) + length;
    return at >= stream->ring_size ? 0 : at;
}

/* A record may hang over ring_size and is never split; the bounds on bytes keep head behind tail. */
static void append(struct stream *stream, const char *body, size_t length)
{
    uint32_t header = (uint32_t)length;
    memcpy(stream->ring + stream->head, &header, sizeof header);
    memcpy(stream->ring + stream->head + sizeof header, body, length);
    stream->head = after(stream, stream->head, length);
    stream->waiting++;
    stream->waiting_bytes += sizeof header + length;
}

static void rewind_stream(struct stream *stream)
{
    stream->cursor = stream->tail;
    stream->next = stream->first;
}

/* Forget the window up to seq, which the sidecar has. */
static void settle(monitoring_sdk *sdk, struct stream *stream, long long seq, int rejected)
{
    pthread_mutex_lock(&sdk->mutex);
    if (seq > stream->sent)
        seq = stream->sent; /* it can't have what never left */
    for (; stream->first <= seq; stream->first++) {
        const char *body;
        size_t length = record(stream, stream->tail, &body);
        stream->tail = after(stream, stream->tail, length);
        stream->window_bytes -= sizeof(uint32_t) + length;
        sdk->stats.acked += !rejected;
        sdk->stats.rejected += (unsigned)rejected;
        sdk->in_spill -= stream == &sdk->spill;
    }
    if (stream->next < stream->first)
        rewind_stream(stream);
    if (stream->first == stream->given && !stream->waiting)
        stream->tail = stream->cursor = stream->head = 0; /* the same few pages serve a program that logs little */
    if (is_quiet(sdk))
        pthread_cond_broadcast(&sdk->news);
    pthread_mutex_unlock(&sdk->mutex);
}

/* ---- spill files ---- */

static int close_on_exec(int fd)
{
    if (fd >= 0)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}

static size_t suffix(char *line, const char *client, long long seq)
{
    return (size_t)snprintf(line, SUFFIX, ",\"client\":\"%s\",\"seq\":%lld}\n", client, seq);
}

static int spill_path(const monitoring_sdk *sdk, const char *client, const char *ending, char *path, size_t size)
{
    return snprintf(path, size, "%s/%s.%ld.%s.ldjson%s", sdk->spill_dir, sdk->service, (long)sdk->pid, client, ending) < (int)size;
}

static int create_spill(const monitoring_sdk *sdk, const char *client)
{
    char path[1400];
    struct stat status;
    mkdir(sdk->spill_dir, 0700);
    if (sdk->spill_shared && (lstat(sdk->spill_dir, &status) || !S_ISDIR(status.st_mode) || status.st_uid != geteuid() || status.st_mode & 022))
        return -1;
    if (!spill_path(sdk, client, "", path, sizeof path))
        return -1;
    /* The group may read: a spool directory with a setgid bit belongs to the sidecar's. */
    int fd = close_on_exec(open(path, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640));
    if (fd >= 0)
        flock(fd, LOCK_EX | LOCK_NB);
    return fd;
}

/* Append one whole line, or nothing; its bytes, or 0. */
static size_t write_line(int fd, size_t size, const char *body, size_t length, const char *client, long long seq)
{
    char end[SUFFIX];
    size_t end_length = suffix(end, client, seq);
    struct iovec parts[2] = { { (void *)(uintptr_t)body, length }, { end, end_length } };
    if (writev(fd, parts, 2) == (ssize_t)(length + end_length))
        return length + end_length;
    if (ftruncate(fd, (off_t)size)) {
        /* The torn line stays; whoever reads the file discards what has no newline. */
    }
    return 0;
}

/* Put a message into the newest spill file; false: it has to be dropped. */
static int spill(monitoring_sdk *sdk, const char *body, size_t length)
{
    if (sdk->spill_bytes + length + SUFFIX > SPILL_TOTAL)
        return 0;
    if (sdk->writing && sdk->files[sdk->file_count - 1].bytes + length + SUFFIX > SPILL_FILE)
        sdk->writing = 0;
    if (!sdk->writing) {
        struct spill_file file = { -1, "", 0, 0 };
        make_id(file.client);
        if (sdk->file_count == SPILL_FILES || (file.fd = create_spill(sdk, file.client)) < 0)
            return 0;
        sdk->files[sdk->file_count++] = file;
        sdk->writing = 1;
    }
    struct spill_file *file = &sdk->files[sdk->file_count - 1];
    size_t written = write_line(file->fd, file->bytes, body, length, file->client, file->lines + 1);
    file->lines += written > 0;
    file->bytes += written;
    sdk->spill_bytes += written;
    sdk->in_spill += written > 0;
    sdk->stats.spilled += written > 0;
    return written > 0;
}

static void forget_oldest_file(monitoring_sdk *sdk)
{
    close(sdk->files[0].fd);
    sdk->spill_bytes -= sdk->files[0].bytes;
    memmove(sdk->files, sdk->files + 1, (size_t)--sdk->file_count * sizeof *sdk->files);
}

/* Make the lines of a file the records of the spill stream. */
static int load_spill(struct stream *stream, const struct spill_file *file)
{
    char end[SUFFIX], *lines = malloc(file->bytes + 1), *ring = malloc(file->bytes + 1);
    char *at = lines, *newline;
    int good = lines && ring && pread(file->fd, lines, file->bytes, 0) == (ssize_t)file->bytes;
    stream->ring = ring;
    stream->ring_size = file->bytes + 1; /* a record's header is shorter than a line's suffix */
    stream->tail = stream->cursor = stream->head = 0;
    stream->first = stream->next = stream->given = 1;
    stream->sent = stream->waiting = 0;
    stream->window_bytes = stream->waiting_bytes = 0;
    memcpy(stream->client, file->client, sizeof stream->client);
    while (good && stream->waiting < file->lines) {
        size_t end_length = suffix(end, file->client, stream->waiting + 1);
        newline = memchr(at, '\n', file->bytes - (size_t)(at - lines));
        good = newline && (size_t)(newline + 1 - at) > end_length && memcmp(newline + 1 - end_length, end, end_length) == 0;
        if (good)
            append(stream, at, (size_t)(newline + 1 - at) - end_length);
        at = good ? newline + 1 : at;
    }
    free(lines);
    if (!good)
        free(ring);
    return good;
}

/* Start to send the oldest closed file; the newest one is closed for it when calls have no need of it. */
static void take_spill(monitoring_sdk *sdk)
{
    char path[1400], taken[1400];
    struct spill_file file;
    pthread_mutex_lock(&sdk->mutex);
    if (sdk->file_count == 1 && sdk->writing && !is_full(sdk))
        sdk->writing = 0;
    int ready = sdk->main.phase == OPEN && !sdk->spill.active && sdk->file_count > sdk->writing;
    file = sdk->files[0];
    pthread_mutex_unlock(&sdk->mutex);
    if (!ready)
        return;
    spill_path(sdk, file.client, "", path, sizeof path);
    spill_path(sdk, file.client, ".taken", taken, sizeof taken);
    int claimed = rename(path, taken) == 0;
    int loaded = claimed && load_spill(&sdk->spill, &file);
    if (claimed && !loaded)
        rename(taken, path);
    pthread_mutex_lock(&sdk->mutex);
    if (loaded) {
        sdk->spill.active = 1;
        sdk->spill.phase = RESTING;
        sdk->spill.due = sdk->spill.attempts = 0;
    } else { /* somebody else has it, or the sidecar will */
        sdk->in_spill -= (unsigned long long)file.lines;
        sdk->stats.handed_over += (unsigned long long)file.lines;
        forget_oldest_file(sdk);
    }
    pthread_mutex_unlock(&sdk->mutex);
}

/* ---- connections ---- */

static void set_phase(monitoring_sdk *sdk, struct stream *stream, enum phase phase)
{
    pthread_mutex_lock(&sdk->mutex);
    stream->phase = phase;
    if (phase != OPEN)
        rewind_stream(stream);
    pthread_cond_broadcast(&sdk->news);
    pthread_mutex_unlock(&sdk->mutex);
}

/* Descriptors come and go under the mutex, so that a forked child knows which ones it has inherited. */
static void hang_up(monitoring_sdk *sdk, struct stream *stream)
{
    pthread_mutex_lock(&sdk->mutex);
    if (stream->fd >= 0)
        close(stream->fd);
    stream->fd = -1;
    pthread_mutex_unlock(&sdk->mutex);
    stream->out_at = stream->out_length = stream->in_length = 0;
    stream->skipping = 0;
}

static void forget_addresses(struct stream *stream)
{
    if (stream->addresses)
        freeaddrinfo(stream->addresses);
    stream->addresses = stream->address = NULL;
}

/* The connection is lost, or did not come about: rest for a random time within a growing limit, so that many clients don't come at once. */
static void lose(monitoring_sdk *sdk, struct stream *stream)
{
    long long limit = stream->attempts < 9 ? 100LL << stream->attempts : 30000;
    hang_up(sdk, stream);
    forget_addresses(stream);
    stream->attempts++;
    stream->due = millis() + (long long)(random_bits() % (uint64_t)((limit < 30000 ? limit : 30000) + 1));
    set_phase(sdk, stream, RESTING);
}

static void greet(monitoring_sdk *sdk, struct stream *stream)
{
    struct text text = { stream->out, sizeof stream->out, 0 };
    PUT(&text, "{\"v\":2,\"type\":\"hello\",\"client\":\"");
    put(&text, stream->client, 16);
    PUT(&text, "\"");
    put(&text, sdk->origin, sdk->origin_length);
    PUT(&text, ",\"sdk\":\"c/2.0.0\",\"ack\":true");
    if (sdk->token) {
        PUT(&text, ",\"token\":");
        put_string(&text, sdk->token, strlen(sdk->token));
    }
    PUT(&text, "}\n");
    stream->out_at = 0;
    stream->out_length = text.length <= text.size ? text.length : 0;
    stream->due = millis() + QUIET;
    set_phase(sdk, stream, GREETING);
}

/* Begin to connect to the address; -1 at once when that can't be. */
static int begin_connect(int family, const struct sockaddr *address, socklen_t length)
{
    int one = 1, fd = close_on_exec(socket(family, SOCK_STREAM, 0));
    if (fd < 0)
        return -1;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    if (family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, address, length) == 0 || errno == EINPROGRESS)
        return fd;
    close(fd);
    return -1;
}

/* False: the handle was closed while the name was looked up, which nothing can interrupt, and is no longer the sender's. */
static int look_up(monitoring_sdk *sdk, struct stream *stream)
{
    struct addrinfo hints, *addresses = NULL;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    if (getaddrinfo(sdk->tcp_host, sdk->tcp_port, &hints, &addresses) != 0) {
        hints.ai_flags = AI_NUMERICSERV;
        pthread_mutex_lock(&sdk->mutex);
        sdk->resolving = 1;
        pthread_cond_broadcast(&sdk->news);
        pthread_mutex_unlock(&sdk->mutex);
        if (getaddrinfo(sdk->tcp_host, sdk->tcp_port, &hints, &addresses) != 0)
            addresses = NULL;
        pthread_mutex_lock(&sdk->mutex);
        sdk->resolving = 0;
        int stopping = sdk->stopping;
        pthread_mutex_unlock(&sdk->mutex);
        if (stopping) {
            if (addresses)
                freeaddrinfo(addresses);
            return 0;
        }
    }
    stream->addresses = stream->address = addresses;
    return 1;
}

/* Connect to the first address that can be, from stream->address on. */
static void dial(monitoring_sdk *sdk, struct stream *stream)
{
    hang_up(sdk, stream);
    pthread_mutex_lock(&sdk->mutex);
    if (sdk->unix_path[0] && stream->phase == RESTING) {
        struct sockaddr_un address;
        memset(&address, 0, sizeof address);
        address.sun_family = AF_UNIX;
        strcpy(address.sun_path, sdk->unix_path);
        stream->fd = begin_connect(AF_UNIX, (struct sockaddr *)&address, sizeof address);
    }
    for (; stream->fd < 0 && stream->address; stream->address = stream->address->ai_next)
        stream->fd = begin_connect(stream->address->ai_family, stream->address->ai_addr, stream->address->ai_addrlen);
    pthread_mutex_unlock(&sdk->mutex);
    stream->due = millis() + QUIET;
    if (stream->fd < 0)
        lose(sdk, stream);
    else
        set_phase(sdk, stream, CONNECTING);
}

static void connected(monitoring_sdk *sdk, struct stream *stream)
{
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && !error)
        greet(sdk, stream);
    else
        dial(sdk, stream);
}

/* Fill `out` with records from the cursor on, and give seqs to those that have none. True: there was something. */
static int fill(monitoring_sdk *sdk, struct stream *stream)
{
    pthread_mutex_lock(&sdk->mutex);
    long long next = stream->next, end = stream->given + stream->waiting;
    size_t cursor = stream->cursor, window = stream->window_bytes, before = window;
    pthread_mutex_unlock(&sdk->mutex);
    stream->out_at = stream->out_length = 0;
    stream->wire = next;
    while (next < end && (next < stream->given || window < MAX_WINDOW)) {
        const char *body;
        size_t length = record(stream, cursor, &body);
        if (stream->out_length + length + SUFFIX > OUT)
            break;
        memcpy(stream->out + stream->out_length, body, length);
        stream->out_length += length;
        stream->out_length += suffix(stream->out + stream->out_length, stream->client, next);
        cursor = after(stream, cursor, length);
        window += next >= stream->given ? sizeof(uint32_t) + length : 0;
        next++;
    }
    pthread_mutex_lock(&sdk->mutex);
    if (before == 0 && window)
        stream->heard = millis(); /* there was nothing to hear */
    stream->cursor = cursor;
    stream->next = next;
    if (next > stream->given) {
        stream->waiting -= next - stream->given;
        stream->waiting_bytes -= window - before;
        stream->window_bytes += window - before;
        stream->given = next;
    }
    pthread_mutex_unlock(&sdk->mutex);
    return stream->out_length > 0;
}

/* Count the messages whose last byte has gone. */
static void count_sent(monitoring_sdk *sdk, struct stream *stream, const char *bytes, size_t length)
{
    const char *end = bytes + length;
    pthread_mutex_lock(&sdk->mutex);
    for (; (bytes = memchr(bytes, '\n', (size_t)(end - bytes))); bytes++) {
        if (stream->wire > stream->sent) {
            stream->sent = stream->wire;
            sdk->stats.sent++;
        } else {
            sdk->stats.resent++;
        }
        stream->wire++;
    }
    pthread_mutex_unlock(&sdk->mutex);
}

/* Send until there is nothing more or the socket is full. */
static void transmit(monitoring_sdk *sdk, struct stream *stream)
{
    while (stream->out_at < stream->out_length || (stream->phase == OPEN && fill(sdk, stream))) {
        ssize_t sent = send(stream->fd, stream->out + stream->out_at, stream->out_length - stream->out_at, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
            lose(sdk, stream);
        if (sent < 0)
            return;
        if (stream->phase == OPEN)
            count_sent(sdk, stream, stream->out + stream->out_at, (size_t)sent);
        stream->out_at += (size_t)sent;
    }
}

static void obey(monitoring_sdk *sdk, struct stream *stream, const char *line)
{
    struct reply reply;
    if (!read_reply(line, &reply))
        return;
    if (stream->phase == GREETING && strcmp(reply.type, "welcome") == 0) {
        forget_addresses(stream);
        stream->attempts = 0;
        settle(sdk, stream, reply.acked, 0);
        pthread_mutex_lock(&sdk->mutex);
        sdk->stats.reconnects += stream == &sdk->main && stream->welcomed;
        pthread_mutex_unlock(&sdk->mutex);
        stream->welcomed = 1;
        set_phase(sdk, stream, OPEN);
    } else if (stream->phase == GREETING && strcmp(reply.type, "error") == 0) {
        warn_once(sdk, reply.code[0] ? reply.code : "refused", reply.detail);
        lose(sdk, stream);
    } else if (stream->phase == OPEN && strcmp(reply.type, "ack") == 0) {
        settle(sdk, stream, reply.seq, 0);
    } else if (stream->phase == OPEN && strcmp(reply.type, "error") == 0 && reply.seq > 0) {
        /* The sidecar says so only after the sync that covers everything up to this message. */
        settle(sdk, stream, reply.seq - 1, 0);
        settle(sdk, stream, reply.seq, 1);
    }
}

/* Take complete lines out of `in`. */
static void take_lines(monitoring_sdk *sdk, struct stream *stream)
{
    char *line = stream->in, *end = stream->in + stream->in_length, *newline;
    while (stream->fd >= 0 && (newline = memchr(line, '\n', (size_t)(end - line)))) {
        *newline = '\0';
        if (!stream->skipping)
            obey(sdk, stream, line);
        stream->skipping = 0;
        line = newline + 1;
    }
    if (stream->fd < 0)
        return;
    stream->in_length = (size_t)(end - line);
    memmove(stream->in, line, stream->in_length);
    if (stream->in_length == sizeof stream->in) {
        stream->skipping = 1;
        stream->in_length = 0;
    }
}

static void receive(monitoring_sdk *sdk, struct stream *stream)
{
    while (stream->fd >= 0) {
        ssize_t got = recv(stream->fd, stream->in + stream->in_length, sizeof stream->in - stream->in_length, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (got <= 0) {
            lose(sdk, stream);
            return;
        }
        stream->heard = millis();
        stream->in_length += (size_t)got;
        take_lines(sdk, stream);
    }
}

/* ---- the sender thread ---- */

static int outstanding(const struct stream *stream)
{
    return stream->phase == OPEN && stream->first < stream->given;
}

/* When this stream has to be looked at again though nothing happens; LLONG_MAX: never. */
static long long due(const struct stream *stream)
{
    return !stream->active ? LLONG_MAX : stream->phase != OPEN ? stream->due : outstanding(stream) ? stream->heard + QUIET : LLONG_MAX;
}

/* Do what can be done for the stream without waiting. False: the handle is no longer the sender's. */
static int tend(monitoring_sdk *sdk, struct stream *stream)
{
    int overdue = millis() >= due(stream);
    if (!stream->active)
        return 1;
    if (stream->phase == RESTING && overdue && (stream == &sdk->main || sdk->main.phase == OPEN)) {
        if (!sdk->unix_path[0] && !look_up(sdk, stream))
            return 0;
        dial(sdk, stream);
    } else if (stream->phase == CONNECTING && overdue) {
        dial(sdk, stream);
    } else if (stream->phase != RESTING && overdue) {
        lose(sdk, stream);
    }
    if (stream->phase >= GREETING)
        transmit(sdk, stream);
    return 1;
}

static void end_spill_stream(monitoring_sdk *sdk)
{
    struct stream *stream = &sdk->spill;
    hang_up(sdk, stream);
    forget_addresses(stream);
    pthread_mutex_lock(&sdk->mutex);
    free(stream->ring);
    stream->ring = NULL;
    stream->active = 0;
    pthread_mutex_unlock(&sdk->mutex);
}

/* The spill file that is being sent is in the sidecar's journal as a whole. */
static void finish_spill(monitoring_sdk *sdk)
{
    char taken[1400];
    if (!sdk->spill.active || sdk->spill.first <= sdk->files[0].lines)
        return;
    spill_path(sdk, sdk->spill.client, ".taken", taken, sizeof taken);
    unlink(taken);
    end_spill_stream(sdk);
    pthread_mutex_lock(&sdk->mutex);
    forget_oldest_file(sdk);
    pthread_mutex_unlock(&sdk->mutex);
}

static void report_drops(monitoring_sdk *sdk);

static struct pollfd poll_for(const struct stream *stream)
{
    struct pollfd slot = { stream->active ? stream->fd : -1, POLLIN, 0 };
    if (stream->phase == CONNECTING)
        slot.events = POLLOUT;
    else if (stream->out_at < stream->out_length)
        slot.events |= POLLOUT;
    return slot;
}

static void answer_poll(monitoring_sdk *sdk, struct stream *stream, const struct pollfd *slot)
{
    if (!slot->revents || slot->fd != stream->fd)
        return;
    if (stream->phase == CONNECTING)
        connected(sdk, stream);
    else if (slot->revents & ~POLLOUT)
        receive(sdk, stream);
}

static void *send_all(void *argument)
{
    monitoring_sdk *sdk = argument;
    long long busy = 0, seen = -1;
    char drain[64];
    for (;;) {
        take_spill(sdk);
        report_drops(sdk);
        if (!tend(sdk, &sdk->main) || !tend(sdk, &sdk->spill))
            break;
        struct pollfd slots[3] = { { sdk->wake[0], POLLIN, 0 }, poll_for(&sdk->main), poll_for(&sdk->spill) };
        long long now = millis(), next = due(&sdk->main) < due(&sdk->spill) ? due(&sdk->main) : due(&sdk->spill);
        pthread_mutex_lock(&sdk->mutex);
        if (sdk->stopping) {
            pthread_mutex_unlock(&sdk->mutex);
            break;
        }
        /* While messages keep coming, looking every millisecond is cheaper for the callers than being woken by each of them. */
        if (sdk->main.given != seen)
            busy = now + LINGER;
        seen = sdk->main.given;
        if (sdk->main.phase == OPEN && sdk->main.out_at == sdk->main.out_length && sdk->main.window_bytes < MAX_WINDOW) {
            if (now < busy || sdk->main.waiting)
                next = now + 1 < next ? now + 1 : next;
            else
                sdk->asleep = 1;
        }
        pthread_mutex_unlock(&sdk->mutex);
        int timeout = next == LLONG_MAX ? -1 : next > now ? (int)(next - now < 60000 ? next - now : 60000) : 0;
        poll(slots, 3, timeout);
        if (slots[0].revents && read(sdk->wake[0], drain, sizeof drain) < 0) {
            /* Woken twice for one byte. */
        }
        answer_poll(sdk, &sdk->main, &slots[1]);
        answer_poll(sdk, &sdk->spill, &slots[2]);
        finish_spill(sdk);
    }
    pthread_mutex_lock(&sdk->mutex);
    sdk->gone = 1;
    int freed = sdk->freed;
    pthread_cond_broadcast(&sdk->news);
    pthread_mutex_unlock(&sdk->mutex);
    if (freed)
        destroy(sdk);
    return NULL;
}

/* Under the mutex. Without a thread, for want of resources, calls go on into buffer and spill, and the next one tries again. */
static void start_sender(monitoring_sdk *sdk)
{
    sigset_t all, before;
    if (pipe(sdk->wake) != 0)
        return;
    for (int i = 0; i < 2; i++)
        fcntl(close_on_exec(sdk->wake[i]), F_SETFL, O_NONBLOCK);
    sigfillset(&all); /* signals are for the program's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    sdk->running = pthread_create(&sdk->sender, NULL, send_all, sdk) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    for (int i = 0; i < 2 && !sdk->running; i++)
        close(sdk->wake[i]);
}

/* ---- calls ---- */

/* Count the message and find a place for it; body NULL: there was no memory to encode it. */
static void enqueue(monitoring_sdk *sdk, const char *body, size_t length)
{
    pthread_mutex_lock(&sdk->mutex);
    sdk->stats.called++;
    if (!sdk->running && !sdk->closed && !sdk->disabled)
        start_sender(sdk);
    if (sdk->closed || sdk->disabled) {
        sdk->stats.dropped++;
    } else if (body && !is_full(sdk)) {
        append(&sdk->main, body, length);
        if (sdk->asleep || sdk->main.waiting * 2 == sdk->buffer)
            wake_sender(sdk);
    } else if (!body || !spill(sdk, body, length)) {
        sdk->stats.dropped++;
        sdk->unreported++;
    }
    pthread_mutex_unlock(&sdk->mutex);
}

static int submit(monitoring_sdk *sdk, struct message *message)
{
    char small[SMALL], *large = NULL;
    struct text text = { small, sizeof small, 0 };
    encode(&text, message, sdk->origin, sdk->origin_length);
    if (text.length > sizeof small) {
        text.size = MAX_BODY;
        text.data = large = malloc(MAX_BODY);
        if (!large || encode_cut(&text, message, sdk->origin, sdk->origin_length))
            text.data = NULL;
    }
    enqueue(sdk, text.data, text.length);
    free(large);
    return text.data ? MON_OK : MON_ENOMEM;
}

/* The innermost open span of this thread, under the mutex. */
static const struct span *current_span(const monitoring_sdk *sdk)
{
    const void *thread = pthread_getspecific(sdk->thread);
    const struct span *span = thread ? sdk->spans : NULL;
    while (span && span->owner != thread)
        span = span->next;
    return span;
}

/* The trace and span that a call is made in; empty strings where there is none. */
static void current_scope(monitoring_sdk *sdk, char trace_id[129], char span_id[17])
{
    pthread_mutex_lock(&sdk->mutex);
    const struct span *span = current_span(sdk);
    strcpy(trace_id, span ? span->trace_id : sdk->trace_id);
    strcpy(span_id, span ? span->id : sdk->parent_id);
    pthread_mutex_unlock(&sdk->mutex);
}

static int are_fields(const monitoring_field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!fields || !fields[i].key || fields[i].kind < MON_KIND_STR || fields[i].kind > MON_KIND_BOOL)
            return 0;
    return 1;
}

static int submit_here(monitoring_sdk *sdk, const char *type, const monitoring_field *own, size_t own_count, const char *group,
                       const monitoring_field *fields, size_t count)
{
    char trace_id[129], span_id[17];
    if (!are_fields(fields, count))
        return MON_EINVAL;
    current_scope(sdk, trace_id, span_id);
    struct message message = { type, micros(CLOCK_REALTIME), trace_id[0] ? trace_id : NULL, span_id[0] ? span_id : NULL,
                               own, own_count, group, fields, count, NULL };
    return submit(sdk, &message);
}

/* The fields of a variadic call; their number, or MON_EINVAL. */
static int collect(monitoring_field *fields, va_list arguments)
{
    const char *key;
    int count = 0;
    while ((key = va_arg(arguments, const char *))) {
        if (count == MON_MAX_FIELDS)
            return MON_EINVAL;
        monitoring_field *field = &fields[count++];
        field->key = key;
        field->kind = va_arg(arguments, int);
        switch (field->kind) {
        case MON_KIND_STR: field->value.string = va_arg(arguments, const char *); break;
        case MON_KIND_INT: field->value.integer = va_arg(arguments, long long); break;
        case MON_KIND_NUM: field->value.number = va_arg(arguments, double); break;
        case MON_KIND_BOOL: field->value.integer = va_arg(arguments, int); break;
        default: return MON_EINVAL;
        }
    }
    return count;
}

int monitoring_log_event_fields(monitoring_sdk *sdk, const char *level, const char *message, const monitoring_field *fields, size_t count)
{
    static const char *const levels[] = { "info", "debug", "warning", "error", "critical" };
    size_t known = 0;
    if (!sdk || !message)
        return MON_EINVAL;
    while (level && known < 5 && strcmp(level, levels[known]) != 0)
        known++;
    if (!level || known == 5)
        return MON_ELEVEL;
    const monitoring_field own[] = { OWN_STR("level", level), OWN_STR("message", message) };
    return submit_here(sdk, "event", own, 2, "context", fields, count);
}

int monitoring_log_event(monitoring_sdk *sdk, const char *level, const char *message, ...)
{
    monitoring_field fields[MON_MAX_FIELDS];
    va_list arguments;
    va_start(arguments, message);
    int count = collect(fields, arguments);
    va_end(arguments);
    return count < 0 ? count : monitoring_log_event_fields(sdk, level, message, fields, (size_t)count);
}

int monitoring_log_eventf(monitoring_sdk *sdk, const char *level, const char *format, ...)
{
    char small[1024], *message = small;
    va_list arguments, again;
    if (!sdk || !format)
        return MON_EINVAL;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(small, sizeof small, format, arguments);
    if (length >= (int)sizeof small && (message = malloc((size_t)length + 1)))
        vsnprintf(message, (size_t)length + 1, format, again);
    va_end(again);
    va_end(arguments);
    int result = length < 0 ? MON_EINVAL : monitoring_log_event_fields(sdk, level, message ? message : small, NULL, 0);
    if (message != small)
        free(message);
    return result;
}

int monitoring_log_metric_fields(monitoring_sdk *sdk, const char *name, double value, const char *unit, const monitoring_field *fields,
                                 size_t count)
{
    if (!sdk)
        return MON_EINVAL;
    if (!name || !*name)
        return MON_ENAME;
    const char *word = isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
    const monitoring_field number = OWN_NUM("value", value), string = OWN_STR("value", word);
    const monitoring_field own[] = { OWN_STR("name", name), isfinite(value) ? number : string, OWN_STR("unit", unit) };
    return submit_here(sdk, "metric", own, 3, "tags", fields, count);
}

int monitoring_log_metric(monitoring_sdk *sdk, const char *name, double value, const char *unit, ...)
{
    monitoring_field fields[MON_MAX_FIELDS];
    va_list arguments;
    va_start(arguments, unit);
    int count = collect(fields, arguments);
    va_end(arguments);
    return count < 0 ? count : monitoring_log_metric_fields(sdk, name, value, unit, fields, (size_t)count);
}

int monitoring_log_progress(monitoring_sdk *sdk, const char *job_id, double percent, const char *status)
{
    size_t characters = 0;
    if (!sdk)
        return MON_EINVAL;
    if (!is_trace_id(job_id))
        return MON_ETRACE;
    if (!(percent >= 0 && percent <= 100))
        return MON_EPERCENT;
    for (const char *at = status ? status : "running"; *at && characters <= 64; at++)
        characters += ((unsigned char)*at & 0xC0) != 0x80;
    if (characters < 1 || characters > 64)
        return MON_ESTATUS;
    const monitoring_field own[] = { OWN_STR("job_id", job_id), OWN_NUM("percent", percent), OWN_STR("status", status ? status : "running") };
    return submit_here(sdk, "progress", own, 3, NULL, NULL, 0);
}

int monitoring_log_resource(monitoring_sdk *sdk, double cpu, double mem, double disk, double net)
{
    const monitoring_field given[] = { OWN_NUM("cpu", cpu), OWN_NUM("mem", mem), OWN_NUM("disk", disk), OWN_NUM("net", net) };
    monitoring_field own[4];
    size_t count = 0;
    for (size_t i = 0; i < 4; i++)
        if (isfinite(given[i].value.number))
            own[count++] = given[i];
    return sdk && count ? submit_here(sdk, "resource", own, count, NULL, NULL, 0) : MON_EINVAL;
}

static long long used_cpu(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000LL + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

int monitoring_log_own_resource(monitoring_sdk *sdk)
{
    double mem = NAN, disk = NAN, read_bytes = 0, written = 0;
    long pages = 0;
    char line[128];
    FILE *file;
    if (!sdk)
        return MON_EINVAL;
    pthread_mutex_lock(&sdk->mutex);
    long long cpu = used_cpu(), now = micros(CLOCK_MONOTONIC);
    double percent = 100.0 * (double)(cpu - sdk->cpu) / (double)(now > sdk->cpu_at ? now - sdk->cpu_at : 1);
    sdk->cpu = cpu;
    sdk->cpu_at = now;
    pthread_mutex_unlock(&sdk->mutex);
    if ((file = fopen("/proc/self/statm", "re"))) {
        if (fscanf(file, "%*s %ld", &pages) == 1)
            mem = (double)pages * (double)sysconf(_SC_PAGESIZE);
        fclose(file);
    }
    if ((file = fopen("/proc/self/io", "re"))) {
        while (fgets(line, sizeof line, file))
            if (sscanf(line, "read_bytes: %lf", &read_bytes) == 1 || sscanf(line, "write_bytes: %lf", &written) == 1)
                disk = read_bytes + written;
        fclose(file);
    }
    return monitoring_log_resource(sdk, percent, mem, disk, NAN);
}

int monitoring_set_trace_id(monitoring_sdk *sdk, const char *trace_id)
{
    if (!sdk)
        return MON_EINVAL;
    if (!is_trace_id(trace_id))
        return MON_ETRACE;
    pthread_mutex_lock(&sdk->mutex);
    strcpy(sdk->trace_id, trace_id);
    pthread_mutex_unlock(&sdk->mutex);
    return MON_OK;
}

static int submit_span(monitoring_sdk *sdk, const struct span *span, const char *status, const monitoring_field *fields, size_t count)
{
    const char *parent = span->parent_id[0] ? span->parent_id : NULL;
    const monitoring_field own[] = {
        OWN_STR("span_id", span->id), OWN_STR("name", span->name), OWN_STR("parent_id", parent),
        OWN_STR("status", status), OWN_INT("start", span->start), OWN_INT("duration", micros(CLOCK_MONOTONIC) - span->start_monotonic)
    };
    struct message message = { status ? "span_end" : "span_start", status ? micros(CLOCK_REALTIME) : span->start, span->trace_id, NULL,
                               own, status ? 6 : 3, "tags", fields, count, NULL };
    return submit(sdk, &message);
}

int monitoring_start_span_fields(monitoring_sdk *sdk, const char *name, const char *trace_id, char id[17], const monitoring_field *fields,
                                 size_t count)
{
    if (!sdk || !id || !are_fields(fields, count))
        return MON_EINVAL;
    if (!name || !*name)
        return MON_ENAME;
    if (trace_id && !is_trace_id(trace_id))
        return MON_ETRACE;
    struct span *span = calloc(1, sizeof *span);
    if (!span || !(span->name = strndup(name, MAX_LINE + 1))) {
        free(span);
        enqueue(sdk, NULL, 0);
        return MON_ENOMEM;
    }
    make_id(span->id);
    current_scope(sdk, span->trace_id, span->parent_id);
    if (trace_id)
        strcpy(span->trace_id, trace_id);
    if (!span->trace_id[0]) {
        make_id(span->trace_id);
        make_id(span->trace_id + 16);
    }
    span->start = micros(CLOCK_REALTIME);
    span->start_monotonic = micros(CLOCK_MONOTONIC);
    memcpy(id, span->id, sizeof span->id);
    int result = submit_span(sdk, span, NULL, fields, count);
    pthread_mutex_lock(&sdk->mutex);
    if (!pthread_getspecific(sdk->thread))
        pthread_setspecific(sdk->thread, (void *)++sdk->threads);
    span->owner = pthread_getspecific(sdk->thread);
    span->next = sdk->spans;
    sdk->spans = span;
    pthread_mutex_unlock(&sdk->mutex);
    return result;
}

int monitoring_start_span(monitoring_sdk *sdk, const char *name, const char *trace_id, char id[17])
{
    return monitoring_start_span_fields(sdk, name, trace_id, id, NULL, 0);
}

int monitoring_end_span_fields(monitoring_sdk *sdk, const char *id, const char *status, const monitoring_field *fields, size_t count)
{
    if (!sdk || !id || !are_fields(fields, count))
        return MON_EINVAL;
    if (status && strcmp(status, "ok") != 0 && strcmp(status, "error") != 0)
        return MON_ESTATUS;
    pthread_mutex_lock(&sdk->mutex);
    struct span **link = &sdk->spans, *span;
    while (*link && strcmp((*link)->id, id) != 0)
        link = &(*link)->next;
    span = *link;
    if (span)
        *link = span->next;
    pthread_mutex_unlock(&sdk->mutex);
    if (!span)
        return MON_ESPAN;
    int result = span->inherited ? MON_OK : submit_span(sdk, span, status ? status : "ok", fields, count);
    free(span->name);
    free(span);
    return result;
}

int monitoring_end_span(monitoring_sdk *sdk, const char *id, const char *status, ...)
{
    monitoring_field fields[MON_MAX_FIELDS];
    va_list arguments;
    va_start(arguments, status);
    int count = collect(fields, arguments);
    va_end(arguments);
    return count < 0 ? count : monitoring_end_span_fields(sdk, id, status, fields, (size_t)count);
}

int monitoring_child_env(monitoring_sdk *sdk, monitoring_env *env)
{
    char trace_id[129], span_id[17];
    size_t count = 0;
    if (!sdk || !env)
        return MON_EINVAL;
    memset(env, 0, sizeof *env);
    current_scope(sdk, trace_id, span_id);
    if (trace_id[0]) {
        snprintf(env->trace_id, sizeof env->trace_id, "WAFERMON_TRACE_ID=%s", trace_id);
        env->variables[count++] = env->trace_id;
    }
    if (span_id[0]) {
        snprintf(env->span_id, sizeof env->span_id, "WAFERMON_SPAN_ID=%s", span_id);
        env->variables[count++] = env->span_id;
    }
    return MON_OK;
}

static void report_drops(monitoring_sdk *sdk)
{
    char text[64];
    pthread_mutex_lock(&sdk->mutex);
    unsigned long long count = sdk->main.phase == OPEN && !sdk->closed && !is_full(sdk) ? sdk->unreported : 0;
    sdk->unreported -= count;
    pthread_mutex_unlock(&sdk->mutex);
    if (!count)
        return;
    snprintf(text, sizeof text, "%llu messages dropped", count);
    const monitoring_field own[] = { OWN_STR("level", "warning"), OWN_STR("message", text) };
    const monitoring_field fields[] = { OWN_STR("kind", "dropped"), OWN_INT("count", (long long)count) };
    submit_here(sdk, "event", own, 2, "context", fields, 2);
}

int monitoring_get_stats(monitoring_sdk *sdk, monitoring_stats *stats)
{
    if (!sdk || !stats)
        return MON_EINVAL;
    pthread_mutex_lock(&sdk->mutex);
    *stats = sdk->stats;
    stats->waiting = (unsigned long long)(sdk->main.given - sdk->main.first + sdk->main.waiting) + sdk->in_spill;
    stats->state = is_full(sdk) ? "overflow" : sdk->main.phase == OPEN ? "connected" : "disconnected";
    pthread_mutex_unlock(&sdk->mutex);
    return MON_OK;
}

int monitoring_flush(monitoring_sdk *sdk, int milliseconds)
{
    if (!sdk)
        return MON_EINVAL;
    long long deadline = millis() + (milliseconds < 0 ? 5000 : milliseconds);
    pthread_mutex_lock(&sdk->mutex);
    wake_sender(sdk);
    while (!is_quiet(sdk) && wait_news(sdk, deadline))
        ;
    int result = is_quiet(sdk) ? MON_OK : MON_ETIMEOUT;
    pthread_mutex_unlock(&sdk->mutex);
    return result;
}

/* ---- open, close, fork, exit ---- */

/*
 * Write the window, with its seqs, to a spill file of the main client, and behind it what waits; when that file is full, what has no seq
 * yet goes to files of their own. The seq after the last one in the main client's file.
 */
static long long write_rest(monitoring_sdk *sdk, int *fd, long long *elsewhere)
{
    struct stream *stream = &sdk->main;
    long long seq = stream->first, end = stream->given + stream->waiting, written = seq;
    size_t at = stream->tail, size = 0, line;
    *fd = seq < end ? create_spill(sdk, stream->client) : -1;
    for (; *fd >= 0 && seq < end; seq++) {
        const char *body;
        size_t length = record(stream, at, &body);
        at = after(stream, at, length);
        if (written < seq || (seq >= stream->given && size + length + SUFFIX > SPILL_FILE)) {
            *elsewhere += spill(sdk, body, length);
        } else if ((line = write_line(*fd, size, body, length, stream->client, seq))) {
            size += line;
            sdk->spill_bytes += line;
            sdk->stats.spilled++;
            written++;
        }
    }
    return written;
}

/* The sender has gone, or is stuck in a name look-up from which it will not come back to the streams. */
static void leave(monitoring_sdk *sdk, long long deadline)
{
    struct stream *stream = &sdk->main;
    char path[1400], taken[1400];
    int fd = -1;
    long long elsewhere = 0;
    pthread_mutex_lock(&sdk->mutex);
    long long written = write_rest(sdk, &fd, &elsewhere);
    pthread_mutex_unlock(&sdk->mutex);
    if (stream->phase == OPEN) {
        long long patience = millis() + 200;
        shutdown(stream->fd, SHUT_WR);
        while (stream->fd >= 0) {
            long long left = (deadline < patience ? deadline : patience) - millis();
            struct pollfd slot = { stream->fd, POLLIN, 0 };
            if (left <= 0 || poll(&slot, 1, (int)left) == 0)
                break;
            receive(sdk, stream);
        }
    }
    hang_up(sdk, stream);
    forget_addresses(stream);
    pthread_mutex_lock(&sdk->mutex);
    long long end = stream->given + stream->waiting;
    written = written > stream->first ? written : stream->first;
    sdk->stats.handed_over += (unsigned long long)(written - stream->first);
    sdk->stats.dropped += (unsigned long long)(end - written - elsewhere);
    if (fd >= 0 && written == stream->first && spill_path(sdk, stream->client, "", path, sizeof path))
        unlink(path);
    if (fd >= 0)
        close(fd);
    stream->first = stream->next = stream->given = end;
    stream->waiting = 0;
    stream->waiting_bytes = stream->window_bytes = 0;
    stream->phase = RESTING;
    sdk->stats.handed_over += sdk->in_spill;
    sdk->in_spill = 0;
    if (sdk->spill.active) {
        spill_path(sdk, sdk->spill.client, "", path, sizeof path);
        spill_path(sdk, sdk->spill.client, ".taken", taken, sizeof taken);
        rename(taken, path);
    }
    while (sdk->file_count)
        forget_oldest_file(sdk);
    free(stream->ring);
    stream->ring = NULL;
    pthread_cond_broadcast(&sdk->news);
    pthread_mutex_unlock(&sdk->mutex);
    if (sdk->spill.active)
        end_spill_stream(sdk);
}

int monitoring_close(monitoring_sdk *sdk, int milliseconds)
{
    if (!sdk)
        return MON_EINVAL;
    long long deadline = millis() + (milliseconds < 0 ? 2000 : milliseconds);
    pthread_mutex_lock(&sdk->mutex);
    if (sdk->closed) {
        pthread_mutex_unlock(&sdk->mutex);
        return MON_OK;
    }
    int ran = sdk->running;
    sdk->closed = 1;
    wake_sender(sdk);
    /* A first attempt that is still under way is worth waiting for: short programs end before it has succeeded. */
    while (ran && !is_quiet(sdk) && !(sdk->main.phase == RESTING && sdk->main.attempts) && wait_news(sdk, deadline))
        ;
    sdk->stopping = 1;
    wake_sender(sdk);
    while (ran && !sdk->gone && !sdk->resolving)
        pthread_cond_wait(&sdk->news, &sdk->mutex);
    sdk->running = 0;
    int gone = sdk->gone;
    pthread_mutex_unlock(&sdk->mutex);
    if (ran) {
        if (gone)
            pthread_join(sdk->sender, NULL);
        else
            pthread_detach(sdk->sender);
        close(sdk->wake[0]);
        close(sdk->wake[1]);
    }
    leave(sdk, deadline);
    sdk->orphan = ran && !gone;
    return MON_OK;
}

void monitoring_free(monitoring_sdk *sdk)
{
    if (!sdk)
        return;
    monitoring_close(sdk, -1);
    pthread_mutex_lock(&handles_mutex);
    for (monitoring_sdk **link = &handles; *link; link = &(*link)->next)
        if (*link == sdk) {
            *link = sdk->next;
            break;
        }
    pthread_mutex_unlock(&handles_mutex);
    while (sdk->spans) {
        struct span *span = sdk->spans;
        sdk->spans = span->next;
        free(span->name);
        free(span);
    }
    pthread_key_delete(sdk->thread);
    free(sdk->token);
    pthread_mutex_lock(&sdk->mutex);
    int stuck = sdk->orphan && !sdk->gone;
    sdk->freed = 1;
    pthread_mutex_unlock(&sdk->mutex);
    if (!stuck)
        destroy(sdk);
}

static void before_fork(void)
{
    pthread_mutex_lock(&handles_mutex);
    for (monitoring_sdk *sdk = handles; sdk; sdk = sdk->next)
        pthread_mutex_lock(&sdk->mutex);
}

static void after_fork_in_parent(void)
{
    for (monitoring_sdk *sdk = handles; sdk; sdk = sdk->next)
        pthread_mutex_unlock(&sdk->mutex);
    pthread_mutex_unlock(&handles_mutex);
}

/* Who we are and where we start: at open and in a forked child. */
static void begin(monitoring_sdk *sdk)
{
    struct text origin = { sdk->origin, sizeof sdk->origin, 0 };
    sdk->pid = getpid();
    PUT(&origin, ",\"service\":");
    put_string(&origin, sdk->service, strlen(sdk->service));
    PUT(&origin, ",\"host\":");
    put_string(&origin, sdk->host, strnlen(sdk->host, 128));
    PUT(&origin, ",\"pid\":");
    put_integer(&origin, sdk->pid);
    sdk->origin_length = origin.length;
    make_id(sdk->main.client);
    sdk->main.active = 1;
    sdk->main.first = sdk->main.next = sdk->main.given = 1;
    sdk->main.fd = sdk->spill.fd = -1;
    sdk->cpu = used_cpu();
    sdk->cpu_at = micros(CLOCK_MONOTONIC);
}

static void empty_stream(struct stream *stream)
{
    char *ring = stream->ring;
    size_t size = stream->ring_size;
    if (stream->fd >= 0)
        close(stream->fd);
    memset(stream, 0, offsetof(struct stream, out));
    stream->ring = ring;
    stream->ring_size = size;
}

/* The child has no sender yet: its first call starts one. Address lists may be half freed, so they are left alone. */
static void after_fork_in_child(void)
{
    for (monitoring_sdk *sdk = handles; sdk; sdk = sdk->next) {
        for (int i = 0; i < 2 && sdk->running; i++)
            close(sdk->wake[i]);
        for (; sdk->file_count; sdk->file_count--)
            close(sdk->files[sdk->file_count - 1].fd);
        if (sdk->spill.active)
            free(sdk->spill.ring);
        empty_stream(&sdk->main);
        empty_stream(&sdk->spill);
        sdk->spill.ring = NULL;
        memset(&sdk->stats, 0, sizeof sdk->stats);
        sdk->in_spill = sdk->unreported = 0;
        sdk->writing = sdk->running = sdk->stopping = sdk->resolving = sdk->gone = sdk->orphan = sdk->asleep = 0;
        sdk->spill_bytes = 0;
        for (struct span *span = sdk->spans; span; span = span->next)
            span->inherited = 1;
        begin(sdk);
        make_condition(&sdk->news);
        pthread_mutex_unlock(&sdk->mutex);
    }
    pthread_mutex_unlock(&handles_mutex);
}

static void at_exit(void)
{
    pthread_mutex_lock(&handles_mutex);
    for (monitoring_sdk *sdk = handles; sdk; sdk = sdk->next)
        monitoring_close(sdk, -1);
    pthread_mutex_unlock(&handles_mutex);
}

/* False: not one of the forms that monitoring_sdk.h names. */
static int read_url(monitoring_sdk *sdk, const char *url)
{
    const char *host = url + 6, *end = strrchr(url, ':'), *port = end + 1;
    if (strncmp(url, "unix://", 7) == 0 && url[7] == '/' && strlen(url + 7) < sizeof sdk->unix_path) {
        strcpy(sdk->unix_path, url + 7);
        return 1;
    }
    if (strncmp(url, "tcp://", 6) != 0 || end <= host)
        return 0;
    if (*host == '[') {
        if (*--end != ']')
            return 0;
        host++;
    } else if (memchr(host, ':', (size_t)(end - host))) {
        return 0;
    }
    size_t digits = strspn(port, "0123456789");
    if (end <= host || (size_t)(end - host) >= sizeof sdk->tcp_host || !digits || digits > 5 || port[digits] || atoi(port) < 1 || atoi(port) > 65535)
        return 0;
    snprintf(sdk->tcp_host, sizeof sdk->tcp_host, "%.*s", (int)(end - host), host);
    strcpy(sdk->tcp_port, port);
    return 1;
}

static void read_trace(monitoring_sdk *sdk, const char *trace_id)
{
    const char *parent = environment("TRACEPARENT"), *span_id = environment("WAFERMON_SPAN_ID");
    int usable = parent && strlen(parent) >= 55 && parent[2] == '-' && parent[35] == '-' && parent[52] == '-' && is_hex(parent + 3, 32) && is_hex(parent + 36, 16);
    if (!trace_id)
        trace_id = environment("WAFERMON_TRACE_ID");
    if (is_trace_id(trace_id))
        strcpy(sdk->trace_id, trace_id);
    else if (usable)
        snprintf(sdk->trace_id, sizeof sdk->trace_id, "%.32s", parent + 3);
    if (span_id && strlen(span_id) == 16 && is_hex(span_id, 16))
        strcpy(sdk->parent_id, span_id);
    else if (usable && strncmp(sdk->trace_id, parent + 3, 32) == 0)
        snprintf(sdk->parent_id, sizeof sdk->parent_id, "%.16s", parent + 36); /* a span of another trace is no parent */
}

static void read_spill_dir(monitoring_sdk *sdk, const char *dir)
{
    static const char spool[] = "/var/spool/wafermon";
    if (!dir)
        dir = environment("WAFERMON_SPILL_DIR");
    if (!dir && access(spool, W_OK | X_OK) == 0)
        dir = spool;
    sdk->spill_shared = !dir;
    if (dir)
        snprintf(sdk->spill_dir, sizeof sdk->spill_dir, "%s", dir);
    else
        snprintf(sdk->spill_dir, sizeof sdk->spill_dir, "/tmp/wafermon-%ld", (long)geteuid());
}

int monitoring_open(monitoring_sdk **result, const monitoring_options *given)
{
    monitoring_options options;
    if (!result)
        return MON_EINVAL;
    *result = NULL;
    memset(&options, 0, sizeof options);
    if (given)
        options = *given;
    const char *service = options.service && *options.service ? options.service : environment("WAFERMON_SERVICE");
    if (!service)
        service = environment("OTEL_SERVICE_NAME");
    if (!service || strlen(service) > 128 || strcmp(service, "wafermon") == 0 ||
        service[strspn(service, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:")])
        return MON_ESERVICE;
    if (options.trace_id && !is_trace_id(options.trace_id))
        return MON_ETRACE;
    if (options.buffer < 0)
        return MON_EINVAL;

    monitoring_sdk *sdk = calloc(1, sizeof *sdk);
    if (!sdk || !(sdk->main.ring = malloc(RING + MAX_LINE + SUFFIX)) || pthread_key_create(&sdk->thread, NULL)) {
        free(sdk ? sdk->main.ring : NULL);
        free(sdk);
        return MON_ENOMEM;
    }
    sdk->main.ring_size = RING;
    pthread_mutex_init(&sdk->mutex, NULL);
    make_condition(&sdk->news);
    strcpy(sdk->service, service);
    gethostname(sdk->host, sizeof sdk->host - 1);
    const char *buffer = environment("WAFERMON_BUFFER"), *token = options.token && *options.token ? options.token : environment("WAFERMON_TOKEN");
    const char *url = options.url && *options.url ? options.url : environment("WAFERMON_URL"), *disabled = environment("WAFERMON_DISABLED");
    sdk->buffer = options.buffer ? options.buffer : buffer ? atoi(buffer) : 0;
    if (sdk->buffer <= 0)
        sdk->buffer = 1000;
    sdk->token = token ? strdup(token) : NULL;
    sdk->disabled = disabled && strcmp(disabled, "0") != 0 && strcasecmp(disabled, "false") != 0 && strcasecmp(disabled, "no") != 0;
    if (url && !read_url(sdk, url))
        warn_once(sdk, "bad url, tcp://127.0.0.1:7411 is used", url);
    if (!sdk->unix_path[0] && !sdk->tcp_host[0])
        read_url(sdk, "tcp://127.0.0.1:7411");
    read_trace(sdk, options.trace_id);
    read_spill_dir(sdk, options.spill_dir && *options.spill_dir ? options.spill_dir : NULL);
    begin(sdk);

    pthread_mutex_lock(&handles_mutex);
    if (!hooked && pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) == 0)
        hooked = atexit(at_exit) == 0;
    sdk->next = handles;
    handles = sdk;
    pthread_mutex_unlock(&handles_mutex);
    pthread_mutex_lock(&sdk->mutex);
    if (!sdk->disabled)
        start_sender(sdk);
    pthread_mutex_unlock(&sdk->mutex);
    *result = sdk;
    return MON_OK;
}

const char *monitoring_strerror(int error)
{
    static const char *const texts[] = {
        "no error", "a missing or bad argument", "no service, or not 1-128 of A-Z a-z 0-9 . _ - :", "unknown level", "an empty name",
        "a trace id must have 1-128 printable ASCII characters without space", "percent must be within 0-100", "bad status",
        "no open span has this id", "messages are still waiting", "out of memory"
    };
    return error <= 0 && error >= MON_ENOMEM ? texts[-error] : "unknown error";
}
