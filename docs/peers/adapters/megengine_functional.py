"""MegEngine: a mask always, weights with an axis of groups, one offset group."""

import megengine as mge
import numpy as np
from megengine import functional


def call(x, offset, weight, mask, bias, stride, padding, dilation):
    groups = x.shape[1] // weight.shape[1]
    if groups > 1:
        weight = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
    bias = None if bias is None else bias.reshape(1, -1, 1, 1)
    windows = {"stride": stride, "padding": padding, "dilation": dilation}
    windows["groups"] = groups
    return functional.deformable_conv2d(x, weight, offset, mask, bias, **windows)


def arrays(x, offset, weight, mask, bias):
    if mask is None:
        N, channels, *size = offset.shape
        mask = np.ones((N, channels // 2, *size), x.dtype)
    made = x, offset, weight, mask, bias
    return [None if a is None else mge.tensor(np.ascontiguousarray(a)) for a in made]


def f(*inputs, **windows):
    return call(*arrays(*inputs), **windows).numpy()


def f_grad(grad_y, *inputs, **windows):
    leaves = arrays(*inputs)
    manager = mge.autodiff.GradManager().attach([a for a in leaves if a is not None])
    with manager:
        y = call(*leaves, **windows)
        manager.backward(y, mge.tensor(grad_y))
    return [None if a is None else leaf.grad.numpy() for a, leaf in zip(inputs, leaves)]
