"""One team of threads for all that a call does.

Numba's own layers either die in a forked child (OpenMP) or abort the process when two
Python threads call at once (workqueue). So the team is a pool of Python's, and the
kernels release the GIL. No other library's threads compute beside it: two pools spin
against each other as soon as the machine has something else to do. Where another
library's threads are at hand, its own can be the team.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import numpy as np

Team: TypeAlias = Callable[[Callable[[], None], int], None]

KEPT_BYTES = 5 << 20  # of one array; a tile is of 4 MB at most, before rounding
LINE_BYTES = 64  # of a cache; also of the longest vectors

_lock = threading.Lock()
_local = threading.local()
_spare_scratch: list[dict[str, Any]] = []
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_count: int | None = None


def get_num_threads() -> int:
    """The number of threads that a call on NumPy arrays uses."""
    if _count is not None:
        return _count
    set_by_user = os.environ.get("OMP_NUM_THREADS", "")
    if set_by_user.isdigit() and int(set_by_user) > 0:
        return int(set_by_user)
    return (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else (os.cpu_count() or 1)
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
    """A forked child has the pool's object but not its threads."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
