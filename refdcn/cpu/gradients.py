"""Eq. (1) differentiated on the CPU: two matrix products a tile.

    grad_weight  = columns^T @ grad_y        d / dw, the columns as in output.py
    grad_columns = grad_y @ weight^T         d / d(dm_k x(q)), spread by Eqs. (2), (4)

Tasks own channels, so that no two of them add to one number, and the order of every
sum is the same for any number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from refdcn import threads
from refdcn.cpu import kernels, layout
from refdcn.cpu.layout import Array, Plan, Run
from refdcn.jit import compiled
from refdcn.shapes import Geometry


class Gradients(NamedTuple):
    """The derivatives of sum(grad_y * y); None where not given or not asked for."""

    x: Array | None
    offset: Array | None
    weight: Array | None
    mask: Array | None
    bias: Array | None


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
    """The gradients by x, offset, weight, mask and bias that `needs` names."""
    grad_y = layout.plain(grad_y)  # so that each layout is summed in one order
    grad_bias = None
    if bias is not None and needs[4]:
        with np.errstate(invalid="ignore", over="ignore"):
            grad_bias = grad_y.sum((0, 2, 3), dtype=x.dtype)
    if not any(needs[:4]):
        return Gradients(None, None, None, None, grad_bias)
    task = _Backward(grad_y, x, offset, weight, mask, geometry, needs, thread_count)
    with threads.single_threaded_blas():
        task.run()
    return Gradients(
        task.grad_x if needs[0] else None,
        task.grad_offset if needs[1] else None,
        task.grad_weight if needs[2] else None,
        task.grad_mask.reshape(mask.shape) if mask is not None and needs[3] else None,
        grad_bias,
    )


class _Backward:
    def __init__(
        self,
        grad_y: Array,
        x: Array,
        offset: Array,
        weight: Array,
        mask: Array | None,
        g: Geometry,
        needs: tuple[bool, ...],
        thread_count: int | None,
    ) -> None:
        self.plan = p = layout.plan(g, x.itemsize, thread_count)
        self.needs = needs
        self.x, self.offset = x, layout.plain(offset)
        self.mask = layout.plain_mask(mask, x.dtype)
        self.grad_y = grad_y.reshape(g.N, g.groups, p.O, p.pixels)
        self.runs = _runs(p)
        self.segments = [layout.segments(g, a, b, first=a) for _, a, b in self.runs]
        self.first_part = np.cumsum([0, *map(len, self.segments)])
        self.parts_group = np.concatenate([s[:, 0] for s in self.segments])
        self.parts = np.empty((len(self.parts_group), p.K, 3, p.P), x.dtype)
        self.rows = layout.weight_rows(p, self.runs)
        w = np.empty(weight.size, x.dtype)
        layout.weights_in(weight, w, self.rows, p)
        self.grad_w = np.empty(weight.size, x.dtype)
        self.w, self.grad_ws = (
            [a[r[1] * p.K * p.O : r[2] * p.K * p.O].reshape(-1, p.O) for r in self.runs]
            for a in (w, self.grad_w)
        )
        self.image = self.grad_image = np.empty(0, x.dtype)  # of the image at hand
        self.grad_x = np.empty(x.shape, x.dtype)
        self.grad_offset = np.empty(offset.shape, x.dtype)
        self.grad_mask = np.empty(self.mask.shape, x.dtype)
        self.grad_weight = np.empty(weight.shape, x.dtype)

    def run(self) -> None:
        p = self.plan
        if p.g.N == 0:
            self.grad_w.fill(0)
        for n in range(p.g.N):
            self.image = layout.padded_image(self.x[n], p)
            size = self.image.size
            self.grad_image = threads.scratch("grad_image", size, self.x.dtype)
            self.grad_image.fill(0)
            for first in range(0, p.pixels, p.P):
                self.tile(n, first, min(p.P, p.pixels - first))
            if self.needs[0]:
                layout.unfill(self.grad_image, self.grad_x, n, p)
        if self.needs[2]:
            layout.weights_out(self.grad_w, self.grad_weight, self.rows, p)

    def tile(self, n: int, first: int, P: int) -> None:
        """Outputs first ... first + P - 1 of image n; a task a run of channels."""

        def task(t: int) -> None:
            with np.errstate(invalid="ignore", over="ignore"):
                if self.needs[2]:
                    self.add_weight(t, n, first, P)
                if self.needs[0] or self.needs[1] or self.needs[3]:
                    self.spread(t, n, first, P)

        threads.run(task, len(self.runs), self.plan.threads)
        if self.needs[1] or self.needs[3]:
            compiled(kernels.gather_parts)(
                self.parts[..., :P], self.parts_group, self.mask, n, first,
                self.grad_offset, self.grad_mask,
            )  # fmt: skip

    def add_weight(self, t: int, n: int, first: int, P: int) -> None:
        """columns^T @ grad_y for the channels of task t."""
        p, rows = self.plan, len(self.w[t])
        columns = threads.scratch("columns", P * rows, self.x.dtype)
        compiled(kernels.sample, "contract")(
            self.image, self.offset, self.mask, n, first, p.sizes, self.segments[t],
            (p.g.C_in, P, p.K, rows // p.K), columns,
        )  # fmt: skip
        grad_y = self.grad_y[n, self.runs[t][0], :, first : first + P].T
        columns = columns.reshape(P, rows).T
        if n == first == 0:
            np.matmul(columns, grad_y, out=self.grad_ws[t])
            return
        product = threads.scratch("product", rows * p.O, self.x.dtype)
        product = product.reshape(rows, p.O)
        np.matmul(columns, grad_y, out=product)
        np.add(self.grad_ws[t], product, out=self.grad_ws[t])

    def spread(self, t: int, n: int, first: int, P: int) -> None:
        """grad_y @ weight^T for the channels of task t, then to x, offset and mask."""
        p, rows = self.plan, len(self.w[t])
        columns = threads.scratch("columns", P * rows, self.x.dtype)
        grad_y = self.grad_y[n, self.runs[t][0], :, first : first + P].T
        np.matmul(grad_y, self.w[t].T, out=columns.reshape(P, rows))
        parts = self.parts[self.first_part[t] : self.first_part[t + 1], :, :, :P]
        compiled(kernels.spread, "contract")(
            self.image, self.grad_image, self.offset, self.mask, n, first, p.sizes,
            self.segments[t], (p.g.C_in, P, p.K, rows // p.K), columns, parts,
        )  # fmt: skip


def _runs(p: Plan) -> list[Run]:
    """Channels of one task: half a group, for two threads, but 32 to 64."""
    size = min(64, max(32, -(-p.C // 32) * 16))
    return [
        (b, begin, min(begin + size, (b + 1) * p.C))
        for b in range(p.g.groups)
        for begin in range(b * p.C, (b + 1) * p.C, size)
    ]
