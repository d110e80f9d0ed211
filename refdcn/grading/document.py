"""A grade as data that JSON can hold: facts typed, the sentences beside them.

`showing/report.schema.json` says what is in it. Whoever renames or removes something
there counts SCHEMA up; what is added needs no new number.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from refdcn.grading.evidence.channels import Reading
from refdcn.grading.evidence.evidence import Evidence
from refdcn.grading.evidence.fields import Field
from refdcn.grading.evidence.reads import Parts, Pixel, Sample
from refdcn.grading.expected.case import NAMES, Array, Case
from refdcn.grading.judging.distance import EDGES, first_failure
from refdcn.grading.judging.finding import Finding
from refdcn.grading.judging.verdicts import Verdict, worst
from refdcn.grading.process.inside.candidates import BUILT_IN
from refdcn.grading.record import Line, Record
from refdcn.grading.source import source_of
from refdcn.grading.words import pictures
from refdcn.grading.words import report as words
from refdcn.grading.words.command import repeating
from refdcn.grading.words.diagnosis import conclusion, evidence
from refdcn.grading.words.findings import said
from refdcn.machine import machine

SCHEMA = 1
SHOWN = 400  # numbers of an input that are listed


def told(record: Record) -> dict[str, Any]:
    """The whole of a grade."""
    d, run = record.diagnosis, asdict(replace(record.run, timing=None, beside=()))
    errors = words.errors(record.findings)
    why = {"sentence": conclusion(d, record.findings), "evidence": evidence(d)}
    return dict(
        plain(
            {
                "schema": SCHEMA,
                "candidate": run.pop("candidate"),
                "verdict": str(record.verdict),
                "exit_code": record.exit_code,
                "sentence": words.sentence(record),
                "graded": words.scope(record),
                "compared": asdict(record.compared),
                "options": asdict(record.options),
                "repeat": repeating(record),
                "environment": machine(),
                "source": source(record),
                **run,
                **times(record),
                "diagnosis": why | d.json(),
                "groups": [line_json(line, record, errors) for line in record.lines],
                "findings": [finding_json(f, record) for f in record.findings],
                "accuracy": accuracy(record),
                "smallest": smallest_json(record.smallest),
                "evidence": evidence_json(record.evidence),
            }
        )
    )


def source(record: Record) -> dict[str, Any] | None:
    """Where the candidate, or the companion that fails, begins."""
    if record.candidate in BUILT_IN:
        return None
    f = record.worst_of(record.counted)
    found = source_of(record.candidate, f is not None and f.of_gradients)
    return found and found._asdict()


def times(record: Record) -> dict[str, Any]:
    """Of the candidate, and of others on the same calls."""
    timing = record.run.timing
    others = [
        b._asdict()
        | {"timing": b.timing and b.timing._asdict()}
        | {"verdict": None if b.verdict is None else str(b.verdict)}
        for b in record.run.beside
    ]
    return {"timing": timing and timing._asdict(), "beside": others}


def line_json(line: Line, record: Record, errors: words.Errors) -> dict[str, Any]:
    """One row of the table."""
    return {
        "dtype": line.dtype,
        "group": line.group,
        "means": words.GROUPS.get(line.group, ""),
        "verdict": str(line.verdict),
        "counted": str(worst(f.verdict for f in line.findings if record.counts(f))),
        "cases": len(line.findings),
        "counts": {str(v): n for v, n in line.counts.items()},
        "text": words.row(line, record, errors)[-1],
    }


def finding_json(f: Finding, record: Record) -> dict[str, Any]:
    """One finding; what has nothing to say is left out."""
    told = {
        "case": str(f.case),
        "dtype": f.case.dtype,
        "group": f.group,
        "target": f.target,
        "verdict": str(f.verdict),
        "counted": record.counts(f),
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


def accuracy(record: Record) -> dict[str, Any]:
    """Errors in units of the bound: how many up to each edge, and beyond the last."""
    rows = [
        {
            "dtype": dtype,
            "target": target,
            "counts": list(counts),
            "largest": max(
                f.ratio
                for f in record.findings
                if (f.case.dtype, f.target) == (dtype, target) and f.spread
            ),
        }
        for (dtype, target), counts in record.accuracy.items()
    ]
    return {"edges": list(EDGES), "rows": rows}


def case_json(case: Case) -> dict[str, Any]:
    """Its sizes under their names."""
    return {"text": str(case), "dtype": case.dtype, "sizes": case.sizes._asdict()}


def smallest_json(f: Finding | None) -> dict[str, Any] | None:
    """The smallest failing case with its numbers."""
    if f is None:
        return None
    arrays = dict(zip(NAMES, f.case.inputs, strict=True))
    if f.of_gradients:
        arrays["grad_y"] = f.case.grad_y
    return {
        "case": case_json(f.case),
        "target": f.target,
        "verdict": str(f.verdict),
        "text": said(f),
        "worst": written(worst_element(f), f.case),
        "windows": f.case.windows,
        "inputs": {name: listed(a) for name, a in arrays.items()},
    }


def worst_element(f: Finding) -> dict[str, Any] | None:
    """What came and what must come, of a value that is imprecise alone, too."""
    if f.worst is None and f.failing is not None and f.got is not None and f.expected:
        return first_failure(~f.failing, f.got, f.expected.range(f.target))._asdict()
    return f.worst and f.worst._asdict()


def written(worst: dict[str, Any] | None, case: Case) -> dict[str, Any] | None:
    """What came as the shortest decimal that its dtype rounds to it."""
    return worst and worst | {"got": shortest(case.x.dtype.type(worst["got"]))}


def shortest(value: np.floating[Any]) -> float:
    """0.1 of float32 is no 0.10000000149011612, which only float64 needs."""
    return float(str(value))


def listed(a: Array | None) -> dict[str, Any] | None:
    """An array with its numbers, if they are few, each to be copied as it is."""
    if a is None:
        return None
    if a.size > SHOWN:
        return {"shape": a.shape, "values": None}
    flat = [shortest(v) for v in a.reshape(-1)]
    return {"shape": a.shape, "values": np.array(flat).reshape(a.shape).tolist()}


def evidence_json(e: Evidence) -> dict[str, Any] | None:
    """What is drawn of a failing case."""
    if e.finding is None:
        return None
    f, parts = e.finding, e.parts
    H, W = f.case.x.shape[2:]
    return {
        "case": case_json(f.case),
        "target": f.target,
        "text": said(f),
        "fields": [field_json(field) for field in e.fields],
        "parts": parts and parts_json(parts, f.case),
        "element": e.element,
        "channel": e.channel,
        "sampling": pictures.sampling(e),
        "samples": [sample_json(s, H, W) for s in e.samples],
        "channels": [reading_json(r) for r in e.channels],
    }


def parts_json(parts: Parts, case: Case) -> dict[str, Any]:
    """How many outputs fail by each weight alone, of each group one."""
    many = len(parts.failing)
    whole = many < case.weight.shape[1]  # all channels together
    names = [pictures.of_part(None if whole else c, case.sizes) for c in range(many)]
    failing = parts.failing.tolist()
    return {"failing": failing, "of": parts.outputs, "names": names}


def reading_json(r: Reading) -> dict[str, Any]:
    """The input channels that one output must read, and reads."""
    texts = pictures.listed(r.defined), pictures.listed(r.read)
    return {**r._asdict(), "defined_text": texts[0], "read_text": texts[1]}


def field_json(f: Field) -> dict[str, Any]:
    """The cells of one pair of axes."""
    arrays = {
        name: getattr(f, name).tolist() for name in ("values", "failing", "ratio")
    }
    return {
        "target": f.target,
        "axes": f.axes,
        "sizes": f.sizes,
        **arrays,
        "text": pictures.of_field(f),
    }


def sample_json(s: Sample, H: int, W: int) -> dict[str, Any]:
    """One tap: where it must read, and what it reads."""

    def pixels(some: tuple[Pixel, ...] | None) -> list[dict[str, Any]] | None:
        return None if some is None else [p._asdict() for p in some]

    return {
        "tap": s.tap,
        "offset": s.offset,
        "mask": s.mask,
        "position": s.position,
        "corners": pixels(s.corners),
        "reads": pixels(s.reads),
        "found": s.found,
        "right": s.right,
        "text": pictures.difference(s),
        "defined_text": pictures.pixels(s.corners, H, W),
        "read_text": pictures.pixels(s.reads, H, W),
    }


def plain(value: Any) -> Any:
    """As JSON can hold it: infinities and NaN as words, tuples as lists."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Verdict):
        return str(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not abs(value) < float("inf"):
        return {float("inf"): "infinite", -float("inf"): "-infinite"}.get(value, "nan")
    return value
