"""Where the values of one result fail: their counts over each pair of its axes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from refdcn.grading.expected.case import Array, Case
from refdcn.grading.judging.distance import outside
from refdcn.grading.judging.finding import Finding

MOST = 48  # cells along an axis; neighbours are taken together
PLANE, TAPS = ("output row", "output column"), ("kernel row", "kernel column")
# The axes of each result, and the pairs of them that are shown.
AXES: dict[str, tuple[str, ...]] = {
    "y": ("image", "output channel", *PLANE),
    "grad_x": ("image", "channel", "row", "column"),
    "grad_offset": ("image", "offset group", *TAPS, "axis", *PLANE),
    "grad_weight": ("output channel", "channel", *TAPS),
    "grad_mask": ("image", "offset group", *TAPS, *PLANE),
    "grad_bias": ("output channel", "all"),
}
PAIRS: dict[str, tuple[tuple[str, str], ...]] = {
    "y": (PLANE, ("image", "output channel")),
    "grad_x": (("row", "column"), ("image", "channel")),
    "grad_offset": (PLANE, TAPS, ("axis", "offset group")),
    "grad_weight": (TAPS, ("output channel", "channel")),
    "grad_mask": (PLANE, TAPS, ("image", "offset group")),
    "grad_bias": (("all", "output channel"),),
}


@dataclass(frozen=True)
class Field:
    """One pair of axes: how many values lie in each cell, and how many of them fail."""

    target: str
    axes: tuple[str, str]
    sizes: tuple[int, int]  # of the axes; the cells may be fewer
    values: Array
    failing: Array
    ratio: Array  # the largest error in units of the bound


def shape_of(case: Case, target: str) -> tuple[int, ...]:
    """The result's shape with groups, taps and axes apart."""
    s = case.sizes
    split = s.N, s.offset_groups, s.K_h, s.K_w
    return {
        "y": case.y_shape,
        "grad_x": case.x.shape,
        "grad_offset": (*split, 2, *s.out),
        "grad_weight": case.weight.shape,
        "grad_mask": (*split, *s.out),
        "grad_bias": (s.C_out, 1),
    }[target]


def fields_of(f: Finding) -> Iterator[Field]:
    """Those of a finding that has numbers."""
    if f.got is None or f.failing is None or f.expected is None or f.case.part:
        return
    want, shape = f.expected.range(f.target), shape_of(f.case, f.target)
    with np.errstate(all="ignore"):
        ratio = outside(f.got, want) / want.bound
    ratio = np.nan_to_num(ratio, nan=np.inf, posinf=np.inf)
    ratio = np.where(want.bound > 0, ratio, np.where(f.failing, np.inf, 0))
    failing, ratio = f.failing.reshape(shape), ratio.reshape(shape)
    names = AXES[f.target]
    for pair in PAIRS[f.target]:
        keep = names.index(pair[0]), names.index(pair[1])
        rest = tuple(k for k in range(len(names)) if k not in keep)
        bad = failing.sum(rest, dtype=int)
        most = ratio.max(rest, initial=0.0)
        if keep[0] > keep[1]:
            bad, most = bad.T, most.T
        each = np.full(bad.shape, failing.size // max(1, bad.size))
        yield Field(
            f.target,
            pair,
            (int(bad.shape[0]), int(bad.shape[1])),
            coarser(each, np.add),
            coarser(bad, np.add),
            coarser(most, np.maximum),
        )


def coarser(a: Array, joined: np.ufunc) -> Array:
    """At most MOST cells along each axis."""
    for axis, n in enumerate(a.shape):
        if n > MOST:
            starts = np.linspace(0, n, MOST + 1).astype(int)[:-1]
            a = joined.reduceat(a, starts, axis)
    return a
