"""Grades a candidate: runs the suite through it and gathers the findings."""

from __future__ import annotations

import secrets
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from zlib import crc32

import numpy as np
from threadpoolctl import threadpool_limits

from refdcn.grading.diagnosis.diagnosis import diagnose
from refdcn.grading.diagnosis.recheck import recheck
from refdcn.grading.diagnosis.reduce import altered, smallest
from refdcn.grading.expected.case import NAMES, Case
from refdcn.grading.expected.precision import standard
from refdcn.grading.judging import declared, judge
from refdcn.grading.judging.judge import Finding
from refdcn.grading.judging.lower_precision import explain_precision
from refdcn.grading.judging.verdicts import Verdict, worst
from refdcn.grading.process.isolation import (
    FIRST,
    INTRUDED,
    MEMORY,
    SECOND,
    SECONDS,
    Forked,
    InProcess,
    Outcome,
    Process,
)
from refdcn.grading.questions import suite, sweeps, timed
from refdcn.grading.report import Report
from refdcn.grading.script import shows

Runner = Process | InProcess
ELSEWHERE = 2**28  # a second address for the inputs
GIVE_UP = 3  # deaths or timeouts in one group before its rest is left out
HANGS = 6  # timeouts in all before everything else is left out


@dataclass(frozen=True)
class Options:
    """What a grade is asked for; `grade` documents them."""

    level: str = "smoke"
    dtypes: tuple[str, ...] = ("float64", "float32", "float16")
    precision: str | None = None
    conventions: Mapping[str, str] = field(default_factory=dict)
    gaps: tuple[str, ...] = ()
    seed: int = 0
    strict: bool = False
    array: str = "numpy"
    timeout: float = SECONDS
    memory: int = MEMORY
    timed: int = 0
    smallest: bool = False
    progress: bool = False

    @property
    def border(self) -> str:
        """The declared border rule."""
        return self.conventions.get("border", "corners")


class Progress:
    """What is done, and a bar on standard error, where someone may be looking."""

    def __init__(self, total: int, show: bool) -> None:
        self.done, self.total, self.show = 0, total, show and sys.stderr.isatty()
        self.left_out = 0  # cases not called after repeated deaths
        self.left_out_gradients = 0  # of their gradients alone

    def step(self, what: str) -> None:
        """One more case is done."""
        self.done += 1
        if self.show:
            full = 30 * self.done // max(1, self.total)
            bar = "#" * full + "." * (30 - full)
            sys.stderr.write(f"\r[{bar}] {self.done}/{self.total} {what:<24.24}")
            sys.stderr.flush()

    def close(self) -> None:
        """Leave a clean line."""
        if self.show:
            sys.stderr.write("\r" + " " * 72 + "\r")


def run_forward(runner: Runner, expected: suite.Expected) -> Finding:
    """Call the candidate on a case, and again on the same values elsewhere."""
    case = expected.case
    outcome = runner.call(case, pattern=FIRST)
    finding = judge.forward(expected, outcome)
    passed = finding.verdict is Verdict.PASS and case.kind != "malformed"
    wrong = finding.verdict is Verdict.WRONG and case.group == "repeat"
    if passed or (wrong and finding.got is not None):
        again = runner.call(case, at=ELSEWHERE, pattern=SECOND)
        repeated = judge.forward(expected, again)
        if repeated.verdict < finding.verdict:
            return repeated
        return repeat_finding(case, "y", outcome, again) or finding
    return finding


def run_gradients(runner: Runner, expected: suite.Expected) -> list[Finding]:
    """The five gradients, where the candidate has them."""
    case = expected.case
    if not runner.has_grad or case.kind not in ("bound", "exact"):
        return []
    outcome = runner.call(case, "grad")
    findings = judge.gradients(expected, outcome)
    verdict = worst(f.verdict for f in findings)
    if case.group != "repeat" or verdict <= Verdict.INTEGRITY:
        return findings
    again = runner.call(case, "grad", at=ELSEWHERE, pattern=SECOND)
    repeated = judge.gradients(expected, again)
    if worst(f.verdict for f in repeated) < verdict:
        return repeated
    found = repeat_finding(case, "gradients", outcome, again)
    return findings + ([found] if found else [])


def repeat_finding(
    case: Case, target: str, first: Outcome, again: Outcome
) -> Finding | None:
    """The finding when a repeat gives other bits."""
    pairs = zip(first.results, again.results, strict=False)
    other = [(a, b) for a, b in pairs if not same_bits(a, b)]
    if not other:
        return None
    text = "a repeat with the same inputs gave other bits"
    lost = sum(unwritten(a, FIRST) for a, _ in other)
    if lost:
        text = f"{lost} values were never written ({text})"
    if target == "gradients":
        text = judge.COMPANION + text
    found = Finding(case, target, Verdict.INTEGRITY, text)
    if not lost:
        found.choice = ("bits", "vary")
    return found


