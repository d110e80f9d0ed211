"""A module whose forward takes all tensors; its numbers are arguments of __init__."""

from torch import nn
from torchvision.ops import deform_conv2d


class Model(nn.Module):
    """What ModelNew replaces; no one asks for it."""


class ModelNew(nn.Module):
    def __init__(self, stride, padding, dilation):
        super().__init__()
        self.numbers = stride, padding, dilation

    def forward(self, x, offset, weight, mask=None, bias=None):
        return deform_conv2d(x, offset, weight, bias, *self.numbers, mask)
