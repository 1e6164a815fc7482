/*
 * slow - makes the syncs of a process that it is loaded into (LD_PRELOAD) take as long as those of a disk that turns.
 *
 * Each takes 7 ms more than it does.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static int late(const char *name, int fd) {
    const struct timespec more = { 0, 7000000 };
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = real(fd);
    nanosleep(&more, NULL);
    return result;
}

int fsync(int fd) {
    return late("fsync", fd);
}

int fdatasync(int fd) {
    return late("fdatasync", fd);
}
