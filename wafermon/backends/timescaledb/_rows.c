/* Stored lines -> the input of COPY ... (FORMAT binary), a buffer for each type of message.

   A line is one JSON object, as the journal holds it: read strictly once already, and ended by a newline. Only plain lines
   are taken. Whatever PostgreSQL might read in another way than this file does (an escape that it refuses, a number of
   another form than the column's, a field that is missing, a message of the sidecar's own) goes to `rest` as it came, and
   from there to the statement that has the server read JSON. So a line is never altered here and never lost.

   What progress says of each job is added up besides, for the statement to keep the state of jobs by.

   Nothing is read beyond a line's newline, whatever the line holds. The GIL is released meanwhile. */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <float.h>
#include <locale.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the tables --------------------------------------------------------------------------------------------------- */

enum form {
    TEXT,     /* a string */
    WHOLE,    /* a whole number: bigint */
    BOOLEAN,
    NUMBER,   /* float8 */
    VALUE,    /* a number, or one of the strings NaN, Infinity and -Infinity: float8 */
    SECONDS,  /* microseconds: float8 of seconds */
    OBJECT,   /* jsonb */
    TIME      /* microseconds since the Unix epoch: timestamptz */
};

enum presence { OPTIONAL, NEEDED };

typedef struct {
    const char *field;   /* in the line */
    size_t length;       /* of that */
    const char *column;  /* of the table */
    enum form form;
    enum presence presence;
} Column;

#define NAMED(text) text, sizeof text - 1
#define HEAD \
    {NAMED("ts"), "time", TIME, NEEDED}, {NAMED("service"), "service", TEXT, NEEDED}, {NAMED("host"), "host", TEXT, OPTIONAL}, \
    {NAMED("pid"), "pid", WHOLE, OPTIONAL}
#define IDS(presence) {NAMED("trace_id"), "trace_id", TEXT, presence}, {NAMED("span_id"), "span_id", TEXT, presence}
#define TAIL \
    {NAMED("client"), "client", TEXT, OPTIONAL}, {NAMED("seq"), "seq", WHOLE, OPTIONAL}, {NAMED("truncated"), "truncated", BOOLEAN, OPTIONAL}
#define MOST_COLUMNS 16

typedef struct {
    const char *name;
    Column columns[MOST_COLUMNS];
} Type;

static const Type TYPES[] = {
    {"event", {HEAD, IDS(OPTIONAL), TAIL, {NAMED("level"), "level", TEXT, NEEDED}, {NAMED("message"), "message", TEXT, NEEDED},
               {NAMED("context"), "context", OBJECT, OPTIONAL}}},
    {"metric", {HEAD, IDS(OPTIONAL), TAIL, {NAMED("name"), "name", TEXT, NEEDED}, {NAMED("value"), "value", VALUE, NEEDED},
                {NAMED("unit"), "unit", TEXT, OPTIONAL}, {NAMED("kind"), "kind", TEXT, OPTIONAL}, {NAMED("tags"), "tags", OBJECT, OPTIONAL}}},
    {"progress", {HEAD, IDS(OPTIONAL), TAIL, {NAMED("job_id"), "job_id", TEXT, NEEDED}, {NAMED("percent"), "percent", NUMBER, NEEDED},
                  {NAMED("status"), "status", TEXT, OPTIONAL}}},
    {"resource", {HEAD, IDS(OPTIONAL), TAIL, {NAMED("cpu"), "cpu", NUMBER, OPTIONAL}, {NAMED("mem"), "mem", NUMBER, OPTIONAL},
                  {NAMED("disk"), "disk", NUMBER, OPTIONAL}, {NAMED("net"), "net", NUMBER, OPTIONAL}}},
    {"span_start", {HEAD, IDS(NEEDED), TAIL, {NAMED("name"), "name", TEXT, NEEDED}, {NAMED("parent_id"), "parent_id", TEXT, OPTIONAL},
                    {NAMED("tags"), "tags", OBJECT, OPTIONAL}}},
    {"span_end", {HEAD, IDS(NEEDED), TAIL, {NAMED("name"), "name", TEXT, NEEDED}, {NAMED("parent_id"), "parent_id", TEXT, OPTIONAL},
                  {NAMED("status"), "status", TEXT, NEEDED}, {NAMED("start"), "start", TIME, NEEDED},
                  {NAMED("duration"), "duration", SECONDS, NEEDED}, {NAMED("tags"), "tags", OBJECT, OPTIONAL}}},
};
#define TYPE_COUNT ((int)(sizeof TYPES / sizeof *TYPES))
#define REST TYPE_COUNT

