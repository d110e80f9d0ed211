"""CPU target: tiles of sampled columns, one matrix product a tile.

    columns[p, (k, c)] = dm_k(p) * x_c(q)        Eq. (2), channels last
    y[p, o]            = columns @ weight        Eq. (1)

An image is laid out [(H + 3) * (W + 2), C] with zeros around, so that all four corners
of every sample are in memory: the inner loop has no border branch and runs over
contiguous channels. A sample outside the image is placed on four of those zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refdcn import loops, threads
from refdcn.jit import compiled, jitable
from refdcn.shapes import Geometry
from refdcn.vectors import add_blend, blend, dots, transpose

Array = npt.NDArray[Any]

TILE_BYTES = 4 << 20  # of one tile's columns
BLOCK = 64  # outputs whose cells are found together and stay in the first cache
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
                        (tents[k, 0, p], tents[k, 1, p], tents[k, 2, p], tents[k, 3, p]),
                        end - begin,
                    )


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


def spread(image, grad_image, offset, mask, n, first, sizes, segments, shape, columns, parts):
    """Eqs. (2), (4) transposed: flat columns [P, K, C] hold d / d(x(q) dm).

    Adds to grad_image at the segments' channels. parts[s, k, :, p] are the channel
    sums of segment s: d / d dm, and d / d q_y, d / d q_x without dm.
    """
    C_in, P, K, C = shape
    T = image.dtype.type
    row = sizes[1] + 2
    place = np.empty((K, BLOCK), np.int64)
    cells = np.empty((K, 4, BLOCK), image.dtype)
    tents = np.empty((K, 4, BLOCK), image.dtype)
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
                    corners = (i, i + C_in, below, below + C_in)
                    at = ((block + p) * K + k) * C + c
                    d_00, d_01, d_10, d_11 = dots(columns, at, image, corners, end - begin)
                    e_y, f_y = cells[k, 0, p], cells[k, 1, p]
                    e_x, f_x = cells[k, 2, p], cells[k, 3, p]
                    part = parts[s, k, :, block + p]
                    part[1] = e_x * (d_10 - d_00) + f_x * (d_11 - d_01)
                    part[2] = e_y * (d_01 - d_00) + f_y * (d_11 - d_10)
                    part[0] = T(0)
                    low_y, low_x = place[k, p] < row, place[k, p] % row == 0
                    if (low_y and f_y == 0) or (low_x and f_x == 0):
                        continue  # q = -1 on an axis has a slope, but reads no pixel
                    part[0] = (
                        e_y * e_x * d_00 + e_y * f_x * d_01
                        + f_y * e_x * d_10 + f_y * f_x * d_11
                    )
                    add_blend(
                        grad_image, corners,
                        (tents[k, 0, p], tents[k, 1, p], tents[k, 2, p], tents[k, 3, p]),
                        columns, at, end - begin,
                    )


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
                    dm = mask[n, tap, first + p]
                    grad_mask[n, tap, first + p] = total
                grad_offset[n, 2 * tap, u, v] = dm * d_y
                grad_offset[n, 2 * tap + 1, u, v] = dm * d_x


def transposed(source, source_rows, target, target_rows):
    """target[target_rows[j] + i] = source[source_rows[i] + j], on flat arrays."""
    transpose(source, source_rows, target, target_rows)


# --- The operator --------------------------------------------------------------------


class Plan(NamedTuple):
    """What every tile needs to know; sizes in elements."""

    g: Geometry
    K: int
    C: int  # input channels a group
    O: int  # output channels a group
    P: int  # outputs a tile, the same for any number of threads, and so are the sums
    pixels: int  # of an output
    sizes: tuple[Any, ...]  # what find_cells takes
    inner: Array  # where each pixel of x stands in the padded image
    threads: int


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
    plan = _plan(geometry, x.itemsize, thread_count)
    g, K, C, O, P = plan[:5]
    y = np.empty((g.N, g.C_out, g.H_out, g.W_out), x.dtype)
    offset, dm = plain(offset), _mask(mask, x.dtype)
    b = None if bias is None else plain(bias).reshape(g.groups, 1, O)
    segments = _segments(g, 0, g.C_in)
    # By planes also where laying out the weight would cost more than it saves.
    widest = max(end - begin for _, begin, end, _, _ in segments)
    planar = widest < 8 or 3 * g.N * plan.pixels < O
    w = plain(weight).reshape(g.groups, O, C * K)  # columns (c, k)
    if not planar:  # columns (k, c)
        w = np.empty((g.groups, K * C, O), x.dtype)
        blocks = [(b, b * C, (b + 1) * C) for b in range(g.groups)]
        rows = _weight_rows(plan, blocks)
        _move_weights(plain(weight).reshape(-1), w.reshape(-1), rows, plan, inward=True)
    # Many images: one a thread. Few: their tiles are shared out.
    whole = g.N >= 2 * plan.threads
    images = [_image(g, x.dtype, planar) for _ in range(plan.threads if whole else 1)]
    kernel = compiled(sample_planes if planar else sample, "contract")

    @_quiet
    def tile(n: int, first: int, image: Array) -> None:
        p = min(P, plan.pixels - first)
        y_n = y[n].reshape(g.groups, O, plan.pixels)[:, :, first : first + p]
        cols = threads.scratch("columns", g.groups * p * K * C, x.dtype)
        shape = (g.C_in, p, K, C)
        kernel(
            image.reshape(-1), offset, dm, n, first, plan.sizes, segments, shape, cols
        )
        if planar:
            np.matmul(w, cols.reshape(g.groups, C * K, p), out=y_n)
            if b is not None:
                np.add(y_n, b.reshape(g.groups, O, 1), out=y_n)
            return
        product = threads.scratch("product", g.groups * p * O, x.dtype)
        product = product.reshape(g.groups, p, O)
        np.matmul(cols.reshape(g.groups, p, K * C), w, out=product)
        if b is not None:
            np.add(product, b, out=product)
        for group in range(g.groups):
            _columns_to_planes(product[group], y, n * g.C_out + group * O, first, plan)

    def image_task(n: int, worker: int) -> None:
        _fill(images[worker], x[n], plan, planar)
        for first in range(0, plan.pixels, P):
            tile(n, first, images[worker])

    with threads.single_threaded_blas():
        if whole:
            threads.run(image_task, g.N, plan.threads)
            return y
        for n in range(g.N):
            _fill(images[0], x[n], plan, planar)
            threads.run(
                lambda t, worker, n=n: tile(n, t * P, images[0]),
                -(-plan.pixels // P),
                plan.threads,
            )
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
    """Eq. (1) differentiated: grad_y [N, C_out, H_out, W_out] times dy/d(each).

    Tasks own channels, so that no two add to one number and the order of every sum is
    the same for any number of threads.
    """
    plan = _plan(geometry, x.itemsize, thread_count)
    g, K, C, O, P = plan[:5]
    grad_b = None
    if bias is not None and needs[4]:
        grad_b = grad_y.sum((0, 2, 3), dtype=x.dtype)
    if not any(needs[:4]):
        return Gradients(None, None, None, None, grad_b)
    offset, dm = plain(offset), _mask(mask, x.dtype)
    gy = plain(grad_y).reshape(g.N, g.groups, O, plan.pixels)
    blocks = [
        (b, begin, min(begin + CHANNELS, (b + 1) * C))
        for b in range(g.groups)
        for begin in range(b * C, (b + 1) * C, CHANNELS)
    ]
    segments = [_segments(g, begin, end) for _, begin, end in blocks]
    part_of = np.concatenate([[0], np.cumsum([len(s) for s in segments])])
    groups_of = np.concatenate([s[:, 0] for s in segments])
    rows = _weight_rows(plan, blocks)
    w = np.empty(weight.size, x.dtype)
    _move_weights(plain(weight).reshape(-1), w, rows, plan, inward=True)
    grad_w = np.zeros_like(w)
    bounds = [(begin * K * O, end * K * O) for _, begin, end in blocks]
    ws = [w[low:high].reshape(-1, O) for low, high in bounds]
    grad_ws = [grad_w[low:high].reshape(-1, O) for low, high in bounds]
    image, grad_image = _image(g, x.dtype), _image(g, x.dtype)
    flat, flat_grad = image.reshape(-1), grad_image.reshape(-1)
    grad_x = np.empty(x.shape, x.dtype)
    grad_offset = np.empty(offset.shape, x.dtype)
    grad_mask = np.empty(dm.shape, x.dtype)
    parts = np.empty((len(groups_of), K, 3, P), x.dtype)
    do_sample = compiled(sample, "contract")
    do_spread = compiled(spread, "contract", "reassoc")

    @_quiet
    def block(t: int, worker: int) -> None:
        b, size = blocks[t][0], len(ws[t])
        cols = threads.scratch("columns", p * size, x.dtype).reshape(p, size)
        shape = (g.C_in, p, K, size // K)
        gy_t = gy[n, b, :, first : first + p]
        if needs[2]:
            do_sample(
                flat, offset, dm, n, first, plan.sizes, segments[t], shape, cols.ravel()
            )
            product = threads.scratch("product", size * O, x.dtype).reshape(size, O)
            np.matmul(cols.T, gy_t.T, out=product)
            np.add(grad_ws[t], product, out=grad_ws[t])
        if needs[0] or needs[1] or needs[3]:
            np.matmul(gy_t.T, ws[t].T, out=cols)
            part = parts[part_of[t] : part_of[t + 1], :, :, :p]
            do_spread(
                flat, flat_grad, offset, dm, n, first, plan.sizes, segments[t], shape,
                cols.ravel(), part,
            )  # fmt: skip

    with threads.single_threaded_blas():
        for n in range(g.N):
            _fill(image, x[n], plan)
            grad_image.fill(0)
            for first in range(0, plan.pixels, P):
                p = min(P, plan.pixels - first)
                threads.run(block, len(blocks), plan.threads)
                compiled(gather_parts)(
                    parts[..., :p], groups_of, dm, n, first, grad_offset, grad_mask
                )
            _image_to_planes(grad_image, grad_x, n, plan)
    grad_weight = None
    if needs[2]:
        grad_weight = np.empty(weight.shape, x.dtype)
        _move_weights(grad_w, grad_weight.reshape(-1), rows, plan, inward=False)
    return Gradients(
        grad_x if needs[0] else None,
        grad_offset if needs[1] else None,
        grad_weight,
        grad_mask.reshape(mask.shape) if needs[3] and mask is not None else None,
        grad_b,
    )


# --- Layouts -------------------------------------------------------------------------


def _plan(g: Geometry, itemsize: int, thread_count: int | None) -> Plan:
    K, C, O = g.K_h * g.K_w, g.C_in // g.groups, g.C_out // g.groups
    pixels = g.H_out * g.W_out
    tiles = -(-pixels * K * g.C_in * itemsize // TILE_BYTES)
    P = min(pixels, -(-pixels // (tiles * BLOCK)) * BLOCK)
    flops = 2 * g.N * pixels * g.C_out * C * K
    count = 1
    if flops >= SERIAL_FLOPS:
        count = thread_count or threads.get_num_threads()
    sizes = (g.H, g.W, g.W_out, g.K_w, g.stride, g.padding, g.dilation)
    inner = ((np.arange(g.H) + 1) * (g.W + 2))[:, None] + (np.arange(g.W) + 1)
    return Plan(g, K, C, O, P, pixels, sizes, inner.ravel(), count)


def plain(a: Array) -> Array:
    """The layout the stages are compiled for; a copy only where it differs."""
    return np.require(a, requirements=("C_CONTIGUOUS", "ALIGNED", "WRITEABLE"))


def _mask(mask: Array | None, dtype: Any) -> Array:
    """[N, offset_groups * K, H_out * W_out], empty for None."""
    if mask is None:
        return np.empty((0, 0, 0), dtype)
    return plain(mask).reshape(*mask.shape[:2], mask.shape[2] * mask.shape[3])


def _weight_rows(plan: Plan, blocks: list[tuple[int, int, int]]) -> Array:
    """Where (block, k, c of the block) puts the O weights of each (c, k), c in C_in."""
    K, O = plan.K, plan.O
    rows = np.empty((plan.g.C_in, K), np.int64)
    for _, begin, end in blocks:
        size = end - begin
        c, k = np.arange(size)[:, None], np.arange(K)
        rows[begin:end] = (begin * K + k * size + c) * O
    return rows.reshape(plan.g.groups, -1)


def _move_weights(source: Array, target: Array, rows: Array, plan: Plan, inward: bool) -> None:
    """Flat [groups, O, C * K] to rows of O, or back."""
    size = plan.C * plan.K
    for group, inner in enumerate(rows):
        outer = (group * plan.O + np.arange(plan.O)) * size
        if inward:
            compiled(transposed)(source, outer, target, inner)
        else:
            compiled(transposed)(source, inner, target, outer)


def _image(g: Geometry, dtype: Any, planar: bool = False) -> Array:
    pixels = (g.H + 3) * (g.W + 2)
    return np.zeros((g.C_in, pixels) if planar else (pixels, g.C_in), dtype)


def _fill(image: Array, x: Array, plan: Plan, planar: bool = False) -> None:
    """x [C, H, W] into the middle of the padded image."""
    g = plan.g
    if planar:
        image.reshape(g.C_in, g.H + 3, g.W + 2)[:, 1:-2, 1:-1] = x
    elif x.transpose(1, 2, 0).flags.c_contiguous:  # channels last already
        image.reshape(g.H + 3, g.W + 2, g.C_in)[1:-2, 1:-1] = x.transpose(1, 2, 0)
    else:
        compiled(transposed)(
            plain(x).reshape(-1), np.arange(g.C_in) * (g.H * g.W),
            image.reshape(-1), plan.inner * g.C_in,
        )  # fmt: skip


def _image_to_planes(image: Array, x: Array, n: int, plan: Plan) -> None:
    """The middle of the padded image into x[n]."""
    C, area = plan.g.C_in, plan.g.H * plan.g.W
    compiled(transposed)(
        image.reshape(-1), plan.inner * C,
        x.reshape(-1), (n * C + np.arange(C)) * area,
    )  # fmt: skip


def _columns_to_planes(
    product: Array, y: Array, channel: int, first: int, plan: Plan
) -> None:
    """product [P, O] into channels `channel` ... of y, flat, from output `first` on."""
    P, O = product.shape
    compiled(transposed)(
        product.reshape(-1), np.arange(P) * O,
        y.reshape(-1), (channel + np.arange(O)) * plan.pixels + first,
    )  # fmt: skip


def _segments(g: Geometry, begin: int, end: int) -> Array:
    """Runs of channels in one offset group and one group; see `sample`."""
    per_offset, C = g.C_in // g.offset_groups, g.C_in // g.groups
    inner = {*range(0, g.C_in, per_offset), *range(0, g.C_in, C)}
    cuts = sorted({begin, end} | {c for c in inner if begin < c < end})
    whole = (begin, end) == (0, g.C_in)
    rows = [
        (c // per_offset, c, d, c // C if whole else 0, c % C if whole else c - begin)
        for c, d in zip(cuts, cuts[1:], strict=False)
    ]
    return np.array(rows, np.int64)


def _quiet(task: Callable[..., None]) -> Callable[..., None]:
    """No warning where NaN or infinity is the answer; the state is each thread's."""
    return np.errstate(invalid="ignore", over="ignore")(task)
