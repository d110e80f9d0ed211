"""The network, and the arms of the experiment: what differs between them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from refdcn.torch import DeformConv2d, deformable
from refdcn.torch.layer import Modulation

CLASSES = 10
HIDDEN = 128, 64  # both followed by dropout
DEFORMED = 2  # of the four convolutions, the last ones: 7 x 7 positions, 4 pixels apart
STRIDE, CENTER = 4, 1.5  # position q is centered on pixel 4 q + 1.5


class Network(nn.Module):
    """Four 3x3 convolutions and three fully connected layers with dropout.

    `third` is the width of the third convolution.
    """

    def __init__(self, third: int = 32, normalised: bool = False) -> None:
        super().__init__()
        widths = 1, 16, 32, third, 32
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1)
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.norms = nn.ModuleList(
            nn.GroupNorm(1, b) if normalised else nn.Identity() for b in widths[1:]
        )
        sizes = 3 * 3 * widths[-1], *HIDDEN, CLASSES
        self.full = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)
        )

    def features(self, x: Tensor) -> Tensor:
        """What the last convolution sees: [N, 32, 7, 7] for x [N, 1, 28, 28]."""
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = functional.relu(norm(conv(x)))
            if i in (0, 1):
                x = functional.max_pool2d(x, 2)
        return x

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Logits [N, 10]. kept [N, 192]: what dropout multiplies by, None for 1.

        It is passed in so that every arm, and every process of several, drops the
        same units.
        """
        x = functional.max_pool2d(self.features(x), 2).flatten(1)
        keeps = [None] * 2 if kept is None else kept.split(HIDDEN, dim=1)
        for layer, keep in zip(self.full[:-1], keeps, strict=True):
            x = functional.relu(layer(x))
            x = x if keep is None else x * keep
        logits: Tensor = self.full[-1](x)
        return logits


class Arm(NamedTuple):
    """One network of the comparison."""

    title: str
    change: Callable[[Network], object]  # what is done to the plain network
    normalised: bool = False
    wider: bool = False  # as many parameters as the deformable one


def nothing(network: Network) -> None:
    """Plain."""


def deform(modulation: Modulation) -> Callable[[Network], object]:
    return lambda network: deformable(network, DEFORMED, modulation=modulation)


def mask_only(network: Network) -> None:
    """A mask that starts at 1; every offset stays 0."""
    for layer in deformed(network, "2sigmoid"):
        layer.offset.requires_grad_(False)


def doubled(network: Network) -> None:
    """dm = 0.5 at the start and weights of twice the size: y as in the plain one."""
    for layer in deformed(network, "sigmoid"):
        layer.weight.data.mul_(2)


def as_published(network: Network) -> None:
    """The article's layer with the shape of its mask's weight mended, as it starts.

    The offset branch keeps its random bias, the mask branch has weights 0.5 and a
    random bias, and the convolution's own bias is dropped.
    """
    for layer in deformed(network, "sigmoid"):
        published_start(layer)


def published_start(layer: DeformConv2d) -> None:
    assert layer.mask is not None
    bound = 1 / math.sqrt(layer.offset.weight[0].numel())  # nn.Conv2d's own
    for branch in (layer.offset, layer.mask):
        assert branch.bias is not None
        nn.init.uniform_(branch.bias, -bound, bound)
    nn.init.constant_(layer.mask.weight, 0.5)
    layer.bias = None


def deformed(network: Network, modulation: Modulation) -> list[DeformConv2d]:
    """The layers that were made deformable."""
    deform(modulation)(network)
    return deform_layers(network)


def deform_layers(network: nn.Module) -> list[DeformConv2d]:
    return [m for m in network.modules() if isinstance(m, DeformConv2d)]


def size(network: nn.Module) -> int:
    """Parameters that learn."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def matched_width() -> int:
    """The third convolution's width that gives a plain network the same size."""
    network = Network()
    deform("2sigmoid")(network)
    wanted = size(network)
    return min(range(32, 128), key=lambda third: abs(size(Network(third)) - wanted))


ARMS = {
    "plain": Arm("plain", nothing),
    "matched": Arm("plain, as many parameters", nothing, wider=True),
    "2sigmoid": Arm("deformable, dm = 1 at the start", deform("2sigmoid")),
    "sigmoid": Arm("deformable, dm = 0.5 at the start", deform("sigmoid")),
    "offsets": Arm("deformable, offsets without mask", deform(None)),
    "mask": Arm("mask without offsets", mask_only),
    "published": Arm("as published, shape mended", as_published),
    "doubled": Arm("dm = 0.5 and doubled weights at the start", doubled),
    "plain-norm": Arm("plain, normalised", nothing, normalised=True),
    "2sigmoid-norm": Arm("dm = 1, normalised", deform("2sigmoid"), normalised=True),
    "sigmoid-norm": Arm("dm = 0.5, normalised", deform("sigmoid"), normalised=True),
}


def build(name: str, seed: int) -> Network:
    """The network of an arm; those of one seed start with the same weights."""
    arm = ARMS[name]
    torch.manual_seed(seed)
    network = Network(normalised=arm.normalised)
    if arm.wider:  # its weights are equal where the shapes are
        state = network.state_dict()
        network = Network(matched_width(), arm.normalised)
        own = network.state_dict()
        network.load_state_dict(
            {k: state[k] if state[k].shape == v.shape else v for k, v in own.items()}
        )
    arm.change(network)
    return network
