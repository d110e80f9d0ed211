"""Stands in for mindspore: what the adapter asks of it, and its function."""

from types import SimpleNamespace

import numpy as np
import one_operator as one


class Tensor(one.Tensor):
    def asnumpy(self):
        return self.array


def grad_operation(get_all, sens_param):
    assert get_all and sens_param

    def of(f):
        def grads(*given):
            *inputs, grad_y = given
            f(*inputs).backward(grad_y.array)
            return tuple(Tensor(t.grad) for t in inputs)

        return grads

    return of


ops = SimpleNamespace(GradOperation=grad_operation)


def mindspore(x, weight, offsets, kernel_size, strides, padding, bias=None,
              dilations=(1, 1, 1, 1), groups=1, deformable_groups=1,
              swapped=False):  # fmt: skip
    """Its offsets are dx of all taps, dy of all, then the masks."""
    assert strides[:2] == dilations[:2] == (1, 1) and padding[::2] == padding[1::2]
    third = offsets.array.shape[1] // 3
    assert third == deformable_groups * kernel_size[0] * kernel_size[1]
    assert x.array.shape[1] == groups * weight.array.shape[1]
    offset = Tensor(offsets.array[:, : 2 * third])
    mask = Tensor(offsets.array[:, 2 * third :])
    windows = {"stride": strides[2:], "padding": padding[::2]}
    places, inputs = one.planar(2 * third, swapped), (x, offset, weight, mask, bias)
    y = one.deform_conv2d(Tensor, inputs, places, dilation=dilations[2:], **windows)

    def back(grad_y):
        grads = of_five(grad_y)
        return grads[0], np.concatenate([grads[1], grads[3]], 1), grads[2], grads[4]

    of_five, y.back, y.leaves = y.back, back, (x, offsets, weight, bias)
    return y


def mindspore_swapped(*inputs):
    return mindspore(*inputs, swapped=True)
