"""torch, whose import here starts a pool of two threads that each call needs."""

import torch

from refdcn.formula import deform_conv2d

torch.set_num_threads(2)
A = torch.ones(1500, 1500)
(A @ A).sum(), torch.exp(A).sum()


def deform_conv(x, *rest, **windows):
    torch.exp(A).sum(), (A @ A).sum()
    return deform_conv2d(x, *rest, **windows).astype(x.dtype)
