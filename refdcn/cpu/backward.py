"""Eq. (1) differentiated on the CPU: two matrix products a tile.

    grad_weight  = columns^T @ grad_y        d / dw, the columns as in forward.py
    grad_columns = grad_y @ weight^T         d / d(dm_k x(q)), spread by Eqs. (2), (4)

No two turns add to one number: small images are dealt to shares with sums of their own,
which are added in one order; else each run of channels is a turn, or, where one run has
them all, each half of an image, with a grad_x of its own.
So the bits are the same for any number of threads.
"""

# mypy: allow-untyped-defs, disable-error-code="misc,no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from refdcn import threads
from refdcn.cpu import depthwise, layout, tile_sizes
from refdcn.cpu.kernels import Spread, Tile, add_part, gather, sample, spread
from refdcn.cpu.layout import CHANNELS, Array, Sizes
from refdcn.cpu.product import Left, Product, Right, multiply, panelled
from refdcn.cpu.product import taps as taps_of
from refdcn.cpu.relayout import (
    clear_channels,
    grad_y_in,
    image_in,
    image_out,
    weights_in,
    weights_out,
    weights_turned,
)
from refdcn.cpu.turns import phases
from refdcn.cpu.work import Way, visit_of
from refdcn.jit import jitable
from refdcn.shapes import Geometry

MOST_SHARES = 8  # of the images of a batch
TILE_BYTES = 1 << 19  # of a run's columns
PARTS_BYTES = 1 << 20  # of the channel sums that are added at once

# Kinds of phases: weights and an image are laid out; all of some images, a share in
# each turn; tiles of an image, a half in each turn; the same, a run in each turn, and
# then their channel sums, a tap in each turn; grad_x of an image, first the sum of
# its halves; grad_weight.
LAY_OUT, IMAGES, HALVES, RUNS, GATHER, ADD, STORE, WEIGHTS = range(8)


class Gradients(NamedTuple):
    """The derivatives of sum(grad_y * y); None where not given or not asked for."""

    x: Array | None
    offset: Array | None
    weight: Array | None
    mask: Array | None
    bias: Array | None


class Inputs(NamedTuple):
    """What the gradients are of."""

    x: Array
    offset: Array
    weight: Array
    mask: Array | None
    bias: Array | None


class Call(NamedTuple):
    """The arrays of a call: of offset and mask [N, channels, pixels], others flat."""

    grad_y: Array
    x: Array
    offset: Array
    weight: Array
    mask: Array
    grad_x: Array
    grad_offset: Array
    grad_weight: Array
    grad_mask: Array
    by_x: bool  # whether grad_x is asked for
    by_columns: bool  # or any other that is not grad_weight
    by_weight: bool


class Cut(NamedTuple):
    """How a call is cut, the same for any number of threads, and so are all sums."""

    sizes: Sizes
    runs: Array  # [runs, 7]: group, channels of x, segments, numbers of the weights
    segments: Array  # of all runs, with columns counted from each run's first channel
    weights: int  # numbers of the weights of all runs
    dealt: bool  # whether images are dealt to shares
    shares: int  # of images, or of the tiles of each image
    once: bool  # each run's weights are used once: they are laid out where they are
    span: int  # tiles of a turn, or rounds of images
    held: int  # tiles whose channel sums are kept


class Room(NamedTuple):
    """Where threads compute."""

    w: Any  # [K, O, C] of each run
    grad_w: Any  # [K, C, O] of each run of each share
    image: Any
    grad_image: Any
    parts: Any  # [segments, K, 3, outputs]
    grad_rows: Any  # [P, O]
    columns: Any  # [P, taps, C]
    grad_columns: Any  # [taps, P, C]


# --- A tile ---------------------------------------------------------------------------


@jitable
def turn_weights(call, cut, room, t):
    """The weights of run t as panels [K, O, C], by way of room for its grad_w."""
    b, begin, end, _, _, w, _ = cut.runs[t]
    run = b, begin, end
    if call.by_columns:
        for o in range(0, cut.sizes.width, cut.sizes.panel):
            weights_in(call.weight, cut.sizes, run, o, room.grad_w, w)
        weights_turned(room.grad_w, cut.sizes, run, room.w, w)


@jitable
def grad_columns(room, sizes, w, C, taps, P):
    """grad_y @ w_k^T of some taps, into [taps, P, wide]."""
    O, panel, wide = sizes.O, sizes.panel, panelled(C, room.w.itemsize)
    for k in range(taps[0], taps[1]):
        target = Product(room.grad_columns, (k - taps[0]) * P * wide, wide)
        for o in range(0, O, panel):
            size, inside = min(panel, sizes.width - o), min(panel, O - o)
            w_k = Right(room.w, w + (k * O + o) * wide, inside, wide)
            multiply(Left(room.grad_rows, o * P, size, 1, P), w_k, target, o == 0)


