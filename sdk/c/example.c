/*
 * Reads files and tells the sidecar about it: example FILE...
 *
 *     cc example.c monitoring_sdk.c monitoring_sender.c monitoring_text.c -pthread -o example
 *     cc example.c $(pkg-config --cflags --libs monitoring_sdk) -o example      (where it is installed)
 *
 * The address comes from WAFERMON_URL (tcp://127.0.0.1:7411 where that is not set). It works without a sidecar too.
 */
#include "monitoring_sdk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Log what is in the file; false: unreadable. */
static int read_file(monitoring_sdk *sdk, const char *name) {
    FILE *file = fopen(name, "rb");
    long long bytes = 0, lines = 0;
    if (!file) {
        monitoring_log_event(sdk, "error", "unreadable", MON_STR("file", name), MON_STR("reason", strerror(errno)), MON_END);
        return 0;
    }
    for (int c; (c = getc(file)) != EOF; bytes++) lines += c == '\n';
    fclose(file);
    monitoring_log_event(sdk, "info", "read", MON_STR("file", name), MON_INT("lines", lines), MON_END);
    monitoring_log_metric(sdk, "bytes_read", (double)bytes, "By", MON_STR("file", name), MON_END);
    return 1;
}

int main(int argc, char **argv) {
    monitoring_options options = { .service = "example", .trace_id = "job-4711" };
    monitoring_stats stats;
    monitoring_sdk *sdk;
    int error = monitoring_open(&sdk, &options);
    if (error) return fprintf(stderr, "example: %s\n", monitoring_strerror(error)), 1;

    for (int i = 1; i < argc; i++) {
        char span[17];
        monitoring_start_span_tags(sdk, "read", NULL, span, MON_STR("file", argv[i]), MON_END);
        int read = read_file(sdk, argv[i]);
        monitoring_end_span(sdk, span, read ? "ok" : "error", MON_END);
        monitoring_log_progress(sdk, "job-4711", 100.0 * i / argc, NULL);
    }
    monitoring_log_own_resource(sdk);
    monitoring_log_progress(sdk, "job-4711", 100, "done");

    int delivered = monitoring_flush(sdk, 2000) == MON_OK;
    monitoring_get_stats(sdk, &stats);
    printf("%llu messages, %s\n", stats.called, delivered ? "all acknowledged" : "left for the sidecar");
    monitoring_free(sdk);
    return 0;
}
