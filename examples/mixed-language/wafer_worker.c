/*
 * Measures one wafer: wafer-worker WAFER
 *
 * Reads a line a die from standard input (x, y, threshold voltage, drive current, leakage, bin) and writes what it found
 * to standard output, as a line of JSON. Trace and span are in its environment.
 */
#include "monitoring_sdk.h"

#include <math.h>
#include <stdio.h>

enum { GOOD_BIN = 1 };

/* Mean and variance as the values come, by Welford's method. */
struct running { long count; double mean, squares; };

static void add(struct running *all, double value) {
    double off = value - all->mean;
    all->mean += off / (double)++all->count;
    all->squares += off * (value - all->mean);
}

static double deviation(const struct running *all) {
    return all->count > 1 ? sqrt(all->squares / (double)(all->count - 1)) : 0;
}

int main(int argc, char **argv) {
    struct running vth = {0, 0, 0}, leakage = {0, 0, 0};
    double v, current, leak;
    int x, y, bin, fields;
    long good = 0;
    char span[17];
    monitoring_options options = { .service = "wafer-worker" };
    monitoring_stats stats;
    monitoring_sdk *sdk;

    if (argc != 2) return fprintf(stderr, "usage: wafer-worker WAFER\n"), 2;
    int error = monitoring_open(&sdk, &options);
    if (error) return fprintf(stderr, "wafer-worker: %s\n", monitoring_strerror(error)), 1;

    monitoring_start_span_tags(sdk, "wafer", NULL, span, MON_STR("wafer", argv[1]), MON_END);
    while ((fields = scanf("%d %d %lf %lf %lf %d", &x, &y, &v, &current, &leak, &bin)) == 6) {
        add(&vth, v);
        add(&leakage, leak);
        good += bin == GOOD_BIN;
    }
    int whole = fields == EOF && vth.count > 0;
    if (whole) {
        double yield = 100.0 * (double)good / (double)vth.count;
        monitoring_log_metric(sdk, "yield", yield, "%", MON_STR("wafer", argv[1]), MON_END);
        monitoring_log_metric(sdk, "mean_vth", vth.mean, "V", MON_STR("wafer", argv[1]), MON_END);
        monitoring_log_metric(sdk, "mean_leakage", leakage.mean, "nA", MON_STR("wafer", argv[1]), MON_END);
        printf("{\"wafer\": \"%s\", \"dies\": %ld, \"yield\": %.6f, \"mean_vth\": %.9f, \"sd_vth\": %.9f}\n", argv[1],
               vth.count, yield, vth.mean, deviation(&vth));
    } else {
        monitoring_log_event(sdk, "error", "a row can't be read", MON_INT("row", vth.count + 1), MON_END);
    }
    monitoring_log_own_resource(sdk);
    monitoring_end_span(sdk, span, whole ? "ok" : "error", MON_INT("dies", vth.count), MON_END);

    monitoring_get_stats(sdk, &stats);
    fprintf(stderr, "wafer-worker: %llu messages\n", stats.called);
    monitoring_free(sdk); /* delivers what is waiting */
    return whole ? 0 : 1;
}
