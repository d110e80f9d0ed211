"""Which mistake is it: probes first, then the catalogue, alone and combined.

Nothing rests on the catalogue: where no listed mistake fits every element, there is
what the probes recovered, where it fails, and what the smallest failing call has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.diagnosis import (
    changes,
    conditions,
    gradient_probes,
    influence,
    probes,
    relations,
    resolution,
    rules,
    slabs,
    smallest_call,
)
from refdcn.grading.diagnosis.answers import Call, calls_of, results_of
from refdcn.grading.diagnosis.facts import Fact, Place, Rank, distinct
from refdcn.grading.diagnosis.hypotheses import (
    PREDICTIONS,
    Explanation,
    explain,
    still_failing,
)
from refdcn.grading.diagnosis.places import (
    OF_SAMPLES,
    Judged,
    judged_of,
    takes_one_sample,
)
from refdcn.grading.expected.case import Array, Case, Sizes
from refdcn.grading.expected.precision import grid
from refdcn.grading.judging.finding import Finding
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.questions import sweeps
from refdcn.grading.questions.sweeps import Runner

WIDEST_FIRST = "float64", "float32", "float16", "bfloat16"
PROBED = WIDEST_FIRST[:3]  # the probes hand over NumPy's own; else float32
NO_ACCIDENT = 5  # failures that are no accident of what was drawn


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, as records; words/diagnosis.py makes sentences of them."""

    parts: tuple[Explanation, ...] = ()
    facts: tuple[Fact, ...] = ()
    places: tuple[Place, ...] = ()
    needs: Mapping[str, Any] | None = None  # what the smallest failing call has
    only: tuple[str, tuple[str, ...]] | None = None  # the dtype that fails, the others
    dtype: str = ""  # whose results are explained
    probed: str = ""  # the dtype of the probes

    @property
    def survivors(self) -> list[tuple[Mistake, ...]]:
        """What explains every wrong output; empty if one is unexplained."""
        if not self.parts or not all(p.survivors for p in self.parts):
            return []
        combined = product(*(p.survivors[:8] for p in self.parts))
        return [tuple(m for part in c for m in part) for c in combined]

    @property
    def names(self) -> list[str]:
        """The surviving hypotheses by name."""
        return [" + ".join(m.name for m in s) for s in self.survivors]

    @cached_property
    def faults(self) -> list[Fact]:
        """What the probes recovered, the most telling first."""
        return distinct(self.facts)

    @property
    def sound(self) -> list[Fact]:
        """The probes that found what must be."""
        return [f for f in self.facts if f.right]

    @property
    def place(self) -> Place:
        """Of the output whose place says most: y, if there is a rule for it."""
        some = [p for p in self.places if p.kind]
        first = [p for p in some if p.target == "y" and p.ruled]
        some.sort(key=lambda p: (not p.exact, not p.holds))
        return (first + some + [Place("y")])[0]

    def json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "mistakes": self.names,
            "explained": [p.json() for p in self.parts],
            "facts": [f.json() for f in self.faults],
            "sound": [[f.kind, f.subject] for f in self.sound],
            "places": [p.json() for p in self.places],
            "needs": None if self.needs is None else dict(self.needs),
            "only": None if self.only is None else self.only[0],
            "dtype": self.dtype,
            "probed": self.probed,
        }


def diagnose(
    runner: Runner,
    findings: Sequence[Finding],
    known: Sequence[Fact] = (),
    predictions: int = PREDICTIONS,
) -> Diagnosis:
    """Everything that is known of a wrong candidate, beyond what is known already."""
    if not any(f.verdict is Verdict.WRONG for f in findings):
        return Diagnosis(facts=tuple(known))
    facts = [*known, *exchanged_facts(runner, findings)]
    wrong = [f for f in findings if has_numbers(f) and f.verdict is Verdict.WRONG]
    if not wrong or any(f.rank is Rank.WHOLE for f in facts):
        return Diagnosis(facts=tuple(facts))
    dtype = next(d for d in WIDEST_FIRST if d in {f.case.dtype for f in wrong})
    probed = dtype if dtype in PROBED else "float32"
    targets = beyond_grid(wrong)
    for target in targets:
        made = [wrong_values(f) for f in wrong if usable(f, target, dtype)]
        facts += changes.law_of_values(target, made)
    parts = explain(findings, targets, dtype, predictions)
    found = Diagnosis(
        tuple(parts), only=only_dtype(findings), dtype=dtype, probed=probed
    )
    facts += recovered(runner, findings, targets, probed)
    needs, unjudged = None, list[Judged]()
    if not found.survivors:
        needs, more, unjudged = deeper(runner, findings, targets, probed)
        facts += more
    places = tuple(
        place_of(findings, [j for j in unjudged if j.target == target], target, dtype)
        for target in targets
    )
    return replace(found, facts=tuple(facts), needs=needs, places=places)


