/*
 * monitoring_sdk.c - the wafermon client for C; monitoring_sdk.h says what it does for its callers.
 *
 * How it works. A call formats its message on its own stack and then, under the handle's one mutex, copies the bytes into a ring. The
 * sender thread alone gives seqs and talks to sockets. It holds the mutex too, and lets go of it only where it waits or moves bytes: in
 * poll, send, name look-ups and around a spill file's renaming and reading; with TLS, for handshakes too.
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
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* flock, getentropy, pipe2, SOCK_CLOEXEC, vasprintf */
#endif
#include "monitoring_sdk.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Where there is TLS (make TLS=1) and it is used, the first; else the second. */
#ifdef MONITORING_TLS
#include "monitoring_tls.h"
#define TLS(used, with, without) ((used) ? (with) : (without))
#else
#define TLS(used, with, without) (without)
#endif

enum {
    MAX_LINE = 65536, SUFFIX = 64, MAX_BODY = MAX_LINE - 52, /* a line's end, ,"client":"…","seq":N}, has 52 bytes at the most */
    SMALL = 4096,                                            /* what is formatted on the caller's stack */
    SPILL_FILE = 1 << 20, SPILL_TOTAL = 64 << 20,
    SPILL_FILES = 80,        /* more than SPILL_TOTAL / (SPILL_FILE - MAX_LINE), so that the bytes are the limit */
    MAX_WAITING = 4 << 20,   /* bytes of lines without a seq; the last one may pass it */
    MAX_WINDOW = SPILL_FILE, /* bytes of lines with one, which close() may have to put into one spill file */
    RING = MAX_WAITING + MAX_WINDOW + MAX_LINE,
    BATCH = 16384, OUT = BATCH + MAX_LINE + SUFFIX, IN = 8192, PATH = 1400, WORD = 200, CUTS = 256, SHORT = 64,
    QUIET = 5000, /* milliseconds without a byte after which a connection is dead */
    LINGER = 10   /* milliseconds that the sender looks for itself before it asks to be woken */
};

/* ---- clocks, ids, settings ---- */

