"""The operator on torch tensors in the form of other libraries, and with mistakes."""

import torch
from torchvision.ops import deform_conv2d

from refdcn import layouts


def exchanged(offset):
    """(x, y) for (y, x)."""
    N, C, *out = offset.shape
    return offset.reshape(N, -1, 2, *out).flip(2).reshape(N, C, *out)


def torchvision_swapped(
    input, offset, weight, bias=None, stride=1, padding=0, dilation=1, mask=None
):
    numbers = stride, padding, dilation
    return deform_conv2d(input, exchanged(offset), weight, bias, *numbers, mask)


def mmcv(
    input, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups
):
    assert input.shape[1] == groups * weight.shape[1]
    return deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)


def dcnv3(x, offset, mask, K_h, K_w, s_h, s_w, p_h, p_w, d_h, d_w, group,
          group_channels, offset_scale, im2col_step=1, remove_center=0):  # fmt: skip
    assert x.shape[3] == group * group_channels and not remove_center
    windows = {"stride": (s_h, s_w), "padding": (p_h, p_w), "dilation": (d_h, d_w)}
    how = {"kernel_size": (K_h, K_w), "group": group, "offset_scale": offset_scale}
    given = layouts.dcnv3(x, offset, mask, **how, **windows)
    x, offset, weight, mask = (given.pop(n) for n in ("x", "offset", "weight", "mask"))
    return deform_conv2d(x, offset, weight, None, mask=mask, **given).permute(
        0, 2, 3, 1
    )


class DCNv4(torch.autograd.Function):
    """With the arguments of its `apply`; autograd does the rest."""

    @staticmethod
    def apply(x, offset_mask, K_h, K_w, s_h, s_w, p_h, p_w, d_h, d_w, group, *more):
        windows = {"stride": (s_h, s_w), "padding": (p_h, p_w), "dilation": (d_h, d_w)}
        how = {"kernel_size": (K_h, K_w), "group": group}
        given = layouts.dcnv4(x, offset_mask, **how, **windows)
        named = [given.pop(n) for n in ("x", "offset", "weight", "mask")]
        y = deform_conv2d(*named[:3], None, mask=named[3], **given)
        return y.permute(0, 2, 3, 1)


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
