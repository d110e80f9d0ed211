"""How cost grows with each size: sweeps from one workload, and a plot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from refdcn.bench.progress import Progress
from refdcn.bench.records import Record, Timing
from refdcn.bench.report import NAMES
from refdcn.bench.run import Group, Options, time_group
from refdcn.bench.timing import flat
from refdcn.bench.workload import Workload

BASE = Workload(1, 64, 28, 28, 64)
# axis of the plot: the workload's fields that it sets, values
SWEEPS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "N": (("N",), (1, 2, 4, 8, 16)),
    "C_in": (("C_in",), (4, 16, 64, 256)),
    "C_out": (("C_out",), (4, 16, 64, 256)),
    "kernel size": (("K_size",), (1, 3, 5, 7)),
    "H = W": (("H", "W"), (7, 14, 28, 56, 112)),
}
LINES = {"refdcn": "C3", "dense": "C0", "torchvision": "C7"}


def sweep(axis: str) -> Iterator[tuple[int, Workload]]:
    """The values of one axis, each with its workload."""
    fields, values = SWEEPS[axis]
    for value in values:
        yield value, BASE._replace(**dict.fromkeys(fields, value))


def measure(options: Options, progress: Progress) -> list[Timing]:
    """Every workload of every sweep, on one thread."""
    record = Record({})
    against = [name for name in LINES if name in options.against]
    options = options._replace(
        against=against, threads=(1,), repeat=min(7, options.repeat), seconds=1.0
    )
    shapes = dict.fromkeys(str(w) for axis in SWEEPS for _, w in sweep(axis))
    groups = [
        Group(shape, options.dtypes[0], direction, "quiet")
        for shape in shapes
        for direction in options.directions
    ]
    progress.start(len(groups))
    for group in groups:
        progress.step(" ".join(group))
        time_group(record, options, group)
    return record.timings


def picture(timings: list[Timing]) -> Any:
    """One column a size, one row a direction; both axes logarithmic."""
    from matplotlib.figure import Figure

    directions = list(dict.fromkeys(t.direction for t in timings))
    size = (2.4 * len(SWEEPS), 2.5 * len(directions))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(directions), len(SWEEPS), sharey="row", squeeze=False)
    for row, direction in zip(axes, directions, strict=True):
        for panel, axis in zip(row, SWEEPS, strict=True):
            lines(panel, axis, [t for t in timings if t.direction == direction])
        row[0].set_ylabel(f"{direction}, ms")
    axes[0][0].legend(fontsize="small", frameon=False)
    return figure


def lines(panel: Any, axis: str, timings: list[Timing]) -> None:
    """Medians, and from the fastest to the slowest call as a band."""
    for name, color in LINES.items():
        found = {t.shape: t for t in timings if t.contestant == name}
        points = [(v, found[str(w)]) for v, w in sweep(axis) if str(w) in found]
        if not points:
            continue
        values = [value for value, _ in points]
        calls = [[1000 * s for s in flat(t.rounds)] for _, t in points]
        band = list(map(min, calls)), list(map(max, calls))
        panel.fill_between(values, *band, color=color, alpha=0.15)
        style = {"color": color, "markersize": 3, "label": NAMES.get(name, name)}
        panel.plot(values, [1000 * t.median for _, t in points], "o-", **style)
    panel.set(xscale="log", yscale="log", xlabel=axis)
    ticks = SWEEPS[axis][1]
    panel.set_xticks(ticks, list(map(str, ticks)))
    panel.minorticks_off()
    panel.grid(alpha=0.3)
