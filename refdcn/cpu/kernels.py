"""The stages of a tile, which Numba compiles.

An image is laid out [(H + 3) * (W + 2), C_in] with zeros around, so that all four
corners of every sample are in memory: the inner loop has no border branch and runs over
contiguous channels. A sample outside the image is placed on four of those zeros.

Images and columns are flat here; `sizes` is Plan.sizes; `first` counts outputs.
"""

import numpy as np

from refdcn import loops
from refdcn.cpu.vectors import blend, exchange
from refdcn.jit import jitable

# Of loops.py, vectors.py and jit.py. Numba's cache looks for changes in the file of the
# compiled function alone, so what it calls must be named here; a test compares.
CALLED = "44fc9dc44730"
BLOCK = 64  # outputs whose cells are found together and stay in the first cache


@jitable
def find_cells(offset, n, tap, k, first, count, sizes, slope, place, cell):
    """Eqs. (1), (3): the cells of outputs first ... first + count - 1 at tap k.

    place[p] is the cell's first pixel in the padded image, cell[:, p] its tents
    e_y, f_y, e_x, f_x, NaN where a coordinate is NaN. With `slope`, q = -1 has a cell
    too. Without a branch and row by row, since then LLVM vectorises it: 0.03 ms for
    9 x 3136 positions, 0.31 with one.
    """
    H, W, W_out, K_w, stride, padding, dilation = sizes
    T = cell.dtype.type
    base_y, base_x = dilation[0] * (k // K_w), dilation[1] * (k % K_w)
    u, v = first // W_out, first % W_out
    p = 0
    while p < count:
        row_y = base_y + stride[0] * u - padding[0]
        row_x = base_x + stride[1] * v - padding[1]
        end = min(count, p + W_out - v)
        dy = offset[n, 2 * tap, u, v : v + end - p]
        dx = offset[n, 2 * tap + 1, u, v : v + end - p]
        at, e_y, f_y = place[p:end], cell[0, p:end], cell[1, p:end]
        e_x, f_x = cell[2, p:end], cell[3, p:end]
        for s in range(end - p):
            q_y = loops.position(row_y, dy[s], T)
            q_x = loops.position(row_x + stride[1] * s, dx[s], T)
            if slope:
                inside = loops.slope_inside(q_y, q_x, H, W, T)
            else:
                inside = loops.inside(q_y, q_x, H, W, T)
            nan = T(np.nan) if (q_y != q_y) | (q_x != q_x) else T(0)
            q_y = q_y if inside else T(H)
            q_x = q_x if inside else T(-1)
            r_y, r_x, a, b, c, d = loops.corners(q_y, q_x, T)
            at[s] = (r_y + 1) * (W + 2) + r_x + 1
            e_y[s], f_y[s], e_x[s], f_x[s] = a + nan, b + nan, c + nan, d + nan
        p = end
        u, v = u + 1, 0


@jitable
def four(rows, p):
    """The four numbers of output p."""
    return rows[0, p], rows[1, p], rows[2, p], rows[3, p]


@jitable
def weigh(cell, mask, n, tap, first, count, tents):
    """The weights of a cell's four pixels times dm: tents [4, count]."""
    for p in range(count):
        tents[0, p] = cell[0, p] * cell[2, p]
        tents[1, p] = cell[0, p] * cell[3, p]
        tents[2, p] = cell[1, p] * cell[2, p]
        tents[3, p] = cell[1, p] * cell[3, p]
    if mask.size > 0:
        dm = mask[n, tap, first : first + count]
        for p in range(count):
            tents[0, p] *= dm[p]
            tents[1, p] *= dm[p]
            tents[2, p] *= dm[p]
            tents[3, p] *= dm[p]


def sample(image, offset, mask, n, first, sizes, segments, shape, columns):
    """Eq. (2): flat columns [B, P, K, C] for the P outputs from `first` on.

    A segment (g, begin, end, b, c) says: channels begin ... end - 1 of x, which belong
    to offset group g, go to columns[b, :, :, c:].
    """
    C_in, P, K, C = shape
    row = sizes[1] + 2
    place = np.empty((K, BLOCK), np.int64)
    cell = np.empty((4, BLOCK), image.dtype)
    tents = np.empty((K, 4, BLOCK), image.dtype)
    for block in range(0, P, BLOCK):
        count = min(BLOCK, P - block)
        known = -1
        for s in range(len(segments)):
            g, begin, end, b, c = segments[s]
            if g != known:
                known = g
                for k in range(K):
                    tap, start = g * K + k, first + block
                    find_cells(
                        offset, n, tap, k, start, count, sizes, False, place[k], cell
                    )
                    weigh(cell, mask, n, tap, start, count, tents[k])
            for p in range(count):
                for k in range(K):
                    i = place[k, p] * C_in + begin
                    below = i + row * C_in
                    at = ((b * P + block + p) * K + k) * C + c
                    blend(
                        columns, at, image, (i, i + C_in, below, below + C_in),
                        four(tents[k], p), end - begin,
                    )  # fmt: skip


def sample_planes(planes, offset, mask, n, first, sizes, segments, shape, columns):
    """As `sample`, from flat planes [C_in, (H + 3) * (W + 2)] into [B, C, K, P].

    For few channels, too few for a vector: the vectors run over outputs.
    """
    C_in, P, K, C = shape
    area = len(planes) // C_in
    row = sizes[1] + 2
    place = np.empty(BLOCK, np.int64)
    cell = np.empty((4, BLOCK), planes.dtype)
    t = np.empty((4, BLOCK), planes.dtype)
    for block in range(0, P, BLOCK):
        count = min(BLOCK, P - block)
        for k in range(K):
            known = -1
            for s in range(len(segments)):
                g, begin, end, b, at = segments[s]
                if g != known:
                    known, tap, start = g, g * K + k, first + block
                    find_cells(
                        offset, n, tap, k, start, count, sizes, False, place, cell
                    )
                    weigh(cell, mask, n, tap, start, count, t)
                for c in range(end - begin):
                    plane = planes[(begin + c) * area : (begin + c + 1) * area]
                    start = ((b * C + at + c) * K + k) * P + block
                    column = columns[start : start + count]
                    for p in range(count):
                        i = place[p]
                        column[p] = (
                            t[0, p] * plane[i] + t[1, p] * plane[i + 1]
                            + t[2, p] * plane[i + row] + t[3, p] * plane[i + row + 1]
                        )


def spread(
    image, grad_image, offset, mask, n, first, sizes, segments, shape, columns, parts
):
    """Eqs. (2), (4) transposed: flat columns [P, K, C] hold d / d(x(q) dm).

    Adds to grad_image at the segments' channels. parts[s, k, :, p] are the channel
    sums of segment s: d / d dm, and d / d q_y, d / d q_x without dm.
    """
    C_in, P, K, C = shape
    row = sizes[1] + 2
    place = np.empty((K, BLOCK), np.int64)
    cells = np.empty((K, 4, BLOCK), image.dtype)
    tents = np.empty((K, 4, BLOCK), image.dtype)
    sums = np.empty((K, 4, BLOCK), image.dtype)
    for block in range(0, P, BLOCK):
        count = min(BLOCK, P - block)
        known = -1
        for s in range(len(segments)):
            g, begin, end, _, c = segments[s]
            if g != known:
                known = g
                for k in range(K):
                    tap, start = g * K + k, first + block
                    find_cells(
                        offset, n, tap, k, start, count, sizes, True, place[k], cells[k]
                    )
                    weigh(cells[k], mask, n, tap, start, count, tents[k])
            for p in range(count):
                for k in range(K):
                    i = place[k, p] * C_in + begin
                    below = i + row * C_in
                    at = ((block + p) * K + k) * C + c
                    sums[k, 0, p], sums[k, 1, p], sums[k, 2, p], sums[k, 3, p] = (
                        exchange(
                            grad_image, image, (i, i + C_in, below, below + C_in),
                            four(tents[k], p), columns, at, end - begin,
                        )
                    )  # fmt: skip
            for k in range(K):
                part = parts[s, k, :, block : block + count]
                cell_slopes(cells[k], sums[k], place[k], row, count, part)


@jitable
def cell_slopes(cell, sums, place, row, count, part):
    """Eqs. (2), (4) of the sums at a cell's four pixels: sample, slopes by q_y, q_x."""
    T = cell.dtype.type
    for p in range(count):
        e_y, f_y, e_x, f_x = four(cell, p)
        s_00, s_01, s_10, s_11 = four(sums, p)
        part[1, p] = e_x * (s_10 - s_00) + f_x * (s_11 - s_01)
        part[2, p] = e_y * (s_01 - s_00) + f_y * (s_11 - s_10)
        sample = e_y * (e_x * s_00 + f_x * s_01) + f_y * (e_x * s_10 + f_x * s_11)
        # At q = -1 on an axis there is a slope, but the sample reads no pixel.
        low_y = (place[p] < row) & (f_y == 0)
        low_x = (place[p] % row == 0) & (f_x == 0)
        part[0, p] = T(0) if low_y | low_x else sample


def gather_parts(parts, groups, mask, n, first, grad_offset, grad_mask):
    """The channel sums of every segment, added in order: grad_offset, grad_mask.

    Both [N, offset_groups * K (* 2), H_out * W_out].
    """
    S, K, _, P = parts.shape
    for k in range(K):
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
