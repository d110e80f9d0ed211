"""Contestants take turns, so that a slow moment of the machine meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple, TypeAlias

Rounds: TypeAlias = list[list[float]]  # seconds; empty where a turn was not taken

# "cpu" counts what the threads of this process work, spinning included: on one thread
# it tells what a call costs also where other processes take their share of the cores.
CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "cpu": time.process_time,
}
TURN = 0.01  # seconds that a turn lasts at least, in calls
LONG = 0.05  # a call so long finds no cache or pool as it left it


class Entrant(NamedTuple):
    """A contestant with a number of threads."""

    name: str
    threads: int
    call: Callable[[], Any]
    before: Callable[[], None] = lambda: None  # its turn: sets threads


def settle(limit: float = 0.1) -> None:
    """Wait until the threads that just worked have stopped spinning for more work.

    Idle threads of OpenMP, of ONNX Runtime and our own burn a core for 3 to 5 ms, which
    would be charged to whoever comes next. They sleep when three milliseconds in a row
    have gone by unused: in a single one they may only have had no core.
    """
    end, idle = time.perf_counter() + limit, 0
    while idle < 3 and time.perf_counter() < end:
        used = time.process_time()
        time.sleep(0.001)
        idle = idle + 1 if time.process_time() - used < 0.0003 else 0


def interleave(
    entrants: Sequence[Entrant],
    repeat: int,
    seconds: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
    rest: Callable[[], None] = settle,
) -> list[Rounds]:
    """The seconds of every call, by entrant and round.

    All take a turn in every round. Each round begins with the next of them, and every
    other one runs backwards, so that none always follows the same. A turn is an untimed
    call, which wakes threads and fills caches, and then timed ones for TURN. An entrant
    takes at most `seconds` / (seconds of a call) turns, at least one.
    """
    costs = [estimate(entrant, seconds, clock, rest) for entrant in entrants]
    rounds: list[Rounds] = [[] for _ in entrants]
    for r in range(repeat):
        for e in order(r, len(entrants)):
            if r and (r + 1) * costs[e] > seconds:
                rounds[e].append([])
                continue
            rounds[e].append(turn(entrants[e], costs[e], clock))
            rest()
    return rounds


def estimate(
    entrant: Entrant,
    seconds: float,
    clock: Callable[[], float],
    rest: Callable[[], None],
) -> float:
    """Seconds of its second call; of its first, which may compile, if that is long."""
    entrant.before()
    first = timed(entrant.call, clock)
    second = timed(entrant.call, clock) if first < seconds else first
    rest()
    return second


def order(r: int, count: int) -> list[int]:
    """Who follows whom in round r.

    >>> order(0, 3), order(1, 3)
    ([0, 1, 2], [0, 2, 1])
    """
    turned = [(r + step) % count for step in range(count)]
    return turned[::-1] if r % 2 else turned


def turn(entrant: Entrant, cost: float, clock: Callable[[], float]) -> list[float]:
    """The seconds of the calls of one turn."""
    entrant.before()
    if cost < LONG:
        entrant.call()
    calls = 1 + int(min(100, TURN / max(cost, 1e-6)))
    return [timed(entrant.call, clock) for _ in range(calls)]


def timed(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Seconds of one call; what it returns is freed outside."""
    begin = clock()
    result = call()
    end = clock()
    del result
    return end - begin


def ratio(rounds: Rounds, reference: Rounds) -> float:
    """The median, over the rounds that both took part in, of their ratio.

    Paired by round: what slows both in a round cancels.
    """
    pairs = [(a, b) for a, b in zip(rounds, reference, strict=True) if a and b]
    return median(median(a) / median(b) for a, b in pairs)


def flat(rounds: Rounds) -> list[float]:
    """The seconds of all calls."""
    return [second for calls in rounds for second in calls]
