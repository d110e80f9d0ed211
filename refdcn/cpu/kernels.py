"""The stages of a tile, which Numba compiles.

An image is laid out [(H + 3) * (W + 2), C_in] with zeros around, so that all four
corners of every sample are in memory: the inner loop has no border branch and runs over
contiguous channels. A sample outside the image is placed on four of those zeros.

Images and columns are flat here; `call` holds the arrays of the caller. A segment
(g, begin, end, b, c) says: channels begin ... end - 1 of x belong to offset group g and
are columns c, c + 1, ... of group b.
"""

from typing import Any, NamedTuple

import numpy as np

from refdcn import loops
from refdcn.cpu.product import PANEL_BYTES, next_panel
from refdcn.cpu.relayout import fill_up, rows
from refdcn.cpu.vectors import (
    BLOCK,
    Cells,
    Columns,
    Flat,
    blend,
    exchange,
    transpose,
    weighted_blend,
)
from refdcn.jit import jitable


class Tile(NamedTuple):
    """P outputs of image n, from `first` on."""

    n: int
    first: int
    P: int


class Found(NamedTuple):
    """The cells of a block of outputs at some taps, the pixels around each q.

    In two arrays, since LLVM makes vectors of a loop only where few arrays could
    overlap: it found cells 1.4 times slower in four.
    """

    bases: Any  # [2, BLOCK]: stride * p - padding
    places: Any  # [taps, BLOCK], of a cell's first pixel in the padded image
    tents: Any  # [taps, 6, BLOCK]: of its four pixels, times dm; then f_y, f_x alone


@jitable
def room_for(taps, image):
    """Not yet found."""
    whole = np.empty((2 + taps, BLOCK), np.int64)
    return Found(whole[:2], whole[2:], np.empty((taps, 6, BLOCK), image.dtype))


@jitable
def block_of(tile, begin, most, sizes, found):
    """Up to so many outputs of a tile from its output `begin` on, and their bases."""
    first, count = tile.first + begin, min(most, tile.P - begin)
    u, v = first // sizes.W_out, first % sizes.W_out
    for p in range(count):
        found.bases[0, p] = sizes.stride[0] * u - sizes.padding[0]
        found.bases[1, p] = sizes.stride[1] * v - sizes.padding[1]
        v += 1
        if v == sizes.W_out:
            u, v = u + 1, 0
    return Tile(tile.n, first, count)


