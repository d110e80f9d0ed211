"""Candidates on bfloat16 tensors: the operator, and what lower precision does to it."""

import torch
from torchvision.ops import deform_conv2d


def right(x, offset, weight, mask, bias, **windows):
    """In float32, rounded once at the end."""
    wide = [a if a is None else a.float() for a in (x, offset, weight, bias, mask)]
    return deform_conv2d(*wide[:4], mask=wide[4], **windows).to(x.dtype)


def coarse_positions(x, offset, weight, mask, bias, stride, padding, dilation):
    """Positions are formed in bfloat16: 8 bits for row and fraction together."""
    (K_h, K_w), (H_out, W_out) = weight.shape[2:], offset.shape[2:]
    i, j, u, v = torch.meshgrid(*map(torch.arange, (K_h, K_w, H_out, W_out)),
                                indexing="ij")  # fmt: skip
    y = stride[0] * u - padding[0] + dilation[0] * i
    x_ = stride[1] * v - padding[1] + dilation[1] * j
    base = torch.stack([y, x_], 2).reshape(1, 1, -1, H_out, W_out)
    K = 2 * K_h * K_w
    dp = offset.reshape(len(x), offset.shape[1] // K, K, H_out, W_out)
    moved = (base.bfloat16() + dp).float() - base
    windows = {"stride": stride, "padding": padding, "dilation": dilation}
    wide = [a if a is None else a.float() for a in (x, weight, bias, mask)]
    y = deform_conv2d(wide[0], moved.reshape(offset.shape), *wide[1:3],
                      mask=wide[3], **windows)  # fmt: skip
    return y.to(x.dtype)


def swapped(x, offset, *rest, **windows):
    """Offsets are read as (x, y)."""
    N, channels, H_out, W_out = offset.shape
    pairs = offset.reshape(N, channels // 2, 2, H_out, W_out).flip(2)
    return right(x, pairs.reshape(offset.shape), *rest, **windows)


def swapped_in_bfloat16_alone(x, *rest, **windows):
    """The same, and no other dtype is taken."""
    if x.dtype != torch.bfloat16:
        raise TypeError("bfloat16 only")
    return swapped(x, *rest, **windows)
