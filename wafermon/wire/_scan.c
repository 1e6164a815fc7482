/* One pass over a block of lines: which of them are good as they are, and what they have in common.

   This says nothing of why a line is odd: such lines are listed, and Python reads each by itself. Whatever is called good here
   has to be good there too, with the same kind, trace and numbers; tests/unit/wire/test_scan.py and tests/fuzz/scan.c
   compare both. Odd are also some lawful lines that are rare: with escapes in names, with huge numbers, of stats.

   The part above "Python" knows nothing of it, so that a fuzzer can drive it alone. */

#ifndef SCAN_ALONE
#define Py_LIMITED_API 0x030a0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#endif
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

/* After the backslash at `at`; NULL where no lawful escape stands there, or NUL. */
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

/* From after the opening quote to the closing one; NULL where the string is not lawful. */
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

/* After a value within so many others; NULL where it is not lawful. */
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
static int read_line(const byte *at, const byte *end, struct line *line) {
    return split_line(at, end, line) && shared_are_good(line) && own_are_good(line);
}

static uint64_t hash_of(uint64_t seed, const byte *at, size_t size) {
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

#ifndef SCAN_ALONE
/* ---- Python */

enum { SHAPE_FIELDS = 5, MAX_SHAPES = 4096, GROUPS = 4096, KEY_BYTES = 1024 };
static const enum field OF_SHAPE[SHAPE_FIELDS] = { SERVICE, HOST, PID, CLIENT, REPLAY_TO };

/* What lines have in common that differ in type and level alone. */
struct group {
    uint64_t hash;
    byte *key;
    size_t size;
    int32_t shapes[TYPES * LEVELS]; /* -1 where there is none yet */
};

typedef struct {
    PyObject_HEAD
    PyObject *unset;
    PyObject *shapes; /* a list: for each number the tuple that it stands for */
    uint64_t seed;
    struct group *groups;
    int32_t *places; /* by hash: an index of `groups`, or -1; twice as many as there is room for groups */
    int32_t count, room, last;
} Scanner;

static PyObject *text_of(const struct value *value, PyObject *unset) {
    if (value->sort != ABSENT)
        return PyUnicode_FromStringAndSize((const char *)value->at, value->size);
    Py_INCREF(unset);
    return unset;
}

/* Append what a shape stands for; -1 where Python has no memory. */
static int32_t new_shape(Scanner *self, const struct line *line) {
    const struct value *fields = line->fields;
    int32_t number = (int32_t)PyList_Size(self->shapes);
    PyObject *pid, *shape;
    int failed;
    if (fields[PID].sort == ABSENT) {
        pid = self->unset;
        Py_INCREF(pid);
    } else
        pid = PyLong_FromLongLong(integer_of(&fields[PID]));
    shape = Py_BuildValue("(NNNNssN)", text_of(&fields[SERVICE], self->unset), text_of(&fields[HOST], self->unset), pid,
                          text_of(&fields[CLIENT], self->unset), TYPE_NAMES[line->type], LEVEL_NAMES[line->level],
                          text_of(&fields[REPLAY_TO], self->unset));
    if (!shape)
        return -1;
    failed = PyList_Append(self->shapes, shape);
    Py_DECREF(shape);
    return failed ? -1 : number;
}

enum { FAILED = -1, TOO_MANY = -2 };

static uint32_t mask_of(const Scanner *self) {
    return 2 * (uint32_t)self->room - 1;
}

static uint32_t place_of(const Scanner *self, uint64_t hash) {
    return (uint32_t)hash & mask_of(self);
}

/* Make room for twice as many groups. */
static int grow(Scanner *self) {
    int32_t room = self->room ? 2 * self->room : 4;
    struct group *groups = realloc(self->groups, (size_t)room * sizeof *groups);
    int32_t *places;
    if (!groups)
        return 0;
    self->groups = groups;
    places = malloc(2 * (size_t)room * sizeof *places);
    if (!places)
        return 0;
    memset(places, 0xFF, 2 * (size_t)room * sizeof *places);
    free(self->places);
    self->places = places;
    self->room = room;
    for (int32_t number = 0; number < self->count; number++) {
        uint32_t place = place_of(self, groups[number].hash);
        while (places[place] >= 0)
            place = (place + 1) & mask_of(self);
        places[place] = number;
    }
    return 1;
}

static int32_t group_of(Scanner *self, const byte *key, size_t size) {
    uint64_t hash = hash_of(self->seed, key, size);
    uint32_t place;
    struct group *group;
    if (self->room) {
        for (place = place_of(self, hash); self->places[place] >= 0; place = (place + 1) & mask_of(self)) {
            group = &self->groups[self->places[place]];
            if (group->hash == hash && group->size == size && !memcmp(group->key, key, size))
                return self->places[place];
        }
    }
    if (self->count == GROUPS)
        return TOO_MANY;
    if (self->count == self->room && !grow(self)) {
        PyErr_NoMemory();
        return FAILED;
    }
    for (place = place_of(self, hash); self->places[place] >= 0;)
        place = (place + 1) & mask_of(self);
    group = &self->groups[self->count];
    group->key = malloc(size);
    if (!group->key) {
        PyErr_NoMemory();
        return FAILED;
    }
    memcpy(group->key, key, size);
    group->hash = hash;
    group->size = size;
    memset(group->shapes, 0xFF, sizeof group->shapes);
    self->places[place] = self->count;
    return self->count++;
}

/* The number of a line's shape; FAILED, or TOO_MANY where it is to be read as an odd one. */
static int32_t shape_of(Scanner *self, const struct line *line) {
    byte key[KEY_BYTES];
    size_t size = 0;
    int32_t *shape;
    for (int i = 0; i < SHAPE_FIELDS; i++) {
        const struct value *value = &line->fields[OF_SHAPE[i]];
        size_t length = value->sort == ABSENT ? 0 : value->size; /* at most 255 */
        key[size++] = value->sort != ABSENT;
        key[size++] = (byte)length;
        if (length)
            memcpy(key + size, value->at, length);
        size += length;
    }
    if (self->last < 0 || self->groups[self->last].size != size || memcmp(self->groups[self->last].key, key, size)) {
        int32_t group = group_of(self, key, size);
        if (group < 0)
            return group;
        self->last = group;
    }
    shape = &self->groups[self->last].shapes[line->type * LEVELS + line->level];
    if (*shape < 0) {
        if (PyList_Size(self->shapes) >= MAX_SHAPES)
            return TOO_MANY;
        *shape = new_shape(self, line);
    }
    return *shape;
}

struct trace { /* in the stream of one client */
    uint64_t hash;
    struct value id, client;
    int64_t first, last;
    int32_t line, head, tail; /* where it was met; its first and last counts */
};
struct count {
    int32_t trace, shape, many, next;
};

/* What one scan finds out. */
struct found {
    Py_ssize_t lines;
    uint16_t *column;
    int64_t *seqs;
    struct trace *traces;
    struct count *counts;
    int32_t *trace_places, *count_places; /* by hash; -1 where there is none */
    int32_t trace_count, count_count, last_trace, last_count;
    uint32_t mask;
    int64_t first, last;
    PyObject *odd, *jobless, *untimed;
};

static void let_go(struct found *found) {
    free(found->column);
    free(found->seqs);
    free(found->traces);
    free(found->counts);
    free(found->trace_places);
    free(found->count_places);
    Py_XDECREF(found->odd);
    Py_XDECREF(found->jobless);
    Py_XDECREF(found->untimed);
}

static int begin(struct found *found, Py_ssize_t lines) {
    size_t room = (size_t)lines + 1, places = 16;
    memset(found, 0, sizeof *found);
    while (places < 2 * room)
        places *= 2;
    found->mask = (uint32_t)places - 1;
    found->column = malloc(room * sizeof *found->column);
    found->seqs = malloc(room * sizeof *found->seqs);
    found->traces = malloc(room * sizeof *found->traces);
    found->counts = malloc(room * sizeof *found->counts);
    found->trace_places = malloc(places * sizeof *found->trace_places);
    found->count_places = malloc(places * sizeof *found->count_places);
    found->odd = PyList_New(0);
    found->jobless = PyList_New(0);
    found->untimed = PyList_New(0);
    if (!found->column || !found->seqs || !found->traces || !found->counts || !found->trace_places || !found->count_places ||
        !found->odd || !found->jobless || !found->untimed)
        return 0;
    memset(found->trace_places, 0xFF, places * sizeof *found->trace_places);
    memset(found->count_places, 0xFF, places * sizeof *found->count_places);
    found->last_trace = found->last_count = -1;
    found->first = INT64_MAX;
    found->last = INT64_MIN;
    return 1;
}

static int same_id(const struct value *one, const struct value *other) {
    return one->size == other->size && !memcmp(one->at, other->at, one->size);
}

static int32_t trace_of(struct found *found, const struct value *id, const struct value *client, uint64_t seed, int32_t line) {
    uint64_t hash;
    uint32_t place;
    int32_t number = found->last_trace;
    if (number >= 0 && same_id(&found->traces[number].id, id) && same_id(&found->traces[number].client, client))
        return number;
    hash = hash_of(hash_of(seed, client->at, client->size), id->at, id->size);
    for (place = (uint32_t)hash & found->mask; (number = found->trace_places[place]) >= 0; place = (place + 1) & found->mask)
        if (found->traces[number].hash == hash && same_id(&found->traces[number].id, id) && same_id(&found->traces[number].client, client))
            return number;
    number = found->trace_places[place] = found->trace_count++;
    found->traces[number] = (struct trace){ hash, *id, *client, INT64_MAX, INT64_MIN, line, -1, -1 };
    return number;
}

static void count_in(struct found *found, int32_t trace, int32_t shape) {
    struct trace *of = &found->traces[trace];
    uint32_t place;
    int32_t number = found->last_count;
    if (number >= 0 && found->counts[number].trace == trace && found->counts[number].shape == shape) {
        found->counts[number].many++;
        return;
    }
    place = (uint32_t)(((uint64_t)trace * MAX_SHAPES + (uint64_t)shape) * 0x9E3779B97F4A7C15ULL >> 32) & found->mask;
    for (; (number = found->count_places[place]) >= 0; place = (place + 1) & found->mask)
        if (found->counts[number].trace == trace && found->counts[number].shape == shape)
            break;
    if (number < 0) {
        number = found->count_places[place] = found->count_count++;
        found->counts[number] = (struct count){ trace, shape, 0, -1 };
        if (of->tail < 0)
            of->head = number;
        else
            found->counts[of->tail].next = number;
        of->tail = number;
    }
    found->last_count = number;
    found->counts[number].many++;
}

static int append(PyObject *list, Py_ssize_t number) {
    PyObject *one = PyLong_FromSsize_t(number);
    int failed = !one || PyList_Append(list, one);
    Py_XDECREF(one);
    return !failed;
}

/* Take the next line; 0 where Python has no memory. */
static int take(Scanner *self, struct found *found, const byte *at, const byte *end, int64_t now) {
    struct line line;
    Py_ssize_t place = found->lines++;
    const struct value *trace_id = &line.fields[TRACE_ID];
    int32_t shape = TOO_MANY;
    if (read_line(at, end, &line))
        shape = shape_of(self, &line);
    if (shape == FAILED)
        return 0;
    if (shape == TOO_MANY) {
        found->column[place] = 0;
        found->seqs[place] = 0;
        return append(found->odd, place);
    }
    found->column[place] = (uint16_t)shape;
    found->seqs[place] = line.seq;
    if (!line.ts) {
        if (!append(found->untimed, place))
            return 0;
        line.ts = now;
    }
    if (line.ts < found->first)
        found->first = line.ts;
    if (line.ts > found->last)
        found->last = line.ts;
    if (line.type == PROGRESS && trace_id->sort == ABSENT) {
        trace_id = &line.fields[JOB_ID];
        if (!append(found->jobless, place))
            return 0;
    }
    {
        static const struct value none = { (const byte *)"", 0, PLAIN };
        const struct value *client = line.fields[CLIENT].sort == ABSENT ? &none : &line.fields[CLIENT];
        int32_t number = trace_of(found, trace_id->sort == ABSENT ? &none : trace_id, client, self->seed, (int32_t)place);
        struct trace *trace = &found->traces[number];
        if (line.ts < trace->first)
            trace->first = line.ts;
        if (line.ts > trace->last)
            trace->last = line.ts;
        count_in(found, number, shape);
        found->last_trace = number;
    }
    return 1;
}

/* The shape of a trace's only message, or a list of (shape, messages). */
static PyObject *counts_of(const struct found *found, const struct trace *trace) {
    const struct count *first = &found->counts[trace->head];
    PyObject *counts;
    if (first->many == 1 && first->next < 0)
        return PyLong_FromLong(first->shape);
    counts = PyList_New(0);
    for (int32_t at = trace->head; counts && at >= 0; at = found->counts[at].next) {
        PyObject *pair = Py_BuildValue("(ii)", found->counts[at].shape, found->counts[at].many);
        if (!pair || PyList_Append(counts, pair))
            Py_CLEAR(counts);
        Py_XDECREF(pair);
    }
    return counts;
}

static PyObject *traces_of(const struct found *found) {
    PyObject *traces = PyList_New(found->trace_count);
    for (int32_t at = 0; traces && at < found->trace_count; at++) {
        const struct trace *trace = &found->traces[at];
        PyObject *first = PyLong_FromLongLong(trace->first), *parts[5], *one = PyTuple_New(5);
        int failed = !one;
        parts[0] = PyLong_FromLong(trace->line);
        parts[1] = PyUnicode_FromStringAndSize((const char *)trace->id.at, (Py_ssize_t)trace->id.size);
        parts[2] = first;
        parts[3] = trace->last == trace->first && first ? (Py_INCREF(first), first) : PyLong_FromLongLong(trace->last);
        parts[4] = counts_of(found, trace);
        for (int part = 0; part < 5; part++) {
            failed |= !parts[part];
            if (one)
                (void)PyTuple_SetItem(one, part, parts[part]); /* which takes it over */
            else
                Py_XDECREF(parts[part]);
        }
        if (failed) {
            Py_XDECREF(one);
            Py_CLEAR(traces);
        } else if (PyList_SetItem(traces, at, one))
            Py_CLEAR(traces);
    }
    return traces;
}

/* Whether each line's number is one more than that of the one before. */
static int in_order(const struct found *found) {
    for (Py_ssize_t at = 1; at < found->lines; at++)
        if (found->seqs[at] != found->seqs[at - 1] + 1)
            return 0;
    return found->lines > 0 && found->seqs[0] > 0;
}

PyDoc_STRVAR(scan_doc,
"scan(block: bytes, now: int) -> tuple\n\n"
"block is whole lines, each ended by a newline; now stands for the ts of those without. Answers with the number of lines;\n"
"for each the number of its shape, in two bytes; its seq, in eight, or all of them as (first,) where they are in order; the least\n"
"and the greatest ts; and lists: the traces as (line where it was met, id, least ts, greatest ts, counts), one for\n"
"each client, with an empty id for what has none, and for counts the shape of its only message or [(shape, messages)]; the lines without a ts; those of progress without a trace; the odd ones, of which nothing else is known.");

static PyObject *scan(Scanner *self, PyObject *arguments) {
    const char *block;
    Py_ssize_t size, lines = 0;
    long long now;
    const byte *at, *end;
    struct found found;
    PyObject *answer = NULL, *seqs;
    if (!PyArg_ParseTuple(arguments, "y#L", &block, &size, &now))
        return NULL;
    at = (const byte *)block;
    end = at + size;
    if (size > INT32_MAX / 2 || (size && end[-1] != '\n')) {
        PyErr_SetString(PyExc_ValueError, "expected whole lines of at most 1 GiB");
        return NULL;
    }
    for (const byte *one = at; (one = memchr(one, '\n', (size_t)(end - one))); one++)
        lines++;
    if (!begin(&found, lines)) {
        PyErr_NoMemory();
        goto done;
    }
    while (at < end) {
        const byte *newline = memchr(at, '\n', (size_t)(end - at));
        if (!take(self, &found, at, newline, now))
            goto done;
        at = newline + 1;
    }
    seqs = in_order(&found) ? Py_BuildValue("(L)", (long long)found.seqs[0])
                            : PyBytes_FromStringAndSize((const char *)found.seqs, found.lines * (Py_ssize_t)sizeof *found.seqs);
    answer = Py_BuildValue("(ny#NLLNOOO)", found.lines, (const char *)found.column, found.lines * (Py_ssize_t)sizeof *found.column, seqs,
                           (long long)found.first, (long long)found.last, traces_of(&found), found.untimed, found.jobless, found.odd);
done:
    let_go(&found);
    return answer;
}

PyDoc_STRVAR(splice_doc,
"splice(block: bytes, column: bytes, prefixes: list[bytes]) -> bytes\n\n"
"The lines of a block, each with the prefix of which its column has the number, in four bytes, in place of its opening brace and\n"
"what stands before that. Where the prefix is empty the line is as it was. Raises ValueError where the three do not fit together.");

static PyObject *splice(PyObject *Py_UNUSED(self), PyObject *arguments) {
    const char *block, *column, *end, *misfit = NULL;
    Py_ssize_t size, columns, count, total = 0;
    PyObject *list, *answer = NULL;
    struct prefix { char *at; Py_ssize_t size; } *prefixes;
    char *to = NULL;
    if (!PyArg_ParseTuple(arguments, "y#y#O", &block, &size, &column, &columns, &list))
        return NULL;
    count = PyList_Size(list);
    if (count < 0)
        return NULL;
    prefixes = malloc((size_t)(count + 1) * sizeof *prefixes);
    if (!prefixes)
        return PyErr_NoMemory();
    for (Py_ssize_t at = 0; at < count; at++)
        if (PyBytes_AsStringAndSize(PyList_GetItem(list, at), &prefixes[at].at, &prefixes[at].size))
            goto done;
    end = block + size;
    for (int copying = 0; copying < 2; copying++) { /* first only the size is found out */
        const char *number = column;
        for (const char *at = block; at < end;) {
            const char *newline = memchr(at, '\n', (size_t)(end - at));
            uint32_t which;
            if (!newline || number + sizeof which > column + columns) {
                misfit = "expected whole lines, with a number for each";
                goto done;
            }
            memcpy(&which, number, sizeof which);
            number += sizeof which;
            if (which >= count) {
                misfit = "expected numbers of prefixes";
                goto done;
            }
            if (prefixes[which].size) {
                const char *brace = memchr(at, '{', (size_t)(newline - at));
                if (!brace) {
                    misfit = "expected objects where there is a prefix";
                    goto done;
                }
                if (to) {
                    memcpy(to, prefixes[which].at, (size_t)prefixes[which].size);
                    to += prefixes[which].size;
                } else
                    total += prefixes[which].size;
                at = brace + 1;
            }
            if (to) {
                memcpy(to, at, (size_t)(newline + 1 - at));
                to += newline + 1 - at;
            } else
                total += newline + 1 - at;
            at = newline + 1;
        }
        if (copying)
            break;
        answer = PyBytes_FromStringAndSize(NULL, total);
        if (!answer)
            break;
        to = PyBytes_AsString(answer);
    }
done:
    if (misfit)
        PyErr_SetString(PyExc_ValueError, misfit);
    free(prefixes);
    return answer;
}

static PyObject *new_scanner(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(keywords)) {
    PyObject *unset;
    unsigned long long seed;
    Scanner *self;
    if (!PyArg_ParseTuple(arguments, "OK", &unset, &seed))
        return NULL;
    self = (Scanner *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self)
        return NULL;
    Py_INCREF(unset);
    self->unset = unset;
    self->seed = seed;
    self->shapes = PyList_New(0);
    self->last = -1;
    if (!self->shapes) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void end_scanner(Scanner *self) {
    PyTypeObject *type = Py_TYPE(self);
    for (int32_t at = 0; at < self->count; at++)
        free(self->groups[at].key);
    free(self->groups);
    free(self->places);
    Py_XDECREF(self->shapes);
    Py_XDECREF(self->unset);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *shapes_of(Scanner *self, void *Py_UNUSED(closure)) {
    Py_INCREF(self->shapes);
    return self->shapes;
}

static PyMethodDef METHODS[] = { { "scan", (PyCFunction)scan, METH_VARARGS, scan_doc },
                                 { "splice", (PyCFunction)splice, METH_VARARGS | METH_STATIC, splice_doc },
                                 { NULL, NULL, 0, NULL } };
static PyGetSetDef GETTERS[] = {
    { "shapes", (getter)shapes_of, NULL, "For each number: service, host, pid, client, type, level, replay_to.", NULL },
    { NULL, NULL, NULL, NULL, NULL }
};
static PyType_Slot SLOTS[] = { { Py_tp_new, new_scanner },     { Py_tp_dealloc, end_scanner }, { Py_tp_methods, METHODS },
                               { Py_tp_getset, GETTERS }, { 0, NULL } };
static PyType_Spec SPEC = { "wafermon.wire._scan.Scanner", sizeof(Scanner), 0, Py_TPFLAGS_DEFAULT, SLOTS };

static int execute(PyObject *module) {
    PyObject *type = PyType_FromSpec(&SPEC);
    int failed;
    prepare();
    if (!type)
        return -1;
    failed = PyModule_AddObject(module, "Scanner", type);
    if (failed)
        Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot MODULE_SLOTS[] = { { Py_mod_exec, execute }, { 0, NULL } };
static struct PyModuleDef MODULE = { PyModuleDef_HEAD_INIT, "_scan", "One pass over a block of lines.", 0, NULL, MODULE_SLOTS, NULL, NULL, NULL };

PyMODINIT_FUNC PyInit__scan(void) {
    return PyModuleDef_Init(&MODULE);
}
#endif
