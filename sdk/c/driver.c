/*
 * driver - the C SDK's driver program for sdk/conformance; its README.md has the table of calls and notations.
 *
 * One request per line on stdin, one answer per line on stdout. Whatever a request allocates stays until the driver ends.
 */
#define _DEFAULT_SOURCE
#define _POSIX_C_SOURCE 200809L
#include "monitoring_sdk.h"

#include <ctype.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* ---- JSON, as far as requests need it ---- */

enum type { NIL, TRUTH, INTEGER, NUMBER, TEXT, LIST, OBJECT };

struct value {
    enum type type;
    const char *key; /* within an object */
    char *text;      /* also an INTEGER's digits */
    size_t length;
    double number;
    struct value *first, *next;
};

static void *get(size_t size)
{
    void *memory = calloc(1, size + 1);
    if (!memory)
        abort();
    return memory;
}

static size_t utf8(char *to, unsigned long code)
{
    if (code < 0x80)
        return (size_t)(to[0] = (char)code, 1);
    size_t more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    to[0] = (char)((0xFF00 >> (more + 1)) | (code >> (6 * more)));
    for (size_t i = 1; i <= more; i++)
        to[i] = (char)(0x80 | ((code >> (6 * (more - i))) & 0x3F));
    return more + 1;
}

static unsigned long hex4(const char *at)
{
    char digits[5] = { at[0], at[1], at[2], at[3], 0 };
    return strtoul(digits, NULL, 16);
}

static const char *read_text(const char *at, struct value *value)
{
    value->type = TEXT;
    value->text = get(strlen(at) * 3);
    for (at++; *at != '"'; at++) {
        if (*at != '\\') {
            value->text[value->length++] = *at;
            continue;
        }
        const char *plain = strchr("n\nt\tr\rb\bf\f", *++at);
        if (*at == 'u') {
            unsigned long code = hex4(at + 1);
            at += 4;
            if (code >= 0xD800 && code < 0xDC00 && at[1] == '\\' && at[2] == 'u' && hex4(at + 3) >= 0xDC00 && hex4(at + 3) < 0xE000) {
                code = 0x10000 + ((code - 0xD800) << 10) + (hex4(at + 3) - 0xDC00);
                at += 6;
            }
            value->length += utf8(value->text + value->length, code);
        } else {
            value->text[value->length++] = plain ? plain[1] : *at;
        }
    }
    return at + 1;
}

static const char *read_value(const char *at, struct value *value)
{
    while (isspace((unsigned char)*at))
        at++;
    if (*at == '"')
        return read_text(at, value);
    if (*at == '{' || *at == '[') {
        char end = *at == '{' ? '}' : ']';
        struct value **slot = &value->first, key;
        value->type = end == '}' ? OBJECT : LIST;
        for (at++; at += strspn(at, " ,"), *at != end; slot = &(*slot)->next) {
            memset(&key, 0, sizeof key);
            if (end == '}') {
                at = read_text(at, &key);
                at += strspn(at, " :");
            }
            *slot = get(sizeof **slot);
            at = read_value(at, *slot);
            (*slot)->key = key.text;
        }
        return at + 1;
    }
    size_t length = strspn(at, "+-0123456789.eE");
    if (length) {
        value->text = get(length);
        memcpy(value->text, at, length);
        value->type = strpbrk(value->text, ".eE") ? NUMBER : INTEGER;
        value->number = strtod(value->text, NULL);
        return at + length;
    }
    value->type = *at == 'n' ? NIL : TRUTH;
    value->number = *at == 't';
    return at + (*at == 'f' ? 5 : 4);
}

static struct value *member(const struct value *object, const char *key)
{
    for (struct value *at = object ? object->first : NULL; at; at = at->next)
        if (at->key && strcmp(at->key, key) == 0)
            return at;
    return NULL;
}

/* ---- the notations ---- */

static int unsupported;

static void decode_base64(const char *from, struct value *value)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned bits = 0, count = 0;
    value->text = get(strlen(from));
    for (; *from && *from != '='; from++) {
        bits = bits << 6 | (unsigned)(strchr(alphabet, *from) - alphabet);
        count += 6;
        if (count >= 8)
            value->text[value->length++] = (char)(bits >> (count -= 8));
    }
}

