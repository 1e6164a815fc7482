/*
 * monitoring_sdk.c - the wafermon client for C; monitoring_sdk.h says what it does for its callers.
 *
 * Calls, open and close, forks. monitoring_core.h says how it works.
 */
#include "monitoring_core.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- settings, handles ---- */

/* What is given, else what the environment says; NULL for nothing. */
static const char *setting(const char *given, const char *name) {
    const char *value = given && *given ? given : getenv(name);
    return value && *value ? value : NULL;
}

/* The only globals: pthread_atfork and atexit hand no argument to their functions, so these have to find every handle. */
static pthread_mutex_t handles_mutex = PTHREAD_MUTEX_INITIALIZER;
static monitoring_sdk *handles;
static int hooked;

/*
 * A fork without the hooks (uWSGI, a bare system call) is noticed at the next call: by a page that the kernel empties in a child, where
 * it can, so that calls need no system call for it; else by the process id.
 */
static pid_t process;
static volatile char *page;

static void begin_in_child(void);

static int is_child(void) {
    pid_t known = __atomic_load_n(&process, __ATOMIC_ACQUIRE); /* 0: nothing is open yet; -1: a thread is at it */
    return known && !(page && *page) && getpid() != known;
}

void mon_lock(monitoring_sdk *sdk) {
    if (is_child())
        begin_in_child();
    pthread_mutex_lock(&sdk->mutex);
}
void mon_unlock(monitoring_sdk *sdk) {
    pthread_mutex_unlock(&sdk->mutex);
}
/* ---- calls ---- */

/* Encode the message and find a place for it: in the ring, in a spill file, or nowhere. */
static int submit(monitoring_sdk *sdk, struct message *message) {
    char small[SMALL + SUFFIX], *large = NULL, *line = small;
    size_t length = mon_encode((struct text){ small, SMALL }, message, sdk->origin);
    if (length > SMALL) {
        line = large = malloc(MAX_BODY + SUFFIX);
        length = large ? mon_encode_long((struct text){ large, MAX_BODY }, message, sdk->origin) : 0;
    }
    mon_lock(sdk);
    int open = !sdk->closed && !sdk->disabled;
    sdk->stats.called++;
    if (open && !sdk->running)
        mon_start_sender(sdk);
    if (open && length && !mon_is_full(sdk)) {
        mon_append(&sdk->main, line, length);
        if (sdk->asleep || sdk->main.waiting * 2 == sdk->buffer)
            mon_wake_sender(sdk);
    } else if (!open || !length || !mon_spill(sdk, line, length)) {
        sdk->stats.dropped++;
        sdk->unreported += (unsigned)open;
    }
    mon_unlock(sdk);
    free(large);
    return length ? MON_OK : MON_ENOMEM;
}

/* The trace and span that a call is made in; empty strings where there is none. */
static void current_scope(monitoring_sdk *sdk, char trace_id[129], char span_id[17]) {
    const void *thread = pthread_getspecific(sdk->thread);
    mon_lock(sdk);
    const struct span *span = thread ? sdk->spans : NULL;
    while (span && span->owner != thread)
        span = span->next;
    strcpy(trace_id, span ? span->trace_id : sdk->trace_id);
    strcpy(span_id, span ? span->id : sdk->parent_id);
    mon_unlock(sdk);
}

static int submit_here(monitoring_sdk *sdk, const char *type, const monitoring_field *own, size_t own_count,
                       const char *group, const monitoring_field *fields, int count) {
    char trace[129], span[17];
    current_scope(sdk, trace, span);
    return submit(sdk, &(struct message){ type, *trace ? trace : NULL, *span ? span : NULL, micros(CLOCK_REALTIME), own,
                                          fields, own_count, (size_t)count, group, NULL });
}

