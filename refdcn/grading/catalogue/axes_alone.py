"""Mistakes of interpolation that are made along rows alone, or along columns alone.

A slip in one of two lines that should be alike: the other axis is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

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


def inside(low: bool, high: bool, strict: bool) -> Callable[[int], Any]:
    """A sample is 0 beyond the first or last line of an axis; `strict`: on it, too."""

    def along(axis: int) -> Callable[[State], None]:
        def edit(s: State) -> None:
            q, n = ((s.qy, s.z.H), (s.qx, s.z.W))[axis]
            least, most = (q > 0, q < n - 1) if strict else (q >= 0, q <= n - 1)
            s.keep = s.keep * (least | (not low)) * (most | (not high))

        return edit

    return along


def unread(last: bool) -> Callable[[int], Any]:
    """The first or the last line of an axis is never read."""

    def along(axis: int) -> Callable[[State], None]:
        def edit(s: State) -> None:
            names, n = (("ty", "sy"), s.z.H) if axis == 0 else (("tx", "sx"), s.z.W)
            kept = np.arange(n) != (n - 1 if last else 0)
            for name in names:
                setattr(s, name, getattr(s, name) * kept)

        return edit

    return along


OTHERS = {  # whose edits are of other fields than the factors, or of parts of them
    "whole sample": inside(True, True, False),
    "whole sample low": inside(True, False, False),
    "whole sample high": inside(False, True, False),
    "inclusive edge": inside(False, True, True),
    "exclusive edge": inside(True, False, True),
    "last row lost": unread(True),
    "first row lost": unread(False),
}


def axes_alone() -> None:
    """Each mistake of both axes' factors, along each."""
    for axis in (0, 1):
        for m in sampling.MISTAKES:
            edit = m.edits[0][1]
            if isinstance(edit, BothAxes) and m.name not in NAMED:
                alone(m, axis, one_axis(axis, edit.factors))
            elif m.name in OTHERS:
                alone(m, axis, OTHERS[m.name](axis))


axes_alone()
