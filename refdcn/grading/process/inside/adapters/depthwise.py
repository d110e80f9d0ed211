"""DCNv3 and DCNv4, which sum a channel's taps alone, made to sum as Eq. (1) does.

Each pair of output channel and input channel is a channel of theirs, in a group of its
own, whose mask is m * w: what they return, summed over the input channels, is y. Every
product and every sum of the definition is there, so its bounds hold. On torch tensors,
so that autograd goes back through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def spread(layouts: Any, of: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """Their arguments, and what makes their result ours."""
    x, offset, weight, mask, bias = (
        of[name] for name in ("x", "offset", "weight", "mask", "bias")
    )
    C_out, n, K_h, K_w = weight.shape
    N, _, H_out, W_out = offset.shape
    og, pairs = of["offset_groups"], torch.arange(C_out * n, device=x.device)
    channel = pairs // n // (C_out // of["groups"]) * n + pairs % n
    group = channel // (x.shape[1] // og)
    dp = offset.reshape(N, og, -1, H_out, W_out)[:, group]
    if mask is None:
        mask = torch.ones_like(offset[:, ::2])
    dm = mask.reshape(N, og, -1, H_out, W_out)[:, group]
    dm = dm * weight.reshape(1, C_out * n, -1, 1, 1)
    given = dp.reshape(N, -1, H_out, W_out), dm.reshape(N, -1, H_out, W_out)
    how = {"kernel_size": (K_h, K_w), "dilation": of["dilation"]}
    there = [a.contiguous() for a in layouts.as_dcnv3(*given, **how)]
    found = {
        "x": x[:, channel].permute(0, 2, 3, 1).contiguous(),
        "offset": there[0],
        "mask": there[1],
        "offset_mask": layouts.as_dcnv4(*given, **how),
        "group": C_out * n,
        "block_thread": C_out * n,
    }

    def y_of(y: Any) -> Any:
        y = y.reshape(N, H_out, W_out, C_out, n).sum(4).permute(0, 3, 1, 2)
        return y if bias is None else y + bias[:, None, None]

    return found, y_of
