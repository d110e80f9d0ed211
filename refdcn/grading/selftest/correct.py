"""Correct implementations that differ in every way rounding allows.

A style says in which order and precision the sums of Eqs. (1) to (4) are
formed. Nothing here is shared with the oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading.expected.case import Array, Case, Pair, offset_shape
from refdcn.grading.expected.double import two_product, two_sum

Two = tuple[Array, Array]


class Style(NamedTuple):
    """One legal way to evaluate the sums."""

    name: str
    order: str = "forward"  # backward, random, pairwise, kahan, einsum
    lerp: bool = False  # nested interpolation a + t * (b - a)
    corner_sums: bool = False  # each corner added to the sum by itself
    position: tuple[int, ...] = (0, 1, 2, 3)  # the order of i*s, -p, k*d, dp, frame
    work: str = ""  # dtype of every step; empty: the input's
    accumulate: str = ""  # dtype of the sums; empty: that of the steps
    stored: bool = False  # columns and coefficients are kept in the input's dtype
    weight_first: bool = False  # (w * m) * x(q) instead of w * (m * x(q))
    fma: bool = False  # a * b + c is rounded once
    flat: bool = False  # d mask, d offset, d x: one sum over outputs and channels
    slope: str = "right-hand"  # left-hand, the mean, 0 at -1
    frame: Pair = (0, 0)  # places are counted in an image padded by a * padding + b
    fraction: str = ""  # of the offset, of the ceiling, of a sum apart


def fused(a: Array, b: Array, c: Array) -> Array:
    """a * b + c, rounded once (but for a second rounding of 2^-53 at most)."""
    T = np.result_type(a, b, c)
    if T != np.float64:
        a, b, c = (v.astype(np.float64) for v in (a, b, c))
        return np.asarray((a * b + c).astype(T))
    p, e = two_product(a, b)
    s, f = two_sum(p, c)
    return np.asarray(s + (f + e))


def total(terms: Array, order: str) -> Array:
    """The sum along the first axis in one order."""
    if order == "einsum":
        return np.asarray(np.einsum("t...->...", terms))
    if order == "kahan":
        return compensated(terms)
    if order == "backward":
        terms = terms[::-1]
    if order == "random":
        terms = terms[np.random.default_rng(len(terms)).permutation(len(terms))]
    if order == "pairwise":
        while len(terms) > 1:
            n = len(terms) // 2 * 2
            terms = np.concatenate([terms[:n:2] + terms[1:n:2], terms[n:]])
    y = terms[0] if len(terms) else np.zeros(terms.shape[1:], terms.dtype)
    for term in terms[1:]:
        y = y + term
    return y


def compensated(terms: Array) -> Array:
    """What each addition loses is added to the next term (Kahan)."""
    y = lost = np.zeros(terms.shape[1:], terms.dtype)
    for term in terms:
        term = term - lost
        more = y + term
        y, lost = more, (more - y) - term
    return y


class Evaluation:
    """One call; samples are [corners, N, groups, 1, C, K, H_out, W_out]."""

    def __init__(self, style: Style, case: Case) -> None:
        self.style, self.case, self.sizes = style, case, case.sizes
        self.own = case.x.dtype
        self.T = np.result_type(style.work or self.own, self.own)
        self.sums = np.result_type(style.accumulate or self.T, self.T)
        s = self.sizes
        self.by_offset = s.N, s.offset_groups, s.C_in // s.offset_groups
        self.by_weight = s.N, s.groups, 1, s.C_in // s.groups
        self.rest = s.K_h * s.K_w, *s.out

    def cast(self, a: Array | None) -> Any:
        """An input in the dtype of the steps."""
        return None if a is None else a.astype(self.T)

    def kept(self, a: Array) -> Array:
        """A column or coefficient as it comes back from memory."""
        return a.astype(self.own).astype(self.T) if self.style.stored else a

    def plus(self, a: Array, b: Array, c: Array) -> Array:
        """a * b + c in the style's way."""
        return fused(a, b, c) if self.style.fma else np.asarray(a * b + c)

    @cached_property
    def w(self) -> Array:
        """[1, 1, groups, C_out / groups, C, K, 1, 1]."""
        w = self.cast(self.case.weight)
        return np.asarray(
            w.reshape(1, 1, self.sizes.groups, -1, w.shape[1], self.rest[0], 1, 1)
        )

    @cached_property
    def m(self) -> Array | None:
        """[1, N, groups, 1, C, K, H_out, W_out]."""
        if self.case.mask is None:
            return None
        m = self.cast(self.case.mask).reshape(*self.by_offset[:2], 1, *self.rest)
        return self.grouped(np.broadcast_to(m, (*self.by_offset, *self.rest))[None])

    @cached_property
    def go(self) -> Array:
        """[1, N, groups, C_out / groups, 1, 1, H_out, W_out]."""
        go = self.cast(self.case.grad_y)
        N, groups = self.sizes.N, self.sizes.groups
        n_o = self.sizes.C_out // groups
        return np.asarray(go.reshape(1, N, groups, n_o, 1, 1, *self.sizes.out))

    def grouped(self, a: Array) -> Array:
        """[.., N, offset groups, C, ...] to weight groups."""
        return a.reshape(len(a), *self.by_weight, *self.rest)

    def ungrouped(self, a: Array) -> Array:
        """[J, N, groups, O, C, ...] to [J, O, N, offset groups, C, ...]."""
        J, _, _, O, *_ = a.shape
        full = np.broadcast_to(
            a, (J, *self.by_weight[:2], O, *self.by_weight[3:], *self.rest)
        )
        swapped = full.transpose(0, 3, 1, 2, 4, 5, 6, 7)
        return swapped.reshape(J, O, *self.by_offset, *self.rest)

    def shift(self, axis: int) -> Any:
        """The row or column of the style's frame in which the image begins."""
        times, more = self.style.frame
        return self.T.type(times * self.sizes.padding[axis] + more)

    def terms(self, axis: int) -> tuple[Array, ...]:
        """i * s, -p, k * d, dp and the frame's shift along one axis."""
        s, T = self.sizes, self.T.type
        dp = self.cast(self.case.offset).reshape(offset_shape(s))
        tap = np.indices((s.K_h, s.K_w))[axis].reshape(-1, 1, 1).astype(self.T)
        at = np.arange(s.out[axis]).astype(self.T)
        at = at[:, None] if axis == 0 else at
        p, q, d = (T(w[axis]) for w in (s.stride, s.padding, s.dilation))
        return at * p, np.asarray(-q), tap * d, dp[:, :, :, axis], self.shift(axis)

    def added(self, axis: int) -> Array:
        """Positions [N, offset groups, 1, K, H_out, W_out], added in one order."""
        terms, order = self.terms(axis), self.style.position
        place = terms[order[0]]
        for k in order[1:]:
            place = place + terms[k]
        return np.asarray(place)[:, :, None]

    @cached_property
    def q(self) -> Two:
        """Positions in the style's frame."""
        return self.added(0), self.added(1)

    def cell(self, axis: int, left: bool = False) -> Two:
        """The cell's first pixel and the fraction; `left`: the cell below a pixel."""
        one, shift, way = self.T.type(1), self.shift(axis), self.style.fraction
        if way == "of the offset":
            at, p, tap, dp, _ = self.terms(axis)
            above = np.floor(dp) + one
            first, part = at + p + tap + (above - one), dp + one - above
            return first[:, :, None], part[:, :, None]
        q = self.q[axis]
        if way == "of a sum apart":  # the cell is found in the frame
            first = np.floor(q + shift) - shift
            return first, q - first
        if left or way == "of the ceiling":
            above = np.ceil(q)
        else:
            above = np.floor(q) + one
        part = one - (above - q) if way == "of the ceiling" else q - (above - one)
        return above - one - shift, part

    def pixels(self, rows: Array, columns: Array) -> Array:
        """x at integer places, 0 outside: [N, offset groups, C, K, H_out, W_out]."""
        s = self.sizes
        x = np.pad(self.cast(self.case.x), ((0, 0), (0, 0), (1, 1), (1, 1)))
        flat = x.reshape(*self.by_offset, (s.H + 2) * (s.W + 2))
        at = self.places(rows, columns)
        at = at.reshape(*self.by_offset[:2], 1, prod(self.rest))
        found = np.take_along_axis(flat, at, -1)
        return np.asarray(found.reshape(*self.by_offset, *self.rest))

    def places(self, rows: Array, columns: Array) -> Array:
        """Indices into the padded image, whose edge takes all that lies outside."""
        r = np.clip(rows, -1, self.sizes.H).astype(int) + 1
        c = np.clip(columns, -1, self.sizes.W).astype(int) + 1
        return np.asarray(r * (self.sizes.W + 2) + c)

    def corners(self) -> list[tuple[Array, Array, Array]]:
        """Rows, columns and weights of the four corners."""
        (y, t), (x, s), one = self.cell(0), self.cell(1), self.T.type(1)
        rows, columns = ((y, one - t), (y + one, t)), ((x, one - s), (x + one, s))
        return [(r, c, e * f) for r, e in rows for c, f in columns]

    @cached_property
    def samples(self) -> Array:
        """Eq. (2), as one term or as four."""
        corners = self.corners()
        a, b, c, d = (self.pixels(r, k) for r, k, _ in corners)
        if self.style.lerp:
            (_, t), (_, s) = self.cell(0), self.cell(1)
            top, bottom = self.plus(s, b - a, a), self.plus(s, d - c, c)
            return self.grouped(self.plus(t, bottom - top, top)[None])
        weights = [w for _, _, w in corners]
        if self.style.corner_sums:
            products = zip(weights, (a, b, c, d), strict=True)
            return self.grouped(np.stack([w * v for w, v in products]))
        y = weights[0] * a
        for w, v in zip(weights[1:], (b, c, d), strict=True):
            y = self.plus(w, v, y)
        return self.grouped(self.kept(y)[None])

    def slope(self, axis: int, left: bool) -> Array:
        """Eq. (4) in the cell above or below an integer, as one term or as four."""
        (y, t), (x, s) = (
            self.cell(0, left and axis == 0),
            self.cell(1, left and axis == 1),
        )
        one = self.T.type(1)
        a, b, c, d = (self.pixels(y + i, x + j) for i in (0, 1) for j in (0, 1))
        f, e = (s, one - s) if axis == 0 else (t, one - t)
        if axis:
            b, c = c, b  # along rows now, as it was along columns
        if self.style.corner_sums:
            return self.grouped(np.stack([-e * a, -f * b, e * c, f * d]))
        if self.style.lerp:
            near, far = c - a, d - b
            return self.grouped(self.plus(f, far - near, near)[None])
        return self.grouped(self.plus(f, d - b, e * (c - a))[None])

    def slopes(self, axis: int) -> Array:
        """The slope that the style takes at an integer."""
        if self.style.slope == "left-hand":
            return self.slope(axis, True)
        right = self.slope(axis, False)
        if self.style.slope == "the mean":
            return np.asarray((right + self.slope(axis, True)) / self.T.type(2))
        if self.style.slope == "0 at -1":
            inside = (self.q[0] > -1) & (self.q[1] > -1)
            full = np.broadcast_to(inside, (*self.by_offset, *self.rest))
            return right * self.grouped(full[None])
        return right

    def contract(
        self, a: Array, b: Array, axes: tuple[int, ...], first: Array | None = None
    ) -> Array:
        """The sum of a * b over `axes`, after `first`, in the style's order."""
        a, b = np.broadcast_arrays(a, b)
        n = len(axes)
        a, b = (np.moveaxis(v, axes, range(n)) for v in (a, b))
        a, b = (v.reshape(prod(v.shape[:n]), *v.shape[n:]) for v in (a, b))
        if not self.style.fma:
            terms = (a * b).astype(self.sums)
            if first is not None:
                start = np.broadcast_to(first, terms.shape[1:])[None]
                terms = np.concatenate([start.astype(self.sums), terms])
            return total(terms, self.style.order).astype(self.T)
        y = np.zeros(a.shape[1:], self.T) if first is None else first
        for u, v in zip(a, b, strict=True):
            y = fused(u, v, y)
        return np.asarray(y)

    def times(self, a: Array, m: Array | None) -> Array:
        """a * m, where there is a mask."""
        return a if m is None else a * m

    def result(self, a: Array, shape: tuple[int, ...]) -> Array:
        """In the input's dtype."""
        return np.asarray(a.reshape(shape).astype(self.own))

    def y(self) -> Array:
        """Eq. (1)."""
        w, S = self.w, self.samples
        if self.style.weight_first:
            w = self.times(w, self.m)
        else:
            S = self.times(S, self.m)
        b = self.cast(self.case.bias)
        first = None if b is None else b.reshape(1, self.sizes.groups, -1, 1, 1)
        return self.result(self.contract(w, S, (4, 5, 0), first), self.case.y_shape)

    def coefficients(self) -> Array:
        """w * grad_y, summed over the outputs unless the style is flat."""
        if self.style.flat:
            return self.ungrouped(self.w * self.go)
        g = self.kept(self.contract(self.w, self.go, (3,)))
        return self.ungrouped(np.expand_dims(g, 3))

    def grad_weight(self) -> Array:
        """sum grad_y * m * x(q)."""
        go, S = self.go, self.samples
        if self.style.weight_first:
            go = self.times(go, self.m)
        else:
            S = self.times(S, self.m)
        return self.result(self.contract(go, S, (1, 6, 7, 0)), self.case.weight.shape)

    def grad_mask(self) -> Array | None:
        """sum g * x(q) over an offset group's channels."""
        if self.case.mask is None:
            return None
        S = self.ungrouped(self.samples)
        found = self.contract(self.coefficients(), S, (1, 4, 0))
        return self.result(found, self.case.mask.shape)

    def grad_offset(self) -> Array:
        """sum g * m * slope over an offset group's channels."""
        g, m = self.coefficients(), self.m
        plain = None if m is None else self.ungrouped(m)
        sides = []
        for axis in (0, 1):
            D = self.ungrouped(self.slopes(axis))
            if self.style.weight_first:
                sides.append(self.contract(self.times(g, plain), D, (1, 4, 0)))
            else:  # the mask is the same for all of them
                sides.append(self.contract(g, D, (1, 4, 0)))
                if plain is not None:
                    sides[-1] = sides[-1] * plain[0, 0, :, :, 0]
        return self.result(np.stack(sides, 3), self.case.offset.shape)

    def grad_x(self) -> Array:
        """Every sample adds to four pixels, in any order: atomics."""
        g = self.coefficients()
        if self.m is not None:
            g = g * self.ungrouped(self.m)
        s, one = self.sizes, (g.shape[1], *self.by_offset, *self.rest)
        planes = np.arange(s.N * s.C_in) * ((s.H + 2) * (s.W + 2))
        image = planes.reshape(*self.by_offset, 1, 1, 1)
        places, values = [], []
        for rows, columns, weight in self.corners():
            at = image + self.places(rows, columns)
            places.append(np.broadcast_to(at, one).ravel())
            values.append(np.broadcast_to(g[0] * weight, one).ravel())
        at, v = np.concatenate(places), np.concatenate(values).astype(self.sums)
        turn = {"forward": np.arange(len(at)), "backward": np.arange(len(at))[::-1]}
        order = np.random.default_rng(len(at)).permutation(len(at))
        order = turn.get(self.style.order, order)
        padded = np.zeros(s.N * s.C_in * (s.H + 2) * (s.W + 2), self.sums)
        np.add.at(padded, at[order], v[order])
        wide = padded.reshape(s.N, s.C_in, s.H + 2, s.W + 2)[..., 1:-1, 1:-1]
        return self.result(wide, self.case.x.shape)

    def grad_bias(self) -> Array | None:
        """sum grad_y."""
        if self.case.bias is None:
            return None
        one = np.ones(1, self.T)
        found = self.contract(self.go, one, (0, 1, 6, 7))
        return self.result(found, self.case.bias.shape)

    def gradients(self) -> list[Array | None]:
        """Of x, offset, weight, mask, bias."""
        return [
            self.grad_x(),
            self.grad_offset(),
            self.grad_weight(),
            self.grad_mask(),
            self.grad_bias(),
        ]


