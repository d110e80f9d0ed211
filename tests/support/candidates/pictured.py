"""Three mistakes that a report must show: layout of offsets, border, group."""

import numpy as np

from refdcn import formula
from refdcn.grading.expected import oracle
from refdcn.grading.expected.case import Case


def planar(x, offset, weight, mask, bias, **windows):
    """Reads all y of a group, then all x."""
    N, channels, h, w = offset.shape
    K = weight.shape[2] * weight.shape[3]
    groups = channels // (2 * K)
    pairs = offset.reshape(N, groups, 2, K, h, w).swapaxes(2, 3)
    offset = np.ascontiguousarray(pairs).reshape(offset.shape)
    return formula.deform_conv2d(x, offset, weight, mask, bias, **windows)


def border(x, offset, weight, mask, bias, **windows):
    """Takes a sample for 0 where one of its corners is outside."""
    case = Case("", "bound", x, offset, weight, mask, bias, *windows.values())
    inside = oracle.border(case, "inside")
    return formula.deform_conv2d(*inside.inputs, **windows)


def group(x, offset, weight, mask, bias, **windows):
    """Output o reads group o % groups."""
    groups, O = x.shape[1] // weight.shape[1], len(weight)
    order = np.argsort(np.arange(O) % groups, kind="stable")
    bias = None if bias is None else bias[order]
    y = formula.deform_conv2d(x, offset, weight[order], mask, bias, **windows)
    out = np.empty_like(y)
    out[:, order] = y
    return out


def lenient(x, offset, weight, mask, bias, **windows):
    """Right, and computes whatever the shapes are."""
    try:
        return formula.deform_conv2d(x, offset, weight, mask, bias, **windows)
    except ValueError:
        return np.zeros((len(x), len(weight), *offset.shape[2:]), x.dtype)


def exits(*inputs, **windows):
    """Ends its process."""
    import os

    os._exit(3)


def refuses(*inputs, **windows):
    """Refuses every call."""
    raise NotImplementedError("<script>alert(1)</script> | no such thing & more")
