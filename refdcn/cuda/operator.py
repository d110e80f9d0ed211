"""Forward and backward as launches: chunks of images, tiles of outputs.

A chunk's images are laid out channels last once. A tile's columns are made by one
kernel and used up by one product; they are small enough to stay in the second-level
cache, and the largest thing that is allocated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from refdcn.cuda import kernels
from refdcn.cuda.arrays import THREADS, Arrays, Grid, Kernel, grid
from refdcn.shapes import Geometry

TILE_BYTES = 24 << 20  # of one tile's columns and rows: half an H100's L2 cache
FEW_BLOCKS = 1024  # with fewer a device is not filled, and taps are shared out too
PARTS = 64  # partial sums of grad_bias, in a fixed order
ROWS = 8  # of threads in a transposition


class Plan(NamedTuple):
    """Sizes, in elements."""

    g: Geometry
    dtype: str  # of positions and sums
    K: int
    C: int  # input channels a group
    O: int  # output channels a group
    D: int  # input channels an offset group
    area: int  # pixels of a padded image
    pixels: int  # of an output
    images: int  # a chunk
    span: int  # outputs of each image in a tile


def plan(g: Geometry, dtype: str) -> Plan:
    K, pixels = g.K_h * g.K_w, g.H_out * g.W_out
    item = 8 if dtype == "float64" else 4
    area = (g.H + 3) * (g.W + 2)
    room = max(32, TILE_BYTES // (item * (K * g.C_in + g.C_out)))  # outputs in a tile
    tiles = -(-pixels // room)
    images = 1
    if tiles == 1:
        by_image = TILE_BYTES // (item * area * g.C_in)
        images = max(1, min(g.N, room // pixels, by_image))
    return Plan(
        g, "float64" if dtype == "float64" else "float32", K, g.C_in // g.groups,
        g.C_out // g.groups, g.C_in // g.offset_groups, area, pixels,
        images, -(-pixels // tiles),
    )  # fmt: skip


class Work:
    """The buffers of one call, and the launches that fill them."""

    def __init__(self, on: Arrays, p: Plan, weight: Any) -> None:
        g, outputs = p.g, p.images * p.span
        self.on, self.p = on, p
        self.image = self.zeros(p.images * p.area * g.C_in)
        self.columns = on.empty((outputs * p.K * g.C_in,), p.dtype)
        self.rows = on.empty((outputs * g.C_out,), p.dtype)  # [groups, P, O]
        self.weight = on.empty((g.C_out * p.K * p.C,), p.dtype)  # [groups, K * C, O]
        source = on.flat(on.plain(weight, p.dtype))
        self._permute(source, self._planes_of_weights(), self.weight, self._rows())

    def zeros(self, size: int) -> Any:
        a = self.on.empty((size,), self.p.dtype)
        self.clear(a)
        return a

    def clear(self, a: Any) -> None:
        self.on.launch(kernels.clear, grid((a.shape[0], THREADS)), (THREADS,), a)

    def load(self, x: Any, offset: Any, mask: Any, images: slice) -> None:
        """Lay out the images of a chunk, with its offsets and mask at hand."""
        on, dtype = self.on, self.p.dtype
        self.offset = on.plain(offset[images], dtype)
        self.masked = mask is not None
        self.mask = on.plain(mask[images], dtype) if self.masked else self.offset
        planes = on.flat(on.plain(x[images], dtype))
        self._transpose(kernels.planes_to_rows, (planes, self.image), self._padded())

    def tile(self, first: int, adds: bool = False) -> kernels.Tile:
        p, g = self.p, self.p.g
        return kernels.Tile(
            self.offset.shape[0], first, min(p.span, p.pixels - first), g.H, g.W,
            g.W_out, g.C_in, p.C, p.D, p.K, g.K_w, g.offset_groups * p.K,
            *g.stride, *g.padding, *g.dilation, int(self.masked), int(adds),
        )  # fmt: skip

    def sample(self, t: kernels.Tile) -> None:
        """columns of the tile."""
        self._by_output(
            kernels.sample, t, self.image, self.offset, self.mask, t, self.columns
        )

    def multiply(self, t: kernels.Tile) -> None:
        """rows = columns @ weight."""
        p = self.p
        sizes = t.images * t.span, p.K * p.C, p.O
        self._product(self.columns, self.weight, self.rows, sizes)

    def output(self, t: kernels.Tile, bias: Any, y: Any) -> None:
        """The tile's rows, plus bias, to their places in the chunk's y."""
        biased = bias is not None
        arrays = (self.rows, bias if biased else self.rows, self.on.flat(y))
        layout = self._outputs(t)._replace(biased=int(biased))
        self._transpose(kernels.rows_to_planes, arrays, layout)

    def take(self, grad_y: Any, t: kernels.Tile) -> None:
        """rows = the tile's grad_y."""
        arrays = self.on.flat(grad_y), self.rows
        self._transpose(kernels.planes_to_rows, arrays, self._outputs(t))

    def add_bias(self, t: kernels.Tile, parts: Any) -> None:
        """parts [PARTS, C_out] += sums of rows."""
        count, inner = t.images * t.span, self.p.O
        blocks = grid((self.p.g.C_out, 32), (PARTS, 1))
        args = self.rows, count, inner, parts, PARTS
        self.on.launch(kernels.sum_rows, blocks, (32,), *args)

    def add_weight(self, t: kernels.Tile, grad_weight: Any) -> None:
        """grad_weight += columns transposed @ rows."""
        p = self.p
        sizes = p.K * p.C, t.images * t.span, p.O
        self._product(
            self.columns, self.rows, grad_weight, sizes, turned="a", accumulate=True
        )

    def spread(self, t: kernels.Tile, grads: Sequence[Any], in_order: bool) -> None:
        """columns = rows @ weight transposed, and on to grad_image, offset and mask."""
        p, g = self.p, self.p.g
        sizes = t.images * t.span, p.O, p.K * p.C
        self._product(self.rows, self.weight, self.columns, sizes, turned="b")
        grad_image, grad_offset, grad_mask = grads
        inputs = self.columns, self.offset, self.mask
        atomic = t._replace(adds=0) if in_order else t
        self._by_output(
            kernels.spread, t, self.image, *inputs, atomic,
            grad_image, grad_offset, grad_mask,
        )  # fmt: skip
        if in_order and t.adds:
            blocks = grid((t.images * g.C_in, 32))
            args = *inputs, t, grad_image
            self.on.launch(kernels.spread_in_order, blocks, (32,), *args)

    def images_back(self, grad_image: Any, grad_x: Any) -> None:
        arrays = grad_image, grad_image, self.on.flat(grad_x)
        self._transpose(kernels.rows_to_planes, arrays, self._padded())

    def weight_back(self, rows: Any, grad_weight: Any) -> None:
        planes = self._planes_of_weights()
        self._permute(rows, self._rows(), self.on.flat(grad_weight), planes)

    def bias_back(self, parts: Any, grad_bias: Any) -> None:
        """grad_bias = the sum of its parts, in order."""
        C_out = self.p.g.C_out
        self.clear(grad_bias)
        args = parts, PARTS, C_out, grad_bias, 1
        self.on.launch(kernels.sum_rows, grid((C_out, 32), (1, 1)), (32,), *args)

    def _padded(self) -> kernels.Layout:
        p, g, images = self.p, self.p.g, self.offset.shape[0]
        size = g.H * g.W
        return kernels.Layout(images, g.C_in, size, 0, size, g.C_in, g.W, p.area, 0)

    def _outputs(self, t: kernels.Tile) -> kernels.Layout:
        p = self.p
        return kernels.Layout(
            t.images, p.g.C_out, p.pixels, t.first, t.span, p.O, 0, 0, 0
        )

    def _rows(self) -> Grid:
        """Strides of groups, o, c, k in the product's weights."""
        p = self.p
        return p.K * p.C * p.O, 1, p.O, p.C * p.O

    def _planes_of_weights(self) -> Grid:
        p = self.p
        return p.O * p.C * p.K, p.C * p.K, p.K, 1

    def _permute(self, source: Any, s: Grid, target: Any, t: Grid) -> None:
        p = self.p
        shape = p.g.groups, p.O, p.C, p.K
        blocks = grid((p.g.C_out * p.C * p.K, THREADS))
        self.on.launch(kernels.permute, blocks, (THREADS,), source, s, target, t, shape)

    def _transpose(
        self, kernel: Kernel, arrays: Sequence[Any], sizes: kernels.Layout
    ) -> None:
        side = kernels.SIDE
        blocks = grid((sizes.span, side), (sizes.channels, side), (sizes.images, 1))
        self.on.launch(kernel, blocks, (side, ROWS), *arrays, sizes)

    def _by_output(self, kernel: Kernel, t: kernels.Tile, *args: Any) -> None:
        """A row of threads for each output, as wide as its channels, at most a warp."""
        lanes = min(32, 1 << (self.p.D - 1).bit_length())
        rows = THREADS // lanes
        (blocks,) = grid((t.images * t.span, rows))
        taps = t.taps if blocks < FEW_BLOCKS else 1
        self.on.launch(kernel, (blocks, *grid((taps, 1))), (lanes, rows), *args)

    def _product(
        self, a: Any, b: Any, c: Any, sizes: Grid, turned: str = "",
        accumulate: bool = False,
    ) -> None:  # fmt: skip
        """c (+)= a @ b by groups; the one that is turned is stored transposed."""
        M, Q, N = sizes
        s_a = (M * Q, 1, M) if turned == "a" else (M * Q, Q, 1)
        s_b = (Q * N, 1, Q) if turned == "b" else (Q * N, N, 1)
        size = kernels.Product(self.p.g.groups, M, N, Q, *s_a, *s_b, int(accumulate))
        self.on.product(a, b, c, size)


