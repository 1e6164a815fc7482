/*
 * monitoring_text.c - ids, messages as JSON, and what the sidecar answers: text alone, for monitoring_sdk.c.
 */
#include "monitoring_core.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

uint64_t mon_random_bits(void) {
    uint64_t bits = 0;
    while (getentropy(&bits, sizeof bits) != 0 && errno == EINTR)
        continue;
    return bits;
}

void mon_make_id(char id[17]) {
    snprintf(id, 17, "%016llx", (unsigned long long)mon_random_bits());
}

int mon_is_trace_id(const char *id) {
    size_t length = 0;
    while (id && length <= 128 && id[length] > ' ' && id[length] <= '~')
        length++;
    return length > 0 && length <= 128 && !id[length];
}

int mon_is_hex(const char *text, size_t length) {
    return strspn(text, "0123456789abcdef") >= length && strspn(text, "0") < length;
}

/* ---- JSON text ---- */

static inline size_t put_natural(struct text text, size_t at, unsigned long long rest, int negative) {
    char digits[24], *first = digits + sizeof digits;
    do
        *--first = (char)('0' + rest % 10);
    while (rest /= 10);
    if (negative)
        *--first = '-';
    return put(text, at, first, (size_t)(digits + sizeof digits - first));
}

size_t mon_put_integer(struct text text, size_t at, long long number) {
    return put_natural(text, at, number < 0 ? 0 - (unsigned long long)number : (unsigned long long)number, number < 0);
}

size_t mon_put_number(struct text text, size_t at, double number) {
    /* The usual case without printf: where an integer below 10^15, divided by 10^4, gives the number, so does reading its decimals. */
    double size = fabs(number);
    long long scaled = size < 1e10 ? (long long)(size * 1e4 + 0.5) : -1, rest = scaled % 10000;
    if ((double)scaled / 1e4 == size && (size > 0 || !signbit(number))) {
        char decimals[] = { '.', (char)('0' + rest / 1000), (char)('0' + rest / 100 % 10), (char)('0' + rest / 10 % 10),
                            (char)('0' + rest % 10) };
        size_t length = rest ? sizeof decimals : 0;
        while (length && decimals[length - 1] == '0')
            length--;
        return put(text, mon_put_integer(text, put(text, at, "-", number < 0), scaled / 10000), decimals, length);
    }
    char printed[40];
    for (int digits = 15; digits == 15 || (digits <= 17 && strtod(printed, NULL) != number); digits++)
        snprintf(printed, sizeof printed, "%.*g", digits, number);
    /* The program's locale may have another decimal point. */
    size_t before = strspn(printed, "-0123456789"), point = strcspn(printed + before, "0123456789e");
    return put_word(text, put(text, put(text, at, printed, before), ".", point > 0), printed + before + point);
}

static int is_plain(unsigned char c) {
    return c >= ' ' && c < 0x80 && c != '"' && c != '\\';
}

/* Whether all of eight characters are plain: where none has its high bit, a subtraction sets it in the ones below what is subtracted. */
static int are_plain(uint64_t eight) {
    const uint64_t each = ~0ULL / 255;
    return !((eight | (eight - each * ' ') | ((eight ^ each * '"') - each) | ((eight ^ each * '\\') - each))
             & each * 0x80);
}

/* The bytes of the valid UTF-8 sequence at `at`, or 0: cut off, overlong, a surrogate, beyond U+10FFFF. */
static size_t sequence(const unsigned char *at, size_t left) {
    size_t length = at[0] < 0xC2 ? 0 : at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : at[0] < 0xF5 ? 4 : 0;
    if (!length || left < length)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    int low = at[0] == 0xE0   ? 0xA0
              : at[0] == 0xF0 ? 0x90
                              : 0x80,
        high = at[0] == 0xED   ? 0x9F
               : at[0] == 0xF4 ? 0x8F
                               : 0xBF;
    return at[1] >= low && at[1] <= high ? length : 0;
}

/* Write the character at string[*i], which is not plain, and move past it. */
static size_t put_special(struct text text, size_t at, const char *string, size_t *i, size_t end) {
    unsigned char c = (unsigned char)string[*i];
    size_t length = c < 0x80 ? 1 : sequence((const unsigned char *)string + *i, end - *i);
    const char *name = strchr("\"\"\\\\\nn\tt\rr", c), *bytes = length ? string + *i : "\xEF\xBF\xBD";
    char escape[] = { '\\', name ? name[1] : 'u', '0', '0', (char)('0' + (c >> 4)), "0123456789abcdef"[c & 15] };
    *i += length ? length : 1;
    return c < 0x80 ? put(text, at, escape, name ? 2 : 6) : put(text, at, bytes, length ? length : 3);
}

