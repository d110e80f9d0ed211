"""Calls of a deformable convolution as torch dispatches them, whoever makes them.

A layer of refdcn or torchvision, a model's own code, with or without acceleration: all
end in one of two operators, which a dispatch mode sees. mmcv's end in operators of its
own that torch does not see; for those see `statistics`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from refdcn.torch import autograd

BARE = "deform_conv2d"  # called by no module


class Call(NamedTuple):
    """What the positions of a call follow from; padding is (top, left)."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def rest(self, axis: int, out: int) -> Tensor:
        """p + p_k on one axis: [K_axis, out]."""
        p = self.stride[axis] * torch.arange(out) - self.padding[axis]
        i = self.dilation[axis] * torch.arange(self.kernel[axis])
        return p[None, :] + i[:, None]

    def grid(self, out: Sequence[int]) -> Tensor:
        """p + p_k: [K, (y, x), H_out, W_out], in pixels of the sampled image."""
        (K_h, K_w), (H_out, W_out) = self.kernel, out
        y, x = (self.rest(axis, out[axis]) for axis in (0, 1))
        size = K_h, K_w, H_out, W_out
        pair = y[:, None, :, None].expand(size), x[None, :, None, :].expand(size)
        return torch.stack(pair, 2).flatten(0, 1).float()


class Seen(NamedTuple):
    """A call and its tensors."""

    call: Call
    x: Tensor
    offset: Tensor
    weight: Tensor
    mask: Tensor | None


def read(operator: str, args: tuple[Any, ...]) -> Seen | None:
    """The arguments of an operator of this name; None if it is another."""
    if operator == "refdcn::deform_conv2d":
        x, offset, weight, mask, _, stride, (top, _, left, _), dilation = args
        padding = top, left
    elif operator == "torchvision::deform_conv2d":
        x, weight, offset, mask, _, *sizes, _, _, use_mask = args
        stride, padding, dilation = sizes[:2], tuple(sizes[2:4]), sizes[4:]
        mask = mask if use_mask else None
    else:
        return None
    size, kernel = tuple(x.shape[2:]), tuple(weight.shape[2:])
    call = Call(size, kernel, tuple(stride), padding, tuple(dilation))
    return Seen(call, x, offset, weight, mask)


class Watch(TorchDispatchMode):
    """Tells `see(name, seen, y)` of each call in this thread, while it is entered."""

    def __init__(self, model: nn.Module, see: Callable[[str, Seen, Tensor], None]):
        super().__init__()
        self.names, self._see = Names(model), see

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        y = function(*args, **(kwargs or {}))
        seen = read(function._schema.name, args)
        if seen is not None and _has_values(seen.offset):
            name = self.names.of_caller()
            if name is not None:
                self._see(name, seen, y)
        return y


def _has_values(tensor: Tensor) -> bool:
    return not (isinstance(tensor, FakeTensor) or tensor.is_meta)


def running_modules() -> list[nn.Module] | None:
    """Whose forward is running, the innermost first; None within a derivative."""
    modules, frame = [], sys._getframe(1)
    while frame is not None:  # 0.2 us a frame
        code = frame.f_code
        if code is autograd.tangent.__code__:
            return None
        if code.co_name == "forward" and code.co_varnames[:1] == ("self",):
            module = frame.f_locals.get("self")
            if isinstance(module, nn.Module):
                modules.append(module)
        frame = frame.f_back  # type: ignore[assignment]
    return modules


class Names:
    """The names of a model's modules, those put in later too."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._read()

    def _read(self) -> None:
        # A model that is itself the layer has the name "".
        names = self._model.named_modules()
        self._names = {id(m): name or type(m).__name__ for name, m in names}

    def of_caller(self) -> str | None:
        """Of the innermost module of the model whose code is running.

        BARE where no module's is; None in a module of another model, and for the
        calls that make up a derivative.
        """
        modules = running_modules()
        if modules is None:
            return None
        if modules and id(modules[0]) not in self._names:
            self._read()  # a layer that was put in later
        known = (self._names[id(m)] for m in modules if id(m) in self._names)
        return next(known, None if modules else BARE)
