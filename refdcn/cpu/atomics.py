"""What threads tell each other inside compiled code: words, and functions to call.

A word is a number of a flat int64 array that several threads read and change. In Python
these are what they say, for one thread.
"""

# mypy: allow-untyped-defs, disable-error-code="misc"
from __future__ import annotations

import os
import platform
import threading
import time
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from refdcn.cpu.vectors import emitted, pointers

FAILED = -3  # what `call` says of a function that raised

# Of a state, where what is called lies: its address and its arguments.
FUNCTION, ARGUMENTS, WORDS = 32, 40, 560

_lock = threading.RLock()

# --- Words ----------------------------------------------------------------------------


def fetch_add(words: Any, i: int, more: int) -> Any:
    """words[i] += more, whoever else adds; what was there before."""
    with _lock:
        before = words[i]
        words[i] += more
    return before


def exchange(words: Any, i: int, expected: int, wanted: int) -> bool:
    """words[i] = wanted if it is as expected; whether it was."""
    with _lock:
        found = bool(words[i] == expected)
        if found:
            words[i] = wanted
    return found


def read(words: Any, i: int) -> Any:
    """words[i], from memory, and with it what was written before it."""
    return words[i]


@emitted(fetch_add)
def _fetch_add(words, i, more):
    def emit(context, builder, signature, arguments):
        place = _place(context, builder, signature, arguments)
        return builder.atomic_rmw("add", place, arguments[2], "seq_cst")

    return types.int64(words, types.intp, types.int64), emit


@emitted(exchange)
def _exchange(words, i, expected, wanted):
    def emit(context, builder, signature, arguments):
        place = _place(context, builder, signature, arguments)
        found = builder.cmpxchg(place, *arguments[2:], "seq_cst", "seq_cst")
        return builder.extract_value(found, 1)

    return types.boolean(words, types.intp, types.int64, types.int64), emit


@emitted(read)
def _read(words, i):
    def emit(context, builder, signature, arguments):
        place = _place(context, builder, signature, arguments)
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(words, types.intp), emit


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    (data,) = pointers(context, builder, signature.args[:1], arguments[:1])
    return builder.gep(data, [arguments[1]])


# --- Rows of threads ------------------------------------------------------------------


def rows_of(room: Any, me: int) -> Any:
    """What thread `me` has of a NamedTuple of arrays [threads or 1, ...]."""
    return room._make(a[min(me, len(a) - 1)] for a in room)


@emitted(rows_of)
def _rows_of(room, me):
    kinds = [types.Array(kind.dtype, kind.ndim - 1, "C") for kind in room.types]
    made = types.BaseTuple.from_types(kinds, room.instance_class)

    def emit(context, builder, signature, given):
        rows = []
        for whole, kind, value in zip(
            room.types, kinds, cgutils.unpack_tuple(builder, given[0]), strict=True
        ):
            array = cgutils.create_struct_proxy(whole)(context, builder, value)
            shape = cgutils.unpack_tuple(builder, array.shape)
            strides = cgutils.unpack_tuple(builder, array.strides)
            last = builder.sub(shape[0], ir.Constant(shape[0].type, 1))
            is_less = builder.icmp_signed("<", given[1], last)
            at = builder.mul(builder.select(is_less, given[1], last), strides[0])
            row = cgutils.create_struct_proxy(kind)(context, builder)
            populate_array(
                row, cgutils.pointer_add(builder, array.data, at),
                cgutils.pack_array(builder, shape[1:]),
                cgutils.pack_array(builder, strides[1:]), array.itemsize, None,
            )  # fmt: skip
            rows.append(row._getvalue())
        return context.make_tuple(builder, made, rows)

    return made(room, types.int64), emit


# --- Waiting --------------------------------------------------------------------------


def rest() -> None:
    """Some 0.5 us, after which whoever else wants this core has it."""


def now() -> int:
    """Nanoseconds, of a clock that only runs forwards."""
    return time.monotonic_ns()


# LLVM's names for "this is a loop that waits", and what they take.
X86, ARM = ("llvm.x86.sse2.pause", ()), ("llvm.aarch64.hint", (1,))
PAUSES = {"x86_64": X86, "AMD64": X86, "aarch64": ARM, "arm64": ARM}


@emitted(rest)
def _rest():
    def emit(context, builder, signature, arguments):
        small = ir.IntType(32)
        pause, given = PAUSES.get(platform.machine(), ("", ()))
        kind = ir.FunctionType(ir.VoidType(), [small] * len(given))
        for _ in range(8 if pause else 0):
            _c_call(builder, kind, pause, [ir.Constant(small, n) for n in given])
        if os.name == "posix":
            _c_call(builder, ir.FunctionType(small, []), "sched_yield", [])
        return context.get_dummy_value()

    return types.void(), emit


@emitted(now)
def _now():
    def emit(context, builder, signature, arguments):
        word, small = ir.IntType(64), ir.IntType(32)
        if os.name != "posix":  # without C's clock a thread that waits sleeps at once
            return ir.Constant(word, (1 << 63) - 1)
        pair = cgutils.alloca_once(builder, ir.ArrayType(word, 2))
        kind = ir.FunctionType(small, [small, pair.type])
        clock = ir.Constant(small, time.CLOCK_MONOTONIC)
        _c_call(builder, kind, "clock_gettime", [clock, pair])
        seconds, rest = (builder.extract_value(builder.load(pair), i) for i in range(2))
        billion = ir.Constant(word, 10**9)
        return builder.add(builder.mul(seconds, billion), rest)

    return types.int64(), emit


