"""Learning curves, sampling points on digits, effective receptive fields."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from refdcn.demo.measures import MIDDLE, Taps, radius, trace
from refdcn.demo.networks import ARMS, CENTER, STRIDE
from refdcn.demo.training import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METADATA = {"Software": None}  # the same bytes from the same numbers


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata=METADATA)


def curves(runs: Sequence[Run], arms: Sequence[str]) -> Figure:
    """Accuracy by epoch, and its difference from the plain network of the same seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    plain = {run.seed: run for run in runs if run.arm == "plain"}
    for arm in arms:
        mine = [run for run in runs if run.arm == arm]
        i = list(ARMS).index(arm)  # an arm has one color in all pictures
        style = {"color": f"C{i % 10}", "linestyle": "-" if i < 10 else "--"}
        band(left, [run.accuracy for run in mine], ARMS[arm].title, style)
        paired = [
            np.subtract(run.accuracy, plain[run.seed].accuracy)
            for run in mine
            if run.seed in plain
        ]
        if paired and arm != "plain":
            band(right, paired, None, style)
    right.axhline(0, color="C0")
    left.set_ylabel("test accuracy, %")
    right.set_ylabel("accuracy minus plain's, same seed, % points")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def band(axes: Axes, values: Any, label: str | None, style: dict[str, Any]) -> None:
    """The mean over seeds, and one standard deviation to either side."""
    values = 100 * np.asarray(values)
    epochs = np.arange(1, values.shape[1] + 1)
    mean = values.mean(0)
    axes.plot(epochs, mean, label=label, **style)
    if len(values) > 1:
        spread = values.std(0, ddof=1)
        color = style["color"]
        axes.fill_between(
            epochs, mean - spread, mean + spread, color=color, alpha=0.1, linewidth=0
        )


def points(images: Tensor, seen: Taps) -> Figure:
    """Each digit twice: the 81 places of one position as it starts, and as learnt."""
    from matplotlib.figure import Figure

    columns = len(images)
    figure = Figure(figsize=(1.5 * columns + 1, 3.1), layout="constrained")
    start = Taps(
        seen.rest,
        [rest.expand_as(moved) for rest, moved in zip(*seen[:2], strict=True)],
        [mask.new_ones(mask.shape) for mask in seen.mask],
    )
    traced = {
        title: [
            [t.numpy() for t in trace(of, n, MIDDLE, MIDDLE)] for n in range(columns)
        ]
        for title, of in (("dp = 0", start), ("learnt", seen))
    }
    top = max(float(weights.max()) for row in traced.values() for _, weights in row)
    shades = None
    for row, (title, digits) in enumerate(traced.items()):
        for n, (places, weights) in enumerate(digits):
            axes = figure.add_subplot(2, columns, row * columns + n + 1)
            axes.imshow(images[n, 0].numpy(), cmap="gray")
            shades = axes.scatter(
                places[:, 1], places[:, 0], 9, weights, cmap="viridis", vmin=0, vmax=top
            )
            axes.plot(*[STRIDE * MIDDLE + CENTER] * 2, "r+", markersize=9)
            size = images.shape[-1]
            axes.set(xlim=(-4, size + 3), ylim=(size + 3, -4), xticks=[], yticks=[])
            if n == 0:
                axes.set_ylabel(title)
    figure.colorbar(shades, ax=figure.axes, label="product of both masks", shrink=0.7)
    return figure


def fields(maps: dict[str, Tensor]) -> Figure:
    """Effective receptive fields by title, side by side and on one scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(maps), 3.4), layout="constrained")
    top = max(float(field.max()) for field in maps.values())
    shown = None
    for i, (title, field) in enumerate(maps.items()):
        axes = figure.add_subplot(1, len(maps), i + 1)
        shown = axes.imshow(field.sqrt().numpy(), cmap="magma", vmin=0, vmax=top**0.5)
        middle = STRIDE * MIDDLE + CENTER
        angle = np.linspace(0, 2 * np.pi, 100)
        r = radius(field)
        axes.plot(middle + r * np.cos(angle), middle + r * np.sin(angle), "w-", lw=1)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{title}\nRMS radius {r:.1f} pixels", fontsize="small")
    figure.colorbar(shown, ax=figure.axes, label="square root of the share", shrink=0.8)
    return figure
