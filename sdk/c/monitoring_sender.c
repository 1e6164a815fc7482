/*
 * monitoring_sender.c - the ring, spill files, connections and the thread that sends, for monitoring_sdk.c.
 */
#include "monitoring_core.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int mon_is_full(const monitoring_sdk *sdk) {
    return sdk->main.waiting >= sdk->buffer || sdk->main.waiting_bytes >= MAX_WAITING;
}

long long mon_waiting(const monitoring_sdk *sdk) {
    return sdk->main.given - sdk->main.first + sdk->main.waiting + sdk->in_spill - sdk->stats_lines;
}

void mon_wake_sender(monitoring_sdk *sdk) {
    for (sdk->asleep = 0; sdk->running && write(sdk->wake[1], "", 1) < 0 && errno == EINTR;)
        continue;
}

/* Wait for news until a time of millis(); false when that has come. */
int mon_wait_news(monitoring_sdk *sdk, long long deadline) {
    struct timespec until = { (time_t)(deadline / 1000), (long)(deadline % 1000) * 1000000 };
    return pthread_cond_timedwait(&sdk->news, &sdk->mutex, &until) != ETIMEDOUT;
}

void mon_warn_once(monitoring_sdk *sdk, const char *what, const char *detail) {
    if (!sdk->warned++)
        fprintf(stderr, "wafermon: %s: %.300s\n", what, detail);
}

/* ---- the ring ---- */

/* The body at `at`, which moves on to the next record. */
static size_t record(const struct stream *stream, size_t *at, const char **body) {
    uint32_t length;
    memcpy(&length, stream->ring + *at, sizeof length);
    *body = stream->ring + *at + sizeof length;
    *at += sizeof length + length;
    if (*at >= stream->ring_size)
        *at = 0;
    return length;
}

/* A record may hang over ring_size and is never split; the bounds on bytes keep head behind tail. */
void mon_append(struct stream *stream, const char *body, size_t length) {
    uint32_t header = (uint32_t)length;
    memcpy(stream->ring + stream->head, &header, sizeof header);
    memmove(stream->ring + stream->head + sizeof header, body, length);
    record(stream, &stream->head, &body);
    stream->waiting++;
    stream->waiting_bytes += length + SUFFIX;
}

/* Whether it is a stats line, which counts nowhere. Each body begins with its type. */
static int is_stats(const char *body) {
    return memcmp(body + strlen("{\"type\":\""), "stats\"", 6) == 0;
}

/* Forget the window up to seq, which the sidecar has. */
static void settle(monitoring_sdk *sdk, struct stream *stream, long long seq, int rejected) {
    const char *body;
    if (seq > stream->sent)
        seq = stream->sent; /* it can't have what never left */
    for (; stream->first <= seq; stream->first++) {
        stream->window_bytes -= record(stream, &stream->tail, &body) + SUFFIX;
        if (is_stats(body))
            sdk->stats_lines--;
        else if (rejected)
            sdk->stats.rejected++;
        else
            sdk->stats.acked++;
        sdk->in_spill -= stream == &sdk->spill;
    }
    if (stream->next < stream->first) {
        stream->next = stream->first;
        stream->cursor = stream->tail;
    }
    /* Back to the start: the same few pages serve a program that logs little. */
    if (stream->first == stream->given && !stream->waiting)
        stream->tail = stream->cursor = stream->head = 0;
    pthread_cond_broadcast(&sdk->news);
}

/* ---- spill files ---- */

static void spill_path(const monitoring_sdk *sdk, const char *client, const char *ending, char path[PATH]) {
    snprintf(path, PATH, "%s/%s.%lld.%s.ldjson%s", sdk->spill_dir, sdk->service, sdk->pid, client, ending);
}

/* Rename the file by its ending; `to` NULL: remove it. */
static int move_spill(const monitoring_sdk *sdk, const char *client, const char *from, const char *to) {
    char path[PATH], target[PATH];
    spill_path(sdk, client, from, path);
    spill_path(sdk, client, to ? to : "", target);
    return (to ? rename(path, target) : unlink(path)) == 0;
}

