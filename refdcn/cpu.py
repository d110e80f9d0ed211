"""CPU target: tiles of sampled columns, one matrix product a tile.

    columns[p, (k, c)] = dm_k(p) * x_c(q)        Eq. (2), channels last
    y[p, o]            = columns @ weight        Eq. (1)

An image is laid out [H + 3, W + 2, C] with zeros around, so that all four corners of
every sample are in memory: the inner loop has no border branch and runs over contiguous
channels. A sample outside the image is placed on four of those zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refdcn import loops, threads
from refdcn.jit import compiled, jitable
from refdcn.shapes import Geometry

Array = npt.NDArray[Any]

TILE_BYTES = 4 << 20  # of one tile's columns
BLOCK = 64  # outputs whose corners are found together and stay in the first cache
CHANNELS = 32  # that one task of the backward owns
SERIAL_FLOPS = 4_000_000  # below this, waking a thread costs more than it saves


class Gradients(NamedTuple):
    """The derivatives of sum(grad_y * y); None where not given or not asked for."""

    x: Array | None
    offset: Array | None
    weight: Array | None
    mask: Array | None
    bias: Array | None


# --- Compiled stages -----------------------------------------------------------------


def to_channels_last(x, image):
    """x [C, H, W] into the middle of image [H + 3, W + 2, C]."""
    C, H, W = x.shape
    for r in range(H):
        for left in range(0, W, 16):
            for c in range(C):
                for s in range(left, min(left + 16, W)):
                    image[r + 1, s + 1, c] = x[c, r, s]


def from_channels_last(image, x):
    """The middle of image [H + 3, W + 2, C] into x [C, H, W]."""
    C, H, W = x.shape
    for r in range(H):
        for left in range(0, W, 16):
            for c in range(C):
                for s in range(left, min(left + 16, W)):
                    x[c, r, s] = image[r + 1, s + 1, c]


def transpose_add(tile, bias, y, first):
    """y[o, first + p] = tile[p, o] + bias[o]."""
    P, C_out = tile.shape
    for begin in range(0, P, 16):
        for o in range(C_out):
            for p in range(begin, min(begin + 16, P)):
                y[o, first + p] = tile[p, o] + bias[o]


@jitable
def find_corners(offset, mask, n, g, k, first, count, g_, place, tents):
    """Eqs. (1), (3): where outputs first ... first + count - 1 sample.

    place[p] is the padded image's pixel at the corner of the cell, tents[:, p] the
    weights of its four pixels times dm. A NaN coordinate has NaN weights.
    """
    H, W, W_out, K, K_w, stride, padding, dilation = g_
    T = tents.dtype.type
    tap = g * K + k
    u, v = first // W_out, first % W_out
    for p in range(count):
        q_y, q_x = loops.tap_position(
            offset, n, tap, u, v, k, K_w, stride, padding, dilation
        )
        dm = T(1)
        if mask.size > 0:
            dm = mask[n, tap, u, v]
        place[p] = (H + 1) * (W + 2)
        t_00 = t_01 = t_10 = t_11 = T(0)
        if loops.inside(q_y, q_x, H, W, T):
            r_y, r_x, e_y, f_y, e_x, f_x = loops.corners(q_y, q_x, T)
            place[p] = (r_y + 1) * (W + 2) + r_x + 1
            t_00, t_01 = e_y * e_x * dm, e_y * f_x * dm
            t_10, t_11 = f_y * e_x * dm, f_y * f_x * dm
        elif math.isnan(q_y) or math.isnan(q_x):
            t_00 = t_01 = t_10 = t_11 = T(np.nan)
        tents[0, p], tents[1, p], tents[2, p], tents[3, p] = t_00, t_01, t_10, t_11
        v += 1
        if v == W_out:
            u, v = u + 1, 0


def sample(image, offset, mask, n, first, g_, segments, columns):
    """Eq. (2): columns [B, P, K, C] for the P outputs from `first` on.

    A segment (g, begin, end, b, c) says: channels begin ... end - 1 of x, which belong
    to offset group g, go to columns[b, :, :, c:].
    """
    P, K = columns.shape[1], columns.shape[2]
    row = g_[1] + 2
    place = np.empty((K, BLOCK), np.int64)
    tents = np.empty((K, 4, BLOCK), image.dtype)
    for block in range(0, P, BLOCK):
        count = min(BLOCK, P - block)
        known = -1
        for s in range(len(segments)):
            g, begin, end, b, at = segments[s]
            if g != known:
                for k in range(K):
                    find_corners(
                        offset, mask, n, g, k, first + block, count, g_,
                        place[k], tents[k],
                    )
                known = g
            for p in range(count):
                for k in range(K):
                    i = place[k, p]
                    t_00, t_01 = tents[k, 0, p], tents[k, 1, p]
                    t_10, t_11 = tents[k, 2, p], tents[k, 3, p]
                    x_00, x_01 = image[i, begin:end], image[i + 1, begin:end]
                    x_10, x_11 = image[i + row, begin:end], image[i + row + 1, begin:end]
                    column = columns[b, block + p, k, at : at + end - begin]
                    for c in range(end - begin):
                        column[c] = (
                            t_00 * x_00[c] + t_01 * x_01[c]
                            + t_10 * x_10[c] + t_11 * x_11[c]
                        )


@jitable
def corner_dots(image, i, row, begin, column):
    """sum_c column[c] * x_c(r) at the four pixels of a cell; LLVM may reorder it."""
    T = image.dtype.type
    d_00 = d_01 = d_10 = d_11 = T(0)
    for c in range(len(column)):
        d_00 += column[c] * image[i, begin + c]
        d_01 += column[c] * image[i + 1, begin + c]
        d_10 += column[c] * image[i + row, begin + c]
        d_11 += column[c] * image[i + row + 1, begin + c]
    return d_00, d_01, d_10, d_11


def spread(image, grad_image, offset, mask, n, first, g_, segments, columns, parts):
    """Eqs. (2), (4) transposed: columns [P, K, C] holds d / d(x(q) dm).

    Adds to grad_image at the segments' channels. parts[s, k, :, p] are the channel
    sums of segment s: d / d dm, and d / d q_y, d / d q_x over dm.
    """
    H, W, W_out, K, K_w, stride, padding, dilation = g_
    T = image.dtype.type
    row = W + 2
    for s in range(len(segments)):
        g, begin, end, _, at = segments[s]
        for p in range(len(columns)):
            u, v = (first + p) // W_out, (first + p) % W_out
            for k in range(K):
                tap = g * K + k
                q_y, q_x = loops.tap_position(
                    offset, n, tap, u, v, k, K_w, stride, padding, dilation
                )
                column = columns[p, k, at : at + end - begin]
                part = parts[s, k, :, p]
                if not loops.slope_inside(q_y, q_x, H, W, T):
                    lost = T(0)
                    if math.isnan(q_y) or math.isnan(q_x):
                        lost = T(np.nan)
                    part[0] = part[1] = part[2] = lost
                    continue
                r_y, r_x, e_y, f_y, e_x, f_x = loops.corners(q_y, q_x, T)
                i = (r_y + 1) * row + r_x + 1
                d_00, d_01, d_10, d_11 = corner_dots(image, i, row, begin, column)
                part[0] = T(0)
                part[1] = e_x * (d_10 - d_00) + f_x * (d_11 - d_01)
                part[2] = e_y * (d_01 - d_00) + f_y * (d_11 - d_10)
                if not loops.inside(q_y, q_x, H, W, T):
                    continue  # q = -1 on an axis: a slope, but no sample
                part[0] = e_y * (e_x * d_00 + f_x * d_01) + f_y * (
                    e_x * d_10 + f_x * d_11
                )
                dm = T(1)
                if mask.size > 0:
                    dm = mask[n, tap, u, v]
                t_00, t_01 = e_y * e_x * dm, e_y * f_x * dm
                t_10, t_11 = f_y * e_x * dm, f_y * f_x * dm
                for c in range(end - begin):
                    grad_image[i, begin + c] += t_00 * column[c]
                    grad_image[i + 1, begin + c] += t_01 * column[c]
                    grad_image[i + row, begin + c] += t_10 * column[c]
                    grad_image[i + row + 1, begin + c] += t_11 * column[c]


def gather_parts(parts, groups, mask, n, first, grad_offset, grad_mask):
    """The channel sums of every segment, added in order: grad_offset, grad_mask."""
    S, K, _, P = parts.shape
    W_out = grad_offset.shape[3]
    T = parts.dtype.type
    for k in range(K):
        for p in range(P):
            u, v = (first + p) // W_out, (first + p) % W_out
            s = 0
            while s < S:
                tap = groups[s] * K + k
                total = d_y = d_x = T(0)
                begin = s
                while s < S and groups[s] == groups[begin]:
                    total += parts[s, k, 0, p]
                    d_y += parts[s, k, 1, p]
                    d_x += parts[s, k, 2, p]
                    s += 1
                dm = T(1)
                if mask.size > 0:
                    dm = mask[n, tap, u, v]
                    grad_mask[n, tap, u, v] = total
                grad_offset[n, 2 * tap, u, v] = dm * d_y
                grad_offset[n, 2 * tap + 1, u, v] = dm * d_x


# --- The operator --------------------------------------------------------------------


def forward(
    x: Array,
    offset: Array,
    weight: Array,
    mask: Array | None,
    bias: Array | None,
    geometry: Geometry,
    thread_count: int | None = None,
) -> Array:
    """Eq. (1): y [N, C_out, H_out, W_out]."""
    g = geometry
    K, C, P_all = g.K_h * g.K_w, g.C_in // g.groups, g.H_out * g.W_out
    O = g.C_out // g.groups
    y = np.empty((g.N, g.C_out, g.H_out, g.W_out), x.dtype)
    y_flat = y.reshape(g.N, g.C_out, P_all)
    offset, dm = plain(offset), _mask(mask, x.dtype)
    w = plain(weight).reshape(g.groups, O, C, K)
    w = np.ascontiguousarray(w.transpose(0, 3, 2, 1)).reshape(g.groups, K * C, O)
    b = np.zeros(g.C_out, x.dtype) if bias is None else plain(bias)
    image, flat_image = _padded_image(g, x.dtype)
    segments, g_ = _segments(g, 0, g.C_in), _sizes(g)
    P = _tile(g, x.itemsize)
    tiles = range(0, P_all, P)
    count = _threads(g, thread_count)
    columns = [np.empty((g.groups, P, K, C), x.dtype) for _ in range(count)]
    product = [np.empty((g.groups, P, O), x.dtype) for _ in range(count)]
    do_sample, add = compiled(sample, "contract"), compiled(transpose_add)

    @_quiet
    def tile(t: int, worker: int) -> None:
        first = tiles[t]
        p = min(P, P_all - first)
        cols, out = columns[worker][:, :p], product[worker][:, :p]
        do_sample(flat_image, offset, dm, n, first, g_, segments, cols)
        np.matmul(cols.reshape(g.groups, p, K * C), w, out=out)
        for group in range(g.groups):
            block = slice(group * O, (group + 1) * O)
            add(out[group], b[block], y_flat[n, block], first)

    with threads.single_threaded_blas():
        for n in range(g.N):
            _fill(image, x[n])
            threads.run(tile, len(tiles), count)
    return y


def backward(
    grad_y: Array,
    x: Array,
    offset: Array,
    weight: Array,
    mask: Array | None,
    bias: Array | None,
    geometry: Geometry,
    needs: tuple[bool, ...] = (True,) * 5,
    thread_count: int | None = None,
) -> Gradients:
    """Eq. (1) differentiated: grad_y [N, C_out, H_out, W_out] times dy/d(each)."""
    g = geometry
    K, C, P_all = g.K_h * g.K_w, g.C_in // g.groups, g.H_out * g.W_out
    O = g.C_out // g.groups
    grad_b = None
    if bias is not None and needs[4]:
        grad_b = grad_y.sum((0, 2, 3), dtype=x.dtype)
    if not any(needs[:4]):
        return Gradients(None, None, None, None, grad_b)
    offset, dm = plain(offset), _mask(mask, x.dtype)
    gy_flat = plain(grad_y).reshape(g.N, g.groups, O, P_all)
    w = plain(weight).reshape(g.groups, O, C, K)
    g_ = _sizes(g)
    blocks = [
        (b, begin, min(begin + CHANNELS, (b + 1) * C))
        for b in range(g.groups)
        for begin in range(b * C, (b + 1) * C, CHANNELS)
    ]
    local = [(begin - b * C, end - b * C) for b, begin, end in blocks]
    segments = [_segments(g, begin, end) for _, begin, end in blocks]
    offsets_of = np.concatenate([[0], np.cumsum([len(s) for s in segments])])
    groups_of = np.concatenate([s[:, 0] for s in segments])
    w_block = [
        np.ascontiguousarray(w[b, :, low:high].transpose(0, 2, 1)).reshape(O, -1)
        for (b, _, _), (low, high) in zip(blocks, local, strict=True)
    ]
    image, flat_image = _padded_image(g, x.dtype)
    grad_image, flat_grad = _padded_image(g, x.dtype)
    grad_x = np.empty(x.shape, x.dtype)
    grad_offset = np.empty(offset.shape, x.dtype)
    grad_mask = np.empty(dm.shape, x.dtype)
    grad_w = [np.zeros(block.shape, x.dtype) for block in w_block]
    P = _tile(g, x.itemsize)
    count = _threads(g, thread_count)
    widest = max(end - begin for _, begin, end in blocks)
    columns = [np.empty((1, P, K, widest), x.dtype) for _ in range(count)]
    products = [np.empty(w_block[0].size, x.dtype) for _ in range(count)]
    parts = np.empty((len(groups_of), K, 3, P), x.dtype)
    do_sample, do_spread = compiled(sample, "contract"), compiled(spread, "contract", "reassoc")

    @_quiet
    def block(t: int, worker: int) -> None:
        b, begin, end = blocks[t]
        size = end - begin
        buffer = columns[worker].reshape(-1)[: p * K * size]
        cols, gy = buffer.reshape(1, p, K, size), gy_flat[n, b, :, first : first + p]
        if needs[2]:
            do_sample(flat_image, offset, dm, n, first, g_, segments[t], cols)
            out = products[worker][: w_block[t].size].reshape(w_block[t].shape)
            np.matmul(gy, cols.reshape(p, K * size), out=out)
            np.add(grad_w[t], out, out=grad_w[t])
        if needs[0] or needs[1] or needs[3]:
            np.matmul(gy.T, w_block[t], out=cols.reshape(p, K * size))
            do_spread(
                flat_image, flat_grad, offset, dm, n, first, g_, segments[t], cols[0],
                parts[offsets_of[t] : offsets_of[t + 1], :, :, :p],
            )

    with threads.single_threaded_blas():
        for n in range(g.N):
            _fill(image, x[n])
            grad_image.fill(0)
            for first in range(0, P_all, P):
                p = min(P, P_all - first)
                threads.run(block, len(blocks), count)
                compiled(gather_parts)(
                    parts[..., :p], groups_of, dm, n, first, grad_offset, grad_mask
                )
            compiled(from_channels_last)(grad_image, grad_x[n])
    full_w = np.empty(w.shape, x.dtype)
    for t, (b, _, _) in enumerate(blocks):
        low, high = local[t]
        full_w[b, :, low:high] = grad_w[t].reshape(O, K, high - low).transpose(0, 2, 1)
    return Gradients(
        grad_x if needs[0] else None,
        grad_offset if needs[1] else None,
        full_w.reshape(weight.shape) if needs[2] else None,
        grad_mask if needs[3] and mask is not None else None,
        grad_b,
    )


def _quiet(task: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """No warning where NaN or infinity is the answer; the state is each thread's."""
    return np.errstate(invalid="ignore", over="ignore")(task)


