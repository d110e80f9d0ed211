// A deformable convolution and its five gradients in C++: float64 and float32.
#include <cmath>
#include <cstring>
#include <refdcn.h>

REFDCN_EXPORTS(deform_conv2d)

template <class T> T &at(const refdcn_tensor &t, int64_t i, int64_t j = 0, int64_t k = 0,
                         int64_t l = 0)
{
    return static_cast<T *>(t.data)[refdcn_at(&t, i, j, k, l)];
}

// One tap of one output, and the four pixels around the place that it samples.
template <class T> struct Tap {
    int64_t n, group, number, u, v, i, j;
    T mask;
    struct { int64_t h, w; T weight, dy, dx; } pixel[4];
    int pixels = 0;

    Tap(const refdcn_call &a, int64_t n, int64_t tap, int64_t i, int64_t j)
        : n(n), number(tap), i(i), j(j)
    {
        const int64_t *w = a.weight.shape, *x = a.x.shape;
        group = tap / (w[2] * w[3]);
        u = tap / w[3] % w[2], v = tap % w[3];
        mask = a.mask.data ? at<T>(a.mask, n, tap, i, j) : T(1);
        T q_y = T(i * a.stride[0] - a.padding[0] + u * a.dilation[0]);
        T q_x = T(j * a.stride[1] - a.padding[1] + v * a.dilation[1]);
        q_y += at<T>(a.offset, n, 2 * tap, i, j);
        q_x += at<T>(a.offset, n, 2 * tap + 1, i, j);
        for (int corner = 0; corner < 4; corner++) {
            T h = std::floor(q_y) + corner / 2, l = std::floor(q_x) + corner % 2;
            if (!(h >= 0 && h < T(x[2]) && l >= 0 && l < T(x[3]))) continue;
            T f_y = 1 - std::abs(q_y - h), f_x = 1 - std::abs(q_x - l);
            T up = corner / 2 ? T(1) : T(-1), right = corner % 2 ? T(1) : T(-1);
            pixel[pixels++] = {int64_t(h), int64_t(l), f_y * f_x, up * f_x, right * f_y};
        }
    }
};

// Calls visit(tap, channel) for every sample there is.
template <class T, class Visit> int every_sample(const refdcn_call &a, Visit visit)
{
    const int64_t *x = a.x.shape, *w = a.weight.shape, *o = a.offset.shape;
    const int64_t taps = a.offset_groups * w[2] * w[3], *m = a.mask.shape;
    bool fits = taps && a.groups * w[1] == x[1] && w[0] % a.groups == 0
                && x[1] % a.offset_groups == 0 && o[0] == x[0] && o[1] == 2 * taps;
    if (a.mask.data)
        fits = fits && m[0] == o[0] && m[1] == taps && m[2] == o[2] && m[3] == o[3];
    for (int d = 0; d < 2; d++)
        fits = fits && a.stride[d] > 0
               && (x[2 + d] + 2 * a.padding[d] - a.dilation[d] * (w[2 + d] - 1) - 1)
                      / a.stride[d] + 1 == o[2 + d];
    if (!fits) return REFDCN_BAD_SHAPE;
    const int64_t channels = x[1] / a.offset_groups; // of an offset group
    for (int64_t n = 0; n < o[0]; n++) for (int64_t tap = 0; tap < taps; tap++)
    for (int64_t i = 0; i < o[2]; i++) for (int64_t j = 0; j < o[3]; j++) {
        const Tap<T> here(a, n, tap, i, j);
        for (int64_t c = here.group * channels; c < (here.group + 1) * channels; c++)
            visit(here, c);
    }
    return REFDCN_OK;
}

template <class T> int forward(const refdcn_call &a)
{
    const int64_t *y = a.y.shape, *w = a.weight.shape;
    for (int64_t n = 0; n < y[0]; n++) for (int64_t o = 0; o < y[1]; o++)
    for (int64_t i = 0; i < y[2]; i++) for (int64_t j = 0; j < y[3]; j++)
        at<T>(a.y, n, o, i, j) = a.bias.data ? at<T>(a.bias, o) : T(0);
    return every_sample<T>(a, [&](const Tap<T> &t, int64_t c) {
        T sample = 0;
        for (int k = 0; k < t.pixels; k++)
            sample += t.pixel[k].weight * at<T>(a.x, t.n, c, t.pixel[k].h, t.pixel[k].w);
        const int64_t outs = w[0] / a.groups, first = c / w[1] * outs;
        for (int64_t o = first; o < first + outs; o++)
            at<T>(a.y, t.n, o, t.i, t.j) +=
                at<T>(a.weight, o, c % w[1], t.u, t.v) * (t.mask * sample);
    });
}

template <class T> int backward(const refdcn_call &a)
{
    const refdcn_tensor *all[] = {&a.grad_x, &a.grad_offset, &a.grad_weight,
                                  &a.grad_mask, &a.grad_bias};
    for (const refdcn_tensor *g : all)
        if (g->data)
            std::memset(g->data, 0, sizeof(T) * size_t(g->shape[0] * g->shape[1]
                                                       * g->shape[2] * g->shape[3]));
    const int64_t *y = a.grad_y.shape, *w = a.weight.shape;
    if (a.bias.data)
        for (int64_t n = 0; n < y[0]; n++) for (int64_t o = 0; o < y[1]; o++)
        for (int64_t i = 0; i < y[2]; i++) for (int64_t j = 0; j < y[3]; j++)
            at<T>(a.grad_bias, o) += at<T>(a.grad_y, n, o, i, j);
    return every_sample<T>(a, [&](const Tap<T> &t, int64_t c) {
        T sample = 0, dy = 0, dx = 0, flow = 0; // flow: the gradient of mask * sample
        for (int k = 0; k < t.pixels; k++) {
            const T value = at<T>(a.x, t.n, c, t.pixel[k].h, t.pixel[k].w);
            sample += t.pixel[k].weight * value;
            dy += t.pixel[k].dy * value, dx += t.pixel[k].dx * value;
        }
        const int64_t outs = w[0] / a.groups, first = c / w[1] * outs;
        for (int64_t o = first; o < first + outs; o++) {
            const T g = at<T>(a.grad_y, t.n, o, t.i, t.j);
            flow += at<T>(a.weight, o, c % w[1], t.u, t.v) * g;
            at<T>(a.grad_weight, o, c % w[1], t.u, t.v) += g * (t.mask * sample);
        }
        at<T>(a.grad_offset, t.n, 2 * t.number, t.i, t.j) += flow * t.mask * dy;
        at<T>(a.grad_offset, t.n, 2 * t.number + 1, t.i, t.j) += flow * t.mask * dx;
        if (a.mask.data) at<T>(a.grad_mask, t.n, t.number, t.i, t.j) += flow * sample;
        for (int k = 0; k < t.pixels; k++)
            at<T>(a.grad_x, t.n, c, t.pixel[k].h, t.pixel[k].w) +=
                flow * t.mask * t.pixel[k].weight;
    });
}

int deform_conv2d(const refdcn_call *a)
{
    return a->dtype == REFDCN_FLOAT64   ? forward<double>(*a)
           : a->dtype == REFDCN_FLOAT32 ? forward<float>(*a)
                                        : REFDCN_UNSUPPORTED;
}

int deform_conv2d_backward(const refdcn_call *a)
{
    return a->dtype == REFDCN_FLOAT64   ? backward<double>(*a)
           : a->dtype == REFDCN_FLOAT32 ? backward<float>(*a)
                                        : REFDCN_UNSUPPORTED;
}