static int create_spill(const monitoring_sdk *sdk, const char *client) {
    char path[PATH];
    struct stat dir;
    mkdir(sdk->spill_dir, 0700);
    if (sdk->spill_shared
        && (lstat(sdk->spill_dir, &dir) || !S_ISDIR(dir.st_mode) || dir.st_uid != geteuid() || dir.st_mode & 022))
        return -1;
    spill_path(sdk, client, "", path);
    /* The group may read and write whatever the umask: a spool directory with a setgid bit gives the file to the sidecar's. */
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    flock(fd, LOCK_EX | LOCK_NB);
    fchmod(fd, 0660);
    return fd;
}

/* Append the line, whose buffer has room for its suffix, or nothing. */
static int write_line(monitoring_sdk *sdk, struct spill_file *file, char *line, size_t length, long long seq) {
    length += mon_suffix(line + length, file->client, seq);
    if (write(file->fd, line, length) != (ssize_t)length)
        return ftruncate(file->fd, (off_t)file->bytes) & 0;
    file->lines++;
    file->bytes += length;
    sdk->spill_bytes += length;
    sdk->stats.spilled += !is_stats(line);
    return 1;
}

/* Remember a spill file, for stats lines; the oldest one is forgotten where there are too many. */
static void note_stream(monitoring_sdk *sdk, const char *client) {
    if (sdk->stream_count == MAX_STREAMS)
        memmove(sdk->streams, sdk->streams + 1, (size_t)--sdk->stream_count * sizeof *sdk->streams);
    strcpy(sdk->streams[sdk->stream_count].client, client);
    sdk->streams[sdk->stream_count++].last = 0;
}

/* Put a message into the newest spill file; false: it has to be dropped. */
int mon_spill(monitoring_sdk *sdk, char *line, size_t length) {
    struct spill_file file = { -1, "", 0, 0 }, *newest = sdk->writing ? &sdk->files[sdk->file_count - 1] : NULL;
    if (sdk->spill_bytes + length + SUFFIX > SPILL_TOTAL)
        return 0;
    if (!newest || newest->bytes + length + SUFFIX > SPILL_FILE) {
        mon_make_id(file.client);
        if (sdk->file_count == SPILL_FILES || (file.fd = create_spill(sdk, file.client)) < 0)
            return 0;
        *(newest = &sdk->files[sdk->file_count++]) = file;
        sdk->writing = 1;
        note_stream(sdk, file.client);
    }
    int written = write_line(sdk, newest, line, length, newest->lines + 1);
    sdk->in_spill += written;
    sdk->streams[sdk->stream_count - 1].last = newest->lines;
    return written;
}

void mon_forget_oldest_file(monitoring_sdk *sdk) {
    close(sdk->files[0].fd);
    sdk->spill_bytes -= sdk->files[0].bytes;
    memmove(sdk->files, sdk->files + 1, (size_t)--sdk->file_count * sizeof *sdk->files);
}

/* Make the lines of a file, read into the ring itself, the records of the spill stream: a record's header is shorter than a line's suffix. */
static int load_spill(struct stream *stream, const struct spill_file *file) {
    char *at = stream->ring + SUFFIX, *stop = at + file->bytes, *newline, end[SUFFIX];
    if (!stream->ring || pread(file->fd, at, file->bytes, 0) != (ssize_t)file->bytes)
        return 0;
    for (; stream->waiting < file->lines; at = newline + 1) {
        size_t length = mon_suffix(end, file->client, stream->waiting + 1);
        newline = memchr(at, '\n', (size_t)(stop - at));
        if (!newline || (size_t)(newline - at) <= length)
            return 0;
        mon_append(stream, at, (size_t)(newline + 1 - at) - length);
    }
    return 1;
}

void mon_drop_ring(struct stream *stream) {
    free(stream->ring);
    free(stream->frame);
    stream->ring = stream->frame = NULL;
}

