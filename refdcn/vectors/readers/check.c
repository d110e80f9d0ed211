/* Holds a kernel to the float32 vectors:

     cc -O2 check.c kernel.c -lm -o check && ./check FILE.safetensors ...

   One line for each result that is wrong; exit code 1 if there is any, 2 if a file
   cannot be read or none was checked. */
#include "kernel.h"
#include "refdcn_vectors.h"

static const char *const RESULTS[] = {
    "y", "grad_x", "grad_offset", "grad_weight", "grad_mask", "grad_bias"};

static geometry read_geometry(const rv_file *file) {
    const int64_t *x = rv_find(file, "x")->shape, *w = rv_find(file, "weight")->shape;
    const int64_t *y = rv_find(file, "y")->shape;
    int64_t all[8];
    memcpy(all, rv_find(file, "geometry")->data, sizeof all);
    geometry g = {(int)x[0], (int)x[1], (int)x[2], (int)x[3], (int)w[0], (int)w[2],
                  (int)w[3], (int)y[2], (int)y[3], {(int)all[0], (int)all[1]},
                  {(int)all[2], (int)all[3]}, {(int)all[4], (int)all[5]},
                  (int)all[6], (int)all[7]};
    return g;
}

/* The results of one file that are wrong. */
static int check(const rv_file *file, const char *path) {
    geometry g = read_geometry(file);
    inputs in = {rv_floats(file, "x"), rv_floats(file, "offset"),
                 rv_floats(file, "weight"), rv_floats(file, "mask"),
                 rv_floats(file, "bias"), rv_floats(file, "grad_y")};
    float *got[6] = {NULL};
    int bad = 0;
    for (int i = 0; i < 6; i++) {
        const rv_array *a = rv_find(file, RESULTS[i]);
        if (a) got[i] = calloc((size_t)a->count + 1, sizeof(float));
    }
    gradients d = {got[1], got[2], got[3], got[4], got[5]};
    deform_conv2d(&g, &in, got[0]);
    deform_conv2d_grad(&g, &in, &d);
    for (int i = 0; i < 6; i++) {
        long wrong = got[i] ? rv_failures(file, RESULTS[i], got[i]) : 0;
        if (wrong) {
            long all = (long)rv_find(file, RESULTS[i])->count;
            printf("%s: %s: %ld of %ld are wrong\n", path, RESULTS[i], wrong, all);
            bad++;
        }
        free(got[i]);
    }
    return bad;
}

int main(int count, char **paths) {
    int checked = 0, bad = 0;
    for (int i = 1; i < count; i++) {
        rv_file file;
        if (!rv_open(&file, paths[i])) {
            printf("%s cannot be read\n", paths[i]);
            return 2;
        }
        if (rv_floats(&file, "x")) { /* the other dtypes are for other kernels */
            bad += check(&file, paths[i]);
            checked++;
        }
        rv_close(&file);
    }
    printf("%d files checked, %d results wrong\n", checked, bad);
    return bad ? 1 : checked ? 0 : 2;
}
