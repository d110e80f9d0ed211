"""Eq. (5) and its gradients on checked CUDA arrays, on the device that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from refdcn.cuda.device import require_cuda
from refdcn.shapes import Geometry


def forward(
    x: Any, offset: Any, weight: Any, mask: Any, bias: Any, geometry: Geometry
) -> Any:
    """Eq. (5): y [N, C_out, H_out, W_out], of the kind of x, on its device."""
    require_cuda()
    from refdcn.cuda import arrays, operator

    with arrays.working_on(x) as on:
        return operator.forward(on, (x, offset, weight, mask, bias), geometry)


def backward(
    grad_y: Any, x: Any, offset: Any, weight: Any, mask: Any, bias: Any,
    geometry: Geometry, needs: Sequence[bool] = (True,) * 5, *,
    deterministic: bool = False,
) -> list[Any]:  # fmt: skip
    """The gradients by x, offset, weight, mask, bias; None where not given or needed.

    `deterministic` gives the same bits at each run, if the library's product does.
    """
    require_cuda()
    from refdcn.cuda import arrays, operator

    inputs = x, offset, weight, mask, bias
    with arrays.working_on(x) as on:
        return operator.backward(on, grad_y, inputs, geometry, needs, deterministic)
