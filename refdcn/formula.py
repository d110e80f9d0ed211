"""Modulated deformable convolution (DCNv2): the definition.

    y(p) = sum_k  w_k * x(q) * dm_k,   q = p + p_k + dp_k          (1)
    x(q) = sum_r  tent(q_y - r_y) * tent(q_x - r_x) * x(r)         (2)
    tent(t) = max(0, 1 - |t|)                                      (3)
    d tent(q - r) / dq = [r - 1 <= q < r] - [r <= q < r + 1]       (4)

(1) is Eq. 1 of Zhu et al. 2019 (arXiv:1811.11168); (2) and (3) are
Eqs. 3 and 4 of Dai et al. 2017 (arXiv:1703.06211).

Arguments. K = K_h * K_w is the number of taps; tap (i, j), row and
column of the kernel, has the number k = i * K_w + j.

    x       [N, C_in, H, W]
    offset  [N, offset_groups * K * 2, H_out, W_out], in pixels of x
    weight  [C_out, C_in / groups, K_h, K_w]
    mask    [N, offset_groups * K, H_out, W_out], any real number,
            negative too; None is 1 everywhere (DCNv1)
    bias    [C_out]; None is 0
    y       [N, C_out, H_out, W_out]

The output's size H_out, W_out is that of offset, and not computed from
the others; groups and offset_groups follow from the shapes. stride and
dilation are (row, column), padding is (top, left).

Channels. groups splits C_in and C_out into equal runs: an output of
run b sums over the inputs of run b alone. offset_groups splits C_in
likewise, and the channels of run g share their offsets and mask.
Neither need divide the other. With m = g * K + k, tap k of offset group
g has dy in offset channel 2 * m, dx in 2 * m + 1, dm in mask channel m:
in a 3x3 kernel dx of tap (1, 2) of offset group 1 is channel 29.

Positions. For the output p in row u, column v tap (i, j) samples at

    q = p + p_k + dp_k
      = stride * (u, v) - padding + dilation * (i, j) + (dy, dx)

so for stride 2, padding 1, dilation 2, q_y = 2 * u - 1 + 2 * i + dy.
In (2) r runs over the pixels of the image, and every pixel outside is
0: a sample at (-0.5, 2) is x(0, 2) / 2, one in row -1 or H exactly is
0, and so it is in column -1 or W. (4) takes the slope on the right of a
kink: at an integer q, -1 and H too, it is x(q + 1) - x(q) along its
axis.

In full, for each image n; c are the inputs of o's group, which weight
counts from 0, and g, in m, is the offset group of c:

    y(o, p) = bias(o) + sum_c,k  w(o, c, k) * x(c, q) * dm(m, p)   (5)

With offset 0, of the size of its output, and mask 1 this is
torch.nn.Conv2d. The gradients are those of sum(grad_y * y); in G, o are
the outputs of c's group:

    G(c, k, p)      = sum_o    w(o, c, k) * grad_y(o, p)           (6)
    grad_x(c, r)    = sum_k,p  G * dm * tent(q_y - r_y)
                                      * tent(q_x - r_x)
    grad_dy(m, p)   = sum_c    G * dm * d x(c, q) / dq_y,  c in g
    grad_dx(m, p)   = sum_c    G * dm * d x(c, q) / dq_x,  c in g
    grad_dm(m, p)   = sum_c    G * x(c, q),                c in g
    grad_w(o, c, k) = sum_n,p  grad_y(o, p) * dm * x(c, q)
    grad_bias(o)    = sum_n,p  grad_y(o, p)

Outside, and not finite. A NaN coordinate, whatever the other one is,
makes y and the gradients of offset, weight and mask NaN wherever its
tap has a term in these sums, be the term's other factors 0, and adds 0
to grad_x. Else, where q_y is not in [-1, H) or q_x not in [-1, W), as
at 1e30 or infinity, the tap adds 0 to y and to every gradient. Of x,
weight, mask, bias and grad_y all numbers must be finite.
Everything is computed in float64 and rounded once at the end: y to the
dtype of x, a gradient to that of its argument.
"""

import numpy as np


def tent(q, size):
    """Eqs. (3), (4): (value, slope) with r = 0 ... size - 1 last."""
    q, r = q[..., None], np.arange(size)
    value = np.maximum(0, 1 - abs(q - r))
    # q itself is compared: -1e-20 - 1 rounds to -1, in another cell.
    rises, falls = (r - 1 <= q) & (q < r), (r <= q) & (q < r + 1)
    slope = rises.astype(np.float64) - falls.astype(np.float64)
    return value, np.where(np.isnan(q), np.nan, slope)