static long long micros(clockid_t clock) {
    struct timespec now; clock_gettime(clock, &now); return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static long long millis(void) { return micros(CLOCK_MONOTONIC) / 1000; }

static uint64_t random_bits(void) {
    uint64_t bits = 0; while (getentropy(&bits, sizeof bits) != 0 && errno == EINTR) continue; return bits;
}

static void make_id(char id[17]) { snprintf(id, 17, "%016llx", (unsigned long long)random_bits()); }

static int is_trace_id(const char *id) {
    size_t length = 0; while (id && length <= 128 && id[length] > ' ' && id[length] <= '~') length++;
    return length > 0 && length <= 128 && !id[length];
}

static int is_hex(const char *text, size_t length) { return strspn(text, "0123456789abcdef") >= length && strspn(text, "0") < length; }

/* What is given, else what the environment says; NULL for nothing. */
static const char *setting(const char *given, const char *name) {
    const char *value = given && *given ? given : getenv(name); return value && *value ? value : NULL;
}

/* ---- JSON text ---- */

/*
 * Where to write. Each put function writes at `at` and returns where the next one goes on; like snprintf, what does not fit is counted,
 * not written. Positions are passed by value, so that the processor does not wait for memory between one and the next.
 */
struct text { char *data; size_t size; };

static inline size_t put(struct text text, size_t at, const char *bytes, size_t length) {
    if (at + length <= text.size) memcpy(text.data + at, bytes, length);
    return at + length;
}

static inline size_t put_word(struct text text, size_t at, const char *word) { return put(text, at, word, strlen(word)); }

static size_t put_integer(struct text text, size_t at, long long number) {
    char digits[24], *first = digits + sizeof digits;
    unsigned long long rest = number < 0 ? 0 - (unsigned long long)number : (unsigned long long)number;
    do *--first = (char)('0' + rest % 10); while (rest /= 10);
    if (number < 0) *--first = '-';
    return put(text, at, first, (size_t)(digits + sizeof digits - first));
}

static size_t put_number(struct text text, size_t at, double number) {
    /* The usual case without printf: where an integer below 10^15, divided by 10^4, gives the number, so does reading its decimals. */
    double size = fabs(number); long long scaled = size < 1e10 ? (long long)(size * 1e4 + 0.5) : -1, rest = scaled % 10000;
    if ((double)scaled / 1e4 == size && (size > 0 || !signbit(number))) {
        char decimals[] = { '.', (char)('0' + rest / 1000), (char)('0' + rest / 100 % 10), (char)('0' + rest / 10 % 10), (char)('0' + rest % 10) };
        size_t length = rest ? sizeof decimals : 0; while (length && decimals[length - 1] == '0') length--;
        return put(text, put_integer(text, put(text, at, "-", number < 0), scaled / 10000), decimals, length);
    }
    char printed[40]; for (int digits = 15; digits == 15 || (digits <= 17 && strtod(printed, NULL) != number); digits++)
        snprintf(printed, sizeof printed, "%.*g", digits, number);
    /* The program's locale may have another decimal point. */
    size_t before = strspn(printed, "-0123456789"), point = strcspn(printed + before, "0123456789e");
    return put_word(text, put(text, put(text, at, printed, before), ".", point > 0), printed + before + point);
}

static int is_plain(unsigned char c) { return c >= ' ' && c < 0x80 && c != '"' && c != '\\'; }

/* Whether all of eight characters are plain: where none has its high bit, a subtraction sets it in the ones below what is subtracted. */
static int are_plain(uint64_t eight) {
    const uint64_t each = ~0ULL / 255;
    return !((eight | (eight - each * ' ') | ((eight ^ each * '"') - each) | ((eight ^ each * '\\') - each)) & each * 0x80);
}

/* The bytes of the valid UTF-8 sequence at `at`, or 0: cut off, overlong, a surrogate, beyond U+10FFFF. */
static size_t sequence(const unsigned char *at, size_t left) {
    size_t length = at[0] < 0xC2 ? 0 : at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : at[0] < 0xF5 ? 4 : 0;
    if (!length || left < length) return 0;
    for (size_t i = 1; i < length; i++) if ((at[i] & 0xC0) != 0x80) return 0;
    int low = at[0] == 0xE0 ? 0xA0 : at[0] == 0xF0 ? 0x90 : 0x80, high = at[0] == 0xED ? 0x9F : at[0] == 0xF4 ? 0x8F : 0xBF;
    return at[1] >= low && at[1] <= high ? length : 0;
}

/* Write the character at string[*i], which is not plain, and move behind it. */
static size_t put_special(struct text text, size_t at, const char *string, size_t *i, size_t end) {
    unsigned char c = (unsigned char)string[*i];
    size_t length = c < 0x80 ? 1 : sequence((const unsigned char *)string + *i, end - *i);
    const char *name = strchr("\"\"\\\\\nn\tt\rr", c), *bytes = length ? string + *i : "\xEF\xBF\xBD";
    char escape[] = { '\\', name ? name[1] : 'u', '0', '0', (char)('0' + (c >> 4)), "0123456789abcdef"[c & 15] };
    *i += length ? length : 1;
    return c < 0x80 ? put(text, at, escape, name ? 2 : 6) : put(text, at, bytes, length ? length : 3);
}

static inline size_t put_string(struct text text, size_t at, const char *string, size_t length) {
    size_t i = 0; at = put(text, at, "\"", 1);
    while (i < length) {
        size_t start = i, room = text.size > at ? text.size - at : 0, stop = room < length - i ? i + room : length;
        char *to = room ? text.data + at : NULL;
        for (uint64_t eight; stop - i >= sizeof eight && (memcpy(&eight, string + i, sizeof eight), are_plain(eight)); i += sizeof eight)
            memcpy(to + (i - start), &eight, sizeof eight);
        for (; i < stop && is_plain((unsigned char)string[i]); i++) to[i - start] = string[i];
        at += i - start;
        if (i < length && is_plain((unsigned char)string[i])) i++, at++;
        else if (i < length) at = put_special(text, at, string, &i, length);
    }
    return put(text, at, "\"", 1);
}

/* ---- messages ---- */

#define STRING(key, text) { key, MON_STRING, { .string = (text) } }
#define INTEGER(key, value_) { key, MON_INTEGER, { .integer = (value_) } }
#define NUMBER(key, value_) { key, MON_NUMBER, { .number = (value_) } }

/* What a call has to say; all of it belongs to the caller. NULL strings among its own fields are left out. */
struct message {
    const char *type, *trace_id, *span_id; long long ts; const monitoring_field *own, *fields;
    size_t own_count, field_count; const char *group; /* of fields: "context" or "tags" */
    const size_t *lengths;                            /* of the strings in own, then in fields, once they had to be cut */
};

/* `before` comes before the first one. */
static size_t put_fields(struct text text, size_t at, const char *before, const monitoring_field *fields, size_t count, const size_t *lengths,
                         int context) {
    for (const monitoring_field *field = fields; field < fields + count; field++) {
        const char *string = field->kind == MON_STRING ? field->value.string : NULL;
        long long integer = field->kind == MON_INTEGER || field->kind == MON_TRUTH ? field->value.integer : 0;
        size_t quoted = field->kind == MON_TRUTH ? !context : integer > 1LL << 53 || integer < -(1LL << 53);
        if (field->kind == MON_STRING && !string && !context) continue;
        at = put_string(text, put(text, at, before, 1), field->key, strlen(field->key)); at = put(text, at, ":\"", 1 + quoted);
        if (string) at = put_string(text, at, string, lengths ? lengths[field - fields] : strlen(string));
        else if (field->kind == MON_INTEGER) at = put_integer(text, at, integer);
        else if (field->kind == MON_NUMBER && isfinite(field->value.number)) at = put_number(text, at, field->value.number);
        else at = put_word(text, at, field->kind != MON_TRUTH ? "null" : integer ? "true" : "false");
        at = put(text, at, "\"", quoted); before = ",";
    }
    return at;
}

/* The body: a line up to its `client`. Its length, whether it fits or not. */
static size_t encode(struct text text, const struct message *message, const char *origin) {
    const monitoring_field scope[] = { STRING("trace_id", message->trace_id), STRING("span_id", message->span_id) };
    const size_t *lengths = message->lengths ? message->lengths + message->own_count : NULL;
    size_t at = put_word(text, put_word(text, put_word(text, 0, "{\"type\":\""), message->type), "\",\"ts\":");
    at = put_word(text, put_integer(text, at, message->ts), origin); at = put_fields(text, at, ",", scope, 2, NULL, 0);
    at = put_fields(text, at, ",", message->own, message->own_count, message->lengths, 0);
    if (message->field_count) {
        size_t start = at = put_word(text, put_word(text, put_word(text, at, ",\""), message->group), "\":");
        at = put_fields(text, at, "{", message->fields, message->field_count, lengths, message->group[0] == 'c');
        at = put_word(text, at, at > start ? "}" : "{}");
    }
    return lengths ? put_word(text, at, ",\"truncated\":true") : at;
}

static const char *string_at(const struct message *message, size_t i) {
    const monitoring_field *field = i < message->own_count ? &message->own[i] : &message->fields[i - message->own_count];
    return field->kind == MON_STRING ? field->value.string : NULL;
}

/* Encode a long message: cut the longest string again and again, and drop the group where that helps too little. 0: no memory. */
static size_t encode_long(struct text text, struct message *message, const char *origin) {
    size_t count = message->own_count + message->field_count, *lengths = malloc(count * sizeof *lengths), size = encode(text, message, origin);
    if (!lengths || size <= MAX_BODY) { free(lengths); return size <= MAX_BODY ? size : 0; }
    for (size_t i = 0; i < count; i++) lengths[i] = string_at(message, i) ? strnlen(string_at(message, i), MAX_LINE) : 0;
    message->lengths = lengths, size = encode(text, message, origin);
    for (int cuts = CUTS; size > MAX_BODY; cuts--) {
        size_t longest = 0, over = size - MAX_BODY;
        for (size_t i = 1; i < message->own_count + message->field_count; i++) if (lengths[i] > lengths[longest]) longest = i;
        if (message->field_count && (cuts < 0 || lengths[longest] < SHORT)) { message->field_count = 0, size = encode(text, message, origin); continue; }
        const char *string = string_at(message, longest); size_t coded = put_string((struct text){ NULL, 0 }, 0, string, lengths[longest]);
        /* As if escapes were spread evenly; at most half of it, so that several long strings share the loss. */
        size_t cut = over * lengths[longest] / coded + 1, half = (lengths[longest] + 1) / 2; lengths[longest] -= cut < half ? cut : half;
        for (int back = 0; back < 3 && lengths[longest] && (string[lengths[longest]] & 0xC0) == 0x80; back++) lengths[longest]--;
        size -= coded - put_string((struct text){ NULL, 0 }, 0, string, lengths[longest]);
    }
    size = encode(text, message, origin); free(lengths); return size;
}

/* ---- what the sidecar says ---- */

struct reply { char type[WORD], code[WORD], detail[WORD]; long long seq, acked; };

/* Behind the string at `at`, whose raw bytes, cut, go into `word`; NULL: it does not end. */
static const char *read_word(const char *at, char word[WORD]) {
    size_t length = 0;
    for (at++; *at && *at != '"'; at++) {
        if (length < WORD - 1) word[length++] = *at;
        if (*at == '\\' && !*++at) return NULL;
    }
    word[length] = '\0'; return *at ? at + 1 : NULL;
}

/* Read one line without its newline. False: not a whole object. Only the object's own keys count, not those of objects within it. */
static int read_reply(const char *at, struct reply *reply) {
    char key[WORD] = "", word[WORD]; int depth = 1; memset(reply, 0, sizeof *reply);
    if (*(at += strspn(at, " \t\r")) != '{') return 0;
    for (at++; depth && *at;) {
        if (*at == '"') {
            if (!(at = read_word(at, word))) return 0;
            at += strspn(at, " \t\r"); if (depth > 1) continue;
            char *to = *at == ':' ? key : strcmp(key, "type") == 0 ? reply->type : strcmp(key, "code") == 0 ? reply->code
                     : strcmp(key, "detail") == 0 ? reply->detail : NULL;
            if (to) strcpy(to, word);
        } else if (strchr("-0123456789", *at)) {
            long long *to = depth > 1 ? NULL : strcmp(key, "seq") == 0 ? &reply->seq : strcmp(key, "acked") == 0 ? &reply->acked : NULL;
            if (to) *to = strtoll(at, NULL, 10);
            at += strspn(at, "+-.0123456789eE");
        } else depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']'), at++;
    }
    return depth == 0;
}

/* ---- the handle ---- */

enum phase { RESTING, DIALING, GREETING, OPEN };

struct stream { /* see the invariants above */
    int active, fd, attempts, welcomed, skipping; enum phase phase; /* the main one is always active; skipping: the rest of a long reply */
    char client[17], *ring; struct monitoring_session *session; /* of TLS */
    size_t ring_size, tail, cursor, head; /* offsets: records start below ring_size; the first one, the next to send, the end */
    size_t window_bytes, waiting_bytes, out_at, out_length, in_length; /* the first two count lines */
    long long first, next, given, sent, waiting;
    long long wire, due, heard; /* the seq that leaves next; the end of a rest or of patience; when there was something, or nothing, to hear */
    char out[OUT], in[IN];
};

struct spill_file { int fd; char client[17]; long long lines; size_t bytes; };

struct span {
    struct span *next; char id[17], parent_id[17], trace_id[129], *name; long long start, start_monotonic;
    const void *owner; int inherited; /* the thread that started it; whether in the process that forked us */
};