static inline size_t put_string(struct text text, size_t at, const char *string, size_t length) {
    size_t i = 0;
    at = put(text, at, "\"", 1);
    while (i < length) {
        size_t start = i, room = text.size > at ? text.size - at : 0, stop = room < length - i ? i + room : length;
        char *to = room ? text.data + at : NULL;
        for (uint64_t eight; stop - i >= sizeof eight && (memcpy(&eight, string + i, sizeof eight), are_plain(eight));
             i += sizeof eight)
            memcpy(to + (i - start), &eight, sizeof eight);
        for (; i < stop && is_plain((unsigned char)string[i]); i++)
            to[i - start] = string[i];
        at += i - start;
        if (i < length && is_plain((unsigned char)string[i])) {
            i++;
            at++;
        } else if (i < length)
            at = put_special(text, at, string, &i, length);
    }
    return put(text, at, "\"", 1);
}

/* ---- messages ---- */

/* `before` comes before the first one. */
size_t mon_put_fields(struct text text, size_t at, const char *before, const monitoring_field *fields, size_t count,
                      const size_t *lengths, int context) {
    for (const monitoring_field *field = fields; field < fields + count; field++) {
        const char *string = field->kind == MON_STRING ? field->value.string : NULL;
        long long integer = field->kind == MON_INTEGER || field->kind == MON_TRUTH ? field->value.integer : 0;
        unsigned long long natural = field->kind == MON_UNSIGNED ? field->value.natural : 0;
        size_t quoted =
            field->kind == MON_TRUTH ? !context : integer > 1LL << 53 || integer < -(1LL << 53) || natural > 1ULL << 53;
        if (field->kind == MON_STRING && !string && !context)
            continue;
        at = put_string(text, put(text, at, before, 1), field->key, strlen(field->key));
        at = put(text, at, ":\"", 1 + quoted);
        if (string)
            at = put_string(text, at, string, lengths ? lengths[field - fields] : strlen(string));
        else if (field->kind == MON_INTEGER)
            at = mon_put_integer(text, at, integer);
        else if (field->kind == MON_UNSIGNED)
            at = put_natural(text, at, natural, 0);
        else if (field->kind == MON_NUMBER && isfinite(field->value.number))
            at = mon_put_number(text, at, field->value.number);
        else
            at = put_word(text, at, field->kind != MON_TRUTH ? "null" : integer ? "true" : "false");
        at = put(text, at, "\"", quoted);
        before = ",";
    }
    return at;
}

/* The body: a line up to its `client`. Its length, whether it fits or not. */
size_t mon_encode(struct text text, const struct message *message, const char *origin) {
    const monitoring_field scope[] = { STRING("trace_id", message->trace_id), STRING("span_id", message->span_id) };
    const size_t *lengths = message->lengths ? message->lengths + message->own_count : NULL;
    size_t at = put_word(text, put_word(text, put_word(text, 0, "{\"type\":\""), message->type), "\",\"ts\":");
    at = put_word(text, mon_put_integer(text, at, message->ts), origin);
    at = mon_put_fields(text, at, ",", scope, 2, NULL, 0);
    at = mon_put_fields(text, at, ",", message->own, message->own_count, message->lengths, 0);
    if (message->field_count) {
        size_t start = at = put_word(text, put_word(text, put_word(text, at, ",\""), message->group), "\":");
        at = mon_put_fields(text, at, "{", message->fields, message->field_count, lengths, message->group[0] == 'c');
        at = put_word(text, at, at > start ? "}" : "{}");
    }
    return lengths ? put_word(text, at, ",\"truncated\":true") : at;
}

static const char *string_at(const struct message *message, size_t i) {
    const monitoring_field *field =
        i < message->own_count ? &message->own[i] : &message->fields[i - message->own_count];
    return field->kind == MON_STRING ? field->value.string : NULL;
}

/* Encode a long message: cut the longest string again and again, and drop the group where that helps too little. 0: no memory. */
size_t mon_encode_long(struct text text, struct message *message, const char *origin) {
    size_t count = message->own_count + message->field_count, *lengths = malloc(count * sizeof *lengths),
           size = mon_encode(text, message, origin);
    if (!lengths || size <= MAX_BODY) {
        free(lengths);
        return size <= MAX_BODY ? size : 0;
    }
    for (size_t i = 0; i < count; i++)
        lengths[i] = string_at(message, i) ? strnlen(string_at(message, i), MAX_LINE) : 0;
    message->lengths = lengths;
    size = mon_encode(text, message, origin);
    for (int cuts = CUTS; size > MAX_BODY; cuts--) {
        size_t longest = 0, over = size - MAX_BODY;
        for (size_t i = 1; i < message->own_count + message->field_count; i++)
            if (lengths[i] > lengths[longest])
                longest = i;
        if (message->field_count && (cuts < 0 || lengths[longest] < SHORT)) {
            message->field_count = 0;
            size = mon_encode(text, message, origin);
            continue;
        }
        const char *string = string_at(message, longest);
        size_t coded = put_string((struct text){ NULL, 0 }, 0, string, lengths[longest]);
        /* As if escapes were spread evenly; at most half of it, so that several long strings share the loss. */
        size_t cut = over * lengths[longest] / coded + 1, half = (lengths[longest] + 1) / 2;
        lengths[longest] -= cut < half ? cut : half;
        for (int back = 0; back < 3 && lengths[longest] && (string[lengths[longest]] & 0xC0) == 0x80; back++)
            lengths[longest]--;
        size -= coded - put_string((struct text){ NULL, 0 }, 0, string, lengths[longest]);
    }
    size = mon_encode(text, message, origin);
    free(lengths);
    return size;
}

