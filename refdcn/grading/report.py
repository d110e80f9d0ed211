"""A grade for its readers: text for people, JSON for programs, a script."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from refdcn.grading.judging.finding import Finding
from refdcn.grading.record import Line, Record
from refdcn.grading.words import report as words
from refdcn.grading.words.diagnosis import conclusion
from refdcn.grading.words.findings import said


@dataclass(frozen=True)
class Report(Record):
    """The verdicts on one candidate; `text()`, `json()`, `exit_code`."""

    @property
    def sentence(self) -> str:
        """The verdict as one sentence, and what else is named."""
        return words.sentence(self)

    @property
    def scope(self) -> str:
        """What was graded."""
        return words.scope(self)

    def headline(self) -> str:
        """The counted verdict."""
        return words.headline(self)

    def text(self) -> str:
        """The sentence, and a line for each group."""
        return words.text(self)

    def json(self) -> str:
        """Everything, for programs: the facts typed, the sentences beside them."""
        d, run = self.diagnosis, asdict(replace(self.run, timing=None))
        timing = self.run.timing and self.run.timing._asdict()
        told = {
            "candidate": run.pop("candidate"),
            "verdict": str(self.verdict),
            "exit_code": self.exit_code,
            "sentence": self.sentence,
            "graded": self.scope,
            "compared": asdict(self.compared),
            "options": asdict(self.options),
            **run | {"timing": timing},
            "diagnosis": {"sentence": conclusion(d, self.findings)} | d.json(),
            "groups": [line_json(line) for line in self.lines],
            "findings": [finding_json(f) for f in self.findings],
        }
        return json.dumps(plain(told), indent=1, allow_nan=False)


def line_json(line: Line) -> dict[str, Any]:
    """One row of the table."""
    return {
        "dtype": line.dtype,
        "group": line.group,
        "verdict": str(line.verdict),
        "cases": len(line.findings),
        "counts": {str(v): n for v, n in line.counts.items()},
    }


def finding_json(f: Finding) -> dict[str, Any]:
    """One finding; what has nothing to say is left out."""
    told = {
        "case": str(f.case),
        "dtype": f.case.dtype,
        "group": f.case.group,
        "target": f.target,
        "verdict": str(f.verdict),
        "kind": str(f.kind),
        "ratio": f.ratio,
        "values": f.values,
    }
    more = {
        "failing": f.failures,
        "worst": f.worst and f.worst._asdict(),
        "measured": f.measured,
        "defined": f.defined,
        "detail": f.detail,
        "faults": list(f.faults),
        "cause": f.cause and f.cause._asdict(),
        "choice": f.choice and dict([f.choice]),
        "declared": f.declared,
        "text": said(f),
    }
    return told | {key: value for key, value in more.items() if value not in EMPTY}


EMPTY: tuple[Any, ...] = (None, "", [], 0)


def plain(value: Any) -> Any:
    """As JSON can hold it: infinities and NaN as words, tuples as lists."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not abs(value) < float("inf"):
        return {float("inf"): "infinite", -float("inf"): "-infinite"}.get(value, "nan")
    return value
