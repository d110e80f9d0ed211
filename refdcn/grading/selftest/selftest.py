"""The grader graded: every mistake it knows must be caught and named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from refdcn.grading import grader
from refdcn.grading.catalogue.contract import BREACHES, Breach
from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.mistakes import ALIKE, CATALOGUE
from refdcn.grading.catalogue.precision import COARSE, Coarse
from refdcn.grading.catalogue.steps import functions
from refdcn.grading.diagnosis.facts import Rank
from refdcn.grading.diagnosis.hypotheses import PREDICTIONS
from refdcn.grading.grader import grade, prepare
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.options import Options
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.progress import Progress
from refdcn.grading.report import Report
from refdcn.grading.selftest import panel
from refdcn.grading.selftest.correct import Member
from refdcn.grading.words.diagnosis import conclusion
from refdcn.grading.words.findings import cause
from refdcn.grading.words.findings import said as phrase
from refdcn.grading.words.places import place_text

Row = Mistake | Coarse | Breach
ROWS: list[Row] = [*CATALOGUE, *COARSE, *BREACHES]
PLACELESS = "precision", "contract"  # rounding is everywhere, a breach in the call
ALONE = 0.95  # of the whole catalogue, at least, that one name is left for


@dataclass
class Result:
    """What grading said of one mistake, or of several at once."""

    mistakes: tuple[Mistake, ...]
    caught: bool
    names: list[str]
    located: str
    sentence: str
    exact: bool = False  # the place has no exception
    holds: bool = False  # nothing fails outside of it
    told: bool = False  # a probe says what is done instead

    @property
    def mistake(self) -> Mistake:
        """The first, which is the only one outside of pairs."""
        return self.mistakes[0]

    @property
    def name(self) -> str:
        """As hypotheses are named."""
        return " + ".join(m.name for m in self.mistakes)

    @property
    def named(self) -> bool:
        """Its name is the only one left, or one with the same effect everywhere."""
        mine = {m.name for m in self.mistakes}
        return any(set(n.split(" + ")) == mine for n in self.names)

    @property
    def unique(self) -> bool:
        """No other mistake explains all cases."""
        return self.named and len(self.names) == 1

    @property
    def proven(self) -> bool:
        """Whether no other name is left than of what a test proves to be the same."""
        mine = " + ".join(ALIKE.get(m.name, m.name) for m in self.mistakes)
        return self.named and set(self.names) <= {self.name, mine}

    @property
    def numbered(self) -> bool:
        """Whether the names left differ in a number, which the sentence leaves open."""
        return self.named and len({re.sub(r"\d+", "0", n) for n in self.names}) == 1

    @property
    def described(self) -> bool:
        """In words: listed ones that act alike everywhere, or what a probe saw."""
        return bool(self.names) or self.told


def grade_in_process(
    name: str,
    runner: InProcess,
    seed: int,
    dtype: str,
    predictions: int = PREDICTIONS,
    precision: str | None = None,
) -> Report:
    """A smoke grade of a trusted function, with its diagnosis."""
    options = Options(dtypes=(dtype,), seed=seed, precision=precision)
    return grader.examine(name, runner, options, prepare(options), predictions)


def examine(
    mistake: Mistake, seed: int, dtype: str = "float32", *more: Mistake
) -> Result:
    """Grade one mistake; the gradients are handed over only where they are wrong."""
    mistakes = (mistake, *more)
    forward, grad = functions([e for m in mistakes for e in m.edits])
    gradients = any(m.kind == "gradients" for m in mistakes)
    runner = InProcess(forward, grad if gradients else None)
    report = grade_in_process(mistake.name, runner, seed, dtype)
    d = report.diagnosis
    caught = report.verdict in (Verdict.WRONG, Verdict.IMPRECISE)
    place = d.place
    return Result(
        mistakes,
        caught,
        d.names,
        place_text(place),
        conclusion(d, report.findings),
        place.exact,
        place.holds,
        any(f.rank <= Rank.EFFECT for f in d.faults),
    )


def examine_coarse(row: Coarse, seed: int) -> Result:
    """Grade one lower precision; what the report calls it are its names."""
    forward, grad = functions(row.edits)
    right, _ = functions(())
    pair = (right, grad) if row.gradients else (forward, None)
    runner = InProcess(*pair)
    report = grade_in_process(row.name, runner, seed, row.dtype, precision=row.declared)
    bad = [f for f in report.counted if f.verdict <= Verdict.IMPRECISE]
    said = [row.name if f.cause == row.cause else cause(f) or phrase(f) for f in bad]
    names = list(dict.fromkeys(said))
    caught = report.verdict is Verdict.IMPRECISE
    return Result((row.mistake,), caught, names, "", report.headline())


def examine_breach(row: Breach, seed: int) -> Result:
    """Grade one breach of the contract, in a process of its own."""
    report = grade(row.spec, dtypes=["float32"], seed=seed, **row.options)
    said, mistake = report.headline(), row.mistake
    due = report.verdict is row.verdict and row.text in said
    names = [mistake.name] if due else []
    caught = report.verdict not in (Verdict.PASS, Verdict.CONVENTION)
    return Result((mistake,), caught, names, "", said)


def examine_row(row: Row, seed: int) -> Result:
    """Grade one row of the table."""
    if isinstance(row, Coarse):
        return examine_coarse(row, seed)
    if isinstance(row, Breach):
        return examine_breach(row, seed)
    return examine(row, seed)


def pairs(seed: int, n: int, show: bool = False) -> Iterator[Result]:
    """Two mistakes at once, drawn from the catalogue."""
    rng = np.random.default_rng(seed)
    bar = Progress(n, show)
    for _ in range(n):
        a, b = rng.choice(len(CATALOGUE), 2, replace=False)
        bar.step(CATALOGUE[a].name)
        yield examine(CATALOGUE[a], seed, "float32", CATALOGUE[b])
    bar.close()


def sort(row: Row) -> str:
    """Its kind, and the step that a forward's mistake is made in."""
    if isinstance(row, Mistake) and row.kind != "gradients":
        return f"{row.kind}, {row.edits[0][0]}"
    return kind(row)


