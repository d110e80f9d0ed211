"""Memory that a thread computes in: lent to a call, and kept for the next one.

A call that a signal handler or a finaliser makes in the midst of another has scratch of
its own. What a call that failed has had is dropped, since other threads may still write
there: so no result can be changed by what came before it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

KEPT_BYTES = 5 << 20  # of an array and thread; a tile is of 4 MB, before rounding
LINE_BYTES = 64  # of a cache; also of the longest vectors

_spare: deque[dict[str, Any]] = deque()  # the last one first: it may be in the cache
_local = threading.local()


@contextmanager
def lent() -> Iterator[None]:
    """Within it `array` is for this thread in this call alone."""
    try:
        mine = _spare.pop()
    except IndexError:
        mine = {}
    before = getattr(_local, "arrays", None)
    _local.arrays = mine
    try:
        yield
    finally:
        _local.arrays = before
    _spare.append(mine)  # not after an exception


def rows(use: str, count: int, size: int, dtype: Any) -> Any:
    """[count, size] or a little more: a row, in cache lines of its own, a thread."""
    size = -(-size // LINE_BYTES) * LINE_BYTES
    return array(use, count * size, dtype, count).reshape(count, size)


def array(use: str, size: int, dtype: Any, threads: int = 1) -> Any:
    """A flat array for so many threads, the one of the last call unless that was large.

    The system zeroes fresh pages, which takes as long as to sample into them. It begins
    at a cache line: else every vector lies in two, and sampling takes 1.2 times longer.
    """
    wanted = size * np.dtype(dtype).itemsize
    kept = _local.arrays.get(use)
    if kept is None or kept.nbytes < wanted:
        kept = np.empty(wanted + LINE_BYTES, np.uint8)
        begin = -kept.ctypes.data % LINE_BYTES
        kept = kept[begin : begin + wanted]
        if wanted <= threads * KEPT_BYTES:
            _local.arrays[use] = kept
    return kept[:wanted].view(dtype)
