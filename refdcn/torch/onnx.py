"""Export to ONNX: the operator becomes the standard node DeformConv."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.onnx import symbolic_helper

OPSET = 19  # the first with DeformConv


def deform_conv_node(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None,
    bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
) -> Any:  # fmt: skip
    """The node's attributes and inputs in the order of its specification."""
    _check_opset(_requested_opset())
    sizes = x.shape, offset.shape, weight.shape
    return torch.onnx.ops.symbolic(
        "DeformConv",
        (x, weight, offset, bias, mask),
        _attributes(*sizes, stride, padding, dilation),
        dtype=x.dtype,
        shape=(x.shape[0], weight.shape[0], *offset.shape[2:]),
        version=OPSET,
    )


def _attributes(
    x: Sequence[int], offset: Sequence[int], weight: Sequence[int],
    stride: Any, padding: Any, dilation: Any,
) -> dict[str, Any]:  # fmt: skip
    """Of the node; x, offset and weight are sizes."""
    top, bottom, left, right = padding
    return {
        "dilations": list(dilation),
        "group": x[1] // weight[1],
        "kernel_shape": list(weight[2:]),
        "offset_group": offset[1] // (2 * weight[2] * weight[3]),
        "pads": [top, left, bottom, right],
        "strides": list(stride),
    }


def _check_opset(opset: int) -> None:
    if opset < OPSET:
        raise ValueError(
            f"opset_version is {opset}; a deformable convolution needs {OPSET} or "
            "later, the first with the node DeformConv"
        )


def _requested_opset() -> int:
    """What the call of torch.onnx.export that is running was asked for.

    Exporters hand it to nobody, and would write a node that its opset has not.
    """
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__", "").startswith("torch.onnx."):
            opset = frame.f_locals.get("opset_version")
            if isinstance(opset, int):
                return opset
    return OPSET


def _torchscript_node(g: Any, *arguments: Any) -> Any:
    """The node, for the exporter of traced TorchScript (dynamo=False)."""
    _check_opset(_requested_opset())
    x, offset, weight, mask, bias, *pairs = arguments
    sizes = [t.type().varyingSizes() for t in (x, offset, weight)]
    if any(s is None or s[1] is None for s in sizes):
        raise ValueError(
            "the channels of x, offset or weight are not known while exporting; only "
            "N, H and W may be dynamic"
        )
    inputs = [x, weight, offset]
    if not (_absent(bias) and _absent(mask)):
        dtype = weight.type().dtype()
        zeros = torch.zeros(sizes[2][0], dtype=dtype)
        inputs.append(g.op("Constant", value_t=zeros) if _absent(bias) else bias)
    if not _absent(mask):
        inputs.append(mask)
    constants = (symbolic_helper._get_const(p, "is", "int[]") for p in pairs)
    attributes = _attributes(*sizes, *constants)
    y = g.op("DeformConv", *inputs, **{f"{k}_i": v for k, v in attributes.items()})
    y.setType(x.type().with_sizes([sizes[0][0], sizes[2][0], *sizes[1][2:]]))
    return y


def _absent(value: Any) -> bool:
    """Whether an optional argument of the graph is None."""
    return bool(value.node().mustBeNone())


# Also of earlier opsets: torch's own error would name no way out.
torch.onnx.register_custom_op_symbolic("refdcn::deform_conv2d", _torchscript_node, 1)
