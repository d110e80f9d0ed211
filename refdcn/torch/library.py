"""The two raw operators registered with torch, `refdcn::deform_conv2d` and
`refdcn::deform_conv2d_backward`: schema, CPU kernel and shapes without data.

stride, padding and dilation arrive normalised: (rows, columns), and padding
as (top, bottom, left, right), which is what export formats need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from refdcn import shapes
from refdcn.torch.team import torch_team

DTYPES = ("float16", "bfloat16", "float32", "float64")
DTYPES_OF_TORCH = {getattr(torch, name) for name in DTYPES}
HALF_DTYPES = (torch.float16, torch.bfloat16)
SMALL = 4096  # numbers, which are copied faster than their tensor is found

Needs: TypeAlias = Sequence[bool]  # of x, offset, weight, mask, bias


class Conv(NamedTuple):
    """What the operators take besides tensors, in the order of their schema."""

    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]


library = torch.library.Library("refdcn", "DEF")
library.define(
    "deform_conv2d(Tensor x, Tensor offset, Tensor weight, Tensor? mask, Tensor? bias,"
    " int[2] stride, int[4] padding, int[2] dilation) -> Tensor"
)
library.define(
    "deform_conv2d_backward(Tensor grad_y, Tensor x, Tensor offset, Tensor weight,"
    " Tensor? mask, int[2] stride, int[4] padding, int[2] dilation, bool[5] needs)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
forward = torch.ops.refdcn.deform_conv2d.default
backward = torch.ops.refdcn.deform_conv2d_backward.default


def wide(tensor: Any) -> Any:
    """float32 of the half types: positions and sums are formed in no less."""
    if tensor is None or tensor.dtype not in HALF_DTYPES:
        return tensor
    return tensor.float()


def under_autocast(x: Tensor) -> bool:
    """Whether autocast is on for the device of x; meta, say, has none."""
    kind = x.device.type
    available = bool(torch.amp.is_autocast_available(kind))
    return available and bool(torch.is_autocast_enabled(kind))


def check_dtypes(**tensors: Tensor | None) -> None:
    """One floating-point dtype for all, or a TypeError that names the argument."""
    dtypes = {t.dtype for t in tensors.values() if t is not None}
    if len(dtypes) == 1 and dtypes <= DTYPES_OF_TORCH:  # the usual, in 1 us
        return
    names = {k: str(t.dtype) for k, t in tensors.items() if t is not None}
    shapes.check_dtypes({k: v.removeprefix("torch.") for k, v in names.items()}, DTYPES)


def geometry(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None,
    bias: Tensor | None, conv: Conv,
) -> shapes.Geometry:  # fmt: skip
    """The sizes of a call, or a ValueError that names the argument."""
    mask_shape = None if mask is None else mask.shape
    bias_shape = None if bias is None else bias.shape
    stride, (top, bottom, left, right), dilation = conv
    return shapes.geometry(
        x.shape, offset.shape, weight.shape, mask_shape, bias_shape,
        tuple(stride), ((top, bottom), (left, right)), tuple(dilation),
    )  # fmt: skip


def _checked(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None,
    bias: Tensor | None, conv: Conv,
) -> shapes.Geometry:  # fmt: skip
    """The sizes of a forward, whose dtypes agree; a wrong size is named first."""
    g = geometry(x, offset, weight, mask, bias, conv)
    check_dtypes(x=x, offset=offset, weight=weight, mask=mask, bias=bias)
    return g


def _checked_backward(
    grad_y: Tensor, x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None,
    conv: Conv, needs: Needs,
) -> tuple[shapes.Geometry, Tensor | None]:  # fmt: skip
    """The sizes of a backward, whose dtypes agree; a bias, whose values are unused."""
    bias = weight.new_empty(len(weight)) if needs[4] else None
    g = geometry(x, offset, weight, mask, bias, conv)
    shapes.check_grad_y(grad_y.shape, g)
    check_dtypes(x=x, grad_y=grad_y, offset=offset, weight=weight, mask=mask)
    return g, bias


class _Memory:
    """What np.asarray reads in place.

    tensor.numpy() marks the storage as one that cannot be resized, for ever: then
    FSDP2, which frees and refills the storages of its parameters, fails.
    """

    def __init__(self, tensor: Tensor) -> None:
        size = tensor.element_size()
        self.tensor = tensor  # alive as long as the array is
        self.__array_interface__ = {
            "data": (tensor.data_ptr(), False),
            "shape": tuple(tensor.shape),
            "strides": tuple(size * stride for stride in tensor.stride()),
            "typestr": f"=f{size}",
            "version": 3,
        }


def _array(tensor: Tensor | None) -> Any:
    """The same memory as a NumPy array; half types are widened."""
    if tensor is None:
        return None
    return np.asarray(_Memory(wide(tensor).cpu().resolve_neg()))


def _empty(shape: Any, dtype: Any) -> Any:
    """np.empty in memory of torch, whose storages can be resized."""
    if math.prod(shape) < SMALL:
        return np.empty(shape, dtype)
    like = torch.float32 if dtype == np.float32 else torch.float64
    return np.asarray(_Memory(torch.empty(shape, dtype=like)))


def _tensor(array: Any, dtype: torch.dtype) -> Tensor:
    """Row-major, as the fake kernels promise, and rounded once.

    The tensor that `_empty` made is found again below its views; others are copied.
    """
    memory = array
    while isinstance(memory, np.ndarray):
        memory = memory.base
    if isinstance(memory, _Memory) and array.flags.c_contiguous:
        if memory.tensor.numel() == array.size:
            return memory.tensor.view(array.shape).to(dtype)
    return torch.from_numpy(np.ascontiguousarray(array)).to(dtype, copy=True)


@torch.library.impl(library, "deform_conv2d", "CPU")
def _forward_cpu(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None,
    bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
) -> Tensor:  # fmt: skip
    from refdcn import cpu

    g = _checked(x, offset, weight, mask, bias, Conv(stride, padding, dilation))
    y = cpu.forward(
        _array(x), _array(offset), _array(weight), _array(mask), _array(bias), g,
        thread_count=torch.get_num_threads(), team=torch_team(), empty=_empty,
    )  # fmt: skip
    return _tensor(y, x.dtype)


@torch.library.impl(library, "deform_conv2d_backward", "CPU")
def _backward_cpu(
    grad_y: Tensor, x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None,
    stride: Any, padding: Any, dilation: Any, needs: Needs,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The gradients that are needed, an empty tensor for each other one."""
    from refdcn import cpu

    conv = Conv(stride, padding, dilation)
    g, bias = _checked_backward(grad_y, x, offset, weight, mask, conv, needs)
    gradients = cpu.backward(
        _array(grad_y), cpu.Inputs(*map(_array, (x, offset, weight, mask, bias))), g,
        tuple(needs), thread_count=torch.get_num_threads(), team=torch_team(),
        empty=_empty,
    )  # fmt: skip
    return tuple(
        _tensor(gradient, x.dtype) if need else x.new_empty(0)
        for gradient, need in zip(gradients, needs, strict=True)
    )


