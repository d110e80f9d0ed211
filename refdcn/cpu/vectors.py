"""A vector of 64 bytes as a value of compiled code, and the loops made of it.

In Python a vector is a copy of a slice, so every loop here and above is said once: it
runs as it stands, and compiles to vectors. LLVM alone guards each short loop by overlap
checks and leaves transpositions scalar. Measured on 64 channels of 56 x 56, float32:
sampling 0.50 -> 0.35 ms, a transposition 0.17 -> 0.02 ms, beside a matrix product of
2.3 ms; then, with the loops over outputs and taps inside, too, a sample of 64 channels
9.8 -> 5.0 ns where its pixels are in the first cache.

Arrays are flat; positions in them are counted in elements.
"""

# mypy: allow-untyped-defs, disable-error-code="misc"
from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.extending import lower_builtin, type_callable

from refdcn.jit import jitable

VECTOR_BYTES = 64
BLOCK = 128  # outputs whose cells are found together


# --- What a vector can do, in Python -------------------------------------------------


def load(array: Any, i: int) -> Any:
    """A whole vector from array[i] on."""
    return array[i : i + VECTOR_BYTES // array.itemsize].copy()


def load_four(array: Any, i: int) -> Any:
    """Four numbers: what is left of few channels."""
    return array[i : i + 4].copy()


def load_one(array: Any, i: int) -> Any:
    """One number, as a vector."""
    return array[i : i + 1].copy()


def store(vector: Any, array: Any, i: int) -> None:
    """array[i], array[i + 1], ... = vector."""
    array[i : i + len(vector)] = vector


def lanes(vector: Any) -> int:
    """Of how many numbers it is."""
    return len(vector)


def zero(vector: Any) -> Any:
    """As many zeros."""
    return np.zeros_like(vector)


def times(a: Any, vector: Any) -> Any:
    """A number or a vector times a vector."""
    return a * vector


def add_times(a: Any, vector: Any, total: Any) -> Any:
    """a * vector + total; compiled, with one rounding where the processor can."""
    return a * vector + total


def add(a: Any, b: Any) -> Any:
    """a + b."""
    return a + b


def totals(a: Any, b: Any, c: Any, d: Any) -> Any:
    """The sums of four vectors, as a vector of four."""
    return np.array([a.sum(), b.sum(), c.sum(), d.sum()], a.dtype)


def turn_block(
    source: Any, rows: Any, i: int, target: Any, columns: Any, j: int
) -> Any:
    """A block, as wide as a vector, of `transpose`."""
    n = VECTOR_BYTES // source.itemsize
    for c in range(n):
        here = [source[row + j + c] for row in rows[i : i + n]]
        target[columns[j + c] + i : columns[j + c] + i + n] = here


# --- The loops -----------------------------------------------------------------------


class Cells(NamedTuple):
    """What outputs read at some taps: four pixels each."""

    places: Any  # [taps, BLOCK]: which pixel is the first
    weights: Any  # [taps, 4, BLOCK]
    outputs: int  # so many of the block
    taps: int
    pixel: int  # from a pixel to that beside it
    row: int  # and to that below


class Columns(NamedTuple):
    """Numbers of each output p and tap k, from array[at + p * output + k * tap] on."""

    array: Any
    at: int
    output: int
    tap: int


class Flat(NamedTuple):
    """Numbers from array[at] on."""

    array: Any
    at: int


def _blend(load: Any, vectors: int) -> Any:
    """`blend` for so many vectors of channels, a number that the compiler knows."""

    @jitable
    def blend(columns, source, begin, cells):
        pixel, row, weights = cells.pixel, cells.row, cells.weights
        for p in range(cells.outputs):
            for k in range(cells.taps):
                i = begin + cells.places[k, p] * pixel
                to = columns.at + p * columns.output + k * columns.tap
                w_00, w_01 = weights[k, 0, p], weights[k, 1, p]
                w_10, w_11 = weights[k, 2, p], weights[k, 3, p]
                for _ in range(vectors):
                    total = times(w_00, load(source, i))
                    total = add_times(w_01, load(source, i + pixel), total)
                    total = add_times(w_10, load(source, i + row), total)
                    total = add_times(w_11, load(source, i + row + pixel), total)
                    store(total, columns.array, to)
                    i += lanes(total)
                    to += lanes(total)

    return blend


_blend_4, _blend_2, _blend_1 = _blend(load, 4), _blend(load, 2), _blend(load, 1)
_blend_four, _blend_one = _blend(load_four, 1), _blend(load_one, 1)


@jitable
def blend(columns, source, begin, size, cells):
    """Each tap k of each output p from its four pixels: for c < size

    columns[p, k, c] = sum_t weights[k, t, p] * source[i_t + c] ,
    i_t = begin + places[k, p] * pixel + (0, pixel, row, row + pixel)[t].
    """
    whole, c = VECTOR_BYTES // source.itemsize, 0
    array, at, output, tap = columns
    while c < size:
        here, left = Columns(array, at + c, output, tap), size - c
        if left >= 4 * whole:
            _blend_4(here, source, begin + c, cells)
            c += 4 * whole
        elif left >= 2 * whole:
            _blend_2(here, source, begin + c, cells)
            c += 2 * whole
        elif left >= whole:
            _blend_1(here, source, begin + c, cells)
            c += whole
        elif left >= 4:
            _blend_four(here, source, begin + c, cells)
            c += 4
        else:
            _blend_one(here, source, begin + c, cells)
            c += 1


def _weighted(load: Any) -> Any:
    """`weighted_blend` for whole vectors of channels at one tap of one output."""

    @jitable
    def weighted(target, source, w, c, end, whole, tents, cells):
        to, i, at, image = target.at, source.at, w.at, source.array
        pixel, row = cells.pixel, cells.row
        while c + whole <= end:
            sample = times(tents[0], load(image, i + c))
            sample = add_times(tents[1], load(image, i + c + pixel), sample)
            sample = add_times(tents[2], load(image, i + c + row), sample)
            sample = add_times(tents[3], load(image, i + c + row + pixel), sample)
            total = load(target.array, to + c)
            total = add_times(load(w.array, at + c), sample, total)
            store(total, target.array, to + c)
            c += whole
        return c

    return weighted


_weighted_whole, _weighted_four = _weighted(load), _weighted(load_four)
_weighted_one = _weighted(load_one)


@jitable
def weighted_blend(target, source, w, bias, begin, end, cells):
    """The samples of `blend`, times w[k, c], summed over k: for begin <= c < end

    target[p, c] = bias[c] + sum_k w[k, c] * sum_t weights[k, t, p] * source[i_t + c]

    All channels of a pixel before the next: a vector of each would use 64 bytes of
    every KB, and these of few lines of the first cache.
    """
    pixel, t, there = cells.pixel, cells.weights, bias[begin:end]
    whole = VECTOR_BYTES // source.itemsize
    for p in range(cells.outputs):
        to = Flat(target.array, target.at + p * pixel)
        here = target.array[to.at + begin : to.at + end]
        clear(target.array, to.at + begin, to.at + end)
        for k in range(cells.taps):
            of, by = Flat(source, cells.places[k, p] * pixel), Flat(w, k * pixel)
            tents = t[k, 0, p], t[k, 1, p], t[k, 2, p], t[k, 3, p]
            c = _weighted_whole(to, of, by, begin, end, whole, tents, cells)
            c = _weighted_four(to, of, by, c, end, 4, tents, cells)
            _weighted_one(to, of, by, c, end, 1, tents, cells)
        for c in range(end - begin):
            here[c] += there[c]


def _give(load: Any) -> Any:
    """What a pixel gets of a value in which it had this weight."""

    @jitable
    def give(target, i, weight, value):
        store(add_times(weight, value, load(target, i)), target, i)

    return give


def _exchange(load: Any, vectors: int) -> Any:
    """`exchange` for so many vectors of channels."""
    give = _give(load)

    @jitable
    def exchange(source, target, begin, columns, samples, sums, cells, fresh):
        pixel, row, weights = cells.pixel, cells.row, cells.weights
        for p in range(cells.outputs):
            for k in range(cells.taps):
                i = begin + cells.places[k, p] * pixel
                of = columns.at + p * columns.output + k * columns.tap
                to = samples.at + p * samples.output + k * samples.tap
                w_00, w_01 = weights[k, 0, p], weights[k, 1, p]
                w_10, w_11 = weights[k, 2, p], weights[k, 3, p]
                s_00 = s_01 = s_10 = s_11 = zero(load(columns.array, of))
                for _ in range(vectors):
                    value = load(columns.array, of)
                    x_00, x_01 = load(source, i), load(source, i + pixel)
                    x_10, x_11 = load(source, i + row), load(source, i + row + pixel)
                    s_00 = add_times(value, x_00, s_00)
                    s_01 = add_times(value, x_01, s_01)
                    s_10 = add_times(value, x_10, s_10)
                    s_11 = add_times(value, x_11, s_11)
                    sample = add_times(w_01, x_01, times(w_00, x_00))
                    sample = add_times(w_11, x_11, add_times(w_10, x_10, sample))
                    store(sample, samples.array, to)
                    give(target, i, w_00, value)
                    give(target, i + pixel, w_01, value)
                    give(target, i + row, w_10, value)
                    give(target, i + row + pixel, w_11, value)
                    i, of, to = i + lanes(value), of + lanes(value), to + lanes(value)
                cell = (k * BLOCK + p) * 4
                four = totals(s_00, s_01, s_10, s_11)
                store(four if fresh else add(load_four(sums, cell), four), sums, cell)

    return exchange


_exchange_4, _exchange_1 = _exchange(load, 4), _exchange(load, 1)
_exchange_four, _exchange_one = _exchange(load_four, 1), _exchange(load_one, 1)


@jitable
def exchange(source, target, begin, size, columns, samples, sums, cells):
    """`blend`, its transpose and what each pixel gives to it, in one: for c < size

    samples[p, k, c]  = sum_t weights[k, t, p] * source[i_t + c]
    target[i_t + c]  += weights[k, t, p] * columns[p, k, c]
    sums[k, p, t]     = sum_c columns[p, k, c] * source[i_t + c]
    """
    whole, c = VECTOR_BYTES // source.itemsize, 0
    array, at, output, tap = columns
    out, to, out_output, out_tap = samples
    while c < size:
        old, left = Columns(array, at + c, output, tap), size - c
        new, i, fresh = Columns(out, to + c, out_output, out_tap), begin + c, c == 0
        if left >= 4 * whole:
            _exchange_4(source, target, i, old, new, sums, cells, fresh)
            c += 4 * whole
        elif left >= whole:
            _exchange_1(source, target, i, old, new, sums, cells, fresh)
            c += whole
        elif left >= 4:
            _exchange_four(source, target, i, old, new, sums, cells, fresh)
            c += 4
        else:
            _exchange_one(source, target, i, old, new, sums, cells, fresh)
            c += 1


class Depthwise(NamedTuple):
    """What a channel has to itself, and its gradients."""

    source: Any
    target: Any  # its gradient
    w: Any  # [k, c]
    grad_w: Any
    grads: Any  # of y, from grads[at + p * apart + c] on
    at: int
    apart: int


def _weighted_exchange(load: Any) -> Any:
    """`weighted_exchange` for one vector of channels."""
    give = _give(load)

    @jitable
    def weighted(data, c, sums, edges, cells, fresh):
        source, target, weights = data.source, data.target, cells.weights
        pixel, row = cells.pixel, cells.row
        for p in range(cells.outputs):
            grad = load(data.grads, data.at + p * data.apart + c)
            for k in range(cells.taps):
                i, at = c + cells.places[k, p] * pixel, k * pixel + c
                w_00, w_01 = weights[k, 0, p], weights[k, 1, p]
                w_10, w_11 = weights[k, 2, p], weights[k, 3, p]
                x_00, x_01 = load(source, i), load(source, i + pixel)
                x_10, x_11 = load(source, i + row), load(source, i + row + pixel)
                if not edges[k, p]:
                    sample = add_times(w_01, x_01, times(w_00, x_00))
                    sample = add_times(w_11, x_11, add_times(w_10, x_10, sample))
                    sample = add_times(grad, sample, load(data.grad_w, at))
                    store(sample, data.grad_w, at)
                value = times(load(data.w, at), grad)
                give(target, i, w_00, value)
                give(target, i + pixel, w_01, value)
                give(target, i + row, w_10, value)
                give(target, i + row + pixel, w_11, value)
                cell = (k * BLOCK + p) * 4
                four = totals(
                    times(value, x_00), times(value, x_01),
                    times(value, x_10), times(value, x_11),
                )  # fmt: skip
                store(four if fresh else add(load_four(sums, cell), four), sums, cell)

    return weighted


_depthwise_whole = _weighted_exchange(load)
_depthwise_four = _weighted_exchange(load_four)
_depthwise_one = _weighted_exchange(load_one)


@jitable
def weighted_exchange(data, begin, end, sums, edges, cells):
    """The transpose of `weighted_blend` and what pixels give: for begin <= c < end

    grad_w[k, c]     += grads[p, c] * sum_t weights[k, t, p] * source[i_t + c]
    target[i_t + c]  += weights[k, t, p] * w[k, c] * grads[p, c]
    sums[k, p, t]     = sum_c w[k, c] * grads[p, c] * source[i_t + c]

    At edges the slope alone has a cell, and grad_w has nothing of it.
    """
    whole, c = VECTOR_BYTES // data.source.itemsize, begin
    while c < end:
        if end - c >= whole:
            _depthwise_whole(data, c, sums, edges, cells, c == begin)
            c += whole
        elif end - c >= 4:
            _depthwise_four(data, c, sums, edges, cells, c == begin)
            c += 4
        else:
            _depthwise_one(data, c, sums, edges, cells, c == begin)
            c += 1


@jitable
def clear(array, begin, end):
    """array[begin:end] = 0; as a slice it takes 2 s more of a first call to compile."""
    row = array[begin:end]
    for i in range(end - begin):
        row[i] = 0


@jitable
def copy(source, begin, count, target, at):
    """target[at : at + count] = source[begin : begin + count]."""
    of, to = source[begin : begin + count], target[at : at + count]
    for i in range(count):
        to[i] = of[i]


@jitable
def repeat(source, begin, size, target, at, count):
    """target[at + r * size + i] = source[begin + i] for r < count; whole vectors.

    Number by number it took 0.34 ms of the 0.95 of 8x3x28x28.
    """
    i = 0
    while i < size:
        vector = load(source, begin + i)
        for r in range(count):
            store(vector, target, at + r * size + i)
        i += lanes(vector)


@jitable
def transpose(source, source_rows, target, target_rows):
    """target[target_rows[j] + i] = source[source_rows[i] + j]."""
    n = VECTOR_BYTES // source.itemsize
    rows, columns = len(source_rows), len(target_rows)
    if rows < n or columns < n:
        if rows < columns:  # the longer loop within, 1.04 times faster at 8x8x8
            for i in range(rows):
                row = source[source_rows[i] : source_rows[i] + columns]
                for j in range(columns):
                    target[np.uintp(target_rows[j] + i)] = row[j]
        else:
            for j in range(columns):
                row = target[target_rows[j] : target_rows[j] + rows]
                for i in range(rows):
                    row[i] = source[np.uintp(source_rows[i] + j)]
        return
    # Few rows are far apart, many are beside one another: pages change seldom.
    across, down = (rows, columns) if rows <= columns else (columns, rows)
    for b in range(0, across, n):
        far = min(b, across - n)  # the last block overlaps: no tail to treat
        for a in range(0, down, n):
            near = min(a, down - n)
            i, j = (far, near) if rows <= columns else (near, far)
            turn_block(source, source_rows, i, target, target_rows, j)


# --- A vector, compiled --------------------------------------------------------------


class Vector(types.Type):
    """So many numbers of one dtype in a register, or in several."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        super().__init__(f"Vector({dtype}, {lanes})")
        self.dtype, self.lanes = dtype, lanes


@register_default(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        element = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.lanes))


def emitted(function: Any) -> Any:
    """Decorates what tells, for the kinds of arguments, signature and how to emit it.

    An overload would be compiled to machine code by itself before it is put where it
    is used, each of them: half a second of a first call.
    """

    def register(tell: Any) -> Any:
        def typed(*kinds: Any) -> Any:
            return tell(*kinds)[0]

        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return tell(*signature.args)[1](context, builder, signature, arguments)

        typed.pysig = inspect.signature(function)  # type: ignore[attr-defined]
        type_callable(function)(lambda context: typed)
        lower_builtin(function, types.VarArg(types.Any))(emit)
        return tell

    return register


def lanes_of(array: Any) -> Any:
    """Numbers of a whole vector."""
    return VECTOR_BYTES // (array.dtype.bitwidth // 8)


def pointers(context: Any, builder: Any, kinds: Any, arrays: Any) -> list[Any]:
    return [
        cgutils.create_struct_proxy(kind)(context, builder, array).data
        for kind, array in zip(kinds, arrays, strict=True)
    ]


def emit_load(builder: Any, pointer: Any, index: Any, kind: Any) -> Any:
    """At any multiple of an element's size, which is a vector's alignment here."""
    address = builder.gep(pointer, [index])
    loaded = builder.load(builder.bitcast(address, kind.as_pointer()))
    loaded.align = _size(kind)
    return loaded


def emit_store(builder: Any, value: Any, pointer: Any, index: Any) -> None:
    address = builder.gep(pointer, [index])
    stored = builder.store(value, builder.bitcast(address, value.type.as_pointer()))
    stored.align = _size(value.type)


def _size(kind: Any) -> int:
    return 4 if kind.element == ir.FloatType() else 8


def spread_out(builder: Any, value: Any, kind: Any) -> Any:
    """A vector of one number; a vector as it is."""
    if value.type == kind:
        return value
    none = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(none, value, ir.Constant(ir.IntType(32), 0))
    index = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, none, index)


def multiply_add(builder: Any, a: Any, b: Any, total: Any) -> Any:
    product = builder.fmul(a, b, flags=("contract",))
    return builder.fadd(product, total, flags=("contract",))


def _loader(lanes: int) -> Any:
    def loaded(array, i):
        kind = Vector(array.dtype, lanes or lanes_of(array))

        def emit(context, builder, signature, arguments):
            (data,) = pointers(context, builder, signature.args[:1], arguments[:1])
            vector = context.get_value_type(kind)
            return emit_load(builder, data, arguments[1], vector)

        return kind(array, types.intp), emit

    return loaded


for _function, _count in ((load, 0), (load_four, 4), (load_one, 1)):
    emitted(_function)(_loader(_count))


@emitted(store)
def _store(vector, array, i):
    def emit(context, builder, signature, arguments):
        (data,) = pointers(context, builder, signature.args[1:2], arguments[1:2])
        emit_store(builder, arguments[0], data, arguments[2])
        return context.get_dummy_value()

    return types.void(vector, array, types.intp), emit


@emitted(lanes)
def _lanes(vector):
    def emit(context, builder, signature, arguments):
        return ir.Constant(ir.IntType(64), vector.lanes)

    return types.int64(vector), emit


@emitted(zero)
def _zero(vector):
    def emit(context, builder, signature, arguments):
        return ir.Constant(arguments[0].type, None)

    return vector(vector), emit


@emitted(add)
def _add(a, b):
    def emit(context, builder, signature, arguments):
        return builder.fadd(*arguments)

    return a(a, b), emit


@emitted(times)
def _times(a, vector):
    def emit(context, builder, signature, arguments):
        a, vector = arguments
        return builder.fmul(spread_out(builder, a, vector.type), vector)

    return vector(a, vector), emit


@emitted(add_times)
def _add_times(a, vector, total):
    def emit(context, builder, signature, arguments):
        a, vector, total = arguments
        return multiply_add(builder, spread_out(builder, a, vector.type), vector, total)

    return vector(a, vector, vector), emit


@emitted(totals)
def _totals(a, b, c, d):
    def emit(context, builder, signature, arguments):
        return _emit_totals(builder, arguments)

    return Vector(a.dtype, 4)(a, b, c, d), emit


def _emit_totals(builder: Any, vectors: Any) -> Any:
    def pick(a: Any, b: Any, index: list[int]) -> Any:
        kind = ir.VectorType(ir.IntType(32), len(index))
        return builder.shuffle_vector(a, b, ir.Constant(kind, index))

    lanes = vectors[0].type.count
    if lanes == 1:
        first, second = (pick(a, b, [0, 1]) for a, b in (vectors[:2], vectors[2:]))
        return pick(first, second, [0, 1, 2, 3])
    while lanes > 4:
        lanes //= 2
        low, high = list(range(lanes)), list(range(lanes, 2 * lanes))
        vectors = [builder.fadd(pick(a, a, low), pick(a, a, high)) for a in vectors]
    first, second = (
        builder.fadd(pick(a, c, [0, 1, 4, 5]), pick(a, c, [2, 3, 6, 7]))
        for a, c in (vectors[:2], vectors[2:])
    )
    low, high = [0, 2, 4, 6], [1, 3, 5, 7]
    return builder.fadd(pick(first, second, low), pick(first, second, high))


@emitted(turn_block)
def _turn_block(source, rows, i, target, columns, j):
    """n vector loads, n log2(n) shuffles, n vector stores."""

    def emit(context, builder, signature, arguments):
        kinds = *signature.args[:2], *signature.args[3:5]
        arrays = *arguments[:2], *arguments[3:5]
        of, of_rows, to, to_rows = pointers(context, builder, kinds, arrays)
        i, j = arguments[2], arguments[5]

        def start(starts: Any, first: Any, step: int, ahead: Any) -> Any:
            row = builder.add(first, ir.Constant(first.type, step))
            return builder.add(builder.load(builder.gep(starts, [row])), ahead)

        n = lanes_of(source)
        kind = ir.VectorType(of.type.pointee, n)
        lines = [
            emit_load(builder, of, start(of_rows, i, r, j), kind) for r in range(n)
        ]
        for r, line in enumerate(_shuffled(builder, lines)):
            emit_store(builder, line, to, start(to_rows, j, r, i))
        return context.get_dummy_value()

    kinds = source, rows, types.intp, target, columns, types.intp
    return types.void(*kinds), emit


def _shuffled(builder: Any, lines: list[Any]) -> list[Any]:
    """The transposed lines: at each step, runs of `step` elements change places."""
    n = len(lines)
    index = ir.VectorType(ir.IntType(32), n)
    step = 1
    while step < n:
        low = ir.Constant(index, [n + e - step if e & step else e for e in range(n)])
        high = ir.Constant(index, [n + e if e & step else e + step for e in range(n)])
        for a in range(n):
            if not a & step:
                two = lines[a], lines[a + step]
                lines[a] = builder.shuffle_vector(*two, low)
                lines[a + step] = builder.shuffle_vector(*two, high)
        step *= 2
    return lines