/* What a metric is whose line does not say it. */
static const char GAUGE[] = "\"gauge\"";
/* Whose events change the state of jobs, which is the statement's work. */
static const char OWN_SERVICE[] = "\"wafermon\"";
/* Among TYPES, and among the columns of each or of progress. */
enum { EVENT = 0, PROGRESS = 2 };
enum { TS = 0, SERVICE = 1, TRACE_ID = 4, SEQ = 7, JOB_ID = 9, PERCENT = 10, STATUS = 11 };

/* --- reading a line ----------------------------------------------------------------------------------------------- */

#define MOST_FIELDS 64
#define DEEPEST 200

/* Characters from `at` to before `end`; a string has its quotes. `at` is NULL where there is nothing. */
typedef struct {
    const char *at;
    const char *end;
} Piece;

static int is(Piece piece, const char *text)
{
    size_t length = strlen(text);
    return (size_t)(piece.end - piece.at) == length && memcmp(piece.at, text, length) == 0;
}

static int hexadecimal(const char *p)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* How many of eight characters come before the first that is a quote, a backslash or below a space; 8 where none is. What is
   subtracted borrows from later characters alone, so that the first one that is found is one. */
static int plain_of_eight(const char *p)
{
    const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
    uint64_t word;
    memcpy(&word, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    uint64_t quote = word ^ (ones * '"'), backslash = word ^ (ones * '\\');
    uint64_t found = (((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) | ((word - ones * 32) & ~word)) & highs;
    return found == 0 ? 8 : __builtin_ctzll(found) / 8;
}

/* From a string's first quote to past its last one; NULL where it is none that PostgreSQL takes. */
static const char *past_string(const char *p, const char *end)
{
    p++;
    for (;;) {
        int plain = 8;
        while (plain == 8 && end - p >= 8) {
            plain = plain_of_eight(p);
            p += plain;
        }
        if (p >= end)
            return NULL;
        unsigned char c = (unsigned char)*p;
        if (c == '"')
            return p + 1;
        if (c < 32)
            return NULL;
        if (c != '\\') {
            p++;
            continue;
        }
        if (end - p < 2)
            return NULL;
        if (p[1] != 'u') {
            if (memchr("\"\\/bfnrt", p[1], 8) == NULL)
                return NULL;
            p += 2;
            continue;
        }
        if (end - p < 6)
            return NULL;
        int code = hexadecimal(p + 2);
        p += 6;
        if (code <= 0 || (code >= 0xDC00 && code <= 0xDFFF)) /* NUL, or half of a pair */
            return NULL;
        if (code >= 0xD800 && code <= 0xDBFF) {
            if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
                return NULL;
            code = hexadecimal(p + 2);
            if (code < 0xDC00 || code > 0xDFFF)
                return NULL;
            p += 6;
        }
    }
}

static const char *past_digits(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9')
        p++;
    return p;
}

static const char *past_number(const char *p, const char *end)
{
    const char *digits;
    if (p < end && *p == '-')
        p++;
    digits = p;
    p = past_digits(p, end);
    if (p == digits || (*digits == '0' && p - digits > 1))
        return NULL;
    if (p < end && *p == '.') {
        digits = ++p;
        p = past_digits(p, end);
        if (p == digits)
            return NULL;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        digits = p;
        p = past_digits(p, end);
        if (p == digits)
            return NULL;
    }
    return p;
}

/* From the bracket that opens an object or array to past the one that closes it. What is within is PostgreSQL's to read. */
static const char *past_container(const char *p, const char *end)
{
    int depth = 0;
    while (p < end) {
        switch (*p) {
        case '"':
            p = past_string(p, end);
            if (p == NULL)
                return NULL;
            continue;
        case '{':
        case '[':
            if (++depth > DEEPEST)
                return NULL;
            break;
        case '}':
        case ']':
            if (--depth == 0)
                return p + 1;
            break;
        }
        p++;
    }
    return NULL;
}

static const char *past_value(const char *p, const char *end)
{
    if (p >= end)
        return NULL;
    switch (*p) {
    case '"':
        return past_string(p, end);
    case '{':
    case '[':
        return past_container(p, end);
    case 't':
        return end - p >= 4 && memcmp(p, "true", 4) == 0 ? p + 4 : NULL;
    case 'f':
        return end - p >= 5 && memcmp(p, "false", 5) == 0 ? p + 5 : NULL;
    case 'n':
        return end - p >= 4 && memcmp(p, "null", 4) == 0 ? p + 4 : NULL;
    default:
        return past_number(p, end);
    }
}

static const char *past_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r'))
        p++;
    return p;
}

typedef struct {
    int count;
    Piece names[MOST_FIELDS];   /* without their quotes */
    Piece values[MOST_FIELDS];
} Fields;

/* The fields of a line; false where it is not as plain as it has to be. */
static int read_fields(const char *p, const char *end, Fields *fields)
{
    fields->count = 0;
    p = past_space(p, end);
    if (p >= end || *p != '{')
        return 0;
    p = past_space(p + 1, end);
    for (;;) {
        if (p >= end || *p != '"' || fields->count == MOST_FIELDS)
            return 0;
        const char *name = p + 1;
        p = past_string(p, end);
        if (p == NULL || memchr(name, '\\', (size_t)(p - 1 - name)) != NULL)
            return 0;
        fields->names[fields->count] = (Piece){name, p - 1};
        p = past_space(p, end);
        if (p >= end || *p != ':')
            return 0;
        const char *value = past_space(p + 1, end);
        p = past_value(value, end);
        if (p == NULL)
            return 0;
        fields->values[fields->count++] = (Piece){value, p};
        p = past_space(p, end);
        if (p < end && *p == '}')
            return past_space(p + 1, end) == end;
        if (p >= end || *p != ',')
            return 0;
        p = past_space(p + 1, end);
    }
}

/* --- values ------------------------------------------------------------------------------------------------------- */

static int read_whole(Piece piece, int64_t *number)
{
    const char *p = piece.at;
    int negative = *p == '-';
    int64_t value = 0;
    p += negative;
    if (p == piece.end || piece.end - p > 18)
        return 0;
    for (; p < piece.end; p++) {
        if (*p < '0' || *p > '9')
            return 0;
        value = value * 10 + (*p - '0');
    }
    *number = negative ? -value : value;
    return 1;
}

static locale_t plain_locale;

/* A double, rounded as strtod does, whatever the process's locale. Few digits and a small power of ten are exact, so that
   one operation on them is rounded rightly. */
static int read_double(Piece piece, double *number)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const char *p = piece.at;
    if (p == piece.end || !(*p == '-' || (*p >= '0' && *p <= '9')))
        return 0;
    int negative = *p == '-', digits = 0, exponent = 0;
    int64_t value = 0;
    for (p += negative; p < piece.end && *p >= '0' && *p <= '9' && digits < 16; p++, digits++)
        value = value * 10 + (*p - '0');
    if (p < piece.end && *p == '.')
        for (p++; p < piece.end && *p >= '0' && *p <= '9' && digits < 16; p++, digits++, exponent++)
            value = value * 10 + (*p - '0');
    if (FLT_EVAL_METHOD == 0 && p == piece.end && digits < 16) {
        *number = (double)value / powers[exponent];
        if (negative)
            *number = -*number;
        return 1;
    }
    char text[64], *stop;
    size_t length = (size_t)(piece.end - piece.at);
    if (length >= sizeof text)
        return 0;
    memcpy(text, piece.at, length);
    text[length] = 0;
    errno = 0;
    *number = strtod_l(text, &stop, plain_locale);
    return errno == 0 && *stop == 0;
}