/* Start to send the oldest closed file; the newest one is closed for it when calls have no need of it. True: try the next one. */
static int take_spill(monitoring_sdk *sdk) {
    if (sdk->file_count == 1 && !mon_is_full(sdk))
        sdk->writing = 0;
    if (sdk->main.phase != OPEN || sdk->spill.active || sdk->file_count == sdk->writing)
        return 0;
    struct spill_file file = sdk->files[0];
    struct stream *stream = &sdk->spill;
    memset(stream, 0, offsetof(struct stream, out));
    memcpy(stream->client, file.client, sizeof stream->client);
    stream->fd = -1;
    stream->first = stream->next = stream->given = 1;
    stream->ring_size = file.bytes + SUFFIX;
    stream->ring = malloc(stream->ring_size);
    mon_unlock(sdk);
    int claimed = move_spill(sdk, file.client, "", ".taken"), loaded = claimed && load_spill(stream, &file);
    if (claimed && !loaded)
        move_spill(sdk, file.client, ".taken", "");
    mon_lock(sdk);
    if ((stream->active = loaded && sdk->file_count))
        return 0;
    mon_drop_ring(stream);
    if (!sdk->file_count)
        return 0; /* close did not wait any longer */
    /* Somebody else has it, or the sidecar will. */
    sdk->in_spill -= file.lines;
    sdk->stats.handed_over += (unsigned long long)file.lines;
    mon_forget_oldest_file(sdk);
    pthread_cond_broadcast(&sdk->news);
    return 1;
}

void mon_forget_addresses(struct stream *stream) {
    if (stream->found)
        freeaddrinfo(stream->found);
    stream->found = stream->address = NULL;
}

void mon_hang_up(struct stream *stream) {
    if (stream->fd >= 0)
        close(stream->fd);
    stream->fd = -1;
    TLS(1, monitoring_tls_end(&stream->session), (void)0);
}

void mon_end_spill_stream(monitoring_sdk *sdk) {
    mon_hang_up(&sdk->spill);
    mon_forget_addresses(&sdk->spill);
    if (sdk->spill.active)
        mon_drop_ring(&sdk->spill);
    sdk->spill.active = 0;
}

/* ---- stats lines ---- */

/* The body of a stats line whose seq is `last` + 1. Nothing accepted is without a seq then, but for what its streams name. */
static size_t encode_stats(const monitoring_sdk *sdk, struct text text, long long last, int final) {
    const monitoring_field own[] = { INTEGER("called", (long long)sdk->stats.called),
                                     INTEGER("dropped", (long long)sdk->stats.dropped), INTEGER("unsent", 0),
                                     INTEGER("last", last) };
    struct message message = { .type = "stats", .ts = micros(CLOCK_REALTIME), .own = own, .own_count = 4 };
    size_t at = put_word(text, mon_encode(text, &message, sdk->origin), ",\"streams\":[");
    for (int i = 0; i < sdk->stream_count; i++) {
        const monitoring_field stream[] = { STRING("client", sdk->streams[i].client),
                                            INTEGER("last", sdk->streams[i].last) };
        at = put(text, at, ",", i > 0);
        at = put_word(text, mon_put_fields(text, at, "{", stream, 2, NULL, 0), "}");
    }
    return put_word(text, at, final ? "],\"final\":true" : "]");
}

/* Whether there is something that no final line has told. */
static int owes_stats(const monitoring_sdk *sdk) {
    return sdk->stats.called && !sdk->disabled && !sdk->finished;
}

/* Queue a stats line where the sidecar takes one and nothing waits for a seq. */
void mon_tell_stats(monitoring_sdk *sdk, int final) {
    struct stream *stream = &sdk->main;
    if (stream->phase != OPEN || !stream->offered || stream->waiting || !owes_stats(sdk))
        return;
    char *body = stream->ring + stream->head + sizeof(uint32_t);
    mon_append(stream, body, encode_stats(sdk, (struct text){ body, MAX_BODY }, stream->given - 1, final));
    sdk->stats_lines++;
    sdk->told = sdk->stats.called;
    sdk->tell_at = 0;
    sdk->finished = final;
}

