"""How far a correct implementation may be from the exact value.

Every bound holds for every order of evaluation, with or without fused
multiply-adds, direct or through columns. A first-order count k * u of a
chain is taken as (1 + u)^k - 1, which needs no "k * u << 1".
docs/grading.md derives each line.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refdcn.formula import sample, tent
from refdcn.grading.cases import Array, Case, offset_shape
from refdcn.grading.oracle import modulation, positions

U64 = 2.0**-53


class Roundoff(NamedTuple):
    """Unit roundoffs of each step, and the smallest number that is kept."""

    coordinate: float
    interpolation: float
    product: float
    accumulation: float
    output: float
    stored: float  # of a column or a coefficient; 0: not rounded when stored
    tiny: float  # absolute error of a result that underflows
    largest: float  # beyond it a sum may become infinite

    def with_oracle(self) -> Roundoff:
        """These and the float64 oracle's own, which is in any order too."""
        return self._replace(
            coordinate=self.coordinate + U64,
            interpolation=self.interpolation + U64,
            product=self.product + U64,
            accumulation=self.accumulation + U64,
            output=self.output + U64,
        )


def uniform(u: float, dtype: npt.DTypeLike, **changed: float) -> Roundoff:
    """Every step in one precision; a flush to zero loses the smallest normal."""
    info = np.finfo(dtype)
    steps = Roundoff(u, u, u, u, u, u, float(info.tiny), float(info.max))
    return steps._replace(**changed)


U16, U32 = 2.0**-11, 2.0**-24
FP64 = uniform(U64, np.float64)
FP32 = uniform(U32, np.float32)
# A half-precision candidate may form everything in its own type; the tighter
# reading has float32 steps and one rounding at the end.
FP16 = uniform(U16, np.float16)
FP16_WIDE = uniform(U32, np.float16, output=U16)
BY_DTYPE = {"float64": FP64, "float32": FP32, "float16": FP16}


def chain(u: float, length: Array | float) -> Any:
    """The relative error of `length` roundings one after another."""
    return np.expm1(np.asarray(length, float) * np.log1p(u))


class Cells(NamedTuple):
    """Per sample and channel [N, offset_groups, C, K, H_out, W_out]."""

    rise: Array  # largest vertical neighbour difference the sample may meet
    run: Array  # horizontal
    twist: Array  # mixed second difference
    top: Array  # |x|


class Samples(NamedTuple):
    """What every bound is made of."""

    delta_y: Array  # [N, offset_groups, 1, K, H_out, W_out]
    delta_x: Array
    cells: Cells
    size: Array  # sum of corner weight * |corner|
    error: Array  # of one sample


def deltas(case: Case, u: Roundoff) -> tuple[Array, Array]:
    """The coordinate errors: three additions, in any order."""
    sizes = case.sizes
    h, w = sizes.out
    i, j = np.indices((sizes.K_h, sizes.K_w)).reshape(2, -1, 1, 1)
    dp = np.abs(case.offset.astype(np.float64).reshape(offset_shape(sizes)))
    (s_y, s_x), (p_y, p_x), (d_y, d_x) = case.stride, case.padding, case.dilation
    y = s_y * np.arange(h)[:, None] + p_y + d_y * i + dp[:, :, :, 0]
    x = s_x * np.arange(w) + p_x + d_x * j + dp[:, :, :, 1]
    return chain(u.coordinate, 3) * y, chain(u.coordinate, 3) * x


def cell_maps(x: Array) -> Array:
    """rise, run, twist, top of the cells [-2, H] x [-2, W] of x [..., H, W]."""
    pad = [(0, 0)] * (x.ndim - 2) + [(2, 2), (2, 2)]
    z = np.pad(x, pad)
    rise, run = np.abs(np.diff(z, axis=-2)), np.abs(np.diff(z, axis=-1))
    twist = np.abs(np.diff(np.diff(z, axis=-2), axis=-1))
    z = np.abs(z)
    top = np.maximum(z[..., :-1, :], z[..., 1:, :])
    return np.stack(
        [
            np.maximum(rise[..., :-1], rise[..., 1:]),
            np.maximum(run[..., :-1, :], run[..., 1:, :]),
            twist,
            np.maximum(top[..., :-1], top[..., 1:]),
        ]
    )


def span(q: Array, delta: Array, n: int) -> tuple[Array, Array]:
    """The first and last cell that [q - delta, q + delta] meets, from -2."""
    slack = delta + 2 * U64 * (np.abs(q) + delta)  # this subtraction rounds too
    low, high = np.floor(q - slack), np.floor(q + slack)
    return tuple(np.clip(e, -2, n).astype(int) + 2 for e in (low, high))  # type: ignore


