"""Eq. (1) on the CPU: tiles of sampled columns, multiplied while they are in the cache.

    columns[p, (k, c)] = dm_k(p) * x_c(q)        Eq. (2)
    y[p, o]            = columns @ weight        Eq. (1)

Each strategy is one compiled function, which every thread of a call enters; what it
does in which order are the phases of a Layout, made once for a geometry.
"""

# mypy: allow-untyped-defs, disable-error-code="misc,no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from refdcn import scratch, threads
from refdcn.cpu import layout
from refdcn.cpu.atomics import publish, rows_of
from refdcn.cpu.kernels import filter_depthwise, sample, sample_planes, sample_turned
from refdcn.cpu.layout import Array, Sizes
from refdcn.cpu.product import PANEL_BYTES, multiply, panelled
from refdcn.cpu.relayout import (
    group_runs,
    image_part,
    planes_in,
    product_out,
    rows,
    weights_in,
)
from refdcn.cpu.turns import (
    AT,
    BACK,
    END,
    FIRST,
    IMAGE,
    KIND,
    PUBLISH,
    Turns,
    begin,
    done,
    phase_of,
    phases,
)
from refdcn.cpu.vectors import transpose
from refdcn.jit import jitable
from refdcn.shapes import Geometry

VISIT_FLOPS = 3e8  # some 10 ms, after which a thread lets Python answer signals
CHANNELS = 32  # laid out in one turn
WEIGHTS = 1 << 17  # of so many, threads share the layout
PARTS = 8  # of the outputs of a small image, where its columns are shared

# Kinds of phases: weights and an image are laid out; its outputs, a tile in each turn;
# whole images, one in each turn; columns, a tap in each turn; some outputs of all.
LAY_OUT, TILES, IMAGES, COLUMNS, OUTPUTS = range(5)


class Call(NamedTuple):
    """The arrays of a call: x and weight flat, the others [N, channels, pixels]."""

    x: Array
    offset: Array
    weight: Array
    mask: Array
    bias: Array
    y: Array


class Room(NamedTuple):
    """Where threads compute: [threads, size], or one row of what they share."""

    w: Array
    image: Array
    columns: Array
    product: Array


# --- Rows: samples [P, (k, c)] of an image whose channels are contiguous --------------


@jitable
def rows_tile(call, sizes, segments, room, n, first):
    """Eq. (1) for P outputs from `first` on: T taps at a time, y += columns @ w_k."""
    K, C, O, T = sizes.K, sizes.C, sizes.O, sizes.T
    columns, product, bias = room.columns, room.product, call.bias
    P, groups = min(sizes.P, sizes.pixels - first), sizes.groups
    panel, width = PANEL_BYTES // call.y.itemsize, panelled(O, call.y.itemsize)
    for b in range(groups):
        for o in range(0, O, panel):
            size = min(panel, width - o)
            start = (b * width + o) * P
            for p in range(P):
                for i in range(size):
                    product[start + p * size + i] = bias[b * width + o + i]
    for k in range(0, K, T):
        depth = min(T, K - k) * C
        sample(
            room.image, call.offset, call.mask, n, first, P, sizes, segments,
            (k, min(k + T, K)), (sizes.C_in, K, C), columns, depth,
        )  # fmt: skip
        for b in range(groups):
            for o in range(0, O, panel):
                size = min(panel, width - o)
                multiply(
                    columns, b * P * depth, depth, 1, P,
                    room.w, (b * width + o) * K * C + k * C * size, depth, size,
                    product, (b * width + o) * P, size, False,
                )  # fmt: skip
    for b in range(groups):
        product_out(product[b * width * P :], P, O, call.y, n, first, b * O)


def by_rows(state, turn, most, me, phases, call, sizes, segments, room):
    """All of a call by `rows_tile`."""
    if me == PUBLISH:
        return publish(state, (phases, call, sizes, segments, room))
    mine, turn = rows_of(room, me), begin(state, turn)
    for _ in range(most):
        phase = phase_of(state, phases, turn, me == 0)
        if phase < 0:
            return turn if phase == BACK else END
        kind, n, i = (
            phases[phase, KIND],
            phases[phase, IMAGE],
            turn - phases[phase, FIRST],
        )
        if kind == LAY_OUT:
            shares = phases[phase, AT]
            if i < shares:
                part = (sizes.C, sizes.K, sizes.O)
                runs = group_runs(sizes.groups, sizes.C)
                weights_in(call.weight, part, runs, (i, shares), mine.w)
            else:
                image_part(
                    call.x, n, sizes, (i - shares) * CHANNELS, CHANNELS, mine.image
                )
        elif kind == TILES:
            rows_tile(call, sizes, segments, mine, n, i * sizes.P)
        else:
            image_part(call.x, i, sizes, 0, sizes.C_in, mine.image)
            for first in range(0, sizes.pixels, sizes.P):
                rows_tile(call, sizes, segments, mine, i, first)
        turn = done(state)
    return turn


