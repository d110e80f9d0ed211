"""Layers as other libraries lay them out, computed by torchvision's operator.

Names of parameters, channels of the branches and how their output is cut are those of
the libraries; nothing else of them is here.
"""

import torch
import torchvision
from torch import nn


class Foreign(nn.Module):
    """weight, bias and a branch; `parts` is 2 (offsets) or 3 (a mask too)."""

    def __init__(self, C_in, C_out, parts, offset_groups=1, bias=True, **settings):
        super().__init__()
        self.settings = {"stride": 1, "padding": 1, "dilation": 1, **settings}
        self.parts = parts
        like = nn.Conv2d(C_in, C_out, 3, bias=bias)
        self.weight, self.bias = like.weight, like.bias
        channels = parts * offset_groups * 9
        self.add_branch(nn.Conv2d(C_in, channels, 3, **self.settings))

    def add_branch(self, branch):
        raise NotImplementedError

    def sampling(self, x):
        """dp and dm; three equal parts, of which the first two are dp."""
        out = self.branch(x)
        if self.parts == 2:
            return out, None
        first, second, mask = torch.chunk(out, 3, dim=1)
        return torch.cat((first, second), dim=1), torch.sigmoid(mask)

    def forward(self, x):
        offset, mask = self.sampling(x)
        return torchvision.ops.deform_conv2d(
            x, offset, self.weight, self.bias, mask=mask, **self.settings
        )


class Mmcv(Foreign):
    """mmcv's DeformConv2dPack and ModulatedDeformConv2dPack."""

    def add_branch(self, branch):
        self.conv_offset = branch

    def branch(self, x):
        return self.conv_offset(x)


class CharlesShang(Foreign):
    """DCNv2's DCN."""

    def add_branch(self, branch):
        self.conv_offset_mask = branch

    def branch(self, x):
        return self.conv_offset_mask(x)


class Detectron2(nn.Module):
    """Its DeformBottleneckBlock keeps conv2_offset beside conv2."""

    def __init__(self, *args, **settings):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 1)
        inner = Mmcv(*args, **settings)
        self.conv2_offset = inner.conv_offset
        del inner.conv_offset
        inner.branch = lambda x: self.conv2_offset(x)
        self.conv2 = inner

    def forward(self, x):
        return self.conv2(self.conv1(x))
