"""One team of threads for all that a call does.

Numba's own layers either die in a forked child (OpenMP) or abort the process when two
Python threads call at once (workqueue). So the team are threads of Python's, and the
kernels release the GIL. No other library's threads compute beside it: two pools spin
against each other as soon as the machine has something else to do. Where another
library's threads are at hand, its own can be the team.

The others help, and nothing waits for one that has not come: the calling thread takes
turns as they do, and all of them where no thread can be started. They are started
bare, since threading's cannot be once the main thread has ended, and are asked through
a queue that a signal handler may use while this thread does.
"""

from __future__ import annotations

import itertools
import os
import re
from _thread import get_ident, start_new_thread
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

import numpy as np

from refdcn import scratch

Team: TypeAlias = Callable[[Callable[[], None], int], None]

# What OpenMP takes: a number, or one for each level of nesting.
NUMBERS = re.compile(r"\s*(\d{1,9})\s*(,\s*\d{1,9}\s*)*", re.ASCII)

_count: int | None = None


def get_num_threads() -> int:
    """The number of threads that a call on NumPy arrays uses."""
    if _count is not None:
        return _count
    set_by_user = NUMBERS.fullmatch(os.environ.get("OMP_NUM_THREADS", ""))
    if set_by_user and int(set_by_user[1]) > 0:
        return int(set_by_user[1])
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

    `team(work, n)` calls work() up to n times at once, one of them on this thread.
    """
    job = _Job(task, count)
    if min(threads, count) < 2:
        job.work()
    else:
        job.share(team or pool, min(threads, count))


class _Job:
    """Turns that threads take until none is left, or one of them has failed."""

    def __init__(self, task: Callable[[int], None], count: int) -> None:
        self.task, self.count = task, count
        self.turns = itertools.count()  # next() is atomic: each i is taken once
        self.closed = False
        self.caller = get_ident()
        self.inside: list[None] = []  # helpers that have come; append() is atomic
        self.left: SimpleQueue[None] = SimpleQueue()
        self.errors: list[BaseException] = []

    def share(self, team: Team, n: int) -> None:
        """Done by n threads, or as many as come."""
        try:
            team(self.help, n)
            self.work()  # what is left where no team came
        except BaseException as error:
            self.errors.append(error)
        self.closed = True
        # From here on nobody begins. An interrupt, too, waits for those who have.
        waits = iter(range(len(self.inside)))
        more: int | None = 0
        while more is not None:
            try:
                if (more := next(waits, None)) is not None:
                    self.left.get()
            except BaseException as error:
                self.errors.append(error)
        if self.errors:
            raise self.errors[0]

    def help(self) -> None:
        """Some of the turns, on any thread; raises nothing."""
        try:
            if get_ident() == self.caller:
                self.work()
                return
            self.inside.append(None)
            with scratch.lent():
                self.work()
        except BaseException as error:
            self.closed = True
            self.errors.append(error)
        finally:
            if get_ident() != self.caller:
                self.left.put(None)

    def work(self) -> None:
        # NaN and infinity are answers here; the warning state is each thread's own.
        with np.errstate(invalid="ignore", over="ignore"):
            while not self.closed and (i := next(self.turns)) < self.count:
                self.task(i)


def pool(work: Callable[[], None], n: int) -> None:
    """A team of this thread and Python's own threads."""
    for _ in range(_start(n - 1)):
        _asked.put(work)
    work()


def _start(wanted: int) -> int:
    """How many threads there are to ask, up to `wanted`."""
    while len(_helpers) < wanted:
        try:
            start_new_thread(_help, (_asked,))
        except RuntimeError:  # no more of them, or Python ends: fewer share the work
            break
        _helpers.append(None)
    return min(wanted, len(_helpers))


def _help(asked: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        asked.get()()


def _forget() -> None:
    """A forked child has the queue but not the threads."""
    global _asked, _helpers
    _asked, _helpers = SimpleQueue(), []


_asked: SimpleQueue[Callable[[], None]]
_helpers: list[None]
_forget()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
