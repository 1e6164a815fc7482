#define _GNU_SOURCE
#include "sidecar.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 32, LINE = 65536, BUFFER = 2 * LINE, PACE = 5 };

struct client {
    struct client *next;
    char id[17];
    long long mark;
};

struct connection {
    int fd;
    struct client *client;
    int owed; /* an acknowledgement */
    size_t length;
    char buffer[BUFFER];
};

struct sidecar {
    pthread_t thread;
    pthread_mutex_t mutex;
    char url[160];
    const char *refused;
    int listener, wake[2], serving, stopping, hanging_up, problems;
    enum mood mood;
    struct client *clients;
    char **lines;
    size_t count, room;
    struct connection connections[CONNECTIONS];
};

static long long millis(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void *need(void *memory) {
    if (!memory) abort();
    return memory;
}

static void say(const struct connection *connection, const char *what, long long seq, const char *rest) {
    char line[200];
    int length = snprintf(line, sizeof line, "{\"type\":\"%s\":%lld%s}\n", what, seq, rest);
    if (send(connection->fd, line, (size_t)length, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET) perror("sidecar: send");
}

static struct client *client_of(struct sidecar *sidecar, const char *id) {
    struct client *client = sidecar->clients;
    while (client && memcmp(client->id, id, 16) != 0) client = client->next;
    if (client) return client;
    client = need(calloc(1, sizeof *client));
    memcpy(client->id, id, 16);
    client->next = sidecar->clients;
    return sidecar->clients = client;
}

static void keep(struct sidecar *sidecar, const char *line) {
    if (sidecar->count == sidecar->room) {
        sidecar->room = sidecar->room ? 2 * sidecar->room : 1024;
        sidecar->lines = need(realloc(sidecar->lines, sidecar->room * sizeof *sidecar->lines));
    }
    sidecar->lines[sidecar->count++] = need(strdup(line));
}

static void take(struct sidecar *sidecar, struct connection *connection, char *line, size_t length) {
    char *client = strstr(line, "\"client\":\""), *end = line, *next;
    if (!connection->client) {
        if (client && strncmp(line, "{\"v\":2,\"type\":\"hello\",", 22) == 0) {
            connection->client = client_of(sidecar, client + 10);
            say(connection, "welcome\",\"sidecar\":\"tests\",\"max_line\":65536,\"acked", connection->client->mark, "");
        } else {
            sidecar->problems++;
        }
        return;
    }
    while ((next = strstr(end + 1, ",\"client\":\""))) end = next;
    char id[17] = "";
    long long seq = 0;
    int read = 0;
    if (sscanf(end, ",\"client\":\"%16[0-9a-f]\",\"seq\":%lld}%n", id, &seq, &read) != 2 || !read || end[read] || length > LINE
        || strcmp(id, connection->client->id) != 0 || seq > connection->client->mark + 1) {
        sidecar->problems++;
        fprintf(stderr, "sidecar: a bad line: %.300s\n", line);
        return;
    }
    if (seq <= connection->client->mark) return;
    connection->client->mark = seq;
    if (sidecar->refused && strstr(line, sidecar->refused)) {
        say(connection, "error\",\"code\":\"bad_message\",\"detail\":\"as told\",\"seq", seq, "");
    } else {
        keep(sidecar, line);
    }
}

static void drop(struct connection *connection) {
    close(connection->fd);
    connection->fd = -1;
}

static void hear(struct sidecar *sidecar, struct connection *connection) {
    ssize_t got = recv(connection->fd, connection->buffer + connection->length, BUFFER - 1 - connection->length, MSG_DONTWAIT);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) drop(connection);
        return;
    }
    connection->length += (size_t)got;
    char *line = connection->buffer, *end = connection->buffer + connection->length, *newline;
    for (; (newline = memchr(line, '\n', (size_t)(end - line))); line = newline + 1) {
        *newline = '\0';
        take(sidecar, connection, line, (size_t)(newline - line));
        connection->owed = 1;
    }
    connection->length = (size_t)(end - line);
    memmove(connection->buffer, line, connection->length);
    if (connection->length > LINE) sidecar->problems++, drop(connection);
}

static void greet(struct sidecar *sidecar) {
    int fd = accept(sidecar->listener, NULL, NULL);
    for (size_t i = 0; fd >= 0 && i < CONNECTIONS; i++) {
        struct connection *connection = &sidecar->connections[i];
        if (connection->fd >= 0) continue;
        connection->fd = fd, connection->client = NULL, connection->owed = 0, connection->length = 0;
        return;
    }
    if (fd >= 0) close(fd);
}

static void acknowledge(struct sidecar *sidecar) {
    for (size_t i = 0; i < CONNECTIONS; i++) {
        struct connection *connection = &sidecar->connections[i];
        if (connection->fd >= 0 && connection->owed && connection->client && sidecar->mood == ANSWERING)
            say(connection, "ack\",\"seq", connection->client->mark, ""), connection->owed = 0;
    }
}

