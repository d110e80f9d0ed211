/* A right kernel, forward and backward, as an example of what check.c calls. */
#include <math.h>
#include <stddef.h>

#include "kernel.h"

/* Pixel (r, c) of a plane; 0 outside. */
static float pixel(const geometry *g, const float *plane, int r, int c) {
    return r >= 0 && r < g->H && c >= 0 && c < g->W ? plane[r * g->W + c] : 0.0f;
}

typedef struct {
    int r, c;
    float fy, fx, v[2][2];
} cell;

/* The pixels around a sample, and where it lies between them. */
static int sample(const geometry *g, const float *plane, float y, float x, cell *s) {
    if (!(y > -1 && y < g->H && x > -1 && x < g->W)) return 0;
    s->r = (int)floorf(y);
    s->c = (int)floorf(x);
    s->fy = y - (float)s->r;
    s->fx = x - (float)s->c;
    for (int a = 0; a < 2; a++)
        for (int b = 0; b < 2; b++) s->v[a][b] = pixel(g, plane, s->r + a, s->c + b);
    return 1;
}

/* One pass over all terms; the gradients where `d` is not NULL, else y. */
static void terms(const geometry *g, const inputs *in, float *y, const gradients *d) {
    int K = g->K_h * g->K_w, P = g->H_out * g->W_out;
    int C = g->C_in / g->groups, O = g->C_out / g->groups, D = g->C_in / g->offset_groups;
    for (int n = 0; n < g->N; n++)
    for (int o = 0; o < g->C_out; o++)
    for (int p = 0; p < P; p++) {
        int at_y = (n * g->C_out + o) * P + p;
        float sum = in->bias ? in->bias[o] : 0.0f;
        if (d && d->bias) d->bias[o] += in->grad_y[at_y];
        for (int c = 0; c < C; c++)
        for (int k = 0; k < K; k++) {
            int channel = o / O * C + c, m = (n * g->offset_groups + channel / D) * K + k;
            int u = p / g->W_out, v = p % g->W_out, w = (o * C + c) * K + k;
            int row = g->stride[0] * u - g->padding[0] + g->dilation[0] * (k / g->K_w);
            int column = g->stride[1] * v - g->padding[1] + g->dilation[1] * (k % g->K_w);
            float dy = in->offset[2 * m * P + p], dx = in->offset[(2 * m + 1) * P + p];
            float dm = in->mask ? in->mask[m * P + p] : 1.0f;
            const float *plane = in->x + (n * g->C_in + channel) * g->H * g->W;
            cell s;
            if (!sample(g, plane, (float)row + dy, (float)column + dx, &s)) continue;
            float top = (1 - s.fx) * s.v[0][0] + s.fx * s.v[0][1];
            float low = (1 - s.fx) * s.v[1][0] + s.fx * s.v[1][1];
            float value = (1 - s.fy) * top + s.fy * low;
            sum += in->weight[w] * dm * value;
            if (!d) continue;
            float gy = in->grad_y[at_y], G = in->weight[w] * gy;
            float left = (1 - s.fy) * s.v[0][0] + s.fy * s.v[1][0];
            float right = (1 - s.fy) * s.v[0][1] + s.fy * s.v[1][1];
            d->weight[w] += gy * dm * value;
            if (d->mask) d->mask[m * P + p] += G * value;
            d->offset[2 * m * P + p] += G * dm * (low - top);
            d->offset[(2 * m + 1) * P + p] += G * dm * (right - left);
            for (int a = 0; a < 2; a++)
            for (int b = 0; b < 2; b++) {
                int r = s.r + a, q = s.c + b;
                if (r < 0 || r >= g->H || q < 0 || q >= g->W) continue;
                d->x[(n * g->C_in + channel) * g->H * g->W + r * g->W + q] +=
                    G * dm * (a ? s.fy : 1 - s.fy) * (b ? s.fx : 1 - s.fx);
            }
        }
        if (y) y[at_y] = sum;
    }
}

void deform_conv2d(const geometry *g, const inputs *in, float *y) {
    terms(g, in, y, NULL);
}

void deform_conv2d_grad(const geometry *g, const inputs *in, const gradients *d) {
    terms(g, in, NULL, d);
}
