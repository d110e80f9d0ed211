"""Export to ONNX: the operator becomes the standard node DeformConv.

Opsets before 19 have no such node; from 16 on it becomes GridSample and Conv there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.onnx import symbolic_helper

OPSET = 19  # the first with DeformConv
SAMPLING = 16  # the first with GridSample


def is_early() -> bool:
    """Whether an export is running whose opset has no DeformConv."""
    if not torch.onnx.is_in_onnx_export():
        return False
    opset = _requested_opset()
    if opset < SAMPLING:
        raise ValueError(
            f"opset_version is {opset}; a deformable convolution needs {OPSET} or "
            f"later, the first with the node DeformConv, or {SAMPLING}, the first with "
            "GridSample"
        )
    return opset < OPSET


def deform_conv_node(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None,
    bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
) -> Any:  # fmt: skip
    """The node's attributes and inputs in the order of its specification."""
    sizes = x.shape, offset.shape, weight.shape
    return torch.onnx.ops.symbolic(
        "DeformConv",
        (x, weight, offset, bias, mask),
        _attributes(*sizes, stride, padding, dilation),
        dtype=x.dtype,
        shape=(x.shape[0], weight.shape[0], *offset.shape[2:]),
        version=OPSET,
    )


def deform_conv_by_sampling(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None,
    bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
) -> Tensor:  # fmt: skip
    """Eq. (1) by grid_sample, and a product with the samples as a 1x1 convolution."""
    (N, C_in, *size), (C_out, C, *kernel) = x.shape, weight.shape
    out, K = offset.shape[2:], kernel[0] * kernel[1]
    G = offset.shape[1] // (2 * K)
    dp = offset.reshape(N * G, *kernel, 2, *out)
    grid = []
    for axis in (1, 0):  # (x, y) in grid_sample
        p = stride[axis] * torch.arange(out[axis], device=x.device)
        p_k = dilation[axis] * torch.arange(kernel[axis], device=x.device)
        rest = p_k[:, None] + p - padding[2 * axis]
        rest = rest[:, None, :, None] if axis == 0 else rest[:, None]
        q = rest.to(x.dtype) + dp[:, :, :, axis]  # [N G, K_h, K_w, H_out, W_out]
        # Edge to edge an image is [-1, 1]; beyond [-2, 2] its samples are 0 as there.
        grid.append(((2 * q + 1) / size[axis] - 1).clamp(-2, 2))
    pairs = torch.stack(grid, -1).reshape(N * G, K * out[0], out[1], 2)
    image = x.reshape(N * G, C_in // G, *size)
    columns = functional.grid_sample(image, pairs, align_corners=False)
    if mask is not None:
        columns = columns * mask.reshape(N * G, 1, K * out[0], out[1])
    columns = columns.reshape(N, C_in * K, *out)
    matrix = weight.reshape(C_out, C * K, 1, 1)
    return functional.conv2d(columns, matrix, bias, groups=C_in // C)


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
    if is_early():
        raise ValueError(
            "this graph was traced before its export, which needs opset_version = "
            f"{OPSET} or later then; export the model itself, or trace it again"
        )
    x, offset, weight, mask, bias, *pairs = arguments
    sizes = [t.type().varyingSizes() for t in (x, offset, weight)]
    if any(s is None or s[1] is None for s in sizes):
        raise ValueError(
            "the channels of x, offset or weight are not known while exporting; only "
            "N, H and W may be dynamic; opset_version=18 does without them"
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
