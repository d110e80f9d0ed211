"""Which lower precision explains errors that no rounding in the declared one can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from refdcn.grading.expected.case import Array
from refdcn.grading.expected.precision import Hypothesis, hypotheses
from refdcn.grading.judging.distance import outside, within
from refdcn.grading.judging.finding import Finding
from refdcn.grading.judging.verdicts import Verdict


def explained(findings: Sequence[Finding]) -> list[Finding]:
    """One precision named that every failing element of a dtype fits, if any does.

    Such findings become "imprecise" (or a convention): the operator computes
    the right thing, with less accuracy than its dtype promises.
    """
    dtypes = {f.case.dtype for f in findings}
    found = {dtype: cause_in(dtype, findings) for dtype in dtypes}
    return [with_cause(f, found[f.case.dtype]) for f in findings]


def with_cause(f: Finding, hypothesis: Hypothesis | None) -> Finding:
    """A finding that fails, explained."""
    if hypothesis is None or not fails(f):
        return f
    verdict = Verdict.CONVENTION if hypothesis.convention else Verdict.IMPRECISE
    return replace(f, verdict=verdict, cause=hypothesis.cause)


def fails(f: Finding) -> bool:
    """Whether its numbers may be explained."""
    return f.computes and f.verdict in (Verdict.WRONG, Verdict.IMPRECISE)


def cause_in(dtype: str, findings: Sequence[Finding]) -> Hypothesis | None:
    """The precision that the errors of a dtype come nearest to."""
    bad = [f for f in findings if f.case.dtype == dtype and fails(f)]
    if not bad or any(f.got is None for f in bad):
        return None
    if singled_out(bad):
        return None
    bad.sort(key=lambda f: f.verdict)
    told = [(nearness(bad, h), h) for h in hypotheses(dtype)]
    for near, h in told:
        # However near to the definition, and however seldom it shows.
        if h.convention and near >= 0:
            return h
    if rare(bad, findings) or far_alone(bad, findings):
        return None
    fine = {f.target for f in findings if f.case.dtype == dtype and drawn(f)}
    fine -= {f.target for f in bad}
    told = [(near, h) for near, h in told if meets(h, bad, fine)]
    near, h = max(told, key=lambda pair: pair[0])
    return h if near >= 0 else None


# What enters these gradients alike spoils all of them or none.
ENTERS = {
    "columns": {"grad_x", "grad_offset", "grad_mask"},
    "weights": {"grad_x", "grad_offset", "grad_mask"},
    "products": {"grad_x", "grad_offset", "grad_mask"},
    "positions": {"grad_x", "grad_offset", "grad_mask", "grad_weight"},
}


def meets(hypothesis: Hypothesis, bad: Sequence[Finding], fine: set[str]) -> bool:
    """Whether a hypothesis lies behind gradients of which others are fine."""
    inner = ENTERS.get(hypothesis.cause.step, set())
    spoiled = {f.target for f in bad} - {"y"}
    if hypothesis.cause.step == "columns":  # of samples: d weight alone
        spoiled -= {"grad_weight"}
    return not spoiled or not inner & fine


def drawn(finding: Finding) -> bool:
    """Whether it is one of the cases with random data."""
    return finding.case.group == "random" and finding.case.kind == "bound"


def nearness(bad: Sequence[Finding], hypothesis: Hypothesis) -> float:
    """The largest error in units of the hypothesis's bound; -1 beyond it.

    A coarse precision explains every smaller error too: the one whose bound
    the errors come nearest to says the most.
    """
    most = 0.0
    for f in bad:
        found = ratio(f, hypothesis)
        if not 0 <= found <= 1:
            return -1.0
        most = max(most, found)
    return most


def ratio(finding: Finding, hypothesis: Hypothesis) -> float:
    """Of one finding; NaN where nothing can be compared."""
    assert finding.expected is not None and finding.got is not None
    lower = finding.expected.under(hypothesis.roundoff)
    got, want = lower.beside(finding.target, finding.got)
    # The longest sums admit zeros: a bound explains what is near the definition.
    told = (want.low == want.high) & (want.low != 0)
    if finding.case.group == "timed" and told.any():
        size = np.abs(want.low)[told]
        if np.median(np.abs(got - want.low)[told] / size) > 0.5:
            return -1.0
    asked = finding.case.kind == "bound"  # with no terms that cancel
    if hypothesis.cause.step in PLACED:
        asked = asked and not displaced(finding)
    if asked and far_from_values(np.asarray(got)[told], want.low[told]):
        return -1.0
    error = outside(got, want)
    # Where the lower precision may overflow, anything is accepted.
    if not (within(error, want.bound) | np.isinf(want.bound)).all():
        return -1.0
    sure = np.isfinite(want.bound) & (want.bound > 0)
    return float((error[sure] / want.bound[sure]).max(initial=0.0))


PLACED = "grid", "fractions", "positions", "everything"
LARGE = 64  # pixels, where a position in float16 moves by 1/32 at most
FEW, MUCH = 4, 0.5  # values that may all be near 0; of what they come to
NORMAL = 2.0**-14  # what is smaller may vanish in float16


def displaced(finding: Finding) -> bool:
    """Whether rounded positions can lead to another pixel, or to another slope."""
    c = finding.case
    far = max(c.x.shape[2:]) > LARGE or bool((np.abs(c.offset) > LARGE).any())
    return far or finding.target == "grad_offset"


def far_from_values(got: Array, due: Array) -> bool:
    """Whether errors come to as much as the values, which no rounding's do.

    A bound must admit that every addition errs alike; no kernel's do.
    """
    sure = np.isfinite(got) & (np.abs(due) >= NORMAL)
    off, size = np.abs(got - due)[sure], np.abs(due)[sure]
    return bool(sure.sum() >= FEW and off.sum() > MUCH * size.sum())


PICKED, CALLS = 2, 8  # elements of a call, and calls, that no rounding picks


def singled_out(bad: Sequence[Finding]) -> bool:
    """Whether call after call a few elements of one result fail and no more.

    Rounding is where the numbers lead it, in all that they enter: in some calls
    nowhere, in others at many elements.
    """
    if len({f.target for f in bad}) > 1 or len(bad) < CALLS:
        return False
    return all(f.failures <= PICKED < f.values for f in bad)


def rare(bad: Sequence[Finding], findings: Sequence[Finding]) -> bool:
    """Whether so few cases fail that no rounding, which is everywhere, did it."""
    for target in {f.target for f in bad}:
        mine = [f for f in findings if f.target == target and f.got is not None]
        judged = [
            f
            for f in findings
            if f.target == target and drawn(f) and f.case.dtype == bad[0].case.dtype
        ]
        if 5 * len(mine) < len(judged):
            return True
    return False


def far_alone(bad: Sequence[Finding], findings: Sequence[Finding]) -> bool:
    """Whether images of more than 2^24 numbers fail alone, as by a rounded address.

    A step that is rounded is rounded in every image: its error shows in random data
    of any size, which the positions of so large an image would excuse.
    """
    if any(f.case.part is None for f in bad):
        return False
    targets = {f.target for f in bad}
    return any(
        f.target in targets
        and f.case.kind == "bound"
        and f.case.dtype == bad[0].case.dtype
        and f.verdict is Verdict.PASS
        for f in findings
    )
