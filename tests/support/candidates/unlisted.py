"""Deformable convolution as a kernel writer does it: tiles, columns, products.

Correct, and the ground on which unlisted_mistakes.py sows: output pixels in
tiles of TILE, each tile's samples gathered as columns, the sum over the columns in
blocks of DEPTH rows. It shares no code with the package.
"""

from types import SimpleNamespace as Names

import numpy as np

TILE, DEPTH = 64, 48


def plan(x, offset, weight, mask, bias, stride, padding, dilation):
    """The sizes, and every array flat in the precision of the sums."""
    T = np.result_type(x.dtype, np.float32)
    s = Names(T=T, stride=stride, padding=padding, dilation=dilation)
    s.N, s.C_in, s.H, s.W = x.shape
    s.C_out, s.C, s.K_h, s.K_w = weight.shape
    if s.C_in % s.C or s.C_out % (s.C_in // s.C):
        raise ValueError("weight does not divide the channels of x into groups")
    s.H_out, s.W_out = offset.shape[2:]
    s.K, s.P = s.K_h * s.K_w, s.H_out * s.W_out
    s.groups, s.per_group = s.C_in // s.C, s.C_out // (s.C_in // s.C)
    s.og = offset.shape[1] // (2 * s.K)
    s.x = x.astype(T).reshape(s.N, s.C_in, s.H * s.W)
    s.dp = offset.astype(T).reshape(s.N, s.og * s.K, 2, s.P)
    s.dm = np.ones((s.N, s.og * s.K, s.P), T)
    if mask is not None:
        s.dm = mask.astype(T).reshape(s.dm.shape)
    s.w = weight.astype(T).reshape(s.C_out, s.C * s.K)
    s.bias = np.zeros(s.C_out, T) if bias is None else bias.astype(T)
    s.channel = np.arange(s.C_in)[:, None, None]
    s.tap = s.channel[..., 0] // (s.C_in // s.og) * s.K + np.arange(s.K)
    return s


def cells(s, n, pix):
    """The cell, [offset_groups * K, pixels], that each sample lies in."""
    u, v = pix // s.W_out, pix % s.W_out
    k = np.arange(s.K)[:, None]
    i, j = k // s.K_w, k % s.K_w
    base_y = s.stride[0] * u - s.padding[0] + s.dilation[0] * i
    base_x = s.stride[1] * v - s.padding[1] + s.dilation[1] * j
    dp = s.dp[n][:, :, pix]
    q_y = np.tile(base_y, (s.og, 1)).astype(s.T) + dp[:, 0]
    q_x = np.tile(base_x, (s.og, 1)).astype(s.T) + dp[:, 1]
    nan = np.isnan(q_y) | np.isnan(q_x)
    live = (-1 < q_y) & (q_y < s.H) & (-1 < q_x) & (q_x < s.W)
    edge = (-1 <= q_y) & (q_y < s.H) & (-1 <= q_x) & (q_x < s.W)
    q_y, q_x = np.where(edge, q_y, -1), np.where(edge, q_x, -1)
    r_y, r_x = np.floor(q_y), np.floor(q_x)
    f_y, f_x = q_y - r_y, q_x - r_x
    r_y, r_x = r_y.astype(np.int64), r_x.astype(np.int64)
    return Names(**{name: a for name, a in locals().items() if name != "s"})


def address(s, cell, a, b):
    """Whether pixel (r_y + a, r_x + b) exists, and its place in the plane."""
    y, x = cell.r_y + a, cell.r_x + b
    ok = cell.edge & (0 <= y) & (y < s.H) & (0 <= x) & (x < s.W)
    return ok[s.tap], np.where(ok, y * s.W + x, 0)[s.tap]


def fetch(s, n, cell):
    """The four pixels of each sample's cell, each [C_in, K, pixels]."""
    values = []
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        ok, at = address(s, cell, a, b)
        values.append(np.where(ok, s.x[n][s.channel, at], 0))
    return values


def shares(s, cell):
    """The four tents of each sample."""
    f_y, f_x = cell.f_y[s.tap], cell.f_x[s.tap]
    e_y, e_x = 1 - f_y, 1 - f_x
    return e_y * e_x, e_y * f_x, f_y * e_x, f_y * f_x


def sample(s, values, cell):
    """x(q)."""
    xq = sum(w * value for w, value in zip(shares(s, cell), values, strict=True))
    xq = np.where(cell.live[s.tap], xq, 0)
    return np.where(cell.nan[s.tap], np.nan, xq).astype(s.T)


def slope(s, values, cell):
    """dx(q)/dq_y and dx(q)/dq_x."""
    v00, v01, v10, v11 = values
    f_y, f_x = cell.f_y[s.tap], cell.f_x[s.tap]
    d_y = (1 - f_x) * (v10 - v00) + f_x * (v11 - v01)
    d_x = (1 - f_y) * (v01 - v00) + f_y * (v11 - v10)
    nan = cell.nan[s.tap]
    return np.where(nan, np.nan, d_y), np.where(nan, np.nan, d_x)


def product(s, col):
    """[C_out, pixels]: the weights times the columns, block by block."""
    rows = s.C * s.K
    acc = np.zeros((s.C_out, col.shape[1]), s.T)
    for b in range(s.groups):
        o = slice(b * s.per_group, (b + 1) * s.per_group)
        part = col[b * rows : (b + 1) * rows]
        for first in range(0, rows, DEPTH):
            k = slice(first, first + DEPTH)
            acc[o] += s.w[o, k] @ part[k]
    return acc


def tiles(s):
    """Every image and tile of output pixels."""
    for n in range(s.N):
        for first in range(0, s.P, TILE):
            yield n, np.arange(first, min(first + TILE, s.P))


def f(
    x, offset, weight, mask=None, bias=None,
    stride=(1, 1), padding=(0, 0), dilation=(1, 1),
):  # fmt: skip
    """y [N, C_out, H_out, W_out]."""
    s = plan(x, offset, weight, mask, bias, stride, padding, dilation)
    y = np.zeros((s.N, s.C_out, s.P), s.T)
    for n, pix in tiles(s):
        cell = cells(s, n, pix)
        xq = sample(s, fetch(s, n, cell), cell)
        dm = s.dm[n][:, pix][s.tap]
        col = (xq * dm).reshape(s.C_in * s.K, len(pix))
        y[n][:, pix] = product(s, col) + s.bias[:, None]
    return y.reshape(s.N, s.C_out, s.H_out, s.W_out).astype(x.dtype)


def spread(s, grad_x, n, cell, g):
    """Adds g [C_in, K, pixels] to the pixels that were sampled."""
    shared = shares(s, cell)
    for (a, b), w in zip(((0, 0), (0, 1), (1, 0), (1, 1)), shared, strict=True):
        ok, at = address(s, cell, a, b)
        np.add.at(grad_x[n], (s.channel, at), np.where(ok, w * g, 0))


def over_channels(s, a):
    """[C_in, K, pixels] summed by offset group."""
    a = a.reshape(s.og, s.C_in // s.og, s.K, -1)
    return a.sum(1).reshape(s.og * s.K, -1)


def add_tile(s, gy, n, pix, grads):
    """One tile's part of the gradients."""
    grad_x, grad_o, grad_w, grad_m = grads
    cell = cells(s, n, pix)
    values = fetch(s, n, cell)
    xq, dm = sample(s, values, cell), s.dm[n][:, pix][s.tap]
    rows, t = s.C * s.K, len(pix)
    col, g = (xq * dm).reshape(-1, t), np.zeros((s.C_in * s.K, t), s.T)
    for b in range(s.groups):
        o = slice(b * s.per_group, (b + 1) * s.per_group)
        part = slice(b * rows, (b + 1) * rows)
        grad_w[o] += gy[o] @ col[part].T
        g[part] = s.w[o].T @ gy[o]
    g = g.reshape(xq.shape)
    d_y, d_x = slope(s, values, cell)
    grad_m[n][:, pix] = over_channels(s, g * xq)
    grad_o[n][:, 0, pix] = over_channels(s, g * dm * d_y)
    grad_o[n][:, 1, pix] = over_channels(s, g * dm * d_x)
    spread(s, grad_x, n, cell, g * dm)


def f_grad(
    grad_y, x, offset, weight, mask=None, bias=None,
    stride=(1, 1), padding=(0, 0), dilation=(1, 1),
):  # fmt: skip
    """The gradients of x, offset, weight, mask and bias, None for None."""
    s = plan(x, offset, weight, mask, bias, stride, padding, dilation)
    gy = grad_y.astype(s.T).reshape(s.N, s.C_out, s.P)
    grads = [np.zeros(a.shape, s.T) for a in (s.x, s.dp, s.w, s.dm)]
    for n, pix in tiles(s):
        add_tile(s, gy[n][:, pix], n, pix, grads)
    grads.append(gy.sum((0, 2)))
    pairs = zip(grads, (x, offset, weight, mask, bias), strict=True)
    return tuple(
        None if a is None else g.reshape(a.shape).astype(a.dtype) for g, a in pairs
    )
