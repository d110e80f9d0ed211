"""How far a correct implementation may be from the exact value.

Every bound holds for every order of evaluation, with or without fused
multiply-adds, direct or through columns. A first-order count k * u of a
chain is taken as (1 + u)^k - 1, which needs no "k * u << 1".
docs/grading.md derives each line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refdcn.formula import sample, tent
from refdcn.grading.expected.case import Array, Case, offset_shape
from refdcn.grading.expected.oracle import modulation, positions

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
    grid: float = 0.0  # of coordinates scaled to [-1, 1] and back
    absolute: float = 0.0  # of a coordinate, in pixels

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
    # Half-precision hardware keeps subnormals, and loses half of their spacing;
    # others may flush them to zero.
    half = info.bits == 16
    tiny = float(info.smallest_subnormal) / 2 if half else float(info.tiny)
    steps = Roundoff(u, u, u, u, u, 0.0, tiny, float(info.max))
    return steps._replace(**changed)


U16, U32 = 2.0**-11, 2.0**-24
FP64 = uniform(U64, np.float64)
FP32 = uniform(U32, np.float32)
# A half-precision candidate may form everything in its own type; the tighter
# reading has float32 steps and one rounding at the end.
FP16 = uniform(U16, np.float16)
FP16_WIDE = uniform(U32, np.float16, output=U16)
# bfloat16 has float32's range, and its hardware flushes as float32's may.
U_BF16 = 2.0**-8
BF16 = uniform(U_BF16, np.float32)
BF16_WIDE = uniform(U32, np.float32, output=U_BF16)
BY_DTYPE = {"float64": FP64, "float32": FP32, "float16": FP16, "bfloat16": BF16}
WIDE = {"float16": FP16_WIDE, "bfloat16": BF16_WIDE}


def chain(u: float, length: Array | float) -> Any:
    """The relative error of `length` roundings one after another."""
    return np.expm1(np.asarray(length, float) * np.log1p(u))


def together(*errors: Array | float) -> Any:
    """(1 + a)(1 + b) ... - 1: relative errors one after another."""
    return np.expm1(sum(np.log1p(e) for e in errors))


def peak(*factors: Array) -> float:
    """What no product of some of the factors, in whatever order, exceeds."""
    return math.prod(max(1.0, float(f.max(initial=0.0))) for f in factors)


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


def frames(case: Case) -> tuple[Array, Array]:
    """What no partial sum of a position exceeds in |.| but for |dp|, along each axis.

    Terms are stride * p, -padding, dilation * k, dp and whole numbers of the
    candidate's own: those of an image padded by padding + 1 or + 2, of taps counted
    from the kernel's centre, of a fraction dp + 1 - (floor(dp) + 1).
    """
    sizes, found = case.image or case.sizes, []
    for axis, taps in enumerate((sizes.K_h, sizes.K_w)):
        s, p, d = (w[axis] for w in (sizes.stride, sizes.padding, sizes.dilation))
        found.append(s * np.arange(sizes.out[axis]) + 2 * p + d * (taps - 1) + 2)
    return found[0][:, None], found[1][None, :]


def deltas(case: Case, u: Roundoff) -> tuple[Array, Array]:
    """The coordinate errors: dp and whole numbers, added in any order.

    A partial sum is at most B, its frame + |dp|. A sum with a whole number rounds
    only where its last bit weighs more than ever before: the errors are at most
    u B, u B / 2, ... however many sums there are, together less than 2 u B.
    Where the cell and the fraction in it come from two sums, a rounding apart, the
    cell's values are continued beyond its edge: u B + 2 u B, as the slope may turn.
    """
    sizes = case.image or case.sizes
    dp = np.abs(case.offset.astype(np.float64).reshape(offset_shape(case.sizes)))
    # A dp that is flushed to zero leaves its cell as any other error can.
    flat = u.absolute + u.tiny
    found = []
    for axis, whole in enumerate(frames(case)):
        part = dp[:, :, :, axis]
        # Scaled to [-1, 1] and back: six roundings of q, and one of 1 at most.
        rel = chain(u.coordinate, roundings(whole, part, u)) + 6 * u.grid
        scaled = u.grid * (sizes.H, sizes.W)[axis]
        found.append(rel * (whole + part) + scaled + flat)
    return found[0], found[1]


def roundings(whole: Array, dp: Array, u: Roundoff) -> Array:
    """3; none where all sums are exact; 12 where whole numbers round too.

    dp is a multiple of its last bit, and so is each sum: it fits while it is not
    longer than the precision, 1 / u. Zero offsets and those of few bits lose nothing.
    """
    mantissa, exponent = np.frexp(dp)
    digits = (mantissa * 2.0**53).astype(np.int64)
    last = np.ldexp(1.0 * (digits & -digits), exponent - 53)
    last = np.where(dp == 0, 1, np.minimum(last, 1))
    exact = (whole + dp) * u.coordinate <= last
    # Beyond 1 / u products, terms and all sums are rounded.
    return np.where(exact, 0, np.where(whole * u.coordinate <= 1, 3, 12))


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
    """The first and last cell that [q - delta, q + delta] meets, from -2.

    As delta is never 0, that is both cells where q is an integer.
    """
    slack = delta + 4 * U64 * (np.abs(q) + delta)  # this subtraction rounds too
    low, high = np.floor(q - slack), np.floor(q + slack)
    first, last = (np.clip(e, -2, n).astype(int) + 2 for e in (low, high))
    return first, last


def gather_cells(x: Array, q: tuple[Array, Array], delta: tuple[Array, Array]) -> Cells:
    """The largest of each map over the cells that a sample's box meets."""
    N, og, C, H, W = x.shape
    maps = cell_maps(x).reshape(4, N, og, C, (H + 3) * (W + 3))
    y0, y1 = span(q[0], delta[0], H)
    x0, x1 = span(q[1], delta[1], W)
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


