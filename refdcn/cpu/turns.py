"""The turns of a call, which its threads take inside compiled code until none is left.

A call is a list of phases, a phase so many turns. Threads take turns from a counter,
and one that begins a phase waits for all turns of those before: it spins for a moment,
then goes back to Python, which sleeps and lets signals in. Nothing waits for a thread
that has not come, so any number of threads, and one alone, ends the same list.

A barrier inside compiled code costs 0.25 us, one through Python's threads 60 to 90 us.
"""

# mypy: allow-untyped-defs, disable-error-code="misc"
from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from refdcn.cpu.vectors import pointers
from refdcn.jit import jitable

# Counters in a call's state, each in a line of the cache of its own.
TAKEN, DONE, CLOSED = 0, 8, 16
SPINS = 4000  # some 10 us: less than it takes to wake a thread
END, BACK = -1, -2  # all is done; come back, with the same turn

FIRST, KIND, IMAGE, AT = range(4)  # of a phase
LAST = 99  # the kind of the end

_lock = threading.RLock()


def new_state() -> Any:
    """The counters of a call."""
    return np.zeros(24, np.int64)


def phases(rows: Any) -> Any:
    """(turns, kind, image, where) of each phase: [phases + 1, 4], with first turns."""
    made = np.array([*rows, (0, LAST, 0, 0)], np.int64)
    made[:, FIRST] = np.cumsum(made[:, FIRST]) - made[:, FIRST]
    return made


def fetch_add(state: Any, i: int, more: int) -> Any:
    """state[i] += more, whoever else adds; what was there before."""
    with _lock:
        before = state[i]
        state[i] += more
    return before


def read(state: Any, i: int) -> Any:
    """state[i], from memory, and with it what was written before it."""
    return state[i]


@jitable
def is_ready(state, first):
    """Whether all turns before `first` are done, or soon."""
    for _ in range(SPINS):
        if read(state, DONE) >= first:
            return True
        if read(state, CLOSED):
            return False
    return False


@jitable
def begin(state, turn):
    """The turn in hand, or a new one."""
    return turn if turn >= 0 else fetch_add(state, TAKEN, 1)


@jitable
def phase_of(state, phases, turn, is_caller):
    """The phase of this turn, as soon as it may be done; or END, BACK.

    The caller leaves when all is done, others when nothing is left for them.
    """
    low, high = 0, len(phases) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if phases[middle, FIRST] <= turn:
            low = middle
        else:
            high = middle - 1
    is_last = phases[low, KIND] == LAST
    if read(state, CLOSED) or (is_last and not is_caller):
        return END
    if not is_ready(state, phases[low, FIRST]):
        return BACK
    return END if is_last else low


@jitable
def done(state):
    """This turn is; the next one."""
    fetch_add(state, DONE, 1)
    return fetch_add(state, TAKEN, 1)


@intrinsic
def _fetch_add(typing, state, i, more):
    def emit(context, builder, signature, arguments):
        (data,) = pointers(context, builder, signature.args[:1], arguments[:1])
        place = builder.gep(data, [arguments[1]])
        return builder.atomic_rmw("add", place, arguments[2], "seq_cst")

    return types.int64(state, types.intp, types.int64), emit


@intrinsic
def _read(typing, state, i):
    def emit(context, builder, signature, arguments):
        (data,) = pointers(context, builder, signature.args[:1], arguments[:1])
        return builder.load_atomic(builder.gep(data, [arguments[1]]), "acquire", 8)

    return types.int64(state, types.intp), emit


overload(fetch_add)(
    lambda state, i, more: lambda state, i, more: _fetch_add(state, i, more)
)
overload(read)(lambda state, i: lambda state, i: _read(state, i))