def unwritten(a: Any, pattern: int) -> int:
    """The elements that still hold the grader's pattern."""
    width = a.dtype.itemsize
    rows = np.ascontiguousarray(a).view(np.uint8).reshape(a.size, width)
    return int(np.count_nonzero((rows == pattern).all(1)))


def same_bits(a: Any, b: Any) -> bool:
    """Equal as bits, so that NaN equals itself."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return True  # no array at all: another verdict's matter
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def interleaved(
    runner: Runner, a: suite.Expected, b: suite.Expected, which: str = "forward"
) -> Iterator[Finding]:
    """A, B, A at one address, one element changed, and a call of nothing at all."""
    right: list[tuple[suite.Expected, str, Any]] = []
    outcomes: list[Outcome] = []
    for k, expected in enumerate((a, b, a, *touched(a, which))):
        outcome = runner.call(expected.case, which, pattern=FIRST - k)
        outcomes.append(outcome)
        for finding in judged(expected, outcome, which):
            got = answered(outcome, finding.target)
            if finding.verdict is Verdict.PASS:
                right.append((expected, finding.target, got))
            elif finding.got is not None:
                finding = stale(expected, finding.target, got, right) or finding
            yield finding
    target = "y" if which == "forward" else "gradients"
    found = repeat_finding(a.case, target, outcomes[0], outcomes[2])
    if found is not None:
        yield found
    ghosts = judged(a, runner.call(a.case, which, ghost=True), which)
    if worst(f.verdict for f in ghosts) > Verdict.WRONG:
        text = "memory that nobody wrote holds the right answer"
        yield Finding(a.case, target, Verdict.INTEGRITY, text)


def judged(expected: suite.Expected, outcome: Outcome, which: str) -> list[Finding]:
    """The verdicts on one call's results."""
    if which == "forward":
        return [judge.forward(expected, outcome)]
    return judge.gradients(expected, outcome)


def answered(outcome: Outcome, target: str) -> Any:
    """What came for one target; None where nothing did."""
    if outcome.status != "ok" or target == "gradients":
        return None
    k = 0 if target == "y" else suite.TARGETS.index(target)
    return outcome.results[k]


def stale(
    now: suite.Expected,
    target: str,
    got: Any,
    earlier: Sequence[tuple[suite.Expected, str, Any]],
) -> Finding | None:
    """The finding when an answer was right in an earlier call, and is wrong now."""
    for before, of, answer in earlier:
        if of != target or not same_bits(got, answer):
            continue
        one, other = now.range(target), before.range(target)
        apart = np.maximum(one.low - other.high, other.low - one.high)
        if (apart > one.bound + other.bound).any():
            text = "it returned the answer to an earlier call, whose values were others"
            if target != "y":
                text = judge.COMPANION + text
            return Finding(now.case, target, Verdict.INTEGRITY, text)
    return None


@lru_cache(maxsize=16)
def touched(a: suite.Expected, which: str) -> tuple[suite.Expected, ...]:
    """Each input in turn with one element changed, drawn from the values."""
    case, found = a.case, []
    rng = np.random.default_rng(crc32(case.x.tobytes()))
    for name in (*NAMES, "grad_y") if which == "grad" else NAMES:
        array = getattr(case, name)
        if array is None or not array.size:
            continue
        changed = array.copy()
        k = int(rng.integers(array.size))
        # A power of two: exact in every dtype, and not close to what it was.
        changed.reshape(-1)[k] = -2 if changed.reshape(-1)[k] > 0 else 2
        one = replace(case, note=f"one element of {name} anew")
        found.append(suite.Expected(altered(one, name, changed), a.standard, a.border))
    return tuple(found)


class Patience:
    """Deaths and timeouts so far; calls that repeat them are left out."""

    def __init__(self) -> None:
        self.deaths: Counter[tuple[str, str]] = Counter()
        self.hangs: Counter[str] = Counter()

    def over(self, case: Case, which: str) -> bool:
        """Whether the rest of its group is not worth a call."""
        group = which, f"{case.dtype} {case.group}"
        return self.deaths[group] >= GIVE_UP or self.hangs[which] >= HANGS

    def note(self, case: Case, which: str, found: Sequence[Finding]) -> None:
        """Count what a case's calls came to."""
        verdict = worst(f.verdict for f in found)
        lost = verdict <= Verdict.TIMEOUT or any(INTRUDED in f.text for f in found)
        self.deaths[which, f"{case.dtype} {case.group}"] += lost
        self.hangs[which] += verdict is Verdict.TIMEOUT


