/*
 * load - sends lines of JSON over TCP and knows nothing but the wire protocol: hello, seq, acks.
 *
 *   load --port N [--messages N] [--connections N] [--size BYTES] [--write N] [--rate N] [--services N] [--traces N]
 *        [--mixed 1] [--plain 1] [--seed N] [--script FILE]
 *
 * All lines are made before the clock starts. When every connection has its welcome it prints `ready`, waits for a line on
 * its standard input, sends, waits until everything is acknowledged, and prints one line of JSON: `began` (CLOCK_MONOTONIC)
 * and `seconds`, and for --rate the time from when a packet was due until the ack of its last message (p50, p99, most; ms).
 *
 *   --write N    messages in one write; 0: as many as the socket takes
 *   --rate N     messages per second over all connections, a packet every 0.5 ms, each in turn; 0: as fast as they are taken
 *   --services, --traces   names that the messages take in turn: message number M of all takes M modulo N
 *   --mixed 1    events, metrics, progress and ends of spans instead of events alone
 *   --script F   the lines to send, instead of those of a size: without client, seq and the closing brace, which are added. Each connection
 *                sends them from the first on, again and again; the byte 1 stands for the connection's number, modulo 10
 *   --plain 1    no hello and no acks: it ends once all is sent
 *
 * An error reply of the server, or the end of a connection, ends it with status 1: nothing is counted that was refused.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WINDOW = 4 << 20, CHUNK = 1 << 18 }; /* bytes that a connection sends ahead of its acks, as an SDK does; bytes per write */
static const double TICK = 0.0005; /* s; short, since loopback holds back what is more than a segment of 64 KiB until a delayed ACK */

static struct {
    long port, messages, connections, size, write, rate, services, traces, mixed, plain, seed;
} options = { .messages = 100000, .connections = 8, .size = 240, .services = 1, .traces = 1 };

static char *script; /* as it was read */
static size_t *script_at, script_lines;

static const struct { const char *name; long *value; } NAMES[] = {
    { "--port", &options.port },         { "--messages", &options.messages }, { "--connections", &options.connections },
    { "--size", &options.size },         { "--write", &options.write },       { "--rate", &options.rate },
    { "--services", &options.services }, { "--traces", &options.traces },     { "--mixed", &options.mixed },
    { "--plain", &options.plain },       { "--seed", &options.seed },
};

struct connection {
    int fd;
    unsigned long long client;
    char *lines;
    size_t *ends; /* of a script: where each message ends, after the one before */
    long messages, released, acked; /* in messages */
    size_t sent;                    /* in bytes */
    long packet;                    /* the first of its packets that is not acknowledged */
    char replies[4096];
    size_t held;
};

struct packet { /* what was due at one time, on one connection: they take turns, packet P is for connection P modulo their number */
    double due;
    long last; /* the seq of its last message; 0: it is empty */
};

static struct packet *packets;
static long made; /* packets so far */
static double *times;
static long timed;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Where the message of this index begins. */
static size_t begins_at(const struct connection *one, long message) {
    return one->ends ? one->ends[message] : (size_t)(message * options.size);
}

static void read_script(const char *path) {
    FILE *file = fopen(path, "rb");
    long size;
    if (!file || fseek(file, 0, SEEK_END) || (size = ftell(file)) < 2 || fseek(file, 0, SEEK_SET)) fail("reading %s: %s", path, strerror(errno));
    script = malloc((size_t)size + 1);
    script_at = malloc(((size_t)size / 2 + 2) * sizeof *script_at);
    if (!script || !script_at || fread(script, 1, (size_t)size, file) != (size_t)size) fail("reading %s", path);
    fclose(file);
    script[size] = 0;
    for (char *line = script, *end; (end = strchr(line, '\n')); line = end + 1) script_at[script_lines++] = (size_t)(line - script);
    script_at[script_lines] = (size_t)size;
    if (!script_lines) fail("%s holds no line", path);
}

static void read_options(int count, char **words) {
    for (int i = 1; i < count; i += 2) {
        size_t which = 0, known = sizeof NAMES / sizeof *NAMES;
        if (!strcmp(words[i], "--script") && i + 1 < count) {
            if (*words[i + 1]) read_script(words[i + 1]);
            continue;
        }
        while (which < known && strcmp(words[i], NAMES[which].name)) which++;
        if (which == known || i + 1 == count) fail("what is %s? see the head of load.c", words[i]);
        *NAMES[which].value = atol(words[i + 1]);
    }
    if (!options.port || options.connections < 1 || options.messages < options.connections) fail("a port, and a message per connection, are needed");
}

