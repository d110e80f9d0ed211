"""One team of threads for sampling and products, with BLAS on one thread in each.

Numba's own layers either die in a forked child (OpenMP) or abort the process when two
Python threads call at once (workqueue), and a second pool inside BLAS spins against
them. So the team is a pool of Python's, the kernels release the GIL, and BLAS is held
to one thread while they run, which also keeps the bits the same for any number of
threads. Where another library's threads are at hand, its own can be the team.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TypeAlias

import numpy as np

Team: TypeAlias = Callable[[Callable[[], None], int], None]

KEPT_BYTES = 5 << 20  # of one array; a tile is of 4 MB and what rounding adds
LINE_BYTES = 64  # of a cache; also of the longest vectors

_lock = threading.Lock()
_local = threading.local()
_spare_scratch: list[dict[str, Any]] = []
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


def run(
    task: Callable[[int], None], count: int, threads: int, team: Team | None = None
) -> None:
    """task(i) for every i < count, on this thread and threads - 1 others.

    `team(work, n)` calls work() n times at once, one of them on this thread.
    """
    turns = itertools.count()  # next() is atomic: each i is taken once

    def work() -> None:
        # NaN and infinity are answers here; the warning state is each thread's own.
        with np.errstate(invalid="ignore", over="ignore"):
            while (i := next(turns)) < count:
                task(i)

    if min(threads, count) < 2:
        work()
    else:
        (team or pool)(work, min(threads, count))


def pool(work: Callable[[], None], n: int) -> None:
    """A team of this thread and Python's own threads."""
    executor = _executor(n - 1)
    futures = [executor.submit(work) for _ in range(n - 1)]
    try:
        work()
    finally:
        errors = [future.exception() for future in futures]  # waits for all
    for error in errors:
        if error is not None:
            raise error


def scratch(use: str, size: int, dtype: Any) -> Any:
    """A flat array of this thread, kept for its next call unless it is large.

    The system zeroes fresh pages, which takes as long as to sample into them. It begins
    at a cache line: else every vector lies in two, and sampling takes 1.2 times longer.
    """
    wanted = size * np.dtype(dtype).itemsize
    kept = getattr(_local, use, None)
    if kept is None or kept.nbytes < wanted:
        kept = np.empty(wanted + LINE_BYTES, np.uint8)
        begin = -kept.ctypes.data % LINE_BYTES
        kept = kept[begin : begin + wanted]
        if wanted <= KEPT_BYTES:
            setattr(_local, use, kept)
    return kept[:wanted].view(dtype)


@contextmanager
def borrowed_scratch() -> Iterator[None]:
    """For a thread that is new to Python in each call: what another one has kept."""
    kept = _local.__dict__
    if kept:  # no such thread
        yield
        return
    with suppress(IndexError):
        kept.update(_spare_scratch.pop())
    try:
        yield
    finally:
        _spare_scratch.append(dict(kept))
        kept.clear()


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


class single_threaded_blas:  # noqa: N801  used as a function
    """BLAS on one thread until the last of the calls that asked for it is done."""

    def __enter__(self) -> None:
        global _blas_users, _blas_before
        libraries = _blas_libraries()
        with _lock:
            if _blas_users == 0:  # a fork may come at any time: what it needs first
                _blas_before = [library.get_num_threads() for library in libraries]
            _blas_users += 1
            if _blas_users == 1:
                _set_blas_threads(libraries, [1] * len(libraries))

    def __exit__(self, *error: object) -> None:
        global _blas_users
        with _lock:
            _blas_users -= 1
            if _blas_users == 0:
                _set_blas_threads(_blas_libraries(), _blas_before)


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
