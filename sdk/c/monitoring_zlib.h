/*
 * monitoring_zlib.h - what monitoring_sdk.c asks of monitoring_zlib.c where both are compiled with -DMONITORING_ZLIB; not for programs.
 */
#ifndef MONITORING_ZLIB_H
#define MONITORING_ZLIB_H

#include <stddef.h>

#pragma GCC visibility push(hidden)

/* How many bytes a frame of so many bytes of lines has at the most. */
size_t monitoring_zlib_room(size_t size);

/*
 * Write the frame, its header and then its block, that stands for these whole lines. `room` as above. How many bytes it has; 0: no
 * memory, or it would not be shorter than the lines.
 */
size_t monitoring_zlib_frame(char *frame, size_t room, const char *lines, size_t size, long long count);

#pragma GCC visibility pop
#endif
