"""How far the taps of deformable convolutions have moved."""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from refdcn.torch.calls import Call, Seen, Watch


class OffsetSummary(NamedTuple):
    """The samples that one layer has taken.

    mean and max of `|dp| = sqrt(dy^2 + dx^2)`, in pixels of the layer's input. outside
    is the share of samples that read no pixel, q <= -1 or q >= size on an axis, and
    outside_at_rest that share with dp = 0: padding alone puts taps outside.
    """

    mean: float
    max: float
    outside: float
    outside_at_rest: float


@dataclass
class Totals:
    """Sums over calls. NaN stays NaN in mean and max and counts as outside."""

    count: int = 0
    calls: int = 0
    inside_at_rest: int = 0
    sums: Tensor | None = None  # of |dp|, of samples inside; on the offsets' device
    longest: Tensor | None = None

    def add(self, sums: Tensor, longest: Tensor, count: int, rest: int) -> None:
        self.count, self.calls = self.count + count, self.calls + 1
        self.inside_at_rest += rest
        self.sums = sums if self.sums is None else self.sums + sums
        largest = self.longest
        self.longest = longest if largest is None else torch.maximum(largest, longest)

    def summary(self) -> OffsetSummary:
        assert self.sums is not None and self.longest is not None
        n = self.count
        distance, inside = self.sums.tolist()
        rest = 1 - self.inside_at_rest / n
        return OffsetSummary(distance / n, float(self.longest), 1 - inside / n, rest)


class OffsetStatistics:
    """Watches the offsets of every deformable convolution that a model calls.

        mean and max of |dp|; the share of samples outside the image

    It sees the layers of refdcn, torchvision and mmcv, also those that are put in
    later, and bare calls of the operators; each has the name of the module that makes
    the call. Use it as a context manager around forward passes, or call `close` at the
    end. It changes no value and keeps no graph.

    Parameters
    ----------
    model : nn.Module
        Calls inside another model are left out; those outside any module are listed
        as deform_conv2d.
    max_mean : float, optional
        Warn, once a layer, where the mean length of dp in a call is above it, in
        pixels, or NaN; None: never.
    max_outside : float, optional
        Warn, once a layer, where the share of samples outside is above that at rest by
        more than this; None: never.

    Notes
    -----
    On a GPU each 16th call of a layer is compared with the limits: asking waits for
    the GPU. It works under vmap and autocast, and in the thread that made it, as
    dispatch modes of torch do; others end before it does. A compiled model runs
    uncompiled while it is watched, as torch.compile has it under such modes.

    Examples
    --------
    >>> import torch
    >>> from refdcn.torch import DeformConv2d, OffsetStatistics
    >>> model = torch.nn.Sequential(DeformConv2d(1, 4, kernel_size=3))
    >>> _ = torch.nn.init.constant_(model[0].offset.bias, 2.0)
    >>> with OffsetStatistics(model) as statistics:
    ...     _ = model(torch.rand(1, 1, 6, 6))
    >>> print(statistics)
    layer  mean |dp|  max |dp|  outside  at rest
    0           2.83      2.83    43.8%     0.0%
    >>> statistics.scalars()["offsets/0/max"]  # for a SummaryWriter or wandb.log
    2.8284270763397217
    """

    def __init__(
        self, model: nn.Module, *, max_mean: float | None = 50.0,
        max_outside: float | None = 0.5,
    ) -> None:  # fmt: skip
        self._limits = max_mean, max_outside
        self._totals: dict[str, Totals] = {}
        self._warned: set[str] = set()
        self._handles = [
            hook
            for name, module in model.named_modules()
            for hook in _mmcv_hooks(name, module, self._add)
        ]
        self._watch = Watch(model, self._see)
        self._watch.__enter__()  # closed by `close`
        self._watching = True

    def _see(self, name: str, seen: Seen, y: Tensor) -> None:
        self._add(name, seen.call, seen.offset)

    @torch.no_grad()
    def _add(self, name: str, call: Call, offset: Tensor) -> None:
        if not offset.numel():
            return
        offset = offset.detach().float().unflatten(1, (-1, *call.kernel, 2))
        dy, dx = offset.unbind(4)  # [N, offset_groups, K_h, K_w, H_out, W_out]
        *bounds, rest = _bounds(call, tuple(dy.shape[4:]), offset.device)
        (top, bottom), (left, right) = bounds
        inside = (dy > top) & (dy < bottom) & (dx > left) & (dx < right)
        distance = torch.hypot(dy, dx)
        sums = torch.stack([distance.sum(dtype=torch.float64), inside.sum()])
        count, rest = dy.numel(), rest * len(dy) * dy.shape[1]
        totals = self._totals.setdefault(name, Totals())
        totals.add(sums, distance.max(), count, rest)
        if name not in self._warned and (
            offset.device.type == "cpu" or totals.calls % 16 == 1
        ):
            self._compare(name, sums / count, 1 - rest / count)

    def _compare(self, name: str, means: Tensor, at_rest: float) -> None:
        max_mean, max_outside = self._limits
        mean, inside = means.tolist()
        outside = 1 - inside - at_rest
        found = ""
        if max_mean is not None and not mean <= max_mean:
            found = f"mean |dp| is {mean:.3g} pixels, above {max_mean:g}"
        elif max_outside is not None and not outside <= max_outside:
            found = (
                f"{outside:.0%} of its samples lie outside the image that did not at "
                f"rest, above {max_outside:.0%}"
            )
        if found:
            self._warned.add(name)
            warnings.warn(
                f"{name}: {found}; offsets that explode are held by a lower learning "
                "rate of the branches (refdcn.torch.parameter_groups) or clipped "
                "gradients",
                stacklevel=2,
            )

    def summaries(self) -> dict[str, OffsetSummary]:
        """By layer name, of what was seen since the start or the last `reset`."""
        return {name: t.summary() for name, t in self._totals.items()}

    def scalars(self, prefix: str = "offsets/") -> dict[str, float]:
        """The summaries as numbers with names of their own, for a logger."""
        return {
            f"{prefix}{name}/{field}": value
            for name, summary in self.summaries().items()
            for field, value in summary._asdict().items()
        }

    def reset(self) -> None:
        """Forget what was seen, say after each epoch."""
        self._totals = {}

    def close(self) -> None:
        """Watch no longer; what was seen stays."""
        for handle in self._handles:
            handle.remove()
        if self._watching:
            self._watching = False
            self._watch.__exit__(None, None, None)

    def __enter__(self) -> OffsetStatistics:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __str__(self) -> str:
        summaries = self.summaries()
        if not summaries:
            return "no deformable convolution was called"
        width = max(map(len, ["layer", *summaries]))
        lines = [f"{'layer':{width}}  mean |dp|  max |dp|  outside  at rest"]
        for name, s in summaries.items():
            shares = f"{s.outside:7.1%}  {s.outside_at_rest:7.1%}"
            lines.append(f"{name:{width}}  {s.mean:9.2f}  {s.max:8.2f}  {shares}")
        return "\n".join(lines)