/* Tell when it is time to. When that is next; INT64_MAX: never. */
static long long mind_stats(monitoring_sdk *sdk, long long now) {
    if (!sdk->tell_at && sdk->stats.called != sdk->told)
        sdk->tell_at = now + STATS_DUE;
    if (sdk->tell_at && now >= sdk->tell_at)
        mon_tell_stats(sdk, 0);
    return sdk->tell_at > now ? sdk->tell_at : INT64_MAX;
}

/* ---- connections ---- */

/* Begin to connect; -1 where that fails at once. */
static int begin_connect(const struct addrinfo *address) {
    int one = 1, fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (address->ai_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fd < 0 || connect(fd, address->ai_addr, address->ai_addrlen) == 0 || errno == EINPROGRESS)
        return fd;
    close(fd);
    return -1;
}

/* Go on to the host's next address, within the same attempt. False: there is none. */
static int try_next(monitoring_sdk *sdk, struct stream *stream) {
    while (stream->address && stream->fd < 0 && !sdk->stopping) {
        stream->fd = begin_connect(stream->address);
        stream->address = stream->address->ai_next;
    }
    stream->due = millis() + QUIET;
    stream->phase = DIALING;
    return stream->fd >= 0;
}

/* The connection is lost, or did not come about: rest for a random time within a growing limit, so that many clients don't come at once. */
static void lose(monitoring_sdk *sdk, struct stream *stream) {
    uint64_t limit = stream->attempts < 9 ? 100ULL << stream->attempts : 30000;
    const char *problem = TLS(sdk->tls, monitoring_tls_problem(sdk->tls), NULL);
    if (problem)
        mon_warn_once(sdk, "tls", problem);
    mon_hang_up(stream);
    stream->frame_length = 0;
    stream->cursor = stream->tail;
    stream->next = stream->first;
    stream->out_at = stream->out_length = stream->in_length = 0;
    stream->skipping = 0;
    if (try_next(sdk, stream))
        return;
    mon_forget_addresses(stream);
    stream->phase = RESTING;
    stream->attempts++;
    stream->due = millis() + (long long)(mon_random_bits() % (limit < 30000 ? limit : 30000));
    pthread_cond_broadcast(&sdk->news);
}

static void greet(monitoring_sdk *sdk, struct stream *stream) {
    struct text text = { stream->out, sizeof stream->out };
    const monitoring_field token = STRING("token", sdk->token);
    mon_unlock(sdk);
    stream->session = TLS(sdk->tls, monitoring_tls_start(sdk->tls, stream->fd), NULL);
    mon_lock(sdk); /* it reads files */
    if (sdk->tls && !stream->session) {
        lose(sdk, stream);
        return;
    }
    size_t at = put_word(
        text, put_word(text, put_word(text, 0, "{\"v\":2,\"type\":\"hello\",\"client\":\""), stream->client), "\"");
    at = put_word(text, put_word(text, at, sdk->origin), ",\"sdk\":\"c/2.0.0\",\"ack\":true");
    at = put_word(text, at, sdk->compress ? ",\"compress\":[\"zlib\"]" : "");
    at = put_word(text, mon_put_fields(text, at, ",", &token, 1, NULL, 0), "}\n");
    stream->out_length = at <= sizeof stream->out ? at : 0;
    stream->phase = GREETING;
    stream->due = millis() + QUIET;
}

static void dial_unix(monitoring_sdk *sdk, struct stream *stream) {
    struct sockaddr_un path = { .sun_family = AF_UNIX };
    const struct addrinfo local = { .ai_family = AF_UNIX,
                                    .ai_addr = (struct sockaddr *)&path,
                                    .ai_addrlen = sizeof path };
    strcpy(path.sun_path, sdk->unix_path);
    stream->due = millis() + QUIET;
    stream->phase = DIALING;
    stream->fd = begin_connect(&local);
    if (stream->fd < 0)
        lose(sdk, stream);
}

