"""Which rows (columns) of the image the outputs of each row (column) can read.

Offsets lead every output to every line of a large image. What is lost shows what a
kernel keeps near: a tile of outputs that loads its part of the image, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refdcn.grading.diagnosis.answers import Call
from refdcn.grading.diagnosis.facts import Fact, Rank
from refdcn.grading.diagnosis.probes import image_case
from refdcn.grading.expected.case import Array, Sizes

SIDE = 72  # lines, more than two tiles of 32
LINES = "row", "column"


def slabs(call: Call, dtype: str) -> list[Fact]:
    """Along rows and along columns, with a kernel of 1x1, else of 3x3."""
    for kernel in (1, 3):
        seen = [lines_read(call, dtype, axis, kernel) for axis in (0, 1)]
        facts = [
            fact
            for name, read in zip(LINES, seen, strict=True)
            if read is not None and (fact := of_tiles(name, read)) is not None
        ]
        if facts:
            return facts
    return []


def lines_read(call: Call, dtype: str, axis: int, kernel: int) -> Array | None:
    """[line of the output, line of the image]: whether it is read."""
    half, taps = kernel // 2, kernel * kernel
    z = Sizes(1, 1, 1, 1, 1, kernel, kernel, SIDE, SIDE, padding=(half, half))
    oh, ow = np.indices((SIDE, SIDE))
    own, wanted = (oh, ow) if axis == 0 else (ow, oh)
    offset = np.zeros((taps, 2, SIDE, SIDE))
    offset[:, axis] = wanted - own
    weight = np.zeros((1, 1, kernel, kernel))
    weight[0, 0, half, half] = 1
    x = 1.0 + own[None, None]  # the number of each line
    inputs = {"offset": offset.reshape(1, 2 * taps, SIDE, SIDE), "weight": weight}
    y = call(image_case(z, dtype, x, **inputs))
    if y is None or y.shape != x.shape:
        return None
    found = y[0, 0] if axis == 0 else y[0, 0].T
    return np.asarray(np.abs(found - 1.0 - np.arange(SIDE)) < 0.05)


def of_tiles(name: str, read: Array) -> Fact | None:
    """A fact, if outputs of a tile read the same run of lines, and others another."""
    ends = [*bands(read)]
    if len(ends) < SIDE or len(set(ends)) < 2:
        return None
    turns = [k for k in range(1, SIDE) if ends[k] != ends[k - 1]]
    size = turns[0]
    if size < 2 or any(k % size for k in turns):
        return None
    first, last = size, 2 * size - 1
    measured = {"size": size, "outputs": [first, last], "lines": list(ends[first])}
    return Fact("slab", name, measured, [0, SIDE - 1], Rank.CAUSE)


def bands(read: Array) -> Iterator[tuple[int, int]]:
    """The first and last line that each output reads, where all between are read."""
    for line in read:
        at = np.flatnonzero(line)
        if at.size and at.size == at[-1] - at[0] + 1:
            yield int(at[0]), int(at[-1])
