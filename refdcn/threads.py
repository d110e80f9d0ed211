"""One pool of threads for sampling and products, with BLAS on one thread in each.

Numba's own layers either die in a forked child (OpenMP) or abort the process when two
Python threads call at once (workqueue), and a second pool inside BLAS spins against
them. So the pool is Python's, the kernels release the GIL, and BLAS is held to one
thread while they run, which also keeps the bits the same for any number of threads.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

KEPT_BYTES = 4 << 20  # of one array; columns and an image make 8 MB a thread

_lock = threading.Lock()
_local = threading.local()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_count: int | None = None
_blas_users = 0
_blas_before: list[int] = []


def get_num_threads() -> int:
    """The number of threads that a call on NumPy arrays uses."""
    if _count is not None:
        return _count
    set_by_user = os.environ.get("OMP_NUM_THREADS", "")
    if set_by_user.isdigit() and int(set_by_user) > 0:
        return int(set_by_user)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (
        os.cpu_count() or 1
    )


def set_num_threads(threads: int) -> None:
    """Use `threads` threads; the result has the same bits for any number."""
    global _count
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads is {threads!r}; wanted an int of at least 1")
    _count = threads


def run(task: Callable[[int], None], count: int, threads: int) -> None:
    """task(i) for every i < count, on this thread and threads - 1 of the pool."""
    turns = itertools.count()  # next() is atomic: each i is taken once

    def work() -> None:
        while (i := next(turns)) < count:
            task(i)

    helpers = min(threads, count) - 1
    if helpers < 1:
        work()
        return
    pool = _executor(helpers)
    futures = [pool.submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        errors = [future.exception() for future in futures]  # waits for all
    for error in errors:
        if error is not None:
            raise error


def scratch(use: str, size: int, dtype: Any) -> Any:
    """A flat array of this thread, kept for its next call unless it is large.

    The system zeroes fresh pages, which takes as long as to sample into them.
    """
    wanted = size * np.dtype(dtype).itemsize
    kept = getattr(_local, use, None)
    if kept is None or kept.nbytes < wanted:
        kept = np.empty(wanted, np.uint8)
        if wanted <= KEPT_BYTES:
            setattr(_local, use, kept)
    return kept[:wanted].view(dtype)


def _executor(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _lock:
        if _pool is None or _pool_size < size:
            _pool, _pool_size = ThreadPoolExecutor(size, "refdcn"), size
        return _pool


def _forget_pool() -> None:
    """A forked child has the pool's object but not its threads, nor the callers."""
    global _pool, _lock, _blas_users
    _pool, _lock = None, threading.Lock()
    if _blas_users:
        _blas_users = 0
        _set_blas_threads(_blas_libraries(), _blas_before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


@cache
def _blas_libraries() -> list[Any]:
    """NumPy's own where it brings one (wheels do), else whatever is loaded."""
    from threadpoolctl import ThreadpoolController

    loaded = ThreadpoolController().lib_controllers
    blas = [library for library in loaded if library.user_api == "blas"]
    return [a for a in blas if "numpy.libs" in a.filepath] or blas


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """BLAS on one thread until the last of the calls that asked for it is done."""
    global _blas_users, _blas_before
    libraries = _blas_libraries()
    with _lock:
        _blas_users += 1
        if _blas_users == 1:
            _blas_before = [library.get_num_threads() for library in libraries]
            _set_blas_threads(libraries, [1] * len(libraries))
    try:
        yield
    finally:
        with _lock:
            _blas_users -= 1
            if _blas_users == 0:
                _set_blas_threads(libraries, _blas_before)


def _set_blas_threads(libraries: list[Any], counts: list[int]) -> None:
    for library, count in zip(libraries, counts, strict=True):
        # Newer threadpoolctl ignores all threads but the first that ever set it, to
        # keep them from fighting; here `_lock` does, and any thread may be the one.
        give_up = getattr(library, "clear_controlling_thread", None)
        if give_up is not None:
            give_up(force=True)
        library.set_num_threads(count)
        if give_up is not None:
            give_up()