def plain(a: Array) -> Array:
    """The layout the stages are compiled for; a copy only where it differs."""
    native = a.dtype.newbyteorder("=")
    return np.require(a, native, ("C_CONTIGUOUS", "ALIGNED", "WRITEABLE"))


def _mask(mask: Array | None, dtype: Any) -> Array:
    return np.empty((0, 0, 0, 0), dtype) if mask is None else plain(mask)


def _padded_image(g: Geometry, dtype: Any) -> tuple[Array, Array]:
    image = np.zeros((g.H + 3, g.W + 2, g.C_in), dtype)
    return image, image.reshape(-1, g.C_in)


def _fill(image: Array, x: Array) -> None:
    if x.transpose(1, 2, 0).flags.c_contiguous:  # channels last already
        image[1:-2, 1:-1] = x.transpose(1, 2, 0)
    else:
        compiled(to_channels_last)(plain(x), image)


def _segments(g: Geometry, begin: int, end: int) -> Array:
    """Runs of channels in one offset group and one group; see `sample`."""
    per_offset, C = g.C_in // g.offset_groups, g.C_in // g.groups
    cuts = sorted(
        {begin, end} | set(range(0, g.C_in, per_offset)) | set(range(0, g.C_in, C))
    )
    cuts = [c for c in cuts if begin <= c <= end]
    whole = (begin, end) == (0, g.C_in)
    rows = [
        (c // per_offset, c, d, c // C if whole else 0, c % C if whole else c - begin)
        for c, d in zip(cuts, cuts[1:], strict=False)
    ]
    return np.array(rows, np.int64)


def _sizes(g: Geometry) -> tuple[Any, ...]:
    K = g.K_h * g.K_w
    return (g.H, g.W, g.W_out, K, g.K_w, g.stride, g.padding, g.dilation)


def _tile(g: Geometry, itemsize: int) -> int:
    """Outputs a tile: the same for any number of threads, and so are the sums."""
    fits = TILE_BYTES // (g.K_h * g.K_w * g.C_in * itemsize)
    return int(min(g.H_out * g.W_out, max(16, min(fits, 2048))))


def _threads(g: Geometry, thread_count: int | None) -> int:
    flops = 2 * g.N * g.H_out * g.W_out * g.C_out * g.C_in // g.groups * g.K_h * g.K_w
    if flops < SERIAL_FLOPS:
        return 1
    return threads.get_num_threads() if thread_count is None else thread_count
