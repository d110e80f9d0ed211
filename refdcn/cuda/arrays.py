"""What the operator asks of the library that an array comes from.

New arrays are of the kind that came in and on its device, kernels run on the stream
that the caller works on, and products are the library's own. Nothing here waits for
the device.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

from refdcn.cuda import kernels
from refdcn.cuda.device import library

Kernel = Callable[..., None]
Grid = tuple[int, ...]

LARGEST_GRID = 65_535  # blocks along an axis, on any device; kernels stride by the grid
THREADS = 256  # of a block where nothing else asks for a shape


def grid(*work: tuple[int, int]) -> Grid:
    """Blocks along each axis for (items, items a block)."""
    return tuple(min(LARGEST_GRID, max(1, -(-n // each))) for n, each in work)


class Arrays(ABC):
    """One kind of device array, on one device and stream."""

    @abstractmethod
    def dtype(self, a: Any) -> str:
        """The name of its dtype."""

    @abstractmethod
    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        """A new row-major array."""

    @abstractmethod
    def plain(self, a: Any, dtype: str) -> Any:
        """`a` row-major in this dtype; itself where it is so."""

    @abstractmethod
    def assign(self, target: Any, source: Any) -> None:
        """target[...] = source, rounded to the target's dtype."""

    @abstractmethod
    def flat(self, a: Any) -> Any:
        """A row-major array's memory as one axis."""

    @abstractmethod
    def launch(self, kernel: Kernel, blocks: Grid, threads: Grid, *args: Any) -> None:
        """Run a kernel on the caller's stream."""

    @abstractmethod
    def product(self, a: Any, b: Any, c: Any, sizes: kernels.Product) -> None:
        """c (+)= a @ b on flat arrays, which may be longer; row-major in c."""


@cache
def dispatcher(kernel: Kernel) -> Any:
    """The kernel under cuda.jit, kept on disk where there is a place for it."""
    from numba import cuda

    try:
        return cuda.jit(kernel, cache=True)
    except RuntimeError:  # a read-only installation and no writable home
        return cuda.jit(kernel)


_quiet = threading.Lock()


def configured(kernel: Kernel, blocks: Grid, threads: Grid, stream: Any) -> Any:
    """The kernel, ready to be called; Numba's warning of small grids is left out.

    How many blocks there are follows from the sizes, which nobody chose to be small.
    """
    from numba.cuda import dispatcher as numbas

    settings, name = numbas.config, "CUDA_LOW_OCCUPANCY_WARNINGS"
    with _quiet:
        before = getattr(settings, name, 0)
        setattr(settings, name, 0)
        try:
            return dispatcher(kernel)[blocks, threads, stream]
        finally:
            setattr(settings, name, before)


class TorchArrays(Arrays):
    """torch.Tensor."""

    def __init__(self, like: Any) -> None:
        import torch

        self.torch, self.device = torch, like.device
        self.stream = torch.cuda.current_stream(self.device).cuda_stream

    def dtype(self, a: Any) -> str:
        return str(a.dtype).removeprefix("torch.")

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        dtype = getattr(self.torch, dtype)
        return self.torch.empty(tuple(shape), dtype=dtype, device=self.device)

    def plain(self, a: Any, dtype: str) -> Any:
        return a.detach().to(getattr(self.torch, dtype)).contiguous()

    def assign(self, target: Any, source: Any) -> None:
        target.copy_(source)

    def flat(self, a: Any) -> Any:
        return a.view(-1)

    def launch(self, kernel: Kernel, blocks: Grid, threads: Grid, *args: Any) -> None:
        tensor = self.torch.Tensor
        views = [_view(a) if isinstance(a, tensor) else a for a in args]
        configured(kernel, blocks, threads, _stream(self.stream))(*views)

    def product(self, a: Any, b: Any, c: Any, sizes: kernels.Product) -> None:
        s = sizes
        a = a.as_strided((s.batch, s.M, s.Q), (s.a_batch, s.a_row, s.a_column))
        b = b.as_strided((s.batch, s.Q, s.N), (s.b_batch, s.b_row, s.b_column))
        c = c[: s.batch * s.M * s.N].view(s.batch, s.M, s.N)
        if s.accumulate:
            c.baddbmm_(a, b)
        else:
            self.torch.bmm(a, b, out=c)