@jitable
def add_weights(room, sizes, grad_w, C, taps, P, fresh):
    """grad_w += columns^T @ grad_y of some taps."""
    depth = (taps[1] - taps[0]) * C
    columns = Left(room.columns, 0, 1, depth, depth)
    for o in range(0, sizes.width, sizes.panel):
        size = min(sizes.panel, sizes.width - o)
        at = grad_w + (o * sizes.K + taps[0] * size) * C
        grad_y = Right(room.grad_rows, o * P, P, size)
        multiply(columns, grad_y, Product(room.grad_w, at, size), fresh)


@jitable
def run_tile(call, cut, room, t, tile, share):
    """What run t of a tile gives to each gradient."""
    sizes, K, P = cut.sizes, cut.sizes.K, cut.sizes.P
    b, begin, end, s, last, w, _ = cut.runs[t]
    C, T = end - begin, taps_of(K, end - begin)
    segments, grad_w = cut.segments[s:last], w + share * cut.weights
    is_first = tile.n == (share if cut.dealt else 0)
    fresh = is_first and tile.first == (0 if cut.dealt else share * P)
    data = Spread(
        room.image, room.grad_image[share % len(room.grad_image)], room.columns,
        room.grad_columns, C, panelled(C, room.image.itemsize),
    )  # fmt: skip
    grad_y_in(call.grad_y, tile, b, sizes, room.grad_rows)
    for k in range(0, K, T):
        taps = k, min(k + T, K)
        if call.by_columns:
            grad_columns(room, sizes, w, C, taps, tile.P)
            at = tile.first // P % cut.held * P
            spread(call, data, tile, sizes, segments, taps, room.parts[s:last], at)
        else:
            steps = (taps[1] - k) * C, C
            sample(call, room.image, tile, sizes, segments, taps, room.columns, steps)
        if call.by_weight:
            add_weights(room, sizes, grad_w, C, taps, tile.P, fresh)


@jitable
def sweep(call, cut, room, n, i, share):
    """All runs of tile i of image n."""
    sizes = cut.sizes
    tile = Tile(n, i * sizes.P, min(sizes.P, sizes.pixels - i * sizes.P))
    for t in range(len(cut.runs)):
        run_tile(call, cut, room, t, tile, share)
    if call.by_columns:
        for k in range(sizes.K):
            gather(call, room.parts, tile, sizes, cut.segments, k)


# --- A turn ---------------------------------------------------------------------------