def kind(row: Row) -> str:
    """As in the table."""
    return row.kind if isinstance(row, Mistake) else row.mistake.kind


def chosen(every: int, turn: int) -> list[Row]:
    """One row in `every` of each sort, one at least; `turn` says which."""
    sorts: dict[str, list[Row]] = {}
    for row in ROWS:
        sorts.setdefault(sort(row), []).append(row)
    return [
        row
        for rows in sorts.values()
        for row in rows[turn % min(every, len(rows)) :: every]
    ]


def self_test(rows: Sequence[Row], seed: int, show: bool = False) -> Iterator[Result]:
    """Each of the rows graded."""
    bar = Progress(len(rows), show)
    for row in rows:
        bar.step(sort(row))
        yield examine_row(row, seed)
    bar.close()


def table(results: Sequence[Result]) -> str:
    """Caught, named and located, by kind of mistake (Markdown)."""
    lines = [
        "| kind | mistakes | caught | named | alone | located | exactly |",
        "|---|---|---|---|---|---|---|",
    ]
    kinds = list(dict.fromkeys(r.mistake.kind for r in results))
    for kind in [*kinds, "all"]:
        mine = [r for r in results if kind in ("all", r.mistake.kind)]
        counts = [
            len(mine),
            sum(r.caught for r in mine),
            sum(r.named for r in mine),
            sum(r.unique for r in mine),
        ]
        placed = [r for r in mine if r.mistake.kind not in PLACELESS]
        counts += [sum(r.holds for r in placed), sum(r.exact for r in placed)]
        cells = [*map(str, counts[:4]), *(str(c) if placed else "" for c in counts[4:])]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