class CupyArrays(Arrays):
    """cupy.ndarray."""

    def __init__(self, like: Any) -> None:
        import cupy

        self.cupy = cupy
        self.stream = cupy.cuda.get_current_stream().ptr

    def dtype(self, a: Any) -> str:
        return str(a.dtype.name)

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        return self.cupy.empty(tuple(shape), dtype)

    def plain(self, a: Any, dtype: str) -> Any:
        return self.cupy.ascontiguousarray(a, dtype)

    def assign(self, target: Any, source: Any) -> None:
        target[...] = source

    def flat(self, a: Any) -> Any:
        return a.reshape(-1)

    def launch(self, kernel: Kernel, blocks: Grid, threads: Grid, *args: Any) -> None:
        array = self.cupy.ndarray
        views = [_view(a) if isinstance(a, array) else a for a in args]
        configured(kernel, blocks, threads, _stream(self.stream))(*views)

    def product(self, a: Any, b: Any, c: Any, sizes: kernels.Product) -> None:
        s, strided = sizes, self.cupy.lib.stride_tricks.as_strided
        steps = [
            tuple(step * c.itemsize for step in steps)
            for steps in ((s.a_batch, s.a_row, s.a_column), s[7:10])
        ]
        a = strided(a, (s.batch, s.M, s.Q), steps[0])
        b = strided(b, (s.batch, s.Q, s.N), steps[1])
        c = c[: s.batch * s.M * s.N].reshape(s.batch, s.M, s.N)
        if s.accumulate:
            c += self.cupy.matmul(a, b)
        else:
            self.cupy.matmul(a, b, out=c)


class NumbaArrays(Arrays):
    """numba.cuda device arrays; their products are a kernel of our own."""

    def __init__(self, like: Any) -> None:
        self.stream = getattr(like, "stream", 0)

    def dtype(self, a: Any) -> str:
        return str(a.dtype.name)

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        from numba import cuda

        return cuda.device_array(tuple(shape), dtype, stream=self.stream)

    def plain(self, a: Any, dtype: str) -> Any:
        if a.dtype.name == dtype and a.is_c_contiguous():
            return a
        copy = self.empty(a.shape, dtype)
        self.assign(copy, a)
        return copy

    def assign(self, target: Any, source: Any) -> None:
        size = int(source.size)
        kernel = kernels.cast if source.ndim == 4 else kernels.cast_vector
        self.launch(kernel, grid((size, THREADS)), (THREADS,), source, target)

    def flat(self, a: Any) -> Any:
        return a.reshape(int(a.size))

    def launch(self, kernel: Kernel, blocks: Grid, threads: Grid, *args: Any) -> None:
        configured(kernel, blocks, threads, self.stream)(*args)

    def product(self, a: Any, b: Any, c: Any, sizes: kernels.Product) -> None:
        product(self, a, b, c, sizes)


def product(on: Arrays, a: Any, b: Any, c: Any, s: kernels.Product) -> None:
    """The shared-memory product."""
    block, side = kernels.BLOCK, kernels.SQUARE
    across, batches = grid((s.N, block), (s.batch, 1))
    blocks = -(-s.M // block), across, batches
    on.launch(kernels.product, blocks, (side, side), a, b, c, s)


def _view(a: Any) -> Any:
    """Numba's view of its memory, which is not to wait for any stream."""
    from numba import cuda

    return cuda.as_cuda_array(a, sync=False)


@lru_cache(maxsize=64)
def _stream(pointer: int) -> Any:
    """Numba's name for it; 0 is the default stream that all threads share.

    One object a stream, since Numba keeps configured launches by it.
    """
    from numba import cuda

    return cuda.external_stream(pointer) if pointer else cuda.legacy_default_stream()


# --- Which kind ----------------------------------------------------------------------


@contextmanager
def working_on(a: Any) -> Iterator[Arrays]:
    """The arrays of a's kind, with its device current for its library and for Numba."""
    from numba import cuda

    if library(a) == "torch":
        import torch

        with torch.cuda.device(a.device), cuda.gpus[a.device.index]:
            yield TorchArrays(a)
    elif library(a) == "cupy":
        with a.device, cuda.gpus[a.device.id]:
            yield CupyArrays(a)
    else:
        with cuda.gpus[numba_device(a)]:
            yield NumbaArrays(a)


def numba_device(a: Any) -> int:
    """The number of the device that holds a Numba array."""
    return int(a.gpu_data.context.device.id)
