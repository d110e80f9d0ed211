"""What a diagnosis says: the mistake in a kernel writer's words, then evidence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.diagnosis.diagnosis import Diagnosis
from refdcn.grading.diagnosis.facts import Fact, Place, Rank
from refdcn.grading.diagnosis.hypotheses import IN_GRADIENTS, Partly
from refdcn.grading.judging.finding import Finding
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.words.facts import (
    brief,
    fact_text,
    format_of,
    names_text,
    number,
    sound_text,
    steps_text,
)
from refdcn.grading.words.places import (
    needs_text,
    place_text,
    rule_text,
    told,
    where_text,
)

NUMBER = re.compile(r"(\d+)")
MOST_WORDS = 30  # of a first sentence, at most
MOST_FACTS = 8  # facts that are told
MOST_SOUND = 12  # of what was found right
MORE_EXPLANATIONS = 2  # explanations beside the first


def conclusion(diagnosis: Diagnosis, findings: Sequence[Finding] = ()) -> str:
    """What the mistake is and where; empty when nothing is known."""
    d = diagnosis
    said = [brief(f) for f in d.faults if f.rank == Rank.WHOLE]
    if any(p.survivors for p in d.parts):
        said += explained_texts(d)
    elif not said:
        said = [*cause_texts(d)] or [*known(d, findings)]
    if d.only is not None and said:
        wrong, others = d.only
        do = "does" if len(others) == 1 else "do"
        said.append(f"only {wrong} fails, {' and '.join(others)} {do} not")
    return " ".join(f"{start(text)}." for text in said)


def explained_texts(d: Diagnosis) -> list[str]:
    """The surviving hypotheses, one wrong output after another."""
    said = []
    made = [p for p in d.parts if p.survivors]
    for part in made:
        first, *others = part.survivors
        texts = dict.fromkeys(" and ".join(map(mistake_text, s)) for s in others)
        texts.pop(" and ".join(map(mistake_text, first)), None)
        mine = [mistake_text(m) for m in first]
        if len(first) == 1:
            mine, texts = of_one_number(mine[0], texts)
        said += mine
        if texts:
            more = [*texts][:MORE_EXPLANATIONS]
            left = len(texts) - len(more)
            more += [f"one of {left} more"] if left else []
            said.append(f"no case here tells it from this: {'; or '.join(more)}")
    said = [*dict.fromkeys(said)]  # of gradients that are each explained by the same
    several = sum(len(p.survivors[0]) for p in made) > 1
    changed = "these" if several else "that"
    if d.survivors:
        return [*said, f"with {changed} changed, every element is within the bound"]
    right = [t for p in made for t in p.targets]
    wrong = [t for p in d.parts if not p.survivors for t in p.targets]
    is_right, is_wrong = (
        "is" if len(names) == 1 else "are" for names in (right, wrong)
    )
    said.append(
        f"with {changed} changed, {names_text(right)} {is_right} within the bound; "
        f"{names_text(wrong)} {is_wrong} not explained by it"
    )
    return said


def of_one_number(
    text: str, others: Iterable[str]
) -> tuple[list[str], dict[str, None]]:
    """Texts that differ in their one number are one; and the texts that are left."""
    parts = NUMBER.split(text)
    alike = [t for t in others if len(parts) == 3 and zeroed(t) == zeroed(text)]
    if alike:
        *some, last = [NUMBER.split(t)[1] for t in (text, *alike)]
        numbers = f"{', '.join(some)} or {last}"
        text = f"{parts[0]}{numbers}{parts[2]} (no case here tells which)"
    return [text], dict.fromkeys(t for t in others if t not in alike)


def zeroed(text: str) -> str:
    """A text whatever its numbers are."""
    return NUMBER.sub("0", text)


def mistake_text(m: Mistake) -> str:
    """The catalogue's words, and where else it is made."""
    if not m.kind.startswith(IN_GRADIENTS):
        return m.text
    of = m.kind.removeprefix(IN_GRADIENTS)
    which = "gradient" if of and " and " not in of else "gradients"
    return f"in the {which}{of}, {m.text}"


