"""A right kernel in the layout of public CUDA code: flat memory, blocks of images.

tests/support/outdoor_mistakes.py changes lines of it, one mistake at a time.
"""

from types import SimpleNamespace

import numpy as np

STEP = 2  # images a block, at most
KEPT = {}


def sizes(x, offset, weight, mask, stride, padding, dilation):
    s = SimpleNamespace(T=x.dtype)
    (s.N, s.C, s.H, s.W), (s.O, s.c, s.kh, s.kw) = x.shape, weight.shape
    (s.sh, s.sw), (s.ph, s.pw), (s.dh, s.dw) = stride, padding, dilation
    s.Ho = (s.H + 2 * s.ph - s.dh * (s.kh - 1) - 1) // s.sh + 1
    s.Wo = (s.W + 2 * s.pw - s.dw * (s.kw - 1) - 1) // s.sw + 1
    s.K, s.P, s.G = s.kh * s.kw, s.Ho * s.Wo, s.C // s.c
    s.og = offset.shape[1] // (2 * s.K)
    s.cg = s.C // s.og
    if offset.shape != (s.N, s.og * 2 * s.K, s.Ho, s.Wo):
        raise ValueError("offset has another shape")
    if mask is not None and mask.shape != (s.N, s.og * s.K, s.Ho, s.Wo):
        raise ValueError("mask has another shape")
    if s.c * s.G != s.C or s.O % s.G or s.og * s.cg != s.C:
        raise ValueError("groups do not fit")
    return s


def indices(s, b):
    """Of a column: image, offset group, channel in it, tap, pixel."""
    n, g, c, k, pix = np.ogrid[:b, : s.og, : s.cg, : s.K, : s.P]
    oh, ow = pix // s.Wo, pix % s.Wo
    i, j = k // s.kw, k % s.kw
    return n, g, c, k, oh, ow, i, j


def load(flat, at, ok=True):
    """What lies at an address; past the end of the memory there is nothing."""
    ok = ok & (at >= 0) & (at < flat.size)
    return np.where(ok, flat[np.where(ok, at, 0)], flat.dtype.type(0))


def position(s, b, offset):
    n, g, _, k, oh, ow, i, j = indices(s, b)
    plane = (n * s.og + g) * 2 * s.K + 2 * k
    pixel = oh * s.Wo + ow
    dy = load(offset, plane * s.P + pixel)
    dx = load(offset, (plane + 1) * s.P + pixel)
    h = (oh * s.sh - s.ph + i * s.dh).astype(s.T) + dy
    w = (ow * s.sw - s.pw + j * s.dw).astype(s.T) + dx
    return h, w


def modulation(s, b, mask):
    n, g, _, k, oh, ow, _, _ = indices(s, b)
    if mask is None:
        return np.ones((b, s.og, 1, s.K, s.P), s.T)
    return load(mask, ((n * s.og + g) * s.K + k) * s.P + oh * s.Wo + ow)


def corners(s, h, w):
    """Four of (row, column, weight, slopes along rows and columns, inside)."""
    inside = (h > -1) & (w > -1) & (h < s.H) & (w < s.W)
    h, w = np.where(inside, h, 0), np.where(inside, w, 0)
    h_low, w_low = np.floor(h), np.floor(w)
    lh, lw = (h - h_low).astype(s.T), (w - w_low).astype(s.T)
    h_low, w_low = h_low.astype(np.int64), w_low.astype(np.int64)
    hh, hw = 1 - lh, 1 - lw
    h_high, w_high = h_low + 1, w_low + 1
    ok_t, ok_b = inside & (h_low >= 0), inside & (h_high <= s.H - 1)
    ok_l, ok_r = w_low >= 0, w_high <= s.W - 1
    return (
        (h_low, w_low, hh * hw, -hw, -hh, ok_t & ok_l),
        (h_low, w_high, hh * lw, -lw, hh, ok_t & ok_r),
        (h_high, w_low, lh * hw, hw, -lh, ok_b & ok_l),
        (h_high, w_high, lh * lw, lw, lh, ok_b & ok_r),
    )


