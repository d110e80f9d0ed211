"""Which mistake is it: probes first, then the catalogue, alone and combined.

Nothing rests on the catalogue: where no listed mistake fits every element, the
sentence says what the probes recovered, where it fails, and what a call must
have to fail.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.diagnosis import (
    changes,
    influence,
    probes,
    relations,
    resolution,
    shrink,
)
from refdcn.grading.diagnosis import places as location
from refdcn.grading.diagnosis.calls import Runner, caller, five
from refdcn.grading.diagnosis.hypotheses import Found, explain
from refdcn.grading.expected.case import NAMES, Array
from refdcn.grading.expected.expectation import TARGETS
from refdcn.grading.expected.precision import Standard
from refdcn.grading.judging.finding import Finding
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.questions import sweeps

SECONDS = 20.0  # for the search of combinations
DTYPES = "float64", "float32", "float16", "bfloat16"
PROBED = DTYPES[:3]  # the probes hand over NumPy's own; else float32
OUTPUTS = "y", *TARGETS
MOST = 10  # probes that are told
SEVERAL = 5  # failures that are no accident of what was drawn
REGION = re.compile("; (?=far outside|between|inside)")


@dataclass
class Diagnosis:
    """What is wrong, in words, and what stands behind it."""

    parts: list[Found] = field(default_factory=list)
    facts: list[probes.Fact] = field(default_factory=list)
    located: dict[str, location.Place] = field(default_factory=dict)
    smallest: str = ""
    alone: str = ""  # the only dtype that fails, if others are graded
    dtype: str = ""  # whose results are explained
    probed: str = ""  # the dtype of the probes
    unjudged: list[location.Judged] = field(default_factory=list, repr=False)

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

    @property
    def ranked(self) -> list[tuple[int, str]]:
        """What the probes recovered, the most telling first."""
        wrong = [f for f in self.facts if not f.right and f.text]
        first = {f.topic: f for f in reversed(wrong)}  # one probe may run twice
        found = {f.text: rank(f) for f in wrong if first[f.topic] is f}
        return sorted(((r, text) for text, r in found.items()), key=lambda p: p[0])

    @property
    def faults(self) -> list[str]:
        """The same without the rank."""
        return [text for _, text in self.ranked]

    @property
    def places(self) -> dict[str, str]:
        """Where each wrong output fails, in words."""
        return {target: place.text for target, place in self.located.items()}

    @property
    def place(self) -> location.Place:
        """Of the output whose place says most."""
        return self.located.get(self.placed, location.Place(""))

    @property
    def placed(self) -> str:
        """That output: y, if there is a rule for it."""
        names = [n for n, p in self.located.items() if p.text]
        if "y" in names and self.located["y"].ruled:
            return "y"
        told = {n: self.located[n] for n in names}
        names.sort(key=lambda n: (not told[n].exact, not told[n].holds))
        return names[0] if names else ""

    @property
    def where(self) -> str:
        """The same in words."""
        return self.place.text

    @property
    def whereabouts(self) -> str:
        """With the output's name, where that is not clear."""
        if self.placed == "y" and len(self.located) == 1:
            return self.where
        return self.where.replace("it fails", f"{self.placed} fails", 1)

    @property
    def sentence(self) -> str:
        """The first line of a report."""
        if self.survivors:
            more = f" {capital(self.alone)}." if self.alone else ""
            return capital(self.named()) + more
        said = [text for rank, text in self.ranked if rank == 0][:2]
        said += [p.partly for p in self.parts if p.partly and len(said) < 2]
        said = said or self.faults[:2]
        said = [brief(text) for text in said]
        said += [more for more in (self.whereabouts, self.smallest, self.alone) if more]
        return " ".join(f"{start(text)}." for text in said)

    def named(self) -> str:
        """The surviving hypotheses in words, one wrong output after another."""
        said = ". Also, ".join(either(p.survivors) for p in self.parts)
        several = len(self.parts) > 1 or len(self.parts[0].survivors[0]) > 1
        changed = "these" if several else "that"
        return f"{said}. With {changed} changed, every element is within the bound."

    def text(self) -> str:
        """Every line."""
        lines = [f"  {name}: {place.told}" for name, place in self.located.items()]
        lines += [f"  smallest: {self.smallest}"] if self.smallest else []
        few = 2 if self.survivors else MOST  # what is named needs no more proof
        lines += [f"  probe: {text}" for text in self.faults[:few]]
        left = len(self.faults) - MOST
        if left > 0 and not self.survivors:
            lines.append(f"  {left} more in the JSON report")
        if self.faults and self.probed != self.dtype:
            lines.append(f"  the probes are in {self.probed}")
        right = [f.topic for f in self.facts if f.right][:12]
        if right:
            lines.append(f"  probes that found nothing wrong: {', '.join(right)}")
        return "\n".join(lines)


