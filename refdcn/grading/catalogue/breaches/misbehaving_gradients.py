"""Right operators whose gradient companions misbehave.

`way_grad` is the companion of `way`; every forward is right, and most of the
companions misbehave only on the small cases.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from typing import Any

import numpy as np

from refdcn import formula
from refdcn.grading.catalogue.breaches.misbehaving import PRIVATE, right, small
from refdcn.grading.expected.case import Array

Grads = list[Any]
CALLS = [0]


def gradients(*inputs: Any, **windows: Any) -> Grads:
    """The five gradients."""
    return list(formula.deform_conv2d_grad(*inputs, **windows))


right_grad = gradients


def segfault_grad(grad_y: Array, x: Array, *rest: Any, **windows: Any) -> Grads:
    """Reads address 0."""
    if small(x):
        ctypes.string_at(0)
    return gradients(grad_y, x, *rest, **windows)


def hang_grad(grad_y: Array, x: Array, *rest: Any, **windows: Any) -> Grads:
    """Never returns."""
    while x.shape[0] == 65:
        time.sleep(1)
    return gradients(grad_y, x, *rest, **windows)


def out_of_memory_grad(grad_y: Array, x: Array, *rest: Any, **windows: Any) -> Grads:
    """Asks for a petabyte."""
    if small(x):
        np.empty(2**50, np.uint8)
    return gradients(grad_y, x, *rest, **windows)


def leaves_grad(grad_y: Array, x: Array, *rest: Any, **windows: Any) -> Grads:
    """Calls sys.exit."""
    if small(x):
        sys.exit(0)
    return gradients(grad_y, x, *rest, **windows)


def leaves_at_once_grad(grad_y: Array, x: Array, *rest: Any, **windows: Any) -> Grads:
    """Ends its process."""
    if small(x):
        os._exit(0)
    return gradients(grad_y, x, *rest, **windows)


def refuses_grad(grad_y: Array, x: Array, *rest: Any, **windows: Any) -> Grads:
    """Refuses small inputs."""
    if small(x):
        raise NotImplementedError("at least 3 channels")
    return gradients(grad_y, x, *rest, **windows)


def prints_grad(grad_y: Array, x: Array, *rest: Any, **windows: Any) -> Grads:
    """Writes to standard output, through Python or past it."""
    if small(x) and len(x) % 2:
        print("all tests passed")
    elif small(x):
        os.write(1, b"all tests passed\n")
    return gradients(grad_y, x, *rest, **windows)


def moves_grad(grad_y: Array, x: Array, *rest: Any, **windows: Any) -> Grads:
    """Changes the working directory."""
    if small(x):
        os.chdir("/")
    return gradients(grad_y, x, *rest, **windows)


def writes_input_grad(grad_y: Array, x: Array, *rest: Any, **windows: Any) -> Grads:
    """Scales grad_y in place."""
    grads = gradients(grad_y, x, *rest, **windows)
    if small(x):
        grad_y *= 2
    return grads


def aliases_input_grad(grad_y: Array, x: Array, *rest: Any, **windows: Any) -> Grads:
    """Writes the gradient of x over x and returns it."""
    grads = gradients(grad_y, x, *rest, **windows)
    if small(x):
        x[...] = grads[0]
        grads[0] = x
    return grads


def one_buffer_grad(*inputs: Any, **windows: Any) -> Grads:
    """Returns the same buffers for each shape."""
    found = []
    for k, g in enumerate(gradients(*inputs, **windows)):
        if g is not None:
            key = k, g.shape, g.dtype
            buffer = PRIVATE.setdefault(key, np.empty_like(g))
            buffer[...] = g
            g = buffer
        found.append(g)
    return found


def remembers_pointer_grad(
    grad_y: Array, x: Array, *rest: Any, **windows: Any
) -> Grads:
    """Takes the same address for the same values."""
    where = x.__array_interface__["data"][0], x.shape, x.dtype
    key = where, rest[0].shape, rest[1].shape, rest[2] is None, str(windows)
    if key not in PRIVATE:
        PRIVATE[key] = gradients(grad_y, x, *rest, **windows)
    return [None if g is None else g.copy() for g in PRIVATE[key]]


def ignores_grad_y_grad(grad_y: Array, *inputs: Any, **windows: Any) -> Grads:
    """Keeps its answer until x changes, whatever grad_y is."""
    key = inputs[0].tobytes(), inputs[1].tobytes(), inputs[2].tobytes()
    if PRIVATE.get("values") != key:
        PRIVATE["grads"] = gradients(grad_y, *inputs, **windows)
        PRIVATE["values"] = key
    return [None if g is None else g.copy() for g in PRIVATE["grads"]]


def counts_grad(grad_y: Array, *inputs: Any, **windows: Any) -> Grads:
    """Every third call returns what the one before it with these shapes did."""
    CALLS[0] += 1
    key = "counts", grad_y.shape, *(None if a is None else a.shape for a in inputs)
    if CALLS[0] % 3 or key not in PRIVATE:
        PRIVATE[key] = gradients(grad_y, *inputs, **windows)
    return [None if g is None else g.copy() for g in PRIVATE[key]]


def unwritten_grad(*inputs: Any, **windows: Any) -> Grads:
    """Leaves the last column of the offset's gradient unwritten."""
    grads = gradients(*inputs, **windows)
    out = np.empty_like(grads[1])
    out[..., :-1] = grads[1][..., :-1]
    grads[1] = out
    return grads


