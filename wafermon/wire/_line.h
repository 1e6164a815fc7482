/* How a line is read, in C: its fields, its type, and whether it is good. No Python in it, so that a fuzzer can drive it alone.

   This says nothing of why a line is odd. Whatever is called good here has to be good to Python too (`wire/lines.py`), with the same
   kind, trace and numbers; tests/unit/wire/test_scan.py and tests/fuzz/scan.c compare both. Odd are also some lines that are allowed
   and rare: with escapes in names, with huge numbers, of stats.

   The passes that include it: _scan.c and _sums.c. */

#ifndef WAFERMON_LINE_H
#define WAFERMON_LINE_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

typedef unsigned char byte;

enum field {
    TYPE, V, TS, SERVICE, HOST, PID, TRACE_ID, SPAN_ID, CLIENT, SEQ, TRUNCATED, REPLAY_TO,
    LEVEL, MESSAGE, CONTEXT, NAME, VALUE, UNIT, TAGS, KIND, JOB_ID, PERCENT, STATUS,
    CPU, MEM, DISK, NET, PARENT_ID, START, DURATION, FIELDS
};
static const char *const FIELD_NAMES[FIELDS] = {
    "type", "v", "ts", "service", "host", "pid", "trace_id", "span_id", "client", "seq", "truncated", "replay_to",
    "level", "message", "context", "name", "value", "unit", "tags", "kind", "job_id", "percent", "status",
    "cpu", "mem", "disk", "net", "parent_id", "start", "duration"
};
enum sort { ABSENT, PLAIN /* a string that is what its bytes say */, TEXT /* one with escapes, or not ASCII */,
            INTEGER, FLOAT, TRUE_, FALSE_, NULL_, OBJECT, ARRAY };
enum type { EVENT, METRIC, PROGRESS, RESOURCE, SPAN_START, SPAN_END, TYPES };
static const char *const TYPE_NAMES[TYPES] = { "event", "metric", "progress", "resource", "span_start", "span_end" };
enum { LEVELS = 6, MAX_NESTING = 32, MAX_DIGITS = 18 };
static const char *const LEVEL_NAMES[LEVELS] = { "", "debug", "info", "warning", "error", "critical" };
static const int64_t TS_MIN = 946684800000000LL, TS_MAX = 7258118400000000LL, WHOLE_MAX = 1LL << 53;

struct value {
    const byte *at;
    uint32_t size;
    byte sort;
};
struct line {
    struct value fields[FIELDS];
    int type, level;
    int64_t ts, seq; /* 0 where there is none */
};

enum { OF_SERVICE = 1, PRINTABLE = 2, HEX = 4, SPACE = 8, DIGIT = 16 };

static byte CLASSES[256];
static byte BY_SIZE[16][8]; /* fields whose names are so long; each one more than its number */

/* Fill the tables; once, before anything else. */
static void prepare(void) {
    int found[16] = { 0 };
    for (int c = 0; c < 256; c++) {
        int digit = c >= '0' && c <= '9', small = c >= 'a' && c <= 'z', large = c >= 'A' && c <= 'Z';
        CLASSES[c] = (byte)((digit || small || large || (c && strchr("._:-", c)) ? OF_SERVICE : 0) |
                            (c >= '!' && c <= '~' ? PRINTABLE : 0) | (digit || (c >= 'a' && c <= 'f') ? HEX : 0) |
                            (c == ' ' || c == '\t' || c == '\r' ? SPACE : 0) | (digit ? DIGIT : 0));
    }
    memset(BY_SIZE, 0, sizeof BY_SIZE);
    for (int field = 0; field < FIELDS; field++) {
        size_t size = strlen(FIELD_NAMES[field]);
        BY_SIZE[size][found[size]++] = (byte)(field + 1);
    }
}

static int is(byte c, int class) {
    return CLASSES[c] & class;
}