def either(survivors: Sequence[Sequence[Mistake]]) -> str:
    """The first explanation, and those that no case tells apart from it."""
    texts = [". Also, ".join(m.text for m in s) for s in survivors]
    first, *others = texts
    if not others:
        return first
    more = f", or one of {len(others) - 2} more" if len(others) > 2 else ""
    return f"{first} (or, as no case here tells apart, {' or '.join(others[:2])}{more})"


VAGUE = "projection on", "no affine function", "no simple order"
UNCLEAR = "another function, or others enter"
RANKS = {  # of what says what happens, then that something does, then where
    "reads of": 1,
    "isolation": 1,
    "halves of": 1,
    "the ": 2,
    "a mask of": 2,
    "a bias of": 2,
    "groups become": 2,
    "share": 1,
    "stencil": 3,
    "adjoint": 3,
}


def rank(fact: probes.Fact) -> int:
    """How little a fact says: 0 names what is done instead."""
    if any(v in fact.text for v in VAGUE):
        return 4
    if UNCLEAR in fact.text:
        return 1
    if "does not follow at" in fact.text:
        return 2
    if fact.text.startswith("grad_y "):  # which elements, not one of them
        return 0
    return next((r for k, r in RANKS.items() if fact.topic.startswith(k)), 0)


def capital(text: str) -> str:
    """With its first letter large."""
    return text[:1].upper() + text[1:]


def start(text: str) -> str:
    """The same, but for the names of arguments and results."""
    word = text.split("[")[0].split(" ")[0].rstrip(":,")
    return text if word in (*OUTPUTS, "grad_y") else capital(text)


def brief(text: str) -> str:
    """The first of several regions that a kernel is wrong in; no example."""
    first, *more = REGION.split(text.split(" (as ")[0])
    return f"{first} (and elsewhere)" if more else first


def alone(findings: Sequence[Finding]) -> str:
    """Whether one dtype fails, of several that were given the same sorts of call."""
    judged = [f for f in findings if f.case.group == "random"]
    given = {f.case.dtype for f in judged}
    wrong = [f.case.dtype for f in judged if f.verdict is Verdict.WRONG]
    if len(given) < 2 or len(set(wrong)) != 1 or len(wrong) < SEVERAL:
        return ""
    others = " and ".join(sorted(given - set(wrong)))
    return f"only {wrong[0]} fails, {others} {'do' if len(given) > 2 else 'does'} not"


def diagnose(
    runner: Runner,
    findings: list[Finding],
    known: Sequence[probes.Fact] = (),
    seconds: float = SECONDS,
) -> Diagnosis:
    """Everything that is known of a wrong candidate, with what is known already."""
    result = Diagnosis()
    result.facts += known
    wrong = [f for f in findings if telling(f) and f.verdict is Verdict.WRONG]
    if not wrong:
        return result
    result.alone = alone(findings)
    dtypes = [f.case.dtype for f in wrong]
    dtype = next(d for d in DTYPES if d in dtypes)
    targets = list(dict.fromkeys(f.target for f in wrong))
    result.parts = explain(findings, targets, dtype, seconds)
    for target in targets:
        made = [wrong_values(f) for f in wrong if usable(f, target, dtype)]
        result.facts += changes.described(target, made)
    result.dtype = dtype
    result.probed = dtype if dtype in PROBED else "float32"
    result.facts += recovered(runner, findings, targets, result.probed)
    if not result.survivors:
        deeper(runner, findings, targets, result)
    for target in targets:
        mine = [j for j in result.unjudged if j.target == target]
        result.located[target] = place(findings, mine, target, dtype)
    return result


def usable(f: Finding, target: str, dtype: str) -> bool:
    """A judged wrong output of one target."""
    same = f.target == target and f.case.dtype == dtype
    return same and f.expected is not None and f.failing is not None


def wrong_values(f: Finding) -> changes.Wrong:
    """What came, what must come, and where they differ."""
    assert f.expected is not None and f.got is not None and f.failing is not None
    return f.case, f.got, f.expected.range(f.target).low, f.failing


def telling(f: Finding) -> bool:
    """A finding with numbers to compare."""
    return f.got is not None and f.case.kind in ("bound", "exact")