static void *serve(void *argument) {
    struct sidecar *sidecar = argument;
    struct pollfd slots[CONNECTIONS + 2];
    char drain[64];
    pthread_mutex_lock(&sidecar->mutex);
    sidecar->serving = 1;
    for (long long due = 0; !sidecar->stopping;) {
        int reading = sidecar->mood != HUNG, owed = 0;
        for (size_t i = 0; i < CONNECTIONS; i++) {
            struct connection *connection = &sidecar->connections[i];
            if (sidecar->hanging_up && connection->fd >= 0) drop(connection);
            owed |= connection->fd >= 0 && connection->owed && sidecar->mood == ANSWERING;
            slots[i] = (struct pollfd){ reading ? connection->fd : -1, POLLIN, 0 };
        }
        sidecar->hanging_up = 0;
        slots[CONNECTIONS] = (struct pollfd){ reading ? sidecar->listener : -1, POLLIN, 0 };
        slots[CONNECTIONS + 1] = (struct pollfd){ sidecar->wake[0], POLLIN, 0 };
        pthread_mutex_unlock(&sidecar->mutex);
        poll(slots, CONNECTIONS + 2, owed ? 1 : -1);
        pthread_mutex_lock(&sidecar->mutex);
        for (size_t i = 0; i < CONNECTIONS; i++)
            if (slots[i].revents && sidecar->connections[i].fd >= 0) hear(sidecar, &sidecar->connections[i]);
        if (slots[CONNECTIONS].revents) greet(sidecar);
        if (slots[CONNECTIONS + 1].revents && read(sidecar->wake[0], drain, sizeof drain) < 0) perror("sidecar: read");
        if (millis() >= due) acknowledge(sidecar), due = millis() + PACE;
    }
    pthread_mutex_unlock(&sidecar->mutex);
    return NULL;
}

struct sidecar *sidecar_start(const char *path, enum mood mood) {
    struct sidecar *sidecar = need(calloc(1, sizeof *sidecar));
    struct sockaddr_un local = { .sun_family = AF_UNIX };
    struct sockaddr_in tcp = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t size = sizeof tcp;
    for (size_t i = 0; i < CONNECTIONS; i++) sidecar->connections[i].fd = -1;
    sidecar->mood = mood;
    sidecar->listener = socket(path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (path) snprintf(local.sun_path, sizeof local.sun_path, "%s", path);
    int bound = path ? bind(sidecar->listener, (struct sockaddr *)&local, sizeof local) : bind(sidecar->listener, (struct sockaddr *)&tcp, size);
    if (bound != 0 || listen(sidecar->listener, 64) != 0 || pipe2(sidecar->wake, O_CLOEXEC) != 0) perror("sidecar"), exit(1);
    getsockname(sidecar->listener, (struct sockaddr *)&tcp, &size);
    if (path) snprintf(sidecar->url, sizeof sidecar->url, "unix://%s", path);
    else snprintf(sidecar->url, sizeof sidecar->url, "tcp://127.0.0.1:%d", ntohs(tcp.sin_port));
    pthread_mutex_init(&sidecar->mutex, NULL);
    if (pthread_create(&sidecar->thread, NULL, serve, sidecar) != 0) abort();
    for (int serving = 0; !serving; sched_yield()) {
        pthread_mutex_lock(&sidecar->mutex);
        serving = sidecar->serving;
        pthread_mutex_unlock(&sidecar->mutex);
    }
    return sidecar;
}

const char *sidecar_url(const struct sidecar *sidecar) { return sidecar->url; }

static void release(struct sidecar *sidecar) {
    if (write(sidecar->wake[1], "", 1) < 0) perror("sidecar: write");
    pthread_mutex_unlock(&sidecar->mutex);
}

void sidecar_set_mood(struct sidecar *sidecar, enum mood mood) {
    pthread_mutex_lock(&sidecar->mutex);
    sidecar->mood = mood;
    release(sidecar);
}

void sidecar_refuse(struct sidecar *sidecar, const char *text) {
    pthread_mutex_lock(&sidecar->mutex);
    sidecar->refused = text;
    release(sidecar);
}

void sidecar_hang_up(struct sidecar *sidecar) {
    pthread_mutex_lock(&sidecar->mutex);
    sidecar->hanging_up = 1;
    release(sidecar);
}

size_t sidecar_count(struct sidecar *sidecar) {
    pthread_mutex_lock(&sidecar->mutex);
    size_t count = sidecar->count;
    pthread_mutex_unlock(&sidecar->mutex);
    return count;
}

const char *sidecar_find(struct sidecar *sidecar, const char *text, size_t *from) {
    const char *found = NULL;
    pthread_mutex_lock(&sidecar->mutex);
    for (; *from < sidecar->count && !found; ++*from)
        if (strstr(sidecar->lines[*from], text)) found = sidecar->lines[*from];
    *from -= found != NULL;
    pthread_mutex_unlock(&sidecar->mutex);
    return found;
}

int sidecar_problems(struct sidecar *sidecar) {
    pthread_mutex_lock(&sidecar->mutex);
    int problems = sidecar->problems;
    pthread_mutex_unlock(&sidecar->mutex);
    return problems;
}

void sidecar_stop(struct sidecar *sidecar) {
    pthread_mutex_lock(&sidecar->mutex);
    sidecar->stopping = 1;
    release(sidecar);
    pthread_join(sidecar->thread, NULL);
    for (size_t i = 0; i < CONNECTIONS; i++)
        if (sidecar->connections[i].fd >= 0) drop(&sidecar->connections[i]);
    for (size_t i = 0; i < sidecar->count; i++) free(sidecar->lines[i]);
    for (struct client *client; (client = sidecar->clients); free(client)) sidecar->clients = client->next;
    close(sidecar->listener), close(sidecar->wake[0]), close(sidecar->wake[1]);
    pthread_mutex_destroy(&sidecar->mutex);
    free(sidecar->lines);
    free(sidecar);
}
