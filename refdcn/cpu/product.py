"""The matrix product of a tile, whose left factor has just been sampled.

A product of our own, since a BLAS begins by copying both factors into its own order:
the left one is in the cache already, and the right one, the weights, is laid out once
for all tiles. With AVX-512, 64 channels: 163 GFLOP/s where OpenBLAS reaches 118.

The right factor and the product lie in panels: of [rows, columns] the first columns, as
many as fill PANEL_BYTES, then the next, each panel [rows, n], the last one filled up to
whole vectors. Every element is summed in one order, whatever the sizes of the tile: so
the bits of y do not depend on how a call is cut.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, overload

from refdcn.cpu import vectors
from refdcn.cpu.vectors import VECTOR_BYTES
from refdcn.jit import jitable

PANEL_BYTES = 4 * VECTOR_BYTES  # of a row
DEPTH = 128  # terms summed in registers: 128 rows of a panel stay in the first cache

# Rows whose sums are in registers, by vectors in a row. Wide registers hold a whole
# vector, and there are 32 of them; else a vector takes two of 16, or four of 32.
WIDE = "avx512f"
ROWS = {True: {4: 4, 3: 6, 2: 8, 1: 12}, False: {1: 6}}


@jitable
def panelled(columns, itemsize):
    """`columns` rounded up to whole vectors."""
    lanes = VECTOR_BYTES // itemsize
    return (columns + lanes - 1) // lanes * lanes


def multiply(
    a: Any, at: int, row: int, step: int, rows: int,
    b: Any, begin: int, depth: int, n: int,
    target: Any, to: int, apart: int, fresh: bool,
) -> None:  # fmt: skip
    """For r < rows, j < n, with d < depth

        target[to + r * apart + j] += sum_d a[at + r * row + d * step]
                                            * b[begin + d * n + j] ;

    `fresh` begins with 0. n fills whole vectors, four at most. Compiled, DEPTH
    terms at a time are summed apart and added.
    """
    for r in range(rows):
        for j in range(n):
            total = target.dtype.type(0) if fresh else target[to + r * apart + j]
            for d in range(depth):
                total += a[at + r * row + d * step] * b[begin + d * n + j]
            target[to + r * apart + j] = total


# --- Compiled ------------------------------------------------------------------------


def _is_wide() -> bool:
    """Whether a register holds a whole vector."""
    features = config.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features()
    return f"+{WIDE}" in features.split(",")


@overload(multiply)
def _compiled_multiply(
    a, at, row, step, rows, b, begin, depth, n, target, to, apart, fresh
):  # fmt: skip
    lanes = VECTOR_BYTES // (a.dtype.bitwidth // 8)
    rows_of = ROWS[_is_wide()]
    width = max(rows_of)
    four, three, two, one = (_strip(rows_of.get(v, 1), v) for v in (4, 3, 2, 1))

    def strips(
        a, at, row, step, rows, b, begin, depth, n, target, to, apart, fresh
    ):  # fmt: skip
        j = 0
        while j < n:
            v = min(4, (n - j) // lanes)
            k, q = begin + j, to + j
            if v == 4:
                four(a, at, row, step, rows, b, k, depth, n, target, q, apart, fresh)
            elif v == 3:
                three(a, at, row, step, rows, b, k, depth, n, target, q, apart, fresh)
            elif v == 2:
                two(a, at, row, step, rows, b, k, depth, n, target, q, apart, fresh)
            else:
                one(a, at, row, step, rows, b, k, depth, n, target, q, apart, fresh)
            j += v * lanes

    def slim(
        a, at, row, step, rows, b, begin, depth, n, target, to, apart, fresh
    ):  # fmt: skip
        for j in range(0, n, lanes):
            one(
                a, at, row, step, rows, b, begin + j, depth, n, target, to + j, apart,
                fresh,
            )  # fmt: skip

    return strips if width == 4 else slim


def _strip(height: int, wide: int) -> Any:
    """`multiply` for so many vectors: blocks of rows and terms."""
    block = _block(height, wide)

    @jitable
    def strip(
        a, at, row, step, rows, b, begin, depth, n, target, to, apart, fresh
    ):  # fmt: skip
        for d in range(0, depth, DEPTH):
            most = min(DEPTH, depth - d)
            for r in range(0, rows, height):
                block(
                    a, at + r * row + d * step, row, step, rows - r - 1,
                    b, begin + d * n, most, n, target, to + r * apart, apart,
                    fresh and d == 0,
                )  # fmt: skip

    return strip


def _block(rows: int, wide: int) -> Any:
    """`multiply` for rows x vectors sums, all in registers."""

    @intrinsic
    def block(
        typing, a, at, row, step, last, b, begin, depth, n, target, to, apart, fresh
    ):  # fmt: skip
        target_kind = target

        def emit(context, builder, signature, arguments):
            kinds = signature.args
            (
                a, at, row, step, last, b, begin, depth, n, target, to, apart, fresh
            ) = arguments  # fmt: skip
            of, by, out = vectors.pointers(
                context, builder, (kinds[0], kinds[5], kinds[9]), (a, b, target)
            )
            lanes = vectors.lanes_of(target_kind)
            kind = ir.VectorType(out.type.pointee, lanes)
            places = [(r, c) for r in range(rows) for c in range(wide)]
            sums = {p: cgutils.alloca_once(builder, kind) for p in places}

            def number(i: int) -> Any:
                return ir.Constant(at.type, i)

            # Rows beyond the last repeat it: they read and write what it does.
            row_of = []
            for r in range(rows):
                inside = builder.icmp_signed("<", number(r), last)
                row_of.append(builder.select(inside, number(r), last))
            starts = [builder.add(at, builder.mul(r, row)) for r in row_of]
            ends = {
                (r, c): builder.add(
                    builder.add(to, builder.mul(row_of[r], apart)), number(c * lanes)
                )
                for r, c in places
            }
            for p in places:
                builder.store(ir.Constant(kind, None), sums[p])
            with cgutils.for_range(builder, depth, intp=at.type) as loop:
                d = loop.index
                here = builder.add(begin, builder.mul(d, n))
                right = [
                    vectors.emit_load(
                        builder, by, builder.add(here, number(c * lanes)), kind
                    )
                    for c in range(wide)
                ]
                ahead = builder.mul(d, step)
                for r in range(rows):
                    left = builder.load(
                        builder.gep(of, [builder.add(starts[r], ahead)])
                    )
                    left = vectors.spread_out(builder, left, kind)
                    for c in range(wide):
                        now = builder.load(sums[r, c])
                        now = vectors.multiply_add(builder, left, right[c], now)
                        builder.store(now, sums[r, c])
            with builder.if_else(fresh) as (then, otherwise):
                with then:
                    for p in places:
                        vectors.emit_store(builder, builder.load(sums[p]), out, ends[p])
                with otherwise:
                    before = [
                        vectors.emit_load(builder, out, ends[p], kind) for p in places
                    ]
                    for p, value in zip(places, before, strict=True):
                        now = builder.fadd(value, builder.load(sums[p]))
                        vectors.emit_store(builder, now, out, ends[p])
            return context.get_dummy_value()

        kinds = a, at, row, step, last, b, begin, depth, n, target, to, apart, fresh
        return types.void(*kinds), emit

    return block
