"""The contract's part of the catalogue: right operators that misbehave.

Each is run as a candidate, in a process of its own; most do it only on the
small cases, so that the others can be seen to be graded still.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any

import numpy as np

from refdcn import formula
from refdcn.grading.expected.case import Array

right: Any = formula.deform_conv2d
PRIVATE: dict[Any, Any] = {}


def small(x: Array) -> bool:
    """Only the cases with few channels: the others must still be graded."""
    return int(x.shape[1]) <= 2


def segfault(x: Array, *rest: Any, **windows: Any) -> Any:
    """Reads address 0."""
    if small(x):
        ctypes.string_at(0)
    return right(x, *rest, **windows)


def hang(x: Array, *rest: Any, **windows: Any) -> Any:
    """Never returns, and stops every clock that it can reach."""
    if x.shape[0] == 65:
        for name in ("time", "monotonic", "perf_counter", "process_time"):
            setattr(time, name, lambda: 0.0)
        while True:
            time.sleep(1)
    return right(x, *rest, **windows)


def out_of_memory(x: Array, *rest: Any, **windows: Any) -> Any:
    """Asks for a petabyte."""
    if small(x):
        np.empty(2**50, np.uint8)
    return right(x, *rest, **windows)


def leaves(x: Array, *rest: Any, **windows: Any) -> Any:
    """Calls sys.exit."""
    if small(x):
        sys.exit(0)
    return right(x, *rest, **windows)


def leaves_at_once(x: Array, *rest: Any, **windows: Any) -> Any:
    """Ends its process."""
    if small(x):
        os._exit(0)
    return right(x, *rest, **windows)


def prints(x: Array, *rest: Any, **windows: Any) -> Any:
    """Writes to standard output, through Python or past it."""
    if small(x) and len(x) % 2:
        print("all tests passed")
    elif small(x):
        os.write(1, b"all tests passed\n")
    return right(x, *rest, **windows)


def moves(x: Array, *rest: Any, **windows: Any) -> Any:
    """Changes the working directory."""
    if small(x):
        os.chdir("/")
    return right(x, *rest, **windows)


def writes_input(x: Array, offset: Array, *rest: Any, **windows: Any) -> Any:
    """Adds 1 to its offsets."""
    y = right(x, offset, *rest, **windows)
    if small(x):
        offset += 1
    return y


def aliases_input(
    x: Array, offset: Array, weight: Array, mask: Any, bias: Any, **windows: Any
) -> Any:
    """Returns its input's memory."""
    y = right(x, offset, weight, mask, bias, **windows)
    if y.shape == x.shape:
        x[...] = y
        return x
    return y


def one_buffer(x: Array, *rest: Any, **windows: Any) -> Any:
    """Returns the same buffer for each shape."""
    y = right(x, *rest, **windows)
    buffer = PRIVATE.setdefault((y.shape, y.dtype), np.empty_like(y))
    buffer[...] = y
    return buffer


def remembers_pointer(x: Array, *rest: Any, **windows: Any) -> Any:
    """Takes the same address for the same values."""
    where = x.__array_interface__["data"][0], x.shape, x.dtype
    key = where, rest[0].shape, rest[1].shape, str(windows)
    if key not in PRIVATE:
        PRIVATE[key] = right(x, *rest, **windows)
    return PRIVATE[key].copy()


def unwritten(x: Array, *rest: Any, **windows: Any) -> Any:
    """Leaves the last column unwritten."""
    y = right(x, *rest, **windows)
    out = np.empty_like(y)
    out[..., :-1] = y[..., :-1]
    return out


def random_bits(x: Array, *rest: Any, **windows: Any) -> Any:
    """Gives other last bits on each call."""
    y = right(x, *rest, **windows)
    up = np.random.default_rng().integers(0, 2, y.shape).astype(bool)
    return np.where(up, np.nextafter(y, np.inf, dtype=y.dtype), y)


def half(x: Array, *rest: Any, **windows: Any) -> Any:
    """Returns float16 for every dtype."""
    return right(x, *rest, **windows).astype(np.float16)


def listed(x: Array, *rest: Any, **windows: Any) -> Any:
    """Returns a list."""
    return right(x, *rest, **windows).tolist()


def refuses(x: Array, *rest: Any, **windows: Any) -> Any:
    """Refuses small inputs."""
    if small(x):
        raise NotImplementedError("at least 3 channels")
    return right(x, *rest, **windows)


def unchecked(
    x: Array, offset: Array, weight: Array, mask: Any, bias: Any, **windows: Any
) -> Any:
    """Right on good shapes, silent on bad ones."""
    try:
        return right(x, offset, weight, mask, bias, **windows)
    except ValueError:
        return np.zeros((len(x), len(weight), 1, 1), x.dtype)


def first_call(x: Array, *rest: Any, **windows: Any) -> Any:
    """Returns the first result it ever made for these shapes."""
    y = right(x, *rest, **windows)
    return PRIVATE.setdefault((y.shape, y.dtype, x.shape, str(windows)), y).copy()


def memory_order(x: Array, *rest: Any, **windows: Any) -> Any:
    """Reads any input as if it were contiguous."""
    if not x.flags.c_contiguous and x.size:
        start = np.lib.stride_tricks.as_strided(x, (x.size,), (x.itemsize,))
        x = start.reshape(x.shape)
    return right(x, *rest, **windows)


def squeezes(x: Array, *rest: Any, **windows: Any) -> Any:
    """Drops axes of size 1."""
    return np.squeeze(right(x, *rest, **windows))


def doubles(x: Array, *rest: Any, **windows: Any) -> Any:
    """Returns float64 for every dtype."""
    return right(x, *rest, **windows).astype(np.float64)


def empty_batch(x: Array, *rest: Any, **windows: Any) -> Any:
    """Divides by the batch size."""
    if not len(x):
        raise ZeroDivisionError("integer division or modulo by zero")
    return right(x, *rest, **windows)


def large_kernel(
    x: Array, offset: Array, weight: Array, mask: Any, bias: Any, **windows: Any
) -> Any:
    """Refuses kernels larger than the image."""
    if weight.shape[2] > x.shape[2] or weight.shape[3] > x.shape[3]:
        raise ValueError("kernel larger than image")
    return right(x, offset, weight, mask, bias, **windows)


def undefined_cast(x: Array, offset: Array, *rest: Any, **windows: Any) -> Any:
    """Casts far positions to 32-bit integers, which wrap."""
    wrapped = np.where(np.abs(offset) > 2**31, 0, offset).astype(offset.dtype)
    return right(x, wrapped, *rest, **windows)
