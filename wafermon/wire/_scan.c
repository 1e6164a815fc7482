/* One pass over a block of lines: which of them are good as they are, and what they have in common. Odd lines are listed, and Python
   reads each by itself. See _line.h. */

#define Py_LIMITED_API 0x030a0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "_line.h"

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
