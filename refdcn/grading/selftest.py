"""The grader graded: every mistake it knows must be caught and named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from refdcn.grading import panel, sweeps
from refdcn.grading.diagnosis import SECONDS, diagnose
from refdcn.grading.explain import explain_precision
from refdcn.grading.grader import Progress, prepare, run
from refdcn.grading.isolation import InProcess
from refdcn.grading.mistakes import CATALOGUE, Mistake
from refdcn.grading.operator import functions
from refdcn.grading.precision import standard
from refdcn.grading.report import Report
from refdcn.grading.verdicts import Verdict


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
    def described(self) -> bool:
        """In words: listed ones that act alike everywhere, or what a probe saw."""
        return bool(self.names) or self.told


def grade_in_process(
    name: str, runner: InProcess, seed: int, dtype: str, seconds: float = SECONDS
) -> Report:
    """A smoke grade of a trusted function, with its diagnosis."""
    cases = prepare(seed, [dtype], "smoke")
    findings = list(run(runner, cases, Progress(0, False)))
    findings += sweeps.run(runner, standard(dtype), seed, dtype)
    explain_precision(findings)
    report = Report(name, seed, "smoke", (dtype,), False, findings, runner.has_grad)
    report.diagnosis = diagnose(runner, findings, seconds)
    return report


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
        place.text,
        d.sentence,
        place.exact,
        place.holds,
        any(rank < 2 for rank, _ in d.ranked),
    )


def pairs(seed: int, n: int, show: bool = False) -> Iterator[Result]:
    """Two mistakes at once, drawn from the catalogue."""
    rng = np.random.default_rng(seed)
    bar = Progress(n, show)
    for _ in range(n):
        a, b = rng.choice(len(CATALOGUE), 2, replace=False)
        bar.step(CATALOGUE[a].name)
        yield examine(CATALOGUE[a], seed, "float32", CATALOGUE[b])
    bar.close()


def self_test(seed: int, every: int = 1, show: bool = False) -> Iterator[Result]:
    """Every `every`-th mistake of the catalogue."""
    chosen = CATALOGUE[::every]
    bar = Progress(len(chosen), show)
    for mistake in chosen:
        bar.step(mistake.name)
        yield examine(mistake, seed)
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
        counts = (
            len(mine),
            sum(r.caught for r in mine),
            sum(r.named for r in mine),
            sum(r.unique for r in mine),
            sum(r.holds for r in mine),
            sum(r.exact for r in mine),
        )
        lines.append(f"| {kind} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


@dataclass
class SelfTest:
    """Everything a self-test found."""

    results: list[Result]
    pairs: list[Result]
    alarms: list[panel.Alarm]
    graded: int

    @property
    def sound(self) -> bool:
        """Every mistake caught, no correct implementation called wrong."""
        caught = all(r.caught for r in (*self.results, *self.pairs))
        return caught and not self.alarms

    def text(self) -> str:
        """The table, what it missed, and the panel's false alarms."""
        lines = [table(self.results), ""]
        for r in self.results:
            if not r.caught:
                lines.append(f"- not caught: {r.mistake.name}")
            elif not r.named:
                lines.append(f"- caught, not named: {r.mistake.name}: {r.sentence}")
            elif not r.unique:
                lines.append(f"- not told apart: {', '.join(r.names)}")
        lines += ["", pairs_text(self.pairs)]
        found = f"{len(self.alarms)} false alarms over {self.graded:,} geometries"
        lines += ["", f"correct implementations ({len(panel.PANEL)}): {found}"]
        lines += [f"false alarm: {a}" for a in self.alarms]
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


def whole(seed: int, level: str = "full") -> SelfTest:
    """Smoke takes every twelfth mistake, the other levels all of them."""
    every, n, two = (12, 300, 4) if level == "smoke" else (1, 5000, 60)
    results = list(self_test(seed, every, show=True))
    both = list(pairs(seed, two, show=True))
    found = [a for a in panel.alarms(seed, n) if isinstance(a, panel.Alarm)]
    return SelfTest(results, both, found, n)