/* Look the host up, anew for each attempt, and begin with its first address. */
static void dial(monitoring_sdk *sdk, struct stream *stream) {
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV }, *found = NULL;
    if (sdk->unix_path[0]) {
        dial_unix(sdk, stream);
        return;
    }
    mon_unlock(sdk);
    if (getaddrinfo(sdk->tcp_host, sdk->tcp_port, &hints, &found) != 0)
        found = NULL;
    mon_lock(sdk);
    if (sdk->stopping) { /* the one that closes may not have waited for it */
        if (found)
            freeaddrinfo(found);
        return;
    }
    stream->found = stream->address = found;
    if (!try_next(sdk, stream))
        lose(sdk, stream);
}

/* Fill `out` with records from the cursor on, and give seqs to those that have none. True: there was something. */
static int fill(struct stream *stream) {
    const char *body;
    if (stream->first == stream->given)
        stream->heard = millis(); /* there was nothing to hear */
    stream->out_at = stream->out_length = stream->line_at = 0;
    stream->wire = stream->next;
    while (stream->out_length < BATCH && stream->next < stream->given + stream->waiting) {
        size_t cursor = stream->cursor, length = record(stream, &cursor, &body), line = length + SUFFIX;
        if (stream->next == stream->given) {
            if (stream->window_bytes + line > MAX_WINDOW)
                break;
            stream->given++;
            stream->waiting--;
            stream->window_bytes += line;
            stream->waiting_bytes -= line;
        }
        memcpy(stream->out + stream->out_length, body, length);
        stream->out_length +=
            length + mon_suffix(stream->out + stream->out_length + length, stream->client, stream->next);
        stream->next++;
        stream->cursor = cursor;
    }
    return stream->out_length > 0;
}

/* Count the lines that the socket has taken whole; `at` is where the last call ended. */
static void count_sent(monitoring_sdk *sdk, struct stream *stream, const char *at) {
    const char *end = stream->out + stream->out_at;
    while (stream->phase == OPEN && (at = memchr(at, '\n', (size_t)(end - at)))) {
        if (is_stats(stream->out + stream->line_at))
            stream->sent = stream->wire > stream->sent ? stream->wire : stream->sent;
        else if (stream->wire > stream->sent) {
            stream->sent = stream->wire;
            sdk->stats.sent++;
        } else
            sdk->stats.resent++;
        at++;
        stream->wire++;
        stream->line_at = (size_t)(at - stream->out);
    }
}

static int is_unsent(const struct stream *stream) {
    return stream->out_at < stream->out_length;
}

/* Make a frame of what is in `out`, where that is granted and worth it; nobody waits meanwhile. */
static void pack(monitoring_sdk *sdk, struct stream *stream) {
    size_t room = ZLIB(monitoring_zlib_room(sizeof stream->out), 0), length = 0;
    if (!room || !stream->framed || !sdk->compress || stream->out_length < FRAME_LEAST)
        return;
    mon_unlock(sdk);
    if (!stream->frame)
        stream->frame = malloc(room);
    if (stream->frame)
        length = ZLIB(
            monitoring_zlib_frame(stream->frame, room, stream->out, stream->out_length, stream->next - stream->wire),
            0);
    mon_lock(sdk);
    stream->frame_at = 0;
    stream->frame_length = length;
}

/* Give the socket what it takes; false: it takes nothing now. */
static int send_some(monitoring_sdk *sdk, struct stream *stream) {
    const char *line = stream->out + stream->out_at,
               *at = stream->frame_length ? stream->frame + stream->frame_at : line;
    size_t size = stream->frame_length ? stream->frame_length - stream->frame_at : stream->out_length - stream->out_at;
    mon_unlock(sdk);
    ssize_t sent =
        TLS(sdk->tls, monitoring_tls_send(stream->session, at, size), send(stream->fd, at, size, MSG_NOSIGNAL));
    int lost = sent < 0 && errno != EAGAIN && errno != EINTR;
    mon_lock(sdk);
    if (lost)
        lose(sdk, stream);
    if (sent < 0)
        return 0;
    if (stream->frame_length) {
        stream->frame_at += (size_t)sent;
        if (stream->frame_at < stream->frame_length)
            return 1;
        stream->frame_length = 0;
        stream->out_at = stream->out_length;
    } else
        stream->out_at += (size_t)sent;
    count_sent(sdk, stream, line);
    return 1;
}

