"""The numbers of docs/cuda_performance.md follow from the operator's own plan."""

import re
from pathlib import Path

import pytest

from refdcn import shapes
from refdcn.bench.workload import moved_bytes, parse, product_flops
from refdcn.card import timing as card_timing
from refdcn.cuda import operator

PAGE = Path(__file__).parents[2] / "docs" / "cuda_performance.md"
FLOPS, MEMORY, CACHE, CUBLAS = 67e12, 3.35e12, 5.5e12, 0.7  # as the page assumes
ROWS = re.findall(r"^\| (\d+x[^|]*) \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.M)
MIB = 2**20


def expected(w):
    """The page's columns, in order."""
    s, outputs, K = w.shapes, w.N * w.output[0] * w.output[1], w.K
    sampled, flops = outputs * K * w.C_in, product_flops(w)
    moved = moved_bytes(w, "float32")
    floor = max(flops / FLOPS, moved / MEMORY)
    forward = (
        (8 * outputs * w.C_in + 12 * outputs * K + 4 * outputs * w.C_out) / MEMORY
        + (20 * sampled + 8 * outputs * w.C_out) / CACHE
        + flops / FLOPS / CUBLAS
    )
    # Sampled again, multiplied twice and spread; an atomic takes twice its 4 bytes.
    backward = (
        (20 * outputs * w.C_in + 36 * outputs * K + 4 * outputs * w.C_out) / MEMORY
        + ((20 + 24 + 2 * 16) * sampled + 8 * outputs * w.C_out) / CACHE
        + 2 * flops / FLOPS / CUBLAS
    )
    g = shapes.geometry(
        s["x"], s["offset"], s["weight"], s["mask"], s["bias"], 1, w.padding, 1
    )
    p = operator.plan(g, "float32")
    tile = p.images * p.span
    tiles = -(-w.N // p.images) * -(-p.pixels // p.span)
    numbers = p.images * p.area * w.C_in + tile * (K * w.C_in + w.C_out)
    workspace = 4 * (numbers + w.C_out * K * w.C_in)
    return {
        "Gflop": flops / 1e9, "sampling, Gflop": 7 * sampled / 1e9, "MB": moved / 1e6,
        "forward floor": floor * 1e3, "forward expected": forward * 1e3,
        "backward floor": 2 * floor * 1e3, "backward expected": backward * 1e3,
        "tiles": tiles,
        "workspace": workspace / MIB, "torchvision": 4 * sampled / MIB,
    }  # fmt: skip


def test_shapes_are_those_that_are_measured():
    assert tuple(shape for shape, _ in ROWS) == card_timing.SHAPES


@pytest.mark.parametrize("shape, cells", ROWS)
def test_row(shape, cells):
    wanted = expected(parse(shape))
    for (name, value), cell in zip(wanted.items(), cells.split("|"), strict=True):
        digits = len(cell.strip().partition(".")[2])
        assert abs(float(cell) - value) <= 0.5001 * 10.0**-digits, (name, value)
