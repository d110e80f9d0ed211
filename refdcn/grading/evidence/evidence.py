"""The evidence of a grade: the failing case that is drawn, and the smallest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refdcn.grading.diagnosis.answers import calls_of
from refdcn.grading.evidence.channels import Reading, channels_of, taken_for
from refdcn.grading.evidence.fields import Field, fields_of
from refdcn.grading.evidence.reads import (
    Parts,
    Sample,
    most_inside,
    parts_of,
    samples_of,
)
from refdcn.grading.expected.case import Case
from refdcn.grading.expected.expectation import Expected
from refdcn.grading.judging.distance import outside
from refdcn.grading.judging.finding import Finding
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.questions.sweeps import Runner

WIDEST_FIRST = "float64", "float32", "float16", "bfloat16"
SIDE, PLANE, TAPS = 3, 150, 9  # rows, pixels and taps that are seen when drawn


@dataclass(frozen=True)
class Evidence:
    """What is shown of a case that fails."""

    finding: Finding | None = None  # the case that is drawn
    fields: tuple[Field, ...] = ()  # of each result that fails in its call
    parts: Parts | None = None
    element: tuple[int, ...] = ()  # the output whose samples are shown
    channel: int = 0  # of all, whose weight alone is left for that
    samples: tuple[Sample, ...] = ()
    taken: int | None = None  # the channel that is read for it, all else being right
    channels: tuple[Reading, ...] = ()  # of each output, where one is taken for another


def gathered(runner: Runner, counted: Sequence[Finding]) -> Evidence:
    """The evidence, if numbers are wrong; its calls are the candidate's last."""
    f = drawn(counted)
    if f is None:
        return Evidence()
    alike = [g for g in counted if g.case is f.case and shown(g)]
    first = {g.target: g for g in reversed(alike)}
    fields = tuple(field for g in first.values() for field in fields_of(g))
    if f.target != "y" or f.expected is None or f.failing is None or f.got is None:
        return Evidence(f, fields)
    held = f.expected
    at = most_inside(f.case, f.failing, outside(f.got, held.range("y")))

    def expected(case: Case) -> Expected:
        return Expected(case, held.standard, held.border)

    call, _ = calls_of(runner)
    there: Any = (..., *at)
    with np.errstate(all="ignore"):
        parts, errors = parts_of(call, f.case, expected)
        # Of the channels that err there, the one that errs most.
        channel = own_channel(f.case, at[1], int(errors[there].sum((1, 2)).argmax()))
        samples = tuple(samples_of(call, f.case, at, channel)) if parts else ()
        taken = taken_for(f.case, at, channel, samples)
        channels = () if taken is None else channels_of(call, f.case)
    return Evidence(f, fields, parts, at, channel, samples, taken, channels)


def own_channel(case: Case, o: int, channel: int) -> int:
    """The number among all of a channel that an output has in its group."""
    s = case.sizes
    return o // max(1, s.C_out // s.groups) * (s.C_in // s.groups) + channel


def drawn(counted: Sequence[Finding]) -> Finding | None:
    """The worst of the failing results that can be drawn: y before its gradients."""
    return min((f for f in counted if shown(f)), key=order, default=None)


def shown(f: Finding) -> bool:
    """Whether its values fail."""
    numbers = f.got is not None and f.worst is not None and f.case.part is None
    return f.verdict is Verdict.WRONG and f.computes and numbers


def order(f: Finding) -> tuple[bool, int, bool, bool, float]:
    """The widest dtype and what the eye can follow first, then the largest error."""
    s = f.case.sizes
    plain = s.H * s.W <= PLANE and min(s.H, s.W) >= SIDE
    plain &= 2 <= s.K_h * s.K_w <= TAPS
    wide = WIDEST_FIRST.index(f.case.dtype)
    drawn_at_random = f.case.group in ("random", "optional", "repeat")
    return f.target != "y", wide, not plain, not drawn_at_random, -f.ratio
