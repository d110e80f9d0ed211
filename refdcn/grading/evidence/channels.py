"""Which input channels each output reads, where that alone is another than defined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from refdcn.grading.diagnosis.answers import Call
from refdcn.grading.evidence.reads import (
    NOTHING,
    SAME,
    TRIED,
    Sample,
    inside,
    same,
    taps_of,
)
from refdcn.grading.expected.case import Case


class Reading(NamedTuple):
    """Input channels of one output channel, counted through all groups."""

    output: int
    defined: tuple[int, ...]
    read: tuple[int, ...]


def taken_for(
    case: Case, element: tuple[int, ...], own: int, samples: Sequence[Sample]
) -> int | None:
    """The channel that is read for `own`, each tap as the definition samples it."""
    reads = [p for s in samples for p in s.reads or ()]
    taken = {p.channel for p in reads} - {own}
    if len(taken) != 1 or any(s.reads is None for s in samples):
        return None
    (other,) = taken
    most = SAME[case.dtype]
    for s, tap in zip(samples, taps_of(case, element, other), strict=True):
        due = tuple(p for p in tap.corners if inside(p, case))
        if not same(due, s.reads or (), most):
            return None
    return other


def channels_of(call: Call, case: Case) -> tuple[Reading, ...]:
    """Of every output channel; none where the channels are too many to ask each."""
    s = case.sizes
    if s.C_in > TRIED:
        return ()
    bias = None if case.bias is None else np.zeros_like(case.bias)
    plain = replace(case, weight=np.ones_like(case.weight), bias=bias)
    code = np.random.default_rng(5).choice([1, 1.25, 1.5, 1.75], case.x.shape)
    answers = []
    for c in (None, *range(s.C_in)):
        x = np.zeros(case.x.shape)
        if c is not None:
            x[:, c] = code[:, c]
        y = call(replace(plain, x=x.astype(case.x.dtype)))
        if y is None:
            return ()
        answers.append(y)
    least = NOTHING[case.dtype]
    follows = [(np.abs(y - answers[0]) > least).any((0, 2, 3)) for y in answers[1:]]
    many, few = s.C_out // s.groups, s.C_in // s.groups
    return tuple(
        Reading(
            o,
            tuple(range(o // many * few, (o // many + 1) * few)),
            tuple(c for c in range(s.C_in) if follows[c][o]),
        )
        for o in range(s.C_out)
    )
