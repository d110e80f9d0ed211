"""The smallest failing call: what is taken away until nothing more can be.

What is left cannot be spared: each smaller value was tried and was right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading.expected.case import Case, offset_shape
from refdcn.grading.questions.sweeps import RANGES, Plan, Sweep, drawn

SweepFails = Callable[[Sweep], bool]
TRIED_SEEDS = (3, 4, 5)


class Numbers(NamedTuple):
    """What the numbers of a call may be reduced to."""

    offset: str = "any"  # any, integer, 0
    mask: str = "any"  # any, 1
    weight: str = "any"  # any, 1


REDUCED = {"offset": ("0", "integer"), "mask": ("1",), "weight": ("1",)}
ORDER = (
    ("mask", "bias"),
    ("groups", "offset_groups", "N", "c", "o"),
    ("stride_h", "stride_w", "padding_h", "padding_w", "dilation_h", "dilation_w"),
    ("K_h", "K_w", "H_out", "W_out"),
)


def call_of(plan: Plan, values: Numbers, dtype: str, seed: int) -> Case:
    """The call of a plan with its numbers reduced."""
    case = drawn(plan, dtype, seed, "the smallest failing call")
    offset = case.offset
    if seed != TRIED_SEEDS[0]:  # within a pixel, so that few samples lie outside
        offset = np.remainder(offset, 1) - (seed == TRIED_SEEDS[1])
    if values.offset == "0":
        offset = np.zeros_like(offset)
    elif values.offset == "integer":
        offset = np.round(offset)
    mask = case.mask
    if mask is not None and values.mask == "1":
        mask = np.ones_like(mask)
    weight = case.weight if values.weight == "any" else np.ones_like(case.weight)
    return replace(case, offset=offset, mask=mask, weight=weight)


def with_size(plan: Plan, name: str, value: int | bool) -> Plan:
    """The plan with one size changed."""
    change: dict[str, Any] = {name: value}
    return plan._replace(**change)


def smaller(plan: Plan, name: str) -> Iterator[Plan]:
    """Plans with less of one size, the smallest first."""
    now = getattr(plan, name)
    if name in ("mask", "bias"):
        if now:
            yield with_size(plan, name, False)
        return
    for value in RANGES[name]:
        if value >= now:
            return
        yield with_size(plan, name, value)
    if now - 1 not in RANGES[name]:
        yield with_size(plan, name, now - 1)


def simpler_numbers(values: Numbers) -> Iterator[Numbers]:
    """Numbers reduced in one input."""
    for name, choices in REDUCED.items():
        if getattr(values, name) == "any":
            for choice in choices:
                yield values._replace(**{name: choice})


Steps = Callable[[Plan, Numbers], Iterator[tuple[Plan, Numbers]]]


def sized(name: str) -> Steps:
    """The steps that take away from one size."""
    return lambda plan, values: ((p, values) for p in smaller(plan, name))


def numbers(plan: Plan, values: Numbers) -> Iterator[tuple[Plan, Numbers]]:
    """The steps that reduce the numbers."""
    return ((plan, v) for v in simpler_numbers(values))


# The numbers come last: few sizes leave few calls in which to try them.
REDUCTIONS: tuple[Steps, ...] = (
    *(sized(n) for run in ORDER for n in run),
    *(numbers,) * 3,
)


class Smallest(NamedTuple):
    """A failing call that no step makes smaller."""

    sweep: Sweep
    plan: Plan
    values: Numbers
    seed: int

    @property
    def needs(self) -> dict[str, Any]:
        """What cannot be spared: sizes above the least, and kinds of numbers."""
        found: dict[str, Any] = {
            name: getattr(self.plan, name)
            for name, values in RANGES.items()
            if getattr(self.plan, name) > values[0]
        }
        found |= {name: True for name in ("mask", "bias") if getattr(self.plan, name)}
        if self.values.offset != "0":
            whole = self.values.offset == "integer"
            found["offsets"] = "not 0" if whole else "fractional"
        if self.plan.mask and self.values.mask == "any":
            found["masks"] = "not 1"
        if self.values.weight == "any":
            found["weights"] = "not 1"
        return found


def found(
    fails: SweepFails, starts: Iterator[Plan], dtype: str, most: int = 400
) -> Smallest | None:
    """Take away, in the order of ORDER, while the call still fails."""
    left = [most]

    def bad(plan: Plan, values: Numbers) -> Smallest | None:
        for seed in TRIED_SEEDS:
            left[0] -= 1
            sweep = Sweep(call_of(plan, values, dtype, seed))
            if sweep.case.offset.shape != expected_shape(sweep.case):
                return None
            if fails(sweep):
                return Smallest(sweep, plan, values, seed)
        return None

    tried = (bad(plan, Numbers()) for plan in starts)
    found = next((one for one in tried if one is not None), None)
    while found is not None and left[0] > 0:
        before = found
        for steps in REDUCTIONS:
            for p, v in steps(found.plan, found.values):
                less = bad(p, v) if left[0] > 0 else None
                if less is not None:
                    found = less
                    break
        if found is before:
            break
    return found


BESIDE = 4  # values of a size that are tried on either side


def around(found: Smallest, dtype: str) -> Iterator[Sweep]:
    """The smallest call with one size changed: which values of it fail?"""
    for name, values in RANGES.items():
        now = getattr(found.plan, name)
        below = [v for v in values if v < now][-BESIDE:]
        above = [v for v in values if v > now]
        for value in (*below, *above[:BESIDE], *above[BESIDE::5]):
            plan = with_size(found.plan, name, value)
            case = call_of(plan, found.values, dtype, found.seed)
            if case.offset.shape == expected_shape(case):
                yield Sweep(case)


def expected_shape(case: Case) -> tuple[int, ...]:
    """Of the offset; windows that no image fits have none."""
    N, og, K, two, *out = offset_shape(case.sizes)
    return (N, og * K * two, *out)
