"""torchvision's operator as two exporters write it, run by ONNX Runtime."""

import contextlib
import io

import onnxruntime
import torch
from torchvision.ops import deform_conv2d

OPTIONS = onnxruntime.SessionOptions()
OPTIONS.intra_op_num_threads = 1
OPTIONS.log_severity_level = 4
NAMES = "x", "offset", "weight", "mask", "bias"


class Call(torch.nn.Module):
    def __init__(self, given, windows):
        super().__init__()
        self.given, self.windows = given, windows

    def forward(self, *inputs):
        a = dict(zip(self.given, inputs))
        x, offset, weight = a["x"], a["offset"], a["weight"]
        more = self.windows | {"mask": a.get("mask")}
        return deform_conv2d(x, offset, weight, a.get("bias"), **more)


def run(arrays, windows, **how):
    given = [n for n, a in zip(NAMES, arrays) if a is not None]
    inputs = tuple(torch.from_numpy(a.copy()) for a in arrays if a is not None)
    file = io.BytesIO()
    call = Call(given, windows)
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(call, inputs, file, input_names=given, dynamo=False, **how)
    model = file.getvalue()
    session = onnxruntime.InferenceSession(model, OPTIONS, ["CPUExecutionProvider"])
    kept = {i.name for i in session.get_inputs()}
    feeds = {n: a.numpy() for n, a in zip(given, inputs) if n in kept}
    return session.run(None, feeds)[0]


def torch_onnx(*arrays, **windows):
    """The one in torch.onnx, a DeformConv node."""
    return run(arrays, windows, opset_version=19)


def gathers(*arrays, **windows):
    """deform_conv2d_onnx_exporter, which writes gathers and sums."""
    from deform_conv2d_onnx_exporter import register_deform_conv2d_onnx_op

    register_deform_conv2d_onnx_op()
    return run(arrays, windows, opset_version=12)
