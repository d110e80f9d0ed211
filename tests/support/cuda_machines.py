"""Two machines that run the CUDA kernels without a GPU, as the operator sees them.

`Simulator` runs a kernel's Python text in Numba's simulator (NUMBA_ENABLE_CUDASIM=1).
`Processor` runs what Numba compiled the kernel to, on this processor: see cuda_ir.py.
Neither says anything of a card's speed, nor of what follows the compiler's IR.
"""

import threading

import numpy as np

from refdcn import shapes
from refdcn.cuda import arrays, operator


class HostArrays(arrays.Arrays):
    """NumPy arrays in place of a device's; new ones hold NaN until written."""

    def __init__(self, own_product=False):
        self.own_product = own_product

    def dtype(self, a):
        return a.dtype.name

    def empty(self, shape, dtype):
        return np.full(shape, np.nan, dtype)

    def plain(self, a, dtype):
        return np.ascontiguousarray(a, dtype)

    def assign(self, target, source):
        target[...] = source

    def flat(self, a):
        assert a.flags.c_contiguous
        return a.reshape(-1)

    def product(self, a, b, c, sizes):
        if self.own_product:
            arrays.product(self, a, b, c, sizes)
            return
        s, item = sizes, c.itemsize
        strided = np.lib.stride_tricks.as_strided
        steps_a = np.multiply((s.a_batch, s.a_row, s.a_column), item)
        steps_b = np.multiply((s.b_batch, s.b_row, s.b_column), item)
        a = strided(a, (s.batch, s.M, s.Q), steps_a)
        b = strided(b, (s.batch, s.Q, s.N), steps_b)
        c = c[: s.batch * s.M * s.N].reshape(s.batch, s.M, s.N)
        with np.errstate(invalid="ignore", over="ignore"):
            c[...] = a @ b + (c if s.accumulate else 0)


class Target:
    """What tests call as they call the formula: `on` is a HostArrays."""

    def __init__(self, on, deterministic=False):
        self.on, self.deterministic = on, deterministic

    def geometry(self, case):
        return geometry(case.inputs, *case[5:8])

    def deform_conv2d(self, *inputs, stride, padding, dilation):
        g = geometry(inputs, stride, padding, dilation)
        return operator.forward(self.on, inputs, g)

    def deform_conv2d_grad(self, grad_y, *inputs, stride, padding, dilation):
        g = geometry(inputs, stride, padding, dilation)
        return tuple(
            operator.backward(
                self.on, grad_y, inputs, g, (True,) * 5, self.deterministic
            )
        )


def geometry(inputs, stride, padding, dilation):
    sizes = [None if a is None else a.shape for a in inputs]
    return shapes.geometry(*sizes, stride, padding, dilation)


def shrink(monkeypatch, threads=32, rows=2, tile_bytes=1500, parts=3, few=2, grid=3):
    """Small blocks and tiles: tiny cases then take several of each."""
    for name, value in (
        ("THREADS", threads), ("ROWS", rows), ("TILE_BYTES", tile_bytes),
        ("PARTS", parts), ("FEW_BLOCKS", few),
    ):  # fmt: skip
        monkeypatch.setattr(operator, name, value)
    monkeypatch.setattr(arrays, "LARGEST_GRID", grid)  # and turns of each block


# --- Numba's simulator ---------------------------------------------------------------


class Simulator(HostArrays):
    def launch(self, kernel, blocks, threads, *args):
        from numba import cuda

        cuda.jit(kernel)[blocks, threads](*args)


def prepare_simulator(monkeypatch):
    """Shuffles, which the simulator lacks, and an error where an index is negative."""
    from numba.cuda.simulator import kernel, kernelapi

    fake = kernel.FakeWithinKernelCUDAArray

    def shuffle(module, mask, value, other):
        thread = threading.current_thread()
        slots = thread._manager.__dict__.setdefault("slots", {})
        slots[thread.thread_id] = value
        thread.syncthreads()
        received = slots[thread.thread_id ^ other]
        thread.syncthreads()
        return received

    def checked(method):
        def access(self, index, *value):
            each = index if isinstance(index, tuple) else (index,)
            if any(i < 0 for i in each):
                raise IndexError(f"index {index} is negative")
            return method(self, index, *value)

        return access

    module = kernelapi.FakeCUDAModule
    monkeypatch.setattr(module, "shfl_xor_sync", shuffle, raising=False)
    for name in ("__getitem__", "__setitem__"):
        monkeypatch.setattr(fake, name, checked(getattr(fake, name)))
