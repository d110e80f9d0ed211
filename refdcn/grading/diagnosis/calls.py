"""A candidate as plain functions of a case; None where it gives no numbers."""

from __future__ import annotations

import numpy as np

from refdcn.grading.diagnosis import probes
from refdcn.grading.expected.case import Array, Case
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.process.isolation import Process
from refdcn.grading.process.outcome import Outcome

Runner = Process | InProcess


def caller(runner: Runner) -> probes.Call:
    """The candidate's y as a function of a case."""
    return lambda case: answer(runner, case)


def answer(runner: Runner, case: Case) -> Array | None:
    """The candidate's y, or None when it gives none."""
    outcome = runner.call(case)
    y = outcome.results[0] if outcome.status == "ok" and outcome.results else None
    if not isinstance(y, np.ndarray) or y.shape != case.y_shape:
        return None
    return y.astype(np.float64)


def five(runner: Runner, case: Case) -> list[Array | None] | None:
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
