"""The public functions on NumPy arrays: what comes in is checked, its dtype stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from refdcn import shapes
from refdcn.cpu.backward import Inputs, backward
from refdcn.cpu.forward import forward
from refdcn.shapes import Padding

Five: TypeAlias = tuple[Any, Any, Any, Any, Any]  # x, offset, weight, mask, bias

OPTIONAL = ("mask", "bias")


def deform_conv2d(
    x: Any, offset: Any, weight: Any, mask: Any, bias: Any, *,
    stride: int | Sequence[int], padding: Padding, dilation: int | Sequence[int],
) -> Any:  # fmt: skip
    """`refdcn.deform_conv2d` of NumPy arrays."""
    inputs = x, offset, weight, mask, bias
    _check(x=x, offset=offset, weight=weight, mask=mask, bias=bias)
    g = shapes.geometry(*_shapes(inputs), stride, padding, dilation)
    return _rounded(forward(*_wide(inputs), g), x.dtype)


def deform_conv2d_grad(
    grad_y: Any, x: Any, offset: Any, weight: Any, mask: Any, bias: Any, *,
    stride: int | Sequence[int], padding: Padding, dilation: int | Sequence[int],
) -> list[Any]:  # fmt: skip
    """`refdcn.deform_conv2d_grad` of NumPy arrays."""
    inputs = x, offset, weight, mask, bias
    _check(x=x, offset=offset, weight=weight, mask=mask, bias=bias, grad_y=grad_y)
    g = shapes.geometry(*_shapes(inputs), stride, padding, dilation)
    shapes.check_grad_y(grad_y.shape, g)
    grads = backward(_wide_array(grad_y), Inputs(*_wide(inputs)), g)
    return [a if a is None else _rounded(a, x.dtype) for a in grads]


def _check(**arguments: Any) -> None:
    """All that are given are NumPy arrays of one dtype."""
    x = arguments["x"]
    given = {n: a for n, a in arguments.items() if a is not None or n not in OPTIONAL}
    for name, a in given.items():
        if isinstance(a, np.ma.MaskedArray):
            raise TypeError(
                f"{name} is a masked array, whose mask would be lost; "
                "pass plain numbers, e.g. a.filled(0)"
            )
        if not isinstance(a, np.ndarray):
            if isinstance(x, np.ndarray) and hasattr(a, "shape"):
                raise shapes.two_kinds(name, a, "x", x)
            raise TypeError(
                f"{name} is {shapes.kind(a)}; wanted a NumPy array or a torch tensor"
            )
    shapes.check_dtypes({name: a.dtype.type.__name__ for name, a in given.items()})


def _shapes(inputs: Five) -> Five:
    x, offset, weight, mask, bias = (None if a is None else a.shape for a in inputs)
    return x, offset, weight, mask, bias


def _wide(inputs: Five) -> Five:
    """In this machine's byte order, float16 as float32: sums need more than 11 bits."""
    x, offset, weight, mask, bias = map(_wide_array, inputs)
    return x, offset, weight, mask, bias


def _wide_array(a: Any) -> Any:
    if a is None or (type(a) is np.ndarray and a.dtype.isnative and a.itemsize > 2):
        return a
    dtype = np.float32 if a.dtype.itemsize == 2 else a.dtype.newbyteorder("=")
    return np.asarray(a, dtype)


def _rounded(a: Any, dtype: Any) -> Any:
    if a.dtype == dtype:
        return a
    with np.errstate(over="ignore"):  # too large for float16 is inf
        return a.astype(dtype.newbyteorder("="), copy=False)
