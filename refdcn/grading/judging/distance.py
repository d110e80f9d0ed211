"""How far a result lies from what it may be, and the element that is worst."""

from __future__ import annotations

import numpy as np

from refdcn.grading.expected.case import Array
from refdcn.grading.expected.expectation import Range
from refdcn.grading.judging.finding import Element


def outside(y: Array, want: Range) -> Array:
    """The distance from the range."""
    return np.asarray(np.maximum(np.maximum(want.low - y, y - want.high), 0))


def within(error: Array, bound: Array) -> Array:
    """NaN is not within anything."""
    return np.asarray(error <= bound)


# Errors in units of the bound are counted between these; the last is "beyond".
EDGES = (0.0, *(2.0**-k for k in range(10, -1, -1)), 10.0, 1000.0)


def spread(ratio: Array, ok: Array) -> tuple[int, ...]:
    """How many errors are 0, at most each edge, and beyond; NaN is beyond."""
    beyond = np.where(np.isnan(ratio) & ~ok, np.inf, np.nan_to_num(ratio, nan=0.0))
    places = np.searchsorted(EDGES, beyond.reshape(-1))
    return tuple(np.bincount(places, minlength=len(EDGES) + 1).tolist())


def first_failure(ok: Array, y: Array, want: Range) -> Element:
    """The worst failing element, the first of several that are as bad."""
    with np.errstate(invalid="ignore", over="ignore"):
        excess = np.nan_to_num(outside(y, want), nan=np.inf)
        excess = np.where(ok, -1.0, excess)
    at = np.unravel_index(np.argmax(excess), y.shape)
    numbers = (float(a[at]) for a in (y, want.low, want.high, want.bound))
    return Element(tuple(map(int, at)), *numbers)
