"""What a grade found, as data: verdicts, counts, groups; report.py renders it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from refdcn.grading.diagnosis.diagnosis import Diagnosis
from refdcn.grading.evidence.evidence import Evidence
from refdcn.grading.judging.finding import Finding, Kind
from refdcn.grading.judging.verdicts import EXIT_CODES, INTERRUPTED, Verdict, worst
from refdcn.grading.options import Options
from refdcn.grading.questions.timed import Beside, Timing

HALF = "float16", "bfloat16"


@dataclass(frozen=True)
class Run:
    """The candidate's process, and what was not asked of it."""

    candidate: str
    has_grad: bool = False
    forked: bool = False  # a function of the calling process, which has no name
    imports: tuple[str, ...] = ()  # references it loaded
    confined: bool = False  # whether the grader's memory was closed to it
    threads: int = 0  # left running by its import: each session loads it anew
    left_out: int = 0  # cases not called after repeated deaths
    left_out_gradients: int = 0  # cases whose gradients alone were not asked for
    over_budget: int = 0  # cases not called since the time was spent
    interrupted: bool = False
    timing: Timing | None = None
    device: str = ""  # the name of the one that its tensors are on
    beside: tuple[Beside, ...] = ()


@dataclass(frozen=True)
class Line:
    """The findings of one dtype and one group of cases."""

    dtype: str
    group: str
    findings: tuple[Finding, ...]

    @cached_property
    def verdict(self) -> Verdict:
        """The worst."""
        return worst(f.verdict for f in self.findings)

    @cached_property
    def counts(self) -> dict[Verdict, int]:
        """How often each verdict came, the worst first."""
        return dict(sorted(Counter(f.verdict for f in self.findings).items()))

    def of(self, verdict: Verdict) -> list[Finding]:
        """The findings with one verdict."""
        return [f for f in self.findings if f.verdict is verdict]


@dataclass(frozen=True)
class Compared:
    """How much was compared: arrays, the calls they came from, their numbers."""

    results: int
    calls: int
    numbers: int


@dataclass(frozen=True)
class Record:
    """The verdicts on one candidate."""

    options: Options
    findings: Sequence[Finding] = field(repr=False)
    diagnosis: Diagnosis = field(default_factory=Diagnosis)
    run: Run = field(default_factory=lambda: Run(""))
    smallest: Finding | None = None  # the worst failing case, reduced
    script: str = ""  # which shows it, and was seen to fail
    evidence: Evidence = field(default_factory=Evidence)

    @cached_property
    def lines(self) -> list[Line]:
        """By dtype and group, in the order they were run; a refused dtype is one."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for f in self.findings:
            own = f.of_gradients and f.case.group != "hostile"
            name = f.target if own else f.group
            if f.case.dtype in self.refused:
                name = "all"
            groups.setdefault((f.case.dtype, name), []).append(f)
        return [Line(*key, tuple(found)) for key, found in groups.items()]

    @cached_property
    def refused(self) -> tuple[str, ...]:
        """Dtypes in which every call that must be computed is refused."""
        due = [f for f in self.findings if f.computes]
        kinds: dict[str, set[Kind]] = {}
        for f in due:
            kinds.setdefault(f.case.dtype, set()).add(f.kind)
        return tuple(d for d, k in kinds.items() if k == {Kind.ERROR})

    @cached_property
    def counted(self) -> list[Finding]:
        """The findings that decide the verdict."""
        return [f for f in self.findings if self.counts(f)]

    def counts(self, f: Finding) -> bool:
        """Not: declared gaps, imprecise halves nobody declared, lax hostiles.

        Nor a time that cannot be, where numbers are wrong: it is no time of this work,
        and whether it is too short depends on what else the machine does.
        """
        if f.kind is Kind.TOO_FAST:
            return self.numbers > Verdict.IMPRECISE
        if f.declared or (f.case.group == "hostile" and not self.options.strict):
            return False
        half = f.case.dtype in HALF and self.options.precision is None
        return not (half and f.verdict is Verdict.IMPRECISE)

    @cached_property
    def numbers(self) -> Verdict:
        """The worst that counts, times left out."""
        rest = (f for f in self.findings if f.kind is not Kind.TOO_FAST)
        return worst(f.verdict for f in rest if self.counts(f))

    @cached_property
    def verdict(self) -> Verdict:
        """The worst of the counted ones; nothing, where no number was compared."""
        found = worst(f.verdict for f in self.counted)
        asked = any(f.computes for f in self.findings)
        if asked and not self.compared.numbers and found > Verdict.IMPRECISE:
            return Verdict.NOTHING
        return found

    @property
    def exit_code(self) -> int:
        """Of the worst counted verdict."""
        if self.run.interrupted:
            return INTERRUPTED
        if self.verdict is Verdict.UNCHECKED and self.options.strict:
            return 1
        return EXIT_CODES[self.verdict]

    @cached_property
    def compared(self) -> Compared:
        """What was compared with the definition, hostile inputs left out."""
        return compared(self.findings)

    def worst_of(self, findings: Iterable[Finding]) -> Finding | None:
        """The first finding with the worst verdict, the most telling one first."""
        return min(findings, key=lambda f: f.order, default=None)

    @cached_property
    def accuracy(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """By dtype and result: its errors, counted over distance.EDGES.

        Of data whose sums are rounded; exact data are equal or wrong.
        """
        found: dict[tuple[str, str], tuple[int, ...]] = {}
        for f in self.findings:
            if f.spread and f.case.kind == "bound" and f.case.group != "timed":
                key = f.case.dtype, f.target
                old = found.get(key, (0,) * len(f.spread))
                found[key] = tuple(a + b for a, b in zip(old, f.spread, strict=True))
        return found

    @property
    def candidate(self) -> str:
        """Its name."""
        return self.run.candidate

    @property
    def has_grad(self) -> bool:
        """Whether gradients were asked for."""
        return self.run.has_grad


def compared(findings: Iterable[Finding]) -> Compared:
    """Count findings that compared numbers; some cases are asked more than once."""
    mine = [f for f in findings if f.computes and f.values]
    calls: dict[tuple[int, bool], int] = {}
    asked = Counter((id(f.case), f.of_gradients, f.target) for f in mine)
    for (case, grad, _), n in asked.items():
        calls[case, grad] = max(n, calls.get((case, grad), 0))
    return Compared(len(mine), sum(calls.values()), sum(f.values for f in mine))
