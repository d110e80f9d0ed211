"""Eq. (1) on the CPU: tiles of sampled columns, one matrix product a tile.

    columns[p, (k, c)] = dm_k(p) * x_c(q)        Eq. (2)
    y[p, o]            = columns @ weight        Eq. (1)
"""

from __future__ import annotations

import numpy as np

from refdcn import threads
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
) -> Array:
    """y [N, C_out, H_out, W_out] of NumPy arrays of one dtype, float32 or float64."""
    task = _Forward(x, offset, weight, mask, bias, geometry, thread_count)
    with threads.single_threaded_blas():
        task.run()
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
        thread_count: int | None,
    ) -> None:
        self.plan = p = layout.plan(g, x.itemsize, thread_count)
        self.x, self.offset = x, layout.plain(offset)
        self.mask = layout.plain_mask(mask, x.dtype)
        self.bias = None if bias is None else layout.plain(bias).reshape(g.groups, p.O)
        self.segments = layout.segments(g, 0, g.C_in)
        self.y = np.empty((g.N, g.C_out, g.H_out, g.W_out), x.dtype)
        # By planes where channels are too few for a vector, and where laying out the
        # weight, which planes take as it is, would cost more than sampling.
        widest = max(end - begin for _, begin, end, _, _ in self.segments)
        self.planar = widest < 8 or 3 * g.N * p.pixels < p.O
        if self.planar:
            self.w = layout.plain(weight).reshape(g.groups, p.O, p.C * p.K)
            self.sample = compiled(kernels.sample_planes, "contract")
        else:
            self.w = np.empty((g.groups, p.K * p.C, p.O), x.dtype)
            runs = [(b, b * p.C, (b + 1) * p.C) for b in range(g.groups)]
            rows = layout.weight_rows(p, runs)
            layout.weights_in(weight, self.w.reshape(-1), rows, p)
            self.sample = compiled(kernels.sample, "contract")

    def run(self) -> None:
        g, p = self.plan.g, self.plan
        tiles = range(0, p.pixels, p.P)
        image_bytes = (g.H + 3) * (g.W + 2) * g.C_in * self.x.itemsize
        if g.N >= 2 * p.threads and image_bytes <= layout.TILE_BYTES:
            # Whole images, one a thread.

            def whole(n: int) -> None:
                image = layout.padded_image(self.x[n], p, self.planar)
                for first in tiles:
                    self.tile(image, n, first)

            threads.run(whole, g.N, p.threads)
            return
        for n in range(g.N):
            image = layout.padded_image(self.x[n], p, self.planar)

            def one(t: int, n: int = n, image: Array = image) -> None:
                self.tile(image, n, tiles[t])

            threads.run(one, len(tiles), p.threads)

    def tile(self, image: Array, n: int, first: int) -> None:
        """Outputs first ... first + P - 1 of image n."""
        g, K, C, O, P = self.plan[:5]
        P = min(P, self.plan.pixels - first)
        columns = threads.scratch("columns", g.groups * P * K * C, image.dtype)
        self.sample(
            image, self.offset, self.mask, n, first, self.plan.sizes, self.segments,
            (g.C_in, P, K, C), columns,
        )  # fmt: skip
        # NaN and infinity are answers here; the warning state is each thread's own.
        with np.errstate(invalid="ignore", over="ignore"):
            if self.planar:
                y = self.y[n].reshape(g.groups, O, -1)[:, :, first : first + P]
                np.matmul(self.w, columns.reshape(g.groups, C * K, P), out=y)
                if self.bias is not None:
                    np.add(y, self.bias[:, :, None], out=y)
                return
            product = threads.scratch("product", g.groups * P * O, image.dtype)
            product = product.reshape(g.groups, P, O)
            np.matmul(columns.reshape(g.groups, P, K * C), self.w, out=product)
            if self.bias is not None:
                np.add(product, self.bias[:, None], out=product)
        for b in range(g.groups):
            layout.store(product[b], self.y, n * g.C_out + b * O, first, self.plan)