/* Replace a value that is written in a notation by what it means. */
static void resolve(struct value *value)
{
    struct value *only = value->first;
    if (value->type != OBJECT || !only || only->next || only->key[0] != '$')
        return;
    const char *notation = only->key;
    struct value result = { TEXT, value->key, NULL, 0, 0, NULL, value->next };
    if (strcmp(notation, "$bytes") == 0) {
        decode_base64(only->text, &result);
    } else if (strcmp(notation, "$codes") == 0) {
        result.text = get(4096);
        for (struct value *code = only->first; code; code = code->next) {
            unsupported |= code->number == 0;
            result.length += utf8(result.text + result.length, (unsigned long)code->number);
        }
    } else if (strcmp(notation, "$float") == 0) {
        result.type = NUMBER;
        result.number = strtod(only->text, NULL);
    } else if (strcmp(notation, "$int") == 0) {
        result.type = INTEGER;
        result.text = only->text;
        result.number = strtod(only->text, NULL);
    } else if (strcmp(notation, "$repeat") == 0) {
        size_t times = (size_t)only->first->next->number, length = only->first->length;
        result.text = get(times * length);
        for (size_t i = 0; i < times; i++)
            memcpy(result.text + i * length, only->first->text, length);
        result.length = times * length;
    } else {
        unsupported = 1;
    }
    *value = result;
}

/* ---- arguments ---- */

static const char *text_of(const struct value *args, const char *key)
{
    struct value *value = member(args, key);
    if (!value || value->type == NIL)
        return NULL;
    resolve(value);
    unsupported |= value->type != TEXT || memchr(value->text, 0, value->length) != NULL;
    return value->type == TEXT ? value->text : NULL;
}

static double number_of(const struct value *args, const char *key, double missing)
{
    struct value *value = member(args, key);
    if (!value || value->type == NIL)
        return missing;
    resolve(value);
    unsupported |= value->type != NUMBER && value->type != INTEGER;
    return value->number;
}

static int milliseconds(const struct value *args)
{
    double seconds = number_of(args, "timeout", -1);
    return seconds < 0 ? -1 : (int)(seconds * 1000);
}

/* The fields of a context or of tags. */
static size_t fields_of(const struct value *args, const char *key, monitoring_field *fields)
{
    struct value *group = member(args, key);
    size_t count = 0;
    if (!group || group->type == NIL)
        return 0;
    unsupported |= group->type != OBJECT;
    resolve(group);
    for (struct value *at = group->first; at && count < MON_MAX_FIELDS; at = at->next, count++) {
        resolve(at);
        fields[count].key = at->key;
        unsupported |= at->type == LIST || at->type == OBJECT || (at->type == TEXT && memchr(at->text, 0, at->length));
        if (at->type == INTEGER) {
            unsigned long long natural = at->text[0] == '-' ? 0 : strtoull(at->text, NULL, 10);
            fields[count].kind = natural > INT64_MAX ? MON_UNSIGNED : MON_INTEGER;
            if (natural > INT64_MAX)
                fields[count].value.natural = natural;
            else
                fields[count].value.integer = strtoll(at->text, NULL, 10);
        } else if (at->type == NUMBER) {
            fields[count].kind = MON_NUMBER;
            fields[count].value.number = at->number;
        } else if (at->type == TRUTH) {
            fields[count].kind = MON_TRUTH;
            fields[count].value.integer = at->number != 0;
        } else {
            fields[count].kind = MON_STRING;
            fields[count].value.string = at->type == TEXT ? at->text : NULL;
        }
    }
    return count;
}

/* ---- answers ---- */

static void quote(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else if ((unsigned char)*text < ' ')
            fprintf(out, "\\u%04x", (unsigned)(unsigned char)*text);
        else
            fputc(*text, out);
    fputc('"', out);
}

static void fail(FILE *out, const char *why)
{
    fputs("{\"ok\":false,\"error\":", out);
    quote(out, why);
    fputs("}\n", out);
}

static void answer(FILE *out, int error)
{
    if (error)
        fail(out, monitoring_strerror(error));
    else
        fputs("{\"ok\":true}\n", out);
}

/* ---- calls ---- */

static monitoring_sdk *sdk; /* the current one */

static void call_stats(FILE *out)
{
    monitoring_stats s;
    int error = monitoring_get_stats(sdk, &s);
    if (error) {
        answer(out, error);
        return;
    }
    fprintf(out,
            "{\"ok\":true,\"result\":{\"state\":\"%s\",\"called\":%llu,\"sent\":%llu,\"acked\":%llu,\"rejected\":%llu,\"dropped\":%llu,"
            "\"spilled\":%llu,\"waiting\":%llu,\"handed_over\":%llu,\"resent\":%llu,\"reconnects\":%llu}}\n",
            s.state, s.called, s.sent, s.acked, s.rejected, s.dropped, s.spilled, s.waiting, s.handed_over, s.resent, s.reconnects);
}

