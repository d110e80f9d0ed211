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

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, overload

from refdcn.cpu import vectors
from refdcn.cpu.vectors import VECTOR_BYTES
from refdcn.jit import PART, jitable

PANEL_BYTES = 4 * VECTOR_BYTES  # of a row
DEPTH = 128  # terms summed in registers: 128 rows of a panel stay in the first cache

# Rows whose sums are in registers, by vectors in a row. Wide registers hold a whole
# vector, and there are 32 of them; else a vector takes two of 16, or four of 32.
WIDE = "avx512f"
ROWS = {True: {4: 4, 3: 6, 2: 8, 1: 12}, False: {1: 6}}


@jitable
def taps(K, C):
    """How many taps of C channels have their columns made and multiplied at once."""
    return max(1, min(K, DEPTH // C))


@jitable
def panelled(columns, itemsize):
    """`columns` rounded up to whole vectors."""
    lanes = VECTOR_BYTES // itemsize
    return (columns + lanes - 1) // lanes * lanes


@jitable
def next_panel(left, panel, itemsize):
    """(columns, numbers of a row) of the next panel, of so many columns that are left.

    A last one beyond whole vectors is a panel of its own: of the 49 outputs of 7x7 it
    would make the fourth vector of a row, and all rows longer by a third.
    """
    lanes, count = VECTOR_BYTES // itemsize, min(panel, left)
    if count > 1 and count % lanes == 1:
        count -= 1
    return count, 1 if count == 1 else panelled(count, itemsize)


class Left(NamedTuple):
    """A factor of so many rows: array[at + r * row + d * step]."""

    array: Any
    at: int
    row: int
    step: int
    rows: int


class Right(NamedTuple):
    """A panel [depth, n], whose rows fill whole vectors, four at most."""

    array: Any
    at: int
    depth: int
    n: int


class Product(NamedTuple):
    """Rows of a panel: array[at + r * row + j]."""

    array: Any
    at: int
    row: int


def multiply(left: Any, right: Any, product: Any, fresh: bool) -> None:
    """For r < rows, j < n, with d < depth

        product[r, j] += sum_d left[r, d] * right[d, j] ;

    `fresh` begins with 0. Compiled, DEPTH terms at a time are summed apart and added.
    """
    a, b, y = left.array, right.array, product.array
    for r in range(left.rows):
        for j in range(right.n):
            i = product.at + r * product.row + j
            total = y.dtype.type(0) if fresh else y[i]
            for d in range(right.depth):
                term = a[left.at + r * left.row + d * left.step]
                total += term * b[right.at + d * right.n + j]
            y[i] = total


@jitable
def multiply_one(left, column, begin, depth, product):
    """`multiply` by a panel of one column, which is column[begin : begin + depth].

    Vectors run along the terms, and four rows share them: 1x512x7x7 0.83 of the time.
    """
    a, n = left.array, vectors.VECTOR_BYTES // column.itemsize
    whole, sums = depth // n * n, np.zeros(4, column.dtype)
    for r in range(0, left.rows, 4):
        last = left.rows - 1
        i = left.at + r * left.row
        j = left.at + min(r + 1, last) * left.row
        k = left.at + min(r + 2, last) * left.row
        m = left.at + min(r + 3, last) * left.row
        if whole:
            s_0 = s_1 = s_2 = s_3 = vectors.zero(vectors.load(column, begin))
            for d in range(0, whole, n):
                one = vectors.load(column, begin + d)
                s_0 = vectors.add_times(vectors.load(a, i + d), one, s_0)
                s_1 = vectors.add_times(vectors.load(a, j + d), one, s_1)
                s_2 = vectors.add_times(vectors.load(a, k + d), one, s_2)
                s_3 = vectors.add_times(vectors.load(a, m + d), one, s_3)
            vectors.store(vectors.totals(s_0, s_1, s_2, s_3), sums, 0)
        for t in range(min(4, left.rows - r)):
            total, row = sums[t], i + t * left.row
            for d in range(whole, depth):
                total += a[row + d] * column[begin + d]
            product.array[product.at + (r + t) * product.row] += total


# --- Compiled ------------------------------------------------------------------------


def _is_wide() -> bool:
    """Whether a register holds a whole vector."""
    features = config.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features()
    return f"+{WIDE}" in features.split(",")


@overload(multiply, jit_options=PART)
def _compiled_multiply(left, right, product, fresh):
    lanes = vectors.lanes_of(left[0])
    rows_of = ROWS[_is_wide()]
    four, three, two, one = (_strip(rows_of.get(v, 1), v) for v in (4, 3, 2, 1))

    def wide(left, right, product, fresh):
        j = 0
        while j < right.n:
            v = min(4, (right.n - j) // lanes)
            if v == 4:
                four(left, right, product, fresh, j)
            elif v == 3:
                three(left, right, product, fresh, j)
            elif v == 2:
                two(left, right, product, fresh, j)
            else:
                one(left, right, product, fresh, j)
            j += v * lanes

    def slim(left, right, product, fresh):
        for j in range(0, right.n, lanes):
            one(left, right, product, fresh, j)

    return wide if max(rows_of) == 4 else slim


def _strip(height: int, width: int) -> Any:
    """`multiply` for so many vectors from column j on: blocks of rows and terms."""
    block = _block(height, width)

    @jitable
    def strip(left, right, product, fresh, j):
        for d in range(0, right.depth, DEPTH):
            for r in range(0, left.rows, height):
                block(left, right, product, fresh and d == 0, r, d, j)

    return strip


def _block(rows: int, width: int) -> Any:
    """`multiply` from row r, term d and column j on: rows x vectors in registers.

    Where it begins is told apart: a record made for each block has its references
    counted, which is atomic.
    """

    @intrinsic
    def block(typing, left, right, product, fresh, r, d, j):
        def emit(context, builder, signature, arguments):
            r, d, j = arguments[4:]
            a, b, y = (cgutils.unpack_tuple(builder, x) for x in arguments[:3])
            kinds = [record[0] for record in signature.args[:3]]
            arrays = vectors.pointers(context, builder, kinds, (a[0], b[0], y[0]))
            kind = ir.VectorType(arrays[2].type.pointee, vectors.lanes_of(product[0]))
            places = _rows_from(builder, r, a[4], rows)
            a = arrays[0], _plus(builder, a[1], d, a[3]), a[2], a[3]
            depth = _least(builder, builder.sub(b[2], d), DEPTH)
            b = arrays[1], builder.add(_plus(builder, b[1], d, b[3]), j), depth, b[3]
            y = arrays[2], builder.add(y[1], j), y[2]
            sums = _emit_sums(builder, a, b, places, [kind] * width)
            _emit_stores(builder, y, places, sums, arguments[3])
            return context.get_dummy_value()

        kinds = left, right, product, fresh, types.intp, types.intp, types.intp
        return types.void(*kinds), emit

    return block


def _plus(builder: Any, at: Any, times: Any, step: Any) -> Any:
    return builder.add(at, builder.mul(times, step))


def _least(builder: Any, a: Any, b: Any) -> Any:
    b = b if isinstance(b, ir.Value) else ir.Constant(a.type, b)
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _rows_from(builder: Any, r: Any, end: Any, count: int) -> list[Any]:
    """So many from r on; those beyond the last repeat it, and do what it does."""
    last = builder.sub(end, ir.Constant(end.type, 1))
    rows = [builder.add(r, ir.Constant(r.type, i)) for i in range(count)]
    return [_least(builder, row, last) for row in rows]


def _emit_sums(builder: Any, a: Any, b: Any, rows: list[Any], lines: list[Any]) -> Any:
    """The sums over all terms, [row][vector], each where LLVM makes it a register."""
    left, at, row, step = a
    right, begin, depth, n = b
    sums = [[cgutils.alloca_once(builder, kind) for kind in lines] for _ in rows]
    for total in sum(sums, []):
        builder.store(ir.Constant(total.type.pointee, None), total)
    starts = [_plus(builder, at, r, row) for r in rows]
    with cgutils.for_range(builder, depth, intp=at.type) as loop:
        places = _vectors_from(builder, _plus(builder, begin, loop.index, n), lines)
        values = [
            vectors.emit_load(builder, right, place, kind)
            for place, kind in zip(places, lines, strict=True)
        ]
        ahead = builder.mul(loop.index, step)
        for start, totals in zip(starts, sums, strict=True):
            one = builder.load(builder.gep(left, [builder.add(start, ahead)]))
            one = vectors.spread_out(builder, one, lines[0])
            for value, total in zip(values, totals, strict=True):
                now = vectors.multiply_add(builder, one, value, builder.load(total))
                builder.store(now, total)
    return [[builder.load(total) for total in totals] for totals in sums]


def _emit_stores(builder: Any, y: Any, rows: list[Any], sums: Any, fresh: Any) -> None:
    """The sums into their places, or, unless they are fresh, added to what is there."""
    array, at, row = y
    kinds = [total.type for total in sums[0]]
    starts = [_plus(builder, at, r, row) for r in rows]
    places = sum((_vectors_from(builder, start, kinds) for start in starts), [])
    totals: list[Any] = sum(sums, [])
    with builder.if_else(fresh) as (then, otherwise):
        with then:
            for total, place in zip(totals, places, strict=True):
                vectors.emit_store(builder, total, array, place)
        with otherwise:
            # Rows may be repeated: all are read before one is written.
            before = [
                vectors.emit_load(builder, array, place, kinds[0]) for place in places
            ]
            for total, place, old in zip(totals, places, before, strict=True):
                vectors.emit_store(builder, builder.fadd(old, total), array, place)


def _vectors_from(builder: Any, start: Any, kinds: list[Any]) -> list[Any]:
    """Where as many vectors begin, one after another."""
    return [
        builder.add(start, ir.Constant(start.type, c * kind.count))
        for c, kind in enumerate(kinds)
    ]
