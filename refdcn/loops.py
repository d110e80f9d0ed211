"""Eqs. (1), (2) and (4) of formula.py as short functions and plain loops.

The tents of Eq. (2) are zero but at the four pixels around q, its cell. So the sum
over all pixels becomes a floor and four terms. One text, run three ways: as Python,
compiled by Numba for the CPU, and inside CUDA kernels. The targets call `position`,
`corners` and `slope_inside`; compiled directly it is the float64 oracle for real sizes.

Not finite. A sample reads pixels only where -1 < q < H (W) on both axes, its slope
also at q = -1: those pixels of its cell, floor(q) and floor(q) + 1, that lie in the
image. If one of them is NaN the sample is NaN, at tent 0 too, since 0 * NaN is NaN;
formula.py, whose sum visits every pixel, says nothing of them. A NaN coordinate makes
the sample and its slopes NaN and adds nothing to grad_x.

Literals are wrapped, T(1), since 1 - float32 is float64 in Numba.
"""

import math

import numpy as np
from numba.extending import register_jitable

from refdcn.jit import compiled


@register_jitable
def position(base, dp, T):
    """Eq. (1), one coordinate of q = p + p_k + dp_k.

    base = stride * p - padding + dilation * k is a whole number, so that the sum is
    rounded once.
    """
    return T(base) + dp


@register_jitable
def inside(q_y, q_x, H, W, T):
    """Whether a sample at q reads any pixel; false for NaN."""
    return T(-1) < q_y and q_y < T(H) and T(-1) < q_x and q_x < T(W)


@register_jitable
def slope_inside(q_y, q_x, H, W, T):
    """Whether the right-hand slope of Eq. (4) at q reads any pixel."""
    return T(-1) <= q_y and q_y < T(H) and T(-1) <= q_x and q_x < T(W)


@register_jitable
def corners(q_y, q_x, T):
    """Eq. (3): the cell of q, its first pixel (r_y, r_x) and the tents of its four.

    The pixels are (r_y, r_x), (r_y, r_x + 1), (r_y + 1, r_x), (r_y + 1, r_x + 1).
    """
    r_y = int(math.floor(q_y))
    r_x = int(math.floor(q_x))
    f_y = q_y - T(r_y)
    f_x = q_x - T(r_x)
    e_y = T(1) - f_y
    e_x = T(1) - f_x
    return r_y, r_x, e_y, f_y, e_x, f_x


@register_jitable
def pixel(x, n, c, r_y, r_x):
    """x(r), zero outside the image, where nothing is read."""
    if 0 <= r_y and r_y < x.shape[2] and 0 <= r_x and r_x < x.shape[3]:
        return x[n, c, r_y, r_x]
    return x.dtype.type(0)


@register_jitable
def bilinear(x, n, c, q_y, q_x):
    """Eq. (2): x(q)."""
    T = x.dtype.type
    if math.isnan(q_y) or math.isnan(q_x):
        return T(np.nan)
    if not inside(q_y, q_x, x.shape[2], x.shape[3], T):
        return T(0)
    r_y, r_x, e_y, f_y, e_x, f_x = corners(q_y, q_x, T)
    return (
        e_y * e_x * pixel(x, n, c, r_y, r_x)
        + e_y * f_x * pixel(x, n, c, r_y, r_x + 1)
        + f_y * e_x * pixel(x, n, c, r_y + 1, r_x)
        + f_y * f_x * pixel(x, n, c, r_y + 1, r_x + 1)
    )


@register_jitable
def slopes(x, n, c, q_y, q_x):
    """Eqs. (2) and (4): dx(q)/dq_y and dx(q)/dq_x, right-hand at integers."""
    T = x.dtype.type
    if math.isnan(q_y) or math.isnan(q_x):
        return T(np.nan), T(np.nan)
    if not slope_inside(q_y, q_x, x.shape[2], x.shape[3], T):
        return T(0), T(0)
    r_y, r_x, e_y, f_y, e_x, f_x = corners(q_y, q_x, T)
    x00 = pixel(x, n, c, r_y, r_x)
    x01 = pixel(x, n, c, r_y, r_x + 1)
    x10 = pixel(x, n, c, r_y + 1, r_x)
    x11 = pixel(x, n, c, r_y + 1, r_x + 1)
    d_y = e_x * (x10 - x00) + f_x * (x11 - x01)
    d_x = e_y * (x01 - x00) + f_y * (x11 - x10)
    return d_y, d_x


@register_jitable
def add_bilinear(grad_x, n, c, q_y, q_x, g):
    """The transpose of Eq. (2): g added to the four pixels that x(q) reads."""
    T = grad_x.dtype.type
    H, W = grad_x.shape[2], grad_x.shape[3]
    if not inside(q_y, q_x, H, W, T):
        return
    r_y, r_x, e_y, f_y, e_x, f_x = corners(q_y, q_x, T)
    if r_y >= 0 and r_x >= 0:
        grad_x[n, c, r_y, r_x] += e_y * e_x * g
    if r_y >= 0 and r_x + 1 < W:
        grad_x[n, c, r_y, r_x + 1] += e_y * f_x * g
    if r_y + 1 < H and r_x >= 0:
        grad_x[n, c, r_y + 1, r_x] += f_y * e_x * g
    if r_y + 1 < H and r_x + 1 < W:
        grad_x[n, c, r_y + 1, r_x + 1] += f_y * f_x * g


