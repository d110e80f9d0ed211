"""The public functions: each call goes to the target that takes its kind of array.

A target's entry has these two functions with the same arguments; it checks them, and
gives back what came in: cpu/entry.py, cuda/entry.py, torch/op.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from refdcn.cpu import Gradients as Gradients
from refdcn.cpu import entry as cpu
from refdcn.shapes import Padding, two_kinds

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
        The kernel w. `groups` and `offset_groups` follow from the shapes.
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
    inputs = {"x": x, "offset": offset, "weight": weight, "mask": mask, "bias": bias}
    return _target(inputs).deform_conv2d(
        *inputs.values(), stride=stride, padding=padding, dilation=dilation
    )


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
    inputs = {"x": x, "offset": offset, "weight": weight, "mask": mask, "bias": bias}
    return Gradients(
        *_target(inputs | {"grad_y": grad_y}).deform_conv2d_grad(
            grad_y,
            *inputs.values(),
            stride=stride,
            padding=padding,
            dilation=dilation,
        )
    )


def _target(arguments: dict[str, Any]) -> Any:
    """The entry of the target that takes these arguments."""
    x = arguments["x"]
    if _are_tensors(arguments):
        from refdcn.torch import op

        return op
    if not isinstance(x, np.ndarray) and _on_card(x):
        from refdcn.cuda import entry

        return entry
    return cpu


def _are_tensors(arguments: dict[str, Any]) -> bool:
    torch = sys.modules.get("torch")  # not loaded: then nothing here is a tensor
    if torch is None:
        return False
    tensors = {n: a for n, a in arguments.items() if isinstance(a, torch.Tensor)}
    for name, a in arguments.items():
        if tensors and a is not None and name not in tensors:
            first = next(iter(tensors))
            raise two_kinds(first, tensors[first], name, a)
    return bool(tensors)


def _on_card(x: Any) -> bool:
    if hasattr(x, "__cuda_array_interface__"):
        return True
    return hasattr(x, "__dlpack_device__") and int(x.__dlpack_device__()[0]) in CUDA
