"""Helpers come to a call, do their turns and go, all inside compiled code."""

import time

import numpy as np
import pytest
from numba import config

from refdcn import threads
from refdcn.cpu import turns
from refdcn.cpu.atomics import publish
from refdcn.jit import compiled

pytestmark = pytest.mark.skipif(config.DISABLE_JIT, reason="about compiled code")


@pytest.fixture(autouse=True)
def put_back():
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


def counted(state, turn, most, me, wanted, done_by):
    """`wanted` turns, which the caller leaves to others as soon as one has come."""
    if me == turns.PUBLISH:
        return publish(state, (wanted, done_by))
    turn = turns.begin(state, turn)
    for _ in range(most):
        if turns.read(state, turns.CLOSED):
            return turns.END
        if turn >= wanted:
            if me > 0 or turns.read(state, turns.DONE) == wanted:
                return turns.END
            return turn
        if me == 0 and turns.read(state, turns.CAME) == 0:
            return turn
        done_by[me] += 1
        turn = turns.done(state)
    return turn


def failing(state, turn, most, me, wanted):
    """Only helpers do anything, and fail at it."""
    if me == turns.PUBLISH:
        return publish(state, (wanted,))
    if me > 0:
        raise ValueError("a helper's")
    return turns.END if turns.read(state, turns.CLOSED) else 0


def doors():
    return threads._doors[:: threads.DOOR].copy()


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("asleep", [False, True])
def test_helpers_come_whether_they_listen_or_sleep(count, asleep):
    for _ in range(3):
        done_by = np.zeros(count, np.int64)
        turns.Turns(counted, 1000, 10_000, done_by).run(count)
        assert done_by.sum() == 10_000 and done_by[1:].any()
        if asleep:
            time.sleep(0.05)


def test_a_helper_sleeps_when_nothing_has_come_for_a_while():
    turns.Turns(counted, 1000, 100, np.zeros(2, np.int64)).run(2)
    end = time.monotonic() + 30
    while doors().any() and time.monotonic() < end:
        time.sleep(0.01)
    assert not doors().any()  # 0 is asleep
    used = time.process_time()
    time.sleep(0.1)
    assert time.process_time() - used < 0.05


def test_what_a_helper_lacks_is_an_error_of_the_call():
    with pytest.raises(MemoryError, match="a thread of this call"):
        turns.Turns(failing, 1, 0).run(2)


def test_a_call_that_ends_is_at_no_door():
    doors, state = np.zeros(3 * threads.DOOR, np.int64), turns.new_state()
    before = [turns.BUSY, turns.LISTENING, turns.ASLEEP]
    doors[:: threads.DOOR] = before
    assert compiled(turns.ask)(state, doors, 3, 5) == 1  # one must be woken
    asked = doors[:: threads.DOOR].tolist()
    assert asked == [turns.BUSY, state.ctypes.data, state.ctypes.data + 1]
    assert doors[threads.WOKEN :: threads.DOOR].tolist() == [0, 0, 1]
    compiled(turns.leave)(state, doors, 3)
    assert doors[:: threads.DOOR].tolist() == before


def test_no_more_are_asked_than_are_wanted():
    doors, state = np.zeros(3 * threads.DOOR, np.int64), turns.new_state()
    doors[2 * threads.DOOR] = turns.LISTENING
    assert compiled(turns.ask)(state, doors, 3, 1) == 0  # the one who listens
    assert np.flatnonzero(doors).tolist() == [2 * threads.DOOR]