/* Send until there is nothing more or the socket is full. */
static void transmit(monitoring_sdk *sdk, struct stream *stream) {
    do {
        if (!is_unsent(stream)) {
            if (stream->phase != OPEN || !fill(stream))
                return;
            pack(sdk, stream);
        }
    } while (send_some(sdk, stream));
}

static void obey(monitoring_sdk *sdk, struct stream *stream, const char *line) {
    struct reply reply;
    if (!mon_read_reply(line, &reply))
        return;
    int error = strcmp(reply.type, "error") == 0;
    if (stream->phase == GREETING && strcmp(reply.type, "welcome") == 0) {
        settle(sdk, stream, reply.acked, 0);
        sdk->stats.reconnects += stream == &sdk->main && stream->welcomed;
        stream->phase = OPEN;
        stream->welcomed = 1;
        stream->offered = reply.stats;
        stream->framed = reply.zlib && sdk->compress;
        stream->attempts = 0;
        mon_forget_addresses(stream);
    } else if (stream->phase == GREETING && error) {
        mon_warn_once(sdk, reply.code, reply.detail);
        lose(sdk, stream);
    } else if (stream->phase == OPEN && error && strcmp(reply.code, "bad_frame") == 0) {
        sdk->compress = 0;
        mon_warn_once(sdk, "the sidecar refuses compressed frames, so lines go as they are: bad_frame", reply.detail);
        lose(sdk, stream);
    } else if (stream->phase == OPEN && reply.seq > 0 && (error || strcmp(reply.type, "ack") == 0)) {
        /* The sidecar sends an error only after the sync that covers everything up to this message. */
        settle(sdk, stream, reply.seq - error, 0);
        settle(sdk, stream, reply.seq, error);
    }
}

static void receive(monitoring_sdk *sdk, struct stream *stream) {
    while (stream->fd >= 0) {
        char *at = stream->in + stream->in_length;
        size_t room = IN - stream->in_length;
        /* A handshake computes for long. Later on nobody may see what is settled before the sender has removed the file that it was. */
        int greeting = stream->phase == GREETING;
        if (greeting)
            mon_unlock(sdk);
        ssize_t got = TLS(sdk->tls, monitoring_tls_receive(stream->session, at, room), recv(stream->fd, at, room, 0));
        int later = got < 0 && (errno == EAGAIN || errno == EINTR);
        if (greeting)
            mon_lock(sdk);
        if (got <= 0) {
            if (!later)
                lose(sdk, stream);
            return;
        }
        char *line = stream->in, *newline, *end = at + got;
        stream->heard = millis();
        for (; (newline = memchr(line, '\n', (size_t)(end - line))); line = newline + 1, stream->skipping = 0) {
            *newline = '\0';
            if (!stream->skipping)
                obey(sdk, stream, line);
            if (stream->fd < 0)
                return;
        }
        stream->in_length = (size_t)(end - line);
        memmove(stream->in, line, stream->in_length);
        if (stream->in_length == IN) {
            stream->skipping = 1;
            stream->in_length = 0;
        }
    }
}

/* ---- the sender thread ---- */

/* When this stream has to be looked at again though nothing happens; INT64_MAX: never. */
static long long due(const monitoring_sdk *sdk, const struct stream *stream) {
    if (!stream->active || (stream != &sdk->main && stream->phase == RESTING && sdk->main.phase != OPEN))
        return INT64_MAX;
    return stream->phase != OPEN ? stream->due : stream->first < stream->given ? stream->heard + QUIET : INT64_MAX;
}

/* After these events, do what can be done for the stream without waiting. */
static void tend(monitoring_sdk *sdk, struct stream *stream, int events) {
    int error = 0;
    socklen_t size = sizeof error;
    if (events && stream->phase == DIALING && (getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &size) || error))
        lose(sdk, stream);
    else if (events && stream->phase == DIALING)
        greet(sdk, stream);
    else if (events)
        receive(sdk, stream);
    if (millis() >= due(sdk, stream))
        (stream->phase == RESTING ? dial : lose)(sdk, stream);
    if (stream->active && stream->phase >= GREETING)
        transmit(sdk, stream);
}

