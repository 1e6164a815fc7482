/*
 * bench - what a call costs, beside fprintf + fflush of the same record to a file, in the same run.
 *
 *     bench [URL]     the SDK sends to URL (default: the SDK's own); with nobody there the figures are those of an absent sidecar
 *
 * Each call is timed alone; what the clock itself costs is measured and taken off both sides. Calls come in groups that fit into the
 * buffer, with a flush in between, as a program logs that is not all logging; `hot` is one loop without a pause, spill files included.
 */
#define _GNU_SOURCE
#include "monitoring_sdk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

static void report(const char *name, double clock) {
    for (size_t i = 0; i < CALLS; i++) times[i] = times[i] > clock ? times[i] - clock : 0;
    qsort(times, CALLS, sizeof *times, ascending);
    printf("%-24s p50 %7.3f us   p99 %7.3f us   p99.9 %8.3f us   max %9.3f us\n", name, percentile(0.5), percentile(0.99), percentile(0.999), percentile(1));
}

static void call(monitoring_sdk *sdk, long i) {
    monitoring_log_event(sdk, "info", "file received", MON_STR("file", "lot-4711.dat"), MON_INT("rows", i), MON_NUM("share", 0.25), MON_BOOL("ok", 1), MON_END);
}

int main(int argc, char **argv) {
    char dir[] = "/tmp/wafermon-bench-XXXXXX", path[64], command[64];
    if (!mkdtemp(dir)) return perror("bench"), 1;
    snprintf(path, sizeof path, "%s/log", dir);
    FILE *file = fopen(path, "w");
    monitoring_options options = { .service = "bench", .url = argc > 1 ? argv[1] : NULL, .spill_dir = dir };
    monitoring_sdk *sdk;
    int error = file ? monitoring_open(&sdk, &options) : MON_ENOMEM;
    if (error) return fprintf(stderr, "bench: %s\n", monitoring_strerror(error)), 1;

    for (size_t i = 0; i < CALLS; i++) {
        double start = nanoseconds();
        times[i] = nanoseconds() - start;
    }
    qsort(times, CALLS, sizeof *times, ascending);
    double clock = times[CALLS / 2];
    printf("%-24s %.3f us, taken off\n", "the clock", clock / 1000);

    char host[256], stamp[32];
    gethostname(host, sizeof host);
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
    report("fprintf + fflush", clock);
    double before = percentile(0.5), before99 = percentile(0.99);

    for (long i = 0; i < CALLS; i++) {
        double start = nanoseconds();
        struct timespec now;
        struct tm parts;
        clock_gettime(CLOCK_REALTIME, &now);
        strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", localtime_r(&now.tv_sec, &parts));
        fprintf(file, "%s.%06ld %s %s[%d]: %s file=%s rows=%ld share=%g ok=%s\n", stamp, now.tv_nsec / 1000, host, "bench", (int)getpid(),
                "file received", "lot-4711.dat", i, 0.25, "true");
        fflush(file);
        times[i] = nanoseconds() - start;
    }
    report("... a line with strftime", clock);

    for (int i = 0; i < 200; i++) call(sdk, i);
    monitoring_flush(sdk, 2000);
    for (long i = 0; i < CALLS; i++) {
        double start = nanoseconds();
        call(sdk, i);
        times[i] = nanoseconds() - start;
        if (i % GROUP == GROUP - 1) monitoring_flush(sdk, 100);
    }
    report("log_event", clock);
    printf("%-24s p50 %.3f, p99 %.3f of fprintf + fflush\n", "", percentile(0.5) / before, percentile(0.99) / before99);

    for (long i = 0; i < CALLS; i++) {
        double start = nanoseconds();
        call(sdk, i);
        times[i] = nanoseconds() - start;
    }
    report("log_event, hot", clock);
    monitoring_stats stats;
    monitoring_get_stats(sdk, &stats);
    printf("%-24s %s: called %llu, acked %llu, spilled %llu, dropped %llu\n", "", stats.state, stats.called, stats.acked, stats.spilled, stats.dropped);
    monitoring_free(sdk);
    fclose(file);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) != 0;
}
