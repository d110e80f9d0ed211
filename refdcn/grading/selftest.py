"""The grader graded: every mistake it knows must be caught and named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from refdcn.grading import panel
from refdcn.grading.diagnosis import SECONDS, diagnose
from refdcn.grading.explain import explain_precision
from refdcn.grading.grader import Progress, prepare, run
from refdcn.grading.isolation import InProcess
from refdcn.grading.mistakes import CATALOGUE, Mistake
from refdcn.grading.operator import functions
from refdcn.grading.report import Report
from refdcn.grading.verdicts import Verdict


@dataclass
class Result:
    """What grading said of one mistake."""

    mistake: Mistake
    caught: bool
    names: list[str]
    located: str
    sentence: str

    @property
    def named(self) -> bool:
        """Its name is the only one left, or one with the same effect everywhere."""
        return self.mistake.name in self.names

    @property
    def unique(self) -> bool:
        """No other mistake explains all cases."""
        return self.names == [self.mistake.name]


def grade_in_process(
    name: str, runner: InProcess, seed: int, dtype: str, seconds: float = SECONDS
) -> Report:
    """A smoke grade of a trusted function, with its diagnosis."""
    cases = prepare(seed, [dtype], "smoke")
    findings = list(run(runner, cases, Progress(0, False)))
    explain_precision(findings)
    report = Report(name, seed, "smoke", (dtype,), False, findings, runner.has_grad)
    report.diagnosis = diagnose(runner, findings, seconds)
    return report


def examine(mistake: Mistake, seed: int, dtype: str = "float32") -> Result:
    """Grade one mistake; only its own gradient is handed over with it."""
    forward, grad = functions(mistake.edits)
    gradients = mistake.kind == "gradients"
    runner = InProcess(forward, grad if gradients else None)
    report = grade_in_process(mistake.name, runner, seed, dtype)
    d = report.diagnosis
    where = next(iter(d.places.values()), "")
    caught = report.verdict in (Verdict.WRONG, Verdict.IMPRECISE)
    return Result(mistake, caught, d.names, where, d.sentence)


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
        "| kind | mistakes | caught | named | alone | located |",
        "|---|---|---|---|---|---|",
    ]
    kinds = list(dict.fromkeys(r.mistake.kind for r in results))
    for kind in [*kinds, "all"]:
        mine = [r for r in results if kind in ("all", r.mistake.kind)]
        counts = (
            len(mine),
            sum(r.caught for r in mine),
            sum(r.named for r in mine),
            sum(r.unique for r in mine),
            sum(bool(r.located) for r in mine),
        )
        lines.append(f"| {kind} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


@dataclass
class SelfTest:
    """Everything a self-test found."""

    results: list[Result]
    alarms: list[panel.Alarm]
    graded: int

    @property
    def sound(self) -> bool:
        """Every mistake caught, no correct implementation called wrong."""
        return all(r.caught for r in self.results) and not self.alarms

    def text(self) -> str:
        """The table, what it missed, and the panel's false alarms."""
        lines = [table(self.results), ""]
        for r in self.results:
            if not r.caught:
                lines.append(f"not caught: {r.mistake.name}")
            elif not r.named:
                lines.append(f"caught, not named: {r.mistake.name}: {r.sentence}")
            elif not r.unique:
                lines.append(f"not told apart: {', '.join(r.names)}")
        found = f"{len(self.alarms)} false alarms over {self.graded:,} geometries"
        lines += ["", f"correct implementations ({len(panel.PANEL)}): {found}"]
        lines += [f"false alarm: {a}" for a in self.alarms]
        return "\n".join(lines)


def whole(seed: int, level: str = "full") -> SelfTest:
    """Smoke takes every twelfth mistake, the other levels all of them."""
    every, n = (12, 300) if level == "smoke" else (1, 5000)
    results = list(self_test(seed, every, show=True))
    found = [a for a in panel.alarms(seed, n) if isinstance(a, panel.Alarm)]
    return SelfTest(results, found, n)
