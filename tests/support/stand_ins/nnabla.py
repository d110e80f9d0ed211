"""Stands in for nnabla: what the adapter asks of it, and its function."""

import one_operator as one


class Variable(one.Tensor):
    d = property(lambda self: self.array)
    g = property(lambda self: self.grad, lambda self, g: setattr(self, "grad", g))

    @classmethod
    def from_numpy_array(cls, a):
        return cls(a)

    def apply(self, need_grad):
        return self if need_grad else None

    def forward(self):
        pass  # it was computed when it was made


def nnabla(x, weight, offset, mask=None, bias=None, *, pad, stride, dilation, group,
           deformable_group, swapped=False):  # fmt: skip
    assert x.d.shape[1] == group * weight.d.shape[1]
    places = one.interleaved(offset.d.shape[1], swapped)
    assert len(places) == 2 * deformable_group * weight.d[0, 0].size
    windows = {"stride": stride, "padding": pad, "dilation": dilation}
    inputs = x, offset, weight, mask, bias
    return one.deform_conv2d(Variable, inputs, places, **windows)


def nnabla_swapped(*inputs, **windows):
    return nnabla(*inputs, **windows, swapped=True)
