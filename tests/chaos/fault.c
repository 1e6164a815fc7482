/*
 * fault - breaks one system call of a process that it is loaded into (LD_PRELOAD), and moves its clock.
 *
 * A file named by WAFERMON_FAULTS holds a `struct control`, shared with the test that writes it (injected.py): so a fault can be armed
 * at any moment of a running process, and the process itself, its Python and its SQLite, knows nothing of it. While nothing is armed,
 * each call goes straight through.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum call { CREATE = 1, WRITE, SYNC, CUT, RENAME, REMOVE, SEND };
enum action { PASS, KILL_BEFORE, KILL_MIDST, KILL_AFTER, FAIL_ONCE, FAIL };

struct control {
    int64_t clock;              /* seconds that the wall clock is wrong by */
    volatile int32_t call;      /* what is armed; 0: nothing */
    int32_t action, error;      /* an enum action; the errno where it fails */
    volatile int32_t left;      /* it happens when this many matching calls have come */
    volatile int32_t happened;  /* how often it has */
    char match[100];            /* a part of the file's path; of the bytes where it sends */
};

enum { FILES = 4096 };
static struct control *control;
static off_t synced[FILES]; /* by descriptor: the length that the last sync covered */

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("WAFERMON_FAULTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared != MAP_FAILED) control = shared;
    close(fd);
}

/* What becomes of this call, whose file is `path`, or that of `fd`. */
static enum action fate(enum call call, const char *path, int fd) {
    if (!control || control->call != (int32_t)call) return PASS;
    char found[512] = "", link[40];
    if (!path) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if (readlink(link, found, sizeof found - 1) < 0) return PASS;
        path = found;
    }
    if (!strstr(path, control->match)) return PASS;
    int32_t left = __sync_sub_and_fetch(&control->left, 1);
    enum action action = (enum action)control->action;
    if (left > 0 || (left < 0 && action != FAIL)) return PASS;
    control->happened++;
    return action;
}

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

static int failed(enum action action) {
    if (action == KILL_BEFORE) die();
    if (action != FAIL && action != FAIL_ONCE) return 0;
    errno = control->error;
    return 1;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define AFTER(result) do { __typeof__(result) got = (result); if (action == KILL_AFTER || action == KILL_MIDST) die(); return got; } while (0)

/* ---- writing: a kill or a full disk in the midst leaves the first half ---- */

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    enum action action = fate(WRITE, NULL, fd);
    if (failed(action)) return -1;
    AFTER(real(fd, data, action == KILL_MIDST ? size / 2 : size));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    enum action action = fate(WRITE, NULL, fd);
    if (failed(action)) { ssize_t half = real(fd, data, size / 2, at); (void)half; errno = control->error; return -1; }
    AFTER(real(fd, data, action == KILL_MIDST ? size / 2 : size, at));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }

/* Every name that the C library has for it ends here. */
static ssize_t write_parts(int fd, const struct iovec *parts, int count, off64_t at, int flags) {
    REAL(pwritev64v2);
    enum action action = fate(WRITE, NULL, fd);
    int few = action == PASS || action == KILL_AFTER ? count : (count + 1) / 2;
    if (failed(action)) { ssize_t half = real(fd, parts, few, at, flags); (void)half; errno = control->error; return -1; }
    AFTER(real(fd, parts, few, at, flags));
}

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t at, int flags) { return write_parts(fd, parts, count, at, flags); }
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) { return write_parts(fd, parts, count, at, flags); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return write_parts(fd, parts, count, at, 0); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return write_parts(fd, parts, count, at, 0); }

/* ---- syncing: where it fails, what it did not cover is gone, as if the kernel had dropped the pages ---- */

static int sync_file(int (*real)(int), int fd) {
    enum action action = fate(SYNC, NULL, fd);
    struct stat found;
    int own = fd >= 0 && fd < FILES;
    if (failed(action)) {
        if (own && ftruncate(fd, synced[fd])) perror("fault: ftruncate");
        errno = control->error;
        return -1;
    }
    int result = real(fd);
    if (!result && own && !fstat(fd, &found)) synced[fd] = found.st_size;
    AFTER(result);
}

int fdatasync(int fd) { REAL(fdatasync); return sync_file(real, fd); }
int fsync(int fd) { REAL(fsync); return sync_file(real, fd); }

/* ---- names and lengths ---- */

int open64(const char *path, int flags, ...) {
    REAL(open64);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    enum action action = flags & O_CREAT ? fate(CREATE, path, -1) : PASS;
    if (failed(action)) return -1;
    int fd = real(path, flags, mode);
    struct stat found;
    if (fd >= 0 && fd < FILES) synced[fd] = fstat(fd, &found) ? 0 : found.st_size;
    AFTER(fd);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open64(path, flags, mode);
}

int ftruncate64(int fd, off64_t length) {
    REAL(ftruncate64);
    enum action action = fate(CUT, NULL, fd);
    if (failed(action)) return -1;
    AFTER(real(fd, length));
}

int rename(const char *from, const char *to) {
    REAL(rename);
    enum action action = fate(RENAME, to, -1);
    if (failed(action)) return -1;
    AFTER(real(from, to));
}

int unlink(const char *path) {
    REAL(unlink);
    enum action action = fate(REMOVE, path, -1);
    if (failed(action)) return -1;
    AFTER(real(path));
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
    REAL(send);
    char text[257] = "";
    if (control && control->call == SEND) memcpy(text, data, size < 256 ? size : 256);
    enum action action = *text ? fate(SEND, text, -1) : PASS;
    if (failed(action)) return -1;
    AFTER(real(fd, data, action == KILL_MIDST ? size / 2 : size, flags));
}

/* ---- the wall clock ---- */

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int result = real(clock, now);
    if (!result && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += control->clock;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    REAL(gettimeofday);
    int result = real(now, zone);
    if (!result && control) now->tv_sec += control->clock;
    return result;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