/* The fields of a variadic call; their number, or -1. `counter`: whether MON_COUNTER is among them; NULL where it may not be. */
static int collect(monitoring_field fields[MON_MAX_FIELDS], va_list list, int *counter) {
    int count = 0;
    for (const char *key; (key = va_arg(list, const char *));) {
        int kind = va_arg(list, int);
        if (kind == MON_COUNTS && !counter)
            return -1;
        if (kind == MON_COUNTS) {
            *counter = 1;
            continue;
        }
        const monitoring_field *from = kind == MON_LIST ? va_arg(list, const monitoring_field *) : NULL;
        size_t size = kind == MON_LIST ? va_arg(list, size_t) : 1;
        if (size > (size_t)(MON_MAX_FIELDS - count) || (kind == MON_LIST && size && !from))
            return -1;
        for (; from && size--; fields[count++] = *from++)
            if (!from->key || from->kind < MON_STRING || from->kind > MON_UNSIGNED)
                return -1;
        if (kind == MON_LIST)
            continue;
        monitoring_field *field = &fields[count++];
        field->key = key;
        field->kind = (monitoring_kind)kind;
        if (kind == MON_STRING)
            field->value.string = va_arg(list, const char *);
        else if (kind == MON_INTEGER)
            field->value.integer = va_arg(list, long long);
        else if (kind == MON_UNSIGNED)
            field->value.natural = va_arg(list, unsigned long long);
        else if (kind == MON_NUMBER)
            field->value.number = va_arg(list, double);
        else if (kind == MON_TRUTH)
            field->value.integer = va_arg(list, int);
        else
            return -1;
    }
    return count;
}

#define COLLECT(last, counter)                                                                                         \
    monitoring_field fields[MON_MAX_FIELDS];                                                                           \
    va_list list;                                                                                                      \
    va_start(list, last);                                                                                              \
    int count = sdk ? collect(fields, list, counter) : -1;                                                             \
    va_end(list);                                                                                                      \
    if (count < 0)                                                                                                     \
    return MON_EINVAL

static int is_one_of(const char *word, const char *const *words) {
    while (word && *words && strcmp(word, *words) != 0)
        words++;
    return word && *words;
}

/* The level that is meant; NULL: none. */
static const char *level_of(const char *given) {
    static const char *const names[][2] = { { "info", "info" },   { "debug", "debug" },       { "warning", "warning" },
                                            { "error", "error" }, { "critical", "critical" }, { "warn", "warning" },
                                            { "err", "error" },   { "fatal", "critical" } };
    static const char *const numbered[] = { "debug", "info", "warning", "error", "critical" };
    for (size_t i = 0; given && i < sizeof names / sizeof *names; i++)
        if (strcasecmp(given, names[i][0]) == 0)
            return names[i][1];
    int number = given && strspn(given, "0123456789") == 2 && !given[2] ? atoi(given) : 0;
    return number >= 10 && number <= 50 ? numbered[number / 10 - 1] : NULL;
}

int monitoring_log_event(monitoring_sdk *sdk, const char *level, const char *message, ...) {
    COLLECT(message, NULL);
    if (!message)
        return MON_EINVAL;
    level = level_of(level);
    if (!level)
        return MON_ELEVEL;
    const monitoring_field own[] = { STRING("level", level), STRING("message", message) };
    return submit_here(sdk, "event", own, 2, "context", fields, count);
}

int monitoring_log_eventf(monitoring_sdk *sdk, const char *level, const char *format, ...) {
    char *message;
    va_list list;
    va_start(list, format);
    int length = format ? vasprintf(&message, format, list) : -1, result = MON_EINVAL;
    va_end(list);
    if (length >= 0) {
        result = monitoring_log_event(sdk, level, message, MON_END);
        free(message);
    }
    return result;
}

int monitoring_log_metric(monitoring_sdk *sdk, const char *name, double value, const char *unit, ...) {
    int counter = 0;
    COLLECT(unit, &counter);
    if (!name || !*name)
        return MON_ENAME;
    const monitoring_field number = NUMBER("value", value), word = STRING("value", isnan(value) ? "NaN"
                                                                                   : value > 0  ? "Infinity"
                                                                                                : "-Infinity");
    const monitoring_field own[] = { STRING("name", name), isfinite(value) ? number : word, STRING("unit", unit),
                                     STRING("kind", counter ? "counter" : NULL) };
    return submit_here(sdk, "metric", own, 4, "tags", fields, count);
}