struct monitoring_sdk {
    monitoring_sdk *next; pthread_mutex_t mutex; pthread_t sender;
    pthread_cond_t news; /* something is settled, a stream rests, the sender has gone */
    int running, stopping, gone, wake[2], asleep; /* asleep: the sender wants a byte through the pipe */
    int closed, disabled, warned, buffer, file_count, writing, spill_shared; /* shared: below /tmp, where others may have made it */
    char service[129], host[256], *token, tcp_host[256], tcp_port[6], unix_path[sizeof((struct sockaddr_un *)0)->sun_path];
    char trace_id[129], parent_id[17], spill_dir[1024], origin[2048]; /* origin: ,"service":…,"host":…,"pid":… */
    struct monitoring_tls *tls; pthread_key_t thread; uintptr_t threads; /* a number for each thread that has started a span, never used again */
    struct span *spans; /* newest first */
    long long pid, cpu, cpu_at, in_spill; monitoring_stats stats; unsigned long long unreported;
    size_t spill_bytes; struct spill_file files[SPILL_FILES]; struct stream main, spill;
};

/* The only globals: pthread_atfork and atexit hand no argument to their functions, so these have to find every handle. */
static pthread_mutex_t handles_mutex = PTHREAD_MUTEX_INITIALIZER;
static monitoring_sdk *handles; static int hooked;

static void lock(monitoring_sdk *sdk) { pthread_mutex_lock(&sdk->mutex); }
static void unlock(monitoring_sdk *sdk) { pthread_mutex_unlock(&sdk->mutex); }
static int is_full(const monitoring_sdk *sdk) { return sdk->main.waiting >= sdk->buffer || sdk->main.waiting_bytes >= MAX_WAITING; }

static long long waiting(const monitoring_sdk *sdk) { return sdk->main.given - sdk->main.first + sdk->main.waiting + sdk->in_spill; }

static void wake_sender(monitoring_sdk *sdk) { for (sdk->asleep = 0; sdk->running && write(sdk->wake[1], "", 1) < 0 && errno == EINTR;) continue; }

/* Wait for news until a time of millis(); false when that has come. */
static int wait_news(monitoring_sdk *sdk, long long deadline) {
    struct timespec until = { (time_t)(deadline / 1000), (long)(deadline % 1000) * 1000000 };
    return pthread_cond_timedwait(&sdk->news, &sdk->mutex, &until) != ETIMEDOUT;
}

static void warn_once(monitoring_sdk *sdk, const char *what, const char *detail) {
    if (!sdk->warned++) fprintf(stderr, "wafermon: %s: %.300s\n", what, detail);
}

/* ---- the ring ---- */

/* The body at `at`, which moves on to the next record. */
static size_t record(const struct stream *stream, size_t *at, const char **body) {
    uint32_t length; memcpy(&length, stream->ring + *at, sizeof length);
    *body = stream->ring + *at + sizeof length; *at += sizeof length + length; if (*at >= stream->ring_size) *at = 0;
    return length;
}

/* A record may hang over ring_size and is never split; the bounds on bytes keep head behind tail. */
static void append(struct stream *stream, const char *body, size_t length) {
    uint32_t header = (uint32_t)length; memcpy(stream->ring + stream->head, &header, sizeof header);
    memmove(stream->ring + stream->head + sizeof header, body, length); record(stream, &stream->head, &body);
    stream->waiting++, stream->waiting_bytes += length + SUFFIX;
}

/* Forget the window up to seq, which the sidecar has. */
static void settle(monitoring_sdk *sdk, struct stream *stream, long long seq, int rejected) {
    const char *body; if (seq > stream->sent) seq = stream->sent; /* it can't have what never left */
    for (; stream->first <= seq; stream->first++) {
        stream->window_bytes -= record(stream, &stream->tail, &body) + SUFFIX;
        *(rejected ? &sdk->stats.rejected : &sdk->stats.acked) += 1; sdk->in_spill -= stream == &sdk->spill;
    }
    if (stream->next < stream->first) stream->next = stream->first, stream->cursor = stream->tail;
    /* Back to the start: the same few pages serve a program that logs little. */
    if (stream->first == stream->given && !stream->waiting) stream->tail = stream->cursor = stream->head = 0;
    pthread_cond_broadcast(&sdk->news);
}

/* ---- spill files ---- */

static size_t suffix(char *line, const char *client, long long seq) {
    struct text text = { line, SUFFIX };
    size_t at = put_word(text, put(text, put_word(text, 0, ",\"client\":\""), client, 16), "\",\"seq\":");
    return put_word(text, put_integer(text, at, seq), "}\n");
}

static void spill_path(const monitoring_sdk *sdk, const char *client, const char *ending, char path[PATH]) {
    snprintf(path, PATH, "%s/%s.%lld.%s.ldjson%s", sdk->spill_dir, sdk->service, sdk->pid, client, ending);
}

/* Rename the file by its ending; `to` NULL: remove it. */
static int move_spill(const monitoring_sdk *sdk, const char *client, const char *from, const char *to) {
    char path[PATH], target[PATH];
    spill_path(sdk, client, from, path), spill_path(sdk, client, to ? to : "", target);
    return (to ? rename(path, target) : unlink(path)) == 0;
}

static int create_spill(const monitoring_sdk *sdk, const char *client) {
    char path[PATH]; struct stat dir; mkdir(sdk->spill_dir, 0700);
    if (sdk->spill_shared && (lstat(sdk->spill_dir, &dir) || !S_ISDIR(dir.st_mode) || dir.st_uid != geteuid() || dir.st_mode & 022)) return -1;
    spill_path(sdk, client, "", path);
    /* The group may read: a spool directory with a setgid bit gives the file to the sidecar's. */
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640);
    flock(fd, LOCK_EX | LOCK_NB); return fd;
}

/* Append the line, whose buffer has room for its suffix, or nothing. */
static int write_line(monitoring_sdk *sdk, struct spill_file *file, char *line, size_t length, long long seq) {
    length += suffix(line + length, file->client, seq);
    if (write(file->fd, line, length) != (ssize_t)length) return ftruncate(file->fd, (off_t)file->bytes) & 0;
    file->lines++, file->bytes += length, sdk->spill_bytes += length, sdk->stats.spilled++; return 1;
}

/* Put a message into the newest spill file; false: it has to be dropped. */
static int spill(monitoring_sdk *sdk, char *line, size_t length) {
    struct spill_file file = { -1, "", 0, 0 }, *newest = sdk->writing ? &sdk->files[sdk->file_count - 1] : NULL;
    if (sdk->spill_bytes + length + SUFFIX > SPILL_TOTAL) return 0;
    if (!newest || newest->bytes + length + SUFFIX > SPILL_FILE) {
        make_id(file.client); if (sdk->file_count == SPILL_FILES || (file.fd = create_spill(sdk, file.client)) < 0) return 0;
        *(newest = &sdk->files[sdk->file_count++]) = file; sdk->writing = 1;
    }
    int written = write_line(sdk, newest, line, length, newest->lines + 1); sdk->in_spill += written;
    return written;
}

static void forget_oldest_file(monitoring_sdk *sdk) {
    close(sdk->files[0].fd); sdk->spill_bytes -= sdk->files[0].bytes;
    memmove(sdk->files, sdk->files + 1, (size_t)--sdk->file_count * sizeof *sdk->files);
}

/* Make the lines of a file, read into the ring itself, the records of the spill stream: a record's header is shorter than a line's suffix. */
static int load_spill(struct stream *stream, const struct spill_file *file) {
    char *at = stream->ring + SUFFIX, *stop = at + file->bytes, *newline, end[SUFFIX];
    if (!stream->ring || pread(file->fd, at, file->bytes, 0) != (ssize_t)file->bytes) return 0;
    for (; stream->waiting < file->lines; at = newline + 1) {
        size_t length = suffix(end, file->client, stream->waiting + 1); newline = memchr(at, '\n', (size_t)(stop - at));
        if (!newline || (size_t)(newline - at) <= length) return 0;
        append(stream, at, (size_t)(newline + 1 - at) - length);
    }
    return 1;
}

