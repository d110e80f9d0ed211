"""The CUDA kernels. They are the CPU target's stages, with threads where it has loops.

    columns[b, p, k, c] = dm_k(p) * x_c(q)       Eq. (2), channels last; b is the group
    rows[b, p, o]       = columns[b] @ weight[b]  Eq. (1)

Adjacent threads work on adjacent channels, so that a warp reads and writes whole lines
of memory wherever q is. As on the CPU an image is laid out with zeros around it,
[(H + 3) * (W + 2), C_in], and a sample outside is placed on four of them: no kernel
branches at a border, none reads outside, whatever the offsets hold.

Big arrays are flat, their indices 64-bit. Every loop strides by the grid, so that any
grid does all the work; where a barrier or a shuffle is inside, all threads of a block
take the same number of turns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import cuda
from numba.extending import register_jitable as jitable

from refdcn import loops

CALLED = "dff03440c581"  # of loops.py and jit.py, for Numba's cache
SIDE = 32  # of a transposed tile: one warp wide
PADDED = SIDE + 1  # else the threads of a column would share a bank of memory
WARP = 0xFFFFFFFF  # all lanes take part in a shuffle
SQUARE = 16  # threads along each side of a block of the product
EACH = 4  # outputs a thread along each side
BLOCK = SQUARE * EACH  # outputs of a block along each side
LONG = BLOCK + 1  # as PADDED
DEPTH = 8  # terms of a sum between two barriers


class Tile(NamedTuple):
    """Sizes of one launch of `sample` or `spread`: `span` outputs of each image."""

    images: int
    first: int
    span: int
    H: int
    W: int
    W_out: int
    C_in: int
    C: int  # input channels a group
    D: int  # input channels an offset group
    K: int
    K_w: int
    taps: int  # offset_groups * K
    stride_y: int
    stride_x: int
    top: int
    left: int
    dilation_y: int
    dilation_x: int
    masked: int
    adds: int  # whether `spread` adds to grad_image


class Layout(NamedTuple):
    """Sizes of one transposition: pixels first ... first + span - 1 of each image."""

    images: int
    channels: int
    pixels: int
    first: int
    span: int
    inner: int  # channels a group; rows of each group are together
    W: int  # of a padded image; 0: rows are the pixels, without padding
    area: int  # pixels of a padded image
    biased: int


class Product(NamedTuple):
    """Sizes and strides in elements of c[i] (+)= a[i] @ b[i]."""

    batch: int
    M: int
    N: int
    Q: int
    a_batch: int
    a_row: int
    a_column: int
    b_batch: int
    b_row: int
    b_column: int
    accumulate: int


# --- On the device -------------------------------------------------------------------


@jitable
def at(i):
    """An index that is never negative: Numba then adds no test whether it is."""
    return np.uint64(i)


@jitable
def divided(a, b):
    """a // b and a % b for a >= 0, b > 0, with one division."""
    q = a // b
    return q, a - q * b


@jitable
def cell(q_y, q_x, n, t, slope, T):
    """Eq. (3): the place of q's first pixel in image n, and e_y, f_y, e_x, f_x.

    With `slope`, q = -1 has a cell too. Outside the image it is four zeros of the
    frame, found with whole numbers: from 2**24 rows on T(H) may round up in float32.
    A NaN coordinate makes all four NaN.
    """
    if slope:
        reads = loops.slope_inside(q_y, q_x, t.H, t.W, T)
    else:
        reads = loops.inside(q_y, q_x, t.H, t.W, T)
    nan = T(0)
    if q_y != q_y or q_x != q_x:
        nan = T(np.nan)
    if not reads:
        q_y, q_x = T(0), T(0)
    r_y, r_x, e_y, f_y, e_x, f_x = loops.corners(q_y, q_x, T)
    if not reads:
        r_y, r_x = t.H, -1
    place = (n * (t.H + 3) + r_y + 1) * (t.W + 2) + r_x + 1
    return place, e_y + nan, f_y + nan, e_x + nan, f_x + nan


@jitable
def tap_at(offset, mask, n, s, tap, t, T):
    """q and dm of a tap for output s."""
    u, v = divided(s, t.W_out)
    stride, padding = (t.stride_y, t.stride_x), (t.top, t.left)
    windows = stride, padding, (t.dilation_y, t.dilation_x)
    at = n, tap, tap % t.K, u, v
    q_y, q_x = loops.tap_position(offset, at, t.K_w, windows)
    dm = T(1)
    if t.masked:
        dm = mask[n, tap, u, v]
    return q_y, q_x, dm


