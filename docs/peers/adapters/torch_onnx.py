"""torch.onnx's export of torchvision's operator, run by ONNX Runtime."""

import warnings

import onnxruntime
import torch
from torchvision.ops import deform_conv2d

OPTIONS = onnxruntime.SessionOptions()
OPTIONS.intra_op_num_threads = 1
OPTIONS.log_severity_level = 4
NAMES = "x", "offset", "weight", "mask", "bias"


class Module(torch.nn.Module):
    """One call, with its windows."""

    def __init__(self, windows):
        super().__init__()
        self.windows = windows

    def forward(self, x, offset, weight, mask=None, bias=None):
        return deform_conv2d(x, offset, weight, bias, mask=mask, **self.windows)


def f(*inputs, **windows):
    given = {n: torch.from_numpy(a) for n, a in zip(NAMES, inputs) if a is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Module(windows), (), kwargs=given, dynamo=True, opset_version=19,
            verbose=False,
        )  # fmt: skip
    text = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(text, OPTIONS, ["CPUExecutionProvider"])
    arrays = {i.name: given[i.name].numpy() for i in session.get_inputs()}
    return session.run(None, arrays)[0]
