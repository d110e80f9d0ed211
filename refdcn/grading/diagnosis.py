"""Which mistake is it: probes first, then the catalogue, alone and combined."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from refdcn.grading import location, probes
from refdcn.grading.cases import Array, Case
from refdcn.grading.isolation import InProcess, Process
from refdcn.grading.judge import Finding
from refdcn.grading.mistakes import CATALOGUE, Mistake
from refdcn.grading.operator import predict
from refdcn.grading.verdicts import Verdict

Runner = Process | InProcess
SECONDS = 20.0  # for the search of combinations
BEAM, DEPTH = 6, 3


@dataclass
class Diagnosis:
    """What is wrong, in words, and what stands behind it."""

    survivors: list[tuple[Mistake, ...]] = field(default_factory=list)
    facts: list[probes.Fact] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The surviving hypotheses by name."""
        return [" + ".join(m.name for m in s) for s in self.survivors]

    @property
    def sentence(self) -> str:
        """The first line of a report."""
        faults = [f.text for f in self.facts if not f.right and f.text]
        faults.sort(key=lambda text: "its projection on" in text)
        if self.survivors:
            texts = [" and ".join(m.text for m in s) for s in self.survivors]
            said = " or ".join(texts[:3])
            said = f"{said}. With that changed, every element is within the bound."
            if len(texts) > 1:
                said += f" ({len(texts)} mistakes that no case here tells apart.)"
        elif faults:
            said = f"{faults[0]}."
        else:
            said = ""
        where = next(iter(self.places.values()), "")
        said = said[:1].upper() + said[1:]
        if where and not self.survivors:
            said = f"{said} {where[:1].upper()}{where[1:]}.".strip()
        return said

    def text(self) -> str:
        """Every line."""
        lines = [f"  {target}: {where}" for target, where in self.places.items()]
        lines += [f"  probe: {f.text}" for f in self.facts if not f.right]
        right = [f.topic for f in self.facts if f.right]
        if right:
            lines.append(f"  probes that found nothing wrong: {', '.join(right)}")
        return "\n".join(lines)


@dataclass
class Clue:
    """One output of one case: what came, and what would be right."""

    case: Case
    target: str
    got: Array
    want: Array
    bound: Array

    def share(self, edits: Sequence[Mistake]) -> float:
        """The share of elements that a hypothesis predicts within its bound.

        A mistake can amplify rounding a little, so its own bound is taken as
        four times the definition's, with a floor for what vanishes by it.
        """
        try:
            with np.errstate(all="ignore"):
                steps = [e for m in edits for e in m.edits]
                value = predict(self.case, steps, self.target)
        except (ValueError, IndexError, ZeroDivisionError):
            return 0.0
        if value.shape != self.got.shape:
            return 0.0
        scale = np.abs(value) + np.abs(self.want) + np.abs(self.bound)
        u = float(np.finfo(self.case.x.dtype).eps)
        allowed = 4 * self.bound + 16 * u * scale
        fits = np.abs(value - self.got) <= allowed
        fits |= np.isnan(value) & np.isnan(self.got)
        return float(fits.mean()) if fits.size else 1.0


def clues(findings: Sequence[Finding], target: str, dtype: str) -> list[Clue]:
    """The failing outputs, smallest first, then passing ones as a check."""
    mine = [
        f
        for f in findings
        if f.target == target
        and f.case.x.dtype.name == dtype
        and f.case.kind in ("bound", "exact")
        and f.expected is not None
    ]
    found = []
    for f in sorted(mine, key=lambda f: (f.failing is None, cost(f.case))):
        assert f.expected is not None
        want = f.expected.range(target)
        got = f.got if f.got is not None else (want.low + want.high) / 2
        bound = want.bound + (want.high - want.low) / 2
        if np.isfinite(bound).all() and got.shape == bound.shape:
            found.append(Clue(f.case, target, got, want.low, bound))
    return found


def cost(case: Case) -> float:
    """What one prediction costs; a thin case says too little to come first."""
    s = case.sizes
    rich = min(s.N, 2) * min(s.K_h, 2) * min(s.K_w, 2) * min(case.y_shape[2:]) > 4
    work = s.N * s.C_in * s.K_h * s.K_w * s.out[0] * s.out[1] * (s.H + s.W)
    return work if rich else work + 1e6


