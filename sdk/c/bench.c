/*
 * bench - what a call costs, beside fprintf + fflush of the same record to a file, in the same run.
 *
 * Each call is timed alone; what the clock itself costs is measured and taken off both sides. `up` logs in groups that fit into the
 * buffer, with a flush in between, as a program does that is not all logging; the others are one loop without a pause, so that buffer
 * and spill files fill. The sidecar is a process of its own, on the Unix socket in the benchmark's folder.
 */
#define _GNU_SOURCE
#include "monitoring_sdk.h"
#include "tests/sidecar.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CALLS = 100000, GROUP = 400 };

static double times[CALLS];

static double nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int ascending(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double percentile(double share) { return times[(size_t)((CALLS - 1) * share)] / 1000; }

static double measure_clock(void) {
    for (size_t i = 0; i < CALLS; i++) {
        double start = nanoseconds();
        times[i] = nanoseconds() - start;
    }
    qsort(times, CALLS, sizeof *times, ascending);
    printf("%-24s %.3f us, taken off\n", "the clock", percentile(0.5));
    return times[CALLS / 2];
}

static void report(const char *name, double clock) {
    for (size_t i = 0; i < CALLS; i++) times[i] = times[i] > clock ? times[i] - clock : 0;
    qsort(times, CALLS, sizeof *times, ascending);
    printf("%-24s p50 %7.3f us   p99 %7.3f us   p99.9 %8.3f us   max %9.3f us\n", name, percentile(0.5), percentile(0.99), percentile(0.999), percentile(1));
}

/* The record that the SDK would send, straight into a file. */
static void time_file(const char *path, double clock) {
    char host[256] = "";
    FILE *file = fopen(path, "w");
    if (!file) perror("bench"), exit(1);
    gethostname(host, sizeof host - 1);
    for (long i = 0; i < CALLS; i++) {
        double start = nanoseconds();
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        fprintf(file, "{\"type\":\"event\",\"ts\":%lld,\"service\":\"%s\",\"host\":\"%s\",\"pid\":%d,\"level\":\"%s\",\"message\":\"%s\",\"context\":"
                "{\"file\":\"%s\",\"rows\":%ld,\"share\":%g,\"ok\":%s}}\n",
                now.tv_sec * 1000000LL + now.tv_nsec / 1000, "bench", host, (int)getpid(), "info", "file received", "lot-4711.dat", i, 0.25, "true");
        fflush(file);
        times[i] = nanoseconds() - start;
    }
    fclose(file);
    report("fprintf + fflush", clock);
}

static void time_calls(const char *name, const char *url, const char *dir, int group, double clock) {
    monitoring_options options = { .service = "bench", .url = url, .spill_dir = dir };
    monitoring_stats stats;
    monitoring_sdk *sdk;
    int error = monitoring_open(&sdk, &options);
    if (error) fprintf(stderr, "bench: %s\n", monitoring_strerror(error)), exit(1);
    for (int warm = 0; warm < 2; warm++) {
        for (long i = 0; i < (warm ? CALLS : 200); i++) {
            double start = nanoseconds();
            monitoring_log_event(sdk, "info", "file received", MON_STR("file", "lot-4711.dat"), MON_INT("rows", i), MON_NUM("share", 0.25),
                                 MON_BOOL("ok", 1), MON_END);
            times[i] = nanoseconds() - start;
            if (group && i % group == group - 1) monitoring_flush(sdk, 2000);
        }
    }
    report(name, clock);
    monitoring_get_stats(sdk, &stats);
    printf("%-24s %s: called %llu, acked %llu, spilled %llu, dropped %llu\n", "", stats.state, stats.called, stats.acked, stats.spilled, stats.dropped);
    monitoring_close(sdk, 0);
    monitoring_free(sdk);
}

int main(void) {
    char dir[] = "/tmp/wafermon-bench-XXXXXX", path[64], url[80], command[64];
    if (!mkdtemp(dir)) return perror("bench"), 1;
    double clock = measure_clock();
    snprintf(path, sizeof path, "%s/log", dir);
    time_file(path, clock);
    double before = percentile(0.5), before99 = percentile(0.99);

    snprintf(path, sizeof path, "%s/sidecar", dir);
    snprintf(url, sizeof url, "unix://%s", path);
    time_calls("log_event, down", url, dir, 0, clock);
    for (enum mood mood = ANSWERING; mood <= HUNG; mood++) {
        if (mood == SILENT) continue;
        unlink(path);
        fflush(stdout);
        pid_t process = fork();
        if (process == 0) {
            sidecar_start(path, mood);
            for (;;) pause();
        }
        while (access(path, F_OK) != 0) usleep(1000);
        if (mood == ANSWERING) {
            time_calls("log_event, up", url, dir, GROUP, clock);
            printf("%-24s p50 %.3f, p99 %.3f of fprintf + fflush\n", "", percentile(0.5) / before, percentile(0.99) / before99);
        }
        time_calls(mood == HUNG ? "log_event, hung" : "log_event, up, no pause", url, dir, 0, clock);
        kill(process, SIGKILL);
        waitpid(process, NULL, 0);
    }
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) != 0;
}
