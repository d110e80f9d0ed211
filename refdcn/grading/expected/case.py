"""The inputs a candidate is graded on: drawn geometries and exact probes.

Every array is rounded to the candidate's dtype when it is made, so that
oracle and candidate read the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import lcm
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Pair = tuple[int, int]
BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}  # of a number
NAMES = ("x", "offset", "weight", "mask", "bias")


def named(dtype: npt.DTypeLike | str) -> str:
    """Its name; NumPy has no bfloat16."""
    return "bfloat16" if dtype == "bfloat16" else np.dtype(dtype).name


def kept(a: Array, dtype: npt.DTypeLike | str) -> Array:
    """`a` rounded to a dtype; float32 arrays hold the numbers of bfloat16."""
    if named(dtype) != "bfloat16":
        return a.astype(dtype)
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    with np.errstate(over="ignore"):  # the sign bit of -NaN
        even = bits + 0x7FFF + ((bits >> 16) & 1)
    found = (even & np.uint32(0xFFFF0000)).view(np.float32)
    return np.asarray(np.where(np.isnan(a), np.float32(np.nan), found))


class Sizes(NamedTuple):
    """One geometry; H_out and W_out follow."""

    N: int
    C_in: int
    C_out: int
    groups: int
    offset_groups: int
    K_h: int
    K_w: int
    H: int
    W: int
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @property
    def out(self) -> Pair:
        """H_out, W_out."""
        axes = zip(
            (self.H, self.W),
            (self.K_h, self.K_w),
            self.stride,
            self.padding,
            self.dilation,
            strict=True,
        )
        h, w = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
        return h, w

    def __str__(self) -> str:
        said = f"N={self.N} C_in={self.C_in} C_out={self.C_out}"
        for name in ("groups", "offset_groups"):
            n = getattr(self, name)
            said += f" {name}={n}" if n != 1 else ""
        said += f" image {self.H}x{self.W} kernel {self.K_h}x{self.K_w}"
        usual = (("stride", (1, 1)), ("padding", (0, 0)), ("dilation", (1, 1)))
        for name, plain in usual:
            pair = getattr(self, name)
            said += f" {name} {pair[0]},{pair[1]}" if pair != plain else ""
        return said


@dataclass(frozen=True)
class Case:
    """One call of the candidate and how its answer is judged.

    `kind` is "bound" (the proven bound), "exact" (dyadic inputs: every
    intermediate is exact in any order, the tolerance is zero), "hostile"
    (non-finite or far inputs) or "malformed" (must be refused).
    """

    group: str
    kind: str
    x: Array
    offset: Array
    weight: Array
    mask: Array | None
    bias: Array | None
    stride: Pair
    padding: Pair
    dilation: Pair
    note: str = ""
    grad_y: Array | None = field(default=None)
    layout: str = "contiguous"
    bfloat16: bool = False  # the float32 arrays hold its numbers
    swept: tuple[str, int] | None = None  # the size that alone was changed, and to what

    @property
    def dtype(self) -> str:
        """The name of the dtype that the candidate is given."""
        return "bfloat16" if self.bfloat16 else self.x.dtype.name

    def raw(self, a: Array | None) -> Array | None:
        """An input as it is handed over: bfloat16 as its 16 bits."""
        if a is None or not self.bfloat16:
            return a
        return (np.ascontiguousarray(a).view(np.uint32) >> 16).astype(np.uint16)

    def numbers(self, a: Array) -> Array:
        """The inverse of `raw`, for what came back."""
        if not self.bfloat16:
            return a
        return (a.astype(np.uint32) << 16).view(np.float32)

    @property
    def inputs(self) -> tuple[Array | None, ...]:
        """x, offset, weight, mask, bias."""
        return self.x, self.offset, self.weight, self.mask, self.bias

    @property
    def windows(self) -> dict[str, Pair]:
        """stride, padding, dilation."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
        }

    @property
    def sizes(self) -> Sizes:
        """The geometry, read off the shapes."""
        (N, C_in, H, W), (C_out, C, K_h, K_w) = self.x.shape, self.weight.shape
        groups = C_in // C
        og = self.offset.shape[1] // (2 * K_h * K_w)
        windows = (self.stride, self.padding, self.dilation)
        return Sizes(N, C_in, C_out, groups, og, K_h, K_w, H, W, *windows)

    @property
    def y_shape(self) -> tuple[int, int, int, int]:
        """[N, C_out, H_out, W_out]."""
        return len(self.x), len(self.weight), *self.offset.shape[2:]

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.sizes} {self.dtype}{note}"


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


def base(sizes: Sizes) -> tuple[Array, Array]:
    """stride * p - padding + dilation * k: [K, H_out, 1], [K, 1, W_out]."""
    h, w = sizes.out
    i, j = np.indices((sizes.K_h, sizes.K_w)).reshape(2, -1, 1, 1)
    y = sizes.stride[0] * np.arange(h)[:, None] - sizes.padding[0]
    x = sizes.stride[1] * np.arange(w) - sizes.padding[1]
    return y + sizes.dilation[0] * i, x + sizes.dilation[1] * j


def offset_shape(sizes: Sizes) -> tuple[int, ...]:
    """[N, offset_groups, K, 2, H_out, W_out]."""
    K = sizes.K_h * sizes.K_w
    return sizes.N, sizes.offset_groups, K, 2, *sizes.out


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
