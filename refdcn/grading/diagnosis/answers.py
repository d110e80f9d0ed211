"""What a candidate answers to a diagnosis: arrays of the right shapes, or None."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from refdcn.grading.expected.case import Array, Case
from refdcn.grading.process.outcome import Outcome
from refdcn.grading.questions.sweeps import Runner

Call = Callable[[Case], Array | None]
Gradients = Callable[[Case], Sequence[Array | None] | None]


def answer_of(runner: Runner, case: Case) -> Array | None:
    """The candidate's y, or None when it gives none."""
    outcome = runner.call(case)
    y = outcome.results[0] if outcome.status == "ok" and outcome.results else None
    if not isinstance(y, np.ndarray) or y.shape != case.y_shape:
        return None
    return y.astype(np.float64)


def gradients_of(runner: Runner, case: Case) -> list[Array | None] | None:
    """The candidate's gradients, or None when it gives none."""
    outcome: Outcome = runner.call(case, "grad")
    if outcome.status != "ok" or len(outcome.results) != 5:
        return None
    likes = zip(outcome.results, case.inputs, strict=True)
    fits = all(
        b is None or (isinstance(a, np.ndarray) and a.shape == b.shape)
        for a, b in likes
    )
    return list(outcome.results) if fits else None


def results_of(runner: Runner, case: Case) -> list[Any]:
    """What its companion returned, whatever that is."""
    outcome = runner.call(case, "grad")
    return list(outcome.results) if outcome.status == "ok" else []


def calls_of(runner: Runner) -> tuple[Call, Gradients | None]:
    """The candidate's functions of a case."""
    grads = (lambda c: gradients_of(runner, c)) if runner.has_grad else None
    return (lambda c: answer_of(runner, c)), grads