def forward(on: Arrays, inputs: Sequence[Any], g: Geometry) -> Any:
    """Eq. (5): y [N, C_out, H_out, W_out], of the kind and dtype of x."""
    x, offset, weight, mask, bias = inputs
    dtype = on.dtype(x)
    p = plan(g, dtype)
    y = on.empty((g.N, g.C_out, g.H_out, g.W_out), dtype)
    if g.N == 0:
        return y
    b = None if bias is None else on.plain(bias, p.dtype)
    work = Work(on, p, weight)
    for images in _chunks(p):
        work.load(x, offset, mask, images)
        part = _wide(on, p, y[images])
        for first in range(0, p.pixels, p.span):
            t = work.tile(first)
            work.sample(t)
            work.multiply(t)
            work.output(t, b, part)
        _round(on, part, y[images], p)
    return y


def backward(
    on: Arrays, grad_y: Any, inputs: Sequence[Any], g: Geometry,
    needs: Sequence[bool], deterministic: bool,
) -> list[Any]:  # fmt: skip
    """The gradients by x, offset, weight, mask, bias; None where not needed."""
    x, offset, weight, mask, _ = inputs
    p = plan(g, on.dtype(x))
    grads = [
        on.empty(a.shape, on.dtype(x)) if need and a is not None else None
        for a, need in zip(inputs, needs, strict=True)
    ]
    grad_x, grad_offset, grad_weight, grad_mask, grad_bias = grads
    work = Work(on, p, weight)
    w = None if grad_weight is None else work.zeros(g.C_out * p.K * p.C)
    b = None if grad_bias is None else work.zeros(PARTS * g.C_out)
    for images in _chunks(p):
        work.load(x, offset, mask, images)
        gy = on.plain(grad_y[images], p.dtype)
        spread = _Spread(work, grad_x, grad_offset, grad_mask, images, deterministic)
        for first in range(0, p.pixels, p.span):
            t = work.tile(first, adds=grad_x is not None)
            work.take(gy, t)
            if b is not None:
                work.add_bias(t, b)
            if w is not None:
                work.sample(t)
                work.add_weight(t, w)
            spread.tile(t)
        spread.finish()
    if w is not None:
        part = _wide(on, p, grad_weight)
        work.weight_back(w, part)
        _round(on, part, grad_weight, p)
    if b is not None:
        part = _wide(on, p, grad_bias)
        work.bias_back(b, part)
        _round(on, part, grad_bias, p)
    return grads


