"""The catalogue against what came: alone, combined, and what is left over.

How long it is searched is a number of predictions, not of seconds: a busy machine
names the same mistake as an idle one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.mistakes import CATALOGUE
from refdcn.grading.catalogue.steps import predict
from refdcn.grading.diagnosis.facts import Place, json_value
from refdcn.grading.diagnosis.places import Judged
from refdcn.grading.diagnosis.rules import locate
from refdcn.grading.expected.case import Array, Case
from refdcn.grading.judging.finding import Finding

BEAM, DEPTH = 6, 3
RANKED = 3  # clues by which combinations are ranked
REFINED = 24  # combinations that are ranked by all of them
PREDICTIONS = 8000  # of the whole search, about half a millisecond each
IN_GRADIENTS = "in gradients"  # the kind of a forward's mistake made there alone
Combination = tuple[Mistake, ...]


class Budget:
    """How many predictions are left."""

    def __init__(self, predictions: int) -> None:
        self.left = predictions

    def spent(self) -> bool:
        """Take one; whether there was none."""
        self.left -= 1
        return self.left < 0


@dataclass
class Clue:
    """One output of one case: what came, and what would be right."""

    case: Case
    target: str
    got: Array
    low: Array
    high: Array
    bound: Array  # that a right value keeps
    usual: Array  # that it keeps as a rule
    failing: Array | None

    def predicted(self, edits: Combination) -> Array | None:
        """The output under a hypothesis; None where it computes none."""
        try:
            with np.errstate(all="ignore"):
                steps = [e for m in edits for e in m.edits]
                value = predict(self.case, steps, self.target)
        except (ValueError, IndexError, ZeroDivisionError):
            return None
        return value if value.shape == self.got.shape else None

    def fits(self, value: Array) -> Array:
        """The elements that a prediction meets within its bound.

        A mistake can amplify rounding a little, so its own bound is taken as
        four times the definition's, with a floor for what vanishes by it.
        """
        bound = self.bound + (self.high - self.low) / 2
        scale = np.abs(value) + np.abs(self.low) + np.abs(bound)
        u = 2.0**-10 if self.case.bfloat16 else float(np.finfo(self.case.x.dtype).eps)
        # Another element's terms bring its rounding along, which the bound of this
        # one, where the definition reads nothing, does not know.
        room = bound[np.isfinite(bound)].max(initial=0.0)
        room = max(room, 4 * u * np.abs(value[np.isfinite(value)]).max(initial=0.0))
        near = np.abs(value - self.got) <= 4 * bound + 16 * u * scale + room
        return np.asarray(near | (np.isnan(value) & np.isnan(self.got)))

    def moves(self, value: Array) -> bool:
        """Whether a prediction leaves the right value wherever the output fails.

        What it does not change it does not explain, however wide its bound is.
        """
        if self.failing is None:
            return True
        # Exact calls have no rounding: what is not the value itself has left it.
        half = self.usual / 2 * (self.case.kind != "exact")
        still = (self.low - half <= value) & (value <= self.high + half)
        return not bool((still & self.failing).any())

    def share(self, edits: Combination) -> float:
        """The share of elements that fit; 1 only if it explains the output."""
        value = self.predicted(edits)
        if value is None:
            return 0.0
        found = float(self.fits(value).mean()) if value.size else 1.0
        return found if found < 1 or self.moves(value) else float(np.nextafter(1, 0))


def clues(findings: Sequence[Finding], target: str, dtype: str) -> list[Clue]:
    """The failing outputs, smallest first, then passing ones as a check."""
    mine = [
        f
        for f in findings
        if f.target == target
        and f.case.dtype == dtype
        and f.case.kind in ("bound", "exact")
        and f.expected is not None
        and f.case.x.size  # a mean over no image is NaN or 0, whatever else is wrong
    ]
    found = []
    for f in sorted(mine, key=lambda f: (f.failing is None, prediction_cost(f.case))):
        assert f.expected is not None
        want = f.expected.range(target)
        got = f.got if f.got is not None else (want.low + want.high) / 2
        if np.isfinite(want.bound).all() and got.shape == want.bound.shape:
            exact = f.case.kind == "exact"  # where every bit that differs fails
            usual = 0 * want.low if exact else np.fmin(want.usual, want.bound)
            ends = want.low, want.high, want.bound, usual
            found.append(Clue(f.case, target, got, *ends, f.failing))
    return found


def prediction_cost(case: Case) -> float:
    """What one prediction costs; a thin case says too little to come first."""
    s = case.sizes
    rich = min(s.N, 2) * min(s.K_h, 2) * min(s.K_w, 2) * min(case.y_shape[2:]) > 4
    work = s.N * s.C_in * s.K_h * s.K_w * s.out[0] * s.out[1] * (s.H + s.W)
    return work if rich else work + 1e6


@dataclass(frozen=True)
class Partly:
    """The nearest hypothesis that does not explain all.

    `limited`: it is made wherever anything fails, but not where `place` says; else
    `place` is where something more fails.
    """

    mistakes: Combination
    share: float  # of the values, in the outputs that fail
    place: Place
    limited: bool


@dataclass(frozen=True)
class Explanation:
    """What explains the wrong outputs `targets`, wholly or in part."""

    targets: tuple[str, ...]
    survivors: tuple[Combination, ...] = ()
    partly: Partly | None = None

    def json(self) -> dict[str, object]:
        """For programs."""
        names = [[m.name for m in s] for s in self.survivors]
        found: dict[str, object] = {"targets": list(self.targets), "mistakes": names}
        if self.partly is not None:
            found["nearest"] = [m.name for m in self.partly.mistakes]
            found["share"] = json_value(self.partly.share)
            found["not where" if self.partly.limited else "left"] = (
                self.partly.place.json()
            )
        return found


def survivors(
    found: Sequence[Clue], candidates: Sequence[Combination], budget: Budget
) -> tuple[list[Combination], list[tuple[float, Combination]]]:
    """Those that explain every clue, and all others with the share they explain."""
    alive, scored = [], []
    few = list(found[:RANKED])
    for mistakes in candidates:
        if budget.spent():
            break
        first = few[0].share(mistakes)
        scored.append((first, mistakes))
        if first == 1.0 and explains_all(found[1:], mistakes, budget):
            alive.append(mistakes)
    if alive:  # how much the others explain is not asked
        return alive, []
    scored.sort(key=lambda pair: -pair[0])
    refined = []
    for first, mistakes in scored[:REFINED]:
        shares = [first, *(c.share(mistakes) for c in few[1:] if not budget.spent())]
        refined.append((float(np.mean(shares)), mistakes))
    refined.sort(key=lambda pair: -pair[0])
    return [], refined


def explains_all(found: Sequence[Clue], edits: Combination, budget: Budget) -> bool:
    """Whether a combination explains every clue; the definition does not count."""
    return bool(edits) and all(
        not budget.spent() and c.share(edits) == 1.0 for c in found
    )


def search_catalogue(
    found: Sequence[Clue],
    kinds: Sequence[Mistake],
    budget: Budget,
    given: Combination = (),
) -> tuple[list[Combination], Combination]:
    """Single mistakes, then the best of them combined; else the best in part."""
    base = float(np.mean([c.share(given) for c in found[:RANKED]]))
    beam: list[Combination] = [given]
    best, most = given, base
    for _ in range(DEPTH):
        tried = [
            (*b, m) for b in beam for m in kinds if m.name not in [k.name for k in b]
        ]
        alive, scored = survivors(found, tried, budget)
        if alive:
            return [s[len(given) :] for s in alive], ()
        if scored and scored[0][0] > most + 0.1:
            most, best = scored[0]
        beam = [m for score, m in scored[:BEAM] if score > base]
        if not beam or budget.left <= 0:
            break
    return [], best[len(given) :] if most > base + 0.2 else ()


def in_part(
    found: Sequence[Clue], best: Combination, given: Combination
) -> Partly | None:
    """What a hypothesis explains in part, and where it does not."""
    judged, right, total = [], 0, 0
    for c in found:
        value = c.predicted((*given, *best))
        if value is None:
            continue
        fits = c.fits(value)
        judged.append(Judged(c.case, c.target, None if fits.all() else ~fits))
        if c.failing is not None:
            right, total = right + int(fits.sum()), total + fits.size
    place = locate(judged)
    share = right / max(1, total)
    if not place.ruled or not (place.exact or share > 0.6):
        return None
    return Partly(best, share, place, right == total)


def in_gradients(m: Mistake) -> Mistake:
    """A mistake of the forward, made in the backward alone."""
    return m._replace(kind=IN_GRADIENTS, name=f"{m.name} in the gradients")


def explain(
    findings: Sequence[Finding], targets: Sequence[str], dtype: str, predictions: int
) -> list[Explanation]:
    """y first; what it does to the gradients is known before they are searched."""
    given: Combination = ()
    parts = []
    if "y" in targets:
        found = clues(findings, "y", dtype)
        kinds = [m for m in CATALOGUE if m.kind != "gradients"]
        part = explain_one(found, kinds, Budget(predictions), ())
        parts.append(part)
        given = part.survivors[0] if part.survivors else ()
        if not given:  # what it does to the gradients cannot be told from their own
            return parts
    sets = {t: clues(findings, t, dtype) for t in targets if t.startswith("grad_")}
    budget = Budget(predictions)
    left = [t for t in sets if sets[t] and not explains_all(sets[t], given, budget)]
    if "y" not in targets and len(left) > 1:
        common = in_all(sets, left, Budget(predictions))
        if common:
            return [Explanation(tuple(left), tuple(common))]
    for t in left:
        kinds = [m for m in CATALOGUE if m.name.startswith(f"d {t[5:]} ")]
        if "y" not in targets:
            kinds += [in_gradients(m) for m in CATALOGUE if m.kind != "gradients"]
        parts.append(explain_one(sets[t], kinds, Budget(predictions), given))
    return parts


def in_all(
    sets: dict[str, list[Clue]], left: Sequence[str], budget: Budget
) -> list[Combination]:
    """Mistakes of the forward, made in the backward, that explain every gradient."""
    made = [(in_gradients(m),) for m in CATALOGUE if m.kind != "gradients"]
    return [m for m in made if all(explains_all(sets[t], m, budget) for t in left)]


def explain_one(
    found: Sequence[Clue],
    kinds: Sequence[Mistake],
    budget: Budget,
    given: Combination,
) -> Explanation:
    """The survivors for one output, or what explains most of it."""
    targets = tuple(dict.fromkeys(c.target for c in found))
    if not found:
        return Explanation(targets)
    alive, best = search_catalogue(found, kinds, budget, given)
    partly = in_part(found, best, given) if best and not alive else None
    return Explanation(targets, tuple(alive), partly)
