"""Mistakes of interpolation that are made along rows alone, or along columns alone.

A slip in one of two lines that should be alike: the other axis is right.
"""

from __future__ import annotations

from collections.abc import Callable

from refdcn.grading.catalogue import sampling
from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.sampling import BothAxes, one_axis
from refdcn.grading.catalogue.steps import State

MISTAKES: list[Mistake] = []
LINES = "row", "column"
NAMED = "nearest", "weights swapped"  # of which each axis has a name of its own


def of_axis(text: str, axis: int) -> str:
    """What is said of both axes, said of one."""
    said = text.split("; ")[0].replace("row and column", LINES[axis])
    return f"along {LINES[axis]}s alone, {said}"


def alone(m: Mistake, axis: int, edit: Callable[[State], None]) -> None:
    """One of them."""
    title = f"{m.name}, along {LINES[axis]}s alone"
    said, edits = of_axis(m.text, axis), (("kernel", edit),)
    MISTAKES.append(Mistake("sampling", title, said, edits, m.beyond))


def whole(axis: int) -> Callable[[State], None]:
    """A sample is 0 when a neighbour along one axis is outside."""

    def edit(s: State) -> None:
        q, n = ((s.qy, s.z.H), (s.qx, s.z.W))[axis]
        s.keep = s.keep * ((q >= 0) & (q <= n - 1))

    return edit


def axes_alone() -> None:
    """Each mistake of both axes' factors, along each."""
    for axis in (0, 1):
        for m in sampling.MISTAKES:
            edit = m.edits[0][1]
            if isinstance(edit, BothAxes) and m.name not in NAMED:
                alone(m, axis, one_axis(axis, edit.factors))
            elif m.name == "whole sample":
                alone(m, axis, whole(axis))


axes_alone()