class _Spread:
    """grad_x, grad_offset and grad_mask of one chunk."""

    def __init__(
        self, work: Work, grad_x: Any, grad_offset: Any, grad_mask: Any,
        images: slice, in_order: bool,
    ) -> None:  # fmt: skip
        self.work, self.in_order = work, in_order
        on, p = work.on, work.p
        self.grads = [
            a if a is None else a[images] for a in (grad_x, grad_offset, grad_mask)
        ]
        self.idle = all(a is None for a in self.grads)
        if self.idle:
            return
        # The kernel writes both; what nobody asked for goes to scratch memory.
        self.parts = [
            on.empty(like.shape, p.dtype) if a is None else _wide(on, p, a)
            for a, like in zip(self.grads[1:], (work.offset, work.mask), strict=True)
        ]
        self.image = work.image
        if grad_x is not None:
            self.image = work.zeros(work.offset.shape[0] * p.area * p.g.C_in)

    def tile(self, t: kernels.Tile) -> None:
        if not self.idle:
            self.work.spread(t, (self.image, *self.parts), self.in_order)

    def finish(self) -> None:
        on, p = self.work.on, self.work.p
        if self.idle:
            return
        for part, grad in zip(self.parts, self.grads[1:], strict=True):
            if grad is not None:
                _round(on, part, grad, p)
        if self.grads[0] is not None:
            part = _wide(on, p, self.grads[0])
            self.work.images_back(self.image, part)
            _round(on, part, self.grads[0], p)


def _chunks(p: Plan) -> Iterator[slice]:
    for n in range(0, p.g.N, p.images):
        yield slice(n, min(n + p.images, p.g.N))


def _wide(on: Arrays, p: Plan, a: Any) -> Any:
    """`a`, or as much memory in the dtype of sums."""
    return a if on.dtype(a) == p.dtype else on.empty(a.shape, p.dtype)


def _round(on: Arrays, part: Any, a: Any, p: Plan) -> None:
    if on.dtype(a) != p.dtype:
        on.assign(a, part)
