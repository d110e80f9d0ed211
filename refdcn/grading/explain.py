"""Which lower precision explains errors that no rounding in the declared one can."""

from __future__ import annotations

from refdcn.grading.judge import Finding, outside, within
from refdcn.grading.precision import Hypothesis, hypotheses
from refdcn.grading.verdicts import Verdict


def explain_precision(findings: list[Finding]) -> None:
    """Name one precision that every failing element of a dtype fits, if any does.

    Such findings become "imprecise" (or a convention): the operator computes
    the right thing, with less accuracy than its dtype promises.
    """
    for dtype in {f.case.dtype for f in findings}:
        bad = [
            f
            for f in findings
            if f.case.dtype == dtype
            and f.case.kind in ("bound", "exact")
            and f.verdict in (Verdict.WRONG, Verdict.IMPRECISE)
        ]
        if not bad or any(f.got is None for f in bad) or rare(bad, findings):
            continue
        bad.sort(key=lambda f: f.verdict)
        for h in hypotheses(dtype):
            if all(fits(f, h) for f in bad):
                for f in bad:
                    f.verdict = (
                        Verdict.CONVENTION if h.convention else Verdict.IMPRECISE
                    )
                    f.text = f"{h.name} ({f.text})"
                    f.cause = h.name
                break


def fits(finding: Finding, hypothesis: Hypothesis) -> bool:
    """Whether every element lies within the hypothesis's own bound."""
    assert finding.expected is not None and finding.got is not None
    want = finding.expected.under(hypothesis.roundoff).range(finding.target)
    return bool(within(outside(finding.got, want), want.bound).all())


def rare(bad: list[Finding], findings: list[Finding]) -> bool:
    """Whether so few cases fail that no rounding, which is everywhere, did it."""
    for target in {f.target for f in bad}:
        mine = [f for f in findings if f.target == target and f.got is not None]
        judged = [
            f
            for f in findings
            if f.target == target
            and f.case.group == "random"
            and f.case.dtype == bad[0].case.dtype
        ]
        if 5 * len(mine) < len(judged):
            return True
    return False
