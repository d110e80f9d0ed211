"""The wrong kernel of `refdcn demo`."""

from __future__ import annotations

from typing import Any

import numpy as np

import refdcn
from refdcn.grading.expected.case import Array

Pair = tuple[int, int]


def swapped(
    x: Array, offset: Array, weight: Array, mask: Any, bias: Any, **windows: Pair
) -> Any:
    """Takes offsets as (x, y), a mistake found in many ports; else right."""
    N, channels, H_out, W_out = offset.shape
    pairs = offset.reshape(N, channels // 2, 2, H_out, W_out)
    offset = np.ascontiguousarray(pairs[:, :, ::-1]).reshape(offset.shape)
    return refdcn.deform_conv2d(x, offset, weight, mask, bias, **windows)
