"""A call of one geometry as one compiled function, which each of its threads enters.

What it does is a list of phases, made once for a geometry; see turns.py.
"""

# mypy: allow-untyped-defs, disable-error-code="no-untyped-call"
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from refdcn import scratch, threads
from refdcn.cpu.atomics import publish, rows_of
from refdcn.cpu.layout import Array
from refdcn.cpu.turns import BACK, END, FIRST, PUBLISH, Turns, begin, done, phase_of


class Turn(NamedTuple):
    """The i-th turn of a phase of one kind, for image n from `at` on."""

    kind: int
    n: int
    at: int
    i: int


def visit_of(do: Callable[..., None]) -> Callable[..., int]:
    """What a thread enters: up to `most` turns, of which each does `do`."""

    def visit(state, turn, most, me, phases, call, cut, room):
        if me == PUBLISH:
            return publish(state, (phases, call, cut, room))
        mine, turn = rows_of(room, me), begin(state, turn)
        for _ in range(most):
            phase = phase_of(state, phases, turn, me == 0)
            if phase < 0:
                return turn if phase == BACK else END
            _, kind, n, at = phases[phase]
            do(call, cut, mine, Turn(kind, n, at, turn - phases[phase, FIRST]))
            turn = done(state)
        return turn

    return visit


class Way(NamedTuple):
    """How a call of one geometry is computed."""

    visit: Callable[..., int]
    cut: Any  # what the kernels know of the geometry
    phases: Array
    most: int  # turns of a visit
    room: Any  # a NamedTuple: the shape of each array that a thread computes in
    shared: frozenset[str]  # which of these are the same for all threads

    def run(self, call: Any, count: int, team: threads.Team | None) -> None:
        """All of a call, on up to so many threads."""
        count = min(count, int(self.phases[-1, FIRST]))
        with scratch.lent():
            room = self.room._make(
                self.rows(use, 1 if use in self.shared else count, call.x.dtype)
                for use in self.room._fields
            )
            given = self.phases, call, self.cut, room
            Turns(self.visit, self.most, *given).run(count, team)

    def rows(self, use: str, count: int, dtype: Any) -> Any:
        """Room of one use for so many threads, in scratch that is lent."""
        shape = getattr(self.room, use)
        if len(shape) == 1:
            return scratch.rows(use, count, shape[0], dtype)
        flat = scratch.array(use, count * math.prod(shape), dtype, count)
        return flat.reshape(count, *shape)
