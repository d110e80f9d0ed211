"""A call as its threads share it: one compiled function, which each of them enters.

What it does is a list of phases, made once for a geometry; see turns.py.
"""

# mypy: allow-untyped-defs, disable-error-code="no-untyped-call"
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from refdcn import scratch
from refdcn.cpu.layout import Array
from refdcn.cpu.turns import (
    BACK,
    CLOSED,
    END,
    FIRST,
    begin,
    done,
    new_state,
    phase_of,
)
from refdcn.jit import compiled


class Turn(NamedTuple):
    """The i-th turn of a phase of one kind, for image n from `at` on."""

    kind: int
    n: int
    at: int
    i: int


def visit_of(do: Callable[..., None]) -> Callable[..., int]:
    """What a thread enters: up to `most` turns, of which each does `do`."""

    def visit(state, turn, most, is_caller, phases, call, cut, room):
        turn = begin(state, turn)
        for _ in range(most):
            phase = phase_of(state, phases, turn, is_caller)
            if phase < 0:
                return turn if phase == BACK else END
            _, kind, n, at = phases[phase]
            do(call, cut, room, Turn(kind, n, at, turn - phases[phase, FIRST]))
            turn = done(state)
        return turn

    return visit


class Way(NamedTuple):
    """How a call of one geometry is computed."""

    visit: Callable[..., int]
    cut: Any  # what the kernels know of the geometry
    phases: Array
    most: int  # turns of a visit
    room: Any  # a NamedTuple: the shape of each array that threads compute in
    shared: frozenset[str]  # which of these are the same for all threads


class Work:
    """The work of one call."""

    def __init__(self, way: Way, call: Any, dtype: Any) -> None:
        self.way, self.call, self.dtype = way, call, dtype
        self.state, self.kernel = new_state(), compiled(way.visit, "contract")
        self.shared = {use: self._array(use) for use in way.shared}

    @property
    def turns(self) -> int:
        """How many there are."""
        return int(self.way.phases[-1, FIRST])

    def visit(self, is_caller: bool) -> Callable[[int], int]:
        """For one thread; see threads.Work."""
        way, state, call = self.way, self.state, self.call
        fields = way.room._fields
        room = way.room._make(
            self.shared[f] if f in self.shared else self._array(f) for f in fields
        )

        def some(turn: int) -> Any:
            return self.kernel(
                state, turn, way.most, is_caller, way.phases, call, way.cut, room
            )  # fmt: skip

        return some

    def close(self) -> None:
        """Lets all visits end soon."""
        self.state[CLOSED] = 1

    def _array(self, use: str) -> Any:
        shape = getattr(self.way.room, use)
        flat = scratch.array(use, math.prod(shape), self.dtype)
        return flat.reshape(shape)