static double microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int ascending(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static void call_burst(FILE *out, const struct value *args)
{
    size_t n = (size_t)number_of(args, "n", 0), size = (size_t)number_of(args, "size", 0);
    long long first = (long long)number_of(args, "first", 0);
    double *times = get(n * sizeof *times), start = microseconds();
    char *message = get(size);
    memset(message, 'x', size);
    for (size_t k = 0; k < n; k++) {
        double before = microseconds();
        int error = monitoring_log_event(sdk, "info", size ? message : "burst", MON_INT("i", first + (long long)k), MON_STR("file", "a.dat"),
                                         MON_BOOL("ok", 1), MON_NUM("x", 1.5), MON_END);
        times[k] = microseconds() - before;
        if (error) {
            answer(out, error);
            return;
        }
    }
    double elapsed = (microseconds() - start) / 1e6;
    qsort(times, n, sizeof *times, ascending);
    fprintf(out, "{\"ok\":true,\"result\":{\"elapsed\":%.6f,\"p50\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f}}\n", elapsed,
            n ? times[n / 2] : 0, n ? times[n * 99 / 100] : 0, n ? times[n * 999 / 1000] : 0, n ? times[n - 1] : 0);
    free(times);
    free(message);
}

static void carry_out(FILE *out, const struct value *request);

static void call_fork(FILE *out, const struct value *args)
{
    int channel[2], status = 0;
    if (pipe(channel) != 0) {
        fail(out, "pipe");
        return;
    }
    fflush(out);
    pid_t child = fork();
    if (child == 0) {
        FILE *answers = fdopen(channel[1], "w");
        struct value *calls = member(args, "calls");
        close(channel[0]);
        for (struct value *at = calls ? calls->first : NULL; at; at = at->next)
            carry_out(answers, at);
        fclose(answers);
        exit(0);
    }
    close(channel[1]);
    FILE *answers = fdopen(channel[0], "r");
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    fputs("{\"ok\":true,\"result\":{\"answers\":[", out);
    for (int count = 0; (length = getline(&line, &size, answers)) > 0; count++)
        fprintf(out, "%s%.*s", count ? "," : "", (int)length - 1, line);
    free(line);
    fclose(answers);
    waitpid(child, &status, 0);
    fprintf(out, "],\"status\":%d}}\n", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
}

static void call_spawn(FILE *out, const struct value *args)
{
    int in[2], from[2], status = 0;
    char *argv[32] = { NULL }, text[65536];
    size_t count = 0, length = 0;
    monitoring_env env;
    const char *input = text_of(args, "stdin");
    struct value *words = member(args, "argv");
    for (struct value *at = words ? words->first : NULL; at && count < 31; at = at->next)
        argv[count++] = at->text;
    int error = monitoring_child_env(sdk, &env);
    if (error || !count || pipe(in) != 0 || pipe(from) != 0) {
        answer(out, error ? error : MON_EINVAL);
        return;
    }
    fflush(out);
    pid_t child = fork();
    if (child == 0) {
        dup2(in[0], 0);
        dup2(from[1], 1);
        close(in[0]), close(in[1]), close(from[0]), close(from[1]);
        for (size_t i = 0; env.variables[i]; i++)
            putenv(env.variables[i]);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(in[0]), close(from[1]);
    if (input && write(in[1], input, strlen(input)) < 0)
        perror("driver: spawn");
    close(in[1]);
    for (ssize_t got; length < sizeof text - 1 && (got = read(from[0], text + length, sizeof text - 1 - length)) > 0;)
        length += (size_t)got;
    text[length] = '\0';
    close(from[0]);
    waitpid(child, &status, 0);
    fputs("{\"ok\":true,\"result\":{\"stdout\":", out);
    quote(out, text);
    fprintf(out, ",\"status\":%d}}\n", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
}

static void call_open(FILE *out, const struct value *args)
{
    monitoring_options options = { text_of(args, "service"), text_of(args, "url"), text_of(args, "trace_id"), (int)number_of(args, "buffer", 0),
                                   text_of(args, "spill_dir"), text_of(args, "token") };
    monitoring_sdk *opened;
    int error = monitoring_open(&opened, &options);
    if (!error)
        sdk = opened;
    answer(out, error);
}

static void carry_out(FILE *out, const struct value *request)
{
    const char *call = text_of(request, "call");
    const struct value *args = member(request, "args");
    monitoring_field fields[MON_MAX_FIELDS];
    size_t count = fields_of(args, member(args, "tags") ? "tags" : "context", fields);
    struct value *given;
    char id[17];
    int error;
    if (!call)
        call = "";
#define IS(name) (strcmp(call, name) == 0)
    /* Look at every argument once, so that an unsupported one is known before anything is called. */
    for (struct value *at = args && !IS("fork") && !IS("spawn") ? args->first : NULL; at; at = at->next)
        if (strcmp(at->key, "context") != 0 && strcmp(at->key, "tags") != 0)
            resolve(at);
    const char *kind = IS("log_metric") ? text_of(args, "kind") : NULL;
    int counter = kind && strcmp(kind, "counter") == 0;
    if (IS("log_metric"))
        number_of(args, "value", 0);
    if (unsupported || (kind && !counter && strcmp(kind, "gauge") != 0)) {
        unsupported = 0;
        fail(out, "unsupported");
        return;
    }
    if (IS("exit"))
        exit(0);
    else if (IS("kill_self"))
        raise(SIGKILL);
    else if (IS("open"))
        call_open(out, args);
    else if (IS("log_event"))
        answer(out, monitoring_log_event(sdk, text_of(args, "level"), text_of(args, "message"), MON_FIELDS(fields, count), MON_END));
    else if (IS("log_metric"))
        answer(out, counter ? monitoring_log_metric(sdk, text_of(args, "name"), number_of(args, "value", NAN), text_of(args, "unit"),
                                                    MON_COUNTER, MON_FIELDS(fields, count), MON_END)
                            : monitoring_log_metric(sdk, text_of(args, "name"), number_of(args, "value", NAN), text_of(args, "unit"),
                                                    MON_FIELDS(fields, count), MON_END));
    else if (IS("log_progress"))
        answer(out, monitoring_log_progress(sdk, text_of(args, "job_id"), number_of(args, "percent", NAN), text_of(args, "status")));
    else if (IS("log_resource") && !(args && args->first))
        answer(out, monitoring_log_own_resource(sdk));
    else if (IS("log_resource"))
        answer(out, monitoring_log_resource(sdk, number_of(args, "cpu", NAN), number_of(args, "mem", NAN), number_of(args, "disk", NAN),
                                            number_of(args, "net", NAN)));
    else if (IS("start_span")) {
        if ((error = monitoring_start_span_tags(sdk, text_of(args, "name"), text_of(args, "trace_id"), id, MON_FIELDS(fields, count), MON_END)))
            answer(out, error);
        else
            fprintf(out, "{\"ok\":true,\"result\":\"%s\"}\n", id);
    } else if (IS("end_span"))
        answer(out, monitoring_end_span(sdk, text_of(args, "span_id"), text_of(args, "status"), MON_FIELDS(fields, count), MON_END));
    else if (IS("set_trace_id"))
        answer(out, monitoring_set_trace_id(sdk, text_of(args, "trace_id")));
    else if (IS("get_stats"))
        call_stats(out);
    else if (IS("flush")) {
        error = monitoring_flush(sdk, milliseconds(args));
        if (error && error != MON_ETIMEOUT)
            answer(out, error);
        else
            fprintf(out, "{\"ok\":true,\"result\":%s}\n", error ? "false" : "true");
    } else if (IS("close"))
        answer(out, monitoring_close(sdk, milliseconds(args)));
    else if (IS("burst"))
        call_burst(out, args);
    else if (IS("fork"))
        call_fork(out, args);
    else if (IS("spawn"))
        call_spawn(out, args);
    else if (IS("setenv")) {
        for (given = args->first; given; given = given->next)
            if (given->type == NIL)
                unsetenv(given->key);
            else
                setenv(given->key, given->text, 1);
        answer(out, 0);
    } else if (IS("sleep")) {
        double seconds = number_of(args, "seconds", 0);
        struct timespec rest = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };
        nanosleep(&rest, NULL);
        answer(out, 0);
    } else if (IS("pid"))
        fprintf(out, "{\"ok\":true,\"result\":%ld}\n", (long)getpid());
    else
        fail(out, "unsupported");
}

int main(void)
{
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        struct value request;
        memset(&request, 0, sizeof request);
        read_value(line, &request);
        carry_out(stdout, &request);
        fflush(stdout);
    }
    free(line);
    return 0;
}
