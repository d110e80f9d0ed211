"""Stands in for chainer: what the adapter asks of it, and its function."""

from contextlib import nullcontext as no_backprop_mode  # noqa: F401

import one_operator as one


class Variable(one.Tensor):
    def backward(self):
        super().backward(self.grad)


def chainer(x, offset, W, b=None, stride=1, pad=0, swapped=False):
    """Its offset is dx of all taps, then dy of all."""
    channels = getattr(offset, "array", offset).shape[1]
    places, windows = one.planar(channels, swapped), {"stride": stride, "padding": pad}
    return one.deform_conv2d(Variable, (x, offset, W, None, b), places, **windows)


def chainer_swapped(*inputs, **windows):
    return chainer(*inputs, **windows, swapped=True)