static void drop_ring(struct stream *stream) { free(stream->ring), stream->ring = NULL; }

/* Start to send the oldest closed file; the newest one is closed for it when calls have no need of it. True: try the next one. */
static int take_spill(monitoring_sdk *sdk) {
    if (sdk->file_count == 1 && !is_full(sdk)) sdk->writing = 0;
    if (sdk->main.phase != OPEN || sdk->spill.active || sdk->file_count == sdk->writing) return 0;
    struct spill_file file = sdk->files[0]; struct stream *stream = &sdk->spill;
    memset(stream, 0, offsetof(struct stream, out)); memcpy(stream->client, file.client, sizeof stream->client);
    stream->fd = -1, stream->first = stream->next = stream->given = 1;
    stream->ring_size = file.bytes + SUFFIX, stream->ring = malloc(stream->ring_size); unlock(sdk);
    int claimed = move_spill(sdk, file.client, "", ".taken"), loaded = claimed && load_spill(stream, &file);
    if (claimed && !loaded) move_spill(sdk, file.client, ".taken", "");
    lock(sdk); if ((stream->active = loaded && sdk->file_count)) return 0;
    drop_ring(stream); if (!sdk->file_count) return 0; /* close did not wait any longer */
    /* Somebody else has it, or the sidecar will. */
    sdk->in_spill -= file.lines, sdk->stats.handed_over += (unsigned long long)file.lines;
    forget_oldest_file(sdk); pthread_cond_broadcast(&sdk->news); return 1;
}

static void hang_up(struct stream *stream) { if (stream->fd >= 0) close(stream->fd); stream->fd = -1; TLS(1, monitoring_tls_end(&stream->session), (void)0); }

static void end_spill_stream(monitoring_sdk *sdk) { hang_up(&sdk->spill); if (sdk->spill.active) drop_ring(&sdk->spill); sdk->spill.active = 0; }

/* ---- connections ---- */

/* The connection is lost, or did not come about: rest for a random time within a growing limit, so that many clients don't come at once. */
static void lose(monitoring_sdk *sdk, struct stream *stream) {
    uint64_t limit = stream->attempts < 9 ? 100ULL << stream->attempts : 30000;
    const char *problem = TLS(sdk->tls, monitoring_tls_problem(sdk->tls), NULL); if (problem) warn_once(sdk, "tls", problem);
    hang_up(stream); stream->phase = RESTING, stream->attempts++; stream->due = millis() + (long long)(random_bits() % (limit < 30000 ? limit : 30000));
    stream->cursor = stream->tail, stream->next = stream->first; stream->out_at = stream->out_length = stream->in_length = 0, stream->skipping = 0;
    pthread_cond_broadcast(&sdk->news);
}

static void greet(monitoring_sdk *sdk, struct stream *stream) {
    struct text text = { stream->out, sizeof stream->out }; const monitoring_field token = STRING("token", sdk->token);
    unlock(sdk); stream->session = TLS(sdk->tls, monitoring_tls_start(sdk->tls, stream->fd), NULL); lock(sdk); /* it reads files */
    if (sdk->tls && !stream->session) { lose(sdk, stream); return; }
    size_t at = put_word(text, put_word(text, put_word(text, 0, "{\"v\":2,\"type\":\"hello\",\"client\":\""), stream->client), "\"");
    at = put_word(text, put_word(text, at, sdk->origin), ",\"sdk\":\"c/2.0.0\",\"ack\":true");
    at = put_word(text, put_fields(text, at, ",", &token, 1, NULL, 0), "}\n");
    stream->out_length = at <= sizeof stream->out ? at : 0; stream->phase = GREETING, stream->due = millis() + QUIET;
}

/* Begin to connect; -1 where that fails at once. */
static int begin_connect(const struct addrinfo *address) {
    int one = 1, fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (address->ai_family != AF_UNIX) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fd < 0 || connect(fd, address->ai_addr, address->ai_addrlen) == 0 || errno == EINPROGRESS) return fd;
    return close(fd), -1;
}

static void dial(monitoring_sdk *sdk, struct stream *stream) {
    struct sockaddr_un path = { .sun_family = AF_UNIX };
    struct addrinfo local = { .ai_family = AF_UNIX, .ai_addr = (struct sockaddr *)&path, .ai_addrlen = sizeof path };
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV }, *found = NULL;
    int skip = stream->attempts % 4; /* a name may have several addresses, the first of which never answers */
    strcpy(path.sun_path, sdk->unix_path); unlock(sdk);
    if (!sdk->unix_path[0] && getaddrinfo(sdk->tcp_host, sdk->tcp_port, &hints, &found) != 0) found = NULL;
    lock(sdk); stream->due = millis() + QUIET, stream->phase = DIALING;
    for (struct addrinfo *at = sdk->unix_path[0] ? &local : found; at && stream->fd < 0 && !sdk->stopping; at = at->ai_next)
        if (skip-- <= 0 || !at->ai_next) stream->fd = begin_connect(at);
    if (found) freeaddrinfo(found);
    if (stream->fd < 0) lose(sdk, stream);
}

/* Fill `out` with records from the cursor on, and give seqs to those that have none. True: there was something. */
static int fill(struct stream *stream) {
    const char *body; if (stream->first == stream->given) stream->heard = millis(); /* there was nothing to hear */
    stream->out_at = stream->out_length = 0, stream->wire = stream->next;
    while (stream->out_length < BATCH && stream->next < stream->given + stream->waiting) {
        size_t cursor = stream->cursor, length = record(stream, &cursor, &body), line = length + SUFFIX;
        if (stream->next == stream->given) {
            if (stream->window_bytes + line > MAX_WINDOW) break;
            stream->given++, stream->waiting--, stream->window_bytes += line, stream->waiting_bytes -= line;
        }
        memcpy(stream->out + stream->out_length, body, length);
        stream->out_length += length + suffix(stream->out + stream->out_length + length, stream->client, stream->next);
        stream->next++, stream->cursor = cursor;
    }
    return stream->out_length > 0;
}

/* Send until there is nothing more or the socket is full. */
static void transmit(monitoring_sdk *sdk, struct stream *stream) {
    while (stream->out_at < stream->out_length || (stream->phase == OPEN && fill(stream))) {
        const char *at = stream->out + stream->out_at; size_t size = stream->out_length - stream->out_at; unlock(sdk);
        ssize_t sent = TLS(sdk->tls, monitoring_tls_send(stream->session, at, size), send(stream->fd, at, size, MSG_NOSIGNAL));
        int lost = sent < 0 && errno != EAGAIN && errno != EINTR; lock(sdk); if (lost) lose(sdk, stream);
        if (sent < 0) return;
        stream->out_at += (size_t)sent;
        for (; stream->phase == OPEN && (at = memchr(at, '\n', (size_t)(stream->out + stream->out_at - at))); at++, stream->wire++) {
            *(stream->wire > stream->sent ? &sdk->stats.sent : &sdk->stats.resent) += 1;
            if (stream->wire > stream->sent) stream->sent = stream->wire;
        }
    }
}

static void obey(monitoring_sdk *sdk, struct stream *stream, const char *line) {
    struct reply reply; if (!read_reply(line, &reply)) return;
    int error = strcmp(reply.type, "error") == 0;
    if (stream->phase == GREETING && strcmp(reply.type, "welcome") == 0) {
        settle(sdk, stream, reply.acked, 0); sdk->stats.reconnects += stream == &sdk->main && stream->welcomed;
        stream->phase = OPEN, stream->welcomed = 1, stream->attempts = 0;
    } else if (stream->phase == GREETING && error) warn_once(sdk, reply.code, reply.detail), lose(sdk, stream);
    else if (stream->phase == OPEN && reply.seq > 0 && (error || strcmp(reply.type, "ack") == 0))
        /* The sidecar sends an error only after the sync that covers everything up to this message. */
        settle(sdk, stream, reply.seq - error, 0), settle(sdk, stream, reply.seq, error);
}

