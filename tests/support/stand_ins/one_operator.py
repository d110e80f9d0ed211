"""What the stand-ins of libraries are made of: one operator, and the way back."""

import numpy as np

from refdcn import formula


class Tensor:
    """An array; a result knows its leaves and how gradients get there."""

    def __init__(self, array, leaves=(), back=None):
        self.array, self.leaves, self.back, self.grad = array, leaves, back, None

    def backward(self, grad_y):
        for leaf, grad in zip(self.leaves, self.back(grad_y), strict=True):
            if leaf is not None:
                leaf.grad = grad


def interleaved(channels, swapped=False):
    """Where dy and dx of each tap are: one after the other."""
    dy = np.arange(0, channels, 2)
    return exchanged(dy, dy + 1, swapped)


def planar(channels, swapped=False):
    """Where they are with dx of all taps before dy of all."""
    dx = np.arange(channels // 2)
    return exchanged(dx + len(dx), dx, swapped)


def exchanged(dy, dx, swapped):
    """Our channels' places; swapped is the mistake of taking one for the other."""
    return np.stack([dx, dy] if swapped else [dy, dx], 1).ravel()


def deform_conv2d(kind, tensors, places, **windows):
    """y of x, offset, weight, mask, bias, with the way back to all five."""
    x, offset, weight, mask, bias = (
        t.array if isinstance(t, Tensor) else t for t in tensors
    )
    inputs = x, offset[:, places], weight, mask, bias

    def back(grad_y):
        grads = list(formula.deform_conv2d_grad(grad_y, *inputs, **windows))
        grad_offset = np.empty_like(offset)
        grad_offset[:, places] = grads[1]
        return [grads[0], grad_offset, *grads[2:]]

    return kind(formula.deform_conv2d(*inputs, **windows), tensors, back)