def cause_texts(d: Diagnosis) -> Iterator[str]:
    """What is done instead, if any probe says so, and where."""
    limited = [p.partly for p in d.parts if p.partly is not None and p.partly.limited]
    some = [*map(partly_text, limited), *patterns(d.faults)]
    some += [brief(f) for f in d.faults if f.rank == Rank.CAUSE]
    some += [brief(f) for f in d.faults if f.rank == Rank.EFFECT]
    some += [brief(f) for f in d.faults if f.kind == "relation"]
    if not some:
        return
    first = some[0]
    causes = {f.kind for f in d.faults if f.rank <= Rank.CAUSE}
    # Else it follows from the cause, if it is not of sizes that a probe does not vary.
    sure = d.place.exact or not causes or "values" in causes or of_shapes(d.place)
    sure = sure or (d.place.holds and any(map(of_some_values, d.faults)))
    where = located(d.place) if d.places and sure else ""
    path = next((f.where["path"] for f in d.faults if "path" in f.where), "")
    if path and not where and not limited:
        first = f"{path}, {first}"
    if where and len(f"{first}: {where}".split()) <= MOST_WORDS and not limited:
        yield f"{first}: {where}"
        return
    yield first
    if where and not limited:
        yield where


SHAPES = "H = W", "H_out = W_out", "K_h = K_w", "H or W is 1", "an axis unpadded"
# Paths of a kernel that the probes take one of.
PATHS = (
    *("mask given", "bias given", "kernel 3x3", "kernel above 3"),
    *("strides equal", "paddings equal", "dilations equal"),
)


def of_some_values(f: Fact) -> bool:
    """Whether it is a law of x, which no kernel changes: of the values that failed."""
    return f.kind == "acts as" and f.subject == "x" and f.rank == Rank.CAUSE


def of_shapes(place: Place) -> bool:
    """Whether it is of sizes or paths, of which a probe has one."""
    columns = {c.column for c in place.rule}
    return bool(columns) and columns <= {*SHAPES, *PATHS}


def located(place: Place) -> str:
    """The place as a clause of its own, if it is a rule."""
    return where_text(place) if place.ruled else ""


def known(d: Diagnosis, findings: Sequence[Finding]) -> Iterator[str]:
    """Where nothing says what is done: what fails, how often and how far off."""
    if not d.places:
        return
    place = d.place
    wrong = [f for f in findings if f.verdict is Verdict.WRONG]
    mine = [f for f in wrong if f.target == place.target and f.failing is not None]
    ratio = max((f.ratio for f in mine), default=0.0)
    off = f", by up to {ratio:.3g} times the bound" if 1 < ratio < float("inf") else ""
    calls, of = place.calls
    if place.ruled or place.kind == "everywhere":
        yield place_text(place, place.target) + off
    else:
        values = f"{place.failing} of {place.within} values, in {calls} of {of} calls"
        yield f"{place.target} is wrong at {values}{off}"
    partly = [p.partly for p in d.parts if p.partly is not None]
    yield from map(partly_text, partly[:1])
    yield from (fact_text(f) for f in d.faults if f.kind == "nearly")
    if not partly:
        yield "no listed mistake and no probe explains it"


# Several facts that are one mistake ----------------------------------------------


def patterns(faults: Sequence[Fact]) -> Iterator[str]:
    """Facts that together say more than each."""
    by_subject = {(f.kind, f.subject): f for f in faults if not f.where.get("axis")}
    dy, dx = (by_subject.get(("acts as", name)) for name in ("dy", "dx"))
    if dy is not None and dx is not None:
        yield from both_axes(dy, dx)
    row, column = (by_subject.get(("taps", name)) for name in ("row", "column"))
    steps = [f for f in faults if f.kind == "step" and f.measured["fixed"]]
    if len({str(f.measured["at"]) for f in steps}) == 1 < len(steps):
        yield steps_text(steps[0])
    floats = [f for f in faults if f.kind == "step" and not f.measured["fixed"]]
    if len(floats) > 1 and len(kept := {format_of(f) for f in floats} - {""}) == 1:
        yield f"positions are in {kept.pop()}, rows and columns"
    scaled = [f for f in (row, column) if f is not None and "scale" in f.measured]
    if scaled:
        yield grid_text(scaled)
    for f in faults:
        if f.kind in ("values", "lost additions"):
            yield brief(f)
        if f.kind == "sum" and f.measured["smaller"] > 0.9:
            yield f"additions to {f.subject} are lost where several meet at one element"


def both_axes(dy: Fact, dx: Fact) -> Iterator[str]:
    """What is done to dy and dx alike."""
    a, b = dy.measured, dx.measured
    if {"scale", "shift"} <= a.keys() & b.keys():
        if a["scale"] == b["scale"] == a["shift"] == b["shift"] == 0:
            yield "offsets are ignored: this is a plain convolution"
        elif abs(a["scale"] - b["scale"]) < 1e-3 and a["shift"] == b["shift"] == 0:
            yield f"offsets are multiplied by {number(a['scale'])}"
    elif "limits" in a and a["limits"] == b.get("limits"):
        low, high = map(number, a["limits"])
        yield f"offsets are clipped to [{low}, {high}]"