int monitoring_log_progress(monitoring_sdk *sdk, const char *job_id, double percent, const char *status) {
    size_t characters = 0;
    status = status ? status : "running";
    for (const char *at = status; *at && characters <= 64; at++)
        characters += (*at & 0xC0) != 0x80;
    int error = !sdk                                ? MON_EINVAL
                : !mon_is_trace_id(job_id)          ? MON_ETRACE
                : !(percent >= 0 && percent <= 100) ? MON_EPERCENT
                : characters < 1 || characters > 64 ? MON_ESTATUS
                                                    : MON_OK;
    const monitoring_field own[] = { STRING("job_id", job_id), NUMBER("percent", percent), STRING("status", status) };
    return error ? error : submit_here(sdk, "progress", own, 3, NULL, NULL, 0);
}

int monitoring_log_resource(monitoring_sdk *sdk, double cpu, double mem, double disk, double net) {
    monitoring_field own[] = { NUMBER("cpu", cpu), NUMBER("mem", mem), NUMBER("disk", disk), NUMBER("net", net) };
    size_t count = 0;
    for (size_t i = 0; i < 4; i++)
        if (isfinite(own[i].value.number))
            own[count++] = own[i];
    return sdk && count ? submit_here(sdk, "resource", own, count, NULL, NULL, 0) : MON_EINVAL;
}

int monitoring_log_own_resource(monitoring_sdk *sdk) {
    double pages = NAN, in = NAN, out = NAN;
    if (!sdk)
        return MON_EINVAL;
    mon_lock(sdk);
    long long cpu = micros(CLOCK_PROCESS_CPUTIME_ID) - sdk->cpu, elapsed = micros(CLOCK_MONOTONIC) - sdk->cpu_at;
    sdk->cpu += cpu;
    sdk->cpu_at += elapsed;
    mon_unlock(sdk);
    FILE *statm = fopen("/proc/self/statm", "re"), *io = fopen("/proc/self/io", "re");
    if (statm && fscanf(statm, "%*s %lf", &pages) != 1)
        pages = NAN;
    if (io
        && fscanf(io, "rchar: %*s wchar: %*s syscr: %*s syscw: %*s read_bytes: %lf write_bytes: %lf", &in, &out) != 2)
        in = NAN;
    if (statm)
        fclose(statm);
    if (io)
        fclose(io);
    return monitoring_log_resource(sdk, 100.0 * (double)cpu / (double)(elapsed + 1),
                                   pages * (double)sysconf(_SC_PAGESIZE), in + out, NAN);
}

int monitoring_set_trace_id(monitoring_sdk *sdk, const char *trace_id) {
    if (!sdk || !mon_is_trace_id(trace_id))
        return sdk ? MON_ETRACE : MON_EINVAL;
    mon_lock(sdk);
    strcpy(sdk->trace_id, trace_id);
    mon_unlock(sdk);
    return MON_OK;
}

static int submit_span(monitoring_sdk *sdk, const struct span *span, const char *status, const monitoring_field *fields,
                       int count) {
    const monitoring_field own[] = { STRING("span_id", span->id),
                                     STRING("name", span->name),
                                     STRING("parent_id", span->parent_id[0] ? span->parent_id : NULL),
                                     STRING("status", status),
                                     INTEGER("start", span->start),
                                     INTEGER("duration", micros(CLOCK_MONOTONIC) - span->start_monotonic) };
    return submit(sdk, &(struct message){ status ? "span_end" : "span_start", span->trace_id, NULL,
                                          status ? micros(CLOCK_REALTIME) : span->start, own, fields, status ? 6 : 3,
                                          (size_t)count, "tags", NULL });
}

