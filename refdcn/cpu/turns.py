"""The turns of a call, which its threads take inside compiled code until none is left.

A call is a list of phases, a phase so many turns. Threads take turns from a counter,
and one that begins a phase waits for all turns of those before. Nothing waits for a
thread that has not come, so any number of threads, and one alone, ends the same list.

Helpers (see threads.py) listen at doors. A call leaves its address at those of as
many as it wants; a helper that finds one takes turns, and is at its door again. In
between it needs neither Python nor the GIL, for which it would wait 50 us, asleep, and
the caller as long for it: so it comes after 0.2 us, where it came after some 100. By a
second thread 1x128x28x28, of 1.1 ms on one, gains 1.9 times, where it gained 1.2.
"""

# mypy: allow-untyped-defs, disable-error-code="misc"
from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import config

from refdcn import threads
from refdcn.cpu.atomics import (
    FAILED,
    FUNCTION,
    WORDS,
    address_of,
    call,
    call_quietly,
    exchange,
    fetch_add,
    now,
    read,
    rest,
    state_at,
)
from refdcn.jit import c_address, compiled, jitable

# Words of a call's state, each in a line of the cache of its own: turns that are taken
# and done; whether all shall leave; helpers that are asked and that have gone.
TAKEN, DONE, CLOSED, GONE = 0, 8, 16, 24
ASKED, CAME, ERROR = 17, 25, 18  # seldom changed
# With a team: how many may come, how many turns each takes, whether all is done; and
# after all words, the turn that each has in hand, plus 1.
THREADS, MOST, ENDED = 26, 27, 19
END, BACK = -1, -2  # all is done; come back, with the same turn
SPINS = 4000  # some 10 us, before a thread that waits lets others have the core
WAITS = 300  # of the caller, some 0.2 ms, before it goes back to Python for a moment
VISIT = 10_000_000  # ns after which the caller lets Python answer signals
ALL = 1 << 62

PUBLISH = -1  # a thread that takes no turns

FIRST, KIND, IMAGE, AT = range(4)  # of a phase
LAST = 99  # the kind of the end

# What is at a door, or a call's address, and 1 more if its helper sleeps.
ASLEEP, LISTENING, BUSY = 0, 2, 4
WARM = 5_000_000  # ns that a helper listens after a call, as OpenMP's threads do


def new_state(threads: int = 0) -> Any:
    """The words of a call, and of the threads of a team."""
    return np.zeros(WORDS + threads, np.int64)


def phases(rows: Any) -> Any:
    """(turns, kind, image, where) of each phase: [phases + 1, 4], with first turns."""
    made = np.array([*rows, (0, LAST, 0, 0)], np.int64)
    made[:, FIRST] = np.cumsum(made[:, FIRST]) - made[:, FIRST]
    return made


@jitable
def is_ready(state, first, is_caller):
    """Whether all turns before `first` are done; a helper waits until they are.

    The caller waits for a moment, and so do the threads of a team, who come again.
    """
    for _ in range(SPINS):
        if read(state, DONE) >= first:
            return True
    waits = 0
    while read(state, DONE) < first:
        if read(state, CLOSED):
            return False
        if waits == WAITS and (is_caller or state[THREADS] > 0):
            return False
        waits += 1
        rest()
    return True


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
    if not is_ready(state, phases[low, FIRST], is_caller):
        return BACK
    return END if is_last else low


@jitable
def done(state):
    """This turn is; the next one."""
    fetch_add(state, DONE, 1)
    return fetch_add(state, TAKEN, 1)


# --- Compiled functions that Python calls ---------------------------------------------


def visit(state, turn, most):
    """The caller's turns, for a while; the one in hand, or END."""
    until = now() + VISIT
    while True:
        before, turn = turn, call(state, turn, most, 0)
        if turn < 0 or turn == before or now() > until:
            return turn


@jitable
def assist(state):
    """Another thread's, until nothing is left."""
    while read(state, FUNCTION) == 0:
        if read(state, CLOSED):
            return
        rest()
    me = fetch_add(state, CAME, 1) + 1
    if call_quietly(state, -1, ALL, me) == FAILED:
        fetch_add(state, ERROR, 1)
        fetch_add(state, CLOSED, 1)


def attend(address):
    """What each thread of a team does for the call at an address: C's void f(void *).

    Any of them is any of the call's threads, and all of them where no other comes. One
    that has taken its turns leaves the next in the state, for whoever comes again.
    """
    state = state_at(address)
    while True:
        me = fetch_add(state, CAME, 1)
        if me >= state[THREADS]:
            return
        turn, until = state[WORDS + me] - 1, now() + VISIT
        while True:
            before, turn = turn, call_quietly(state, turn, state[MOST], me)
            if turn < 0 or turn == before or now() > until:
                break
        state[WORDS + me] = max(turn, END) + 1
        if turn == FAILED:
            fetch_add(state, ERROR, 1)
            fetch_add(state, CLOSED, 1)
        if turn < 0 and me == 0:
            state[ENDED] = 1


