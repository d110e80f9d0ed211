"""The catalogue against what came: alone, combined, and what is left over.

How long it is searched is a number of predictions, not of seconds: a busy machine
names the same mistake as an idle one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from refdcn.grading.catalogue.followed import followed
from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.mistakes import CATALOGUE
from refdcn.grading.catalogue.paths import limited
from refdcn.grading.catalogue.steps import (
    State,
    Trail,
    hat,
    landings,
    predict,
    trail,
)
from refdcn.grading.diagnosis.conditions import MOST, fitting
from refdcn.grading.diagnosis.facts import Place, json_value
from refdcn.grading.diagnosis.places import Judged
from refdcn.grading.diagnosis.rules import has_exceptions, locate
from refdcn.grading.expected.case import Array, Case
from refdcn.grading.expected.expectation import Range
from refdcn.grading.expected.precision import grid
from refdcn.grading.judging.distance import outside, within
from refdcn.grading.judging.finding import Finding
from refdcn.grading.judging.verdicts import Verdict

BEAM, DEPTH = 6, 3
RANKED = 3  # clues by which combinations are ranked
UNIT = 50_000.0  # work of a case that counts as one more prediction, of combinations
REFINED = 24  # combinations that are ranked by all of them
PREDICTIONS = 8000  # of the whole search, about half a millisecond each
LEAST = 2000  # of one gradient's, of several; a millisecond each
# A hypothesis must meet so many failing elements, each nearer than a tenth of what it
# is off: by chance that happens once in a million. A hundredth counts as two.
EVIDENCE, NEARER = 6, 10
TRIED = 8  # explanations of y that the gradients choose from
SEVERAL = 2  # failing clues that a mistake of some calls alone must explain
EVIDENT_IN = 40  # clues of which that is asked, the smallest
OFTEN, SMALL = 8, 1e6  # predictions, and their cost, of a case whose states are kept
PLACING = "read", "grid", "position"  # the steps that say where samples lie
GRADIENTS = tuple(f"grad_{name}" for name in ("x", "offset", "weight", "mask", "bias"))
IN_GRADIENTS = "in gradients"  # the kind of a forward's mistake made there alone
Combination = tuple[Mistake, ...]


class Budget:
    """How many predictions are left."""

    def __init__(self, predictions: int, unit: float = np.inf) -> None:
        self.left, self.unit = predictions, unit

    def spent(self, cost: float = 0.0) -> bool:
        """Take one, and more for a case of much work; whether there was none."""
        self.left -= 1 + int(cost / self.unit)
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
    loose: bool = False  # a grid's rounding and any slope at whole numbers are let pass
    asked: int = 0  # how many predictions were made

    @cached_property
    def cost(self) -> float:
        """What a prediction computes: products, and lines of the image a sample."""
        s = self.case.sizes
        return s.N * s.C_in * s.K_h * s.K_w * s.out[0] * s.out[1] * (s.H + s.W)

    @cached_property
    def trail(self) -> Trail:
        """The definition's states, from which predictions go on."""
        return trail(self.case, self.target != "y")

    def predicted(self, edits: Combination) -> Array | None:
        """The output under a hypothesis; None where it computes none."""
        self.asked += 1
        often = self.asked > OFTEN and self.cost < SMALL
        try:
            with np.errstate(all="ignore"):
                steps = [e for m in edits for e in m.edits]
                known = self.trail if often else None
                value = predict(self.case, steps, self.target, known)
        except (ValueError, IndexError, ZeroDivisionError):
            return None
        return value if value.shape == self.got.shape else None

    def fits(self, value: Array) -> Array:
        """The elements that a prediction meets within its bound.

        A mistake can amplify rounding a little, so its own bound is taken as
        four times the definition's, with a floor for what vanishes by it.
        """
        near = np.abs(value - self.got) <= self.room(value)
        return np.asarray(near | (np.isnan(value) & np.isnan(self.got)))

    def room(self, value: Array) -> Array:
        """How far from a prediction its own rounding may lead."""
        bound = self.bound + (self.high - self.low) / 2
        scale = np.abs(value) + np.abs(self.low) + np.abs(bound)
        u = 2.0**-10 if self.case.bfloat16 else float(np.finfo(self.case.x.dtype).eps)
        # Another element's terms bring its rounding along, which the bound of this
        # one, where the definition reads nothing, does not know.
        room = self.bound[np.isfinite(self.bound)].max(initial=0.0)
        room = max(room, 4 * u * np.abs(value[np.isfinite(value)]).max(initial=0.0))
        much = 256 if self.loose else 16  # a sample far outside extrapolates
        return np.asarray(4 * bound + much * u * scale + room)

    def met(self, edits: Combination) -> tuple[int, int, int]:
        """The failing elements, those met so near that it tells, and twice as near."""
        value = None if self.failing is None else self.predicted(edits)
        if value is None or self.failing is None:
            return 0, 0, 0
        off = np.minimum(np.abs(self.got - self.low), np.abs(self.got - self.high))
        asked = self.failing & self.fits(value) & ~self.free(edits)
        met, twice = (
            int((asked & ~(near * np.abs(value - self.got) > off)).sum())
            for near in (NEARER, NEARER**2)
        )
        return int(self.failing.sum()), met, twice

    def moves(self, value: Array, free: Array) -> bool:
        """Whether a prediction leaves the right value wherever the output fails.

        What it does not change it does not explain, however wide its bound is.
        """
        if self.failing is None:
            return True
        # Exact calls have no rounding: what is not the value itself has left it.
        half = self.usual / 2 * (self.case.kind != "exact" or self.loose)
        still = (self.low - half <= value) & (value <= self.high + half)
        return not bool((still & self.failing & ~free).any())

    def tells(self, value: Array) -> Array:
        """Where no value is both a prediction's and a right one."""
        room = self.room(value)
        return np.asarray((value + room < self.low) | (value - room > self.high))

    def free(self, edits: Combination) -> Array:
        """Where a slope at a whole number is any: where none is due, if not loose.

        Of the places where one is due, the range knows all that it may be.
        """
        steps = [e for m in edits for e in m.edits]
        moves = self.loose or any(step in PLACING for step, _ in steps)
        if self.target != "grad_offset" or not moves:
            return np.zeros(self.got.shape, bool)
        whole, moved = landings(self.case, steps)
        at = whole & (moved | self.loose)
        both = np.broadcast_to(at[:, :, :, None], (*at.shape[:3], 2, *at.shape[3:]))
        return both.reshape(self.got.shape)

    def left(self, value: Array, edits: Combination) -> Array:
        """The elements that a prediction does not explain."""
        beyond = np.isnan(value) & any(m.beyond for m in edits)
        left = ~(self.fits(value) | beyond)
        return np.asarray(left & ~self.free(edits) if left.any() else left)

    def share(self, edits: Combination) -> float:
        """The share of elements that fit; 1 only if it explains the output."""
        value = self.predicted(edits)
        if value is None:
            return 0.0
        found = float((~self.left(value, edits)).mean()) if value.size else 1.0
        moves = found < 1 or self.moves(value, self.free(edits))
        return found if moves else float(np.nextafter(1, 0))


