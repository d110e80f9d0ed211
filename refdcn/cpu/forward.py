"""Eq. (1) on the CPU: tiles of sampled columns, multiplied while they are in the cache.

    columns[p, (k, c)] = dm_k(p) * x_c(q)        Eq. (2)
    y[p, o]            = columns @ weight        Eq. (1)

A strategy is one way to do so, and a table says which calls it is for.
"""

# mypy: allow-untyped-defs, disable-error-code="misc,no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from refdcn import threads
from refdcn.cpu import layout, tile_sizes
from refdcn.cpu.kernels import (
    Tile,
    filter_depthwise,
    sample,
    sample_planes,
    sample_turned,
)
from refdcn.cpu.layout import CHANNELS, Array, Sizes
from refdcn.cpu.product import (
    Left,
    Product,
    Right,
    multiply,
    multiply_one,
    next_panel,
    panelled,
)
from refdcn.cpu.relayout import image_in, planes_in, product_out, rows, weights_in
from refdcn.cpu.turns import phases
from refdcn.cpu.vectors import copy, repeat, transpose
from refdcn.cpu.work import Way, visit_of
from refdcn.jit import jitable
from refdcn.shapes import Geometry

WEIGHTS = 1 << 17  # of so many, threads share the layout
PARTS = 8  # of the outputs of a small image, where its columns are shared

# Kinds of phases: weights and an image are laid out; its outputs, a tile in each turn;
# whole images, one in each turn; columns, a tap in each turn; some outputs of all.
LAY_OUT, TILES, IMAGES, COLUMNS, OUTPUTS = range(5)


class Call(NamedTuple):
    """The arrays of a call: of offset and mask [N, channels, pixels], others flat."""

    x: Array
    offset: Array
    weight: Array
    mask: Array
    bias: Array
    y: Array


class Room(NamedTuple):
    """Where threads compute."""

    w: Any
    image: Any
    columns: Any
    product: Any


@jitable
def outputs_of(turn, call, sizes, room, lay_out):
    """(n, begin, end) of a turn; of LAY_OUT and IMAGES the image is laid out first."""
    if turn.kind == TILES:
        return turn.n, turn.i * sizes.P, turn.i * sizes.P + 1
    if turn.kind == IMAGES:
        lay_out(call.x, turn.i, sizes, 0, sizes.C_in, room.image)
        return turn.i, 0, sizes.pixels
    begin = (turn.i - turn.at) * CHANNELS
    lay_out(call.x, turn.n, sizes, begin, CHANNELS, room.image)
    return turn.n, 0, 0


@jitable
def tile_from(n, first, sizes):
    """Up to P outputs."""
    return Tile(n, first, min(sizes.P, sizes.pixels - first))


# --- Rows: samples [P, (k, c)] of an image whose channels are contiguous --------------


@jitable
def rows_tile(call, sizes, room, tile):
    """Eq. (1) for a tile's outputs: T taps at a time, y += columns @ w_k."""
    K, C, T, P, width = sizes.K, sizes.C, sizes.T, tile.P, sizes.width
    for b in range(sizes.groups):
        for o in range(0, width, sizes.panel):
            size, start = min(sizes.panel, width - o), b * width + o
            repeat(call.bias, start, size, room.product, start * P, P)
    for k in range(0, K, T):
        taps, depth = (k, min(k + T, K)), min(T, K - k) * C
        steps = depth, C
        sample(call, room.image, tile, sizes, sizes.segments, taps, room.columns, steps)
        for b in range(sizes.groups):
            left = Left(room.columns, b * P * depth, depth, 1, P)
            for o in range(0, width, sizes.panel):
                size, start = min(sizes.panel, width - o), b * width + o
                w_k = Right(room.w, start * K * C + k * C * size, depth, size)
                multiply(left, w_k, Product(room.product, start * P, size), False)
    for b in range(sizes.groups):
        product_out(room.product, tile, b, sizes, call.y)