/* The characters that a string stands for; where they end. It is known to be a good one. */
static char *write_string(Piece piece, char *out)
{
    const char *p = piece.at + 1, *end = piece.end - 1;
    const char *escape = memchr(p, '\\', (size_t)(end - p));
    while (escape != NULL) {
        memcpy(out, p, (size_t)(escape - p));
        out += escape - p;
        p = escape + 2;
        switch (escape[1]) {
        case 'b':
            *out++ = '\b';
            break;
        case 'f':
            *out++ = '\f';
            break;
        case 'n':
            *out++ = '\n';
            break;
        case 'r':
            *out++ = '\r';
            break;
        case 't':
            *out++ = '\t';
            break;
        case 'u': {
            unsigned code = (unsigned)hexadecimal(p);
            p += 4;
            if (code >= 0xD800 && code <= 0xDBFF) {
                code = 0x10000 + ((code - 0xD800) << 10) + ((unsigned)hexadecimal(p + 2) - 0xDC00);
                p += 6;
            }
            if (code < 0x80) {
                *out++ = (char)code;
            } else if (code < 0x800) {
                *out++ = (char)(0xC0 | code >> 6);
                *out++ = (char)(0x80 | (code & 63));
            } else if (code < 0x10000) {
                *out++ = (char)(0xE0 | code >> 12);
                *out++ = (char)(0x80 | (code >> 6 & 63));
                *out++ = (char)(0x80 | (code & 63));
            } else {
                *out++ = (char)(0xF0 | code >> 18);
                *out++ = (char)(0x80 | (code >> 12 & 63));
                *out++ = (char)(0x80 | (code >> 6 & 63));
                *out++ = (char)(0x80 | (code & 63));
            }
            break;
        }
        default:
            *out++ = escape[1];
        }
        escape = memchr(p, '\\', (size_t)(end - p));
    }
    memcpy(out, p, (size_t)(end - p));
    return out + (end - p);
}

