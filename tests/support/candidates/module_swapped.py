"""A module that holds its weight, has fixed numbers, and reads (x, y) for (y, x)."""

import torch
from torch import nn
from torchvision.ops import deform_conv2d


class Model(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size, groups, bias=True):
        super().__init__()
        shape = out_channels, in_channels // groups, *kernel_size
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.padding = 1

    def forward(self, x, offset, mask):
        N, C, *out = offset.shape
        offset = offset.reshape(N, -1, 2, *out).flip(2).reshape(N, C, *out)
        numbers = (1, 1), (1, 1), (1, 1)
        return deform_conv2d(x, offset, self.weight, self.bias, *numbers, mask)