def clues(
    findings: Sequence[Finding], target: str, dtype: str, loose: bool = False
) -> list[Clue]:
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
        # What is beyond the usual sums alone is another verdict's.
        failing = f.failing if f.verdict is Verdict.WRONG else None
        if loose:
            want = f.expected.under(grid(dtype)).range(target)
            failing = None if failing is None else still_failing(f, want)
        got = f.got if f.got is not None else (want.low + want.high) / 2
        if np.isfinite(want.bound).all() and got.shape == want.bound.shape:
            exact = f.case.kind == "exact" and not loose  # every bit that differs fails
            usual = 0 * want.low if exact else np.fmin(want.usual, want.bound)
            ends = want.low, want.high, want.bound, usual
            found.append(Clue(f.case, target, got, *ends, failing, loose))
    return sorted(found, key=lambda c: c.failing is None)


def still_failing(f: Finding, want: Range) -> Array | None:
    """What fails beyond the rounding of a grid, too."""
    if f.failing is None or f.got is None or f.got.shape != want.low.shape:
        return None
    room = 4 * want.bound + want.bound[np.isfinite(want.bound)].max(initial=0.0)
    failing = f.failing & ~within(outside(f.got, want), room)
    return failing if failing.any() else None


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
        if budget.spent(few[0].cost):
            break
        first = few[0].share(mistakes)
        scored.append((first, mistakes))
        rest = found[1:]
        if first == 1.0 and (not rest or explains_all(rest, mistakes, budget)):
            alive += [mistakes] * is_evident(found, mistakes)
    if alive:  # how much the others explain is not asked
        return settled(alive), []
    scored.sort(key=lambda pair: -pair[0])
    refined = []
    for first, mistakes in scored[:REFINED]:
        shares = [
            first,
            *(c.share(mistakes) for c in few[1:] if not budget.spent(c.cost)),
        ]
        refined.append((float(np.mean(shares)), mistakes))
    refined.sort(key=lambda pair: -pair[0])
    return [], refined


