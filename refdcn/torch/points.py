"""Where one output unit samples the image, through stacked deformable convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from refdcn.torch.calls import Seen, Watch


def sampling_points(
    model: nn.Module, image: Tensor, unit: tuple[int, int],
    layers: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor, tuple[float, float]]:  # fmt: skip
    """The points [n, (y, x)] in image pixels, their shares [n], and where unit is.

    A unit reads its taps at p + p_k + dp_k; each lies between four units of the layer
    below, which read theirs. The share of a point is the product, along its way, of the
    modulations and bilinear weights: what reaches the unit where all weights are 1.
    """
    calls: list[tuple[str, Seen]] = []
    batch = image if image.ndim == 4 else image[None]
    if len(batch) != 1:
        raise ValueError(f"image has shape {list(image.shape)}; wanted one image")
    with Watch(model, lambda name, seen, y: calls.append((name, seen))):
        with torch.no_grad():
            model(batch)
    chosen = _choose(calls, layers)
    out = tuple(chosen[-1].offset.shape[2:])
    if not all(0 <= u < size for u, size in zip(unit, out, strict=True)):
        raise ValueError(f"unit is {unit}; wanted (row, column) within {list(out)}")
    units = torch.zeros(out, dtype=torch.float64)
    units[unit] = 1
    place, grid = torch.tensor([unit], dtype=torch.float64), out
    for seen in reversed(chosen):
        out = tuple(seen.offset.shape[2:])
        units, place = _onto(units, out), _scaled(place, grid, out)
        place, grid = _centre(seen, place), seen.call.size
        q, shares = _taps(seen, units)
        units = _spread(q, shares, seen.call.size)
    points, place = (_scaled(t, grid, batch.shape[2:]) for t in (q, place))
    return points, shares, (float(place[0, 0]), float(place[0, 1]))


def _choose(
    calls: list[tuple[str, Seen]], layers: Sequence[str] | None
) -> list[Seen]:  # fmt: skip
    names = [name for name, _ in calls]
    unknown = [name for name in layers or () if name not in names]
    if unknown or not calls:
        raise ValueError(
            f"layers is {layers!r}; the deformable convolutions that the model calls "
            f"are {names}"
        )
    return [seen for name, seen in calls if layers is None or name in layers]


def _taps(seen: Seen, units: Tensor) -> tuple[Tensor, Tensor]:
    """Positions [n, (y, x)] that the units read, and what share each has."""
    offset = seen.offset[0].double().cpu()
    grid = seen.call.grid(units.shape).double()  # [K, (y, x), H_out, W_out]
    q = grid + offset.unflatten(0, (-1, len(grid), 2))
    shares = torch.ones_like(q[:, :, 0]) / len(q)
    if seen.mask is not None:
        shares = shares * seen.mask[0].double().cpu().view(shares.shape)
    shares = (shares * units).flatten()
    read = shares != 0
    return q.movedim(2, -1).reshape(-1, 2)[read], shares[read]


def _centre(seen: Seen, p: Tensor) -> Tensor:
    """The middle of the taps of p, at rest."""
    windows = (seen.call.stride, seen.call.padding, seen.call.dilation)
    stride, padding, dilation = map(torch.tensor, windows)
    return stride * p - padding + dilation * (torch.tensor(seen.call.kernel) - 1) / 2


def _spread(q: Tensor, shares: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels between which positions lie, by their bilinear weights: Eq. (2)."""
    pixels = torch.zeros(size, dtype=torch.float64)
    first = q.floor()
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        p = first + torch.tensor(corner)
        weight = (1 - (q - p).abs()).prod(1) * shares
        inside = ((p >= 0) & (p < torch.tensor(size))).all(1)
        rows, columns = p[inside].long().unbind(1)
        pixels.index_put_((rows, columns), weight[inside], accumulate=True)
    return pixels


def _onto(units: Tensor, size: tuple[int, int]) -> Tensor:
    """The same shares on the grid of another layer's output."""
    if tuple(units.shape) == size:
        return units
    at = units.nonzero()
    return _spread(_scaled(at.double(), units.shape, size), units[tuple(at.T)], size)


def _scaled(q: Tensor, size: Sequence[int], onto: Sequence[int]) -> Tensor:
    """Positions of one grid on another of the same extent, edge to edge."""
    pairs = zip(size, onto, strict=True)
    scale = torch.tensor([b / a for a, b in pairs], dtype=torch.float64)
    return (q + 0.5) * scale - 0.5
