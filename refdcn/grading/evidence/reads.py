"""What one output reads, tap by tap: the definition's pixels, and the candidate's.

The operator is linear in x. With one weight left, an output is the sum of the pixels
that its tap reads, each times its share; an image of which only a part is not black
tells whether they lie in that part, so halving finds them wherever they are: in another
channel or image too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading.diagnosis.answers import Call
from refdcn.grading.expected import oracle
from refdcn.grading.expected.case import Array, Case, offset_shape

PIXELS = 16  # that one sample may read; of more it is said that there are more
# Of a share: below it nothing is read, and to within it two are the same.
NOTHING = {"float64": 1e-6, "float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}
SAME = {"float64": 1e-6, "float32": 1e-4, "float16": 0.06, "bfloat16": 0.3}
ALIKE = 0.02  # of all shares: two that mean the same position
TRIED = 256  # pairs of a channel and a tap that are asked one by one


class Pixel(NamedTuple):
    """One element of x and its share of a sample, modulated."""

    image: int
    channel: int
    row: int
    column: int
    share: float


@dataclass(frozen=True)
class Sample:
    """One tap of one output: where it must read, and what is read."""

    tap: tuple[int, int]
    offset: tuple[float, float]  # dy, dx
    mask: float
    position: tuple[float, float]  # row, column
    corners: tuple[Pixel, ...]  # of the definition, those outside too
    due: tuple[Pixel, ...]  # of these the ones inside
    reads: tuple[Pixel, ...] | None  # the candidate's; None: it cannot be told
    right: bool
    image: tuple[int, int]  # H, W

    @property
    def found(self) -> tuple[float, float] | None:
        """The sampling position, where what is read is the bilinear sample of one.

        Of fewer than four pixels it is one if they have all of the mask, or if what
        they lack lies outside of the image, along one axis: what is cut off there
        tells how far outside. Else some of the sample may be lost.
        """
        shares = self.read
        total = sum(shares.values())
        if abs(total) < 1e-9:
            return None
        lines = [sorted({at[k] for at in shares}) for k in (0, 1)]
        square = len(shares) == len(lines[0]) * len(lines[1])
        if not square or any(line[-1] - line[0] > 1 for line in lines):
            return None
        at = [sum(s * p[k] for p, s in shares.items()) / total for k in (0, 1)]
        scale = total if len(shares) == 4 or not self.mask else self.mask
        kept = total / scale
        if abs(kept - 1) > ALIKE:
            ends = [k for k in (0, 1) if self.ends(lines[k], self.image[k])]
            if len(ends) != 1 or not 0 < kept < 1 or self.dimmer:
                return None
            (k,) = ends
            at[k] += kept - 1 if lines[k][0] == 0 else 1 - kept
        weights = (
            scale * (1 - abs(at[0] - r)) * (1 - abs(at[1] - c)) for r, c in shares
        )
        pairs = zip(weights, shares.values(), strict=True)
        bilinear = all(abs(a - b) <= ALIKE * abs(scale) for a, b in pairs)
        return (at[0], at[1]) if bilinear else None

    @staticmethod
    def ends(line: list[int], n: int) -> bool:
        """Whether the pixel beyond is outside, at one side of the image alone."""
        return len(line) == 1 and (line[0] == 0) != (line[0] == n - 1)

    @property
    def dimmer(self) -> bool:
        """Whether it reads the definition's pixels, all in one ratio to what is due."""
        got, must = self.read, {p[2:4]: p.share for p in self.due}
        of, total = sum(must.values()), sum(got.values())
        return got.keys() == must.keys() and all(
            abs(got[at] * of - must[at] * total) <= ALIKE * abs(of * total)
            for at in got
        )

    @property
    def corner(self) -> tuple[int, int] | None:
        """The image's corner, if it alone is read and in part: from where is open."""
        if len(self.read) != 1:
            return None
        [((row, column), share)] = self.read.items()
        H, W = self.image
        part = self.mask and 0 < share / self.mask < 1 - ALIKE
        return (
            (row, column)
            if part and row in (0, H - 1) and column in (0, W - 1)
            else None
        )

    @property
    def read(self) -> dict[tuple[int, int], float]:
        """What each place has, over all channels and images."""
        found: dict[tuple[int, int], float] = {}
        for p in self.reads or ():
            found[p.row, p.column] = found.get((p.row, p.column), 0.0) + p.share
        return found


@dataclass(frozen=True)
class Parts:
    """By linearity in w: in how many outputs each channel and tap alone fails."""

    failing: Array  # [C_in / groups or 1, K_h, K_w]
    outputs: int  # of how many


def single(case: Case, channel: int | None, i: int, j: int) -> Case:
    """The case with the weights of one tap alone, of one channel or of all."""
    weight = np.zeros_like(case.weight)
    at = slice(None) if channel is None else channel
    weight[:, at, i, j] = case.weight[:, at, i, j]
    bias = None if case.bias is None else np.zeros_like(case.bias)
    return replace(case, weight=weight, bias=bias)


