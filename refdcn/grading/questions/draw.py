"""Drawn inputs: geometries, offsets of each kind, and data without any rounding.

Every array is rounded to the candidate's dtype when it is made, so that oracle and
candidate read the same numbers.
"""

from __future__ import annotations

from dataclasses import replace
from math import lcm
from typing import Any

import numpy as np
import numpy.typing as npt

from refdcn.grading.expected.bounds import frames
from refdcn.grading.expected.case import (
    BITS,
    Array,
    Case,
    Sizes,
    base,
    kept,
    named,
    offset_shape,
)


def draw_sizes(rng: np.random.Generator, most: int = 7, **fixed: Any) -> Sizes:
    """A geometry: uneven kernels, strides and groups that do not nest."""
    two = rng.integers
    C_in = fixed.pop("C_in", 0)
    groups, offset_groups = (
        fixed.pop(k, int(rng.choice([g for g in (1, 1, 2, 3) if C_in % g == 0])))
        for k in ("groups", "offset_groups")
    )
    C_in = C_in or lcm(groups, offset_groups) * int(two(1, 3))
    C_out = fixed.pop("C_out", groups * int(two(1, 4)))
    K_h, K_w = (fixed.pop(k, int(two(1, 5))) for k in ("K_h", "K_w"))
    stride, padding, dilation = (
        fixed.pop(name, (int(two(a, b)), int(two(a, b))))
        for name, a, b in (("stride", 1, 4), ("padding", 0, 4), ("dilation", 1, 4))
    )
    shape = []
    for k, s, p, d in zip((K_h, K_w), stride, padding, dilation, strict=True):
        n = (int(two(1, most)) - 1) * s + d * (k - 1) + 1 - 2 * p + int(two(0, s))
        shape.append(max(1, n, d * (k - 1) + 1 - 2 * p))
    H, W = (fixed.pop(k, n) for k, n in zip(("H", "W"), shape, strict=True))
    N = fixed.pop("N", int(two(1, 4)))
    if fixed:
        raise TypeError(f"draw_sizes() knows no {', '.join(fixed)}")
    return Sizes(
        N, C_in, C_out, groups, offset_groups, K_h, K_w, H, W, stride, padding, dilation
    )


def landing(sizes: Sizes, rows: Array, columns: Array) -> Array:
    """The offset that moves every sample to (rows, columns)."""
    by, bx = base(sizes)
    dy, dx = rows - by, columns - bx
    dp = np.stack(np.broadcast_arrays(dy, dx), -3)
    N, og, K, *_ = shape = offset_shape(sizes)
    return np.broadcast_to(dp, shape).reshape(N, og * K * 2, *sizes.out)


def spread(rng: np.random.Generator, sizes: Sizes, kind: str) -> Array:
    """Offsets [N, 2 * offset_groups * K, H_out, W_out] of one kind."""
    N, og, K, _, *out = offset_shape(sizes)
    shape = N, og, K, *out
    if kind == "zero":
        return np.zeros((N, og * K * 2, *out))
    if kind == "normal":
        return 2 * rng.standard_normal((N, og * K * 2, *out))
    if kind == "integer":
        return rng.integers(-3, 4, (N, og * K * 2, *out)).astype(float)
    places = []
    for n in (sizes.H, sizes.W):  # each side of both borders, and far outside
        edge = rng.choice([-1.0, 0.0, n - 1.0, float(n)], shape)
        near = edge + rng.uniform(-1, 1, shape)
        inside = rng.uniform(-1, n, shape)
        far = rng.choice([-40.0, n + 40.0], shape)
        pick = rng.choice(4, shape, p=[0.3, 0.3, 0.35, 0.05])
        places.append(np.choose(pick, [edge, near, inside, far]))
    return landing(sizes, *places)