def settled(alive: list[Combination]) -> list[Combination]:
    """Without what lets something be anything, where another knows what it is.

    As of a memory's end, or of samples on an edge that a grid's rounding moves.
    """
    return [s for s in alive if not any(m.beyond for m in s)] or alive


def explains_all(found: Sequence[Clue], edits: Combination, budget: Budget) -> bool:
    """Whether a combination explains every clue; the definition does not count."""
    return bool(edits) and all(
        not budget.spent(c.cost) and c.share(edits) == 1.0 for c in found
    )


def is_evident(found: Sequence[Clue], edits: Combination) -> bool:
    """Whether it meets more failing elements than chance can, and not a few of many."""
    failing, met, twice = np.sum([c.met(edits) for c in found[:EVIDENT_IN]], 0)
    return bool(met + twice >= EVIDENCE and met >= failing / 10)


def search_catalogue(
    found: Sequence[Clue],
    kinds: Sequence[Mistake],
    budget: Budget,
    given: Combination = (),
    single: Sequence[tuple[float, Combination]] | None = None,
) -> tuple[list[Combination], Combination]:
    """Single mistakes, then the best of them combined; else the best in part.

    `single`: what single ones explain, where that is known already.
    """
    base = float(np.mean([c.share(given) for c in found[:RANKED]]))
    beam: list[Combination] = [given]
    best, most = given, base
    for depth in range(DEPTH):
        alive: list[Combination] = []
        if depth == 0 and single is not None:
            scored = [*single]
        else:
            tried = [
                (*b, m)
                for b in beam
                for m in kinds
                if m.name not in [k.name for k in b]
            ]
            alive, scored = survivors(found, tried, budget)
        if alive:
            return [s[len(given) :] for s in alive], ()
        # What lets anything pass beyond a memory's end explains much by that alone.
        scored = [row for row in scored if not any(m.beyond for m in row[1])]
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
    judged, told = list[Judged](), list[Judged]()
    right, total = 0, 0
    for c in found:
        value = c.predicted((*given, *best))
        if value is None:
            continue
        left = c.left(value, (*given, *best))
        one = Judged(c.case, c.target, left if left.any() else None)
        judged.append(one)
        # What it does not change says nothing of where it is made.
        told.append(one._replace(want=1.0 * c.tells(value)))
        if c.failing is not None:
            right, total = right + int((~left).sum()), total + left.size
    place = locate(judged)
    share = right / max(1, total)
    if not place.ruled or not (place.exact or share > 0.6):
        return None
    limited = right == total and is_likely(found, best)
    if limited and has_exceptions(place.rule, told):
        return None  # it is made there, too: where it is not, the rule does not say
    return Partly(best, share, place, limited)


