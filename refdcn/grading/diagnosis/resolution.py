"""How finely positions and values are resolved: the steps in which y moves.

A ramp image returns the position itself. Swept in steps finer than the dtype's
own, it shows whether positions are rounded, to what, and whether the step is
the same everywhere (a fixed point) or grows with the position (a float).
"""

from __future__ import annotations

from itertools import permutations
from math import log2
from typing import NamedTuple

import numpy as np

from refdcn.grading.diagnosis.answers import Call
from refdcn.grading.diagnosis.facts import Fact, found_right
from refdcn.grading.diagnosis.probes import image_case
from refdcn.grading.expected.case import Array, Sizes

STEP_ROWS = (1, 3, 7, 15, 31)  # where the step is told
FINEST = {"float32": 2.0**-14, "float64": 2.0**-30}


class Steps(NamedTuple):
    """The step of positions at each of ROWS, 0 where none is seen."""

    axis: str
    at: tuple[float, ...]
    error: float  # largest |position - sent|

    @property
    def fixed(self) -> bool:
        """The same step everywhere: a fixed point."""
        return min(self.at) > 0 and max(self.at) < 1.5 * min(self.at)

    @property
    def fact(self) -> Fact:
        """Its record: the step by row, where one is seen."""
        steps = {r: s for r, s in zip(STEP_ROWS, self.at, strict=True) if s}
        return Fact("step", self.axis, {"fixed": self.fixed, "at": steps})


def sweep(call: Call, dtype: str, axis: int, step: float) -> Array | None:
    """[len(ROWS), 512] positions, as found, less those at fraction 0."""
    n = 34
    z = Sizes(16, 1, 1, 1, 1, 1, 1, n, n)
    ramp = np.indices((n, n))[axis].astype(float)
    x = np.broadcast_to(ramp, (16, 1, n, n))
    offset = np.zeros((16, 2, n, n))
    part = step * np.arange(512).reshape(16, 32)
    across = part[:, :, None] if axis == 1 else part[:, None, :]
    where = offset[:, axis]
    if axis == 0:
        where[:, :, :32] = across
    else:
        where[:, :32, :] = across
    y = call(image_case(z, dtype, x, offset=offset))
    if y is None:
        return None
    y = y[:, 0].astype(float)
    lines = [
        (y[:, r, :32] if axis == 0 else y[:, :32, r]).reshape(512) - r
        for r in STEP_ROWS
    ]
    return np.stack(lines)


def steps_of(call: Call, dtype: str, axis: int) -> Steps | None:
    """The coarsest steps that show, if positions follow offsets at all."""
    name = ("row", "column")[axis]
    for step in (2.0**-9, FINEST[dtype]):
        got = sweep(call, dtype, axis, step)
        if got is None:
            return None
        sent = step * np.arange(512)
        error = np.abs(got - sent).max(1)
        own = 4 * np.finfo(dtype).eps * (1 + np.array(STEP_ROWS))
        if not (error <= 0.51).all():
            return None  # another fault: the position itself is elsewhere
        if (error <= own).all():
            continue
        three = zip(got, error, own, strict=True)
        found = tuple(one_step(g, e > o) for g, e, o in three)
        rounded = all(e <= 1.01 * s for e, s in zip(error, found, strict=True) if s)
        if max(found) > 0 and rounded:
            return Steps(name, found, float(error.max()))
    return None


def one_step(got: Array, off: bool) -> float:
    """The distance between neighbouring values, if there are fewer than sent."""
    values = np.unique(got)
    if not off or len(values) < 2 or len(values) > 300:
        return 0.0
    return float(np.median(np.diff(values)))


def position_steps(call: Call, dtype: str) -> list[Steps]:
    """The steps of rows and of columns, where they show."""
    if dtype not in FINEST:
        return []
    found = [steps_of(call, dtype, axis) for axis in (0, 1)]
    return [s for s in found if s is not None]