def draw_case(
    rng: np.random.Generator,
    sizes: Sizes,
    dtype: npt.DTypeLike,
    group: str,
    offsets: str = "border",
    mask: bool = True,
    bias: bool = True,
) -> Case:
    """Random data, judged by the bound; mask and weight take either sign."""
    N, og, K, _, *out = offset_shape(sizes)
    normal = rng.standard_normal
    weight = normal((sizes.C_out, sizes.C_in // sizes.groups, sizes.K_h, sizes.K_w))
    return Case(
        group,
        "bound",
        kept(normal((N, sizes.C_in, sizes.H, sizes.W)), dtype),
        kept(spread(rng, sizes, offsets), dtype),
        kept(weight, dtype),
        kept(normal((N, og * K, *out)), dtype) if mask else None,
        kept(normal(sizes.C_out), dtype) if bias else None,
        sizes.stride,
        sizes.padding,
        sizes.dilation,
        f"{offsets} offsets",
        kept(normal((N, sizes.C_out, *out)), dtype),
        bfloat16=named(dtype) == "bfloat16",
    )


def budget(dtype: npt.DTypeLike, terms: int) -> tuple[int, int, int]:
    """Bits for the offset's fraction, and largest |x| and |w|, exact in any order.

    2 * fraction + log2|x| + 1 + bits(w) + bits(m) + log2(terms) <= p; the
    mask is one of -1, 1, 2, and 1 bit is spare for differences of pixels.
    """
    p = BITS[named(dtype)]
    spare = p - 2 - int(np.ceil(np.log2(max(terms, 1))))
    fraction = max(0, min(6, (spare - 4) // 2))
    left = spare - 2 * fraction
    return fraction, max(1, 2 ** min(4, left // 2)), max(1, 2 ** min(3, left // 2 - 1))


def exact_case(
    rng: np.random.Generator,
    sizes: Sizes,
    dtype: npt.DTypeLike,
    group: str = "exact",
    mask: bool = True,
    bias: bool = True,
) -> Case:
    """Dyadic data: every intermediate is exact in any order of evaluation."""
    case = draw_case(rng, sizes, dtype, group, "border", mask, bias)
    N, og, K, _, *out = offset_shape(sizes)
    _, C, *_ = case.weight.shape
    n_o, n_i = sizes.C_out // sizes.groups, sizes.C_in // og
    P = int(np.prod(out))
    # Four corners are four terms; with 8 bits every weight of a corner is 0 or 1.
    four = 1 if case.bfloat16 else 4
    terms = max(four * K * C + 1, four * N * P, four * n_o * n_i, n_o * K * P)
    fraction, big, heavy = budget(dtype, terms)
    # Positions are exact in padded frames too: the last bit of the largest is kept.
    dp = np.abs(case.offset.astype(float)).reshape(offset_shape(sizes)) + 1
    largest = max(
        (f + dp[:, :, :, a]).max(initial=1) for a, f in enumerate(frames(case))
    )
    fraction = max(0, min(fraction, BITS[case.dtype] - int(np.ceil(np.log2(largest)))))
    whole = rng.integers
    step = 2.0**fraction
    offset = np.round(case.offset.astype(float) * step) / step

    def small(shape: Any, top: int) -> Array:
        return kept(np.asarray(whole(-top, top + 1, shape)), dtype)

    signs = rng.choice([-1, 1, 2], (N, og * K, *out)) if mask else None
    return replace(
        case,
        kind="exact",
        x=small(case.x.shape, big),
        offset=kept(offset, dtype),
        weight=small(case.weight.shape, heavy),
        mask=None if signs is None else kept(signs, dtype),
        bias=small(sizes.C_out, heavy) if bias else None,
        grad_y=small(case.y_shape, 1),
        note=f"multiples of 1/{int(step)}",
    )


FAR = 10000, 10000  # a stride that leaves one output a plane, however padded
# More numbers than float32 can count: of all planes together, and of one.
MANY = Sizes(3, 6, 4, 2, 3, 2, 3, 1000, 1000, FAR, (1, 1), (1, 2))
VAST = Sizes(1, 1, 2, 1, 1, 5, 4, 4111, 4099, FAR, (1, 1), (1, 2))
CORNER, AROUND = 9, 64  # rows and columns that hold numbers, and zeros before them


def large_case(
    rng: np.random.Generator,
    dtype: npt.DTypeLike,
    sizes: Sizes = MANY,
    mask: bool = True,
    bias: bool = True,
) -> Case:
    """More numbers than float32 can count, of which a corner is read."""
    small = sizes._replace(H=CORNER, W=CORNER)
    case = exact_case(rng, small, dtype, "sizes", mask, bias)
    # In half precision a position of 900 has one bit behind the point.
    dp = np.round(case.offset) if BITS[case.dtype] < 24 else case.offset
    down, right = shift = sizes.H - CORNER, sizes.W - CORNER
    start = np.array(shift, dp.dtype)[:, None, None]
    dp = (dp.reshape(offset_shape(small)) + start).astype(dp.dtype)
    x = np.ones((sizes.N, sizes.C_in, sizes.H, sizes.W), case.x.dtype)
    x[..., down - AROUND :, right - AROUND :] = 0
    x[..., down:, right:] = case.x
    note = f"an image of 2^24 {'pixels' if sizes.H > 2**12 else 'numbers'}"
    moved = replace(case, offset=dp.reshape(case.offset.shape), note=note)
    seen = x[..., down - AROUND :, right - AROUND :].copy()
    p, q = sizes.padding
    before = p + down - AROUND, q + right - AROUND  # the part's padding
    large = replace(moved, x=x)
    part = replace(moved, x=seen, padding=before, image=large.sizes)
    return replace(large, part=part)


def fits(sizes: Sizes) -> bool:
    """Whether anything is left to compute."""
    return min(sizes.out) >= 1


def drawn(rng: np.random.Generator, **fixed: Any) -> Sizes:
    """Sizes with the given ones held fixed."""
    for _ in range(1000):
        sizes = draw_sizes(rng, **fixed)
        if fits(sizes):
            return sizes
    raise ValueError(f"no geometry has {fixed}")
