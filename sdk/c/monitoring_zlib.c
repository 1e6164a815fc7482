/*
 * monitoring_zlib.c - compressed frames for monitoring_sdk.c, by zlib; monitoring_zlib.h says what it promises.
 */
#include "monitoring_zlib.h"

#include <stdio.h>
#include <string.h>
#include <zlib.h>

enum { HEADER = 128 };

size_t monitoring_zlib_room(size_t size) {
    return HEADER + compressBound((uLong)size);
}

size_t monitoring_zlib_frame(char *frame, size_t room, const char *lines, size_t size, long long count) {
    char header[HEADER];
    uLongf block = (uLongf)(room - HEADER);
    /* The header says how long the block is, so the block comes first, and moves. */
    if (compress2((Bytef *)frame + HEADER, &block, (const Bytef *)lines, (uLong)size, Z_BEST_SPEED) != Z_OK)
        return 0;
    int length = snprintf(header, sizeof header, "{\"type\":\"frame\",\"codec\":\"zlib\",\"bytes\":%lu,\"raw\":%zu,\"lines\":%lld}\n",
                          (unsigned long)block, size, count);
    if ((size_t)length + block >= size)
        return 0;
    memcpy(frame, header, (size_t)length);
    memmove(frame + length, frame + HEADER, block);
    return (size_t)length + block;
}