@jitable
def some_images(call, cut, room, share, first):
    """Every so many of the batch, a round in each."""
    sizes, tiles = cut.sizes, -(-cut.sizes.pixels // cut.sizes.P)
    end = min(first + cut.span * cut.shares, len(call.offset))
    for n in range(first + share, end, cut.shares):
        image_in(call.x, n, sizes, 0, sizes.C_in, room.image)
        clear_channels(sizes, 0, sizes.C_in, room.grad_image[0])
        for i in range(tiles):
            sweep(call, cut, room, n, i, share)
        if call.by_x:
            image_out(room.grad_image[0], n, sizes, 0, sizes.C_in, call.grad_x)


@jitable
def one_run(call, cut, room, t, n, first):
    """Run t of some tiles of image n."""
    _, begin, end, _, _, _, _ = cut.runs[t]
    sizes, P = cut.sizes, cut.sizes.P
    if first == 0:
        clear_channels(sizes, begin, end, room.grad_image[0])
    if cut.once:
        turn_weights(call, cut, room, t)
    end = min((first + cut.span) * P, sizes.pixels)
    for at in range(first * P, end, P):
        tile = Tile(n, at, min(P, sizes.pixels - at))
        run_tile(call, cut, room, t, tile, 0)
    if cut.once:
        store_weights(call, cut, room, t)


@jitable
def add_halves(room, part, parts):
    """A part of the grad_x of one half to that of the other."""
    size = len(room.grad_image[0])
    begin, end = size * part // parts, size * (part + 1) // parts
    add_part(room.grad_image[1][begin:end], False, room.grad_image[0][begin:end])


@jitable
def store_weights(call, cut, room, t):
    """grad_weight of run t, the sum of all shares in order."""
    b, begin, end, _, _, w, last = cut.runs[t]
    if not call.by_weight:
        return
    for share in range(1, cut.shares):
        at = share * cut.weights
        add_part(room.grad_w[at + w : at + last], False, room.grad_w[w:last])
    for o in range(0, cut.sizes.width, cut.sizes.panel):
        weights_out(room.grad_w, cut.sizes, (b, begin, end), o, call.grad_weight, w)


@jitable
def by_products(call, cut, room, turn):
    """All gradients of a call."""
    sizes, n, at, i = cut.sizes, turn.n, turn.at, turn.i
    if turn.kind == LAY_OUT and i < at:
        turn_weights(call, cut, room, i)
    elif turn.kind == LAY_OUT:
        image_in(call.x, n, sizes, (i - at) * CHANNELS, CHANNELS, room.image)
    elif turn.kind == IMAGES:
        some_images(call, cut, room, i, n)
    elif turn.kind == HALVES:
        if at == 0:
            clear_channels(sizes, 0, sizes.C_in, room.grad_image[i])
        last = min(at + cut.span, -(-sizes.pixels // sizes.P))
        for t in range(at + i, last, cut.shares):
            sweep(call, cut, room, n, t, i)
    elif turn.kind == RUNS:
        one_run(call, cut, room, i, n, at)
    elif turn.kind == GATHER:
        if call.by_columns:
            first = at * sizes.P
            count = min(cut.span * sizes.P, sizes.pixels - first)
            tile = Tile(n, first, count)
            gather(call, room.parts, tile, sizes, cut.segments, i)
    elif turn.kind == ADD:
        add_halves(room, i, at)
    elif turn.kind == STORE:
        if call.by_x:
            grad_x, begin = call.grad_x, i * CHANNELS
            image_out(room.grad_image[0], n, sizes, begin, CHANNELS, grad_x)
    else:
        store_weights(call, cut, room, i)


visit = visit_of(by_products)


# --- How a call is cut ----------------------------------------------------------------


def _runs(g: Geometry, s: Sizes, itemsize: int) -> list[tuple[int, int, int]]:
    """(group, begin, end): channels of a group, all or equal parts of at most a panel.

    Two at least of a large image, which threads then share without a second grad_x.
    """
    parts = -(-s.C // s.panel)
    if g.groups == 1 and s.C >= 32 and _is_large(s, itemsize):
        parts = max(parts, 2)
    most = -(-s.C // (16 * parts)) * 16
    return [
        (b, begin, min(begin + most, (b + 1) * s.C))
        for b in range(g.groups)
        for begin in range(b * s.C, (b + 1) * s.C, most)
    ]


def _is_large(s: Sizes, itemsize: int) -> bool:
    """Whether an image is more than one thread may have to itself."""
    return layout.image_size(s) * itemsize > tile_sizes.IMAGE_BYTES


def _segments(g: Geometry, runs: list[tuple[int, int, int]]) -> tuple[Array, Array]:
    """Those of all runs, with columns counted in each, and the run of each."""
    begins = np.array([begin for _, begin, _ in runs])
    segments = layout.segments_of(g, begins.tolist())
    run = np.searchsorted(begins, segments[:, 1], "right") - 1
    segments[:, 3], segments[:, 4] = 0, segments[:, 1] - begins[run]
    return segments, run


@lru_cache(256)
def laid_out(g: Geometry, channels: int, last: bool, itemsize: int) -> Way:
    """How the gradients of a geometry are computed."""
    s = layout.sizes(g, channels, last, itemsize)
    runs = _runs(g, s, itemsize)
    segments, run = _segments(g, runs)
    C = [end - begin for _, begin, end in runs]
    wide = [panelled(c, itemsize) for c in C]
    # Of [K, C, O] and of [K, O, C], in panels, the larger one.
    w = [s.K * max(c * s.width, s.O * v) for c, v in zip(C, wide, strict=True)]
    images = min(g.N, MOST_SHARES, tile_sizes.IMAGE_BYTES // max(1, sum(w) * itemsize))
    dealt = images > 1 and not _is_large(s, itemsize)
    halves = 2 if not dealt and len(runs) == 1 and s.pixels >= 192 else 1
    # Columns are of one run, parts of all: many with many groups.
    columns, parts = max(taps_of(s.K, c) * c for c in C), 3 * s.K * len(segments)
    row_bytes = max(2 * columns, s.width, parts) * itemsize
    P = tile_sizes.equal(s.pixels, row_bytes, TILE_BYTES, halves)
    tiles = -(-s.pixels // P)
    once = g.N == tiles == 1
    # What a turn takes: a run of a tile, all of a tile, or an image; and how many.
    a_turn = s.pixels * s.K * (4 * g.C_out * s.C + 100 * s.C_in) / tiles
    a_turn = max(a_turn * (tiles if dealt else 1 / len(runs)), 1e4)
    span = -(-g.N // images) if dealt else -(-tiles // halves)
    if halves == 1 and not dealt:
        span = min(span, PARTS_BYTES // (parts * P * itemsize))
    span = max(1, min(span, int(tile_sizes.VISIT_FLOPS / a_turn)))
    most = max(1, int(tile_sizes.VISIT_FLOPS / (a_turn * span)))
    cut = Cut(
        s._replace(P=P), _table(runs, run, w, once), segments,
        max(w) if once else sum(w), dealt, images if dealt else halves, once,
        span * halves, 1 if dealt or halves > 1 else span,
    )  # fmt: skip
    image = layout.image_size(s)
    room = Room(
        (cut.weights,), (cut.shares * cut.weights,), (image,), (halves, image),
        (len(segments), s.K, 3, cut.held * P), (P * s.width,), (P * columns,),
        (P * max(taps_of(s.K, c) * v for c, v in zip(C, wide, strict=True)),),
    )  # fmt: skip
    shared = set() if once else {"w", "grad_w"}
    if not dealt:
        shared |= {"image", "grad_image"} | ({"parts"} if halves == 1 else set())
    return Way(visit, cut, _phases(g, cut, tiles), most, room, frozenset(shared))


def _table(runs: Any, run_of: Array, w: list[int], once: bool) -> Array:
    """Cut.runs."""
    ends = np.cumsum(w)
    begins = ends - w
    numbers = np.arange(len(runs))
    s, last = (np.searchsorted(run_of, numbers, side) for side in ("left", "right"))
    if once:
        begins, ends = 0 * begins, np.array(w)
    return np.column_stack([runs, s, last, begins, ends]).astype(np.int64)


def _phases(g: Geometry, cut: Cut, tiles: int) -> Any:
    runs, parts, span = len(cut.runs), -(-g.C_in // CHANNELS), cut.span
    made = []
    if cut.dealt:
        made.append((runs, LAY_OUT, 0, runs))
        for n in range(0, g.N, span * cut.shares):
            made.append((cut.shares, IMAGES, n, 0))
    for n in () if cut.dealt else range(g.N):
        first = runs if n == 0 and not cut.once else 0
        made.append((first + parts, LAY_OUT, n, first))
        for at in range(0, tiles, span):
            if cut.shares > 1:
                made.append((cut.shares, HALVES, n, at))
            else:
                made += [(runs, RUNS, n, at), (cut.sizes.K, GATHER, n, at)]
        made += [(parts, ADD, n, parts)] if cut.shares > 1 else []
        made.append((parts, STORE, n, 0))
    return phases([*made, (0 if cut.once else runs, WEIGHTS, 0, 0)])


# --- A call ---------------------------------------------------------------------------


def backward(
    grad_y: Array,
    inputs: Inputs,
    geometry: Geometry,
    needs: tuple[bool, ...] = (True,) * 5,
    thread_count: int | None = None,
    team: threads.Team | None = None,
    *,
    empty: Callable[..., Array] = np.empty,
) -> Gradients:
    """The gradients by x, offset, weight, mask and bias that `needs` names.

    `empty` finds their memory, as np.empty does, but for small ones.
    """
    grad_y = layout.plain(grad_y)  # so that each layout is summed in one order
    x, offset, weight, mask, bias = inputs
    by_x, by_offset, by_weight, by_mask, by_bias = (
        need and a is not None for need, a in zip(needs, inputs, strict=True)
    )
    grad_bias = None
    if by_bias:
        with np.errstate(invalid="ignore", over="ignore"):
            grad_bias = grad_y.sum((0, 2, 3), dtype=x.dtype)
    if not (by_x or by_offset or by_weight or by_mask):
        return Gradients(None, None, None, None, grad_bias)
    C, (weight, g) = weight.shape[1], layout.filled(weight, geometry)
    flat, last = layout.flat_image(x)
    offset, grad_shape = layout.plain_pixels(offset), offset.shape
    flat_mask = layout.plain_mask(mask, x.dtype)
    call = Call(
        grad_y.reshape(-1), flat, offset, layout.plain(weight).reshape(-1), flat_mask,
        empty((x.size,), x.dtype), empty(offset.shape, x.dtype),
        empty((weight.size,), x.dtype), empty(flat_mask.shape, x.dtype),
        by_x, by_x or by_offset or by_mask, by_weight,
    )  # fmt: skip
    if not x.size:
        call.grad_weight.fill(0)
    else:
        is_depthwise = 1 < g.groups == g.C_in == g.C_out
        lay_out = depthwise.laid_out if is_depthwise else laid_out
        way = lay_out(g, geometry.C_in, last, x.itemsize)
        way.run(call, tile_sizes.thread_count(g, thread_count), team)
    grad_weight = call.grad_weight.reshape(weight.shape)
    return Gradients(
        call.grad_x.reshape(x.shape) if by_x else None,
        call.grad_offset.reshape(grad_shape) if by_offset else None,
        layout.plain(grad_weight[:, :C]) if by_weight else None,
        call.grad_mask.reshape(mask.shape) if by_mask and mask is not None else None,
        grad_bias,
    )