static char *write_int16(char *out, uint16_t value)
{
    out[0] = (char)(value >> 8);
    out[1] = (char)value;
    return out + 2;
}

static char *write_int32(char *out, uint32_t value)
{
    out = write_int16(out, (uint16_t)(value >> 16));
    return write_int16(out, (uint16_t)value);
}

/* Eight bytes, with their length before them. */
static char *write_int64(char *out, uint64_t value)
{
    out = write_int32(out, 8);
    out = write_int32(out, (uint32_t)(value >> 32));
    return write_int32(out, (uint32_t)value);
}

static char *write_double(char *out, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, 8);
    return write_int64(out, bits);
}

#define YEAR_2000 946684800000000
#define MOST_TIME 9007199254740992 /* 2^53: the server multiplies times as doubles */
#define NOT_A_NUMBER 0x7FF8000000000000u
#define INFINITE 0x7FF0000000000000u
#define MINUS 0x8000000000000000u

/* A value as its column takes it; where it ends, or NULL where it is of another form. It takes no more room than the value
   itself and 16 bytes. */
static char *write_value(enum form form, Piece piece, char *out)
{
    int64_t whole;
    double number;
    size_t length = (size_t)(piece.end - piece.at);
    switch (form) {
    case TEXT: {
        if (*piece.at != '"')
            return NULL;
        char *end = write_string(piece, out + 4);
        write_int32(out, (uint32_t)(end - out - 4));
        return end;
    }
    case WHOLE:
        return read_whole(piece, &whole) ? write_int64(out, (uint64_t)whole) : NULL;
    case TIME:
        if (!read_whole(piece, &whole) || whole < 0 || whole > MOST_TIME)
            return NULL;
        return write_int64(out, (uint64_t)(whole - YEAR_2000));
    case BOOLEAN:
        if (*piece.at != 't' && *piece.at != 'f')
            return NULL;
        out = write_int32(out, 1);
        *out++ = *piece.at == 't';
        return out;
    case VALUE:
        if (is(piece, "\"NaN\""))
            return write_int64(out, NOT_A_NUMBER);
        if (is(piece, "\"Infinity\""))
            return write_int64(out, INFINITE);
        if (is(piece, "\"-Infinity\""))
            return write_int64(out, INFINITE | MINUS);
        return read_double(piece, &number) ? write_double(out, number) : NULL;
    case NUMBER:
        return read_double(piece, &number) ? write_double(out, number) : NULL;
    case SECONDS:
        if (!read_double(piece, &number) || (number != 0 && number / 1e6 == 0))
            return NULL;
        return write_double(out, number / 1e6);
    case OBJECT:
        if (*piece.at != '{')
            return NULL;
        out = write_int32(out, (uint32_t)length + 1);
        *out++ = 1; /* the version of jsonb's binary form: JSON follows */
        memcpy(out, piece.at, length);
        return out + length;
    }
    return NULL;
}

/* --- rows --------------------------------------------------------------------------------------------------------- */

typedef struct {
    char *bytes;
    size_t size;
    size_t room;
    Py_ssize_t rows;
} Buffer;

