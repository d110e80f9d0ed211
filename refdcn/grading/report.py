"""What a grade says: one sentence, one line a group, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from shlex import quote
from typing import Any

from refdcn.grading.diagnosis.diagnosis import Diagnosis
from refdcn.grading.judging.judge import Finding
from refdcn.grading.judging.verdicts import EXIT_CODES, Verdict, worst
from refdcn.grading.process.inside.candidates import own
from refdcn.grading.script import reproduction
from refdcn.grading.words.diagnosis import conclusion, evidence

HALF = "float16", "bfloat16"


def hostile_text(f: Finding) -> str:
    """What an input that is not finite, or far away, does."""
    what = f.case.note
    text = f.text.removeprefix(f"{what}: ").rstrip(".")
    finite = "nan" not in what and "inf" not in what
    if f.verdict is Verdict.WRONG and not finite:
        return f"By its own convention for {what}, {text}."
    return f"With {what}: {text}."


@dataclass
class Line:
    """The findings of one dtype and one group of cases."""

    dtype: str
    group: str
    findings: list[Finding]

    @property
    def verdict(self) -> Verdict:
        """The worst."""
        return worst(f.verdict for f in self.findings)

    @property
    def detail(self) -> str:
        """What stands behind the verdict."""
        verdict = self.verdict
        if verdict is Verdict.PASS:
            values = sum(f.values for f in self.findings)
            if self.group == "malformed":
                return "wrong shapes are refused"
            if self.group == "exact":
                return f"0 of {values:,} values differ"
            ratio = max(f.ratio for f in self.findings)
            return "; ".join([f"at most {ratio:.2f} of the bound", *self.choices])
        texts = [f.text for f in self.findings if f.verdict is verdict]
        distinct = list(dict.fromkeys(texts))
        if verdict is Verdict.CONVENTION:
            return "; ".join(distinct)
        kept = [f.text for f in self.findings if f.verdict is Verdict.CONVENTION]
        return "; ".join([*distinct[:1], *dict.fromkeys(kept)])

    @property
    def choices(self) -> list[str]:
        """Which sides it takes, where all are the usual ones."""
        made = [f"{f.choice[0]}: {f.choice[1]}" for f in self.findings if f.choice]
        return list(dict.fromkeys(made))

    def text(self) -> str:
        """One line."""
        verdict = self.verdict
        counted = sum(f.verdict is verdict for f in self.findings)
        cases = f"{counted}/{len(self.findings)}"
        return (
            f"{self.dtype:<9}{self.group:<12}{str(verdict):<12}{cases:>8}"
            f"  {self.detail}"
        )


@dataclass
class Report:
    """The verdicts on one candidate; `text()`, `json()`, `exit_code`."""

    candidate: str
    seed: int
    level: str
    dtypes: tuple[str, ...]
    strict: bool
    findings: list[Finding]
    has_grad: bool = False
    precision: str | None = None
    diagnosis: Diagnosis = field(default_factory=Diagnosis)
    array: str = "numpy"
    conventions: tuple[str, ...] = ()  # declared, "border=inside"
    imports: list[str] = field(default_factory=list)  # references it loaded
    confined: bool = False  # whether the grader's memory was closed to it
    left_out: int = 0  # cases not called after repeated deaths
    left_out_gradients: int = 0  # cases whose gradients alone were not asked for
    timing: str = ""
    smallest: Finding | None = None

    @property
    def lines(self) -> list[Line]:
        """By dtype and group, in the order they were run."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for f in self.findings:
            name = f.target if f.target.startswith("grad") else f.case.group
            groups.setdefault((f.case.dtype, name), []).append(f)
        return [Line(*key, found) for key, found in groups.items()]

    @property
    def counted(self) -> list[Finding]:
        """The findings that decide the verdict."""
        return [f for f in self.findings if self.counts(f)]

    def counts(self, f: Finding) -> bool:
        """Not: declared gaps, imprecise halves nobody declared, lax hostiles."""
        if f.declared or (f.case.kind == "hostile" and not self.strict):
            return False
        half = f.case.dtype in HALF and self.precision is None
        return not (half and f.verdict is Verdict.IMPRECISE)

    @property
    def verdict(self) -> Verdict:
        """The worst of the counted ones."""
        return worst(f.verdict for f in self.counted)

    @property
    def exit_code(self) -> int:
        """Of the worst counted verdict."""
        return EXIT_CODES[self.verdict]

    def worst_of(self, findings: Iterable[Finding]) -> Finding | None:
        """The first finding with the worst verdict, the most failing one first."""
        return min(findings, key=lambda f: (f.verdict, -f.ratio), default=None)

    @property
    def sentence(self) -> str:
        """The verdict as one sentence, and what hostile inputs do."""
        said = self.headline()
        for cause in dict.fromkeys([*self.uncounted_causes(), *self.remarks()]):
            said += f" {cause}"
        hostile = [f for f in self.findings if f.case.kind == "hostile"]
        found = self.worst_of(hostile)
        worse = found is not None and found.verdict < self.verdict
        if found is not None and worse and found.verdict < Verdict.CONVENTION:
            said += f" {hostile_text(found)}"
            said += "" if self.strict else " Not counted without --strict."
        return said

    def uncounted_causes(self) -> Iterator[str]:
        """What is named without deciding: conventions, halves, declared gaps."""
        wrong = self.verdict <= Verdict.WRONG
        for f in self.findings:
            name = f.case.dtype
            if f.case.kind == "hostile":
                continue
            if f.declared:
                yield f"Declared {'convention' if f.choice else 'gap'}: {f.text}."
            elif wrong:
                continue  # what else shows may be the same mistake's work
            elif f.verdict is Verdict.CONVENTION:
                yield f"Convention: {f.cause or f.text}."
            elif f.verdict is Verdict.IMPRECISE and not self.counts(f):
                cause = f.cause or "less accurate than float32 intermediates allow"
                yield f"Imprecise in {name}, not counted: {cause}."

    def remarks(self) -> Iterator[str]:
        """What the candidate's process did beside answering."""
        for name in self.imports:
            if not own(self.candidate, name):
                yield f"It loads {name}, whose operator it may be calling."
        if self.left_out:
            yield f"{self.left_out} cases were left out after repeated deaths."
        if self.left_out_gradients:
            n = self.left_out_gradients
            yield f"The gradients of {n} cases were left out after repeated deaths."

    def headline(self) -> str:
        """The counted verdict."""
        f = self.worst_of(self.counted)
        n = len(self.counted)
        if f is None or f.verdict in (Verdict.PASS, Verdict.CONVENTION):
            return (
                f"{self.candidate} is right: all {n} results lie within the bound that "
                f"every correct implementation meets ({self.scope})."
            )
        bad = sum(g.verdict is f.verdict for g in self.counted)
        said = conclusion(self.diagnosis, self.findings)
        if f.verdict is Verdict.WRONG and said:
            return f"{self.candidate} is wrong. {said}"
        return (
            f"{self.candidate} is graded {f.verdict}: {f.text}, "
            f"in {bad} of {n} results; first: {f.case}."
        )

    @property
    def scope(self) -> str:
        """What was graded."""
        return "forward and gradients" if self.has_grad else "forward only"

    def text(self) -> str:
        """The sentence, and a line for each group."""
        lines = [line.text() for line in self.lines]
        why = [f"  {line}" for line in evidence(self.diagnosis)]
        why += [""] if why else []
        time = [self.timing, ""] if self.timing else []
        end = [f"Repeat it: {self.command}"]
        return "\n".join([self.sentence, "", *why, *lines, "", *time, *end])

    def script(self) -> str:
        """The smallest failing case as a script; empty when there is none.

        It is there after grading with `smallest`, unless the candidate is a
        function that only the calling process holds.
        """
        if self.smallest is None or "(" in self.candidate:
            return ""
        return reproduction(self.candidate, self.array, self.smallest)

    @property
    def command(self) -> str:
        """What repeats this grade; a file of gaps has to be named anew."""
        words = ["refdcn grade", self.candidate]
        if set(self.dtypes) != {"float64", "float32", "float16"}:
            words += ["--dtype", *self.dtypes]
        words += ["--precision", self.precision] if self.precision else []
        words += ["--array", self.array] if self.array != "numpy" else []
        words += [w for c in self.conventions for w in ("--convention", quote(c))]
        words += ["--strict"] if self.strict else []
        return " ".join([*words, f"--level {self.level} --seed {self.seed}"])

    def json(self) -> str:
        """Everything, for programs."""
        return json.dumps(
            {
                "candidate": self.candidate,
                "verdict": str(self.verdict),
                "exit_code": self.exit_code,
                "sentence": self.sentence,
                "graded": self.scope,
                "diagnosis": {
                    "sentence": conclusion(self.diagnosis, self.findings),
                    **self.diagnosis.json(),
                },
                "seed": self.seed,
                "level": self.level,
                "strict": self.strict,
                "imports": self.imports,
                "confined": self.confined,
                "left_out": self.left_out,
                "left_out_gradients": self.left_out_gradients,
                "timing": self.timing,
                "groups": [
                    {
                        "dtype": line.dtype,
                        "group": line.group,
                        "verdict": str(line.verdict),
                        "cases": len(line.findings),
                        "detail": line.detail,
                    }
                    for line in self.lines
                ],
                "findings": [finding_json(f) for f in self.findings],
            },
            indent=1,
        )


def finding_json(f: Finding) -> dict[str, Any]:
    """One finding; an infinite ratio is written as a word."""
    ratio = f.ratio if f.ratio < float("inf") else "infinite"
    return {
        "case": str(f.case),
        "dtype": f.case.dtype,
        "group": f.case.group,
        "target": f.target,
        "verdict": str(f.verdict),
        "ratio": ratio,
        "text": f.text,
        "choice": f.choice and ": ".join(f.choice),
    }