class Parts(NamedTuple):
    """What the bound of one output is put together from."""

    error: Array  # of all roundings but the result's
    lost: Array  # sum over the terms of what one underflow can be multiplied by
    size: Array  # sum of |terms|
    peak: float  # no product on the way exceeds it


# Underflows of one term: each of four corners has four products, w m t s x in any
# order, and an addition; w, m and x themselves may be flushed. A loss is multiplied
# by whatever factors follow, so by at most (1 + |w|)(1 + |m|)(1 + |x|): weights of
# 1e-30 times masks of 1e-20 are 0 in float32, and pixels of 1e30 show it.
UNDERFLOWS = 24


def rounded(u: Roundoff, value: Array, p: Parts) -> Any:
    """The errors, one rounding of the result, underflow and overflow."""
    total = p.error + u.output * (np.abs(value) + p.error)
    total = total + UNDERFLOWS * u.tiny * p.lost
    finite = (p.size + p.error < u.largest / 2) & (p.peak < u.largest / 2)
    return np.where(finite, total, np.inf)


def forward(case: Case, y: Array, u: Roundoff, longest: bool = True) -> Array:
    """The bound of every y; `longest` chains decide "wrong", others do not."""
    s, w = samples(case, u), absolute_weight(case)
    m = np.abs(modulation(case))[:, :, None]

    def contract(w: Array, columns: Array) -> Array:
        columns = by_weight_group(case, np.broadcast_to(columns, s.size.shape))
        sums = np.einsum("bock,nbckuv->nbouv", w, columns, optimize=True)
        return sums.reshape(case.y_shape)  # type: ignore[no-any-return]

    moved, T = contract(w, m * s.error), contract(w, m * (s.size + s.error))
    n = w.shape[2] * w.shape[3]
    b = 0 if case.bias is None else np.abs(case.bias.astype(float))[:, None, None]
    steps = chain(u.accumulation, 4 * n if longest else n + 1)
    rel = together(chain(u.product, 2), u.stored, steps)
    lost = 1 + contract(1 + w, (1 + m) * (1 + s.cells.top))
    parts = Parts(moved + rel * T + steps * b, lost, T + b, peak(w, m, s.cells.top))
    return rounded(u, y, parts)  # type: ignore[no-any-return]


class Upstream(NamedTuple):
    """What the gradients add to Samples, per sample and channel."""

    C: Array  # sum |w| |grad_y| over the group's outputs
    e_c: Array  # its error
    lost: Array  # sum (1 + |w|)(1 + |grad_y|)
    m: Array  # |mask|, [N, offset_groups, 1, K, H_out, W_out]
    n_o: int  # outputs a group
    n_i: int  # channels an offset group
    peak: float  # of w, grad_y, their sums and m


