"""Export to ONNX: the operator becomes the standard node DeformConv."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

OPSET = 19  # the first with DeformConv


def deform_conv_node(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None,
    bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
) -> Any:  # fmt: skip
    """The node's attributes and inputs in the order of its specification."""
    top, bottom, left, right = padding
    K = weight.shape[2] * weight.shape[3]
    attributes = {
        "dilations": list(dilation),
        "group": x.shape[1] // weight.shape[1],
        "kernel_shape": list(weight.shape[2:]),
        "offset_group": offset.shape[1] // (2 * K),
        "pads": [top, left, bottom, right],
        "strides": list(stride),
    }
    return torch.onnx.ops.symbolic(
        "DeformConv",
        (x, weight, offset, bias, mask),
        attributes,
        dtype=x.dtype,
        shape=(x.shape[0], weight.shape[0], *offset.shape[2:]),
        version=OPSET,
    )
