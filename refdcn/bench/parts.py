"""What a call is made of: its samples alone, its products alone, and what is left.

The same compiled loops as in a call, on the same sizes, each without the other: so
their sum is the least that a call can take in which all else is free. And the rate at
which this processor multiplies and adds in registers, which no product can exceed.
"""

# mypy: allow-untyped-defs, disable-error-code="misc,no-untyped-call"
from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from refdcn import scratch
from refdcn.bench.contestants import INPUTS, MAKERS, Task, use_threads
from refdcn.bench.timing import CLOCKS, Entrant, flat, interleave
from refdcn.bench.workload import arrays, parse
from refdcn.cpu import layout
from refdcn.cpu.backward import Call as GradientCall
from refdcn.cpu.backward import add_weights, grad_columns
from refdcn.cpu.backward import laid_out as gradients_laid_out
from refdcn.cpu.forward import Call, Planes, Rows, Taps, laid_out, multiply_turned
from refdcn.cpu.forward import strategy as strategy_of
from refdcn.cpu.kernels import (
    Spread,
    Tile,
    sample,
    sample_planes,
    sample_turned,
    spread,
)  # fmt: skip
from refdcn.cpu.product import Left, Product, Right, multiply, panelled
from refdcn.cpu.product import taps as taps_of
from refdcn.cpu.vectors import VECTOR_BYTES, add, add_times, load, store
from refdcn.cpu.work import Way
from refdcn.jit import compiled
from refdcn.shapes import Geometry, geometry

CHAINS = 8  # sums that are added to in turns, so that none waits for itself
ROUNDS = 100_000
SECONDS = 0.5  # of an entrant's turns


@compiled
def rows_samples(call, sizes, room):
    """Those of forward.Rows."""
    for n in range(len(call.offset)):
        for first in range(0, sizes.pixels, sizes.P):
            tile = Tile(n, first, min(sizes.P, sizes.pixels - first))
            for k in range(0, sizes.K, sizes.T):
                taps = k, min(k + sizes.T, sizes.K)
                steps = (taps[1] - k) * sizes.C, sizes.C
                columns = room.columns
                sample(
                    call, room.image, tile, sizes, sizes.segments, taps, columns, steps
                )


@compiled
def rows_products(call, sizes, room):
    """Those of forward.Rows."""
    K, C, T, width = sizes.K, sizes.C, sizes.T, sizes.width
    for _ in range(len(call.offset)):
        for first in range(0, sizes.pixels, sizes.P):
            P = min(sizes.P, sizes.pixels - first)
            for k in range(0, K, T):
                depth = min(T, K - k) * C
                for b in range(sizes.groups):
                    left = Left(room.columns, b * P * depth, depth, 1, P)
                    for o in range(0, width, sizes.panel):
                        size, start = min(sizes.panel, width - o), b * width + o
                        at = start * K * C + k * C * size
                        right = Right(room.w, at, depth, size)
                        multiply(
                            left, right, Product(room.product, start * P, size), False
                        )


@compiled
def planes_samples(call, sizes, room):
    """Those of forward.Planes."""
    for n in range(len(call.offset)):
        for first in range(0, sizes.pixels, sizes.P):
            tile = Tile(n, first, min(sizes.P, sizes.pixels - first))
            sample_planes(call, room.image, tile, sizes, room.columns)


@compiled
def turned_products(call, sizes, room):
    """Those of forward.Planes and forward.Taps."""
    for n in range(len(call.offset)):
        for first in range(0, sizes.pixels, sizes.P):
            tile = Tile(n, first, min(sizes.P, sizes.pixels - first))
            multiply_turned(call, sizes, room, tile, (0, sizes.O))


@compiled
def taps_samples(call, sizes, room):
    """Those of forward.Taps."""
    for n in range(len(call.offset)):
        taps, columns = (0, sizes.K), room.columns
        sample_turned(call, room.image, n, sizes, taps, room.product, columns)


@compiled
def gradient_samples(call, cut, room):
    """Those of backward.by_products, with sums and what each pixel is given."""
    sizes, K = cut.sizes, cut.sizes.K
    for n in range(len(call.offset)):
        for first in range(0, sizes.pixels, sizes.P):
            tile = Tile(n, first, min(sizes.P, sizes.pixels - first))
            for t in range(len(cut.runs)):
                _, begin, end, s, last, _, _ = cut.runs[t]
                C, T = end - begin, taps_of(K, end - begin)
                data = Spread(
                    room.image, room.grad_image[0], room.columns, room.grad_columns, C,
                    panelled(C, room.image.itemsize),
                )  # fmt: skip
                for k in range(0, K, T):
                    taps, segments = (k, min(k + T, K)), cut.segments[s:last]
                    parts = room.parts[s:last]
                    spread(call, data, tile, sizes, segments, taps, parts, 0)


@compiled
def gradient_products(call, cut, room):
    """Those of backward.by_products."""
    sizes, K = cut.sizes, cut.sizes.K
    for _ in range(len(call.offset)):
        for first in range(0, sizes.pixels, sizes.P):
            P = min(sizes.P, sizes.pixels - first)
            for t in range(len(cut.runs)):
                _, begin, end, _, _, w, _ = cut.runs[t]
                C, T = end - begin, taps_of(K, end - begin)
                for k in range(0, K, T):
                    taps = k, min(k + T, K)
                    grad_columns(room, sizes, w, C, taps, P)
                    add_weights(room, sizes, w, C, taps, P, False)