static void receive(monitoring_sdk *sdk, struct stream *stream) {
    while (stream->fd >= 0) {
        char *at = stream->in + stream->in_length; size_t room = IN - stream->in_length;
        /* A handshake computes for long. Later on nobody may see what is settled before the sender has removed the file that it was. */
        int greeting = stream->phase == GREETING; if (greeting) unlock(sdk);
        ssize_t got = TLS(sdk->tls, monitoring_tls_receive(stream->session, at, room), recv(stream->fd, at, room, 0));
        int later = got < 0 && (errno == EAGAIN || errno == EINTR); if (greeting) lock(sdk);
        if (got <= 0) { if (!later) lose(sdk, stream); return; }
        char *line = stream->in, *newline, *end = at + got; stream->heard = millis();
        for (; (newline = memchr(line, '\n', (size_t)(end - line))); line = newline + 1, stream->skipping = 0) {
            *newline = '\0'; if (!stream->skipping) obey(sdk, stream, line);
            if (stream->fd < 0) return;
        }
        stream->in_length = (size_t)(end - line); memmove(stream->in, line, stream->in_length);
        if (stream->in_length == IN) stream->skipping = 1, stream->in_length = 0;
    }
}

/* ---- the sender thread ---- */

/* When this stream has to be looked at again though nothing happens; INT64_MAX: never. */
static long long due(const monitoring_sdk *sdk, const struct stream *stream) {
    if (!stream->active || (stream != &sdk->main && stream->phase == RESTING && sdk->main.phase != OPEN)) return INT64_MAX;
    return stream->phase != OPEN ? stream->due : stream->first < stream->given ? stream->heard + QUIET : INT64_MAX;
}

/* After these events, do what can be done for the stream without waiting. */
static void tend(monitoring_sdk *sdk, struct stream *stream, int events) {
    int error = 0; socklen_t size = sizeof error;
    if (events && stream->phase == DIALING && (getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &size) || error)) lose(sdk, stream);
    else if (events && stream->phase == DIALING) greet(sdk, stream);
    else if (events) receive(sdk, stream);
    if (millis() >= due(sdk, stream)) (stream->phase == RESTING ? dial : lose)(sdk, stream);
    if (stream->active && stream->phase >= GREETING) transmit(sdk, stream);
}

static struct pollfd slot(const struct stream *stream) {
    int more = stream->out_at < stream->out_length ? POLLOUT : 0;
    short events = TLS(stream->session, monitoring_tls_events(stream->session), (short)(POLLIN | more));
    return (struct pollfd){ stream->fd, stream->phase == DIALING ? POLLOUT : events, 0 };
}

static void report_drops(monitoring_sdk *sdk) {
    char text[64]; unsigned long long count = sdk->unreported;
    if (!count || sdk->main.phase != OPEN || sdk->closed || is_full(sdk)) return;
    sdk->unreported = 0; unlock(sdk); snprintf(text, sizeof text, "%llu messages dropped", count);
    monitoring_log_event(sdk, "warning", text, MON_STR("kind", "dropped"), MON_INT("count", count), MON_END); lock(sdk);
}

static void *send_all(void *argument) {
    monitoring_sdk *sdk = argument; long long busy = 0, seen = 0; char drain[64];
    struct pollfd slots[3] = { { -1, 0, 0 }, { -1, 0, 0 }, { sdk->wake[0], POLLIN, 0 } };
    for (lock(sdk); !sdk->stopping; lock(sdk)) {
        if (slots[2].revents) (void)!read(sdk->wake[0], drain, sizeof drain);
        tend(sdk, &sdk->main, slots[0].revents); tend(sdk, &sdk->spill, slots[1].revents);
        if (sdk->spill.active && sdk->spill.first > sdk->files[0].lines) { /* the sidecar has the whole file */
            move_spill(sdk, sdk->spill.client, ".taken", NULL); end_spill_stream(sdk), forget_oldest_file(sdk);
        }
        while (take_spill(sdk)) continue;
        report_drops(sdk); if (sdk->stopping) break;
        slots[0] = slot(&sdk->main), slots[1] = slot(&sdk->spill);
        long long now = millis(), main_due = due(sdk, &sdk->main), spill_due = due(sdk, &sdk->spill);
        long long next = main_due < spill_due ? main_due : spill_due;
        /* While messages keep coming, looking every millisecond is cheaper for the callers than being woken by each of them. */
        if (sdk->main.given != seen) busy = now + LINGER, seen = sdk->main.given;
        if (now < busy && next > now + 1) next = now + 1;
        int idle = sdk->main.phase == OPEN && !(slots[0].events & POLLOUT);
        if (idle && sdk->main.waiting && sdk->main.window_bytes < MAX_WINDOW - MAX_LINE - SUFFIX) next = now; /* a moment ago */
        sdk->asleep = idle && now >= busy && !sdk->main.waiting;
        unlock(sdk); poll(slots, 3, next == INT64_MAX ? -1 : next <= now ? 0 : next - now < 60000 ? (int)(next - now) : 60000);
    }
    sdk->gone = 1; pthread_cond_broadcast(&sdk->news); unlock(sdk); return NULL;
}

/* Without a thread, for want of resources, calls go on into buffer and spill, and the next one tries again. */
static void start_sender(monitoring_sdk *sdk) {
    sigset_t all, before; if (pipe2(sdk->wake, O_CLOEXEC | O_NONBLOCK) != 0) return;
    sigfillset(&all); pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
    sdk->running = pthread_create(&sdk->sender, NULL, send_all, sdk) == 0; pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!sdk->running) close(sdk->wake[0]), close(sdk->wake[1]);
}

/* ---- calls ---- */

/* Encode the message and find a place for it: in the ring, in a spill file, or nowhere. */
static int submit(monitoring_sdk *sdk, struct message *message) {
    char small[SMALL + SUFFIX], *large = NULL, *line = small; size_t length = encode((struct text){ small, SMALL }, message, sdk->origin);
    if (length > SMALL) {
        line = large = malloc(MAX_BODY + SUFFIX); length = large ? encode_long((struct text){ large, MAX_BODY }, message, sdk->origin) : 0;
    }
    lock(sdk); int open = !sdk->closed && !sdk->disabled; sdk->stats.called++;
    if (open && !sdk->running) start_sender(sdk);
    if (open && length && !is_full(sdk)) {
        append(&sdk->main, line, length);
        if (sdk->asleep || sdk->main.waiting * 2 == sdk->buffer) wake_sender(sdk);
    } else if (!open || !length || !spill(sdk, line, length)) sdk->stats.dropped++, sdk->unreported += (unsigned)open;
    unlock(sdk); free(large); return length ? MON_OK : MON_ENOMEM;
}

/* The trace and span that a call is made in; empty strings where there is none. */
static void current_scope(monitoring_sdk *sdk, char trace_id[129], char span_id[17]) {
    const void *thread = pthread_getspecific(sdk->thread); lock(sdk);
    const struct span *span = thread ? sdk->spans : NULL;
    while (span && span->owner != thread) span = span->next;
    strcpy(trace_id, span ? span->trace_id : sdk->trace_id); strcpy(span_id, span ? span->id : sdk->parent_id); unlock(sdk);
}

static int submit_here(monitoring_sdk *sdk, const char *type, const monitoring_field *own, size_t own_count, const char *group,
                       const monitoring_field *fields, int count) {
    char trace[129], span[17]; current_scope(sdk, trace, span);
    return submit(sdk, &(struct message){ type, *trace ? trace : NULL, *span ? span : NULL, micros(CLOCK_REALTIME), own, fields, own_count,
                                         (size_t)count, group, NULL });
}

