"""Eq. (1) differentiated on the CPU: two matrix products a tile.

    grad_weight  = columns^T @ grad_y        d / dw, the columns as in forward.py
    grad_columns = grad_y @ weight^T         d / d(dm_k x(q)), spread by Eqs. (2), (4)

No two tasks add to one number: small images are dealt to shares with sums of their own,
which are added in one order; else each run of channels is a task, or, where one run has
them all, each half of an image, with a grad_x of its own.
So the bits are the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from refdcn import scratch, threads
from refdcn.cpu import depthwise, kernels, layout, relayout
from refdcn.cpu.layout import Array, Plan
from refdcn.jit import compiled
from refdcn.shapes import Geometry

MOST_SHARES = 8  # of the images of a batch
TILE_BYTES = 1 << 19  # of a run's columns


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
    team: threads.Team | None = None,
    *,
    empty: Callable[..., Array] = np.empty,
) -> Gradients:
    """The gradients by x, offset, weight, mask and bias that `needs` names.

    `empty` finds their memory, as np.empty does, but for small ones.
    """
    grad_y = layout.plain(grad_y)  # so that each layout is summed in one order
    grad_bias, C = None, weight.shape[1]
    with scratch.lent(), np.errstate(invalid="ignore", over="ignore"):
        if bias is not None and needs[4]:
            grad_bias = grad_y.sum((0, 2, 3), dtype=x.dtype)
        if not any(needs[:4]):
            return Gradients(None, None, None, None, grad_bias)
        if 1 < geometry.groups == geometry.C_in == geometry.C_out and x.size:
            c, laid = _depthwise(grad_y, x, offset, weight, mask, geometry, empty)
            count = layout.thread_count(geometry, thread_count)
            depthwise.run_call(c, laid, count, team)
            grad_mask = None
            if mask is not None and needs[3]:
                grad_mask = c.grad_mask.reshape(mask.shape)
            return Gradients(
                c.grad_x.reshape(x.shape) if needs[0] else None,
                c.grad_offset.reshape(offset.shape) if needs[1] else None,
                c.grad_weight.reshape(weight.shape) if needs[2] else None,
                grad_mask,
                grad_bias,
            )
        weight, g = layout.filled(weight, geometry)
        task = _Backward(grad_y, x, offset, weight, mask, g, needs, empty)
        task.run(layout.thread_count(g, thread_count), team)
    return Gradients(
        task.grad_x if needs[0] else None,
        task.grad_offset.reshape(offset.shape) if needs[1] else None,
        layout.plain(task.grad_weight[:, :C]) if needs[2] else None,
        task.grad_mask.reshape(mask.shape) if mask is not None and needs[3] else None,
        grad_bias,
    )


def share(
    task: Callable[[int], None], tasks: int, count: int, team: threads.Team | None
) -> None:
    """task(i) for every i < tasks, on up to `count` threads."""
    threads.run(threads.Tasks(task, tasks), min(count, tasks), team)


def _depthwise(
    grad_y: Array,
    x: Array,
    offset: Array,
    weight: Array,
    mask: Array | None,
    g: Geometry,
    empty: Callable[..., Array],
) -> tuple[depthwise.Call, depthwise.Layout]:
    flat, last = layout.flat_image(x)
    offset, plain_mask = layout.plain_pixels(offset), layout.plain_mask(mask, x.dtype)
    shapes = (x.size,), offset.shape, (weight.size,), plain_mask.shape
    call = depthwise.Call(
        layout.plain_pixels(grad_y), flat, offset, layout.plain(weight).reshape(-1),
        plain_mask, *(empty(shape, x.dtype) for shape in shapes),
    )  # fmt: skip
    return call, depthwise.laid_out(g, g.C_in, last)


class _Run(NamedTuple):
    """Channels begin ... end - 1 of x, in one group."""

    group: int
    begin: int
    end: int
    T: int  # taps whose columns are made at once
    segments: Array


class _Tile(NamedTuple):
    """Outputs first ... first + P - 1 of image n."""

    n: int
    first: int
    P: int
    image: Array
    grad_image: Array
    parts: Array  # [segments of all runs, K, 3, P]


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
        empty: Callable[..., Array],
    ) -> None:
        self.plan = p = layout.plan(g, x.itemsize)
        self.needs = needs
        by_mask = needs[3] and mask is not None
        self.wanted = needs[2], needs[0] or needs[1] or by_mask
        self.x, self.offset = x, layout.plain_pixels(offset)
        self.mask = layout.plain_mask(mask, x.dtype)
        self.weight = layout.plain(weight).reshape(-1)
        self.grad_y = grad_y.reshape(g.N, g.C_out, p.pixels)
        self.grad_x = empty(x.shape, x.dtype)
        self.grad_offset = empty((*offset.shape[:2], p.pixels), x.dtype)
        self.grad_mask = empty(self.mask.shape, x.dtype)
        self.grad_weight = empty(weight.shape, x.dtype)
        self.runs = [
            _Run(group, a, b, layout.taps(p.K, b - a), layout.segments(g, a, b, a))
            for group, a, b in layout.runs(g, _most(p, x.itemsize)).tolist()
        ]
        self.first_part = np.cumsum([0, *(len(run.segments) for run in self.runs)])
        self.parts_group = np.concatenate([run.segments[:, 0] for run in self.runs])
        sizes = [p.K * self.columns_of(run) for run in self.runs]
        self.images, self.halves = _shares(p, sizes, x.itemsize)
        # Columns are of one run, parts of all: many with many groups.
        columns = 2 * max(run.T * (run.end - run.begin) for run in self.runs)
        parts = 3 * p.K * len(self.parts_group)
        row_bytes = max(columns, p.width, parts) * x.itemsize
        self.P = layout.equal(p.pixels, row_bytes, TILE_BYTES, self.halves)
        self.tiles = range(0, p.pixels, self.P)
        self.once = g.N == len(self.tiles) == 1  # each run's weights are used once
        self.w: dict[int, Array] = {}
        shares = max(self.images, self.halves)
        self.sums: list[list[Array | None]]
        self.sums = [[None] * len(self.runs) for _ in range(shares)]

    def run(self, count: int, team: threads.Team | None) -> None:
        """All of it, on `count` threads."""
        if not self.once:
            threads.run(
                threads.Tasks(self.turn, len(self.runs)),
                min(count, len(self.runs)),
                team,
            )
        if self.images > 1:
            threads.run(
                threads.Tasks(self.some_images, self.images),
                min(count, self.images),
                team,
            )
        else:
            for n in range(self.plan.g.N):
                self.one_image(n, count, team)
        if self.needs[2] and not self.once:
            threads.run(
                threads.Tasks(self.add_sums, len(self.runs)),
                min(count, len(self.runs)),
                team,
            )

    def some_images(self, share: int) -> None:
        """Every so many of the batch."""
        for n in range(share, self.plan.g.N, self.images):
            image = layout.padded_image(self.x[n], self.plan)
            grad_image = scratch.array("grad_image", image.size, image.dtype)
            grad_image.fill(0)
            self.sweep(share, n, image, grad_image, self.tiles)
            self.store(n, grad_image, 1, None)

    def one_image(self, n: int, count: int, team: threads.Team | None) -> None:
        """Image n in halves, each with a grad_image of its own, or by channels."""
        image = layout.padded_image(self.x[n], self.plan, count, team)
        size = self.halves * image.size
        grad_images = scratch.array("grad_image", size, image.dtype)
        grad_images = grad_images.reshape(self.halves, -1)
        if self.halves > 1:

            def half(h: int) -> None:
                grad_images[h] = 0
                tiles = self.tiles[h :: self.halves]
                self.sweep(h, n, image, grad_images[h], tiles)

            share(half, self.halves, count, team)
            cuts = [t * image.size // count for t in range(count + 1)]

            def add(t: int) -> None:
                a, b = grad_images[:, cuts[t] : cuts[t + 1]]
                np.add(a, b, out=a)

            share(add, count, count, team)
        else:
            grad_images[0] = 0
            for first in self.tiles:
                tile = self.tile(n, first, image, grad_images[0])

                def one(t: int, tile: _Tile = tile) -> None:
                    self.add(0, t, tile)

                threads.run(
                    threads.Tasks(one, len(self.runs)), min(count, len(self.runs)), team
                )
                self.gather(tile)
        self.store(n, grad_images[0], count, team)

    def sweep(
        self, share: int, n: int, image: Array, grad_image: Array, tiles: range
    ) -> None:
        """All runs of some tiles, in order."""
        for first in tiles:
            tile = self.tile(n, first, image, grad_image)
            for t in range(len(self.runs)):
                self.add(share, t, tile)
            self.gather(tile)

    def tile(self, n: int, first: int, image: Array, grad_image: Array) -> _Tile:
        P = min(self.P, self.plan.pixels - first)
        S, K = len(self.parts_group), self.plan.K
        parts = scratch.array("parts", S * K * 3 * P, image.dtype)
        return _Tile(n, first, P, image, grad_image, parts.reshape(S, K, 3, P))

    def add(self, share: int, t: int, tile: _Tile) -> None:
        """What run t of a tile gives to each gradient."""
        run, p, dtype = self.runs[t], self.plan, tile.image.dtype
        C, T = run.end - run.begin, run.T
        buffers = (
            scratch.array("grad_rows", tile.P * p.width, dtype),
            scratch.array("columns", tile.P * T * C, dtype),
            scratch.array("grad_columns", tile.P * T * p.padded(C), dtype),
        )
        total, fresh = self.sums[share][t], False
        if total is None:
            total, fresh = self.weights(run), True
            self.sums[share][t] = None if self.once else total
        if self.once:
            self.turn(t)
        compiled(kernels.tile_gradients, "contract")(
            tile.image, tile.grad_image, self.grad_y, self.offset, self.mask,
            self.w[t], tile.n, run.group * p.O, tile.first, tile.P, p.sizes,
            run.segments, (p.g.C_in, p.K, C, p.O, T), self.wanted, buffers, total,
            fresh, tile.parts[self.first_part[t] : self.first_part[t + 1]],
        )  # fmt: skip
        if self.once and self.needs[2]:
            self.store_weight(t, total)

    def weights(self, run: _Run, use: str = "grad_w") -> Array:
        """Room for panels [K, C, O], or [K, O, C]; of this thread if used once."""
        size = self.plan.K * self.columns_of(run)
        if self.once:
            room: Array = scratch.array(use, size, self.weight.dtype)
            return room
        return np.empty(size, self.weight.dtype)

    def columns_of(self, run: _Run) -> int:
        """Numbers a tap in panels [C, O] or [O, C], whichever is larger."""
        C, p = run.end - run.begin, self.plan
        return max(C * p.width, p.O * p.padded(C))

    def turn(self, t: int) -> None:
        """The weights of run t as panels [K, O, C], if they are needed."""
        run = self.runs[t]
        if not self.wanted[1]:
            self.w[t] = np.empty(0, self.weight.dtype)
            return
        w = layout.panels(self.weight, np.array([run[:3]]), self.plan)
        self.w[t] = self.weights(run, "turned")
        compiled(relayout.weights_turned)(w, self.plan.weight, run[:3], self.w[t])

    def add_sums(self, t: int) -> None:
        """Those of all shares of run t, in order."""
        sums = [share[t] for share in self.sums]
        totals = [total for total in sums if total is not None]
        if not totals:  # no image at all
            self.grad_weight.fill(0)
            return
        for total in totals[1:]:
            np.add(totals[0], total, out=totals[0])
        self.store_weight(t, totals[0])

    def store_weight(self, t: int, total: Array) -> None:
        compiled(relayout.weights_out)(
            total, self.plan.weight, self.runs[t][:3], self.grad_weight.reshape(-1)
        )  # fmt: skip

    def gather(self, tile: _Tile) -> None:
        """The channel sums of a tile into grad_offset and grad_mask."""
        if self.needs[1] or self.needs[3]:
            compiled(kernels.gather_parts)(
                tile.parts, self.parts_group, self.mask, tile.n, tile.first,
                self.grad_offset, self.grad_mask, (0, self.plan.K),
            )  # fmt: skip

    def store(
        self, n: int, grad_image: Array, count: int, team: threads.Team | None
    ) -> None:
        """The middle of a padded image into grad_x[n]."""
        (_, H, W), C = self.plan.image, self.x.shape[1]
        flat = self.grad_x.reshape(-1)

        def channels(begin: int, end: int) -> None:
            compiled(relayout.image_out)(
                grad_image, self.plan.image, begin, end, flat, n * C * H * W
            )

        if self.needs[0]:
            layout.in_runs(channels, C, count, team)


def _most(p: Plan, itemsize: int) -> int:
    """Channels of a run: all of a group, or equal parts of at most a panel.

    Two at least of a large image, which threads then share without a second grad_x.
    """
    parts = -(-p.C // p.panel)
    if p.g.groups == 1 and p.C >= 32 and _is_large(p, itemsize):
        parts = max(parts, 2)
    return -(-p.C // (16 * parts)) * 16


def _is_large(p: Plan, itemsize: int) -> bool:
    """Whether an image is more than one thread may have to itself."""
    C_in, H, W = p.image
    return (H + 3) * (W + 2) * C_in * itemsize > layout.IMAGE_BYTES


def _shares(p: Plan, sizes: list[int], itemsize: int) -> tuple[int, int]:
    """Into how many shares images are dealt, and each cut; one of both is 1.

    Each share holds sums of `sizes` for the runs, and an image is in use by each.
    """
    if not _is_large(p, itemsize):
        weights = layout.IMAGE_BYTES // max(1, sum(sizes) * itemsize)
        images = min(p.g.N, MOST_SHARES, weights)
        if images > 1:
            return images, 1
    return 1, 2 if len(sizes) == 1 and p.pixels >= 192 else 1
