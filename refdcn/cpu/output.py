"""Eq. (1) on the CPU: tiles of sampled columns, one matrix product a tile.

    columns[p, (k, c)] = dm_k(p) * x_c(q)        Eq. (2)
    y[p, o]            = columns @ weight        Eq. (1)
"""

from __future__ import annotations

import numpy as np

from refdcn import threads
from refdcn.cpu import kernels, layout, moves
from refdcn.cpu.layout import Array
from refdcn.jit import compiled
from refdcn.shapes import Geometry


def forward(
    x: Array,
    offset: Array,
    weight: Array,
    mask: Array | None,
    bias: Array | None,
    geometry: Geometry,
    thread_count: int | None = None,
    team: threads.Team | None = None,
) -> Array:
    """y [N, C_out, H_out, W_out] of NumPy arrays of one dtype, float32 or float64."""
    task = _Forward(x, offset, weight, mask, bias, geometry)
    with threads.single_threaded_blas():
        task.run(layout.thread_count(task.plan, thread_count), team)
    return task.y


class _Forward:
    def __init__(
        self,
        x: Array,
        offset: Array,
        weight: Array,
        mask: Array | None,
        bias: Array | None,
        g: Geometry,
    ) -> None:
        self.plan = p = layout.plan(g, x.itemsize)
        self.x, self.offset = x, layout.plain(offset)
        self.mask = layout.plain_mask(mask, x.dtype)
        self.bias = np.empty(0, x.dtype) if bias is None else layout.plain(bias)
        self.segments = layout.segments(g, 0, g.C_in)
        self.y = np.empty((g.N, g.C_out, g.H_out, g.W_out), x.dtype)
        # By planes where channels are too few for a vector, and where laying out the
        # weight, which planes take as it is, would cost more than sampling.
        widest = g.C_in // max(g.groups, g.offset_groups)
        self.planar = widest < 8 or 3 * p.pixels < p.O
        # Two threads share the outputs of one small tile; in halves for one, too, since
        # the bits of a product may depend on its sizes.
        self.parts = 2 if self.planar and p.P == p.pixels and p.O >= 256 else 1
        weight = layout.plain(weight)
        if self.planar:
            self.w = weight.reshape(g.groups, p.O, p.C * p.K)
        else:
            self.w = np.empty((g.groups, p.K * p.C, p.O), x.dtype)
            w = self.w.reshape(-1)
            runs = layout.runs(g)
            compiled(moves.weights_in)(weight.reshape(-1), p.weight, runs, 0, w)

    def run(self, count: int, team: threads.Team | None) -> None:
        """All of it, on `count` threads."""
        g, p = self.plan.g, self.plan
        tile = self.tile_of_planes if self.planar else self.tile
        tiles = range(0, p.pixels, p.P)
        image_bytes = (g.H + 3) * (g.W + 2) * g.C_in * self.x.itemsize
        if g.N >= 2 * count and image_bytes <= layout.TILE_BYTES:
            # Whole images, one a thread.

            def whole(n: int) -> None:
                image = self.image(n)
                for first in tiles:
                    tile(image, n, first)

            threads.run(whole, g.N, count, team)
            return
        for n in range(g.N):
            image = self.image(n, count, team)
            if self.parts > 1:
                columns = self.sampled_planes(image, n, 0)

                def part(i: int, n: int = n, columns: Array = columns) -> None:
                    self.multiply(columns, n, 0, i)

                threads.run(part, self.parts, count, team)
                continue

            def one(t: int, n: int = n, image: Array = image) -> None:
                tile(image, n, tiles[t])

            threads.run(one, len(tiles), count, team)

    def image(self, n: int, count: int = 1, team: threads.Team | None = None) -> Array:
        if self.planar:
            return layout.padded_planes(self.x[n], self.plan)
        return layout.padded_image(self.x[n], self.plan, count, team)

    def tile(self, image: Array, n: int, first: int) -> None:
        """Outputs first ... first + P - 1 of image n."""
        g, K, C, O, P, pixels = self.plan[:6]
        P = min(P, pixels - first)
        columns = threads.scratch("columns", g.groups * P * K * C, image.dtype)
        compiled(kernels.sample, "contract")(
            image, self.offset, self.mask, n, first, self.plan.sizes, self.segments,
            (g.C_in, P, K, C), columns,
        )  # fmt: skip
        product = threads.scratch("product", g.groups * P * O, image.dtype)
        product = product.reshape(g.groups, P, O)
        np.matmul(columns.reshape(g.groups, P, K * C), self.w, out=product)
        for b in range(g.groups):
            compiled(moves.product_out)(
                product[b].reshape(-1), P, self.bias[b * O : (b + 1) * O],
                self.y.reshape(-1), n * g.C_out + b * O, pixels, first,
            )  # fmt: skip

    def tile_of_planes(self, planes: Array, n: int, first: int) -> None:
        """The same with the columns turned: [(c, k), p]."""
        columns = self.sampled_planes(planes, n, first)
        for part in range(self.parts):
            self.multiply(columns, n, first, part)

    def sampled_planes(self, planes: Array, n: int, first: int) -> Array:
        """Columns [groups, (c, k), p]."""
        g, K, C, _, P, pixels = self.plan[:6]
        P = min(P, pixels - first)
        columns: Array = threads.scratch("columns", g.groups * P * K * C, planes.dtype)
        compiled(kernels.sample_planes, "contract")(
            planes, self.offset, self.mask, n, first, self.plan.sizes, self.segments,
            (g.C_in, P, K, C), columns,
        )  # fmt: skip
        return columns.reshape(g.groups, C * K, P)

    def multiply(self, columns: Array, n: int, first: int, part: int) -> None:
        """One of `parts` of the output channels of each group."""
        groups, O, P = self.plan.g.groups, self.plan.O, columns.shape[2]
        rows = slice(part * O // self.parts, (part + 1) * O // self.parts)
        y = self.y[n].reshape(groups, O, -1)[:, rows, first : first + P]
        np.matmul(self.w[:, rows], columns, out=y)
        if self.bias.size:
            np.add(y, self.bias.reshape(groups, O, 1)[:, rows], out=y)