static int all(const struct value *value, int class) {
    for (uint32_t i = 0; i < value->size; i++)
        if (!is(value->at[i], class))
            return 0;
    return 1;
}

static int says(const struct value *value, const char *text) {
    return value->sort == PLAIN && value->size == strlen(text) && !memcmp(value->at, text, value->size);
}

static const byte *skip_space(const byte *at, const byte *end) {
    while (at < end && is(*at, SPACE))
        at++;
    return at;
}

/* Four digits of \uXXXX; -1 where they are none. */
static int unit_of(const byte *at, const byte *end) {
    int unit = 0;
    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        byte c = at[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

/* After the backslash at `at`; NULL where no allowed escape stands there, or NUL. */
static const byte *skip_escape(const byte *at, const byte *end) {
    int unit;
    if (end - at < 2)
        return NULL;
    if (at[1] != 'u')
        return strchr("\"\\/bfnrt", at[1]) && at[1] ? at + 2 : NULL;
    unit = unit_of(at + 2, end);
    if (unit <= 0 || (unit >= 0xDC00 && unit <= 0xDFFF))
        return NULL;
    if (unit < 0xD800 || unit > 0xDBFF)
        return at + 6;
    if (end - at < 12 || at[6] != '\\' || at[7] != 'u')
        return NULL;
    unit = unit_of(at + 8, end);
    return unit >= 0xDC00 && unit <= 0xDFFF ? at + 12 : NULL;
}

static int continues(const byte *at, const byte *end, int count) {
    if (end - at <= count)
        return 0;
    for (int i = 1; i <= count; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    return 1;
}

/* After the character of UTF-8, which is not ASCII; NULL where it is none. */
static const byte *skip_character(const byte *at, const byte *end) {
    byte c = *at;
    if (c >= 0xC2 && c <= 0xDF)
        return continues(at, end, 1) ? at + 2 : NULL;
    if (c >= 0xE0 && c <= 0xEF) {
        if (!continues(at, end, 2) || (c == 0xE0 && at[1] < 0xA0) || (c == 0xED && at[1] > 0x9F))
            return NULL;
        return at + 3;
    }
    if (c >= 0xF0 && c <= 0xF4) {
        if (!continues(at, end, 3) || (c == 0xF0 && at[1] < 0x90) || (c == 0xF4 && at[1] > 0x8F))
            return NULL;
        return at + 4;
    }
    return NULL;
}

/* To the first byte that is not printable ASCII, or is a quote or a backslash. */
static const byte *skip_plain(const byte *at, const byte *end) {
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(0x20);
    while (end - at >= 16) {
        __m128i some = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i found = _mm_or_si128(_mm_cmpeq_epi8(some, quote), _mm_cmpeq_epi8(some, backslash));
        /* signed: what is not ASCII is less, too */
        int mask = _mm_movemask_epi8(_mm_or_si128(found, _mm_cmplt_epi8(some, space)));
        if (mask)
            return at + __builtin_ctz((unsigned)mask);
        at += 16;
    }
#endif
    while (at < end && *at != '"' && *at != '\\' && *at >= 0x20 && *at < 0x80)
        at++;
    return at;
}

/* From after the opening quote to the closing one; NULL where the string is not allowed. */
static const byte *string_end(const byte *at, const byte *end, int *escaped, int *foreign) {
    for (;;) {
        at = skip_plain(at, end);
        if (at >= end)
            return NULL;
        if (*at == '"')
            return at;
        if (*at == '\\') {
            *escaped = 1;
            at = skip_escape(at, end);
        } else if (*at >= 0x80) {
            *foreign = 1;
            at = skip_character(at, end);
        } else
            return NULL;
        if (!at)
            return NULL;
    }
}

static const byte *skip_digits(const byte *at, const byte *end) {
    while (at < end && is(*at, DIGIT))
        at++;
    return at;
}

/* After a number that any float holds, and any 64 bits if it is an integer; NULL where it is none. */
static const byte *number_end(const byte *at, const byte *end, byte *sort) {
    const byte *start;
    *sort = INTEGER;
    if (at < end && *at == '-')
        at++;
    start = at;
    at = skip_digits(at, end);
    if (at == start || at - start > MAX_DIGITS || (*start == '0' && at - start > 1))
        return NULL;
    if (at < end && *at == '.') {
        *sort = FLOAT;
        start = ++at;
        at = skip_digits(at, end);
        if (at == start)
            return NULL;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        *sort = FLOAT;
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        start = at;
        at = skip_digits(at, end);
        if (at == start || at - start > 2)
            return NULL;
    }
    return at;
}

static const byte *value_end(const byte *at, const byte *end, struct value *value, int depth, int tags);

/* From after the opening brace to after the closing one. With `tags` its values are strings, numbers or null. */
static const byte *object_end(const byte *at, const byte *end, int depth, int tags) {
    struct value value;
    at = skip_space(at, end);
    if (at < end && *at == '}')
        return at + 1;
    for (;;) {
        int escaped = 0, foreign = 0;
        at = skip_space(at, end);
        if (at >= end || *at != '"' || !(at = string_end(at + 1, end, &escaped, &foreign)))
            return NULL;
        at = skip_space(at + 1, end);
        if (at >= end || *at != ':' || !(at = value_end(skip_space(at + 1, end), end, &value, depth, 0)))
            return NULL;
        if (tags && value.sort != PLAIN && value.sort != TEXT && value.sort != INTEGER && value.sort != FLOAT && value.sort != NULL_)
            return NULL;
        at = skip_space(at, end);
        if (at >= end)
            return NULL;
        if (*at == '}')
            return at + 1;
        if (*at++ != ',')
            return NULL;
    }
}

static const byte *array_end(const byte *at, const byte *end, int depth) {
    struct value value;
    at = skip_space(at, end);
    if (at < end && *at == ']')
        return at + 1;
    for (;;) {
        at = value_end(skip_space(at, end), end, &value, depth, 0);
        if (!at)
            return NULL;
        at = skip_space(at, end);
        if (at >= end)
            return NULL;
        if (*at == ']')
            return at + 1;
        if (*at++ != ',')
            return NULL;
    }
}

static const byte *word_end(const byte *at, const byte *end, const char *word) {
    size_t size = strlen(word);
    return (size_t)(end - at) >= size && !memcmp(at, word, size) ? at + size : NULL;
}

/* After a value within so many others; NULL where it is not allowed. */
static const byte *value_end(const byte *at, const byte *end, struct value *value, int depth, int tags) {
    const byte *after;
    int escaped = 0, foreign = 0;
    if (at >= end)
        return NULL;
    value->at = at;
    switch (*at) {
    case '"':
        value->at = ++at;
        after = string_end(at, end, &escaped, &foreign);
        if (!after)
            return NULL;
        value->sort = escaped || foreign ? TEXT : PLAIN;
        value->size = (uint32_t)(after - at);
        return after + 1;
    case '{':
        value->sort = OBJECT;
        after = depth < MAX_NESTING ? object_end(at + 1, end, depth + 1, tags) : NULL;
        break;
    case '[':
        value->sort = ARRAY;
        after = depth < MAX_NESTING ? array_end(at + 1, end, depth + 1) : NULL;
        break;
    case 't':
        value->sort = TRUE_;
        after = word_end(at, end, "true");
        break;
    case 'f':
        value->sort = FALSE_;
        after = word_end(at, end, "false");
        break;
    case 'n':
        value->sort = NULL_;
        after = word_end(at, end, "null");
        break;
    default:
        after = number_end(at, end, &value->sort);
    }
    if (after)
        value->size = (uint32_t)(after - at);
    return after;
}

/* FIELDS where the protocol names no such field. */
static int field_of(const byte *at, size_t size) {
    if (size >= 16)
        return FIELDS;
    for (const byte *one = BY_SIZE[size]; *one; one++)
        if (!memcmp(FIELD_NAMES[*one - 1], at, size))
            return *one - 1;
    return FIELDS;
}

static int64_t integer_of(const struct value *value) {
    int64_t number = 0;
    int negative = value->at[0] == '-';
    for (uint32_t i = (uint32_t)negative; i < value->size; i++)
        number = number * 10 + (value->at[i] - '0');
    return negative ? -number : number;
}

static int is_integer(const struct value *value, int64_t least, int64_t most, int64_t *number) {
    if (value->sort != INTEGER)
        return 0;
    *number = integer_of(value);
    return *number >= least && *number <= most;
}

static int is_text(const struct value *value) {
    return value->sort == PLAIN || value->sort == TEXT;
}

static int is_number(const struct value *value) {
    return value->sort == INTEGER || value->sort == FLOAT;
}

static int is_id(const struct value *value) {
    return value->sort == PLAIN && value->size == 16 && all(value, HEX);
}

static int is_name(const struct value *value, int class) {
    return value->sort == PLAIN && value->size >= 1 && value->size <= 128 && all(value, class);
}

/* From 0 to 100, with no exponent, and no more than zeros after a hundred's point. */
static int is_percent(const struct value *value) {
    uint32_t whole = 0;
    if (!is_number(value))
        return 0;
    while (whole < value->size && is(value->at[whole], DIGIT))
        whole++;
    for (uint32_t i = whole + 1; i < value->size; i++)
        if (!is(value->at[i], DIGIT))
            return 0;
    if (whole == 1 || whole == 2)
        return 1;
    if (whole != 3 || memcmp(value->at, "100", 3))
        return 0;
    for (uint32_t i = whole + 1; i < value->size; i++)
        if (value->at[i] != '0')
            return 0;
    return 1;
}

#define HAS(field) (fields[field].sort != ABSENT)
#define IF_ANY(field, condition) (!HAS(field) || (condition))

static int shared_are_good(struct line *line) {
    const struct value *fields = line->fields;
    int64_t number;
    line->ts = line->seq = 0;
    return IF_ANY(V, is_integer(&fields[V], 2, 2, &number)) && IF_ANY(TS, is_integer(&fields[TS], TS_MIN, TS_MAX, &line->ts)) &&
           IF_ANY(SERVICE, is_name(&fields[SERVICE], OF_SERVICE)) && IF_ANY(HOST, fields[HOST].sort == PLAIN && fields[HOST].size <= 255) &&
           IF_ANY(PID, fields[PID].at[0] != '-' && is_integer(&fields[PID], 0, WHOLE_MAX, &number)) &&
           IF_ANY(TRACE_ID, is_name(&fields[TRACE_ID], PRINTABLE)) && IF_ANY(SPAN_ID, is_id(&fields[SPAN_ID])) &&
           IF_ANY(CLIENT, is_id(&fields[CLIENT])) && IF_ANY(SEQ, is_integer(&fields[SEQ], 1, WHOLE_MAX, &line->seq)) &&
           IF_ANY(TRUNCATED, fields[TRUNCATED].sort == TRUE_ || fields[TRUNCATED].sort == FALSE_) &&
           IF_ANY(REPLAY_TO, is_name(&fields[REPLAY_TO], PRINTABLE));
}

/* Which of LEVEL_NAMES it is; 0 where it is none. */
static int level_of(const struct value *value) {
    int level = LEVELS - 1;
    while (level && !says(value, LEVEL_NAMES[level]))
        level--;
    return level;
}

static int own_are_good(struct line *line) {
    const struct value *fields = line->fields;
    int64_t number;
    int span = HAS(SPAN_ID) && HAS(TRACE_ID) && is_text(&fields[NAME]) && IF_ANY(TAGS, fields[TAGS].sort == OBJECT) &&
               IF_ANY(PARENT_ID, is_id(&fields[PARENT_ID]));
    switch (line->type) {
    case EVENT:
        line->level = level_of(&fields[LEVEL]);
        return line->level && is_text(&fields[MESSAGE]) && IF_ANY(CONTEXT, fields[CONTEXT].sort == OBJECT);
    case METRIC:
        return is_text(&fields[NAME]) && IF_ANY(UNIT, is_text(&fields[UNIT])) && IF_ANY(TAGS, fields[TAGS].sort == OBJECT) &&
               (is_number(&fields[VALUE]) || says(&fields[VALUE], "NaN") || says(&fields[VALUE], "Infinity") ||
                says(&fields[VALUE], "-Infinity")) &&
               IF_ANY(KIND, says(&fields[KIND], "gauge") || says(&fields[KIND], "counter"));
    case PROGRESS:
        return is_name(&fields[JOB_ID], PRINTABLE) && is_percent(&fields[PERCENT]) &&
               IF_ANY(STATUS, is_text(&fields[STATUS]) && fields[STATUS].size >= 1 && fields[STATUS].size <= 64);
    case RESOURCE:
        return IF_ANY(CPU, is_number(&fields[CPU])) && IF_ANY(MEM, is_number(&fields[MEM])) && IF_ANY(DISK, is_number(&fields[DISK])) &&
               IF_ANY(NET, is_number(&fields[NET]));
    case SPAN_START:
        return span;
    default:
        return span && (says(&fields[STATUS], "ok") || says(&fields[STATUS], "error")) &&
               is_integer(&fields[START], TS_MIN, TS_MAX, &number) && is_number(&fields[DURATION]) && fields[DURATION].at[0] != '-';
    }
}

/* The fields and the type of a line without its newline; whether it is an object with a type that we know. */
static int split_line(const byte *at, const byte *end, struct line *line) {
    for (int field = 0; field < FIELDS; field++)
        line->fields[field].sort = ABSENT;
    at = skip_space(at, end);
    if (at >= end || *at++ != '{')
        return 0;
    for (;;) {
        struct value value;
        const byte *name;
        int field, escaped = 0, foreign = 0;
        at = skip_space(at, end);
        if (at >= end || *at != '"')
            return 0;
        name = ++at;
        at = string_end(at, end, &escaped, &foreign);
        if (!at || escaped) /* it may be a name that we know */
            return 0;
        field = field_of(name, (size_t)(at - name));
        at = skip_space(at + 1, end);
        if (at >= end || *at != ':')
            return 0;
        at = value_end(skip_space(at + 1, end), end, &value, 0, field == TAGS);
        if (!at)
            return 0;
        if (field < FIELDS) {
            if (line->fields[field].sort != ABSENT) /* it is there twice */
                return 0;
            line->fields[field] = value;
        }
        at = skip_space(at, end);
        if (at >= end)
            return 0;
        if (*at == '}')
            break;
        if (*at++ != ',')
            return 0;
    }
    if (skip_space(at + 1, end) != end)
        return 0;
    for (line->type = 0; line->type < TYPES && !says(&line->fields[TYPE], TYPE_NAMES[line->type]);)
        line->type++;
    line->level = 0;
    return line->type < TYPES;
}

/* Read a line; whether it is good but for what it may lack. */
static inline int read_line(const byte *at, const byte *end, struct line *line) {
    return split_line(at, end, line) && shared_are_good(line) && own_are_good(line);
}

static inline uint64_t hash_of(uint64_t seed, const byte *at, size_t size) {
    uint64_t hash = seed ^ (size * 0x9E3779B97F4A7C15ULL), word;
    for (; size >= 8; at += 8, size -= 8) {
        memcpy(&word, at, 8);
        hash = (hash ^ word) * 0xFF51AFD7ED558CCDULL;
        hash ^= hash >> 32;
    }
    word = 0;
    memcpy(&word, at, size);
    hash = (hash ^ word) * 0xFF51AFD7ED558CCDULL;
    return hash ^ (hash >> 29);
}

#endif