class Member(NamedTuple):
    """A correct implementation, and the conventions it keeps."""

    name: str
    forward: Callable[..., Any]
    grad: Callable[..., Any]
    conventions: dict[str, str]
    spec: str = ""  # of one on torch tensors, by which it is graded whole
    grid: bool = False  # its positions go through a normalised grid


SLOPES = {
    "right-hand": {},
    "left-hand": {"slope at -1": "left-hand", "slope at integers": "left-hand"},
    "the mean": {"slope at -1": "the mean", "slope at integers": "the mean"},
    "0 at -1": {"slope at -1": "0"},
}


def member(style: Style) -> Member:
    """The operator in that style."""

    def case_of(inputs: Any, windows: Any, grad_y: Any = None) -> Case:
        return replace(Case("", "", *inputs, **windows), grad_y=grad_y)

    def forward(*inputs: Any, **windows: Any) -> Array:
        return Evaluation(style, case_of(inputs, windows)).y()

    def grad(grad_y: Any, *inputs: Any, **windows: Any) -> list[Array | None]:
        return Evaluation(style, case_of(inputs, windows, grad_y)).gradients()

    return Member(style.name, forward, grad, SLOPES[style.slope])


def by_image(one: Member, threads: int) -> Member:
    """Each image by itself, in several threads; sums over images come last."""

    def cut(a: Any, n: int) -> Any:
        return None if a is None else a[n : n + 1]

    def mapped(f: Callable[..., Any], count: int) -> list[Any]:
        def quiet(n: int) -> Any:  # a thread has warnings of its own
            with np.errstate(all="ignore"):
                return f(n)

        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(quiet, range(count)))

    def forward(x: Any, offset: Any, w: Any, m: Any, b: Any, **windows: Any) -> Any:
        def part(n: int) -> Any:
            return one.forward(cut(x, n), cut(offset, n), w, cut(m, n), b, **windows)

        if not len(x):
            return one.forward(x, offset, w, m, b, **windows)
        return np.concatenate(mapped(part, len(x)))

    def grad(
        g: Any, x: Any, offset: Any, w: Any, m: Any, b: Any, **windows: Any
    ) -> Any:
        def part(n: int) -> Any:
            mine = cut(g, n), cut(x, n), cut(offset, n), w, cut(m, n), b
            return one.grad(*mine, **windows)

        if not len(x):
            return one.grad(g, x, offset, w, m, b, **windows)
        parts = list(zip(*mapped(part, len(x)), strict=True))
        side: Callable[..., Any] = np.concatenate
        joined: list[Callable[..., Any]] = [side, side, sum, side, sum]
        return [
            None if a[0] is None else np.asarray(f(a))
            for f, a in zip(joined, parts, strict=True)
        ]

    return Member(f"{one.name}, {threads} threads", forward, grad, one.conventions)