def resolution_facts(call: Call, dtype: str) -> list[Fact]:
    """Positions first, then how many bits of each input survive."""
    found = [s.fact for s in position_steps(call, dtype)]
    return (found or [found_right("step", "positions")]) + bits(call, dtype)


def bits(call: Call, dtype: str) -> list[Fact]:
    """Values with all their bits pass through one tap of weight 1."""
    n, p = 33, np.finfo(dtype).nmant + 1
    z = Sizes(1, 1, 1, 1, 1, 1, 1, n, n)
    rng = np.random.default_rng(2)
    whole = 2 ** min(p - 1, 40)
    value = 1 + rng.integers(0, whole, (1, 1, n, n)) / whole
    one = np.ones((1, 1, n, n))
    found: list[Fact] = []
    for name in ("x", "mask"):
        given = {"x": one, "mask": one} | {name: value}
        y = call(image_case(z, dtype, given["x"], mask=given["mask"]))
        if y is None:
            return found
        error = float(np.abs(y - value.astype(dtype).astype(float)).max())
        found.append(bits_kept(name, error, p))
    w = value.reshape(-1)[:64].reshape(64, 1, 1, 1)
    case = image_case(z._replace(C_out=64), dtype, one, weight=w)
    y = call(case)
    if y is not None:
        error = float(np.abs(y[0, :, 3, 3] - w[:, 0, 0, 0].astype(dtype)).max())
        found.append(bits_kept("weight", error, p))
    return found


LOST = 2048.0, 2.0**24  # whose neighbour float16, and float32, do not hold


def sums_lose(call: Call, dtype: str) -> bool:
    """Whether a sum over channels, or over taps, is kept in fewer bits.

    Its terms and itself are small whole numbers; what it comes to on the way is not.
    """
    for large in LOST[: 1 + (dtype == "float64")]:
        for terms in permutations((large, 1.0, -large)):
            for z in (
                Sizes(1, 3, 1, 1, 1, 1, 1, 5, 5),
                Sizes(1, 1, 1, 1, 1, 1, 3, 5, 7),
            ):
                x = np.abs(np.array(terms)).reshape(1, 3, 1, 1)
                x = np.broadcast_to(x, (1, 3, 5, 5))
                if z.C_in == 1:  # each tap of output column 0 has its own pixel
                    x = np.tile(np.abs(terms), 3)[None, None, None, :7]
                    x = np.broadcast_to(x, (1, 1, 5, 7))
                w = np.sign(terms).reshape(1, z.C_in, 1, z.K_w)
                y = call(image_case(z, dtype, x, weight=w))
                if y is not None and y[0, 0, 2, 0] == 0:
                    return True
    return False


def positions_lose(call: Call, dtype: str) -> bool:
    """Whether positions beside row 31 are rounded, as fractions show that are small.

    A ramp shows them too, but not where what it comes to is rounded itself.
    """
    n = 34
    z = Sizes(1, 1, 1, 1, 1, 1, 1, n, n)
    x = np.broadcast_to((np.indices((n, n))[0] % 2)[None, None], (1, 1, n, n))
    offset = np.zeros((1, 2, n, n))
    sent = FINE[dtype] * (1 + 2 * np.arange(n))
    offset[:, 0, 30] = sent
    y = call(image_case(z, dtype, x, offset=offset))
    if y is None:
        return False
    error = np.abs(y[0, 0, 30].astype(float) - sent)
    return bool(error.max() > 0.5 * FINE[dtype])


FINE = {
    "float32": 2.0**-9,
    "float64": 2.0**-21,
}  # less than float16, float32 keep there


def bits_kept(name: str, error: float, p: int) -> Fact:
    """Values in [1, 2) rounded to b bits are off by up to 2^-b."""
    if error <= 2.0**-p * 1.01 or not error < 0.1:  # or another fault
        return found_right("bits", name)
    return Fact("bits", name, {"bits": round(-log2(error))}, p)