def ask(state, doors, count, wanted):
    """Leaves a call at the doors of `wanted` of the first `count`; who must be woken.

    Those who listen are asked first. The others' doors, flat, have a 1 in their second
    word, and whether there are any is returned.
    """
    address, asked, woken = address_of(state), 0, 0
    for expected in (LISTENING, ASLEEP):
        for i in range(count):
            sleeps = expected == ASLEEP
            if asked < wanted and exchange(doors, 16 * i, expected, address + sleeps):
                asked += 1
                if sleeps:
                    doors[16 * i + 1] = 1
                    woken += 1
    state[ASKED] = asked
    return woken


def leave(state, doors, count):
    """Takes a call back from all doors, and waits until all who have come are gone.

    Which is at the end of their turns: they may write where the caller's arrays are.
    """
    address, asked = address_of(state), state[ASKED]
    fetch_add(state, CLOSED, 1)
    for i in range(count):
        if exchange(doors, 16 * i, address, LISTENING):
            asked -= 1
        elif exchange(doors, 16 * i, address + 1, ASLEEP):
            asked -= 1
    waits = 0
    while read(state, GONE) < asked:
        waits += 1
        if waits > SPINS:
            rest()


def listen(doors, i):
    """The calls that come to door i, until none has come for long or its bell rings."""
    place, until = 16 * i, now() + WARM
    exchange(doors, place, ASLEEP, LISTENING)
    while True:
        found = read(doors, place)
        if found > BUSY and exchange(doors, place, found, BUSY):
            state = state_at(found & ~1)
            assist(state)
            fetch_add(state, GONE, 1)  # the caller may be gone, too, from here on
            exchange(doors, place, BUSY, LISTENING)
            until = now() + WARM
        elif (read(doors, place + 8) or now() > until) and exchange(
            doors, place, LISTENING, ASLEEP
        ):
            return
        rest()


# --- A call, from Python --------------------------------------------------------------


@cache
def parting() -> Any:
    """`leave`, compiled: compiling is Python, which an interrupt could end."""
    made = compiled(leave)
    made(new_state(), np.zeros(threads.DOOR, np.int64), 0)
    return made


class Turns:
    """The work of a call, which threads share."""

    def __init__(self, kernel: Callable[..., int], most: int, *given: Any) -> None:
        """kernel(state, turn, most, me, *given) takes turns, `most` at most.

        With PUBLISH for `me` it publishes itself and `given`.
        """
        self.kernel, self.most, self.given = kernel, most, given

    def run(self, count: int, team: threads.Team | None = None) -> None:
        """All of it, on this thread and up to count - 1 others, of a team if given."""
        self.state = new_state(count)
        if not config.DISABLE_JIT:
            compiled(self.kernel, "contract")(self.state, 0, 0, PUBLISH, *self.given)
        if count < 2 or config.DISABLE_JIT:
            self.visits()
        elif team is None:
            self.share(count)
        else:
            self.share_with(team, count)

    def share(self, count: int) -> None:
        """With helpers of our own."""
        doors, found = threads.helpers(count - 1, compiled(listen))
        left = parting()
        try:
            if compiled(ask)(self.state, doors, found, count - 1):
                threads.wake()
            self.visits()
        finally:  # of compiled code alone: a second interrupt has to wait
            left(self.state, doors, found)

    def share_with(self, team: threads.Team, count: int) -> None:
        """With the threads of a team, again and again, so that Python hears signals."""
        self.state[THREADS], self.state[MOST] = count, self.most
        while not self.state[ENDED]:
            self.state[CAME] = 0
            team.call(c_address(attend), self.state.ctypes.data, count)
        self.check()

    def visits(self) -> None:
        """All turns of the caller."""
        turn, pause = -1, 0.0
        while (after := self.visit(turn)) >= 0:
            if after == turn:  # others are busy with what it needs
                time.sleep(pause)
                pause = min(pause + 1e-5, 1e-3)
            else:
                turn, pause = after, 0.0
        self.check()

    def check(self) -> None:
        """An error of another thread is one of the call."""
        if self.state[ERROR]:
            raise MemoryError("a thread of this call had no memory for its turns")

    def visit(self, turn: int) -> int:
        """Some of them."""
        if config.DISABLE_JIT:
            return self.kernel(self.state, turn, self.most, 0, *self.given)
        return int(compiled(visit)(self.state, turn, self.most))