def gather_cells(x: Array, q: tuple[Array, Array], delta: tuple[Array, Array]) -> Cells:
    """The largest of each map over the cells that a sample's box meets."""
    N, og, C, H, W = x.shape
    maps = cell_maps(x).reshape(4, N, og, C, (H + 3) * (W + 3))
    (y0, y1), (x0, x1) = span(q[0], delta[0], H), span(q[1], delta[1], W)
    best = np.zeros((4, N, og, C, *q[0].shape[2:]))
    for a in range(int((y1 - y0).max(initial=0)) + 1):
        for b in range(int((x1 - x0).max(initial=0)) + 1):
            at = np.minimum(y0 + a, y1) * (W + 3) + np.minimum(x0 + b, x1)
            flat = at.reshape(1, N, og, 1, at.size // max(1, N * og))
            met = np.take_along_axis(maps, flat, -1).reshape(best.shape)
            np.maximum(best, met, out=best)
    return Cells(*best)


def grouped(case: Case) -> Array:
    """x [N, offset_groups, C, H, W] in float64."""
    N, C_in, H, W = case.x.shape
    og = case.sizes.offset_groups
    return case.x.astype(np.float64).reshape(N, og, C_in // og, H, W)


def tents(case: Case) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """(tent, slope) along rows and along columns, of formula.py."""
    q_y, q_x = positions(case)
    return tent(q_y, case.x.shape[2]), tent(q_x, case.x.shape[3])


def samples(case: Case, u: Roundoff) -> Samples:
    """The error of x(q) and its parts; x(q) is Lipschitz across cell edges."""
    x, q, delta = grouped(case), positions(case), deltas(case, u)
    cells = gather_cells(x, q, delta)
    (t_y, _), (t_x, _) = tents(case)
    size = sample(np.abs(x), t_y, t_x)
    d_y, d_x = (d[:, :, None] for d in delta)
    error = d_y * cells.rise + d_x * cells.run
    error = error + chain(u.interpolation, 12) * cells.top
    return Samples(d_y, d_x, cells, size, error)


def by_weight_group(case: Case, columns: Array) -> Array:
    """[N, groups, C / groups, K, H_out, W_out] of a per-sample array."""
    N, (_, C, *_) = len(case.x), case.weight.shape
    sizes = case.sizes
    K = sizes.K_h * sizes.K_w
    return columns.reshape(N, sizes.groups, C, K, *sizes.out)


def absolute_weight(case: Case) -> Array:
    """|weight| [groups, C_out / groups, C_in / groups, K] in float64."""
    sizes = case.sizes
    w = np.abs(case.weight.astype(np.float64))
    return w.reshape(sizes.groups, -1, w.shape[1], sizes.K_h * sizes.K_w)


def rounded(u: Roundoff, value: Array, error: Array, terms: Array, size: Array) -> Any:
    """`error`, then one rounding of the result, underflow and overflow."""
    total = error + u.output * (np.abs(value) + error) + 4 * u.tiny * terms
    return np.where(size + error < u.largest / 2, total, np.inf)


def forward(case: Case, y: Array, u: Roundoff, longest: bool = True) -> Array:
    """The bound of every y; `longest` chains decide "wrong", others do not."""
    s, w = samples(case, u), absolute_weight(case)
    m = np.abs(modulation(case))[:, :, None]

    def contract(columns: Array) -> Array:
        columns = by_weight_group(case, np.broadcast_to(columns, s.size.shape))
        sums = np.einsum("bock,nbckuv->nbouv", w, columns, optimize=True)
        return sums.reshape(case.y_shape)  # type: ignore[no-any-return]

    moved, T = contract(m * s.error), contract(m * (s.size + s.error))
    n = w.shape[2] * w.shape[3]
    b = 0 if case.bias is None else np.abs(case.bias.astype(float))[:, None, None]
    steps = chain(u.accumulation, 4 * n + 1 if longest else n + 1)
    E = moved + (chain(u.product, 2) + u.stored) * T + steps * (T + b)
    terms = np.einsum(
        "bock,nbckuv->nbouv",
        1 + w,
        by_weight_group(case, np.broadcast_to(1 + m, s.size.shape)),
        optimize=True,
    )
    return rounded(u, y, E, terms.reshape(case.y_shape), T + b)  # type: ignore
