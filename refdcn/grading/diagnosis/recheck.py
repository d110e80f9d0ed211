"""A second look at what seems imprecise: what no rounding does is wrong.

A precision rounds alike everywhere: it leaves powers of two alone, resolves
positions to 1/256 pixel at least, scales nothing, and acts to the last bit as
no listed mistake does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from refdcn.grading.catalogue.mistakes import CATALOGUE
from refdcn.grading.diagnosis import probes, relations, resolution
from refdcn.grading.diagnosis.answers import calls_of
from refdcn.grading.diagnosis.facts import Fact, Rank
from refdcn.grading.diagnosis.hypotheses import (
    Budget,
    clues,
    explains_all,
    is_evident,
)
from refdcn.grading.expected.precision import Cause, hypotheses
from refdcn.grading.judging.finding import Finding
from refdcn.grading.judging.lower_precision import nearness
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.questions import sweeps
from refdcn.grading.questions.sweeps import Runner

STEPPED = "float64", "float32"  # whose steps are fine enough to be measured
RECHECK_PREDICTIONS = 20000
TEXTURE = 2.0**-8  # the coarsest position step that is a precision, not a bug
CLOSE = "weights", "columns", "products"  # steps whose bounds are close


def recheck(
    runner: Runner, findings: Sequence[Finding]
) -> tuple[list[Finding], tuple[Fact, ...]]:
    """The findings, wrong where no precision explains them, and what was measured."""
    doubtful = [f for f in findings if is_doubtful(f)]
    if not doubtful:
        return list(findings), ()
    dtype = doubtful[0].case.x.dtype.name
    call, _ = calls_of(runner)
    is_wrong = any(f.verdict is Verdict.WRONG for f in findings)
    with np.errstate(all="ignore"):
        steps = resolution.position_steps(call, dtype)
        bits = [f for f in resolution.bits(call, dtype) if not f.right]
        unlike = unlike_rounding(runner, doubtful, dtype)
        if (
            not is_wrong
        ):  # else the search for what is wrong finds it: this took as long
            unlike += listed(findings, doubtful, dtype)
    limited = {f.subject for f in bits}
    measured = measured_step(limited, steps)
    with np.errstate(all="ignore"):
        if limited and resolution.sums_lose(call, dtype):
            if not resolution.positions_lose(call, dtype):
                measured = CLOSE, "sums"
    causes = sharpened(doubtful, measured)
    coarse = [s for s in steps if s.fixed and max(s.at) > 1.01 * TEXTURE]
    proofs = [*(s.fact for s in coarse), *unlike]
    if is_wrong:
        # Lost bits are no cause of values that no rounding explains.
        bits = [replace(f, rank=Rank.RELATION) for f in bits]
    facts = tuple(proofs or [*(s.fact for s in steps), *bits])
    verdict = Verdict.WRONG if proofs else Verdict.IMPRECISE
    changed = [
        replace(f, verdict=verdict, cause=causes[f.case.dtype]) if is_doubtful(f) else f
        for f in findings
    ]
    return changed, facts


def is_doubtful(f: Finding) -> bool:
    """Whether a finding is looked at again."""
    return f.verdict is Verdict.IMPRECISE and f.case.dtype in STEPPED


def measured_step(
    limited: set[str], steps: Sequence[resolution.Steps]
) -> tuple[tuple[str, ...], str]:
    """The steps that may have been named, and the one that was measured."""
    if limited:
        lost = "products" if "weight" in limited else "columns"
        return CLOSE, "weights" if limited == {"weight"} else lost
    if steps:  # every number kept its bits: it is the position alone
        return (), "fractions" if all(s.fixed for s in steps) else "positions"
    return (), ""


def sharpened(
    doubtful: Sequence[Finding], measured: tuple[tuple[str, ...], str]
) -> dict[str, Cause | None]:
    """By dtype, of causes whose bounds are close the one that was measured."""
    close, step = measured
    found: dict[str, Cause | None] = {}
    for dtype in {f.case.dtype for f in doubtful}:
        mine = [f for f in doubtful if f.case.dtype == dtype]
        found[dtype] = mine[0].cause
        if close and any(f.cause is None or f.cause.step not in close for f in mine):
            continue
        likely = [h for h in hypotheses(dtype) if h.cause.step == step]
        fits = next((h for h in likely if nearness(mine, h) >= 0), None)
        if fits is not None:
            found[dtype] = fits.cause
        elif not close and found[dtype] is not None and likely:
            # All numbers kept their bits, so that not everything is rounded.
            alone = [h.cause for h in likely if h.cause.kept == kept_of(mine)]
            found[dtype] = alone[0] if alone else found[dtype]
    return found


def kept_of(findings: Sequence[Finding]) -> str:
    """The format that the bounds named."""
    return findings[0].cause.kept if findings[0].cause is not None else ""


def unlike_rounding(
    runner: Runner, doubtful: Sequence[Finding], dtype: str
) -> list[Fact]:
    """What no rounding does: another power, another scale."""
    call, grads = calls_of(runner)
    if all(f.target == "y" for f in doubtful):
        grads = None
    case = sweeps.drawn(sweeps.Plan(), dtype, 3, "powers")
    facts = list(relations.degrees(call, grads, case, {}).values())
    facts += [f for f in probes.run_all(call, dtype) if f.kind == "acts as"]
    return [f for f in facts if not f.right]


def listed(
    findings: Sequence[Finding], doubtful: Sequence[Finding], dtype: str
) -> list[Fact]:
    """Listed mistakes that explain, to the last bit, what seemed imprecise."""
    unlike, budget = list[Fact](), Budget(RECHECK_PREDICTIONS)
    for target in dict.fromkeys(f.target for f in doubtful):
        found = clues(findings, target, dtype)
        kinds = [m for m in CATALOGUE if (m.kind == "gradients") == (target != "y")]
        fits = (
            m
            for m in kinds
            if found and explains_all(found, (m,), budget) and is_evident(found, (m,))
        )
        named = next(fits, None)
        if named is not None:
            unlike.append(Fact("listed", named.name, {"text": named.text}))
    return unlike