def in_some_calls(
    found: Sequence[Clue],
    scored: Sequence[tuple[float, Combination]],
    more: Sequence[Clue],
    given: Combination,
    budget: Budget,
) -> list[Combination]:
    """Single mistakes that are made in the calls that meet a condition alone.

    `scored`: what each explains, the most first; `more`: calls in other dtypes.
    """
    failing = [c for c in found if c.failing is not None]
    alive: list[Combination] = []
    for _, edits in scored if len(failing) >= SEVERAL else ():
        m = edits[-1]
        if m.beyond or not explains_all(failing, edits, budget):
            continue
        if not is_evident(failing, edits):
            continue
        others = [c for c in (*found, *more) if c.failing is None]
        right = [c.case for c in others if changes(c, given, edits, budget)]
        wrong = [c.case for c in (*failing, *more) if c.failing is not None]
        for text, holds in fitting(wrong, right)[:MOST]:
            one = limited(m, text, holds)
            if explains_all(found, (*given, one), budget):
                alive.append((one,))
    return alive


def changes(c: Clue, given: Combination, edits: Combination, budget: Budget) -> bool:
    """Whether a hypothesis would make a right output wrong."""
    return not budget.spent() and c.share(edits) < 1 == c.share(given)


def is_likely(found: Sequence[Clue], edits: Combination) -> bool:
    """Whether what is made in some calls alone is no coincidence of several."""
    failing = sum(c.failing is not None for c in found)
    one = len(edits) == 1 and not edits[0].beyond
    return one and failing >= SEVERAL and is_evident(found, edits)


def in_gradients(m: Mistake) -> Mistake:
    """A mistake of the forward, made in the backward alone."""
    return m._replace(kind=IN_GRADIENTS, name=f"{m.name} in the gradients")