@register_jitable
def tap_position(offset, at, K_w, windows):
    """Eq. (1): q of `at` = (n, tap, k, u, v): tap k, offset groups counted in `tap`.

    `windows` are stride, padding, dilation.
    """
    (n, tap, k, u, v), (stride, padding, dilation) = at, windows
    T = offset.dtype.type
    base_y = stride[0] * u - padding[0] + dilation[0] * (k // K_w)
    base_x = stride[1] * v - padding[1] + dilation[1] * (k % K_w)
    q_y = position(base_y, offset[n, 2 * tap, u, v], T)
    q_x = position(base_x, offset[n, 2 * tap + 1, u, v], T)
    return q_y, q_x


@register_jitable
def output(x, offset, weight, mask, at, windows):
    """Eq. (5) without bias: y at = (n, o, u, v)."""
    n, o, u, v = at
    C_in, (C_out, C, K_h, K_w) = x.shape[1], weight.shape
    K = K_h * K_w
    first = o // (C_out // (C_in // C)) * C  # first input channel of o's group
    per_offset_group = C_in // (offset.shape[1] // (2 * K))
    y = x.dtype.type(0)
    for c in range(C):
        g = (first + c) // per_offset_group
        for k in range(K):
            tap = n, g * K + k, k, u, v
            q_y, q_x = tap_position(offset, tap, K_w, windows)
            sample = bilinear(x, n, first + c, q_y, q_x)
            y += weight[o, c, k // K_w, k % K_w] * sample * mask[n, g * K + k, u, v]
    return y


@register_jitable
def add_gradients(grad_y, x, offset, weight, mask, at, windows, grads):
    """Eq. (6) and below it, for one sample `at` = (n, c, k, u, v), c in C_in."""
    n, c, k, u, v = at
    grad_x, grad_offset, grad_weight, grad_mask = grads
    C_out, C, K_h, K_w = weight.shape
    K, group, i, j = K_h * K_w, c // C, k // K_w, k % K_w
    tap = c // (x.shape[1] // (offset.shape[1] // (2 * K))) * K + k
    q_y, q_x = tap_position(offset, (n, tap, k, u, v), K_w, windows)
    sample, dm = bilinear(x, n, c, q_y, q_x), mask[n, tap, u, v]
    g = x.dtype.type(0)
    per_group = C_out // (x.shape[1] // C)
    for o in range(group * per_group, (group + 1) * per_group):
        g += weight[o, c % C, i, j] * grad_y[n, o, u, v]
        grad_weight[o, c % C, i, j] += grad_y[n, o, u, v] * dm * sample
    d_y, d_x = slopes(x, n, c, q_y, q_x)
    grad_offset[n, 2 * tap, u, v] += g * dm * d_y
    grad_offset[n, 2 * tap + 1, u, v] += g * dm * d_x
    grad_mask[n, tap, u, v] += g * sample
    add_bilinear(grad_x, n, c, q_y, q_x, g * dm)


def forward(x, offset, weight, mask, bias, windows, y):
    """Eq. (5) for every output."""
    for n in range(y.shape[0]):
        for o in range(y.shape[1]):
            for u in range(y.shape[2]):
                for v in range(y.shape[3]):
                    at = n, o, u, v
                    y[at] = bias[o] + output(x, offset, weight, mask, at, windows)


def backward(grad_y, x, offset, weight, mask, windows, grads):
    """Eq. (6) and below it, for every sample; adds to `grads`."""
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            for k in range(weight.shape[2] * weight.shape[3]):
                for u in range(grad_y.shape[2]):
                    for v in range(grad_y.shape[3]):
                        at = n, c, k, u, v
                        add_gradients(
                            grad_y, x, offset, weight, mask, at, windows, grads
                        )


def deform_conv2d(
    x, offset, weight, mask=None, bias=None,
    stride=(1, 1), padding=(0, 0), dilation=(1, 1), run=compiled,
):  # fmt: skip
    """Eq. (5) on NumPy arrays of one dtype; `run` makes the loop callable."""
    N, C_out, (H_out, W_out) = len(x), len(weight), offset.shape[2:]
    mask, bias = _filled(x, offset, weight, mask, bias)
    y = np.empty((N, C_out, H_out, W_out), x.dtype)
    windows = stride, padding, dilation
    run(forward)(x, offset, weight, mask, bias, windows, y)
    return y


def deform_conv2d_grad(
    grad_y, x, offset, weight, mask=None, bias=None,
    stride=(1, 1), padding=(0, 0), dilation=(1, 1), run=compiled,
):  # fmt: skip
    """The derivatives of sum(grad_y * y) by x, offset, weight, mask, bias."""
    given = mask is not None, bias is not None
    mask, bias = _filled(x, offset, weight, mask, bias)
    grads = tuple(np.zeros(a.shape, x.dtype) for a in (x, offset, weight, mask))
    windows = stride, padding, dilation
    run(backward)(grad_y, x, offset, weight, mask, windows, grads)
    grad_b = grad_y.sum((0, 2, 3), dtype=x.dtype) if given[1] else None
    return *grads[:3], grads[3] if given[0] else None, grad_b


def _filled(x, offset, weight, mask, bias):
    """mask None is 1, bias None is 0."""
    N, channels, H_out, W_out = offset.shape
    mask = np.ones((N, channels // 2, H_out, W_out), x.dtype) if mask is None else mask
    bias = np.zeros(len(weight), x.dtype) if bias is None else bias
    return mask, bias