/* Message `number` of all, as an SDK sends it, exactly options.size bytes with its newline. */
static void make_line(char *line, long number, long seq, unsigned long long client, long long time) {
    enum { SHORT = 200 }; /* below that there is room for the least that is a message */
    char head[256], tail[128];
    long service = number % options.services, trace = number % options.traces;
    const char *close = "\"}";
    char fill = 'x';
    if (options.size < SHORT) {
        snprintf(head, sizeof head, "{\"type\":\"metric\",\"service\":\"s%ld\",\"value\":1,\"name\":\"", service);
        close = "\"";
    } else {
        const char *kind[] = { "event", "metric", "progress", "span_end" };
        int at = snprintf(head, sizeof head, "{\"type\":\"%s\",\"ts\":%lld,\"service\":\"feeder-%ld\",\"host\":\"fab1\",\"pid\":4711,\"trace_id\":\"job-%ld\",",
                          kind[options.mixed ? seq % 4 : 0], time + seq, service, trace);
        char *rest = head + at;
        size_t room = sizeof head - (size_t)at;
        switch (options.mixed ? seq % 4 : 0) {
        case 0:
            snprintf(rest, room, "\"level\":\"info\",\"message\":\"file received\",\"context\":{\"rows\":%ld,\"ok\":true,\"file\":\"", seq);
            break;
        case 1:
            snprintf(rest, room, "\"name\":\"yield\",\"value\":%ld.5,\"unit\":\"%%\",\"tags\":{\"lot\":\"", seq % 100);
            break;
        case 2:
            snprintf(rest, room, "\"job_id\":\"job-%ld\",\"percent\":%ld,\"status\":\"running\"", trace, seq % 100);
            close = "", fill = ' '; /* no field of it takes any length, and an unknown one is another question */
            break;
        case 3:
            snprintf(rest, room, "\"span_id\":\"%016llx\",\"status\":\"ok\",\"start\":%lld,\"duration\":140600,\"name\":\"",
                     client ^ (unsigned long long)seq, time);
            close = "\"";
            break;
        }
    }
    size_t ends = (size_t)snprintf(tail, sizeof tail, "%s,\"client\":\"%016llx\",\"seq\":%ld}\n", close, client, seq);
    size_t begins = strlen(head);
    if (begins + ends >= (size_t)options.size) fail("a line of this kind takes more than %ld bytes: %zu", options.size, begins + ends + 1);
    memcpy(line, head, begins);
    memset(line + begins, fill, (size_t)options.size - begins - ends);
    memcpy(line + options.size - ends, tail, ends);
}

/* All lines of a connection, from the script. */
static void make_script(struct connection *one, long number) {
    enum { TAIL = 64 };
    size_t at = 0, room = 0;
    for (long i = 0; i < one->messages; i++) {
        size_t from = (size_t)i % script_lines;
        room += script_at[from + 1] - script_at[from] + TAIL;
    }
    one->lines = malloc(room + 1);
    one->ends = malloc(((size_t)one->messages + 1) * sizeof *one->ends);
    if (!one->lines || !one->ends) fail("no memory for %ld lines", one->messages);
    for (long i = 0; i < one->messages; i++) {
        size_t from = (size_t)i % script_lines;
        one->ends[i] = at;
        for (const char *from_byte = script + script_at[from]; *from_byte != '\n'; from_byte++)
            one->lines[at++] = *from_byte == 1 ? (char)('0' + number % 10) : *from_byte;
        at += (size_t)snprintf(one->lines + at, TAIL, ",\"client\":\"%016llx\",\"seq\":%ld}\n", one->client, i + 1);
    }
    one->ends[one->messages] = at;
}