def run(
    runner: Runner, cases: Sequence[suite.Expected], progress: Progress
) -> Iterator[Finding]:
    """The findings of every case; a group that keeps dying is cut short.

    A companion that dies costs its own calls, not those of the forward.
    """
    patience = Patience()
    last: suite.Expected | None = None  # the first of two with the same shapes
    for expected in cases:
        case = expected.case
        progress.step(case.group)
        if patience.over(case, "forward"):
            progress.left_out += 1
            continue
        pair = (last, expected) if case.group == "repeat" and last else None
        found = asked(runner, expected, "forward", pair)
        patience.note(case, "forward", found)
        yield from found
        if found[0].verdict > Verdict.INTEGRITY and patience.over(case, "grad"):
            progress.left_out_gradients += runner.has_grad
        elif found[0].verdict > Verdict.INTEGRITY:
            found = asked(runner, expected, "grad", pair)
            patience.note(case, "grad", found)
            yield from found
        if case.group == "repeat":
            last = expected if last is None else None


def asked(
    runner: Runner,
    expected: suite.Expected,
    which: str,
    pair: tuple[suite.Expected, suite.Expected] | None,
) -> list[Finding]:
    """One function's findings on a case, and on two cases one after another."""
    if which == "forward":
        found = [run_forward(runner, expected)]
    else:
        found = run_gradients(runner, expected)
    if found and pair and worst(f.verdict for f in found) > Verdict.INTEGRITY:
        found += interleaved(runner, *pair, which)
    return found


@lru_cache(maxsize=8)
def prepare_one(
    seed: int, dtype: str, level: str, precision: str | None, border: str
) -> tuple[suite.Expected, ...]:
    """The cases of one dtype; their oracles are computed once for a seed."""
    bounds = standard(dtype, precision)
    cases = suite.cases(seed, dtype, level)
    return tuple(suite.Expected(case, bounds, border) for case in cases)


def prepare(
    seed: int,
    dtypes: Sequence[str],
    level: str,
    precision: str | None = None,
    border: str = "corners",
) -> list[suite.Expected]:
    """The cases of every dtype, one after another."""
    found = (prepare_one(seed, d, level, precision, border) for d in dtypes)
    return [expected for cases in found for expected in cases]


def grade(
    candidate: str | Callable[..., Any],
    *,
    grad: Callable[..., Any] | None = None,
    level: str = "smoke",
    dtypes: Sequence[str] = ("float64", "float32", "float16"),
    precision: str | None = None,
    conventions: Sequence[str] = (),
    gaps: Sequence[str] = (),
    seed: int | None = None,
    strict: bool = False,
    array: str = "numpy",
    timeout: float = SECONDS,
    memory: int = MEMORY,
    timed: int = 0,
    smallest: bool = False,
    progress: bool = False,
) -> Report:
    """Grade an implementation of Eq. (1) against the definition.

    candidate: "torchvision", "module:function", "path/to/file.py:function" or
    a function, called as f(x, offset, weight, mask, bias, stride=(..),
    padding=(..), dilation=(..)) on NumPy arrays. grad: the companion of a
    function, f_grad(grad_y, x, ...); one beside it in its module, named after
    it, is found without. level: "smoke", "full" or "paranoid". precision: one
    of "fp64", "fp32", "tf32", "bf16", "fp16" when it is another than the
    dtype's own. conventions: "border=inside", ... that it keeps. gaps:
    "groups > 1", ... that it may refuse. array: "torch" for one on torch
    tensors, whose gradients are autograd's. seed: None draws a fresh one,
    which the report names; a second grade with the same one computes no
    expectation anew. timeout: seconds for one call. memory: bytes that one
    call may allocate (Linux). timed: calls of a larger case that are timed and
    held to the machine's roofline. smallest: reduce the worst failing case.
    Raises CannotStartError when the candidate cannot be loaded.

    >>> from refdcn import formula
    >>> from refdcn.grading import grade
    >>> grade("refdcn.formula:deform_conv2d", dtypes=["float32"]).exit_code
    0
    """
    options = Options(
        level,
        tuple(dtypes),
        precision,
        declared.parse_conventions(conventions),
        tuple(gaps),
        secrets.randbelow(2**32) if seed is None else seed,
        strict,
        array,
        timeout,
        memory,
        timed,
        smallest,
        progress,
    )
    fitting(candidate, grad, options)
    o = options
    cases = prepare(o.seed, o.dtypes, o.level, o.precision, o.border)
    # Products here are small: threads of BLAS would wait for one another.
    # What a candidate returns may be any bits, signalling NaN included.
    with threadpool_limits(1, "blas"), np.errstate(invalid="ignore", over="ignore"):
        spec, runner = attach(candidate, grad, options, foresee(cases))
        try:
            return examine(spec, runner, options, cases)
        finally:
            runner.close()


