/*
 * sidecar - a sidecar for the tests and the benchmark: a thread with real sockets, which keeps what it gets in memory.
 *
 * It welcomes each client with the mark it has for it, drops what it already holds, acknowledges every PACE milliseconds as the daemon
 * does with its journal, and counts whatever a good client never does.
 */
#ifndef SIDECAR_H
#define SIDECAR_H

#include <stddef.h>

enum mood {
    ANSWERING,
    SILENT, /* welcomes and reads, and acknowledges nothing */
    HUNG    /* the kernel accepts, nobody reads */
};

struct sidecar;

/* Listen on a Unix socket at `path`, or where that is NULL on a free port of 127.0.0.1. */
struct sidecar *sidecar_start(const char *path, enum mood mood);
const char *sidecar_url(const struct sidecar *sidecar);
void sidecar_set_mood(struct sidecar *sidecar, enum mood mood);

/* Refuse messages that contain this text, instead of keeping them; a static string. */
void sidecar_refuse(struct sidecar *sidecar, const char *text);

/* Close every connection, as a restart would. */
void sidecar_hang_up(struct sidecar *sidecar);

/* The messages kept so far, and the first one from `*from` on that contains `text`, whose place goes into `*from`, or NULL. */
size_t sidecar_count(struct sidecar *sidecar);
const char *sidecar_find(struct sidecar *sidecar, const char *text, size_t *from);

/* Lines that no good client sends: without seq, out of order, too long, before a hello. */
int sidecar_problems(struct sidecar *sidecar);
void sidecar_stop(struct sidecar *sidecar);

#endif