@dataclass
class SelfTest:
    """Everything a self-test found."""

    results: list[Result]
    pairs: list[Result]
    alarms: list[panel.Alarm]
    graded: int  # geometries
    wholly: list[str] = field(default_factory=list)  # implementations graded whole

    @property
    def sound(self) -> bool:
        """Whether it reaches its aim."""
        return not list(self.shortfalls())

    def shortfalls(self) -> Iterator[str]:
        """What falls short: all caught and named, alone or proven alike; no alarm."""
        for r in self.results:
            if not r.caught:
                yield f"not caught: {r.name}"
            elif not r.named:
                yield f"caught, not named: {r.name}: {r.sentence}"
            elif not r.proven and not r.numbered:
                yield f"not told apart, not proven alike: {', '.join(r.names)}"
        alone = sum(r.unique for r in self.results)
        if len(self.results) == len(ROWS) and alone < ALONE * len(ROWS):
            yield f"one name alone is left for {alone} of {len(ROWS)}"
        for r in self.pairs:
            if not r.caught or not r.described:
                yield f"{'not described' if r.caught else 'not caught'}: {r.name}"
        for a in self.alarms:
            yield f"false alarm: {a.member}, {a.case}: {a.text}"

    def text(self) -> str:
        """The table, what it missed, and the panel's false alarms."""
        lines = [table(self.results), ""]
        lines += [f"- {said}" for said in self.shortfalls()]
        lines += [
            f"- not told apart: {', '.join(r.names)}"
            for r in self.results
            if r.proven and not r.unique
        ]
        lines += [
            f"- no case tells which: {', '.join(r.names)}"
            for r in self.results
            if r.numbered and not r.unique
        ]
        lines += ["", pairs_text(self.pairs)]
        found = f"{len(self.alarms)} false alarms over {self.graded:,} geometries"
        found += f" and {len(self.wholly)} whole grades"
        lines += ["", f"correct implementations ({len(panel.PANEL)}): {found}"]
        return "\n".join(lines)


def pairs_text(results: Sequence[Result]) -> str:
    """One line on pairs."""
    counts = (
        sum(r.caught for r in results),
        sum(r.named for r in results),
        sum(bool(r.names) for r in results),
        sum(r.described for r in results),
        sum(r.holds for r in results),
    )
    return (
        "two mistakes at once, {} pairs drawn: {} caught, {} named as the pair, {} "
        "explained (one may hide the other), {} described, {} located"
    ).format(len(results), *counts)


def alarms_of(found: Iterable[object]) -> list[panel.Alarm]:
    """The false alarms among what a panel's grades came to."""
    return [a for a in found if isinstance(a, panel.Alarm)]


def reduced(seed: int, every: int, geometries: int, two: int, members: int) -> SelfTest:
    """A part of everything that holds each sort of row; the seed turns it on."""
    turning = [panel.MEMBERS[(seed + k) % len(panel.MEMBERS)] for k in range(members)]
    return made(chosen(every, seed), turning, seed, geometries, two)


def made(
    rows: Sequence[Row],
    members: Sequence[Member],
    seed: int,
    geometries: int,
    two: int,
) -> SelfTest:
    """Rows, pairs of mistakes, and correct implementations."""
    results = list(self_test(rows, seed, show=True))
    both = list(pairs(seed, two, show=True))
    found = alarms_of(panel.alarms(seed, geometries))
    found += panel.whole(members, seed)
    names = [one.name for one in members]
    return SelfTest(results, both, found, geometries, names)


def whole(seed: int, level: str = "full") -> SelfTest:
    """Smoke takes a part of everything, the other levels all of it."""
    if level == "smoke":
        return reduced(seed, every=12, geometries=300, two=4, members=2)
    everyone = [*panel.MEMBERS, *panel.others()]
    return made(ROWS, everyone, seed, geometries=5000, two=60)