# --- Depthwise: no columns, each sample is multiplied where it is made ----------------


@jitable
def depthwise_tile(call, sizes, segments, room, n, first):
    """Eq. (1) where a group is a channel: y_c = sum_k w_kc * (dm_k x_c(q))."""
    P, C = min(sizes.P, sizes.pixels - first), sizes.C_in
    filter_depthwise(call, sizes, segments, room, n, first, P)
    flat, out = call.y.reshape(-1), n * C * sizes.pixels + first
    transpose(room.product, rows(0, C, P), flat, rows(out, sizes.pixels, C))


def by_channels(state, turn, most, me, phases, call, sizes, segments, room):
    """All of a call by `depthwise_tile`."""
    if me == PUBLISH:
        return publish(state, (phases, call, sizes, segments, room))
    mine, turn = rows_of(room, me), begin(state, turn)
    for _ in range(most):
        phase = phase_of(state, phases, turn, me == 0)
        if phase < 0:
            return turn if phase == BACK else END
        kind, n, i = (
            phases[phase, KIND],
            phases[phase, IMAGE],
            turn - phases[phase, FIRST],
        )
        if kind == LAY_OUT:
            if i < phases[phase, AT]:
                C, K = sizes.C_in, sizes.K
                transpose(call.weight, rows(0, K, C), mine.w, rows(0, C, K))
            else:
                i = (i - phases[phase, AT]) * CHANNELS
                image_part(call.x, n, sizes, i, CHANNELS, mine.image)
        elif kind == TILES:
            depthwise_tile(call, sizes, segments, mine, n, i * sizes.P)
        else:
            image_part(call.x, i, sizes, 0, sizes.C_in, mine.image)
            for first in range(0, sizes.pixels, sizes.P):
                depthwise_tile(call, sizes, segments, mine, i, first)
        turn = done(state)
    return turn


# --- The factors exchanged: weight [C_out, (c, k)], as it is, @ columns [(c, k), P] ---


@jitable
def multiply_turned(call, sizes, room, n, first, outputs):
    """Eq. (1) for P outputs of some of the channels of each group."""
    K, C, O, pixels = sizes.K, sizes.C, sizes.O, sizes.pixels
    columns, bias = room.columns, call.bias
    P = min(sizes.P, pixels - first)
    panel, flat = PANEL_BYTES // call.y.itemsize, call.y.reshape(-1)
    start, end = outputs
    for block in range(0, P, panel):
        count = min(panel, P - block)
        size = panelled(count, call.y.itemsize)
        for b in range(sizes.groups):
            channel = b * O + start
            out = (n * sizes.groups * O + channel) * pixels + first + block
            if count == size:  # straight into y
                target, to, apart = flat, out, pixels
            else:
                target, to, apart = room.product, 0, size
            for o in range(end - start):
                for p in range(count):
                    target[to + o * apart + p] = bias[channel + o]
            multiply(
                call.weight, channel * C * K, C * K, 1, end - start,
                columns, block * sizes.C_in * K + b * C * K * size, C * K, size,
                target, to, apart, False,
            )  # fmt: skip
            if count < size:
                for o in range(end - start):
                    for p in range(count):
                        flat[out + o * pixels + p] = room.product[o * size + p]


