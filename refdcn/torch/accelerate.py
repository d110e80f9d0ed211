"""refdcn's CPU kernels behind torchvision::deform_conv2d."""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from refdcn.torch import autograd, flops, library
from refdcn.torch.library import Conv

_lock = threading.Lock()
_users = 0
_kernels: torch.library.Library | None = None


class Acceleration:
    """What `accelerate_torchvision` returns: in force until `undo` or a with's end."""

    def __init__(self) -> None:
        self._in_force = True
        _enter()

    def undo(self) -> None:
        """Give torchvision its kernels back, once no other acceleration is in force."""
        if self._in_force:
            self._in_force = False
            _leave()

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()


def accelerate_torchvision() -> Acceleration:
    """Run torchvision's deform_conv2d, forward and backward, by refdcn's CPU kernels.

        torchvision.ops.deform_conv2d(x, offset, weight, bias, mask=mask)
            = refdcn.torch.deform_conv2d(x, offset, weight, mask, bias)

    Models stay as they are: the operator of the name torchvision::deform_conv2d
    gets other kernels, for CPU tensors in the whole process. With them it takes
    bfloat16, has second and forward-mode derivatives, and exports to ONNX as the
    standard node DeformConv.

    Returns
    -------
    Acceleration
        In force at once. `undo()` or the end of a `with` ends it; where several
        are in force, the last one to end gives torchvision its kernels back.

    Raises
    ------
    ImportError
        Where torchvision is not installed.

    Examples
    --------
    >>> from refdcn.torch import accelerate_torchvision, torchvision_is_native
    >>> with accelerate_torchvision():
    ...     torchvision_is_native()
    False
    >>> torchvision_is_native()
    True
    """
    return Acceleration()


def torchvision_is_native() -> bool:
    """Whether torchvision's own CPU kernels are the ones that run.

    The dispatcher is asked, so any other replacement is noticed too: a comparison
    with torchvision that does not ask may compare a kernel with itself.

    Raises
    ------
    ImportError
        Where torchvision is not installed.

    Examples
    --------
    >>> from refdcn.torch import torchvision_is_native
    >>> torchvision_is_native()
    True
    """
    importlib.import_module("torchvision")
    return all(
        "deform_conv2d_kernel.cpp" in _cpu_kernel(f"torchvision::{name}")
        for name in ("deform_conv2d", "_deform_conv2d_backward")
    )


def _cpu_kernel(operator: str) -> str:
    """Where the kernel in force was registered; the dispatcher lists it first."""
    lines = torch._C._dispatch_dump(operator).splitlines()
    return next((line for line in lines if line.startswith("CPU:")), "")


def _enter() -> None:
    global _users, _kernels
    importlib.import_module("torchvision")  # it defines the operators
    flops.register_torchvision()
    with _lock:
        if _users == 0:
            _kernels = torch.library.Library("torchvision", "IMPL")
            _kernels.impl("deform_conv2d", _forward, "CPU")
            _kernels.impl("_deform_conv2d_backward", _backward, "CPU")
            _kernels.impl("deform_conv2d", _differentiable, "AutogradCPU")
        _users += 1


def _leave() -> None:
    global _users, _kernels
    with _lock:
        _users -= 1
        if _users == 0 and _kernels is not None:
            _kernels._destroy()
            _kernels = None


def _arguments(
    x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor,
    *sizes: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """Ours from torchvision's, whose order differs and whose mask is never None."""
    *pairs, groups, offset_groups, use_mask = sizes
    stride, (pad_h, pad_w), dilation = pairs[:2], pairs[2:4], pairs[4:]
    conv = Conv(tuple(stride), (pad_h, pad_h, pad_w, pad_w), tuple(dilation))
    own = x, offset, weight, mask if use_mask else None, bias
    if not library.symbolic(*own):  # comparing would specialise a graph
        g = library.geometry(*own, conv)
        _check_groups("n_weight_grps", groups, g.groups)
        _check_groups("n_offset_grps", offset_groups, g.offset_groups)
    return *own, *conv


def _check_groups(name: str, given: int, found: int) -> None:
    if given != found:
        raise ValueError(f"{name} is {given}; the shapes are those of {found} groups")


def _in_torchvisions_words(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Our errors as what torchvision raises, in words that its users look for."""

    @functools.wraps(kernel)
    def run(*arguments: Any) -> Any:
        try:
            return kernel(*arguments)
        except (TypeError, ValueError) as error:
            # A backward has grad_y before, and 14 arguments follow.
            words = _torchvisions_words(*arguments[-14:])
            raise RuntimeError(f"{words}{error}") from None

    return run


def _torchvisions_words(
    x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor,
    *sizes: Any,
) -> str:  # fmt: skip
    """Which of the sizes that torchvision compares is wrong; "" if none of them."""
    *_, offset_groups, use_mask = sizes
    if any(t.ndim != 4 for t in (x, weight, offset)):
        return ""
    K = weight.shape[2] * weight.shape[3]
    compared = [("offset", offset, 2 * offset_groups * K)]
    if use_mask:
        compared.append(("mask", mask, offset_groups * K))
    for name, tensor, channels in compared:
        if tensor.ndim != 4:
            return ""
        if tensor.shape[1] != channels:
            got = f"got: {tensor.shape[1]} expected: {channels}"
            return f"{name}.shape[1] is not valid: {got}; "
    for name, tensor, _ in compared:
        if len(tensor) != len(x):
            return f"invalid batch size of {name}; "
        if tensor.shape[2:] != (out := _output_size(x, weight, *sizes[:6])):
            own = tuple(tensor.shape[2:])
            return f"{name} output dims: {own} - computed output dims: {out}; "
    return ""


def _output_size(x: Tensor, weight: Tensor, *pairs: int) -> tuple[int, ...]:
    return tuple(
        (size + 2 * pad - dilation * (kernel - 1) - 1) // max(1, stride) + 1
        for size, kernel, stride, pad, dilation in zip(
            x.shape[2:], weight.shape[2:], pairs[:2], pairs[2:4], pairs[4:], strict=True
        )
    )


@_in_torchvisions_words
def _forward(*arguments: Any) -> Tensor:
    return library.forward(*_arguments(*arguments))


@_in_torchvisions_words
def _backward(grad_y: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    x, offset, weight, mask, bias, *conv = _arguments(*arguments)
    needs = (True, True, True, mask is not None, True)
    grads = library.backward(grad_y, x, offset, weight, mask, *conv, needs)
    grad_x, grad_offset, grad_weight, grad_mask, grad_bias = grads
    if mask is None:  # torchvision's stands-in for None is given zeros
        grad_mask = torch.zeros_like(arguments[3])
    return grad_x, grad_weight, grad_offset, grad_mask, grad_bias


@_in_torchvisions_words
def _differentiable(*arguments: Any) -> Tensor:
    """With derivatives of every order, which torchvision's own has not."""
    y: Tensor = autograd.differentiable_operator(*_arguments(*arguments))
    stand_in, use_mask = arguments[3], arguments[-1]
    if use_mask or not stand_in.requires_grad:
        return y
    # Part of the graph, with a gradient of zeros, whatever its values are.
    everywhere = torch.ones((), dtype=torch.bool, device=y.device)
    return y + stand_in.masked_fill(everywhere, 0).sum()
