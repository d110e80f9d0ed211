"""Mistakes in Python that candidates in other languages make in tests."""

import numpy as np

from refdcn import formula


def rows_first(offset):
    """All y, then all x of an offset group, read as the definition's pairs."""
    N, channels, *size = offset.shape
    taps = channels // 2
    return np.stack([offset[:, :taps], offset[:, taps:]], 2).reshape(N, channels, *size)


def planar(x, offset, weight, *rest, **windows):
    if offset.shape[1] != 2 * weight.shape[2] * weight.shape[3]:
        raise NotImplementedError("offset groups")
    return formula.deform_conv2d(x, rows_first(offset), weight, *rest, **windows)


def unmasked(*inputs, **windows):
    return formula.deform_conv2d(*inputs, **windows)


def unmasked_grad(grad_y, x, offset, weight, mask, bias, **windows):
    inputs = x, offset, weight, mask, bias
    grads = list(formula.deform_conv2d_grad(grad_y, *inputs, **windows))
    bare = None if mask is None else np.ones_like(mask)
    inputs = x, offset, weight, bare, bias
    grads[1] = formula.deform_conv2d_grad(grad_y, *inputs, **windows)[1]
    return grads
