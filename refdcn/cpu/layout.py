"""How images, weights and columns lie in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from refdcn.cpu.product import PANEL_BYTES, panelled, taps
from refdcn.shapes import Geometry

Array: TypeAlias = npt.NDArray[Any]

CHANNELS = 32  # of an image laid out in one turn


class Sizes(NamedTuple):
    """Of a call, as kernels take them."""

    C_in: int  # of the image as it is laid out
    C_x: int  # of x, which may have fewer
    last: bool  # whether the channels of x are contiguous
    H: int
    W: int
    W_out: int
    pixels: int  # outputs a channel
    K: int
    K_w: int
    groups: int
    offset_groups: int
    C: int  # input channels a group
    O: int  # output channels a group
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    panel: int  # columns of a panel; see product.py
    width: int  # O, rounded up to whole vectors
    P: int  # outputs a tile, the same for any number of threads, and so are the sums
    T: int  # taps whose columns are multiplied at once
    segments: Array  # runs of channels in one offset group and group; see kernels.py


def sizes(g: Geometry, channels: int, last: bool, itemsize: int) -> Sizes:
    """The sizes of a geometry whose x has so many channels; tiles are of one output."""
    K, C, O = g.K_h * g.K_w, g.C_in // g.groups, g.C_out // g.groups
    return Sizes(
        g.C_in, channels, last, g.H, g.W, g.W_out, g.H_out * g.W_out, K, g.K_w,
        g.groups, g.offset_groups, C, O, g.stride, g.padding, g.dilation,
        PANEL_BYTES // itemsize, panelled(O, itemsize), 1, taps(K, C), segments_of(g),
    )  # fmt: skip


def image_size(s: Sizes) -> int:
    """Numbers of an image in its frame."""
    return (s.H + 3) * (s.W + 2) * s.C_in


def segments_of(g: Geometry | Sizes, ends: Iterable[int] = ()) -> Array:
    """Runs of channels in one offset group, one group, and between such ends.

    Their columns are counted by group.
    """
    per_offset, C = g.C_in // g.offset_groups, g.C_in // g.groups
    cuts = sorted({*range(0, g.C_in, per_offset), *range(0, g.C_in, C), g.C_in, *ends})
    first = np.array(cuts[:-1])
    rows = first // per_offset, first, cuts[1:], first // C, first % C
    return np.stack(rows, 1).astype(np.int64)


def flat_image(x: Array) -> tuple[Array, bool]:
    """x as it lies, flat, and whether its channels are contiguous."""
    last = x.transpose(0, 2, 3, 1)
    if not x.flags.carray and last.flags.carray:
        return last.reshape(-1), True
    return plain(x).reshape(-1), False


def filled(weight: Array, g: Geometry) -> tuple[Array, Geometry]:
    """An RGB image and the like get channels of zeros, up to a short vector of four."""
    if not 3 <= g.C_in < 8 or g.C_in % 4 == 0 or g.groups * g.offset_groups > 1:
        return weight, g
    C_in = (g.C_in + 3) // 4 * 4
    more = np.zeros((g.C_out, C_in, g.K_h, g.K_w), weight.dtype)
    more[:, : g.C_in] = weight
    return more, g._replace(C_in=C_in)


def plain(a: Array) -> Array:
    """The layout that the kernels are compiled for; a copy only where it differs."""
    if a.flags.carray:  # all three of them; np.require takes 3 us to see that
        return a
    return np.require(a, requirements=("C_CONTIGUOUS", "ALIGNED", "WRITEABLE"))


def plain_mask(mask: Array | None, dtype: Any) -> Array:
    """[N, offset_groups * K, H_out * W_out], empty for None."""
    if mask is None:
        return np.empty((0, 0, 0), dtype)
    return plain_pixels(mask)


def plain_pixels(a: Array) -> Array:
    """[N, channels, H_out * W_out]."""
    return plain(a).reshape(*a.shape[:2], a.shape[2] * a.shape[3])