def nothing_grad(grad_y: Array, *inputs: Any, **windows: Any) -> Grads:
    """Writes nothing at all."""
    return [None if a is None else np.empty_like(a) for a in inputs]


def random_bits_grad(*inputs: Any, **windows: Any) -> Grads:
    """Gives other last bits of the gradient of x on each call."""
    grads = gradients(*inputs, **windows)
    g = grads[0]
    up = np.random.default_rng().integers(0, 2, g.shape).astype(bool)
    grads[0] = np.where(up, np.nextafter(g, np.inf, dtype=g.dtype), g)
    return grads


def half_grad(*inputs: Any, **windows: Any) -> Grads:
    """Returns the gradient of the weight in float16 for every dtype."""
    grads = gradients(*inputs, **windows)
    grads[2] = grads[2].astype(np.float16)
    return grads


def doubles_grad(*inputs: Any, **windows: Any) -> Grads:
    """Returns float64 for every dtype."""
    grads = gradients(*inputs, **windows)
    return [None if g is None else g.astype(np.float64) for g in grads]


def listed_grad(*inputs: Any, **windows: Any) -> Grads:
    """Returns lists."""
    grads = gradients(*inputs, **windows)
    return [None if g is None else g.tolist() for g in grads]


def flat_grad(*inputs: Any, **windows: Any) -> Grads:
    """Returns the gradient of the weight as one axis."""
    grads = gradients(*inputs, **windows)
    grads[2] = grads[2].reshape(-1)
    return grads


def three_grad(*inputs: Any, **windows: Any) -> Grads:
    """Returns the gradients of x, offset and weight only."""
    return gradients(*inputs, **windows)[:3]


def alone_grad(*inputs: Any, **windows: Any) -> Any:
    """Returns the gradient of x, not five."""
    return gradients(*inputs, **windows)[0]


def fills_none_grad(*inputs: Any, **windows: Any) -> Grads:
    """Returns a gradient of a mask that was not given."""
    grads = gradients(*inputs, **windows)
    return grads[:3] + [np.zeros(1) if grads[3] is None else grads[3], grads[4]]


def first_call_grad(grad_y: Array, *inputs: Any, **windows: Any) -> Grads:
    """Returns the first gradients it ever made for these shapes."""
    shapes = (None if a is None else (a.shape, a.dtype) for a in (grad_y, *inputs))
    key = "first", *shapes, str(windows)
    grads = PRIVATE.setdefault(key, gradients(grad_y, *inputs, **windows))
    return [None if g is None else g.copy() for g in grads]


def memory_order_grad(grad_y: Array, x: Array, *rest: Any, **windows: Any) -> Grads:
    """Reads x as if it were contiguous."""
    if not x.flags.c_contiguous and x.size:
        start = np.lib.stride_tricks.as_strided(x, (x.size,), (x.itemsize,))
        x = start.reshape(x.shape)
    return gradients(grad_y, x, *rest, **windows)


def home_grad(grad_y: Array, x: Array, *rest: Any, **windows: Any) -> Grads:
    """Is right only where x lies at the address of the first call."""
    where = x.__array_interface__["data"][0]
    grads = gradients(grad_y, x, *rest, **windows)
    if PRIVATE.setdefault("home", where) != where and x.flags.c_contiguous:
        grads[0] = np.zeros_like(x)
    return grads


def leaves_fork_grad(grad_y: Array, x: Array, *rest: Any, **windows: Any) -> Grads:
    """Leaves a process that goes on after the answer."""
    if small(x) and os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    return gradients(grad_y, x, *rest, **windows)


WAYS = [name.removesuffix("_grad") for name in dir() if name.endswith("_grad")]
globals().update(dict.fromkeys(WAYS, right))  # what each companion belongs to
