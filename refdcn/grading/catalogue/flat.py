"""Mistakes in which a neighbour's flat address is tested, or only its row or column.

A neighbour left of a row is then the last pixel of the row before, one above a plane
lies in the plane before: it is read, and given a gradient, where the definition has 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.steps import State
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []


class Corner(NamedTuple):
    """Addresses in the memory of x, and the weights and slopes along both axes."""

    at: Array
    y: tuple[Array, Array]
    x: tuple[Array, Array]


Test = Callable[[State, Array, Array], Array]  # whether row r, column q is read
TESTS: dict[str, tuple[str, Test]] = {
    "plane": (
        "a neighbour is read if its flat address r * W + c lies in the plane: one left "
        "or right of a row is a pixel of the next row",
        lambda s, r, q: (r * s.z.W + q >= 0) & (r * s.z.W + q < s.z.H * s.z.W),
    ),
    "rows alone": (
        "a neighbour's column is not tested: one left or right of a row is a pixel of "
        "the row beside it",
        lambda s, r, q: (r >= 0) & (r < s.z.H),
    ),
    "columns alone": (
        "a neighbour's row is not tested: one above or below a plane is a pixel of the "
        "plane beside it",
        lambda s, r, q: (q >= 0) & (q < s.z.W),
    ),
    "nothing": (
        "neighbours are not tested: one outside the image is what lies there in memory",
        lambda s, r, q: np.ones(np.broadcast_shapes(r.shape, q.shape), bool),
    ),
}


def corners(s: State, test: Test, guard: bool) -> Iterator[Corner]:
    """The four of each sample by channel; `guard`: of those that touch the image."""
    z, planes = s.z, np.arange(s.image[..., 0, 0].size)
    first = planes.reshape(*s.x.shape[:3], 1, 1, 1) * z.H * z.W
    near = (s.qy > -1) & (s.qy < z.H) & (s.qx > -1) & (s.qx < z.W)
    top, left = (np.clip(np.floor(q), -1e6, 1e6) for q in (s.qy, s.qx))
    for i in (0, 1):
        for j in (0, 1):
            r, q = top + i, left + j
            ok = test(s, r, q) & (near | (not guard))
            at = np.where(ok, r * z.W + q, 0).astype(int)[:, :, None] + first
            y, x = (
                (
                    np.where(k, p - np.floor(p), 1 - p + np.floor(p)) * ok,
                    (2 * k - 1) * ok,
                )
                for k, p in ((i, s.qy), (j, s.qx))
            )
            yield Corner(at, y, x)


def fetch(s: State, at: Array, past: float) -> Array:
    """What lies at addresses of x; past its ends 0, or NaN for anything."""
    there = (at >= 0) & (at < s.image.size)
    found = s.image.reshape(-1)[np.where(there, at, 0)]
    return np.where(there, found, past)


def weighed(weight: Array, value: Array) -> Array:
    """A share; what has no weight is not read."""
    w = weight[:, :, None]
    return np.where(w == 0, 0, w * value)


def sampled(test: Test, guard: bool, past: float) -> Callable[[State], None]:
    """Samples of what is read so."""

    def edit(s: State) -> None:
        value: Array | float = 0.0
        for c in corners(s, test, guard):
            value = value + weighed(c.y[0] * c.x[0], fetch(s, c.at, past))
        s.S = np.asarray(value)
        shape = s.z.N, s.z.groups, s.z.C_in // s.z.groups, s.K, *s.out
        s.col = (s.S * s.m[:, :, None]).reshape(shape)

    return edit


def gradients(test: Test, guard: bool, past: float) -> Callable[[State], None]:
    """The gradients of offset and x by way of the same addresses."""

    def edit(s: State) -> None:
        g = s.g * s.m[:, :, None]
        slopes: list[Array | float] = [0.0, 0.0]
        into = np.zeros(s.image.size)
        for c in corners(s, test, guard):
            value = fetch(s, c.at, past)
            for axis, w in enumerate((c.y[1] * c.x[0], c.y[0] * c.x[1])):
                slopes[axis] = slopes[axis] + (g * weighed(w, value)).sum(2)
            added = g * (c.y[0] * c.x[0])[:, :, None]
            there = (c.at >= 0) & (c.at < into.size)
            np.add.at(into, c.at[there], added[there])
        s.grads["offset"] = np.stack([np.asarray(d) for d in slopes], 3)
        s.grads["x"] = into

    return edit


def flat() -> None:
    """Each test, of all samples and of those that touch the image."""
    for name, (text, test) in TESTS.items():
        for guard in (True, False):
            for past in ("nothing", "anything") if name != "plane" else ("nothing",):
                if not guard and name != "plane":
                    continue  # what is far outside would be read at once
                beyond = past == "anything"
                made = test, guard, np.nan if beyond else 0.0
                full = f"neighbours tested by {name}{', guarded' * guard}"
                full += f", {past} past it"
                edits = ("columns", sampled(*made)), ("backward", gradients(*made))
                MISTAKES.append(Mistake("sampling", full, text, edits, beyond))


flat()
