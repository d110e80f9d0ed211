"""A function of a compiled library, called as refdcn.h says, on NumPy arrays.

Imported in the candidate's process only, or pasted into a script; it needs nothing
but NumPy.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

VERSION = 1  # of refdcn.h
DTYPES = {"float64": 1, "float32": 2, "float16": 3, "uint16": 4}  # bfloat16's bits
CPU = 1
REFUSALS = {
    1: (NotImplementedError, "REFDCN_UNSUPPORTED"),
    2: (ValueError, "REFDCN_BAD_SHAPE"),
    3: (MemoryError, "REFDCN_OUT_OF_MEMORY"),
}
INPUTS = "x", "offset", "weight", "mask", "bias"
GUARD, EDGE = 1024, 0xA5  # bytes around what is written, and what they hold
FAR = 2**20  # bytes beyond those that cannot be touched
MACHINES = {3: "x86", 21: "PowerPC", 22: "S390", 40: "ARM", 62: "x86-64"}
MACHINES.update({183: "AArch64", 243: "RISC-V", 258: "LoongArch"})  # of ELF


class Tensor(ctypes.Structure):
    """refdcn_tensor"""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("shape", ctypes.c_int64 * 4),
        ("strides", ctypes.c_int64 * 4),
    ]


class Call(ctypes.Structure):
    """refdcn_call"""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("version", "dtype", "device")),
        ("device_id", ctypes.c_int32),
        ("stream", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("workspace_size", ctypes.c_int64),
        *((name, ctypes.c_int64 * 2) for name in ("stride", "padding", "dilation")),
        ("groups", ctypes.c_int64),
        ("offset_groups", ctypes.c_int64),
        *((name, Tensor) for name in (*INPUTS, "y", "grad_y")),
        *((f"grad_{name}", Tensor) for name in INPUTS),
    ]


class OverrunError(RuntimeError):
    """It wrote where it must not."""

    breach = True


def guarded(size: int) -> Any:
    """Whole pages of so many bytes at least, between others that nobody may touch."""
    inner = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    try:
        held = mmap.mmap(-1, inner + 2 * FAR, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as e:
        raise MemoryError(f"{size} bytes: {e.strerror}") from e
    whole = np.frombuffer(held, np.uint8)
    at = whole.__array_interface__["data"][0]
    for start in (at, at + FAR + inner):
        ctypes.CDLL(None).mprotect(ctypes.c_void_p(start), ctypes.c_size_t(FAR), 0)
    return whole[FAR : FAR + inner]


class Memory:
    """Memory for one result, between edges that must stay as they are."""

    def __init__(self, name: str, shape: Any, dtype: Any) -> None:
        self.name = name
        fresh = np.empty(shape, dtype)  # holds what is seen if nothing is written
        whole, end = guarded(fresh.nbytes + 2 * GUARD), GUARD + fresh.nbytes
        self.edges = whole[:GUARD], whole[end:]
        for edge in self.edges:
            edge[...] = EDGE
        self.array: Any = np.ndarray(shape, dtype, whole, GUARD)
        self.array[...] = fresh

    def check(self) -> None:
        """Raise OverrunError if an edge has changed."""
        for edge, side in zip(self.edges, ("before", "behind")):  # noqa: B905
            if (edge != EDGE).any():
                raise OverrunError(f"it wrote {side} the memory of {self.name}")


class Function:
    """The functions of one name in a library."""

    def __init__(self, path: str, name: str) -> None:
        self.name = name
        self.library = opened(path)
        if not hasattr(self.library, name):
            raise ImportError(f"{path} exports no symbol {name}")
        if not hasattr(self.library, f"{name}_version"):
            raise ImportError(
                f"{path} has no {name}_version, which REFDCN_EXPORTS({name}) of "
                "refdcn.h defines; so nothing says how it is called"
            )
        version = ctypes.c_int32.in_dll(self.library, f"{name}_version").value
        if version != VERSION:
            raise ImportError(
                f"{path} was compiled with version {version} of refdcn.h; this grader "
                f"calls version {VERSION}"
            )

    def has(self, suffix: str) -> bool:
        """Whether it has such a companion."""
        return hasattr(self.library, self.name + suffix)

    def forward(self, *inputs: Any, **windows: Any) -> Any:
        """y"""
        x, offset, weight = inputs[:3]
        y = Memory("y", (len(x), len(weight), *offset.shape[2:]), x.dtype)
        self.call("", described(inputs, windows), [y])
        return y.array

    def backward(self, grad_y: Any, *inputs: Any, **windows: Any) -> list[Any]:
        """The five gradients, None of what was not given."""
        call = described(inputs, windows)
        call.grad_y = tensor(grad_y)
        grads = [
            None if a is None else Memory(f"grad_{name}", a.shape, a.dtype)
            for name, a in zip(INPUTS, inputs)  # noqa: B905
        ]
        self.call("_backward", call, [g for g in grads if g is not None])
        return [None if g is None else g.array for g in grads]

    def call(self, suffix: str, call: Call, outs: list[Memory]) -> None:
        """Call one of them; raise what its number means."""
        for out in outs:
            setattr(call, out.name, tensor(out.array))
        if self.has("_workspace"):
            outs = [*outs, self.workspace(call)]
        name = self.name + suffix
        function = self.library[name]
        function.argtypes, function.restype = [ctypes.POINTER(Call)], ctypes.c_int
        code = function(ctypes.byref(call))
        ctypes.CDLL(None).fflush(None)  # what it printed is seen now
        for out in outs:
            out.check()
        if code:
            unnamed = RuntimeError, "which refdcn.h has no name for"
            error, meaning = REFUSALS.get(code, unnamed)
            raise error(f"{name} returned {code}, {meaning}")

    def workspace(self, call: Call) -> Memory:
        """As much as it asks for."""
        function = self.library[f"{self.name}_workspace"]
        function.argtypes, function.restype = [ctypes.POINTER(Call)], ctypes.c_int64
        size = function(ctypes.byref(call))
        if size < 0:
            raise ValueError(f"{self.name}_workspace returned {size}, no size")
        memory = Memory("workspace", (size,), np.uint8)
        call.workspace = memory.array.__array_interface__["data"][0]
        call.workspace_size = size
        return memory


def tensor(a: Any) -> Tensor:
    """An array as C sees it."""
    found, more = Tensor(), 4 - a.ndim
    found.data = a.__array_interface__["data"][0]
    found.shape[:] = [*a.shape, *[1] * more]
    found.strides[:] = [*(s // a.itemsize for s in a.strides), *[1] * more]
    return found


def described(inputs: Any, windows: Any) -> Call:
    """The part of a call that forward and backward have in common."""
    x, offset, weight = inputs[:3]
    taps = 2 * math.prod(weight.shape[2:])
    call = Call(version=VERSION, dtype=DTYPES[x.dtype.name], device=CPU)
    call.groups = x.shape[1] // max(1, weight.shape[1])
    call.offset_groups = offset.shape[1] // max(1, taps)
    for name, a in zip(INPUTS, inputs):  # noqa: B905
        if a is not None:
            setattr(call, name, tensor(a))
    for name, pair in windows.items():
        getattr(call, name)[:] = pair
    return call


def machine(path: str) -> int | None:
    """What a file is compiled for, if it is one of ELF's."""
    with open(path, "rb") as file:
        head = file.read(20)
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return None
    return int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")


def opened(path: str) -> Any:
    """The library; ImportError says what is wrong with the file."""
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise ImportError(f"there is no library {path}")
    here, there = machine(os.path.realpath(sys.executable)), machine(path)
    if None not in (here, there) and here != there:
        names = [MACHINES.get(m or 0, f"machine {m}") for m in (there, here)]
        raise ImportError(f"{path} is compiled for {names[0]}; this is {names[1]}")
    try:
        return ctypes.CDLL(path)
    except OSError as e:
        raise ImportError(f"no library can be loaded from {path}: {e}") from e


def functions(place: str) -> tuple[Callable[..., Any], Any]:
    """The function of LIBRARY:NAME, and its companion or None."""
    path, _, name = place.rpartition(":")
    if not path or not name:
        raise ImportError(
            f"cabi:{place} must be cabi:LIBRARY:NAME, a library and a function in it"
        )
    f = Function(path, name)
    return f.forward, f.backward if f.has("_backward") else None


def attach(place: str, how: Any) -> Any:
    """The target; called in the candidate's process."""
    from ..routes import SpecError, Target

    try:
        return Target(place, *functions(place))
    except ImportError as e:
        raise SpecError(str(e)) from e
