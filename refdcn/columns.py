"""Eq. (5) as a matrix product: the samples of an image are gathered into columns.

    columns[p, k, c] = dm_k(p) * x_c(q)                       Eq. (2)
    y[p, o]          = sum_k,c columns[p, k, c] * w[k, c, o]

All outputs of a group read the same samples. So each is made once, instead of once for
every output channel, and the sum over taps and channels is NumPy's product. The image
lies channels last in a frame of zeros: a sample finds its cell once for all channels of
its offset group, all four corners exist, and a sample outside is placed on four zeros.
Backward is the transpose: a product makes the gradients of the columns, and each goes
back to the pixels, the offset and the mask that its sample was made of.

Plain and untuned: one image after the other, all its columns in memory, one thread
beside those of NumPy's product.
"""

import math
from typing import Any

import numpy as np

from refdcn import loops, shapes
from refdcn.jit import compiled, jitable


@jitable
def cell(q_y, q_x, H, W, T):
    """Eq. (3): where q's cell is in the frame, and e_y, f_y, e_x, f_x of its corners.

    It has a slope at q = -1 too. A NaN coordinate makes all four NaN.
    """
    nan = T(np.nan) if math.isnan(q_y) or math.isnan(q_x) else T(0)
    if not loops.slope_inside(q_y, q_x, H, W, T):
        return H + 1, 0, nan, nan, nan, nan
    r_y, r_x, e_y, f_y, e_x, f_x = loops.corners(q_y, q_x, T)
    return r_y + 1, r_x + 1, e_y, f_y, e_x, f_x


@jitable
def add(total, weight, G):
    """total += weight * G, by channels."""
    for c in range(len(G)):
        total[c] += weight * G[c]


def gather(image, offset, mask, n, K_w, windows, columns):
    """Eq. (2): columns [H_out, W_out, K, C_in] of image n, framed."""
    T = image.dtype.type
    (H_out, W_out, K, C_in), H, W = columns.shape, len(image) - 3, image.shape[1] - 2
    D = C_in // (offset.shape[1] // (2 * K))  # channels of an offset group
    for u in range(H_out):
        for v in range(W_out):
            for tap in range(mask.shape[1]):  # counts offset groups in
                g, k, dm = tap // K, tap % K, mask[n, tap, u, v]
                at = n, tap, k, u, v
                q_y, q_x = loops.tap_position(offset, at, K_w, windows)
                i, j, e_y, f_y, e_x, f_x = cell(q_y, q_x, H, W, T)
                if not loops.inside(q_y, q_x, H, W, T):
                    i, j = H + 1, 0  # at q = -1 no pixel is read
                w_00, w_01 = dm * (e_y * e_x), dm * (e_y * f_x)
                w_10, w_11 = dm * (f_y * e_x), dm * (f_y * f_x)
                for c in range(g * D, (g + 1) * D):
                    columns[u, v, k, c] = (
                        w_00 * image[i, j, c]
                        + w_01 * image[i, j + 1, c]
                        + w_10 * image[i + 1, j, c]
                        + w_11 * image[i + 1, j + 1, c]
                    )


def scatter(grad_columns, image, offset, mask, n, K_w, windows, grads):
    """Eq. (6): adds to grad_image, framed, and to image n of grad_offset, grad_mask."""
    T, (grad_image, grad_offset, grad_mask) = image.dtype.type, grads
    H_out, W_out, K, C_in = grad_columns.shape
    H, W, D = len(image) - 3, image.shape[1] - 2, C_in // (offset.shape[1] // (2 * K))
    for u in range(H_out):
        for v in range(W_out):
            for tap in range(mask.shape[1]):
                g, k, dm = tap // K, tap % K, mask[n, tap, u, v]
                at = n, tap, k, u, v
                q_y, q_x = loops.tap_position(offset, at, K_w, windows)
                i, j, e_y, f_y, e_x, f_x = cell(q_y, q_x, H, W, T)
                inside = loops.inside(q_y, q_x, H, W, T)
                d_00 = d_01 = d_10 = d_11 = T(0)  # sums over c of G * x_c(r)
                for c in range(g * D, (g + 1) * D):
                    G = grad_columns[u, v, k, c]
                    d_00 += G * image[i, j, c]
                    d_01 += G * image[i, j + 1, c]
                    d_10 += G * image[i + 1, j, c]
                    d_11 += G * image[i + 1, j + 1, c]
                if inside:
                    G = grad_columns[u, v, k, g * D : (g + 1) * D]
                    add(grad_image[i, j, g * D :], dm * (e_y * e_x), G)
                    add(grad_image[i, j + 1, g * D :], dm * (e_y * f_x), G)
                    add(grad_image[i + 1, j, g * D :], dm * (f_y * e_x), G)
                    add(grad_image[i + 1, j + 1, g * D :], dm * (f_y * f_x), G)
                d_y = e_x * (d_10 - d_00) + f_x * (d_11 - d_01)
                d_x = e_y * (d_01 - d_00) + f_y * (d_11 - d_10)
                grad_offset[n, 2 * tap, u, v] = dm * d_y
                grad_offset[n, 2 * tap + 1, u, v] = dm * d_x
                if inside or math.isnan(e_y):  # at q = -1 there is a slope, no pixel
                    above, below = e_x * d_00 + f_x * d_01, e_x * d_10 + f_x * d_11
                    grad_mask[n, tap, u, v] = e_y * above + f_y * below