@jitable
def by_rows(call, sizes, room, turn):
    """Weights are shared among `at` turns before those of the first image."""
    if turn.kind == LAY_OUT and turn.i < turn.at:
        C = sizes.C
        panels = -(-sizes.width // sizes.panel)
        for t in range(turn.i, sizes.groups * panels, turn.at):
            b = t // panels
            run, at = (b, b * C, (b + 1) * C), b * C * sizes.width * sizes.K
            weights_in(call.weight, sizes, run, t % panels * sizes.panel, room.w, at)
        return
    n, begin, end = outputs_of(turn, call, sizes, room, image_in)
    for first in range(begin, end, sizes.P):
        rows_tile(call, sizes, room, tile_from(n, first, sizes))


# --- Depthwise: no columns, each sample is multiplied where it is made ----------------


@jitable
def by_channels(call, sizes, room, turn):
    """Eq. (1) where a group is a channel: y_c = sum_k w_kc * (dm_k x_c(q))."""
    C, K, pixels = sizes.C_in, sizes.K, sizes.pixels
    if turn.kind == LAY_OUT and turn.i < turn.at:
        transpose(call.weight, rows(0, K, C), room.w, rows(0, C, K))
        return
    n, begin, end = outputs_of(turn, call, sizes, room, image_in)
    for first in range(begin, end, sizes.P):
        tile = tile_from(n, first, sizes)
        filter_depthwise(call, room, tile, sizes)
        out = rows(n * C * pixels + first, pixels, C)
        transpose(room.product, rows(0, C, tile.P), call.y, out)


# --- The factors exchanged: weight [C_out, (c, k)], as it is, @ columns [(c, k), P] ---


@jitable
def multiply_turned(call, sizes, room, tile, outputs):
    """Eq. (1) for a tile's outputs of some of the channels of each group."""
    O, depth, pixels, P = sizes.O, sizes.K * sizes.C, sizes.pixels, tile.P
    count = outputs[1] - outputs[0]
    begin = 0
    while begin < P:
        inside, size = next_panel(P - begin, sizes.panel, call.y.itemsize)
        for b in range(sizes.groups):
            channel = b * O + outputs[0]
            out = (tile.n * sizes.groups * O + channel) * pixels + tile.first + begin
            target = Product(room.product, 0, size)
            if inside == size:  # straight into y
                target = Product(call.y, out, pixels)
            for o in range(count):
                at = target.at + o * target.row
                bias, row = call.bias[channel + o], target.array[at : at + inside]
                for p in range(inside):
                    row[p] = bias
            columns = begin * sizes.groups * depth + b * depth * size
            weights = Left(call.weight, channel * depth, depth, 1, count)
            if size == 1:
                multiply_one(weights, room.columns, columns, depth, target)
            else:
                right = Right(room.columns, columns, depth, size)
                multiply(weights, right, target, False)
            if inside < size:
                for o in range(count):
                    to, of = out + o * pixels, o * size
                    copy(room.product, of, inside, call.y, to)
        begin += inside


@jitable
def by_planes(call, sizes, room, turn):
    """All of a call of few channels: vectors run over outputs."""
    n, begin, end = outputs_of(turn, call, sizes, room, planes_in)
    for first in range(begin, end, sizes.P):
        tile = tile_from(n, first, sizes)
        sample_planes(call, room.image, tile, sizes, room.columns)
        multiply_turned(call, sizes, room, tile, (0, sizes.O))


@jitable
def by_taps(call, sizes, room, turn):
    """All of a call of few outputs, whose weights cost more to lay out than to use."""
    n, taps, outputs = turn.n, (0, sizes.K), (0, sizes.O)
    if turn.kind == COLUMNS:
        taps = turn.i, turn.i + 1
    elif turn.kind == OUTPUTS:
        outputs = turn.i * sizes.O // turn.at, (turn.i + 1) * sizes.O // turn.at
    else:
        n, _, _ = outputs_of(turn, call, sizes, room, image_in)
    if turn.kind == COLUMNS or turn.kind == IMAGES:
        sample_turned(call, room.image, n, sizes, taps, room.product, room.columns)
    if turn.kind == OUTPUTS or turn.kind == IMAGES:
        multiply_turned(call, sizes, room, tile_from(n, 0, sizes), outputs)


# --- Which of them, and how it is cut -------------------------------------------------


class Rows:
    """For all that no other one takes."""

    visit = staticmethod(visit_of(by_rows))
    tile_bytes = tile_sizes.TILE_BYTES

    def __init__(self, s: Sizes, itemsize: int) -> None:
        self.s, self.itemsize = s, itemsize

    def takes(self) -> bool:
        """Whether it is for these sizes."""
        return True

    def row(self) -> int:
        """Numbers of an output's columns and products."""
        return self.s.T * self.s.C_in + self.s.groups * self.s.width

    def room(self, P: int, image: int) -> Room:
        """For tiles of P outputs."""
        s = self.s
        columns, product = P * s.T * s.C_in, s.groups * P * s.width
        return Room((s.K * s.C_in * s.width,), (image,), (columns,), (product,))

    def shares(self, w: int, count: int) -> int:
        """Turns in which `w` weights are laid out."""
        return count if w >= WEIGHTS else 1

    def after(self, n: int, tiles: int, flops: int) -> list[tuple[int, ...]]:
        """The phases of an image that is laid out."""
        return [(tiles, TILES, n, 0)]


class Channels(Rows):
    """Depthwise: 4.2 times faster at 1x256x28x28, 3.6 at 1x1536x7x7."""

    visit = staticmethod(visit_of(by_channels))
    tile_bytes = tile_sizes.TILE_BYTES // 4

    def __init__(self, s: Sizes, itemsize: int) -> None:
        # What a group is makes no difference to where channels go.
        cut = layout.segments_of(s._replace(groups=1))
        super().__init__(s._replace(segments=cut, width=s.O), itemsize)

    def takes(self) -> bool:
        return self.s.C == self.s.O == 1 and self.s.C_in >= 4 * self.s.offset_groups

    def row(self) -> int:
        return self.s.C_in

    def room(self, P: int, image: int) -> Room:
        s = self.s
        return Room((s.K * s.C_in,), (image,), (0,), (P * s.C_in,))


class Planes(Rows):
    """Under 4 channels of one group and offset group: 2 to 4 times faster."""

    visit = staticmethod(visit_of(by_planes))

    def __init__(self, s: Sizes, itemsize: int) -> None:
        super().__init__(s._replace(width=s.O), itemsize)

    def takes(self) -> bool:
        return self.s.C_in // max(self.s.groups, self.s.offset_groups) < 4

    def row(self) -> int:
        return self.s.K * self.s.C_in

    def room(self, P: int, image: int) -> Room:
        s = self.s
        columns = panelled(P, self.itemsize) * s.C_in * s.K
        return Room((0,), (image,), (columns,), (s.panel * max(s.O, s.C_in),))

    def shares(self, w: int, count: int) -> int:
        return 0


class Taps(Planes):
    """Weights of more outputs than an image has pixels, 1x512x7x7: 1.4 times faster."""

    visit = staticmethod(visit_of(by_taps))
    tile_bytes = tile_sizes.IMAGE_BYTES

    def takes(self) -> bool:
        columns = self.row() * self.s.pixels * self.itemsize
        return 3 * self.s.pixels < self.s.O and columns <= tile_sizes.IMAGE_BYTES

    def after(self, n: int, tiles: int, flops: int) -> list[tuple[int, ...]]:
        parts = max(
            1, min(self.s.O // 16, max(PARTS, int(flops // tile_sizes.VISIT_FLOPS)))
        )
        return [(self.s.K, COLUMNS, n, 0), (parts, OUTPUTS, n, parts)]


# The first that takes a call computes it. Gains: float32, one thread, against the next.
STRATEGIES = (Channels, Planes, Taps, Rows)


def strategy(s: Sizes, itemsize: int) -> Rows:
    """The one that a call of these sizes is computed by."""
    return next(how for how in (h(s, itemsize) for h in STRATEGIES) if how.takes())


@lru_cache(256)
def laid_out(g: Geometry, channels: int, last: bool, itemsize: int, count: int) -> Way:
    """How a geometry is computed on `count` threads: the bits are those of any number.

    Its x has so many channels, `last` or in planes.
    """
    how = strategy(layout.sizes(g, channels, last, itemsize), itemsize)
    s, flops = how.s, 2 * how.s.pixels * g.C_out * how.s.C * how.s.K
    work = tile_sizes.work(s, flops)
    P = tile_sizes.tile(s.pixels, how.row() * itemsize, work, how.tile_bytes)
    s = s._replace(P=s.pixels if type(how) is Taps else P)
    tiles, image = -(-s.pixels // s.P), layout.image_size(s)
    fits = image * itemsize <= tile_sizes.IMAGE_BYTES and flops < tile_sizes.VISIT_FLOPS
    whole = fits and (g.N >= 2 * count or g.N % count == 0)
    room, parts = how.room(s.P, image), -(-s.C_in // CHANNELS)
    shares = how.shares(room.w[0], count)
    made: list[tuple[int, ...]] = []
    if whole:
        made += [(shares, LAY_OUT, 0, shares), (g.N, IMAGES, 0, 0)]
    for n in () if whole else range(g.N):
        first = shares if n == 0 else 0
        made += [(first + parts, LAY_OUT, n, first), *how.after(n, tiles, flops)]
    a_turn = work / (1 if whole else tiles)
    most = max(1, int(tile_sizes.VISIT_FLOPS / max(a_turn, 1e4)))
    shared = {"w"} if whole else {"w", "image"}
    if type(how) is Taps and not whole:
        shared.add("columns")
    return Way(how.visit, s, phases(made), most, room, frozenset(shared))


def forward(
    x: Array,
    offset: Array,
    weight: Array,
    mask: Array | None,
    bias: Array | None,
    geometry: Geometry,
    thread_count: int | None = None,
    team: threads.Team | None = None,
    *,
    empty: Callable[..., Array] = np.empty,
) -> Array:
    """y [N, C_out, H_out, W_out] of NumPy arrays of one dtype, float32 or float64.

    `empty` finds its memory, as np.empty does.
    """
    weight, g = layout.filled(weight, geometry)
    count = tile_sizes.thread_count(g, thread_count)
    x, last = layout.flat_image(x)
    way = laid_out(g, geometry.C_in, last, x.itemsize, count)
    s = way.cut
    y = empty((g.N, g.C_out, g.H_out, g.W_out), x.dtype)
    # Of each group, as wide as its product is.
    filled = np.zeros((g.groups, s.width), x.dtype)
    if bias is not None:
        filled[:, : s.O] = bias.reshape(g.groups, s.O)
    call = Call(
        x, layout.plain_pixels(offset), layout.plain(weight).reshape(-1),
        layout.plain_mask(mask, x.dtype), filled.reshape(-1), y.reshape(-1),
    )  # fmt: skip
    if y.size:
        way.run(call, count, team)
    return y
