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

import os
import re
import time
from _thread import get_ident, start_new_thread
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np

from refdcn import scratch

# What OpenMP takes: a number, or one for each level of nesting.
NUMBERS = re.compile(r"\s*(\d{1,9})\s*(,\s*\d{1,9}\s*)*", re.ASCII)

SHORT = 1e-4  # seconds: of the sleep of a thread that waits for another

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


class Team(Protocol):
    """Threads of another library."""

    def __call__(self, help: Callable[[], None], n: int, /) -> None:
        """help() up to n times at once, one of them on this thread."""

    def call(self, function: int, argument: int, n: int, /) -> None:
        """The same of a function of C's, void f(void *), by its address."""


class Work(Protocol):
    """What threads can share."""

    def visit(self, is_caller: bool) -> Callable[[int], int]:
        """For one thread: takes the turn in hand, or -1, and comes back with one.

        With the same where it has to wait, and with -1 at the end: of all turns for the
        caller, of those that are left for others.
        """

    def close(self) -> None:
        """Lets all visits end soon."""


def run(work: Work, threads: int, team: Team | None = None) -> None:
    """All of the work, on this thread and up to threads - 1 others.

    `team(help, n)` calls help() up to n times at once, one of them on this thread.
    """
    job = _Job(work)
    if threads < 2:
        job.do(True)
    else:
        job.share(team, threads)


class _Job:
    """Work that threads do together until it is done, or one of them has failed."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.caller = get_ident()
        self.closed = False
        self.inside: list[None] = []  # helpers that have come; append() is atomic
        self.outside: list[None] = []  # and have gone
        self.errors: list[BaseException] = []

    def share(self, team: Team | None, n: int) -> None:
        """Done by n threads, or as many as come."""
        try:
            if team is None:
                pool(self.help, n)
            else:
                team(self.help, n)
            self.do(True)  # what is left where no team came
        except BaseException as error:
            self.fail(error)
        # Who comes from here on does nothing. An interrupt, too, waits for the others:
        # they may write where the caller's arrays are.
        self.closed = True
        while self.errors and len(self.outside) < len(self.inside):
            try:
                time.sleep(SHORT)
            except BaseException as error:
                self.fail(error)
        if self.errors:
            raise self.errors[0]

    def help(self) -> None:
        """Some of it, on any thread; raises nothing."""
        is_caller = get_ident() == self.caller
        try:
            if is_caller:
                self.do(True)
            else:
                self.inside.append(None)
                with scratch.lent():
                    self.do(False)
        except BaseException as error:
            self.fail(error)
        finally:
            if not is_caller:
                self.outside.append(None)

    def do(self, is_caller: bool) -> None:
        if self.closed:
            return
        visit, turn, pause = self.work.visit(is_caller), -1, 0.0
        # NaN and infinity are answers here; the warning state is each thread's own.
        with np.errstate(invalid="ignore", over="ignore"):
            while (after := visit(turn)) >= 0 and not self.closed:
                if after == turn:  # others are busy with what it needs
                    time.sleep(pause)
                    pause = min(pause + SHORT / 10, 10 * SHORT)
                else:
                    turn, pause = after, 0.0
        self.closed = self.closed or is_caller

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)
        self.closed = True
        self.work.close()


def pool(help: Callable[[], None], n: int) -> None:
    """A team of this thread and Python's own threads."""
    for i in range(_start(n - 1)):
        _doors[DOOR * i + BELL] = 1
        _asked[i].put(help)
    help()


def helpers(wanted: int, listen: Callable[[Any, int], None]) -> tuple[Any, int]:
    """Doors at which helpers listen inside compiled code, and how many there are.

    listen(doors, i) comes back for the bell, or when nothing has come for a while: then
    the helper sleeps, and `wake` has it listen again.
    """
    global _listen
    _listen = listen
    return _doors, _start(wanted)


def wake() -> None:
    """Those who sleep while something is at their door."""
    for i in np.flatnonzero(_doors[WOKEN::DOOR]).tolist():
        _doors[DOOR * i + WOKEN] = 0
        _asked[i].put(_nothing)


def _start(wanted: int) -> int:
    """How many threads there are to ask, up to `wanted`."""
    while len(_asked) < min(wanted, MOST):
        asked: SimpleQueue[Callable[[], None]] = SimpleQueue()
        try:
            start_new_thread(_help, (_doors, len(_asked), asked))
        except RuntimeError:  # no more of them, or Python ends: fewer share the work
            break
        _asked.append(asked)
    return min(wanted, len(_asked))


def _help(doors: Any, i: int, asked: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        if _listen is not None and asked.empty():
            _listen(doors, i)
        help = asked.get()
        doors[DOOR * i + BELL] = 0
        help()


def _nothing() -> None:
    pass


def _forget() -> None:
    """A forked child has the doors but not the threads."""
    global _doors, _asked
    _doors, _asked = np.zeros(MOST * DOOR, np.int64), []


# A helper's door: so many words, in cache lines of its own. Compiled code leaves calls
# in the first, and marks in the second whom Python shall wake.
MOST, DOOR, WOKEN, BELL = 256, 16, 1, 8
_doors: Any
_asked: list[SimpleQueue[Callable[[], None]]]
_listen: Callable[[Any, int], None] | None = None
_forget()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