@jitable
def column(p, k, c, t):
    """Where columns[b, p, k, c] is, c counted in C_in."""
    b = 0
    if t.C < t.C_in:  # a division is dear
        b = c // t.C
    return ((b * t.images * t.span + p) * t.K + k) * t.C + c - b * t.C


@jitable
def row_at(n, s, c, sizes):
    """Where channel c of pixel s of image n is among the rows."""
    row, rows = n * sizes.span + s - sizes.first, sizes.images * sizes.span
    if sizes.W > 0:
        r_y, r_x = divided(s, sizes.W)
        row = n * sizes.area + (r_y + 1) * (sizes.W + 2) + r_x + 1
        rows = sizes.images * sizes.area
    b, o = divided(c, sizes.inner)
    return (b * rows + row) * sizes.inner + o


# --- Layouts -------------------------------------------------------------------------


def clear(a):
    """a = 0."""
    for i in range(cuda.grid(1), a.size, cuda.gridsize(1)):
        a[i] = 0


def cast(source, target):
    """target = source, 4-D arrays of any strides, in the target's dtype."""
    T = target.dtype.type
    for i in range(cuda.grid(1), source.size, cuda.gridsize(1)):
        i_3, d = divided(i, source.shape[3])
        i_2, c = divided(i_3, source.shape[2])
        a, b = divided(i_2, source.shape[1])
        target[a, b, c, d] = T(source[a, b, c, d])


def cast_vector(source, target):
    """target = source, one axis of any stride, in the target's dtype."""
    T = target.dtype.type
    for i in range(cuda.grid(1), source.size, cuda.gridsize(1)):
        target[i] = T(source[i])


def permute(source, source_strides, target, target_strides, shape):
    """target = source on flat arrays, 4-D by these strides in elements."""
    for i in range(cuda.grid(1), source.size, cuda.gridsize(1)):
        i_3, d = divided(i, shape[3])
        i_2, c = divided(i_3, shape[2])
        a, b = divided(i_2, shape[1])
        s, t = source_strides, target_strides
        to = a * t[0] + b * t[1] + c * t[2] + d * t[3]
        target[to] = source[a * s[0] + b * s[1] + c * s[2] + d * s[3]]


def planes_to_rows(planes, rows, sizes):
    """[images, channels, pixels] to rows of channels; the padding is left as it is."""
    tile = cuda.shared.array((SIDE, PADDED), planes.dtype)
    x, y, step = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.y
    end = sizes.first + sizes.span
    for n in range(cuda.blockIdx.z, sizes.images, cuda.gridDim.z):
        for c in range(cuda.blockIdx.y * SIDE, sizes.channels, cuda.gridDim.y * SIDE):
            start = sizes.first + cuda.blockIdx.x * SIDE
            for s in range(start, end, cuda.gridDim.x * SIDE):
                for j in range(y, SIDE, step):
                    if c + j < sizes.channels and s + x < end:
                        plane = n * sizes.channels + c + j
                        tile[at(j), at(x)] = planes[at(plane * sizes.pixels + s + x)]
                cuda.syncthreads()
                for j in range(y, SIDE, step):
                    if c + x < sizes.channels and s + j < end:
                        rows[at(row_at(n, s + j, c + x, sizes))] = tile[at(x), at(j)]
                cuda.syncthreads()


def rows_to_planes(rows, bias, planes, sizes):
    """Back, plus bias[c] where there is one."""
    tile = cuda.shared.array((SIDE, PADDED), planes.dtype)
    x, y, step = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.y
    end = sizes.first + sizes.span
    for n in range(cuda.blockIdx.z, sizes.images, cuda.gridDim.z):
        for c in range(cuda.blockIdx.y * SIDE, sizes.channels, cuda.gridDim.y * SIDE):
            start = sizes.first + cuda.blockIdx.x * SIDE
            for s in range(start, end, cuda.gridDim.x * SIDE):
                for j in range(y, SIDE, step):
                    if c + x < sizes.channels and s + j < end:
                        tile[at(j), at(x)] = rows[at(row_at(n, s + j, c + x, sizes))]
                cuda.syncthreads()
                for j in range(y, SIDE, step):
                    if c + j < sizes.channels and s + x < end:
                        value = tile[at(x), at(j)]
                        if sizes.biased:
                            value += bias[c + j]
                        plane = n * sizes.channels + c + j
                        planes[at(plane * sizes.pixels + s + x)] = value
                cuda.syncthreads()


# --- Eq. (2) and its transpose -------------------------------------------------------