@lru_cache(maxsize=256)
def _bounds(
    call: Call, out: tuple[int, int], device: torch.device
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], int]:
    """Between which dy, and dx, a sample reads a pixel; how many do with dp = 0."""
    rows, columns = (call.rest(axis, out[axis]) for axis in (0, 1))
    bounds, at_rest = [], 1
    for q, size, axis in ((rows, call.size[0], 0), (columns, call.size[1], 1)):
        at_rest *= int(((q > -1) & (q < size)).sum())
        shape = (len(q), 1, out[0], 1) if axis == 0 else (len(q), 1, out[1])
        low, high = (-1 - q).view(shape), (size - q).view(shape)
        bounds.append((low.to(device).float(), high.to(device).float()))
    return bounds[0], bounds[1], at_rest


def _mmcv_hooks(name: str, module: nn.Module, add: Any) -> list[Any]:
    """On a layer of mmcv.ops, whose operators torch does not see.

    Its packs compute the offsets by a convolution conv_offset, with the mask's channels
    last; the other layers are given them as their second argument.
    """
    origins = [c for c in type(module).__mro__ if c.__module__.startswith("mmcv.ops.")]
    if not {"DeformConv2d", "ModulatedDeformConv2d"} & {c.__name__ for c in origins}:
        return []
    see = functools.partial(_see_mmcv, name or type(module).__name__, module, add)
    branch = getattr(module, "conv_offset", None)
    if branch is None:
        return [module.register_forward_pre_hook(lambda m, a: see(a[0], a[1]))]
    return [branch.register_forward_hook(lambda m, a, y: see(a[0], y))]


def _see_mmcv(name: str, module: Any, add: Any, x: Tensor, offset: Tensor) -> None:
    channels = 2 * module.deform_groups * math.prod(module.kernel_size)
    windows = module.kernel_size, module.stride, module.padding, module.dilation
    pairs = [(v, v) if isinstance(v, int) else tuple(v) for v in windows]
    add(name, Call(tuple(x.shape[2:]), *pairs), offset[:, :channels])
