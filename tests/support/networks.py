"""Networks with deformable layers, run by one operator or another, and how far the
roundings of two correct operators may carry them apart.
"""

from contextlib import contextmanager
from functools import cache
from unittest import mock

import torch
import torchvision
from torch import nn

from refdcn.torch import DeformConv2d, deformable
from refdcn.torch import layer as layers


def torchvision_op(x, offset, weight, mask=None, bias=None, **windows):
    windows["padding"] = [begin for begin, _ in windows["padding"]]  # it has no end
    return torchvision.ops.deform_conv2d(x, offset, weight, bias, mask=mask, **windows)


@contextmanager
def operator(op):
    """DeformConv2d computes with `op`."""
    with mock.patch.object(layers, "deform_conv2d", op):
        yield


def moved(model):
    """Offsets of about a pixel, as after training; masks off their start."""
    rng = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, DeformConv2d):
            for branch in (module.offset, module.mask):
                for p in () if branch is None else branch.parameters():
                    noise = torch.randn(p.shape, generator=rng) * 0.3
                    p.data.copy_(noise / max(1, p[0].numel()) ** 0.5)
    return model


@cache
def resnet50(width=64):
    """torchvision's; its last three 3x3 convolutions, 8 * width wide, deformable."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50(num_classes=10, width_per_group=width)
    deformable(model, 3)
    moved(model)
    # Normalised as after training, or the activations grow from layer to layer.
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64))
    for norm in norms:
        norm.momentum = 0.1
    return model


class Segmenter(nn.Module):
    """An encoder, deformable in the middle, and a decoder; a class for each pixel."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(),
            DeformConv2d(16, 32, 3, padding=1, offset_groups=2), nn.ReLU(),
            DeformConv2d(32, 32, 3, padding=2, dilation=2, groups=2), nn.ReLU(),
        )  # fmt: skip
        self.decode = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"),
            DeformConv2d(32, 16, 3, padding=1, modulation=None), nn.ReLU(),
            nn.Conv2d(16, 4, 1),
        )  # fmt: skip

    def forward(self, x):
        return self.decode(self.encode(x))


@cache
def segmenter():
    torch.manual_seed(0)
    return moved(Segmenter())


@cache
def stack():
    """Two layers: uneven kernel, stride, dilation, groups, an even-sized \"same\"."""
    torch.manual_seed(0)
    first = DeformConv2d(3, 4, (3, 2), stride=(1, 2), padding=1, dilation=(2, 1))
    last = DeformConv2d(4, 4, 2, padding="same", groups=2, offset_groups=2)
    return moved(nn.Sequential(first, nn.ReLU(), last))


@contextmanager
def disturbed(model, seed):
    """Each convolution's outputs, changed by all that its roundings may be.

    A sum of n products is within (n + 16) u of the exact one, relative to its terms'
    sizes; here each output moves by that much of the layer's largest output, at random.
    """
    rng = torch.Generator().manual_seed(seed)

    def change(module, inputs, y):
        terms = module.weight[0].numel() + 16
        sign = torch.randint(0, 2, y.shape, generator=rng) * 2 - 1
        size = terms * torch.finfo(y.dtype).eps / 2 * y.detach().abs().max()
        return y + size * sign

    hooks = [
        m.register_forward_hook(change)
        for m in model.modules()
        if isinstance(m, nn.Conv2d)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def assert_closer_than_roundings(got, wanted, disturbances, what):
    """|got - wanted| is no more than roundings do to `wanted`, and its own."""
    for name, b in wanted.items():
        a = got[name].to(b.dtype)
        bound = max((d[name] - b).abs().max() for d in disturbances)
        if b.is_floating_point():
            bound = bound + torch.finfo(b.dtype).eps * b.abs().max()
        error = (a - b).abs().max()
        assert bool(error <= bound), f"{what} {name}: {error} above {bound}"