def sample(image, offset, mask, t, columns):
    """Eq. (2): columns[b, p, k, c] = dm * x(q); a row of threads takes one output."""
    T = image.dtype.type
    start = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    step = cuda.gridDim.x * cuda.blockDim.y
    below = (t.W + 2) * t.C_in
    for p in range(start, t.images * t.span, step):
        n, s = divided(p, t.span)
        for tap in range(cuda.blockIdx.y, t.taps, cuda.gridDim.y):
            g, k = divided(tap, t.K)
            q_y, q_x, dm = tap_at(offset, mask, n, t.first + s, tap, t, T)
            place, e_y, f_y, e_x, f_x = cell(q_y, q_x, n, t, False, T)
            w_00, w_01 = dm * (e_y * e_x), dm * (e_y * f_x)
            w_10, w_11 = dm * (f_y * e_x), dm * (f_y * f_x)
            low = g * t.D + cuda.threadIdx.x
            for c in range(low, (g + 1) * t.D, cuda.blockDim.x):
                i = place * t.C_in + c
                columns[at(column(p, k, c, t))] = (
                    w_00 * image[at(i)] + w_01 * image[at(i + t.C_in)]
                    + w_10 * image[at(i + below)] + w_11 * image[at(i + below + t.C_in)]
                )  # fmt: skip


def spread(
    image, grad_columns, offset, mask, t, grad_image, grad_offset, grad_mask
):  # fmt: skip
    """Eqs. (2), (4) transposed; grad_columns holds d / d(dm * x(q)).

    A row of threads, all in one warp, takes one output. It adds to grad_image with
    atomics, and its lanes add up what grad_offset and grad_mask sum over channels.
    """
    T = image.dtype.type
    rows, below = t.images * t.span, (t.W + 2) * t.C_in
    step = cuda.gridDim.x * cuda.blockDim.y
    for start in range(cuda.blockIdx.x * cuda.blockDim.y, rows, step):
        # A row past the end repeats the last one, for the shuffles, and writes nothing.
        p = min(start + cuda.threadIdx.y, rows - 1)
        mine = start + cuda.threadIdx.y < rows
        n, s = divided(p, t.span)
        for tap in range(cuda.blockIdx.y, t.taps, cuda.gridDim.y):
            g, k = divided(tap, t.K)
            q_y, q_x, dm = tap_at(offset, mask, n, t.first + s, tap, t, T)
            place, e_y, f_y, e_x, f_x = cell(q_y, q_x, n, t, True, T)
            reads = loops.inside(q_y, q_x, t.H, t.W, T)
            adds = mine and reads and t.adds > 0
            d_00 = d_01 = d_10 = d_11 = T(0)
            low = g * t.D + cuda.threadIdx.x
            for c in range(low, (g + 1) * t.D, cuda.blockDim.x):
                i = place * t.C_in + c
                d = grad_columns[at(column(p, k, c, t))]
                d_00 += d * image[at(i)]
                d_01 += d * image[at(i + t.C_in)]
                d_10 += d * image[at(i + below)]
                d_11 += d * image[at(i + below + t.C_in)]
                if adds:
                    d *= dm
                    cuda.atomic.add(grad_image, at(i), e_y * e_x * d)
                    cuda.atomic.add(grad_image, at(i + t.C_in), e_y * f_x * d)
                    cuda.atomic.add(grad_image, at(i + below), f_y * e_x * d)
                    cuda.atomic.add(grad_image, at(i + below + t.C_in), f_y * f_x * d)
            other = cuda.blockDim.x // 2
            while other > 0:
                d_00 += cuda.shfl_xor_sync(WARP, d_00, other)
                d_01 += cuda.shfl_xor_sync(WARP, d_01, other)
                d_10 += cuda.shfl_xor_sync(WARP, d_10, other)
                d_11 += cuda.shfl_xor_sync(WARP, d_11, other)
                other //= 2
            if mine and cuda.threadIdx.x == 0:
                u, v = divided(t.first + s, t.W_out)
                d_y = e_x * (d_10 - d_00) + f_x * (d_11 - d_01)
                d_x = e_y * (d_01 - d_00) + f_y * (d_11 - d_10)
                grad_offset[n, 2 * tap, u, v] = dm * d_y
                grad_offset[n, 2 * tap + 1, u, v] = dm * d_x
                if t.masked:
                    total = T(0)
                    if reads or e_y != e_y:  # q = -1 has a slope, but reads no pixel
                        total = (
                            e_y * e_x * d_00 + e_y * f_x * d_01
                            + f_y * e_x * d_10 + f_y * f_x * d_11
                        )  # fmt: skip
                    grad_mask[n, tap, u, v] = total


