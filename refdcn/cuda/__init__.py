"""CUDA target: the loops' scalar functions under cuda.jit, and their launches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from refdcn.cuda.device import require_cuda
from refdcn.cuda.entry import deform_conv2d, deform_conv2d_grad
from refdcn.shapes import Geometry

__all__ = ["backward", "deform_conv2d", "deform_conv2d_grad", "forward", "require_cuda"]


def forward(
    x: Any, offset: Any, weight: Any, mask: Any, bias: Any, geometry: Geometry
) -> Any:
    """Eq. (1): y [N, C_out, H_out, W_out], of the kind of x, on its device."""
    require_cuda()
    from refdcn.cuda import arrays, operator

    with arrays.working_on(x) as on:
        return operator.forward(on, x, offset, weight, mask, bias, geometry)


def backward(
    grad_y: Any, x: Any, offset: Any, weight: Any, mask: Any, bias: Any,
    geometry: Geometry, needs: Sequence[bool] = (True,) * 5,
    deterministic: bool = False,
) -> list[Any]:  # fmt: skip
    """Eq. (1) differentiated, by each argument; None where not given or not needed."""
    require_cuda()
    from refdcn.cuda import arrays, operator

    with arrays.working_on(x) as on:
        return operator.backward(
            on, grad_y, x, offset, weight, mask, bias, geometry, needs, deterministic
        )