@jitable
def find_cells(offset, block, tap, k, sizes, slope, found, t):
    """Eqs. (1), (3): the cells of a block of outputs at tap k, the t-th that is found.

    The tents are NaN where a coordinate is NaN. With `slope`, q = -1 has a cell too.
    Without a branch, since then LLVM vectorises it. Outside the image it is four zeros
    of the frame.
    """
    H, W, dilation, bases = sizes.H, sizes.W, sizes.dilation, found.bases
    place, tents, T = found.places[t], found.tents[t], found.tents.dtype.type
    i, j = dilation[0] * (k // sizes.K_w), dilation[1] * (k % sizes.K_w)
    n, end = block.n, block.first + block.P
    dy = offset[n, 2 * tap, block.first : end]
    dx = offset[n, 2 * tap + 1, block.first : end]
    for p in range(block.P):
        q_y = loops.position(bases[0, p] + i, dy[p], T)
        q_x = loops.position(bases[1, p] + j, dx[p], T)
        if slope:
            inside = loops.slope_inside(q_y, q_x, H, W, T)
        else:
            inside = loops.inside(q_y, q_x, H, W, T)
        nan = T(np.nan) if (q_y != q_y) | (q_x != q_x) else T(0)
        q_y, q_x = (q_y, q_x) if inside else (T(0), T(0))
        r_y, r_x, _, f_y, _, f_x = loops.corners(q_y, q_x, T)
        within = (r_y + 1) * (W + 2) + r_x + 1
        place[p] = within if inside else (H + 1) * (W + 2)
        tents[4, p], tents[5, p] = f_y + nan, f_x + nan


@jitable
def weigh(mask, block, tap, tents):
    """The weights of a cell's four pixels times dm."""
    T = tents.dtype.type
    for p in range(block.P):
        f_y, f_x = tents[4, p], tents[5, p]
        e_y, e_x = T(1) - f_y, T(1) - f_x
        tents[0, p], tents[1, p] = e_y * e_x, e_y * f_x
        tents[2, p], tents[3, p] = f_y * e_x, f_y * f_x
    if mask.size > 0:
        dm = mask[block.n, tap, block.first : block.first + block.P]
        for t in range(4):
            for p in range(block.P):
                tents[t, p] *= dm[p]


@jitable
def find(call, block, g, taps, sizes, slope, found):
    """The cells of a block of outputs at some taps of offset group g, and tents."""
    for k in range(taps[0], taps[1]):
        t, tap = k - taps[0], g * sizes.K + k
        find_cells(call.offset, block, tap, k, sizes, slope, found, t)
        weigh(call.mask, block, tap, found.tents[t])


@jitable
def cells_of(found, count, sizes):
    """As the loops over channels take them."""
    C_in, row = sizes.C_in, (sizes.W + 2) * sizes.C_in
    return Cells(found.places, found.tents, count, len(found.places), C_in, row)


@jitable
def sample(call, image, tile, sizes, segments, taps, columns, steps):
    """Eq. (2): flat columns [B, P, taps, C] of a tile's outputs.

    From one output and one tap to the next are `steps`.
    """
    found = room_for(taps[1] - taps[0], image)
    for begin in range(0, tile.P, BLOCK):
        block, known = block_of(tile, begin, BLOCK, sizes, found), -1
        for s in range(len(segments)):
            g, first, end, b, c = segments[s]
            if g != known:
                known = g
                find(call, block, g, taps, sizes, False, found)
            at = (b * tile.P + begin) * steps[0] + c
            blend(
                Columns(columns, at, steps[0], steps[1]), image, first, end - first,
                cells_of(found, block.P, sizes),
            )  # fmt: skip


@jitable
def sample_planes(call, planes, tile, sizes, columns):
    """As `sample`, of planes [C_in, (H + 3) * (W + 2)] into panels [B, (C, K), P].

    For few channels, too few for a vector: the vectors run over outputs.
    """
    C_in, K, C, segments = sizes.C_in, sizes.K, sizes.C, sizes.segments
    panel, area = PANEL_BYTES // planes.itemsize, (sizes.H + 3) * (sizes.W + 2)
    found = room_for(1, planes)
    begin = 0
    while begin < tile.P:
        count, size = next_panel(tile.P - begin, panel, planes.itemsize)
        block = block_of(tile, begin, count, sizes, found)
        for k in range(K):
            known = -1
            for s in range(len(segments)):
                g, first, end, b, at = segments[s]
                if g != known:
                    known = g
                    find(call, block, g, (k, k + 1), sizes, False, found)
                for c in range(end - first):
                    plane = planes[(first + c) * area : (first + c + 1) * area]
                    to = begin * C_in * K + ((b * C + at + c) * K + k) * size
                    column = columns[to : to + size]
                    sample_plane(plane, found, block.P, sizes.W + 2, column)
        begin += count


@jitable
def sample_plane(plane, found, count, row, column):
    """A channel at one tap of a block of outputs, and zeros up to whole vectors."""
    place, t = found.places[0], found.tents[0]
    for p in range(count):
        i = place[p]
        column[p] = (
            t[0, p] * plane[np.uintp(i)]
            + t[1, p] * plane[np.uintp(i + 1)]
            + t[2, p] * plane[np.uintp(i + row)]
            + t[3, p] * plane[np.uintp(i + row + 1)]
        )
    column[count:] = 0


@jitable
def sample_turned(call, image, n, sizes, taps, upright, columns):
    """As `sample_planes` for all outputs, of the image of `sample`: each tap is turned.

    `upright` is room for the columns of one tap and panel.
    """
    C_in, K, C, P = sizes.C_in, sizes.K, sizes.C, sizes.P
    panel = PANEL_BYTES // image.itemsize
    begin = 0
    while begin < P:
        count, size = next_panel(P - begin, panel, image.itemsize)
        tile = Tile(n, begin, count)
        for k in range(taps[0], taps[1]):
            of, steps = (k, k + 1), (C, C)
            sample(call, image, tile, sizes, sizes.segments, of, upright, steps)
            for b in range(sizes.groups):
                first = begin * C_in * K + (b * C * K + k) * size
                target = rows(first, K * size, C)
                transpose(upright, rows(b * count * C, C, count), columns, target)
                fill_up(columns, target, count, size)
        begin += count


@jitable
def filter_depthwise(call, room, tile, sizes):
    """Eq. (1) of a tile's outputs, depthwise, into [P, C_in]."""
    taps, segments = (0, sizes.K), sizes.segments
    found = room_for(sizes.K, room.image)
    for begin in range(0, tile.P, BLOCK):
        block, known = block_of(tile, begin, BLOCK, sizes, found), -1
        for s in range(len(segments)):
            g, first, end, _, _ = segments[s]
            if g != known:
                known = g
                find(call, block, g, taps, sizes, False, found)
            weighted_blend(
                Flat(room.product, begin * sizes.C_in), room.image, room.w, call.bias,
                first, end, cells_of(found, block.P, sizes),
            )  # fmt: skip


class Spread(NamedTuple):
    """The columns of a run's tile as they are differentiated."""

    image: Any
    grad_image: Any
    columns: Any  # [P, taps, C]
    grad_columns: Any  # [taps, P, wide]
    C: int
    wide: int  # C, rounded up to whole vectors


@jitable
def spread(call, data, tile, sizes, segments, taps, parts, begin):
    """Eqs. (2), (4) transposed: grad_columns hold d / d(x(q) dm).

    Its pixels are those of `sample`, so columns are made on the way.

    Adds to grad_image at the segments' channels. parts[s, k, :, begin + p] are the
    channel sums of segment s: d / d dm, and d / d q_y, d / d q_x without dm.
    """
    T, C = taps[1] - taps[0], data.C
    found, sums = room_for(T, data.image), np.empty(T * BLOCK * 4, data.image.dtype)
    edges = np.empty(BLOCK, np.bool_)
    for at in range(0, tile.P, BLOCK):
        block, known = block_of(tile, at, BLOCK, sizes, found), -1
        for s in range(len(segments)):
            g, first, end, _, c = segments[s]
            if g != known:
                known = g
                find(call, block, g, taps, sizes, True, found)
            cells, size = cells_of(found, block.P, sizes), end - first
            of = Columns(
                data.grad_columns, at * data.wide + c, data.wide, tile.P * data.wide
            )
            to = Columns(data.columns, at * T * C + c, T * C, C)
            exchange(data.image, data.grad_image, first, size, of, to, sums, cells)
            for k in range(T):
                find_edges(found, k, block.P, sizes, edges)
                slopes(
                    found, k, sums, edges, parts[s, taps[0] + k], begin + at, block.P
                )
                for p in range(block.P):
                    if edges[p]:  # the sample reads no pixel
                        i = to.at + p * to.output + k * to.tap
                        data.columns[i : i + size] = 0


@jitable
def find_edges(found, k, count, sizes, edges):
    """Whether q = -1 on an axis: there is a slope, but the sample reads no pixel."""
    place, last, row = found.places[k], found.tents[k, 4:], sizes.W + 2
    for p in range(count):
        above = last[0, p] == 0 and place[p] < row
        edges[p] = above or (last[1, p] == 0 and place[p] % row == 0)


@jitable
def slopes(found, k, sums, edges, part, begin, count):
    """Eqs. (2), (4) of the sums at the cells' four pixels: samples, slopes."""
    last, end = found.tents[k, 4:], begin + count
    T = last.dtype.type
    samples, d_y, d_x = part[0, begin:end], part[1, begin:end], part[2, begin:end]
    four = sums.reshape(len(found.tents), BLOCK, 4)[k]
    for p in range(count):
        f_y, f_x = last[0, p], last[1, p]
        e_y, e_x = T(1) - f_y, T(1) - f_x
        s_00, s_01, s_10, s_11 = four[p, 0], four[p, 1], four[p, 2], four[p, 3]
        d_y[p] = e_x * (s_10 - s_00) + f_x * (s_11 - s_01)
        d_x[p] = e_y * (s_01 - s_00) + f_y * (s_11 - s_10)
        sample = e_y * (e_x * s_00 + f_x * s_01) + f_y * (e_x * s_10 + f_x * s_11)
        samples[p] = T(0) if edges[p] else sample


@jitable
def gather(call, parts, tile, sizes, segments, k):
    """The channel sums of every segment at tap k, in order: grad_offset, grad_mask."""
    first, end, s = tile.first, tile.first + tile.P, 0
    while s < len(segments):
        g = segments[s, 0]
        tap, begin = g * sizes.K + k, s
        d_y = call.grad_offset[tile.n, 2 * tap, first:end]
        d_x = call.grad_offset[tile.n, 2 * tap + 1, first:end]
        while s < len(segments) and segments[s, 0] == g:
            add_part(parts[s, k, 1], s == begin, d_y)
            add_part(parts[s, k, 2], s == begin, d_x)
            if call.mask.size > 0:
                total = call.grad_mask[tile.n, tap, first:end]
                add_part(parts[s, k, 0], s == begin, total)
            s += 1
        if call.mask.size > 0:
            dm = call.mask[tile.n, tap, first:end]
            for p in range(tile.P):
                d_y[p] *= dm[p]
                d_x[p] *= dm[p]


@jitable
def add_part(part, is_first, total):
    """total = part, of the first segment, or total + part."""
    for p in range(len(total)):
        total[p] = part[p] if is_first else total[p] + part[p]
