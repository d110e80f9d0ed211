"""What a trained network looks at: receptive field, taps, and the ink under them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from refdcn.demo.networks import CENTER, STRIDE, Network
from refdcn.torch.calls import Seen, Watch

MIDDLE = 3  # of the 7 x 7 positions


class Taps(NamedTuple):
    """Where the last two convolutions sample, one tensor each, in their positions.

    rest [K, (y, x), 7, 7] with dp = 0; moved [N, K, (y, x), 7, 7]; mask [N, K, 7, 7].
    """

    rest: list[Tensor]
    moved: list[Tensor]
    mask: list[Tensor]


def receptive_field(network: Network, images: Tensor) -> Tensor:
    """Mean over images of |d sum_c y_c / d x| at the middle position: [28, 28], sum 1.

    y is the last convolution's output, before pooling. Luo et al. 2016
    (arXiv:1701.04128) call this the effective receptive field.
    """
    x = images.clone().requires_grad_()
    y = network.features(x)[:, :, MIDDLE, MIDDLE]
    (grad,) = torch.autograd.grad(y.sum(), x)
    field = grad.abs().mean((0, 1))
    return field / field.sum()


def radius(field: Tensor) -> float:
    """Root mean square distance from the position's own pixel, in pixels."""
    r = torch.arange(len(field)) - (STRIDE * MIDDLE + CENTER)
    return float((field * (r[:, None] ** 2 + r**2)).sum().sqrt())


@torch.no_grad()
def taps(network: Network, images: Tensor) -> Taps:
    """Where the deformable layers sample; empty for a plain network."""
    found = Taps([], [], [])

    def see(name: str, seen: Seen, y: Tensor) -> None:
        offset = seen.offset
        rest = seen.call.grid(offset.shape[2:])
        found.rest.append(rest)
        found.moved.append(rest + offset.unflatten(1, (-1, 2)))
        mask = torch.ones_like(offset[:, ::2]) if seen.mask is None else seen.mask
        found.mask.append(mask)

    with Watch(network, see):
        network.features(images)
    return found


def ink(images: Tensor, places: Tensor) -> float:
    """Mean brightness under places [N, K, (y, x), 7, 7] of the images, 0 outside."""
    at = (STRIDE * places + CENTER).movedim(2, -1).flatten(2, 3)  # [N, K, 49, (y, x)]
    size = images.shape[-1]
    grid = (2 * at.flip(-1) + 1) / size - 1  # (x, y) from -1 to 1, edge to edge
    return float(functional.grid_sample(images, grid, align_corners=False).mean())


def measures(network: Network, images: Tensor) -> dict[str, float]:
    """Numbers that the results page gives for each run."""
    found = {"radius": radius(receptive_field(network, images))}
    seen = taps(network, images)
    if seen.moved:
        rest = seen.rest[-1].expand_as(seen.moved[-1])
        found["ink_at_rest"] = ink(images, rest)
        found["ink"] = ink(images, seen.moved[-1])
        found["mask"] = float(seen.mask[-1].mean())
    return found


def trace(seen: Taps, n: int, row: int, column: int) -> tuple[Tensor, Tensor]:
    """The 81 places, in pixels (y, x), that one position of the last layer samples.

    Each of its nine taps falls near a position of the layer before, whose nine taps
    are moved along. The second tensor is the product of the two masks.
    """
    first, second = (m[n] for m in seen.moved)
    mask_first, mask_second = (m[n] for m in seen.mask)
    rest = seen.rest[0]
    places, weights = [], []
    for k in range(len(second)):
        q = second[k, :, row, column]
        y, x = q.round().long().clamp(0, second.shape[-1] - 1)
        step = first[:, :, y, x] - rest.new_tensor([y, x])  # p_k + dp_k of that layer
        places.append(q + step)
        weights.append(mask_second[k, row, column] * mask_first[:, y, x])
    return STRIDE * torch.cat(places) + CENTER, torch.cat(weights)
