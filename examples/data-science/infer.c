/*
 * The third of three: predicts which dies of the new lot fail: infer WORK
 *
 * Reads WORK/model.txt (a feature and its weight a line, the intercept first) and WORK/new.csv, writes a line a die to
 * WORK/predictions.csv, and says how often it was right. The job, and the span that we belong to, are in the environment.
 */
#include "monitoring_sdk.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WEIGHTS = 5, EVERY = 50 };
static const char *const NAMES[WEIGHTS] = {"intercept", "edge", "z_vth", "z_idsat", "z_leak"};

struct counts { long dies, right, found, missed, alarms; };

static FILE *open_in(const char *folder, const char *name, const char *mode) {
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (length >= (int)sizeof path) return errno = ENAMETOOLONG, NULL;
    return fopen(path, mode);
}

/* False: not a model of these features, or none at all. */
static int read_model(FILE *file, double weights[WEIGHTS]) {
    char name[32];
    for (int i = 0; i < WEIGHTS; i++)
        if (!file || fscanf(file, "%31s %lf", name, &weights[i]) != 2 || strcmp(name, NAMES[i])) return 0;
    return 1;
}

/* One line in, one line out, until there are no more. False: a line that is not four features and an outcome. */
static int predict_all(monitoring_sdk *sdk, const char *job, const double *weights, FILE *in, FILE *out, struct counts *all) {
    double value[WEIGHTS] = {1};
    int fails, fields;
    if (fscanf(in, "%*[^\n]") == EOF) return 0; /* the columns' names */
    while ((fields = fscanf(in, "%lf,%lf,%lf,%lf,%d", &value[1], &value[2], &value[3], &value[4], &fails)) == WEIGHTS) {
        double sum = 0;
        for (int i = 0; i < WEIGHTS; i++) sum += weights[i] * value[i];
        double probability = 1 / (1 + exp(-sum));
        int predicted = probability >= 0.5;
        fprintf(out, "%ld,%.9f,%d,%d\n", ++all->dies, probability, predicted, fails);
        all->right += predicted == fails;
        all->found += predicted && fails;
        all->missed += !predicted && fails;
        all->alarms += predicted && !fails;
        if (all->dies % EVERY == 0) monitoring_log_event(sdk, "debug", "predicting", MON_INT("dies", all->dies), MON_END);
    }
    monitoring_log_progress(sdk, job, 95, "predicting");
    return fields == EOF && all->dies > 0;
}

static int infer(monitoring_sdk *sdk, const char *job, const char *work) {
    double weights[WEIGHTS];
    struct counts all = {0, 0, 0, 0, 0};
    FILE *model = open_in(work, "model.txt", "r"), *in = open_in(work, "new.csv", "r");
    FILE *out = open_in(work, "predictions.csv", "w");
    int done = 0;
    if (!in || !out)
        monitoring_log_event(sdk, "error", "a file can't be opened", MON_STR("reason", strerror(errno)), MON_END);
    else if (!read_model(model, weights))
        monitoring_log_event(sdk, "error", "this is no model", MON_STR("folder", work), MON_END);
    else if (fputs("die,probability,predicted,fails\n", out), !predict_all(sdk, job, weights, in, out, &all))
        monitoring_log_event(sdk, "error", "a line can't be read", MON_INT("line", all.dies + 2), MON_END);
    else
        done = 1;
    if (model) fclose(model);
    if (in) fclose(in);
    if (out && fclose(out)) done = 0;
    if (!done) return 0;
    monitoring_log_metric(sdk, "accuracy", 100.0 * (double)all.right / (double)all.dies, "%", MON_END);
    monitoring_log_event(sdk, "info", "lot predicted", MON_INT("dies", all.dies), MON_INT("right", all.right),
                         MON_INT("found", all.found), MON_INT("missed", all.missed), MON_INT("alarms", all.alarms), MON_END);
    return 1;
}

int main(int argc, char **argv) {
    const char *job = getenv("WAFERMON_TRACE_ID");
    monitoring_options options = { .service = "model-inference" };
    monitoring_stats stats;
    monitoring_sdk *sdk;
    char span[17];
    if (argc != 2 || !job) return fprintf(stderr, "usage: WAFERMON_TRACE_ID=JOB infer WORK\n"), 2;
    int error = monitoring_open(&sdk, &options);
    if (error) return fprintf(stderr, "infer: %s\n", monitoring_strerror(error)), 1;

    monitoring_start_span(sdk, "infer", NULL, span);
    int done = infer(sdk, job, argv[1]);
    monitoring_end_span(sdk, span, done ? "ok" : "error", MON_END);
    monitoring_log_own_resource(sdk);

    monitoring_get_stats(sdk, &stats);
    fprintf(stderr, "model-inference: %llu messages\n", stats.called);
    monitoring_free(sdk); /* delivers what is waiting */
    return done ? 0 : 1;
}
