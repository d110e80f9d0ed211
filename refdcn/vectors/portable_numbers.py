"""Inputs of few bits, the same on every machine.

Numbers come from the raw stream of PCG64, which NumPy keeps as it is, and are whole
numbers over a power of two. So few bits are in them that float64 holds every product
and every sum of the definition exactly, in whatever order a library adds: the answers
depend on no BLAS, no compiler and no libm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np

from refdcn.grading.expected.case import Array, Sizes, base, offset_shape


class Grid(NamedTuple):
    """The numbers from -most / step to most / step."""

    most: int
    step: int


X, WEIGHT, MASK, GRAD_Y = Grid(127, 32), Grid(63, 32), Grid(63, 32), Grid(31, 16)
FRACTION = 128  # of a pixel: two of them, for rows and columns, are 14 bits
FAR = 40  # pixels beyond the border


class Stream:
    """Whole numbers for one case."""

    def __init__(self, seed: int, name: str) -> None:
        self.source = np.random.PCG64([seed, crc32(name.encode())])

    def whole(self, shape: Sequence[int], low: int, high: int) -> Array:
        """From `low` to `high`, both included."""
        raw = self.source.random_raw(math.prod(shape))
        rest = raw % np.uint64(high - low + 1)
        return low + rest.astype(np.int64).reshape(tuple(shape))

    def numbers(self, shape: Sequence[int], grid: Grid) -> Array:
        """Multiples of 1 / step in float64."""
        return self.whole(shape, -grid.most, grid.most) / grid.step

    def offset(self, sizes: Sizes, kind: str) -> Array:
        """Offsets [N, offset_groups * K * 2, H_out, W_out] of one kind."""
        N, og, K, _, *out = offset_shape(sizes)
        shape = N, og, K, *out
        starts = zip(base(sizes), (sizes.H, sizes.W), strict=True)
        axes = [self.axis(kind, shape, start, n) for start, n in starts]
        return np.stack(axes, 3).reshape(N, og * K * 2, *out)

    def axis(self, kind: str, shape: Sequence[int], start: Array, n: int) -> Array:
        """Offsets along one axis of n pixels, whose taps lie at `start` without."""
        if kind == "zero":
            return np.zeros(shape)
        if kind == "whole":
            return self.whole(shape, -3, 3) * 1.0
        if kind == "near":
            return self.whole(shape, -2 * FRACTION, 2 * FRACTION) / FRACTION
        if kind == "far":
            place = np.array([-FAR, -1, n, n + FAR])[self.whole(shape, 0, 3)]
            return place - start + 0.0
        edges = np.array([-1, 0, n - 1, n])[self.whole(shape, 0, 3)]
        around = self.whole(shape, -FRACTION, FRACTION) / FRACTION
        inside = self.whole(shape, -FRACTION, n * FRACTION) / FRACTION
        choice = self.whole(shape, 0, 3)
        return np.choose(choice, [edges, edges + around, inside, inside]) - start
