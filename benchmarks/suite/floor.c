/*
 * floor PORT FILE - the least that a server can do with lines from TCP: read, append whole lines to a file, wait again.
 *
 * It parses nothing, acknowledges nothing and syncs nothing. What is below this is the kernel's.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 1024, BUFFER = 1 << 16 };

static struct pollfd polled[MOST];
static char *buffer[MOST]; /* what came after the last newline waits at the front for the rest of its line */
static size_t held[MOST];

static void check(int good, const char *what) {
    if (!good) perror(what), exit(1);
}

int main(int count, char **words) {
    if (count != 3) return fprintf(stderr, "floor PORT FILE\n"), 2;
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(words[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int file = open(words[2], O_WRONLY | O_CREAT | O_APPEND, 0644), listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    check(file >= 0, words[2]);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    check(bind(listener, (struct sockaddr *)&address, sizeof address) == 0, "bind");
    check(listen(listener, MOST) == 0, "listen");
    int open_now = 1;
    polled[0] = (struct pollfd){ .fd = listener, .events = POLLIN };
    for (;;) {
        check(poll(polled, (nfds_t)open_now, -1) >= 0, "poll");
        for (int i = open_now - 1; i > 0; i--) {
            if (!polled[i].revents) continue;
            ssize_t got = read(polled[i].fd, buffer[i] + held[i], BUFFER - held[i]);
            if (got > 0) {
                size_t length = held[i] + (size_t)got;
                char *end = memrchr(buffer[i], '\n', length);
                size_t whole = end ? (size_t)(end + 1 - buffer[i]) : 0;
                check(write(file, buffer[i], whole) == (ssize_t)whole, "write");
                held[i] = length - whole;
                memmove(buffer[i], buffer[i] + whole, held[i]);
                if (held[i] < BUFFER) continue;
                fputs("floor: a line is longer than its buffer\n", stderr);
            }
            close(polled[i].fd);
            free(buffer[i]);
            int last = --open_now;
            polled[i] = polled[last], buffer[i] = buffer[last], held[i] = held[last];
        }
        if (polled[0].revents && open_now < MOST) {
            polled[open_now] = (struct pollfd){ .fd = accept(listener, NULL, NULL), .events = POLLIN };
            check(polled[open_now].fd >= 0, "accept");
            check((buffer[open_now] = malloc(BUFFER)) != NULL, "malloc");
            held[open_now++] = 0;
        }
    }
}
