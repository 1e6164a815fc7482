/* One pass over stored lines: what they add up to, and which of them have to be read one by one.

   What is read here has to come out as `wafermon/backends/history/seen.py` reads it; tests/unit/backends/test_history_seen.py
   compares both. Odd lines are listed, and Python reads each by itself: those that the scanner calls odd, and of metrics those whose
   names are long or have escapes. What is stored was found good before, so that is not looked at again. Most is done without Python's
   lock. */

#define Py_LIMITED_API 0x030a0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "_line.h"

enum { PARTS = 4, MAX_KEYS = 16, LONGEST = 128 };

/* A string that stands in the block. */
struct text {
    uint64_t hash;
    const byte *at;
    uint32_t size;
    int is_trace;
};
/* What is counted together, by numbers of texts. */
enum sum_of { OF_LEVEL /* hour, service, type, level */, OF_SERIES /* trace, service, name, unit */, OF_CONTEXT /* key, value */, SUMS };
struct sum {
    int32_t parts[PARTS];
    int32_t of;
    int64_t many;
    double total, least, greatest;
};
struct reading {
    int32_t sum;
    uint32_t size;
    const byte *at;
};
/* A line that Python reads. */
enum why { FOLLOWED, LOOKED_AT, ODD, WHYS };
struct listed {
    const byte *at;
    uint32_t size;
    int32_t line, why;
};
/* Whatever grows. */
struct many {
    void *items;
    int32_t count, room;
};
struct places {
    int32_t *numbers; /* by hash; -1 where there is none */
    uint32_t mask;
};
struct key {
    const char *at;
    Py_ssize_t size;
};
struct summing {
    uint64_t seed;
    int64_t hour;
    struct key keys[MAX_KEYS];
    int32_t key_count, lines;
    struct many texts, sums, readings, listed;
    struct places text_places, sum_places;
};

static void *more(struct many *many, size_t size) {
    if (many->count == many->room) {
        int32_t room = many->room ? 2 * many->room : 64;
        void *items = room > 0 ? realloc(many->items, (size_t)room * size) : NULL;
        if (!items)
            return NULL;
        many->items = items;
        many->room = room;
    }
    return (char *)many->items + (size_t)many->count++ * size;
}

static uint64_t hash_of_sum(const struct sum *sum, uint64_t seed) {
    return hash_of(seed + (uint64_t)sum->of, (const byte *)sum->parts, sizeof sum->parts);
}

/* Room for twice as many as there are; -1 everywhere. */
static int spread(struct places *places, int32_t count) {
    uint32_t size = 256;
    int32_t *numbers;
    while (size < 4 * (uint32_t)count)
        size *= 2;
    numbers = malloc(size * sizeof *numbers);
    if (!numbers)
        return 0;
    memset(numbers, 0xFF, size * sizeof *numbers);
    free(places->numbers);
    places->numbers = numbers;
    places->mask = size - 1;
    return 1;
}

static void put(struct places *places, uint64_t hash, int32_t number) {
    uint32_t place = (uint32_t)hash & places->mask;
    while (places->numbers[place] >= 0)
        place = (place + 1) & places->mask;
    places->numbers[place] = number;
}

static int is_full(const struct places *places, int32_t count) {
    return !places->numbers || 2 * (uint32_t)count > places->mask;
}

/* The number of a text; -1 where there is no memory, as everywhere below. */
static int32_t text_of(struct summing *all, const byte *at, uint32_t size) {
    uint64_t hash = hash_of(all->seed, at, size);
    struct text *texts = all->texts.items, *text;
    if (is_full(&all->text_places, all->texts.count)) {
        if (!spread(&all->text_places, all->texts.count))
            return -1;
        for (int32_t number = 0; number < all->texts.count; number++)
            put(&all->text_places, texts[number].hash, number);
    }
    for (uint32_t place = (uint32_t)hash & all->text_places.mask; all->text_places.numbers[place] >= 0; place = (place + 1) & all->text_places.mask) {
        text = &texts[all->text_places.numbers[place]];
        if (text->hash == hash && text->size == size && !memcmp(text->at, at, size))
            return all->text_places.numbers[place];
    }
    text = more(&all->texts, sizeof *text);
    if (!text)
        return -1;
    *text = (struct text){ hash, at, size, 0 };
    put(&all->text_places, hash, all->texts.count - 1);
    return all->texts.count - 1;
}

