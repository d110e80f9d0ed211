"""How images, weights and columns lie in memory, and how a call is cut into tiles."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from refdcn import scratch, threads
from refdcn.cpu import relayout
from refdcn.cpu.product import DEPTH, PANEL_BYTES, panelled
from refdcn.jit import compiled
from refdcn.shapes import Geometry

Array: TypeAlias = npt.NDArray[Any]

TILE_BYTES = 1 << 20  # of a tile's columns and product: half of a second cache
IMAGE_BYTES = 4 << 20  # of an image that one thread may have to itself
TILES = 8  # of an image, where it can fill them: so that threads end together
SERIAL_FLOPS = 4_000_000  # below this, waking a thread costs more than it saves
SERIAL_CHANNELS = 32  # that one task lays out


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
    P: int  # outputs a tile, the same for any number of threads, and so are the sums
    T: int  # taps whose columns are multiplied at once


def sizes(g: Geometry, channels: int, last: bool) -> Sizes:
    """The sizes of a geometry whose x has so many channels; tiles are of one output."""
    K, C = g.K_h * g.K_w, g.C_in // g.groups
    return Sizes(
        g.C_in, channels, last, g.H, g.W, g.W_out, g.H_out * g.W_out, K, g.K_w,
        g.groups, g.offset_groups, C, g.C_out // g.groups, g.stride, g.padding,
        g.dilation, 1, taps(K, C),
    )  # fmt: skip


def width(s: Sizes, itemsize: int) -> int:
    """Output channels of a group, rounded up to whole vectors."""
    return padded(s.O, itemsize)


def padded(C: int, itemsize: int) -> int:
    """C rounded up to whole vectors."""
    lanes = PANEL_BYTES // itemsize // 4
    return -(-C // lanes) * lanes


def image_size(s: Sizes) -> int:
    """Numbers of an image in its frame."""
    return (s.H + 3) * (s.W + 2) * s.C_in


def segments_of(g: Any, step: int | None = None) -> Array:
    """Runs of channels in one offset group, one group and one run of `step`.

    See kernels.sample. Their columns are counted by group.
    """
    per_offset, C = g.C_in // g.offset_groups, g.C_in // g.groups
    sizes = per_offset, C, step or g.C_in
    cuts = sorted({c for size in sizes for c in (*range(0, g.C_in, size), g.C_in)})
    first = np.array(cuts[:-1])
    rows = first // per_offset, first, cuts[1:], first // C, first % C
    return np.stack(rows, 1).astype(np.int64)


def flat_image(x: Array) -> tuple[Array, bool]:
    """x as it lies, flat, and whether its channels are contiguous."""
    last = x.transpose(0, 2, 3, 1)
    if not x.flags.carray and last.flags.carray:
        return last.reshape(-1), True
    return plain(x).reshape(-1), False


class Plan(NamedTuple):
    """What every tile needs to know."""

    g: Geometry
    K: int
    C: int  # input channels a group
    O: int  # output channels a group
    P: int  # outputs a tile, the same for any number of threads, and so are the sums
    pixels: int  # outputs a channel
    sizes: Sizes
    image: tuple[int, int, int]  # C_in, H, W
    weight: tuple[int, int, int]  # C, K, O
    flops: int
    T: int  # taps whose columns are multiplied at once
    width: int  # O, rounded up to whole vectors
    panel: int  # columns of a panel; see product.py

    def padded(self, C: int) -> int:
        """C rounded up to whole vectors."""
        lanes = self.panel // 4
        return -(-C // lanes) * lanes


@lru_cache(64)
def plan(g: Geometry, itemsize: int) -> Plan:
    """The sizes of a call that its kernels take."""
    K, C, O = g.K_h * g.K_w, g.C_in // g.groups, g.C_out // g.groups
    pixels = g.H_out * g.W_out
    T = taps(K, C)
    width = panelled(O, itemsize)
    row_bytes = (T * g.C_in + g.groups * width) * itemsize  # of columns, of the product
    P = tile(pixels, row_bytes, 2 * pixels * g.C_out * C * K)
    flops = 2 * g.N * pixels * g.C_out * C * K
    image, weight = (g.C_in, g.H, g.W), (C, K, O)
    panel = PANEL_BYTES // itemsize
    made = sizes(g, g.C_in, False)
    return Plan(
        g, K, C, O, P, pixels, made, image, weight, flops, T, width, panel
    )  # fmt: skip


def taps(K: int, C: int) -> int:
    """How many taps of C channels have their columns made and multiplied at once."""
    return max(1, min(K, DEPTH // C))


def tile(pixels: int, row_bytes: int, flops: int, most: int = TILE_BYTES) -> int:
    """Outputs a tile: up to TILES of 192 or more, or 2 of 96 or more, of `most` bytes.

    None takes less work than it costs to begin it, and its product reads all weights.
    """
    tiles = min(TILES, 2 * (pixels // (2 * 192)) or pixels // 96 or 1)
    tiles = min(tiles, flops // SERIAL_FLOPS or 1)
    return equal(pixels, row_bytes, most, tiles)


def equal(pixels: int, row_bytes: int, tile_bytes: int, least: int) -> int:
    """Outputs a tile where `least` tiles or a multiple of it are as equal as can be."""
    tiles = least * -(-pixels * row_bytes // (least * tile_bytes))
    return min(pixels, -(-pixels // (8 * tiles)) * 8)


def thread_count(g: Geometry, wanted: int | None) -> int:
    """How many threads to use, of those that are wanted or set."""
    product = g.C_in // g.groups * g.C_out + 4 * g.C_in
    if 2 * g.N * g.H_out * g.W_out * g.K_h * g.K_w * product < SERIAL_FLOPS:
        return 1
    return wanted or threads.get_num_threads()


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


def panels(
    weight: Array,
    runs: Array,
    p: Plan,
) -> Array:
    """The flat weight as panels [K, C, O] of each run, one after another."""
    size = p.K * p.width * int((runs[:, 2] - runs[:, 1]).sum())
    w: Array = scratch.array("w", size, weight.dtype)
    compiled(relayout.weights_in)(weight, p.weight, runs, (0, 1), w)
    return w


def in_runs(
    task: Callable[[int, int], None], C: int, count: int, team: threads.Team | None
) -> None:
    """task(begin, end) for C channels, in runs where threads can share them."""
    step = SERIAL_CHANNELS if count > 1 else max(C, 1)

    def run(t: int) -> None:
        task(t * step, min((t + 1) * step, C))

    threads.run(threads.Tasks(run, -(-C // step)), min(count, -(-C // step)), team)


@lru_cache(256)
def segments(g: Geometry, begin: int, end: int, first: int | None = None) -> Array:
    """Runs of channels in one offset group and one group; see kernels.sample.

    Their columns are counted from channel `first`, by group if that is None.
    """
    per_offset, C = g.C_in // g.offset_groups, g.C_in // g.groups
    inner = [
        c for size in (per_offset, C) for c in range(begin - begin % size, end, size)
    ]
    cuts = sorted({begin, end} | {c for c in inner if begin < c < end})
    rows = [
        (c // per_offset, c, d, *(divmod(c, C) if first is None else (0, c - first)))
        for c, d in zip(cuts, cuts[1:], strict=False)
    ]
    return np.array(rows, np.int64)


@lru_cache(64)
def runs(g: Geometry, most: int | None = None) -> Array:
    """(group, begin, end): the channels of x in runs inside groups, `most` in each."""
    C = g.C_in // g.groups
    size = most or C
    rows = [
        (b, begin, min(begin + size, (b + 1) * C))
        for b in range(g.groups)
        for begin in range(b * C, (b + 1) * C, size)
    ]
    return np.array(rows, np.int64)


def padded_image(
    x: Array, p: Plan, count: int = 1, team: threads.Team | None = None
) -> Array:
    """x in zeros, flat [(H + 3) * (W + 2), C_in]."""
    C_in, H, W = p.image
    C = len(x)
    image: Array = scratch.array("image", (H + 3) * (W + 2) * C_in, x.dtype)
    if C < C_in:
        image.fill(0)
    if x.transpose(1, 2, 0).flags.c_contiguous:  # channels last already
        rows = image.reshape(H + 3, W + 2, C_in)
        rows[0], rows[-2:], rows[:, 0], rows[:, -1] = 0, 0, 0, 0
        rows[1:-2, 1:-1, :C] = x.transpose(1, 2, 0)
        return image
    source = plain(x).reshape(-1)

    def channels(begin: int, end: int) -> None:
        compiled(relayout.image_in)(source, 0, p.image, begin, end, image)

    in_runs(channels, C, count, team)
    return image
