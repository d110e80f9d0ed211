"""Correct implementations that differ in every way rounding allows.

A bound that one of them breaks is a false alarm; a panel member shares no code
with the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading import judge, suite
from refdcn.grading.cases import Array, Case, draw_case, offset_shape
from refdcn.grading.isolation import InProcess
from refdcn.grading.precision import standard
from refdcn.grading.verdicts import Verdict

Number = Any  # one of NumPy's scalar types


class Alarm(NamedTuple):
    """A correct implementation that was called wrong."""

    member: str
    case: str
    text: str


class Style(NamedTuple):
    """One legal way to evaluate the sum."""

    name: str
    order: str = "forward"  # forward, backward, random, pairwise
    lerp: bool = False  # nested interpolation a + t * (b - a)
    corner_sums: bool = False  # each corner added to the sum by itself
    position: tuple[int, ...] = (0, 1, 2, 3)  # the order of i*s, -p, k*d, dp
    accumulate: str = ""  # dtype of the sums; empty: the input's
    weight_first: bool = False  # (w * m) * x(q) instead of w * (m * x(q))


PANEL = (
    Style("direct"),
    Style("backward", order="backward", position=(3, 2, 0, 1)),
    Style("random order", order="random", position=(3, 1, 2, 0)),
    Style("pairwise", order="pairwise", weight_first=True, position=(1, 3, 0, 2)),
    Style("nested lerp", lerp=True, weight_first=True),
    Style("corner by corner", corner_sums=True, position=(3, 2, 0, 1)),
    Style(
        "corners backward", corner_sums=True, order="backward", position=(1, 3, 0, 2)
    ),
    Style("float64 sums", accumulate="float64", order="random"),
    Style("float32 sums", accumulate="float32"),
)


def coordinates(case: Case, style: Style) -> tuple[Array, Array]:
    """q in the case's dtype, its four terms added in one of their orders."""
    sizes, T = case.sizes, case.x.dtype.type
    dp = case.offset.reshape(offset_shape(sizes))
    i, j = np.indices((sizes.K_h, sizes.K_w)).reshape(2, -1, 1, 1).astype(T)
    u, v = (np.arange(n).astype(T) for n in sizes.out)
    windows = zip(case.stride, case.padding, case.dilation, strict=True)
    places = ((u[:, None], i), (v[None, :], j))
    found = []
    for axis, ((at, tap), (s, p, d)) in enumerate(zip(places, windows, strict=True)):
        terms = at * T(s), -T(p), tap * T(d), dp[:, :, :, axis]
        q = terms[style.position[0]]
        for k in style.position[1:]:
            q = q + terms[k]
        found.append(q)
    return found[0], found[1]


