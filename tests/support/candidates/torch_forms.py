"""The operator on torch tensors in the form of other libraries, and with mistakes."""

import torch
from torchvision.ops import deform_conv2d

from refdcn import layouts


def exchanged(offset):
    """(x, y) for (y, x)."""
    N, C, *out = offset.shape
    return offset.reshape(N, -1, 2, *out).flip(2).reshape(N, C, *out)


def torchvision(
    input, offset, weight, bias=None, stride=1, padding=0, dilation=1, mask=None
):
    return deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)


def torchvision_swapped(input, offset, *rest):
    return torchvision(input, exchanged(offset), *rest)


kornia, kornia_swapped = torchvision, torchvision_swapped


def mmcv(
    input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups
):
    assert input.shape[1] == groups * weight.shape[1]
    return deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)


def mmcv_swapped(input, offset, *rest):
    return mmcv(input, exchanged(offset), *rest)


def dcnv3(x, offset, mask, K_h, K_w, s_h, s_w, p_h, p_w, d_h, d_w, group,
          group_channels, offset_scale, im2col_step=1, remove_center=0):  # fmt: skip
    assert x.shape[3] == group * group_channels and not remove_center
    windows = {"stride": (s_h, s_w), "padding": (p_h, p_w), "dilation": (d_h, d_w)}
    how = {"kernel_size": (K_h, K_w), "group": group, "offset_scale": offset_scale}
    return depthwise(layouts.dcnv3(x, offset, mask, **how, **windows))


def depthwise(given):
    """y of what refdcn.layouts makes of their tensors, channels last."""
    x, offset, weight, mask = (given.pop(n) for n in ("x", "offset", "weight", "mask"))
    y = deform_conv2d(x, offset, weight, None, mask=mask, **given)
    return y.permute(0, 2, 3, 1)


def dcnv3_swapped(x, offset, *rest):
    return dcnv3(x, offset.unflatten(3, (-1, 2)).flip(4).flatten(3), *rest)


def dcnv4(x, offset_mask, K_h, K_w, s_h, s_w, p_h, p_w, d_h, d_w, group, *more):
    """With the arguments of its function's `apply`; autograd does the rest."""
    windows = {"stride": (s_h, s_w), "padding": (p_h, p_w), "dilation": (d_h, d_w)}
    how = {"kernel_size": (K_h, K_w), "group": group}
    return depthwise(layouts.dcnv4(x, offset_mask, **how, **windows))


class DCNv4:
    """A name with a dot leads to it."""

    apply = staticmethod(dcnv4)


def dcnv4_swapped(x, offset_mask, K_h, K_w, *rest):
    """Of each group it has (x, y) of all taps, then their masks; then what fills up."""
    group, taps = rest[6], K_h * K_w
    end = 3 * group * taps
    used, spare = offset_mask[..., :end], offset_mask[..., end:]
    moved, masks = used.unflatten(3, (group, -1)).split([2 * taps, taps], 4)
    moved = moved.unflatten(4, (taps, 2)).flip(5).flatten(4)
    packed = torch.cat([torch.cat([moved, masks], 4).flatten(3), spare], 3)
    return dcnv4(x, packed, K_h, K_w, *rest)


library = torch.library.Library("refdcn_tests", "DEF")
SCHEMA = (
    "(Tensor input, Tensor weight, Tensor offset, Tensor? mask, Tensor? bias, "
    "int[2] stride, int[2] padding, int[2] dilation) -> Tensor"
)
for name, change in (("right", lambda offset: offset), ("swapped", exchanged)):

    def operator(x, weight, offset, mask, bias, *numbers, change=change):
        return deform_conv2d(x, change(offset), weight, bias, *numbers, mask)

    library.define(name + SCHEMA)
    library.impl(name, operator, "CompositeImplicitAutograd")
library.define("strange(Tensor input, Tensor offset, Tensor weight, int a) -> Tensor")
