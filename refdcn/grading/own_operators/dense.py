"""The dense convolution, called as a candidate is called."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import conv2d as of_torch


def conv2d(
    x: Any, offset: Any, weight: Any, mask: Any, bias: Any, **windows: Any
) -> Any:
    """torch's conv2d of the same sizes; offsets and masks are not read."""
    tensors = (None if a is None else torch.from_numpy(a) for a in (x, weight, bias))
    groups = x.shape[1] // weight.shape[1]
    return of_torch(*tensors, groups=groups, **windows).numpy()
