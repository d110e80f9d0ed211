"""The public functions on torch tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from refdcn import shapes
from refdcn.torch import autograd, library
from refdcn.torch.library import Conv, Needs


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: shapes.Padding = 0,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Modulated deformable convolution (DCNv2), differentiable to any order.

        y(p) = sum_k  w_k * x(p + p_k + dp_k) * dm_k

    with bilinear sampling, zero outside the image; `refdcn.formula` is the definition.

    Parameters
    ----------
    x : [N, C_in, H, W]
        float16, bfloat16, float32 or float64, in any memory layout. All arguments
        have one dtype; beside a half type offset and mask may be float32, since an
        offset of 20 pixels in bfloat16 is 0.06 pixels coarse. Under autocast half
        types are widened to float32.
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
        A new row-major tensor of the dtype of x. The half types are computed in
        float32, positions included, and rounded once.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came, what was wanted and why.

    References
    ----------
    Zhu et al. 2019, arXiv:1811.11168, Eq. 1.

    Examples
    --------
    A sample half a pixel below the pixel 1 of a column 1, 2, 4, and how it changes
    as it moves down:

    >>> import torch
    >>> from refdcn.torch import deform_conv2d
    >>> x = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
    >>> offset = torch.zeros(1, 2, 3, 1)
    >>> offset[:, 0] = 0.5
    >>> y = deform_conv2d(x, offset.requires_grad_(), torch.ones(1, 1, 1, 1))
    >>> y.flatten()
    tensor([1.5000, 3.0000, 2.0000], grad_fn=<ViewBackward0>)
    >>> y.sum().backward()
    >>> offset.grad[0, 0].flatten()
    tensor([ 1.,  2., -4.])
    """
    tensors = {"x": x, "offset": offset, "weight": weight, "mask": mask, "bias": bias}
    _check(tensors)
    conv = _conv(weight, stride, padding, dilation)
    if not library.under_autocast(x):
        finer = _finer(tensors)
        library.check_dtypes(**{k: t for k, t in tensors.items() if k not in finer})
        if not finer:
            return autograd.deform_conv2d(x, offset, weight, mask, bias, conv=conv)
    wide = map(library.wide, tensors.values())
    return autograd.deform_conv2d(*wide, conv=conv).to(x.dtype)


def deform_conv2d_grad(
    grad_y: Tensor,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: shapes.Padding = 0,
    dilation: int | Sequence[int] = 1,
) -> tuple[Tensor | None, ...]:
    """The gradients of sum(grad_y * y), themselves differentiable to any order.

        grad_x, grad_offset, grad_weight, grad_mask, grad_bias = d sum(grad_y * y) / d .

    The slope of the bilinear sample is the right-hand one at integer positions, also
    at -1.

    Parameters
    ----------
    grad_y : [N, C_out, H_out, W_out]
    x, offset, weight, mask, bias, stride, padding, dilation
        As in `deform_conv2d`; no tensor needs requires_grad.

    Returns
    -------
    tuple
        New tensors for x, offset, weight, mask, bias, each with the shape of its
        argument; None where mask or bias is None.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came, what was wanted and why.

    References
    ----------
    `refdcn.formula`, Eq. (4); Dai et al. 2017, arXiv:1703.06211, appendix A.

    Examples
    --------
    >>> import torch
    >>> from refdcn.torch import deform_conv2d_grad
    >>> x = torch.tensor([1.0, 3.0]).reshape(1, 1, 2, 1)
    >>> offset = torch.full((1, 2, 2, 1), 0.0)
    >>> grad_y = torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1)
    >>> deform_conv2d_grad(grad_y, x, offset, torch.ones(1, 1, 1, 1))[1][0, 0].flatten()
    tensor([2., 0.])
    """
    tensors = {"x": x, "offset": offset, "weight": weight, "mask": mask, "bias": bias}
    _check(tensors | {"grad_y": grad_y})
    library.check_dtypes(**tensors, grad_y=grad_y)
    conv = _conv(weight, stride, padding, dilation)
    needs: Needs = (True, True, True, mask is not None, bias is not None)
    if bias is not None:  # the operator below does not take it
        library.geometry(x, offset, weight, mask, bias, conv)
    return autograd.gradients(grad_y, x, offset, weight, mask, conv=conv, needs=needs)


def _finer(tensors: dict[str, Tensor | None]) -> list[str]:
    """Which of offset and mask are float32 beside an x of a half type."""
    x = tensors["x"]
    if x is None or x.dtype not in library.HALF_DTYPES:
        return []
    found = {name: tensors[name] for name in ("offset", "mask")}
    return [k for k, t in found.items() if t is not None and t.dtype == torch.float32]


def _check(tensors: dict[str, Tensor | None]) -> None:
    """All that are given are tensors on one device."""
    device = getattr(tensors["x"], "device", None)
    for name, tensor in tensors.items():
        if tensor is None and name in ("mask", "bias"):
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is {type(tensor).__name__}; wanted a torch tensor")
        if tensor.device != device:
            raise ValueError(
                f"{name} is on {tensor.device} and x is on {device}; "
                "all arguments need one device"
            )


def _conv(
    weight: Tensor,
    stride: int | Sequence[int],
    padding: shapes.Padding,
    dilation: int | Sequence[int],
) -> Conv:
    """What users pass, normalised; the operator compares it with the tensors."""
    # "same" needs the kernel; a weight without one is refused by the operator.
    kernel = weight.shape[2:] if weight.ndim == 4 else (1, 1)
    strides = shapes.pair("stride", stride, least=1)
    dilations = shapes.pair("dilation", dilation, least=1)
    rows, columns = shapes.paddings(padding, strides, dilations, tuple(kernel))
    return Conv(strides, (*rows, *columns), dilations)
