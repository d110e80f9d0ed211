"""Mistakes in what a pixel's address is computed in: a float of too few bits.

From 2^11 on float16 knows even numbers alone, from 2^8 on bfloat16; both round large
addresses to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.steps import State
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []
FORMATS = {"float16": 11, "bfloat16": 8}  # bits of a significand


LARGEST = {11: 65504.0}  # by bits, of a format whose range an address can leave
NOWHERE = 2.0**40  # an address that is not finite


def rounded(a: Array, bits: int) -> Array:
    """The nearest numbers of so many bits."""
    part, power = np.frexp(a)
    found = np.ldexp(np.round(np.ldexp(part, bits)), power - bits)
    return np.where(found > LARGEST.get(bits, NOWHERE), NOWHERE, found)


class Corner(NamedTuple):
    """Addresses in a plane, and the weights and slopes along both axes."""

    at: Array
    y: tuple[Array, Array]
    x: tuple[Array, Array]


def ends(q: Array, n: int, framed: bool) -> Iterator[tuple[Array, Array, Array]]:
    """The line, weight and slope of both neighbours; in a frame of one pixel or not."""
    inside = (q > -1) & (q < n)
    if framed:
        q = np.clip(q, -1, n) + 1
        low = np.minimum(np.floor(q), n)
    else:
        low = np.floor(q)
    part = q - low
    for line, weight, slope in ((low, 1 - part, -1.0), (low + 1, part, 1.0)):
        ok = True if framed else inside & (line >= 0) & (line < n)
        yield np.where(ok, line, 0), weight * ok, slope * inside * ok


def corners(s: State, bits: int, once: bool, framed: bool) -> Iterator[Corner]:
    """The four of each sample; `once`: the sum alone is rounded."""
    wide = np.asarray(s.z.W + 2.0 * framed)
    for r, *y in ends(s.qy, s.z.H, framed):
        for q, *x in ends(s.qx, s.z.W, framed):
            if once:
                at = rounded(r * wide + q, bits)
            else:
                row, column, width = (rounded(a, bits) for a in (r, q, wide))
                at = rounded(rounded(row * width, bits) + column, bits)
            yield Corner(at.astype(int), (y[0], y[1]), (x[0], x[1]))


def framed_planes(s: State, framed: bool) -> Array:
    """[image, offset group, channel, pixel]."""
    edge = (int(framed),) * 2
    planes = np.pad(s.x, ((0, 0), (0, 0), (0, 0), edge, edge))
    return planes.reshape(*planes.shape[:3], -1)


def fetch(planes: Array, at: Array) -> Array:
    """What lies at addresses of each plane; past its end anything: NaN."""
    size, like = planes.shape[-1], (*planes.shape[:3], *at.shape[2:])
    flat = at.reshape(*at.shape[:2], 1, -1)
    found = np.take_along_axis(planes, np.minimum(flat, size - 1), 3)
    return np.where(flat < size, found, np.nan).reshape(like)


def addressed(bits: int, once: bool, framed: bool) -> Callable[[State], None]:
    """Samples whose pixels are read at rounded addresses."""

    def edit(s: State) -> None:
        planes, z = framed_planes(s, framed), s.z
        value: Array | float = 0.0
        for c in corners(s, bits, once, framed):
            weight = (c.y[0] * c.x[0])[:, :, None]
            value = value + np.where(weight == 0, 0, weight * fetch(planes, c.at))
        s.S = np.asarray(value)
        shape = z.N, z.groups, z.C_in // z.groups, s.K, *s.out
        s.col = (s.S * s.m[:, :, None]).reshape(shape)

    return edit


def gradients(bits: int, once: bool, framed: bool) -> Callable[[State], None]:
    """The gradients of offset and x by way of the same addresses."""

    def edit(s: State) -> None:
        planes, gm = framed_planes(s, framed), s.g * s.m[:, :, None]
        dy: Array | float = 0.0
        dx: Array | float = 0.0
        into, edge = np.zeros_like(planes), int(framed)
        lead = [*np.indices(planes.shape[:3])]
        for c in corners(s, bits, once, framed):
            value = fetch(planes, c.at)
            dy = dy + (gm * value * (c.y[1] * c.x[0])[:, :, None]).sum(2)
            dx = dx + (gm * value * (c.y[0] * c.x[1])[:, :, None]).sum(2)
            added = gm * (c.y[0] * c.x[0])[:, :, None]
            at = np.minimum(c.at, planes.shape[-1] - 1)[:, :, None]
            where = tuple(np.asarray(i)[..., None, None, None] for i in lead)
            np.add.at(into, (*where, np.broadcast_to(at, added.shape)), added)
        s.grads["offset"] = np.stack([dy, dx], 3)
        H, W = s.z.H + 2 * edge, s.z.W + 2 * edge
        found = into.reshape(*into.shape[:3], H, W)
        s.grads["x"] = found[..., edge : H - edge, edge : W - edge]

    return edit


def addresses() -> None:
    """Each format, with a frame of zeros and without, rounded once and twice."""
    for kind, bits in FORMATS.items():
        for framed in (False, True):
            for once in (False, True):
                what = ", in a frame of zeros," if framed else ""
                text = f"a pixel's address in its plane{what} is computed in {kind}: "
                text += f"from {2**bits} on odd addresses are rounded to others"
                how = (" framed" * framed) + (" once" * once)
                how_made = bits, once, framed
                edits = (
                    ("columns", addressed(*how_made)),
                    ("backward", gradients(*how_made)),
                )
                name = f"pixel address in {kind}{how}"
                MISTAKES.append(Mistake("layout", name, text, edits, True))


addresses()
