"""ONNX Runtime: a model of one DeformConv node for each call."""

import numpy as np
import onnxruntime
from onnx import helper

OPTIONS = onnxruntime.SessionOptions()
OPTIONS.intra_op_num_threads = 1
OPTIONS.log_severity_level = 4


def model(inputs, attributes, opset=19):
    names = ["x", "weight", "offset", "bias", "mask"]
    given = dict(zip(names, inputs))
    told = [n if given[n] is not None else "" for n in names]
    values = [
        helper.make_tensor_value_info(
            n, helper.np_dtype_to_tensor_dtype(given[n].dtype), given[n].shape
        )
        for n in told
        if n
    ]
    kind = helper.np_dtype_to_tensor_dtype(inputs[0].dtype)
    node = helper.make_node("DeformConv", told, ["y"], **attributes)
    y = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph([node], "one", values, [y])
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def f(x, offset, weight, mask, bias, stride, padding, dilation):
    attributes = {
        "strides": stride, "pads": padding * 2, "dilations": dilation,
        "kernel_shape": weight.shape[2:], "group": x.shape[1] // weight.shape[1],
        "offset_group": max(1, offset.shape[1] // (2 * int(np.prod(weight.shape[2:])))),
    }  # fmt: skip
    inputs = x, weight, offset, bias, mask
    text = model(inputs, attributes).SerializeToString()
    session = onnxruntime.InferenceSession(text, OPTIONS, ["CPUExecutionProvider"])
    names = "x", "weight", "offset", "bias", "mask"
    given = {n: a for n, a in zip(names, inputs) if a is not None}
    return session.run(None, given)[0]