int monitoring_start_span_tags(monitoring_sdk *sdk, const char *name, const char *trace_id, char id[17], ...) {
    COLLECT(id, NULL);
    struct span *span;
    int error = !id                                      ? MON_EINVAL
                : !name || !*name                        ? MON_ENAME
                : trace_id && !mon_is_trace_id(trace_id) ? MON_ETRACE
                                                         : MON_OK;
    if (error)
        return error;
    if (!(span = calloc(1, sizeof *span)) || !(span->name = strndup(name, MAX_LINE))) {
        free(span);
        return MON_ENOMEM;
    }
    current_scope(sdk, span->trace_id, span->parent_id);
    mon_make_id(span->id);
    strcpy(id, span->id);
    if (trace_id)
        strcpy(span->trace_id, trace_id);
    else if (!span->trace_id[0]) {
        mon_make_id(span->trace_id);
        mon_make_id(span->trace_id + 16);
    }
    span->start = micros(CLOCK_REALTIME);
    span->start_monotonic = micros(CLOCK_MONOTONIC);
    error = submit_span(sdk, span, NULL, fields, count);
    mon_lock(sdk);
    if (!pthread_getspecific(sdk->thread))
        pthread_setspecific(sdk->thread, (void *)++sdk->threads);
    span->owner = pthread_getspecific(sdk->thread);
    span->next = sdk->spans;
    sdk->spans = span;
    mon_unlock(sdk);
    return error;
}

int monitoring_start_span(monitoring_sdk *sdk, const char *name, const char *trace_id, char id[17]) {
    return monitoring_start_span_tags(sdk, name, trace_id, id, MON_END);
}

/* Take the span out of the open ones; id NULL: the newest. */
static struct span *take_span(monitoring_sdk *sdk, const char *id) {
    struct span **link = &sdk->spans, *span;
    while ((span = *link) && id && strcmp(span->id, id) != 0)
        link = &span->next;
    if (span)
        *link = span->next;
    return span;
}

static void free_span(struct span *span) {
    free(span->name);
    free(span);
}

int monitoring_end_span(monitoring_sdk *sdk, const char *id, const char *status, ...) {
    COLLECT(status, NULL);
    if (!id)
        return MON_EINVAL;
    status = status ? status : "ok";
    if (!is_one_of(status, (const char *[]){ "ok", "error", NULL }))
        return MON_ESTATUS;
    mon_lock(sdk);
    struct span *span = take_span(sdk, id);
    mon_unlock(sdk);
    if (!span)
        return MON_ESPAN;
    int result = span->inherited ? MON_OK : submit_span(sdk, span, status, fields, count);
    free_span(span);
    return result;
}

int monitoring_child_env(monitoring_sdk *sdk, monitoring_env *env) {
    char trace[129], span[17], parent[56];
    if (!sdk || !env)
        return MON_EINVAL;
    current_scope(sdk, trace, span);
    memset(env, 0, sizeof *env);
    if (!*trace)
        return MON_OK;
    mon_put_traceparent(trace, span, parent);
    snprintf(env->trace_id, sizeof env->trace_id, "WAFERMON_TRACE_ID=%s", trace);
    snprintf(env->traceparent, sizeof env->traceparent, "TRACEPARENT=%s", parent);
    snprintf(env->span_id, sizeof env->span_id, "WAFERMON_SPAN_ID=%s", span);
    env->variables[0] = env->trace_id;
    env->variables[1] = *span ? env->span_id : env->traceparent;
    env->variables[2] = *span ? env->traceparent : NULL;
    return MON_OK;
}

int monitoring_get_stats(monitoring_sdk *sdk, monitoring_stats *stats) {
    if (!sdk || !stats)
        return MON_EINVAL;
    mon_lock(sdk);
    *stats = sdk->stats;
    stats->waiting = (unsigned long long)mon_waiting(sdk);
    stats->state = mon_is_full(sdk) ? "overflow" : sdk->main.phase == OPEN ? "connected" : "disconnected";
    mon_unlock(sdk);
    return MON_OK;
}

int monitoring_flush(monitoring_sdk *sdk, int milliseconds) {
    long long deadline = millis() + (milliseconds < 0 ? 5000 : milliseconds);
    if (!sdk)
        return MON_EINVAL;
    mon_lock(sdk);
    mon_wake_sender(sdk);
    while (mon_waiting(sdk) && mon_wait_news(sdk, deadline))
        continue;
    int result = mon_waiting(sdk) ? MON_ETIMEOUT : MON_OK;
    mon_unlock(sdk);
    return result;
}