def exchanged_facts(runner: Runner, findings: Sequence[Finding]) -> list[Fact]:
    """Arguments that the companion takes for one another, where gradients are wrong."""
    bad = [f for f in findings if f.verdict is Verdict.WRONG and f.of_gradients]
    if not bad or not runner.has_grad:
        return []
    dtype = bad[0].case.x.dtype.name
    return gradient_probes.exchanged_arguments(lambda c: results_of(runner, c), dtype)


# What the findings tell ----------------------------------------------------------


def has_numbers(f: Finding) -> bool:
    """A finding with numbers to compare."""
    return f.got is not None and f.computes


def usable(f: Finding, target: str, dtype: str) -> bool:
    """A judged wrong output of one target."""
    same = f.target == target and f.case.dtype == dtype
    return same and f.expected is not None and f.failing is not None


def beyond_grid(wrong: Sequence[Finding]) -> list[str]:
    """The targets that are wrong by more than a normalised grid's rounding.

    That is let pass alone, and is no news beside a mistake; all, if it is all there is.
    """
    by_target: dict[str, list[Finding]] = {}
    for f in wrong:
        by_target.setdefault(f.target, []).append(f)
    kept = [t for t, mine in by_target.items() if not all(map(is_of_grid, mine))]
    return kept or [*by_target]


SLIGHT = 1e-2  # of the largest value: what is further off is no rounding of a grid


def is_of_grid(f: Finding) -> bool:
    """Whether a grid's rounding explains what fails."""
    if not usable(f, f.target, f.case.dtype) or f.case.dtype not in WIDEST_FIRST[:2]:
        return False
    assert f.expected is not None and f.got is not None and f.failing is not None
    want = f.expected.range(f.target)
    if f.got.shape != want.low.shape:
        return False
    off = np.abs(f.got - want.low)[f.failing].max(initial=0.0)
    if not off <= SLIGHT * np.abs(want.low).max(initial=0.0):
        return False
    return (
        still_failing(f, f.expected.under(grid(f.case.dtype)).range(f.target)) is None
    )


def wrong_values(f: Finding) -> changes.Wrong:
    """What came, what must come, and where they differ."""
    assert f.expected is not None and f.got is not None and f.failing is not None
    return f.case, f.got, f.expected.range(f.target).low, f.failing


def only_dtype(findings: Sequence[Finding]) -> tuple[str, tuple[str, ...]] | None:
    """The one dtype that fails, of several that were given the same sorts of call."""
    judged = [f for f in findings if f.case.group == "random"]
    given = {f.case.dtype for f in judged}
    wrong = [f.case.dtype for f in judged if f.verdict is Verdict.WRONG]
    if len(given) < 2 or len(set(wrong)) != 1 or len(wrong) < NO_ACCIDENT:
        return None
    if any(f.verdict is Verdict.IMPRECISE and f.case.dtype != wrong[0] for f in judged):
        return None  # where its errors are small enough to be a rounding's
    return wrong[0], tuple(sorted(given - set(wrong)))


def place_of(
    findings: Sequence[Finding], more: Sequence[Judged], target: str, dtype: str
) -> Place:
    """Where a target fails: over all calls, or where outputs take one sample."""
    mine = [
        judged_of(f)
        for f in findings
        if f.target == target
        and f.expected is not None
        and f.case.dtype == dtype
        and f.computes
        and f.verdict is not Verdict.IMPRECISE  # whose elements are no mistake's
    ]
    mine += more
    found = rules.locate(mine, target)
    if target != "y" or found.exact:
        return found
    single = rules.locate([j for j in mine if takes_one_sample(j)], target)
    of_samples = all(c.op == "is" or c.column in OF_SAMPLES for c in single.rule)
    if single.ruled and of_samples and (single.exact or not found.holds):
        return replace(single, one_sample=True)
    return found