def im2col(s, b, x, offset, mask):
    n, g, c, *_ = indices(s, b)
    image = (n * s.C + g * s.cg + c) * s.H * s.W
    value = np.zeros((b, s.og, s.cg, s.K, s.P), s.T)
    for r, q, weight, _, _, ok in corners(s, *position(s, b, offset)):
        value += weight * load(x, image + r * s.W + q, ok)
    columns = value * modulation(s, b, mask)
    return columns.reshape(b, s.G, s.c * s.K, s.P)


def blocks(s):
    step = max(1, min(STEP, s.N))
    return [(n, min(n + step, s.N)) for n in range(0, s.N, step)]


def flat(a, s, first):
    """The memory of an array from image `first` on."""
    a = np.ascontiguousarray(a)
    return a.reshape(-1)[first * (a.size // max(1, s.N)) :]


def f(x, offset, weight, mask, bias, stride, padding, dilation):
    s = sizes(x, offset, weight, mask, stride, padding, dilation)
    y = np.zeros((s.N, s.G, s.O // s.G, s.P), s.T)
    w = weight.reshape(s.G, s.O // s.G, s.c * s.K)
    for first, last in blocks(s):
        m = None if mask is None else flat(mask, s, first)
        p = flat(x, s, first), flat(offset, s, first), m
        columns = im2col(s, last - first, *p)
        y[first:last] = w @ columns
    y = y.reshape(s.N, s.O, s.Ho, s.Wo)
    return y if bias is None else y + bias[:, None, None]


def f_grad(grad_y, x, offset, weight, mask, bias, stride, padding, dilation):
    s = sizes(x, offset, weight, mask, stride, padding, dilation)
    w = weight.reshape(s.G, s.O // s.G, s.c * s.K)
    go = grad_y.reshape(s.N, s.G, s.O // s.G, s.P)
    grad_x = np.zeros(x.shape, s.T)
    grad_offset = np.zeros((s.N, s.og, s.K, 2, s.P), s.T)
    grad_mask = np.zeros((s.N, s.og, s.K, s.P), s.T)
    grad_weight = np.zeros(w.shape, s.T)
    for first, last in blocks(s):
        b = last - first
        m = None if mask is None else flat(mask, s, first)
        p = flat(x, s, first), flat(offset, s, first), m
        g = w.swapaxes(1, 2) @ go[first:last]
        g = g.reshape(b, s.og, s.cg, s.K, s.P)
        dy, dx, dm = coordinates(s, b, g, *p)
        grad_offset[first:last, :, :, 0] = dy
        grad_offset[first:last, :, :, 1] = dx
        grad_mask[first:last] = dm
        col2im(s, b, g, *p[1:], grad_x[first:last])
        columns = im2col(s, b, *p)
        grad_weight += (go[first:last] @ columns.swapaxes(2, 3)).sum(0)
    return (
        grad_x,
        grad_offset.reshape(offset.shape),
        grad_weight.reshape(weight.shape),
        None if mask is None else grad_mask.reshape(mask.shape),
        None if bias is None else grad_y.sum((0, 2, 3), dtype=s.T),
    )


def coordinates(s, b, g, x, offset, mask):
    """The gradients of dy, dx and the mask."""
    n, group, c, *_ = indices(s, b)
    image = (n * s.C + group * s.cg + c) * s.H * s.W
    m = modulation(s, b, mask)
    value, slope_h, slope_w = (np.zeros(g.shape, s.T) for _ in range(3))
    for r, q, weight, along_h, along_w, ok in corners(s, *position(s, b, offset)):
        pixel = load(x, image + r * s.W + q, ok)
        value += weight * pixel
        slope_h += along_h * pixel
        slope_w += along_w * pixel
    dy = (g * m * slope_h).sum(2)
    dx = (g * m * slope_w).sum(2)
    return dy, dx, (g * value).sum(2)


def col2im(s, b, g, offset, mask, grad_x):
    n, group, c, *_ = indices(s, b)
    image = (n * s.C + group * s.cg + c) * s.H * s.W
    into = np.zeros(grad_x.size, s.T)
    m = modulation(s, b, mask)
    for r, q, weight, _, _, ok in corners(s, *position(s, b, offset)):
        at = np.broadcast_to(image + r * s.W + q, g.shape)
        ok = np.broadcast_to(ok, g.shape)
        np.add.at(into, at[ok], (g * m * weight)[ok])
    grad_x += into.reshape(grad_x.shape)
