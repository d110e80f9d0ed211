"""Whether what is imprecise is a precision: it rounds alike everywhere, or is wrong.

A precision leaves powers of two alone, resolves positions to 1/256 pixel at least,
scales nothing, and acts to the last bit as no listed mistake does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from refdcn.grading.catalogue.mistakes import CATALOGUE
from refdcn.grading.diagnosis import probes, relations, resolution
from refdcn.grading.diagnosis.answers import calls_of
from refdcn.grading.diagnosis.facts import Fact
from refdcn.grading.diagnosis.hypotheses import Budget, clues, explains_all
from refdcn.grading.expected.precision import Hypothesis, hypotheses
from refdcn.grading.judging.judge import Finding
from refdcn.grading.judging.lower_precision import nearness
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.questions import sweeps
from refdcn.grading.questions.sweeps import Runner

STEPPED = "float64", "float32"  # whose steps are fine enough to be measured
TEXTURE = 2.0**-8  # the coarsest position step that is a precision, not a bug
RECHECK_PREDICTIONS = 20000
CLOSE = {  # lower precisions whose bounds are close, by what loses its bits
    "weights": "weights are rounded",
    "columns": "columns are stored",
    "products": "products are in",
}


def recheck(
    runner: Runner, findings: Sequence[Finding]
) -> tuple[list[Finding], tuple[Fact, ...]]:
    """The findings, wrong where no precision explains them, and what was measured."""
    doubtful = [
        f
        for f in findings
        if f.verdict is Verdict.IMPRECISE and f.case.dtype in STEPPED
    ]
    if not doubtful:
        return list(findings), ()
    dtype = doubtful[0].case.x.dtype.name
    call, _ = calls_of(runner)
    with np.errstate(all="ignore"):
        steps = resolution.position_steps(call, dtype)
        bits = [f for f in resolution.bits(call, dtype) if not f.right]
        unlike = unlike_rounding(runner, findings, doubtful, dtype)
    coarse = any(s.fixed and max(s.at) > 1.01 * TEXTURE for s in steps)
    cause = sharper(doubtful, {f.subject for f in bits}, steps)
    facts = (*(s.fact for s in steps), *bits, *unlike)
    verdict = Verdict.WRONG if coarse or unlike else Verdict.IMPRECISE
    ids = {id(f) for f in doubtful}
    changed = [
        renamed(f, verdict, cause.get(f.case.dtype, f.cause)) if id(f) in ids else f
        for f in findings
    ]
    return changed, facts


def renamed(f: Finding, verdict: Verdict, cause: str) -> Finding:
    """The finding with another verdict and cause, which its text names first."""
    text = f.text.replace(f.cause, cause, 1) if f.cause else f.text
    return replace(f, verdict=verdict, cause=cause, text=text)


def sharper(
    doubtful: Sequence[Finding], limited: set[str], steps: Sequence[resolution.Steps]
) -> dict[str, str]:
    """By dtype: of hypotheses whose bounds are close, the one that was measured."""
    close: tuple[str, ...] = (*CLOSE.values(),)
    if limited:
        lost = "products" if "weight" in limited else "columns"
        name = CLOSE["weights" if limited == {"weight"} else lost]
    elif steps:  # every number kept its bits: it is the position alone
        close = ("",)
        name = "fractions have" if all(s.fixed for s in steps) else "positions are in"
    else:
        return {}
    found = {}
    for dtype in {f.case.dtype for f in doubtful}:
        mine = [f for f in doubtful if f.case.dtype == dtype]
        if all(f.cause.startswith(close) for f in mine):
            measured = [h for h in hypotheses(dtype) if h.name.startswith(name)]
            fits = explaining(mine, measured)
            if fits is not None:
                found[dtype] = fits.name
    return found


def explaining(
    doubtful: Sequence[Finding], measured: Sequence[Hypothesis]
) -> Hypothesis | None:
    """The first of the hypotheses that explains all."""
    return next((h for h in measured if nearness([*doubtful], h) >= 0), None)


def unlike_rounding(
    runner: Runner, findings: Sequence[Finding], doubtful: Sequence[Finding], dtype: str
) -> list[Fact]:
    """What no rounding does: another power, another scale, a listed mistake."""
    call, grads = calls_of(runner)
    if all(f.target == "y" for f in doubtful):
        grads = None
    case = sweeps.drawn(sweeps.Plan(), dtype, 3, "powers")
    facts = list(relations.degrees(call, grads, case, {}).values())
    facts += [f for f in probes.run_all(call, dtype) if f.kind == "acts as"]
    unlike = [f for f in facts if not f.right]
    budget = Budget(RECHECK_PREDICTIONS)
    for target in dict.fromkeys(f.target for f in doubtful):
        found = clues(findings, target, dtype)
        kinds = [m for m in CATALOGUE if (m.kind == "gradients") == (target != "y")]
        fits = (m for m in kinds if found and explains_all(found, (m,), budget))
        named = next(fits, None)
        if named is not None:
            unlike.append(Fact("listed", named.name, {"text": named.text}))
    return unlike
