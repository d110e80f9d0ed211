"""What a case may give: the oracle's answers and their bounds, computed once."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading.expected import bounds, double, oracle
from refdcn.grading.expected.case import NAMES, Array, Case, offset_shape
from refdcn.grading.expected.precision import Standard

TARGETS = tuple(f"grad_{name}" for name in NAMES)


class Range(NamedTuple):
    """What one output may be: from low to high, give or take the bound."""

    low: Array
    high: Array
    bound: Array
    usual: Array  # of the usual, shorter sums, or of wider intermediates


class Values:
    """The oracle's answers to one case, the same for every precision."""

    def __init__(self, case: Case, border: str) -> None:
        self.case, self.border = case, border

    @cached_property
    def y(self) -> Array:
        """The forward result."""
        case = oracle.border(self.case, self.border)
        wide = case.x.dtype == np.float64
        return double.forward(case) if wide else oracle.forward(case)

    @cached_property
    def gradients(self) -> list[Any]:
        """d x, d offset, d weight, d mask, d bias."""
        return list(oracle.gradients(self.case))

    @cached_property
    def sides(self) -> list[tuple[Array, Array]]:
        """d offset in the cells below and above, along rows and columns."""
        return [oracle.one_sided(self.case, axis) for axis in (0, 1)]


class Expected:
    """The oracle's answers to one case and how far from them is still right."""

    def __init__(
        self,
        case: Case,
        standard: Standard,
        border: str = "corners",
        values: Values | None = None,
    ) -> None:
        self.case, self.standard, self.border = case, standard, border
        self.core = case.part or case
        self.values = values or Values(self.core, border)
        self.others: dict[bounds.Roundoff, Expected] = {}
        self.wrong = standard.wrong.with_oracle()
        self.tight = standard.tight.with_oracle()

    def under(self, roundoff: bounds.Roundoff) -> Expected:
        """The same case, held to another precision alone."""
        if roundoff not in self.others:
            one = Standard(roundoff, roundoff, True, False)
            other = Expected(self.case, one, self.border, self.values)
            self.others[roundoff] = other
        return self.others[roundoff]

    def range(self, target: str) -> Range:
        """The expectation of "y", "grad_x", ..."""
        found = self.y if target == "y" else self.gradients[TARGETS.index(target)]
        assert found is not None
        return found

    def beside(self, target: str, got: Array) -> tuple[Array, Range]:
        """What came and its range in one shape; zeros around a part are left out."""
        want = self.range(target)
        if got.shape == want.low.shape:
            return got, want
        h, w = want.low.shape[2:]
        corner = got[..., -h:, -w:]
        if np.count_nonzero(corner) == np.count_nonzero(got):
            return corner, want
        return got, embedded(want, got.shape)

    @cached_property
    def y(self) -> Range:
        """The forward result."""
        case, y, u = oracle.border(self.core, self.border), self.values.y, self.wrong
        if case.x.dtype == np.float64:  # only the oracle's own rounding is added
            u = self.standard.wrong._replace(output=u.output)
        wrong = bounds.forward(case, y, u)
        if u == self.tight and self.standard.longest:
            return Range(y, y, wrong, wrong)
        tight = bounds.forward(case, y, self.tight, self.standard.longest)
        return Range(y, y, wrong, tight)

    @property
    def sides(self) -> list[tuple[Array, Array]]:
        """d offset in the cells below and above, along rows and columns."""
        return self.values.sides

    @cached_property
    def gradients(self) -> list[Range | None]:
        """d x, d offset, d weight, d mask, d bias; a set where slopes differ."""
        lows = list(self.values.gradients)
        highs = list(lows)
        dp = lows[1].reshape(offset_shape(self.core.sizes))
        low, high = dp.copy(), dp.copy()
        delta = bounds.deltas(self.core, self.wrong)
        wide = delta[0][:, :, None], delta[1][:, :, None]
        for axis in (0, 1):
            kink = bounds.kinks(self.core, wide, axis)
            if not kink.any():
                continue  # and four evaluations are saved
            below, above = self.sides[axis]
            at = (slice(None),) * 3 + (axis,)
            # 0 is autograd's slope of max(0, 1 - |q - r|) at its peak and feet.
            least, most = np.minimum(below, above), np.maximum(below, above)
            low[at] = np.where(kink, np.minimum(least, 0), dp[at])
            high[at] = np.where(kink, np.maximum(most, 0), dp[at])
        lows[1], highs[1] = low.reshape(lows[1].shape), high.reshape(lows[1].shape)
        # the rounding of the result is that of the larger end
        ends = [
            None if a is None else np.maximum(np.abs(a), np.abs(b))
            for a, b in zip(lows, highs, strict=True)
        ]
        wrong = bounds.gradients(self.core, ends, self.wrong)
        usual = wrong
        if self.wrong != self.tight or not self.standard.longest:
            usual = bounds.gradients(self.core, ends, self.tight, self.standard.longest)
        four = zip(lows, highs, wrong, usual, strict=True)
        return [None if a is None else Range(a, b, e, f) for a, b, e, f in four]


def embedded(part: Range, shape: tuple[int, ...]) -> Range:
    """A range in the lower right corner of zeros, with its largest bound everywhere."""
    h, w = part.low.shape[2:]
    value = np.zeros(shape)
    value[..., -h:, -w:] = part.low
    bound, usual = (np.broadcast_to(a.max(), shape) for a in (part.bound, part.usual))
    return Range(value, value, bound, usual)
