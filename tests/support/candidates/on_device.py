"""Candidates whose tensors are on a device, and what some do there."""

import torch
from torchvision.ops import deform_conv2d


def right(x, offset, weight, mask, bias, **windows):
    return deform_conv2d(x, offset, weight, bias, mask=mask, **windows)


def swapped(x, offset, weight, mask, bias, **windows):
    N, C, *out = offset.shape
    offset = offset.reshape(N, -1, 2, *out).flip(2).reshape(N, C, *out)
    return right(x, offset, weight, mask, bias, **windows)


def writes(x, offset, weight, mask, bias, **windows):
    y = right(x, offset, weight, mask, bias, **windows)
    x.flatten()[:1] = 3
    return y


def beside(x, offset, weight, mask, bias, **windows):
    """It writes behind its input, as a kernel that rounds its sizes up."""
    y = right(x, offset, weight, mask, bias, **windows)
    behind = x.numel() + x.storage_offset()
    x.as_strided((1,), (1,), behind).fill_(0)
    return y


HELD = []


def buffer(x, offset, weight, mask, bias, **windows):
    y = right(x, offset, weight, mask, bias, **windows)
    same = [a for a in HELD if a.shape == y.shape and a.dtype == y.dtype]
    if same:
        return same[0].copy_(y)
    HELD.append(y)
    return y


def alias(x, offset, weight, mask, bias, **windows):
    return x


def empty(x, offset, weight, mask, bias, **windows):
    y = right(x, offset, weight, mask, bias, **windows)
    return torch.empty_like(y)


def leaves(x, offset, weight, mask, bias, **windows):
    """It asks a device that computes nothing for a result of this shape."""
    y = right(x, offset, weight, mask, bias, **windows)
    y.to("meta").sum((2, 3))
    return y