@compiled
def chains(numbers, rounds):
    """Multiply-adds of vectors in registers, eight of them at a time."""
    one = load(numbers, 0)
    a = b = c = d = e = f = g = h = one
    for _ in range(rounds):
        a, b = add_times(one, a, one), add_times(one, b, one)
        c, d = add_times(one, c, one), add_times(one, d, one)
        e, f = add_times(one, e, one), add_times(one, f, one)
        g, h = add_times(one, g, one), add_times(one, h, one)
    total = add(add(add(a, b), add(c, d)), add(add(e, f), add(g, h)))
    store(total, numbers, 0)


PARTS: dict[Any, tuple[Callable[..., None], Callable[..., None]]] = {
    Rows: (rows_samples, rows_products),
    Planes: (planes_samples, turned_products),
    Taps: (taps_samples, turned_products),
}


def rate(dtype: str) -> float:
    """Operations a second of one thread that does nothing but multiply and add."""
    numbers = np.full(VECTOR_BYTES, 1e-3, dtype)
    chains(numbers, 1)
    best = math.inf
    for _ in range(20):
        begin = time.perf_counter()
        chains(numbers, ROUNDS)
        best = min(best, time.perf_counter() - begin)
    lanes = VECTOR_BYTES // numbers.itemsize
    return 2 * CHAINS * lanes * ROUNDS / best


def forward_parts(task: Task, g: Geometry) -> tuple[Callable[[], None], ...]:
    """Its samples, and its products."""
    x, offset, weight, mask, bias = (task.arrays[name] for name in INPUTS)
    weight, g = layout.filled(weight, g)
    given = layout.sizes(g, task.workload.C_in, False, x.itemsize)
    parts = PARTS[type(strategy_of(given, x.itemsize))]
    way = laid_out(g, task.workload.C_in, False, x.itemsize, 1)
    y = np.empty(task.workload.shapes["y"], x.dtype)
    filled = np.zeros(g.groups * way.cut.width, x.dtype)
    call = Call(
        x.reshape(-1), layout.plain_pixels(offset), weight.reshape(-1),
        layout.plain_mask(mask, x.dtype), filled, y.reshape(-1),
    )  # fmt: skip
    return tuple(partial(part, call, way.cut, room_of(way, x.dtype)) for part in parts)


def gradient_parts(task: Task, g: Geometry) -> tuple[Callable[[], None], ...]:
    """The samples of its gradients, and their products."""
    x, offset, weight, mask, _ = (task.arrays[name] for name in INPUTS)
    way = gradients_laid_out(g, g.C_in, False, x.itemsize)
    pixels = layout.plain_pixels(offset)
    masks = layout.plain_mask(mask, x.dtype)
    flat = x.reshape(-1)
    call = GradientCall(
        task.arrays["grad_y"].reshape(-1), flat, pixels, weight.reshape(-1), masks,
        np.empty_like(flat), np.empty_like(pixels), np.empty_like(weight).reshape(-1),
        np.empty_like(masks), True, True, True,
    )  # fmt: skip
    room = room_of(way, x.dtype)
    return tuple(
        partial(part, call, way.cut, room)
        for part in (gradient_samples, gradient_products)
    )


def room_of(way: Way, dtype: Any) -> Any:
    """Where a thread computes, full of numbers that no sum makes subnormal or inf."""
    with scratch.lent():
        room = way.room._make(way.rows(use, 1, dtype)[0] for use in way.room._fields)
    for array in room:
        array[...] = 1e-3
    return room


def measure(
    shapes: Sequence[str], dtype: str, direction: str, repeat: int, clock: str
) -> dict[str, Any]:
    """By shape: seconds of a call and of its parts, in turns, on one thread.

    Of training, both the forward call and the gradients count. "rate" is this
    processor's, see there.
    """
    use_threads(1)
    found = {text: of_shape(text, dtype, direction, repeat, clock) for text in shapes}
    return {"rate": rate(dtype), "shapes": found}


def of_shape(
    text: str, dtype: str, direction: str, repeat: int, clock: str
) -> dict[str, float]:
    """The numbers of one."""
    workload = parse(text)
    task = Task(workload, arrays(workload, dtype), direction, 1)
    given = [task.arrays[name].shape for name in INPUTS]
    g = geometry(*given, *task.window.values())
    parts = [forward_parts(task, g)]
    if direction != "forward":
        parts.append(gradient_parts(task, g))
    samples, products = zip(*parts, strict=True)
    calls: dict[str, Callable[[], Any]] = {
        "refdcn": MAKERS["refdcn"](task),
        "samples": partial(one_by_one, samples),
        "products": partial(one_by_one, products),
    }
    entrants = [Entrant(name, 1, call) for name, call in calls.items()]
    rounds = interleave(entrants, repeat, SECONDS, clock=CLOCKS[clock])
    return {n: median(flat(r)) for n, r in zip(calls, rounds, strict=True)}


def one_by_one(calls: Sequence[Callable[[], None]]) -> None:
    """All of them."""
    for call in calls:
        call()
