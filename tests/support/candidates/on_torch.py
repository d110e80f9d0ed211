"""Candidates that take torch tensors."""

import torch
from torchvision.ops import deform_conv2d


def right(x, offset, weight, mask, bias, **windows):
    return deform_conv2d(x, offset, weight, bias, mask=mask, **windows)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(context, weight):
        return weight.clone()

    @staticmethod
    def backward(context, grad):
        return 2 * grad


def doubled(x, offset, weight, mask, bias, **windows):
    return right(x, offset, Doubled.apply(weight), mask, bias, **windows)


def detached(x, offset, weight, mask, bias, **windows):
    return right(x, offset.detach(), weight, mask, bias, **windows)


def added(x, offset, weight, mask, bias, **windows):
    """A sum whose bias gradient autograd hands on as it was given."""
    y = right(x, offset, weight, mask, None, **windows)
    return y + bias.reshape(1, -1, 1, 1)
