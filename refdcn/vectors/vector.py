"""One case as arrays: its inputs, its answers, and how far from them is right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from refdcn.grading.expected.case import NAMES, Array, Case
from refdcn.grading.expected.expectation import TARGETS, Expected
from refdcn.grading.expected.precision import standard
from refdcn.grading.judging.distance import outside, within
from refdcn.vectors.cases import PLANS, Plan

GEOMETRY = "stride, padding, dilation (rows, columns each), groups, offset_groups"
BITS = 8  # of a bound that is written
LEAST = 2.0**-100  # a bound, which float32 holds with all its bits
WIDER = 1.001  # no bound that is a short number lies on a step
UNSURE = 1e-12  # what the order of additions and a libm may change of a bound


@dataclass(frozen=True)
class Vector:
    """A named case and everything that is written of it."""

    plan: Plan
    case: Case

    @cached_property
    def expected(self) -> Expected:
        """The definition's answers with the bounds of the dtype's own precision."""
        return Expected(self.case, standard(self.case.dtype))

    @property
    def targets(self) -> list[str]:
        """The results that there are: y, and a gradient of each input given."""
        pairs = zip(TARGETS, self.case.inputs, strict=True)
        return ["y", *(name for name, a in pairs if a is not None)]

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """By name: inputs, geometry, then each result and its bound."""
        case, s = self.case, self.case.sizes
        found = dict(zip((*NAMES, "grad_y"), (*case.inputs, case.grad_y), strict=True))
        arrays = {name: a for name, a in found.items() if a is not None}
        pairs = *s.stride, *s.padding, *s.dilation
        arrays["geometry"] = np.array([*pairs, s.groups, s.offset_groups], np.int64)
        for name in self.targets:
            arrays |= self.results(name)
        return {k: np.ascontiguousarray(a) for k, a in arrays.items()}

    def results(self, name: str) -> dict[str, Array]:
        """The definition's value, its bound; and a range where slopes may differ."""
        want, values = self.expected.range(name), self.expected.values
        value = values.y
        if name != "y":
            value = values.gradients[TARGETS.index(name)]
        value = value.astype(np.float64)
        found = {name: value, f"{name}.bound": coarse(want.bound)}
        if (want.low != want.high).any():
            found |= {f"{name}.low": want.low, f"{name}.high": want.high}
        return found

    def failures(self, results: Mapping[str, Any]) -> dict[str, int]:
        """How many elements of each result lie outside of what is written."""
        return {
            name: int(np.count_nonzero(~self.right(name, got)))
            for name, got in results.items()
        }

    def right(self, name: str, got: Array) -> Array:
        """Which elements are right."""
        a = self.arrays
        if name not in a or got.shape != a[name].shape:
            return np.zeros(max(1, got.size), bool)
        low, high = a.get(f"{name}.low", a[name]), a.get(f"{name}.high", a[name])
        want = self.expected.range(name)._replace(low=low, high=high)
        return within(outside(got.astype(np.float64), want), a[f"{name}.bound"])


def coarse(bound: Array) -> Array:
    """Rounded up to 8 bits, so that it is the same on every machine.

    A bound is made by products and a libm, whose last bits differ between machines.
    AssertionError where one lies so near to a step that this might be seen.
    """
    ends = [up(bound * WIDER * (1 + e)) for e in (-UNSURE, UNSURE)]
    assert np.isfinite(bound).all() and (ends[0] == ends[1]).all()
    return ends[0].astype(np.float32)


def up(a: Array) -> Array:
    """The next number of 8 bits."""
    mantissa, exponent = np.frexp(np.maximum(a, LEAST))
    return np.asarray(np.ldexp(np.ceil(np.ldexp(mantissa, BITS)), exponent - BITS))


def vectors(level: str, seed: int = 0) -> Iterator[Vector]:
    """Every vector of a level."""
    for plan in PLANS[level]():
        yield Vector(plan, plan.case(seed))
