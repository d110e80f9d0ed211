"""The forward sum in double-double arithmetic, the oracle of float64 candidates.

A number is a pair of float64, high and low, whose exact sum it is; errors are
below 2^-100 of the largest term. Positions are exact: float64 offsets plus
integers. Two-sum is Knuth's, two-product Dekker's with Veltkamp's splitting.
"""

from __future__ import annotations

import numpy as np

from refdcn.grading.expected.case import Array, Case, base, offset_shape

Pair = tuple[Array, Array]


def two_sum(a: Array, b: Array) -> Pair:
    """a + b and its rounding error."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def halves(a: Array) -> Pair:
    """a as two numbers of 26 bits."""
    c = 134217729.0 * a  # 2^27 + 1
    high = c - (c - a)
    return high, a - high


def two_product(a: Array, b: Array) -> Pair:
    """a * b and its rounding error."""
    p = a * b
    (a1, a2), (b1, b2) = halves(a), halves(b)
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


def add(a: Pair, b: Pair) -> Pair:
    """a + b."""
    s, e = two_sum(a[0], b[0])
    t, f = two_sum(a[1], b[1])
    s, e = two_sum(s, e + t)
    return two_sum(s, e + f)


def multiply(a: Pair, b: Pair) -> Pair:
    """a * b."""
    p, e = two_product(a[0], b[0])
    return two_sum(p, e + (a[0] * b[1] + a[1] * b[0]))


def exact(a: Array) -> Pair:
    """A float64 array as a pair."""
    return a, np.zeros_like(a)


def cells(case: Case, axis: int) -> tuple[Array, Pair]:
    """floor(q) and q - floor(q), with q the exact sum of its terms."""
    dp = case.offset.astype(np.float64).reshape(offset_shape(case.sizes))
    at = np.asarray(base(case.sizes)[axis], dtype=np.float64)
    high, low = two_sum(np.broadcast_to(at, dp[:, :, :, axis].shape), dp[:, :, :, axis])
    floor = np.floor(high)
    floor = np.where((high == floor) & (low < 0), floor - 1, floor)
    return floor, two_sum(high - floor, low)


def pixels(case: Case, rows: Array, columns: Array) -> Array:
    """x at integer places, 0 outside: [N, og, C, K, H_out, W_out]."""
    N, C_in, H, W = case.x.shape
    og = case.sizes.offset_groups
    n, g, c = np.indices((N, og, C_in // og))[..., None, None, None]
    x = case.x.astype(np.float64).reshape(N, og, C_in // og, H, W)
    r, s = (np.clip(a, 0, m - 1).astype(int) for a, m in ((rows, H), (columns, W)))
    inside = (rows >= 0) & (rows < H) & (columns >= 0) & (columns < W)
    found = x[n, g, c, r[:, :, None], s[:, :, None]]
    return np.where(inside[:, :, None], found, 0.0)


def sample(case: Case) -> Pair:
    """Eq. (2)."""
    (r, t), (c, s) = cells(case, 0), cells(case, 1)
    one = np.ones_like(t[0])
    total = exact(np.zeros((1, 1, 1, 1, 1, 1)))
    for i, f in ((0, add(exact(one), (-t[0], -t[1]))), (1, t)):
        for j, g in ((0, add(exact(one), (-s[0], -s[1]))), (1, s)):
            weight = multiply(f, g)
            weight = weight[0][:, :, None], weight[1][:, :, None]
            corner = pixels(case, r + i, c + j)
            total = add(total, multiply(weight, exact(corner)))
    return total


def forward(case: Case) -> Array:
    """y, rounded to float64 once."""
    sizes = case.sizes
    N, og, K, _, *out = offset_shape(sizes)
    S = sample(case)
    if case.mask is not None:
        m = case.mask.astype(np.float64).reshape(N, og, 1, K, *out)
        S = multiply(S, exact(np.broadcast_to(m, S[0].shape)))
    C = case.weight.shape[1]
    col = tuple(a.reshape(N, sizes.groups, 1, C, K, *out) for a in S)
    w = case.weight.astype(np.float64)
    w = w.reshape(1, sizes.groups, sizes.C_out // sizes.groups, C, K, 1, 1)
    shape = N, sizes.groups, sizes.C_out // sizes.groups, *out
    y = exact(np.zeros(shape))
    if case.bias is not None:
        b = case.bias.astype(np.float64).reshape(1, sizes.groups, -1, 1, 1)
        y = exact(np.broadcast_to(b, shape))
    for c in range(C):
        for k in range(K):
            term = (
                exact(w[:, :, :, c, k]),
                (col[0][:, :, :, c, k], col[1][:, :, :, c, k]),
            )
            y = add(y, multiply(*term))
    return np.asarray(y[0] + y[1]).reshape(case.y_shape)