/* ---- open, close, fork, exit ---- */

/* Tell the final figures and wait for their acknowledgement, a moment at least. */
static void say_goodbye(monitoring_sdk *sdk, long long deadline) {
    struct stream *stream = &sdk->main;
    long long least = millis() + FAREWELL;
    mon_tell_stats(sdk, 1);
    mon_wake_sender(sdk);
    while (sdk->stats_lines && stream->phase == OPEN && mon_wait_news(sdk, deadline > least ? deadline : least))
        continue;
}

int monitoring_close(monitoring_sdk *sdk, int milliseconds) {
    long long deadline = millis() + (milliseconds < 0 ? 2000 : milliseconds);
    if (!sdk)
        return MON_EINVAL;
    /* Where another thread is at it, wait for that one: the process may end afterwards. */
    mon_lock(sdk);
    if (sdk->closed) {
        while (sdk->main.ring && mon_wait_news(sdk, deadline))
            continue;
        mon_unlock(sdk);
        return MON_OK;
    }
    int ran = sdk->running;
    sdk->closed = 1;
    mon_wake_sender(sdk);
    /* A first attempt that is still under way is worth waiting for: short programs end before it has succeeded. */
    while (ran && mon_waiting(sdk) && !(sdk->main.phase == RESTING && sdk->main.attempts)
           && mon_wait_news(sdk, deadline))
        continue;
    if (ran && !mon_waiting(sdk))
        say_goodbye(sdk, deadline);
    sdk->stopping = 1;
    mon_wake_sender(sdk);
    /* It goes at once, unless it looks up a name, which nothing can interrupt; then it touches nothing any more. */
    for (long long patience = millis() + 1000; ran && !sdk->gone && mon_wait_news(sdk, patience);)
        continue;
    sdk->running = ran && !sdk->gone;
    mon_leave(sdk, deadline < millis() + FAREWELL ? deadline : millis() + FAREWELL);
    int stuck = sdk->running;
    mon_unlock(sdk);
    if (stuck)
        pthread_detach(sdk->sender);
    else if (ran) {
        pthread_join(sdk->sender, NULL);
        close(sdk->wake[0]);
        close(sdk->wake[1]);
    }
    return MON_OK;
}

void monitoring_free(monitoring_sdk *sdk) {
    if (monitoring_close(sdk, -1))
        return;
    pthread_mutex_lock(&handles_mutex);
    monitoring_sdk **link = &handles;
    while (*link != sdk)
        link = &(*link)->next;
    *link = sdk->next;
    TLS(sdk->tls && !sdk->running, monitoring_tls_close(sdk->tls), (void)0);
    pthread_mutex_unlock(&handles_mutex);
    for (struct span *span; (span = take_span(sdk, NULL));)
        free_span(span);
    pthread_key_delete(sdk->thread);
    free(sdk->token);
    if (!sdk->running) {
        /* else a stuck sender will come back to it */
        pthread_mutex_destroy(&sdk->mutex);
        pthread_cond_destroy(&sdk->news);
        free(sdk);
    }
}

static void each_handle(void (*act)(monitoring_sdk *)) {
    for (monitoring_sdk *sdk = handles; sdk; sdk = sdk->next)
        act(sdk);
}
static void hold(monitoring_sdk *sdk) {
    mon_lock(sdk);
    TLS(sdk->tls, monitoring_tls_hold(sdk->tls), (void)0);
}
static void let_go(monitoring_sdk *sdk) {
    TLS(sdk->tls, monitoring_tls_let_go(sdk->tls), (void)0);
    mon_unlock(sdk);
}
static void before_fork(void) {
    if (is_child())
        begin_in_child();
    pthread_mutex_lock(&handles_mutex);
    each_handle(hold);
}
static void after_fork(void) {
    each_handle(let_go);
    pthread_mutex_unlock(&handles_mutex);
}