def place(
    findings: Sequence[Finding],
    more: Sequence[location.Judged],
    target: str,
    dtype: str,
) -> location.Place:
    """Where a target fails: over all calls, or where outputs take one sample."""
    mine = [
        location.judged_of(f)
        for f in findings
        if f.target == target
        and f.expected is not None
        and f.case.dtype == dtype
        and f.case.kind in ("bound", "exact")
    ]
    mine += more
    found = location.locate(mine)
    if target != "y" or found.exact:
        return found
    single = location.locate([j for j in mine if location.alone(j)])
    if single.holds and (single.exact or not found.holds) and single.ruled:
        return single._replace(text=f"with one tap and one channel, {single.text}")
    return found


def recovered(
    runner: Runner, findings: Sequence[Finding], targets: Sequence[str], dtype: str
) -> list[probes.Fact]:
    """What probes read off the candidate."""
    if "y" in targets:
        call = caller(runner)
        with np.errstate(all="ignore"):
            return probes.run(call, dtype)
    found = probes.gradient_kernels(lambda c: five(runner, c), dtype)
    return found + gradient_facts(findings, targets)


def deeper(
    runner: Runner,
    findings: list[Finding],
    targets: Sequence[str],
    result: Diagnosis,
) -> None:
    """What no listed mistake explains: sweeps, relations, the smallest call."""
    dtype = result.probed
    smallest = reduced(runner, findings, targets, result)
    own = (smallest.plan,) if smallest is not None else ()
    plans = (influence.PLANS[0], *own, *influence.PLANS[1:])
    related = (relations.PLANS[0], *own, *relations.PLANS[1:])
    grads = (lambda c: five(runner, c)) if runner.has_grad else None
    call = caller(runner)
    with np.errstate(all="ignore"):
        result.facts += influence.remembered(call, grads, dtype)
        if "y" in targets:
            if smallest is not None:
                plan = smallest.plan
                result.facts += probes.larger(call, dtype, plan.N, plan.K_h, plan.K_w)
            result.facts += probes.far(call, dtype)
            result.facts += resolution.facts(call, dtype)
            result.facts += influence.read_sets(call, dtype, plans)
            result.facts += influence.taint(call, dtype)
        if grads is not None and targets != ["y"]:
            result.facts += relations.adjoint(call, grads, dtype)
            result.facts += influence.stencils(grads, dtype, plans)
        result.facts += relations.contradictions(call, grads, dtype, related)


def reduced(
    runner: Runner,
    findings: list[Finding],
    targets: Sequence[str],
    result: Diagnosis,
) -> shrink.Smallest | None:
    """The smallest failing call; what is tried on the way serves the location."""
    dtype = result.probed
    if dtype == "float16":
        return None
    known = [f for f in findings if f.case.dtype == dtype]
    starts: dict[sweeps.Plan, None] = {}
    for row in sweeps.differing(runner, dtype, known, targets):
        if unjudged(row, result) and row[0].plan is not None:
            starts[row[0].plan] = None
    smallest = shrink.shrink(fails_of(runner, targets), iter([*starts][:3]), dtype)
    if smallest is None:
        return None
    result.smallest = smallest.text
    for sweep in shrink.around(smallest, dtype):
        for row in sweeps.compared(runner, sweep, targets):
            unjudged(row, result)
    if known:
        findings += sweeps.check(runner, smallest.sweep, standard_of(findings, dtype))
    return smallest


def unjudged(row: tuple[sweeps.Sweep, str, Array, Array], result: Diagnosis) -> bool:
    """Keep what came for the location; whether anything differs."""
    sweep, target, got, want = row
    bad = sweeps.unequal(got, want)
    none = None if not bad.any() else bad
    result.unjudged.append(location.Judged(sweep.case, target, none, want))
    return none is not None


def standard_of(findings: Sequence[Finding], dtype: str) -> Standard:
    """What the candidate is held to in this dtype."""
    held = (f.expected for f in findings if f.case.dtype == dtype)
    return next(e.standard for e in held if e is not None)


def fails_of(runner: Runner, targets: Sequence[str]) -> shrink.Fails:
    """Whether a call fails in one of the targets."""

    def fails(sweep: sweeps.Sweep) -> bool:
        if "y" in targets:
            return not sweep.right(runner.call(sweep.case))
        return not sweep.right_gradients(runner.call(sweep.case, "grad"))

    return fails


def gradient_facts(
    findings: Sequence[Finding],
    targets: Sequence[str],
) -> list[probes.Fact]:
    """How each wrong gradient differs, from the richest failing case."""
    facts = []
    for target in targets:
        mine = [
            f
            for f in findings
            if f.target == target
            and f.target[5:] in NAMES
            and f.got is not None
            and f.case.kind == "bound"
            and f.failing is not None
        ]
        if mine:
            f = max(mine, key=lambda f: int(f.failing is not None and f.failing.sum()))
            assert f.got is not None
            fact = probes.gradient(target[5:], f.got, f.case)
            facts += [fact] if fact else []
    return facts