/* The fields of a variadic call; their number, or -1. */
static int collect(monitoring_field fields[MON_MAX_FIELDS], va_list list) {
    int count = 0;
    for (const char *key; (key = va_arg(list, const char *));) {
        int kind = va_arg(list, int); const monitoring_field *from = kind == MON_LIST ? va_arg(list, const monitoring_field *) : NULL;
        size_t size = kind == MON_LIST ? va_arg(list, size_t) : 1;
        if (size > (size_t)(MON_MAX_FIELDS - count) || (kind == MON_LIST && size && !from)) return -1;
        for (; from && size--; fields[count++] = *from++) if (!from->key || from->kind < MON_STRING || from->kind > MON_TRUTH) return -1;
        if (kind == MON_LIST) continue;
        monitoring_field *field = &fields[count++]; field->key = key, field->kind = (monitoring_kind)kind;
        if (kind == MON_STRING) field->value.string = va_arg(list, const char *);
        else if (kind == MON_INTEGER) field->value.integer = va_arg(list, long long);
        else if (kind == MON_NUMBER) field->value.number = va_arg(list, double);
        else if (kind == MON_TRUTH) field->value.integer = va_arg(list, int);
        else return -1;
    }
    return count;
}

#define COLLECT(last) \
    monitoring_field fields[MON_MAX_FIELDS]; va_list list; va_start(list, last); \
    int count = sdk ? collect(fields, list) : -1; va_end(list); \
    if (count < 0) return MON_EINVAL

static int is_one_of(const char *word, const char *const *words) {
    while (word && *words && strcmp(word, *words) != 0) words++;
    return word && *words;
}

int monitoring_log_event(monitoring_sdk *sdk, const char *level, const char *message, ...) {
    COLLECT(message); if (!message) return MON_EINVAL;
    if (!is_one_of(level, (const char *[]){ "info", "debug", "warning", "error", "critical", NULL })) return MON_ELEVEL;
    const monitoring_field own[] = { STRING("level", level), STRING("message", message) };
    return submit_here(sdk, "event", own, 2, "context", fields, count);
}

int monitoring_log_eventf(monitoring_sdk *sdk, const char *level, const char *format, ...) {
    char *message; va_list list; va_start(list, format);
    int length = format ? vasprintf(&message, format, list) : -1, result = MON_EINVAL; va_end(list);
    if (length >= 0) result = monitoring_log_event(sdk, level, message, MON_END), free(message);
    return result;
}

