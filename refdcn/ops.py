"""The public functions: what comes in is checked here and sent to its target."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from refdcn import cpu, shapes
from refdcn.cpu import Gradients as Gradients
from refdcn.shapes import Padding

Five: TypeAlias = tuple[Any, Any, Any, Any, Any]  # x, offset, weight, mask, bias

CUDA = (2, 13)  # DLPack's kDLCUDA, kDLCUDAManaged


def deform_conv2d(
    x: Any,
    offset: Any,
    weight: Any,
    mask: Any = None,
    bias: Any = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
) -> Any:
    """Modulated deformable convolution (DCNv2).

        y(p) = sum_k  w_k * x(p + p_k + dp_k) * dm_k

    with bilinear sampling, zero outside the image; `refdcn.formula` is the definition.

    Parameters
    ----------
    x : [N, C_in, H, W]
        NumPy array (float16, float32, float64) or torch tensor (bfloat16 too, with
        autograd). All arguments have one kind and one dtype.
    offset : [N, offset_groups * K_h * K_w * 2, H_out, W_out]
        dp in pixels, channels (offset group, tap row, tap column, (dy, dx)).
    weight : [C_out, C_in / groups, K_h, K_w]
        w. `groups` and `offset_groups` follow from the shapes.
    mask : [N, offset_groups * K_h * K_w, H_out, W_out], optional
        dm, any real numbers; None is 1 everywhere (DCNv1).
    bias : [C_out], optional
        Added to y; None is 0.
    stride, dilation : int or (rows, columns)
    padding : int, (rows, columns), ((top, bottom), (left, right)), "same" or "valid"

    Returns
    -------
    y : [N, C_out, H_out, W_out]
        A new array of the kind and dtype of x. float16 and bfloat16 are computed in
        float32 and rounded once.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came, what was wanted and why.

    References
    ----------
    Zhu et al. 2019, arXiv:1811.11168, Eq. 1.

    Examples
    --------
    A 1x1 kernel that looks half a pixel down from each row of a column 1, 2, 4; the
    last row lies between 4 and the zero outside:

    >>> import numpy as np
    >>> import refdcn
    >>> x = np.array([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
    >>> off = np.zeros((1, 2, 3, 1))
    >>> off[:, 0] = 0.5
    >>> refdcn.deform_conv2d(x, off, np.ones((1, 1, 1, 1))).ravel()
    array([1.5, 3. , 2. ])
    """
    arguments = {"x": x, "offset": offset, "weight": weight, "mask": mask, "bias": bias}
    target = _target(arguments)
    if target is not None:
        return target.deform_conv2d(
            *arguments.values(), stride=stride, padding=padding, dilation=dilation
        )
    given = _check_arrays(arguments)
    g = shapes.geometry(*_shapes(arguments), stride, padding, dilation)
    y = cpu.forward(*_wide(arguments), g)
    return _rounded(y, given["x"].dtype)


def deform_conv2d_grad(
    grad_y: Any,
    x: Any,
    offset: Any,
    weight: Any,
    mask: Any = None,
    bias: Any = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
) -> Gradients:
    """The gradients of `deform_conv2d`: of sum(grad_y * y) by each argument.

        grad_x, grad_offset, grad_weight, grad_mask, grad_bias = d sum(grad_y * y) / d .

    The slope of the bilinear sample is the right-hand one at integer positions, also
    at -1.

    Parameters
    ----------
    grad_y : [N, C_out, H_out, W_out]
        Of the kind and dtype of the others.
    x, offset, weight, mask, bias, stride, padding, dilation
        As in `deform_conv2d`.

    Returns
    -------
    Gradients
        A named tuple (x, offset, weight, mask, bias) of new arrays, each with the
        shape of its argument; None where mask or bias is None.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came, what was wanted and why.

    References
    ----------
    `refdcn.formula`, Eq. (4); Dai et al. 2017, arXiv:1703.06211, appendix A.

    Examples
    --------
    A sample between the pixels 1 and 3 of a column: moving it down by one pixel adds 2.

    >>> import numpy as np
    >>> import refdcn
    >>> x = np.array([1.0, 3.0]).reshape(1, 1, 2, 1)
    >>> off = np.zeros((1, 2, 2, 1))
    >>> off[0, 0, 0, 0] = 0.5
    >>> one = np.ones((1, 1, 1, 1))
    >>> grad_y = np.array([1.0, 0.0]).reshape(1, 1, 2, 1)
    >>> refdcn.deform_conv2d_grad(grad_y, x, off, one).offset[0, 0, 0, 0]
    np.float64(2.0)
    """
    arguments = {"x": x, "offset": offset, "weight": weight, "mask": mask, "bias": bias}
    target = _target({"grad_y": grad_y} | arguments)
    if target is not None:
        return Gradients(
            *target.deform_conv2d_grad(
                grad_y,
                *arguments.values(),
                stride=stride,
                padding=padding,
                dilation=dilation,
            )
        )
    given = _check_arrays(arguments | {"grad_y": grad_y})
    g = shapes.geometry(*_shapes(arguments), stride, padding, dilation)
    shapes.check_grad_y(grad_y.shape, g)
    grads = cpu.backward(_wide_array(grad_y), *_wide(arguments), g)
    dtype = given["x"].dtype
    return Gradients(*(a if a is None else _rounded(a, dtype) for a in grads))


def _target(arguments: dict[str, Any]) -> Any:
    """The package that takes these arguments; None for NumPy arrays."""
    if _is_torch(arguments):
        from refdcn import torch as target

        return target
    x = arguments["x"]
    if isinstance(x, np.ndarray):
        return None
    if hasattr(x, "__cuda_array_interface__") or (
        hasattr(x, "__dlpack_device__") and int(x.__dlpack_device__()[0]) in CUDA
    ):
        from refdcn import cuda

        return cuda
    return None


def _is_torch(arguments: dict[str, Any]) -> bool:
    torch = sys.modules.get("torch")  # not loaded: then nothing here is a tensor
    if torch is None:
        return False
    tensors = [name for name, a in arguments.items() if isinstance(a, torch.Tensor)]
    others = [n for n, a in arguments.items() if a is not None and n not in tensors]
    if tensors and others:
        raise TypeError(
            f"{tensors[0]} is a torch tensor and {others[0]} is "
            f"{type(arguments[others[0]]).__name__}; all arguments need one kind, "
            "since the kind that comes in goes out"
        )
    return bool(tensors)


def _check_arrays(arguments: dict[str, Any]) -> dict[str, Any]:
    """The given arguments, all NumPy arrays of one dtype."""
    optional = ("mask", "bias")
    given = {n: a for n, a in arguments.items() if a is not None or n not in optional}
    for name, a in given.items():
        if isinstance(a, np.ma.MaskedArray):
            raise TypeError(
                f"{name} is a masked array, whose mask would be lost; "
                "pass plain numbers, e.g. a.filled(0)"
            )
        if not isinstance(a, np.ndarray):
            raise TypeError(
                f"{name} is {type(a).__name__}; wanted a NumPy array or a torch tensor"
            )
    shapes.check_dtypes({name: a.dtype.type.__name__ for name, a in given.items()})
    return given


def _shapes(arguments: dict[str, Any]) -> Five:
    x, offset, weight, mask, bias = (
        None if a is None else a.shape for a in arguments.values()
    )
    return x, offset, weight, mask, bias


def _wide(arguments: dict[str, Any]) -> Five:
    """In this machine's byte order, float16 as float32: sums need more than 11 bits."""

    x, offset, weight, mask, bias = map(_wide_array, arguments.values())
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
