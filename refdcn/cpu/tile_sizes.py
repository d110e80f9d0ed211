"""How a call is cut into tiles of outputs, and on how many threads it is worth it."""

from __future__ import annotations

from refdcn import threads
from refdcn.cpu.layout import Sizes
from refdcn.shapes import Geometry

TILE_BYTES = 1 << 20  # of a tile's columns and product: half of a second cache
IMAGE_BYTES = 4 << 20  # of an image that one thread may have to itself
TILES = 8  # of an image, where it can fill them: so that threads end together
SERIAL_FLOPS = 4_000_000  # below this, waking a thread costs more than it saves
VISIT_FLOPS = 3e8  # some 10 ms, after which a thread lets Python answer signals
SAMPLE_FLOPS = 40  # of a product, done in the time that one sample takes


def work(s: Sizes, flops: int) -> int:
    """Of an image, in operations of a product: `flops` of one, and its samples."""
    return flops + SAMPLE_FLOPS * s.K * s.C_in * s.pixels


def tile(pixels: int, row_bytes: int, work: int, most: int = TILE_BYTES) -> int:
    """Outputs a tile: up to TILES of 192 or more, or 2 of 96 or more, of `most` bytes.

    None takes less work than it costs to begin it, and its product reads all weights.
    """
    tiles = min(TILES, 2 * (pixels // (2 * 192)) or pixels // 96 or 1)
    tiles = min(tiles, work // SERIAL_FLOPS or 1)
    return equal(pixels, row_bytes, most, tiles)


def equal(pixels: int, row_bytes: int, tile_bytes: int, least: int) -> int:
    """Outputs a tile where `least` tiles or a multiple of it are as equal as can be."""
    tiles = least * -(-pixels * row_bytes // (least * tile_bytes))
    return min(pixels, -(-pixels // (8 * tiles)) * 8)


def thread_count(g: Geometry, wanted: int | None) -> int:
    """How many threads to use, of those that are wanted or set."""
    product = g.C_in // g.groups * g.C_out + 4 * g.C_in
    if 2 * g.N * g.H_out * g.W_out * g.K_h * g.K_w * product < SERIAL_FLOPS:
        return 1
    return wanted or threads.get_num_threads()