def fitting(
    found: Sequence[Clue], candidates: Sequence[Sequence[Mistake]], deadline: float
) -> tuple[list[tuple[Mistake, ...]], list[tuple[float, tuple[Mistake, ...]]]]:
    """Those that explain every clue, and all others with the share they explain."""
    survivors, scored = [], []
    few = found[:3]
    for mistakes in candidates:
        if time.monotonic() > deadline:
            break
        first = few[0].share(mistakes)
        if first == 1.0 and all(c.share(mistakes) == 1.0 for c in found):
            survivors.append(tuple(mistakes))
        elif len(few) > 0:
            score = float(np.mean([first, *(c.share(mistakes) for c in few[1:])]))
            scored.append((score, tuple(mistakes)))
    scored.sort(key=lambda pair: -pair[0])
    return survivors, scored


def search(
    found: Sequence[Clue],
    kinds: Sequence[Mistake],
    seconds: float,
) -> list[tuple[Mistake, ...]]:
    """Single mistakes, then the best of them combined with others."""
    deadline = time.monotonic() + seconds
    base = float(np.mean([c.share(()) for c in found[:3]]))
    beam: list[tuple[Mistake, ...]] = [()]
    for _ in range(DEPTH):
        tried = [
            (*b, m) for b in beam for m in kinds if m.name not in [k.name for k in b]
        ]
        survivors, scored = fitting(found, tried, deadline)
        if survivors:
            return survivors
        beam = [m for score, m in scored[:BEAM] if score > base]
        if not beam:
            return []
    return []


def diagnose(
    runner: Runner,
    findings: Sequence[Finding],
    seconds: float = SECONDS,
) -> Diagnosis:
    """Everything that is known of a wrong candidate."""
    result = Diagnosis()
    recheck(runner, findings)
    wrong = [
        f
        for f in findings
        if f.verdict is Verdict.WRONG
        and f.got is not None
        and f.case.kind in ("bound", "exact")
    ]
    if not wrong:
        return result
    dtypes = [f.case.x.dtype.name for f in wrong]
    dtype = next(d for d in ("float64", "float32", "float16") if d in dtypes)
    targets = list(dict.fromkeys(f.target for f in wrong))
    for target in targets:
        judged = [
            f
            for f in findings
            if f.target == target
            and f.expected is not None
            and f.case.x.dtype.name == dtype
            and f.case.kind in ("bound", "exact")
        ]
        result.places[target] = location.locate(judged)
    target = "y" if "y" in targets else targets[0]
    kinds = [m for m in CATALOGUE if (m.kind == "gradients") == (target != "y")]
    if target != "y":
        kinds = [m for m in kinds if m.name.startswith(f"d {target[5:]} ")]
    found = clues(findings, target, dtype)
    if target == "y":
        result.facts = probes.run(lambda case: answer(runner, case), dtype)
    else:
        result.facts = probes.gradient_kernels(lambda c: five(runner, c), dtype)
        result.facts += gradient_facts(findings, targets)
    if found:
        result.survivors = search(found, kinds, seconds)
    return result


def answer(runner: Runner, case: Case) -> Array | None:
    """The candidate's y, or None when it gives none."""
    outcome = runner.call(case)
    y = outcome.results[0] if outcome.status == "ok" and outcome.results else None
    if not isinstance(y, np.ndarray) or y.shape != case.y_shape:
        return None
    return y.astype(np.float64)


def recheck(runner: Runner, findings: Sequence[Finding]) -> None:
    """A low precision does not scale, nor act as a mistake does to the last bit."""
    doubtful = [
        f
        for f in findings
        if f.verdict is Verdict.IMPRECISE
        and f.target == "y"
        and f.case.x.dtype.name != "float16"
    ]
    if not doubtful:
        return
    dtype = doubtful[0].case.x.dtype.name
    kinds = [(m,) for m in CATALOGUE if m.kind != "gradients"]
    found = clues(findings, "y", dtype)
    named = found and fitting(found, kinds, time.monotonic() + SECONDS)[0]
    facts = probes.run(lambda case: answer(runner, case), dtype)
    scaled = [re.search(r"acts as -?[\d.]+ v", f.text) for f in facts if not f.right]
    if named or any(scaled):
        for f in doubtful:
            f.verdict = Verdict.WRONG


def five(runner: Runner, case: Case) -> list[Array | None] | None:
    """The candidate's gradients, or None when it gives none."""
    outcome = runner.call(case, "grad")
    if outcome.status != "ok" or len(outcome.results) != 5:
        return None
    likes = zip(outcome.results, case.inputs, strict=True)
    fits = all(
        b is None or (isinstance(a, np.ndarray) and a.shape == b.shape)
        for a, b in likes
    )
    return list(outcome.results) if fits else None


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