def deform_conv2d(
    x, offset, weight, mask=None, bias=None,
    stride=(1, 1), padding=(0, 0), dilation=(1, 1), run=compiled,
):  # fmt: skip
    """Eq. (5) on NumPy arrays of one dtype; `run` makes the loops callable."""
    inputs = x, offset, weight, mask, bias
    g = checked(inputs, stride, padding, dilation)
    dp, dm, w, columns = laid_out(inputs, g)
    y = np.empty((g.N, g.C_out, g.H_out, g.W_out), x.dtype)
    b = np.zeros(g.C_out, w.dtype) if bias is None else bias
    for n in range(g.N):
        image = framed(x[n], w.dtype)
        run(gather)(image, dp, dm, n, g.K_w, g[-3:], columns)
        rows = by_group(columns, g.groups) @ w  # [groups, P, O]
        y[n] = rows.swapaxes(1, 2).reshape(y[n].shape) + b[:, None, None]
    return y


def deform_conv2d_grad(
    grad_y, x, offset, weight, mask=None, bias=None,
    stride=(1, 1), padding=(0, 0), dilation=(1, 1), run=compiled,
):  # fmt: skip
    """The gradients by x, offset, weight, mask, bias; None where the argument is."""
    inputs = x, offset, weight, mask, bias
    g = checked(inputs, stride, padding, dilation)
    shapes.check_grad_y(grad_y.shape, g)
    dp, dm, w, columns = laid_out(inputs, g)
    grad_x, grad_w = np.empty_like(x), np.zeros_like(w)
    grad_dp, grad_dm = np.zeros_like(dp), np.zeros_like(dm)
    for n in range(g.N):
        image, rows = framed(x[n], w.dtype), grad_y[n].astype(w.dtype)
        rows = rows.reshape(g.groups, w.shape[2], -1).swapaxes(1, 2)  # [groups, P, O]
        run(gather)(image, dp, dm, n, g.K_w, g[-3:], columns)
        grad_w += by_group(columns, g.groups).swapaxes(1, 2) @ rows
        grad_columns = from_groups(rows @ w.swapaxes(1, 2), columns.shape)
        adds = np.zeros_like(image), grad_dp, grad_dm
        run(scatter)(grad_columns, image, dp, dm, n, g.K_w, g[-3:], adds)
        grad_x[n] = adds[0][1:-2, 1:-1].transpose(2, 0, 1)
    grad_w = grad_w.reshape(g.groups, -1, weight.shape[1], w.shape[2])
    grad_w = grad_w.transpose(0, 3, 2, 1)  # [groups, O, C, K]
    grads = grad_x, grad_dp, grad_w, grad_dm, grad_y.sum((0, 2, 3), w.dtype)
    return tuple(
        None if a is None else grad.reshape(a.shape).astype(a.dtype)
        for a, grad in zip(inputs, grads, strict=True)
    )


def checked(inputs, stride, padding, dilation):
    """The sizes of a call; its last three are stride, padding, dilation."""
    sizes: Any = [None if a is None else a.shape for a in inputs]
    x, offset, weight, mask, bias = sizes
    return shapes.geometry(x, offset, weight, mask, bias, stride, padding, dilation)


def laid_out(inputs, g):
    """offset, mask, weight [groups, K * C, O] in the sums' dtype; room for columns."""
    x, offset, weight, mask, _ = inputs
    T = np.result_type(x, np.float32)  # float16 is summed in float32, rounded once
    K, C, O = g.K_h * g.K_w, g.C_in // g.groups, g.C_out // g.groups
    dm = np.ones((g.N, g.offset_groups * K, g.H_out, g.W_out)) if mask is None else mask
    w = weight.reshape(g.groups, O, C, K).transpose(0, 3, 2, 1)
    columns = np.empty((g.H_out, g.W_out, K, g.C_in), T)
    return offset.astype(T), dm.astype(T), w.reshape(-1, K * C, O).astype(T), columns


def framed(x, T):
    """x [C, H, W] as [H + 3, W + 2, C]: pixel (0, 0) is at (1, 1), around it zeros."""
    return np.pad(x.transpose(1, 2, 0).astype(T), ((1, 2), (1, 1), (0, 0)))


def by_group(columns, groups):
    """[H_out, W_out, K, C_in] as [groups, P, K * C]."""
    H_out, W_out, K, C_in = columns.shape
    split = columns.reshape(H_out * W_out, K, groups, C_in // groups)
    return split.transpose(2, 0, 1, 3).reshape(groups, H_out * W_out, -1)


def from_groups(columns, shape):
    """[groups, P, K * C] as [H_out, W_out, K, C_in]."""
    groups, P, _ = columns.shape
    split = columns.reshape(groups, P, shape[2], shape[3] // groups)
    return split.transpose(1, 2, 0, 3).reshape(shape)
