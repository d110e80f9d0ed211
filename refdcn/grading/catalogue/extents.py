"""Mistakes in which the places of one axis are held against the size of the other.

A guard (q < W), a test of the far corner (q + 1 <= W - 1), or both; what is read where
they let too much pass depends on the kernel: what lies there in flat memory, nothing,
or the last line. Kernels that clamp indices often keep positions near the image first:
then the last line is read by samples however far outside. Where the sizes are exchanged
in the addresses, too, a plane is read as if it were W rows of H pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.steps import State, hat
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []
ROWS, COLUMNS = 0, 1
NEAR = 1, 2  # pixels outside to which positions are kept
LINES = "columns are held against H, the number of rows"
SAID = {
    (COLUMNS,): f"{LINES}: wrong where H and W differ",
    (ROWS,): "rows are held against W, the number of columns: wrong where H and W "
    "differ",
    (ROWS, COLUMNS): f"{LINES}, and rows against W: wrong where H and W differ",
}


class Extent:
    """An axis of `n` lines whose tests read another number.

    `near`: how many pixels outside the image positions are kept to.
    """

    def __init__(self, s: State, axis: int, held: bool, near: float = np.inf) -> None:
        sizes = s.z.H, s.z.W
        self.n, self.other = sizes[axis], sizes[1 - axis] if held else sizes[axis]
        self.q = np.clip((s.qy, s.qx)[axis], -near, self.n - 1 + near)

    def factors(self, guard: bool, corner: bool) -> tuple[Array, Array]:
        """The tent and its slope on every line that the tests can let pass."""
        lines = max(self.n, self.other) + 1
        limit, last = (self.other if held else self.n for held in (guard, corner))
        q, r = self.q[..., None], np.arange(lines)
        upper = r == np.floor(q) + 1
        read = (q > -1) & (q < limit) & ~(upper & (r > last - 1))
        tent, slope = hat(self.q, lines)
        return tent * read, slope * read

    def unguarded(self) -> tuple[Array, Array]:
        """The same of a kernel that tests each neighbour alone, the upper wrongly."""
        lines = max(self.n, self.other) + 1
        r, low = np.arange(lines), np.floor(self.q)[..., None]
        upper = (r == low + 1) & (r <= self.other - 1)
        read = upper | ((r == low) & (r <= self.n - 1))
        tent, slope = hat(self.q, lines)
        return tent * read, slope * read

    def clamped(self, upper: bool) -> tuple[Array, Array]:
        """Lines from the other size on are its last one, by their index alone.

        `upper`: that of the far corner alone.
        """
        last = min(self.n, self.other) - 1
        low = np.floor(self.q)[..., None]
        moves = np.arange(self.n) > last
        if upper:
            moves = moves & (np.arange(self.n) == low + 1)
        found = []
        for a in hat(self.q, self.n):
            kept = a * ~moves
            kept[..., last] += (a * moves).sum(-1)
            found.append(kept)
        return found[0], found[1]


def put_factors(s: State, pairs: list[tuple[Array, Array]]) -> None:
    """The factors of rows and of columns."""
    (s.ty, s.sy), (s.tx, s.sx) = pairs


def tested(
    axes: tuple[int, ...],
    guard: bool,
    corner: bool,
    past: str,
    near: float = np.inf,
    turned: bool = False,
    alone: bool = False,
) -> Callable[[State], None]:
    """Tests of some axes against the other size; `past`: what is read beyond.

    `turned`: the addresses are of rows of H pixels, too; `alone`: without a guard.
    """

    def edit(s: State) -> None:
        extents = [Extent(s, axis, axis in axes, near) for axis in (ROWS, COLUMNS)]
        pairs = [e.unguarded() if alone else e.factors(guard, corner) for e in extents]
        if past == "memory":
            put_factors(s, pairs)
            s.pitch = s.z.H if turned else s.z.W
            in_flat_memory(s)
            return
        for k, e in enumerate(extents):
            inside = [a[..., : e.n].copy() for a in pairs[k]]
            if past == "last":
                for a, whole in zip(inside, pairs[k], strict=True):
                    a[..., -1] += whole[..., e.n :].sum(-1)
            pairs[k] = inside[0], inside[1]
        put_factors(s, pairs)

    return edit


def addresses(s: State) -> Array:
    """Where the lines of the factors lie in the memory of x: [N, og, C, h, w]."""
    planes = np.arange(int(np.prod(s.x.shape[:3]))).reshape(s.x.shape[:3])
    r, q = np.indices((s.ty.shape[-1], s.tx.shape[-1]))
    at = planes[..., None, None] * s.z.H * s.z.W + r * s.pitch + q
    return np.asarray(at)


def in_flat_memory(s: State) -> None:
    """x continued by what lies behind each row and plane; NaN past its end."""
    at = addresses(s)
    there = at < s.image.size
    s.x = np.where(there, s.image.reshape(-1)[np.where(there, at, 0)], 0)
    lost = 1.0 * ~there.all(2)
    used = [1.0 * (a != 0) for a in (s.ty, s.tx)]
    meets = np.einsum("nghw,ngkuvh,ngkuvw->ngkuv", lost, *used, optimize=True)
    s.keep = np.where(meets > 0, np.nan, s.keep)


def back_in_memory(s: State) -> None:
    """The gradient of x added up where its addresses lie."""
    into = np.zeros(s.image.size)
    at = addresses(s)
    there = at < into.size
    np.add.at(into, at[there], s.grads["x"][there])
    s.grads["x"] = into


def clamped(axes: tuple[int, ...], upper: bool) -> Callable[[State], None]:
    """Indices of some axes clamped to the other size."""

    def edit(s: State) -> None:
        extents = [Extent(s, axis, axis in axes) for axis in (ROWS, COLUMNS)]
        put_factors(s, [e.clamped(upper) for e in extents])

    return edit


TURNED = {
    "tests": "height and width are exchanged in the sampler: each plane of x is read "
    "as W rows of H pixels",
    "corner": "height and width are exchanged in the sampler's addresses and corner "
    "tests, not in its guard: each plane of x is read as rows of H pixels",
    "guard": "height and width are exchanged in the sampler's addresses and guard, not "
    "in its corner tests: each plane of x is read as rows of H pixels",
}
TESTS = ("guard", True, False), ("corner", False, True), ("tests", True, True)


def exchanged() -> None:
    """Height and width exchanged where x is addressed, too."""
    for name, guard, corner in TESTS:
        edit = tested((ROWS, COLUMNS), guard, corner, "memory", turned=True)
        edits = ("kernel", edit), ("backward", back_in_memory)
        full = f"height and width exchanged in addresses and {name}"
        MISTAKES.append(Mistake("sampling", full, TURNED[name], edits, True))


def extents() -> None:
    """Each axis alone and both, each test, and what is read past the end."""
    for axes, text in SAID.items():
        title = " and ".join(("rows", "columns")[a] for a in axes)
        for name, guard, corner in TESTS:
            for past in ("memory", "nothing", "last"):
                if past == "last" and not guard:
                    continue
                edits = [("kernel", tested(axes, guard, corner, past))]
                if past == "memory":
                    edits.append(("backward", back_in_memory))
                full = f"{name} of {title} by the other size, {past} past it"
                beyond = past == "memory"
                MISTAKES.append(Mistake("sampling", full, text, tuple(edits), beyond))
        made = tested(axes, False, True, "memory", alone=True)
        edits = [("kernel", made), ("backward", back_in_memory)]
        full = f"upper of {title} by the other size, memory past it"
        MISTAKES.append(Mistake("sampling", full, text, tuple(edits), True))
        for near in NEAR:
            full = f"tests of {title} by the other size, {near} pixels outside at most"
            edit = tested(axes, True, True, "last", near)
            MISTAKES.append(Mistake("sampling", full, text, (("kernel", edit),)))
        for index, upper in (("index", False), ("far index", True)):
            full = f"{index} of {title} clamped by the other size"
            edit = clamped(axes, upper)
            MISTAKES.append(Mistake("sampling", full, text, (("kernel", edit),)))


exchanged()
extents()