def sample(x, tent_y, tent_x):
    """Eq. (2): [n, g, c, k, u, v], c counted in offset group g."""
    factors = "ngchw,ngkuvh,ngkuvw->ngckuv"
    return np.einsum(factors, x, tent_y, tent_x, optimize=True)


def by_group(x, offset, weight, mask, stride, padding, dilation):
    """x, both tents, mask by offset group g; weight by group b."""
    N, C_in, H, W = x.shape
    C_out, C, K_h, K_w = weight.shape  # C is C_in / groups
    K, (u, v) = K_h * K_w, np.indices(offset.shape[2:])
    offset_groups = offset.shape[1] // (2 * K)
    i, j = np.indices((K_h, K_w)).reshape(2, K, 1, 1)
    dp = offset.reshape(N, offset_groups, K, 2, *u.shape)
    dy, dx = np.moveaxis(dp.astype(np.float64), 3, 0)  # [n, g, k, u, v]
    q_y = stride[0] * u - padding[0] + dilation[0] * i + dy
    q_x = stride[1] * v - padding[1] + dilation[1] * j + dx
    x_g = x.reshape(N, offset_groups, C_in // offset_groups, H, W)
    w_b = weight.reshape(C_in // C, -1, C, K)  # [b, o, c, k]
    dm = np.ones_like(q_y) if mask is None else mask.reshape(q_y.shape)
    x_g, w_b, dm = (a.astype(np.float64) for a in (x_g, w_b, dm))
    return x_g, tent(q_y, H), tent(q_x, W), dm[:, :, None], w_b


def deform_conv2d(
    x, offset, weight, mask=None, bias=None,
    stride=(1, 1), padding=(0, 0), dilation=(1, 1),
):  # fmt: skip
    """Eq. (5): y [N, C_out, H_out, W_out]."""
    x_g, (tent_y, _), (tent_x, _), dm, w_b = by_group(
        x, offset, weight, mask, stride, padding, dilation
    )
    N, (groups, _, C, K), outputs = len(x), w_b.shape, offset.shape[2:]
    columns = sample(x_g, tent_y, tent_x) * dm  # [n, g, c, k, u, v]
    # Both g, c and b, c count C_in, so that one regroups to the other
    # as it lies in memory, wherever the two kinds of groups have edges.
    columns = columns.reshape(N, groups, C, K, *outputs)
    y = np.einsum("bock,nbckuv->nbouv", w_b, columns)
    y = y.reshape(N, len(weight), *outputs)
    bias = np.zeros(len(weight)) if bias is None else bias
    return (y + bias[:, None, None]).astype(x.dtype)


def deform_conv2d_grad(
    grad_y, x, offset, weight, mask=None, bias=None,
    stride=(1, 1), padding=(0, 0), dilation=(1, 1),
):  # fmt: skip
    """Eq. (6): the gradients by (x, offset, weight, mask, bias).

    The gradient of an argument that is None is None.
    """
    x_g, (tent_y, slope_y), (tent_x, slope_x), dm, w_b = by_group(
        x, offset, weight, mask, stride, padding, dilation
    )
    gy = grad_y.reshape(len(x), *w_b.shape[:2], *grad_y.shape[2:])
    gy = gy.astype(np.float64)  # [n, b, o, u, v]
    sampled = sample(x_g, tent_y, tent_x)  # [n, g, c, k, u, v]
    G = np.einsum("bock,nbouv->nbckuv", w_b, gy)
    columns = (sampled * dm).reshape(G.shape)  # as in deform_conv2d
    grad_w = np.einsum("nbouv,nbckuv->bock", gy, columns)
    G = G.reshape(sampled.shape)  # and back, to offset groups
    grad_dm = (G * sampled).sum(2)
    grad_dy = (G * dm * sample(x_g, slope_y, tent_x)).sum(2)
    grad_dx = (G * dm * sample(x_g, tent_y, slope_x)).sum(2)
    grad_offset = np.stack([grad_dy, grad_dx], 3)  # [n, g, k, 2, u, v]
    # Eq. (2) transposed; NaN tents add nothing.
    tents = np.nan_to_num(tent_y), np.nan_to_num(tent_x)
    to_x = "ngckuv,ngkuvh,ngkuvw->ngchw"
    grad_x = np.einsum(to_x, G * dm, *tents, optimize=True)
    grads = grad_x, grad_offset, grad_w, grad_dm, gy.sum((0, 3, 4))
    given = x, offset, weight, mask, bias
    return tuple(
        None if a is None else grad.reshape(a.shape).astype(a.dtype)
        for a, grad in zip(given, grads, strict=True)
    )
