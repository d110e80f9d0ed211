"""The gradients where a group is one channel: no columns, no products.

    grad_w_kc  = sum_p grad_y_c * dm_k x_c(q)
    grad_x, grad_offset, grad_mask of w_kc * grad_y_c, by Eqs. (2), (4)

A turn has a run of channels, so no two add to one number; their sums over channels are
added in one order.
"""

# mypy: allow-untyped-defs, disable-error-code="misc,no-untyped-call"
from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from refdcn import scratch, threads
from refdcn.cpu import layout
from refdcn.cpu.atomics import publish, rows_of
from refdcn.cpu.kernels import cell_slopes, find_bases, find_cells, gather_parts, weigh
from refdcn.cpu.layout import Array, Sizes
from refdcn.cpu.relayout import image_out, image_part, rows
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
from refdcn.cpu.vectors import BLOCK, transpose, weighted_exchange
from refdcn.jit import jitable
from refdcn.shapes import Geometry

RUNS = 8  # of channels at most, of 64 or more: threads share them
P = 256  # outputs whose grad_y is laid out at once
CHANNELS = 32  # of an image laid out in one turn

# Kinds of phases: an image is laid out, and before the first one the weights; runs of
# channels; their sums, a tap in each turn; grad_weight.
LAY_OUT, RUN, GATHER, STORE = range(4)


class Call(NamedTuple):
    """The arrays of a call: x and weight flat, the others [N, channels, pixels]."""

    grad_y: Array
    x: Array
    offset: Array
    weight: Array
    mask: Array
    grad_x: Array
    grad_offset: Array
    grad_weight: Array
    grad_mask: Array


class Room(NamedTuple):
    """What threads share, in one row, and the last with a row for each."""

    w: Array
    image: Array
    grad_image: Array
    grad_w: Array
    parts: Array  # [segments, K, 3, pixels]
    grads: Array


class Layout(NamedTuple):
    """How a call is cut."""

    sizes: Sizes
    step: int  # channels of a run
    segments: Array
    groups: Array  # the offset group of each
    phases: Array
    most: int


