"""Modulated deformable convolution (DCNv2): the definition.

    y(p) = sum_k  w_k * x(q) * dm_k,   q = p + p_k + dp_k          (1)
    x(q) = sum_r  tent(q_y - r_y) * tent(q_x - r_x) * x(r)         (2)
    tent(t) = max(0, 1 - |t|)                                      (3)
    d tent(q - r) / dq = [r - 1 <= q < r] - [r <= q < r + 1]       (4)

(1): Zhu et al. 2019 (arXiv:1811.11168), Eq. 1; (2), (3): Dai et al.
2017 (arXiv:1703.06211), Eqs. 3, 4. Positions are (row, column). Tap k =
i * K_w + j of output (u, v) has p + p_k = stride * (u, v) - padding +
dilation * (i, j). In (2) r runs over the pixels; x is 0 beyond: the
sample at (-0.5, 2) is x(0, 2) / 2. (4) is right-hand: an integer q has
slope x(q + 1) - x(q), which at q = -1 is x(0).

    x       [N, C_in, H, W]
    offset  [N, offset_groups * K_h * K_w * 2, H_out, W_out], in pixels:
            tap (i, j) of offset group g has dy, dx in channels 2 * m,
            2 * m + 1, where m = (g * K_h + i) * K_w + j
    mask    [N, offset_groups * K_h * K_w, H_out, W_out], any number in
            channel m; None is 1 everywhere (DCNv1)
    weight  [C_out, C_in / groups, K_h, K_w]; bias [C_out], None is 0

groups splits C_in and C_out into equal runs of channels; run b of y
sums over run b of x. offset_groups splits C_in likewise, each run with
its own offsets and mask. Neither need divide the other.

A NaN coordinate makes y and the gradients of offset, weight and mask
NaN where its tap enters, even times 0, and adds 0 to grad_x. A tap with
q_y or q_x < -1, >= size or infinite adds 0 to all (NaN wins). Other
inputs must be finite; in loops.py a NaN among the existing pixels of
floor(q), floor(q) + 1, at tent 0 too, makes a sample with -1 < q < size
(a slope: -1 <= q) on both axes NaN. Sums are float64, rounded once.
"""

import numpy as np


def tent(q, size):
    """Eq. (3), slope (4) at r = 0 ... size - 1, a new last axis."""
    q, r = q[..., None], np.arange(size)
    s = 1.0 * ((r - 1 <= q) & (q < r)) - ((r <= q) & (q < r + 1))
    return np.maximum(0, 1 - abs(q - r)), np.where(np.isnan(q), q, s)


def sample(x, t_y, t_x):
    """Eq. (2): [n, g, c, k, u, v], c counted in offset group g."""
    factors = "ngchw,ngkuvh,ngkuvw->ngckuv"
    return np.einsum(factors, x, t_y, t_x, optimize=True)


def by_group(x, offset, weight, mask, stride, padding, dilation):
    """x, tents, mask by offset group (g); weight by group (b)."""
    (N, C_in, H, W), (C_out, C, K_h, K_w) = x.shape, weight.shape
    K, (u, v) = K_h * K_w, np.indices(offset.shape[2:])
    groups, offset_groups = C_in // C, offset.shape[1] // (2 * K)
    i, j = np.indices((K_h, K_w)).reshape(2, K, 1, 1)
    dp = offset.reshape(N, offset_groups, K, 2, *u.shape)
    q_y = stride[0] * u - padding[0] + dilation[0] * i + dp[:, :, :, 0]
    q_x = stride[1] * v - padding[1] + dilation[1] * j + dp[:, :, :, 1]
    dm = np.ones_like(q_y) if mask is None else mask.reshape(q_y.shape)
    w = weight.reshape(groups, C_out // groups, C, K).astype(np.float64)
    x = x.reshape(N, offset_groups, C_in // offset_groups, H, W)
    return x, tent(q_y, H), tent(q_x, W), w, dm[:, :, None]


def deform_conv2d(
    x,
    offset,
    weight,
    mask=None,
    bias=None,
    stride=(1, 1),
    padding=(0, 0),
    dilation=(1, 1),
):
    """Eq. (1): y [N, C_out, H_out, W_out]; padding is (top, left)."""
    xg, (t_y, _), (t_x, _), w, dm = by_group(
        x, offset, weight, mask, stride, padding, dilation
    )
    shape = len(x), len(w), *w.shape[2:], *offset.shape[2:]
    columns = (sample(xg, t_y, t_x) * dm).reshape(shape)
    y = np.einsum("bock,nbckuv->nbouv", w, columns)
    y = y.reshape(len(x), len(weight), *offset.shape[2:])
    b = 0 if bias is None else bias[:, None, None]
    return (y + b).astype(x.dtype)


def deform_conv2d_grad(
    grad_y,
    x,
    offset,
    weight,
    mask=None,
    bias=None,
    stride=(1, 1),
    padding=(0, 0),
    dilation=(1, 1),
):
    """d sum(grad_y * y) / d x, offset, weight, mask, bias (or None)."""
    xg, (t_y, s_y), (t_x, s_x), w, dm = by_group(
        x, offset, weight, mask, stride, padding, dilation
    )
    gy = grad_y.reshape(len(x), *w.shape[:2], *grad_y.shape[2:])
    g, xq = np.einsum("bock,nbouv->nbckuv", w, gy), sample(xg, t_y, t_x)
    g_w = np.einsum("nbouv,nbckuv->bock", gy, (xq * dm).reshape(g.shape))
    g = g.reshape(xq.shape)
    g_o = np.stack(
        [(g * dm * sample(xg, *f)).sum(2) for f in ((s_y, t_x), (t_y, s_x))], 3
    )
    g_x = np.einsum(
        "ngckuv,ngkuvh,ngkuvw->ngchw",
        g * dm,
        *map(np.nan_to_num, (t_y, t_x)),
        optimize=True,
    )
    grad = g_x, g_o, g_w, (g * xq).sum(2), gy.sum((0, 3, 4), float)
    return tuple(
        a if a is None else d.reshape(a.shape).astype(a.dtype)
        for a, d in zip((x, offset, weight, mask, bias), grad)
    )