def upstream(case: Case, u: Roundoff) -> Upstream:
    """The column gradient w^T grad_y in absolute values, and its error."""
    assert case.grad_y is not None
    sizes, w = case.sizes, absolute_weight(case)
    N, (h, w_out) = sizes.N, sizes.out
    n_o, n_i = sizes.C_out // sizes.groups, sizes.C_in // sizes.offset_groups
    go = np.abs(case.grad_y.astype(np.float64))
    go = go.reshape(N, sizes.groups, n_o, h, w_out)

    def columns(w: Array, go: Array) -> Array:
        C = np.einsum("bock,nbouv->nbckuv", w, go)
        shape = N, sizes.offset_groups, n_i, C.shape[3], h, w_out
        return np.asarray(C.reshape(shape))

    C, m = columns(w, go), np.abs(modulation(case))[:, :, None]
    e_c = together(u.product, chain(u.accumulation, n_o), u.stored) * C
    top = max(peak(w, go), peak(C)) * peak(m)
    return Upstream(C, e_c, columns(1 + w, 1 + go), m, n_o, n_i, top)


def scatter(a: Array, factors: Sequence[Array]) -> Array:
    """Sum of a * factor_y * factor_x over the samples, at every pixel."""
    return np.einsum("ngckuv,ngkuvh,ngkuvw->ngchw", a, *factors, optimize=True)  # type: ignore[no-any-return]


def hits(case: Case, delta: tuple[Array, Array]) -> list[Array]:
    """Which pixels the corners of a sample's box can be, along each axis."""
    met = []
    for q, d, n in zip(positions(case), delta, case.x.shape[2:], strict=True):
        reach = 1 + d[:, :, 0] * (1 + 4 * U64) + 4 * U64 * np.abs(q)
        # A distance just below 1, as from 1e-30 to 1, rounds to 1: hence <=.
        met.append(1.0 * (np.abs(q[..., None] - np.arange(n)) <= reach[..., None]))
    return met


def gradients(
    case: Case, values: Sequence[Any], u: Roundoff, longest: bool = True
) -> list[Any]:
    """The bounds of the gradients of x, offset, weight, mask, bias."""
    s, up = samples(case, u), upstream(case, u)
    errors = (
        grad_x_error(case, s, up, u, longest),
        grad_offset_error(case, s, up, u, longest),
        grad_weight_error(case, s, up, u, longest),
        grad_mask_error(s, up, u, longest),
        grad_bias_error(case, u),
    )
    return [
        None if v is None else rounded(u, v, shaped(parts, v.shape))
        for v, parts in zip(values, errors, strict=True)
    ]


def shaped(p: Parts, shape: tuple[int, ...]) -> Parts:
    """The same in the gradient's shape."""
    error, lost, size = (a.reshape(shape) for a in p[:3])
    return Parts(error, lost, size, p.peak)


def grad_bias_error(case: Case, u: Roundoff) -> Parts:
    """A plain sum."""
    assert case.grad_y is not None
    go = np.abs(case.grad_y.astype(float))
    total = go.sum((0, 2, 3))
    n_p = case.grad_y.size // max(1, case.grad_y.shape[1])
    error = chain(u.accumulation, max(0, n_p - 1)) * total
    return Parts(error, np.full_like(total, n_p), total, peak(go))


def grad_weight_error(
    case: Case, s: Samples, up: Upstream, u: Roundoff, longest: bool
) -> Parts:
    """sum grad_y * m * x(q): the samples' errors, then products and sums."""
    assert case.grad_y is not None
    sizes = case.sizes
    go = np.abs(case.grad_y.astype(float))
    go = go.reshape(sizes.N, sizes.groups, up.n_o, *sizes.out)

    def contract(go: Array, columns: Array) -> Array:
        columns = by_weight_group(case, np.broadcast_to(columns, s.size.shape))
        return np.einsum("nbouv,nbckuv->bock", go, columns)  # type: ignore[no-any-return]

    n_p = sizes.N * sizes.out[0] * sizes.out[1]
    T = contract(go, up.m * (s.size + s.error))
    steps = chain(u.accumulation, (4 if longest else 1) * n_p)
    rel = together(chain(u.product, 2), u.stored, steps)
    lost = contract(1 + go, (1 + up.m) * (1 + s.cells.top))
    error = contract(go, up.m * s.error) + rel * T
    return Parts(error, lost, T, peak(go, up.m, s.cells.top))


