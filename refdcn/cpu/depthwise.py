"""The gradients where a group is one channel: no columns, no products.

    grad_w_kc  = sum_p grad_y_c * dm_k x_c(q)
    grad_x, grad_offset, grad_mask of w_kc * grad_y_c, by Eqs. (2), (4)

A turn has a run of channels, so no two add to one number; their sums over channels are
added in one order.
"""

# mypy: allow-untyped-defs, disable-error-code="misc,no-untyped-call"
from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from refdcn.cpu import layout
from refdcn.cpu.kernels import (
    Tile,
    block_of,
    cells_of,
    find,
    find_edges,
    gather,
    room_for,
    slopes,
)
from refdcn.cpu.layout import CHANNELS, Sizes
from refdcn.cpu.relayout import clear_channels, image_in, image_out, rows
from refdcn.cpu.turns import phases
from refdcn.cpu.vectors import BLOCK, Depthwise, transpose, weighted_exchange
from refdcn.cpu.work import Way, visit_of
from refdcn.jit import jitable
from refdcn.shapes import Geometry

RUNS = 8  # of channels at most, of 64 or more: threads share them
P = 256  # outputs whose grad_y is laid out at once

# Kinds of phases: an image is laid out, and before the first one the weights; runs of
# channels; their sums, a tap in each turn; grad_weight.
LAY_OUT, RUN, GATHER, STORE = range(4)


class Cut(NamedTuple):
    """How a call is cut, the same for any number of threads, and so are all sums."""

    sizes: Sizes
    step: int  # channels of a run


class Room(NamedTuple):
    """What threads share, and the last of their own."""

    w: Any
    image: Any
    grad_image: Any
    grad_w: Any
    parts: Any  # [segments, K, 3, pixels]
    grads: Any


@jitable
def run(call, sizes, room, n, begin, end):
    """What channels begin ... end - 1 of image n give to each gradient."""
    C, K, pixels, apart = sizes.C_in, sizes.K, sizes.pixels, end - begin
    clear_channels(sizes, begin, end, room.grad_image)
    if n == 0:
        for k in range(K):
            room.grad_w[k * C + begin : k * C + end] = 0
    for first in range(0, pixels, P):
        tile = Tile(n, first, min(P, pixels - first))
        source = rows((n * C + begin) * pixels + first, pixels, apart)
        transpose(call.grad_y, source, room.grads, rows(0, apart, tile.P))
        exchange_tile(call, sizes, room, tile, begin, end)
    image_out(room.grad_image, n, sizes, begin, apart, call.grad_x)


@jitable
def exchange_tile(call, sizes, room, tile, begin, end):
    """`run` for some outputs, whose grad_y is laid out."""
    K, apart, segments = sizes.K, end - begin, sizes.segments
    found, sums = room_for(K, room.image), np.empty(K * BLOCK * 4, room.image.dtype)
    edges = np.empty((K, BLOCK), np.bool_)
    for at in range(0, tile.P, BLOCK):
        block, known = block_of(tile, at, BLOCK, sizes, found), -1
        data = Depthwise(
            room.image, room.grad_image, room.w, room.grad_w, room.grads,
            at * apart - begin, apart,
        )  # fmt: skip
        for s in range(len(segments)):
            g, first, last, _, _ = segments[s]
            if begin <= first < end:
                if g != known:
                    known = g
                    find(call, block, g, (0, K), sizes, True, found)
                    for k in range(K):
                        find_edges(found, k, block.P, sizes, edges[k])
                cells = cells_of(found, block.P, sizes)
                weighted_exchange(data, first, last, sums, edges, cells)
                for k in range(K):
                    part = room.parts[s, k]
                    slopes(found, k, sums, edges[k], part, block.first, block.P)


@jitable
def by_channels(call, cut, room, turn):
    """All gradients of a call."""
    sizes, n, i = cut.sizes, turn.n, turn.i
    C, K, step = sizes.C_in, sizes.K, cut.step
    if turn.kind == LAY_OUT and i < turn.at:
        transpose(call.weight, rows(0, K, C), room.w, rows(0, C, K))
    elif turn.kind == LAY_OUT:
        image_in(call.x, n, sizes, (i - turn.at) * CHANNELS, CHANNELS, room.image)
    elif turn.kind == RUN:
        run(call, sizes, room, n, i * step, min(C, (i + 1) * step))
    elif turn.kind == GATHER:
        gather(call, room.parts, Tile(n, 0, sizes.pixels), sizes, sizes.segments, i)
    else:
        transpose(room.grad_w, rows(0, C, K), call.grad_weight, rows(0, K, C))


visit = visit_of(by_channels)


@lru_cache(64)
def laid_out(g: Geometry, channels: int, last: bool, itemsize: int) -> Way:
    """How the gradients of a geometry are computed."""
    s = layout.sizes(g, channels, last, itemsize)
    step = -(-max(64, -(-s.C_in // RUNS)) // 16) * 16
    runs, parts = -(-s.C_in // step), -(-s.C_in // CHANNELS)
    made = []
    for n in range(g.N):
        first = int(n == 0)
        made += [(first + parts, LAY_OUT, n, first), (runs, RUN, n, 0)]
        made.append((s.K, GATHER, n, 0))
    made.append((1, STORE, 0, 0))
    s = s._replace(
        segments=layout.segments_of(g._replace(groups=1), range(0, s.C_in, step))
    )
    w, image = (s.K * s.C_in,), (layout.image_size(s),)
    sums = len(s.segments), s.K, 3, s.pixels
    room = Room(w, image, image, w, sums, (P * step,))
    most = max(1, int(3e7 / max(1, s.K * step * s.pixels)))
    shared = frozenset(Room._fields) - {"grads"}
    return Way(visit, Cut(s, step), phases(made), most, room, shared)