static void open_connection(struct connection *one, long number) {
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((unsigned short)options.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int on = 1;
    struct timeval patience = { .tv_sec = 60 };
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (one->fd < 0 || connect(one->fd, (struct sockaddr *)&address, sizeof address)) fail("connecting: %s", strerror(errno));
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(one->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    one->client = (unsigned long long)options.seed * 1000003 + (unsigned long long)number;
    if (!options.seed && getrandom(&one->client, sizeof one->client, 0) != sizeof one->client) fail("no random bytes");
    one->messages = options.messages / options.connections + (number < options.messages % options.connections);
    if (script) {
        make_script(one, number);
        return;
    }
    one->lines = malloc((size_t)(one->messages * options.size));
    if (!one->lines) fail("no memory for %ld lines", one->messages);
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    for (long i = 0; i < one->messages; i++)
        make_line(one->lines + i * options.size, i * options.connections + number, i + 1, one->client, time.tv_sec * 1000000LL);
}

static void greet(struct connection *one) {
    char hello[256];
    int length = snprintf(hello, sizeof hello, "{\"v\":2,\"type\":\"hello\",\"client\":\"%016llx\",\"service\":\"load\",\"ack\":true}\n", one->client);
    if (write(one->fd, hello, (size_t)length) != length) fail("hello: %s", strerror(errno));
    for (size_t held = 0; !memchr(hello, '\n', held);) {
        ssize_t got = read(one->fd, hello + held, sizeof hello - 1 - held);
        if (got <= 0) fail("no welcome came");
        held += (size_t)got;
        hello[held] = 0;
        if (memchr(hello, '\n', held) && !strstr(hello, "\"welcome\"")) fail("no welcome: %s", hello);
    }
}

static int wants_to_send(const struct connection *one) {
    size_t released = begins_at(one, one->released);
    return one->sent < released && (options.plain || one->sent - begins_at(one, one->acked) < WINDOW);
}

static void send_some(struct connection *one) {
    size_t most = (size_t)(options.write * options.size), rest = begins_at(one, one->released) - one->sent;
    if (most == 0 || most > CHUNK) most = CHUNK;
    if (options.write) most -= one->sent % most; /* finish what a write began */
    ssize_t sent = send(one->fd, one->lines + one->sent, rest < most ? rest : most, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN) fail("sending: %s", strerror(errno));
    if (sent > 0) one->sent += (size_t)sent;
}

static void read_replies(struct connection *one) {
    ssize_t got = recv(one->fd, one->replies + one->held, sizeof one->replies - 1 - one->held, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) fail("the server ended a connection: %s", got ? strerror(errno) : "closed");
    one->held += (size_t)got;
    one->replies[one->held] = 0;
    char *line = one->replies, *end;
    for (; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        char *seq = strstr(line, "\"seq\":");
        if (!strstr(line, "\"ack\"") || !seq) fail("the server says %s", line);
        long acked = atol(seq + 6);
        if (acked > one->acked) one->acked = acked;
    }
    one->held -= (size_t)(line - one->replies);
    memmove(one->replies, line, one->held);
    double time = now();
    for (; one->packet < made && packets[one->packet].last <= one->acked; one->packet += options.connections)
        if (packets[one->packet].last) times[timed++] = (time - packets[one->packet].due) * 1000;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

int main(int count, char **words) {
    struct rlimit files;
    read_options(count, words);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    long connections = options.connections;
    struct connection *all = calloc((size_t)connections, sizeof *all);
    struct pollfd *polled = calloc((size_t)connections, sizeof *polled);
    /* There are more ticks than full packets need, where connections have sent all that is theirs. */
    size_t ticks = options.rate ? (size_t)((double)options.messages / (double)options.rate / TICK + 2) + 2 * (size_t)connections : 1;
    packets = calloc(ticks, sizeof *packets);
    times = calloc(ticks, sizeof *times);
    if (!all || !polled || !packets || !times) fail("no memory");
    for (long i = 0; i < connections; i++) open_connection(&all[i], i), all[i].packet = i;
    for (long i = 0; i < connections && !options.plain; i++) greet(&all[i]);
    puts("ready");
    fflush(stdout);
    if (getchar() == EOF) return 1;

    double began = now();
    long released = 0;
    if (!options.rate)
        for (long i = 0; i < connections; i++) all[i].released = all[i].messages;
    for (;;) {
        double time = now();
        while (options.rate && released < options.messages && began + (double)made * TICK <= time) {
            /* All that is due by the next tick goes to one connection; what is not left there, to the next one. */
            struct connection *one = &all[made % connections];
            long due = (long)((double)(made + 1) * TICK * (double)options.rate) - released;
            if (due > options.messages - released) due = options.messages - released;
            if (due > one->messages - one->released) due = one->messages - one->released;
            if ((size_t)made == ticks) fail("more packets than were expected");
            packets[made] = (struct packet){ began + (double)made * TICK, due ? one->released + due : 0 };
            one->released += due;
            released += due;
            made++;
        }
        long settled = 0;
        for (long i = 0; i < connections; i++) {
            struct connection *one = &all[i];
            short ask = options.plain ? 0 : POLLIN;
            polled[i] = (struct pollfd){ .fd = one->fd, .events = (short)(ask | (wants_to_send(one) ? POLLOUT : 0)) };
            settled += options.plain ? one->sent == begins_at(one, one->messages) : one->acked >= one->messages;
        }
        if (settled == connections) break;
        struct timespec patience = { .tv_sec = 120 };
        if (options.rate && released < options.messages) {
            double wait = began + (double)made * TICK - now();
            patience = (struct timespec){ .tv_nsec = wait > 0 ? (long)(wait * 1e9) : 0 };
        }
        int ready = ppoll(polled, (nfds_t)connections, &patience, NULL);
        if (ready < 0) fail("poll: %s", strerror(errno));
        if (ready == 0 && patience.tv_sec) fail("nothing happened for two minutes");
        for (long i = 0; i < connections; i++) {
            if (polled[i].revents & (POLLIN | POLLERR | POLLHUP)) read_replies(&all[i]);
            if (polled[i].revents & POLLOUT) send_some(&all[i]);
        }
    }
    double seconds = now() - began;
    qsort(times, (size_t)timed, sizeof *times, ascending);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"began\":%.6f,\"seconds\":%.6f", began, seconds);
    if (timed)
        printf(",\"p50\":%.3f,\"p99\":%.3f,\"most\":%.3f", times[(size_t)((double)(timed - 1) * 0.5)], times[(size_t)((double)(timed - 1) * 0.99)], times[timed - 1]);
    puts("}");
    for (long i = 0; i < connections; i++) {
        shutdown(all[i].fd, SHUT_WR); /* and read to the end: closed with an unread ack, the kernel would reset it */
        while (!options.plain && read(all[i].fd, all[i].replies, sizeof all[i].replies) > 0) continue;
        close(all[i].fd);
    }
    return 0;
}