def pixels(case: Case, rows: Array, columns: Array) -> Array:
    """x at integer places, 0 outside: [N, og, C, K, H_out, W_out]."""
    N, C_in, H, W = case.x.shape
    og = case.sizes.offset_groups
    x = np.pad(case.x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    r = np.clip(rows, -1, H).astype(int) + 1
    c = np.clip(columns, -1, W).astype(int) + 1
    flat = x.reshape(N, og, C_in // og, (H + 2) * (W + 2))
    at = (r * (W + 2) + c).reshape(N, og, 1, r.size // max(1, N * og))
    found = np.take_along_axis(flat, at, -1)
    return np.asarray(found.reshape(N, og, C_in // og, *rows.shape[2:]))


def corners(case: Case, style: Style) -> list[Array]:
    """The sample, as one term or as four, in the case's dtype."""
    q_y, q_x = coordinates(case, style)
    T = case.x.dtype.type
    y0, x0 = np.floor(q_y), np.floor(q_x)
    t, s = (q_y - y0)[:, :, None], (q_x - x0)[:, :, None]
    a, b, c, d = (
        pixels(case, y0 + i, x0 + j) for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))
    )
    if style.lerp:
        top, bottom = a + s * (b - a), c + s * (d - c)
        return [top + t * (bottom - top)]
    one = T(1)
    terms = [
        (one - t) * (one - s) * a,
        (one - t) * s * b,
        t * (one - s) * c,
        t * s * d,
    ]
    if style.corner_sums:
        return terms
    return [((terms[0] + terms[1]) + terms[2]) + terms[3]]


def total(terms: list[Array], style: Style, seed: int) -> Array:
    """Their sum in the style's order."""
    if style.order == "backward":
        terms = terms[::-1]
    if style.order == "random":
        order = np.random.default_rng(seed).permutation(len(terms))
        terms = [terms[k] for k in order]
    if style.order == "pairwise":
        while len(terms) > 1:
            pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
            terms = pairs + (terms[-1:] if len(terms) % 2 else [])
        return terms[0]
    y = terms[0]
    for term in terms[1:]:
        y = y + term
    return y


def member(style: Style) -> Callable[..., Array]:
    """The operator in that style."""

    def forward(*inputs: Any, **windows: Any) -> Array:
        case = Case("", "", *inputs, **windows)
        sizes = case.sizes
        N, og, K, _, *out = offset_shape(sizes)
        sums = np.dtype(style.accumulate or case.x.dtype)
        T = max(sums, case.x.dtype)
        w = case.weight.reshape(sizes.groups, -1, case.weight.shape[1], K)
        m = None if case.mask is None else case.mask.reshape(N, og, 1, K, *out)
        terms = []
        for S in corners(case, style):
            if m is not None and not style.weight_first:
                S = S * m
            col = S.reshape(N, sizes.groups, w.shape[2], K, *out)
            M = None
            if m is not None and style.weight_first:
                M = np.broadcast_to(m, S.shape).reshape(col.shape)
            for c in range(w.shape[2]):
                for k in range(K):
                    f = w[None, :, :, c, k, None, None]
                    if M is not None:
                        f = f * M[:, :, None, c, k]
                    terms.append((f * col[:, :, None, c, k]).astype(T))
        if case.bias is not None:
            b = case.bias.reshape(1, sizes.groups, -1, 1, 1).astype(T)
            terms.append(np.broadcast_to(b, terms[0].shape))
        y = total(terms, style, seed=len(terms))
        return np.asarray(y.reshape(case.y_shape).astype(case.x.dtype))

    return forward


def steep(rng: np.random.Generator, dtype: str) -> Case:
    """One pixel a sum, far from the origin, neighbours of opposite sign.

    The position's error is nearly all of the error here, so that its bound is
    tried where nothing else hides it.
    """
    sizes = suite.drawn(
        rng, N=1, C_in=1, C_out=1, K_h=1, K_w=1, H=3, W=200, stride=(1, 1)
    )
    case = draw_case(rng, sizes, dtype, "panel", "normal", False, False)
    x = np.indices(case.x.shape).sum(0) % 2 * 2.0 - 1
    return replace(case, x=x.astype(dtype), weight=np.ones_like(case.weight))


def drawn(rng: np.random.Generator, dtype: str) -> suite.Expected:
    """One geometry with offsets of a random kind."""
    kind = str(rng.choice(["border", "normal", "integer", "zero"]))
    given = rng.integers(0, 2, 2).astype(bool)
    if rng.integers(4) == 0:
        return suite.Expected(steep(rng, dtype), standard(dtype))
    sizes = suite.drawn(rng, N=int(rng.integers(1, 3)))
    case = draw_case(rng, sizes, dtype, "panel", kind, *map(bool, given))
    return suite.Expected(case, standard(dtype))


def alarms(
    seed: int, n: int, dtypes: Sequence[str] = ("float64", "float32", "float16")
) -> Iterator[Alarm | float]:
    """Grade each member on `n` drawn geometries; the ratio, or an alarm."""
    rng = np.random.default_rng(seed)
    for k in range(n):
        expected = drawn(rng, dtypes[k % len(dtypes)])
        style = PANEL[int(rng.integers(len(PANEL)))]
        outcome = InProcess(member(style)).call(expected.case)
        finding = judge.forward(expected, outcome)
        if finding.verdict in (Verdict.WRONG, Verdict.UNSUPPORTED):
            yield Alarm(style.name, str(expected.case), finding.text)
        else:
            yield finding.ratio
