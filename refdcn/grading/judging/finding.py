"""A finding: what one result of one call came to, as data; words/ says it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from refdcn.grading.expected.case import Array, Case
from refdcn.grading.expected.expectation import Expected
from refdcn.grading.expected.precision import Cause
from refdcn.grading.judging.verdicts import Verdict


class Kind(StrEnum):
    """What was found; programs may rely on these names."""

    RIGHT = "right"
    REFUSED = "refused"  # shapes that fit nothing, as it must
    ACCEPTED = "accepted"  # the same, computed
    ERROR = "error"  # it refuses what it must compute
    DIED = "died"
    DIED_ONCE = (
        "died once"  # of damaged memory; the same call in a new process does not
    )
    TIMEOUT = "timeout"
    BREACH = "breach"  # what was seen from outside beside the answer
    TYPE = "type"  # no array
    SHAPE = "shape"
    DTYPE = "dtype"
    COUNT = "count"  # other than five gradients
    ORDER = "order"  # the five in another order
    NOT_NONE = "not none"  # a gradient of an input that was None
    VALUES = "values"  # outside the bound
    COARSE = "coarse"  # within the bound, beyond the usual sums
    INEXACT = "inexact"  # the same where every order of evaluation is exact
    SLOPE = "slope"  # a side taken where the slope jumps
    NOT_FINITE = "not finite"  # a choice where an input is not finite
    OTHER_CHOICE = "other choice"  # than was declared
    BITS = "bits"  # a repeat gave others
    UNWRITTEN = "unwritten"
    STALE = "stale"  # an earlier call's answer
    GHOST = "ghost"  # memory that nobody wrote holds the answer
    TOO_FAST = "too fast"


# Nothing can be said of values before the result is what it must be.
STRUCTURAL = {
    Kind.TYPE,
    Kind.SHAPE,
    Kind.DTYPE,
    Kind.COUNT,
    Kind.ORDER,
    Kind.NOT_NONE,
}
# A cause is told before what may follow from it: other bits, wrong values.
TOLD_LATER = {Kind.UNWRITTEN: 1, Kind.BITS: 2}


class Element(NamedTuple):
    """One number of a result: what came, and what may come."""

    at: tuple[int, ...]  # its index
    got: float
    low: float
    high: float
    bound: float


@dataclass(frozen=True, eq=False)  # arrays have no one answer to "equal?"
class Finding:
    """The verdict on one result of one call."""

    case: Case
    target: str  # y, grad_x, ..., gradients, call (of the forward), time
    verdict: Verdict
    kind: Kind = Kind.RIGHT
    detail: str = ""  # words that are not ours: an error's, the system's
    faults: tuple[str, ...] = ()  # of a breach
    measured: Any = None  # what came, of a kind that is no comparison of values
    defined: Any = None  # what must come
    values: int = 0  # numbers that were compared
    ratio: float = 0.0  # largest |error| / bound
    spread: tuple[int, ...] = ()  # of all errors over distance.EDGES
    failing: Array | None = None
    worst: Element | None = None  # of the failing ones
    got: Array | None = None  # what came, where it is not right
    expected: Expected | None = None
    cause: Cause | None = None  # the lower precision that explains it
    choice: tuple[str, str] | None = None  # a convention and its value
    equal: tuple[str, ...] = ()  # other values that are the same here
    declared: str = ""  # the gap or convention that the owner declared beforehand

    @property
    def group(self) -> str:
        """Its case's; but shapes that fit nothing are one, whoever asked for them."""
        return "malformed" if self.case.kind == "malformed" else self.case.group

    @property
    def of_gradients(self) -> bool:
        """Whether the gradient companion was called."""
        return self.target.startswith("grad")

    @property
    def structural(self) -> bool:
        """Whether the result is not even the array it must be."""
        return self.kind in STRUCTURAL

    @property
    def failures(self) -> int:
        """How many numbers fail."""
        return 0 if self.failing is None else int(self.failing.sum())

    @property
    def computes(self) -> bool:
        """Whether the call had to give numbers, of which all are defined."""
        return self.case.kind in ("bound", "exact")

    @property
    def order(self) -> tuple[int, int, float]:
        """The worst first, causes before what follows, then the most failing."""
        later = TOLD_LATER.get(self.kind, 0) - self.structural
        return int(self.verdict), later, -self.ratio
