"""A candidate that is nothing but a call of torchvision's operator."""

from __future__ import annotations

from typing import Any


def deform_conv2d(*inputs: Any, **windows: Any) -> Any:
    """Calls torchvision, which it loads when it is called."""
    import torch
    from torchvision.ops import deform_conv2d as operator

    x, offset, weight, mask, bias = (
        None if a is None else torch.from_numpy(a.copy()) for a in inputs
    )
    return operator(x, offset, weight, bias, mask=mask, **windows).numpy()
