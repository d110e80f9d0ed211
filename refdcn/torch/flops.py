"""What torch.utils.flop_counter counts for a deformable convolution: its products.

    2 * N * H_out * W_out * C_out * (C_in / groups) * K_h * K_w

as for nn.Conv2d of these sizes. Sampling, about 9 operations for each of the
N * H_out * W_out * C_in * K_h * K_w samples, is left out, as interpolation is.
"""

from __future__ import annotations

import math
import sys
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula


def products(y: Any, weight: Any) -> int:
    """Of a forward, from the shapes of y and weight."""
    count: int = 2 * math.prod(y) * math.prod(weight[1:])
    return count


@register_flop_formula(torch.ops.refdcn.deform_conv2d)
def forward(x: Any, offset: Any, weight: Any, *rest: Any, out_shape: Any) -> int:
    return products(out_shape, weight)


@register_flop_formula(torch.ops.refdcn.deform_conv2d_backward)
def backward(
    grad_y: Any, x: Any, offset: Any, weight: Any, *rest: Any, out_shape: Any
) -> int:
    """One product for the gradient of the columns, one for that of the weight."""
    x_needs, offset_needs, weight_needs, mask_needs, _ = rest[-1]
    columns = x_needs or offset_needs or mask_needs
    return (bool(columns) + bool(weight_needs)) * products(grad_y, weight)


@cache
def register_torchvision() -> None:
    """Of torchvision's operator, once it is there."""
    operators = torch.ops.torchvision

    def forward(x: Any, weight: Any, *rest: Any, out_shape: Any) -> int:
        return products(out_shape, weight)

    def backward(grad_y: Any, x: Any, weight: Any, *rest: Any, out_shape: Any) -> int:
        return 2 * products(grad_y, weight)

    register_flop_formula(operators.deform_conv2d)(forward)
    register_flop_formula(operators._deform_conv2d_backward)(backward)


class AfterTorchvision(MetaPathFinder):
    """Registers once torchvision has been imported, which is slow and others' to do."""

    def find_spec(self, name: str, *where: Any) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)  # so that it is found as ever
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def then(module: Any) -> None:
                execute(module)
                register_torchvision()

            spec.loader.exec_module = then  # type: ignore[method-assign]
        return spec


if "torchvision" in sys.modules:
    register_torchvision()
else:
    sys.meta_path.insert(0, AfterTorchvision())