/* ---- W3C trace context ---- */

static uint32_t rotated(uint32_t word, int bits) {
    return word >> bits | word << (32 - bits);
}

/* One block of SHA-256 (FIPS 180-4). */
static void hash_block(uint32_t state[8], const unsigned char block[64]) {
    static const uint32_t constants[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
    };
    uint32_t words[64], now[8];
    for (int i = 0; i < 16; i++)
        words[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8
                   | block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t early = words[i - 15], late = words[i - 2];
        words[i] = words[i - 16] + (rotated(early, 7) ^ rotated(early, 18) ^ early >> 3) + words[i - 7]
                   + (rotated(late, 17) ^ rotated(late, 19) ^ late >> 10);
    }
    memcpy(now, state, sizeof now);
    for (int i = 0; i < 64; i++) {
        uint32_t e = now[4], a = now[0];
        uint32_t first = now[7] + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + ((e & now[5]) ^ (~e & now[6]))
                         + constants[i] + words[i];
        uint32_t second =
            (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & now[1]) ^ (a & now[2]) ^ (now[1] & now[2]));
        memmove(now + 1, now, 7 * sizeof *now);
        now[4] += first;
        now[0] = first + second;
    }
    for (int i = 0; i < 8; i++)
        state[i] += now[i];
}

/* The SHA-256 of a trace id, in hex. */
static void hash_trace(const char *trace, char hex[65]) {
    uint32_t state[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
    };
    unsigned char padded[192] = "";
    size_t length = strlen(trace), size = (length + 9 + 63) / 64 * 64;
    memcpy(padded, trace, length);
    padded[length] = 0x80;
    padded[size - 2] = (unsigned char)(length * 8 >> 8);
    padded[size - 1] = (unsigned char)(length * 8);
    for (size_t at = 0; at < size; at += 64)
        hash_block(state, padded + at);
    for (int i = 0; i < 8; i++)
        snprintf(hex + 8 * i, 9, "%08lx", (unsigned long)state[i]);
}

/* What an OpenTelemetry program takes as its parent: a trace id of 32 hex as it is, any other by its hash, as the sidecar has it. */
void mon_put_traceparent(const char *trace, const char *span, char parent[56]) {
    char hex[65];
    hash_trace(trace, hex);
    snprintf(parent, 56, "00-%.32s-%.16s-01", mon_is_hex(trace, 32) && !trace[32] ? trace : hex,
             *span ? span : hex + 32);
}

/* ---- what the sidecar says ---- */

/* Past the string at `at`, whose raw bytes, cut, go into `word`; NULL: it does not end. */
static const char *read_word(const char *at, char word[WORD]) {
    size_t length = 0;
    for (at++; *at && *at != '"'; at++) {
        if (length < WORD - 1)
            word[length++] = *at;
        if (*at == '\\' && !*++at)
            return NULL;
    }
    word[length] = '\0';
    return *at ? at + 1 : NULL;
}

/* Read one line without its newline. False: not a whole object. Only the object's own keys count, not those of objects within it. */
int mon_read_reply(const char *at, struct reply *reply) {
    char key[WORD] = "", word[WORD];
    int depth = 1;
    memset(reply, 0, sizeof *reply);
    if (*(at += strspn(at, " \t\r")) != '{')
        return 0;
    for (at++; depth && *at;) {
        if (*at == '"') {
            if (!(at = read_word(at, word)))
                return 0;
            at += strspn(at, " \t\r");
            if (depth == 2 && strcmp(key, "features") == 0 && strcmp(word, "stats") == 0)
                reply->stats = 1;
            if (depth == 1 && strcmp(key, "compress") == 0 && strcmp(word, "zlib") == 0)
                reply->zlib = 1;
            if (depth > 1)
                continue;
            char *to = *at == ':'                   ? key
                       : strcmp(key, "type") == 0   ? reply->type
                       : strcmp(key, "code") == 0   ? reply->code
                       : strcmp(key, "detail") == 0 ? reply->detail
                                                    : NULL;
            if (to)
                strcpy(to, word);
        } else if (strchr("-0123456789", *at)) {
            long long *to = depth > 1                   ? NULL
                            : strcmp(key, "seq") == 0   ? &reply->seq
                            : strcmp(key, "acked") == 0 ? &reply->acked
                                                        : NULL;
            if (to)
                *to = strtoll(at, NULL, 10);
            at += strspn(at, "+-.0123456789eE");
        } else {
            depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
            at++;
        }
    }
    return depth == 0;
}

/* ---- the end of a line ---- */

size_t mon_suffix(char *line, const char *client, long long seq) {
    struct text text = { line, SUFFIX };
    size_t at = put_word(text, put(text, put_word(text, 0, ",\"client\":\""), client, 16), "\",\"seq\":");
    return put_word(text, mon_put_integer(text, at, seq), "}\n");
}