def spread_in_order(grad_columns, offset, mask, t, grad_image):
    """What `spread` adds to grad_image, one channel of one image a thread.

    No two threads add to one number, and each adds in the order of outputs and taps:
    the same bits at each run, for less parallel work.
    """
    T = grad_image.dtype.type
    below = (t.W + 2) * t.C_in
    for channel in range(cuda.grid(1), t.images * t.C_in, cuda.gridsize(1)):
        n, c = divided(channel, t.C_in)
        g = c // t.D
        for s in range(t.span):
            for k in range(t.K):
                q_y, q_x, dm = tap_at(offset, mask, n, t.first + s, g * t.K + k, t, T)
                if loops.inside(q_y, q_x, t.H, t.W, T):
                    place, e_y, f_y, e_x, f_x = cell(q_y, q_x, n, t, False, T)
                    i = place * t.C_in + c
                    d = dm * grad_columns[at(column(n * t.span + s, k, c, t))]
                    grad_image[at(i)] += e_y * e_x * d
                    grad_image[at(i + t.C_in)] += e_y * f_x * d
                    grad_image[at(i + below)] += f_y * e_x * d
                    grad_image[at(i + below + t.C_in)] += f_y * f_x * d


# --- Sums and products ---------------------------------------------------------------


def sum_rows(rows, count, inner, sums, parts):
    """sums[part, c] += rows[b, p, o] over p = part, part + parts, ...

    c = b * inner + o. Each number has one thread, so that the order is fixed.
    """
    channels = sums.size // parts
    for part in range(cuda.blockIdx.y, parts, cuda.gridDim.y):
        for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
            b, o = divided(c, inner)
            total = sums[part * channels + c]
            for p in range(part, count, parts):
                total += rows[(b * count + p) * inner + o]
            sums[part * channels + c] = total


@jitable
def load(tile, a, start, row, column, rows, columns):
    """tile[q, i] = a[start + i * row + q * column], 0 from `rows`, `columns` on."""
    thread = cuda.threadIdx.y * SQUARE + cuda.threadIdx.x
    for turn in range(DEPTH * EACH // SQUARE):
        e = turn * SQUARE * SQUARE + thread
        q, i = e // BLOCK, e % BLOCK
        if column == 1:  # adjacent threads go along the axis that is contiguous
            i, q = e // DEPTH, e % DEPTH
        value = tile.dtype.type(0)
        if i < rows and q < columns:
            value = a[at(start + i * row + q * column)]
        tile[at(q), at(i)] = value


def product(a, b, c, s):
    """c[i] = a[i] @ b[i], or += with s.accumulate; c is row-major.

    A block makes BLOCK rows and columns of c from tiles in shared memory, each thread
    EACH * EACH numbers in registers.
    """
    T = c.dtype.type
    tile_a = cuda.shared.array((DEPTH, LONG), c.dtype)
    tile_b = cuda.shared.array((DEPTH, LONG), c.dtype)
    sums = cuda.local.array((EACH, EACH), c.dtype)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    row = cuda.blockIdx.x * BLOCK  # along x there may be 2**31 - 1 blocks
    for batch in range(cuda.blockIdx.z, s.batch, cuda.gridDim.z):
        for col in range(cuda.blockIdx.y * BLOCK, s.N, cuda.gridDim.y * BLOCK):
            for i in range(EACH):
                for j in range(EACH):
                    sums[i, j] = T(0)
            for first in range(0, s.Q, DEPTH):
                start = batch * s.a_batch + row * s.a_row + first * s.a_column
                load(tile_a, a, start, s.a_row, s.a_column, s.M - row, s.Q - first)
                start = batch * s.b_batch + col * s.b_column + first * s.b_row
                load(tile_b, b, start, s.b_column, s.b_row, s.N - col, s.Q - first)
                cuda.syncthreads()
                for q in range(DEPTH):
                    for i in range(EACH):
                        for j in range(EACH):
                            left = tile_a[at(q), at(i * SQUARE + y)]
                            sums[i, j] += left * tile_b[at(q), at(j * SQUARE + x)]
                cuda.syncthreads()
            for i in range(EACH):
                for j in range(EACH):
                    m, n = row + i * SQUARE + y, col + j * SQUARE + x
                    if m < s.M and n < s.N:
                        place = at((batch * s.M + m) * s.N + n)
                        if s.accumulate:
                            c[place] += sums[i, j]
                        else:
                            c[place] = sums[i, j]