static struct pollfd slot(const struct stream *stream) {
    int more = is_unsent(stream) ? POLLOUT : 0;
    short events = TLS(stream->session, monitoring_tls_events(stream->session), (short)(POLLIN | more));
    return (struct pollfd){ stream->fd, stream->phase == DIALING ? POLLOUT : events, 0 };
}

static void report_drops(monitoring_sdk *sdk) {
    char text[64];
    unsigned long long count = sdk->unreported;
    if (!count || sdk->main.phase != OPEN || sdk->closed || mon_is_full(sdk))
        return;
    sdk->unreported = 0;
    mon_unlock(sdk);
    snprintf(text, sizeof text, "%llu messages dropped", count);
    monitoring_log_event(sdk, "warning", text, MON_STR("kind", "dropped"), MON_INT("count", count), MON_END);
    mon_lock(sdk);
}

static void *send_all(void *argument) {
    monitoring_sdk *sdk = argument;
    long long busy = 0, seen = 0;
    char drain[64];
    struct pollfd slots[3] = { { -1, 0, 0 }, { -1, 0, 0 }, { sdk->wake[0], POLLIN, 0 } };
    for (mon_lock(sdk); !sdk->stopping; mon_lock(sdk)) {
        if (slots[2].revents)
            (void)!read(sdk->wake[0], drain, sizeof drain);
        mind_stats(sdk, millis());
        tend(sdk, &sdk->main, slots[0].revents);
        tend(sdk, &sdk->spill, slots[1].revents);
        if (sdk->spill.active && sdk->spill.first > sdk->files[0].lines) { /* the sidecar has the whole file */
            move_spill(sdk, sdk->spill.client, ".taken", NULL);
            mon_end_spill_stream(sdk);
            mon_forget_oldest_file(sdk);
        }
        while (take_spill(sdk))
            continue;
        report_drops(sdk);
        if (sdk->stopping)
            break;
        slots[0] = slot(&sdk->main);
        slots[1] = slot(&sdk->spill);
        long long now = millis(), main_due = due(sdk, &sdk->main), spill_due = due(sdk, &sdk->spill);
        long long next = main_due < spill_due ? main_due : spill_due, stats_due = mind_stats(sdk, now);
        if (sdk->main.phase == OPEN && sdk->main.offered && stats_due < next)
            next = stats_due;
        /* While messages keep coming, looking every millisecond is cheaper for the callers than being woken by each of them. */
        if (sdk->main.given != seen) {
            busy = now + LINGER;
            seen = sdk->main.given;
        }
        if (now < busy && next > now + 1)
            next = now + 1;
        int idle = sdk->main.phase == OPEN && !(slots[0].events & POLLOUT);
        if (idle && sdk->main.waiting && sdk->main.window_bytes < MAX_WINDOW - MAX_LINE - SUFFIX)
            next = now; /* a moment ago */
        sdk->asleep = idle && now >= busy && !sdk->main.waiting;
        mon_unlock(sdk);
        poll(slots, 3, next == INT64_MAX ? -1 : next <= now ? 0 : next - now < 60000 ? (int)(next - now) : 60000);
    }
    sdk->gone = 1;
    pthread_cond_broadcast(&sdk->news);
    mon_unlock(sdk);
    return NULL;
}

/* Without a thread, for want of resources, calls go on into buffer and spill, and the next one tries again. */
void mon_start_sender(monitoring_sdk *sdk) {
    sigset_t all, before;
    if (pipe2(sdk->wake, O_CLOEXEC | O_NONBLOCK) != 0)
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
    sdk->running = pthread_create(&sdk->sender, NULL, send_all, sdk) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!sdk->running) {
        close(sdk->wake[0]);
        close(sdk->wake[1]);
    }
}

/* ---- the end ---- */