def over_channels(up: Upstream, u: Roundoff, longest: bool) -> Any:
    """The relative error of two products and of sums over an offset group."""
    steps = 4 * up.n_o * up.n_i if longest else up.n_i
    return together(chain(u.product, 2), u.stored, chain(u.accumulation, steps))


def grad_mask_error(s: Samples, up: Upstream, u: Roundoff, longest: bool) -> Parts:
    """sum over channels of (w^T grad_y) * x(q)."""
    size = s.size + s.error
    T = ((up.C + up.e_c) * size).sum(2)
    error = (up.C * s.error + up.e_c * size).sum(2)
    lost = (up.lost * (1 + s.cells.top)).sum(2)
    error = error + over_channels(up, u, longest) * T
    return Parts(error, lost, T, up.peak * peak(s.cells.top))


def grad_x_error(
    case: Case, s: Samples, up: Upstream, u: Roundoff, longest: bool
) -> Parts:
    """A scatter: a corner's weight changes by at most delta_y + delta_x."""
    met = hits(case, (s.delta_y, s.delta_x))
    (t_y, _), (t_x, _) = tents(case)
    C = up.m * (up.C + up.e_c)
    moved = scatter(C * (s.delta_y + s.delta_x + chain(u.interpolation, 4)), met)
    T = scatter(C, (t_y, t_x)) + moved
    e_c = scatter(up.m * up.e_c, (t_y, t_x))
    count = scatter(np.ones_like(up.m), met)
    steps = chain(u.accumulation, count * (up.n_o if longest else 1))
    rel = together(chain(u.product, 2), u.stored, steps)
    lost = scatter((1 + up.m) * up.lost, met)
    return Parts(moved + e_c + rel * T, lost, T, up.peak)


def kinks(case: Case, delta: tuple[Array, Array], axis: int) -> Array:
    """Samples whose coordinate may be on either side of an integer."""
    q = positions(case)[axis]
    return np.abs(q - np.round(q)) <= delta[axis][:, :, 0] + 2 * U64 * np.abs(q)


def grad_offset_error(
    case: Case, s: Samples, up: Upstream, u: Roundoff, longest: bool
) -> Parts:
    """Both axes: [N, offset_groups, K, 2, H_out, W_out]."""
    x, delta = np.abs(grouped(case)), (s.delta_y, s.delta_x)
    cells = s.cells
    (t_y, s_y), (t_x, s_x) = tents(case)
    rel, largest = over_channels(up, u, longest), float(x.max(initial=0.0))
    errors, sums = [], []
    for axis, factors in enumerate(((np.abs(s_y), t_x), (t_y, np.abs(s_x)))):
        other = delta[1 - axis]
        kink = kinks(case, delta, axis)[:, :, None]
        # Beyond half a pixel more than one edge is near: any slope of the image.
        lost = delta[axis] > 0.5
        size = np.where(kink, 2 * cells.top, sample(x, *factors))
        few = chain(u.interpolation, 16) * cells.top
        moved = np.where(lost, 4 * largest, other * cells.twist + few)
        # Of |x| the mixed difference may be larger than of x, but not 4 |x|.
        size = np.minimum(2 * cells.top, size + 4 * other * cells.top) + few
        size = np.where(lost, 2 * largest, size)
        T = (up.m * (up.C + up.e_c) * size).sum(2)
        E = (up.m * (up.C * moved + up.e_c * size)).sum(2) + rel * T
        errors.append(E)
        sums.append(T)
    terms = ((1 + up.m) * up.lost * (1 + 2 * cells.top)).sum(2)
    terms = np.repeat(terms[:, :, :, None], 2, 3)
    top = 2 * up.peak * max(1.0, largest)
    return Parts(np.stack(errors, 3), terms, np.stack(sums, 3), top)
