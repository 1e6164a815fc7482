/* The scanner's judgement of any bytes, under the sanitizers: it stays within the line, and calls nothing good that breaks what
   the rest relies on. That it agrees with Python is what tests/fuzz/test_fuzz.py looks at.

   clang -fsanitize=fuzzer,address,undefined -o build/fuzz_scan tests/fuzz/scan.c && build/fuzz_scan */

#include "../../wafermon/wire/_line.h"

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *count, char ***arguments) {
    (void)count;
    (void)arguments;
    prepare();
    return 0;
}

static void demand(int holds) {
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct line line;
    byte *copy = malloc(size ? size : 1); /* whose end the sanitizer watches */
    if (!copy)
        return 0;
    if (size)
        memcpy(copy, data, size);
    if (!memchr(copy, '\n', size) && read_line(copy, copy + size, &line)) {
        demand(line.type >= 0 && line.type < TYPES && (line.type == EVENT) == (line.level > 0));
        demand(!line.ts || (line.ts >= TS_MIN && line.ts <= TS_MAX));
        demand(line.seq >= 0 && line.seq <= WHOLE_MAX);
        for (int field = 0; field < FIELDS; field++) {
            const struct value *value = &line.fields[field];
            demand(value->sort == ABSENT || (value->at >= copy && value->at + value->size <= copy + size));
        }
        demand(line.fields[HOST].sort == ABSENT || line.fields[HOST].size <= 255);
        (void)hash_of(1, copy, size);
    }
    free(copy);
    return 0;
}
