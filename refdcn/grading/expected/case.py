"""One call of a candidate: its inputs, their geometry, and where its taps lie."""

from __future__ import annotations

from dataclasses import dataclass, field
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
        h, w = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1 if s else 0 for n, k, s, p, d in axes
        )
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
    # The same call on the lower right corner of x, beyond which it reads nothing.
    part: Case | None = field(default=None, repr=False)
    image: Sizes | None = None  # of the call that this is a part of

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
