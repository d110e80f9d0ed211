"""The wrong kernel of `refdcn demo`, as it is met in many ports."""

from __future__ import annotations

from typing import Any

import numpy as np

import refdcn


def swapped(
    x: Any, offset: Any, weight: Any, mask: Any, bias: Any, **windows: tuple[int, int]
) -> Any:
    """Takes offsets as (x, y) where they are (y, x); else right."""
    N, channels, H_out, W_out = offset.shape
    pairs = offset.reshape(N, channels // 2, 2, H_out, W_out)
    offset = np.ascontiguousarray(pairs[:, :, ::-1]).reshape(offset.shape)
    return refdcn.deform_conv2d(x, offset, weight, mask, bias, **windows)