@torch.library.impl(library, "deform_conv2d", "CUDA")
def _forward_cuda(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None,
    bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
) -> Tensor:  # fmt: skip
    from refdcn import cuda

    g = _checked(x, offset, weight, mask, bias, Conv(stride, padding, dilation))
    y: Tensor = cuda.forward(x, offset, weight, mask, bias, g)
    return y


@torch.library.impl(library, "deform_conv2d_backward", "CUDA")
def _backward_cuda(
    grad_y: Tensor, x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None,
    stride: Any, padding: Any, dilation: Any, needs: Needs,
) -> tuple[Tensor, ...]:  # fmt: skip
    """As `_backward_cpu`; without atomics where torch asks for determinism."""
    from refdcn import cuda

    conv = Conv(stride, padding, dilation)
    g, bias = _checked_backward(grad_y, x, offset, weight, mask, conv, needs)
    gradients = cuda.backward(
        grad_y, x, offset, weight, mask, bias, g, tuple(needs),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip
    return tuple(
        x.new_empty(0) if gradient is None else gradient for gradient in gradients
    )


def symbolic(*tensors: Tensor | None) -> bool:
    """Whether a size is a symbol of a graph that is being traced."""
    sizes = (n for t in tensors if t is not None for n in t.shape)
    return any(isinstance(n, torch.SymInt) for n in sizes)


@torch.library.register_fake("refdcn::deform_conv2d", lib=library)
def _forward_fake(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None,
    bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
) -> Tensor:  # fmt: skip
    # Comparing symbolic sizes would specialise the graph; the kernel checks them.
    if not symbolic(x, offset, weight, mask, bias):
        geometry(x, offset, weight, mask, bias, Conv(stride, padding, dilation))
    check_dtypes(x=x, offset=offset, weight=weight, mask=mask, bias=bias)
    return x.new_empty(x.shape[0], weight.shape[0], *offset.shape[2:])


@torch.library.register_fake("refdcn::deform_conv2d_backward", lib=library)
def _backward_fake(
    grad_y: Tensor, x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None,
    stride: Any, padding: Any, dilation: Any, needs: Needs,
) -> tuple[Tensor, ...]:  # fmt: skip
    tensors = x, offset, weight, mask, weight[:, 0, 0, 0]
    return tuple(
        x.new_empty(t.shape if need else 0)
        for t, need in zip(tensors, needs, strict=True)
    )
