"""How images, weights and columns lie in memory, and how a call is cut into tiles."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from refdcn import threads
from refdcn.cpu import kernels
from refdcn.jit import compiled
from refdcn.shapes import Geometry

Array: TypeAlias = npt.NDArray[Any]
Run: TypeAlias = tuple[int, int, int]  # channels begin ... end - 1 of x, in group b

TILE_BYTES = 4 << 20  # of a tile's columns: half of what a thread may keep
SERIAL_FLOPS = 4_000_000  # below this, waking a thread costs more than it saves


class Plan(NamedTuple):
    """What every tile needs to know."""

    g: Geometry
    K: int
    C: int  # input channels a group
    O: int  # output channels a group
    P: int  # outputs a tile, the same for any number of threads, and so are the sums
    pixels: int  # outputs a channel
    sizes: tuple[Any, ...]  # what kernels.find_cells takes
    inner: Array  # where each pixel of x stands in the padded image
    threads: int


def plan(g: Geometry, itemsize: int, thread_count: int | None) -> Plan:
    """Tiles of about TILE_BYTES, all but the last of one size."""
    K, C, O = g.K_h * g.K_w, g.C_in // g.groups, g.C_out // g.groups
    pixels = g.H_out * g.W_out
    tiles = -(-pixels * K * g.C_in * itemsize // TILE_BYTES)
    P = min(pixels, -(-pixels // (tiles * kernels.BLOCK)) * kernels.BLOCK)
    flops = 2 * g.N * pixels * g.C_out * C * K
    count = 1
    if flops >= SERIAL_FLOPS:
        count = thread_count or threads.get_num_threads()
    sizes = (g.H, g.W, g.W_out, g.K_w, g.stride, g.padding, g.dilation)
    inner = ((np.arange(g.H) + 1) * (g.W + 2))[:, None] + (np.arange(g.W) + 1)
    return Plan(g, K, C, O, P, pixels, sizes, inner.ravel(), count)


def plain(a: Array) -> Array:
    """The layout that the kernels are compiled for; a copy only where it differs."""
    if a.flags.carray:  # all three of them; np.require takes 3 us to see that
        return a
    return np.require(a, requirements=("C_CONTIGUOUS", "ALIGNED", "WRITEABLE"))


def plain_mask(mask: Array | None, dtype: Any) -> Array:
    """[N, offset_groups * K, H_out * W_out], empty for None."""
    if mask is None:
        return np.empty((0, 0, 0), dtype)
    return plain(mask).reshape(*mask.shape[:2], mask.shape[2] * mask.shape[3])


def segments(g: Geometry, begin: int, end: int, first: int | None = None) -> Array:
    """Runs of channels in one offset group and one group; see kernels.sample.

    Their columns are counted from channel `first`, by group if that is None.
    """
    per_offset, C = g.C_in // g.offset_groups, g.C_in // g.groups
    inner = {*range(0, g.C_in, per_offset), *range(0, g.C_in, C)}
    cuts = sorted({begin, end} | {c for c in inner if begin < c < end})
    rows = [
        (c // per_offset, c, d, *(divmod(c, C) if first is None else (0, c - first)))
        for c, d in zip(cuts, cuts[1:], strict=False)
    ]
    return np.array(rows, np.int64)


def padded_image(x: Array, p: Plan, planar: bool = False) -> Array:
    """x [C_in, H, W] in zeros, flat [(H + 3) * (W + 2), C_in], C_in first if planar."""
    C_in, H, W = x.shape
    image: Array = threads.scratch("image", (H + 3) * (W + 2) * C_in, x.dtype)
    shape = (C_in, H + 3, W + 2) if planar else (H + 3, W + 2, C_in)
    rows = image.reshape(shape)
    if planar:
        rows = rows.transpose(1, 2, 0)
    rows[0], rows[-2:], rows[:, 0], rows[:, -1] = 0, 0, 0, 0
    if planar or x.transpose(1, 2, 0).flags.c_contiguous:  # channels last already
        rows[1:-2, 1:-1] = x.transpose(1, 2, 0)
    else:
        of = np.arange(C_in) * (H * W)
        _move(plain(x).reshape(-1), of, image, p.inner * C_in)
    return image


def unfill(image: Array, x: Array, n: int, p: Plan) -> None:
    """The middle of the padded image into x[n]."""
    C_in, area = p.g.C_in, p.g.H * p.g.W
    rows = (n * C_in + np.arange(C_in)) * area
    _move(image, p.inner * C_in, x.reshape(-1), rows)


def store(product: Array, y: Array, channel: int, first: int, p: Plan) -> None:
    """product [P, O] into channels `channel` ... of y, from output `first` on."""
    P, O = product.shape
    rows = (channel + np.arange(O)) * p.pixels + first
    _move(product.reshape(-1), np.arange(P) * O, y.reshape(-1), rows)


def weight_rows(p: Plan, runs: list[Run]) -> Array:
    """[groups, C * K]: where (run, k, c of the run) puts the O weights of (c, k)."""
    rows = np.empty((p.g.C_in, p.K), np.int64)
    for _, begin, end in runs:
        c, k = np.arange(end - begin)[:, None], np.arange(p.K)
        rows[begin:end] = (begin * p.K + k * (end - begin) + c) * p.O
    return rows.reshape(p.g.groups, -1)


def weights_in(weight: Array, w: Array, rows: Array, p: Plan) -> None:
    """weight [C_out, C, K_h, K_w] into w, whose rows are of O weights each."""
    for group, inner in enumerate(rows):
        outer = (group * p.O + np.arange(p.O)) * p.C * p.K
        _move(plain(weight).reshape(-1), outer, w, inner)


def weights_out(w: Array, weight: Array, rows: Array, p: Plan) -> None:
    """The inverse of weights_in."""
    for group, inner in enumerate(rows):
        outer = (group * p.O + np.arange(p.O)) * p.C * p.K
        _move(w, inner, weight.reshape(-1), outer)


def _move(source: Array, source_rows: Array, target: Array, target_rows: Array) -> None:
    """target[target_rows[j] + i] = source[source_rows[i] + j]."""
    compiled(kernels.transposed)(source, source_rows, target, target_rows)