/* Who we are and where we start: at open and in a forked child. */
static void begin(monitoring_sdk *sdk) {
    sdk->pid = getpid();
    sdk->cpu = micros(CLOCK_PROCESS_CPUTIME_ID);
    sdk->cpu_at = micros(CLOCK_MONOTONIC);
    const monitoring_field fields[] = { STRING("service", sdk->service), STRING("host", sdk->host),
                                        INTEGER("pid", sdk->pid) };
    sdk->origin[mon_put_fields((struct text){ sdk->origin, sizeof sdk->origin }, 0, ",", fields, 3, NULL, 0)] = '\0';
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&sdk->news, &clock);
    pthread_condattr_destroy(&clock);
    mon_make_id(sdk->main.client);
    sdk->main.fd = sdk->spill.fd = -1;
    sdk->main.active = sdk->main.first = sdk->main.next = sdk->main.given = 1;
}

/* In the child: empty, and without a sender, which the first call starts. */
static void begin_again(monitoring_sdk *sdk) {
    char *ring = sdk->main.ring;
    if (sdk->closed) {
        free(ring);
        ring = NULL;
    }
    if (sdk->running) {
        close(sdk->wake[0]);
        close(sdk->wake[1]);
    }
    mon_hang_up(&sdk->main);
    mon_forget_addresses(&sdk->main);
    free(sdk->main.frame);
    mon_end_spill_stream(sdk);
    mon_drop_ring(&sdk->spill); /* which the sender may have been filling */
    while (sdk->file_count)
        mon_forget_oldest_file(sdk);
    memset(&sdk->main, 0, offsetof(struct stream, out));
    memset(&sdk->stats, 0, sizeof sdk->stats);
    sdk->main.ring = ring;
    sdk->main.ring_size = RING;
    sdk->in_spill = 0;
    sdk->unreported = sdk->told = 0;
    sdk->tell_at = sdk->stats_lines = 0;
    sdk->finished = sdk->stream_count = 0;
    sdk->writing = sdk->running = sdk->stopping = sdk->gone = sdk->asleep = 0;
    begin(sdk);
    for (struct span *span = sdk->spans; span; span = span->next)
        span->inherited = 1;
}

/* This is a process that has its handles for itself. */
static void note_process(void) {
#ifdef MADV_WIPEONFORK
    static const size_t size = 4096;
    if (!page) {
        void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped != MAP_FAILED && madvise(mapped, size, MADV_WIPEONFORK) == 0)
            page = mapped;
        else if (mapped != MAP_FAILED)
            munmap(mapped, size);
    }
    if (page)
        *page = 1;
#endif
    __atomic_store_n(&process, getpid(), __ATOMIC_RELEASE);
}

/*
 * What the sender held when the fork came is held for ever, and what it was about may be half done: locks are new. What it had allocated is
 * left alone, since an allocator's lock may be held too.
 */
static void renew(monitoring_sdk *sdk) {
    pthread_mutex_init(&sdk->mutex, NULL);
    TLS(sdk->tls, monitoring_tls_renew(sdk->tls), (void)0);
    sdk->main.session = sdk->spill.session = NULL;
    sdk->main.found = sdk->spill.found = NULL;
    sdk->main.frame = sdk->spill.frame = sdk->spill.ring = NULL;
    begin_again(sdk);
}