def fitting(candidate: object, grad: object, options: Options) -> None:
    """Raise DeclarationError where two arguments exclude each other."""
    on_torch = options.array == "torch"
    if grad is not None and isinstance(candidate, str):
        raise declared.DeclarationError(
            f"grad is a function though candidate is the name {candidate!r}; it must "
            "be None, since a named candidate has its companion beside it"
        )
    if grad is not None and on_torch:
        raise declared.DeclarationError(
            "grad is a function though array is 'torch'; it must be None, since "
            "gradients of torch tensors are autograd's"
        )
    if "bfloat16" in options.dtypes and not on_torch:
        raise declared.DeclarationError(
            "dtypes holds bfloat16, which NumPy arrays cannot; array must be 'torch'"
        )


def foresee(cases: Sequence[suite.Expected]) -> Iterator[None]:
    """Compute expectations, one a step, while the candidate loads."""
    for expected in cases:
        if expected.case.kind in ("bound", "exact"):
            expected.range("y")
            yield
            if expected.case.grad_y is not None:
                expected.range("grad_x")
            yield


def examine(
    spec: str, runner: Process, options: Options, cases: Sequence[suite.Expected]
) -> Report:
    """Everything that is asked of a candidate that runs."""
    o = options
    bar = Progress(len(cases), o.progress)
    # The definition's gradients are those of its own border.
    runner.has_grad = runner.has_grad and o.border == "corners"
    report = Report(
        spec, o.seed, o.level, o.dtypes, o.strict, [], runner.has_grad, o.precision
    )
    report.array = o.array
    report.conventions = tuple(f"{k}={v}" for k, v in o.conventions.items())
    try:
        report.findings += run(runner, cases, bar)
        further(runner, report, o)
        explain_precision(report.findings)
        declared.apply(report.findings, o.conventions, o.gaps)
        if report.verdict is not Verdict.INTEGRITY:  # else values mean little
            report.findings, measured = recheck(runner, report.findings)
            usual = [f for f in report.findings if f.case.group != "timed"]
            report.diagnosis = diagnose(runner, usual, measured)
        if o.smallest:
            report.smallest = reduced(runner, report, o)
    finally:
        bar.close()
    report.left_out, report.left_out_gradients = bar.left_out, bar.left_out_gradients
    report.confined = runner.confined
    report.imports = sorted(runner.imports)
    return report


def further(runner: Process, report: Report, options: Options) -> None:
    """Sweeps, and timed calls of a larger case."""
    o = options
    swept = sweeps.chosen(o.dtypes)
    if swept is not None and o.border == "corners":
        bounds = standard(swept, o.precision)
        report.findings += sweeps.run(runner, bounds, o.seed, swept, o.level)
    if o.timed:
        dtype = "float32" if "float32" in o.dtypes else o.dtypes[0]
        bounds = standard(dtype, o.precision)
        found, timing = timed.run(runner, o.seed, dtype, bounds, o.border, o.timed)
        report.findings += found
        report.timing = timing.text() if timing else ""


def reduced(runner: Process, report: Report, options: Options) -> Finding | None:
    """The worst finding that a script can show, on its smallest case."""
    shown = [f for f in report.counted if shows(f)]
    if not shown:
        return None
    bad = worst(f.verdict for f in shown)
    worst_ones = [f for f in shown if f.verdict is bad]
    f = min(worst_ones, key=lambda f: (not f.case.x.size, elements(f.case)))
    bounds = standard(f.case.dtype, options.precision)
    f = smallest(runner, f, bounds, options.border)
    if f.expected is None and f.case.kind in ("bound", "exact"):
        f.expected = suite.Expected(f.case, bounds, options.border)
    return f


def elements(case: Case) -> int:
    """Of all inputs."""
    return sum(a.size for a in case.inputs if a is not None)


def attach(
    candidate: str | Callable[..., Any],
    grad: Callable[..., Any] | None,
    options: Options,
    meanwhile: Iterator[None],
) -> tuple[str, Process]:
    """The candidate's name and its process: by import where that is possible."""
    limits = options.timeout, options.memory
    spec = candidate if isinstance(candidate, str) else named(candidate, grad)
    if spec is not None:
        return spec, Process(spec, options.array, *limits, meanwhile)
    assert not isinstance(candidate, str)
    forked = Forked(candidate, grad, options.array, *limits)
    return f"{forked.spec} (in a fork of the calling process)", forked


def named(f: Callable[..., Any], grad: Callable[..., Any] | None = None) -> str | None:
    """module:function of a module-level function, None of any other.

    None as well if `grad` is not the companion that is beside it.
    """
    module, name = getattr(f, "__module__", None), getattr(f, "__qualname__", "")
    found = sys.modules.get(module or "")
    if getattr(found, name, None) is not f:
        return None
    if grad is not None and getattr(found, f"{name}_grad", None) is not grad:
        return None
    path = getattr(found, "__file__", None)
    if module == "__main__":
        return f"{path}:{name}" if path else None
    return f"{module}:{name}"