static int32_t sum_of(struct summing *all, enum sum_of of, int32_t one, int32_t two, int32_t three, int32_t four) {
    struct sum wanted = { { one, two, three, four }, of, 0, 0, 0, 0 }, *sums = all->sums.items, *sum;
    uint64_t hash = hash_of_sum(&wanted, all->seed);
    if (is_full(&all->sum_places, all->sums.count)) {
        if (!spread(&all->sum_places, all->sums.count))
            return -1;
        for (int32_t number = 0; number < all->sums.count; number++)
            put(&all->sum_places, hash_of_sum(&sums[number], all->seed), number);
    }
    for (uint32_t place = (uint32_t)hash & all->sum_places.mask; all->sum_places.numbers[place] >= 0; place = (place + 1) & all->sum_places.mask) {
        sum = &sums[all->sum_places.numbers[place]];
        if (sum->of == wanted.of && !memcmp(sum->parts, wanted.parts, sizeof wanted.parts))
            return all->sum_places.numbers[place];
    }
    sum = more(&all->sums, sizeof *sum);
    if (!sum)
        return -1;
    *sum = wanted;
    put(&all->sum_places, hash, all->sums.count - 1);
    return all->sums.count - 1;
}

static int list(struct summing *all, enum why why, const byte *at, const byte *end) {
    struct listed *one = more(&all->listed, sizeof *one);
    if (!one)
        return 0;
    *one = (struct listed){ at, (uint32_t)(end - at), all->lines, (int32_t)why };
    return 1;
}

/* Whether a metric's name or unit is what its bytes say, and is not cut. */
static int is_short(const struct value *value) {
    return is_text(value) && value->size <= LONGEST && !memchr(value->at, '\\', value->size);
}

/* The values under the keys that are looked up. Answers with 0 where there is no memory, with -1 where Python has to look. */
static int look_into(struct summing *all, const struct value *context) {
    const byte *at = context->at + 1, *end = context->at + context->size;
    struct value values[MAX_KEYS];
    for (int32_t key = 0; key < all->key_count; key++)
        values[key].sort = ABSENT;
    at = skip_space(at, end);
    while (*at != '}') { /* it was read before, so it is allowed */
        int escaped = 0, foreign = 0;
        struct value value;
        const byte *name = ++at;
        at = string_end(at, end, &escaped, &foreign);
        if (escaped)
            return -1;
        for (int32_t key = 0; key < all->key_count; key++)
            if (all->keys[key].size == at - name && !memcmp(all->keys[key].at, name, (size_t)(at - name))) {
                value_end(skip_space(skip_space(at + 1, end) + 1, end), end, &values[key], 0, 0);
                break;
            }
        at = skip_space(value_end(skip_space(skip_space(at + 1, end) + 1, end), end, &value, 0, 0), end);
        if (*at == ',')
            at = skip_space(at + 1, end);
    }
    for (int32_t key = 0; key < all->key_count; key++)
        if (values[key].sort != ABSENT) {
            uint32_t quotes = is_text(&values[key]) ? 1 : 0;
            int32_t text = text_of(all, values[key].at - quotes, values[key].size + 2 * quotes);
            if (text < 0 || sum_of(all, OF_CONTEXT, key, text, 0, 0) < 0)
                return 0;
        }
    return 1;
}

#define IS_OTHER(field, than) (HAS(field) && fields[field].sort != (than))

/* The next line; 0 where there is no memory. */
static int add_line(struct summing *all, const byte *at, const byte *end) {
    struct line line;
    const struct value *fields = line.fields;
    int32_t service, trace = -1, sum;
    if (!split_line(at, end, &line) || !is_integer(&fields[TS], TS_MIN, TS_MAX, &line.ts) || fields[SERVICE].sort != PLAIN ||
        IS_OTHER(TRACE_ID, PLAIN) || (line.type == EVENT && (!(line.level = level_of(&fields[LEVEL])) || IS_OTHER(CONTEXT, OBJECT))) ||
        (line.type == METRIC && !(is_short(&fields[NAME]) && IF_ANY(UNIT, is_short(&fields[UNIT])))))
        return list(all, ODD, at, end);
    service = text_of(all, fields[SERVICE].at, fields[SERVICE].size);
    if (service < 0)
        return 0;
    sum = sum_of(all, OF_LEVEL, (int32_t)(line.ts / all->hour), service, line.type, line.level);
    if (sum < 0)
        return 0;
    ((struct sum *)all->sums.items)[sum].many++;
    if (fields[TRACE_ID].sort != ABSENT) {
        trace = text_of(all, fields[TRACE_ID].at, fields[TRACE_ID].size);
        if (trace < 0)
            return 0;
        ((struct text *)all->texts.items)[trace].is_trace = 1;
    }
    if (line.type == METRIC) {
        struct reading *reading;
        int32_t name, unit;
        if (trace < 0 || !is_number(&fields[VALUE]))
            return 1;
        name = text_of(all, fields[NAME].at, fields[NAME].size);
        unit = fields[UNIT].sort == ABSENT ? text_of(all, at, 0) : text_of(all, fields[UNIT].at, fields[UNIT].size);
        sum = name < 0 || unit < 0 ? -1 : sum_of(all, OF_SERIES, trace, service, name, unit);
        reading = sum < 0 ? NULL : more(&all->readings, sizeof *reading);
        if (!reading)
            return 0;
        *reading = (struct reading){ sum, fields[VALUE].size, fields[VALUE].at };
        return 1;
    }
    if (line.type == EVENT) {
        int looked_at = line.level >= LEVELS - 2 || says(&fields[SERVICE], "wafermon");
        if (all->key_count && fields[CONTEXT].sort != ABSENT) {
            int known = look_into(all, &fields[CONTEXT]);
            if (!known)
                return 0;
            looked_at |= known < 0;
        }
        return !looked_at || list(all, LOOKED_AT, at, end);
    }
    return line.type == RESOURCE || list(all, FOLLOWED, at, end);
}