@lru_cache(64)
def laid_out(g: Geometry, channels: int, last: bool) -> Layout:
    """The same for any number of threads, and so are all sums."""
    s = layout.sizes(g, channels, last)
    step = -(-max(64, -(-s.C_in // RUNS)) // 16) * 16
    runs, parts = -(-s.C_in // step), -(-s.C_in // CHANNELS)
    made = []
    for n in range(g.N):
        first = int(n == 0)
        made += [(first + parts, LAY_OUT, n, first), (runs, RUN, n, 0)]
        made.append((s.K, GATHER, n, 0))
    segments = layout.segments_of(s._replace(groups=1), step)
    most = max(1, int(3e7 / max(1, s.K * step * s.pixels)))
    made.append((1, STORE, 0, 0))
    return Layout(s, step, segments, segments[:, 0].copy(), phases(made), most)


@jitable
def run(call, sizes, segments, room, n, begin, end):
    """What channels begin ... end - 1 of image n give to each gradient."""
    C, K, pixels = sizes.C_in, sizes.K, sizes.pixels
    for i in range((sizes.H + 3) * (sizes.W + 2)):
        for c in range(begin, end):
            room.grad_image[i * C + c] = 0
    if n == 0:
        for k in range(K):
            for c in range(begin, end):
                room.grad_w[k * C + c] = 0
    flat, apart = call.grad_y.reshape(-1), end - begin
    for first in range(0, pixels, P):
        count = min(P, pixels - first)
        source = rows((n * C + begin) * pixels + first, pixels, apart)
        transpose(flat, source, room.grads, rows(0, apart, count))
        for block in range(0, count, BLOCK):
            some = min(BLOCK, count - block)
            grads = room.grads[block * apart :]
            for s in range(len(segments)):
                if begin <= segments[s, 1] < end:
                    exchange_block(
                        call, sizes, segments[s], room, n, first + block, some,
                        grads, (begin, end), room.parts[s],
                    )  # fmt: skip
    image = (C, sizes.H, sizes.W)
    image_out(
        room.grad_image, image, begin, end, call.grad_x, n * C * sizes.H * sizes.W
    )


@jitable
def exchange_block(call, sizes, segment, room, n, start, count, grads, run, part):
    """`run` for a block of outputs and a segment."""
    C, K, row, image = sizes.C_in, sizes.K, sizes.W + 2, room.image
    bases = np.empty((2, BLOCK), np.int64)
    place = np.empty((K, BLOCK), np.int64)
    cells = np.empty((K, 2, BLOCK), image.dtype)
    tents = np.empty((K, 4, BLOCK), image.dtype)
    edges = np.empty((K, BLOCK), np.bool_)
    sums = np.empty(K * BLOCK * 4, image.dtype)
    find_bases(start, count, sizes, bases)
    for k in range(K):
        tap = segment[0] * K + k
        find_cells(
            call.offset, n, tap, k, start, count, sizes, bases, True, place[k], cells[k]
        )
        weigh(cells[k], call.mask, n, tap, start, count, tents[k])
        for p in range(count):
            above = cells[k, 0, p] == 0 and place[k, p] < row
            edges[k, p] = above or (cells[k, 1, p] == 0 and place[k, p] % row == 0)
    weighted_exchange(
        (room.grad_image, room.grad_w, sums), (image, grads, run[1] - run[0], room.w),
        segment[1], segment[2], run[0],
        (place, tents, edges, (count, K), C, row * C),
    )  # fmt: skip
    for k in range(K):
        cell_slopes(
            cells[k], sums[k * BLOCK * 4 :], place[k], row, count,
            part[k, :, start : start + count], image, 0, 0,
        )  # fmt: skip


def by_channels(state, turn, most, me, phases, call, sizes, step, segments,
                      groups, room):  # fmt: skip
    """All gradients of a call."""
    C, K = sizes.C_in, sizes.K
    if me == PUBLISH:
        return publish(state, (phases, call, sizes, step, segments, groups, room))
    mine, turn = rows_of(room, me), begin(state, turn)
    for _ in range(most):
        phase = phase_of(state, phases, turn, me == 0)
        if phase < 0:
            return turn if phase == BACK else END
        kind, n = phases[phase, KIND], phases[phase, IMAGE]
        i = turn - phases[phase, FIRST]
        if kind == LAY_OUT and i < phases[phase, AT]:
            transpose(call.weight, rows(0, K, C), mine.w, rows(0, C, K))
        elif kind == LAY_OUT:
            i -= phases[phase, AT]
            image_part(call.x, n, sizes, i * CHANNELS, CHANNELS, mine.image)
        elif kind == RUN:
            run(call, sizes, segments, mine, n, i * step, min(C, (i + 1) * step))
        elif kind == GATHER:
            gather_parts(
                mine.parts, groups, call.mask, n, 0, call.grad_offset, call.grad_mask,
                (i, i + 1),
            )  # fmt: skip
        else:
            transpose(mine.grad_w, rows(0, C, K), call.grad_weight, rows(0, K, C))
        turn = done(state)
    return turn


def run_call(call: Call, way: Layout, count: int, team: threads.Team | None) -> None:
    """All gradients of a call, on so many threads."""
    s, dtype = way.sizes, call.x.dtype
    w, image = s.K * s.C_in, layout.image_size(s)
    shape = len(way.segments), s.K, 3, s.pixels
    sizes = {"w": w, "image": image, "grad_image": image, "grad_w": w}
    shared = [scratch.rows(use, 1, size, dtype) for use, size in sizes.items()]
    parts = scratch.array("parts", int(np.prod(shape)), dtype).reshape(1, *shape)
    own = scratch.rows("own grads", count, P * way.step, dtype)
    room = Room._make([*shared, parts, own])
    given = way.phases, call, s, way.step, way.segments, way.groups, room
    Turns(by_channels, way.most, *given).run(count, team)