# What calls tell -----------------------------------------------------------------


def recovered(
    runner: Runner, findings: Sequence[Finding], targets: Sequence[str], dtype: str
) -> list[Fact]:
    """What probes read off the candidate."""
    call, grads = calls_of(runner)
    if "y" in targets or grads is None:
        return of_path(probes.run_all(call, dtype), call, findings, dtype)
    found = gradient_probes.images_written(grads, dtype)
    if found:  # what else they hold is another image's
        return found
    found = [
        f
        for f in gradient_probes.gradient_kernels(grads, dtype)
        if f.right or not of_several_images(findings, f.where["target"])
    ]
    lost = gradient_probes.lost_additions(grads, dtype)
    if lost:  # of which the samples beside the one that is swept are some
        found = [f for f in found if f.where.get("target") != "grad_x"]
    found += lost
    return found + list(differences(findings, targets))


def of_several_images(findings: Sequence[Finding], target: str) -> bool:
    """Whether a result is wrong in batches alone, and right for one image.

    Then it is no matter of positions, whatever a probe of many images reads.
    """
    mine = [f for f in findings if f.target == target and f.computes]
    single = [f for f in mine if f.case.sizes.N == 1]
    wrong = any(f.verdict is Verdict.WRONG for f in single)
    return len(single) >= NO_ACCIDENT and not wrong


def of_path(
    facts: list[Fact], call: Call, findings: Sequence[Finding], dtype: str
) -> list[Fact]:
    """What probes saw, with the path of the kernel that is wrong, if one alone is.

    Most probes ask without a mask.
    """
    mine = [f for f in findings if f.target == "y" and f.computes]
    wrong = [f.case for f in mine if f.verdict is Verdict.WRONG]
    right = [f.case for f in mine if f.verdict > Verdict.IMPRECISE]
    path = conditions.path_of(wrong, right)
    seen = not all(f.right for f in facts)
    if not seen and all(c.mask is not None for c in wrong):
        facts = probes.run_all(with_mask(call), dtype)
        path = path or "with a mask"
    elif seen and not path and all(c.mask is None for c in wrong):
        masked = probes.run_all(with_mask(call), dtype)
        path = "without a mask" if all(f.right for f in masked) else ""
    if not path or any(f.subject in path for f in facts if not f.right):
        return facts
    return [
        f if f.right else replace(f, where={**f.where, "path": path}) for f in facts
    ]