static int add_lines(struct summing *all, const byte *at, const byte *end) {
    for (; at < end; all->lines++) {
        const byte *newline = memchr(at, '\n', (size_t)(end - at));
        if (!add_line(all, at, newline))
            return 0;
        at = newline + 1;
    }
    return 1;
}

/* The float that is nearest to a number. Digits that a float holds, and a power of ten that one holds: their quotient is that. */
static double number_of(const struct reading *reading) {
    static const double TENS[] = { 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18 };
    int64_t digits = 0;
    int negative = *reading->at == '-', after = 0, point = 0;
    for (uint32_t i = (uint32_t)negative; i < reading->size; i++) {
        byte c = reading->at[i];
        if (c == '.')
            point = 1;
        else if (!is(c, DIGIT) || digits > (WHOLE_MAX - 9) / 10 || after == 18) /* what follows it in the block is no part of a number */
            return PyOS_string_to_double((const char *)reading->at, (char **)&(char *){ NULL }, NULL);
        else {
            digits = digits * 10 + (c - '0');
            after += point;
        }
    }
    return (negative ? -(double)digits : (double)digits) / TENS[after];
}

static int add_readings(struct summing *all) {
    const struct reading *readings = all->readings.items;
    for (int32_t at = 0; at < all->readings.count; at++) {
        struct sum *sum = &((struct sum *)all->sums.items)[readings[at].sum];
        double value = number_of(&readings[at]);
        if (value == -1.0 && PyErr_Occurred())
            return 0;
        if (!sum->many || value < sum->least)
            sum->least = value;
        if (!sum->many || value > sum->greatest)
            sum->greatest = value;
        sum->total = sum->many++ ? sum->total + value : value;
    }
    return 1;
}

static PyObject *str_of(const struct text *text) {
    return PyUnicode_FromStringAndSize((const char *)text->at, (Py_ssize_t)text->size);
}

static int give(PyObject *list, PyObject *one) {
    int failed = !one || PyList_Append(list, one);
    Py_XDECREF(one);
    return !failed;
}

static PyObject *tuple_of(const struct sum *sum, const struct text *texts, PyObject **strs) {
    const int32_t *parts = sum->parts;
    if (sum->of == OF_LEVEL)
        return Py_BuildValue("(iOssL)", (int)parts[0], strs[parts[1]], TYPE_NAMES[parts[2]], LEVEL_NAMES[parts[3]], (long long)sum->many);
    if (sum->of == OF_SERIES)
        return Py_BuildValue("(OOOOLddd)", strs[parts[0]], strs[parts[1]], strs[parts[2]], strs[parts[3]], (long long)sum->many,
                             sum->total, sum->least, sum->greatest);
    return Py_BuildValue("(iy#)", (int)parts[0], (const char *)texts[parts[1]].at, (Py_ssize_t)texts[parts[1]].size);
}

