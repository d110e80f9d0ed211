"""The catalogue against what came: alone, combined, and what is left over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.mistakes import CATALOGUE
from refdcn.grading.catalogue.steps import predict
from refdcn.grading.diagnosis.places import Judged, locate
from refdcn.grading.expected.case import Array, Case
from refdcn.grading.judging.finding import Finding

BEAM, DEPTH = 6, 3
Combination = tuple[Mistake, ...]


@dataclass
class Clue:
    """One output of one case: what came, and what would be right."""

    case: Case
    target: str
    got: Array
    want: Array
    bound: Array
    failing: bool

    def fits(self, edits: Sequence[Mistake]) -> Array | None:
        """The elements that a hypothesis predicts within its bound.

        A mistake can amplify rounding a little, so its own bound is taken as
        four times the definition's, with a floor for what vanishes by it.
        """
        try:
            with np.errstate(all="ignore"):
                steps = [e for m in edits for e in m.edits]
                value = predict(self.case, steps, self.target)
        except (ValueError, IndexError, ZeroDivisionError):
            return None
        if value.shape != self.got.shape:
            return None
        scale = np.abs(value) + np.abs(self.want) + np.abs(self.bound)
        u = 2.0**-10 if self.case.bfloat16 else float(np.finfo(self.case.x.dtype).eps)
        allowed = 4 * self.bound + 16 * u * scale
        fits = np.abs(value - self.got) <= allowed
        return np.asarray(fits | (np.isnan(value) & np.isnan(self.got)))

    def share(self, edits: Sequence[Mistake]) -> float:
        """The share of elements that fit."""
        fits = self.fits(edits)
        return 0.0 if fits is None else float(fits.mean()) if fits.size else 1.0


def clues(findings: Sequence[Finding], target: str, dtype: str) -> list[Clue]:
    """The failing outputs, smallest first, then passing ones as a check."""
    mine = [
        f
        for f in findings
        if f.target == target
        and f.case.dtype == dtype
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
            failing = f.failing is not None
            found.append(Clue(f.case, target, got, want.low, bound, failing))
    return found


def cost(case: Case) -> float:
    """What one prediction costs; a thin case says too little to come first."""
    s = case.sizes
    rich = min(s.N, 2) * min(s.K_h, 2) * min(s.K_w, 2) * min(case.y_shape[2:]) > 4
    work = s.N * s.C_in * s.K_h * s.K_w * s.out[0] * s.out[1] * (s.H + s.W)
    return work if rich else work + 1e6


@dataclass
class Found:
    """What explains the wrong outputs `targets`, wholly or in part."""

    targets: list[str]
    survivors: list[Combination] = field(default_factory=list)
    partly: str = ""


def fitting(
    found: Sequence[Clue], candidates: Sequence[Combination], deadline: float
) -> tuple[list[Combination], list[tuple[float, Combination]]]:
    """Those that explain every clue, and all others with the share they explain."""
    survivors, scored, tried = [], [], []
    few = list(found[:3])
    for mistakes in candidates:
        if time.monotonic() > deadline:
            break
        first = few[0].share(mistakes)
        tried.append((first, mistakes))
        if first == 1.0 and all(c.share(mistakes) == 1.0 for c in found):
            survivors.append(mistakes)
    if survivors:  # how much the others explain is not asked
        return survivors, []
    for first, mistakes in tried:
        if time.monotonic() > deadline:
            break
        score = float(np.mean([first, *(c.share(mistakes) for c in few[1:])]))
        scored.append((score, mistakes))
    scored.sort(key=lambda pair: -pair[0])
    return survivors, scored


def search(
    found: Sequence[Clue],
    kinds: Sequence[Mistake],
    seconds: float,
    given: Combination = (),
) -> tuple[list[Combination], Combination]:
    """Single mistakes, then the best of them combined; else the best in part."""
    deadline = time.monotonic() + seconds
    base = float(np.mean([c.share(given) for c in found[:3]]))
    beam: list[Combination] = [given]
    best, most = given, base
    for _ in range(DEPTH):
        tried = [
            (*b, m) for b in beam for m in kinds if m.name not in [k.name for k in b]
        ]
        survivors, scored = fitting(found, tried, deadline)
        if survivors:
            return [s[len(given) :] for s in survivors], ()
        if scored and scored[0][0] > most + 0.1:
            most, best = scored[0]
        beam = [m for score, m in scored[:BEAM] if score > base]
        if not beam or time.monotonic() > deadline:
            break
    return [], best[len(given) :] if most > base + 0.2 else ()


def residual(found: Sequence[Clue], best: Combination, given: Combination) -> str:
    """What a hypothesis explains in part, and where it does not."""
    judged, right, total = [], 0, 0
    for c in found:
        fits = c.fits((*given, *best))
        if fits is None:
            continue
        bad = None if fits.all() else ~fits
        judged.append(Judged(c.case, c.target, bad))
        if c.failing:
            right, total = right + int(fits.sum()), total + fits.size
    place = locate(judged)
    share = right / max(1, total)
    if not place.ruled or not (place.exact or share > 0.6):
        return ""
    text = " and ".join(m.text for m in best)
    if right == total:  # made in the calls that fail, not in others
        rule = place.text.split(" where ", 1)[1].split(", there at ")[0]
        return f"{text}, but not where {rule}"
    where = place.text.replace("it fails", "something else fails")
    return (
        f"of the listed mistakes the nearest is that {text}; with that changed "
        f"{100 * share:.0f} % of the values are right and {where}"
    )


def in_gradients(m: Mistake) -> Mistake:
    """A mistake of the forward, made in the backward alone."""
    name, text = f"{m.name} in the gradients", f"in the gradients, {m.text}"
    return Mistake("gradients", name, text, m.edits)


def explain(
    findings: Sequence[Finding], targets: Sequence[str], dtype: str, seconds: float
) -> list[Found]:
    """y first; what it does to the gradients is known before they are searched."""
    given: Combination = ()
    parts = []
    if "y" in targets:
        kinds = [m for m in CATALOGUE if m.kind != "gradients"]
        part = explain_one(findings, ["y"], dtype, kinds, seconds, ())
        parts.append(part)
        given = part.survivors[0] if part.survivors else ()
        if not given:  # what it does to the gradients cannot be told from their own
            return parts
    left = [t for t in targets if t.startswith("grad_")]
    sets = {t: clues(findings, t, dtype) for t in left}
    left = [t for t in left if sets[t] and not whole(sets[t], given)]
    if not left:
        return parts
    if "y" not in targets and len(left) > 1:
        end = time.monotonic() + seconds
        forward = [in_gradients(m) for m in CATALOGUE if m.kind != "gradients"]
        common = [
            m
            for m in forward
            if time.monotonic() < end and all(whole(sets[t], (m,)) for t in left)
        ]
        if common:
            return [Found(list(left), [(m,) for m in common])]
    for t in left:
        kinds = [m for m in CATALOGUE if m.name.startswith(f"d {t[5:]} ")]
        if "y" not in targets:
            kinds += [in_gradients(m) for m in CATALOGUE if m.kind != "gradients"]
        parts.append(explain_one(findings, [t], dtype, kinds, seconds, given))
    return parts


def whole(found: Sequence[Clue], edits: Combination) -> bool:
    """Whether a combination explains every clue; the definition does not count."""
    return bool(edits) and all(c.share(edits) == 1.0 for c in found)


def explain_one(
    findings: Sequence[Finding],
    targets: list[str],
    dtype: str,
    kinds: Sequence[Mistake],
    seconds: float,
    given: Combination,
) -> Found:
    """The survivors for one output, or what explains most of it."""
    found = clues(findings, targets[0], dtype)
    if not found:
        return Found(targets)
    survivors, best = search(found, kinds, seconds, given)
    partly = residual(found, best, given) if best and not survivors else ""
    return Found(targets, survivors, partly)