def _c_call(builder: Any, kind: Any, name: str, arguments: list[Any]) -> None:
    """Of C's library, which is in every process, or of LLVM."""
    found = cgutils.get_or_insert_function(builder.module, kind, name)
    builder.call(found, arguments)


# --- Functions that other threads call ------------------------------------------------


@intrinsic
def publish(typing, state, arguments):
    """Lets `call(state, ...)` be f(state, ..., *arguments), on any thread.

    This stands in a compiled function f(state, turn, most, me, *arguments), and is -1.
    Arrays are borrowed: whoever publishes keeps them.
    """
    kinds = (state, *(types.int64,) * 3, *arguments.types)

    def emit(context, builder, signature, given):
        fields = _borrowed(
            context, builder, (state, *arguments.types),
            [given[0], *cgutils.unpack_tuple(builder, given[1])],
        )  # fmt: skip
        packed = cgutils.pack_struct(builder, fields)
        if context.get_abi_sizeof(packed.type) > 8 * (WORDS - ARGUMENTS):
            raise ValueError(f"{arguments} does not fit into a state")
        (data,) = pointers(context, builder, (state,), given[:1])
        place = _at(builder, data, ARGUMENTS, packed.type)
        builder.store(packed, place).align = 8
        entry = _entry(context, builder.function, kinds, packed.type)
        address = builder.ptrtoint(entry, ir.IntType(64))
        function_place = _at(builder, data, FUNCTION, ir.IntType(64))
        builder.store_atomic(address, function_place, "release", 8)
        return ir.Constant(ir.IntType(64), -1)

    return types.int64(state, arguments), emit


def _at(builder: Any, data: Any, word: int, kind: Any) -> Any:
    place = builder.gep(data, [ir.Constant(ir.IntType(64), word)])
    return builder.bitcast(place, kind.as_pointer())


def _borrowed(context: Any, builder: Any, kinds: Any, values: Any) -> list[Any]:
    """Arrays without their owner, who may be gone when they are used."""
    made = []
    for kind, value in zip(kinds, values, strict=True):
        if isinstance(kind, types.Array):
            array = cgutils.create_struct_proxy(kind)(context, builder, value)
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            array.parent = cgutils.get_null_value(array.parent.type)
            value = array._getvalue()
        elif isinstance(kind, types.BaseTuple):
            inner = cgutils.unpack_tuple(builder, value)
            inner = _borrowed(context, builder, kind, inner)
            value = context.make_tuple(builder, kind, inner)
        made.append(value)
    return made


TAKEN_BY_ENTRY = (types.int64,) * 4  # the state's address, and three numbers


def _entry(context: Any, function: Any, kinds: Any, packed: Any) -> Any:
    """A function of the same type for all: it takes its arguments from the state."""
    convention, module = context.call_conv, function.module
    kind = convention.get_function_type(types.int64, TAKEN_BY_ENTRY)
    name = module.get_unique_name(f"{function.name}.entry")
    made = ir.Function(module, kind, name)
    made.linkage = "internal"
    inside = ir.IRBuilder(made.append_basic_block())
    address, *numbers = convention.get_arguments(made)
    word = ir.IntType(64).as_pointer()
    loaded = inside.load(_at(inside, inside.inttoptr(address, word), ARGUMENTS, packed))
    loaded.align = 8
    state, *rest = cgutils.unpack_tuple(inside, loaded, len(packed.elements))
    status, result = convention.call_function(
        inside, function, types.int64, kinds, (state, *numbers, *rest)
    )
    with cgutils.if_unlikely(inside, status.is_error):
        convention.return_status_propagate(inside, status)
    convention.return_value(inside, result)
    return made


def _calls(quietly: bool) -> Any:
    """`call` as an intrinsic; quietly, an exception is the number FAILED."""

    @intrinsic
    def emitter(typing, state, turn, most, me):
        def emit(context, builder, signature, given):
            convention, word = context.call_conv, ir.IntType(64)
            kind = convention.get_function_type(types.int64, TAKEN_BY_ENTRY)
            (data,) = pointers(context, builder, (state,), given[:1])
            found = builder.load(_at(builder, data, FUNCTION, word))
            entry = builder.inttoptr(found, kind.as_pointer())
            status, result = convention.call_function(
                builder, entry, types.int64, TAKEN_BY_ENTRY,
                [builder.ptrtoint(data, word), *given[1:]],
            )  # fmt: skip
            if quietly:
                failed = ir.Constant(word, FAILED)
                return builder.select(status.is_error, failed, result)
            with cgutils.if_unlikely(builder, status.is_error):
                convention.return_status_propagate(builder, status)
            return result

        return types.int64(state, *(types.int64,) * 3), emit

    return emitter


call, call_quietly = _calls(False), _calls(True)


@intrinsic
def state_at(typing, address):
    """The state at an address, borrowed."""
    kind = types.Array(types.int64, 1, "C")

    def emit(context, builder, signature, given):
        word = ir.IntType(64)
        array = cgutils.create_struct_proxy(kind)(context, builder)
        data = builder.inttoptr(given[0], word.as_pointer())
        size, length = (ir.Constant(word, n) for n in (8, 2 * WORDS))
        shape = cgutils.pack_array(builder, [length])
        strides = cgutils.pack_array(builder, [size])
        populate_array(array, data, shape, strides, size, None)
        return array._getvalue()

    return kind(types.int64), emit


@intrinsic
def address_of(typing, words):
    """Of its first word."""

    def emit(context, builder, signature, given):
        (data,) = pointers(context, builder, (words,), given[:1])
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(words), emit