def parts_of(call: Call, case: Case, expected: Any) -> tuple[Parts | None, Array]:
    """Where the errors come from, and the errors of each part: [c, K_h, K_w, *y]."""
    C, K_h, K_w = case.weight.shape[1:]
    channels: list[int | None] = [*range(C)] if C * K_h * K_w <= TRIED else [None]
    failing = np.zeros((len(channels), K_h, K_w), int)
    errors = np.zeros((*failing.shape, *case.y_shape))
    for at in np.ndindex(failing.shape):
        one = single(case, channels[at[0]], *at[1:])
        y, want = call(one), expected(one).range("y")
        if y is None:
            return None, errors
        with np.errstate(all="ignore"):
            error = np.abs(y - want.low)
            errors[at] = np.nan_to_num(error, nan=np.inf, posinf=np.inf)
            failing[at] = int((~(error <= want.bound)).sum())
    return Parts(failing, errors[0, 0, 0].size), errors


class Tap(NamedTuple):
    """What the definition does with one tap of one output and input channel."""

    at: tuple[int, int]
    offset: tuple[float, float]
    mask: float
    position: tuple[float, float]
    corners: tuple[Pixel, ...]


def taps_of(case: Case, element: tuple[int, ...], channel: int) -> Iterator[Tap]:
    """All taps of one output, for an input channel of any group."""
    n, _, h, w = element
    s = case.sizes
    group = channel // (s.C_in // s.offset_groups)
    rows, columns = oracle.positions(case)
    dp, mask = case.offset.reshape(offset_shape(s)), oracle.modulation(case)
    for k in range(s.K_h * s.K_w):
        at = n, group, k, h, w
        m, q = float(mask[at]), (float(rows[at]), float(columns[at]))
        moved = dp[n, group, k, :, h, w].astype(float)
        corners = tuple(corners_of(n, channel, q, m))
        offset = float(moved[0]), float(moved[1])
        yield Tap(divmod(k, s.K_w), offset, m, q, corners)


def samples_of(
    call: Call, case: Case, element: tuple[int, ...], channel: int
) -> Iterator[Sample]:
    """Every tap of one output, with the weight of one input channel, of any group."""
    s = case.sizes
    own = channel % (s.C_in // s.groups)
    for tap in taps_of(case, element, channel):
        reads = searched(call, asked(case, element[1], own, *tap.at), element)
        due = tuple(p for p in tap.corners if inside(p, case))
        right = reads is not None and same(due, reads, SAME[case.dtype])
        yield Sample(*tap, due, reads, right, (s.H, s.W))


def most_inside(case: Case, failing: Array, error: Array) -> tuple[int, ...]:
    """The failing output most of whose taps lie inside; of several the worst."""
    H, W = case.x.shape[2:]
    row, column = oracle.positions(case)
    reached = (row > -1) & (row < H) & (column > -1) & (column < W)
    many = np.where(failing, reached.sum((1, 2))[:, None], -1)
    worst = np.where(many == many.max(), np.nan_to_num(error, nan=np.inf), -1)
    return tuple(map(int, np.unravel_index(worst.argmax(), worst.shape)))


def corners_of(
    n: int, channel: int, q: tuple[float, float], mask: float
) -> Iterator[Pixel]:
    """The pixels around a position with their modulated shares: four at most."""
    if not np.isfinite(q).all():
        return
    top, left = int(np.floor(q[0])), int(np.floor(q[1]))
    for r in (top, top + 1):
        for c in (left, left + 1):
            share = (1 - abs(q[0] - r)) * (1 - abs(q[1] - c))
            if share > 0:
                yield Pixel(n, channel, r, c, mask * share)


def inside(p: Pixel, case: Case) -> bool:
    """Whether the image has that pixel."""
    H, W = case.x.shape[2:]
    return bool(0 <= p.row < H and 0 <= p.column < W)


def same(due: tuple[Pixel, ...], reads: tuple[Pixel, ...], most: float) -> bool:
    """Whether both read the same pixels with shares that differ in rounding alone."""
    shares = {p[:4]: p.share for p in due}
    for p in reads:
        shares[p[:4]] = shares.get(p[:4], 0.0) - p.share
    size = max((abs(p.share) for p in (*due, *reads)), default=0.0)
    return all(abs(left) <= most * max(1.0, size) for left in shares.values())


def asked(case: Case, o: int, channel: int, i: int, j: int) -> Case:
    """The case with one weight of 1, all others 0, and no bias."""
    weight = np.zeros_like(case.weight)
    weight[o, channel, i, j] = 1
    bias = None if case.bias is None else np.zeros_like(case.bias)
    return replace(case, weight=weight, bias=bias)


def searched(
    call: Call, case: Case, element: tuple[int, ...]
) -> tuple[Pixel, ...] | None:
    """The pixels that one output reads, by halving; None where that ends in nothing."""
    # Several values, all exact: shares of either sign do not add up to 0.
    code = np.random.default_rng(5).choice([1, 1.25, 1.5, 1.75], case.x.size)
    least = NOTHING[case.dtype]

    def answer(part: slice) -> float:
        x = np.zeros(case.x.size)
        x[part] = code[part]
        y = call(replace(case, x=x.reshape(case.x.shape).astype(case.x.dtype)))
        return np.nan if y is None else float(y[element])

    base = answer(slice(0, 0))
    todo = [(0, case.x.size)]
    found: list[Pixel] = []
    while todo:
        a, z = todo.pop()
        value = answer(slice(a, z)) - base
        if not np.isfinite(value) or len(todo) > 2 * PIXELS or len(found) > PIXELS:
            return None
        if abs(value) <= least:
            continue
        if z - a == 1:
            n, c, h, w = map(int, np.unravel_index(a, case.x.shape))
            found.append(Pixel(n, c, h, w, float(value / code[a])))
        else:
            todo += [((a + z) // 2, z), (a, (a + z) // 2)]
    return tuple(found)