/* Room for so many bytes more; false where there is no memory. */
static int reserve(Buffer *buffer, size_t more)
{
    if (buffer->room - buffer->size >= more)
        return 1;
    size_t room = buffer->room * 2 + more + 65536;
    char *bytes = realloc(buffer->bytes, room);
    if (bytes == NULL)
        return 0;
    buffer->bytes = bytes;
    buffer->room = room;
    return 1;
}

static int append(Buffer *buffer, const char *bytes, size_t size)
{
    if (!reserve(buffer, size))
        return 0;
    memcpy(buffer->bytes + buffer->size, bytes, size);
    buffer->size += size;
    return 1;
}

static int column_count(const Type *type)
{
    int count = 0;
    while (count < MOST_COLUMNS && type->columns[count].field != NULL)
        count++;
    return count;
}

/* The index of the type of message, or REST. Of several fields of one name the last counts, as it does for PostgreSQL. */
static int type_of(const Fields *fields)
{
    Piece type = {NULL, NULL};
    for (int i = 0; i < fields->count; i++)
        if (is(fields->names[i], "type"))
            type = fields->values[i];
    if (type.at == NULL || *type.at != '"')
        return REST;
    Piece name = {type.at + 1, type.end - 1};
    for (int i = 0; i < TYPE_COUNT; i++)
        if (is(name, TYPES[i].name))
            return i;
    return REST;
}

/* Each column's value. Lines of one program have their fields in one order, mostly that of the columns. */
static void by_column(const Type *type, int count, const Fields *fields, Piece *values)
{
    int next = 0;
    memset(values, 0, sizeof *values * MOST_COLUMNS);
    for (int i = 0; i < fields->count; i++) {
        Piece name = fields->names[i];
        for (int tried = 0; tried < count; tried++) {
            int column = next + tried < count ? next + tried : next + tried - count;
            const Column *one = &type->columns[column];
            if ((size_t)(name.end - name.at) == one->length && memcmp(name.at, one->field, one->length) == 0) {
                values[column] = fields->values[i];
                next = column + 1 < count ? column + 1 : 0;
                break;
            }
        }
    }
}

/* --- jobs --------------------------------------------------------------------------------------------------------- */

#define MOST_JOBS 1024
#define JOB_SLOTS (4 * MOST_JOBS)

/* The progress of one job: numbers, and pieces of the lines as they are. */
typedef struct {
    Piece id;
    Piece trace_id;
    Py_ssize_t messages;
    int64_t first;
    int64_t last;
    int64_t last_seq;
    Piece percent;
    Piece service;
    Piece status;
    int64_t status_time;
    int64_t status_seq;
} Job;

typedef struct {
    int count;
    uint16_t slots[JOB_SLOTS]; /* the number of a job, from 1 on */
    Job jobs[MOST_JOBS];
} Jobs;

static int equal(Piece one, Piece other)
{
    size_t length = (size_t)(one.end - one.at);
    return (size_t)(other.end - other.at) == length && (length == 0 || memcmp(one.at, other.at, length) == 0);
}

static uint32_t hash(Piece piece, uint32_t value)
{
    for (const char *p = piece.at; p < piece.end; p++)
        value = (value ^ (unsigned char)*p) * 16777619u;
    return value;
}

/* The job of these ids, which may be new; NULL where there are too many. */
static Job *job_of(Jobs *jobs, Piece id, Piece trace_id)
{
    uint32_t slot = hash(trace_id, hash(id, 2166136261u)) % JOB_SLOTS;
    for (; jobs->slots[slot] != 0; slot = (slot + 1) % JOB_SLOTS) {
        Job *job = &jobs->jobs[jobs->slots[slot] - 1];
        if (equal(job->id, id) && equal(job->trace_id, trace_id))
            return job;
    }
    if (jobs->count == MOST_JOBS)
        return NULL;
    Job *job = &jobs->jobs[jobs->count++];
    jobs->slots[slot] = (uint16_t)jobs->count;
    memset(job, 0, sizeof *job);
    job->id = id;
    job->trace_id = trace_id;
    return job;
}

static int escaped(Piece piece)
{
    return piece.at != NULL && memchr(piece.at, '\\', (size_t)(piece.end - piece.at)) != NULL;
}