def with_mask(call: Call) -> Call:
    """Calls with a mask of ones where they have none."""

    def masked(case: Case) -> Array | None:
        if case.mask is None:
            shape = (*case.offset.shape[:1], case.offset.shape[1] // 2)
            ones = np.ones((*shape, *case.offset.shape[2:]), case.offset.dtype)
            case = replace(case, mask=ones)
        return call(case)

    return masked


def differences(findings: Sequence[Finding], targets: Sequence[str]) -> Iterator[Fact]:
    """How each wrong gradient differs, where the richest failing cases agree."""
    for target in targets:
        mine = [
            f
            for f in findings
            if f.target == target
            and f.got is not None
            and f.case.kind == "bound"
            and f.failing is not None
        ]
        mine.sort(key=lambda f: -int(f.failing.sum() if f.failing is not None else 0))
        facts = [
            gradient_probes.difference_of(target, f.got, f.case)
            for f in mine[:AGREE]
            if f.got is not None
        ]
        found = [f for f in facts if f is not None]
        if found and len({law(f) for f in found}) == 1:
            yield found[0]


AGREE = 4  # cases that must differ from the definition in the same way


def law(f: Fact) -> tuple[str, str]:
    """What two facts have in common that tell of one mistake."""
    names = ("factor", "power", "times", "value")
    m = {k: f.measured[k] for k in names if k in f.measured}
    rounded = {k: round(v, 2) if isinstance(v, float) else v for k, v in m.items()}
    return f.kind, str(rounded)


Deeper = tuple[dict[str, Any] | None, list[Fact], list[Judged]]


def deeper(
    runner: Runner, findings: Sequence[Finding], targets: Sequence[str], dtype: str
) -> Deeper:
    """What no listed mistake explains: sweeps, relations, the smallest call."""
    smallest, unjudged = smallest_failing(runner, findings, targets, dtype)
    own = (smallest.plan,) if smallest is not None else ()
    plans = (influence.READ_PLANS[0], *own, *influence.READ_PLANS[1:])
    related = (relations.RELATED_PLANS[0], *own, *relations.RELATED_PLANS[1:])
    call, grads = calls_of(runner)
    facts = []
    with np.errstate(all="ignore"):
        facts += influence.remembered(call, grads, dtype)
        if "y" in targets:
            plan = smallest.plan if smallest is not None else least_failing(findings)
            facts += probes.as_in_call(call, dtype, plan.N, plan.K_h, plan.K_w)
            far = probes.far_away(call, dtype)
            facts += [f for f in far if begins_there(f, far, findings)]
            facts += slabs.slabs(call, dtype)
            facts += influence.read_sets(call, dtype, plans)
            facts += influence.taint(call, dtype)
            steps = resolution.resolution_facts(call, dtype)
            # Lost bits are no cause of values that no rounding explains.
            facts += [
                replace(f, rank=Rank.RELATION) if f.kind == "bits" else f for f in steps
            ]
        elif grads is not None:  # else what y does wrong, they do wrong
            facts += relations.adjoint(call, grads, dtype)
            facts += influence.stencils(grads, dtype, plans)
        facts += relations.contradictions(call, grads, dtype, related)
    return None if smallest is None else smallest.needs, facts, unjudged


def least_failing(findings: Sequence[Finding]) -> Sizes:
    """The sizes of the smallest call whose y is wrong."""
    wrong = [f for f in findings if f.target == "y" and f.verdict is Verdict.WRONG]
    return min((f.case.sizes for f in wrong), key=lambda z: (z.N, z.K_h * z.K_w))


def begins_there(f: Fact, far: Sequence[Fact], findings: Sequence[Finding]) -> bool:
    """Whether nothing smaller fails than that from which on an image is wrong.

    Rows and columns that begin to be wrong each have their own images.
    """
    sides = {"row": 2, "column": 3}
    bad = [
        g.case.x.shape for g in findings if g.target == "y" and g.failing is not None
    ]
    if f.kind == "late pixels":
        return all(s[2] * s[3] > f.measured["right up to"] for s in bad)
    if f.kind == "late address":
        return all(np.prod(s) > f.measured["right up to"] for s in bad)
    if f.kind == "far line":
        lines = [g for g in far if g.kind == "far line"]
        return all(
            any(s[sides[g.subject]] > g.measured["right up to"] for g in lines)
            for s in bad
        )
    return True


def smallest_failing(
    runner: Runner, findings: Sequence[Finding], targets: Sequence[str], dtype: str
) -> tuple[smallest_call.Smallest | None, list[Judged]]:
    """The smallest failing call; what is tried on the way serves the location."""
    tried: list[Judged] = []
    if dtype == "float16":
        return None, tried
    known = [f for f in findings if f.case.dtype == dtype]
    starts: dict[sweeps.Plan, None] = {}
    for row in sweeps.differing(runner, dtype, known, targets):
        tried.append(judged_sweep(row))
        if tried[-1].bad is not None and row[0].plan is not None:
            starts[row[0].plan] = None
    fails = fails_of(runner, targets)
    smallest = smallest_call.found(fails, iter([*starts][:3]), dtype)
    if smallest is None:
        return None, tried
    for sweep in smallest_call.around(smallest, dtype):
        tried += [judged_sweep(row) for row in sweeps.compared(runner, sweep, targets)]
    return smallest, tried


def judged_sweep(row: tuple[sweeps.Sweep, str, Array, Array]) -> Judged:
    """What came of a call that no bound judges, for the location."""
    sweep, target, got, want = row
    bad = sweeps.unequal(got, want)
    return Judged(sweep.case, target, bad if bad.any() else None, want)


def fails_of(runner: Runner, targets: Sequence[str]) -> smallest_call.SweepFails:
    """Whether a call fails in one of the targets."""

    def fails(sweep: sweeps.Sweep) -> bool:
        if "y" in targets:
            return not sweep.right(runner.call(sweep.case))
        return not sweep.right_gradients(runner.call(sweep.case, "grad"))

    return fails
