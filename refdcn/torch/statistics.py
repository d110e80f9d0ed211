"""How far the taps of deformable layers have moved."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from refdcn.torch.layer import DeformConv2d


class OffsetSummary(NamedTuple):
    """The samples that one layer has taken.

    mean and max of |dp| = sqrt(dy^2 + dx^2), in pixels of the layer's input. outside
    is the share of samples that read no pixel, q <= -1 or q >= size on an axis, and
    outside_at_rest that share with dp = 0: padding alone puts taps outside.
    """

    mean: float
    max: float
    outside: float
    outside_at_rest: float


@dataclass
class Totals:
    """Sums over batches. NaN stays NaN in all of them but counts as outside."""

    count: int = 0
    distance: float = 0.0
    longest: float = 0.0
    outside: int = 0
    outside_at_rest: int = 0

    def add(self, distance: Tensor, outside: Tensor, at_rest: Tensor) -> None:
        if distance.numel():
            self.count += distance.numel()
            self.distance += float(distance.double().sum())
            self.longest = float(distance.max().clamp(min=self.longest))
            self.outside += int(outside.sum())
            times = outside.numel() // at_rest.numel()
            self.outside_at_rest += times * int(at_rest.sum())

    def summary(self) -> OffsetSummary:
        n = self.count
        rest = self.outside / n, self.outside_at_rest / n
        return OffsetSummary(self.distance / n, self.longest, *rest)


class OffsetStatistics:
    """Watches the offsets of every DeformConv2d in a model, to see them explode.

        mean and max of |dp|; the share of samples outside the image

    Use it as a context manager around forward passes, or call `close` at the end.
    It changes no value and keeps no graph.

    Parameters
    ----------
    model : nn.Module
        With at least one `DeformConv2d`; the layers are found once, here.

    Raises
    ------
    ValueError
        The model has no DeformConv2d.

    Examples
    --------
    >>> import torch
    >>> from refdcn.torch import DeformConv2d, OffsetStatistics
    >>> model = torch.nn.Sequential(DeformConv2d(1, 4, kernel_size=3))
    >>> _ = torch.nn.init.constant_(model[0].offset.bias, 3.0)
    >>> with OffsetStatistics(model) as statistics:
    ...     _ = model(torch.rand(1, 1, 6, 6))
    >>> print(statistics)
    layer  mean |dp|  max |dp|  outside  at rest
    0           4.24      4.24    75.0%     0.0%
    """

    def __init__(self, model: nn.Module) -> None:
        layers = {
            name: m for name, m in model.named_modules() if isinstance(m, DeformConv2d)
        }
        if not layers:
            raise ValueError(
                f"model is a {type(model).__name__} with no DeformConv2d; there are no "
                "offsets to watch"
            )
        self._totals = {name: Totals() for name in layers}
        # The branch's own output is what was used, under autocast too.
        see = self._see
        self._handles = [
            layer.offset.register_forward_hook(functools.partial(see, name, layer))
            for name, layer in layers.items()
        ]

    @torch.no_grad()
    def _see(
        self, name: str, layer: DeformConv2d, branch: Any, inputs: Any, output: Tensor
    ) -> None:
        height, width = layer.padded(inputs[0]).shape[-2:]
        rest = positions(layer, output)
        dp = output.detach().unflatten(1, (layer.offset_groups, -1, 2)).float()
        sizes = dp.new_tensor([height, width])[:, None, None]
        distance = torch.linalg.vector_norm(dp, dim=3)
        seen = outside(rest + dp, sizes), outside(rest, sizes)
        self._totals[name].add(distance, *seen)

    def summaries(self) -> dict[str, OffsetSummary]:
        """By layer name, of what was seen since the start or the last `reset`."""
        return {name: t.summary() for name, t in self._totals.items() if t.count}

    def reset(self) -> None:
        """Forget what was seen, say after each epoch."""
        self._totals = {name: Totals() for name in self._totals}

    def close(self) -> None:
        """Watch no longer; what was seen stays."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> OffsetStatistics:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __str__(self) -> str:
        summaries = self.summaries()
        width = max(map(len, ["layer", *summaries]))
        lines = [f"{'layer':{width}}  mean |dp|  max |dp|  outside  at rest"]
        for name, s in summaries.items():
            shares = f"{s.outside:7.1%}  {s.outside_at_rest:7.1%}"
            lines.append(f"{name:{width}}  {s.mean:9.2f}  {s.max:8.2f}  {shares}")
        return "\n".join(lines)


def positions(layer: DeformConv2d, offset: Tensor) -> Tensor:
    """p + p_k: [K, (y, x), H_out, W_out], in pixels of the sampled image."""
    top, left = 0, 0
    if layer.padding_mode == "zeros":
        left, _, top, _ = layer._reversed_padding_repeated_twice
    axes = []
    for axis, before in ((0, top), (1, left)):
        p = torch.arange(offset.shape[2 + axis], device=offset.device)
        i = torch.arange(layer.kernel_size[axis], device=offset.device)
        p, i = layer.stride[axis] * p - before, layer.dilation[axis] * i
        axes.append(p[None, :] + i[:, None])  # [K_axis, out]
    y, x = axes
    (K_h, H_out), (K_w, W_out) = y.shape, x.shape
    size = K_h, K_w, H_out, W_out
    grid = y[:, None, :, None].expand(size), x[None, :, None, :].expand(size)
    return torch.stack(grid, 2).flatten(0, 1).float()


def outside(q: Tensor, sizes: Tensor) -> Tensor:
    """Where a sample reads no pixel; q [..., (y, x), H_out, W_out]."""
    return ~((q > -1) & (q < sizes)).all(-3)