/* Add a line of progress, whose values were all taken; false where it has to be left. */
static int add_progress(Jobs *jobs, const Piece *values)
{
    int64_t time, seq = 0;
    if (escaped(values[JOB_ID]) || escaped(values[TRACE_ID]) || !read_whole(values[TS], &time))
        return 0;
    if (values[SEQ].at != NULL && !read_whole(values[SEQ], &seq))
        return 0;
    Job *job = job_of(jobs, values[JOB_ID], values[TRACE_ID]);
    if (job == NULL)
        return 0;
    if (job->messages == 0 || time < job->first)
        job->first = time;
    if (job->messages == 0 || time > job->last || (time == job->last && seq >= job->last_seq)) {
        job->last = time;
        job->last_seq = seq;
        job->percent = values[PERCENT];
        job->service = values[SERVICE];
    }
    if (values[STATUS].at != NULL
        && (job->status.at == NULL || time > job->status_time || (time == job->status_time && seq >= job->status_seq))) {
        job->status = values[STATUS];
        job->status_time = time;
        job->status_seq = seq;
    }
    job->messages++;
    return 1;
}

static int append_piece(Buffer *buffer, const char *name, Piece piece)
{
    return append(buffer, name, strlen(name))
        && (piece.at != NULL ? append(buffer, piece.at, (size_t)(piece.end - piece.at)) : append(buffer, "null", 4));
}

static int append_number(Buffer *buffer, const char *name, int64_t number)
{
    char text[32];
    int length = snprintf(text, sizeof text, "%lld", (long long)number);
    return append(buffer, name, strlen(name)) && append(buffer, text, (size_t)length);
}

/* Each job as a line of JSON; false where there is no memory. */
static int write_jobs(const Jobs *jobs, Buffer *buffer)
{
    for (int i = 0; i < jobs->count; i++) {
        const Job *job = &jobs->jobs[i];
        int done = append_piece(buffer, "{\"job_id\":", job->id) && append_piece(buffer, ",\"trace_id\":", job->trace_id)
            && append_number(buffer, ",\"first\":", job->first) && append_number(buffer, ",\"last\":", job->last)
            && append_number(buffer, ",\"last_seq\":", job->last_seq) && append_piece(buffer, ",\"percent\":", job->percent)
            && append_piece(buffer, ",\"service\":", job->service) && append_piece(buffer, ",\"status\":", job->status)
            && append_number(buffer, ",\"messages\":", job->messages);
        if (done && job->status.at != NULL)
            done = append_number(buffer, ",\"status_time\":", job->status_time)
                && append_number(buffer, ",\"status_seq\":", job->status_seq);
        if (!done || !append(buffer, "}\n", 2))
            return 0;
        buffer->rows++;
    }
    return 1;
}

/* --- batches ------------------------------------------------------------------------------------------------------ */

/* What a batch becomes: of each type its rows, then the lines that are left, then the jobs. */
#define BUFFERS (TYPE_COUNT + 2)
#define JOBS (TYPE_COUNT + 1)

enum outcome { TAKEN, LEFT, NO_MEMORY };

static enum outcome take_line(const char *line, const char *end, Buffer *buffers, Jobs **jobs)
{
    static const char header[19] = "PGCOPY\n\377\r\n";
    Fields fields;
    if (!read_fields(line, end, &fields))
        return LEFT;
    int index = type_of(&fields);
    if (index == REST)
        return LEFT;
    const Type *type = &TYPES[index];
    Buffer *buffer = &buffers[index];
    int count = column_count(type);
    Piece values[MOST_COLUMNS];
    by_column(type, count, &fields, values);
    Piece service = values[SERVICE];
    if (service.at == NULL || escaped(service))
        return LEFT;
    if (index == EVENT && is(service, OWN_SERVICE))
        return LEFT;
    if (!reserve(buffer, sizeof header + (size_t)(end - line) + 16 * MOST_COLUMNS + 2))
        return NO_MEMORY;
    if (buffer->size == 0)
        append(buffer, header, sizeof header);
    char *out = write_int16(buffer->bytes + buffer->size, (uint16_t)count);
    for (int i = 0; i < count; i++) {
        const Column *column = &type->columns[i];
        Piece value = values[i];
        if (value.at == NULL && strcmp(column->field, "kind") == 0)
            value = (Piece){GAUGE, GAUGE + sizeof GAUGE - 1};
        if (value.at == NULL) {
            if (column->presence == NEEDED)
                return LEFT;
            out = write_int32(out, UINT32_MAX); /* NULL */
            continue;
        }
        out = write_value(column->form, value, out);
        if (out == NULL)
            return LEFT;
    }
    if (index == PROGRESS) {
        if (*jobs == NULL)
            *jobs = calloc(1, sizeof **jobs);
        if (*jobs == NULL)
            return NO_MEMORY;
        if (!add_progress(*jobs, values))
            return LEFT;
    }
    buffer->size = (size_t)(out - buffer->bytes);
    buffer->rows++;
    return TAKEN;
}