/* What was found, as Python has it. NULL with an error set. */
static PyObject *answer_of(const struct summing *all) {
    const struct text *texts = all->texts.items;
    const struct sum *sums = all->sums.items;
    const struct listed *listed = all->listed.items;
    PyObject *answer = PyTuple_New(1 + SUMS + WHYS), **strs = calloc((size_t)all->texts.count + 1, sizeof *strs);
    int fine = answer && strs;
    for (Py_ssize_t at = 0; fine && at < 1 + SUMS + WHYS; at++) {
        PyObject *one = PyList_New(0);
        fine = one && !PyTuple_SetItem(answer, at, one);
    }
    for (int32_t at = 0; fine && at < all->sums.count; at++) { /* of what is in a context, strings are made later */
        const struct sum *sum = &sums[at];
        for (int part = sum->of == OF_LEVEL ? 1 : 0; fine && part < (sum->of == OF_LEVEL ? 2 : sum->of == OF_SERIES ? PARTS : 0); part++)
            if (!strs[sum->parts[part]])
                fine = (strs[sum->parts[part]] = str_of(&texts[sum->parts[part]])) != NULL;
        fine = fine && give(PyTuple_GetItem(answer, 1 + sum->of), tuple_of(sum, texts, strs));
    }
    for (int32_t at = 0; fine && at < all->texts.count; at++)
        if (texts[at].is_trace)
            fine = give(PyTuple_GetItem(answer, 0), strs[at] ? (Py_INCREF(strs[at]), strs[at]) : str_of(&texts[at]));
    for (int32_t at = 0; fine && at < all->listed.count; at++)
        fine = give(PyTuple_GetItem(answer, 1 + SUMS + listed[at].why),
                    Py_BuildValue("(iy#)", (int)listed[at].line, (const char *)listed[at].at, (Py_ssize_t)listed[at].size));
    for (int32_t at = 0; strs && at < all->texts.count; at++)
        Py_XDECREF(strs[at]);
    free(strs);
    if (!fine) {
        Py_CLEAR(answer);
        if (!PyErr_Occurred())
            PyErr_NoMemory();
    }
    return answer;
}

static int take_keys(struct summing *all, PyObject *keys) {
    Py_ssize_t count = PyList_Size(keys);
    if (count < 0)
        return 0;
    if (count > MAX_KEYS) {
        PyErr_SetString(PyExc_ValueError, "expected at most 16 keys");
        return 0;
    }
    for (all->key_count = 0; all->key_count < count; all->key_count++) {
        struct key *key = &all->keys[all->key_count];
        if (PyBytes_AsStringAndSize(PyList_GetItem(keys, all->key_count), (char **)&key->at, &key->size))
            return 0;
    }
    return 1;
}

PyDoc_STRVAR(add_up_doc,
"add_up(block: bytes, hour: int, keys: list[bytes], seed: int) -> tuple\n\n"
"block is whole lines, each ended by a newline; hour is one in microseconds, keys those of contexts that are looked up. Answers with\n"
"lists: the traces; (hour, service, type, level, messages); of metrics (trace, service, name, unit, count, total, least, greatest); of\n"
"contexts (number of the key, value as JSON); and as (number, line) those of spans and jobs, events to be looked at, the odd ones, of\n"
"which nothing else is known.");

static PyObject *add_up(PyObject *Py_UNUSED(module), PyObject *arguments) {
    struct summing all;
    const char *block;
    Py_ssize_t size;
    long long hour;
    unsigned long long seed;
    PyObject *keys, *answer = NULL;
    int fine;
    memset(&all, 0, sizeof all);
    if (!PyArg_ParseTuple(arguments, "y#LO!K", &block, &size, &hour, &PyList_Type, &keys, &seed) || !take_keys(&all, keys))
        return NULL;
    if (size > INT32_MAX / 2 || (size && block[size - 1] != '\n') || hour < 1000000) {
        PyErr_SetString(PyExc_ValueError, "expected whole lines of at most 1 GiB, and an hour");
        return NULL;
    }
    all.seed = seed;
    all.hour = hour;
    Py_INCREF(keys);
    Py_BEGIN_ALLOW_THREADS
    fine = add_lines(&all, (const byte *)block, (const byte *)block + size);
    Py_END_ALLOW_THREADS
    Py_DECREF(keys);
    if (!fine)
        PyErr_NoMemory();
    else if (add_readings(&all))
        answer = answer_of(&all);
    free(all.texts.items);
    free(all.sums.items);
    free(all.readings.items);
    free(all.listed.items);
    free(all.text_places.numbers);
    free(all.sum_places.numbers);
    return answer;
}

static int execute(PyObject *Py_UNUSED(module)) {
    prepare();
    return 0;
}

static PyMethodDef FUNCTIONS[] = { { "add_up", add_up, METH_VARARGS, add_up_doc }, { NULL, NULL, 0, NULL } };
static PyModuleDef_Slot MODULE_SLOTS[] = { { Py_mod_exec, execute }, { 0, NULL } };
static struct PyModuleDef MODULE = { PyModuleDef_HEAD_INIT, "_sums", "What stored lines add up to.", 0, FUNCTIONS, MODULE_SLOTS, NULL, NULL, NULL };

PyMODINIT_FUNC PyInit__sums(void) {
    return PyModuleDef_Init(&MODULE);
}
