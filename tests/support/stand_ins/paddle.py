"""Stands in for paddle: what the adapter asks of it, and its function."""

from contextlib import nullcontext as no_grad  # noqa: F401

import one_operator as one


class Tensor(one.Tensor):
    def numpy(self):
        return self.array


to_tensor = Tensor


def grad(outputs, inputs, grad_outputs):
    outputs[0].backward(grad_outputs[0].array)
    return [Tensor(t.grad) for t in inputs]


def paddle(x, offset, weight, bias=None, stride=1, padding=0, dilation=1,
           deformable_groups=1, groups=1, mask=None, swapped=False):  # fmt: skip
    assert x.array.shape[1] == groups * weight.array.shape[1]
    places = one.interleaved(offset.array.shape[1], swapped)
    windows = {"stride": stride, "padding": padding, "dilation": dilation}
    inputs = x, offset, weight, mask, bias
    return one.deform_conv2d(Tensor, inputs, places, **windows)


def paddle_swapped(*inputs):
    return paddle(*inputs, swapped=True)