/* In a child that was forked without the hooks. The first thread that calls does it, others wait. */
static void begin_in_child(void) {
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    pid_t parent = __atomic_load_n(&process, __ATOMIC_ACQUIRE);
    if (parent < 0 || !__atomic_compare_exchange_n(&process, &parent, -1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        while (__atomic_load_n(&process, __ATOMIC_ACQUIRE) < 0)
            sched_yield();
        return;
    }
    handles_mutex = fresh;
    each_handle(renew);
    note_process();
}

static void after_fork_in_child(void) {
    if (!is_child())
        return; /* the hook of another library, which ran first, has called */
    note_process();
    each_handle(begin_again);
    after_fork();
}

static void close_finally(monitoring_sdk *sdk) {
    monitoring_close(sdk, -1);
}
static void at_exit(void) {
    if (is_child())
        begin_in_child();
    pthread_mutex_lock(&handles_mutex);
    each_handle(close_finally);
    pthread_mutex_unlock(&handles_mutex);
}

static int is_tls(const char *url) {
    return strncmp(url, "tls://", 6) == 0;
}

/* False: not one of the forms that monitoring_sdk.h names. */
static int read_url(monitoring_sdk *sdk, const char *url) {
    int end = 0;
    if (strncmp(url, "unix:///", 8) == 0 && strlen(url + 7) < sizeof sdk->unix_path)
        return strcpy(sdk->unix_path, url + 7) != NULL;
    if (strncmp(url, "tcp://", 6) != 0 && !TLS(1, is_tls(url), 0))
        return 0;
    if (sscanf(url += 6, "%255[^][:/ ]:%5[0-9]%n", sdk->tcp_host, sdk->tcp_port, &end) != 2)
        end = 0;
    if (!end && sscanf(url, "[%255[^][/ ]]:%5[0-9]%n", sdk->tcp_host, sdk->tcp_port, &end) != 2)
        end = 0;
    return end && !url[end] && atoi(sdk->tcp_port) > 0 && atoi(sdk->tcp_port) < 65536;
}

static void read_trace(monitoring_sdk *sdk, const char *given) {
    const char *parent = setting(NULL, "TRACEPARENT"), *trace_id = setting(given, "WAFERMON_TRACE_ID"),
               *span_id = setting(NULL, "WAFERMON_SPAN_ID");
    char trace[33] = "", span[17] = "";
    if (!parent || strlen(parent) < 55 || sscanf(parent, "%*2[0-9a-f]-%32[0-9a-f]-%16[0-9a-f]-", trace, span) != 2)
        *trace = *span = '\0';
    if (!mon_is_hex(trace, 32) || !mon_is_hex(span, 16))
        *trace = *span = '\0';
    strcpy(sdk->trace_id, mon_is_trace_id(trace_id) ? trace_id : trace);
    if (span_id && mon_is_hex(span_id, 16) && !span_id[16])
        strcpy(sdk->parent_id, span_id);
    else if (strcmp(sdk->trace_id, trace) == 0)
        strcpy(sdk->parent_id, span); /* a span of another trace is no parent */
}

/* The url, and whether it is for TLS; one that can't be used warns, and the default serves. */
static int choose_url(monitoring_sdk *sdk, const char *given) {
    const char *url = setting(given, "WAFERMON_URL");
    if (url && read_url(sdk, url))
        return is_tls(url);
    if (url && TLS(1, 0, is_tls(url)))
        mon_warn_once(sdk, "built without TLS: make TLS=1; the default serves", url);
    else if (url)
        mon_warn_once(sdk, "bad url, tcp://127.0.0.1:7411 serves", url);
    read_url(sdk, "tcp://127.0.0.1:7411");
    return 0;
}

static void choose_spill_dir(monitoring_sdk *sdk, const char *given) {
    static const char spool[] = "/var/spool/wafermon";
    const char *dir = setting(given, "WAFERMON_SPILL_DIR");
    if (!dir && access(spool, W_OK | X_OK) == 0)
        dir = spool;
    sdk->spill_shared = !dir;
    if (dir)
        snprintf(sdk->spill_dir, sizeof sdk->spill_dir, "%s", dir);
    else
        snprintf(sdk->spill_dir, sizeof sdk->spill_dir, "/tmp/wafermon-%ld", (long)geteuid());
}

static void choose_codec(monitoring_sdk *sdk) {
    const char *codec = setting(NULL, "WAFERMON_COMPRESS");
    if (!codec || strcmp(codec, "zlib") != 0)
        return;
    sdk->compress = ZLIB(1, 0);
    if (!sdk->compress)
        mon_warn_once(sdk, "built without zlib, so lines go uncompressed", "make ZLIB=1");
}

/* What the options and the environment say; whether it is TLS. */
static int configure(monitoring_sdk *sdk, const monitoring_options *options) {
    const char *token = setting(options->token, "WAFERMON_TOKEN"), *buffer = getenv("WAFERMON_BUFFER");
    const char *disabled = setting(NULL, "WAFERMON_DISABLED");
    sdk->buffer = options->buffer ? options->buffer : buffer && atoi(buffer) > 0 ? atoi(buffer) : 1000;
    sdk->token = token ? strdup(token) : NULL;
    sdk->disabled =
        disabled && !is_one_of(disabled, (const char *[]){ "0", "false", "no", "False", "No", "FALSE", "NO", NULL });
    gethostname(sdk->host, sizeof sdk->host - 1);
    choose_spill_dir(sdk, options->spill_dir);
    read_trace(sdk, options->trace_id);
    int secure = choose_url(sdk, options->url);
    choose_codec(sdk);
    return secure;
}

/* Let forks and the end of the program find the handle. */
static void enlist(monitoring_sdk *sdk, int secure) {
    if (is_child())
        begin_in_child();
    pthread_mutex_lock(&handles_mutex);
    if (!process)
        note_process();
    if (!hooked)
        hooked = pthread_atfork(before_fork, after_fork, after_fork_in_child) == 0 && atexit(at_exit) == 0;
    sdk->tls = TLS(secure, monitoring_tls_open(sdk->tcp_host), NULL);
    if (sdk->tls && hooked == 1)
        hooked += atexit(at_exit) == 0; /* once more, since what is registered last runs first: before OpenSSL's end */
    sdk->next = handles;
    handles = sdk;
    pthread_mutex_unlock(&handles_mutex);
    (void)secure; /* of no use without TLS */
}

/* Whether it is a service's name; sidecars call themselves wafermon. */
static int is_service(const char *name) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:";
    return name && strlen(name) <= 128 && !name[strspn(name, letters)] && strcmp(name, "wafermon") != 0;
}

