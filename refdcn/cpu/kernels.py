"""The stages of a tile, which Numba compiles.

An image is laid out [(H + 3) * (W + 2), C_in] with zeros around, so that all four
corners of every sample are in memory: the inner loop has no border branch and runs over
contiguous channels. A sample outside the image is placed on four of those zeros.

Images and columns are flat here; `sizes` is Plan.sizes; `first` counts outputs.
"""

import numpy as np

from refdcn import loops
from refdcn.cpu.product import PANEL_BYTES, multiply, panelled
from refdcn.cpu.relayout import fill_up, grad_y_in, rows
from refdcn.cpu.vectors import BLOCK, blend, exchange, transpose, weighted_blend
from refdcn.jit import jitable


@jitable
def find_bases(first, count, sizes, bases):
    """Eq. (1): stride * p - padding of outputs first ... first + count - 1."""
    u, v = first // sizes.W_out, first % sizes.W_out
    for p in range(count):
        bases[0, p] = sizes.stride[0] * u - sizes.padding[0]
        bases[1, p] = sizes.stride[1] * v - sizes.padding[1]
        v += 1
        if v == sizes.W_out:
            u, v = u + 1, 0


@jitable
def find_cells(offset, n, tap, k, first, count, sizes, bases, slope, place, cell):
    """Eqs. (1), (3): the cells of outputs first ... first + count - 1 at tap k.

    place[p] is the cell's first pixel in the padded image, cell[:, p] the tents f_y,
    f_x of its last, NaN where a coordinate is NaN. With `slope`, q = -1 has a cell too.
    Without a branch, since then LLVM vectorises it. Outside the image it is four zeros
    of the frame.
    """
    H, W, K_w, dilation = sizes.H, sizes.W, sizes.K_w, sizes.dilation
    T = cell.dtype.type
    i, j = dilation[0] * (k // K_w), dilation[1] * (k % K_w)
    dy = offset[n, 2 * tap, first : first + count]
    dx = offset[n, 2 * tap + 1, first : first + count]
    for p in range(count):
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
        cell[0, p], cell[1, p] = f_y + nan, f_x + nan


@jitable
def weigh(cell, mask, n, tap, first, count, tents):
    """The weights of a cell's four pixels times dm: tents [4, count]."""
    T = cell.dtype.type
    for p in range(count):
        f_y, f_x = cell[0, p], cell[1, p]
        e_y, e_x = T(1) - f_y, T(1) - f_x
        tents[0, p], tents[1, p] = e_y * e_x, e_y * f_x
        tents[2, p], tents[3, p] = f_y * e_x, f_y * f_x
    if mask.size > 0:
        dm = mask[n, tap, first : first + count]
        for t in range(4):
            for p in range(count):
                tents[t, p] *= dm[p]


@jitable
def sample(
    image, offset, mask, n, first, P, sizes, segments, taps, shape, columns, apart
):  # fmt: skip
    """Eq. (2): flat columns [B, P, taps, C] for P outputs from `first` on.

    A segment (g, begin, end, b, c) says: channels begin ... end - 1 of x, which belong
    to offset group g, go to columns[b, :, :, c:]. Outputs are `apart` in memory.
    """
    C_in, K, C = shape
    T = taps[1] - taps[0]
    bases = np.empty((2, BLOCK), np.int64)
    place = np.empty((T, BLOCK), np.int64)
    cell = np.empty((2, BLOCK), image.dtype)
    tents = np.empty((T, 4, BLOCK), image.dtype)
    for block in range(0, P, BLOCK):
        count, start = min(BLOCK, P - block), first + block
        find_bases(start, count, sizes, bases)
        known = -1
        for s in range(len(segments)):
            g, begin, end, b, c = segments[s]
            if g != known:
                known = g
                for k in range(T):
                    tap = g * K + taps[0] + k
                    find_cells(
                        offset, n, tap, taps[0] + k, start, count, sizes, bases, False,
                        place[k], cell,
                    )  # fmt: skip
                    weigh(cell, mask, n, tap, start, count, tents[k])
            blend(
                columns, (b * P + block) * apart + c, (apart, C), image, begin, place,
                tents, (count, T), end - begin, C_in, (sizes.W + 2) * C_in,
            )  # fmt: skip


@jitable
def sample_planes(
    planes, offset, mask, n, first, P, sizes, segments, shape, columns
):  # fmt: skip
    """As `sample`, of planes [C_in, (H + 3) * (W + 2)] into panels [B, (C, K), P].

    For few channels, too few for a vector: the vectors run over outputs.
    """
    C_in, K, C = shape
    panel = PANEL_BYTES // planes.itemsize
    area, row = (sizes.H + 3) * (sizes.W + 2), sizes.W + 2
    bases = np.empty((2, panel), np.int64)
    place = np.empty(panel, np.int64)
    cell = np.empty((2, panel), planes.dtype)
    t = np.empty((4, panel), planes.dtype)
    for block in range(0, P, panel):
        count, start = min(panel, P - block), first + block
        size = panelled(count, planes.itemsize)
        find_bases(start, count, sizes, bases)
        for k in range(K):
            known = -1
            for s in range(len(segments)):
                g, begin, end, b, at = segments[s]
                if g != known:
                    known, tap = g, g * K + k
                    find_cells(
                        offset, n, tap, k, start, count, sizes, bases, False, place,
                        cell,
                    )  # fmt: skip
                    weigh(cell, mask, n, tap, start, count, t)
                for c in range(end - begin):
                    plane = planes[(begin + c) * area : (begin + c + 1) * area]
                    to = block * C_in * K + ((b * C + at + c) * K + k) * size
                    column = columns[to : to + size]
                    for p in range(count):
                        i = place[p]
                        column[p] = (
                            t[0, p] * plane[i]
                            + t[1, p] * plane[i + 1]
                            + t[2, p] * plane[i + row]
                            + t[3, p] * plane[i + row + 1]
                        )
                    column[count:] = 0


@jitable
def sample_turned(image, offset, mask, n, sizes, segments, taps, upright, columns):
    """As `sample_planes` for all outputs, of the image of `sample`: each tap is turned.

    `upright` is room for the columns of one tap and panel.
    """
    C_in, K, C, P = sizes.C_in, sizes.K, sizes.C, sizes.P
    panel = PANEL_BYTES // image.itemsize
    for block in range(0, P, panel):
        count = min(panel, P - block)
        size = panelled(count, image.itemsize)
        for k in range(taps[0], taps[1]):
            sample(
                image, offset, mask, n, block, count, sizes, segments, (k, k + 1),
                (C_in, K, C), upright, C,
            )  # fmt: skip
            for b in range(sizes.groups):
                begin = block * C_in * K + (b * C * K + k) * size
                target = rows(begin, K * size, C)
                transpose(upright, rows(b * count * C, C, count), columns, target)
                fill_up(columns, target, count, size)


@jitable
def filter_depthwise(call, sizes, segments, room, n, first, P):
    """Eq. (1) of P outputs from `first` on, depthwise, into [P, C_in]."""
    image, C_in, K = room.image, sizes.C_in, sizes.K
    bases = np.empty((2, BLOCK), np.int64)
    place = np.empty((K, BLOCK), np.int64)
    cell = np.empty((2, BLOCK), image.dtype)
    tents = np.empty((K, 4, BLOCK), image.dtype)
    for block in range(0, P, BLOCK):
        count, start = min(BLOCK, P - block), first + block
        find_bases(start, count, sizes, bases)
        known = -1
        for s in range(len(segments)):
            g, begin, end, _, _ = segments[s]
            if g != known:
                known = g
                for k in range(K):
                    tap = g * K + k
                    find_cells(
                        call.offset, n, tap, k, start, count, sizes, bases, False,
                        place[k], cell,
                    )  # fmt: skip
                    weigh(cell, call.mask, n, tap, start, count, tents[k])
            weighted_blend(
                room.product, block * C_in, image, begin, end, call.bias, room.w,
                (place, tents, (count, K), C_in, (sizes.W + 2) * C_in),
            )  # fmt: skip


@jitable
def spread(
    image, grad_image, offset, mask, n, first, P, sizes, segments, taps, shape,
    grad_columns, apart, parts, columns,
):  # fmt: skip
    """Eqs. (2), (4) transposed: grad_columns [taps, P, C] hold d / d(x(q) dm).

    Its pixels are those of `sample`, so columns [P, taps, C] are made on the way.

    Adds to grad_image at the segments' channels. parts[s, k, :, p] are the channel
    sums of segment s: d / d dm, and d / d q_y, d / d q_x without dm. Outputs and taps
    are `apart` in memory.
    """
    C_in, K, C = shape
    T, row = taps[1] - taps[0], sizes.W + 2
    bases = np.empty((2, BLOCK), np.int64)
    place = np.empty((T, BLOCK), np.int64)
    cells = np.empty((T, 2, BLOCK), image.dtype)
    tents = np.empty((T, 4, BLOCK), image.dtype)
    sums = np.empty(T * BLOCK * 4, image.dtype)
    for block in range(0, P, BLOCK):
        count, start = min(BLOCK, P - block), first + block
        find_bases(start, count, sizes, bases)
        known = -1
        for s in range(len(segments)):
            g, begin, end, _, c = segments[s]
            if g != known:
                known = g
                for k in range(T):
                    tap = g * K + taps[0] + k
                    find_cells(
                        offset, n, tap, taps[0] + k, start, count, sizes, bases, True,
                        place[k], cells[k],
                    )  # fmt: skip
                    weigh(cells[k], mask, n, tap, start, count, tents[k])
            exchange(
                (grad_image, columns, sums, block * T * C + c, (T * C, C)),
                (image, begin, grad_columns, block * apart[0] + c, apart),
                (place, tents, (count, T), C_in, row * C_in),
                end - begin,
            )
            for k in range(T):
                part = parts[s, taps[0] + k, :, block : block + count]
                at = (block * T + k) * C + c
                cell_slopes(
                    cells[k], sums[k * BLOCK * 4 :], place[k], row, count, part,
                    columns[at:], T * C, end - begin,
                )  # fmt: skip


@jitable
def cell_slopes(cell, sums, place, row, count, part, columns, apart, size):
    """Eqs. (2), (4) of the sums at a cell's four pixels: sample, slopes by q_y, q_x.

    Where the slopes alone read pixels, columns become 0.
    """
    T = cell.dtype.type
    for p in range(count):
        f_y, f_x = cell[0, p], cell[1, p]
        e_y, e_x = T(1) - f_y, T(1) - f_x
        s_00, s_01 = sums[4 * p], sums[4 * p + 1]
        s_10, s_11 = sums[4 * p + 2], sums[4 * p + 3]
        part[1, p] = e_x * (s_10 - s_00) + f_x * (s_11 - s_01)
        part[2, p] = e_y * (s_01 - s_00) + f_y * (s_11 - s_10)
        sample = e_y * (e_x * s_00 + f_x * s_01) + f_y * (e_x * s_10 + f_x * s_11)
        # At q = -1 on an axis there is a slope, but the sample reads no pixel.
        if (f_y == 0 and place[p] < row) or (f_x == 0 and place[p] % row == 0):
            sample = T(0)
            columns[p * apart : p * apart + size] = T(0)
        part[0, p] = sample


def tile_gradients(
    image, grad_image, grad_y, offset, mask, turned, n, channel, first, P, sizes,
    segments, shape, needs, buffers, grad_w, fresh, parts,
):  # fmt: skip
    """What a run of channels of P outputs from `first` on gives to each gradient.

    grad_w += columns^T @ grad_y, and grad_columns = grad_y @ w_k^T is spread.
    """
    C_in, K, C, O, T = shape
    grad_rows, columns, grad_columns = buffers
    itemsize = grad_y.itemsize
    panel, width = PANEL_BYTES // itemsize, panelled(O, itemsize)
    wide = panelled(C, itemsize)
    grad_y_in(grad_y, n, channel, O, first, P, grad_rows)
    for k in range(0, K, T):
        taps = k, min(k + T, K)
        depth = (taps[1] - k) * C
        if needs[1]:
            for i in range(k, taps[1]):
                for o in range(0, O, panel):
                    size, inside = min(panel, width - o), min(panel, O - o)
                    multiply(
                        grad_rows, o * P, size, 1, P,
                        turned, (i * O + o) * wide, inside, wide,
                        grad_columns, (i - k) * P * wide, wide, o == 0,
                    )  # fmt: skip
            spread(
                image, grad_image, offset, mask, n, first, P, sizes, segments, taps,
                (C_in, K, C), grad_columns, (wide, P * wide), parts, columns,
            )  # fmt: skip
        else:
            sample(
                image, offset, mask, n, first, P, sizes, segments, taps, (C_in, K, C),
                columns, depth,
            )  # fmt: skip
        if needs[0]:
            for o in range(0, O, panel):
                size = min(panel, width - o)
                multiply(
                    columns, 0, 1, depth, depth, grad_rows, o * P, P, size,
                    grad_w, (o * K + k * size) * C, size, fresh,
                )  # fmt: skip


@jitable
def gather_parts(parts, groups, mask, n, first, grad_offset, grad_mask, taps):
    """The channel sums of every segment, added in order: grad_offset, grad_mask.

    Of some taps.

    Both [N, offset_groups * K (* 2), H_out * W_out].
    """
    S, K, _, P = parts.shape
    for k in range(taps[0], taps[1]):
        s = 0
        while s < S:
            tap = groups[s] * K + k
            d_y = grad_offset[n, 2 * tap, first : first + P]
            d_x = grad_offset[n, 2 * tap + 1, first : first + P]
            begin = s
            while s < S and groups[s] == groups[begin]:
                add_part(parts[s, k, 1], s == begin, d_y)
                add_part(parts[s, k, 2], s == begin, d_x)
                if mask.size > 0:
                    total = grad_mask[n, tap, first : first + P]
                    add_part(parts[s, k, 0], s == begin, total)
                s += 1
            if mask.size > 0:
                dm = mask[n, tap, first : first + P]
                for p in range(P):
                    d_y[p] *= dm[p]
                    d_x[p] *= dm[p]


@jitable
def add_part(part, is_first, total):
    """total = part, of the first segment, or total + part."""
    if is_first:
        for p in range(len(part)):
            total[p] = part[p]
    else:
        for p in range(len(part)):
            total[p] += part[p]