int monitoring_log_metric(monitoring_sdk *sdk, const char *name, double value, const char *unit, ...) {
    COLLECT(unit); if (!name || !*name) return MON_ENAME;
    const monitoring_field number = NUMBER("value", value), word = STRING("value", isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
    const monitoring_field own[] = { STRING("name", name), isfinite(value) ? number : word, STRING("unit", unit) };
    return submit_here(sdk, "metric", own, 3, "tags", fields, count);
}

int monitoring_log_progress(monitoring_sdk *sdk, const char *job_id, double percent, const char *status) {
    size_t characters = 0; status = status ? status : "running";
    for (const char *at = status; *at && characters <= 64; at++) characters += (*at & 0xC0) != 0x80;
    int error = !sdk ? MON_EINVAL : !is_trace_id(job_id) ? MON_ETRACE : !(percent >= 0 && percent <= 100) ? MON_EPERCENT
              : characters < 1 || characters > 64 ? MON_ESTATUS : MON_OK;
    const monitoring_field own[] = { STRING("job_id", job_id), NUMBER("percent", percent), STRING("status", status) };
    return error ? error : submit_here(sdk, "progress", own, 3, NULL, NULL, 0);
}

int monitoring_log_resource(monitoring_sdk *sdk, double cpu, double mem, double disk, double net) {
    monitoring_field own[] = { NUMBER("cpu", cpu), NUMBER("mem", mem), NUMBER("disk", disk), NUMBER("net", net) };
    size_t count = 0; for (size_t i = 0; i < 4; i++) if (isfinite(own[i].value.number)) own[count++] = own[i];
    return sdk && count ? submit_here(sdk, "resource", own, count, NULL, NULL, 0) : MON_EINVAL;
}

int monitoring_log_own_resource(monitoring_sdk *sdk) {
    double pages = NAN, in = NAN, out = NAN; if (!sdk) return MON_EINVAL;
    lock(sdk); long long cpu = micros(CLOCK_PROCESS_CPUTIME_ID) - sdk->cpu, elapsed = micros(CLOCK_MONOTONIC) - sdk->cpu_at;
    sdk->cpu += cpu, sdk->cpu_at += elapsed; unlock(sdk);
    FILE *statm = fopen("/proc/self/statm", "re"), *io = fopen("/proc/self/io", "re");
    if (statm && fscanf(statm, "%*s %lf", &pages) != 1) pages = NAN;
    if (io && fscanf(io, "rchar: %*s wchar: %*s syscr: %*s syscw: %*s read_bytes: %lf write_bytes: %lf", &in, &out) != 2) in = NAN;
    if (statm) fclose(statm);
    if (io) fclose(io);
    return monitoring_log_resource(sdk, 100.0 * (double)cpu / (double)(elapsed + 1), pages * (double)sysconf(_SC_PAGESIZE), in + out, NAN);
}

int monitoring_set_trace_id(monitoring_sdk *sdk, const char *trace_id) {
    if (!sdk || !is_trace_id(trace_id)) return sdk ? MON_ETRACE : MON_EINVAL;
    lock(sdk); strcpy(sdk->trace_id, trace_id); unlock(sdk); return MON_OK;
}

static int submit_span(monitoring_sdk *sdk, const struct span *span, const char *status, const monitoring_field *fields, int count) {
    const monitoring_field own[] = {
        STRING("span_id", span->id), STRING("name", span->name), STRING("parent_id", span->parent_id[0] ? span->parent_id : NULL),
        STRING("status", status), INTEGER("start", span->start), INTEGER("duration", micros(CLOCK_MONOTONIC) - span->start_monotonic) };
    return submit(sdk, &(struct message){ status ? "span_end" : "span_start", span->trace_id, NULL, status ? micros(CLOCK_REALTIME) : span->start,
                                         own, fields, status ? 6 : 3, (size_t)count, "tags", NULL });
}

int monitoring_start_span_tags(monitoring_sdk *sdk, const char *name, const char *trace_id, char id[17], ...) {
    COLLECT(id); struct span *span;
    int error = !id ? MON_EINVAL : !name || !*name ? MON_ENAME : trace_id && !is_trace_id(trace_id) ? MON_ETRACE : MON_OK;
    if (error) return error;
    if (!(span = calloc(1, sizeof *span)) || !(span->name = strndup(name, MAX_LINE))) return free(span), MON_ENOMEM;
    current_scope(sdk, span->trace_id, span->parent_id); make_id(span->id); strcpy(id, span->id);
    if (trace_id) strcpy(span->trace_id, trace_id);
    else if (!span->trace_id[0]) make_id(span->trace_id), make_id(span->trace_id + 16);
    span->start = micros(CLOCK_REALTIME), span->start_monotonic = micros(CLOCK_MONOTONIC);
    error = submit_span(sdk, span, NULL, fields, count);
    lock(sdk); if (!pthread_getspecific(sdk->thread)) pthread_setspecific(sdk->thread, (void *)++sdk->threads);
    span->owner = pthread_getspecific(sdk->thread), span->next = sdk->spans, sdk->spans = span; unlock(sdk);
    return error;
}

int monitoring_start_span(monitoring_sdk *sdk, const char *name, const char *trace_id, char id[17]) {
    return monitoring_start_span_tags(sdk, name, trace_id, id, MON_END);
}

/* Take the span out of the open ones; id NULL: the newest. */
static struct span *take_span(monitoring_sdk *sdk, const char *id) {
    struct span **link = &sdk->spans, *span;
    while ((span = *link) && id && strcmp(span->id, id) != 0) link = &span->next;
    if (span) *link = span->next;
    return span;
}

static void free_span(struct span *span) { free(span->name); free(span); }

int monitoring_end_span(monitoring_sdk *sdk, const char *id, const char *status, ...) {
    COLLECT(status); if (!id) return MON_EINVAL;
    status = status ? status : "ok"; if (!is_one_of(status, (const char *[]){ "ok", "error", NULL })) return MON_ESTATUS;
    lock(sdk); struct span *span = take_span(sdk, id); unlock(sdk); if (!span) return MON_ESPAN;
    int result = span->inherited ? MON_OK : submit_span(sdk, span, status, fields, count); free_span(span); return result;
}

int monitoring_child_env(monitoring_sdk *sdk, monitoring_env *env) {
    char trace[129], span[17]; if (!sdk || !env) return MON_EINVAL;
    current_scope(sdk, trace, span); memset(env, 0, sizeof *env);
    snprintf(env->trace_id, sizeof env->trace_id, "WAFERMON_TRACE_ID=%s", trace);
    snprintf(env->span_id, sizeof env->span_id, "WAFERMON_SPAN_ID=%s", span);
    env->variables[0] = *trace ? env->trace_id : *span ? env->span_id : NULL;
    env->variables[1] = *trace && *span ? env->span_id : NULL; return MON_OK;
}

int monitoring_get_stats(monitoring_sdk *sdk, monitoring_stats *stats) {
    if (!sdk || !stats) return MON_EINVAL;
    lock(sdk); *stats = sdk->stats, stats->waiting = (unsigned long long)waiting(sdk);
    stats->state = is_full(sdk) ? "overflow" : sdk->main.phase == OPEN ? "connected" : "disconnected";
    unlock(sdk); return MON_OK;
}

int monitoring_flush(monitoring_sdk *sdk, int milliseconds) {
    long long deadline = millis() + (milliseconds < 0 ? 5000 : milliseconds); if (!sdk) return MON_EINVAL;
    lock(sdk); wake_sender(sdk); while (waiting(sdk) && wait_news(sdk, deadline)) continue;
    int result = waiting(sdk) ? MON_ETIMEOUT : MON_OK; unlock(sdk); return result;
}

/* ---- open, close, fork, exit ---- */

/*
 * Write the window, with its seqs, to a spill file of the main client, and behind it what waits; when that file is full, what has no seq
 * yet goes to files of their own. The seq up to which, exclusively, all is in the file.
 */
static long long write_rest(monitoring_sdk *sdk) {
    struct stream *stream = &sdk->main; long long end = stream->given + stream->waiting, kept = stream->first;
    struct spill_file file = { -1, "", 0, 0 }; memcpy(file.client, stream->client, sizeof file.client);
    size_t at = stream->tail; const char *body; file.fd = kept < end ? create_spill(sdk, stream->client) : -1;
    for (long long seq = kept; seq < end; seq++) {
        size_t length = record(stream, &at, &body), size = length + SUFFIX; memcpy(stream->out, body, length);
        int room = file.fd >= 0 && file.bytes + size <= SPILL_FILE && sdk->spill_bytes + size <= SPILL_TOTAL;
        if (kept == seq && room && write_line(sdk, &file, stream->out, length, seq)) kept++;
        else if (seq >= stream->given && !spill(sdk, stream->out, length)) sdk->stats.dropped++;
    }
    if (file.fd >= 0) close(file.fd);
    stream->given = kept > stream->given ? kept : stream->given, stream->waiting = 0, stream->waiting_bytes = 0; return kept;
}

/* After the sender's end: leave to the sidecar what is not acknowledged, and hang up. */
static void leave(monitoring_sdk *sdk, long long deadline) {
    struct stream *stream = &sdk->main; long long kept = write_rest(sdk); stream->out_length = stream->out_at;
    /* TLS has no half-closed connections: the sidecar acknowledges until it hears goodbye, and what it has by then is ours to wait for. */
    if (stream->phase == OPEN && !sdk->tls) shutdown(stream->fd, SHUT_WR);
    for (long long now; stream->phase == OPEN && (!sdk->tls || stream->first <= stream->sent) && (now = millis()) < deadline;) {
        struct pollfd in = slot(stream); unlock(sdk); int ready = poll(&in, 1, (int)(deadline - now)); lock(sdk);
        if (ready > 0) receive(sdk, stream);
    }
    TLS(stream->session, monitoring_tls_finish(stream->session), (void)0); if (stream->first == stream->given) move_spill(sdk, stream->client, "", NULL);
    for (; stream->given > kept && stream->given > stream->first; stream->given--) sdk->stats.dropped++;
    sdk->stats.handed_over += (unsigned long long)waiting(sdk), sdk->in_spill = 0;
    if (sdk->spill.active) move_spill(sdk, sdk->spill.client, ".taken", "");
    for (end_spill_stream(sdk); sdk->file_count;) forget_oldest_file(sdk);
    lose(sdk, stream); stream->first = stream->given; drop_ring(stream);
}

int monitoring_close(monitoring_sdk *sdk, int milliseconds) {
    long long deadline = millis() + (milliseconds < 0 ? 2000 : milliseconds); if (!sdk) return MON_EINVAL;
    /* Where another thread is at it, wait for that one: the process may end afterwards. */
    lock(sdk); if (sdk->closed) { while (sdk->main.ring && wait_news(sdk, deadline)) continue; unlock(sdk); return MON_OK; }
    int ran = sdk->running; sdk->closed = 1; wake_sender(sdk);
    /* A first attempt that is still under way is worth waiting for: short programs end before it has succeeded. */
    while (ran && waiting(sdk) && !(sdk->main.phase == RESTING && sdk->main.attempts) && wait_news(sdk, deadline)) continue;
    sdk->stopping = 1; wake_sender(sdk);
    /* It goes at once, unless it looks up a name, which nothing can interrupt; then it touches nothing any more. */
    for (long long patience = millis() + 1000; ran && !sdk->gone && wait_news(sdk, patience);) continue;
    sdk->running = ran && !sdk->gone; leave(sdk, deadline < millis() + 200 ? deadline : millis() + 200); int stuck = sdk->running; unlock(sdk);
    if (stuck) pthread_detach(sdk->sender);
    else if (ran) pthread_join(sdk->sender, NULL), close(sdk->wake[0]), close(sdk->wake[1]);
    return MON_OK;
}

void monitoring_free(monitoring_sdk *sdk) {
    if (monitoring_close(sdk, -1)) return;
    pthread_mutex_lock(&handles_mutex); monitoring_sdk **link = &handles;
    while (*link != sdk) link = &(*link)->next;
    *link = sdk->next; TLS(sdk->tls && !sdk->running, monitoring_tls_close(sdk->tls), (void)0); pthread_mutex_unlock(&handles_mutex);
    for (struct span *span; (span = take_span(sdk, NULL));) free_span(span);
    pthread_key_delete(sdk->thread); free(sdk->token);
    if (!sdk->running) pthread_mutex_destroy(&sdk->mutex), pthread_cond_destroy(&sdk->news), free(sdk); /* else a stuck sender will come back to it */
}

static void each_handle(void (*act)(monitoring_sdk *)) { for (monitoring_sdk *sdk = handles; sdk; sdk = sdk->next) act(sdk); }
static void hold(monitoring_sdk *sdk) { lock(sdk); TLS(sdk->tls, monitoring_tls_hold(sdk->tls), (void)0); }
static void let_go(monitoring_sdk *sdk) { TLS(sdk->tls, monitoring_tls_let_go(sdk->tls), (void)0); unlock(sdk); }
static void before_fork(void) { pthread_mutex_lock(&handles_mutex); each_handle(hold); }
static void after_fork(void) { each_handle(let_go); pthread_mutex_unlock(&handles_mutex); }

/* Who we are and where we start: at open and in a forked child. */
static void begin(monitoring_sdk *sdk) {
    sdk->pid = getpid(), sdk->cpu = micros(CLOCK_PROCESS_CPUTIME_ID), sdk->cpu_at = micros(CLOCK_MONOTONIC);
    const monitoring_field fields[] = { STRING("service", sdk->service), STRING("host", sdk->host), INTEGER("pid", sdk->pid) };
    sdk->origin[put_fields((struct text){ sdk->origin, sizeof sdk->origin }, 0, ",", fields, 3, NULL, 0)] = '\0';
    pthread_condattr_t clock; pthread_condattr_init(&clock), pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&sdk->news, &clock), pthread_condattr_destroy(&clock), make_id(sdk->main.client);
    sdk->main.fd = sdk->spill.fd = -1, sdk->main.active = sdk->main.first = sdk->main.next = sdk->main.given = 1;
}

