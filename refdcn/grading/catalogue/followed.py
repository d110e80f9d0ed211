"""A mistaken forward, and the gradients that follow from it.

The gradients of a catalogue's mistake are those of a backward that makes it as well:
it reads the wrong element and writes its gradient where the right one belongs. One
that is derived from the forward writes it where it was read. Which element that is
is found by reading numbered ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np

from refdcn.grading.catalogue.steps import Edit, State, grid, position, read
from refdcn.grading.expected.case import Array

FIELDS = {"image": "x", "offset": "dp", "weight": "w", "mask": "m", "bias": "b"}
NAMES = {"image": "x"}  # of a gradient, where it is not the input's
NOWHERE = -1


def followed(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """The same mistakes with gradients derived from the forward."""
    if any(step in ("upstream", "backward") for step, _ in edits):
        return tuple(edits)
    reads, columns = (
        [e for step, e in edits if step == name] for name in ("read", "columns")
    )
    return (
        *edits,
        ("read", trace_inputs(reads)),
        ("columns", trace_columns(columns)),
        ("upstream", to_samples),
        ("backward", through_positions(edits)),
        ("backward", to_inputs),
    )


def numbered(a: Array) -> Array:
    """The number of each element, from 1 on: 0 is none."""
    return 1.0 + np.arange(a.size).reshape(a.shape)


def sources(numbers: Array, value: Array, raw: Array) -> Array | None:
    """The flat index into `raw` of each element; None if they are no elements of it."""
    known = np.where(np.isfinite(numbers), numbers, 0)
    at = known.astype(int) - 1
    if at.shape != value.shape or (at + 1 != known).any() or not raw.size:
        return None
    if ((at < NOWHERE) | (at >= raw.size)).any():
        return None
    lost = np.where(np.isnan(value), value, 0)
    due = np.where(at == NOWHERE, lost, raw.reshape(-1)[at])
    return at if np.array_equal(due, value, equal_nan=True) else None


def trace_inputs(edits: Sequence[Callable[[State], None]]) -> Callable[[State], None]:
    """Which element of each input is read."""

    def trace(s: State) -> None:
        given = {name: getattr(s, name) for name in FIELDS}
        some = {k: None if a is None else numbered(a) for k, a in given.items()}
        coded = SimpleNamespace(**vars(s) | some)
        read(coded)
        for edit in edits:
            edit(coded)
        s.read_at = {
            name: sources(getattr(coded, field), getattr(s, field), given[name])
            for name, field in FIELDS.items()
            if given[name] is not None
        }

    return trace


def trace_columns(edits: Sequence[Callable[[State], None]]) -> Callable[[State], None]:
    """Which modulated sample each column is."""

    def trace(s: State) -> None:
        coded = SimpleNamespace(**vars(s))
        coded.S, coded.m = numbered(s.S), np.ones_like(s.m)
        coded.col = coded.S.reshape(s.col.shape)
        for edit in edits:
            edit(coded)
        s.taken = sources(coded.col, s.col, s.S * s.m[:, :, None])

    return trace


def put_back(gradient: Array, at: Array, size: int) -> Array:
    """What reached each element of `size`."""
    into, there = np.zeros(size), at != NOWHERE
    np.add.at(into, at[there], gradient.reshape(at.shape)[there])
    return into


NEAR, FAR = 2.0**-20, 1.0  # steps: a slope there is, and one that is exact
PLACING = {"read": read, "grid": grid, "position": position}


def through_positions(edits: Sequence[Edit]) -> Callable[[State], None]:
    """The gradient of the offset by the slopes of the positions that are made of it."""

    def edit(s: State) -> None:
        if not any(name in PLACING for name, _ in edits):
            return
        far, near = (slopes(s, edits, step) for step in (FAR, NEAR))
        slope = np.where(np.abs(far - near) < 1e-6, far, near)
        whole = np.round(slope)
        slope = np.where(np.abs(slope - whole) < 1e-6, whole, slope)
        if slope.shape[2:] == s.grads["offset"].shape and np.isfinite(slope).all():
            # [of dy or dx, row or column, n, g, k, dy or dx, u, v]
            g = np.stack([s.grads["offset"][:, :, :, d] for d in (0, 1)])
            both = [(g * slope[d, :, :, :, :, d]).sum(0) for d in (0, 1)]
            s.grads["offset"] = np.stack(both, 3)

    return edit


def slopes(s: State, edits: Sequence[Edit], step: float) -> Array:
    """How row and column follow dy, and dx: [dy or dx, row or column, like dp]."""
    kept = s.read_at.get("offset") is not None  # elements that are read as they are
    found = []
    for axis in (0, 1):
        low, at, high = (placed(s, edits, axis, k * step, kept) for k in (-1, 0, 1))
        moved = []
        for a, b, c in zip(low, at, high, strict=True):
            before, after = (b - a) / step, (c - b) / step
            # A clip passes the gradient on at its own limits.
            moved.append(np.where(np.abs(before) > np.abs(after), before, after))
        found.append(np.stack([np.stack([m, m], 3) for m in moved]))
    return np.stack(found)


def placed(
    s: State, edits: Sequence[Edit], axis: int, by: float, kept: bool
) -> tuple[Array, Array]:
    """The rows and columns of samples whose dy, or dx, is another by so much."""
    other = SimpleNamespace(**vars(s))
    if not kept:
        other.offset = s.offset.copy()
        other.offset[:, axis::2] += by
    for name, step in PLACING.items():
        step(other)
        for at, edit in edits:
            if at == name:
                edit(other)
        if name == "read" and kept:
            other.dp = other.dp.copy()
            other.dp[:, :, :, axis] += by
    return other.qy, other.qx


def to_samples(s: State) -> None:
    """The gradient of a column goes to the sample that it is."""
    if s.taken is not None:
        s.g = put_back(s.g, s.taken, s.S.size).reshape(s.S.shape)


def to_inputs(s: State) -> None:
    """The gradient of what was read goes to where it was read."""
    for name, at in s.read_at.items():
        g = s.grads[NAMES.get(name, name)]
        if at is not None and g.size == at.size:
            s.grads[NAMES.get(name, name)] = put_back(g, at, getattr(s, name).size)
