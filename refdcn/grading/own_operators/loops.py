"""The loops, called as a candidate is called.

They check no shape and know no float16: shapes.py does the first here, as for
every target, and float16 is computed in float32 and rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refdcn import loops, shapes

Pair = tuple[int, int]


def prepared(inputs: tuple[Any, ...], windows: dict[str, Pair]) -> list[Any]:
    """Checked, and no narrower than float32."""
    given: list[Any] = [None if a is None else a.shape for a in inputs]
    shapes.geometry(*given, **windows)
    wide = np.result_type(inputs[0], np.float32)
    return [None if a is None else a.astype(wide) for a in inputs]


def deform_conv2d(*inputs: Any, **windows: Pair) -> Any:
    """Eq. (1)."""
    y = loops.deform_conv2d(*prepared(inputs, windows), **windows)
    return y.astype(inputs[0].dtype, copy=False)


def deform_conv2d_grad(grad_y: Any, *inputs: Any, **windows: Pair) -> list[Any]:
    """Its gradients."""
    wide = prepared(inputs, windows)
    grads = loops.deform_conv2d_grad(grad_y.astype(wide[0].dtype), *wide, **windows)
    narrow = inputs[0].dtype
    return [None if g is None else g.astype(narrow, copy=False) for g in grads]
