"""What a grade says: one sentence, one line a group, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from refdcn.grading.candidates import split
from refdcn.grading.cases import NAMES
from refdcn.grading.diagnosis import Diagnosis
from refdcn.grading.judge import Finding
from refdcn.grading.verdicts import EXIT_CODES, Verdict, worst

HALF = "float16", "bfloat16"


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
        if self.verdict is Verdict.PASS:
            values = sum(f.values for f in self.findings)
            if self.group == "malformed":
                return "wrong shapes are refused"
            if self.group == "exact":
                return f"0 of {values:,} values differ"
            ratio = max(f.ratio for f in self.findings)
            return f"at most {ratio:.2f} of the bound"
        texts = [f.text for f in self.findings if f.verdict is self.verdict]
        distinct = list(dict.fromkeys(texts))
        limit = len(distinct) if self.verdict is Verdict.CONVENTION else 1
        return "; ".join(distinct[:limit])

    def text(self) -> str:
        """One line."""
        counted = sum(f.verdict is self.verdict for f in self.findings)
        cases = f"{counted}/{len(self.findings)}"
        return (
            f"{self.dtype:<9}{self.group:<12}{str(self.verdict):<12}{cases:>8}"
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

    @property
    def lines(self) -> list[Line]:
        """By dtype and group, in the order they were run."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for f in self.findings:
            name = f.target if f.target.startswith("grad") else f.case.group
            groups.setdefault((f.case.x.dtype.name, name), []).append(f)
        return [Line(*key, found) for key, found in groups.items()]

    @property
    def counted(self) -> list[Finding]:
        """The findings that decide the verdict."""
        return [f for f in self.findings if self.counts(f)]

    def counts(self, f: Finding) -> bool:
        """Not: declared gaps, imprecise halves nobody declared, lax hostiles."""
        if f.declared or (f.case.kind == "hostile" and not self.strict):
            return False
        half = f.case.x.dtype.name in HALF and self.precision is None
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
        for cause in dict.fromkeys(self.uncounted_causes()):
            said += f" {cause}"
        hostile = [f for f in self.findings if f.case.kind == "hostile"]
        found = self.worst_of(hostile)
        worse = found is not None and found.verdict < self.verdict
        if found is not None and worse and found.verdict < Verdict.CONVENTION:
            what = found.case.note
            text = found.text
            said += f" With {what}: {text}" + ("." if not text.endswith(".") else "")
            said += "" if self.strict else " Not counted without --strict."
        return said

    def uncounted_causes(self) -> Iterator[str]:
        """What is named without deciding: conventions, halves, declared gaps."""
        for f in self.findings:
            name = f.case.x.dtype.name
            if f.case.kind == "hostile":
                continue
            if f.declared:
                yield f"Declared gap: {f.text}."
            elif f.verdict is Verdict.CONVENTION:
                yield f"Convention: {f.cause or f.text}."
            elif f.verdict is Verdict.IMPRECISE and not self.counts(f):
                cause = f.cause or "less accurate than float32 intermediates allow"
                yield f"Imprecise in {name}, not counted: {cause}."

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
        if f.verdict is Verdict.WRONG and self.diagnosis.sentence:
            return f"{self.candidate} is wrong. {self.diagnosis.sentence}"
        return (
            f"{self.candidate} is graded {f.verdict}: {f.text} "
            f"({bad} of {n} results; first: {f.case})."
        )

    @property
    def scope(self) -> str:
        """What was graded."""
        return "forward and gradients" if self.has_grad else "forward only"

    def text(self) -> str:
        """The sentence, and a line for each group."""
        head = f"refdcn grade {self.candidate} --level {self.level} --seed {self.seed}"
        lines = [line.text() for line in self.lines]
        why = [self.diagnosis.text(), ""] if self.diagnosis.text() else []
        return "\n".join([self.sentence, "", *why, *lines, "", f"Repeat it: {head}"])

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
                    "sentence": self.diagnosis.sentence,
                    "mistakes": self.diagnosis.names,
                    "where": self.diagnosis.places,
                    "probes": [f._asdict() for f in self.diagnosis.facts],
                },
                "seed": self.seed,
                "level": self.level,
                "strict": self.strict,
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


def listed(a: Any) -> str:
    """An array as source text that keeps every bit."""
    if a is None:
        return "None"
    data = a.reshape(-1).tolist()
    return f"np.array({data}, {a.dtype.name!r}).reshape({list(a.shape)})".replace(
        "nan", "np.nan"
    )


SCRIPT = '''"""{title}

Needs NumPy and the candidate only; it fails while the candidate is wrong.
"""

import sys

import numpy as np

sys.path.insert(0, ".")
{load}

x = {x}
offset = {offset}
weight = {weight}
mask = {mask}
bias = {bias}
low = {low}
high = {high}
bound = {bound}
{call}
ok = (low - bound <= got) & (got <= high + bound)
print("got", got, "wanted", low, "to", high, sep="\\n")
assert ok.all(), f"{{np.count_nonzero(~ok)}} of {{ok.size}} values are outside"
'''
BY_PATH = """import importlib.util
spec = importlib.util.spec_from_file_location("candidate", {path!r})
candidate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(candidate)
f = candidate.{name}"""


def reproduction(report: Report) -> str:
    """A script of the smallest failing case; empty when nothing failed."""
    failing = [
        f
        for f in report.counted
        if f.got is not None and f.verdict is Verdict.WRONG and f.expected is not None
    ]
    if not failing or "(" in report.candidate:
        return ""
    f = min(failing, key=lambda f: sum(a.size for a in f.case.inputs if a is not None))
    assert f.expected is not None
    want, grad = f.expected.range(f.target), f.target != "y"
    place, name = split(report.candidate)
    name += "_grad" if grad else ""
    load = f"from {place} import {name} as f"
    if place.endswith(".py"):
        load = BY_PATH.format(path=place, name=name)
    arguments = "x, offset, weight, mask, bias"
    windows = ", ".join(f"{k}={v}" for k, v in f.case.windows.items())
    call = f"got = f({arguments}, {windows})"
    if grad:
        at = NAMES.index(f.target[5:])
        call = f"grad_y = {listed(f.case.grad_y)}\n"
        call += f"got = f(grad_y, {arguments}, {windows})[{at}]"
    inputs = dict(zip(NAMES, map(listed, f.case.inputs), strict=True))
    title = f"{report.candidate}: {f.target} is wrong ({f.case})."
    ranges = {k: listed(getattr(want, k)) for k in ("low", "high", "bound")}
    return SCRIPT.format(title=title, load=load, call=call, **inputs, **ranges)


def finding_json(f: Finding) -> dict[str, Any]:
    """One finding; an infinite ratio is written as a word."""
    ratio = f.ratio if f.ratio < float("inf") else "infinite"
    return {
        "case": str(f.case),
        "dtype": f.case.x.dtype.name,
        "group": f.case.group,
        "target": f.target,
        "verdict": str(f.verdict),
        "ratio": ratio,
        "text": f.text,
    }