def explain(
    findings: Sequence[Finding], targets: Sequence[str], dtype: str, predictions: int
) -> list[Explanation]:
    """y first; what it does to the gradients is known before they are searched."""
    given: Combination = ()
    parts, part = list[Explanation](), None
    if "y" in targets:
        kinds = [m for m in CATALOGUE if m.kind != "gradients"]
        part = explain_one(Sets(findings, "y", dtype), kinds, predictions, ())
        if not part.survivors:  # what follows of it cannot be told from their own
            return [part]
    sets = {t: Sets(findings, t, dtype) for t in targets if t.startswith("grad_")}
    made = [t for t in sets if sets[t].strict]
    if part is not None:
        part, made = told_by_gradients(part, sets, made, predictions)
        parts, given = [part], part.survivors[0]
    shared = of_all_gradients("y" in targets)
    right = [Sets(findings, t, dtype) for t in GRADIENTS if t not in sets]
    if len(made) > 1:
        common = in_all(sets, made, shared, given, Budget(predictions))
        if common:
            one = Explanation(tuple(made), tuple(common))
            sure = without_rivals(one, right, [], given, predictions)
            return [*parts, sure or of_these(one)]
    each = max(LEAST, predictions // max(1, len(made)))
    mine: list[Explanation] = []
    for t in made:
        kinds = [m for m in CATALOGUE if m.name.startswith(f"d {t[5:]} ")]
        known = mine[0].survivors if mine else ()
        known = tuple(s for s in known if of_backward(s, sets[t], given, each))
        if known:  # made in some calls alone, in all gradients
            mine.append(Explanation((t,), known))
            continue
        alone = explained_alone(sets[t], kinds, each, given)
        if alone is not None:
            mine.append(alone)
            continue
        part = explain_one(sets[t], kinds + shared, each, given)
        sure = without_rivals(part, right, kinds, given, predictions)
        if sure is None:  # rather of its own, in some calls alone
            sure = explain_one(sets[t], kinds, each, given, combined=False)
            sure = sure if sure.survivors else of_these(part)
        mine.append(sure if len(made) > 1 else of_these(sure))
    return [*parts, *as_one(mine)]


def explained_alone(
    sets: Sets, kinds: Sequence[Mistake], predictions: int, given: Combination
) -> Explanation | None:
    """A gradient by mistakes of its own, in all calls: then no other row is asked.

    One that all gradients share is the same function in this one, or spoils others;
    not to ask saves most of a search.
    """
    if not sets.strict:
        return None
    one = [(*given, m) for m in kinds]
    alive, _ = survivors(sets.strict, one, Budget(predictions))
    if not alive:
        return None
    targets = tuple(dict.fromkeys(c.target for c in sets.strict))
    return Explanation(targets, tuple(s[len(given) :] for s in alive))


def of_backward(
    found: Combination, sets: Sets, given: Combination, predictions: int
) -> bool:
    """Whether what explains one gradient is no mistake of its own, here, too."""
    own = any(m.kind != IN_GRADIENTS for m in found)
    return not own and follows(sets, (*given, *found), Budget(predictions))


def as_one(parts: Sequence[Explanation]) -> list[Explanation]:
    """Gradients that one mistake explains, each of them in the same calls, as one."""
    names = [{m.name for s in p.survivors if len(s) == 1 for m in s} for p in parts]
    common = set.intersection(*names) if names else set()
    if len(parts) < 2 or not common:
        return [*parts]
    kept = [s for s in parts[0].survivors if len(s) == 1 and s[0].name in common]
    return [Explanation(tuple(t for p in parts for t in p.targets), tuple(kept))]


def of_these(part: Explanation) -> Explanation:
    """Mistakes of the forward that are made in these gradients alone."""
    *some, last = (t[5:] for t in part.targets)
    names = f"{', '.join(some)} and {last}" if some else last
    of = f"{IN_GRADIENTS} of {names}"
    kept = [
        tuple(m._replace(kind=of) if is_shared(m) else m for m in s)
        for s in part.survivors
    ]
    return replace(part, survivors=tuple(kept))


def is_shared(m: Mistake) -> bool:
    """Whether it is made in any gradients, and its words do not say in which."""
    return m.kind == IN_GRADIENTS or (m.kind == "gradients" and m.name[:2] != "d ")


def without_rivals(
    part: Explanation,
    right: Sequence[Sets],
    own: Sequence[Mistake],
    given: Combination,
    predictions: int,
) -> Explanation | None:
    """Without what would make other gradients wrong, which are right.

    None where nothing is left.
    """
    budget, names = Budget(predictions), {m.name for m in own}
    kept = [
        s
        for s in part.survivors
        if all(m.name in names for m in s)
        or all(explains_all(one.strict, (*given, *s), budget) for one in right)
    ]
    if part.survivors and not kept:
        return None
    return replace(part, survivors=tuple(kept))


def told_by_gradients(
    part: Explanation, sets: Mapping[str, Sets], made: list[str], predictions: int
) -> tuple[Explanation, list[str]]:
    """Of what explains y, what leaves the fewest gradients; and those."""
    rows = []
    for one in part.survivors[:TRIED]:
        budget = Budget(predictions)
        ways = one, derived(one), *of_values(one)
        left = [
            t
            for t in made
            if not any(follows(sets[t], way, budget, known=True) for way in ways)
        ]
        rows.append((one, left))
    fewest = min(len(left) for _, left in rows)
    kept = [(one, left) for one, left in rows if len(left) == fewest]
    untried = part.survivors[TRIED:]
    return replace(part, survivors=(*(one for one, _ in kept), *untried)), kept[0][1]


def derived(edits: Combination) -> Combination:
    """The same mistakes with the gradients that follow from the forward."""
    steps = followed([e for m in edits for e in m.edits])
    beyond = any(m.beyond for m in edits)
    return (edits[0]._replace(edits=steps, beyond=beyond),)


def of_values(edits: Combination) -> list[Combination]:
    """The same mistakes in what pixels weigh alone, with the slopes that are due."""
    steps = [e for m in edits for e in m.edits]
    if not any(step == "kernel" for step, _ in steps):
        return []
    beyond = any(m.beyond for m in edits)
    made = (*steps, ("kernel", own_slopes))
    return [(edits[0]._replace(edits=made, beyond=beyond),)]


def own_slopes(s: State) -> None:
    """The definition's slopes where samples are."""
    if (s.ty.shape[-1], s.tx.shape[-1]) == (s.z.H, s.z.W):
        s.sy, s.sx = hat(s.qy, s.z.H)[1], hat(s.qx, s.z.W)[1]


def of_all_gradients(wrong_y: bool) -> list[Mistake]:
    """Mistakes that all gradients share, and, where y is right, the forward's there."""
    shared = [m for m in CATALOGUE if is_shared(m)]
    made = [m for m in CATALOGUE if m.kind != "gradients" and not wrong_y]
    return [*map(in_gradients, made), *shared]


class Sets:
    """The clues of one output: as they are, and with what is let pass."""

    def __init__(self, findings: Sequence[Finding], target: str, dtype: str) -> None:
        self.of = findings, target, dtype

    @cached_property
    def strict(self) -> list[Clue]:
        """Held to the definition's bounds."""
        return clues(*self.of)

    @cached_property
    def others(self) -> list[Clue]:
        """Of other dtypes, whose failing calls tell a condition, too."""
        findings, target, dtype = self.of
        names = {f.case.dtype for f in findings} - {dtype}
        return [c for name in sorted(names) for c in clues(findings, target, name)]

    @cached_property
    def loose(self) -> list[Clue]:
        """Held to a grid's; none where no grid is a convention, or nothing fails."""
        if self.of[2] not in ("float32", "float64"):
            return []
        found = clues(*self.of, loose=True)
        return found if found and found[0].failing is not None else []


def follows(
    sets: Sets, edits: Combination, budget: Budget, known: bool = False
) -> bool:
    """Whether mistakes explain an output, strictly or with what is let pass.

    `known`: another output has the evidence, and few elements may fail in this one.
    """
    return any(
        bool(found)
        and explains_all(found, edits, budget)
        and (known or is_evident(found, edits))
        for found in (sets.strict, sets.loose)
    )


def in_all(
    sets: Mapping[str, Sets],
    left: Sequence[str],
    kinds: Sequence[Mistake],
    given: Combination,
    budget: Budget,
) -> list[Combination]:
    """Single mistakes that explain every gradient that is left."""
    return settled(
        [
            (m,)
            for m in kinds
            if all(follows(sets[t], (*given, m), budget) for t in left)
        ]
    )


def explain_one(
    sets: Sets,
    kinds: Sequence[Mistake],
    predictions: int,
    given: Combination,
    combined: bool = True,
) -> Explanation:
    """The survivors for one output, or what explains most of it."""
    found = sets.strict
    targets = tuple(dict.fromkeys(c.target for c in found))
    if not found:
        return Explanation(targets)
    one = [(*given, m) for m in kinds]
    alive, scored = survivors(found, one, Budget(predictions))
    best: Combination = ()
    rows = [(sets.strict, scored, sets.others)]
    if not alive and sets.loose:  # before two mistakes, whatever they come to
        alive, others = survivors(sets.loose, one, Budget(predictions))
        rows.append((sets.loose, others, []))
    alive = [s[len(given) :] for s in alive]
    for row in rows if not alive else ():
        alive = alive or in_some_calls(*row, given, Budget(predictions))
    if not alive and combined:
        budget = Budget(predictions, UNIT)
        alive, best = search_catalogue(found, kinds, budget, given, scored)
    partly = in_part(found, best, given) if best and not alive else None
    return Explanation(targets, tuple(alive), partly)