/* False where there is no memory. */
static int take_lines(const char *line, const char *end, Buffer *buffers, Jobs **jobs)
{
    while (line < end) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        enum outcome outcome = take_line(line, newline, buffers, jobs);
        if (outcome == NO_MEMORY)
            return 0;
        if (outcome == LEFT) {
            if (!append(&buffers[REST], line, (size_t)(newline + 1 - line)))
                return 0;
            buffers[REST].rows++;
        }
        line = newline + 1;
    }
    for (int i = 0; i < TYPE_COUNT; i++)
        if (buffers[i].rows > 0 && !append(&buffers[i], "\377\377", 2))
            return 0;
    return *jobs == NULL || write_jobs(*jobs, &buffers[JOBS]);
}

/* --- the module --------------------------------------------------------------------------------------------------- */

static PyObject *made(Buffer *buffers)
{
    PyObject *result = PyDict_New();
    for (int i = 0; result != NULL && i < BUFFERS; i++) {
        if (buffers[i].rows == 0 && i < REST)
            continue;
        const char *name = i == REST ? "rest" : i == JOBS ? "jobs" : TYPES[i].name;
        PyObject *entry = Py_BuildValue("y#n", buffers[i].bytes != NULL ? buffers[i].bytes : "", (Py_ssize_t)buffers[i].size, buffers[i].rows);
        if (entry == NULL || PyDict_SetItemString(result, name, entry) < 0)
            Py_CLEAR(result);
        Py_XDECREF(entry);
    }
    return result;
}

static PyObject *shape(PyObject *module, PyObject *raw)
{
    (void)module;
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(raw, &bytes, &size) < 0)
        return NULL;
    if (size > 0 && bytes[size - 1] != '\n') {
        PyErr_SetString(PyExc_ValueError, "the last line is not ended by a newline");
        return NULL;
    }
    Buffer buffers[BUFFERS];
    Jobs *jobs = NULL;
    memset(buffers, 0, sizeof buffers);
    int done;
    Py_BEGIN_ALLOW_THREADS
    done = take_lines(bytes, bytes + size, buffers, &jobs);
    Py_END_ALLOW_THREADS
    PyObject *result = done ? made(buffers) : PyErr_NoMemory();
    for (int i = 0; i < BUFFERS; i++)
        free(buffers[i].bytes);
    free(jobs);
    return result;
}

/* COLUMNS: a type of message -> the columns that its rows have here, in order. */
static PyObject *columns(void)
{
    PyObject *result = PyDict_New();
    for (int i = 0; result != NULL && i < TYPE_COUNT; i++) {
        int count = column_count(&TYPES[i]);
        PyObject *names = PyTuple_New(count);
        for (int j = 0; names != NULL && j < count; j++) {
            PyObject *name = PyUnicode_FromString(TYPES[i].columns[j].column);
            if (name == NULL || PyTuple_SetItem(names, j, name) < 0)
                Py_CLEAR(names);
        }
        if (names == NULL || PyDict_SetItemString(result, TYPES[i].name, names) < 0)
            Py_CLEAR(result);
        Py_XDECREF(names);
    }
    return result;
}

static PyMethodDef METHODS[] = {
    {"shape", shape, METH_O,
     "shape(raw: bytes) -> dict[str, tuple[bytes, int]]\n\n"
     "Lines, each ended by a newline -> by type of message, COPY's input and its number of rows; under \"rest\" the lines "
     "that were not taken, as they are; under \"jobs\" a line of JSON for each job whose progress is among the rows. Raises ValueError where the last line has no newline."},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module)
{
    if (plain_locale == (locale_t)0)
        plain_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (plain_locale == (locale_t)0) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *known = columns();
    if (known == NULL || PyModule_AddObject(module, "COLUMNS", known) < 0) {
        Py_XDECREF(known);
        return -1;
    }
    return 0;
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, fill}, {0, NULL}};
static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "_rows", "Stored lines as the input of COPY.", 0, METHODS, SLOTS, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__rows(void)
{
    return PyModuleDef_Init(&MODULE);
}
