/*
 * fuzz - the encoder and the reader of replies against arbitrary bytes (libFuzzer; `make fuzz`).
 *
 * The first byte says what the rest is: a reply of the sidecar, a number, or a message with its fields. Every line that comes out has to
 * be one JSON object of valid UTF-8 within the limit, numbers have to read back as they were, and so have strings that were not cut.
 */
#include "../monitoring_text.c" /* some of what is looked at is static there */

enum { MOST = 6 };

static void demand(int truth) { if (!truth) abort(); }

/* ---- an independent reader of JSON ---- */

/* Behind the character at `at`, which has to be valid UTF-8. */
static const char *read_character(const char *at, unsigned long *code) {
    const unsigned char *bytes = (const unsigned char *)at;
    static const unsigned long least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    int length = bytes[0] < 0x80 ? 1 : (bytes[0] & 0xE0) == 0xC0 ? 2 : (bytes[0] & 0xF0) == 0xE0 ? 3 : (bytes[0] & 0xF8) == 0xF0 ? 4 : 0;
    if (!length) return NULL;
    *code = length == 1 ? bytes[0] : bytes[0] & (0x7FU >> length);
    for (int i = 1; i < length; i++) {
        if ((bytes[i] & 0xC0) != 0x80) return NULL;
        *code = *code << 6 | (bytes[i] & 0x3F);
    }
    return *code < least[length] || (*code >= 0xD800 && *code < 0xE000) || *code > 0x10FFFF ? NULL : at + length;
}

static int is_utf8(const char *text) {
    unsigned long code;
    while (text && *text) text = read_character(text, &code);
    return text != NULL;
}

/* Behind the string at `at`, which is compared with `same` unless that is NULL. */
static const char *check_string(const char *at, const char *same) {
    unsigned long code, wanted;
    demand(*at++ == '"');
    while (*at != '"') {
        demand((unsigned char)*at >= ' ');
        demand((at = read_character(at, &code)) != NULL);
        if (code == '\\') {
            const char *name = *at ? strchr("\"\"\\\\n\nr\rt\t", *at) : NULL;
            if (*at == 'u') {
                char digits[5] = { at[1], at[2], at[3], at[4], 0 }, *end;
                code = strtoul(digits, &end, 16);
                demand(end == digits + 4);
                at += 5;
            } else {
                demand(name != NULL);
                code = (unsigned char)name[1], at++;
            }
        }
        if (same) demand((same = read_character(same, &wanted)) && code == wanted);
    }
    demand(!same || !*same);
    return at + 1;
}

static const char *check_value(const char *at, const char *key_of_same, const char *same) {
    if (*at == '"') return check_string(at, NULL);
    if (*at == '{') {
        if (*++at == '}') return at + 1;
        for (at--; *at != '}';) {
            demand(*at == '{' || *at == ',');
            const char *key = ++at;
            at = check_string(at, NULL);
            demand(*at++ == ':');
            int is_same = same && strncmp(key + 1, key_of_same, strlen(key_of_same)) == 0 && key[1 + strlen(key_of_same)] == '"';
            at = is_same ? check_string(at, same) : check_value(at, NULL, NULL);
        }
        return at + 1;
    }
    if (strncmp(at, "true", 4) == 0 || strncmp(at, "null", 4) == 0) return at + 4;
    if (strncmp(at, "false", 5) == 0) return at + 5;
    at += *at == '-';
    demand(*at >= '0' && *at <= '9');
    demand(*at != '0' || at[1] < '0' || at[1] > '9');
    at += strspn(at, "0123456789");
    if (*at == '.') demand(strspn(at + 1, "0123456789") > 0), at += 1 + strspn(at + 1, "0123456789");
    if (*at == 'e') at++, at += *at == '-' || *at == '+', demand(strspn(at, "0123456789") > 0), at += strspn(at, "0123456789");
    return at;
}

/* ---- the three inputs ---- */

static void fuzz_reply(const uint8_t *data, size_t size) {
    struct reply reply;
    char *line = calloc(1, size + 1);
    memcpy(line, data, size);
    mon_read_reply(line, &reply);
    demand(memchr(reply.type, 0, WORD) && memchr(reply.code, 0, WORD) && memchr(reply.detail, 0, WORD));
    free(line);
}

static void fuzz_number(const uint8_t *data, size_t size) {
    double number = 0;
    memcpy(&number, data, size < sizeof number ? size : sizeof number);
    if (!isfinite(number)) return;
    char printed[40];
    size_t length = mon_put_number((struct text){ printed, sizeof printed - 1 }, 0, number);
    demand(length < sizeof printed);
    printed[length] = '\0';
    demand(*check_value(printed, NULL, NULL) == '\0');
    demand(strtod(printed, NULL) == number && !signbit(strtod(printed, NULL)) == !signbit(number));
}

static void fuzz_message(const uint8_t *data, size_t size) {
    char *strings[MOST + 1] = { NULL };
    monitoring_field fields[MOST];
    size_t count = 0;
    for (size_t at = 0; at + 2 < size && count < MOST + 1; count++) {
        /* kind; length; how many times; the string, or number, itself */
        size_t length = data[at + 1] & 63, times = data[at + 1] >> 6 == 3 ? 1 + (size_t)data[at] * 4 : 1;
        monitoring_kind kind = (monitoring_kind)(1 + data[at] % 5);
        at += 2;
        if (length > size - at) length = size - at;
        strings[count] = calloc(1, length * times + 1);
        for (size_t i = 0; i < times; i++) memcpy(strings[count] + i * length, data + at, length);
        if (count) {
            fields[count - 1] = (monitoring_field){ count % 3 ? "key" : strings[count - 1], kind, { .string = length % 16 ? strings[count] : NULL } };
            if (kind != MON_STRING) memset(&fields[count - 1].value, 0, sizeof fields->value), memcpy(&fields[count - 1].value, data + at, length < 8 ? length : 8);
        }
        at += length;
    }
    const char *text = strings[0] ? strings[0] : "";
    const monitoring_field own[] = { STRING("level", "info"), STRING("message", text) };
    struct message message = { "event", "job-1", NULL, 1234567890123456, own, fields, 2, count ? count - 1 : 0, size % 2 ? "context" : "tags", NULL };
    char *line = malloc(SMALL), end[SUFFIX + 1];
    size_t length = mon_encode((struct text){ line, SMALL }, &message, ",\"service\":\"fuzz\"");
    if (length > SMALL) {
        free(line), line = malloc(MAX_BODY);
        length = mon_encode_long((struct text){ line, MAX_BODY }, &message, ",\"service\":\"fuzz\"");
    }
    demand(length <= MAX_BODY);
    size_t more = mon_suffix(end, "0123456789abcdef", 1LL << 53);
    demand(length + more <= MAX_LINE + 1);
    line = realloc(line, length + more + 1);
    memcpy(line + length, end, more), line[length + more] = '\0';
    demand(strcmp(check_value(line, "message", !message.lengths && is_utf8(text) ? text : NULL), "\n") == 0);
    free(line);
    for (size_t i = 0; i < count; i++) free(strings[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const inputs[])(const uint8_t *, size_t) = { fuzz_message, fuzz_number, fuzz_reply, fuzz_message };
    if (size) inputs[data[0] % 4](data + 1, size - 1);
    return 0;
}
