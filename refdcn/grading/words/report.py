"""A grade as text: the first sentence, what else is named, one row a group."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from refdcn.grading.judging.finding import Finding, Kind
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.process.inside.candidates import own
from refdcn.grading.process.inside.fetched import CALLS_TORCHVISION, LEAVES_DEVICE
from refdcn.grading.questions.timed import Timing
from refdcn.grading.record import Line, Record
from refdcn.grading.words.command import repeating
from refdcn.grading.words.diagnosis import conclusion, evidence
from refdcn.grading.words.findings import cause, failing, one_line, said

SEEN = {
    CALLS_TORCHVISION: "It calls torchvision's own operator.",
    LEAVES_DEVICE: "It computes on another device than the one it was given.",
}
GROUPS = {
    "exact": "numbers on which every order of evaluation is exact; every bit counts",
    "random": "random sizes and numbers, offsets of four kinds",
    "sizes": "extreme shapes: large kernels, one row, many channels, no padding",
    "optional": "mask or bias left out",
    "layout": "arrays that lie otherwise in memory than in order",
    "repeat": "the same inputs again and others between: nothing may be kept",
    "malformed": "shapes that fit nothing: they must be refused",
    "hostile": "numbers that are not finite, or far away",
    "sweeps": "calls in which one size or value alone is changed",
}
BOUND = "lie within the bound that every correct implementation meets"


def text(record: Record) -> str:
    """The sentence, what stands behind it, a row a group, and how to repeat it."""
    found = errors(record.findings)
    rows = [row(line, record, found) for line in record.lines]
    told = [f"error {k}, {n} times: {text}" for k, text, n in found.values()]
    blocks = [
        [sentence(record)],
        evidence(record.diagnosis),
        aligned(rows),
        told,
        [timing(record.run.timing)] if record.run.timing else [],
        [f"Repeat it: {repeating(record)}"],
    ]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def sentence(record: Record) -> str:
    """The verdict, then what is named without deciding it."""
    more = [*uncounted(record), *remarks(record), *of_hostile(record)]
    return " ".join(dict.fromkeys([headline(record), *more]))


def headline(record: Record) -> str:
    """The counted verdict."""
    verdict = record.verdict
    if verdict is Verdict.NOTHING:
        return nothing(record)
    if verdict in (Verdict.PASS, Verdict.CONVENTION, Verdict.UNCHECKED):
        return right(record)
    f = record.worst_of(record.counted)
    assert f is not None
    told = conclusion(record.diagnosis, record.findings)
    if f.verdict is Verdict.WRONG and told and not f.structural:
        return f"{name(record)} is wrong. {told}"
    bad = sum(g.verdict is f.verdict for g in record.counted)
    return (
        f"{name(record)} is graded {f.verdict}: {said(f)}, in {bad:,} of "
        f"{len(record.counted):,} results{off_by(record, f)}; first: {f.case}."
    )


def right(record: Record) -> str:
    """How much was compared and found right; what was computed unasked."""
    c = record.compared
    if not c.results:
        return f"{name(record)}: no values were asked for, and nothing is wrong."
    run = record.run
    so_far = " as far as it was graded" if run.interrupted or run.over_budget else ""
    unchecked = record.verdict is Verdict.UNCHECKED
    also, more = (", and unchecked", f" {accepted(record)}") if unchecked else ("", "")
    return (
        f"{name(record)} is right{also}{so_far}: all {c.results:,} results of "
        f"{c.calls:,} calls {BOUND} ({scope(record)}).{more}"
    )


def scope(record: Record) -> str:
    """What was graded."""
    return "forward and gradients" if record.has_grad else "forward only"


def accepted(record: Record) -> str:
    """What it computes that fits nothing."""
    asked = [f for f in record.findings if f.case.kind == "malformed"]
    mine = [f for f in asked if f.kind is Kind.ACCEPTED]
    return (
        f"It computes on {len(mine)} of {len(asked)} inputs whose shapes fit nothing; "
        f"first: {mine[0].case.note}."
    )


def nothing(record: Record) -> str:
    """Why no number was compared."""
    due = [f for f in record.findings if f.computes]
    f = record.worst_of(due)
    assert f is not None
    return (
        f"{name(record)} computed nothing: none of {len(due):,} calls gave a number to "
        f"compare; first: {said(f)} ({f.case})."
    )


def off_by(record: Record, f: Finding) -> str:
    """The largest error beside bits that vary."""
    if f.kind not in (Kind.BITS, Kind.UNWRITTEN):
        return ""
    wrong = [g.worst for g in record.counted if g.verdict is Verdict.WRONG and g.worst]
    if not wrong:
        return ""
    errors = [abs(e.got - (e.low + e.high) / 2) for e in wrong]
    finite = [e for e in errors if np.isfinite(e)]
    most = f"by up to {max(finite):.3g}" if len(finite) == len(errors) else "no numbers"
    return f", and values are off {most}" if finite else f", and values are {most}"


def name(record: Record) -> str:
    """The candidate, and how it was reached where it has no name of its own."""
    fork = " (in a fork of the calling process)" if record.run.forked else ""
    device = f" on {record.run.device}" if record.run.device else ""
    return record.candidate + device + fork


def uncounted(record: Record) -> Iterator[str]:
    """What is named without deciding: conventions, halves, declared gaps."""
    wrong = record.verdict <= Verdict.WRONG
    for f in record.findings:
        if f.case.group == "hostile":
            continue
        if f.declared and f.kind is Kind.ERROR:
            yield gap(record, f.declared)
        elif f.declared:
            yield f"Declared convention: {said(f)}."
        elif wrong:
            continue  # what else shows may be the same mistake's work
        elif f.verdict is Verdict.CONVENTION:
            yield f"Convention: {cause(f) or said(f)}."
        elif f.verdict is Verdict.IMPRECISE and not record.counts(f):
            why = cause(f) or "less accurate than float32 intermediates allow"
            yield f"Imprecise in {f.case.dtype}, not counted: {why}."
    met = {f.declared for f in record.findings}
    if unasked := [gap for gap in record.options.all_gaps if gap not in met]:
        yield f"Declared, and nothing asked there: {'; '.join(unasked)}."


def gap(record: Record, declared: str) -> str:
    """A declared gap, how often it was met, and the error of the candidate."""
    inside = [f for f in record.findings if f.declared == declared]
    first = one_line(inside[0].detail)
    return f"Declared gap: {declared} ({len(inside):,} calls refused: {first})."


def cases(n: int) -> str:
    """As a subject, with its verb."""
    return "One case was" if n == 1 else f"{n:,} cases were"


def remarks(record: Record) -> Iterator[str]:
    """What was not asked or not computed, and what its process did."""
    run, options = record.run, record.options
    unchecked = any(f.kind is Kind.ACCEPTED for f in record.findings)
    if unchecked and record.verdict is not Verdict.UNCHECKED:
        yield accepted(record)
    if record.verdict is not Verdict.NOTHING:
        for dtype in record.refused:
            yield f"In {dtype} nothing was computed."
    for package in run.imports:
        if package in SEEN:
            yield SEEN[package]
        elif run.forked or not own(record.candidate, package):
            yield f"It loads {package}, whose operator it may be calling."
    if run.threads:
        some = "a thread" if run.threads == 1 else f"{run.threads} threads"
        yield f"Its import leaves {some} running, so each session loads it anew."
    if run.left_out:
        yield f"{cases(run.left_out)} left out after repeated deaths."
    if run.left_out_gradients:
        n = run.left_out_gradients
        some = "one case" if n == 1 else f"{n:,} cases"
        yield f"The gradients of {some} were left out after repeated deaths."
    if options.only:
        yield f"Only these calls were asked for: {', '.join(options.only)}."
    if run.over_budget:
        spent = f"{options.budget:g} s were spent"
        yield f"{cases(run.over_budget)} left out: {spent}."
    if run.interrupted:
        yield "It was interrupted; this is what was graded until then."


def of_hostile(record: Record) -> Iterator[str]:
    """What an input that is not finite, or far away, does, if that is worse."""
    f = record.worst_of(g for g in record.findings if g.case.group == "hostile")
    if f is None or f.verdict >= min(record.verdict, Verdict.CONVENTION):
        return
    what, told = f.case.note, failing(f) if f.kind is Kind.VALUES else said(f)
    finite = np.isfinite(f.case.x).all() and np.isfinite(f.case.offset).all()
    own_rule = f.verdict is Verdict.WRONG and not finite
    yield (
        f"By its own convention for {what}, {told}."
        if own_rule
        else (f"With {what}: {told}.")
    )
    if not record.options.strict:
        yield "Not counted without --strict."


Errors = dict[str, tuple[int, str, int]]


def alike(f: Finding) -> str:
    """An error without its numbers, which differ from call to call."""
    return re.sub(r"\d+", "0", one_line(f.detail))


def errors(findings: Sequence[Finding]) -> Errors:
    """Each error once: its number, its first text, how often it came."""
    mine = [f for f in findings if f.kind is Kind.ERROR]
    count = Counter(map(alike, mine))
    first: dict[str, str] = {}
    for f in mine:
        first.setdefault(alike(f), one_line(f.detail))
    return {k: (n, first[k], count[k]) for n, k in enumerate(first, 1)}


def row(line: Line, record: Record, found: Errors) -> list[str]:
    """Dtype, group, every verdict with its count, and what stands behind them."""
    counts = ", ".join(f"{n} {verdict}" for verdict, n in line.counts.items())
    if line.dtype in record.refused:
        due = [f for f in line.findings if f.computes]
        numbers = ", ".join(dict.fromkeys(error(f, found) for f in due))
        refusal = f"it refuses {line.dtype}: {numbers}"
        return [line.dtype, line.group, f"{len(due)} unsupported", refusal]
    return [line.dtype, line.group, counts, detail(line, found)]


def error(f: Finding, found: Errors) -> str:
    """A refusal by its number."""
    return f"error {found[alike(f)][0]}"


def detail(line: Line, found: Errors) -> str:
    """One reason for each verdict; where all is right, how near to the bound."""
    if line.verdict is Verdict.PASS:
        return of_right(line)
    parts: list[str] = []
    for verdict in line.counts:
        mine = [f for f in line.of(verdict) if f.kind is not Kind.RIGHT]
        refused = verdict is Verdict.UNSUPPORTED
        told = [error(f, found) if refused else said(f) for f in mine]
        distinct = list(dict.fromkeys(told))
        if verdict is not Verdict.PASS:
            several = refused or verdict is Verdict.CONVENTION
            parts += distinct if several else distinct[:1]
    return "; ".join(parts)


def of_right(line: Line) -> str:
    """What a group without any failure shows."""
    numbers = sum(f.values for f in line.findings)
    if line.group == "malformed":
        return "wrong shapes are refused"
    if line.group == "exact":
        return f"0 of {numbers:,} values differ"
    ratio = max(f.ratio for f in line.findings)
    made = [f"{f.choice[0]}: {f.choice[1]}" for f in line.findings if f.choice]
    return "; ".join([f"at most {ratio:.2f} of the bound", *dict.fromkeys(made)])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their longest cell."""
    width = [max(map(len, cells)) for cells in zip(*rows, strict=True)][:-1]
    pad = [[c.ljust(w) for c, w in zip(r, width, strict=False)] for r in rows]
    return ["  ".join([*p, r[-1]]).rstrip() for p, r in zip(pad, rows, strict=True)]


def timing(found: Timing) -> str:
    """The times of the calls after the first, and their floor."""
    low, middle = min(found.seconds), float(np.median(found.seconds))
    return (
        f"Timed, from request to reply: median {1e3 * middle:.3g} ms, fastest "
        f"{1e3 * low:.3g} ms of {len(found.seconds)} calls ({found.case}); this "
        f"machine needs {1e3 * found.floor:.3g} ms at least."
    )