/* In the child: empty, and without a sender, which the first call starts. */
static void begin_again(monitoring_sdk *sdk) {
    char *ring = sdk->main.ring; if (sdk->closed) free(ring), ring = NULL;
    if (sdk->running) close(sdk->wake[0]), close(sdk->wake[1]);
    hang_up(&sdk->main); end_spill_stream(sdk); drop_ring(&sdk->spill); /* which the sender may have been filling */
    while (sdk->file_count) forget_oldest_file(sdk);
    memset(&sdk->main, 0, offsetof(struct stream, out)); memset(&sdk->stats, 0, sizeof sdk->stats);
    sdk->main.ring = ring, sdk->main.ring_size = RING, sdk->in_spill = 0, sdk->unreported = 0;
    sdk->writing = sdk->running = sdk->stopping = sdk->gone = sdk->asleep = 0; begin(sdk);
    for (struct span *span = sdk->spans; span; span = span->next) span->inherited = 1;
}

static void after_fork_in_child(void) { each_handle(begin_again); after_fork(); }

static void close_finally(monitoring_sdk *sdk) { monitoring_close(sdk, -1); }
static void at_exit(void) { pthread_mutex_lock(&handles_mutex); each_handle(close_finally); pthread_mutex_unlock(&handles_mutex); }

static int is_tls(const char *url) { return strncmp(url, "tls://", 6) == 0; }

/* False: not one of the forms that monitoring_sdk.h names. */
static int read_url(monitoring_sdk *sdk, const char *url) {
    int end = 0; if (strncmp(url, "unix:///", 8) == 0 && strlen(url + 7) < sizeof sdk->unix_path) return strcpy(sdk->unix_path, url + 7) != NULL;
    if (strncmp(url, "tcp://", 6) != 0 && !TLS(1, is_tls(url), 0)) return 0;
    if (sscanf(url += 6, "%255[^][:/ ]:%5[0-9]%n", sdk->tcp_host, sdk->tcp_port, &end) != 2) end = 0;
    if (!end && sscanf(url, "[%255[^][/ ]]:%5[0-9]%n", sdk->tcp_host, sdk->tcp_port, &end) != 2) end = 0;
    return end && !url[end] && atoi(sdk->tcp_port) > 0 && atoi(sdk->tcp_port) < 65536;
}

static void read_trace(monitoring_sdk *sdk, const char *given) {
    const char *parent = setting(NULL, "TRACEPARENT"), *trace_id = setting(given, "WAFERMON_TRACE_ID"), *span_id = setting(NULL, "WAFERMON_SPAN_ID");
    char trace[33] = "", span[17] = "";
    if (!parent || strlen(parent) < 55 || sscanf(parent, "%*2[0-9a-f]-%32[0-9a-f]-%16[0-9a-f]-", trace, span) != 2) *trace = *span = '\0';
    if (!is_hex(trace, 32) || !is_hex(span, 16)) *trace = *span = '\0';
    strcpy(sdk->trace_id, is_trace_id(trace_id) ? trace_id : trace);
    if (span_id && is_hex(span_id, 16) && !span_id[16]) strcpy(sdk->parent_id, span_id);
    else if (strcmp(sdk->trace_id, trace) == 0) strcpy(sdk->parent_id, span); /* a span of another trace is no parent */
}

int monitoring_open(monitoring_sdk **result, const monitoring_options *given) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:", spool[] = "/var/spool/wafermon";
    monitoring_options options = given ? *given : (monitoring_options){ 0 };
    if (!result || (*result = NULL, options.buffer < 0)) return MON_EINVAL;
    const char *service = setting(setting(options.service, "WAFERMON_SERVICE"), "OTEL_SERVICE_NAME");
    if (!service || strlen(service) > 128 || service[strspn(service, letters)] || strcmp(service, "wafermon") == 0) return MON_ESERVICE;
    if (options.trace_id && !is_trace_id(options.trace_id)) return MON_ETRACE;
    monitoring_sdk *sdk = calloc(1, sizeof *sdk);
    if (!sdk || !(sdk->main.ring = malloc(RING + MAX_LINE + SUFFIX))) return free(sdk), MON_ENOMEM;
    if (pthread_key_create(&sdk->thread, NULL)) return free(sdk->main.ring), free(sdk), MON_ENOMEM;
    sdk->main.ring_size = RING; pthread_mutex_init(&sdk->mutex, NULL); strcpy(sdk->service, service);
    const char *url = setting(options.url, "WAFERMON_URL"), *dir = setting(options.spill_dir, "WAFERMON_SPILL_DIR");
    const char *token = setting(options.token, "WAFERMON_TOKEN"), *disabled = setting(NULL, "WAFERMON_DISABLED"), *buffer = getenv("WAFERMON_BUFFER");
    sdk->buffer = options.buffer ? options.buffer : buffer && atoi(buffer) > 0 ? atoi(buffer) : 1000;
    sdk->token = token ? strdup(token) : NULL; gethostname(sdk->host, sizeof sdk->host - 1);
    sdk->disabled = disabled && !is_one_of(disabled, (const char *[]){ "0", "false", "no", "False", "No", "FALSE", "NO", NULL });
    const char *bad = TLS(1, 0, url && is_tls(url)) ? "built without TLS: make TLS=1; the default serves" : "bad url, tcp://127.0.0.1:7411 serves";
    if (url && !read_url(sdk, url)) warn_once(sdk, bad, url), url = NULL;
    if (!url) read_url(sdk, "tcp://127.0.0.1:7411");
    if (!dir && access(spool, W_OK | X_OK) == 0) dir = spool;
    sdk->spill_shared = !dir; if (dir) snprintf(sdk->spill_dir, sizeof sdk->spill_dir, "%s", dir);
    else snprintf(sdk->spill_dir, sizeof sdk->spill_dir, "/tmp/wafermon-%ld", (long)geteuid());
    read_trace(sdk, options.trace_id); begin(sdk); pthread_mutex_lock(&handles_mutex);
    if (!hooked) hooked = pthread_atfork(before_fork, after_fork, after_fork_in_child) == 0 && atexit(at_exit) == 0;
    int secure = url && is_tls(url) && !sdk->disabled; sdk->tls = TLS(secure, monitoring_tls_open(sdk->tcp_host), NULL);
    if (sdk->tls && hooked == 1) hooked += atexit(at_exit) == 0; /* once more, since what is registered last runs first: before OpenSSL's end */
    sdk->next = handles, handles = sdk; pthread_mutex_unlock(&handles_mutex);
    if (secure && !sdk->tls) return sdk->disabled = 1, monitoring_free(sdk), MON_ENOMEM;
    lock(sdk); if (!sdk->disabled) start_sender(sdk); unlock(sdk); *result = sdk; return MON_OK;
}

const char *monitoring_strerror(int error) {
    static const char *const texts[] = {
        "no error", "a missing or bad argument", "no service, or not 1-128 of A-Z a-z 0-9 . _ - :", "unknown level", "an empty name",
        "a trace or job id has 1-128 printable ASCII characters without space", "percent is not within 0-100", "bad status",
        "no open span has this id", "messages are still waiting", "out of memory" };
    return error <= 0 && error >= MON_ENOMEM ? texts[-error] : "unknown error";
}
