"""Eq. (1) on the CPU: tiles of sampled columns, multiplied while they are in the cache.

columns[p, (k, c)] = dm_k(p) * x_c(q)        Eq. (2)
y[p, o]            = columns @ weight        Eq. (1)
"""

from __future__ import annotations

import numpy as np

from refdcn import scratch, threads
from refdcn.cpu import kernels, layout
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
    weight, g = layout.filled(weight, geometry)
    task = _Forward(x, offset, weight, mask, bias, g)
    with scratch.lent():
        task.run(layout.thread_count(task.plan, thread_count), team)
    return task.y.reshape(*task.y.shape[:2], geometry.H_out, geometry.W_out)


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
        self.x, self.offset = x, layout.plain_pixels(offset, p)
        self.mask = layout.plain_mask(mask, x.dtype)
        self.segments = layout.segments(g, 0, g.C_in)
        self.y = np.empty((g.N, g.C_out, p.pixels), x.dtype)
        # By planes where channels are too few for a vector.
        self.planar = g.C_in // max(g.groups, g.offset_groups) < 4
        # Weights as they are where to lay them out costs more than sampling; two
        # threads then share the outputs of one small tile.
        self.turned = self.planar or 3 * p.pixels < p.O
        if self.turned:  # columns of all taps, in few tiles where weights are large
            most = layout.TILE_BYTES if self.planar else layout.IMAGE_BYTES
            row_bytes = p.K * g.C_in * x.itemsize
            P = layout.tile(p.pixels, row_bytes, p.flops // max(g.N, 1), most)
            self.plan = p = p._replace(P=P)
        self.parts = 2 if self.turned and p.P == p.pixels and p.O >= 256 else 1
        self.w = layout.plain(weight).reshape(-1)
        # Of each group, filled up to whole vectors where the product's columns are.
        width = p.O if self.turned else p.width
        filled = np.zeros((g.groups, width), x.dtype)
        if bias is not None:
            filled[:, : p.O] = bias.reshape(g.groups, p.O)
        self.bias: Array = filled.reshape(-1)

    def run(self, count: int, team: threads.Team | None) -> None:
        """All of it, on `count` threads."""
        g, p = self.plan.g, self.plan
        if not self.turned:
            self.w = layout.panels(self.w, layout.runs(g), p, count, team)
        tiles = range(0, p.pixels, p.P)
        image_bytes = (g.H + 3) * (g.W + 2) * g.C_in * self.x.itemsize
        even = g.N >= 2 * count or g.N % count == 0
        if even and image_bytes <= layout.IMAGE_BYTES:
            # Whole images, one a thread.

            def whole(n: int) -> None:
                image = self.image(n)
                for first in tiles:
                    self.tile(image, n, first)

            threads.run(whole, g.N, count, team)
            return
        for n in range(g.N):
            image = self.image(n, count, team)
            if self.parts > 1:
                columns = self.turned_columns(image, n, 0)

                def part(i: int, n: int = n, columns: Array = columns) -> None:
                    self.multiply(columns, n, 0, i)

                threads.run(part, self.parts, count, team)
                continue

            def one(t: int, n: int = n, image: Array = image) -> None:
                self.tile(image, n, tiles[t])

            threads.run(one, len(tiles), count, team)

    def image(self, n: int, count: int = 1, team: threads.Team | None = None) -> Array:
        if self.planar:
            return layout.padded_planes(self.x[n], self.plan)
        return layout.padded_image(self.x[n], self.plan, count, team)

    def tile(self, image: Array, n: int, first: int) -> None:
        """Outputs first ... first + P - 1 of image n."""
        if self.turned:
            columns = self.turned_columns(image, n, first)
            for part in range(self.parts):
                self.multiply(columns, n, first, part)
            return
        g, K, C, O, P, pixels = self.plan[:6]
        P = min(P, pixels - first)
        T, width = self.plan.T, self.plan.width
        columns = scratch.array("columns", P * T * g.C_in, image.dtype)
        product = scratch.array("product", g.groups * P * width, image.dtype)
        compiled(kernels.tile, "contract")(
            image, self.offset, self.mask, self.w, self.bias, n, first, P,
            self.plan.sizes, self.segments, (g.C_in, K, C, O, T), columns, product,
            self.y,
        )  # fmt: skip

    def turned_columns(self, image: Array, n: int, first: int) -> Array:
        """Panels [groups, (C, K), P]."""
        g, K, C, _, P, pixels = self.plan[:6]
        P = min(P, pixels - first)
        size = self.plan.padded(P) * g.C_in * K
        columns: Array = scratch.array("columns", size, image.dtype)
        shape = (g.C_in, K, C)
        if self.planar:
            compiled(kernels.sample_planes, "contract")(
                image, self.offset, self.mask, n, first, P, self.plan.sizes,
                self.segments, shape, columns,
            )  # fmt: skip
        else:
            rows = scratch.array("product", P * g.C_in, image.dtype)
            compiled(kernels.sample_turned, "contract")(
                image, self.offset, self.mask, n, first, P, self.plan.sizes,
                self.segments, shape, rows, columns,
            )  # fmt: skip
        return columns

    def multiply(self, columns: Array, n: int, first: int, part: int) -> None:
        """One of `parts` of the output channels of each group."""
        g, K, C, O, P, pixels = self.plan[:6]
        P = min(P, pixels - first)
        outputs = part * O // self.parts, (part + 1) * O // self.parts
        size = (outputs[1] - outputs[0]) * self.plan.panel
        product = scratch.array("product", size, self.y.dtype)
        compiled(kernels.multiply_turned, "contract")(
            self.w, columns, self.bias, n, first, P, outputs, (g.C_in, K, C, O),
            product, self.y,
        )  # fmt: skip