/*
 * Write the window, with its seqs, to a spill file of the main client, and behind it what waits; when that file is full, what has no seq
 * yet goes to files of their own. The seq up to which, exclusively, all is in the file.
 */
static long long write_rest(monitoring_sdk *sdk) {
    struct stream *stream = &sdk->main;
    long long end = stream->given + stream->waiting, kept = stream->first;
    int last_word = owes_stats(sdk) && (!stream->welcomed || stream->offered);
    struct spill_file file = { -1, "", 0, 0 };
    memcpy(file.client, stream->client, sizeof file.client);
    size_t at = stream->tail;
    const char *body;
    file.fd = kept < end || last_word ? create_spill(sdk, stream->client) : -1;
    for (long long seq = kept; seq < end; seq++) {
        size_t length = record(stream, &at, &body), size = length + SUFFIX;
        memcpy(stream->out, body, length);
        int room = file.fd >= 0 && file.bytes + size <= SPILL_FILE && sdk->spill_bytes + size <= SPILL_TOTAL;
        if (kept == seq && room && write_line(sdk, &file, stream->out, length, seq))
            kept++;
        else if (is_stats(body))
            sdk->stats_lines -= seq >= stream->given; /* it told of what has other seqs now */
        else if (seq >= stream->given && !mon_spill(sdk, stream->out, length))
            sdk->stats.dropped++;
    }
    if (last_word && file.fd >= 0 && kept >= stream->given) {
        size_t length = encode_stats(sdk, (struct text){ stream->out, MAX_BODY }, kept - 1, 1);
        int written = write_line(sdk, &file, stream->out, length, kept);
        kept += written;
        sdk->stats_lines += written;
        sdk->finished = written;
    }
    if (file.fd >= 0)
        close(file.fd);
    stream->given = kept > stream->given ? kept : stream->given;
    stream->waiting = 0;
    stream->waiting_bytes = 0;
    return kept;
}

/* Drop what nobody has acknowledged and no file could take: from this seq on. */
static void lose_window(monitoring_sdk *sdk, long long kept) {
    struct stream *stream = &sdk->main;
    size_t at = stream->tail;
    const char *body;
    for (long long seq = stream->first; seq < stream->given && kept < stream->given; seq++) {
        record(stream, &at, &body);
        if (seq >= kept && is_stats(body))
            sdk->stats_lines--;
        else if (seq >= kept)
            sdk->stats.dropped++;
    }
    if (stream->given > kept)
        stream->given = kept > stream->first ? kept : stream->first;
}

/* After the sender's end: leave to the sidecar what is not acknowledged, and hang up. */
void mon_leave(monitoring_sdk *sdk, long long deadline) {
    struct stream *stream = &sdk->main;
    long long kept = write_rest(sdk);
    stream->out_length = stream->out_at;
    stream->frame_length = 0;
    /* TLS has no half-closed connections: the sidecar acknowledges until it hears goodbye, and what it has by then is ours to wait for. */
    if (stream->phase == OPEN && !sdk->tls)
        shutdown(stream->fd, SHUT_WR);
    for (long long now;
         stream->phase == OPEN && (!sdk->tls || stream->first <= stream->sent) && (now = millis()) < deadline;) {
        struct pollfd in = slot(stream);
        mon_unlock(sdk);
        int ready = poll(&in, 1, (int)(deadline - now));
        mon_lock(sdk);
        if (ready > 0)
            receive(sdk, stream);
    }
    TLS(stream->session, monitoring_tls_finish(stream->session), (void)0);
    if (stream->first == stream->given)
        move_spill(sdk, stream->client, "", NULL);
    lose_window(sdk, kept);
    sdk->stats.handed_over += (unsigned long long)mon_waiting(sdk);
    sdk->in_spill = 0;
    if (sdk->spill.active)
        move_spill(sdk, sdk->spill.client, ".taken", "");
    for (mon_end_spill_stream(sdk); sdk->file_count;)
        mon_forget_oldest_file(sdk);
    lose(sdk, stream);
    stream->first = stream->given;
    sdk->stats_lines = 0;
    mon_drop_ring(stream);
}
