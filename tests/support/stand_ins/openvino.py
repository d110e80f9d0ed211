"""Stands in for openvino: a graph of one node, compiled and run."""

from types import SimpleNamespace

import numpy as np
import one_operator as one


class Node:
    """An input, or the operation with its inputs and numbers."""

    def __init__(self, inputs=(), compute=None):
        self.inputs, self.compute = inputs, compute

    def get_friendly_name(self):
        return f"node {id(self)}"

    def get_input_size(self):
        return len(self.inputs)

    def input_value(self, k):
        return SimpleNamespace(get_node=lambda: self.inputs[k])


class Model:
    def __init__(self, outputs, inputs):
        (self.y,), self.inputs = outputs, inputs


class Core:
    def compile_model(self, model, device, how):
        assert (device, how) == ("CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def run(arrays):
            held = dict(zip(model.inputs, arrays, strict=True))
            return [model.y.compute(*(held[node] for node in model.y.inputs))]

        return run


opset8 = SimpleNamespace(parameter=lambda shape, dtype: Node())


def openvino(x, offset, filters, strides, pads_begin, pads_end, dilations, mask=None,
             group=1, deformable_group=1, bilinear_interpolation_pad=False,
             swapped=False):  # fmt: skip
    """It has no bias."""
    assert bilinear_interpolation_pad and pads_begin == pads_end
    windows = {"stride": strides, "padding": pads_begin, "dilation": dilations}

    def compute(x, offset, filters, mask=None):
        assert x.shape[1] == group * filters.shape[1]
        places = one.interleaved(offset.shape[1], swapped)
        assert len(places) == 2 * deformable_group * np.prod(filters.shape[2:])
        inputs = x, offset, filters, mask, None
        return one.deform_conv2d(one.Tensor, inputs, places, **windows).array

    given = [x, offset, filters, mask]
    return Node([node for node in given if node is not None], compute)


def openvino_swapped(*inputs, **windows):
    return openvino(*inputs, **windows, swapped=True)