def by_planes(state, turn, most, me, phases, call, sizes, segments, room):
    """All of a call of few channels: vectors run over outputs."""
    if me == PUBLISH:
        return publish(state, (phases, call, sizes, segments, room))
    mine, turn = rows_of(room, me), begin(state, turn)
    for _ in range(most):
        phase = phase_of(state, phases, turn, me == 0)
        if phase < 0:
            return turn if phase == BACK else END
        kind, n, i = (
            phases[phase, KIND],
            phases[phase, IMAGE],
            turn - phases[phase, FIRST],
        )
        first, last = 0, sizes.pixels
        if kind == TILES:
            first = i * sizes.P
            last = first + 1
        elif kind == IMAGES:
            n = i
        if kind != TILES:
            planes_in(call.x, n, sizes, mine.image)
        if kind != LAY_OUT:
            for at in range(first, last, sizes.P):
                P = min(sizes.P, sizes.pixels - at)
                sample_planes(
                    mine.image, call.offset, call.mask, n, at, P, sizes, segments,
                    (sizes.C_in, sizes.K, sizes.C), mine.columns,
                )  # fmt: skip
                multiply_turned(call, sizes, mine, n, at, (0, sizes.O))
        turn = done(state)
    return turn


def by_taps(state, turn, most, me, phases, call, sizes, segments, room):
    """All of a call of few outputs, whose weights cost more to lay out than to use."""
    if me == PUBLISH:
        return publish(state, (phases, call, sizes, segments, room))
    mine, turn = rows_of(room, me), begin(state, turn)
    for _ in range(most):
        phase = phase_of(state, phases, turn, me == 0)
        if phase < 0:
            return turn if phase == BACK else END
        kind, n, i = (
            phases[phase, KIND],
            phases[phase, IMAGE],
            turn - phases[phase, FIRST],
        )
        taps, outputs = (0, sizes.K), (0, sizes.O)
        if kind == LAY_OUT:
            image_part(call.x, n, sizes, i * CHANNELS, CHANNELS, mine.image)
        elif kind == IMAGES:
            n = i
            image_part(call.x, n, sizes, 0, sizes.C_in, mine.image)
        elif kind == COLUMNS:
            taps = i, i + 1
        else:
            parts = phases[phase, AT]
            outputs = i * sizes.O // parts, (i + 1) * sizes.O // parts
        if kind == COLUMNS or kind == IMAGES:
            sample_turned(
                mine.image, call.offset, call.mask, n, sizes, segments, taps,
                mine.product, mine.columns,
            )  # fmt: skip
        if kind == OUTPUTS or kind == IMAGES:
            multiply_turned(call, sizes, mine, n, 0, outputs)
        turn = done(state)
    return turn


# --- Which of them, and how it is cut -------------------------------------------------


class Strategy(NamedTuple):
    """One way to compute Eq. (1)."""

    takes: Callable[[Sizes, int], bool]  # whether it is for these sizes and itemsize
    kernel: Any
    row_bytes: Callable[[Sizes, int], int]  # of an output's columns and products
    tile_bytes: int


def _small_columns(s: Sizes, itemsize: int) -> bool:
    columns = s.K * s.C_in * s.pixels * itemsize
    return 3 * s.pixels < s.O and columns <= layout.IMAGE_BYTES


# The first that takes a call computes it. Gains: float32, one thread, against the next.
STRATEGIES = {
    # depthwise: 4.2 times at 1x256x28x28, 3.6 at 1x1536x7x7
    "channels": Strategy(
        lambda s, _: s.C == s.O == 1 and s.C_in >= 4 * s.offset_groups,
        by_channels,
        lambda s, itemsize: s.C_in * itemsize,
        layout.TILE_BYTES // 4,
    ),
    # under 4 channels of one group and offset group: 2 to 4 times
    "planes": Strategy(
        lambda s, _: s.C_in // max(s.groups, s.offset_groups) < 4,
        by_planes,
        lambda s, itemsize: s.K * s.C_in * itemsize,
        layout.TILE_BYTES,
    ),
    # weights of more outputs than an image has pixels, 1x512x7x7: 1.4 times
    "taps": Strategy(
        _small_columns,
        by_taps,
        lambda s, itemsize: s.K * s.C_in * itemsize,
        layout.IMAGE_BYTES,
    ),
    "rows": Strategy(
        lambda *_: True,
        by_rows,
        lambda s, itemsize: (
            (s.T * s.C_in + s.groups * layout.width(s, itemsize)) * itemsize
        ),
        layout.TILE_BYTES,
    ),
}


class Layout(NamedTuple):
    """How a call is computed on so many threads; y has the same bits for any number."""

    name: str
    sizes: Sizes
    segments: Array
    phases: Array
    most: int  # turns of a visit
    whole: bool  # each image is one turn
    room: tuple[int, int, int, int]  # how many numbers of each array of Room


