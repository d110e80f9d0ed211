/* A deformable convolution in C: float32, forward, with all strides and groups. */
#include <math.h>
#include <refdcn.h>

REFDCN_EXPORTS(deform_conv2d)

static float *at(const refdcn_tensor *t, int64_t i, int64_t j, int64_t k, int64_t l)
{
    return (float *)t->data + refdcn_at(t, i, j, k, l);
}

/* Channel c of image n at (q_y, q_x), between its pixels; 0 outside. */
static float sample(const refdcn_tensor *x, int64_t n, int64_t c, float q_y, float q_x)
{
    float sum = 0;
    for (int corner = 0; corner < 4; corner++) {
        float h = floorf(q_y) + corner / 2, w = floorf(q_x) + corner % 2;
        if (h >= 0 && h < x->shape[2] && w >= 0 && w < x->shape[3])
            sum += (1 - fabsf(q_y - h)) * (1 - fabsf(q_x - w)) * *at(x, n, c, h, w);
    }
    return sum;
}

static int fits(const refdcn_call *a, int64_t taps)
{
    const int64_t *x = a->x.shape, *w = a->weight.shape, *o = a->offset.shape;
    const int64_t *m = a->mask.data ? a->mask.shape : (int64_t[]){o[0], taps, o[2], o[3]};
    int ok = taps && x[1] == a->groups * w[1] && w[0] % a->groups == 0
             && x[1] % a->offset_groups == 0 && o[0] == x[0] && o[1] == 2 * taps
             && m[0] == o[0] && m[1] == taps && m[2] == o[2] && m[3] == o[3];
    for (int d = 0; d < 2; d++)
        ok = ok && a->stride[d] > 0 && o[2 + d] == 1 + (x[2 + d] + 2 * a->padding[d]
                - a->dilation[d] * (w[2 + d] - 1) - 1) / a->stride[d];
    return ok;
}

int deform_conv2d(const refdcn_call *a)
{
    const int64_t *x = a->x.shape, *w = a->weight.shape, *y = a->y.shape;
    const int64_t K = w[2] * w[3], outs = w[0] / (a->groups ? a->groups : 1);
    if (a->dtype != REFDCN_FLOAT32) return REFDCN_UNSUPPORTED;
    if (!fits(a, a->offset_groups * K)) return REFDCN_BAD_SHAPE;
    for (int64_t n = 0; n < y[0]; n++) for (int64_t o = 0; o < y[1]; o++)
    for (int64_t i = 0; i < y[2]; i++) for (int64_t j = 0; j < y[3]; j++) {
        float sum = a->bias.data ? *at(&a->bias, o, 0, 0, 0) : 0;
        for (int64_t c = 0; c < w[1]; c++) for (int64_t k = 0; k < K; k++) {
            int64_t u = k / w[3], v = k % w[3], channel = o / outs * w[1] + c;
            int64_t tap = channel / (x[1] / a->offset_groups) * K + k;
            float q_y = i * a->stride[0] - a->padding[0] + u * a->dilation[0];
            float q_x = j * a->stride[1] - a->padding[1] + v * a->dilation[1];
            float s = sample(&a->x, n, channel, q_y + *at(&a->offset, n, 2 * tap, i, j),
                             q_x + *at(&a->offset, n, 2 * tap + 1, i, j));
            sum += *at(&a->weight, o, c, u, v) * s
                   * (a->mask.data ? *at(&a->mask, n, tap, i, j) : 1);
        }
        *at(&a->y, n, o, i, j) = sum;
    }
    return REFDCN_OK;
}
