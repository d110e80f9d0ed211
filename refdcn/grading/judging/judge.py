"""One call's outcome against its expectation: a finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refdcn.grading.expected import oracle
from refdcn.grading.expected.case import NAMES, Array, Case, offset_shape
from refdcn.grading.expected.expectation import TARGETS, Expected
from refdcn.grading.judging.distance import first_failure, outside, spread, within
from refdcn.grading.judging.finding import Finding, Kind
from refdcn.grading.judging.hostile import finite, judge_gradient, judge_hostile
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.process.outcome import Outcome

ORDERS = {"<": "little-endian ", ">": "big-endian "}


def unanswered(case: Case, outcome: Outcome, target: str = "call") -> Finding | None:
    """The finding when there is no result to judge."""
    malformed, status = case.kind == "malformed", outcome.status
    if status == "crash":
        verdict, kind = Verdict.CRASH, Kind.DIED
    elif status == "timeout":
        verdict, kind = Verdict.TIMEOUT, Kind.TIMEOUT
    elif outcome.faults:
        verdict, kind = Verdict.INTEGRITY, Kind.BREACH
    elif status == "raised" and malformed:
        verdict, kind = Verdict.PASS, Kind.REFUSED
    elif status == "raised":
        verdict, kind = Verdict.UNSUPPORTED, Kind.ERROR
    elif malformed:
        verdict, kind = Verdict.UNCHECKED, Kind.ACCEPTED
    else:
        return None
    faults = tuple(outcome.faults) if kind is Kind.BREACH else ()
    killed = outcome.signal if kind is Kind.DIED else None
    return Finding(case, target, verdict, kind, outcome.text, faults, killed)


def misshapen(case: Case, y: Any, name: str, like: Array, shape: Any) -> Finding | None:
    """The finding when the result is not the array it must be."""

    def wrong(kind: Kind, measured: Any, defined: Any) -> Finding:
        told: dict[str, Any] = {"measured": measured, "defined": defined}
        return Finding(case, name, Verdict.WRONG, kind, **told)

    if not isinstance(y, np.ndarray):
        came = y if isinstance(y, str) else type(y).__name__
        return wrong(Kind.TYPE, came, "numpy.ndarray")
    if y.shape != tuple(shape):
        return wrong(Kind.SHAPE, tuple(y.shape), tuple(shape))
    wanted = np.dtype(np.uint16) if case.bfloat16 else like.dtype
    if y.dtype != wanted:
        order = "" if y.dtype.isnative else ORDERS[y.dtype.byteorder]
        return wrong(Kind.DTYPE, order + y.dtype.name, case.dtype)
    return None


def judged(expected: Expected, outcome: Outcome, which: str) -> list[Finding]:
    """The verdicts on the results of one call, "forward" or "grad"."""
    if which == "forward":
        return [forward(expected, outcome)]
    return gradients(expected, outcome)


def forward(expected: Expected, outcome: Outcome) -> Finding:
    """The verdict on y."""
    case = expected.case
    found = unanswered(case, outcome)
    y: Any = outcome.results[0] if found is None else None
    found = found or misshapen(case, y, "y", case.x, case.y_shape)
    if found is not None:
        return found
    y = case.numbers(y)
    if case.kind == "hostile":
        return judge_hostile(case, y, expected)
    return compare(expected, "y", y)


def gradients(expected: Expected, outcome: Outcome) -> list[Finding]:
    """The verdicts on the five gradients."""
    case = expected.case
    found = unanswered(case, outcome, "gradients")
    found = found or miscounted(case, outcome.results)
    if found is not None:
        return [found]
    findings = []
    held = expected if case.kind != "hostile" else finite(expected)
    triples = zip(TARGETS, outcome.results, case.inputs, held.gradients, strict=True)
    for name, got, like, want in triples:
        if like is None or want is None:
            if got is not None:
                findings.append(Finding(case, name, Verdict.WRONG, Kind.NOT_NONE))
            continue
        found = misshapen(case, got, name, like, like.shape)
        if found is None and case.kind == "hostile":
            found = judge_gradient(case, name, case.numbers(got), want)
        findings.append(found or compare(expected, name, case.numbers(got)))
    if case.kind != "hostile" and findings[1].verdict is Verdict.PASS:
        findings += slopes(expected, case.numbers(outcome.results[1]))
    return findings


def miscounted(case: Case, results: Sequence[Any]) -> Finding | None:
    """The finding when they are not five, or come in another order."""
    many = len(results)
    if many != 5:
        told: dict[str, Any] = {"measured": many, "defined": 5}
        return Finding(case, "gradients", Verdict.WRONG, Kind.COUNT, **told)
    came = [getattr(a, "shape", None) for a in results]
    wanted = [None if a is None else a.shape for a in case.inputs]
    left = dict(zip(NAMES, wanted, strict=True))
    order = []
    for k, shape in enumerate(came):
        names = [name for name, due in left.items() if due == shape]
        if not names:
            return None
        order.append(NAMES[k] if NAMES[k] in names else names[0])
        del left[order[-1]]
    if tuple(order) == NAMES:
        return None
    told = {"measured": tuple(order), "defined": NAMES}
    return Finding(case, "gradients", Verdict.WRONG, Kind.ORDER, **told)


def compare(expected: Expected, name: str, y: Array) -> Finding:
    """Exact data must match to the bit, all other lie within the bound."""
    case, (y, want) = expected.case, expected.beside(name, y)
    with np.errstate(invalid="ignore"):  # memory never written may hold any NaN
        y = y.astype(np.float64)
        error = outside(y, want)
    # An infinite bound says that a step may overflow, and inf - inf is NaN.
    ok = within(error, want.bound) | np.isinf(want.bound)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = error / want.bound
    many = spread(ratio, ok)
    ratio = np.nan_to_num(ratio, nan=0.0, posinf=np.inf)
    most = float(ratio.max(initial=0.0))
    if case.kind == "exact" and expected.standard.exact:
        loose, kind, most = ~within(error, np.zeros_like(error)), Kind.INEXACT, 0.0
    else:
        loose = ~within(error, want.usual) & np.isfinite(want.usual)
        kind = Kind.COARSE
    found = Finding(
        case, name, Verdict.PASS, values=y.size, ratio=most, expected=expected
    )
    found = replace(found, spread=many)
    if not ok.all():
        worst = first_failure(ok, y, want)
        bad = replace(found, verdict=Verdict.WRONG, kind=Kind.VALUES, worst=worst)
        return replace(bad, failing=~ok, got=y)
    if loose.any():
        bad = replace(found, verdict=Verdict.IMPRECISE, kind=kind)
        return replace(bad, failing=loose, got=y)
    return found


def slopes(expected: Expected, got: Array) -> list[Finding]:
    """Which one-sided slope it takes where the position is an integer."""
    found = []
    for key, border in (("slope at -1", True), ("slope at integers", False)):
        fits = slope_fits(expected, got, border)
        if not fits:
            continue
        sides = [side for side in fits if fits[side]] or ["mixed"]
        verdict, kind = Verdict.CONVENTION, Kind.SLOPE
        if sides[0] == "right-hand":
            verdict, kind = Verdict.PASS, Kind.RIGHT
        one = Finding(expected.case, "grad_offset", verdict, kind)
        chosen, equal = (key, sides[0]), tuple(sides[1:])
        found.append(replace(one, choice=chosen, equal=equal))
    return found


def slope_fits(expected: Expected, got: Array, border: bool) -> dict[str, bool]:
    """Whether each choice fits everywhere; empty where no place tells them apart."""
    case, want = expected.case, expected.range("grad_offset")
    shape = offset_shape(case.sizes)
    got, bound = (a.astype(float).reshape(shape) for a in (got, want.bound))
    fits: dict[str, bool] = {}
    for axis, q in enumerate(oracle.positions(case)):
        told = (q == np.round(q)) & ((q == -1) == border)
        if not told.any():
            continue
        (below, above), E = expected.sides[axis], bound[:, :, :, axis]
        told &= np.abs(above - below) > 8 * E
        if not told.any():
            continue
        for side, value in choices(below, above).items():
            ok = within(np.abs(got[:, :, :, axis] - value), E)
            fits[side] = fits.get(side, True) and bool(ok[told].all())
    return fits


def choices(below: Array, above: Array) -> dict[str, Array]:
    """What an implementation may take for the slope at an integer."""
    middle = (below + above) / 2
    zero = np.zeros_like(middle)
    return {"right-hand": above, "0": zero, "left-hand": below, "the mean": middle}