@lru_cache(256)
def laid_out(
    g: Geometry, channels: int, last: bool, itemsize: int, count: int
) -> Layout:
    """The layout of a geometry whose x has so many channels, `last` or in planes."""
    s = layout.sizes(g, channels, last)
    name = next(n for n, way in STRATEGIES.items() if way.takes(s, itemsize))
    way = STRATEGIES[name]
    flops = 2 * s.pixels * g.C_out * s.C * s.K
    P = layout.tile(s.pixels, way.row_bytes(s, itemsize), flops, way.tile_bytes)
    s = s._replace(P=s.pixels if name == "taps" else P)
    tiles, image = -(-s.pixels // s.P), layout.image_size(s)
    fits = image * itemsize <= layout.IMAGE_BYTES and flops < VISIT_FLOPS
    whole = fits and (g.N >= 2 * count or g.N % count == 0)
    w, shares = 0, 0
    if name == "rows":
        w = s.K * s.C_in * layout.width(s, itemsize)
        shares = count if w >= WEIGHTS else 1
    elif name == "channels":
        w, shares = s.K * s.C_in, 1
    parts = 1 if name == "planes" else -(-s.C_in // CHANNELS)
    made = [(shares, LAY_OUT, 0, shares)] if whole and shares else []
    made += [(g.N, IMAGES, 0, 0)] if whole else []
    for n in () if whole else range(g.N):
        first = shares if n == 0 else 0
        made.append((first + parts, LAY_OUT, n, first))
        if name == "taps":
            some = max(1, min(s.O // 16, max(PARTS, int(flops // VISIT_FLOPS))))
            made += [(s.K, COLUMNS, n, 0), (some, OUTPUTS, n, some)]
        else:
            made.append((tiles, TILES, n, 0))
    room = _room(name, s, w, image, itemsize)
    a_turn = (flops + 40 * s.K * s.C_in * s.pixels) / (1 if whole else tiles)
    most = max(1, int(VISIT_FLOPS / max(a_turn, 1e4)))
    # Depthwise, what a group is makes no difference to where channels go.
    cut = s._replace(groups=1) if name == "channels" else s
    return Layout(name, s, layout.segments_of(cut), phases(made), most, whole, room)


def _room(
    name: str, s: Sizes, w: int, image: int, itemsize: int
) -> tuple[int, int, int, int]:
    if name == "rows":
        width = layout.width(s, itemsize)
        return w, image, s.P * s.T * s.C_in, s.groups * s.P * width
    if name == "channels":
        return w, image, 0, s.P * s.C_in
    panel = PANEL_BYTES // itemsize
    columns = layout.padded(s.P, itemsize) * s.C_in * s.K
    return w, image, columns, max(panel * s.O, panel * s.C_in)


def room_for(way: Layout, count: int, dtype: Any) -> Room:
    """Where so many threads compute."""
    shared = 1 if way.whole else 3 if way.name == "taps" else 2
    made = (
        scratch.rows(use if i < shared else f"own {use}", 1 if i < shared else count,
                     size, dtype)
        for i, (use, size) in enumerate(zip(Room._fields, way.room, strict=True))
    )  # fmt: skip
    return Room._make(made)


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
    count = layout.thread_count(g, thread_count)
    x, last = layout.flat_image(x)
    way = laid_out(g, geometry.C_in, last, x.itemsize, count)
    s = way.sizes
    y = empty((g.N, g.C_out, s.pixels), x.dtype)
    # Of each group, filled up to whole vectors where the product's columns are.
    width = layout.width(s, x.itemsize) if way.name == "rows" else s.O
    filled = np.zeros((g.groups, width), x.dtype)
    if bias is not None:
        filled[:, : s.O] = bias.reshape(g.groups, s.O)
    call = Call(
        x, layout.plain_pixels(offset), layout.plain(weight).reshape(-1),
        layout.plain_mask(mask, x.dtype), filled.reshape(-1), y,
    )  # fmt: skip
    if y.size:
        with scratch.lent():
            count = min(count, int(way.phases[-1, FIRST]))
            room = room_for(way, count, x.dtype)
            kernel, given = STRATEGIES[way.name].kernel, (s, way.segments, room)
            Turns(kernel, way.most, way.phases, call, *given).run(count, team)
    return y.reshape(g.N, g.C_out, g.H_out, g.W_out)