def grid_text(scaled: Sequence[Fact]) -> str:
    """A grid that is scaled as by the wrong align_corners."""
    names = {"row": "H", "column": "W"}
    ways: tuple[tuple[str, float | None, str], ...] = (
        ("n / (n - 1)", -0.5, "made for align_corners=True and sampled with False"),
        ("(n - 1) / n", None, "made for align_corners=False and sampled with True"),
    )
    for ratio, by, text in ways:
        if all(f.measured["scale"] == ratio and is_shifted(f, by) for f in scaled):
            along = f"along {scaled[0].subject}s " * (len(scaled) == 1)
            return f"{along}the grid is {text}"
    ratios = [f.measured["scale"].replace("n", names[f.subject]) for f in scaled]
    shifts = {f.measured["shift"] for f in scaled}
    shift = f" and shifted by {number(shifts.pop())}" if len(shifts) == 1 else ""
    shift = "" if shift.endswith(" 0") else shift
    all_of = " and ".join(ratios)
    return f"the grid is scaled by {all_of}{shift}: align_corners is read wrongly"


def is_shifted(f: Fact, by: float | None) -> bool:
    """Whether a scaled grid is shifted so far; None: by half of its own scale."""
    n = f.where["image"][f.subject != "row"]
    due = (n - 1) / n / 2 if by is None else by
    return bool(abs(f.measured["shift"] - due) < 1e-3)


# Evidence ------------------------------------------------------------------------


def evidence(diagnosis: Diagnosis) -> list[str]:
    """What the conclusion rests on, a line each."""
    d = diagnosis
    lines = [f"{p.target}: {told(p)}" for p in d.places if p.kind]
    lines += [f"smallest: {needs_text(d.needs)}"] if d.needs is not None else []
    faults = relevant(d)
    lines += [f"probe: {fact_text(f)}" for f in faults]
    if not d.survivors:
        parts = [p.partly for p in d.parts if p.partly is not None]
        lines += [f"nearest: {partly_text(p)}" for p in parts if not p.limited]
    if faults and d.probed != d.dtype and d.probed:
        lines.append(f"the probes are in {d.probed}")
    sound = [*dict.fromkeys(sound_text(f) for f in d.sound if not contradicted(f, d))]
    if sound and not d.survivors:
        lines.append(f"found right: {'; '.join(sound[:MOST_SOUND])}")
    return lines


IMAGES = "batch", "isolation"  # what one image does to another


def contradicted(f: Fact, d: Diagnosis) -> bool:
    """Whether something else says that what was found right is wrong.

    It was found so in the calls of one probe.
    """
    if any(f.subject == bad.subject for bad in d.faults):
        return True
    if f.kind in IMAGES or f.subject == "images reversed":
        return any(bad.kind in IMAGES for bad in d.faults)
    return f.kind == "adjoint" and any(f.subject == p.target for p in d.places)


TELLING = "batch", "isolation", "sum"  # beside any cause


def relevant(d: Diagnosis) -> list[Fact]:
    """The facts that say most; what follows from them is left out."""
    faults = d.faults
    if d.survivors:  # what is named needs no more proof
        return faults[:2]
    if faults and faults[0].rank == Rank.WHOLE:
        return faults[:1]
    best = faults[0].rank if faults else Rank.VAGUE
    least = best if best == Rank.CAUSE else max(best + 1, Rank.EFFECT)
    found = [f for f in faults if f.rank <= least or f.kind in TELLING]
    return found[:MOST_FACTS]


def partly_text(p: Partly) -> str:
    """What the nearest hypothesis explains, and where it does not."""
    text = " and ".join(map(mistake_text, p.mistakes))
    if p.limited:
        return f"{text}, but not where {rule_text(p.place)}"
    share = 100 * p.share if isfinite(p.share) else 0
    where = place_text(p.place, "something else")
    return (
        f"of the listed mistakes the nearest is that {text}; with that changed "
        f"{share:.0f} % of the values are right and {where}"
    )


ARGUMENTS = "y", "grad_x", "grad_offset", "grad_weight", "grad_mask", "grad_bias"


def start(text: str) -> str:
    """With a capital, but for the names of results."""
    word = text.split("[")[0].split(" ")[0].rstrip(":,")
    return text if word in (*ARGUMENTS, "grad_y") else text[:1].upper() + text[1:]