int monitoring_open(monitoring_sdk **result, const monitoring_options *given) {
    monitoring_options options = given ? *given : (monitoring_options){ 0 };
    if (!result)
        return MON_EINVAL;
    *result = NULL;
    if (options.buffer < 0)
        return MON_EINVAL;
    const char *service = setting(setting(options.service, "WAFERMON_SERVICE"), "OTEL_SERVICE_NAME");
    if (!is_service(service))
        return MON_ESERVICE;
    if (options.trace_id && !mon_is_trace_id(options.trace_id))
        return MON_ETRACE;
    monitoring_sdk *sdk = calloc(1, sizeof *sdk);
    if (!sdk || !(sdk->main.ring = malloc(RING + MAX_LINE + SUFFIX))) {
        free(sdk);
        return MON_ENOMEM;
    }
    if (pthread_key_create(&sdk->thread, NULL)) {
        free(sdk->main.ring);
        free(sdk);
        return MON_ENOMEM;
    }
    sdk->main.ring_size = RING;
    pthread_mutex_init(&sdk->mutex, NULL);
    strcpy(sdk->service, service);
    int secure = configure(sdk, &options) && !sdk->disabled;
    begin(sdk);
    enlist(sdk, secure);
    if (secure && !sdk->tls) {
        sdk->disabled = 1;
        monitoring_free(sdk);
        return MON_ENOMEM;
    }
    mon_lock(sdk);
    if (!sdk->disabled)
        mon_start_sender(sdk);
    mon_unlock(sdk);
    *result = sdk;
    return MON_OK;
}

const char *monitoring_strerror(int error) {
    static const char *const texts[] = { "no error",
                                         "a missing or bad argument",
                                         "no service, or not 1-128 of A-Z a-z 0-9 . _ - :",
                                         "unknown level",
                                         "an empty name",
                                         "a trace or job id has 1-128 printable ASCII characters without space",
                                         "percent is not within 0-100",
                                         "bad status",
                                         "no open span has this id",
                                         "messages are still waiting",
                                         "out of memory" };
    return error <= 0 && error >= MON_ENOMEM ? texts[-error] : "unknown error";
}
