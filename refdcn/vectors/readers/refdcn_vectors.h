/* Reads the .safetensors files of `refdcn vectors`: one header, C99, no dependency.

     rv_file file;
     if (!rv_open(&file, "fractions.safetensors")) return 1;
     const float *x = rv_floats(&file, "x");            NULL where there is none
     long wrong = rv_failures(&file, "y", y);           elements that are not right
     rv_close(&file);

   A machine that stores numbers with the last byte first (all usual ones) is assumed. */
#ifndef REFDCN_VECTORS_H
#define REFDCN_VECTORS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RV_MOST 64

typedef struct {
    char name[32], dtype[8]; /* F64, F32, F16 or I64 */
    int dims;
    int64_t shape[8], count;
    const void *data;
} rv_array;

typedef struct {
    char *bytes;
    int count;
    rv_array arrays[RV_MOST];
} rv_file;

/* The text between the next two quotes; the place behind it, NULL at the end. */
static const char *rv_word(const char *at, const char *end, char *to, size_t room) {
    const char *from = memchr(at, '"', (size_t)(end - at));
    const char *until = from ? memchr(from + 1, '"', (size_t)(end - from - 1)) : NULL;
    if (!until || (size_t)(until - from - 1) >= room) return NULL;
    memcpy(to, from + 1, (size_t)(until - from - 1));
    to[until - from - 1] = 0;
    return until + 1;
}

/* The whole numbers in the next brackets, at most 8; how many there are. */
static int rv_numbers(const char **at, const char *end, int64_t *to) {
    int n = 0;
    const char *p = memchr(*at, '[', (size_t)(end - *at));
    while (p && p < end && *p != ']') {
        char *behind;
        long long value = strtoll(++p, &behind, 10);
        if (behind == p || n == 8) break; /* empty brackets */
        to[n++] = value;
        p = behind;
    }
    *at = p ? p : end;
    return n;
}

static void rv_close(rv_file *file) {
    free(file->bytes);
    file->bytes = NULL;
}

/* 1 if the file is read and whole, else 0. */
static int rv_open(rv_file *file, const char *path) {
    FILE *stream = fopen(path, "rb");
    long size = 0;
    uint64_t header = 0;
    memset(file, 0, sizeof *file);
    if (!stream) return 0;
    if (!fseek(stream, 0, SEEK_END) && (size = ftell(stream)) > 8) {
        rewind(stream);
        file->bytes = malloc((size_t)size + 1);
    }
    if (!file->bytes || fread(file->bytes, 1, (size_t)size, stream) != (size_t)size) {
        fclose(stream);
        rv_close(file);
        return 0;
    }
    fclose(stream);
    file->bytes[size] = 0;
    memcpy(&header, file->bytes, 8); /* then a JSON object of so many bytes */
    if (header > (uint64_t)size - 8) {
        rv_close(file);
        return 0;
    }
    const char *at = file->bytes + 8, *end = at + header, *data = end;
    char key[32];
    while (file->count < RV_MOST) {
        rv_array *a = &file->arrays[file->count];
        int64_t span[8] = {0};
        /* "name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]} */
        const char *next = rv_word(at, end, a->name, sizeof a->name);
        if (!next) return 1;
        next = rv_word(next, end, key, sizeof key);
        if (next) next = rv_word(next, end, a->dtype, sizeof a->dtype);
        if (!next) break;
        a->dims = rv_numbers(&next, end, a->shape);
        if (rv_numbers(&next, end, span) != 2) break;
        if (span[0] < 0 || span[1] < span[0] || span[1] > size - (data - file->bytes)) break;
        a->data = data + span[0];
        a->count = 1;
        for (int d = 0; d < a->dims; d++) a->count *= a->shape[d];
        file->count++;
        at = next;
    }
    rv_close(file);
    return 0;
}

static const rv_array *rv_find(const rv_file *file, const char *name) {
    for (int i = 0; i < file->count; i++)
        if (!strcmp(file->arrays[i].name, name)) return &file->arrays[i];
    return NULL;
}

/* The numbers of a float32 array; NULL where there is no such array. */
static const float *rv_floats(const rv_file *file, const char *name) {
    const rv_array *a = rv_find(file, name);
    return a && !strcmp(a->dtype, "F32") ? (const float *)a->data : NULL;
}

static double rv_double(const rv_array *a, int64_t i) {
    double value;
    memcpy(&value, (const char *)a->data + 8 * i, 8);
    return value;
}

/* The numbers of a float32 result outside of what is right; -1 if there is none. */
static long rv_failures(const rv_file *file, const char *name, const float *got) {
    char key[40];
    const rv_array *value = rv_find(file, name), *low, *high, *bound;
    long wrong = 0;
    snprintf(key, sizeof key, "%s.bound", name);
    bound = rv_find(file, key);
    if (!value || !bound) return -1;
    snprintf(key, sizeof key, "%s.low", name);
    low = rv_find(file, key);
    snprintf(key, sizeof key, "%s.high", name);
    high = rv_find(file, key);
    for (int64_t i = 0; i < value->count; i++) {
        double least = rv_double(low ? low : value, i);
        double most = rv_double(high ? high : value, i);
        float e;
        memcpy(&e, (const char *)bound->data + 4 * i, 4);
        /* NaN is within nothing. */
        if (!(got[i] - most <= e && least - got[i] <= e)) wrong++;
    }
    return wrong;
}

#endif
